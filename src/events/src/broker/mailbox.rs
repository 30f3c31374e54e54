//! The queue of one subscriber: bounded in messages and bytes.

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use futures_util::Stream;
use micro_core::Namespace;
use prost::Message as _;

use super::{Broker, Message, lock};
use crate::Error;

/// Messages that may wait for one subscriber.
pub(super) const MESSAGES: usize = 1024;
/// Bytes that may wait for one subscriber; a single message may have more.
pub(super) const BYTES: usize = 4 << 20;

#[derive(Debug, Default)]
struct Inner {
    queue: VecDeque<Bytes>,
    bytes: usize,
    /// Nothing more comes; the error is told once.
    ended: bool,
    error: Option<Error>,
    waker: Option<Waker>,
}

/// The broker's end.
#[derive(Debug)]
pub(super) struct Mailbox {
    id: u64,
    topic: Box<str>,
    inner: Mutex<Inner>,
}

impl Mailbox {
    pub(super) fn new(id: u64, topic: &str) -> Self {
        Self {
            id,
            topic: topic.into(),
            inner: Mutex::default(),
        }
    }

    pub(super) fn id(&self) -> u64 {
        self.id
    }

    /// Puts a message into the queue, if it has room.
    pub(super) fn offer(&self, message: &Bytes) -> bool {
        let mut inner = lock(&self.inner);
        let full = inner.queue.len() >= MESSAGES || inner.bytes + message.len() > BYTES;
        if full && !inner.queue.is_empty() {
            return false;
        }
        inner.bytes += message.len();
        inner.queue.push_back(message.clone());
        let waker = inner.waker.take();
        drop(inner);
        if let Some(waker) = waker {
            waker.wake();
        }
        true
    }

    /// Drops the subscriber because it did not keep up.
    pub(super) fn too_slow(&self) {
        let behind = lock(&self.inner).queue.len();
        self.end(Error::TooSlow {
            topic: self.topic.as_ref().to_owned(),
            behind,
        });
    }

    /// Ends the subscription with `error`; what waits is dropped.
    pub(super) fn end(&self, error: Error) {
        let mut inner = lock(&self.inner);
        inner.queue = VecDeque::new();
        inner.bytes = 0;
        inner.ended = true;
        inner.error = Some(error);
        let waker = inner.waker.take();
        drop(inner);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// The messages of one subscriber, as a stream. Dropping it ends the subscription.
#[derive(Debug)]
pub struct Subscription {
    mailbox: Arc<Mailbox>,
    broker: Broker,
    namespace: Namespace,
}

impl Subscription {
    pub(super) fn new(mailbox: Arc<Mailbox>, broker: Broker, namespace: Namespace) -> Self {
        Self {
            mailbox,
            broker,
            namespace,
        }
    }

    /// The next message as it goes over the wire.
    pub(super) fn poll_bytes(&self, cx: &Context<'_>) -> Poll<Option<Result<Bytes, Error>>> {
        let mut inner = lock(&self.mailbox.inner);
        if let Some(message) = inner.queue.pop_front() {
            inner.bytes -= message.len();
            return Poll::Ready(Some(Ok(message)));
        }
        if inner.ended {
            return Poll::Ready(inner.error.take().map(Err));
        }
        inner.waker = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl Stream for Subscription {
    type Item = Result<Message, Error>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let decode =
            |bytes: Bytes| Message::decode(bytes).map_err(|error| Error::Frame(error.to_string()));
        self.poll_bytes(cx)
            .map(|next| next.map(|message| message.and_then(decode)))
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let mailbox = &self.mailbox;
        self.broker
            .remove(&self.namespace, &mailbox.topic, mailbox.id);
    }
}
