//! The four kinds of calls to an instance, and how they end.

use std::{sync::atomic::Ordering::SeqCst, time::Duration};

use bytes::Bytes;
use micro_proto::runtime::{
    CreateRequest, DeployRequest, LogsRequest, ReadOptions, ReadRequest, Service, UpdateRequest,
    UploadRequest, runtime_client::RuntimeClient, source_client::SourceClient,
};
use prost::Message as _;
use tokio_stream::{StreamExt as _, wrappers::ReceiverStream};
use tonic::{Code, Request};

use crate::{
    backend::{Backend, FAILURE},
    fixture::{Fixture, eventually, spec},
    raw::{self, Client, frame},
};

fn read(service: &str) -> ReadRequest {
    ReadRequest {
        options: Some(ReadOptions {
            service: service.into(),
            ..ReadOptions::default()
        }),
    }
}

fn deploy(name: &str) -> DeployRequest {
    DeployRequest {
        service: Some(Service {
            name: name.into(),
            ..Service::default()
        }),
        ..DeployRequest::default()
    }
}

#[tokio::test]
async fn a_unary_call_carries_headers_and_trailers_both_ways() {
    let backend = Backend::new("one");
    let instance = backend.start().await;
    let fixture = Fixture::service(&[instance.address]).await;
    let mut client = RuntimeClient::new(fixture.channel().await);

    let mut request = Request::new(read("x"));
    request
        .metadata_mut()
        .insert("x-mine", "42".parse().unwrap());
    request
        .metadata_mut()
        .insert("x-micro-account", "root".parse().unwrap());
    request
        .metadata_mut()
        .insert("authorization", "Bearer alice@micro".parse().unwrap());
    let response = client.read(request).await.unwrap();
    assert_eq!(response.metadata().get("x-answered").unwrap(), "yes");
    let service = &response.get_ref().services[0];
    assert_eq!(service.source, "x");
    assert_eq!(service.metadata["x-mine"], "42");
    assert_eq!(service.metadata["authorization"], "Bearer alice@micro");
    assert_eq!(service.metadata["micro-namespace"], "micro");
    assert!(
        !service.metadata.contains_key("x-micro-account"),
        "nobody but us says who the account is"
    );

    let status = client.create(CreateRequest::default()).await.unwrap_err();
    assert_eq!(status.code(), Code::AlreadyExists);
    assert_eq!(status.message(), FAILURE);
    assert_eq!(status.metadata().get("x-extra").unwrap(), "1");
}

#[tokio::test]
async fn all_kinds_of_streams_pass_through() {
    let backend = Backend::new("one");
    let instance = backend.start().await;
    let fixture = Fixture::service(&[instance.address]).await;
    let channel = fixture.channel().await;

    let mut client = RuntimeClient::new(channel.clone());
    let events = client.deploy(deploy("300")).await.unwrap().into_inner();
    assert_eq!(
        events.map(Result::unwrap).collect::<Vec<_>>().await.len(),
        300
    );

    // More than any flow-control window, in both directions.
    let parts = tokio_stream::iter(0..64).map(|_| UploadRequest {
        data: vec![7; 200_000],
        ..UploadRequest::default()
    });
    // The route's name is the first part of the path, so the other service has a route of its own.
    fixture
        .router
        .update(vec![spec("runtime", &[instance.address])]);
    let mut source = SourceClient::new(channel);
    let uploaded = source.upload(parts).await.unwrap().into_inner();
    assert_eq!(uploaded.id, (64 * 200_000).to_string());
    assert!(backend.seen.half_closed.swap(false, SeqCst));

    let (messages, stream) = tokio::sync::mpsc::channel(4);
    let mut echo = client
        .logs(ReceiverStream::new(stream))
        .await
        .unwrap()
        .into_inner();
    for text in ["a", "b", "c"] {
        let service = text.into();
        messages
            .send(LogsRequest {
                service,
                ..LogsRequest::default()
            })
            .await
            .unwrap();
        assert_eq!(echo.message().await.unwrap().unwrap().message, text);
    }
    drop(messages);
    assert_eq!(echo.message().await.unwrap(), None);
    assert!(
        backend.seen.half_closed.load(SeqCst),
        "the half-close reached the service"
    );
}

#[tokio::test]
async fn an_error_in_the_middle_of_a_stream_arrives_after_what_came_before() {
    let backend = Backend::new("one");
    let instance = backend.start().await;
    let fixture = Fixture::service(&[instance.address]).await;
    let mut client = RuntimeClient::new(fixture.channel().await);
    let messages = ["a", "fail"].map(|s| LogsRequest {
        service: s.into(),
        ..LogsRequest::default()
    });
    let mut echo = client
        .logs(tokio_stream::iter(messages).chain(tokio_stream::pending()))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(echo.message().await.unwrap().unwrap().message, "a");
    let status = echo.message().await.unwrap_err();
    assert_eq!(
        (status.code(), status.message()),
        (Code::Aborted, "half way")
    );
}

#[tokio::test]
async fn a_cancelled_call_is_cancelled_at_the_service() {
    let backend = Backend::new("one");
    let instance = backend.start().await;
    let fixture = Fixture::service(&[instance.address]).await;
    let mut client = RuntimeClient::new(fixture.channel().await);

    // While it waits for the answer.
    let mut waiting = client.clone();
    let call = tokio::spawn(async move { waiting.update(UpdateRequest::default()).await });
    eventually("the call arrives", || backend.seen.calls.load(SeqCst) == 1).await;
    call.abort();
    eventually("the waiting call is cancelled", || {
        backend.seen.cancelled.load(SeqCst)
    })
    .await;

    // In the middle of the answer.
    backend.seen.cancelled.store(false, SeqCst);
    let mut endless = client.deploy(deploy("endless")).await.unwrap().into_inner();
    endless.message().await.unwrap().unwrap();
    drop(endless);
    eventually("the stream is cancelled", || {
        backend.seen.cancelled.load(SeqCst)
    })
    .await;

    // In the middle of a request.
    backend.seen.cancelled.store(false, SeqCst);
    let mut raw = Client::connect(fixture.address).await;
    let mut open = raw.open("/runtime.Runtime/Logs", &[]);
    let message = LogsRequest::default().encode_to_vec();
    open.send.send_data(frame(&message), false).unwrap();
    let mut body = open.response.await.unwrap().into_body();
    raw::chunk(&mut body).await;
    open.send.send_reset(h2::Reason::CANCEL);
    eventually("the echo is cancelled", || {
        backend.seen.cancelled.load(SeqCst)
    })
    .await;
}

#[tokio::test]
async fn deadlines_hold_in_both_spellings() {
    let backend = Backend::new("one");
    let instance = backend.start().await;
    let fixture = Fixture::service(&[instance.address]).await;
    let mut client = RuntimeClient::new(fixture.channel().await);
    let mut request = Request::new(UpdateRequest::default());
    request.set_timeout(Duration::from_millis(50));
    let status = client.update(request).await.unwrap_err();
    assert!(matches!(
        status.code(),
        Code::DeadlineExceeded | Code::Cancelled
    ));

    // Micro's: nanoseconds. The instance is told in the standard way.
    let mut raw = Client::connect(fixture.address).await;
    let answer = raw
        .call("/runtime.Runtime/Update", &[("timeout", "50000000")], b"")
        .await;
    let (code, message) = answer.status();
    assert_eq!(code, 4);
    assert!(message.contains("no answer within 50 ms"), "{message}");
    let answer = raw
        .call("/runtime.Runtime/Read", &[("timeout", "5000000000")], b"")
        .await;
    let read = micro_proto::runtime::ReadResponse::decode(answer.messages[0].clone()).unwrap();
    assert_eq!(read.services[0].metadata["grpc-timeout"], "5000000u");
}

#[tokio::test]
async fn a_service_is_reached_by_its_own_name_and_by_its_proto_name() {
    let backend = Backend::new("one");
    let instance = backend.start().await;
    let fixture = Fixture::with(vec![spec("jobs", &[instance.address])], None).await;
    let mut raw = Client::connect(fixture.address).await;
    for path in ["/jobs.Runtime/Read", "/runtime.Runtime/Read"] {
        let answer = raw.call(path, &[], b"").await;
        assert_eq!(answer.status(), (0, String::new()), "{path}");
    }
}

#[tokio::test]
async fn unknown_endpoints_and_paths_answer_with_the_texts_that_clients_know() {
    let backend = Backend::new("one");
    let instance = backend.start().await;
    let fixture = Fixture::service(&[instance.address]).await;
    let mut raw = Client::connect(fixture.address).await;
    for (path, code, text) in [
        ("/runtime.Foo/Bar", 12, "unknown service Foo"),
        ("/runtime.Runtime/Bar", 12, "unknown service Runtime.Bar"),
        ("/Bar", 12, "malformed method name: \"Bar\""),
        ("/a.b/c/d", 3, "malformed method name: \"a.b/c/d\""),
    ] {
        let answer = raw.call(path, &[], b"").await;
        assert_eq!(answer.status(), (code, text.to_owned()), "{path}");
    }
    for (path, detail) in [
        ("/nobody.Foo/Bar", "service nobody: route not found"),
        ("/Foo/Bar", "service name is blank"),
    ] {
        let (_, message) = raw.call(path, &[], b"").await.status();
        let error = micro_core::WireError::parse(&message).unwrap();
        assert_eq!(error.detail, detail);
    }
}

#[tokio::test]
async fn a_stream_that_is_never_half_closed_is_answered() {
    // tonic waits for the end of a request before it starts a handler that takes one message.
    let backend = Backend::new("one");
    let instance = backend.start().await;
    let fixture = Fixture::service(&[instance.address]).await;
    let mut raw = Client::connect(fixture.address).await;
    let answer = raw
        .call_open("/runtime.Runtime/Deploy", &[], &deploy("3").encode_to_vec())
        .await;
    assert_eq!(answer.messages.len(), 3);
    assert_eq!(answer.status().0, 0);
}

#[tokio::test]
async fn neither_direction_of_a_stream_waits_for_the_other() {
    // A service that says more than any window holds, to a client that listens to nothing before it
    // has said all: the request must get through while the answer is stuck.
    const SIZE: usize = 8 << 20;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (heard, all) = tokio::sync::oneshot::channel();
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let mut connection = h2::server::handshake(stream).await.unwrap();
        let (request, mut respond) = connection.accept().await.unwrap().unwrap();
        tokio::spawn(async move { while connection.accept().await.is_some() {} });
        let response = http::Response::builder()
            .header("content-type", "application/grpc")
            .body(())
            .unwrap();
        let mut send = respond.send_response(response, false).unwrap();
        send.send_data(Bytes::from(vec![0; SIZE]), false).unwrap();
        let mut body = request.into_body();
        let mut bytes = 0;
        while let Some(chunk) = body.data().await {
            bytes += chunk.as_ref().unwrap().len();
            body.flow_control()
                .release_capacity(chunk.unwrap().len())
                .unwrap();
        }
        heard.send(bytes).unwrap();
        std::future::pending::<()>().await;
    });
    let fixture = Fixture::service(&[address]).await;
    let mut raw = Client::connect(fixture.address).await;
    let mut open = raw.open("/runtime.Runtime/Logs", &[]);
    open.send
        .send_data(Bytes::from(vec![0; SIZE]), true)
        .unwrap();
    let bytes = tokio::time::timeout(Duration::from_secs(10), all).await;
    assert_eq!(bytes.expect("the request is not stuck").unwrap(), SIZE);
    drop(open.response);
}

#[tokio::test]
async fn a_service_that_dies_in_the_middle_ends_the_stream_as_unavailable() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let mut connection = h2::server::handshake(stream).await.unwrap();
        let (_, mut respond) = connection.accept().await.unwrap().unwrap();
        let response = http::Response::builder()
            .header("content-type", "application/grpc")
            .body(())
            .unwrap();
        let mut send = respond.send_response(response, false).unwrap();
        send.send_data(frame(b""), false).unwrap();
        // Flush, then vanish.
        let _ = tokio::time::timeout(Duration::from_millis(100), connection.accept()).await;
    });
    let fixture = Fixture::service(&[address]).await;
    let mut raw = Client::connect(fixture.address).await;
    let answer = raw.call("/runtime.Runtime/Deploy", &[], b"").await;
    assert_eq!(answer.messages, [Bytes::new()]);
    let (code, message) = answer.status();
    assert_eq!(code, 14);
    assert!(message.contains(&address.to_string()), "{message}");
}

#[tokio::test]
async fn a_reset_in_the_middle_is_passed_on_with_its_reason() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let mut connection = h2::server::handshake(stream).await.unwrap();
        let (_, mut respond) = connection.accept().await.unwrap().unwrap();
        let response = http::Response::builder()
            .header("content-type", "application/grpc")
            .body(())
            .unwrap();
        let mut send = respond.send_response(response, false).unwrap();
        send.send_data(frame(b""), false).unwrap();
        let _ = tokio::time::timeout(Duration::from_millis(100), connection.accept()).await;
        send.send_reset(h2::Reason::ENHANCE_YOUR_CALM);
        connection.accept().await;
    });
    let fixture = Fixture::service(&[address]).await;
    let mut raw = Client::connect(fixture.address).await;
    let answer = raw.call("/runtime.Runtime/Deploy", &[], b"").await;
    assert_eq!(answer.reset, Some(h2::Reason::ENHANCE_YOUR_CALM));
}

#[tokio::test]
async fn calls_are_counted_by_service_and_end() {
    let backend = Backend::new("one");
    let instance = backend.start().await;
    let fixture = Fixture::service(&[instance.address]).await;
    let mut client = RuntimeClient::new(fixture.channel().await);
    client.read(read("x")).await.unwrap();
    client.create(CreateRequest::default()).await.unwrap_err();
    let page = fixture.pipeline.metrics();
    for line in [
        "micro_requests_total{door=\"proxy\",namespace=\"micro\",service=\"runtime\",code=\"ok\"} 1",
        "micro_requests_total{door=\"proxy\",namespace=\"micro\",service=\"runtime\",code=\"already_exists\"} 1",
        &format!(
            "micro_requests_in_flight{{namespace=\"micro\",service=\"runtime\",instance=\"{}\"}} 0",
            instance.address
        ),
    ] {
        assert!(page.contains(line), "{line}\nis not in\n{page}");
    }
}
