//! A record, and its bytes.
//!
//! ```text
//! format u8 = 1 · flags u8 · [deadline u64] · [metadata length u32 · metadata] · value
//! ```
//! Numbers are big-endian; the two parts in brackets are there when their flag is set. The value is
//! the rest, so that it is read without being copied.

use std::collections::BTreeMap;

use bytes::{Buf as _, Bytes};
use micro_core::Timestamp;
use micro_storage::{Revision, Row};
use prost::Message as _;

use crate::{Error, place};

const FORMAT: u8 = 1;
const HAS_DEADLINE: u8 = 1;
const HAS_METADATA: u8 = 2;

/// A word about a record.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Field {
    /// What the value is, such as `string`.
    #[prost(string, tag = "1")]
    pub kind: String,
    /// The value.
    #[prost(string, tag = "2")]
    pub value: String,
}

/// What is noted about a record beside its value.
pub type Metadata = BTreeMap<String, Field>;

/// Metadata as it is stored.
#[derive(Clone, PartialEq, prost::Message)]
struct Notes {
    #[prost(btree_map = "string, message", tag = "1")]
    fields: Metadata,
}

/// A record as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Its key.
    pub key: String,
    /// Its value.
    pub value: Bytes,
    /// What is noted about it.
    pub metadata: Metadata,
    /// From when on it is gone.
    pub deadline: Option<Timestamp>,
    /// The commit that wrote it.
    pub revision: Revision,
}

/// The bytes of a record.
pub(crate) fn encode(value: &[u8], deadline: Option<Timestamp>, metadata: Metadata) -> Vec<u8> {
    let notes = if metadata.is_empty() {
        Vec::new()
    } else {
        Notes { fields: metadata }.encode_to_vec()
    };
    let mut bytes = Vec::with_capacity(14 + notes.len() + value.len());
    bytes.extend_from_slice(&[FORMAT, 0]);
    let mut flags = 0;
    if let Some(deadline) = deadline {
        flags |= HAS_DEADLINE;
        bytes.extend_from_slice(&u64::try_from(deadline.0).unwrap_or(0).to_be_bytes());
    }
    // Metadata is smaller than a message, and messages are smaller than this.
    if let Ok(length @ 1..) = u32::try_from(notes.len()) {
        flags |= HAS_METADATA;
        bytes.extend_from_slice(&length.to_be_bytes());
        bytes.extend_from_slice(&notes);
    }
    if let Some(place) = bytes.get_mut(1) {
        *place = flags;
    }
    bytes.extend_from_slice(value);
    bytes
}

/// A stored record, its metadata still in bytes.
pub(crate) struct Stored {
    pub(crate) deadline: Option<Timestamp>,
    pub(crate) value: Bytes,
    metadata: Bytes,
}

impl Stored {
    /// Takes the bytes of a record apart.
    pub(crate) fn decode(mut bytes: Bytes) -> Result<Self, Error> {
        let format = bytes.try_get_u8().map_err(|_| Error::Broken)?;
        if format != FORMAT {
            return Err(micro_storage::Error::Format {
                table: place::RECORDS,
                format,
            }
            .into());
        }
        let flags = bytes.try_get_u8().map_err(|_| Error::Broken)?;
        let deadline = if flags & HAS_DEADLINE == 0 {
            None
        } else {
            let deadline = bytes.try_get_u64().map_err(|_| Error::Broken)?;
            Some(Timestamp(
                i64::try_from(deadline).map_err(|_| Error::Broken)?,
            ))
        };
        let metadata = if flags & HAS_METADATA == 0 {
            Bytes::new()
        } else {
            let length = bytes.try_get_u32().map_err(|_| Error::Broken)? as usize;
            if bytes.len() < length {
                return Err(Error::Broken);
            }
            bytes.split_to(length)
        };
        Ok(Self {
            deadline,
            value: bytes,
            metadata,
        })
    }

    /// Whether it is gone at `now`.
    pub(crate) fn is_over(&self, now: Timestamp) -> bool {
        self.deadline.is_some_and(|deadline| deadline <= now)
    }

    /// The record at `place`.
    pub(crate) fn record(self, place: &[u8], revision: Revision) -> Result<Record, Error> {
        let (_, key) = place::parts(place).ok_or(Error::Broken)?;
        let metadata = if self.metadata.is_empty() {
            Metadata::new()
        } else {
            Notes::decode(self.metadata)
                .map_err(|_| Error::Broken)?
                .fields
        };
        Ok(Record {
            key: key.to_owned(),
            value: self.value,
            metadata,
            deadline: self.deadline,
            revision,
        })
    }
}

/// The record in `row`, unless it is gone at `now`.
pub(crate) fn alive(row: Row, now: Timestamp) -> Result<Option<Record>, Error> {
    let stored = Stored::decode(row.value)?;
    if stored.is_over(now) {
        return Ok(None);
    }
    stored.record(&row.key, row.revision).map(Some)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn fields() -> impl Strategy<Value = Metadata> {
        prop::collection::btree_map(
            ".{0,8}",
            (".{0,4}", ".{0,8}").prop_map(|(kind, value)| Field { kind, value }),
            0..4,
        )
    }

    proptest! {
        #[test]
        fn a_record_is_read_as_it_was_written(
            value in prop::collection::vec(any::<u8>(), 0..64),
            deadline in prop::option::of(1..i64::MAX),
            metadata in fields(),
        ) {
            let deadline = deadline.map(Timestamp);
            let bytes = encode(&value, deadline, metadata.clone());
            let row = Row { key: place::prefix("t", "k").into(), value: bytes.into(), revision: Revision(7) };
            let read = alive(row, Timestamp(0)).unwrap().unwrap();
            prop_assert_eq!(read, Record { key: "k".into(), value: value.into(), metadata, deadline, revision: Revision(7) });
        }

        #[test]
        fn bytes_that_are_no_record_are_refused_or_read_but_never_fatal(
            bytes in prop::collection::vec(any::<u8>(), 0..64),
        ) {
            let row = Row { key: place::prefix("t", "k").into(), value: bytes.into(), revision: Revision(1) };
            drop(alive(row, Timestamp(0)));
        }
    }

    #[test]
    fn a_record_of_a_newer_format_is_not_misread() {
        let newer = Stored::decode(Bytes::from_static(&[2, 0, 1]));
        assert!(newer.is_err_and(|e| e.to_string().contains("format 2")));
    }

    #[test]
    fn a_record_is_gone_at_its_deadline() {
        let bytes = Bytes::from(encode(b"v", Some(Timestamp(10)), Metadata::new()));
        let stored = Stored::decode(bytes).unwrap();
        assert!(!stored.is_over(Timestamp(9)));
        assert!(stored.is_over(Timestamp(10)));
    }
}
