//! Keeps the pipeline's routing table equal to the registry: one rebuild per change, off the
//! request path.

use std::sync::Arc;

use micro_pipeline::{Protocol, RouteSpec, Router};
use micro_registry::{Handle, Snapshot};
use tokio_util::sync::CancellationToken;

/// Follows the registry until `stop` fires.
pub(crate) async fn follow(registry: Handle, router: Arc<Router>, stop: CancellationToken) {
    let mut changes = registry.changes();
    loop {
        let snapshot = Arc::clone(&changes.borrow_and_update());
        router.update(specs(&snapshot));
        tokio::select! {
            changed = changes.changed() => if changed.is_err() { return },
            () = stop.cancelled() => return,
        }
    }
}

/// One route per service: its newest version decides schema and protocol, and all versions' nodes
/// of that protocol share the load.
fn specs(snapshot: &Snapshot) -> Vec<RouteSpec> {
    snapshot
        .services
        .iter()
        .filter_map(|((namespace, service), entries)| {
            let newest = entries.last()?;
            Some(RouteSpec {
                namespace: namespace.clone(),
                service: service.clone(),
                protocol: match newest.protocol {
                    micro_registry::Protocol::Grpc => Protocol::Grpc,
                    micro_registry::Protocol::Http => Protocol::Http,
                },
                schema: Arc::clone(&newest.schema),
                addresses: entries
                    .iter()
                    .filter(|entry| entry.protocol == newest.protocol)
                    .flat_map(|entry| entry.nodes.iter().map(|node| node.address))
                    .collect(),
            })
        })
        .collect()
}
