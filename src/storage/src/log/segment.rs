//! The first page of a segment file: which part of the log the file holds.
//!
//! ```text
//! magic 8 · version u32 · generation u32 · previous u32 · 0 u32 · base u64 · salt u64 · zeros · checksum u32
//! ```
//!
//! 64 bytes, little-endian, twice in the page, so that a damaged sector does not lose a segment.
//! Whatever a later version changes, magic, version and checksum stay where they are.
//!
//! `salt` goes into the checksum of each record. A generation whose first page never reached the disk
//! may be used again by the next start; what it left of its records is not taken for the new ones.
//!
//! `base` is the position of the first record, and at the same time the exact end of the log before
//! this segment: what `previous` holds from there on does not count. That is how a group that could
//! not be written is cut off.

/// Where the records begin.
pub(super) const START: u64 = 4096;
/// The same for buffers.
pub(super) const PAGE: usize = 4096;
/// What this program writes.
pub(super) const VERSION: u32 = 1;
const MAGIC: [u8; 8] = *b"MICROLOG";
/// Bytes of one copy.
const SIZE: usize = 64;
/// Where the copies are.
const COPIES: [usize; 2] = [0, PAGE / 2];

/// What the first page says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Header {
    /// Grows by one or more with each segment that is begun; never 0.
    pub(super) generation: u32,
    /// The generation of the segment before; 0 for the first one ever.
    pub(super) previous: u32,
    /// The position of the first record.
    pub(super) base: u64,
    /// A random number.
    pub(super) salt: u64,
}

/// What is in a first page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Page {
    /// A header that can be relied on.
    Valid(Header),
    /// Zeros: prepared, never used.
    Clean,
    /// Written by a version of the format that is not known here.
    Newer(u32),
    /// None of the copies is whole.
    Damaged,
}

impl Header {
    pub(super) fn encode(self) -> Vec<u8> {
        let mut copy = [0; SIZE];
        let fields: [(usize, &[u8]); 6] = [
            (0, &MAGIC),
            (8, &VERSION.to_le_bytes()),
            (12, &self.generation.to_le_bytes()),
            (16, &self.previous.to_le_bytes()),
            (24, &self.base.to_le_bytes()),
            (32, &self.salt.to_le_bytes()),
        ];
        for (at, bytes) in fields {
            put(&mut copy, at, bytes);
        }
        let checksum = checksum(&copy);
        put(&mut copy, SIZE - 4, &checksum.to_le_bytes());
        let mut page = vec![0; PAGE];
        for at in COPIES {
            put(&mut page, at, &copy);
        }
        page
    }
}

impl Page {
    pub(super) fn decode(page: &[u8]) -> Self {
        let mut newer = None;
        for at in COPIES {
            let Some(copy) = page.get(at..at.saturating_add(SIZE)) else {
                continue;
            };
            if copy.get(..MAGIC.len()) != Some(MAGIC.as_slice())
                || number(copy, SIZE - 4) != checksum(copy)
            {
                continue;
            }
            let version = number(copy, 8);
            if version != VERSION {
                newer = Some(version);
                continue;
            }
            let long = |at| u64::from(number(copy, at)) | (u64::from(number(copy, at + 4)) << 32);
            return Self::Valid(Header {
                generation: number(copy, 12),
                previous: number(copy, 16),
                base: long(24),
                salt: long(32),
            });
        }
        match newer {
            Some(version) => Self::Newer(version),
            None if page.iter().all(|byte| *byte == 0) => Self::Clean,
            None => Self::Damaged,
        }
    }
}

fn checksum(copy: &[u8]) -> u32 {
    crc32fast::hash(copy.get(..SIZE - 4).unwrap_or_default())
}

fn put(to: &mut [u8], at: usize, bytes: &[u8]) {
    if let Some(place) = to.get_mut(at..at.saturating_add(bytes.len())) {
        place.copy_from_slice(bytes);
    }
}

fn number(bytes: &[u8], at: usize) -> u32 {
    bytes
        .get(at..)
        .and_then(|rest| rest.first_chunk::<4>())
        .map_or(0, |four| u32::from_le_bytes(*four))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: Header = Header {
        generation: 0x0102_0304,
        previous: 7,
        base: 0x1122_3344_5566_7788,
        salt: 0xa1a2_a3a4_a5a6_a7a8,
    };

    #[test]
    fn the_layout_of_version_1_stays() {
        let page = HEADER.encode();
        assert_eq!(&page[..8], b"MICROLOG");
        assert_eq!(&page[8..12], &[1, 0, 0, 0]);
        assert_eq!(&page[12..16], &[4, 3, 2, 1]);
        assert_eq!(&page[16..20], &[7, 0, 0, 0]);
        assert_eq!(
            &page[24..32],
            &[0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11]
        );
        assert_eq!(
            &page[32..40],
            &[0xa8, 0xa7, 0xa6, 0xa5, 0xa4, 0xa3, 0xa2, 0xa1]
        );
        assert_eq!(page.len(), 4096);
        assert_eq!(Page::decode(&page), Page::Valid(HEADER));
    }

    #[test]
    fn one_damaged_copy_does_no_harm() {
        for at in [0, 20, 63, 2048, 2048 + 30] {
            let mut page = HEADER.encode();
            page[at] ^= 1;
            assert_eq!(Page::decode(&page), Page::Valid(HEADER));
        }
        let mut page = HEADER.encode();
        page[20] ^= 1;
        page[2048 + 25] ^= 1;
        assert_eq!(Page::decode(&page), Page::Damaged);
        assert_eq!(Page::decode(&vec![0; 4096]), Page::Clean);
    }

    #[test]
    fn a_later_version_is_recognised() {
        let mut page = HEADER.encode();
        for at in COPIES {
            page[at + 8] = 2;
            let sum = checksum(&page[at..at + SIZE]);
            page[at + 60..at + 64].copy_from_slice(&sum.to_le_bytes());
        }
        assert_eq!(Page::decode(&page), Page::Newer(2));
    }
}
