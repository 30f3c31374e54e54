//! A consumer against a platform in miniature that dies and comes back: what is on the wire.

use std::{
    convert::Infallible,
    net::TcpListener as StdListener,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
    time::Duration,
};

use prost::{Message as _, bytes::Buf as _};
use tokio::{net::TcpListener, runtime::Runtime, time::Instant};
use tokio_stream::{Stream, StreamExt as _};
use tonic::{
    Request, Response, Status, Streaming,
    body::Body,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    codegen::{BoxFuture, Bytes, Service, http},
    server::{Grpc, NamedService, StreamingService},
    transport::{Server, server::TcpIncoming},
};

use super::*;
use crate::{
    Kind,
    environment::Environment,
    wire::events::{AckRequest, ConsumeRequest, Event as WireEvent},
};

/// What the platform in miniature has heard, and the payloads it delivers on each connection.
#[derive(Clone, Default)]
struct Fake(Arc<Mutex<Seen>>);

#[derive(Default)]
struct Seen {
    asked: Vec<ConsumeRequest>,
    answers: Vec<(String, bool)>,
    deliveries: Vec<(u64, &'static str)>,
}

impl Fake {
    fn see<T>(&self, look: impl FnOnce(&mut Seen) -> T) -> T {
        look(&mut self.0.lock().unwrap())
    }

    fn serve(&self, address: &str) -> (String, Runtime) {
        // The one before, which is not waited for, may still hold the address.
        let deadline = Instant::now() + Duration::from_secs(20);
        let listener = loop {
            match StdListener::bind(address) {
                Ok(listener) => break listener,
                Err(error) => assert!(Instant::now() < deadline, "{error}"),
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        let runtime = builder.worker_threads(1).enable_all().build().unwrap();
        let service = self.clone();
        runtime.spawn(async {
            let incoming = TcpIncoming::from(TcpListener::from_std(listener).unwrap());
            let server = Server::builder().add_service(service);
            server.serve_with_incoming(incoming).await.unwrap();
        });
        (address, runtime)
    }

    async fn answered(&self, id: &str, success: bool) {
        let deadline = Instant::now() + Duration::from_secs(20);
        let answer = (id.to_owned(), success);
        while !self.see(|seen| seen.answers.contains(&answer)) {
            assert!(Instant::now() < deadline, "no answer {answer:?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

impl NamedService for Fake {
    const NAME: &'static str = "events.Stream";
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
        Box::pin(async move { Ok(Grpc::new(Raw).streaming(Method(fake), request).await) })
    }
}

struct Method(Fake);

impl StreamingService<Bytes> for Method {
    type Response = WireEvent;
    type ResponseStream = Pin<Box<dyn Stream<Item = Result<WireEvent, Status>> + Send>>;
    type Future = BoxFuture<Response<Self::ResponseStream>, Status>;

    fn call(&mut self, request: Request<Streaming<Bytes>>) -> Self::Future {
        let fake = self.0.clone();
        Box::pin(async move {
            let mut frames = request.into_inner();
            // The first frame is the question, each later one an answer.
            let question = frames.message().await?.unwrap();
            let question = ConsumeRequest::decode(question).unwrap();
            let topic = question.topic.clone();
            let deliveries = fake.see(|seen| {
                seen.asked.push(question);
                std::mem::take(&mut seen.deliveries)
            });
            tokio::spawn(async move {
                while let Ok(Some(frame)) = frames.message().await {
                    let answer = AckRequest::decode(frame).unwrap();
                    fake.see(|seen| seen.answers.push((answer.id, answer.success)));
                }
            });
            let events = deliveries.into_iter().map(move |(offset, payload)| {
                Ok(WireEvent {
                    id: format!("id-{offset}"),
                    topic: topic.clone(),
                    payload: payload.into(),
                    offset,
                    delivery: 1,
                    ..WireEvent::default()
                })
            });
            let silence = tokio_stream::pending();
            Ok(Response::new(
                Box::pin(tokio_stream::iter(events).chain(silence)) as _,
            ))
        })
    }
}

/// Takes frames as they are.
struct Raw;

impl Codec for Raw {
    type Encode = WireEvent;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = WireEvent;
    type Error = Status;

    fn encode(&mut self, event: WireEvent, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        event.encode(out).unwrap();
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, frame: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        let length = frame.remaining();
        Ok(Some(frame.copy_to_bytes(length)))
    }
}

fn events(address: &str) -> Events {
    let address = address.to_owned();
    let get = move |name: &str| (name == "MICRO_PROXY").then(|| address.clone());
    Mesh::new(&Environment::read(get)).events()
}

#[tokio::test]
async fn a_group_goes_on_after_the_platform_died() {
    let fake = Fake::default();
    let (address, first) = fake.serve("127.0.0.1:0");
    fake.see(|seen| seen.deliveries = vec![(0, "\"one\"")]);
    let consume = events(&address)
        .consume::<String>("orders")
        .group("billing");
    let mut orders = consume.from(Start::Oldest).start();
    let one = orders.next().await.unwrap().unwrap();
    assert_eq!((one.payload.as_str(), one.offset), ("one", 0));
    one.ack();
    fake.answered("id-0", true).await;

    first.shutdown_background();
    fake.see(|seen| seen.deliveries = vec![(1, "\"two\"")]);
    let (_, second) = fake.serve(&address);
    let two = orders.next().await.unwrap().unwrap();
    assert_eq!(two.payload, "two");
    // The answer goes the way of the new connection.
    two.nack();
    fake.answered("id-1", false).await;
    let asked = fake.see(|seen| seen.asked.clone());
    assert_eq!(asked.len(), 2);
    assert_eq!(asked[0], asked[1]);
    assert_eq!(
        (asked[0].group.as_str(), asked[0].from),
        ("billing", Some(0))
    );
    second.shutdown_background();
}

#[tokio::test]
async fn a_consumer_without_a_group_remembers_its_place() {
    let fake = Fake::default();
    let (address, first) = fake.serve("127.0.0.1:0");
    fake.see(|seen| seen.deliveries = vec![(7, "1"), (3, "2")]);
    let mut all = events(&address).consume::<u32>("orders").start();
    assert_eq!(all.next().await.unwrap().unwrap().payload, 1);
    assert_eq!(all.next().await.unwrap().unwrap().payload, 2);
    first.shutdown_background();
    fake.see(|seen| seen.deliveries = vec![(8, "3")]);
    let (_, second) = fake.serve(&address);
    assert_eq!(all.next().await.unwrap().unwrap().payload, 3);
    let from: Vec<_> = fake.see(|seen| seen.asked.iter().map(|asked| asked.from).collect());
    assert_eq!(from, [None, Some(8)]);
    second.shutdown_background();
}

#[tokio::test]
async fn a_payload_of_another_type_is_refused_and_does_not_stop_the_consumer() {
    let fake = Fake::default();
    let (address, server) = fake.serve("127.0.0.1:0");
    fake.see(|seen| seen.deliveries = vec![(0, "\"text\""), (1, "1")]);
    let mut all = events(&address).consume::<u32>("orders").group("g").start();
    let error = all.next().await.unwrap().unwrap_err();
    assert_eq!(error.kind(), Kind::Invalid);
    assert!(error.to_string().contains("event 0 of orders"), "{error}");
    assert_eq!(all.next().await.unwrap().unwrap().payload, 1);
    fake.answered("id-0", false).await;
    server.shutdown_background();
}
