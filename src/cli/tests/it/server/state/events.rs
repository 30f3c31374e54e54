//! Topics of the server that answers from a script.

use std::{
    convert::Infallible,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{Request as HttpRequest, Response as HttpResponse};
use micro_core::Kind;
use micro_proto::events;
use prost::Message as _;
use tokio_stream::StreamExt as _;
use tonic::{
    Request, Response, Status, Streaming,
    body::Body,
    codegen::BoxFuture,
    server::{NamedService, StreamingService},
};
use tower::Service;

use super::super::{Answers, Frames, Script, refuse};

/// The event at an offset of every topic.
fn event(offset: u64) -> events::Event {
    events::Event {
        id: format!("id-{offset}"),
        topic: "orders".into(),
        payload: format!("event {offset}").into(),
        timestamp: 1_700_000_000,
        offset,
        ..events::Event::default()
    }
}

/// Every topic has this many events.
const EVENTS: u64 = 6;

/// `events.Stream`, whose Consume has messages of two types in one direction.
#[derive(Clone)]
pub(crate) struct Events(pub(crate) Script);

impl NamedService for Events {
    const NAME: &'static str = "events.Stream";
}

impl Service<HttpRequest<Body>> for Events {
    type Response = HttpResponse<Body>;
    type Error = Infallible;
    type Future = BoxFuture<HttpResponse<Body>, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: HttpRequest<Body>) -> Self::Future {
        let script = self.0.clone();
        if request.uri().path().ends_with("/Consume") {
            return Box::pin(async move {
                let mut grpc = tonic::server::Grpc::new(Frames);
                Ok(grpc.streaming(Consume(script), request).await)
            });
        }
        events::stream_server::StreamServer::new(script).call(request)
    }
}

struct Consume(Script);

impl StreamingService<Bytes> for Consume {
    type Response = Bytes;
    type ResponseStream = Answers<Bytes>;
    type Future = BoxFuture<Response<Self::ResponseStream>, Status>;

    /// The first connection of a script ends after two events.
    fn call(&mut self, request: Request<Streaming<Bytes>>) -> Self::Future {
        let script = self.0.clone();
        Box::pin(async move {
            let mut frames = request.into_inner();
            let first = frames.message().await?.unwrap();
            let ask = events::ConsumeRequest::decode(first).unwrap();
            if ask.topic == "forbidden" {
                return Err(refuse(Kind::Denied, "access denied to namespace"));
            }
            let (from, is_first) = script.with(|state| {
                state.consumers.push(ask.clone());
                let acked = state.acks.len() as u64;
                (ask.from.unwrap_or(acked), state.consumers.len() == 1)
            });
            let mut answers: Vec<_> = (from..EVENTS)
                .map(|offset| Ok(event(offset).encode_to_vec().into()))
                .collect();
            if is_first {
                answers.truncate(2);
            }
            let (gone, mut ends) = tokio::sync::mpsc::channel::<()>(1);
            let count = answers.len();
            tokio::spawn(async move {
                let mut acks = 0;
                while let Ok(Some(frame)) = frames.message().await {
                    let ack = events::AckRequest::decode(frame).unwrap();
                    script.with(|state| state.acks.push(ack));
                    acks += 1;
                    // The restart comes after the answers.
                    if is_first && acks == count {
                        break;
                    }
                }
                drop(gone);
            });
            let end = failure_after(is_first, async move { ends.recv().await.is_none() });
            let answers: Answers<Bytes> = Box::pin(tokio_stream::iter(answers).chain(end));
            Ok(Response::new(answers))
        })
    }
}

/// A failure after `ready`, or nothing for ever.
fn failure_after(
    fails: bool,
    ready: impl Future<Output = bool> + Send + 'static,
) -> Answers<Bytes> {
    if !fails {
        return Box::pin(tokio_stream::pending());
    }
    let (sender, receiver) = tokio::sync::mpsc::channel(1);
    tokio::spawn(async move {
        ready.await;
        let _ = sender
            .send(Err(Status::unavailable("the server stops")))
            .await;
    });
    Box::pin(tokio_stream::wrappers::ReceiverStream::new(receiver))
}

#[tonic::async_trait]
impl events::stream_server::Stream for Script {
    type ConsumeStream = Answers<events::Event>;

    async fn publish(
        &self,
        request: Request<events::PublishRequest>,
    ) -> Result<Response<events::PublishResponse>, Status> {
        self.allow(&request)?;
        let offset = self.with(|state| {
            state.published.push(request.into_inner());
            state.published.len() as u64 - 1
        });
        Ok(Response::new(events::PublishResponse {
            id: format!("id-{offset}"),
            offset,
        }))
    }

    async fn consume(
        &self,
        _: Request<Streaming<events::ConsumeRequest>>,
    ) -> Result<Response<Self::ConsumeStream>, Status> {
        Err(Status::unimplemented("consume"))
    }

    async fn publish_batch(
        &self,
        request: Request<events::PublishBatchRequest>,
    ) -> Result<Response<events::PublishBatchResponse>, Status> {
        let batch = request.into_inner().events;
        if batch.iter().any(|event| event.payload == b"bad") {
            return Err(refuse(Kind::Invalid, "this one is bad"));
        }
        self.with(|state| {
            state.batches.push(batch.len());
            state.published.extend(batch);
        });
        Ok(Response::new(events::PublishBatchResponse::default()))
    }

    async fn topics(
        &self,
        _: Request<events::TopicsRequest>,
    ) -> Result<Response<events::TopicsResponse>, Status> {
        Ok(Response::new(events::TopicsResponse {
            topics: vec![events::Topic {
                name: "orders".into(),
                first: 2,
                next: EVENTS,
                bytes: 2048,
                retention: Some(events::Retention {
                    age: 86_400,
                    bytes: 0,
                }),
            }],
        }))
    }

    async fn groups(
        &self,
        _: Request<events::GroupsRequest>,
    ) -> Result<Response<events::GroupsResponse>, Status> {
        let group = |name: &str, lag| events::Group {
            topic: "orders".into(),
            name: name.into(),
            position: EVENTS - lag,
            lag,
            ..events::Group::default()
        };
        Ok(Response::new(events::GroupsResponse {
            groups: vec![group("b", 4), group("a", 1)],
        }))
    }

    async fn set_retention(
        &self,
        request: Request<events::SetRetentionRequest>,
    ) -> Result<Response<events::SetRetentionResponse>, Status> {
        let retention = request.into_inner().retention;
        self.with(|state| state.retention = retention);
        Ok(Response::new(events::SetRetentionResponse {}))
    }

    async fn delete(
        &self,
        request: Request<events::DeleteRequest>,
    ) -> Result<Response<events::DeleteResponse>, Status> {
        let ask = request.into_inner();
        self.with(|state| state.deleted.push((ask.topic, ask.group)));
        Ok(Response::new(events::DeleteResponse {}))
    }
}

#[tonic::async_trait]
impl events::store_server::Store for Script {
    async fn read(
        &self,
        request: Request<events::ReadRequest>,
    ) -> Result<Response<events::ReadResponse>, Status> {
        let ask = request.into_inner();
        // Fewer than asked for, as when the answer would be too large.
        let count = ask.limit.min(2);
        let events = (ask.offset..EVENTS.min(ask.offset + count))
            .map(event)
            .collect();
        Ok(Response::new(events::ReadResponse { events }))
    }

    async fn write(
        &self,
        _: Request<events::WriteRequest>,
    ) -> Result<Response<events::WriteResponse>, Status> {
        Err(Status::unimplemented("write"))
    }
}
