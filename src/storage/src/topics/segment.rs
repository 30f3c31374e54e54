//! Reading a segment file: walking its events, finding the next good one behind damage.

use std::{
    path::{Path, PathBuf},
    sync::Mutex,
};

use bytes::Bytes;
use micro_core::Timestamp;

use super::{
    index::{Index, Mark, Start},
    lock,
    record::{self, HEAD, Head},
};
use crate::{Entry, Error, disk::DiskFile};

/// Bytes that a walk reads from a file at first.
const CHUNK: usize = 32 << 10;
/// Bytes that it reads at once in the end, unless one event is longer: it doubles with each read.
const MAX_CHUNK: usize = 256 << 10;
/// Bytes looked through at once behind damage.
const SEARCHED: usize = 1 << 20;
/// Ends of reads that a segment remembers, so that whoever reads on need not search.
const HINTS: usize = 8;

/// A segment file that is open for reading, and what is known about it.
#[derive(Debug)]
pub(super) struct Segment {
    file: Box<dyn DiskFile>,
    path: PathBuf,
    seed: u32,
    /// The place of the first event.
    start: Start,
    index: Mutex<Index>,
    hints: Mutex<Vec<Start>>,
}

/// How much a reader wants.
#[derive(Debug, Clone, Copy)]
pub(super) struct Budget {
    entries: usize,
    bytes: usize,
    any: bool,
}

/// What a walk comes to.
#[derive(Debug)]
pub(super) enum Step {
    /// An event that is as it was written.
    Event { entry: Entry, at: Mark, size: u64 },
    /// From `offset` up to `resume` nothing can be read.
    Damaged { offset: u64, resume: u64 },
    /// The end of the part that was asked for.
    End,
}

/// Goes from event to event and checks each.
pub(super) struct Walk<'a> {
    file: &'a dyn DiskFile,
    path: &'a Path,
    seed: u32,
    /// The next event.
    offset: u64,
    position: u64,
    /// The offset to stop at.
    end: u64,
    chunk: Bytes,
    chunk_at: u64,
    chunk_size: usize,
}

impl Budget {
    pub(super) fn new(entries: usize, bytes: usize) -> Self {
        Self {
            entries: entries.max(1),
            bytes,
            any: false,
        }
    }

    /// Whether there is room for one more event of this length; the first always fits.
    pub(super) fn take(&mut self, length: usize) -> bool {
        let fits = self.entries > 0 && (!self.any || self.bytes >= length);
        if fits {
            self.entries = self.entries.saturating_sub(1);
            self.bytes = self.bytes.saturating_sub(length);
            self.any = true;
        } else {
            self.entries = 0;
        }
        fits
    }

    pub(super) fn is_spent(&self) -> bool {
        self.entries == 0 || (self.any && self.bytes == 0)
    }
}

impl Segment {
    /// A segment whose events begin at `start`. `index` is what is known about it.
    pub(super) fn new(
        file: Box<dyn DiskFile>,
        path: PathBuf,
        seed: u32,
        start: Start,
        index: Index,
    ) -> Self {
        Self {
            file,
            path,
            seed,
            start,
            index: Mutex::new(index),
            hints: Mutex::default(),
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the file begins with these bytes.
    pub(super) fn begins_with(&self, head: &[u8]) -> Result<bool, Error> {
        let mut found = vec![0; head.len()];
        let read = self.file.fill_at(&mut found, 0);
        read.map_err(|e| Error::file("read", &self.path, e))?;
        Ok(found == head)
    }

    /// Adds events from `from` on, which lies in this segment, up to `end` to `found`. Stops in
    /// front of damage; when that is where it begins, the answer is `Err` with the two offsets
    /// between which nothing can be read.
    pub(super) fn read(
        &self,
        from: u64,
        end: u64,
        budget: &mut Budget,
        found: &mut Vec<Entry>,
    ) -> Result<Result<(), (u64, u64)>, Error> {
        let (start, known) = {
            let index = lock(&self.index);
            (index.before(from).unwrap_or(self.start), index.frontier().1)
        };
        let hinted = lock(&self.hints)
            .iter()
            .copied()
            .filter(|h| h.0 <= from)
            .max();
        let start = hinted.map_or(start, |hint| hint.max(start));
        let mut walk = self.walk(start, end);
        loop {
            let before = walk.place();
            match walk.next()? {
                Step::End => break,
                Step::Damaged { resume, .. } if resume <= from => {}
                Step::Damaged { .. } if !found.is_empty() => break,
                Step::Damaged { offset, resume } => return Ok(Err((offset.max(from), resume))),
                Step::Event { entry, at, size } => {
                    if at.position >= known {
                        self.learn(at, size);
                    }
                    if entry.offset < from {
                        continue;
                    }
                    if !budget.take(entry.value.len()) {
                        self.remember(before);
                        return Ok(Ok(()));
                    }
                    found.push(entry);
                    if budget.is_spent() {
                        self.remember(walk.place());
                        return Ok(Ok(()));
                    }
                }
            }
        }
        self.remember(walk.place());
        Ok(Ok(()))
    }

    /// The first event at `time` or later; `end` when there is none.
    pub(super) fn offset_at(&self, time: Timestamp, end: u64) -> Result<u64, Error> {
        let start = lock(&self.index).before_time(time.0);
        self.first(start, end, |at| at.time >= time.0)
    }

    /// The first event that begins at `position` or behind it; `end` when there is none.
    pub(super) fn offset_behind(&self, position: u64, end: u64) -> Result<u64, Error> {
        let start = lock(&self.index).before_position(position);
        self.first(start, end, |at| at.position >= position)
    }

    fn first(
        &self,
        start: Option<Start>,
        end: u64,
        holds: impl Fn(&Mark) -> bool,
    ) -> Result<u64, Error> {
        let start = start.unwrap_or(self.start);
        if start.0 >= end {
            return Ok(end);
        }
        let mut walk = self.walk(start, end);
        loop {
            match walk.next()? {
                Step::End => return Ok(end),
                Step::Damaged { .. } => {}
                Step::Event { at, .. } if holds(&at) => return Ok(at.offset),
                Step::Event { at, size, .. } => self.learn(at, size),
            }
        }
    }

    /// Walks everything from the first event to `end`.
    pub(super) fn walk_all(&self, end: u64) -> Walk<'_> {
        self.walk(self.start, end)
    }

    fn walk(&self, start: Start, end: u64) -> Walk<'_> {
        Walk::new(&*self.file, &self.path, self.seed, start, end)
    }

    fn learn(&self, at: Mark, size: u64) {
        lock(&self.index).learn(at, size);
    }

    fn remember(&self, place: Start) {
        let mut hints = lock(&self.hints);
        if hints.contains(&place) {
            return;
        }
        if hints.len() >= HINTS {
            hints.remove(0);
        }
        hints.push(place);
    }
}

impl<'a> Walk<'a> {
    pub(super) fn new(
        file: &'a dyn DiskFile,
        path: &'a Path,
        seed: u32,
        (offset, position): Start,
        end: u64,
    ) -> Self {
        Self {
            file,
            path,
            seed,
            offset,
            position,
            end,
            chunk: Bytes::new(),
            chunk_at: 0,
            chunk_size: CHUNK,
        }
    }

    /// The next event and where it is.
    pub(super) fn place(&self) -> Start {
        (self.offset, self.position)
    }

    pub(super) fn next(&mut self) -> Result<Step, Error> {
        if self.offset >= self.end {
            return Ok(Step::End);
        }
        if let Some((head, value)) = self.event_at(self.position)?
            && head.offset == self.offset
        {
            let at = Mark {
                offset: head.offset,
                time: head.time,
                position: self.position,
            };
            self.offset = self.offset.saturating_add(1);
            self.position = self.position.saturating_add(head.size());
            let entry = Entry {
                offset: head.offset,
                time: Timestamp(head.time),
                value,
            };
            return Ok(Step::Event {
                entry,
                at,
                size: head.size(),
            });
        }
        let offset = self.offset;
        (self.offset, self.position) = match self.search()? {
            Some(place) => place,
            None => (self.end, self.position),
        };
        Ok(Step::Damaged {
            offset,
            resume: self.offset,
        })
    }

    /// The event at `position`; `None` when there is none that is as it was written.
    fn event_at(&mut self, position: u64) -> Result<Option<(Head, Bytes)>, Error> {
        let Some(head) = self.bytes_at(position, HEAD)?.and_then(|b| Head::read(&b)) else {
            return Ok(None);
        };
        if head.length > record::LONGEST {
            return Ok(None);
        }
        let at = position.saturating_add(HEAD as u64);
        let length = usize::try_from(head.length).unwrap_or(usize::MAX);
        let Some(value) = self.bytes_at(at, length)? else {
            return Ok(None);
        };
        Ok(head.fits(self.seed, &value).then_some((head, value)))
    }

    /// `length` bytes of the file; `None` when it ends before.
    fn bytes_at(&mut self, position: u64, length: usize) -> Result<Option<Bytes>, Error> {
        if let Some(bytes) = self.of_chunk(position, length) {
            return Ok(Some(bytes));
        }
        let failed = |e| Error::file("read", self.path, e);
        if length > self.chunk_size {
            // It may be a length that was never written; do not take memory for it.
            let held = self.file.len().map_err(failed)?;
            if held.saturating_sub(position) < length as u64 {
                return Ok(None);
            }
        }
        let mut chunk = vec![0; length.max(self.chunk_size)];
        let filled = self.file.fill_at(&mut chunk, position).map_err(failed)?;
        chunk.truncate(filled);
        self.chunk = Bytes::from(chunk);
        self.chunk_at = position;
        self.chunk_size = self.chunk_size.saturating_mul(2).min(MAX_CHUNK);
        Ok(self.of_chunk(position, length))
    }

    fn of_chunk(&self, position: u64, length: usize) -> Option<Bytes> {
        let from = usize::try_from(position.checked_sub(self.chunk_at)?).ok()?;
        let to = from.checked_add(length)?;
        (to <= self.chunk.len()).then(|| self.chunk.slice(from..to))
    }

    /// The nearest good event behind damage, and where it is. The one that was expected may be it:
    /// then only the place was wrong.
    fn search(&mut self) -> Result<Option<Start>, Error> {
        let wanted = self.offset..self.end;
        let mut at = self.position.saturating_add(1);
        loop {
            let mut bytes = vec![0; SEARCHED];
            let filled = self
                .file
                .fill_at(&mut bytes, at)
                .map_err(|e| Error::file("read", self.path, e))?;
            bytes.truncate(filled);
            for (skipped, window) in bytes.windows(HEAD).enumerate() {
                let plausible = Head::read(window)
                    .is_some_and(|h| wanted.contains(&h.offset) && h.length <= record::LONGEST);
                let position = at.saturating_add(skipped as u64);
                if plausible && let Some((head, _)) = self.event_at(position)? {
                    return Ok(Some((head.offset, position)));
                }
            }
            if filled < SEARCHED {
                return Ok(None);
            }
            at = at.saturating_add((SEARCHED - HEAD + 1) as u64);
        }
    }
}
