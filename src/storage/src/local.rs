//! The engine of one machine: log first, tree behind.
//!
//! A commit is durable when the log has it ([`commit`]), visible when the memtable and the topics
//! have it ([`view`]), and moves into the index and the topics' files later ([`checkpoint`]). What a
//! crash leaves behind is put together again by [`recovery`].
//!
//! | file | owns |
//! |---|---|
//! | `queue.rs` | batches that wait for the committer |
//! | `commit.rs` | the committer thread: decides, writes the log, makes visible, answers |
//! | `memtable.rs` | rows that are committed and not yet in the index |
//! | `index.rs` | the index in redb: rows, and what recovery needs |
//! | `view.rs` | reading memtables and index as one |
//! | `checkpoint.rs` | the checkpoint thread: from memory into index and files |
//! | `ledger.rs` | what each namespace holds, and may |
//! | `blobs.rs` | the blobs of each namespace, counted into its quota |
//! | `recovery.rs` | opening |
//! | `snapshot.rs` | a copy of one moment; and reading everything to see whether it is whole |

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use micro_core::{Clock, Namespace, Timestamp};
use tokio::sync::watch;

use crate::{
    Answer, Blobs, Bounds, Engine, Entry, Error, Range, Receipt, Revision, Row, Usage, Watch,
    WatchEnd, Writes, record, topics::Topics, watch::Hub,
};
use blobs::BlobStores;
use checkpoint::Desk;
use ledger::Ledger;
use queue::{Queue, Refusal};
use view::{Span, View};

mod blobs;
mod checkpoint;
mod commit;
mod index;
mod ledger;
mod memtable;
mod queue;
mod recovery;
mod snapshot;
mod view;

pub(crate) use recovery::open;
pub(crate) use snapshot::check;

/// What the threads and the readers share.
pub(crate) struct Shared {
    pub(crate) view: RwLock<View>,
    pub(crate) topics: Topics,
    pub(crate) blobs: BlobStores,
    pub(crate) hub: Arc<Hub>,
    pub(crate) ledger: Ledger,
    pub(crate) queue: Queue,
    pub(crate) desk: Desk,
    /// Held while a group becomes visible, and while a checkpoint takes its mark.
    pub(crate) barrier: Barrier,
    /// Of the last commit that is visible.
    pub(crate) revision: AtomicU64,
    /// The log is not needed below this position.
    pub(crate) recyclable: AtomicU64,
    pub(crate) clock: Clock,
    /// What the active memtable may hold before a checkpoint.
    pub(crate) memory: u64,
    closed: AtomicBool,
}

/// A lock around nothing.
#[derive(Default)]
pub(crate) struct Barrier(Mutex<()>);

impl Barrier {
    pub(crate) fn lock(&self) -> std::sync::MutexGuard<'_, ()> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The engine.
pub(crate) struct Local {
    shared: Arc<Shared>,
    directory: PathBuf,
    committer: Mutex<Option<JoinHandle<()>>>,
    checkpointer: Mutex<Option<JoinHandle<()>>>,
}

impl Shared {
    /// Waits until the memtable takes another group.
    pub(crate) fn wait_for_room(&self) -> Result<(), Error> {
        let most = self.memory.saturating_mul(2);
        let has_room = || read(&self.view).active.weight() < most;
        if has_room() {
            return Ok(());
        }
        self.desk.wait(has_room)
    }

    /// Something became visible.
    pub(crate) fn written(&self) {
        let full = read(&self.view).active.weight() >= self.memory;
        self.desk.written(full);
    }

    /// What a namespace holds in all, and what it may.
    pub(crate) fn held_and_quota(&self, namespace: &Namespace) -> (u64, Option<u64>) {
        let (rows, quota) = self.ledger.rows_and_quota(namespace);
        let mut held = rows.saturating_add(self.topics.usage(namespace));
        if quota.is_some() {
            held = held.saturating_add(self.blobs.known_bytes(namespace));
        }
        (held, quota)
    }

    /// Reads; and once more when the index had to be opened again.
    pub(crate) fn retry<T>(&self, read: impl Fn() -> Result<T, Error>) -> Result<T, Error> {
        match read() {
            Err(Error::Index(_) | Error::Unreadable) => {
                self.open_or_closed()?;
                self.desk.heal();
                read()
            }
            answer => answer,
        }
    }

    fn open_or_closed(&self) -> Result<(), Error> {
        if self.closed.load(Ordering::Acquire) {
            Err(Error::Closed)
        } else {
            Ok(())
        }
    }
}

impl Engine for Local {
    fn get(
        &self,
        namespace: &Namespace,
        table: &'static str,
        key: &[u8],
    ) -> Result<Option<Row>, Error> {
        self.shared.open_or_closed()?;
        let full = record::full_key(table, namespace, key);
        let found = self.shared.retry(|| view::get(&self.shared.view, &full))?;
        Ok(found.map(|(revision, value)| Row {
            key: bytes::Bytes::copy_from_slice(key),
            value,
            revision,
        }))
    }

    fn scan(
        &self,
        namespace: &Namespace,
        table: &'static str,
        range: Range<'_>,
    ) -> Result<Vec<Row>, Error> {
        self.shared.open_or_closed()?;
        let split = record::full_key(table, namespace, b"").len();
        let prefix = record::full_key(table, namespace, range.prefix);
        let after = range
            .after
            .map(|key| record::full_key(table, namespace, key));
        let mut span = Span::new(prefix, after, range.reverse);
        span.limit = range.limit;
        span.keys_only = range.keys_only;
        let found = self.shared.retry(|| view::scan(&self.shared.view, &span))?;
        let rows = found.into_iter().map(|row| Row {
            key: row.key.slice(split..),
            value: row.value,
            revision: row.revision,
        });
        Ok(rows.collect())
    }

    fn namespaces(&self, table: &'static str) -> Result<Vec<Namespace>, Error> {
        self.shared.open_or_closed()?;
        let mut found = Vec::new();
        let mut span = Span::new(record::table_prefix(table), None, false);
        span.limit = 1;
        span.keys_only = true;
        loop {
            // From each namespace jump behind its last possible key.
            let first = self.shared.retry(|| view::scan(&self.shared.view, &span))?;
            let Some((_, namespace, _)) = first.first().and_then(|r| record::split_key(&r.key))
            else {
                break;
            };
            let last = record::full_key(table, &namespace, b"");
            found.push(namespace);
            match record::after(&last) {
                Some(next) => span.from = std::ops::Bound::Included(next),
                None => break,
            }
        }
        found.sort();
        Ok(found)
    }

    fn commit(&self, writes: Writes) -> Answer<Receipt> {
        let shared = Arc::clone(&self.shared);
        Box::pin(async move {
            match shared.queue.submit(writes, None, false).await {
                Ok(receipt) => Ok(receipt),
                Err(Refusal::Failed(error)) => Err(error),
                Err(Refusal::Uncounted(writes)) => {
                    // Rows that are only in memory may count twice. A checkpoint counts them; if it
                    // cannot, the count stays as it is.
                    let _ = shared.desk.ask().await;
                    match shared.queue.submit(*writes, None, true).await {
                        Ok(receipt) => Ok(receipt),
                        Err(Refusal::Failed(error)) => Err(error),
                        Err(Refusal::Uncounted(_)) => Err(Error::Panicked),
                    }
                }
            }
        })
    }

    fn revision(&self) -> Revision {
        Revision(self.shared.revision.load(Ordering::Acquire))
    }

    fn watch(&self, namespace: &Namespace, table: &'static str, prefix: &[u8]) -> Watch {
        if self.shared.open_or_closed().is_err() {
            return Watch::ended(WatchEnd::Closed);
        }
        let table = record::full_key(table, namespace, b"");
        self.shared.hub.join(table, prefix, || self.revision())
    }

    fn topics(&self, namespace: &Namespace) -> Result<Vec<String>, Error> {
        self.shared.open_or_closed()?;
        Ok(self.shared.topics.names(namespace))
    }

    fn topic_bounds(&self, namespace: &Namespace, topic: &str) -> Result<Bounds, Error> {
        self.shared.open_or_closed()?;
        Ok(self.shared.topics.bounds(namespace, topic))
    }

    fn topic_read(
        &self,
        namespace: &Namespace,
        topic: &str,
        from: u64,
        entries: usize,
        bytes: usize,
    ) -> Result<Vec<Entry>, Error> {
        self.shared.open_or_closed()?;
        self.shared
            .topics
            .read(namespace, topic, from, entries, bytes)
    }

    fn topic_is_recent(&self, namespace: &Namespace, topic: &str, from: u64) -> bool {
        self.shared.topics.is_recent(namespace, topic, from)
    }

    fn topic_offset_at(
        &self,
        namespace: &Namespace,
        topic: &str,
        time: Timestamp,
    ) -> Result<u64, Error> {
        self.shared.open_or_closed()?;
        self.shared.topics.offset_at(namespace, topic, time)
    }

    fn topic_follow(&self, namespace: &Namespace, topic: &str) -> watch::Receiver<u64> {
        self.shared.topics.follow(namespace, topic)
    }

    fn topic_retain(
        &self,
        namespace: &Namespace,
        topic: &str,
        age: Option<Duration>,
        bytes: Option<u64>,
    ) -> Answer<()> {
        let (shared, namespace, topic) = (
            Arc::clone(&self.shared),
            namespace.clone(),
            topic.to_owned(),
        );
        Box::pin(async move {
            shared.open_or_closed()?;
            let now = shared.clock.now();
            let plan = {
                let (shared, namespace, topic) =
                    (Arc::clone(&shared), namespace.clone(), topic.clone());
                // It may read files.
                tokio::task::spawn_blocking(move || {
                    shared
                        .topics
                        .plan_retain(&namespace, &topic, age, bytes, now)
                })
            };
            let Some(cut) = plan.await.map_err(|_| Error::Panicked)?? else {
                return Ok(());
            };
            let mut writes = Writes::new(&namespace);
            writes.retain_topic(&topic, cut.first);
            shared.submit_topic(writes, Some((topic, cut))).await
        })
    }

    fn topic_remove(&self, namespace: &Namespace, topic: &str) -> Answer<()> {
        let shared = Arc::clone(&self.shared);
        let mut writes = Writes::new(namespace);
        writes.remove_topic(topic);
        Box::pin(async move { shared.submit_topic(writes, None).await })
    }

    fn usage(&self, namespace: &Namespace) -> Usage {
        Usage {
            rows: self.shared.ledger.rows_and_quota(namespace).0,
            topics: self.shared.topics.usage(namespace),
            blobs: self.shared.blobs.bytes(namespace, &self.shared),
        }
    }

    fn set_quota(&self, namespace: &Namespace, bytes: Option<u64>) {
        self.shared.ledger.set_quota(namespace, bytes);
    }

    fn checkpoint(&self) -> Answer<()> {
        let shared = Arc::clone(&self.shared);
        Box::pin(async move { shared.desk.ask().await.unwrap_or(Err(Error::Closed)) })
    }

    fn blobs(&self, namespace: &Namespace) -> Blobs {
        self.shared.blobs.of(namespace, &self.shared)
    }

    fn blob_namespaces(&self) -> Result<Vec<Namespace>, Error> {
        self.shared.open_or_closed()?;
        self.shared.blobs.namespaces()
    }

    fn snapshot(&self, into: &Path) -> Answer<()> {
        let (shared, from, into) = (
            Arc::clone(&self.shared),
            self.directory.clone(),
            into.to_owned(),
        );
        Box::pin(async move {
            let copied = tokio::task::spawn_blocking(move || snapshot::take(&shared, &from, &into));
            copied.await.map_err(|_| Error::Panicked)?
        })
    }

    fn close(&self) {
        self.shared.queue.close();
        join(&self.committer);
        self.shared.closed.store(true, Ordering::Release);
        self.shared.hub.close();
        self.shared.desk.stop();
        join(&self.checkpointer);
    }
}

impl Shared {
    async fn submit_topic(
        &self,
        mut writes: Writes,
        cut: Option<(String, crate::topics::Cut)>,
    ) -> Result<(), Error> {
        if let Some(error) = writes.take_failure() {
            return Err(error);
        }
        match self.queue.submit(writes, cut, true).await {
            Ok(_) => Ok(()),
            Err(Refusal::Failed(error)) => Err(error),
            Err(Refusal::Uncounted(_)) => Err(Error::Panicked),
        }
    }
}

impl Drop for Local {
    fn drop(&mut self) {
        self.close();
    }
}

fn join(thread: &Mutex<Option<JoinHandle<()>>>) {
    let thread = thread.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(thread) = thread {
        // The threads catch panics of their work; there is nothing to learn from their end.
        let _ = thread.join();
    }
}

/// What holds a lock of ours leaves its value whole.
pub(crate) fn read(view: &RwLock<View>) -> RwLockReadGuard<'_, View> {
    view.read().unwrap_or_else(PoisonError::into_inner)
}

pub(crate) fn write(view: &RwLock<View>) -> RwLockWriteGuard<'_, View> {
    view.write().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
