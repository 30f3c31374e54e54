//! Accepting connections until told to stop, and then letting the ones that are open finish.

use std::{io, sync::Arc, time::Duration};

use micro_pipeline::{Door, Pipeline, Upstreams};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::connection::{Context, run};

/// How long open calls may take after the stop, before their connections are cut.
const DRAIN: Duration = Duration::from_secs(10);
/// The pause after an error of accepting that will not go away by itself, such as having no file
/// descriptor left.
const PAUSE: Duration = Duration::from_millis(100);

/// Serves gRPC on `listener` until `stop` fires; then every connection is told to send nothing new,
/// calls in flight finish (at most ten seconds), and the function returns. The connections to
/// instances belong to this call: run one for each thread.
pub async fn serve(
    listener: TcpListener,
    door: Door,
    pipeline: Arc<Pipeline>,
    stop: CancellationToken,
) {
    let connections = TaskTracker::new();
    let cut = CancellationToken::new();
    let context = Arc::new(Context {
        door,
        pipeline,
        upstreams: Upstreams::new(),
        stop: stop.clone(),
        cut: cut.clone(),
    });
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => break,
        };
        match accepted {
            Ok((stream, _)) => begin(stream, &context, &connections),
            Err(error) if concerns_one_connection(&error) => {}
            Err(error) => {
                tracing::warn!(%door, %error, "Cannot accept connections.");
                tokio::select! {
                    () = tokio::time::sleep(PAUSE) => {}
                    () = stop.cancelled() => break,
                }
            }
        }
    }
    drop(listener);
    connections.close();
    if tokio::time::timeout(DRAIN, connections.wait())
        .await
        .is_err()
    {
        tracing::info!(%door, connections = connections.len(), "Cutting connections whose calls did not end.");
        cut.cancel();
        connections.wait().await;
    }
}

fn begin(stream: TcpStream, context: &Arc<Context>, connections: &TaskTracker) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "A connection was gone before it began.");
        return;
    }
    connections.spawn(run(stream, Arc::clone(context)));
}

/// The peer gave up while it was waiting: nothing is wrong here.
fn concerns_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
    )
}
