//! Plain HTTP services, by path and by host name.

use http::Request;
use serde_json::json;

use crate::node::Node;

#[tokio::test]
async fn plain_http_is_passed_through_by_path() {
    let node = Node::start().await;
    let request = Request::patch("/web/a%2Fb/c/d/e?x=%20y")
        .header("x-forwarded-prefix", "/forged")
        .header("cookie", "a=b")
        .body("hello")
        .unwrap();
    let answer = node.send(request).await;
    assert_eq!(answer.status, 203);
    let seen = answer.json();
    assert_eq!(
        (&seen["method"], &seen["path"]),
        (&json!("PATCH"), &json!("/a%2Fb/c/d/e?x=%20y"))
    );
    assert_eq!(seen["body"], "hello");
    assert_eq!(seen["headers"]["x-forwarded-prefix"], "/web");
    assert_eq!(seen["headers"]["cookie"], "a=b");
    assert_eq!(seen["headers"]["x-forwarded-for"], "127.0.0.1");
    for (path, page) in [
        ("/web", "/"),
        ("/web/", "/"),
        ("/web/a", "/a"),
        ("/web.site/a/b/c", "/a/b/c"),
    ] {
        assert_eq!(node.get(path).await.json()["path"], page, "{path}");
    }
    // Rules see the page, and only that.
    for path in ["/pages", "/pages/a", "/pages/a/b", "/pages/a/b/c/d"] {
        assert_eq!(node.get(path).await.status, 203, "{path}");
    }
    assert_eq!(node.get("/web/admin/x").await.status, 401);
    assert_eq!(node.get("/web/%61dmin/x").await.status, 401);
    assert_eq!(node.get("/web/admin/a/b/c/d").await.status, 401);
    assert_eq!(node.get("/web/x/%2e%2e/admin").await.status, 301);
}

#[tokio::test]
async fn plain_http_is_passed_through_by_host_name() {
    let node = Node::start().await;
    let ask = |host: &str, path: &str| Request::get(path).header("host", host).body("").unwrap();
    for host in [
        "web.example.test",
        "web.micro.example.test:8080",
        "cart.shop.EXAMPLE.test",
    ] {
        let answer = node.send(ask(host, "/runtime/read?x")).await;
        assert_eq!(answer.status, 203, "{host}");
        let seen = answer.json();
        assert_eq!(seen["path"], "/runtime/read?x");
        assert_eq!(seen["headers"]["x-forwarded-host"], host);
        assert!(seen["headers"].get("x-forwarded-prefix").is_none());
        // Its own origin is its own business.
        assert!(!answer.headers.contains_key("access-control-allow-origin"));
    }
    assert_eq!(
        node.send(ask("web.example.test", "/admin")).await.status,
        401
    );
    let options = Request::options("/x")
        .header("host", "web.example.test")
        .body("")
        .unwrap();
    assert_eq!(node.send(options).await.json()["method"], "OPTIONS");
    // A name of nothing is one of the gateway's own.
    assert_eq!(
        node.send(ask("api.example.test", "/runtime/read"))
            .await
            .status,
        200
    );
    assert_eq!(
        node.send(ask("cart.example.test", "/"))
            .await
            .header("content-type"),
        "text/plain; charset=utf-8"
    );
}

#[tokio::test]
async fn events_and_websockets_of_plain_services_pass_through() {
    let node = Node::start().await;
    let answer = node.get("/web/sse").await;
    assert_eq!(answer.header("content-type"), "text/event-stream");
    assert_eq!(&*answer.body, b"data: 0\n\ndata: 1\n\ndata: 2\n\n");
    for request in [
        Request::get("/web/ws"),
        Request::get("/ws").header("host", "web.example.test"),
    ] {
        let mut socket = node.websocket(request).await;
        socket.say("\"echo\"").await;
        assert_eq!(socket.hear().await.unwrap(), "echo");
    }
}
