//! Messages to whoever listens now: nothing is kept, nothing is acknowledged. A topic is a name in
//! a namespace and exists while somebody subscribes to it.
//!
//! Each subscriber has a short queue of its own. One that does not keep up is dropped and told so,
//! so that a slow subscriber costs the others neither time nor memory.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use micro_core::Namespace;
pub use micro_proto::broker::Message;
use prost::Message as _;

use crate::Error;

mod grpc;
mod mailbox;

pub use grpc::{BrokerServer, Rpc};
use mailbox::Mailbox;
pub use mailbox::Subscription;

/// The topic on which the registry tells what changed, in the operator's namespace.
pub const REGISTRY_EVENTS: &str = "registry.events";

/// The broker. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Broker(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    namespaces: std::sync::RwLock<HashMap<Namespace, Arc<Mutex<Topics>>>>,
    subscribers: AtomicU64,
    stopped: std::sync::atomic::AtomicBool,
}

/// Who listens in one namespace.
type Topics = HashMap<Box<str>, Listeners>;

/// Who listens to one topic.
#[derive(Debug, Default)]
struct Listeners {
    everyone: Vec<Arc<Mailbox>>,
    queues: HashMap<Box<str>, Queue>,
}

/// Subscribers that share the messages.
#[derive(Debug, Default)]
struct Queue {
    members: Vec<Arc<Mailbox>>,
    turn: usize,
}

impl Queue {
    /// To the next member that has room. When none has, the one whose turn it is was too slow.
    fn push(&mut self, message: &Bytes) {
        while !self.members.is_empty() {
            let count = self.members.len();
            let taken = (self.turn..self.turn + count)
                .map(|at| at % count)
                .find(|at| self.members.get(*at).is_some_and(|m| m.offer(message)));
            if let Some(at) = taken {
                self.turn = at + 1;
                return;
            }
            self.members.remove(self.turn % count).too_slow();
        }
    }
}

impl Listeners {
    fn push(&mut self, message: &Bytes) {
        self.everyone.retain(|subscriber| {
            let taken = subscriber.offer(message);
            if !taken {
                subscriber.too_slow();
            }
            taken
        });
        for queue in self.queues.values_mut() {
            queue.push(message);
        }
        self.queues.retain(|_, queue| !queue.members.is_empty());
    }

    fn remove(&mut self, id: u64) {
        self.everyone.retain(|subscriber| subscriber.id() != id);
        for queue in self.queues.values_mut() {
            queue.members.retain(|member| member.id() != id);
        }
        self.queues.retain(|_, queue| !queue.members.is_empty());
    }

    fn is_empty(&self) -> bool {
        self.everyone.is_empty() && self.queues.is_empty()
    }
}

impl Broker {
    /// Hands `message` to everybody who subscribed to `topic`.
    ///
    /// # Errors
    /// `Invalid` for a missing or wrong topic.
    pub fn publish(
        &self,
        namespace: &Namespace,
        topic: &str,
        message: &Message,
    ) -> Result<(), Error> {
        crate::name::topic(topic)?;
        let Some(topics) = self.known(namespace) else {
            return Ok(());
        };
        let mut topics = lock(&topics);
        let Some(listeners) = topics.get_mut(topic) else {
            return Ok(());
        };
        // Written once, whoever gets it.
        listeners.push(&message.encode_to_vec().into());
        if listeners.is_empty() {
            topics.remove(topic);
        }
        Ok(())
    }

    /// As [`Broker::publish`], for what the node itself has to say.
    pub fn publish_internal(&self, namespace: &Namespace, topic: &str, message: &Message) {
        if let Err(error) = self.publish(namespace, topic, message) {
            tracing::warn!(%namespace, topic, %error, "A message of the node was not published.");
        }
    }

    /// Listens to `topic` from now on: to every message, or, in a queue, to a share of them.
    ///
    /// # Errors
    /// `Invalid` for a missing or wrong topic or queue; `Unavailable` when the server stops.
    pub fn subscribe(
        &self,
        namespace: &Namespace,
        topic: &str,
        queue: &str,
    ) -> Result<Subscription, Error> {
        crate::name::topic(topic)?;
        if !queue.is_empty() {
            crate::name::group(queue)?;
        }
        let id = self.0.subscribers.fetch_add(1, Ordering::Relaxed);
        let mailbox = Arc::new(Mailbox::new(id, topic));
        let topics = self.namespace(namespace);
        let mut all = lock(&topics);
        if self.0.stopped.load(Ordering::SeqCst) {
            return Err(Error::Stopping);
        }
        let listeners = all.entry(topic.into()).or_default();
        let members = if queue.is_empty() {
            &mut listeners.everyone
        } else {
            &mut listeners.queues.entry(queue.into()).or_default().members
        };
        members.push(Arc::clone(&mailbox));
        drop(all);
        Ok(Subscription::new(mailbox, self.clone(), namespace.clone()))
    }

    /// How many subscribers there are in a namespace.
    pub fn subscribers(&self, namespace: &Namespace) -> usize {
        let Some(topics) = self.known(namespace) else {
            return 0;
        };
        let count = |listeners: &Listeners| {
            let queues = listeners.queues.values();
            listeners.everyone.len() + queues.map(|queue| queue.members.len()).sum::<usize>()
        };
        lock(&topics).values().map(count).sum()
    }

    /// Tells all subscribers that the server stops.
    pub fn stop(&self) {
        self.0.stopped.store(true, Ordering::SeqCst);
        let namespaces = self.0.namespaces.read();
        for topics in namespaces.unwrap_or_else(PoisonError::into_inner).values() {
            for (_, listeners) in lock(topics).drain() {
                let queues = listeners.queues.into_values();
                let members = queues.flat_map(|queue| queue.members);
                for subscriber in listeners.everyone.into_iter().chain(members) {
                    subscriber.end(Error::Stopping);
                }
            }
        }
    }

    /// A subscriber is gone.
    fn remove(&self, namespace: &Namespace, topic: &str, id: u64) {
        let Some(topics) = self.known(namespace) else {
            return;
        };
        let mut topics = lock(&topics);
        if let Some(listeners) = topics.get_mut(topic) {
            listeners.remove(id);
            if listeners.is_empty() {
                topics.remove(topic);
            }
        }
    }

    fn known(&self, namespace: &Namespace) -> Option<Arc<Mutex<Topics>>> {
        let all = self.0.namespaces.read();
        let all = all.unwrap_or_else(PoisonError::into_inner);
        all.get(namespace).cloned()
    }

    fn namespace(&self, namespace: &Namespace) -> Arc<Mutex<Topics>> {
        if let Some(topics) = self.known(namespace) {
            return topics;
        }
        let all = self.0.namespaces.write();
        let mut all = all.unwrap_or_else(PoisonError::into_inner);
        Arc::clone(all.entry(namespace.clone()).or_default())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
