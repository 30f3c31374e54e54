//! Connections from one door thread to instances, and the ways to use them. No connection is shared
//! between threads and no request passes a channel or starts a task of its own; only the rest of a
//! request that is still being sent when its answer begins is moved to a task.

mod call;
mod exchange;
mod grpc;
mod http1;
mod pool;
mod tunnel;
mod watched;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::Stream;
use http::{HeaderMap, Request, Response};
use hyper::body::Incoming;
use micro_core::WireError;
use micro_schema::Method;

use crate::{admission::Admitted, body::Body};
pub use call::Responses;
pub(crate) use exchange::Received;
pub(crate) use watched::Watched;

/// The body of an answer on its way from an instance to the caller.
pub(crate) type Passage = Watched<Received>;

/// Bounds of what one door thread holds and waits for.
#[derive(Debug, Clone)]
pub struct Limits {
    /// The largest single message that is translated or held whole. Messages that only pass through
    /// have no limit, for they are never held.
    pub message: usize,
    /// How long a connection may take to be accepted by an instance.
    pub connect: Duration,
    /// Unused connections are closed after this time, or twice as long at most.
    pub idle: Duration,
    /// gRPC connections to one instance. More than one is opened only when all streams are taken.
    pub connections: usize,
    /// Streams on one gRPC connection before the next one is opened; an instance may allow less.
    pub streams: usize,
    /// HTTP/1.1 connections to one instance that are kept for the next request.
    pub idle_http: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            message: 128 * 1024 * 1024,
            connect: Duration::from_secs(3),
            idle: Duration::from_secs(60),
            connections: 8,
            streams: 100,
            idle_http: 64,
        }
    }
}

/// Connections to instances. One for each door thread; cheap to clone within it.
#[derive(Clone)]
pub struct Upstreams(Arc<Inner>);

pub(crate) struct Inner {
    limits: Limits,
    grpc: Arc<pool::Pool>,
    http: Arc<http1::Pool>,
}

impl Default for Upstreams {
    fn default() -> Self {
        Self::new()
    }
}

impl Upstreams {
    /// No connections yet, default limits.
    pub fn new() -> Self {
        Self::with(Limits::default())
    }

    /// No connections yet.
    pub fn with(limits: Limits) -> Self {
        Self(Arc::new(Inner {
            grpc: pool::Pool::new(limits.clone()),
            http: http1::Pool::new(limits.clone()),
            limits,
        }))
    }

    /// Passes a gRPC request on and its answer back. Frames, headers and trailers travel untouched
    /// in both directions, in all four kinds of calls; resets and half-closes too. `:path` becomes
    /// what the instance expects. A JSON request to a service that speaks protobuf, built-in or not,
    /// is translated in both directions. Failures are gRPC answers with Micro's error object.
    pub fn forward_grpc(
        &self,
        admitted: &Admitted,
        request: Request<Incoming>,
    ) -> impl Future<Output = Response<Body>> {
        grpc::forward(&self.0, admitted, request)
    }

    /// Passes an HTTP/1.1 request on and its answer back, streaming bodies and protocol upgrades
    /// included. The instance learns of the caller from `X-Forwarded-For`, `-Host` and `-Proto` (see
    /// [`Peer`](crate::Peer)), `Micro-Namespace` and `X-Micro-Account`. Failures are HTTP answers
    /// with Micro's error object.
    pub async fn forward_http(
        &self,
        admitted: &Admitted,
        request: Request<Incoming>,
    ) -> Response<Body> {
        tunnel::forward(&self.0, admitted, request).await
    }

    /// Calls `method` with one message and waits for the one message of its answer. `headers` are
    /// those of the request that is being translated; what belongs to its connection or body is left
    /// out.
    ///
    /// # Errors
    /// The service's own error, or one of forwarding; both as Micro's error object.
    pub async fn unary(
        &self,
        admitted: &Admitted,
        method: &Method,
        message: Bytes,
        headers: &HeaderMap,
        deadline: Duration,
    ) -> Result<Bytes, WireError> {
        call::unary(&self.0, admitted, method, &message, headers, deadline).await
    }

    /// Calls `method` with a stream of messages. The call makes progress only while the answers are
    /// read, until the service has begun to answer; dropping them cancels it. A failure that comes
    /// before the first answer is the first item.
    ///
    /// # Errors
    /// When the target is no gRPC service.
    pub async fn stream(
        &self,
        admitted: &Admitted,
        method: &Method,
        requests: impl Stream<Item = Bytes> + Send + 'static,
        headers: &HeaderMap,
    ) -> Result<Responses, WireError> {
        call::stream(&self.0, admitted, method, requests, headers)
    }
}
