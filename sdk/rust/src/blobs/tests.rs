//! Uploads against a platform in miniature: what it takes for a whole blob, and what it does not.

use std::{
    convert::Infallible,
    task::{Context, Poll},
};

use tokio::{
    net::TcpListener,
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
};
use tonic::{
    Request, Response, Status, Streaming,
    body::Body,
    codegen::{BoxFuture, Bytes, Service, http},
    server::{ClientStreamingService, Grpc, NamedService},
    transport::{Server, server::TcpIncoming},
};
use tonic_prost::ProstCodec;

use super::*;
use crate::{
    environment::Environment,
    wire::store::{BlobWriteRequest, BlobWriteResponse},
};

/// Tells of each upload: its key and bytes if it was whole.
#[derive(Clone)]
struct Fake(UnboundedSender<Result<(String, Vec<u8>), Status>>);

impl NamedService for Fake {
    const NAME: &'static str = "store.BlobStore";
}

impl Service<http::Request<Body>> for Fake {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let fake = self.clone();
        Box::pin(async move {
            let mut grpc = Grpc::new(ProstCodec::<BlobWriteResponse, BlobWriteRequest>::default());
            Ok(grpc.client_streaming(fake, request).await)
        })
    }
}

impl ClientStreamingService<BlobWriteRequest> for Fake {
    type Response = BlobWriteResponse;
    type Future = BoxFuture<Response<BlobWriteResponse>, Status>;

    fn call(&mut self, request: Request<Streaming<BlobWriteRequest>>) -> Self::Future {
        let told = self.0.clone();
        Box::pin(async move {
            let whole = take(request.into_inner()).await;
            told.send(whole).unwrap();
            Ok(Response::new(BlobWriteResponse {}))
        })
    }
}

async fn take(mut parts: Streaming<BlobWriteRequest>) -> Result<(String, Vec<u8>), Status> {
    let (mut key, mut bytes) = (String::new(), Vec::new());
    while let Some(part) = parts.message().await? {
        key.push_str(&part.key);
        bytes.extend_from_slice(&part.blob);
    }
    Ok((key, bytes))
}

type Told = UnboundedReceiver<Result<(String, Vec<u8>), Status>>;

async fn blobs() -> (Blobs, Told) {
    let (tell, told) = unbounded_channel();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let server = Server::builder().add_service(Fake(tell));
    tokio::spawn(server.serve_with_incoming(TcpIncoming::from(listener)));
    let get = move |name: &str| (name == "MICRO_PROXY").then(|| address.clone());
    (Mesh::new(&Environment::read(get)).blobs(), told)
}

#[tokio::test]
async fn an_upload_arrives_whole() {
    let (blobs, mut told) = blobs().await;
    let bytes = vec![7; 1 << 20];
    blobs.upload("big").bytes(bytes.clone()).await.unwrap();
    assert_eq!(
        told.recv().await.unwrap().unwrap(),
        ("big".to_owned(), bytes)
    );
}

#[tokio::test]
async fn a_source_that_fails_is_no_shorter_blob() {
    let (blobs, mut told) = blobs().await;
    let parts = [
        Ok(Bytes::from("half")),
        Err(std::io::Error::other("disk gone")),
    ];
    let upload = blobs.upload("key").stream(tokio_stream::iter(parts));
    let error = upload.await.unwrap_err();
    assert_eq!(error.to_string(), "cannot write blob \"key\": disk gone");
    // The platform is told, too, that it does not have all of it.
    assert!(told.recv().await.unwrap().is_err());
}
