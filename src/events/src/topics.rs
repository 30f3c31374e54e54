//! The topics of a namespace: that they exist, how long their events are kept, and that nothing is
//! published to or consumed from one while it is being removed.
//!
//! Storage makes a topic with its first entry. We keep a row beside it, written in the same batch,
//! which is what is listed, counted and swept.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use micro_core::{Clock, Namespace};
use micro_storage::{Batch, Bounds, Expect, Range, Space, Storage, Topic};
use prost::Message as _;
use tokio::sync::{RwLock, RwLockReadGuard};

use crate::{Error, group::HubOf, name};

/// One row for each topic.
const TOPICS: &str = "events.topics";
/// Topics of one namespace, those for dead events not counted.
const MOST: usize = 10_000;
/// The first byte of a row.
const VERSION: u8 = 1;
/// What our topics are called in storage, where others may have topics too.
const PREFIX: &str = "events/";

/// How long events are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// `None` for ever.
    pub age: Option<Duration>,
    /// `None` for as many as there are.
    pub bytes: Option<u64>,
}

impl Default for Retention {
    /// Seven days and 1 GiB.
    fn default() -> Self {
        Self {
            age: Some(Duration::from_secs(7 * 24 * 60 * 60)),
            bytes: Some(1 << 30),
        }
    }
}

/// A topic in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicState {
    /// Its name.
    pub name: String,
    /// What it holds.
    pub bounds: Bounds,
    /// How long it holds it.
    pub retention: Retention,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Row {
    /// When it was made, in milliseconds.
    #[prost(int64, tag = "1")]
    made: i64,
    /// Unset: the default.
    #[prost(message, optional, tag = "2")]
    retention: Option<RetentionRow>,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
struct RetentionRow {
    #[prost(uint64, optional, tag = "1")]
    age: Option<u64>,
    #[prost(uint64, optional, tag = "2")]
    bytes: Option<u64>,
}

/// The topics of one namespace.
#[derive(Debug)]
pub(crate) struct Topics {
    space: Space,
    clock: Clock,
    /// Those that certainly have a row.
    known: Mutex<HashSet<Box<str>>>,
    /// Held for reading by whoever publishes or begins to consume, for writing by who removes.
    gate: RwLock<()>,
    pub(crate) groups: HubOf,
}

/// All namespaces that were asked for.
#[derive(Debug)]
pub(crate) struct Tenants {
    storage: Storage,
    clock: Clock,
    all: std::sync::RwLock<HashMap<Namespace, Arc<Topics>>>,
}

impl Tenants {
    pub(crate) fn new(storage: &Storage, clock: Clock) -> Self {
        Self {
            storage: storage.clone(),
            clock,
            all: std::sync::RwLock::default(),
        }
    }

    pub(crate) fn of(&self, namespace: &Namespace) -> Arc<Topics> {
        let all = self.all.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(topics) = all.get(namespace) {
            return Arc::clone(topics);
        }
        drop(all);
        let mut all = self.all.write().unwrap_or_else(PoisonError::into_inner);
        let topics = all.entry(namespace.clone()).or_insert_with(|| {
            Arc::new(Topics {
                space: self.storage.space(namespace),
                clock: self.clock.clone(),
                known: Mutex::default(),
                gate: RwLock::default(),
                groups: HubOf::default(),
            })
        });
        Arc::clone(topics)
    }

    /// Those that have done anything since the start.
    pub(crate) fn awake(&self) -> Vec<Arc<Topics>> {
        let all = self.all.read().unwrap_or_else(PoisonError::into_inner);
        all.values().cloned().collect()
    }

    /// Drops what has been kept long enough, everywhere.
    pub(crate) async fn sweep(&self) -> Result<(), Error> {
        for namespace in self.storage.namespaces(TOPICS)? {
            let topics = self.of(&namespace);
            for (name, row) in topics.rows()? {
                if let Err(error) = topics.retain(&name, retention_of(&row)).await {
                    tracing::warn!(%namespace, topic = name, %error,
                        "Old events could not be dropped.");
                }
            }
        }
        Ok(())
    }
}

impl Topics {
    pub(crate) fn space(&self) -> &Space {
        &self.space
    }

    pub(crate) fn clock(&self) -> &Clock {
        &self.clock
    }

    /// The entries of a topic.
    pub(crate) fn entries(&self, topic: &str) -> Topic {
        self.space.topic(&stored_name(topic))
    }

    /// No topic or group is removed while this is held.
    pub(crate) async fn stay(&self) -> RwLockReadGuard<'_, ()> {
        self.gate.read().await
    }

    /// As [`Topics::stay`], if it is possible at once.
    pub(crate) fn try_stay(&self) -> Option<RwLockReadGuard<'_, ()>> {
        self.gate.try_read().ok()
    }

    /// Appends to a topic, and makes its row unless it certainly has one.
    pub(crate) fn append(&self, batch: &mut Batch, topic: &str, event: &[u8]) -> Result<(), Error> {
        if !self.known().contains(topic) {
            if self.space.get(TOPICS, topic.as_bytes())?.is_some() {
                self.known().insert(topic.into());
            } else {
                self.may_make(topic)?;
                let row = Row {
                    made: self.clock.now().0,
                    retention: None,
                };
                batch
                    .expect(TOPICS, topic, Expect::Absent)
                    .put(TOPICS, topic, encode(&row));
            }
        }
        batch.append(&stored_name(topic), event);
        Ok(())
    }

    fn may_make(&self, topic: &str) -> Result<(), Error> {
        let all = Range::all().keys_only();
        if !name::is_dead(topic) && self.space.scan(TOPICS, all)?.len() >= MOST {
            return Err(Error::TooManyTopics {
                topic: topic.to_owned(),
                limit: MOST,
            });
        }
        Ok(())
    }

    /// Whether `error` says that somebody else made the topic in the same moment.
    pub(crate) fn made_meanwhile(error: &micro_storage::Error) -> bool {
        matches!(error, micro_storage::Error::Conflict { table, .. } if *table == TOPICS)
    }

    /// All topics, in the order of their names.
    pub(crate) fn list(&self) -> Result<Vec<TopicState>, Error> {
        self.rows()?
            .into_iter()
            .map(|(name, row)| {
                Ok(TopicState {
                    bounds: self.entries(&name).bounds()?,
                    retention: retention_of(&row),
                    name,
                })
            })
            .collect()
    }

    /// Keeps events of `topic` for so long from now on; `None` for the default.
    pub(crate) async fn set_retention(
        &self,
        topic: &str,
        retention: Option<Retention>,
    ) -> Result<(), Error> {
        let held = self.gate.read().await;
        let before = self
            .space
            .get(TOPICS, topic.as_bytes())?
            .ok_or_else(|| self.missing(topic))?;
        let row = Row {
            retention: retention.map(|retention| RetentionRow {
                age: retention.age.map(|age| age.as_secs()),
                bytes: retention.bytes,
            }),
            ..decode(&before.value)
        };
        let mut batch = self.space.batch();
        batch
            .expect(TOPICS, topic, Expect::At(before.revision))
            .put(TOPICS, topic, encode(&row));
        batch.commit().await?;
        self.retain(topic, retention_of(&row)).await?;
        drop(held);
        Ok(())
    }

    async fn retain(&self, topic: &str, retention: Retention) -> Result<(), Error> {
        let entries = self.entries(topic);
        Ok(entries.retain(retention.age, retention.bytes).await?)
    }

    /// Removes the topic, its events and its groups. Their consumers are told.
    pub(crate) async fn remove(&self, topic: &str) -> Result<(), Error> {
        let held = self.gate.write().await;
        if self.space.get(TOPICS, topic.as_bytes())?.is_none() {
            return Err(self.missing(topic));
        }
        let removed = Error::Removed {
            what: format!("topic {topic}"),
        };
        self.groups.stop(|key| &*key.topic == topic, &removed).await;
        // The events first: a topic with a row and without events can be removed again.
        self.known().remove(topic);
        self.entries(topic).remove().await?;
        let mut batch = self.space.batch();
        batch.delete(TOPICS, topic);
        crate::group::forget_all(&self.space, &mut batch, topic)?;
        batch.commit().await?;
        self.groups.forget(|key| &*key.topic == topic);
        drop(held);
        Ok(())
    }

    /// Removes one group of a topic. Its consumers are told.
    pub(crate) async fn remove_group(&self, topic: &str, group: &str) -> Result<(), Error> {
        let held = self.gate.write().await;
        if !crate::group::exists(&self.space, topic, group)? {
            return Err(Error::NoGroup {
                topic: topic.to_owned(),
                group: group.to_owned(),
            });
        }
        let removed = Error::Removed {
            what: format!("group {group} of topic {topic}"),
        };
        self.groups.stop(|key| key.is(topic, group), &removed).await;
        let mut batch = self.space.batch();
        crate::group::forget(&mut batch, topic, group);
        batch.commit().await?;
        self.groups.forget(|key| key.is(topic, group));
        drop(held);
        Ok(())
    }

    pub(crate) fn missing(&self, topic: &str) -> Error {
        Error::NoTopic {
            topic: topic.to_owned(),
            namespace: self.space.namespace().to_string(),
        }
    }

    fn rows(&self) -> Result<Vec<(String, Row)>, Error> {
        let rows = self.space.scan(TOPICS, Range::all())?;
        Ok(rows
            .iter()
            .map(|row| {
                (
                    String::from_utf8_lossy(&row.key).into_owned(),
                    decode(&row.value),
                )
            })
            .collect())
    }

    fn known(&self) -> MutexGuard<'_, HashSet<Box<str>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn stored_name(topic: &str) -> String {
    format!("{PREFIX}{topic}")
}

fn encode(row: &Row) -> Vec<u8> {
    let mut bytes = vec![VERSION];
    row.encode_raw(&mut bytes);
    bytes
}

/// A row that cannot be read says nothing, which means the defaults.
fn decode(bytes: &[u8]) -> Row {
    bytes
        .strip_prefix(&[VERSION])
        .and_then(|rest| Row::decode(rest).ok())
        .unwrap_or_default()
}

fn retention_of(row: &Row) -> Retention {
    row.retention
        .map_or_else(Retention::default, |kept| Retention {
            age: kept.age.map(Duration::from_secs),
            bytes: kept.bytes,
        })
}
