//! Streams of events as the rest of the node uses them.

use std::{sync::Arc, time::Duration};

use micro_core::{Clock, Namespace};
use micro_storage::Storage;
use ring::rand::SystemRandom;
use tokio_util::sync::CancellationToken;

use crate::{
    Error,
    broker::Broker,
    event::{Delivery, Event, MAX_EVENT, NewEvent, Published, TopicLabel},
    group::{self, AnswerStream, Consume, Deliveries, GroupState},
    grpc::{EventStoreServer, EventStreamServer},
    name,
    topics::{Retention, Tenants, TopicState, Topics},
};

/// Events in one batch.
const MOST_AT_ONCE: usize = 10_000;
/// Events of one read, when it does not say.
const READ: u64 = 250;
/// Bytes of one read, about.
const READ_BYTES: usize = 16 << 20;
/// How often somebody else may make the same topics in the same moment.
const TRIES: usize = 8;
/// How often old events are dropped.
const SWEEP: Duration = Duration::from_secs(60);

/// Streams of events and the broker, built once.
#[derive(Debug)]
pub struct Service {
    handle: Handle,
    broker: Broker,
}

impl Service {
    /// The service over `storage`.
    pub fn open(storage: &Storage, clock: Clock) -> Self {
        let shared = Shared {
            tenants: Tenants::new(storage, clock),
            random: SystemRandom::new(),
            stopped: CancellationToken::new(),
        };
        Self {
            handle: Handle(Arc::new(shared)),
            broker: Broker::default(),
        }
    }

    /// What others hold.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// The broker's side of it.
    pub fn broker(&self) -> Broker {
        self.broker.clone()
    }

    /// `events.Stream`, for mounting.
    pub fn stream_server(&self) -> EventStreamServer {
        EventStreamServer::new(self.handle())
    }

    /// `events.Store`, for mounting.
    pub fn store_server(&self) -> EventStoreServer {
        crate::grpc::store_server(self.handle())
    }

    /// `broker.Broker`, for mounting.
    pub fn broker_server(&self) -> crate::broker::BrokerServer {
        self.broker.server()
    }

    /// Drops old events from time to time, until `stop`. Then consumers and subscribers are told
    /// that the server stops, and the positions of all groups are saved.
    pub async fn run(self, stop: CancellationToken) {
        while stop
            .run_until_cancelled(tokio::time::sleep(SWEEP))
            .await
            .is_some()
        {
            if let Err(error) = self.handle.sweep().await {
                tracing::warn!(%error, "Old events could not be dropped.");
            }
        }
        self.broker.stop();
        self.handle.stop().await;
    }
}

/// Streams of events. Clones share them.
#[derive(Debug, Clone)]
pub struct Handle(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    tenants: Tenants,
    random: SystemRandom,
    stopped: CancellationToken,
}

impl Handle {
    /// Publishes events: all of them, or none. Durable when this returns.
    ///
    /// # Errors
    /// `Invalid` for a missing or wrong topic and for what is too large; `Exhausted` when the
    /// namespace or the disk is full.
    pub async fn publish(
        &self,
        namespace: &Namespace,
        events: Vec<NewEvent>,
    ) -> Result<Vec<Published>, Error> {
        if events.len() > MOST_AT_ONCE {
            return Err(Error::TooMany {
                count: events.len(),
                limit: MOST_AT_ONCE,
            });
        }
        let topics = self.0.tenants.of(namespace);
        let now = topics.clock().now().unix_seconds();
        let mut kept = Vec::with_capacity(events.len());
        for mut event in events {
            name::topic(&event.topic)?;
            let topic = std::mem::take(&mut event.topic);
            let (id, bytes) = event
                .keep(now, &self.0.random, MAX_EVENT)
                .map_err(|error| error.about(&topic))?;
            kept.push((topic, id, bytes));
        }
        let _stay = topics.stay().await;
        let mut tries = TRIES;
        let receipt = loop {
            let mut batch = topics.space().batch();
            for (topic, _, bytes) in &kept {
                topics.append(&mut batch, topic, bytes)?;
            }
            tries -= 1;
            match batch.commit().await {
                Ok(receipt) => break receipt,
                Err(error) if tries > 0 && Topics::made_meanwhile(&error) => {}
                Err(error) => return Err(error.into()),
            }
        };
        let published = kept
            .into_iter()
            .zip(receipt.offsets)
            .map(|((_, id, _), offset)| Published { id, offset })
            .collect();
        Ok(published)
    }

    /// Begins to consume. A new group is there, durably, when this returns: it gets every event
    /// that is published from then on.
    ///
    /// # Errors
    /// `Invalid` for a missing or wrong topic or group; `Unavailable` when the server stops.
    pub async fn consume(
        &self,
        namespace: &Namespace,
        consume: Consume,
        answers: AnswerStream,
    ) -> Result<Deliveries, Error> {
        name::topic(&consume.topic)?;
        if !consume.group.is_empty() {
            name::group(&consume.group)?;
        }
        let topics = self.0.tenants.of(namespace);
        let _stay = topics.stay().await;
        if self.0.stopped.is_cancelled() {
            return Err(Error::Stopping);
        }
        topics.groups.join(&topics, consume, answers).await
    }

    /// Kept events of a topic in the order of their publication, without the first `skip`; a `limit`
    /// of 0 means 250. Fewer than there are when they are large.
    ///
    /// # Errors
    /// `Invalid` for a missing or wrong topic.
    pub async fn read(
        &self,
        namespace: &Namespace,
        topic: &str,
        skip: u64,
        limit: u64,
    ) -> Result<Vec<Event>, Error> {
        name::topic(topic)?;
        let limit = if limit == 0 { READ } else { limit };
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let entries = self.0.tenants.of(namespace).entries(topic);
        let label = TopicLabel::new(topic);
        let from = entries.bounds()?.first.saturating_add(skip);
        let recent = entries.is_recent(from);
        let read = move || {
            let found = entries.read(from, limit, READ_BYTES)?;
            found
                .iter()
                .map(|entry| Delivery::new(&label, entry.offset, &entry.value)?.event())
                .collect()
        };
        if recent {
            return read();
        }
        match tokio::task::spawn_blocking(read).await {
            Ok(events) => events,
            Err(_) => Err(Error::Stopping),
        }
    }

    /// The topics of a namespace, by name.
    ///
    /// # Errors
    /// `Internal` when they cannot be read.
    pub fn topics(&self, namespace: &Namespace) -> Result<Vec<TopicState>, Error> {
        self.0.tenants.of(namespace).list()
    }

    /// The durable groups of a namespace, or of one topic.
    ///
    /// # Errors
    /// `Internal` when they cannot be read.
    pub fn groups(
        &self,
        namespace: &Namespace,
        topic: Option<&str>,
    ) -> Result<Vec<GroupState>, Error> {
        let topics = self.0.tenants.of(namespace);
        group::rows(topics.space(), topic)?
            .into_iter()
            .map(|(topic, name, position)| {
                let next = topics.entries(&topic).bounds()?.next;
                Ok(topics.groups.state(topic, name, &position, next))
            })
            .collect()
    }

    /// Keeps the events of a topic for so long from now on; `None` for the default.
    ///
    /// # Errors
    /// `NotFound` when there is no such topic.
    pub async fn set_retention(
        &self,
        namespace: &Namespace,
        topic: &str,
        retention: Option<Retention>,
    ) -> Result<(), Error> {
        name::topic(topic)?;
        let topics = self.0.tenants.of(namespace);
        topics.set_retention(topic, retention).await
    }

    /// Removes a topic with its events and groups. Their consumers are told.
    ///
    /// # Errors
    /// `NotFound` when there is no such topic.
    pub async fn delete_topic(&self, namespace: &Namespace, topic: &str) -> Result<(), Error> {
        name::topic(topic)?;
        self.0.tenants.of(namespace).remove(topic).await
    }

    /// Removes a group of a topic. Its consumers are told.
    ///
    /// # Errors
    /// `NotFound` when there is no such group.
    pub async fn delete_group(
        &self,
        namespace: &Namespace,
        topic: &str,
        group: &str,
    ) -> Result<(), Error> {
        name::topic(topic)?;
        name::group(group)?;
        let topics = self.0.tenants.of(namespace);
        topics.remove_group(topic, group).await
    }

    /// Drops what has been kept long enough.
    ///
    /// # Errors
    /// `Internal` when it cannot be found out what there is.
    pub async fn sweep(&self) -> Result<(), Error> {
        self.0.tenants.sweep().await
    }

    /// Tells all consumers that the server stops, and saves the positions of their groups.
    pub async fn stop(&self) {
        self.0.stopped.cancel();
        for topics in self.0.tenants.awake() {
            topics.groups.stop(|_| true, &Error::Stopping).await;
        }
    }
}
