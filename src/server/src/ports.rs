//! Where one crate's port meets another crate's provider. Conversions only: no decision is made here.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::{future::BoxFuture, stream};

use micro_auth as auth;
use micro_core::{Account, AccountId, Namespace, ServiceName, Timestamp, Version, WireError};
use micro_gateway as gateway;
use micro_pipeline as pipeline;
use micro_registry as registry;
use micro_runtime as runtime;
use micro_storage::BlobReader;
use micro_store as store;

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

/// Public blobs for the gateway, from the store.
pub(crate) struct Shelf(pub(crate) store::Handle);

impl gateway::PublicBlobs for Shelf {
    fn find(
        &self,
        namespace: Namespace,
        key: String,
    ) -> BoxFuture<'static, Result<gateway::PublicBlob, WireError>> {
        let bucket = self.0.bucket(&namespace);
        Box::pin(async move {
            let (info, mut reader) = bucket
                .open_public(&key)
                .await
                .map_err(|error| WireError::of("go.micro.api", &error))?;
            let content: gateway::Content = Box::new(move |bytes| {
                reader.seek(bytes.start);
                let left = bytes.end.saturating_sub(bytes.start);
                Box::pin(stream::try_unfold((reader, left), next_piece))
            });
            Ok(gateway::PublicBlob {
                size: info.size,
                content_type: info.content_type,
                tag: info.id.to_string(),
                content,
            })
        })
    }
}

/// The next bytes of a blob of which `left` are wanted.
async fn next_piece(
    (mut reader, left): (BlobReader, u64),
) -> Result<Option<(Bytes, (BlobReader, u64))>, pipeline::BoxError> {
    if left == 0 {
        return Ok(None);
    }
    let Some(mut piece) = reader.read().await? else {
        return Ok(None);
    };
    piece.truncate(usize::try_from(left).unwrap_or(usize::MAX));
    let left = left.saturating_sub(piece.len() as u64);
    Ok(Some((piece, (reader, left))))
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
