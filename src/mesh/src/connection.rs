//! One connection: what it speaks, how much it may have open, and how it ends.

use std::{convert::Infallible, io, pin::pin, sync::Arc, time::Duration};

use http::{Request, Response, StatusCode, header};
use hyper::{
    body::Incoming,
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use micro_pipeline::{Body, Door, Pipeline, Upstreams};
use tokio::{net::TcpStream, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::call;

/// The first bytes of every HTTP/2 connection.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// How long a connection may take to say what it speaks.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Between two looks at a preface that comes in pieces.
const LOOK_AGAIN: Duration = Duration::from_millis(5);
/// A peer that is silent this long is asked whether it is there, and dropped if it does not answer.
const SILENCE: Duration = Duration::from_secs(30);
const ANSWER: Duration = Duration::from_secs(20);
/// Calls open at once on one connection.
const STREAMS: u32 = 1024;
/// All headers of one request together.
const HEADER_LIST: u32 = 64 * 1024;
/// Flow-control windows large enough that a message of usual size never waits for an update; the
/// second one bounds what a connection can make us hold.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 4 << 20;

const WRONG_PROTOCOL: &str = "This port speaks gRPC (HTTP/2 without TLS). HTTP requests are \
                              answered by the gateway, by default on port 8080.\n";

/// What all connections of one door and thread share.
pub(crate) struct Context {
    pub(crate) door: Door,
    pub(crate) pipeline: Arc<Pipeline>,
    pub(crate) upstreams: Upstreams,
    /// No new calls.
    pub(crate) stop: CancellationToken,
    /// No more patience with the open ones.
    pub(crate) cut: CancellationToken,
}

/// Serves one connection to its end.
pub(crate) async fn run(stream: TcpStream, context: Arc<Context>) {
    let spoken = tokio::select! {
        spoken = spoken(&stream) => spoken,
        () = context.stop.cancelled() => return,
    };
    match spoken {
        Ok(Spoken::Http2) => http2(stream, context).await,
        Ok(Spoken::Http1) => http1(stream, context).await,
        Ok(Spoken::Nothing) => {}
        Err(error) => tracing::debug!(%error, "A connection ended before it said anything."),
    }
}

enum Spoken {
    Http2,
    Http1,
    Nothing,
}

/// Looks at the first bytes without taking them. The whole preface must come in time, so that from
/// then on only peers are kept that answer pings.
async fn spoken(stream: &TcpStream) -> io::Result<Spoken> {
    let deadline = Instant::now() + HANDSHAKE;
    let mut seen = [0; PREFACE.len()];
    loop {
        let Ok(read) = tokio::time::timeout_at(deadline, stream.peek(&mut seen)).await else {
            return Ok(Spoken::Nothing);
        };
        let bytes = seen.get(..read?).unwrap_or_default();
        match bytes.first() {
            None | Some(0x16) => return Ok(Spoken::Nothing), // closed, or TLS
            Some(_) if bytes == PREFACE => return Ok(Spoken::Http2),
            Some(_) if !PREFACE.starts_with(bytes) => return Ok(Spoken::Http1),
            Some(_) if Instant::now() >= deadline => return Ok(Spoken::Nothing),
            Some(_) => tokio::time::sleep(LOOK_AGAIN).await,
        }
    }
}

async fn http2(stream: TcpStream, context: Arc<Context>) {
    let (stop, cut) = (context.stop.clone(), context.cut.clone());
    let service = service_fn(move |request: Request<Incoming>| {
        let context = Arc::clone(&context);
        async move { Ok::<_, Infallible>(call::answer(&context, request).await) }
    });
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .auto_date_header(false)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_concurrent_streams(STREAMS)
        .max_header_list_size(HEADER_LIST)
        .keep_alive_interval(SILENCE)
        .keep_alive_timeout(ANSWER);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            tokio::select! {
                ended = connection => ended,
                () = cut.cancelled() => Ok(()),
            }
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "A connection broke.");
    }
}

/// Tells a browser or a curl where it should have gone.
async fn http1(stream: TcpStream, context: Arc<Context>) {
    let service = service_fn(|_: Request<Incoming>| async {
        let mut response = Response::new(Body::from(WRONG_PROTOCOL));
        *response.status_mut() = StatusCode::BAD_REQUEST;
        response.headers_mut().insert(
            header::CONTENT_TYPE,
            header::HeaderValue::from_static("text/plain; charset=utf-8"),
        );
        Ok::<_, Infallible>(response)
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HANDSHAKE)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    tokio::select! {
        ended = tokio::time::timeout(HANDSHAKE, connection) => {
            if let Ok(Err(error)) = ended {
                tracing::debug!(%error, "A connection that is not gRPC broke.");
            }
        }
        () = context.cut.cancelled() => {}
    }
}
