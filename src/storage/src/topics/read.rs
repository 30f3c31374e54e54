//! Reading events by offset and finding them by time: files first, memory last, both in one answer.

use micro_core::{Namespace, Timestamp};

use super::{Topics, segment::Budget, topic::Topic};
use crate::{Entry, Error};

/// Where to look next.
enum Place {
    /// It is known: these are the last events, or there is no more.
    Done,
    /// In memory nothing is known about the files yet.
    Unlisted,
    /// In the segment `base`, up to `end`.
    File { base: u64, end: u64 },
    /// In no file, although it should be.
    Missing { end: u64 },
}

impl Topics {
    /// Events from `from` on, at most `entries` and about `bytes`, but at least one if there is any.
    /// From below the first that is kept it begins with that.
    ///
    /// # Errors
    /// [`Error::Event`] when the first of them is damaged; it says from where reading can go on.
    /// `Internal` when a file cannot be read.
    pub(crate) fn read(
        &self,
        namespace: &Namespace,
        topic: &str,
        mut from: u64,
        entries: usize,
        bytes: usize,
    ) -> Result<Vec<Entry>, Error> {
        let mut found = Vec::new();
        let Some(topic) = self.find(namespace, topic) else {
            return Ok(found);
        };
        let mut budget = Budget::new(entries, bytes);
        while !budget.is_spent() {
            match place(&topic, &mut from, &mut budget, &mut found) {
                Place::Done => break,
                Place::Unlisted => self.load(&topic)?,
                Place::Missing { end } => return unreadable(&topic, from, end, found),
                Place::File { base, end } => {
                    let Some(segment) = self.segment(&topic, base)? else {
                        if vanished(&topic, end) {
                            continue;
                        }
                        return unreadable(&topic, from, end, found);
                    };
                    if let Err((from, resume)) = segment.read(from, end, &mut budget, &mut found)? {
                        return unreadable(&topic, from, resume, found);
                    }
                    match found.last() {
                        Some(last) if last.offset >= from => from = last.offset.saturating_add(1),
                        _ => break,
                    }
                }
            }
        }
        Ok(found)
    }

    /// The first event appended at `time` or later; the next offset when there is none.
    ///
    /// # Errors
    /// `Internal` when a file cannot be read.
    pub(crate) fn offset_at(
        &self,
        namespace: &Namespace,
        topic: &str,
        time: Timestamp,
    ) -> Result<u64, Error> {
        self.find(namespace, topic)
            .map_or(Ok(0), |t| self.first_at(&t, time))
    }

    pub(super) fn first_at(&self, topic: &Topic, time: Timestamp) -> Result<u64, Error> {
        loop {
            let (segments, stored, first) = {
                let state = topic.state();
                if state.gone {
                    return Ok(0);
                }
                // Those in memory that are older; when there are any, the files hold nothing else.
                let older = state.recent.partition_point(|e| e.time < time);
                let files = state.recent_from() > state.first;
                if older > 0 || !files {
                    let at = state.recent_from().saturating_add(older as u64);
                    return Ok(at.max(state.first));
                }
                (state.segments.clone(), state.stored, state.first)
            };
            let Some(segments) = segments else {
                self.load(topic)?;
                continue;
            };
            // The first segment that has such an event, by halves.
            let (mut low, mut high) = (0, segments.len());
            let mut offset = stored.end;
            while low < high {
                let middle = low.midpoint(high);
                let Some(segment) = segments.get(middle) else {
                    break;
                };
                let behind = segments.get(middle.saturating_add(1));
                let end = behind.map_or(stored.end, |s| s.base);
                let at = match self.segment(topic, segment.base)? {
                    Some(open) => open.offset_at(time, end)?,
                    // Let go meanwhile, or lost: nothing in it can be found.
                    None => end,
                };
                if at < end {
                    offset = at;
                    high = middle;
                } else {
                    low = middle.saturating_add(1);
                }
            }
            return Ok(offset.max(first));
        }
    }
}

/// Where the event `from` is; takes it and what follows when that is the memory.
fn place(topic: &Topic, from: &mut u64, budget: &mut Budget, found: &mut Vec<Entry>) -> Place {
    let state = topic.state();
    if state.gone {
        return Place::Done;
    }
    if *from < state.first {
        if !found.is_empty() {
            // Let go while it was read: what was read has no gap and is good.
            return Place::Done;
        }
        *from = state.first;
    }
    if state.is_recent(*from) {
        let recent = state.recent_after(*from);
        found.extend(recent.take_while(|e| budget.take(e.value.len())).cloned());
        return Place::Done;
    }
    let Some(segments) = &state.segments else {
        return Place::Unlisted;
    };
    let behind = segments.partition_point(|s| s.base <= *from);
    let end = segments.get(behind).map_or(state.stored.end, |s| s.base);
    match behind.checked_sub(1).and_then(|i| segments.get(i)) {
        Some(segment) => Place::File {
            base: segment.base,
            end,
        },
        None => Place::Missing { end },
    }
}

/// Whether the events before `end` have been let go.
fn vanished(topic: &Topic, end: u64) -> bool {
    let state = topic.state();
    state.gone || state.first >= end
}

fn unreadable(
    topic: &Topic,
    offset: u64,
    resume: u64,
    found: Vec<Entry>,
) -> Result<Vec<Entry>, Error> {
    if !found.is_empty() {
        return Ok(found);
    }
    tracing::error!(
        namespace = %topic.namespace, topic = &*topic.name, offset, resume,
        "Events of a topic are damaged."
    );
    Err(Error::Event {
        namespace: topic.namespace.clone(),
        topic: topic.name.to_string(),
        offset,
        resume,
    })
}
