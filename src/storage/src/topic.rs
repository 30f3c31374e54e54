//! A topic as its namespace sees it: entries in the order of their commits, read by offset.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use micro_core::{Namespace, Timestamp};
use tokio::sync::watch;

use crate::{Engine, Error};

/// One entry of a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its number in the topic, counted from 0 without gaps.
    pub offset: u64,
    /// When it was appended; never earlier than the entry before it.
    pub time: Timestamp,
    /// What was appended.
    pub value: Bytes,
}

/// What a topic holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Bounds {
    /// The oldest entry that is kept; `next` when there is none.
    pub first: u64,
    /// The offset that the next entry gets.
    pub next: u64,
    /// Bytes kept.
    pub bytes: u64,
}

/// A handle on one topic. It need not exist: then it is empty.
#[derive(Clone)]
pub struct Topic {
    engine: Arc<dyn Engine>,
    namespace: Namespace,
    name: String,
}

impl std::fmt::Debug for Topic {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Topic")
            .field("namespace", &self.namespace)
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl Topic {
    pub(crate) fn new(engine: Arc<dyn Engine>, namespace: &Namespace, name: &str) -> Self {
        Self {
            engine,
            namespace: namespace.clone(),
            name: name.to_owned(),
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it holds now.
    ///
    /// # Errors
    /// `Internal` when it cannot be read.
    pub fn bounds(&self) -> Result<Bounds, Error> {
        self.engine.topic_bounds(&self.namespace, &self.name)
    }

    /// Entries from offset `from` on, at most `entries` and about `bytes`, but at least one if there
    /// is any. What is older than the first kept entry is skipped. Reads files when
    /// [`Topic::is_recent`] is false; call it from `spawn_blocking` then.
    ///
    /// # Errors
    /// `Internal` when it cannot be read.
    pub fn read(&self, from: u64, entries: usize, bytes: usize) -> Result<Vec<Entry>, Error> {
        self.engine
            .topic_read(&self.namespace, &self.name, from, entries, bytes)
    }

    /// Whether reading at `from` needs no file.
    pub fn is_recent(&self, from: u64) -> bool {
        self.engine
            .topic_is_recent(&self.namespace, &self.name, from)
    }

    /// The first entry appended at `time` or later; `next` when there is none. May read a file.
    ///
    /// # Errors
    /// `Internal` when it cannot be read.
    pub fn offset_at(&self, time: Timestamp) -> Result<u64, Error> {
        self.engine
            .topic_offset_at(&self.namespace, &self.name, time)
    }

    /// The offset that the next entry gets, renewed after each commit that appends here.
    pub fn follow(&self) -> watch::Receiver<u64> {
        self.engine.topic_follow(&self.namespace, &self.name)
    }

    /// Drops the oldest entries in large pieces, while the piece is older than `age`, or all that is
    /// kept is larger than `bytes`. Durable when it returns.
    ///
    /// # Errors
    /// `Internal` when a file cannot be removed.
    pub async fn retain(&self, age: Option<Duration>, bytes: Option<u64>) -> Result<(), Error> {
        self.engine
            .topic_retain(&self.namespace, &self.name, age, bytes)
            .await
    }

    /// Removes the topic with all its entries. Offsets start at 0 again when it is appended to.
    ///
    /// # Errors
    /// As [`crate::Batch::commit`].
    pub async fn remove(&self) -> Result<(), Error> {
        self.engine.topic_remove(&self.namespace, &self.name).await
    }
}
