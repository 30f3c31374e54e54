//! The bytes of one event, of the head of a segment, and the names of files.
//!
//! An event is `[length of value u32][checksum u32][offset u64][time i64][value]`, little-endian. The
//! checksum starts from a number made of the topic's incarnation and the segment's base, so that
//! bytes of another file never pass for an event of this one.

use std::fmt::Write as _;

use crc32fast::Hasher;
use micro_core::Namespace;

use crate::Entry;

/// What comes before the value of an event.
pub(super) const HEAD: usize = 24;
/// No event is longer; what claims to be is damaged.
pub(super) const LONGEST: u32 = 256 << 20;
/// How a segment file begins.
const MAGIC: [u8; 8] = *b"microtpc";
/// The version of segment files that this program writes.
pub(super) const VERSION: u8 = 1;
/// Magic, version, two lengths, a spare byte, incarnation and base; then the names and a checksum.
const FIXED: usize = 8 + 4 + 16;
/// Bytes of an encoded name in the name of a directory.
const READABLE: usize = 100;

/// The head of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) length: u32,
    pub(super) checksum: u32,
    pub(super) offset: u64,
    pub(super) time: i64,
}

impl Head {
    /// Reads the head at the start of `bytes`.
    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        let (length, rest) = bytes.split_first_chunk::<4>()?;
        let (checksum, rest) = rest.split_first_chunk::<4>()?;
        let (offset, rest) = rest.split_first_chunk::<8>()?;
        let (time, _) = rest.split_first_chunk::<8>()?;
        Some(Self {
            length: u32::from_le_bytes(*length),
            checksum: u32::from_le_bytes(*checksum),
            offset: u64::from_le_bytes(*offset),
            time: i64::from_le_bytes(*time),
        })
    }

    /// The length of the whole event.
    pub(super) fn size(&self) -> u64 {
        u64::from(self.length).saturating_add(HEAD as u64)
    }

    /// Whether `value` and this head are what was written.
    pub(super) fn fits(&self, seed: u32, value: &[u8]) -> bool {
        checksum(seed, self.length, self.offset, self.time, value) == self.checksum
    }
}

/// What an event takes in a file.
pub(super) fn size(entry: &Entry) -> u64 {
    (entry.value.len() as u64).saturating_add(HEAD as u64)
}

/// Adds an event to `buffer`.
pub(super) fn write(buffer: &mut Vec<u8>, seed: u32, entry: &Entry) {
    // A batch is far smaller than what 32 bits count.
    let length = u32::try_from(entry.value.len()).unwrap_or(u32::MAX);
    let sum = checksum(seed, length, entry.offset, entry.time.0, &entry.value);
    buffer.extend_from_slice(&length.to_le_bytes());
    buffer.extend_from_slice(&sum.to_le_bytes());
    buffer.extend_from_slice(&entry.offset.to_le_bytes());
    buffer.extend_from_slice(&entry.time.0.to_le_bytes());
    buffer.extend_from_slice(&entry.value);
}

fn checksum(seed: u32, length: u32, offset: u64, time: i64, value: &[u8]) -> u32 {
    let mut head = [0u8; 20];
    let (a, rest) = head.split_at_mut(4);
    let (b, c) = rest.split_at_mut(8);
    a.copy_from_slice(&length.to_le_bytes());
    b.copy_from_slice(&offset.to_le_bytes());
    c.copy_from_slice(&time.to_le_bytes());
    let mut hasher = Hasher::new_with_initial(seed);
    hasher.update(&head);
    hasher.update(value);
    hasher.finalize()
}

/// From what the checksums of a segment start.
pub(super) fn seed(incarnation: u64, base: u64) -> u32 {
    let mut hasher = Hasher::new();
    hasher.update(&incarnation.to_le_bytes());
    hasher.update(&base.to_le_bytes());
    hasher.finalize()
}

/// The head of a segment.
pub(super) fn segment_head(
    namespace: &Namespace,
    topic: &str,
    incarnation: u64,
    base: u64,
) -> Vec<u8> {
    let length = |text: &str| u8::try_from(text.len()).unwrap_or(u8::MAX);
    let mut head = Vec::with_capacity(FIXED + 300);
    head.extend_from_slice(&MAGIC);
    head.extend_from_slice(&[VERSION, length(namespace.as_str()), length(topic), 0]);
    head.extend_from_slice(&incarnation.to_le_bytes());
    head.extend_from_slice(&base.to_le_bytes());
    head.extend_from_slice(namespace.as_str().as_bytes());
    head.extend_from_slice(topic.as_bytes());
    let sum = crc32fast::hash(&head);
    head.extend_from_slice(&sum.to_le_bytes());
    head
}

/// The length of [`segment_head`].
pub(super) fn segment_head_length(namespace: &Namespace, topic: &str) -> u64 {
    let names = namespace.as_str().len().saturating_add(topic.len());
    (FIXED + 4).saturating_add(names) as u64
}

/// The version that the head of a segment claims; `None` when it is not the head of one.
pub(super) fn version(head: &[u8]) -> Option<u8> {
    head.strip_prefix(&MAGIC)?.first().copied()
}

/// The name of a topic's directory: readable where that is possible, and always its own.
pub(super) fn directory_name(topic: &str, incarnation: u64) -> String {
    let mut name = String::with_capacity(topic.len().min(READABLE) + 20);
    for byte in topic.bytes() {
        if name.len() >= READABLE {
            break;
        }
        if byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_' || byte == b'.' {
            name.push(char::from(byte));
        } else {
            // Writing into a String cannot fail.
            let _ = write!(name, "%{byte:02x}");
        }
    }
    let _ = write!(name, "~{incarnation:x}");
    name
}

/// The name of a segment file.
pub(super) fn segment_name(base: u64) -> String {
    format!("{base:020}.seg")
}

/// The name of the index beside a full segment.
pub(super) fn index_name(base: u64) -> String {
    format!("{base:020}.idx")
}

/// The base in the name of a segment file.
pub(super) fn segment_base(name: &str) -> Option<u64> {
    base(name.strip_suffix(".seg")?)
}

/// The base in the name of an index.
pub(super) fn index_base(name: &str) -> Option<u64> {
    base(name.strip_suffix(".idx")?)
}

fn base(digits: &str) -> Option<u64> {
    (digits.len() == 20).then(|| digits.parse().ok())?
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use micro_core::Timestamp;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn an_event_reads_back_and_any_changed_bit_is_seen(
            value in prop::collection::vec(any::<u8>(), 0..200),
            offset in any::<u64>(),
            time in any::<i64>(),
            bit in any::<prop::sample::Index>(),
        ) {
            let entry = Entry { offset, time: Timestamp(time), value: Bytes::from(value) };
            let mut bytes = Vec::new();
            write(&mut bytes, 7, &entry);
            prop_assert_eq!(bytes.len() as u64, size(&entry));
            let head = Head::read(&bytes).unwrap();
            prop_assert_eq!((head.offset, head.time), (offset, time));
            prop_assert!(head.fits(7, &bytes[HEAD..]));
            prop_assert!(!head.fits(8, &bytes[HEAD..]), "bytes of another segment");
            let bit = bit.index(bytes.len() * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(!Head::read(&bytes).unwrap().fits(7, &bytes[HEAD..]));
        }

        #[test]
        fn no_name_leaves_its_directory(topic in any::<String>(), incarnation in any::<u64>()) {
            let name = directory_name(&topic, incarnation);
            prop_assert!(name.len() <= 255);
            prop_assert!(name.bytes().all(|b| b.is_ascii_graphic() && b != b'/'));
            prop_assert!(name.contains('~'), "so it is neither . nor ..");
        }
    }

    #[test]
    fn names_of_segments_are_read_back() {
        assert_eq!(segment_base(&segment_name(0)), Some(0));
        assert_eq!(segment_base(&segment_name(u64::MAX)), Some(u64::MAX));
        assert_eq!(segment_base(&index_name(5)), None);
        assert_eq!(segment_base("5.seg"), None);
    }
}
