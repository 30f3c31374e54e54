//! Streams of events as Micro's clients see them, on the wire.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};

use bytes::{Buf as _, BufMut as _, Bytes};
use http::uri::PathAndQuery;
use micro_core::{Account, AccountId, Caller, Namespace, WireError};
use micro_events::Service;
use micro_proto::events::{
    AckRequest, ConsumeRequest, DeleteRequest, Event, GroupsRequest, PublishBatchRequest,
    PublishRequest, ReadRequest, Retention, SetRetentionRequest, TopicsRequest, WriteRequest,
    store_client::StoreClient, stream_client::StreamClient,
};
use prost::Message as _;
use tokio::sync::mpsc;
use tokio_stream::wrappers::{TcpListenerStream, UnboundedReceiverStream};
use tonic::{
    Code, Request, Status, Streaming,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    service::{Interceptor, interceptor::InterceptedService},
    transport::{Channel, Endpoint, Server},
};

use crate::node::{NEVER, Node, SOON};

const WAIT: i64 = 20_000_000_000;

/// Says who is calling, as a header that the test's door turns into what the pipeline gives.
#[derive(Clone)]
pub(crate) struct As(pub(crate) Caller);

impl Interceptor for As {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let account = serde_json_of(&self.0);
        request
            .metadata_mut()
            .insert("grpc-test-caller", account.parse().unwrap());
        Ok(request)
    }
}

/// `namespace|issuer|kind|scopes`.
fn serde_json_of(caller: &Caller) -> String {
    let account = caller.account.as_ref();
    let part = |part: Option<String>| part.unwrap_or_default();
    [
        caller.namespace.to_string(),
        part(account.map(|a| a.issuer.to_string())),
        part(account.map(|a| a.kind.clone())),
        part(account.map(|a| a.scopes.join(","))),
    ]
    .join("|")
}

#[derive(Clone)]
struct FromHeader;

impl Interceptor for FromHeader {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let header = request.metadata_mut().remove("grpc-test-caller");
        let Some(header) = header else {
            return Ok(request);
        };
        let parts: Vec<&str> = header.to_str().unwrap().split('|').collect();
        let caller = match parts[1] {
            "" => Caller::anonymous(Namespace::parse(parts[0]).unwrap()),
            issuer => Caller {
                namespace: Namespace::parse(parts[0]).unwrap(),
                ..account(issuer, parts[2], &parts[3].split(',').collect::<Vec<_>>())
            },
        };
        request.extensions_mut().insert(caller);
        Ok(request)
    }
}

pub(crate) fn account(issuer: &str, kind: &str, scopes: &[&str]) -> Caller {
    let issuer = Namespace::parse(issuer).unwrap();
    Caller {
        account: Some(Arc::new(Account {
            id: AccountId::parse("ann").unwrap(),
            kind: kind.into(),
            issuer: issuer.clone(),
            scopes: scopes.iter().map(|s| (*s).into()).collect(),
            name: "ann".into(),
            metadata: BTreeMap::new(),
        })),
        namespace: issuer,
    }
}

/// What the person at the other end reads first.
pub(crate) fn detail(status: &Status) -> String {
    let wire = WireError::parse(status.message()).expect("Micro's object");
    wire.detail.lines().next().unwrap_or_default().to_owned()
}

/// All services of a node behind a port.
pub(crate) struct Door(SocketAddr);

impl Door {
    pub(crate) async fn open(service: &Service) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = Server::builder()
            .add_service(InterceptedService::new(service.stream_server(), FromHeader))
            .add_service(InterceptedService::new(service.store_server(), FromHeader))
            .add_service(InterceptedService::new(service.broker_server(), FromHeader));
        tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        Self(address)
    }

    pub(crate) fn channel(&self) -> Channel {
        let endpoint = Endpoint::from_shared(format!("http://{}", self.0)).unwrap();
        endpoint.connect_lazy()
    }

    fn stream(&self, caller: Caller) -> StreamClient<InterceptedService<Channel, As>> {
        StreamClient::with_interceptor(self.channel(), As(caller))
    }

    fn store(&self, caller: Caller) -> StoreClient<InterceptedService<Channel, As>> {
        StoreClient::with_interceptor(self.channel(), As(caller))
    }
}

/// Frames of a client as bytes, because they are of two types.
#[derive(Clone, Copy)]
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Event;
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
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        out.put_slice(&item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Event;
    type Error = Status;

    fn decode(&mut self, frame: &mut DecodeBuf<'_>) -> Result<Option<Event>, Status> {
        let bytes = frame.copy_to_bytes(frame.remaining());
        Ok(Some(Event::decode(bytes).unwrap()))
    }
}

/// A consumer like Micro's Go library: one stream, the question first, then answers, never closed.
struct GoConsumer {
    events: Streaming<Event>,
    frames: mpsc::UnboundedSender<Bytes>,
}

impl GoConsumer {
    async fn open(door: &Door, caller: Caller, ask: ConsumeRequest) -> Result<Self, Status> {
        let (frames, stream) = mpsc::unbounded_channel();
        frames.send(Bytes::from(ask.encode_to_vec())).unwrap();
        let channel = InterceptedService::new(door.channel(), As(caller));
        let mut grpc = tonic::client::Grpc::new(channel);
        grpc.ready().await.unwrap();
        let path = PathAndQuery::from_static("/events.Stream/Consume");
        let request = Request::new(UnboundedReceiverStream::new(stream));
        let events = grpc.streaming(request, path, Raw).await?.into_inner();
        Ok(Self { events, frames })
    }

    async fn next(&mut self) -> Event {
        let next = tokio::time::timeout(SOON, self.events.message()).await;
        next.expect("an event comes").unwrap().unwrap()
    }

    async fn nothing(&mut self) {
        let next = tokio::time::timeout(NEVER, self.events.message()).await;
        assert!(next.is_err(), "{next:?}");
    }

    fn answer(&self, id: &str, success: bool) {
        let ack = AckRequest {
            id: id.into(),
            success,
        };
        self.frames.send(Bytes::from(ack.encode_to_vec())).unwrap();
    }
}

fn service(namespace: &str) -> Caller {
    account(namespace, "service", &["service"])
}

fn publish(topic: &str, payload: &str) -> PublishRequest {
    PublishRequest {
        topic: topic.into(),
        payload: payload.as_bytes().to_vec(),
        ..PublishRequest::default()
    }
}

fn ask(topic: &str, group: &str) -> ConsumeRequest {
    ConsumeRequest {
        topic: topic.into(),
        group: group.into(),
        // As Go sends an unset time.
        offset: -62_135_596_800,
        ack_wait: WAIT,
        retry_limit: -1,
        ..ConsumeRequest::default()
    }
}

#[tokio::test]
async fn a_go_consumer_gets_and_answers_events() {
    let node = Node::start();
    let door = Door::open(&node.service).await;
    let mut consumer = GoConsumer::open(&door, service("foo"), ask("orders", "g"))
        .await
        .unwrap();
    let mut client = door.stream(service("foo"));
    for n in 0..3 {
        let mut event = publish("orders", &n.to_string());
        event.metadata.insert("key".into(), "value".into());
        event.timestamp = 1_600_000_000;
        let published = client.publish(event).await.unwrap().into_inner();
        assert_eq!((published.id.len(), published.offset), (36, n));
    }
    let first = consumer.next().await;
    assert_eq!(first.payload, b"0");
    assert_eq!(first.topic, "orders");
    assert_eq!(first.metadata["key"], "value");
    assert_eq!(
        (first.timestamp, first.offset, first.delivery),
        (1_600_000_000, 0, 1)
    );
    let second = consumer.next().await;
    let third = consumer.next().await;
    consumer.answer("no such id", true);
    consumer.answer("00000000-0000-4000-8000-000000000000", true);
    consumer.answer(&first.id, true);
    consumer.answer(&third.id, true);
    consumer.answer(&second.id, false);
    let again = consumer.next().await;
    assert_eq!((again.id, again.delivery), (second.id.clone(), 2));
    consumer.answer(&second.id, true);
    let group = node.group("foo", |group| group.position == 3).await;
    assert_eq!((group.lag, group.consumers, group.dead), (0, 1, 0));
    drop(consumer);
    node.group("foo", |group| group.consumers == 0).await;
}

#[tokio::test]
async fn a_go_consumer_that_hangs_up_loses_nothing() {
    let node = Node::start();
    let door = Door::open(&node.service).await;
    let open = || GoConsumer::open(&door, service("foo"), ask("orders", "g"));
    let mut consumer = open().await.unwrap();
    let mut client = door.stream(service("foo"));
    client.publish(publish("orders", "1")).await.unwrap();
    let first = consumer.next().await;
    let mut other = open().await.unwrap();
    other.nothing().await;
    drop(consumer);
    let second = other.next().await;
    assert_eq!((second.id, second.delivery), (first.id, 2));
}

#[tokio::test]
async fn replay_and_fan_out() {
    let node = Node::start();
    let door = Door::open(&node.service).await;
    let mut client = door.stream(service("foo"));
    for n in 0..4 {
        client
            .publish(publish("orders", &n.to_string()))
            .await
            .unwrap();
        node.clock.advance(Duration::from_secs(10));
    }
    let since = ConsumeRequest {
        offset: 1_700_000_015,
        auto_ack: true,
        ack_wait: 0,
        ..ask("orders", "")
    };
    let mut replay = GoConsumer::open(&door, service("foo"), since)
        .await
        .unwrap();
    let from = ConsumeRequest {
        offset: 1_700_000_015,
        from: Some(3),
        ..ask("orders", "")
    };
    let mut from = GoConsumer::open(&door, service("foo"), from).await.unwrap();
    assert_eq!(replay.next().await.payload, b"2");
    assert_eq!(replay.next().await.payload, b"3");
    assert_eq!(from.next().await.payload, b"3");
    client.publish(publish("orders", "4")).await.unwrap();
    assert_eq!(replay.next().await.payload, b"4");
    assert_eq!(from.next().await.payload, b"4");
}

#[tokio::test]
async fn wrong_requests_say_what_micro_says() {
    let node = Node::start();
    let door = Door::open(&node.service).await;
    let foo = service("foo");
    let open = |caller: Caller, ask: ConsumeRequest| async {
        GoConsumer::open(&door, caller, ask).await.err().unwrap()
    };
    let status = open(foo.clone(), ask("", "g")).await;
    assert_eq!(
        (status.code(), detail(&status).as_str()),
        (Code::InvalidArgument, "Missing topic")
    );
    let no_wait = ConsumeRequest {
        ack_wait: 0,
        ..ask("orders", "g")
    };
    let status = open(foo.clone(), no_wait).await;
    assert_eq!(status.code(), Code::Internal);
    assert_eq!(
        detail(&status),
        "invalid AckWait passed, should be positive integer"
    );
    let status = door
        .stream(foo.clone())
        .publish(publish("", "1"))
        .await
        .unwrap_err();
    assert_eq!(detail(&status), "Missing topic");
    let status = door
        .store(foo.clone())
        .read(ReadRequest::default())
        .await
        .unwrap_err();
    assert_eq!(
        (status.code(), detail(&status).as_str()),
        (Code::InvalidArgument, "Missing topic")
    );
    let status = door
        .store(foo)
        .write(WriteRequest::default())
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented);
    assert_eq!(
        detail(&status),
        "Writing to the store directly is not supported"
    );
}

#[tokio::test]
async fn only_services_and_administrators_of_the_namespace_may() {
    let node = Node::start();
    let door = Door::open(&node.service).await;
    let anonymous = Caller::anonymous(Namespace::operator());
    let plain = account("foo", "user", &[]);
    let foreign = service("bar");
    for (caller, code) in [
        (anonymous, Code::Unauthenticated),
        (plain, Code::Unauthenticated),
        (foreign, Code::PermissionDenied),
    ] {
        let mut stream = door.stream(caller.clone());
        let named = PublishRequest {
            namespace: "foo".into(),
            ..publish("orders", "1")
        };
        let asks = ConsumeRequest {
            namespace: "foo".into(),
            ..ask("orders", "g")
        };
        let namespace = || "foo".to_owned();
        let statuses = [
            stream.publish(named.clone()).await.err(),
            stream
                .publish_batch(PublishBatchRequest {
                    events: vec![publish("orders", "1")],
                    namespace: namespace(),
                })
                .await
                .err(),
            stream
                .topics(TopicsRequest {
                    namespace: namespace(),
                })
                .await
                .err(),
            stream
                .groups(GroupsRequest {
                    namespace: namespace(),
                    ..GroupsRequest::default()
                })
                .await
                .err(),
            stream
                .set_retention(SetRetentionRequest {
                    namespace: namespace(),
                    topic: "orders".into(),
                    retention: None,
                })
                .await
                .err(),
            stream
                .delete(DeleteRequest {
                    namespace: namespace(),
                    topic: "orders".into(),
                    group: String::new(),
                })
                .await
                .err(),
            door.store(caller.clone())
                .read(ReadRequest {
                    namespace: namespace(),
                    topic: "orders".into(),
                    ..ReadRequest::default()
                })
                .await
                .err(),
            GoConsumer::open(&door, caller, asks).await.err(),
        ];
        for status in statuses {
            assert_eq!(status.unwrap().code(), code);
        }
    }
    assert!(
        node.handle
            .topics(&Namespace::parse("foo").unwrap())
            .unwrap()
            .is_empty()
    );
    // A batch cannot carry an event into another namespace.
    let smuggled = PublishBatchRequest {
        events: vec![PublishRequest {
            namespace: "foo".into(),
            ..publish("orders", "1")
        }],
        namespace: String::new(),
    };
    let status = door
        .stream(service("bar"))
        .publish_batch(smuggled)
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied);
}

#[tokio::test]
async fn a_service_that_says_micro_means_its_own_namespace() {
    let node = Node::start();
    let door = Door::open(&node.service).await;
    let go = Caller {
        namespace: Namespace::operator(),
        ..service("foo")
    };
    door.stream(go)
        .publish(publish("orders", "1"))
        .await
        .unwrap();
    let admin = account("foo", "user", &["admin"]);
    let read = ReadRequest {
        topic: "orders".into(),
        ..ReadRequest::default()
    };
    let read = door.store(admin).read(read).await.unwrap().into_inner();
    assert_eq!(read.events[0].payload, b"1");
}

#[tokio::test]
async fn topics_groups_and_retention_are_shown_and_removed() {
    let node = Node::start();
    let door = Door::open(&node.service).await;
    let mut client = door.stream(service("foo"));
    let batch = PublishBatchRequest {
        events: vec![publish("a", "1"), publish("b", "1"), publish("a", "2")],
        namespace: String::new(),
    };
    let published = client.publish_batch(batch).await.unwrap().into_inner();
    let offsets: Vec<u64> = published.events.iter().map(|e| e.offset).collect();
    assert_eq!(offsets, [0, 0, 1]);
    let kept = Retention { age: 60, bytes: 0 };
    let set = SetRetentionRequest {
        namespace: String::new(),
        topic: "a".into(),
        retention: Some(kept),
    };
    client.set_retention(set).await.unwrap();
    let negative = SetRetentionRequest {
        namespace: String::new(),
        topic: "a".into(),
        retention: Some(Retention { age: -1, bytes: 0 }),
    };
    let status = client.set_retention(negative).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    let topics = client
        .topics(TopicsRequest::default())
        .await
        .unwrap()
        .into_inner()
        .topics;
    let names: Vec<&str> = topics.iter().map(|topic| topic.name.as_str()).collect();
    assert_eq!(names, ["a", "b"]);
    assert_eq!((topics[0].first, topics[0].next), (0, 2));
    assert_eq!(topics[0].retention, Some(kept));
    assert_eq!(topics[1].retention.unwrap().age, 7 * 24 * 60 * 60);
    let from = ConsumeRequest {
        from: Some(0),
        ..ask("a", "g")
    };
    let mut consumer = GoConsumer::open(&door, service("foo"), from).await.unwrap();
    consumer.next().await;
    let ask = GroupsRequest {
        topic: "a".into(),
        ..GroupsRequest::default()
    };
    let groups = client.groups(ask).await.unwrap().into_inner().groups;
    assert_eq!(groups.len(), 1);
    let group = &groups[0];
    assert_eq!((group.topic.as_str(), group.name.as_str()), ("a", "g"));
    assert_eq!((group.position, group.lag), (0, 2));
    assert_eq!((group.in_flight, group.consumers), (2, 1));
    let delete = DeleteRequest {
        namespace: String::new(),
        topic: "a".into(),
        group: "g".into(),
    };
    client.delete(delete).await.unwrap();
    loop {
        match consumer.events.message().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("the stream ends with a reason"),
            Err(status) => {
                assert_eq!(status.code(), Code::NotFound);
                assert_eq!(detail(&status), "the group g of topic a was removed");
                break;
            }
        }
    }
    let delete = DeleteRequest {
        topic: "a".into(),
        ..DeleteRequest::default()
    };
    client.delete(delete.clone()).await.unwrap();
    let status = client.delete(delete).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
}
