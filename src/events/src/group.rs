//! Groups of consumers. Each event of a topic goes to one consumer of each group; a consumer
//! without a group is a group of its own, which nobody remembers.
//!
//! A group that has consumers has a [`coordinator`]: a task that reads the topic, hands events out,
//! hears the answers and saves the position. Groups without consumers are a row in the database and
//! cost nothing else.

use std::{sync::Arc, time::Duration};

use futures_util::stream::BoxStream;
use micro_core::Timestamp;
use micro_storage::{Batch, Range, Space};

use crate::{Error, event::EventId};

mod begin;
mod coordinator;
mod hub;
mod ledger;
mod outbox;
mod position;
mod reader;
mod roster;
mod save;

pub(crate) use hub::HubOf;
pub(crate) use ledger::Terms;
pub use outbox::Deliveries;
use position::Position;

/// One row for each durable group.
const GROUPS: &str = "events.groups";
/// Stands between topic and group in a key; names have no control characters.
const SEPARATOR: u8 = 0;
/// Events that may wait for the answer of one consumer, when it does not say.
const IN_FLIGHT: u32 = 256;
/// The most that it may say.
const MOST_IN_FLIGHT: u32 = 4096;

/// What to consume, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Consume {
    /// The topic.
    pub topic: String,
    /// Empty: every event, for this consumer alone.
    pub group: String,
    /// Where a group begins that is not known yet.
    pub start: Start,
    /// Whether the consumer answers.
    pub answers: Answers,
    /// Deliveries after the first; `None` without end.
    pub retries: Option<u32>,
    /// Events that may be with the consumer at the same time; 0 for the default.
    pub in_flight: u32,
}

/// Where a new group begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// With what is published from now on.
    Now,
    /// With the first event of that time or later.
    At(Timestamp),
    /// With this event.
    From(u64),
}

/// How an event counts as done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answers {
    /// When it was sent.
    No,
    /// When the consumer says so. An answer that takes longer than this is no answer.
    Within(Duration),
}

/// What a consumer says about an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer {
    /// Which one.
    pub id: EventId,
    /// Done, or to be delivered again.
    pub success: bool,
}

/// The answers of one consumer, as they come.
pub type AnswerStream = BoxStream<'static, Answer>;

/// A group as it is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupState {
    /// Its topic.
    pub topic: String,
    /// Its name.
    pub name: String,
    /// Every event below this is done.
    pub position: u64,
    /// Events that are not done.
    pub lag: u64,
    /// Events that are with consumers.
    pub in_flight: u64,
    /// Consumers.
    pub consumers: u64,
    /// Events given up since the node started.
    pub dead: u64,
}

/// A group of one namespace.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    pub(crate) topic: Arc<str>,
    pub(crate) group: Name,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Name {
    /// Durable.
    Named(Arc<str>),
    /// Of one consumer, gone with it.
    Private(u64),
}

impl Key {
    pub(crate) fn is(&self, topic: &str, group: &str) -> bool {
        &*self.topic == topic && matches!(&self.group, Name::Named(name) if &**name == group)
    }

    /// The name of a durable group.
    fn named(&self) -> Option<&str> {
        match &self.group {
            Name::Named(name) => Some(name),
            Name::Private(_) => None,
        }
    }
}

impl Consume {
    /// How many events the consumer may have.
    fn room(&self) -> usize {
        let asked = match self.in_flight {
            0 => IN_FLIGHT,
            asked => asked.min(MOST_IN_FLIGHT),
        };
        usize::try_from(asked).unwrap_or(usize::MAX)
    }
}

fn row_key(topic: &str, group: &str) -> Vec<u8> {
    [topic.as_bytes(), &[SEPARATOR], group.as_bytes()].concat()
}

fn names_of(key: &[u8]) -> Option<(&str, &str)> {
    std::str::from_utf8(key)
        .ok()?
        .split_once(char::from(SEPARATOR))
}

/// Where a group is according to its row.
fn load(space: &Space, topic: &str, group: &str) -> Result<Option<Position>, Error> {
    match space.get(GROUPS, &row_key(topic, group))? {
        Some(row) => decode(topic, group, &row.value).map(Some),
        None => Ok(None),
    }
}

fn decode(topic: &str, group: &str, row: &[u8]) -> Result<Position, Error> {
    Position::decode(row).map_err(|reason| Error::UnreadableGroup {
        topic: topic.to_owned(),
        group: group.to_owned(),
        reason,
    })
}

/// Whether there is such a durable group.
pub(crate) fn exists(space: &Space, topic: &str, group: &str) -> Result<bool, Error> {
    Ok(space.get(GROUPS, &row_key(topic, group))?.is_some())
}

/// Lets `batch` remove a durable group.
pub(crate) fn forget(batch: &mut Batch, topic: &str, group: &str) {
    batch.delete(GROUPS, row_key(topic, group));
}

/// Lets `batch` remove all durable groups of a topic.
pub(crate) fn forget_all(space: &Space, batch: &mut Batch, topic: &str) -> Result<(), Error> {
    let prefix = row_key(topic, "");
    for row in space.scan(GROUPS, Range::prefix(&prefix).keys_only())? {
        batch.delete(GROUPS, row.key);
    }
    Ok(())
}

/// The rows of all durable groups, or of those of one topic: topic, group, position.
pub(crate) fn rows(
    space: &Space,
    topic: Option<&str>,
) -> Result<Vec<(String, String, Position)>, Error> {
    let prefix = topic.map_or_else(Vec::new, |topic| row_key(topic, ""));
    let rows = space.scan(GROUPS, Range::prefix(&prefix))?;
    rows.iter()
        .filter_map(|row| names_of(&row.key).map(|names| (names, row)))
        .map(|((topic, group), row)| {
            let position = decode(topic, group, &row.value)?;
            Ok((topic.to_owned(), group.to_owned(), position))
        })
        .collect()
}
