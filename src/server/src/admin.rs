//! The operator's door: `/live`, `/ready`, `/metrics`. It has a thread and a runtime of its own, so
//! that it answers while the doors are saturated (`architecture.md`, Threads).

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use axum::{Router, extract::State, http::StatusCode, routing::get};
use micro_pipeline::Pipeline;
use tokio_util::sync::CancellationToken;

/// Whether the node serves; shared with whoever starts and stops it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Readiness(Arc<AtomicBool>);

impl Readiness {
    /// Sets what `/ready` answers.
    pub(crate) fn set(&self, ready: bool) {
        self.0.store(ready, Ordering::Release);
    }
}

#[derive(Clone)]
struct Admin {
    ready: Readiness,
    pipeline: Arc<Pipeline>,
}

/// Serves on all `listeners` until `stop` fires.
pub(crate) fn spawn(
    listeners: Vec<std::net::TcpListener>,
    ready: Readiness,
    pipeline: Arc<Pipeline>,
    stop: CancellationToken,
) -> std::io::Result<std::thread::JoinHandle<()>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    std::thread::Builder::new()
        .name("admin".into())
        .spawn(move || {
            runtime.block_on(async {
                let app = router(Admin { ready, pipeline });
                let servers = listeners
                    .into_iter()
                    .map(|listener| serve(listener, app.clone(), stop.clone()));
                futures_util::future::join_all(servers).await;
            });
        })
}

fn router(admin: Admin) -> Router {
    Router::new()
        .route("/live", get(|| async { "ok\n" }))
        .route("/ready", get(readiness))
        .route(
            "/metrics",
            get(|State(admin): State<Admin>| async move { admin.pipeline.metrics() }),
        )
        .with_state(admin)
}

async fn readiness(State(admin): State<Admin>) -> (StatusCode, &'static str) {
    if admin.ready.0.load(Ordering::Acquire) {
        (StatusCode::OK, "ready\n")
    } else {
        (
            StatusCode::SERVICE_UNAVAILABLE,
            "not ready: the node is starting or stopping\n",
        )
    }
}

async fn serve(listener: std::net::TcpListener, app: Router, stop: CancellationToken) {
    let served = async {
        listener.set_nonblocking(true)?;
        let listener = tokio::net::TcpListener::from_std(listener)?;
        axum::serve(listener, app)
            .with_graceful_shutdown(stop.cancelled_owned())
            .await
    };
    if let Err(error) = served.await {
        tracing::error!(%error, "The admin door stopped.");
    }
}
