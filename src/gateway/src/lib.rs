//! The HTTP door: JSON to gRPC services, and plain HTTP services passed through, by path or by host
//! name (Micro contract §6).
//!
//! ```text
//! connection ─► route ─┬─► call       one JSON message in, one out
//!                      ├─► stream     a message per line of a chunked answer, or server-sent events
//!                      ├─► websocket  a message per frame, both ways
//!                      ├─► plain      HTTP services, bytes as they are
//!                      ├─► blob       public blobs of the store
//!                      └─► gRPC       frames as they are
//! ```
//! Who may call what and where it runs is the pipeline's business: this crate only translates. It
//! runs on one thread and is started once per core.
//!
//! | file | owns |
//! |---|---|
//! | `connection.rs` | one client connection, HTTP/1.1 or HTTP/2 |
//! | `route.rs` | what a request asks for, and who answers it |
//! | `path.rs` | paths and host names → service and endpoint |
//! | `request.rs`, `multipart.rs` | queries, forms and bodies → a JSON message |
//! | `call.rs` | one message in, one out |
//! | `stream.rs`, `websocket.rs` | streams of messages over HTTP and over WebSocket |
//! | `plain.rs` | plain HTTP services |
//! | `blob.rs` | public blobs, and [`PublicBlobs`], where they come from |
//! | `origin.rs` | whose page asks, and so whether a cookie counts |
//! | `respond.rs`, `cors.rs` | answers in Micro's shapes |

mod blob;
mod call;
mod connection;
mod cors;
pub mod multipart;
mod origin;
pub mod path;
mod plain;
pub mod request;
mod respond;
mod route;
mod stream;
mod websocket;

use std::{io::ErrorKind, sync::Arc, time::Duration};

use bytes::Bytes;
use micro_pipeline::{Pipeline, Upstreams};
use tokio::net::TcpListener;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use blob::{Content, PublicBlob, PublicBlobs};

/// How long requests in flight may take once the door closes.
const DRAIN: Duration = Duration::from_secs(10);
/// How long to wait when the process has no descriptor left for another connection.
const EXHAUSTED: Duration = Duration::from_millis(50);

/// What the gateway has to be told.
#[derive(Debug, Clone)]
pub struct Settings {
    /// What `GET /` answers, such as `v0.1.0`.
    pub version: String,
    /// Plain HTTP services answer at `<name>.<namespace>.<domain>`.
    pub domain: String,
    /// The most bytes of a request body that becomes a message (`limits.body`).
    pub body_limit: u64,
}

/// What the requests of one door share.
pub(crate) struct Gateway {
    pub(crate) settings: Settings,
    /// The answer to `GET /`.
    pub(crate) version: Bytes,
    pub(crate) pipeline: Arc<Pipeline>,
    pub(crate) blobs: Arc<dyn PublicBlobs>,
    pub(crate) upstreams: Upstreams,
    /// Connections, and what outlives its request: WebSockets.
    pub(crate) tasks: TaskTracker,
    pub(crate) stop: CancellationToken,
}

/// Serves a listener until `stop` fires and the requests in flight are answered, or ten seconds have
/// passed.
pub async fn serve(
    listener: TcpListener,
    settings: Settings,
    pipeline: Arc<Pipeline>,
    blobs: Arc<dyn PublicBlobs>,
    stop: CancellationToken,
) {
    let gateway = Arc::new(Gateway {
        version: format!("{{\"version\": \"{}\"}}", settings.version).into(),
        settings,
        pipeline,
        blobs,
        upstreams: Upstreams::new(),
        tasks: TaskTracker::new(),
        stop: stop.clone(),
    });
    loop {
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                let connection = connection::serve(stream, peer, Arc::clone(&gateway));
                gateway.tasks.spawn(connection);
            }
            // The client left between its handshake and now.
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset
                ) => {}
            Err(error) => {
                tracing::warn!(%error, "Cannot accept a connection.");
                tokio::time::sleep(EXHAUSTED).await;
            }
        }
    }
    drop(listener);
    gateway.tasks.close();
    if tokio::time::timeout(DRAIN, gateway.tasks.wait())
        .await
        .is_err()
    {
        tracing::warn!(
            connections = gateway.tasks.len(),
            "Requests were cut off when the gateway stopped."
        );
    }
}
