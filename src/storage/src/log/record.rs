//! How records lie in a segment, and how they are found again.
//!
//! ```text
//! length u32 · group u32 · generation u32 · checksum u32 · the record · zeros up to 8 bytes
//! ```
//!
//! All numbers are little-endian. `group` says how many bytes before this record its group begins:
//! 0 for the first one. The checksum covers the three numbers before it, the place in the file, the
//! salt of the segment and the record: a record is valid where it was written and as long as the
//! segment has the first page that it had then, and nowhere else.
//!
//! **A torn tail and a hole.** A group is written only after everything before it was synced. A
//! place without a valid record is therefore the end of the log, torn or not, as long as every valid
//! record behind it belongs to a group that begins at that place or before. When one belongs to a
//! group that begins *behind* it, then acknowledged records have been here, and are damaged.

use std::io;

use crate::{Error, disk::DiskFile};

use super::segment::{Header, START};

/// Bytes in front of every record.
pub(super) const HEAD: usize = 16;
/// Records begin at multiples of this.
const ALIGN: usize = 8;
/// Bytes that are read at once.
const CHUNK: usize = 256 * 1024;
/// What a group keeps of its memory when it is cleared.
const KEEP: usize = 4 * 1024 * 1024;
/// Writes end at a multiple of this: a page that is written whole need not be read before.
const PAGE: u64 = 4096;

/// Records on their way into the log: one write, one sync. Meant to be reused.
#[derive(Debug, Default)]
pub(crate) struct Group {
    buffer: Vec<u8>,
    /// Start and length of each record, its head not counted.
    records: Vec<(usize, usize)>,
}

impl Group {
    /// An empty group.
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Adds a record: what `write` appends to the vector that it gets, whose content it leaves alone.
    pub(crate) fn add(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        let head = self.buffer.len();
        self.buffer.resize(head.saturating_add(HEAD), 0);
        let start = self.buffer.len();
        write(&mut self.buffer);
        self.records
            .push((start, self.buffer.len().saturating_sub(start)));
        let end = self.buffer.len().next_multiple_of(ALIGN);
        self.buffer.resize(end, 0);
    }

    /// Adds a record.
    pub(crate) fn push(&mut self, record: &[u8]) {
        self.add(|buffer| buffer.extend_from_slice(record));
    }

    /// Whether there is no record in it.
    pub(crate) fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Bytes that it takes in the log.
    pub(crate) fn bytes(&self) -> usize {
        self.buffer.len()
    }

    /// Forgets the records.
    pub(crate) fn clear(&mut self) {
        self.buffer.clear();
        self.buffer.shrink_to(KEEP);
        self.records.clear();
    }

    /// Writes the heads, for this place in the segment with this first page.
    pub(super) fn seal(&mut self, header: &Header, offset: u64) -> Result<(), Error> {
        for (start, length) in &self.records {
            let head = start.saturating_sub(HEAD);
            let (Ok(group), Ok(bytes)) = (u32::try_from(head), u32::try_from(*length)) else {
                return Err(Error::TooLarge {
                    what: "group",
                    size: self.buffer.len(),
                    limit: u32::MAX as usize,
                });
            };
            let mut numbers = Numbers {
                length: bytes,
                group,
                generation: header.generation,
                checksum: 0,
            };
            let record = self.buffer.get(*start..start.saturating_add(*length));
            let place = offset.saturating_add(head as u64);
            numbers.checksum = numbers.checksum(header.salt, place, record.unwrap_or_default());
            if let Some(place) = self.buffer.get_mut(head..*start) {
                place.copy_from_slice(&numbers.encode());
            }
        }
        Ok(())
    }

    /// Writes the group at `offset`, with zeros up to the end of the page.
    pub(super) fn write(&mut self, file: &dyn DiskFile, offset: u64) -> io::Result<()> {
        let bytes = self.buffer.len();
        let end = offset.saturating_add(bytes as u64);
        let zeros = end.next_multiple_of(PAGE).saturating_sub(end);
        self.buffer
            .resize(bytes.saturating_add(usize::try_from(zeros).unwrap_or(0)), 0);
        let written = file.write_all_at(&self.buffer, offset);
        self.buffer.truncate(bytes);
        written
    }
}

/// The head of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Numbers {
    length: u32,
    group: u32,
    generation: u32,
    checksum: u32,
}

impl Numbers {
    fn encode(self) -> [u8; HEAD] {
        let [a, b, c, d] = self.length.to_le_bytes();
        let [e, f, g, h] = self.group.to_le_bytes();
        let [i, j, k, l] = self.generation.to_le_bytes();
        let [m, n, o, p] = self.checksum.to_le_bytes();
        [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p]
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (numbers, _) = bytes.as_chunks::<4>();
        match numbers {
            [length, group, generation, checksum, ..] => Some(Self {
                length: u32::from_le_bytes(*length),
                group: u32::from_le_bytes(*group),
                generation: u32::from_le_bytes(*generation),
                checksum: u32::from_le_bytes(*checksum),
            }),
            _ => None,
        }
    }

    fn checksum(self, salt: u64, offset: u64, record: &[u8]) -> u32 {
        let identity = u128::from(salt) | (u128::from(offset) << 64);
        let numbers = Self {
            checksum: 0,
            ..self
        };
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&numbers.encode());
        hasher.update(&identity.to_le_bytes());
        hasher.update(record);
        hasher.finalize()
    }
}

/// What is at a place of a segment.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found<'a> {
    /// A valid record.
    Record {
        /// Its content.
        record: &'a [u8],
        /// Where its group begins.
        group: u64,
        /// Where the next record begins.
        next: u64,
    },
    /// No valid record. If the head looks like one of this segment: where the next would begin.
    Nothing {
        /// See above.
        claimed: Option<u64>,
    },
}

/// Reads the records of one segment.
#[derive(Debug)]
pub(super) struct Reader {
    file: Box<dyn DiskFile>,
    generation: u32,
    salt: u64,
    length: u64,
    buffer: Vec<u8>,
    /// The place in the file of the first byte in the buffer.
    from: u64,
}

impl Reader {
    pub(super) fn new(file: Box<dyn DiskFile>, header: Header) -> io::Result<Self> {
        Ok(Self {
            length: file.len()?,
            file,
            generation: header.generation,
            salt: header.salt,
            buffer: Vec::new(),
            from: 0,
        })
    }

    /// How long the file is.
    pub(super) fn length(&self) -> u64 {
        self.length
    }

    /// What is at `offset`. An error of the disk is an error, never the end of the log.
    pub(super) fn at(&mut self, offset: u64) -> io::Result<Found<'_>> {
        let Some((numbers, group, next)) = self.numbers_at(offset)? else {
            return Ok(Found::Nothing { claimed: None });
        };
        let salt = self.salt;
        let length = numbers.length as usize;
        let record = self.window(offset.saturating_add(HEAD as u64), length)?;
        if record.len() == length && numbers.checksum(salt, offset, record) == numbers.checksum {
            Ok(Found::Record {
                record,
                group,
                next,
            })
        } else {
            Ok(Found::Nothing {
                claimed: Some(next),
            })
        }
    }

    /// Where the group of the record at `offset` begins and the next record, as its head says.
    pub(super) fn head_at(&mut self, offset: u64) -> io::Result<Option<(u64, u64)>> {
        let found = self.numbers_at(offset)?;
        Ok(found.map(|(_, group, next)| (group, next)))
    }

    fn numbers_at(&mut self, offset: u64) -> io::Result<Option<(Numbers, u64, u64)>> {
        let Some(numbers) = Numbers::decode(self.window(offset, HEAD)?) else {
            return Ok(None);
        };
        let end = offset
            .saturating_add(HEAD as u64)
            .saturating_add(u64::from(numbers.length));
        let group = offset
            .checked_sub(u64::from(numbers.group))
            .filter(|group| *group >= START);
        Ok(match group {
            Some(group) if numbers.generation == self.generation && end <= self.length => {
                Some((numbers, group, end.next_multiple_of(ALIGN as u64)))
            }
            _ => None,
        })
    }

    /// Looks for proof that acknowledged records were at `hole`, where no valid one is: a valid
    /// record of a group that begins behind it. Looks at `reach` bytes from there, and at as many
    /// from the end that the damaged record claims.
    pub(super) fn proof_behind(&mut self, hole: u64, reach: u64) -> io::Result<Option<u64>> {
        let claimed = match self.at(hole)? {
            Found::Record { .. } => return Ok(None),
            Found::Nothing { claimed } => claimed,
        };
        let step = ALIGN as u64;
        for start in [Some(hole.saturating_add(step)), claimed]
            .into_iter()
            .flatten()
        {
            let mut offset = start;
            let end = start.saturating_add(reach).min(self.length);
            while offset < end {
                if let Found::Record { group, .. } = self.at(offset)?
                    && group > hole
                {
                    return Ok(Some(offset));
                }
                offset = offset.saturating_add(step);
            }
        }
        Ok(None)
    }

    /// The generation that the record at `offset` names, valid or not; 0 when there is none.
    pub(super) fn generation_at(&mut self, offset: u64) -> io::Result<u32> {
        Ok(Numbers::decode(self.window(offset, HEAD)?).map_or(0, |numbers| numbers.generation))
    }

    /// Takes records of another generation for valid from now on.
    pub(super) fn expect(&mut self, generation: u32) {
        self.generation = generation;
    }

    /// `bytes` from `offset`, or fewer at the end of the file.
    fn window(&mut self, offset: u64, bytes: usize) -> io::Result<&[u8]> {
        let have = self.from.saturating_add(self.buffer.len() as u64);
        let end = offset.saturating_add(bytes as u64).min(self.length);
        if offset < self.from || end > have {
            let left = self.length.saturating_sub(offset);
            let size = (bytes.max(CHUNK) as u64).min(left);
            self.buffer.clear();
            self.buffer.shrink_to(KEEP.max(bytes));
            self.buffer.resize(usize::try_from(size).unwrap_or(0), 0);
            let filled = self.file.fill_at(&mut self.buffer, offset)?;
            self.buffer.truncate(filled);
            self.from = offset;
        }
        let skip = usize::try_from(offset.saturating_sub(self.from)).unwrap_or(usize::MAX);
        let rest = self.buffer.get(skip..).unwrap_or_default();
        Ok(rest.get(..bytes).unwrap_or(rest))
    }
}
