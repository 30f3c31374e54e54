//! The broker as Micro's clients see it.

use std::{collections::HashMap, time::Duration};

use micro_core::{Caller, Namespace};
use micro_proto::broker::{Message, PublishRequest, SubscribeRequest, broker_client::BrokerClient};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Streaming};

use crate::{
    grpc::{As, Door, account, detail},
    node::{NEVER, Node, SOON},
};

/// Subscribes as Micro's clients do: one message, and the stream stays open.
async fn subscribe(
    door: &Door,
    caller: Caller,
    topic: &str,
    queue: &str,
) -> Result<(Streaming<Message>, mpsc::Sender<SubscribeRequest>), tonic::Status> {
    let (asks, stream) = mpsc::channel(1);
    let ask = SubscribeRequest {
        topic: topic.into(),
        queue: queue.into(),
    };
    asks.send(ask).await.unwrap();
    let mut client = BrokerClient::with_interceptor(door.channel(), As(caller));
    let answer = client.subscribe(ReceiverStream::new(stream)).await?;
    Ok((answer.into_inner(), asks))
}

fn publish(topic: &str, body: &str) -> Request<PublishRequest> {
    Request::new(PublishRequest {
        topic: topic.into(),
        message: Some(Message {
            header: HashMap::from([("Content-Type".into(), "application/grpc+proto".into())]),
            body: body.as_bytes().to_vec(),
        }),
    })
}

async fn next(messages: &mut Streaming<Message>) -> Message {
    let next = tokio::time::timeout(SOON, messages.message()).await;
    next.expect("a message comes").unwrap().unwrap()
}

#[tokio::test]
async fn messages_reach_the_subscribers_of_the_namespace() {
    let node = Node::start();
    let door = Door::open(&node.service).await;
    let plain = account("foo", "user", &[]);
    let (mut foo, _hold) = subscribe(&door, plain.clone(), "news", "").await.unwrap();
    let bar = account("bar", "service", &["service"]);
    let (mut bar, _hold2) = subscribe(&door, bar, "news", "").await.unwrap();
    let mut client = BrokerClient::with_interceptor(door.channel(), As(plain));
    let mut message = publish("news", "hello");
    let metadata = message.metadata_mut();
    metadata.insert("authorization", "Bearer secret".parse().unwrap());
    metadata.insert("x-trace", "7".parse().unwrap());
    client.publish(message).await.unwrap();
    let message = next(&mut foo).await;
    assert_eq!(message.body, b"hello");
    assert_eq!(message.header["Content-Type"], "application/grpc+proto");
    assert_eq!(message.header["X-Trace"], "7");
    let told = format!("{:?}", message.header);
    assert!(!told.contains("secret"), "{told}");
    let silence = tokio::time::timeout(NEVER, bar.message()).await;
    assert!(silence.is_err(), "{silence:?}");
}

#[tokio::test]
async fn a_service_that_says_micro_means_its_own_namespace() {
    let node = Node::start();
    let door = Door::open(&node.service).await;
    let service = Caller {
        namespace: Namespace::operator(),
        ..account("foo", "service", &["service"])
    };
    let (mut messages, _hold) = subscribe(&door, service, "news", "").await.unwrap();
    let mut client =
        BrokerClient::with_interceptor(door.channel(), As(account("foo", "user", &[])));
    client.publish(publish("news", "1")).await.unwrap();
    assert_eq!(next(&mut messages).await.body, b"1");
}

#[tokio::test]
async fn wrong_requests_say_what_micro_says() {
    let node = Node::start();
    let door = Door::open(&node.service).await;
    let nobody = Caller::anonymous(Namespace::operator());
    let mut anonymous = BrokerClient::with_interceptor(door.channel(), As(nobody.clone()));
    let status = anonymous.publish(publish("a", "1")).await.unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated);
    assert_eq!(detail(&status), "access denied to namespace");
    let status = subscribe(&door, nobody, "a", "").await.unwrap_err();
    assert_eq!(detail(&status), "access denied to namespace");
    let foo = account("foo", "user", &[]);
    let status = subscribe(&door, foo.clone(), "", "").await.unwrap_err();
    assert_eq!(
        (status.code(), detail(&status).as_str()),
        (Code::InvalidArgument, "Missing topic")
    );
    let mut client = BrokerClient::with_interceptor(door.channel(), As(foo));
    let empty = PublishRequest {
        topic: "a".into(),
        message: None,
    };
    let status = client.publish(empty).await.unwrap_err();
    assert_eq!(detail(&status), "Missing message");
}

#[tokio::test]
async fn who_hangs_up_is_forgotten() {
    let node = Node::start();
    let door = Door::open(&node.service).await;
    let foo = account("foo", "user", &[]);
    let subscribed = subscribe(&door, foo, "news", "q").await.unwrap();
    let namespace = Namespace::parse("foo").unwrap();
    assert_eq!(node.service.broker().subscribers(&namespace), 1);
    drop(subscribed);
    let begun = std::time::Instant::now();
    while node.service.broker().subscribers(&namespace) > 0 {
        assert!(begun.elapsed() < SOON);
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
