//! From offset, time or size to a position in a segment.
//!
//! An index has a mark every [`SPACING`] bytes. It learns while the segment is walked; that of a full
//! segment is complete and lies beside it as `.idx`. It is never more than a hint that saves time:
//! whoever follows a mark checks the events that are there.

use crate::topics::record::HEAD;

/// Bytes between two marks.
pub(super) const SPACING: u64 = 64 << 10;
const MAGIC: [u8; 8] = *b"microidx";
const VERSION: u8 = 1;
/// Magic, version, base, end, length, newest time.
const FIXED: usize = 8 + 1 + 4 * 8;

/// Where an event is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) offset: u64,
    pub(super) time: i64,
    pub(super) position: u64,
}

/// Marks of the part of a segment that has been walked, from its start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Index {
    marks: Vec<Mark>,
    /// The offset of the event behind the part.
    next: u64,
    /// Where that is.
    position: u64,
    /// The time of the newest event in the part.
    newest: i64,
}

/// Where to begin to walk: this event is at this position.
pub(super) type Start = (u64, u64);

impl Index {
    /// Of a segment whose events begin at `position` with the offset `base`; nothing walked yet.
    pub(super) fn new(base: u64, position: u64) -> Self {
        Self {
            marks: Vec::new(),
            next: base,
            position,
            newest: i64::MIN,
        }
    }

    /// Where the known part ends.
    pub(super) fn frontier(&self) -> Start {
        (self.next, self.position)
    }

    /// Learns an event of `size` bytes behind the known part.
    pub(super) fn learn(&mut self, at: Mark, size: u64) {
        if at.position < self.position || at.offset < self.next {
            return;
        }
        let far = |last: &Mark| at.position.saturating_sub(last.position) >= SPACING;
        if self.marks.last().is_none_or(far) {
            self.marks.push(at);
        }
        self.next = at.offset.saturating_add(1);
        self.position = at.position.saturating_add(size);
        self.newest = at.time;
    }

    /// Adds what another index knows about the part behind.
    pub(super) fn join(&mut self, behind: &Self) {
        self.marks.extend_from_slice(&behind.marks);
        if behind.position > self.position {
            (self.next, self.position) = behind.frontier();
            self.newest = self.newest.max(behind.newest);
        }
    }

    /// The nearest known place at or before the event `offset`.
    pub(super) fn before(&self, offset: u64) -> Option<Start> {
        if offset >= self.next {
            return Some(self.frontier());
        }
        self.last(|mark| mark.offset <= offset)
    }

    /// A known place before which all events are older than `time`.
    pub(super) fn before_time(&self, time: i64) -> Option<Start> {
        if self.newest < time {
            return Some(self.frontier());
        }
        self.last(|mark| mark.time < time)
    }

    /// The nearest known place at or before `position`.
    pub(super) fn before_position(&self, position: u64) -> Option<Start> {
        if position >= self.position {
            return Some(self.frontier());
        }
        self.last(|mark| mark.position <= position)
    }

    fn last(&self, holds: impl Fn(&Mark) -> bool) -> Option<Start> {
        let behind = self.marks.partition_point(holds);
        let mark = self.marks.get(behind.checked_sub(1)?)?;
        Some((mark.offset, mark.position))
    }

    /// The content of the `.idx` file of a segment that is full.
    pub(super) fn encode(&self, base: u64) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(FIXED + self.marks.len() * 24 + 4);
        bytes.extend_from_slice(&MAGIC);
        bytes.push(VERSION);
        for number in [base, self.next, self.position] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        bytes.extend_from_slice(&self.newest.to_le_bytes());
        for mark in &self.marks {
            bytes.extend_from_slice(&mark.offset.to_le_bytes());
            bytes.extend_from_slice(&mark.time.to_le_bytes());
            bytes.extend_from_slice(&mark.position.to_le_bytes());
        }
        let sum = crc32fast::hash(&bytes);
        bytes.extend_from_slice(&sum.to_le_bytes());
        bytes
    }

    /// What [`Index::encode`] made for the segment `base` that ends before the event `end`; `None`
    /// when it is damaged or of another segment.
    pub(super) fn decode(bytes: &[u8], base: u64, end: u64) -> Option<Self> {
        let (content, sum) = bytes.split_last_chunk::<4>()?;
        if crc32fast::hash(content) != u32::from_le_bytes(*sum) {
            return None;
        }
        let (version, numbers) = content.strip_prefix(&MAGIC)?.split_first()?;
        let (numbers, rest) = numbers.as_chunks::<8>();
        if *version != VERSION || !rest.is_empty() {
            return None;
        }
        let [its_base, next, position, newest, marks @ ..] = numbers else {
            return None;
        };
        let (marks, rest) = marks.as_chunks::<3>();
        let known = (u64::from_le_bytes(*its_base), u64::from_le_bytes(*next)) == (base, end);
        if !known || !rest.is_empty() {
            return None;
        }
        let mark = |[offset, time, position]: &[[u8; 8]; 3]| Mark {
            offset: u64::from_le_bytes(*offset),
            time: i64::from_le_bytes(*time),
            position: u64::from_le_bytes(*position),
        };
        Some(Self {
            marks: marks.iter().map(mark).collect(),
            next: end,
            position: u64::from_le_bytes(*position),
            newest: i64::from_le_bytes(*newest),
        })
    }
}

/// The longest `.idx` file of a segment of `bytes`; what is longer is none.
pub(super) fn longest(bytes: u64) -> u64 {
    let marks = (bytes / SPACING).saturating_add(2);
    marks
        .saturating_mul(24)
        .saturating_add((FIXED + HEAD) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Index {
        let mut index = Index::new(10, 50);
        for i in 0..5000u64 {
            let at = Mark {
                offset: 10 + i,
                time: i64::try_from(i / 2).unwrap(),
                position: 50 + i * 100,
            };
            index.learn(at, 100);
        }
        index
    }

    #[test]
    fn a_place_is_never_behind_what_is_looked_for() {
        let index = sample();
        assert!(index.marks.len() > 5);
        for offset in [10, 11, 700, 4000, 5009, 5010, 9000] {
            let (at, position) = index.before(offset).unwrap();
            assert!(at <= offset);
            assert_eq!(position, 50 + (at - 10) * 100);
            assert!(offset >= 5010 || offset - at <= SPACING / 100);
        }
        assert_eq!(index.before(5010), Some(index.frontier()));
        assert_eq!(index.before(9), None);
        assert_eq!(index.before_time(0), None);
        let (at, _) = index.before_time(1000).unwrap();
        assert!((at - 10) / 2 < 1000);
        assert_eq!(index.before_time(9999), Some(index.frontier()));
        let (_, position) = index.before_position(300_000).unwrap();
        assert!(position <= 300_000 && position > 300_000 - 2 * SPACING);
    }

    #[test]
    fn a_file_reads_back_and_a_damaged_one_does_not() {
        let index = sample();
        let mut bytes = index.encode(10);
        assert!(bytes.len() as u64 <= longest(5000 * 100));
        assert_eq!(Index::decode(&bytes, 10, 5010), Some(index));
        assert_eq!(Index::decode(&bytes, 11, 5010), None);
        assert_eq!(Index::decode(&bytes, 10, 5011), None, "of a shorter life");
        for i in (0..bytes.len()).step_by(7) {
            bytes[i] ^= 4;
            assert_eq!(Index::decode(&bytes, 10, 5010), None);
            bytes[i] ^= 4;
            assert_eq!(Index::decode(&bytes[..i], 10, 5010), None);
        }
    }
}
