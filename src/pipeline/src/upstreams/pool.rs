//! HTTP/2 connections to instances: usually one for each, more when its streams are taken.

use std::{
    collections::HashMap,
    io,
    net::SocketAddr,
    pin::pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::future::{BoxFuture, FutureExt as _, Shared};
use h2::client::{self, SendRequest};
use tokio::net::TcpStream;

use super::Limits;

/// Flow-control windows large enough that a message of usual size never waits for an update.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 4 << 20;
const HEADER_LIST: u32 = 64 * 1024;
/// How often a connection that opened and closed at once is opened again for one request.
const ROUNDS: usize = 3;

pub(crate) struct Pool {
    addresses: Mutex<HashMap<SocketAddr, Address>>,
    limits: Limits,
}

#[derive(Default)]
struct Address {
    connections: Vec<Connection>,
    /// Requests that find no connection wait for the same attempt.
    dialing: Option<Dialing>,
}

type Dialing = Shared<BoxFuture<'static, Result<(), Arc<str>>>>;

struct Connection {
    sender: SendRequest<Bytes>,
    state: Arc<State>,
}

#[derive(Debug, Default)]
struct State {
    streams: AtomicUsize,
    closed: AtomicBool,
    /// Set by each request, cleared by the idle check.
    used: AtomicBool,
}

/// One stream's claim on a connection.
#[derive(Debug)]
pub(crate) struct Lease(Arc<State>);

impl Lease {
    /// Nothing more is to be sent on this connection.
    pub(crate) fn close(&self) {
        self.0.closed.store(true, Relaxed);
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.0.streams.fetch_sub(1, Relaxed);
    }
}

impl Connection {
    fn lease(&self) -> (SendRequest<Bytes>, Lease) {
        self.state.streams.fetch_add(1, Relaxed);
        self.state.used.store(true, Relaxed);
        (self.sender.clone(), Lease(Arc::clone(&self.state)))
    }

    fn is_full(&self, streams: usize, limit: usize) -> bool {
        // Asking for the peer's own limit takes a lock; few streams need no answer.
        streams >= limit || (streams >= 16 && streams >= self.sender.current_max_send_streams())
    }
}

impl Pool {
    pub(crate) fn new(limits: Limits) -> Arc<Self> {
        Arc::new(Self {
            addresses: Mutex::default(),
            limits,
        })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<SocketAddr, Address>> {
        self.addresses
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection to `address` with room for one stream, opened if need be.
    pub(crate) async fn lease(
        self: &Arc<Self>,
        address: SocketAddr,
    ) -> Result<(SendRequest<Bytes>, Lease), Arc<str>> {
        for _ in 0..ROUNDS {
            let dialing = {
                let mut addresses = self.lock();
                let entry = addresses.entry(address).or_default();
                match self.choose(entry, address) {
                    Ok(lease) => return Ok(lease),
                    Err(dialing) => dialing,
                }
            };
            dialing.await?;
        }
        Err("it closes each connection at once".into())
    }

    /// The least used connection; when it is full, another one is opened for later requests.
    fn choose(
        self: &Arc<Self>,
        entry: &mut Address,
        address: SocketAddr,
    ) -> Result<(SendRequest<Bytes>, Lease), Dialing> {
        let mut best: Option<(usize, &Connection)> = None;
        let mut closed = false;
        for connection in &entry.connections {
            if connection.state.closed.load(Relaxed) {
                closed = true;
                continue;
            }
            let streams = connection.state.streams.load(Relaxed);
            if best.is_none_or(|(least, _)| streams < least) {
                best = Some((streams, connection));
            }
        }
        let full = best.is_none_or(|(n, c)| c.is_full(n, self.limits.streams));
        let lease = best.map(|(_, connection)| connection.lease());
        if closed {
            entry.connections.retain(|c| !c.state.closed.load(Relaxed));
        }
        if full && entry.connections.len() < self.limits.connections && entry.dialing.is_none() {
            entry.dialing = Some(self.dial(address));
        }
        match (lease, &entry.dialing) {
            (Some(lease), _) => Ok(lease),
            (None, Some(dialing)) => Err(dialing.clone()),
            (None, None) => Err(self.dial(address)),
        }
    }

    /// Opens a connection in a task of its own, so that it outlives the request that wanted it.
    fn dial(self: &Arc<Self>, address: SocketAddr) -> Dialing {
        let pool = Arc::clone(self);
        let attempt = tokio::spawn(async move {
            let connected = connect(address, pool.limits.connect).await;
            let mut addresses = pool.lock();
            let entry = addresses.entry(address).or_default();
            entry.dialing = None;
            match connected {
                Ok((sender, connection)) => {
                    let state = Arc::new(State::default());
                    entry.connections.push(Connection {
                        sender,
                        state: Arc::clone(&state),
                    });
                    tokio::spawn(Arc::clone(&pool).drive(address, connection, state));
                    Ok(())
                }
                Err(reason) => {
                    if entry.connections.is_empty() {
                        addresses.remove(&address);
                    }
                    Err(reason)
                }
            }
        });
        async move {
            attempt
                .await
                .unwrap_or_else(|_| Err("the attempt was aborted".into()))
        }
        .boxed()
        .shared()
    }

    /// Runs a connection until either side ends it or nobody has used it for a while.
    async fn drive(
        self: Arc<Self>,
        address: SocketAddr,
        connection: client::Connection<TcpStream, Bytes>,
        state: Arc<State>,
    ) {
        let mut connection = pin!(connection);
        let ended = loop {
            tokio::select! {
                ended = &mut connection => break Some(ended),
                () = tokio::time::sleep(self.limits.idle) => {
                    let used = state.used.swap(false, Relaxed);
                    if !used && state.streams.load(Relaxed) == 0 {
                        break None;
                    }
                }
            }
        };
        state.closed.store(true, Relaxed);
        self.forget(address, &state);
        match ended {
            // Without senders the connection says goodbye and ends by itself.
            None => {
                let _ = connection.await;
            }
            Some(Err(error)) => {
                tracing::debug!(%address, %error, "A connection to an instance broke.")
            }
            Some(Ok(())) => {}
        }
    }

    fn forget(&self, address: SocketAddr, state: &Arc<State>) {
        let mut addresses = self.lock();
        if let Some(entry) = addresses.get_mut(&address) {
            entry.connections.retain(|c| !Arc::ptr_eq(&c.state, state));
            if entry.connections.is_empty() && entry.dialing.is_none() {
                addresses.remove(&address);
            }
        }
    }
}

async fn connect(
    address: SocketAddr,
    within: Duration,
) -> Result<(SendRequest<Bytes>, client::Connection<TcpStream, Bytes>), Arc<str>> {
    let stream = open(address, within).await?;
    client::Builder::new()
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_header_list_size(HEADER_LIST)
        .enable_push(false)
        .handshake(stream)
        .await
        .map_err(|e| e.to_string().into())
}

/// A TCP connection that sends small frames at once.
pub(crate) async fn open(address: SocketAddr, within: Duration) -> Result<TcpStream, Arc<str>> {
    let stream = match tokio::time::timeout(within, TcpStream::connect(address)).await {
        Ok(Ok(stream)) => stream,
        // Micro's clients look for these words to decide whether to try again.
        Ok(Err(e)) if e.kind() == io::ErrorKind::ConnectionRefused => {
            return Err("connect: connection refused".into());
        }
        Ok(Err(e)) => return Err(e.to_string().into()),
        Err(_) => return Err(format!("no connection within {} ms", within.as_millis()).into()),
    };
    stream.set_nodelay(true).map_err(|e| e.to_string())?;
    Ok(stream)
}
