//! Where one crate's port meets another crate's provider. Conversions only: no decision is made here.

use std::sync::Arc;

use futures_util::future::BoxFuture;

use micro_auth as auth;
use micro_core::{Account, AccountId, Namespace, ServiceName, Timestamp, Version};
use micro_pipeline as pipeline;
use micro_registry as registry;
use micro_runtime as runtime;

/// Identity and rules for the pipeline, from auth.
pub(crate) struct Gatekeeper(pub(crate) auth::Handle);

impl pipeline::Identity for Gatekeeper {
    fn identify(&self, token: &str) -> Option<Arc<Account>> {
        self.0.inspect(token)
    }
}

impl pipeline::Rules for Gatekeeper {
    fn verify(
        &self,
        account: Option<&Account>,
        namespace: &Namespace,
        service: &str,
        endpoint: &str,
    ) -> Result<(), pipeline::Refusal> {
        self.0
            .verify(account, namespace, service, endpoint)
            .map_err(|_| match account {
                Some(_) => pipeline::Refusal::Forbidden,
                None => pipeline::Refusal::Unauthorized,
            })
    }
}

/// Service accounts for the runtime, from auth.
pub(crate) struct Issuer(pub(crate) auth::Handle);

impl runtime::Credentials for Issuer {
    fn service_account(
        &self,
        namespace: &Namespace,
        service: &ServiceName,
        version: &Version,
    ) -> Result<(AccountId, String), runtime::PortError> {
        self.0
            .service_account(namespace, service, version)
            .map_err(Into::into)
    }

    fn public_key(&self) -> String {
        self.0.public_key()
    }
}

/// The directory of instances for the runtime, from the registry.
pub(crate) struct Phonebook(pub(crate) registry::Handle);

impl runtime::Directory for Phonebook {
    fn announce(
        &self,
        a: runtime::Announcement,
    ) -> BoxFuture<'static, Result<(), runtime::PortError>> {
        let registry = self.0.clone();
        Box::pin(async move {
            let registration = registry::Registration {
                namespace: a.namespace,
                service: a.service,
                version: a.version,
                metadata: a.metadata,
                protocol: match a.protocol {
                    runtime::Protocol::Grpc => registry::Protocol::Grpc,
                    runtime::Protocol::Http => registry::Protocol::Http,
                },
                schema: a.schema,
                node: registry::Node {
                    id: a.node_id,
                    address: a.address,
                    metadata: Default::default(),
                },
                ttl: None,
            };
            registry.register(registration).await.map_err(Into::into)
        })
    }

    fn withdraw(
        &self,
        namespace: Namespace,
        service: ServiceName,
        version: Version,
        node_id: String,
    ) -> BoxFuture<'static, Result<(), runtime::PortError>> {
        let registry = self.0.clone();
        Box::pin(async move {
            registry
                .deregister(&namespace, &service, &version, &node_id)
                .await
                .map_err(Into::into)
        })
    }

    fn has_self_registered(
        &self,
        namespace: &Namespace,
        service: &ServiceName,
        since: Timestamp,
    ) -> bool {
        self.0.has_self_registered(namespace, service, since)
    }
}
