//! JSON, queries and forms to gRPC services, and the errors on the way.

use http::Request;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::node::{Answer, BODY_LIMIT, Node};

#[tokio::test]
async fn json_reaches_a_grpc_service_and_comes_back() {
    let node = Node::start().await;
    let answer = node
        .post(
            "/runtime/Runtime/Read",
            r#"{"options":{"service":"a","version":"1"}}"#,
        )
        .await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("content-type"), "application/json");
    assert_eq!(
        answer.header("content-length"),
        answer.body.len().to_string()
    );
    let service = &answer.json()["services"][0];
    assert_eq!(
        (&service["name"], &service["version"]),
        (&json!("a"), &json!("1"))
    );
    assert_eq!(service["status"], 4);
    // Any spelling, and the paths with a version.
    for path in [
        "/runtime/read",
        "/runtime/READ",
        "/v1/runtime/read",
        "/v1/runtime/Runtime/Read",
        "/runtime/read/",
    ] {
        // Two structs have a method of that name; the one named as the service is meant.
        assert_eq!(node.post(path, "{}").await.status, 200, "{path}");
    }
    // A struct of another name is found when its method is the only one of that name.
    assert_eq!(node.post("/other/getService", "{}").await.error().1, 501);
}

#[tokio::test]
async fn query_form_and_body_become_typed_messages() {
    let node = Node::start().await;
    let name = |answer: &Answer| answer.json()["services"][0]["name"].clone();
    let get = node
        .get("/runtime/read?options.service=123&options[version]=true")
        .await;
    let service = &get.json()["services"][0];
    assert_eq!(
        (&service["name"], &service["version"]),
        (&json!("123"), &json!("true"))
    );

    let merged = node
        .post(
            "/runtime/read?options.service=q&options.version=q",
            r#"{"options":{"service":"b"}}"#,
        )
        .await;
    let service = &merged.json()["services"][0];
    assert_eq!(
        (&service["name"], &service["version"]),
        (&json!("b"), &json!("q"))
    );

    let form = Request::post("/runtime/read?options.version=1")
        .header(
            "content-type",
            "application/x-www-form-urlencoded; charset=utf-8",
        )
        .body("options.service=x+%26y")
        .unwrap();
    assert_eq!(name(&node.send(form).await), "x &y");

    let parts = "--b\r\ncontent-disposition: form-data; name=\"options.service\"\r\n\r\ntext\r\n\
        --b\r\ncontent-disposition: form-data; name=\"options.version\"; filename=\"f\"\r\n\r\n\u{1}\u{2}\r\n--b--\r\n";
    let multipart = Request::post("/runtime/read")
        .header("content-type", "multipart/form-data; boundary=b")
        .body(parts)
        .unwrap();
    let answer = node.send(multipart).await;
    assert_eq!(name(&answer), "text");
    assert_eq!(answer.json()["services"][0]["version"], "AQI=");

    // No content type at all is JSON as well.
    let bare = Request::put("/runtime/read")
        .body(r#"{"options":{"service":"bare"}}"#)
        .unwrap();
    assert_eq!(name(&node.send(bare).await), "bare");
    assert_eq!(node.post("/runtime/read", "").await.status, 200);
    assert_eq!(node.post("/runtime/read", "null").await.status, 200);
}

#[tokio::test]
async fn metadata_is_passed_on_but_not_what_is_ours_to_say() {
    let node = Node::start().await;
    let request = Request::get("/runtime/read")
        .header("x-mine", "yes")
        .header("micro-from-service", "forged")
        .header("x-micro-account", "forged")
        .header("cookie", "micro-token=micro-alice")
        .header("connection", "x-hop")
        .header("x-hop", "1")
        .body("")
        .unwrap();
    let answer = node.send(request).await;
    let metadata = &answer.json()["services"][0]["metadata"];
    assert_eq!(metadata["x-mine"], "yes", "{metadata}");
    assert_eq!(metadata["authorization"], "Bearer micro-alice");
    assert_eq!(metadata["micro-namespace"], "micro");
    assert!(metadata.get("micro-from-service").is_none());
    assert_ne!(metadata["x-micro-account"], "forged");
    assert!(metadata.get("connection").is_none());
}

#[tokio::test]
async fn errors_are_micros_objects_with_the_same_status() {
    let node = Node::start().await;
    let read = |name: &str| format!(r#"{{"options":{{"service":"{name}"}}}}"#);
    let expected = ("demo".to_owned(), 404, "as asked".to_owned());
    assert_eq!(
        node.post("/runtime/read", &read("missing")).await.error(),
        expected
    );
    assert_eq!(
        node.post("/runtime/read", &read("plain")).await.error().1,
        409
    );
    // A service's own refusal is its answer, not the gateway's.
    assert_eq!(
        node.post("/runtime/read", &read("forbidden"))
            .await
            .error()
            .1,
        403
    );

    let (id, code, detail) = node.post("/nothing/here", "{}").await.error();
    assert_eq!((&*id, code), ("go.micro.api", 404));
    assert!(detail.starts_with("service not found\nhint: "), "{detail}");
    let (id, code, detail) = node.post("/runtime/Nope", "{}").await.error();
    assert_eq!((&*id, code), ("go.micro.api", 404));
    assert!(
        detail.starts_with("endpoint Runtime.Nope not found\n"),
        "{detail}"
    );
    assert!(detail.contains("Runtime.Read"), "{detail}");
    let (_, code, detail) = node.post("/mute/Call", "{}").await.error();
    assert_eq!(code, 404);
    assert!(detail.contains("reflection"), "{detail}");

    let (id, code, detail) = node
        .post("/runtime/read", "{\"options\": {\n  oops")
        .await
        .error();
    assert_eq!((&*id, code), ("go.micro.api", 400));
    assert!(detail.contains("line 2 column"), "{detail}");
    let (_, code, detail) = node
        .post("/runtime/read", r#"{"options": {"service": []}}"#)
        .await
        .error();
    assert_eq!(code, 400);
    assert!(detail.contains("options.service"), "{detail}");
    let (_, code, detail) = node.get("/runtime/read?colour=red").await.error();
    assert_eq!(code, 400);
    assert!(detail.contains("colour"), "{detail}");
    assert_eq!(node.get("/runtime/read?a=%zz").await.error().1, 400);

    assert_eq!(node.post("/dead/Runtime/Read", "{}").await.error().1, 503);
    let bad = Request::get("/runtime/read")
        .header("micro-namespace", "../x")
        .body("")
        .unwrap();
    assert_eq!(node.send(bad).await.error().1, 400);
}

#[tokio::test]
async fn an_empty_message_is_an_empty_object() {
    let node = Node::start().await;
    let request = Request::post("/runtime/create").header("authorization", "Bearer micro-admin");
    let answer = node.send(request.body("{}").unwrap()).await;
    assert_eq!((answer.status, &*answer.body), (200, &b"{}"[..]));
}

#[tokio::test]
async fn oversized_bodies_are_refused_with_the_setting_named() {
    let node = Node::start().await;
    let large = format!(
        "{{\"x\":\"{}\"}}",
        "x".repeat(usize::try_from(BODY_LIMIT).unwrap())
    );
    let (id, code, detail) = node.post("/runtime/read", &large).await.error();
    assert_eq!((&*id, code), ("go.micro.api", 413));
    assert!(
        detail.contains("1MiB") && detail.contains("limits.body"),
        "{detail}"
    );
}

#[tokio::test]
async fn a_client_that_asks_before_sending_too_much_is_told_at_once() {
    let node = Node::start().await;
    let mut stream = TcpStream::connect(node.address).await.unwrap();
    let head = "POST /runtime/read HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 99999999\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 413");
}

#[tokio::test]
async fn namespaces_are_chosen_by_header_account_or_host() {
    let node = Node::start().await;
    let seen = |request: http::request::Builder| async {
        let answer = node.send(request.body("").unwrap()).await;
        answer.json()["services"][0]["metadata"]["micro-namespace"].clone()
    };
    assert_eq!(seen(Request::get("/runtime/read")).await, "micro");
    assert_eq!(
        seen(Request::get("/runtime/read").header("micro-namespace", "shop")).await,
        "shop"
    );
    assert_eq!(
        seen(Request::get("/runtime/read").header("authorization", "Bearer shop-bob")).await,
        "shop"
    );
    assert_eq!(
        seen(Request::get("/runtime/read").header("host", "runtime.shop.example.test")).await,
        "shop"
    );
    let elsewhere = Request::get("/other/read")
        .header("micro-namespace", "shop")
        .body("")
        .unwrap();
    assert_eq!(node.send(elsewhere).await.error().1, 404);
}
