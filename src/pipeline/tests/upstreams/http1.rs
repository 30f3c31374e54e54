//! HTTP/1.1 passed through a small door.

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::StreamExt as _;
use http::{HeaderMap, Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt as _, Empty, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use micro_pipeline::{Builtins, Peer, Protocol, Upstreams};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

use crate::fixture::{Fixture, dead, spec};

type Reply = Response<UnsyncBoxBody<Bytes, Infallible>>;

fn full(text: impl Into<Bytes>) -> UnsyncBoxBody<Bytes, Infallible> {
    Full::new(text.into()).boxed_unsync()
}

/// An instance that speaks HTTP, and how many connections it has taken.
async fn instance() -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let connections = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&connections);
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            counter.fetch_add(1, SeqCst);
            let served = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service_fn(answer))
                .with_upgrades();
            tokio::spawn(served);
        }
    });
    (address, connections)
}

async fn answer(mut request: Request<Incoming>) -> Result<Reply, Infallible> {
    let response = match request.uri().path() {
        "/headers" => {
            let mut lines: Vec<String> = request
                .headers()
                .iter()
                .map(|(n, v)| format!("{n}: {}", v.to_str().unwrap()))
                .collect();
            lines.sort();
            let text = format!(
                "{} {}\n{}",
                request.method(),
                request.uri(),
                lines.join("\n")
            );
            Response::new(full(text))
        }
        "/echo" => {
            let bytes = request.into_body().collect().await.unwrap().to_bytes();
            Response::new(full(bytes))
        }
        "/events" => {
            let events = futures_util::stream::iter(["data: 1\n\n", "data: 2\n\n"])
                .map(|e| Ok(Frame::data(Bytes::from(e))))
                .chain(futures_util::stream::pending());
            Response::builder()
                .header("content-type", "text/event-stream")
                .body(StreamBody::new(events).boxed_unsync())
                .unwrap()
        }
        "/upgrade" => {
            let upgrade = hyper::upgrade::on(&mut request);
            tokio::spawn(async move {
                let mut io = TokioIo::new(upgrade.await.unwrap());
                let mut word = [0; 4];
                io.read_exact(&mut word).await.unwrap();
                word.reverse();
                io.write_all(&word).await.unwrap();
                io.shutdown().await.unwrap();
            });
            Response::builder()
                .status(101)
                .header("connection", "upgrade")
                .header("upgrade", "mirror")
                .body(Empty::new().boxed_unsync())
                .unwrap()
        }
        _ => Response::builder()
            .status(404)
            .body(full("nothing"))
            .unwrap(),
    };
    Ok(response)
}

/// A door that passes everything on to the service `web`.
async fn door(fixture: Fixture) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (fixture, upstreams) = (Arc::new(fixture), Upstreams::new());
    tokio::spawn(async move {
        loop {
            let (stream, peer) = listener.accept().await.unwrap();
            let (fixture, upstreams) = (Arc::clone(&fixture), upstreams.clone());
            let service = service_fn(move |mut request: Request<Incoming>| {
                let (fixture, upstreams) = (Arc::clone(&fixture), upstreams.clone());
                async move {
                    request.extensions_mut().insert(Peer {
                        address: peer,
                        tls: true,
                    });
                    let admitted = fixture.ask("web", "Web.Call", request.headers()).unwrap();
                    Ok::<_, Infallible>(upstreams.forward_http(&admitted, request).await)
                }
            });
            tokio::spawn(
                hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service)
                    .with_upgrades(),
            );
        }
    });
    address
}

async fn web(addresses: &[SocketAddr]) -> SocketAddr {
    let routes = vec![spec("web", Protocol::Http, addresses)];
    door(Fixture::with(routes, Builtins::new())).await
}

async fn send(door: SocketAddr, request: Request<Full<Bytes>>) -> Response<Incoming> {
    let stream = TcpStream::connect(door).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .unwrap();
    tokio::spawn(connection.with_upgrades());
    sender.send_request(request).await.unwrap()
}

async fn get(door: SocketAddr, path: &str, pairs: &[(&str, &str)]) -> (u16, HeaderMap, String) {
    let mut request = Request::get(path).header("host", "example.com");
    for (name, value) in pairs {
        request = request.header(*name, *value);
    }
    let response = send(door, request.body(Full::default()).unwrap()).await;
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, headers, String::from_utf8(body.to_vec()).unwrap())
}

#[tokio::test]
async fn an_instance_learns_who_calls_and_believes_nobody_else() {
    let (address, _) = instance().await;
    let door = web(&[address]).await;
    let (status, _, text) = get(
        door,
        "/headers?a=1",
        &[
            ("authorization", "Bearer alice@micro"),
            ("x-micro-account", "root"),
            ("x-micro-anything", "1"),
            ("x-forwarded-for", "10.0.0.1"),
            ("connection", "x-private"),
            ("x-private", "1"),
            ("te", "gzip"),
        ],
    )
    .await;
    assert_eq!(status, 200);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], "GET /headers?a=1");
    for line in [
        "authorization: Bearer alice@micro",
        "host: example.com",
        "micro-namespace: micro",
        "x-forwarded-for: 10.0.0.1, 127.0.0.1",
        "x-forwarded-host: example.com",
        "x-forwarded-proto: https",
        "x-micro-account: alice",
    ] {
        assert!(lines.contains(&line), "{line}\nis not in\n{text}");
    }
    for gone in ["x-private", "x-micro-anything", "te:", "connection"] {
        assert!(!text.contains(gone), "{gone} is in\n{text}");
    }

    // An account of another namespace is nobody here.
    let foreign = [
        ("authorization", "Bearer alice@foo"),
        ("micro-namespace", "micro"),
    ];
    let (_, _, text) = get(door, "/headers", &foreign).await;
    assert!(!text.contains("x-micro-account"), "{text}");
}

#[tokio::test]
async fn bodies_and_statuses_pass_and_connections_are_kept() {
    let (address, connections) = instance().await;
    let door = web(&[address]).await;
    for size in [0, 10, 3 << 20] {
        let request = Request::post("/echo")
            .header("host", "x")
            .body(Full::new(Bytes::from(vec![b'x'; size])))
            .unwrap();
        let response = send(door, request).await;
        let body = response.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(body.len(), size);
    }
    assert_eq!(get(door, "/nowhere", &[]).await.0, 404);
    assert_eq!(connections.load(SeqCst), 1);
}

#[tokio::test]
async fn events_arrive_as_they_happen() {
    let (address, _) = instance().await;
    let door = web(&[address]).await;
    let request = Request::get("/events").header("host", "x");
    let response = send(door, request.body(Full::default()).unwrap()).await;
    let mut body = response.into_body();
    let mut text = String::new();
    while !text.contains("data: 2") {
        let frame = tokio::time::timeout(Duration::from_secs(5), body.frame())
            .await
            .expect("the stream does not wait for its end");
        let chunk = frame.unwrap().unwrap().into_data().unwrap();
        text.push_str(std::str::from_utf8(&chunk).unwrap());
    }
}

#[tokio::test]
async fn a_change_of_protocols_becomes_a_tunnel() {
    let (address, _) = instance().await;
    let door = web(&[address]).await;
    let request = Request::get("/upgrade")
        .header("host", "x")
        .header("connection", "keep-alive, Upgrade")
        .header("upgrade", "mirror")
        .body(Full::default())
        .unwrap();
    let mut response = send(door, request).await;
    assert_eq!(response.status(), 101);
    assert_eq!(response.headers()["upgrade"], "mirror");
    let mut io = TokioIo::new(hyper::upgrade::on(&mut response).await.unwrap());
    io.write_all(b"abcd").await.unwrap();
    let mut word = String::new();
    io.read_to_string(&mut word).await.unwrap();
    assert_eq!(word, "dcba");
}

#[tokio::test]
async fn dead_instances_are_passed_over_and_missing_ones_named() {
    let (address, _) = instance().await;
    let door = web(&[dead().await, address]).await;
    for _ in 0..10 {
        assert_eq!(get(door, "/headers", &[]).await.0, 200);
    }
    let (status, headers, text) = get(web(&[dead().await]).await, "/headers", &[]).await;
    assert_eq!(
        (status, headers["content-type"].as_bytes()),
        (503, &b"application/json"[..])
    );
    assert!(text.contains("connection refused"), "{text}");
    let (status, _, text) = get(web(&[]).await, "/headers", &[]).await;
    assert_eq!(status, 503);
    let error: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert!(
        error["detail"]
            .as_str()
            .unwrap()
            .contains("no instance is running")
    );
}

#[tokio::test]
async fn a_kept_connection_that_was_closed_meanwhile_is_replaced() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            // One answer that promises to keep the connection, and then breaks the promise.
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut seen = [0; 1024];
            let _ = stream.read(&mut seen).await.unwrap();
            let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
            stream.write_all(answer).await.unwrap();
        }
    });
    let door = web(&[address]).await;
    for _ in 0..10 {
        assert_eq!(get(door, "/", &[]).await.0, 200);
    }
}

#[tokio::test]
async fn a_caller_who_dawdles_after_the_answer_holds_up_nobody_else() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            // Answers each request at its head and never closes.
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let mut seen = [0; 1024];
                while stream.read(&mut seen).await.is_ok_and(|n| n > 1) {
                    let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
                    stream.write_all(answer).await.unwrap();
                }
            });
        }
    });
    let door = web(&[address]).await;
    let mut slow = TcpStream::connect(door).await.unwrap();
    slow.write_all(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\n")
        .await
        .unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"ok") {
        assert_ne!(slow.read_buf(&mut answer).await.unwrap(), 0);
    }
    for _ in 0..3 {
        let other = tokio::time::timeout(Duration::from_secs(5), get(door, "/", &[])).await;
        assert_eq!(other.expect("somebody else is answered").0, 200);
    }
    drop(slow);
}

#[tokio::test]
async fn a_token_is_shown_to_services_of_its_own_namespace_only() {
    let (address, _) = instance().await;
    let door = web(&[address]).await;
    let seen = |pairs: &'static [(&'static str, &'static str)]| async move {
        get(door, "/headers", pairs).await.2
    };
    let foreign = seen(&[
        ("authorization", "Bearer alice@foo"),
        ("authorization", "Bearer second@foo"),
        ("cookie", "a=b; micro-token=alice@foo; c=d"),
        ("micro-namespace", "micro"),
        ("micro-namespace", "foo"),
    ])
    .await;
    assert!(!foreign.contains("@foo"), "{foreign}");
    assert!(foreign.contains("\ncookie: a=b; c=d"), "{foreign}");
    assert!(!foreign.contains("micro-namespace: foo"), "{foreign}");
    // What is no token of this platform is between the caller and the service.
    let own = seen(&[("authorization", "Bearer of-the-service")]).await;
    assert!(
        own.contains("authorization: Bearer of-the-service"),
        "{own}"
    );
    let basic = seen(&[("authorization", "Basic eDp5")]).await;
    assert!(basic.contains("authorization: Basic eDp5"), "{basic}");
}
