//! The committer: one thread that decides about every batch, in one order for all of them.
//!
//! It takes all batches that wait, checks what each expects against the state as the ones before it
//! leave it, gives revisions and offsets, appends the group to the log (one write, one sync), makes
//! it visible, and answers. While it syncs, the next group gathers by itself.

use std::{
    collections::HashMap,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, atomic::Ordering},
};

use bytes::Bytes;
use micro_core::{Namespace, Timestamp};

use super::{
    Shared,
    index::Point,
    memtable::Slot,
    queue::{Job, Refusal},
    view,
};
use crate::{
    Entry, Error, Expect, Receipt, Revision, Writes,
    log::{Group, Log, Position},
    record::{self, Op, Record},
};

/// The thread's own state.
pub(crate) struct Committer {
    shared: Arc<Shared>,
    log: Log,
    group: Group,
    last: Point,
    recycled: Position,
}

/// A batch that will happen when the log has it.
struct Accepted {
    job: Answerable,
    receipt: Receipt,
    effects: Option<Effects>,
}

type Answerable = tokio::sync::oneshot::Sender<Result<Receipt, Refusal>>;

/// What a record does.
#[derive(Debug)]
pub(crate) struct Effects {
    pub(crate) revision: Revision,
    pub(crate) time: Timestamp,
    pub(crate) namespace: Namespace,
    operations: Vec<Op>,
}

/// What the batches of a group will have done, while it is not yet visible.
#[derive(Default)]
struct Pending {
    /// Kept only when somebody in the group expects something.
    rows: Option<HashMap<Bytes, Option<Revision>>>,
    offsets: HashMap<(Namespace, String), u64>,
    grown: HashMap<Namespace, u64>,
}

impl Committer {
    pub(crate) fn new(shared: Arc<Shared>, log: Log, last: Point) -> Self {
        Self {
            shared,
            log,
            group: Group::new(),
            last,
            recycled: Position::default(),
        }
    }

    /// Works until the queue is closed and empty.
    pub(crate) fn run(mut self) {
        let mut jobs = Vec::new();
        let mut broken = false;
        while self.shared.queue.take(&mut jobs) {
            if broken {
                refuse(&mut jobs, &Error::Panicked);
                continue;
            }
            // After a fault of our own nobody knows what is in memory. What was acknowledged is in
            // the log; the next start reads it.
            broken = catch_unwind(AssertUnwindSafe(|| self.work(&mut jobs))).is_err();
            if broken {
                tracing::error!(
                    "The committer failed; nothing is written until micro is restarted."
                );
                refuse(&mut jobs, &Error::Panicked);
            }
        }
    }

    fn work(&mut self, jobs: &mut Vec<Job>) {
        self.recycle();
        if jobs.is_empty() {
            return;
        }
        if let Err(error) = self.shared.wait_for_room() {
            return refuse(jobs, &error);
        }
        // A topic that is removed has to be gone before anybody numbers its entries again.
        let mut rest = jobs.drain(..).peekable();
        while rest.peek().is_some() {
            let mut part = Vec::new();
            while let Some(job) = rest.next_if(|job| part.is_empty() || !job.writes.is_alone()) {
                let alone = job.writes.is_alone();
                part.push(job);
                if alone {
                    break;
                }
            }
            self.commit(part);
        }
    }

    fn commit(&mut self, jobs: Vec<Job>) {
        let mut pending = Pending {
            rows: jobs
                .iter()
                .any(|job| !job.writes.expectations().is_empty())
                .then(HashMap::new),
            ..Pending::default()
        };
        let before = self.last;
        let limited = !self.shared.ledger.is_unlimited();
        self.last.time = before.time.max(self.shared.clock.now());
        let mut accepted = Vec::with_capacity(jobs.len());
        self.group.clear();
        for job in jobs {
            match self.decide(&job, &pending, limited) {
                Ok(()) => accepted.push(self.accept(job, &mut pending)),
                Err(error) if matches!(error, Error::Quota { .. }) && !job.counted => {
                    let _ = job.done.send(Err(Refusal::Uncounted(Box::new(job.writes))));
                }
                Err(error) => {
                    let _ = job.done.send(Err(error.into()));
                }
            }
        }
        if !self.group.is_empty() {
            match self.log.append(&mut self.group) {
                Ok(end) => self.last.position = end,
                Err(error) => {
                    self.last = before;
                    for one in accepted {
                        let _ = one.job.send(Err(error.clone().into()));
                    }
                    return;
                }
            }
            let effects = accepted.iter().filter_map(|one| one.effects.as_ref());
            self.shared.make_visible(effects, self.last);
        }
        // Who wrote waits longest; who watches is told right after.
        let mut changes = Vec::with_capacity(accepted.len());
        for Accepted {
            job,
            receipt,
            effects,
        } in accepted
        {
            let _ = job.send(Ok(receipt));
            changes.extend(effects);
        }
        if !self.shared.hub.is_idle() {
            for effects in changes {
                self.shared
                    .hub
                    .publish(effects.revision, effects.row_changes());
            }
        }
    }

    /// Whether a batch may happen.
    fn decide(&self, job: &Job, pending: &Pending, limited: bool) -> Result<(), Error> {
        let writes = &job.writes;
        for expectation in writes.expectations() {
            let key = record::full_key(expectation.table, writes.namespace(), &expectation.key);
            let known = pending.rows.as_ref().and_then(|rows| rows.get(&key[..]));
            let found = match known {
                Some(found) => *found,
                None => self
                    .shared
                    .retry(|| view::revision(&self.shared.view, &key))?,
            };
            let holds = match expectation.expect {
                Expect::Absent => found.is_none(),
                Expect::Present => found.is_some(),
                Expect::At(revision) => found == Some(revision),
            };
            if !holds {
                return Err(Error::Conflict {
                    table: expectation.table,
                    key: expectation.key.clone(),
                    found,
                });
            }
        }
        if limited && writes.grows() > 0 {
            let namespace = writes.namespace();
            let (held, quota) = self.shared.held_and_quota(namespace);
            let waiting = pending.grown.get(namespace).copied().unwrap_or(0);
            if let Some(limit) = quota
                && held.saturating_add(waiting).saturating_add(writes.grows()) > limit
            {
                return Err(Error::Quota {
                    namespace: namespace.clone(),
                    limit,
                });
            }
        }
        Ok(())
    }

    /// Puts a batch into the group.
    fn accept(&mut self, job: Job, pending: &mut Pending) -> Accepted {
        let Job {
            mut writes,
            cut,
            done,
            ..
        } = job;
        let outdated = cut.is_some_and(|(topic, cut)| {
            !self
                .shared
                .topics
                .is_current(writes.namespace(), &topic, &cut)
        });
        if writes.is_empty() || outdated {
            let receipt = Receipt {
                revision: self.last.revision,
                offsets: Vec::new(),
            };
            return Accepted {
                job: done,
                receipt,
                effects: None,
            };
        }
        self.last.revision.0 += 1;
        let revision = self.last.revision;
        writes.stamp(revision, self.last.time);
        let namespace = writes.namespace().clone();
        let offsets = self.number(&mut writes, &namespace, pending);
        if let Some(grown) = pending.grown.get_mut(&namespace) {
            *grown = grown.saturating_add(writes.grows());
        } else {
            pending.grown.insert(namespace, writes.grows());
        }
        let payload = writes.into_payload();
        self.group.push(&payload);
        // We have just written it; it can be read.
        let effects = Effects::of(payload).ok();
        if let (Some(rows), Some(effects)) = (&mut pending.rows, &effects) {
            for (key, value) in effects.rows() {
                rows.insert(key.clone(), value.is_some().then_some(revision));
            }
        }
        Accepted {
            job: done,
            receipt: Receipt { revision, offsets },
            effects,
        }
    }

    fn number(
        &self,
        writes: &mut Writes,
        namespace: &Namespace,
        pending: &mut Pending,
    ) -> Vec<u64> {
        writes.number(|topic| {
            let key = (namespace.clone(), topic.to_owned());
            let next = pending
                .offsets
                .entry(key)
                .or_insert_with(|| self.shared.topics.next_offset(namespace, topic));
            let offset = *next;
            *next += 1;
            offset
        })
    }

    /// Gives up the part of the log that the last checkpoint has made needless.
    fn recycle(&mut self) {
        let below = Position(self.shared.recyclable.load(Ordering::Acquire));
        if below > self.recycled {
            self.recycled = below;
            self.log.recycle(below);
        }
    }
}

impl Effects {
    /// What the record `payload` does; the text says what is wrong with it.
    pub(crate) fn of(payload: Bytes) -> Result<Self, String> {
        let record = Record::parse(payload)?;
        let operations = record.operations().collect::<Result<_, _>>()?;
        Ok(Self {
            revision: record.revision,
            time: record.time,
            namespace: record.namespace,
            operations,
        })
    }

    /// Rows by full key; `None` for those that are deleted.
    pub(crate) fn rows(&self) -> impl Iterator<Item = (&Bytes, Option<&Bytes>)> {
        self.operations.iter().filter_map(|op| match op {
            Op::Put { key, value } => Some((key, Some(value))),
            Op::Delete { key } => Some((key, None)),
            Op::Append { .. } | Op::Remove { .. } | Op::Retain { .. } => None,
        })
    }

    fn row_changes(&self) -> impl Iterator<Item = (Bytes, usize, Option<Bytes>)> + use<'_> {
        self.rows().map(|(key, value)| {
            let split = record::split_key_lengths(key).unwrap_or(0);
            (key.clone(), split, value.cloned())
        })
    }

    /// What happens to topics, entries of the same topic that follow each other together.
    pub(crate) fn topics(&self) -> impl Iterator<Item = &Op> {
        self.operations
            .iter()
            .filter(|op| !matches!(op, Op::Put { .. } | Op::Delete { .. }))
    }
}

impl Shared {
    /// Lets readers see what the log has, and remembers that up to `point` all is visible.
    pub(crate) fn make_visible<'a>(
        &self,
        effects: impl Iterator<Item = &'a Effects> + Clone,
        point: Point,
    ) {
        // A checkpoint sees rows and topics at the same point.
        let barrier = self.barrier.lock();
        {
            let mut view = super::write(&self.view);
            let mut growth: Vec<(&Namespace, i64)> = Vec::new();
            for effects in effects.clone() {
                let mut by = 0;
                for (key, value) in effects.rows() {
                    let prefix = record::split_key_lengths(key).unwrap_or(0);
                    let size = |value: &Bytes| {
                        i64::try_from(key.len() - prefix + value.len()).unwrap_or(i64::MAX)
                    };
                    let live = |slot: &Slot| slot.value.as_ref().map(size);
                    let old = view
                        .active
                        .set(key.clone(), value.cloned(), effects.revision);
                    // A row that only the index has counts as if there were none; the next
                    // checkpoint knows better.
                    let old = match old {
                        Some(slot) => live(&slot),
                        None => view.frozen.as_ref().and_then(|f| live(f.get(key)?)),
                    };
                    by += value.map_or(0, size) - old.unwrap_or(0);
                }
                for op in effects.topics() {
                    if let Op::Append { value, .. } = op {
                        view.active.weigh_entry(value.len());
                    }
                }
                match growth.last_mut() {
                    Some((namespace, sum)) if **namespace == effects.namespace => *sum += by,
                    _ => growth.push((&effects.namespace, by)),
                }
            }
            view.point = point;
            for (namespace, by) in growth {
                if by != 0 {
                    self.ledger.grow(namespace, by);
                }
            }
        }
        self.revision.store(point.revision.0, Ordering::Release);
        self.change_topics(effects);
        drop(barrier);
        self.written();
    }

    /// Rows come first: who is told of an entry finds the rows that were written with it.
    fn change_topics<'a>(&self, effects: impl Iterator<Item = &'a Effects>) {
        // Entries by topic, so that each is looked up, and its followers are woken, once.
        let mut entries: HashMap<(&Namespace, &Bytes), Vec<Entry>> = HashMap::new();
        for effects in effects {
            for op in effects.topics() {
                match op {
                    Op::Append {
                        topic,
                        offset,
                        value,
                    } => {
                        let entry = Entry {
                            offset: *offset,
                            time: effects.time,
                            value: value.clone(),
                        };
                        let key = (&effects.namespace, topic);
                        entries.entry(key).or_default().push(entry);
                    }
                    Op::Remove { topic } => {
                        self.append(&mut entries);
                        self.topics.remove(&effects.namespace, text(topic));
                    }
                    Op::Retain { topic, first } => {
                        self.append(&mut entries);
                        self.topics.retain(&effects.namespace, text(topic), *first);
                    }
                    Op::Put { .. } | Op::Delete { .. } => {}
                }
            }
        }
        self.append(&mut entries);
    }

    fn append(&self, entries: &mut HashMap<(&Namespace, &Bytes), Vec<Entry>>) {
        for ((namespace, topic), entries) in entries.drain() {
            if let Err(error) = self.topics.append_recent(namespace, text(topic), entries) {
                tracing::error!(%error, "Entries that were committed cannot be read before a restart.");
            }
        }
    }
}

/// Names come from `&str`s.
fn text(topic: &Bytes) -> &str {
    std::str::from_utf8(topic).unwrap_or_default()
}

fn refuse(jobs: &mut Vec<Job>, error: &Error) {
    for job in jobs.drain(..) {
        let _ = job.done.send(Err(error.clone().into()));
    }
}
