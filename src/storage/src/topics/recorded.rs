//! What the index stores about a topic: where it begins and ends, and what of its files is for sure.

use micro_core::{Namespace, Timestamp};

/// The version of [`Recorded::encode`].
const VERSION: u8 = 1;
/// Seven numbers of eight bytes behind the version.
const LENGTH: usize = 1 + 7 * 8;

/// A topic as of a checkpoint. The index keeps it under the namespace and the name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Recorded {
    /// Whose topic it is.
    pub(crate) namespace: Namespace,
    /// Its name.
    pub(crate) topic: String,
    /// Which topic of this name, if there were several.
    pub(super) incarnation: u64,
    /// The time of the newest event.
    pub(super) time: Timestamp,
    pub(super) stored: Stored,
}

/// What the files of a topic hold for sure.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Stored {
    /// The oldest event that is kept. What lies before it may still be in a file.
    pub(super) first: u64,
    /// The offset behind the last event.
    pub(super) end: u64,
    /// The segment that is written to.
    pub(super) base: u64,
    /// How much of it is for sure; 0 when there is no segment.
    pub(super) length: u64,
    /// The length of all segments.
    pub(super) bytes: u64,
}

impl Recorded {
    /// Without the namespace and the name, which are its key.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(LENGTH);
        bytes.push(VERSION);
        let Stored {
            first,
            end,
            base,
            length,
            bytes: total,
        } = self.stored;
        for number in [self.incarnation, first, end, base, length, total] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        bytes.extend_from_slice(&self.time.0.to_le_bytes());
        bytes
    }

    /// What [`Recorded::encode`] made; `None` when it is something else.
    pub(crate) fn decode(namespace: Namespace, topic: &str, bytes: &[u8]) -> Option<Self> {
        let (version, numbers) = bytes.split_first()?;
        let (numbers, rest) = numbers.as_chunks::<8>();
        if *version != VERSION || !rest.is_empty() {
            return None;
        }
        let [incarnation, first, end, base, length, total, time] = numbers else {
            return None;
        };
        Some(Self {
            namespace,
            topic: topic.to_owned(),
            incarnation: u64::from_le_bytes(*incarnation),
            time: Timestamp(i64::from_le_bytes(*time)),
            stored: Stored {
                first: u64::from_le_bytes(*first),
                end: u64::from_le_bytes(*end),
                base: u64::from_le_bytes(*base),
                length: u64::from_le_bytes(*length),
                bytes: u64::from_le_bytes(*total),
            },
        })
    }
}
