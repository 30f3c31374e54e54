//! Letting go of what is old, and of whole topics.
//!
//! What shall go is decided outside of the committer ([`Topics::plan_retain`], which reads files),
//! becomes durable through a record of the log, and happens in memory then ([`Topics::retain`]).
//! Readers see it at once. The files go when the index knows it as well ([`Topics::confirm`]): until
//! then a crash may need them.

use std::{
    sync::{Arc, PoisonError},
    time::Duration,
};

use micro_core::{Namespace, Timestamp};

use super::{
    Topics, lock,
    topic::{Removed, Topic},
};
use crate::Error;

/// A decision about a topic: what lies before `first` shall go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cut {
    /// The oldest event that stays.
    pub(crate) first: u64,
    incarnation: u64,
}

impl Topics {
    /// What of a topic shall go, so that no event is older than `age` and all of them together take
    /// no more than `bytes`; `None` when nothing has to. Events go one by one, their files when
    /// nothing in them is needed. May read files.
    ///
    /// # Errors
    /// `Internal` when a file cannot be read.
    pub(crate) fn plan_retain(
        &self,
        namespace: &Namespace,
        topic: &str,
        age: Option<Duration>,
        bytes: Option<u64>,
        now: Timestamp,
    ) -> Result<Option<Cut>, Error> {
        let Some(topic) = self.find(namespace, topic) else {
            return Ok(None);
        };
        let mut first = 0;
        if let Some(age) = age {
            let age = i64::try_from(age.as_millis()).unwrap_or(i64::MAX);
            let oldest = Timestamp(now.0.saturating_sub(age));
            first = self.first_at(&topic, oldest)?;
        }
        if let Some(bytes) = bytes {
            first = first.max(self.first_within(&topic, bytes)?);
        }
        let state = topic.state();
        if state.gone || first <= state.first {
            return Ok(None);
        }
        Ok(Some(Cut {
            first: first.min(state.next),
            incarnation: topic.incarnation,
        }))
    }

    /// Whether a plan still speaks about the topic of this name, and not about one that was removed
    /// since. For the committer, before it writes the record.
    pub(crate) fn is_current(&self, namespace: &Namespace, topic: &str, cut: &Cut) -> bool {
        self.find(namespace, topic)
            .is_some_and(|t| t.incarnation == cut.incarnation)
    }

    /// Lets go of the events before `first`, as the log says.
    pub(crate) fn retain(&self, namespace: &Namespace, topic: &str, first: u64) {
        if let Some(topic) = self.find(namespace, topic)
            && topic.retain(first) == Some(true)
        {
            lock(&self.changed).push(topic);
        }
    }

    /// Removes a topic with all its events, as the log says. Its followers see 0, and the events of
    /// the next topic of this name.
    pub(crate) fn remove(&self, namespace: &Namespace, topic: &str) {
        let mut namespaces = self
            .namespaces
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        let Some(tenant) = namespaces.get_mut(namespace) else {
            return;
        };
        let Some(old) = tenant.topics.remove(topic) else {
            return;
        };
        if let Some(followers) = old.remove() {
            let successor = self.make(namespace, &old.name, tenant);
            successor.adopt(followers);
            let name = Arc::clone(&successor.name);
            tenant.topics.insert(name, successor);
        }
        lock(&self.removed).push(Removed {
            namespace: old.namespace.clone(),
            name: Arc::clone(&old.name),
            directory: old.directory(&self.directory),
            incarnation: old.incarnation,
        });
    }

    /// The first event that has to stay so that what is kept takes no more than `bytes`.
    fn first_within(&self, topic: &Topic, bytes: u64) -> Result<u64, Error> {
        self.load(topic)?;
        let (segments, stored, mut room) = {
            let state = topic.state();
            let mut room = bytes;
            for entry in state.recent.iter().rev() {
                let size = super::record::size(entry);
                if size > room {
                    return Ok(entry.offset.saturating_add(1));
                }
                room = room.saturating_sub(size);
            }
            let segments = state.segments.clone().unwrap_or_default();
            (segments, state.stored, room)
        };
        let mut end = stored.end;
        for segment in segments.iter().rev() {
            if segment.bytes > room {
                let from = segment.bytes.saturating_sub(room);
                let Some(open) = self.segment(topic, segment.base)? else {
                    return Ok(end);
                };
                return open.offset_behind(from, end);
            }
            room = room.saturating_sub(segment.bytes);
            end = segment.base;
        }
        Ok(0)
    }
}
