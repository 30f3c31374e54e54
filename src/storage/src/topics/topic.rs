//! One topic in memory: its bounds, its recent events, its followers. No file is touched here, so
//! the lock on the state is held for moments.

use std::{
    collections::VecDeque,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicU64, Ordering},
    },
};

use micro_core::{Namespace, Timestamp};
use tokio::sync::watch;

use super::{
    lock, record,
    recorded::{Recorded, Stored},
    write::Written,
};
use crate::{Bounds, Entry, Error};

/// One incarnation of a topic.
pub(super) struct Topic {
    pub(super) namespace: Namespace,
    pub(super) name: Arc<str>,
    /// No two topics of this node that have files share it.
    pub(super) incarnation: u64,
    /// Held while the list of segments is made; before `state`.
    pub(super) listing: Mutex<()>,
    /// Bytes of all topics of the namespace.
    usage: Arc<AtomicU64>,
    state: Mutex<State>,
}

/// What changes.
#[derive(Default)]
pub(super) struct State {
    /// The oldest event that is kept.
    pub(super) first: u64,
    /// What the next event gets.
    pub(super) next: u64,
    /// The time of the newest event.
    pub(super) time: i64,
    /// The newest events, without gaps up to `next`; at least those that no file has for sure.
    pub(super) recent: VecDeque<Entry>,
    recent_bytes: u64,
    /// What the files hold for sure.
    pub(super) stored: Stored,
    /// The files; `None` until the directory has been read.
    pub(super) segments: Option<VecDeque<Segment>>,
    /// A flush failed half-way: the file it wrote to is not to be trusted behind its confirmed end.
    pub(super) spoiled: bool,
    /// Nothing is in the directory but what is confirmed.
    pub(super) repaired: bool,
    /// Bytes that count for the usage.
    live: u64,
    /// Among those that the next mark covers.
    changed: bool,
    /// Not to be used any more; somebody who still holds it has to look for its successor.
    pub(super) gone: bool,
    followers: Option<watch::Sender<u64>>,
}

/// A segment file whose events are all confirmed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Segment {
    /// The offset of its first event, which is its name.
    pub(super) base: u64,
    /// Its length.
    pub(super) bytes: u64,
}

/// A topic that was removed, and whose files go when that is confirmed.
pub(super) struct Removed {
    pub(super) namespace: Namespace,
    pub(super) name: Arc<str>,
    pub(super) directory: PathBuf,
    pub(super) incarnation: u64,
}

impl Topic {
    pub(super) fn new(
        namespace: Namespace,
        name: Arc<str>,
        incarnation: u64,
        usage: Arc<AtomicU64>,
    ) -> Arc<Self> {
        Arc::new(Self {
            namespace,
            name,
            incarnation,
            listing: Mutex::default(),
            usage,
            state: Mutex::new(State {
                time: i64::MIN,
                ..State::default()
            }),
        })
    }

    pub(super) fn restored(recorded: Recorded, usage: Arc<AtomicU64>) -> Arc<Self> {
        usage.fetch_add(recorded.stored.bytes, Ordering::Relaxed);
        Arc::new(Self {
            namespace: recorded.namespace,
            name: recorded.topic.into(),
            incarnation: recorded.incarnation,
            listing: Mutex::default(),
            usage,
            state: Mutex::new(State {
                first: recorded.stored.first,
                next: recorded.stored.end,
                time: recorded.time.0,
                stored: recorded.stored,
                live: recorded.stored.bytes,
                ..State::default()
            }),
        })
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Where its files are.
    pub(super) fn directory(&self, root: &Path) -> PathBuf {
        root.join(self.namespace.as_str())
            .join(record::directory_name(&self.name, self.incarnation))
    }

    /// Adds events that the log has. `None` when the topic is gone; else whether this is the first
    /// change since the last mark.
    pub(super) fn append(&self, entries: &mut Vec<Entry>) -> Result<Option<bool>, Error> {
        let mut state = self.state();
        if state.gone {
            return Ok(None);
        }
        let mut added = 0u64;
        for mut entry in entries.drain(..) {
            state.time = state.time.max(entry.time.0);
            if entry.offset < state.next {
                continue;
            }
            if entry.offset > state.next {
                return Err(Error::Gap {
                    namespace: self.namespace.clone(),
                    topic: self.name.to_string(),
                    expected: state.next,
                    found: entry.offset,
                });
            }
            entry.time = Timestamp(state.time);
            added = added.saturating_add(record::size(&entry));
            state.next = state.next.saturating_add(1);
            state.recent.push_back(entry);
        }
        state.recent_bytes = state.recent_bytes.saturating_add(added);
        state.live = state.live.saturating_add(added);
        self.usage.fetch_add(added, Ordering::Relaxed);
        state.tell();
        Ok(Some(state.mark_changed()))
    }

    /// Lets go of the events before `first`. `None` when the topic is gone; else whether this is
    /// the first change since the last mark.
    pub(super) fn retain(&self, first: u64) -> Option<bool> {
        let mut state = self.state();
        if state.gone {
            return None;
        }
        let first = first.min(state.next);
        if first <= state.first {
            return Some(false);
        }
        state.first = first;
        let forgotten = state.forget_before(first);
        self.account(&mut state);
        let marked = state.mark_changed();
        drop(state);
        drop(forgotten);
        Some(marked)
    }

    /// Takes what a flush has made safe: the events leave memory.
    pub(super) fn confirm(&self, written: Written) {
        let mut state = self.state();
        state.stored = written.stored;
        state.segments = Some(written.segments);
        (state.spoiled, state.repaired) = (false, true);
        let forgotten = state.forget_before(written.stored.end);
        self.account(&mut state);
        drop(state);
        drop(forgotten);
    }

    /// Ends this incarnation and gives its followers to the next, if it has any.
    pub(super) fn remove(&self) -> Option<watch::Sender<u64>> {
        let mut state = self.state();
        state.gone = true;
        // What is in memory stays until the topic is dropped: a mark made before may still want it.
        self.account(&mut state);
        let followers = state.followers.take();
        drop(state);
        followers.filter(|f| f.receiver_count() > 0)
    }

    /// Gives the place of a topic free that has no events and no followers. True: it is gone.
    pub(super) fn give_up(&self) -> bool {
        let mut state = self.state();
        if !state.exists()
            && state
                .followers
                .as_ref()
                .is_none_or(|f| f.receiver_count() == 0)
        {
            state.gone = true;
        }
        state.gone
    }

    /// The next offset as it grows; `None` when the topic is gone.
    pub(super) fn follow(&self) -> Option<watch::Receiver<u64>> {
        let mut state = self.state();
        if state.gone {
            return None;
        }
        let next = state.next;
        let followers = state
            .followers
            .get_or_insert_with(|| watch::Sender::new(next));
        Some(followers.subscribe())
    }

    /// Takes over the followers of the incarnation before.
    pub(super) fn adopt(&self, followers: watch::Sender<u64>) {
        let mut state = self.state();
        state.followers = Some(followers);
        state.tell();
    }

    /// Brings the usage of the namespace up to date.
    fn account(&self, state: &mut State) {
        let live = if state.gone { 0 } else { state.weigh() };
        if live >= state.live {
            let more = live.saturating_sub(state.live);
            self.usage.fetch_add(more, Ordering::Relaxed);
        } else {
            let less = state.live.saturating_sub(live);
            self.usage.fetch_sub(less, Ordering::Relaxed);
        }
        state.live = live;
    }
}

impl State {
    /// Whether the topic has ever had an event.
    pub(super) fn exists(&self) -> bool {
        !self.gone && self.next > 0
    }

    pub(super) fn bounds(&self) -> Bounds {
        if self.gone {
            return Bounds::default();
        }
        Bounds {
            first: self.first,
            next: self.next,
            bytes: self.live,
        }
    }

    /// The offset from which on events are in memory.
    pub(super) fn recent_from(&self) -> u64 {
        self.next.saturating_sub(self.recent.len() as u64)
    }

    pub(super) fn is_recent(&self, from: u64) -> bool {
        self.gone || from.max(self.first) >= self.recent_from()
    }

    /// The events in memory from `from` on, which must not lie before them.
    pub(super) fn recent_after(&self, from: u64) -> impl Iterator<Item = &Entry> {
        let skipped = from.saturating_sub(self.recent_from());
        let skipped = usize::try_from(skipped).unwrap_or(usize::MAX);
        self.recent.range(skipped.min(self.recent.len())..)
    }

    /// Something is being written. Until it is confirmed, what is in the directory may be anything.
    pub(super) fn distrust(&mut self) {
        (self.spoiled, self.repaired) = (true, false);
    }

    /// Takes the mark: the topic has not changed since then.
    pub(super) fn marked(&mut self) {
        self.changed = false;
    }

    fn weigh(&self) -> u64 {
        let expired = match &self.segments {
            Some(segments) => expired(segments, self.stored.end, self.first),
            None => 0,
        };
        let expired = self.segments.iter().flatten().take(expired);
        let expired = expired.map(|s| s.bytes).sum();
        self.stored
            .bytes
            .saturating_sub(expired)
            .saturating_add(self.recent_bytes)
    }

    fn forget_before(&mut self, offset: u64) -> Vec<Entry> {
        let old = offset.saturating_sub(self.recent_from());
        let old = usize::try_from(old).unwrap_or(usize::MAX);
        let old = old.min(self.recent.len());
        let forgotten: Vec<_> = self.recent.drain(..old).collect();
        let bytes = forgotten.iter().map(record::size).sum();
        self.recent_bytes = self.recent_bytes.saturating_sub(bytes);
        if self.recent.is_empty() {
            // An idle topic shall not keep the room that it needed at its busiest.
            self.recent = VecDeque::new();
        }
        forgotten
    }

    fn mark_changed(&mut self) -> bool {
        !std::mem::replace(&mut self.changed, true)
    }

    fn tell(&self) {
        if let Some(followers) = &self.followers {
            followers.send_replace(self.next);
        }
    }
}

/// How many of the first `segments`, which end before the event `end`, hold nothing from `first` on.
pub(super) fn expired(segments: &VecDeque<Segment>, end: u64, first: u64) -> usize {
    let ends = segments.iter().skip(1).map(|s| s.base).chain([end]);
    ends.take_while(|end| *end <= first)
        .count()
        .min(segments.len())
}
