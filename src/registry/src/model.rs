//! What is registered.

use std::{
    collections::{BTreeMap, HashSet},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use micro_core::{Namespace, ServiceName, Version};
use micro_schema::Schema;

/// What an instance speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// gRPC over plaintext HTTP/2.
    Grpc,
    /// HTTP/1.1.
    Http,
}

impl Protocol {
    /// The word on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Grpc => "grpc",
            Self::Http => "http",
        }
    }
}

/// One running copy of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Unique within the version of a service.
    pub id: String,
    /// Where it listens.
    pub address: SocketAddr,
    /// What its library says of it.
    pub metadata: BTreeMap<String, String>,
}

/// One node with everything that it says of its service.
#[derive(Debug, Clone)]
pub struct Registration {
    /// The tenant.
    pub namespace: Namespace,
    /// The name that callers use.
    pub service: ServiceName,
    /// The version that the node runs.
    pub version: Version,
    /// What the service says of itself.
    pub metadata: BTreeMap<String, String>,
    /// What it speaks.
    pub protocol: Protocol,
    /// What it offers.
    pub schema: Arc<Schema>,
    /// The node.
    pub node: Node,
    /// How long it lives without being renewed; [`Registration::FOREVER`] for ever. `None`: the
    /// platform runs it and withdraws it itself.
    pub ttl: Option<Duration>,
}

impl Registration {
    /// A time to live that never ends.
    pub const FOREVER: Duration = Duration::MAX;

    /// Whether renewing with `other` changes nothing but the time.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        self.metadata == other.metadata
            && self.protocol == other.protocol
            && self.node == other.node
            && self.ttl == other.ttl
            && self.schema.is_same(&other.schema)
    }
}

/// One version of a service with all its nodes.
#[derive(Debug, Clone)]
pub struct Entry {
    /// The tenant.
    pub namespace: Namespace,
    /// The service.
    pub name: ServiceName,
    /// The version.
    pub version: Version,
    /// As the node said that changed last.
    pub metadata: BTreeMap<String, String>,
    /// As the node said that changed last.
    pub protocol: Protocol,
    /// As the node said that changed last.
    pub schema: Arc<Schema>,
    /// Never empty, in the order of their ids.
    pub nodes: Vec<Node>,
}

/// Everything that is registered at one moment, without the built-in services.
#[derive(Debug, Default, Clone)]
pub struct Snapshot {
    /// The versions of each service, the newest last.
    pub services: BTreeMap<(Namespace, ServiceName), Vec<Arc<Entry>>>,
}

impl Snapshot {
    /// The versions of `service` in `namespace`, the newest last.
    pub fn get(&self, namespace: &Namespace, service: &ServiceName) -> &[Arc<Entry>] {
        self.services
            .get(&(namespace.clone(), service.clone()))
            .map_or(&[], Vec::as_slice)
    }

    /// Where the nodes of `namespace` listen.
    pub fn addresses(&self, namespace: &Namespace) -> HashSet<SocketAddr> {
        self.services
            .iter()
            .filter(|((owner, _), _)| owner == namespace)
            .flat_map(|(_, entries)| entries)
            .flat_map(|entry| entry.nodes.iter().map(|node| node.address))
            .collect()
    }
}
