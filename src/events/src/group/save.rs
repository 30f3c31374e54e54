//! Saving the position of a durable group, and giving up the events that nobody could handle, in
//! one step: what leaves the group arrives in the topic for dead events.
//!
//! Answers are not waited for one by one. At most one save is under way; what changes meanwhile goes
//! with the next one, which begins a moment later. A crash in between means that some events are
//! delivered again, and loses none.

use std::{sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
use ring::rand::SystemRandom;
use tokio::time::Instant;

use super::{GROUPS, Key, position::Position, reader, row_key};
use crate::{
    Error,
    event::{Delivery, NewEvent, TopicLabel},
    name,
    topics::Topics,
};

/// How long a change waits for others. Long enough that publishers, who wait for the same disk, are
/// not slowed down by each single answer.
const PAUSE: Duration = Duration::from_millis(10);
/// A position is longer with more open events, and is then saved less often.
const PAUSE_PER_OPEN: Duration = Duration::from_micros(4);
/// The pause after a failed save; it doubles with each.
const FIRST_RETRY: Duration = Duration::from_millis(500);
/// The longest pause after a failed save.
const LAST_RETRY: Duration = Duration::from_secs(30);
/// Bytes of dead events in one save.
const BURIED: usize = 16 << 20;

/// How a save ended.
pub(super) struct Saved {
    outcome: Result<(), Error>,
    /// Dead events that are in their topic now.
    buried: Vec<u64>,
}

/// Says when to save, and does it.
pub(super) struct Saver {
    topics: Arc<Topics>,
    key: Key,
    group: String,
    since: Option<Instant>,
    failures: u32,
    running: Option<BoxFuture<'static, Saved>>,
}

impl Saver {
    pub(super) fn new(topics: &Arc<Topics>, key: &Key, group: &str) -> Self {
        Self {
            topics: Arc::clone(topics),
            key: key.clone(),
            group: group.to_owned(),
            since: None,
            failures: 0,
            running: None,
        }
    }

    /// There is something to save.
    pub(super) fn touch(&mut self, now: Instant) {
        self.since.get_or_insert(now);
    }

    /// Everything is saved.
    pub(super) fn is_clean(&self) -> bool {
        self.since.is_none() && self.running.is_none()
    }

    pub(super) fn is_running(&self) -> bool {
        self.running.is_some()
    }

    /// When to save next. `hurry`: as soon as possible.
    pub(super) fn due(&self, open: usize, hurry: bool) -> Option<Instant> {
        if self.running.is_some() {
            return None;
        }
        let since = self.since?;
        if self.failures > 0 {
            let doublings = (self.failures - 1).min(16);
            return Some(since + FIRST_RETRY.saturating_mul(1 << doublings).min(LAST_RETRY));
        }
        let open = u32::try_from(open).unwrap_or(u32::MAX);
        let pause = PAUSE + PAUSE_PER_OPEN.saturating_mul(open);
        Some(if hurry { since } else { since + pause })
    }

    /// Begins to save.
    pub(super) fn start(&mut self, position: Position, dying: Vec<(u64, u32)>) {
        self.since = None;
        let task = Task {
            topics: Arc::clone(&self.topics),
            topic: Arc::clone(&self.key.topic),
            group: self.group.clone(),
        };
        self.running = Some(Box::pin(task.save(position, dying)));
    }

    /// The end of the save under way; never without one.
    pub(super) async fn ended(&mut self) -> Saved {
        match &mut self.running {
            Some(running) => {
                let saved = running.await;
                self.running = None;
                saved
            }
            None => std::future::pending().await,
        }
    }

    /// Takes note of how a save ended. Returns the events that are in the topic for dead ones now.
    pub(super) fn note(&mut self, saved: Saved, now: Instant) -> Vec<u64> {
        match saved.outcome {
            Ok(()) => {
                self.failures = 0;
                saved.buried
            }
            Err(Error::Storage(error)) if Topics::made_meanwhile(&error) => {
                self.touch(now);
                Vec::new()
            }
            Err(error) => {
                if self.failures == 0 {
                    tracing::warn!(namespace = %self.topics.space().namespace(),
                        topic = %self.key.topic, group = self.group, %error,
                        "The position of a group could not be saved; it is tried again.");
                }
                self.failures = self.failures.saturating_add(1);
                self.since = Some(now);
                Vec::new()
            }
        }
    }
}

/// The end of the save under way; never without one.
pub(super) async fn ended(saver: &mut Option<Saver>) -> Saved {
    match saver {
        Some(saver) => saver.ended().await,
        None => std::future::pending().await,
    }
}

/// One save.
struct Task {
    topics: Arc<Topics>,
    topic: Arc<str>,
    group: String,
}

impl Task {
    async fn save(self, position: Position, dying: Vec<(u64, u32)>) -> Saved {
        match self.commit(position, dying).await {
            Ok(buried) => Saved {
                outcome: Ok(()),
                buried,
            },
            Err(error) => Saved {
                outcome: Err(error),
                buried: Vec::new(),
            },
        }
    }

    async fn commit(
        self,
        mut position: Position,
        dying: Vec<(u64, u32)>,
    ) -> Result<Vec<u64>, Error> {
        // While a topic is being removed nothing is added to any; the dead wait.
        let stay = if dying.is_empty() {
            None
        } else {
            self.topics.try_stay()
        };
        let mut batch = self.topics.space().batch();
        let mut buried = Vec::new();
        if stay.is_some() {
            let dead = name::dead(&self.topic);
            for (offset, letter) in self.letters(dying).await? {
                if let Some(letter) = letter {
                    self.topics.append(&mut batch, &dead, &letter)?;
                }
                buried.push(offset);
            }
            position
                .open
                .retain(|(offset, _)| buried.binary_search(offset).is_err());
        }
        let row = row_key(&self.topic, &self.group);
        batch.put(GROUPS, row, position.encode());
        batch.commit().await?;
        drop(stay);
        Ok(buried)
    }

    /// What the topic for dead events gets; nothing for an event that is not kept any more.
    async fn letters(&self, dying: Vec<(u64, u32)>) -> Result<Vec<(u64, Option<Vec<u8>>)>, Error> {
        let entries = self.topics.entries(&self.topic);
        let label = TopicLabel::new(&self.topic);
        let group = self.group.clone();
        let now = self.topics.clock().now().unix_seconds();
        let write = move || {
            let random = SystemRandom::new();
            let mut letters = Vec::new();
            let mut bytes = 0;
            for (offset, deliveries) in dying {
                let Some(entry) = reader::one(&entries, offset)? else {
                    letters.push((offset, None));
                    continue;
                };
                let event = Delivery::new(&label, offset, &entry.value)?.event()?;
                let mut metadata = event.metadata;
                metadata.extend([
                    ("dead-topic".to_owned(), event.topic),
                    ("dead-group".to_owned(), group.clone()),
                    ("dead-id".to_owned(), event.id),
                    ("dead-offset".to_owned(), offset.to_string()),
                    ("dead-deliveries".to_owned(), deliveries.to_string()),
                ]);
                let letter = NewEvent {
                    topic: String::new(),
                    metadata,
                    payload: event.payload,
                    timestamp: event.timestamp,
                };
                let (_, letter) = letter.keep(now, &random, usize::MAX)?;
                bytes += letter.len();
                letters.push((offset, Some(letter)));
                if bytes >= BURIED {
                    break;
                }
            }
            Ok(letters)
        };
        match tokio::task::spawn_blocking(write).await {
            Ok(letters) => letters,
            Err(_) => Err(Error::Stopping),
        }
    }
}
