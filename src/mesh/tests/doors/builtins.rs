//! Services in the process itself.

use std::sync::atomic::Ordering::SeqCst;

use micro_proto::runtime::{
    DeployRequest, LogsRequest, ReadRequest, Service, UpdateRequest, runtime_client::RuntimeClient,
};
use prost::Message as _;
use tonic::Request;

use crate::{
    backend::{Backend, FAILURE},
    fixture::{Fixture, eventually},
    raw::Client,
};

#[tokio::test]
async fn a_builtin_answers_in_every_namespace_and_knows_its_caller() {
    let backend = Backend::new("inside");
    let fixture = Fixture::builtin(&backend).await;
    let mut client = RuntimeClient::new(fixture.channel().await);
    let mut request = Request::new(ReadRequest::default());
    request
        .metadata_mut()
        .insert("authorization", "Bearer alice@foo".parse().unwrap());
    let response = client.read(request).await.unwrap();
    assert_eq!(response.get_ref().services[0].name, "inside");
    let caller = backend.seen.caller.lock().unwrap().take().unwrap();
    assert_eq!(caller.namespace.as_str(), "foo", "the account's own");
    assert_eq!(caller.account.unwrap().id.as_str(), "alice");

    let mut request = Request::new(ReadRequest::default());
    request
        .metadata_mut()
        .insert("micro-namespace", "bar".parse().unwrap());
    client.read(request).await.unwrap();
    let caller = backend.seen.caller.lock().unwrap().take().unwrap();
    assert_eq!(caller.namespace.as_str(), "bar");
    assert!(caller.account.is_none());
}

#[tokio::test]
async fn a_builtin_answers_although_the_stream_is_never_half_closed() {
    let fixture = Fixture::builtin(&Backend::new("inside")).await;
    let mut raw = Client::connect(fixture.address).await;
    let answer = raw.call_open("/runtime.Runtime/Read", &[], b"").await;
    assert_eq!(answer.messages.len(), 1);
    assert_eq!(answer.status().0, 0);

    let three = DeployRequest {
        service: Some(Service {
            name: "3".into(),
            ..Service::default()
        }),
        ..DeployRequest::default()
    };
    let answer = raw
        .call_open("/runtime.Runtime/Deploy", &[], &three.encode_to_vec())
        .await;
    assert_eq!(answer.messages.len(), 3);

    let answer = raw
        .call_open(
            "/runtime.Runtime/Create",
            &[("content-type", "application/grpc+proto")],
            b"",
        )
        .await;
    assert_eq!(answer.status(), (6, FAILURE.to_owned()));
    assert_eq!(answer.headers["content-type"], "application/grpc+proto");
}

#[tokio::test]
async fn streams_to_a_builtin_go_both_ways() {
    let fixture = Fixture::builtin(&Backend::new("inside")).await;
    let mut client = RuntimeClient::new(fixture.channel().await);
    let messages = ["a", "b"].map(|s| LogsRequest {
        service: s.into(),
        ..LogsRequest::default()
    });
    let mut echo = client
        .logs(tokio_stream::iter(messages))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(echo.message().await.unwrap().unwrap().message, "a");
    assert_eq!(echo.message().await.unwrap().unwrap().message, "b");
    assert_eq!(echo.message().await.unwrap(), None);
}

#[tokio::test]
async fn a_builtin_is_held_to_the_callers_deadline() {
    let backend = Backend::new("inside");
    let fixture = Fixture::builtin(&backend).await;
    let mut raw = Client::connect(fixture.address).await;
    for deadline in [("grpc-timeout", "50m"), ("timeout", "50000000")] {
        let message = UpdateRequest::default().encode_to_vec();
        let answer = raw
            .call("/runtime.Runtime/Update", &[deadline], &message)
            .await;
        assert_eq!(answer.status().0, 4);
        eventually("the handler is dropped", || {
            backend.seen.cancelled.swap(false, SeqCst)
        })
        .await;
    }
}

#[tokio::test]
async fn an_unknown_method_of_a_builtin_is_named() {
    let fixture = Fixture::builtin(&Backend::new("inside")).await;
    let mut raw = Client::connect(fixture.address).await;
    let answer = raw.call("/runtime.Runtime/Nope", &[], b"").await;
    assert_eq!(
        answer.status(),
        (12, "unknown service Runtime.Nope".to_owned())
    );
}
