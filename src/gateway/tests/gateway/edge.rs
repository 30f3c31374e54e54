//! What all requests have in common: refusals, CORS, fixed routes, protocols, the end.

use http::Request;
use http_body_util::BodyExt as _;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::node::Node;

#[tokio::test]
async fn refusals_by_rules_are_texts() {
    let node = Node::start().await;
    let create = |token: Option<&str>| {
        let request = Request::post("/runtime/CREATE");
        let request = match token {
            Some(token) => request.header("authorization", format!("Bearer {token}")),
            None => request,
        };
        request.body("{}").unwrap()
    };
    for (token, status, text) in [
        (None, 401, "unauthorized request\n"),
        (Some("garbage"), 401, "unauthorized request\n"),
        (Some("micro-alice"), 403, "Forbidden request\n"),
        (Some("micro-admin"), 200, "{}"),
    ] {
        let answer = node.send(create(token)).await;
        assert_eq!(
            (answer.status, &*answer.body),
            (status, text.as_bytes()),
            "{token:?}"
        );
        if status != 200 {
            assert_eq!(answer.header("content-type"), "text/plain; charset=utf-8");
        }
        assert_eq!(answer.header("access-control-allow-origin"), "*");
    }
}

#[tokio::test]
async fn every_answer_carries_the_cross_origin_headers() {
    let node = Node::start().await;
    for path in [
        "/",
        "/favicon.ico",
        "/runtime/read",
        "/nothing",
        "/web/",
        "//",
        "/%",
    ] {
        let request = Request::get(path)
            .header("origin", "https://a.example")
            .body("")
            .unwrap();
        let answer = node.send(request).await;
        assert_eq!(
            answer.header("access-control-allow-origin"),
            "https://a.example",
            "{path}"
        );
        // The cookies of a plain HTTP service are its own; see `origin.rs` for ours.
        let credentials = if path == "/web/" { "" } else { "true" };
        assert_eq!(
            answer.header("access-control-allow-credentials"),
            credentials,
            "{path}"
        );
        assert_eq!(
            answer.header("access-control-allow-methods"),
            "POST, PATCH, GET, OPTIONS, PUT, DELETE"
        );
        assert_eq!(
            answer.header("access-control-allow-headers"),
            "Accept, Content-Type, Content-Length, Accept-Encoding, X-CSRF-Token, Authorization, Micro-Namespace"
        );
    }
    let preflight = node
        .send(Request::options("/runtime/create").body("").unwrap())
        .await;
    assert_eq!((preflight.status, preflight.body.len()), (200, 0));
    assert_eq!(preflight.header("access-control-allow-origin"), "*");
    assert_eq!(preflight.header("access-control-allow-credentials"), "true");
    for page in ["/web/a", "/cart/a/b"] {
        let preflight = node.send(Request::options(page).body("").unwrap()).await;
        assert_eq!(preflight.header("access-control-allow-credentials"), "");
    }
    // A service that speaks for itself is not overruled.
    assert_eq!(
        node.get("/web/private")
            .await
            .header("access-control-allow-origin"),
        "https://own.example"
    );
}

#[tokio::test]
async fn fixed_routes_and_unclean_paths() {
    let node = Node::start().await;
    let root = node.get("/").await;
    assert_eq!(&*root.body, br#"{"version": "v9.9.9"}"#);
    assert_eq!(root.header("content-type"), "text/plain; charset=utf-8");
    let icon = node.get("/favicon.ico").await;
    assert_eq!((icon.status, icon.body.len()), (200, 0));
    for (path, to) in [
        ("/runtime//read?a=b", "/runtime/read?a=b"),
        ("/runtime/x/../read", "/runtime/read"),
        ("/x/%2e%2e/runtime/read", "/runtime/read"),
        ("//evil.example", "/evil.example"),
    ] {
        let answer = node.get(path).await;
        assert_eq!(
            (answer.status, answer.header("location")),
            (301, to),
            "{path}"
        );
    }
    assert_eq!(node.get("/a%ffb").await.error().1, 400);
}

#[tokio::test]
async fn grpc_works_on_the_same_port() {
    use micro_proto::runtime::{ReadOptions, ReadRequest, runtime_client::RuntimeClient};
    let node = Node::start().await;
    let mut client = RuntimeClient::connect(format!("http://{}", node.address))
        .await
        .unwrap();
    let options = ReadOptions {
        service: "grpc".into(),
        ..ReadOptions::default()
    };
    let answer = client
        .read(ReadRequest {
            options: Some(options),
        })
        .await
        .unwrap()
        .into_inner();
    assert_eq!(answer.services[0].name, "grpc");
    let options = ReadOptions {
        service: "missing".into(),
        ..ReadOptions::default()
    };
    let status = client
        .read(ReadRequest {
            options: Some(options),
        })
        .await
        .unwrap_err();
    assert!(status.message().contains("as asked"), "{status}");
}

#[tokio::test]
async fn http2_clients_are_served_like_others() {
    let node = Node::start().await;
    let stream = TcpStream::connect(node.address).await.unwrap();
    let io = hyper_util::rt::TokioIo::new(stream);
    let executor = hyper_util::rt::TokioExecutor::new();
    let (mut sender, connection) = hyper::client::conn::http2::handshake(executor, io)
        .await
        .unwrap();
    tokio::spawn(connection);
    for (uri, status) in [
        ("http://x.test/runtime/read?options.service=a", 200),
        ("http://web.example.test/page", 203),
        ("http://x.test/web/page", 203),
    ] {
        let request = Request::get(uri)
            .body(http_body_util::Empty::<bytes::Bytes>::new())
            .unwrap();
        let response = sender.send_request(request).await.unwrap();
        assert_eq!(response.status(), status, "{uri}");
    }
}

#[tokio::test]
async fn one_connection_serves_many_requests_pipelined() {
    let node = Node::start().await;
    let mut stream = TcpStream::connect(node.address).await.unwrap();
    let one = "POST /runtime/read HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\n{}";
    stream.write_all(one.repeat(20).as_bytes()).await.unwrap();
    let mut seen = String::new();
    let mut buffer = [0; 4096];
    while seen.matches("HTTP/1.1 200 OK").count() < 20 || !seen.ends_with("]}") {
        let count = stream.read(&mut buffer).await.unwrap();
        assert!(count > 0, "{seen}");
        seen.push_str(std::str::from_utf8(&buffer[..count]).unwrap());
    }
}

#[tokio::test]
async fn stopping_finishes_what_was_begun() {
    let mut node = Node::start().await;
    let endless = Request::get("/runtime/deploy?service.name=waits")
        .body("")
        .unwrap();
    let mut response = node.open(endless).await;
    response.body_mut().frame().await.unwrap().unwrap();
    let mut socket = node.websocket(Request::get("/runtime/logs")).await;
    let idle = TcpStream::connect(node.address).await.unwrap();
    let thread = node.stop();
    assert_eq!(socket.hear().await, Err(Some(1001)));
    // The stream ends as a whole: its last chunk arrives.
    while let Some(frame) = response.body_mut().frame().await {
        frame.unwrap();
    }
    tokio::task::spawn_blocking(|| thread.join())
        .await
        .unwrap()
        .unwrap();
    assert!(TcpStream::connect(node.address).await.is_err());
    drop(idle);
}

#[tokio::test]
async fn another_site_cannot_use_the_cookie() {
    let node = Node::start().await;
    let ask = |verb: &str, path: &str, pairs: &[(&str, &str)]| {
        let mut request = Request::builder()
            .method(verb)
            .uri(path)
            .header("cookie", "theme=dark; micro-token=micro-admin");
        for (name, value) in pairs {
            request = request.header(*name, *value);
        }
        request.body("").unwrap()
    };
    let own = format!("http://{}", node.address);
    let link = [
        ("sec-fetch-site", "cross-site"),
        ("sec-fetch-mode", "navigate"),
        ("sec-fetch-dest", "document"),
    ];
    let call = "/runtime/create";
    for (verb, path, pairs, status) in [
        ("POST", call, &[][..], 200),
        ("POST", call, &[("origin", own.as_str())], 200),
        ("POST", call, &[("sec-fetch-site", "same-origin")], 200),
        ("POST", call, &[("origin", "http://evil.example")], 401),
        ("POST", call, &[("sec-fetch-site", "same-site")], 401),
        ("GET", call, &[("sec-fetch-site", "cross-site")], 401),
        ("GET", call, &link, 401),
        ("GET", "/web/admin", &link, 203),
        ("POST", "/web/admin", &link, 401),
        ("GET", "/web/admin", &[("sec-fetch-site", "same-site")], 401),
    ] {
        let answer = node.send(ask(verb, path, pairs)).await;
        assert_eq!(answer.status, status, "{verb} {path} {pairs:?}");
    }
    // A token that a script has put there itself is meant.
    let bearer = [
        ("origin", "http://evil.example"),
        ("authorization", "Bearer micro-admin"),
    ];
    assert_eq!(node.send(ask("POST", call, &bearer)).await.status, 200);
    // What does not count is not handed on either; other cookies are.
    let foreign = [("origin", "http://evil.example")];
    let answer = node.send(ask("GET", "/web/a", &foreign)).await;
    assert_eq!(answer.json()["headers"]["cookie"], "theme=dark");
    let mut socket_asked = ask("GET", "/runtime/create", &foreign);
    let headers = socket_asked.headers_mut();
    for (name, value) in [("connection", "Upgrade"), ("upgrade", "websocket")] {
        headers.insert(name, value.parse().unwrap());
    }
    assert_eq!(node.send(socket_asked).await.status, 401);
}

#[tokio::test]
async fn an_options_request_cannot_slip_an_unclean_path_to_a_page() {
    let node = Node::start().await;
    for path in ["/admin/../admin", "//admin", "/x/%2e%2e/admin"] {
        let request = Request::options(path)
            .header("host", "web.example.test")
            .body("")
            .unwrap();
        assert_eq!(node.send(request).await.error().1, 400, "{path}");
    }
}
