//! A copy of one moment, taken while all goes on; and reading everything to see whether it is whole.

use std::{fs, path::Path, sync::Arc};

use bytes::Bytes;

use super::{
    Shared,
    commit::Effects,
    index::Index,
    recovery::{BLOBS, INDEX, LOG, TOPICS},
};
use crate::{
    Error, Report, blobs,
    disk::{OsDisk, create_private_dir},
    file::sync_directory,
    log::Log,
    topics,
    wait::wait,
};

/// Memory for pages while an index is written or read through once.
const CACHE: usize = 8 << 20;

/// Copies the state below `from` into the new directory `into`. Blocking.
pub(crate) fn take(shared: &Arc<Shared>, from: &Path, into: &Path) -> Result<(), Error> {
    if into.exists() {
        let taken = std::io::ErrorKind::AlreadyExists.into();
        return Err(Error::file("make a snapshot in", into, taken));
    }
    // It gets its name when it is whole, so that nobody takes a part for all.
    let mut part = into.as_os_str().to_owned();
    part.push(".part");
    let part = Path::new(&part);
    if part.exists() {
        fs::remove_dir_all(part).map_err(|e| Error::file("remove", part, e))?;
    }
    let copied = fill(shared, from, part)
        .and_then(|()| fs::rename(part, into).map_err(|e| Error::file("rename", part, e)))
        .and_then(|()| sync_directory(into));
    if copied.is_err() {
        // The first failure is the one to tell.
        let _ = fs::remove_dir_all(part);
    }
    copied
}

fn fill(shared: &Arc<Shared>, from: &Path, into: &Path) -> Result<(), Error> {
    create_private_dir(into).map_err(|e| Error::file("create", into, e))?;
    let (theirs, ours) = (from.join(BLOBS), into.join(BLOBS));
    // What a row of the copy refers to was written before the row: it is there at one of two looks,
    // unless its row was deleted in between.
    blobs::snapshot(&OsDisk, &theirs, &ours)?;
    let held = shared.topics.hold();
    let source = wait(shared.desk.ask_for_all()).unwrap_or(Err(Error::Closed))?;
    blobs::snapshot(&OsDisk, &theirs, &ours)?;
    shared
        .topics
        .copy(&held, &source.found.topics, &into.join(TOPICS))?;
    drop(held);
    // The index comes last and reaches as far as the checkpoint just made, so there is no log.
    source.copy(&into.join(INDEX), CACHE)?;
    sync_directory(&into.join(INDEX))
}

/// Reads all of the state below `directory`.
pub(crate) fn check(directory: &Path) -> Result<Report, Error> {
    let path = directory.join(INDEX);
    // Opening would make it.
    fs::metadata(&path).map_err(|e| Error::file("read", &path, e))?;
    let (mut index, found) = Index::open(&path, CACHE)?;
    let mut problems = Vec::new();
    if !index.check()? {
        problems.push(format!("{} had to be repaired", path.display()));
    }
    let mut report = Report {
        rows: index.source()?.check(|problem| problems.push(problem))?,
        ..Report::default()
    };
    let mut unreadable = Vec::new();
    let log = Log::check(
        &OsDisk,
        &directory.join(LOG),
        found.point.position,
        &mut |behind, payload| {
            if let Err(detail) = Effects::of(Bytes::copy_from_slice(payload)) {
                unreadable.push(format!("the log, before {behind}: {detail}"));
            }
            Ok(())
        },
    );
    problems.append(&mut unreadable);
    match log {
        Ok(log) => report.records = log.records,
        Err(error) => problems.push(error.to_string()),
    }
    let disk = Arc::new(OsDisk);
    let topics = topics::check(disk, &directory.join(TOPICS), found.topics, |problem| {
        problems.push(problem);
    });
    match topics {
        Ok(topics) => (report.topics, report.entries) = (topics.topics, topics.entries),
        Err(error) => problems.push(error.to_string()),
    }
    match blobs::check(&OsDisk, &directory.join(BLOBS)) {
        Ok(blobs) => report.blobs = blobs.blobs,
        Err(error) => problems.push(error.to_string()),
    }
    index.close();
    report.problems = problems;
    Ok(report)
}
