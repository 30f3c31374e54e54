//! Thread per core: each thread has one `current_thread` runtime, one listener of every door
//! (`SO_REUSEPORT`, bound by the supervisor) and its own connections to instances. No request
//! changes threads.

use std::{
    net::TcpListener,
    sync::Arc,
    thread::{Builder, JoinHandle},
};

use micro_gateway::{PublicBlobs, Settings as GatewaySettings};
use micro_pipeline::{Door, Pipeline};
use tokio::task::LocalSet;
use tokio_util::sync::CancellationToken;

/// One core's share of the listeners.
#[derive(Default)]
pub(crate) struct Share {
    /// The HTTP gateway.
    pub(crate) gateway: Vec<TcpListener>,
    /// The identity proxy.
    pub(crate) proxy: Vec<TcpListener>,
    /// The mesh, with the addresses where Micro's library looks for broker and registry.
    pub(crate) mesh: Vec<TcpListener>,
}

/// Deals listeners out to `cores` shares.
pub(crate) fn deal(
    cores: usize,
    gateway: Vec<TcpListener>,
    proxy: Vec<TcpListener>,
    mesh: Vec<TcpListener>,
) -> Vec<Share> {
    let mut shares: Vec<Share> = (0..cores.max(1)).map(|_| Share::default()).collect();
    let count = shares.len();
    let mut each = |listeners: Vec<TcpListener>, pick: fn(&mut Share) -> &mut Vec<TcpListener>| {
        for (index, listener) in listeners.into_iter().enumerate() {
            if let Some(share) = shares.get_mut(index % count) {
                pick(share).push(listener);
            }
        }
    };
    each(gateway, |s| &mut s.gateway);
    each(proxy, |s| &mut s.proxy);
    each(mesh, |s| &mut s.mesh);
    shares
}

/// Starts one thread per share; they end when `stop` has fired and their requests are done.
pub(crate) fn spawn(
    shares: Vec<Share>,
    settings: &GatewaySettings,
    pipeline: &Arc<Pipeline>,
    blobs: &Arc<dyn PublicBlobs>,
    stop: &CancellationToken,
) -> std::io::Result<Vec<JoinHandle<()>>> {
    shares
        .into_iter()
        .enumerate()
        .map(|(core, share)| {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            let (settings, stop) = (settings.clone(), stop.clone());
            let (pipeline, blobs) = (Arc::clone(pipeline), Arc::clone(blobs));
            Builder::new().name(format!("door-{core}")).spawn(move || {
                LocalSet::new().block_on(&runtime, serve(share, settings, pipeline, blobs, stop));
            })
        })
        .collect()
}

async fn serve(
    share: Share,
    settings: GatewaySettings,
    pipeline: Arc<Pipeline>,
    blobs: Arc<dyn PublicBlobs>,
    stop: CancellationToken,
) {
    let mut doors = Vec::new();
    for listener in share.gateway.into_iter().filter_map(adopt) {
        let door = micro_gateway::serve(
            listener,
            settings.clone(),
            Arc::clone(&pipeline),
            Arc::clone(&blobs),
            stop.clone(),
        );
        doors.push(tokio::task::spawn_local(door));
    }
    let grpc = share
        .proxy
        .into_iter()
        .map(|l| (l, Door::Proxy))
        .chain(share.mesh.into_iter().map(|l| (l, Door::Mesh)));
    for (listener, door) in grpc {
        if let Some(listener) = adopt(listener) {
            let door = micro_mesh::serve(listener, door, Arc::clone(&pipeline), stop.clone());
            doors.push(tokio::task::spawn_local(door));
        }
    }
    for door in doors {
        if let Err(error) = door.await {
            tracing::error!(%error, "A door ended.");
        }
    }
}

fn adopt(listener: TcpListener) -> Option<tokio::net::TcpListener> {
    let adopted = listener
        .set_nonblocking(true)
        .and_then(|()| tokio::net::TcpListener::from_std(listener));
    adopted
        .inspect_err(|error| tracing::error!(%error, "Cannot take over a listener."))
        .ok()
}
