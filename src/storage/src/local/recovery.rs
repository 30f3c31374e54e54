//! Opening: the index as of the last checkpoint, the topics as it knows them, and the log from
//! there on.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, RwLock,
        atomic::{AtomicBool, AtomicU64},
    },
    thread::{self, JoinHandle},
};

use bytes::Bytes;

use super::{
    Local, Shared,
    blobs::BlobStores,
    checkpoint::{Checkpointer, Desk},
    commit::{Committer, Effects},
    index::{Found, Index, Opener, Point},
    ledger::Ledger,
    memtable::Memtable,
    queue::Queue,
    view::View,
};
use crate::{
    Engine, Error, Options,
    disk::{Disk, OsDisk, create_private_dir},
    log::Log,
    topics::Topics,
    watch::Hub,
};

pub(super) const LOG: &str = "log";
pub(super) const INDEX: &str = "index.redb";
pub(super) const TOPICS: &str = "topics";
pub(super) const BLOBS: &str = "blobs";

/// Records that become visible together while the log is replayed.
const REPLAYED: usize = 1024;

/// What the engine stands on. Tests put something in that fails on demand.
pub(crate) struct Ground {
    pub(crate) disk: Arc<dyn Disk>,
    /// `None` for the file itself.
    pub(crate) index: Option<Opener>,
}

/// Opens the state below `directory`.
pub(crate) fn open(directory: &Path, options: Options) -> Result<Arc<dyn Engine>, Error> {
    let ground = Ground {
        disk: Arc::new(OsDisk),
        index: None,
    };
    Ok(Arc::new(open_on(ground, directory, options)?))
}

/// As [`open`], on any ground.
pub(crate) fn open_on(ground: Ground, directory: &Path, options: Options) -> Result<Local, Error> {
    create_private_dir(directory).map_err(|e| Error::file("create", directory, e))?;
    let Ground { disk, index } = ground;
    let index_path = directory.join(INDEX);
    // It holds a lock on its file, so no other process comes further than this.
    let (index, found) = match index {
        Some(opener) => Index::open_with(&index_path, options.cache, opener)?,
        None => Index::open(&index_path, options.cache)?,
    };
    let Found {
        point,
        topics,
        usage,
    } = found;
    let topics = Topics::open(Arc::clone(&disk), &directory.join(TOPICS), topics)?;
    let rows = index.rows()?;
    let shared = Arc::new(Shared {
        view: RwLock::new(View {
            active: Memtable::default(),
            frozen: None,
            index: Some(Arc::new(rows)),
            point,
        }),
        topics,
        blobs: BlobStores::new(Arc::clone(&disk), &directory.join(BLOBS)),
        hub: Arc::new(Hub::default()),
        ledger: Ledger::new(usage, options.quota),
        queue: Queue::new(),
        desk: Desk::default(),
        barrier: super::Barrier::default(),
        revision: AtomicU64::new(point.revision.0),
        recyclable: AtomicU64::new(point.position.0),
        clock: options.clock,
        memory: options.memory.max(64 * 1024),
        closed: AtomicBool::new(false),
    });
    let (log, last) = replay(disk, directory, options.segment, &shared, point)?;
    let committer = spawn("micro-commit", {
        let committer = Committer::new(Arc::clone(&shared), log, last);
        move || committer.run()
    })?;
    let checkpointer = spawn("micro-checkpoint", {
        let checkpointer = Checkpointer::new(Arc::clone(&shared), index, point);
        move || checkpointer.run()
    })?;
    Ok(Local {
        shared,
        directory: directory.to_owned(),
        committer: Mutex::new(Some(committer)),
        checkpointer: Mutex::new(Some(checkpointer)),
    })
}

/// Brings back what the log has beyond the index.
fn replay(
    disk: Arc<dyn Disk>,
    directory: &Path,
    segment: u64,
    shared: &Shared,
    from: Point,
) -> Result<(Log, Point), Error> {
    let path = directory.join(LOG);
    let damaged = |position, detail: String| Error::Damaged {
        path: path.clone(),
        detail: format!("at {position}: {detail}"),
    };
    let mut last = from;
    let mut waiting: Vec<Effects> = Vec::new();
    let show = |waiting: &mut Vec<Effects>, point| {
        if !waiting.is_empty() {
            shared.make_visible(waiting.iter(), point);
            waiting.clear();
        }
    };
    let log = Log::open(
        disk,
        &path,
        segment,
        from.position,
        &mut |behind, payload| {
            let effects = Effects::of(Bytes::copy_from_slice(payload))
                .map_err(|detail| damaged(behind, detail))?;
            if effects.revision.0 != last.revision.0 + 1 {
                let detail = format!(
                    "commit {} follows commit {}",
                    effects.revision, last.revision
                );
                return Err(damaged(behind, detail));
            }
            last = Point {
                position: behind,
                revision: effects.revision,
                time: effects.time,
            };
            waiting.push(effects);
            if waiting.len() >= REPLAYED {
                show(&mut waiting, last);
            }
            Ok(())
        },
    )?;
    show(&mut waiting, last);
    last.position = log.end();
    Ok((log, last))
}

fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, Error> {
    thread::Builder::new()
        .name(name.into())
        .spawn(body)
        .map_err(|e| Error::file("start a thread for", PathBuf::from(name), e))
}
