//! The changes below a prefix, as they are committed.
//!
//! Each watcher has a queue with bounds of its own, so that one that reads slowly costs the others
//! and the committer nothing: when its queue is full it is told so once, and has to read the rows
//! again.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    future::poll_fn,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    task::{Context, Poll, Waker},
};

use bytes::Bytes;

use crate::Revision;

/// Changes that may wait for one watcher.
const QUEUE: usize = 1024;
/// Bytes of changes that may wait for one watcher.
const QUEUE_BYTES: usize = 4 * 1024 * 1024;

/// A committed change of one row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The key.
    pub key: Bytes,
    /// The new value; `None` when the row was deleted.
    pub value: Option<Bytes>,
    /// The commit that did it.
    pub revision: Revision,
}

/// Why a watch ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WatchEnd {
    /// Its reader was too slow and changes were dropped: watch again, and read the rows again.
    #[error("changes came faster than they were read")]
    Lagged,
    /// The storage has been closed.
    #[error("the node is shutting down")]
    Closed,
}

/// Changes as they are committed, in their order. Those of one batch arrive together.
pub struct Watch {
    queue: Arc<Queue>,
    place: Option<Place>,
}

struct Place {
    hub: Weak<Hub>,
    table: Vec<u8>,
    prefix: Vec<u8>,
}

#[derive(Default)]
struct Queue {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    changes: VecDeque<Change>,
    bytes: usize,
    end: Option<WatchEnd>,
    waker: Option<Waker>,
}

/// All watchers of an engine.
#[derive(Default)]
pub(crate) struct Hub {
    tables: Mutex<Tables>,
}

#[derive(Default)]
struct Tables {
    closed: bool,
    /// By what all keys of a table in a namespace begin with.
    by_table: HashMap<Vec<u8>, Prefixes>,
}

/// The watchers of one table in one namespace.
#[derive(Default)]
struct Prefixes {
    by_prefix: HashMap<Vec<u8>, Vec<Watcher>>,
    /// How many different prefixes there are of each length: a key is looked up once per length,
    /// however many watchers there are.
    lengths: BTreeMap<usize, usize>,
}

struct Watcher {
    queue: Arc<Queue>,
    /// It has seen this; later changes are news.
    since: Revision,
}

impl std::fmt::Debug for Watch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watch").finish_non_exhaustive()
    }
}

impl Watch {
    /// The next change. Can be dropped and asked again; no change is lost by that.
    ///
    /// # Errors
    /// [`WatchEnd`], from then on always the same.
    pub async fn next(&mut self) -> Result<Change, WatchEnd> {
        poll_fn(|context| self.poll_next(context)).await
    }

    /// [`Watch::next`] for streams written by hand.
    pub fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Result<Change, WatchEnd>> {
        let mut state = lock(&self.queue.state);
        if let Some(change) = state.changes.pop_front() {
            state.bytes = state.bytes.saturating_sub(weight(&change));
            return Poll::Ready(Ok(change));
        }
        if let Some(end) = state.end {
            return Poll::Ready(Err(end));
        }
        match &mut state.waker {
            Some(waker) => waker.clone_from(context.waker()),
            none => *none = Some(context.waker().clone()),
        }
        Poll::Pending
    }

    /// A watch that has ended.
    pub(crate) fn ended(end: WatchEnd) -> Self {
        let queue = Arc::<Queue>::default();
        lock(&queue.state).end = Some(end);
        Self { queue, place: None }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if let Some(place) = self.place.take()
            && let Some(hub) = place.hub.upgrade()
        {
            hub.leave(&place, &self.queue);
        }
    }
}

impl Hub {
    /// Watches the keys of `table` (its full prefix) that start with `prefix`.
    pub(crate) fn join(
        self: &Arc<Self>,
        table: Vec<u8>,
        prefix: &[u8],
        since: impl FnOnce() -> Revision,
    ) -> Watch {
        let queue = Arc::<Queue>::default();
        let mut tables = lock(&self.tables);
        if tables.closed {
            return Watch::ended(WatchEnd::Closed);
        }
        let prefixes = tables.by_table.entry(table.clone()).or_default();
        let watchers = prefixes.by_prefix.entry(prefix.to_vec()).or_default();
        if watchers.is_empty() {
            *prefixes.lengths.entry(prefix.len()).or_default() += 1;
        }
        watchers.push(Watcher {
            queue: Arc::clone(&queue),
            // Under the lock: what is delivered before is older than this.
            since: since(),
        });
        Watch {
            queue,
            place: Some(Place {
                hub: Arc::downgrade(self),
                table,
                prefix: prefix.to_vec(),
            }),
        }
    }

    fn leave(&self, place: &Place, queue: &Arc<Queue>) {
        let mut tables = lock(&self.tables);
        let Some(prefixes) = tables.by_table.get_mut(&place.table) else {
            return;
        };
        let Some(watchers) = prefixes.by_prefix.get_mut(&place.prefix) else {
            return;
        };
        if let Some(at) = watchers.iter().position(|w| Arc::ptr_eq(&w.queue, queue)) {
            watchers.swap_remove(at);
        }
        if watchers.is_empty() {
            prefixes.by_prefix.remove(&place.prefix);
            let length = place.prefix.len();
            if let Some(count) = prefixes.lengths.get_mut(&length) {
                *count -= 1;
                if *count == 0 {
                    prefixes.lengths.remove(&length);
                }
            }
        }
        if prefixes.by_prefix.is_empty() {
            tables.by_table.remove(&place.table);
        }
    }

    /// Whether anybody watches anything.
    pub(crate) fn is_idle(&self) -> bool {
        lock(&self.tables).by_table.is_empty()
    }

    /// Hands out one committed batch: full keys, with where the table's prefix ends in each.
    pub(crate) fn publish(
        &self,
        revision: Revision,
        changes: impl Iterator<Item = (Bytes, usize, Option<Bytes>)>,
    ) {
        let tables = lock(&self.tables);
        // Woken when all of the batch is in their queues, so that it is seen together.
        let mut wakers = Vec::new();
        for (full, split, value) in changes {
            let Some((table, key)) = full.split_at_checked(split) else {
                continue;
            };
            let Some(prefixes) = tables.by_table.get(table) else {
                continue;
            };
            for length in prefixes.lengths.keys() {
                let Some(prefix) = key.get(..*length) else {
                    break;
                };
                for watcher in prefixes.by_prefix.get(prefix).into_iter().flatten() {
                    if watcher.since < revision {
                        let change = Change {
                            key: full.slice(split..),
                            value: value.clone(),
                            revision,
                        };
                        wakers.extend(watcher.queue.push(change));
                    }
                }
            }
        }
        drop(tables);
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Ends all watches.
    pub(crate) fn close(&self) {
        let mut tables = lock(&self.tables);
        tables.closed = true;
        let all = std::mem::take(&mut tables.by_table);
        drop(tables);
        for watcher in all
            .into_values()
            .flat_map(|p| p.by_prefix.into_values())
            .flatten()
        {
            let waker = {
                let mut state = lock(&watcher.queue.state);
                state.end.get_or_insert(WatchEnd::Closed);
                state.waker.take()
            };
            waker.into_iter().for_each(Waker::wake);
        }
    }
}

impl Queue {
    fn push(&self, change: Change) -> Option<Waker> {
        let mut state = lock(&self.state);
        if state.end.is_some() {
            return None;
        }
        let weight = weight(&change);
        // A single change that is larger than the bound gets through when nothing waits.
        if state.changes.len() >= QUEUE
            || (state.bytes + weight > QUEUE_BYTES && !state.changes.is_empty())
        {
            // What waits is worth nothing to someone who has to read again.
            state.changes = VecDeque::new();
            state.bytes = 0;
            state.end = Some(WatchEnd::Lagged);
        } else {
            state.bytes += weight;
            state.changes.push_back(change);
        }
        state.waker.take()
    }
}

fn weight(change: &Change) -> usize {
    change.key.len() + change.value.as_ref().map_or(0, Bytes::len)
}

/// Nothing that holds one of our locks can leave its value half changed.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
