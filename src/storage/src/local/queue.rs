//! The way to the committer: batches wait here until it takes all that wait, in one group.
//!
//! What may wait is bounded by its bytes; who finds no room waits for it without a thread.

use std::{
    collections::VecDeque,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use crate::{Error, Receipt, Writes, topics::Cut};

/// Bytes that may wait, in units of [`UNIT`].
const ROOM: u32 = 32 * 1024;
/// What one permit of the room stands for.
const UNIT: usize = 1024;
/// Batches in one group at most.
const GROUP: usize = 4096;
/// A group is closed when it has this many bytes.
const GROUP_BYTES: usize = 1024 * 1024;

/// A batch, and who waits for it.
pub(crate) struct Job {
    pub(crate) writes: Writes,
    /// Set when this lets go of a part of a topic, if the topic is still the one meant.
    pub(crate) cut: Option<(String, Cut)>,
    /// What is counted of the namespace's rows is exact as far as it can be.
    pub(crate) counted: bool,
    pub(crate) done: oneshot::Sender<Result<Receipt, Refusal>>,
    /// Given back when the job is answered.
    _room: OwnedSemaphorePermit,
}

/// Why a job was not done.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// It failed.
    Failed(Error),
    /// It would go over the quota as far as is known; it may come again when a checkpoint has
    /// counted.
    Uncounted(Box<Writes>),
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

/// What waits.
pub(crate) struct Queue {
    state: Mutex<State>,
    ready: Condvar,
    room: Arc<Semaphore>,
}

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    closed: bool,
    /// The committer shall look at something else.
    nudged: bool,
}

impl Queue {
    pub(crate) fn new() -> Self {
        Self {
            state: Mutex::default(),
            ready: Condvar::new(),
            room: Arc::new(Semaphore::new(ROOM as usize)),
        }
    }

    /// Waits for room, puts the batch in, and waits for what becomes of it.
    pub(crate) async fn submit(
        &self,
        writes: Writes,
        cut: Option<(String, Cut)>,
        counted: bool,
    ) -> Result<Receipt, Refusal> {
        let units = u32::try_from(writes.bytes() / UNIT + 1)
            .unwrap_or(ROOM)
            .min(ROOM);
        let room = Arc::clone(&self.room);
        let room = match room.try_acquire_many_owned(units) {
            Ok(room) => room,
            Err(_) => Arc::clone(&self.room)
                .acquire_many_owned(units)
                .await
                .map_err(|_| Error::Closed)?,
        };
        let (done, answer) = oneshot::channel();
        {
            let mut state = self.lock();
            if state.closed {
                return Err(Error::Closed.into());
            }
            state.jobs.push_back(Job {
                writes,
                cut,
                counted,
                done,
                _room: room,
            });
        }
        self.ready.notify_one();
        answer.await.unwrap_or_else(|_| Err(Error::Closed.into()))
    }

    /// Takes what waits, up to a group. `false` when nothing will ever come again. The group may be
    /// empty when the committer was nudged.
    pub(crate) fn take(&self, group: &mut Vec<Job>) -> bool {
        let mut state = self.lock();
        while state.jobs.is_empty() && !state.closed && !state.nudged {
            state = self
                .ready
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        state.nudged = false;
        let mut bytes = 0;
        while group.len() < GROUP && bytes < GROUP_BYTES {
            let Some(job) = state.jobs.pop_front() else {
                break;
            };
            bytes += job.writes.bytes();
            group.push(job);
        }
        !group.is_empty() || !state.closed
    }

    /// Lets [`Queue::take`] return.
    pub(crate) fn nudge(&self) {
        self.lock().nudged = true;
        self.ready.notify_one();
    }

    /// Takes nothing any more; what waits is still done.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.room.close();
        self.ready.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
