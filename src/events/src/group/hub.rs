//! The groups of one namespace that have consumers now.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio::sync::{mpsc, oneshot};

use super::{
    AnswerStream, Consume, Deliveries, GroupState, Key, Name, coordinator::Coordinator,
    ledger::Ledger, position::Position,
};
use crate::{Error, topics::Topics};

/// What a coordinator is told.
pub(super) enum Command {
    Join(Join),
    /// End every consumer with the error; told back when nothing is left of the group.
    Stop(Error, oneshot::Sender<()>),
}

/// A consumer that wants to join.
pub(super) struct Join {
    pub(super) consume: Consume,
    pub(super) answers: AnswerStream,
    pub(super) reply: oneshot::Sender<Result<Deliveries, Error>>,
}

/// What a coordinator shows of its group.
#[derive(Debug, Default)]
pub(crate) struct Stats {
    pub(crate) position: AtomicU64,
    pub(crate) next: AtomicU64,
    pub(crate) open: AtomicU64,
    pub(crate) flights: AtomicU64,
    pub(crate) consumers: AtomicU64,
}

impl Stats {
    pub(super) fn show(&self, ledger: &Ledger, consumers: usize) {
        let show = |place: &AtomicU64, value| place.store(value, Ordering::Relaxed);
        show(&self.position, ledger.floor());
        show(&self.next, ledger.next());
        show(&self.open, ledger.open() as u64);
        show(&self.flights, ledger.flights() as u64);
        show(&self.consumers, consumers as u64);
    }
}

#[derive(Debug)]
struct Active {
    commands: mpsc::UnboundedSender<Command>,
    stats: Arc<Stats>,
}

impl std::fmt::Debug for Command {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Join(_) => "Join",
            Self::Stop(..) => "Stop",
        })
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct HubOf {
    active: Mutex<HashMap<Key, Active>>,
    /// Events that groups gave up, since the start.
    dead: Mutex<HashMap<Key, u64>>,
    private: AtomicU64,
}

impl HubOf {
    /// A new consumer. The group is there, durably, when this returns.
    pub(crate) async fn join(
        &self,
        topics: &Arc<Topics>,
        consume: Consume,
        answers: AnswerStream,
    ) -> Result<Deliveries, Error> {
        let key = Key {
            topic: consume.topic.as_str().into(),
            group: match consume.group.as_str() {
                "" => Name::Private(self.private.fetch_add(1, Ordering::Relaxed)),
                group => Name::Named(group.into()),
            },
        };
        let (reply, answer) = oneshot::channel();
        self.send(
            topics,
            key,
            Join {
                consume,
                answers,
                reply,
            },
        );
        // A coordinator answers, unless it ends with the runtime it lives on.
        answer.await.unwrap_or(Err(Error::Stopping))
    }

    /// To the coordinator of the group, or to a new one.
    fn send(&self, topics: &Arc<Topics>, key: Key, join: Join) {
        let mut active = self.active();
        let mut command = Command::Join(join);
        if let Some(group) = active.get(&key) {
            match group.commands.send(command) {
                Ok(()) => return,
                // Its runtime is gone; a new one takes the place.
                Err(mpsc::error::SendError(returned)) => command = returned,
            }
        }
        let Command::Join(join) = command else {
            return;
        };
        let (commands, inbox) = mpsc::unbounded_channel();
        let start = join.consume.start;
        let _ = commands.send(Command::Join(join));
        let stats = Arc::<Stats>::default();
        let coordinator =
            Coordinator::new(Arc::clone(topics), key.clone(), inbox, Arc::clone(&stats));
        active.insert(key, Active { commands, stats });
        drop(active);
        // On the runtime of the first consumer's connection: an event changes threads once, from
        // the commit to here.
        tokio::spawn(coordinator.run(start));
    }

    /// Takes a coordinator that has nothing to do off the list, unless there is a command for it.
    pub(super) fn retire(
        &self,
        key: &Key,
        inbox: &mut mpsc::UnboundedReceiver<Command>,
    ) -> Option<Command> {
        // Commands are sent under this lock, so none can come after the look into the inbox.
        let mut active = self.active();
        match inbox.try_recv() {
            Ok(command) => Some(command),
            Err(_) => {
                active.remove(key);
                None
            }
        }
    }

    /// Ends the matching groups, and returns when nothing of them is left in memory.
    pub(crate) async fn stop(&self, which: impl Fn(&Key) -> bool, error: &Error) {
        let ends: Vec<oneshot::Receiver<()>> = self
            .active()
            .iter()
            .filter(|(key, _)| which(key))
            .filter_map(|(_, group)| {
                let (told, ended) = oneshot::channel();
                let stop = Command::Stop(error.clone(), told);
                group.commands.send(stop).ok().map(|()| ended)
            })
            .collect();
        for ended in ends {
            let _ = ended.await;
        }
    }

    /// A group as it is shown: as it is now when it has consumers, else as it was saved. `next` is
    /// the end of its topic.
    pub(crate) fn state(
        &self,
        topic: String,
        name: String,
        saved: &Position,
        next: u64,
    ) -> GroupState {
        let key = Key {
            topic: topic.as_str().into(),
            group: Name::Named(name.as_str().into()),
        };
        let dead = self.dead(&key);
        let active = self.active();
        let read = |place: &AtomicU64| place.load(Ordering::Relaxed);
        match active.get(&key).map(|group| &group.stats) {
            Some(stats) if read(&stats.consumers) > 0 => GroupState {
                topic,
                name,
                position: read(&stats.position),
                lag: next
                    .saturating_sub(read(&stats.next))
                    .saturating_add(read(&stats.open)),
                in_flight: read(&stats.flights),
                consumers: read(&stats.consumers),
                dead,
            },
            _ => GroupState {
                topic,
                name,
                position: saved.floor(),
                lag: saved.lag(next),
                in_flight: 0,
                consumers: 0,
                dead,
            },
        }
    }

    /// A group gave up so many events more.
    pub(super) fn gave_up(&self, key: &Key, events: u64) {
        let mut dead = self.dead.lock().unwrap_or_else(PoisonError::into_inner);
        *dead.entry(key.clone()).or_default() += events;
    }

    /// How many events a group gave up.
    fn dead(&self, key: &Key) -> u64 {
        let dead = self.dead.lock().unwrap_or_else(PoisonError::into_inner);
        dead.get(key).copied().unwrap_or(0)
    }

    /// Nothing is told of the matching groups any more.
    pub(crate) fn forget(&self, which: impl Fn(&Key) -> bool) {
        let mut dead = self.dead.lock().unwrap_or_else(PoisonError::into_inner);
        dead.retain(|key, _| !which(key));
    }

    fn active(&self) -> MutexGuard<'_, HashMap<Key, Active>> {
        self.active.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
