//! Writing the events of one topic behind each other, from segment to segment.
//!
//! A segment is as long as an eighth of its topic, between [`SMALLEST`] and [`LARGEST`], so that
//! small topics give space back in small pieces. After a failed write or sync nothing is known about
//! a file behind its confirmed end: what is there is cut off, and the next attempt begins a file of
//! its own.

use std::{
    collections::VecDeque,
    path::{Path, PathBuf},
};

use super::{
    Topics,
    files::{self, Dirty},
    index::{Index, Mark},
    record,
    recorded::Stored,
    segment::{Step, Walk},
    topic::{Segment, Topic, expired},
};
use crate::{
    Entry, Error,
    disk::{Disk, DiskFile},
};

/// A segment is full at this length at the earliest.
pub(super) const SMALLEST: u64 = 1 << 20;
/// A segment is full at this length at the latest; its last event may go beyond.
pub(super) const LARGEST: u64 = 32 << 20;
/// Bytes collected before they are written.
const BUFFER: usize = 256 << 10;
/// Events taken out of the memory of a topic at once, while its lock is held.
const TAKEN: usize = 8 << 10;

/// What a flush has done to the files of a topic.
pub(super) struct Written {
    pub(super) stored: Stored,
    pub(super) segments: VecDeque<Segment>,
    /// Segments that hold nothing any more.
    pub(super) expired: Vec<Segment>,
}

/// The files of a topic while they are written.
struct Writer<'a> {
    disk: &'a dyn Disk,
    full: (u64, u64),
    topic: &'a Topic,
    directory: PathBuf,
    /// What will hold once everything is synced.
    stored: Stored,
    segments: VecDeque<Segment>,
    /// Whether to begin a new segment whatever room the last one has.
    begin: bool,
    tail: Option<Tail>,
}

/// The segment that is written to.
struct Tail {
    file: Box<dyn DiskFile>,
    path: PathBuf,
    seed: u32,
    buffer: Vec<u8>,
    /// Where the buffer goes.
    at: u64,
    /// The first event written since the segment was opened.
    from: u64,
    /// Of what was written since then.
    index: Index,
}

impl Topics {
    /// Writes the events of a topic that lie before `end` and are in no file. They are not synced.
    pub(super) fn write(
        &self,
        topic: &Topic,
        end: u64,
        dirty: &mut Dirty,
    ) -> Result<Written, Error> {
        self.repair(topic)?;
        let mut writer = {
            let state = topic.state();
            Writer {
                disk: &*self.disk,
                full: self.full,
                topic,
                directory: topic.directory(&self.directory),
                stored: state.stored,
                segments: state.segments.clone().unwrap_or_default(),
                begin: state.spoiled || state.stored.end <= state.first,
                tail: None,
            }
        };
        let mut next = writer.stored.end;
        loop {
            let taken: Vec<Entry> = {
                let state = topic.state();
                let events = state.recent_after(next).take(TAKEN);
                events.take_while(|e| e.offset < end).cloned().collect()
            };
            let Some(last) = taken.last() else { break };
            // Until this is confirmed.
            topic.state().distrust();
            next = last.offset.saturating_add(1);
            for entry in &taken {
                writer.push(entry, dirty)?;
            }
        }
        writer.finish(dirty)?;
        let Writer {
            mut stored,
            mut segments,
            ..
        } = writer;
        let first = topic.state().first;
        // Events may have been let go before they ever came into a file.
        stored.end = stored.end.max(first);
        stored.first = first;
        let count = expired(&segments, stored.end, first);
        let expired: Vec<_> = segments.drain(..count).collect();
        let freed = expired.iter().map(|s| s.bytes).sum();
        stored.bytes = stored.bytes.saturating_sub(freed);
        if segments.is_empty() {
            (stored.base, stored.length) = (0, 0);
        }
        Ok(Written {
            stored,
            segments,
            expired,
        })
    }
}

impl Writer<'_> {
    fn push(&mut self, entry: &Entry, dirty: &mut Dirty) -> Result<(), Error> {
        let full = (self.stored.bytes / 8).max(self.full.0).min(self.full.1);
        // A gap: what was in it has been let go meanwhile, and all before it.
        let gap = entry.offset != self.stored.end;
        if self.begin || gap || self.stored.length == 0 || self.stored.length >= full {
            self.seal(dirty)?;
            self.begin(entry.offset, dirty)?;
        }
        let tail = match &mut self.tail {
            Some(tail) => tail,
            none => none.insert(open_tail(
                self.disk,
                self.topic,
                &self.directory,
                self.stored,
            )?),
        };
        let size = record::size(entry);
        let at = Mark {
            offset: entry.offset,
            time: entry.time.0,
            position: self.stored.length,
        };
        tail.index.learn(at, size);
        record::write(&mut tail.buffer, tail.seed, entry);
        self.stored.end = entry.offset.saturating_add(1);
        self.grow(size);
        match &mut self.tail {
            Some(tail) if tail.buffer.len() >= BUFFER => tail.write_buffer(),
            _ => Ok(()),
        }
    }

    /// Writes what is collected.
    fn finish(&mut self, dirty: &mut Dirty) -> Result<(), Error> {
        if let Some(mut tail) = self.tail.take() {
            tail.write_buffer()?;
            dirty.file(tail.path, tail.file);
        }
        Ok(())
    }

    fn grow(&mut self, size: u64) {
        self.stored.length = self.stored.length.saturating_add(size);
        self.stored.bytes = self.stored.bytes.saturating_add(size);
        if let Some(last) = self.segments.back_mut() {
            last.bytes = last.bytes.saturating_add(size);
        }
    }

    fn begin(&mut self, base: u64, dirty: &mut Dirty) -> Result<(), Error> {
        let failed = |path: &Path, e| Error::file("create", path, e);
        if self.segments.is_empty() {
            self.disk
                .create_dir_all(&self.directory)
                .map_err(|e| failed(&self.directory, e))?;
            dirty.made(&self.directory);
        }
        dirty.directory(&self.directory);
        let topic = self.topic;
        let head = record::segment_head(&topic.namespace, &topic.name, topic.incarnation, base);
        let path = self.directory.join(record::segment_name(base));
        let file = self.disk.create(&path).map_err(|e| failed(&path, e))?;
        let length = head.len() as u64;
        self.tail = Some(Tail {
            file,
            path,
            seed: record::seed(topic.incarnation, base),
            buffer: head,
            at: 0,
            from: base,
            index: Index::new(base, length),
        });
        self.begin = false;
        (self.stored.base, self.stored.length) = (base, 0);
        self.segments.push_back(Segment { base, bytes: 0 });
        self.grow(length);
        Ok(())
    }

    /// Ends the segment that is written to: its index goes beside it. One that is not written to by
    /// this flush gets its index when somebody reads it.
    fn seal(&mut self, dirty: &mut Dirty) -> Result<(), Error> {
        let Some(mut tail) = self.tail.take() else {
            return Ok(());
        };
        tail.write_buffer()?;
        let base = self.stored.base;
        let head = record::segment_head_length(&self.topic.namespace, &self.topic.name);
        let mut index = scan(&*tail.file, &tail.path, tail.seed, (base, head), tail.from)?;
        index.join(&tail.index);
        let path = self.directory.join(record::index_name(base));
        let file = files::write_index(self.disk, &path, &index.encode(base))
            .map_err(|e| Error::file("write", &path, e))?;
        dirty.file(path, file);
        dirty.file(tail.path, tail.file);
        Ok(())
    }
}

impl Tail {
    fn write_buffer(&mut self) -> Result<(), Error> {
        self.file
            .write_all_at(&self.buffer, self.at)
            .map_err(|e| Error::file("write", &self.path, e))?;
        self.at = self.at.saturating_add(self.buffer.len() as u64);
        self.buffer.clear();
        Ok(())
    }
}

/// Opens the last segment, to write on.
fn open_tail(
    disk: &dyn Disk,
    topic: &Topic,
    directory: &Path,
    stored: Stored,
) -> Result<Tail, Error> {
    let path = directory.join(record::segment_name(stored.base));
    let file = disk
        .open(&path)
        .map_err(|e| Error::file("open", &path, e))?;
    Ok(Tail {
        file,
        path,
        seed: record::seed(topic.incarnation, stored.base),
        buffer: Vec::with_capacity(BUFFER),
        at: stored.length,
        from: stored.end,
        index: Index::new(stored.end, stored.length),
    })
}

/// The index of the part of a segment from `start` up to the event `end`. Damage is passed over.
pub(super) fn scan(
    file: &dyn DiskFile,
    path: &Path,
    seed: u32,
    start: (u64, u64),
    end: u64,
) -> Result<Index, Error> {
    let mut index = Index::new(start.0, start.1);
    let mut walk = Walk::new(file, path, seed, start, end);
    loop {
        match walk.next()? {
            Step::End => return Ok(index),
            Step::Damaged { .. } => {}
            Step::Event { at, size, .. } => index.learn(at, size),
        }
    }
}
