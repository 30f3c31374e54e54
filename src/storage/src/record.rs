//! The bytes of a batch: what the log keeps, and what recovery reads again.
//!
//! A batch is written in this form from the start, so that between the caller and the disk nothing
//! is copied, and rows in memory are slices of it. Numbers are little-endian.
//!
//! ```text
//! record     format u8 = 1 · revision u64 · time i64 · namespace u8+bytes · operations
//! put        1 · key length u16 · value length u32 · key · value
//! delete     2 · key length u16 · key
//! append     3 · topic length u16 · value length u32 · offset u64 · topic · value
//! remove     4 · topic length u16 · topic
//! retain     5 · topic length u16 · first offset u64 · topic
//! ```
//!
//! A key is full: `table u8+bytes · namespace u8+bytes · key`. The lengths in front make the encoding
//! free of prefixes: a table, and a namespace in it, are each one range of keys.

use bytes::{Buf as _, Bytes};
use micro_core::{Namespace, Timestamp};

use crate::{Error, Expect, Revision};

/// The format that this version writes.
pub(crate) const FORMAT: u8 = 1;
/// Where the revision and the time stand; they are known when the record's turn comes.
const REVISION: usize = 1;
const TIME: usize = 9;
const NAMESPACE: usize = 17;

/// The longest key that a caller may use.
const MAX_KEY: usize = 4 * 1024;
/// The longest value.
const MAX_VALUE: usize = 64 * 1024 * 1024;
/// The longest name of a topic.
const MAX_NAME: usize = 255;
/// The largest batch, with everything in it.
const MAX_BATCH: usize = 128 * 1024 * 1024;

const PUT: u8 = 1;
const DELETE: u8 = 2;
const APPEND: u8 = 3;
const REMOVE: u8 = 4;
const RETAIN: u8 = 5;

/// What must be so for a batch to happen.
#[derive(Debug, Clone)]
pub struct Expectation {
    /// The table.
    pub table: &'static str,
    /// The key in it.
    pub key: Vec<u8>,
    /// What is expected of it.
    pub expect: Expect,
}

/// A batch on its way to an engine.
#[derive(Debug, Clone)]
pub struct Writes {
    payload: Vec<u8>,
    namespace: Namespace,
    expectations: Vec<Expectation>,
    /// Where in `payload` the offset of each append belongs.
    offsets: Vec<usize>,
    /// Bytes that this may add to what the namespace holds.
    grows: u64,
    operations: usize,
    alone: bool,
    failed: Option<Error>,
}

/// One operation of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Op {
    Put {
        key: Bytes,
        value: Bytes,
    },
    Delete {
        key: Bytes,
    },
    Append {
        topic: Bytes,
        offset: u64,
        value: Bytes,
    },
    Remove {
        topic: Bytes,
    },
    Retain {
        topic: Bytes,
        first: u64,
    },
}

/// A record taken apart.
#[derive(Debug)]
pub(crate) struct Record {
    pub(crate) revision: Revision,
    pub(crate) time: Timestamp,
    pub(crate) namespace: Namespace,
    operations: Bytes,
}

impl Writes {
    pub(crate) fn new(namespace: &Namespace) -> Self {
        let mut payload = Vec::with_capacity(512);
        payload.resize(NAMESPACE, 0);
        if let Some(format) = payload.first_mut() {
            *format = FORMAT;
        }
        short(&mut payload, namespace.as_str().as_bytes());
        Self {
            payload,
            namespace: namespace.clone(),
            expectations: Vec::new(),
            offsets: Vec::new(),
            grows: 0,
            operations: 0,
            alone: false,
            failed: None,
        }
    }

    /// Whose it is.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// What must be so.
    pub fn expectations(&self) -> &[Expectation] {
        &self.expectations
    }

    /// Whether it changes nothing (it may still expect something).
    pub fn is_empty(&self) -> bool {
        self.operations == 0
    }

    /// How many entries it appends.
    pub fn appends(&self) -> usize {
        self.offsets.len()
    }

    /// Bytes that this may add to what the namespace holds.
    pub fn grows(&self) -> u64 {
        self.grows
    }

    /// Its length as a record.
    pub fn bytes(&self) -> usize {
        self.payload.len()
    }

    /// Whether no other batch may be decided about before this one has happened.
    pub(crate) fn is_alone(&self) -> bool {
        self.alone
    }

    /// What was wrong with what the caller put in.
    pub(crate) fn take_failure(&mut self) -> Option<Error> {
        self.failed.take()
    }

    pub(crate) fn put(&mut self, table: &'static str, key: &[u8], value: &[u8]) {
        if !self.fits("key", key.len(), MAX_KEY) || !self.fits("value", value.len(), MAX_VALUE) {
            return;
        }
        let length = full_length(table, &self.namespace, key);
        self.payload.reserve(7 + length + value.len());
        self.payload.push(PUT);
        self.u16(length);
        self.u32(value.len());
        push_full(&mut self.payload, table, &self.namespace, key);
        self.payload.extend_from_slice(value);
        self.added(key.len() + value.len());
    }

    pub(crate) fn delete(&mut self, table: &'static str, key: &[u8]) {
        if !self.fits("key", key.len(), MAX_KEY) {
            return;
        }
        self.payload.push(DELETE);
        self.u16(full_length(table, &self.namespace, key));
        push_full(&mut self.payload, table, &self.namespace, key);
        self.added(0);
    }

    pub(crate) fn expect(&mut self, table: &'static str, key: &[u8], expect: Expect) {
        if self.fits("key", key.len(), MAX_KEY) {
            self.expectations.push(Expectation {
                table,
                key: key.to_vec(),
                expect,
            });
        }
    }

    pub(crate) fn append(&mut self, topic: &str, value: &[u8]) {
        if !self.fits("topic name", topic.len(), MAX_NAME)
            || !self.fits("value", value.len(), MAX_VALUE)
        {
            return;
        }
        self.payload.reserve(15 + topic.len() + value.len());
        self.payload.push(APPEND);
        self.u16(topic.len());
        self.u32(value.len());
        self.offsets.push(self.payload.len());
        self.payload.extend_from_slice(&0u64.to_le_bytes());
        self.payload.extend_from_slice(topic.as_bytes());
        self.payload.extend_from_slice(value);
        self.added(value.len());
    }

    pub(crate) fn remove_topic(&mut self, topic: &str) {
        if self.fits("topic name", topic.len(), MAX_NAME) {
            self.payload.push(REMOVE);
            self.u16(topic.len());
            self.payload.extend_from_slice(topic.as_bytes());
            self.alone = true;
            self.added(0);
        }
    }

    pub(crate) fn retain_topic(&mut self, topic: &str, first: u64) {
        if self.fits("topic name", topic.len(), MAX_NAME) {
            self.payload.push(RETAIN);
            self.u16(topic.len());
            self.payload.extend_from_slice(&first.to_le_bytes());
            self.payload.extend_from_slice(topic.as_bytes());
            self.added(0);
        }
    }

    /// Writes in what is known when the batch's turn has come.
    pub(crate) fn stamp(&mut self, revision: Revision, time: Timestamp) {
        overwrite(&mut self.payload, REVISION, &revision.0.to_le_bytes());
        overwrite(&mut self.payload, TIME, &time.0.to_le_bytes());
    }

    /// Calls `next` for the topic of each append, and writes in the offset that it gives.
    pub(crate) fn number(&mut self, mut next: impl FnMut(&str) -> u64) -> Vec<u64> {
        let mut given = Vec::with_capacity(self.offsets.len());
        for at in &self.offsets {
            // The lengths stand right before the offset, the name right behind it.
            let length = at
                .checked_sub(6)
                .and_then(|from| self.payload.get(from..from + 2))
                .map_or(0, |b| {
                    b.iter().rev().fold(0, |n, b| n << 8 | usize::from(*b))
                });
            let name = self
                .payload
                .get(at + 8..at + 8 + length)
                .unwrap_or_default();
            let offset = next(std::str::from_utf8(name).unwrap_or_default());
            overwrite(&mut self.payload, *at, &offset.to_le_bytes());
            given.push(offset);
        }
        given
    }

    pub(crate) fn into_payload(self) -> Bytes {
        self.payload.into()
    }

    fn added(&mut self, bytes: usize) {
        self.operations += 1;
        self.grows = self.grows.saturating_add(bytes as u64);
        self.fits("batch", self.payload.len(), MAX_BATCH);
    }

    fn fits(&mut self, what: &'static str, size: usize, limit: usize) -> bool {
        if self.failed.is_none() && size > limit {
            self.failed = Some(Error::TooLarge { what, size, limit });
            // It will be refused as a whole; it need not be held until then.
            self.payload.truncate(NAMESPACE);
        }
        self.failed.is_none()
    }

    /// Lengths were checked against limits far below.
    fn u16(&mut self, n: usize) {
        let n = u16::try_from(n).unwrap_or(u16::MAX);
        self.payload.extend_from_slice(&n.to_le_bytes());
    }

    fn u32(&mut self, n: usize) {
        let n = u32::try_from(n).unwrap_or(u32::MAX);
        self.payload.extend_from_slice(&n.to_le_bytes());
    }
}

impl Record {
    /// Takes a record apart; the text says what is wrong with it.
    pub(crate) fn parse(mut payload: Bytes) -> Result<Self, String> {
        let mut head = || -> Option<(u8, u64, i64, Bytes)> {
            let format = payload.try_get_u8().ok()?;
            if format != FORMAT {
                return Some((format, 0, 0, Bytes::new()));
            }
            let revision = payload.try_get_u64_le().ok()?;
            let time = payload.try_get_i64_le().ok()?;
            let length = payload.try_get_u8().ok()?;
            Some((format, revision, time, take(&mut payload, length.into())?))
        };
        let (format, revision, time, namespace) = head().ok_or("a record is cut short")?;
        if format != FORMAT {
            return Err(format!("a record has the unknown format {format}"));
        }
        let namespace = std::str::from_utf8(&namespace)
            .ok()
            .and_then(|text| Namespace::parse(text).ok())
            .ok_or("a record has no valid namespace")?;
        Ok(Self {
            revision: Revision(revision),
            time: Timestamp(time),
            namespace,
            operations: payload,
        })
    }

    /// Its operations; the iterator ends behind the first that cannot be read.
    pub(crate) fn operations(&self) -> impl Iterator<Item = Result<Op, String>> + use<> {
        let mut rest = self.operations.clone();
        std::iter::from_fn(move || {
            if rest.is_empty() {
                return None;
            }
            let op = operation(&mut rest);
            if op.is_none() {
                rest.clear();
            }
            Some(op.ok_or_else(|| "an operation of a record cannot be read".to_owned()))
        })
    }
}

fn operation(rest: &mut Bytes) -> Option<Op> {
    let kind = rest.try_get_u8().ok()?;
    let first = usize::from(rest.try_get_u16_le().ok()?);
    Some(match kind {
        PUT => {
            let length = usize::try_from(rest.try_get_u32_le().ok()?).ok()?;
            let key = take(rest, first)?;
            let value = take(rest, length)?;
            Op::Put { key, value }
        }
        DELETE => Op::Delete {
            key: take(rest, first)?,
        },
        APPEND => {
            let length = usize::try_from(rest.try_get_u32_le().ok()?).ok()?;
            let offset = rest.try_get_u64_le().ok()?;
            let topic = take(rest, first)?;
            let value = take(rest, length)?;
            Op::Append {
                topic,
                offset,
                value,
            }
        }
        REMOVE => Op::Remove {
            topic: take(rest, first)?,
        },
        RETAIN => {
            let from = rest.try_get_u64_le().ok()?;
            let topic = take(rest, first)?;
            Op::Retain { topic, first: from }
        }
        _ => return None,
    })
}

fn take(from: &mut Bytes, length: usize) -> Option<Bytes> {
    (length <= from.len()).then(|| from.split_to(length))
}

fn overwrite(payload: &mut [u8], at: usize, bytes: &[u8]) {
    if let Some(place) = payload.get_mut(at..at + bytes.len()) {
        place.copy_from_slice(bytes);
    }
}

/// A length below 256 in front.
fn short(into: &mut Vec<u8>, bytes: &[u8]) {
    into.push(u8::try_from(bytes.len()).unwrap_or(u8::MAX));
    into.extend_from_slice(bytes);
}

fn full_length(table: &'static str, namespace: &Namespace, key: &[u8]) -> usize {
    2 + table.len() + namespace.as_str().len() + key.len()
}

fn push_full(into: &mut Vec<u8>, table: &'static str, namespace: &Namespace, key: &[u8]) {
    short(into, table.as_bytes());
    short(into, namespace.as_str().as_bytes());
    into.extend_from_slice(key);
}

/// The full key of `key`; with an empty one, what all keys of the table in the namespace begin with.
pub(crate) fn full_key(table: &'static str, namespace: &Namespace, key: &[u8]) -> Vec<u8> {
    let mut full = Vec::with_capacity(full_length(table, namespace, key));
    push_full(&mut full, table, namespace, key);
    full
}

/// What all keys of a table begin with.
pub(crate) fn table_prefix(table: &'static str) -> Vec<u8> {
    let mut prefix = Vec::with_capacity(table.len() + 1);
    short(&mut prefix, table.as_bytes());
    prefix
}

/// Table, namespace and key of a full key.
pub(crate) fn split_key(full: &[u8]) -> Option<(&str, Namespace, &[u8])> {
    fn part(bytes: &[u8]) -> Option<(&str, &[u8])> {
        let (length, rest) = bytes.split_first()?;
        let (text, rest) = rest.split_at_checked((*length).into())?;
        Some((std::str::from_utf8(text).ok()?, rest))
    }
    let (table, rest) = part(full)?;
    let (namespace, key) = part(rest)?;
    Some((table, Namespace::parse(namespace).ok()?, key))
}

/// How long the part of a full key is that says table and namespace.
pub(crate) fn split_key_lengths(full: &[u8]) -> Option<usize> {
    let table = usize::from(*full.first()?) + 1;
    let namespace = usize::from(*full.get(table)?) + 1;
    Some(table + namespace).filter(|n| *n <= full.len())
}

/// The first key behind all that start with `prefix`; `None` when there is none.
pub(crate) fn after(prefix: &[u8]) -> Option<Vec<u8>> {
    let mut next = prefix.to_vec();
    while let Some(last) = next.pop() {
        if let Some(last) = last.checked_add(1) {
            next.push(last);
            return Some(next);
        }
    }
    None
}

#[cfg(test)]
mod tests;
