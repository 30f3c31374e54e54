//! Calls that we make ourselves.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http::HeaderMap;
use micro_core::WireError;
use micro_pipeline::{Builtins, Limits, Upstreams};
use micro_proto::runtime::{
    BuildReadResponse, Service,
    build_server::{Build, BuildServer},
};
use prost::Message as _;
use tokio::net::TcpListener;

use crate::fixture::{Fixture, Instance, Script, dead, eventually, headers, instance, ok, schema};

const LONG: Duration = Duration::from_secs(10);

async fn call(
    fixture: &Fixture,
    upstreams: &Upstreams,
    headers: &HeaderMap,
) -> Result<Bytes, WireError> {
    let admitted = fixture.admit("jobs", "Runtime.Read");
    let method = admitted.method().unwrap();
    upstreams
        .unary(
            &admitted,
            method,
            Bytes::from_static(b"hello"),
            headers,
            LONG,
        )
        .await
}

fn failed(script_trailers: Vec<(&'static str, String)>) -> Script {
    Script::Say(vec![], script_trailers)
}

#[tokio::test]
async fn a_message_goes_out_and_one_comes_back() {
    let Instance { address, head, .. } = instance(Script::Echo(ok())).await;
    let fixture = Fixture::grpc(&[address]);
    let sent = headers(&[
        ("host", "example.com"),
        ("connection", "keep-alive"),
        ("content-type", "application/json"),
        ("content-length", "17"),
        ("x-micro-account", "root"),
        ("x-mine", "1"),
    ]);
    let answer = call(&fixture, &Upstreams::new(), &sent).await.unwrap();
    assert_eq!(answer, "hello");
    let head = head.lock().unwrap().take().unwrap();
    assert_eq!(head.uri().path(), "/runtime.Runtime/Read");
    let get = |name: &str| head.headers().get(name).map(|v| v.to_str().unwrap());
    assert_eq!(get("content-type"), Some("application/grpc+proto"));
    assert_eq!(get("micro-namespace"), Some("micro"));
    assert_eq!(get("x-mine"), Some("1"));
    assert_eq!(get("te"), Some("trailers"));
    assert_eq!(get("grpc-timeout"), Some("10000000u"));
    for gone in ["host", "content-length", "x-micro-account"] {
        assert_eq!(get(gone), None, "{gone}");
    }
}

#[tokio::test]
async fn a_large_message_needs_no_special_care() {
    let Instance { address, .. } = instance(Script::Echo(ok())).await;
    let fixture = Fixture::grpc(&[address]);
    let admitted = fixture.admit("jobs", "Runtime.Read");
    let method = admitted.method().unwrap();
    let large = Bytes::from(vec![1; 20 << 20]);
    let answer = Upstreams::new()
        .unary(&admitted, method, large.clone(), &HeaderMap::new(), LONG)
        .await
        .unwrap();
    assert_eq!(answer, large);
    let small = Upstreams::with(Limits {
        message: 1000,
        ..Limits::default()
    });
    let error = small
        .unary(&admitted, method, large, &HeaderMap::new(), LONG)
        .await
        .unwrap_err();
    assert_eq!(error.code, 429);
}

#[tokio::test]
async fn failures_are_micros_objects() {
    let own = r#"{"id":"jobs","code":404,"detail":"gone","status":"Not Found"}"#;
    for (script, code, detail) in [
        (
            failed(vec![
                ("grpc-status", "5".into()),
                ("grpc-message", own.into()),
            ]),
            404,
            "gone",
        ),
        (
            failed(vec![
                ("grpc-status", "2".into()),
                ("grpc-message", "plain%21".into()),
            ]),
            500,
            "plain!",
        ),
        (failed(ok()), 500, "it holds no message"),
        (
            Script::Say(vec![Bytes::new(), Bytes::new()], ok()),
            500,
            "more than one message",
        ),
        (failed(vec![("x-none", "1".into())]), 500, "no message"),
        (Script::Status(404), 500, "HTTP status 404"),
    ] {
        let Instance { address, .. } = instance(script).await;
        let fixture = Fixture::grpc(&[address]);
        let error = call(&fixture, &Upstreams::new(), &HeaderMap::new())
            .await
            .unwrap_err();
        assert_eq!(error.code, code, "{error:?}");
        assert!(error.detail.contains(detail), "{error:?}");
    }
}

#[tokio::test]
async fn a_call_ends_at_its_deadline_and_the_instance_is_told() {
    let Instance { address, reset, .. } = instance(Script::Hang).await;
    let fixture = Fixture::grpc(&[address]);
    let admitted = fixture.admit("jobs", "Runtime.Read");
    let started = Instant::now();
    let error = Upstreams::new()
        .unary(
            &admitted,
            admitted.method().unwrap(),
            Bytes::new(),
            &HeaderMap::new(),
            Duration::from_millis(50),
        )
        .await
        .unwrap_err();
    assert_eq!(error.code, 408);
    assert!(started.elapsed() < Duration::from_secs(5));
    eventually("the stream is reset", || reset.load(SeqCst)).await;
}

#[tokio::test]
async fn the_living_instance_answers_for_the_dead_ones() {
    let Instance { address, .. } = instance(Script::Echo(ok())).await;
    let fixture = Fixture::grpc(&[dead().await, address, dead().await]);
    let upstreams = Upstreams::new();
    for _ in 0..30 {
        call(&fixture, &upstreams, &HeaderMap::new()).await.unwrap();
    }
    let fixture = Fixture::grpc(&[dead().await, dead().await]);
    let error = call(&fixture, &upstreams, &HeaderMap::new())
        .await
        .unwrap_err();
    assert_eq!(error.code, 503);
    assert!(error.detail.contains("connection refused"), "{error:?}");
}

#[tokio::test]
async fn calls_share_a_connection_and_an_idle_one_is_closed() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (opened, closed) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let counters = (Arc::clone(&opened), Arc::clone(&closed));
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            counters.0.fetch_add(1, SeqCst);
            let closed = Arc::clone(&counters.1);
            tokio::spawn(async move {
                let mut connection = h2::server::handshake(stream).await.unwrap();
                while let Some(Ok((_, mut respond))) = connection.accept().await {
                    let response = http::Response::builder()
                        .header("content-type", "application/grpc")
                        .body(())
                        .unwrap();
                    let mut send = respond.send_response(response, false).unwrap();
                    send.send_data(crate::fixture::frame(b"x"), false).unwrap();
                    send.send_trailers(headers(&[("grpc-status", "0")]))
                        .unwrap();
                }
                closed.fetch_add(1, SeqCst);
            });
        }
    });
    let fixture = Fixture::grpc(&[address]);
    let upstreams = Upstreams::with(Limits {
        idle: Duration::from_millis(30),
        ..Limits::default()
    });
    let none = HeaderMap::new();
    let calls = (0..50).map(|_| call(&fixture, &upstreams, &none));
    for answer in futures_util::future::join_all(calls).await {
        answer.unwrap();
    }
    assert_eq!(opened.load(SeqCst), 1);
    eventually("the connection is closed", || closed.load(SeqCst) == 1).await;
    call(&fixture, &upstreams, &none).await.unwrap();
    assert_eq!(opened.load(SeqCst), 2);
}

#[tokio::test]
async fn streams_go_both_ways_and_end_with_a_status() {
    let Instance { address, .. } = instance(Script::Echo(ok())).await;
    let fixture = Fixture::grpc(&[address]);
    let admitted = fixture.admit("jobs", "Runtime.Logs");
    let method = admitted.method().unwrap();
    let requests = stream::iter(["a", "bb", ""].map(Bytes::from));
    let responses = Upstreams::new()
        .stream(&admitted, method, requests, &HeaderMap::new())
        .await
        .unwrap();
    let texts: Vec<Bytes> = responses.map(Result::unwrap).collect().await;
    assert_eq!(texts, ["a", "bb", ""]);

    let trailers = vec![
        ("grpc-status", "10".into()),
        ("grpc-message", "half way".into()),
    ];
    let Instance { address, .. } = instance(Script::Say(vec![Bytes::from("a")], trailers)).await;
    let fixture = Fixture::grpc(&[address]);
    let admitted = fixture.admit("jobs", "Runtime.Deploy");
    let method = admitted.method().unwrap();
    let mut responses = Upstreams::new()
        .stream(&admitted, method, stream::empty(), &HeaderMap::new())
        .await
        .unwrap();
    assert_eq!(responses.next().await.unwrap().unwrap(), "a");
    let error = responses.next().await.unwrap().unwrap_err();
    assert_eq!((error.code, error.detail.as_str()), (409, "half way"));
    assert!(responses.next().await.is_none());
}

#[tokio::test]
async fn a_dropped_stream_is_cancelled_at_the_instance() {
    let Instance { address, reset, .. } = instance(Script::Echo(ok())).await;
    let fixture = Fixture::grpc(&[address]);
    let admitted = fixture.admit("jobs", "Runtime.Logs");
    let method = admitted.method().unwrap();
    let requests = stream::iter([Bytes::from("a")]).chain(stream::pending());
    let mut responses = Upstreams::new()
        .stream(&admitted, method, requests, &HeaderMap::new())
        .await
        .unwrap();
    assert_eq!(responses.next().await.unwrap().unwrap(), "a");
    assert!(!reset.load(SeqCst));
    drop(responses);
    eventually("the stream is reset", || reset.load(SeqCst)).await;

    let fixture = Fixture::grpc(&[dead().await]);
    let admitted = fixture.admit("jobs", "Runtime.Logs");
    let method = admitted.method().unwrap();
    let mut responses = Upstreams::new()
        .stream(&admitted, method, stream::empty(), &HeaderMap::new())
        .await
        .unwrap();
    assert_eq!(responses.next().await.unwrap().unwrap_err().code, 503);
}

struct Echo;

#[tonic::async_trait]
impl Build for Echo {
    type ReadStream = stream::BoxStream<'static, Result<BuildReadResponse, tonic::Status>>;

    async fn read(
        &self,
        request: tonic::Request<tonic::Streaming<Service>>,
    ) -> Result<tonic::Response<Self::ReadStream>, tonic::Status> {
        let answers = request.into_inner().map(|service| {
            Ok(BuildReadResponse {
                data: service?.name.into(),
            })
        });
        Ok(tonic::Response::new(answers.boxed()))
    }
}

#[tokio::test]
async fn a_builtin_is_called_without_a_connection() {
    let mut builtins = Builtins::new();
    let routes = tonic::service::Routes::new(BuildServer::new(Echo));
    builtins.add("runtime", schema(), routes);
    let fixture = Fixture::with(vec![], builtins);
    let admitted = fixture.admit("runtime", "Build.Read");
    let method = admitted.method().unwrap();
    let request = Service {
        name: "x".into(),
        ..Service::default()
    };
    let message = Bytes::from(request.encode_to_vec());
    let expected = BuildReadResponse {
        data: b"x".to_vec(),
    }
    .encode_to_vec();
    let upstreams = Upstreams::new();
    let none = HeaderMap::new();
    let answer = upstreams
        .unary(&admitted, method, message.clone(), &none, LONG)
        .await
        .unwrap();
    assert_eq!(answer, expected);
    let requests = stream::iter([message.clone(), message]);
    let responses = upstreams
        .stream(&admitted, method, requests, &none)
        .await
        .unwrap();
    let answers: Vec<Bytes> = responses.map(Result::unwrap).collect().await;
    assert_eq!(answers, [expected.clone(), expected]);
    let page = fixture.pipeline.metrics();
    assert!(page.contains(
        "micro_requests_total{door=\"gateway\",namespace=\"micro\",service=\"runtime\",code=\"ok\"} 2"
    ), "{page}");
}
