//! `store.BlobStore` for Micro's clients and our own.

use futures_util::{StreamExt as _, stream};
use micro_proto::{
    status,
    store::{
        BlobDeleteRequest, BlobDeleteResponse, BlobInfo as WireInfo, BlobListRequest,
        BlobListResponse, BlobOptions as WireOptions, BlobReadRequest, BlobReadResponse,
        BlobWriteRequest, BlobWriteResponse, blob_store_server::BlobStore,
    },
};
use tonic::{Extensions, Request, Response, Status, Streaming};

use super::{Answers, target};
use crate::{BlobInfo, BlobOptions, Bucket, Error, Handle};

/// The gRPC face of the blobs.
#[derive(Debug, Clone)]
pub struct BlobRpc {
    handle: Handle,
}

impl BlobRpc {
    pub(crate) const fn new(handle: Handle) -> Self {
        Self { handle }
    }

    /// The blobs that the caller means and may use.
    fn bucket(&self, extensions: &Extensions, named: &str) -> Result<Bucket, Error> {
        Ok(self.handle.bucket(&target(extensions, named)?))
    }

    async fn write_all(
        &self,
        extensions: &Extensions,
        mut parts: Streaming<BlobWriteRequest>,
    ) -> Result<(), Status> {
        let refuse = refuse("Write");
        let Some(first) = parts.message().await? else {
            return Err(refuse(Error::NoBlob));
        };
        // Micro's clients repeat key and options in each message; those of the first count.
        let WireOptions {
            namespace,
            public,
            content_type,
        } = first.options.unwrap_or_default();
        let bucket = self.bucket(extensions, &namespace).map_err(&refuse)?;
        let options = BlobOptions {
            public,
            content_type,
        };
        let mut upload = bucket.create(&first.key, options).await.map_err(&refuse)?;
        upload.write(&first.blob).await.map_err(&refuse)?;
        while let Some(part) = parts.message().await? {
            upload.write(&part.blob).await.map_err(&refuse)?;
        }
        upload.finish().await.map_err(refuse)?;
        Ok(())
    }
}

fn info(info: BlobInfo) -> WireInfo {
    WireInfo {
        key: info.key,
        size: info.size,
        content_type: info.content_type,
        public: info.public,
        modified: info.modified.unix_seconds(),
    }
}

/// A failure as `store.BlobStore.<method>` says it.
fn refuse(method: &'static str) -> impl Fn(Error) -> Status {
    move |error| status::of(&format!("store.BlobStore.{method}"), &error)
}

#[tonic::async_trait]
impl BlobStore for BlobRpc {
    type ReadStream = Answers<BlobReadResponse>;

    async fn read(
        &self,
        request: Request<Streaming<BlobReadRequest>>,
    ) -> Result<Response<Self::ReadStream>, Status> {
        let (_, extensions, mut asks) = request.into_parts();
        // Micro's clients never half-close: the first message is the question (contract §3.6).
        let ask = asks.message().await?.unwrap_or_default();
        let refuse = refuse("Read");
        if ask.key.is_empty() {
            return Err(refuse(Error::MissingKey));
        }
        let options = ask.options.unwrap_or_default();
        let bucket = self
            .bucket(&extensions, &options.namespace)
            .map_err(&refuse)?;
        let (_, reader) = bucket.open(&ask.key).await.map_err(&refuse)?;
        let chunks = stream::unfold(Some((reader, asks)), |state| async {
            let (mut reader, asks) = state?;
            match reader.read().await {
                Ok(None) => None,
                Ok(Some(chunk)) => {
                    let answer = BlobReadResponse { blob: chunk.into() };
                    Some((Ok(answer), Some((reader, asks))))
                }
                Err(error) => {
                    let status = status::of("store.BlobStore.Read", &Error::from(error));
                    Some((Err(status), None))
                }
            }
        });
        Ok(Response::new(chunks.boxed()))
    }

    async fn write(
        &self,
        request: Request<Streaming<BlobWriteRequest>>,
    ) -> Result<Response<BlobWriteResponse>, Status> {
        let (_, extensions, parts) = request.into_parts();
        self.write_all(&extensions, parts).await?;
        Ok(Response::new(BlobWriteResponse {}))
    }

    async fn delete(
        &self,
        request: Request<BlobDeleteRequest>,
    ) -> Result<Response<BlobDeleteResponse>, Status> {
        let (_, extensions, ask) = request.into_parts();
        let refuse = refuse("Delete");
        if ask.key.is_empty() {
            return Err(refuse(Error::MissingKey));
        }
        let options = ask.options.unwrap_or_default();
        let bucket = self
            .bucket(&extensions, &options.namespace)
            .map_err(&refuse)?;
        bucket.delete(&ask.key).await.map_err(refuse)?;
        Ok(Response::new(BlobDeleteResponse {}))
    }

    async fn list(
        &self,
        request: Request<BlobListRequest>,
    ) -> Result<Response<BlobListResponse>, Status> {
        let (_, extensions, ask) = request.into_parts();
        let refuse = refuse("List");
        let options = ask.options.unwrap_or_default();
        let bucket = self
            .bucket(&extensions, &options.namespace)
            .map_err(&refuse)?;
        let blobs = bucket.list(&options.prefix).await.map_err(&refuse)?;
        let keys = blobs.iter().map(|blob| blob.key.clone()).collect();
        let blobs = blobs.into_iter().map(info).collect();
        Ok(Response::new(BlobListResponse { keys, blobs }))
    }
}
