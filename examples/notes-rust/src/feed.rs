//! What happened to the notes. Each change is an event, which is kept, and a message, which is not;
//! the service consumes its own events into a table that it can show.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use micro_sdk::{
    Error, Mesh,
    broker::{Broker, Subscription},
    events::{Consumer, Event, Events, Start},
    store::{Store, Table},
};
use serde::{Deserialize, Serialize};

const TOPIC: &str = "notes";

#[derive(Serialize, Deserialize)]
struct Change {
    action: String,
    id: String,
}

#[derive(Clone)]
pub struct Feed {
    store: Store,
    lines: Table<String>,
    counts: Table<u64>,
    events: Events,
    broker: Broker,
    heard: Arc<AtomicU64>,
}

impl Feed {
    pub fn follow(micro: &Mesh) -> Self {
        let store = micro.store();
        let feed = Self {
            lines: store.table("notes.feed"),
            counts: store.table("notes.count"),
            store,
            events: micro.events(),
            broker: micro.broker(),
            heard: Arc::default(),
        };
        // With a group, several instances of this service share the work, and a new one goes on
        // where the old one was.
        let events = feed.events.consume(TOPIC).group("feed").from(Start::Oldest);
        tokio::spawn(feed.clone().consume(events.start()));
        tokio::spawn(feed.clone().listen(feed.broker.subscribe(TOPIC)));
        feed
    }

    pub async fn tell(&self, action: &str, id: &str) -> Result<(), Error> {
        let change = Change {
            action: action.to_owned(),
            id: id.to_owned(),
        };
        self.events.publish(TOPIC, &change).await?;
        self.broker.publish(TOPIC, &change).await
    }

    pub async fn count(&self) -> Result<u64, Error> {
        let count = self.counts.get("changes").await?;
        Ok(count.map_or(0, |count| count.value))
    }

    pub async fn latest(&self) -> Result<Vec<String>, Error> {
        let lines = self.lines.list().descending().limit(10).records().await?;
        Ok(lines.into_iter().map(|line| line.value).collect())
    }

    pub fn heard(&self) -> u64 {
        self.heard.load(Ordering::Relaxed)
    }

    async fn consume(self, mut events: Consumer<Change>) {
        while let Some(event) = events.next().await {
            match event {
                Ok(event) => match self.add(&event).await {
                    Ok(()) => event.ack(),
                    Err(error) => {
                        eprintln!("{error}");
                        // It comes again.
                        event.nack();
                    }
                },
                Err(error) => eprintln!("{error}"),
            }
        }
    }

    /// Adds a line and counts it, both or neither. An event may come twice: its line is there then,
    /// and it is not counted again.
    async fn add(&self, event: &Event<Change>) -> Result<(), Error> {
        let key = format!("{:020}", event.offset);
        if self.lines.get(&key).await?.is_some() {
            return Ok(());
        }
        let line = format!("{} {}", event.payload.action, event.payload.id);
        let mut batch = self.store.batch();
        batch.create(&self.lines, &key, &line);
        match self.counts.get("changes").await? {
            Some(count) => {
                batch.update(&self.counts, "changes", &(count.value + 1), count.revision)
            }
            None => batch.create(&self.counts, "changes", &1),
        };
        batch.commit().await?;
        Ok(())
    }

    async fn listen(self, mut messages: Subscription<Change>) {
        while let Some(message) = messages.next().await {
            match message {
                Ok(_) => {
                    self.heard.fetch_add(1, Ordering::Relaxed);
                }
                Err(error) => eprintln!("{error}"),
            }
        }
    }
}
