//! What the runtime needs of others. The assembly implements these over registry and auth, so that
//! no service crate knows another.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc};

use futures_util::future::BoxFuture;
use micro_core::{AccountId, Namespace, ServiceName, Timestamp, Version};
use micro_schema::Schema;

use crate::{error::PortError, manifest::Protocol};

/// An instance that serves.
#[derive(Clone)]
pub struct Announcement {
    /// The tenant.
    pub namespace: Namespace,
    /// The service.
    pub service: ServiceName,
    /// Its version.
    pub version: Version,
    /// Notes for people: release, instance.
    pub metadata: BTreeMap<String, String>,
    /// What it speaks.
    pub protocol: Protocol,
    /// What it offers; empty for HTTP.
    pub schema: Arc<Schema>,
    /// The instance.
    pub node_id: String,
    /// Where.
    pub address: SocketAddr,
}

/// Who is told where instances serve: the registry.
pub trait Directory: Send + Sync {
    /// Requests may go to this instance from now on. Telling it again is no error.
    fn announce(&self, announcement: Announcement) -> BoxFuture<'static, Result<(), PortError>>;

    /// No request may go to this instance any more. An unknown one is no error.
    fn withdraw(
        &self,
        namespace: Namespace,
        service: ServiceName,
        version: Version,
        node_id: String,
    ) -> BoxFuture<'static, Result<(), PortError>>;

    /// Whether an instance of the service registered itself at or after `since`.
    fn has_self_registered(
        &self,
        namespace: &Namespace,
        service: &ServiceName,
        since: Timestamp,
    ) -> bool;
}

/// Who gives services their accounts: auth.
pub trait Credentials: Send + Sync {
    /// The account of a service and its long-lived secret (contract §2.3). Blocks for a signature.
    ///
    /// # Errors
    /// When no secret can be made.
    fn service_account(
        &self,
        namespace: &Namespace,
        service: &ServiceName,
        version: &Version,
    ) -> Result<(AccountId, String), PortError>;

    /// The key that proves tokens, base64 of its PEM.
    fn public_key(&self) -> String;
}

/// Where the node listens, as its services and their users see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Doors {
    /// HTTP.
    pub gateway: SocketAddr,
    /// gRPC of other machines.
    pub proxy: SocketAddr,
    /// gRPC between services.
    pub mesh: SocketAddr,
    /// The mesh once more.
    pub broker: SocketAddr,
    /// The mesh once more.
    pub registry: SocketAddr,
    /// HTTP services answer below it.
    pub domain: String,
}
