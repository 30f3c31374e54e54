//! Events: what is published, what is kept, and what is delivered.
//!
//! A kept event is a version byte and then the fields 1, 3, 4 and 5 of `events.Event` as protobuf
//! writes them, the id first. Delivering it is therefore copying: topic, offset and the number of
//! the delivery are written behind it, because protobuf does not mind the order of fields.

use std::{collections::HashMap, sync::Arc};

use bytes::{BufMut, Bytes};
use prost::Message as _;
use ring::rand::{SecureRandom as _, SystemRandom};

use crate::Error;

/// The first byte of a kept event.
const VERSION: u8 = 1;
/// Tag and length of field 1 with 36 bytes.
const ID_HEADER: [u8; 2] = [0x0a, 36];
/// Bytes of one event with its metadata.
pub(crate) const MAX_EVENT: usize = 16 << 20;

/// The id of an event: a UUID of version 4 as text.
pub type EventId = [u8; 36];

/// An event to publish.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NewEvent {
    /// Where it goes.
    pub topic: String,
    /// Free text for whoever consumes it.
    pub metadata: HashMap<String, String>,
    /// The event itself.
    pub payload: Bytes,
    /// Unix seconds; not positive means now.
    pub timestamp: i64,
}

/// What became of a published event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// Its id.
    pub id: String,
    /// Its place in the topic.
    pub offset: u64,
}

/// An event as a consumer or a reader gets it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Its id.
    pub id: String,
    /// Where it was published.
    pub topic: String,
    /// Free text from the publisher.
    pub metadata: HashMap<String, String>,
    /// The event itself.
    pub payload: Bytes,
    /// Unix seconds, as the publisher said.
    pub timestamp: i64,
    /// Its place in the topic.
    pub offset: u64,
    /// 1 for the first delivery; 0 when it was read.
    pub delivery: u32,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Kept {
    #[prost(string, tag = "1")]
    id: String,
    #[prost(map = "string, string", tag = "3")]
    metadata: HashMap<String, String>,
    #[prost(bytes = "bytes", tag = "4")]
    payload: Bytes,
    #[prost(int64, tag = "5")]
    timestamp: i64,
}

/// The fields of `events.Event` that depend on the topic.
#[derive(Clone, PartialEq, prost::Message)]
struct Place {
    #[prost(string, tag = "2")]
    topic: String,
}

/// The fields of `events.Event` that differ with each delivery.
#[derive(Clone, PartialEq, prost::Message)]
struct Count {
    #[prost(uint64, tag = "15")]
    offset: u64,
    #[prost(uint32, tag = "16")]
    delivery: u32,
}

impl NewEvent {
    /// The id it gets and the bytes to keep, if they are not more than `limit`.
    pub(crate) fn keep(
        self,
        now: i64,
        random: &SystemRandom,
        limit: usize,
    ) -> Result<(String, Vec<u8>), Error> {
        let kept = Kept {
            id: new_id(random)?,
            metadata: self.metadata,
            payload: self.payload,
            timestamp: if self.timestamp > 0 {
                self.timestamp
            } else {
                now
            },
        };
        let size = kept.encoded_len();
        if size > limit {
            return Err(Error::TooLarge {
                topic: self.topic,
                size,
                limit,
            });
        }
        let mut bytes = Vec::with_capacity(size + 1);
        bytes.push(VERSION);
        kept.encode_raw(&mut bytes);
        Ok((kept.id, bytes))
    }
}

/// A random UUID of version 4.
fn new_id(random: &SystemRandom) -> Result<String, Error> {
    const DIGITS: [char; 16] = [
        '0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e', 'f',
    ];
    let mut bytes = [0u8; 16];
    random.fill(&mut bytes).map_err(|_| Error::Random)?;
    let mut text = String::with_capacity(36);
    for (at, byte) in bytes.into_iter().enumerate() {
        if matches!(at, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        let byte = match at {
            6 => (byte & 0x0f) | 0x40,
            8 => (byte & 0x3f) | 0x80,
            _ => byte,
        };
        for digit in [byte >> 4, byte & 0x0f] {
            text.extend(DIGITS.get(usize::from(digit)));
        }
    }
    Ok(text)
}

/// The topic of many deliveries, written once.
#[derive(Debug, Clone)]
pub(crate) struct TopicLabel {
    pub(crate) name: Arc<str>,
    field: Bytes,
}

impl TopicLabel {
    pub(crate) fn new(name: &str) -> Self {
        let place = Place {
            topic: name.to_owned(),
        };
        Self {
            name: name.into(),
            field: place.encode_to_vec().into(),
        }
    }
}

/// An event on its way to a consumer. It holds the bytes as they are kept.
#[derive(Debug, Clone)]
pub struct Delivery {
    topic: TopicLabel,
    kept: Bytes,
    pub(crate) offset: u64,
    delivery: u32,
    id: EventId,
}

impl Delivery {
    /// Takes the bytes of a topic's entry.
    pub(crate) fn new(topic: &TopicLabel, offset: u64, value: &Bytes) -> Result<Self, Error> {
        let unreadable = |reason: &str| Error::Unreadable {
            topic: topic.name.as_ref().to_owned(),
            offset,
            reason: reason.to_owned(),
        };
        match value.first() {
            Some(&VERSION) => {}
            Some(other) => return Err(unreadable(&format!("its format {other} is unknown"))),
            None => return Err(unreadable("it is empty")),
        }
        let kept = value.slice(1..);
        let id = kept
            .strip_prefix(&ID_HEADER)
            .and_then(|rest| rest.first_chunk())
            .copied()
            .ok_or_else(|| unreadable("it has no id"))?;
        Ok(Self {
            topic: topic.clone(),
            kept,
            offset,
            delivery: 0,
            id,
        })
    }

    /// The same, delivered for the `number`th time.
    pub(crate) fn numbered(mut self, number: u32) -> Self {
        self.delivery = number;
        self
    }

    pub(crate) fn id(&self) -> EventId {
        self.id
    }

    /// Bytes it holds.
    pub(crate) fn size(&self) -> usize {
        self.kept.len()
    }

    /// Bytes of it as an `events.Event`, about.
    pub(crate) fn length(&self) -> usize {
        self.kept.len() + self.topic.field.len() + 16
    }

    /// The event, taken apart.
    ///
    /// # Errors
    /// `Internal` when its bytes are damaged.
    pub fn event(&self) -> Result<Event, Error> {
        let kept = Kept::decode(self.kept.clone()).map_err(|error| Error::Unreadable {
            topic: self.topic.name.as_ref().to_owned(),
            offset: self.offset,
            reason: error.to_string(),
        })?;
        Ok(Event {
            id: kept.id,
            topic: self.topic.name.as_ref().to_owned(),
            metadata: kept.metadata,
            payload: kept.payload,
            timestamp: kept.timestamp,
            offset: self.offset,
            delivery: self.delivery,
        })
    }

    /// Writes it as an `events.Event`.
    pub(crate) fn write(&self, out: &mut impl BufMut) {
        out.put_slice(&self.kept);
        out.put_slice(&self.topic.field);
        let count = Count {
            offset: self.offset,
            delivery: self.delivery,
        };
        count.encode_raw(out);
    }
}

#[cfg(test)]
mod tests {
    use micro_proto::events::Event as WireEvent;

    use super::*;

    fn kept(event: NewEvent) -> (String, Bytes) {
        let (id, bytes) = event
            .keep(1_700_000_000, &SystemRandom::new(), MAX_EVENT)
            .unwrap();
        (id, bytes.into())
    }

    #[test]
    fn an_event_is_delivered_as_it_was_published() {
        let (id, bytes) = kept(NewEvent {
            topic: "orders".into(),
            metadata: [("k".to_owned(), "v".to_owned())].into(),
            payload: Bytes::from_static(b"\0payload"),
            timestamp: 0,
        });
        let label = TopicLabel::new("orders");
        let delivery = Delivery::new(&label, 300, &bytes).unwrap().numbered(2);
        assert_eq!(delivery.id().as_slice(), id.as_bytes());
        let mut wire = Vec::new();
        delivery.write(&mut wire);
        let wire = WireEvent::decode(wire.as_slice()).unwrap();
        let event = delivery.event().unwrap();
        assert_eq!(wire.id, id);
        assert_eq!(wire.topic, "orders");
        assert_eq!(wire.metadata["k"], "v");
        assert_eq!(wire.payload, b"\0payload");
        assert_eq!(wire.timestamp, 1_700_000_000);
        assert_eq!((wire.offset, wire.delivery), (300, 2));
        assert_eq!((event.id, event.offset, event.delivery), (id, 300, 2));
    }

    #[test]
    fn ids_are_uuids_of_version_4() {
        let random = SystemRandom::new();
        let ids: Vec<String> = (0..100).map(|_| new_id(&random).unwrap()).collect();
        for id in &ids {
            assert_eq!(id.len(), 36);
            let dashes: Vec<usize> = id.match_indices('-').map(|(at, _)| at).collect();
            assert_eq!(dashes, [8, 13, 18, 23]);
            assert_eq!(id.as_bytes()[14], b'4');
            assert!(b"89ab".contains(&id.as_bytes()[19]), "{id}");
        }
        let different: std::collections::HashSet<_> = ids.iter().collect();
        assert_eq!(different.len(), ids.len());
    }

    #[test]
    fn damaged_and_newer_events_are_named() {
        let label = TopicLabel::new("orders");
        for bytes in [&b""[..], b"\x02abc", b"\x01", b"\x01\x0a\x03abc"] {
            let error = Delivery::new(&label, 7, &Bytes::copy_from_slice(bytes)).unwrap_err();
            assert!(
                error.to_string().contains("event 7 of topic orders"),
                "{error}"
            );
        }
    }

    #[test]
    fn events_that_are_too_large_are_refused() {
        let event = NewEvent {
            topic: "orders".into(),
            payload: vec![0; MAX_EVENT].into(),
            ..NewEvent::default()
        };
        let error = event.keep(1, &SystemRandom::new(), MAX_EVENT).unwrap_err();
        assert!(matches!(error, Error::TooLarge { .. }));
    }
}
