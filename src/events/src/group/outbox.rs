//! Between a group's coordinator and the connection of one consumer: a short queue whose end the
//! coordinator can see. It knows what the connection took, can take back what it did not, and holds
//! a bounded number of bytes.

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use futures_util::Stream;
use tokio::{sync::Notify, time::Instant};

use crate::{Error, event::Delivery};

/// Bytes that wait for one connection, beyond which it gets nothing more.
const FULL: usize = 1 << 20;

/// How consumers call their coordinator.
#[derive(Debug, Default)]
pub(super) struct Bell {
    rung: Notify,
    by: Mutex<Vec<u64>>,
}

impl Bell {
    /// Waits until somebody rings.
    pub(super) async fn heard(&self) {
        self.rung.notified().await;
    }

    /// Who has something to tell since the last call.
    pub(super) fn callers(&self) -> Vec<u64> {
        std::mem::take(&mut *lock(&self.by))
    }
}

#[derive(Debug, Default)]
struct Inner {
    queue: VecDeque<Delivery>,
    bytes: usize,
    /// What the connection took since the coordinator asked last.
    taken: Vec<(u64, Instant)>,
    /// On the list of the bell.
    listed: bool,
    /// The connection is gone.
    gone: bool,
    /// Nothing more comes; the error is told once.
    ended: bool,
    error: Option<Error>,
    waker: Option<Waker>,
}

/// The coordinator's end.
#[derive(Debug)]
pub(super) struct Outbox {
    member: u64,
    /// The coordinator wants to know at once what was taken.
    eager: bool,
    bell: Arc<Bell>,
    inner: Mutex<Inner>,
}

/// What the coordinator learns about a connection.
#[derive(Debug, Default)]
pub(super) struct News {
    pub(super) taken: Vec<(u64, Instant)>,
    pub(super) gone: bool,
}

impl Outbox {
    /// An outbox and the connection's end of it.
    pub(super) fn new(member: u64, eager: bool, bell: &Arc<Bell>) -> (Arc<Self>, Deliveries) {
        let outbox = Arc::new(Self {
            member,
            eager,
            bell: Arc::clone(bell),
            inner: Mutex::default(),
        });
        let deliveries = Deliveries(Arc::clone(&outbox));
        (outbox, deliveries)
    }

    pub(super) fn has_room(&self) -> bool {
        let inner = lock(&self.inner);
        inner.bytes < FULL && !inner.gone
    }

    pub(super) fn push(&self, delivery: Delivery) {
        let waker = {
            let mut inner = lock(&self.inner);
            inner.bytes += delivery.size();
            inner.queue.push_back(delivery);
            inner.waker.take()
        };
        wake(waker);
    }

    /// Takes an event back. `false` when the connection has it already.
    pub(super) fn withdraw(&self, offset: u64) -> bool {
        let mut inner = lock(&self.inner);
        let Some(at) = inner.queue.iter().position(|d| d.offset == offset) else {
            return false;
        };
        if let Some(delivery) = inner.queue.remove(at) {
            inner.bytes -= delivery.size();
        }
        true
    }

    pub(super) fn news(&self) -> News {
        let mut inner = lock(&self.inner);
        inner.listed = false;
        News {
            taken: std::mem::take(&mut inner.taken),
            gone: inner.gone,
        }
    }

    /// What the connection has not taken it does not get.
    pub(super) fn clear(&self) {
        let mut inner = lock(&self.inner);
        inner.queue.clear();
        inner.bytes = 0;
    }

    /// Ends the stream with `error`.
    pub(super) fn end(&self, error: Error) {
        self.clear();
        let waker = {
            let mut inner = lock(&self.inner);
            inner.ended = true;
            inner.error = Some(error);
            inner.waker.take()
        };
        wake(waker);
    }

    /// Puts this outbox on the list of the bell, once.
    fn list(&self, inner: &mut Inner) {
        if !std::mem::replace(&mut inner.listed, true) {
            lock(&self.bell.by).push(self.member);
        }
    }
}

/// The events of one consumer, as a stream. Dropping it is leaving: what was not answered goes to
/// others, at once.
#[derive(Debug)]
pub struct Deliveries(Arc<Outbox>);

impl Stream for Deliveries {
    type Item = Result<Delivery, Error>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let outbox = &self.0;
        let mut inner = lock(&outbox.inner);
        let Some(delivery) = inner.queue.pop_front() else {
            if inner.ended {
                return Poll::Ready(inner.error.take().map(Err));
            }
            inner.waker = Some(cx.waker().clone());
            return Poll::Pending;
        };
        let was_full = inner.bytes >= FULL;
        inner.bytes -= delivery.size();
        inner.taken.push((delivery.offset, Instant::now()));
        outbox.list(&mut inner);
        if outbox.eager || (was_full && inner.bytes < FULL) {
            drop(inner);
            outbox.bell.rung.notify_one();
        }
        Poll::Ready(Some(Ok(delivery)))
    }
}

impl Drop for Deliveries {
    fn drop(&mut self) {
        let mut inner = lock(&self.0.inner);
        inner.gone = true;
        self.0.list(&mut inner);
        drop(inner);
        self.0.bell.rung.notify_one();
    }
}

fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}

/// A panic elsewhere leaves nothing half done in here.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
