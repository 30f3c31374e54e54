//! Public blobs over HTTP.

use http::Request;

use crate::node::{Answer, Node};

async fn ask(node: &Node, path: &str, headers: &[(&str, &str)]) -> Answer {
    let mut request = Request::get(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    node.send(request.body("").unwrap()).await
}

#[tokio::test]
async fn a_public_blob_is_for_everybody_and_trusted_with_nothing() {
    let node = Node::start().await;
    for (path, content_type) in [
        ("/blob/shop/img/logo", "image/png"),
        ("/blob/shop/page", "text/html"),
        ("/blob/shop/plain", "application/octet-stream"),
    ] {
        let origin = [("origin", "https://a.example")];
        let answer = ask(&node, path, &origin).await;
        assert_eq!((answer.status, &*answer.body), (200, &b"0123456789"[..]));
        for (name, value) in [
            ("content-type", content_type),
            ("content-length", "10"),
            ("etag", "\"t1\""),
            ("x-content-type-options", "nosniff"),
            ("content-security-policy", "sandbox"),
            ("access-control-allow-origin", "*"),
            ("access-control-allow-credentials", ""),
        ] {
            assert_eq!(answer.header(name), value, "{path} {name}");
        }
    }
    let head = Request::head("/blob/shop/img/logo").body("").unwrap();
    let answer = node.send(head).await;
    assert_eq!((answer.status, answer.body.len()), (200, 0));
    assert_eq!(answer.header("content-length"), "10");
}

#[tokio::test]
async fn a_blob_that_is_not_there_or_not_public_is_not_found() {
    let node = Node::start().await;
    for path in [
        "/blob/shop/nothing",
        "/blob/micro/img/logo",
        "/blob/No%20such/img/logo",
    ] {
        let answer = ask(&node, path, &[]).await;
        assert_eq!(answer.error().2, "Blob not found", "{path}");
        assert_eq!(answer.status, 404);
    }
    // Not a path of a blob: a service of that name, which there is not.
    assert_eq!(ask(&node, "/blob/shop", &[]).await.status, 404);
    let post = node.post("/blob/shop/img/logo", "{}").await;
    assert!(post.error().2.starts_with("service not found"));
}

#[tokio::test]
async fn parts_of_a_blob_and_blobs_already_known_cost_no_more_than_they_must() {
    let node = Node::start().await;
    let path = "/blob/shop/img/logo";
    let answer = ask(&node, path, &[("range", "bytes=3-6")]).await;
    assert_eq!((answer.status, &*answer.body), (206, &b"3456"[..]));
    assert_eq!(answer.header("content-range"), "bytes 3-6/10");
    assert_eq!(answer.header("content-length"), "4");
    let answer = ask(&node, path, &[("range", "bytes=10-")]).await;
    assert_eq!((answer.status, answer.body.len()), (416, 0));
    assert_eq!(answer.header("content-range"), "bytes */10");
    let answer = ask(&node, path, &[("if-none-match", "\"t0\", W/\"t1\"")]).await;
    assert_eq!((answer.status, answer.body.len()), (304, 0));
    assert_eq!(answer.header("etag"), "\"t1\"");
    let answer = ask(&node, path, &[("if-none-match", "\"t0\"")]).await;
    assert_eq!(answer.status, 200);
}
