//! The commit log: what is in it when [`Log::append`] returns survives a crash and a power cut.
//!
//! | file | owns |
//! |---|---|
//! | `record.rs` | [`Group`], how records lie in a segment and how they are read again |
//! | `segment.rs` | the first page of a segment file |
//! | `recovery.rs` | finding and reading the log, for a start and for a check |
//! | `spares.rs` | segments prepared ahead and used again, by a thread |
//!
//! The log is an endless row of bytes, cut into segment files. A [`Position`] counts its bytes; it
//! only grows. A group of records is one write and one sync, in one segment. The segments are full of
//! zeros before they are used, so a sync has no metadata to write; where there is no such segment in
//! time, one is made that grows, and left again when there is. A group that is larger than a segment
//! gets one of its own.
//!
//! **Nothing comes back that was refused.** After a write or a sync that failed, nobody knows what is
//! on the disk. Before the error is answered, the file is cut off where the group began; if it refuses
//! that too, another segment is begun whose first page says where the log ended. Only if neither can
//! be done is the answer given with the cut outstanding, and then nothing is appended before it was
//! made. A start always begins a segment, so it never writes behind a torn tail.

use std::{
    collections::VecDeque,
    fmt,
    hash::{BuildHasher as _, RandomState},
    io,
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::{
    Error,
    disk::{Disk, DiskFile},
};
pub(crate) use record::Group;
pub(crate) use recovery::Visit;
use recovery::{Depth, recover};
use segment::{Header, START};
use spares::Spares;

mod record;
mod recovery;
mod segment;
mod spares;

/// The smallest segment: the first page and as much again.
const SMALLEST: u64 = 2 * START;
/// A log that is shorter than this since the start has no use for a spare.
const SPARE_AFTER: u64 = 64 * 1024;
/// Bytes that are copied at once.
const COPY: usize = 64 * 1024;

/// A place in the endless log, in bytes. It only grows, over restarts too.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Position(pub(crate) u64);

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What [`Log::check`] found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LogReport {
    /// Segments that are part of the log.
    pub(crate) segments: usize,
    /// Records from the position asked for.
    pub(crate) records: u64,
    /// The end of the log.
    pub(crate) end: Position,
    /// Whether the last group was cut short by a crash. Nobody had an answer for it.
    pub(crate) torn: bool,
}

/// The log of a node. The committer thread owns it.
#[derive(Debug)]
pub(crate) struct Log {
    disk: Arc<dyn Disk>,
    directory: PathBuf,
    segment_bytes: u64,
    end: Position,
    /// The highest generation that was used, in vain or not.
    generation: u32,
    /// Oldest first; the newest of them ends where `active` begins.
    sealed: VecDeque<Sealed>,
    active: Option<Active>,
    /// Where a group that was refused may be on the disk.
    suspect: Option<Suspect>,
    /// Whether the last append failed.
    failing: bool,
    spares: Spares,
}

/// A segment that is not written any more.
#[derive(Debug)]
struct Sealed {
    path: PathBuf,
    header: Header,
    /// Its length; 0 if it is not to be used again.
    bytes: u64,
}

/// The segment that is written.
#[derive(Debug)]
struct Active {
    path: PathBuf,
    file: Box<dyn DiskFile>,
    header: Header,
    /// Where the next group goes.
    offset: u64,
    /// Where it ends.
    capacity: u64,
    /// Whether it was made in a hurry: its file grows with each group.
    grows: bool,
}

#[derive(Debug)]
struct Suspect {
    path: PathBuf,
    file: Box<dyn DiskFile>,
    /// What of the file is good.
    keep: u64,
}

impl Log {
    /// Opens the log in `directory`, or begins one, and hands each record from `from` on to
    /// `replay`, in order, each with the position **behind** it: a checkpoint that holds the record
    /// may name that one. The segments get `segment_bytes` each.
    ///
    /// What was replayed is durable when this returns.
    pub(crate) fn open(
        disk: Arc<dyn Disk>,
        directory: &Path,
        segment_bytes: u64,
        from: Position,
        replay: &mut Visit<'_>,
    ) -> Result<Self, Error> {
        let mut log = Self::open_idle(disk, directory, segment_bytes, from, replay)?;
        log.spares.start()?;
        Ok(log)
    }

    /// As [`Log::open`], without the thread.
    fn open_idle(
        disk: Arc<dyn Disk>,
        directory: &Path,
        segment_bytes: u64,
        from: Position,
        replay: &mut Visit<'_>,
    ) -> Result<Self, Error> {
        disk.create_dir_all(directory)
            .and_then(|()| match directory.parent() {
                Some(parent) if !parent.as_os_str().is_empty() => disk.sync_dir(parent),
                _ => Ok(()),
            })
            .map_err(|e| Error::file("create", directory, e))?;
        let found = recover(&*disk, directory, from, Depth::Start, replay)?;
        if let Some(newest) = found.live.last() {
            make_durable(&*disk, &newest.path, found.last_group)
                .map_err(|e| Error::file("sync", &newest.path, e))?;
        }
        // Durably, before anything is written: a segment that was cut off in vain by a failing disk
        // may have a generation that is used again now.
        for path in &found.useless {
            match disk.remove(path) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => {
                    return Err(Error::file("remove", path, e));
                }
                _ => {}
            }
        }
        disk.sync_dir(directory)
            .map_err(|e| Error::file("sync", directory, e))?;
        let segment_bytes = segment_bytes.next_multiple_of(START).max(SMALLEST);
        let spares = Spares::new(
            Arc::clone(&disk),
            directory,
            segment_bytes,
            found.next_number,
        );
        for (path, bytes) in found.spares {
            spares.give(path, bytes);
        }
        let sealed = found.live.into_iter().map(|segment| Sealed {
            path: segment.path,
            header: segment.header,
            bytes: segment.bytes,
        });
        Ok(Self {
            disk,
            directory: directory.to_owned(),
            segment_bytes,
            end: found.report.end,
            generation: found.generation,
            sealed: sealed.collect(),
            active: None,
            suspect: None,
            failing: false,
            spares,
        })
    }

    /// Appends a group; all of it is durable when this returns its end. After an error nothing of
    /// it is in the log (see the page of this file for the one exception), and the next call may
    /// succeed: the disk had space again, or another file was better. The group is not cleared.
    pub(crate) fn append(&mut self, group: &mut Group) -> Result<Position, Error> {
        if group.is_empty() {
            return Ok(self.end);
        }
        let appended = self.cut_off().and_then(|()| self.write(group));
        let failed = appended.is_err();
        if failed != self.failing {
            self.failing = failed;
            match &appended {
                Ok(_) => tracing::info!("The log of the state can be written again."),
                Err(error) => {
                    tracing::error!(%error, directory = %self.directory.display(), "The log of the state cannot be written; changes are refused until it can.");
                }
            }
        }
        appended
    }

    /// Writes a group where it belongs; if that fails, cuts it off.
    fn write(&mut self, group: &mut Group) -> Result<Position, Error> {
        let bytes = group.bytes() as u64;
        let written = match &self.active {
            Some(active) if active.has_room(bytes) && !self.is_better(active) => self.extend(group),
            _ => self.begin(Some(group)),
        };
        if let Err(error) = written {
            if let Err(again) = self.cut_off() {
                tracing::error!(error = %again, "A group that could not be written could not be cut off the log either; it may be found again by the next start.");
            }
            return Err(error);
        }
        self.end = Position(self.end.0.saturating_add(bytes));
        if let Some(active) = &self.active
            && (!active.grows || active.offset > SPARE_AFTER)
        {
            self.spares.want();
        }
        Ok(self.end)
    }

    /// The position behind the last record.
    pub(crate) fn end(&self) -> Position {
        self.end
    }

    /// Gives up what lies below: the caller has it in a checkpoint that is durable. A start from a
    /// position below is not possible any more.
    pub(crate) fn recycle(&mut self, below: Position) {
        loop {
            // The newest segment stays: it is how a start knows the end.
            let next = match (self.sealed.get(1), &self.active) {
                (Some(sealed), _) => sealed.header.base,
                (None, Some(active)) => active.header.base,
                (None, None) => return,
            };
            if next > below.0 {
                return;
            }
            let Some(sealed) = self.sealed.pop_front() else {
                return;
            };
            self.spares.give(sealed.path, sealed.bytes);
        }
    }

    /// Reads the log from its checkpoint as [`Log::open`] would, and further, and changes nothing.
    /// Each record goes to `visit`.
    pub(crate) fn check(
        disk: &dyn Disk,
        directory: &Path,
        from: Position,
        visit: &mut Visit<'_>,
    ) -> Result<LogReport, Error> {
        recover(disk, directory, from, Depth::Check, visit).map(|found| found.report)
    }

    /// Whether there is something better to write into than `active`.
    fn is_better(&self, active: &Active) -> bool {
        active.grows && self.spares.any()
    }

    /// Writes the group into the active segment.
    fn extend(&mut self, group: &mut Group) -> Result<(), Error> {
        let Some(active) = &mut self.active else {
            return Ok(());
        };
        group.seal(&active.header, active.offset)?;
        let written = group
            .write(&*active.file, active.offset)
            .and_then(|()| active.file.sync_data());
        match written {
            Ok(()) => {
                active.offset = active.offset.saturating_add(group.bytes() as u64);
                Ok(())
            }
            Err(e) => {
                let error = Error::file("write", &active.path, e);
                self.suspect = self.active.take().map(|active| {
                    self.sealed.push_back(Sealed {
                        path: active.path.clone(),
                        header: active.header,
                        bytes: 0,
                    });
                    Suspect {
                        path: active.path,
                        file: active.file,
                        keep: active.offset,
                    }
                });
                Err(error)
            }
        }
    }

    /// Begins a segment, with the group if there is one. The active one stays what it was until
    /// this has succeeded.
    fn begin(&mut self, group: Option<&mut Group>) -> Result<(), Error> {
        let bytes = group.as_ref().map_or(0, |group| group.bytes() as u64);
        let mut next = self.next_segment(bytes)?;
        let mut sealed = Ok(());
        let mut offset = next.offset;
        let mut written = next.file.write_all_at(&next.header.encode(), 0);
        let has_group = group.is_some();
        if let Some(group) = group {
            sealed = group.seal(&next.header, offset);
            written = written.and_then(|()| group.write(&*next.file, offset));
            offset = offset.saturating_add(bytes);
        }
        let synced = written.and_then(|()| {
            if next.grows {
                next.file.sync_all()?;
                self.disk.sync_dir(&self.directory)
            } else {
                next.file.sync_data()
            }
        });
        let done = sealed.and(synced.map_err(|e| Error::file("write", &next.path, e)));
        match done {
            Ok(()) => {
                next.offset = offset;
                self.seal();
                self.active = Some(next);
                Ok(())
            }
            Err(error) if has_group => {
                self.suspect = Some(Suspect {
                    path: next.path,
                    file: next.file,
                    keep: 0,
                });
                Err(error)
            }
            Err(error) => {
                // `cut_off` knows that the first page may be found again.
                self.spares.give(next.path, 0);
                Err(error)
            }
        }
    }

    /// A spare, or a new file if there is none or the group is too large for one.
    fn next_segment(&mut self, bytes: u64) -> Result<Active, Error> {
        let needed = START.saturating_add(bytes);
        let spare = if needed <= self.segment_bytes {
            self.spares.take()
        } else {
            None
        };
        let (path, file, grows) = match spare {
            Some(path) => match self.disk.open(&path) {
                Ok(file) => (path, file, false),
                Err(e) => {
                    let error = Error::file("open", &path, e);
                    self.spares.give(path, 0);
                    return Err(error);
                }
            },
            None => {
                let path = self.spares.path();
                let file = self
                    .disk
                    .create(&path)
                    .map_err(|e| Error::file("create", &path, e))?;
                (path, file, true)
            }
        };
        self.generation = self.generation.saturating_add(1);
        let previous = match (&self.active, self.sealed.back()) {
            (Some(active), _) => active.header.generation,
            (None, Some(sealed)) => sealed.header.generation,
            (None, None) => 0,
        };
        Ok(Active {
            path,
            file,
            header: Header {
                generation: self.generation,
                previous,
                base: self.end.0,
                salt: RandomState::new().hash_one(self.generation),
            },
            offset: START,
            capacity: needed.next_multiple_of(START).max(self.segment_bytes),
            grows,
        })
    }

    /// Ends the active segment.
    fn seal(&mut self) {
        if let Some(active) = self.active.take() {
            self.sealed.push_back(Sealed {
                bytes: if active.grows { 0 } else { active.capacity },
                path: active.path,
                header: active.header,
            });
        }
    }

    /// Makes sure that a group which was refused is not found again.
    fn cut_off(&mut self) -> Result<(), Error> {
        let Some(suspect) = &self.suspect else {
            return Ok(());
        };
        let cut = suspect
            .file
            .set_len(suspect.keep)
            .and_then(|()| suspect.file.sync_all());
        if let Err(error) = cut {
            tracing::warn!(%error, path = %suspect.path.display(), "A segment of the log could not be cut off; beginning another.");
            // Its first page may reach the disk although this fails: then it says that the log ends
            // here, and nothing may be written into an older segment any more.
            self.seal();
            self.begin(None)?;
        }
        if let Some(Suspect { path, keep: 0, .. }) = self.suspect.take() {
            self.spares.give(path, 0);
        }
        Ok(())
    }
}

/// Makes durable what a process that was killed may have written without a sync: the last group and
/// the first page. Both are written once more, because after a sync that failed the system takes
/// them for clean.
fn make_durable(disk: &dyn Disk, path: &Path, last_group: Range<u64>) -> io::Result<()> {
    let file = disk.open(path)?;
    let mut buffer = vec![0; COPY];
    for mut range in [0..START, last_group] {
        while range.start < range.end {
            let left = range.end.saturating_sub(range.start);
            let size = usize::try_from(left).unwrap_or(COPY).min(COPY);
            let piece = buffer.get_mut(..size).unwrap_or_default();
            file.read_exact_at(piece, range.start)?;
            file.write_all_at(piece, range.start)?;
            range.start = range.start.saturating_add(size as u64);
        }
    }
    file.sync_data()
}

impl Active {
    fn has_room(&self, bytes: u64) -> bool {
        self.offset.saturating_add(bytes) <= self.capacity
    }
}

/// For tests that must be the same each time: no thread, its work done when asked.
#[cfg(test)]
impl Log {
    fn work(&self) -> io::Result<()> {
        self.spares.work()
    }
}

#[cfg(test)]
mod tests;
