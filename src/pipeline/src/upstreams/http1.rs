//! HTTP/1.1 connections to instances, kept for the next request.

use std::{
    collections::HashMap,
    net::SocketAddr,
    pin::pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use bytes::Bytes;
use http_body_util::{Either, Empty};
use hyper::{
    body::Incoming,
    client::conn::http1::{self, SendRequest},
};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::{Limits, pool::open};

/// The caller's body, or none when a request goes out for the second time.
pub(crate) type Outgoing = Either<Incoming, Empty<Bytes>>;

pub(crate) struct Pool {
    idle: Mutex<HashMap<SocketAddr, Vec<Idle>>>,
    next: AtomicU64,
    limits: Limits,
}

struct Idle {
    id: u64,
    sender: SendRequest<Outgoing>,
}

enum Kept {
    Ready(Idle),
    Busy,
    Nothing,
}

/// A connection in use by one request.
pub(crate) struct Connection {
    pool: Arc<Pool>,
    address: SocketAddr,
    id: u64,
    pub(crate) sender: SendRequest<Outgoing>,
    /// Whether it has served a request before, so that the instance may have closed it meanwhile.
    pub(crate) reused: bool,
}

impl Pool {
    pub(crate) fn new(limits: Limits) -> Arc<Self> {
        Arc::new(Self {
            idle: Mutex::default(),
            next: AtomicU64::new(0),
            limits,
        })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<SocketAddr, Vec<Idle>>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a kept connection that can send now. One is kept when its last answer has ended, but
    /// the request may not have: an instance may answer before it has read everything, and how
    /// slowly the rest comes is up to that caller. Nobody else waits for it.
    fn ready(&self, address: SocketAddr) -> Kept {
        let mut idle = self.lock();
        let Some(kept) = idle.get_mut(&address).filter(|kept| !kept.is_empty()) else {
            return Kept::Nothing;
        };
        match kept.iter().rposition(|i| i.sender.is_ready()) {
            Some(at) => Kept::Ready(kept.remove(at)),
            None => Kept::Busy,
        }
    }

    /// A connection that is ready for a request: a kept one or else a new one.
    pub(crate) async fn take(
        self: &Arc<Self>,
        address: SocketAddr,
    ) -> Result<Connection, Arc<str>> {
        let mut kept = self.ready(address);
        if matches!(kept, Kept::Busy) {
            // One whose answer has just ended may need a moment to notice.
            tokio::task::yield_now().await;
            kept = self.ready(address);
        }
        if let Kept::Ready(idle) = kept {
            return Ok(Connection {
                pool: Arc::clone(self),
                address,
                id: idle.id,
                sender: idle.sender,
                reused: true,
            });
        }
        let stream = open(address, self.limits.connect).await?;
        let (sender, connection) = http1::Builder::new()
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|e| e.to_string())?;
        let id = self.next.fetch_add(1, Relaxed);
        tokio::spawn(Arc::clone(self).drive(address, id, connection));
        Ok(Connection {
            pool: Arc::clone(self),
            address,
            id,
            sender,
            reused: false,
        })
    }

    /// Runs a connection until either side ends it or it has been kept unused for a while.
    async fn drive(
        self: Arc<Self>,
        address: SocketAddr,
        id: u64,
        connection: http1::Connection<TokioIo<TcpStream>, Outgoing>,
    ) {
        let mut connection = pin!(connection.with_upgrades());
        let mut kept_before = false;
        loop {
            tokio::select! {
                ended = &mut connection => {
                    if let Err(error) = ended {
                        tracing::debug!(%address, %error, "A connection to an instance broke.");
                    }
                    self.remove(address, id);
                    return;
                }
                () = tokio::time::sleep(self.limits.idle) => {
                    let kept = self.is_kept(address, id);
                    // Without its sender the connection ends by itself.
                    if kept && kept_before {
                        self.remove(address, id);
                    }
                    kept_before = kept;
                }
            }
        }
    }

    fn is_kept(&self, address: SocketAddr, id: u64) -> bool {
        self.lock()
            .get(&address)
            .is_some_and(|kept| kept.iter().any(|i| i.id == id))
    }

    fn remove(&self, address: SocketAddr, id: u64) {
        let mut idle = self.lock();
        if let Some(kept) = idle.get_mut(&address) {
            kept.retain(|i| i.id != id);
            if kept.is_empty() {
                idle.remove(&address);
            }
        }
    }
}

impl Connection {
    /// Keeps the connection for the next request; its answer must have ended.
    pub(crate) fn keep(self) {
        if self.sender.is_closed() {
            return;
        }
        let mut idle = self.pool.lock();
        let kept = idle.entry(self.address).or_default();
        if kept.len() < self.pool.limits.idle_http {
            kept.push(Idle {
                id: self.id,
                sender: self.sender,
            });
        }
    }
}
