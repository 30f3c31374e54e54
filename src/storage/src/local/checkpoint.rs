//! The checkpoint thread: brings what is committed from memory into the index and the topics' files,
//! so that memory, and the part of the log that recovery reads, stay bounded.
//!
//! It works when the memtable is full, when nothing was written for a moment, at the latest after a
//! while, and when asked. When it fails, nothing is lost and reading and writing go on as long as
//! there is room in memory; it tries again until it succeeds.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, atomic::Ordering},
    time::{Duration, Instant},
};

use tokio::sync::oneshot;

use super::{
    Shared,
    index::{Index, Point, Source},
    memtable::Memtable,
};
use crate::{Error, topics::Frozen};

/// Without a write for so long, what there is goes into the index.
const IDLE: Duration = Duration::from_secs(2);
/// What is in memory goes into the index after so long at the latest.
const OLD: Duration = Duration::from_secs(30);
/// Between two attempts while it fails.
const PAUSE: Duration = Duration::from_secs(1);
/// How long a reader waits for the index to be opened again.
const HEALING: Duration = Duration::from_secs(2);

type Copier = oneshot::Sender<Result<Source, Error>>;
type Waiter = oneshot::Sender<Result<(), Error>>;

/// What the others tell the checkpoint thread, and it them.
#[derive(Default)]
pub(crate) struct Desk {
    state: Mutex<State>,
    /// For the thread.
    asked: Condvar,
    /// For those who wait for memory, or for the index.
    moved: Condvar,
}

#[derive(Default)]
struct State {
    /// Something was written since the last freeze.
    dirty: bool,
    /// The memtable is full.
    full: bool,
    /// A reader found that the index has to be opened again.
    sick: bool,
    stop: bool,
    ended: bool,
    waiters: Vec<Waiter>,
    /// They want all of the index as of now.
    copiers: Vec<Copier>,
    /// Grows whenever a waiter should look again.
    moves: u64,
    /// Why the last attempt failed.
    failing: Option<Error>,
    /// Why the index is not open.
    unreadable: bool,
}

/// The thread's own state.
pub(crate) struct Checkpointer {
    shared: Arc<Shared>,
    index: Index,
    /// What was frozen and is not yet in the index.
    frozen: Option<Freeze>,
    /// How far the index reaches.
    stored: Point,
}

struct Freeze {
    memtable: Arc<Memtable>,
    point: Point,
    topics: Frozen,
}

enum Work {
    Checkpoint(Vec<Waiter>),
    Copy(Vec<Copier>),
    Heal,
    Stop,
}

impl Desk {
    /// Something was written; `full` when the memtable has reached its size.
    pub(crate) fn written(&self, full: bool) {
        let mut state = self.lock();
        if !state.dirty || (full && !state.full) {
            state.dirty = true;
            state.full |= full;
            self.asked.notify_one();
        }
    }

    /// Asks for a checkpoint of all that is visible now.
    pub(crate) fn ask(&self) -> oneshot::Receiver<Result<(), Error>> {
        let (done, answer) = oneshot::channel();
        let mut state = self.lock();
        if !state.ended {
            state.waiters.push(done);
            self.asked.notify_one();
        }
        answer
    }

    /// Asks for the index with all that is visible now.
    pub(crate) fn ask_for_all(&self) -> oneshot::Receiver<Result<Source, Error>> {
        let (done, answer) = oneshot::channel();
        let mut state = self.lock();
        if !state.ended {
            state.copiers.push(done);
            self.asked.notify_one();
        }
        answer
    }

    /// Waits until `has_room`, or until it is clear that there will be none for now.
    pub(crate) fn wait(&self, has_room: impl Fn() -> bool) -> Result<(), Error> {
        let mut state = self.lock();
        loop {
            let seen = state.moves;
            drop(state);
            if has_room() {
                return Ok(());
            }
            state = self.lock();
            if let Some(error) = &state.failing {
                return Err(error.clone());
            }
            if state.ended {
                return Err(Error::Closed);
            }
            state.full = true;
            self.asked.notify_one();
            while state.moves == seen {
                state = self
                    .moved
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner);
            }
        }
    }

    /// A read of the index failed: waits until it was opened again, for a moment.
    pub(crate) fn heal(&self) {
        let mut state = self.lock();
        if state.unreadable || state.ended {
            return;
        }
        state.sick = true;
        self.asked.notify_one();
        let until = Instant::now() + HEALING;
        while state.sick && !state.ended {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            state = self
                .moved
                .wait_timeout(state, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    /// Lets the thread do a last checkpoint and end.
    pub(crate) fn stop(&self) {
        self.lock().stop = true;
        self.asked.notify_one();
    }

    fn moved(&self, state: &mut State) {
        state.moves += 1;
        self.moved.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Checkpointer {
    pub(crate) fn new(shared: Arc<Shared>, index: Index, stored: Point) -> Self {
        Self {
            shared,
            index,
            frozen: None,
            stored,
        }
    }

    /// Works until it is stopped; then closes the index.
    pub(crate) fn run(mut self) {
        loop {
            match self.next() {
                Work::Checkpoint(waiters) => {
                    let outcome = self.guarded();
                    self.note(&outcome);
                    for waiter in waiters {
                        let _ = waiter.send(outcome.clone());
                    }
                }
                Work::Copy(copiers) => {
                    let outcome = self.guarded();
                    self.note(&outcome);
                    for copier in copiers {
                        let source = outcome.clone().and_then(|()| self.index.source());
                        let _ = copier.send(source);
                    }
                }
                Work::Heal => {
                    if let Err(error) = self.reopen() {
                        tracing::error!(%error, "The index cannot be opened again; trying on.");
                    }
                }
                Work::Stop => break,
            }
        }
        let outcome = self.guarded();
        self.note(&outcome);
        super::write(&self.shared.view).index = None;
        self.index.close();
        let desk = &self.shared.desk;
        let mut state = desk.lock();
        state.ended = true;
        for waiter in state.waiters.drain(..) {
            let _ = waiter.send(outcome.clone());
        }
        // Whoever still waits for a copy learns from the end of the channel.
        state.copiers.clear();
        desk.moved(&mut state);
    }

    /// Sleeps until there is something to do.
    fn next(&self) -> Work {
        let desk = &self.shared.desk;
        let mut state = desk.lock();
        let mut since: Option<Instant> = None;
        let mut seen = (self.shared.revision.load(Ordering::Acquire), Instant::now());
        let begun = Instant::now();
        loop {
            if state.stop {
                return Work::Stop;
            }
            if state.sick {
                return Work::Heal;
            }
            if !state.waiters.is_empty() {
                return Work::Checkpoint(std::mem::take(&mut state.waiters));
            }
            if !state.copiers.is_empty() {
                return Work::Copy(std::mem::take(&mut state.copiers));
            }
            let now = Instant::now();
            let due = if state.failing.is_some() || state.unreadable {
                Some(begun + PAUSE)
            } else if state.full {
                Some(now)
            } else if state.dirty {
                let revision = self.shared.revision.load(Ordering::Acquire);
                if revision != seen.0 {
                    seen = (revision, now);
                }
                let old = *since.get_or_insert(now) + OLD;
                Some(old.min(seen.1 + IDLE))
            } else {
                since = None;
                None
            };
            state = match due {
                Some(due) if due <= now => return Work::Checkpoint(Vec::new()),
                Some(due) => {
                    desk.asked
                        .wait_timeout(state, due - now)
                        .unwrap_or_else(PoisonError::into_inner)
                        .0
                }
                None => desk
                    .asked
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner),
            };
        }
    }

    fn guarded(&mut self) -> Result<(), Error> {
        // redb may panic on a file that something else has written into.
        catch_unwind(AssertUnwindSafe(|| self.checkpoint())).unwrap_or(Err(Error::Panicked))
    }

    /// Brings all that is visible now into the index and the files.
    fn checkpoint(&mut self) -> Result<(), Error> {
        // What an attempt before this one could not bring in comes first.
        if self.frozen.is_some() {
            self.apply()?;
        }
        if self.freeze() {
            self.apply()?;
        }
        Ok(())
    }

    /// Takes what there is; `false` when there is nothing.
    fn freeze(&mut self) -> bool {
        let shared = &self.shared;
        let (memtable, point, topics) = {
            let _barrier = shared.barrier.lock();
            let topics = shared.topics.freeze();
            let mut view = super::write(&shared.view);
            let memtable = Arc::new(std::mem::take(&mut view.active));
            // Readers need no more than one place to look when there is nothing in it.
            view.frozen = (!memtable.is_empty()).then(|| Arc::clone(&memtable));
            shared.ledger.freeze();
            (memtable, view.point, topics)
        };
        // A record can have changed nothing; the log shall not keep it for ever.
        let nothing = memtable.is_empty() && topics.is_empty() && point == self.stored;
        self.frozen = (!nothing).then_some(Freeze {
            memtable,
            point,
            topics,
        });
        let mut state = shared.desk.lock();
        state.dirty = false;
        state.full = false;
        shared.desk.moved(&mut state);
        !nothing
    }

    /// Writes what was frozen, and lets go of it.
    fn apply(&mut self) -> Result<(), Error> {
        let Some(mut freeze) = self.frozen.take() else {
            return Ok(());
        };
        let outcome = self.write(&mut freeze);
        let (rows, growth) = match outcome {
            Ok(done) => done,
            Err(error) => {
                self.frozen = Some(freeze);
                return Err(error);
            }
        };
        let shared = &self.shared;
        let old = {
            let mut view = super::write(&shared.view);
            view.frozen = None;
            view.index.replace(Arc::new(rows))
        };
        self.stored = freeze.point;
        // The pages that only the old rows used are free once it is gone.
        drop(old);
        shared.ledger.settle(growth);
        shared.topics.confirm(freeze.topics);
        shared
            .recyclable
            .store(freeze.point.position.0, Ordering::Release);
        shared.queue.nudge();
        Ok(())
    }

    fn write(&mut self, freeze: &mut Freeze) -> Result<Written, Error> {
        if self.shared.desk.lock().unreadable {
            self.reopen()?;
        }
        let flushed = self.shared.topics.flush(&mut freeze.topics)?;
        let written = catch_unwind(AssertUnwindSafe(|| {
            let growth = self.index.apply(&freeze.memtable, freeze.point, &flushed)?;
            Ok((self.index.rows()?, growth))
        }))
        .unwrap_or(Err(Error::Panicked));
        if written.is_err() {
            // It answers nothing any more after a failure, not even reads.
            if let Err(error) = self.reopen() {
                tracing::error!(%error, "The index cannot be opened again; trying on.");
            }
        }
        written
    }

    /// Opens the index again. Readers wait in the meantime, a few milliseconds.
    fn reopen(&mut self) -> Result<(), Error> {
        let outcome = {
            let mut view = super::write(&self.shared.view);
            view.index = None;
            let rows = self.index.reopen().and_then(|()| self.index.rows());
            rows.map(|rows| view.index = Some(Arc::new(rows)))
        };
        let desk = &self.shared.desk;
        let mut state = desk.lock();
        state.sick = false;
        state.unreadable = outcome.is_err();
        desk.moved(&mut state);
        outcome
    }

    /// Tells those who wait how it went.
    fn note(&self, outcome: &Result<(), Error>) {
        let desk = &self.shared.desk;
        let mut state = desk.lock();
        match (outcome, &state.failing) {
            (Err(error), None) => tracing::error!(
                %error,
                "What was committed cannot be brought into the index; it is safe in the log. Trying on."
            ),
            (Ok(()), Some(_)) => tracing::info!("The index takes what is committed again."),
            _ => {}
        }
        state.failing = outcome.as_ref().err().cloned();
        desk.moved(&mut state);
    }
}

type Written = (super::index::Rows, Vec<(micro_core::Namespace, i64)>);
