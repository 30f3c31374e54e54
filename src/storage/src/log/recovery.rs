//! Finding the log in its directory and reading it: for a start, and for a check.
//!
//! The newest segment is the one of the highest generation. Each names the one before it, down to
//! the one that holds the checkpoint; whatever is not on this way was given up and is a spare. All
//! but the newest must have valid records from their base to the exact base of the next one: that
//! much was acknowledged. The newest ends at the first place without a valid record (`record.rs`
//! says how a torn tail is told from damage).

use std::{
    collections::BTreeMap,
    ops::Range,
    path::{Path, PathBuf},
};

use crate::{Error, disk::Disk};

use super::{
    LogReport, Position,
    record::{Found, Reader},
    segment::{Header, PAGE, Page, START, VERSION},
    spares::file_number,
};

/// Bytes behind the end in which a start looks for proof of damage. A check looks at everything.
const REACH: u64 = 1024 * 1024;

/// Gets each record, with the position behind it.
pub(crate) type Visit<'a> = dyn FnMut(Position, &[u8]) -> Result<(), Error> + 'a;

/// How much to look at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Depth {
    /// What a start needs.
    Start,
    /// Everything, for a check.
    Check,
}

/// A segment of the log.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) path: PathBuf,
    pub(super) header: Header,
    /// The length of the file.
    pub(super) bytes: u64,
}

/// What was found.
#[derive(Debug)]
pub(super) struct Recovered {
    /// The segments from the one that holds the checkpoint on, oldest first.
    pub(super) live: Vec<Segment>,
    /// Where in the newest of them the last group begins and ends.
    pub(super) last_group: Range<u64>,
    /// The highest generation that was used.
    pub(super) generation: u32,
    /// Segments that are not part of the log any more, with their lengths.
    pub(super) spares: Vec<(PathBuf, u64)>,
    /// Files that are of no use.
    pub(super) useless: Vec<PathBuf>,
    /// A number above those of all files.
    pub(super) next_number: u64,
    pub(super) report: LogReport,
}

/// What the directory holds, before anything is made of it.
#[derive(Debug, Default)]
struct Directory {
    segments: BTreeMap<u32, Segment>,
    clean: Vec<(PathBuf, u64)>,
    damaged: Vec<PathBuf>,
    useless: Vec<PathBuf>,
    next_number: u64,
}

/// Reads the log in `directory` from `from` on.
pub(super) fn recover(
    disk: &dyn Disk,
    directory: &Path,
    from: Position,
    depth: Depth,
    visit: &mut Visit<'_>,
) -> Result<Recovered, Error> {
    let mut found = look(disk, directory)?;
    let live = take_live(directory, &mut found.segments, from)?;
    let generation = live.last().map_or(0, |segment| segment.header.generation);
    for path in &found.damaged {
        refuse_lost_segment(disk, path, generation)?;
    }
    let mut report = LogReport {
        segments: live.len(),
        records: 0,
        end: from,
        torn: false,
    };
    let mut last_group = START..START;
    let mut rest = live.as_slice();
    while let [segment, behind @ ..] = rest {
        let next = behind.first().map(|next| next.header.base);
        last_group = read(disk, segment, next, from, depth, &mut report, visit)?;
        rest = behind;
    }
    let mut spares = found.clean;
    spares.extend(found.segments.into_values().map(|s| (s.path, s.bytes)));
    found.useless.append(&mut found.damaged);
    Ok(Recovered {
        live,
        last_group,
        generation,
        spares,
        useless: found.useless,
        next_number: found.next_number,
        report,
    })
}

fn look(disk: &dyn Disk, directory: &Path) -> Result<Directory, Error> {
    let mut found = Directory::default();
    let entries = disk
        .list(directory)
        .map_err(|e| Error::file("read", directory, e))?;
    for entry in entries {
        let path = directory.join(&entry.name);
        let Some((number, whole)) = file_number(&entry.name) else {
            continue;
        };
        found.next_number = found.next_number.max(number.saturating_add(1));
        if !whole || entry.bytes < START {
            found.useless.push(path);
            continue;
        }
        let mut page = vec![0; PAGE];
        disk.open_read(&path)
            .and_then(|file| file.read_exact_at(&mut page, 0))
            .map_err(|e| Error::file("read", &path, e))?;
        match Page::decode(&page) {
            Page::Clean => found.clean.push((path, entry.bytes)),
            Page::Damaged => found.damaged.push(path),
            Page::Newer(version) => {
                return Err(Error::NewerFile {
                    path,
                    found: version,
                    known: VERSION,
                });
            }
            Page::Valid(header) => {
                let segment = Segment {
                    path: path.clone(),
                    header,
                    bytes: entry.bytes,
                };
                if let Some(other) = found.segments.insert(header.generation, segment) {
                    return Err(Error::Damaged {
                        path,
                        detail: format!("it claims to be the same as {}", other.path.display()),
                    });
                }
            }
        }
    }
    Ok(found)
}

/// Goes from the newest segment back to the one that holds `from`, and takes them out.
fn take_live(
    directory: &Path,
    segments: &mut BTreeMap<u32, Segment>,
    from: Position,
) -> Result<Vec<Segment>, Error> {
    let mut live = Vec::new();
    let mut newer = segments.pop_last().map(|(_, segment)| segment);
    while let Some(segment) = newer {
        let Header { base, previous, .. } = segment.header;
        live.push(segment);
        if base <= from.0 {
            break;
        }
        newer = segments.remove(&previous);
        let in_order = newer.as_ref().is_some_and(|n| n.header.base <= base);
        if !in_order {
            return Err(Error::Damaged {
                path: directory.to_owned(),
                detail: format!(
                    "the segment that ends at {base} is missing; the checkpoint needs the log from {from}"
                ),
            });
        }
    }
    live.reverse();
    Ok(live)
}

/// Reads one segment, up to `next` if another follows it. Answers where its last group is.
fn read(
    disk: &dyn Disk,
    segment: &Segment,
    next: Option<u64>,
    from: Position,
    depth: Depth,
    report: &mut LogReport,
    visit: &mut Visit<'_>,
) -> Result<Range<u64>, Error> {
    let failed = |e| Error::file("read", &segment.path, e);
    let damaged = |detail| Error::Damaged {
        path: segment.path.clone(),
        detail,
    };
    let base = segment.header.base;
    let position = |offset: u64| base.saturating_add(offset.saturating_sub(START));
    let offset = |position: u64| START.saturating_add(position.saturating_sub(base));
    let mut reader = disk
        .open_read(&segment.path)
        .and_then(|file| Reader::new(file, segment.header))
        .map_err(failed)?;
    let end = next.map(offset);
    let start = offset(from.0.max(base));
    let mut at = match depth {
        // A checkpoint ends with a record: what is before it need not be read.
        Depth::Start => start,
        Depth::Check => START,
    };
    let mut last_group = at;
    while end.is_none_or(|end| at < end) {
        let (record, group, behind) = match reader.at(at).map_err(failed)? {
            Found::Record {
                record,
                group,
                next,
            } => (record, group, next),
            Found::Nothing { .. } => break,
        };
        if end.is_some_and(|end| behind > end) {
            break;
        }
        if at >= start {
            report.records = report.records.saturating_add(1);
            visit(Position(position(behind)), record)?;
        }
        last_group = group;
        at = behind;
    }
    if at < start || reader.length() < start {
        return Err(damaged(format!(
            "it ends at {}, before the checkpoint at {from}",
            position(at.min(reader.length()))
        )));
    }
    match end {
        Some(end) if at != end => {
            return Err(damaged(format!(
                "there is no valid record at byte {at}, and the log goes on up to byte {end}"
            )));
        }
        Some(_) => {}
        None => {
            let reach = match depth {
                Depth::Start => REACH,
                Depth::Check => u64::MAX,
            };
            if let Some(proof) = reader.proof_behind(at, reach).map_err(failed)? {
                return Err(damaged(format!(
                    "there is no valid record at byte {at}, but one at byte {proof} that was written later"
                )));
            }
            report.torn = reader.generation_at(at).map_err(failed)? == segment.header.generation;
        }
    }
    report.end = Position(position(at));
    Ok(last_group..at)
}

/// A first page that is damaged belongs to a segment that was never begun, unless there are two
/// groups behind it: the second was written when the first, with its page, had been synced. Without
/// the page the checksums cannot be verified, but two heads that fit each other are no accident.
fn refuse_lost_segment(disk: &dyn Disk, path: &Path, newest: u32) -> Result<(), Error> {
    let look = || {
        let mut reader = Reader::new(disk.open_read(path)?, Header::default())?;
        let generation = reader.generation_at(START)?;
        if generation <= newest {
            return Ok(None);
        }
        reader.expect(generation);
        let mut at = START;
        while let Some((group, next)) = reader.head_at(at)? {
            if group > START {
                return Ok(Some(at));
            }
            at = next;
        }
        Ok(None)
    };
    match look() {
        Ok(None) => Ok(()),
        Ok(Some(at)) => Err(Error::Damaged {
            path: path.to_owned(),
            detail: format!(
                "its first page is not valid, but there are acknowledged records before byte {at}"
            ),
        }),
        Err(e) => Err(Error::file("read", path, e)),
    }
}
