//! Our model to Micro's messages.

use micro_core::Namespace;
use micro_proto::registry as pb;

use crate::model::{Entry, Node};

/// The metadata key that Micro's registry adds to services and nodes.
const DOMAIN: &str = "domain";

/// A version of a service with its nodes.
pub(crate) fn service(entry: &Entry) -> pb::Service {
    let mut metadata: std::collections::HashMap<String, String> =
        entry.metadata.clone().into_iter().collect();
    metadata.insert(DOMAIN.to_owned(), entry.namespace.to_string());
    pb::Service {
        name: entry.name.to_string(),
        version: entry.version.to_string(),
        metadata,
        endpoints: entry.schema.endpoints().to_vec(),
        nodes: entry
            .nodes
            .iter()
            .map(|one| node(one, &entry.namespace))
            .collect(),
        options: Some(pb::Options {
            ttl: 0,
            domain: entry.namespace.to_string(),
        }),
    }
}

fn node(node: &Node, namespace: &Namespace) -> pb::Node {
    let mut metadata: std::collections::HashMap<String, String> =
        node.metadata.clone().into_iter().collect();
    metadata.insert(DOMAIN.to_owned(), namespace.to_string());
    pb::Node {
        id: node.id.clone(),
        address: node.address.to_string(),
        port: node.address.port().into(),
        metadata,
    }
}
