//! Which services there are, what they offer and where they run.
//!
//! ```no_run
//! # async fn example() -> Result<(), micro_sdk::Error> {
//! let registry = micro_sdk::mesh().registry();
//! for service in registry.list().await? {
//!     println!("{} {} on {} nodes", service.name, service.version, service.nodes.len());
//! }
//! # Ok(())
//! # }
//! ```
//!
//! Calls need none of this: [`mesh`](crate::mesh()) finds the service itself.

mod watch;

use std::collections::HashMap;

use crate::{
    Error, Kind, Mesh, call,
    wire::registry::{self as wire, GetRequest, ListRequest, Services},
};

pub use self::watch::{Change, Watch};

/// The services of this service's namespace. Made by [`Mesh::registry`]; clones are cheap.
///
/// ```no_run
/// let registry = micro_sdk::mesh().registry();
/// ```
#[derive(Debug, Clone)]
pub struct Registry {
    mesh: Mesh,
}

/// One version of a service.
///
/// ```no_run
/// # fn example(service: micro_sdk::registry::Service) {
/// for endpoint in &service.endpoints {
///     println!("{} {}", service.name, endpoint.name);
/// }
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Service {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// What is known of it.
    pub metadata: HashMap<String, String>,
    /// What it offers.
    pub endpoints: Vec<Endpoint>,
    /// Where it runs.
    pub nodes: Vec<Node>,
}

/// A method of a service.
///
/// ```no_run
/// # fn example(endpoint: micro_sdk::registry::Endpoint) {
/// println!("{}{}", endpoint.name, if endpoint.is_stream { ", a stream" } else { "" });
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Endpoint {
    /// As in `Helloworld.Call`.
    pub name: String,
    /// Whether requests or responses are streams.
    pub is_stream: bool,
}

/// A process of a service.
///
/// ```no_run
/// # fn example(node: micro_sdk::registry::Node) {
/// println!("{} at {}", node.id, node.address);
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Node {
    /// Its id.
    pub id: String,
    /// `host:port`.
    pub address: String,
    /// What is known of it.
    pub metadata: HashMap<String, String>,
}

impl From<wire::Service> for Service {
    fn from(service: wire::Service) -> Self {
        let endpoint = |endpoint: wire::Endpoint| Endpoint {
            is_stream: endpoint
                .metadata
                .get("stream")
                .is_some_and(|is| is == "true"),
            name: endpoint.name,
        };
        let node = |node: wire::Node| Node {
            id: node.id,
            address: node.address,
            metadata: node.metadata,
        };
        Self {
            name: service.name,
            version: service.version,
            metadata: service.metadata,
            endpoints: service.endpoints.into_iter().map(endpoint).collect(),
            nodes: service.nodes.into_iter().map(node).collect(),
        }
    }
}

impl Registry {
    pub(crate) const fn new(mesh: Mesh) -> Self {
        Self { mesh }
    }

    /// Every service of the namespace, each version for itself.
    ///
    /// ```no_run
    /// # async fn example(registry: micro_sdk::registry::Registry) -> Result<(), micro_sdk::Error> {
    /// let services = registry.list().await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// Those of every call.
    pub async fn list(&self) -> Result<Vec<Service>, Error> {
        let request = ListRequest { options: None };
        let answer: Services = call::unary(&self.mesh, watch::LIST, request)
            .await
            .map_err(|status| Error::call("list the services", &status))?;
        Ok(answer.services.into_iter().map(Service::from).collect())
    }

    /// The versions of one service; none when there is no such service.
    ///
    /// ```no_run
    /// # async fn example(registry: micro_sdk::registry::Registry) -> Result<(), micro_sdk::Error> {
    /// let is_there = !registry.get("helloworld").await?.is_empty();
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// Those of every call.
    pub async fn get(&self, name: &str) -> Result<Vec<Service>, Error> {
        let request = GetRequest {
            service: name.to_owned(),
            options: None,
        };
        let answer: Result<Services, _> =
            call::unary(&self.mesh, "/registry.Registry/GetService", request).await;
        match answer {
            Ok(answer) => Ok(answer.services.into_iter().map(Service::from).collect()),
            Err(status) => match Error::call(format_args!("look up service {name}"), &status) {
                error if error.kind() == Kind::NotFound => Ok(Vec::new()),
                error => Err(error),
            },
        }
    }

    /// The services as they are, then each change. See [`Watch`].
    ///
    /// ```no_run
    /// # async fn example(registry: micro_sdk::registry::Registry) {
    /// let mut changes = registry.watch();
    /// # }
    /// ```
    pub fn watch(&self) -> Watch {
        Watch::new(self.mesh.clone())
    }
}
