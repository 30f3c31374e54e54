//! Segments in stock. A thread prepares one ahead, and removes what is not needed any more.
//!
//! A prepared segment is full of zeros and synced: overwriting it changes no size and no map of
//! blocks, so that a sync of it writes the records and nothing else. Filling is slow on purpose: a
//! disk that is busy with zeros makes every commit wait. Segments that were given up are used again,
//! so under load nothing is filled at all.

use std::{
    collections::VecDeque,
    ffi::OsStr,
    io,
    path::{Path, PathBuf},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use crate::{Error, disk::Disk};

/// Spares that are kept; what is given up beyond is removed.
const KEPT: usize = 4;
/// Zeros that are written and synced at once.
const CHUNK: u64 = 256 * 1024;
/// The pause between them.
const PAUSE: Duration = Duration::from_millis(5);
/// After a failure, such as a full disk, it is tried again so much later.
const PATIENCE: Duration = Duration::from_secs(1);

/// The stock. Dropping it ends the thread.
#[derive(Debug)]
pub(super) struct Spares {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    disk: Arc<dyn Disk>,
    directory: PathBuf,
    segment_bytes: u64,
    number: AtomicU64,
    state: Mutex<State>,
    wake: Condvar,
}

#[derive(Debug, Default)]
struct State {
    ready: VecDeque<PathBuf>,
    useless: Vec<PathBuf>,
    /// Whether there is use for a spare: not while the log is all but empty.
    wanted: bool,
    stop: bool,
}

impl Spares {
    /// A stock of the files named; others get numbers from `number` on. Nothing is done yet.
    pub(super) fn new(
        disk: Arc<dyn Disk>,
        directory: &Path,
        segment_bytes: u64,
        number: u64,
    ) -> Self {
        Self {
            shared: Arc::new(Shared {
                disk,
                directory: directory.to_owned(),
                segment_bytes,
                number: AtomicU64::new(number),
                state: Mutex::default(),
                wake: Condvar::new(),
            }),
            thread: None,
        }
    }

    /// Starts the thread.
    pub(super) fn start(&mut self) -> Result<(), Error> {
        let shared = Arc::clone(&self.shared);
        let thread = thread::Builder::new()
            .name("micro-log".into())
            .spawn(move || shared.run())
            .map_err(|e| Error::file("start the thread of", &self.shared.directory, e))?;
        self.thread = Some(thread);
        Ok(())
    }

    /// Takes a spare, if there is one.
    pub(super) fn take(&self) -> Option<PathBuf> {
        let taken = self.shared.lock().ready.pop_front();
        self.shared.wake.notify_one();
        taken
    }

    /// Whether there is one.
    pub(super) fn any(&self) -> bool {
        !self.shared.lock().ready.is_empty()
    }

    /// From now on one is kept ready.
    pub(super) fn want(&self) {
        let mut state = self.shared.lock();
        if !state.wanted {
            state.wanted = true;
            self.shared.wake.notify_one();
        }
    }

    /// Takes a file back that the log has no use for, `bytes` long.
    pub(super) fn give(&self, path: PathBuf, bytes: u64) {
        let mut state = self.shared.lock();
        if bytes == self.shared.segment_bytes && state.ready.len() < KEPT {
            state.ready.push_back(path);
        } else {
            state.useless.push(path);
            self.shared.wake.notify_one();
        }
    }

    /// A path for a segment that has to be made at once.
    pub(super) fn path(&self) -> PathBuf {
        self.shared.path()
    }

    /// Does what the thread would do now. For tests that have none.
    #[cfg(test)]
    pub(super) fn work(&self) -> io::Result<()> {
        loop {
            let mut state = self.shared.lock();
            let useless = std::mem::take(&mut state.useless);
            let wanted = state.wanted && state.ready.is_empty();
            drop(state);
            if useless.is_empty() && !wanted {
                return Ok(());
            }
            self.shared.remove(useless);
            if wanted {
                self.shared.prepare()?;
            }
        }
    }
}

impl Drop for Spares {
    fn drop(&mut self) {
        self.shared.lock().stop = true;
        self.shared.wake.notify_one();
        if let Some(thread) = self.thread.take() {
            // It has nothing to tell; what it left half done, the next start removes.
            let _ = thread.join();
        }
    }
}

impl Shared {
    /// Nothing that holds the lock can leave the state half changed.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn path(&self) -> PathBuf {
        let number = self.number.fetch_add(1, Ordering::Relaxed);
        self.directory.join(format!("{number:016x}.seg"))
    }

    fn run(&self) {
        let mut resume = None;
        let mut told = false;
        loop {
            let mut state = self.lock();
            let (useless, prepare) = loop {
                if state.stop {
                    return;
                }
                let useless = std::mem::take(&mut state.useless);
                let wait = resume
                    .map(|at: Instant| at.saturating_duration_since(Instant::now()))
                    .filter(|wait| !wait.is_zero());
                let wanted = state.wanted && state.ready.is_empty();
                let prepare = wanted && wait.is_none();
                if prepare || !useless.is_empty() {
                    break (useless, prepare);
                }
                state = match wait.filter(|_| wanted) {
                    Some(wait) => {
                        let woken = self.wake.wait_timeout(state, wait);
                        woken.unwrap_or_else(PoisonError::into_inner).0
                    }
                    None => {
                        let woken = self.wake.wait(state);
                        woken.unwrap_or_else(PoisonError::into_inner)
                    }
                };
            };
            drop(state);
            self.remove(useless);
            if !prepare {
                continue;
            }
            match self.prepare() {
                Ok(()) => {
                    resume = None;
                    told = false;
                }
                Err(error) => {
                    resume = Some(Instant::now() + PATIENCE);
                    if !told {
                        tracing::warn!(%error, directory = %self.directory.display(), "No segment of the log could be prepared; trying again.");
                        told = true;
                    }
                }
            }
        }
    }

    /// One that cannot be removed is found again by the next start.
    fn remove(&self, useless: Vec<PathBuf>) {
        for path in useless {
            if let Err(error) = self.disk.remove(&path)
                && error.kind() != io::ErrorKind::NotFound
            {
                tracing::warn!(%error, path = %path.display(), "A segment of the log that is not needed any more could not be removed.");
            }
        }
    }

    fn prepare(&self) -> io::Result<()> {
        let path = self.path();
        let unfinished = path.with_extension("new");
        let filled = self.fill(&unfinished);
        if !matches!(filled, Ok(true)) {
            // Half a segment on a full disk would take the space that everybody waits for.
            match self.disk.remove(&unfinished) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                _ => return filled.map(drop),
            }
        }
        self.disk.rename(&unfinished, &path)?;
        self.disk.sync_dir(&self.directory)?;
        self.lock().ready.push_back(path);
        Ok(())
    }

    /// `false` when it was told to stop.
    fn fill(&self, path: &Path) -> io::Result<bool> {
        let file = self.disk.create(path)?;
        let zeros = vec![0; usize::try_from(CHUNK.min(self.segment_bytes)).unwrap_or(0)];
        let mut at = 0;
        while at < self.segment_bytes {
            let left = self.segment_bytes.saturating_sub(at);
            let piece = zeros
                .get(..usize::try_from(left).unwrap_or(usize::MAX))
                .unwrap_or(&zeros);
            file.write_all_at(piece, at)?;
            file.sync_data()?;
            at = at.saturating_add(piece.len() as u64);
            if self.pause() {
                return Ok(false);
            }
        }
        file.sync_all()?;
        Ok(true)
    }

    /// Lets the commits have the disk; says whether it was told to stop.
    fn pause(&self) -> bool {
        let state = self.lock();
        if cfg!(test) {
            return state.stop;
        }
        let woken = self.wake.wait_timeout_while(state, PAUSE, |s| !s.stop);
        woken.unwrap_or_else(PoisonError::into_inner).0.stop
    }
}

/// The number in the name of a segment file, and whether the file is finished. `None` for files
/// that are not ours.
pub(super) fn file_number(name: &OsStr) -> Option<(u64, bool)> {
    let (number, kind) = name.to_str()?.split_once('.')?;
    let number = u64::from_str_radix(number, 16).ok()?;
    match kind {
        "seg" => Some((number, true)),
        "new" => Some((number, false)),
        _ => None,
    }
}
