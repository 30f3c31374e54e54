//! Streaming endpoints over chunked HTTP, server-sent events and WebSockets.

use http::Request;
use http_body_util::BodyExt as _;
use serde_json::json;

use crate::node::{BODY_LIMIT, Node};

#[tokio::test]
async fn a_streaming_endpoint_answers_with_one_object_after_another() {
    let node = Node::start().await;
    let deploy = |name: &str| format!(r#"{{"service":{{"name":"{name}"}}}}"#);
    let answer = node.post("/runtime/deploy", &deploy("a")).await;
    assert_eq!(
        (answer.status, answer.header("content-type")),
        (200, "application/json")
    );
    let lines: Vec<serde_json::Value> = serde_json::Deserializer::from_slice(&answer.body)
        .into_iter()
        .map(Result::unwrap)
        .collect();
    let expected: Vec<_> = (0..3).map(|n| json!(format!("a {n}"))).collect();
    assert_eq!(
        lines.iter().map(|l| l["line"].clone()).collect::<Vec<_>>(),
        expected
    );

    // An error before the first message has a status, a later one is the last object.
    assert_eq!(
        node.post("/runtime/deploy", &deploy("missing"))
            .await
            .error()
            .1,
        404
    );
    let answer = node.post("/runtime/deploy", &deploy("broken")).await;
    assert_eq!(answer.status, 200);
    let last: serde_json::Value = serde_json::Deserializer::from_slice(&answer.body)
        .into_iter()
        .map(Result::unwrap)
        .last()
        .unwrap();
    assert_eq!(last["code"], 409, "{last}");

    // Several messages in the body, for an endpoint that takes a stream.
    let answer = node
        .post("/runtime/logs", r#"{"service":"x"} {"service":"y"}"#)
        .await;
    let text = String::from_utf8_lossy(&answer.body).into_owned();
    assert!(
        text.contains(r#""message":"x""#) && text.contains(r#""message":"y""#),
        "{text}"
    );
    let answer = node
        .post("/runtime/upload", r#"{"data":"AAAA"}{"data":"AAAAAAAA"}"#)
        .await;
    assert_eq!(answer.json(), json!({"id": "9 bytes"}));
    assert_eq!(
        answer.header("content-length"),
        answer.body.len().to_string()
    );
}

#[tokio::test]
async fn messages_are_flushed_as_they_come() {
    let node = Node::start().await;
    let mut response = node
        .open(
            Request::get("/runtime/deploy?service.name=waits")
                .body("")
                .unwrap(),
        )
        .await;
    // The service never sends its third message.
    let mut seen = String::new();
    while !seen.contains("waits 1") {
        let frame = response.body_mut().frame().await.unwrap().unwrap();
        seen.push_str(std::str::from_utf8(frame.data_ref().unwrap()).unwrap());
    }
}

#[tokio::test]
async fn a_browser_gets_events() {
    let node = Node::start().await;
    let request = |name: &str| {
        let request = Request::get(format!("/runtime/deploy?service.name={name}"));
        request
            .header("accept", "text/event-stream")
            .body("")
            .unwrap()
    };
    let answer = node.send(request("a")).await;
    assert_eq!(answer.header("content-type"), "text/event-stream");
    let text = String::from_utf8(answer.body.to_vec()).unwrap();
    let events: Vec<&str> = text.split_terminator("\n\n").collect();
    assert_eq!(events.len(), 3, "{text}");
    assert!(events.iter().all(|e| e.starts_with("data: {")), "{text}");
    let answer = node.send(request("broken")).await;
    let text = String::from_utf8(answer.body.to_vec()).unwrap();
    assert!(
        text.contains("event: error\ndata: {\"id\":\"demo\",\"code\":409"),
        "{text}"
    );
}

#[tokio::test]
async fn a_websocket_carries_messages_both_ways() {
    let node = Node::start().await;
    let mut socket = node.websocket(Request::get("/runtime/logs")).await;
    for name in ["first", "second", "third"] {
        socket
            .say(&json!({"service": name, "count": "7"}).to_string())
            .await;
        let record = socket.hear().await.unwrap();
        assert_eq!(
            (&record["message"], &record["timestamp"]),
            (&json!(name), &json!("7"))
        );
    }
    // An empty frame ends the requests, and this service ends its answers then.
    socket.say("").await;
    assert_eq!(socket.hear().await, Err(Some(1000)));
}

#[tokio::test]
async fn a_websocket_serves_one_request_as_well() {
    let node = Node::start().await;
    let mut socket = node.websocket(Request::get("/runtime/deploy")).await;
    socket.say(r#"{"service":{"name":"a"}}"#).await;
    for index in 0..3 {
        assert_eq!(socket.hear().await.unwrap()["line"], format!("a {index}"));
    }
    assert_eq!(socket.hear().await, Err(Some(1000)));
    let mut socket = node.websocket(Request::get("/runtime/read")).await;
    socket.say(r#"{"options":{"service":"one"}}"#).await;
    assert_eq!(socket.hear().await.unwrap()["services"][0]["name"], "one");
    assert_eq!(socket.hear().await, Err(Some(1000)));
}

#[tokio::test]
async fn errors_on_a_websocket_are_the_last_frame() {
    let node = Node::start().await;
    for (text, code, close) in [
        (r#"{"service":"missing"}"#.to_owned(), 404, 1008),
        ("{oops".to_owned(), 400, 1008),
        (r#"{"colour":1}"#.to_owned(), 400, 1008),
        (
            format!("\"{}\"", "x".repeat(usize::try_from(BODY_LIMIT).unwrap())),
            413,
            1009,
        ),
    ] {
        let mut socket = node.websocket(Request::get("/runtime/logs")).await;
        socket.say(&text).await;
        assert_eq!(socket.hear().await.unwrap()["code"], code);
        assert_eq!(socket.hear().await, Err(Some(close)));
    }
    let refused = Request::get("/runtime/create")
        .header("connection", "upgrade")
        .header("upgrade", "websocket")
        .body("")
        .unwrap();
    assert_eq!(node.send(refused).await.status, 401);
}
