//! A schema from the value trees that Micro's Go services register.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::collections::HashMap;

use micro_proto::registry::{Endpoint, Value as Tree};
use micro_schema::{Codec, Method, Schema};
use serde_json::{Value, json};

fn tree(name: &str, kind: &str, values: Vec<Tree>) -> Tree {
    Tree {
        name: name.into(),
        r#type: kind.into(),
        values,
    }
}

fn leaf(name: &str, kind: &str) -> Tree {
    tree(name, kind, Vec::new())
}

fn endpoint(name: &str, request: Option<Tree>, metadata: &[(&str, &str)]) -> Endpoint {
    Endpoint {
        name: name.into(),
        request,
        response: Some(tree("Response", "Response", vec![leaf("msg", "string")])),
        metadata: metadata
            .iter()
            .map(|(k, v)| ((*k).into(), (*v).into()))
            .collect::<HashMap<_, _>>(),
    }
}

fn greeter() -> Schema {
    let request = tree(
        "Request",
        "Request",
        vec![
            leaf("name", "string"),
            leaf("count", "int64"),
            leaf("loud", "bool"),
            leaf("raw", "[]uint8"),
            leaf("tags", "[]string"),
            leaf("labels", "map[string]string"),
            leaf("access", "Access"),
            tree(
                "options",
                "Options",
                vec![leaf("domain", "string"), leaf("user_id", "string")],
            ),
            tree(
                "at",
                "Timestamp",
                vec![leaf("seconds", "int64"), leaf("nanos", "int32")],
            ),
        ],
    );
    Schema::from_endpoints(vec![
        endpoint(
            "Helloworld.Call",
            Some(request),
            &[("description", "Greets.")],
        ),
        endpoint(
            "Helloworld.Stream",
            Some(leaf("Context", "Context")),
            &[("stream", "true")],
        ),
        endpoint(
            "Subscriber.Handle",
            None,
            &[("subscriber", "true"), ("topic", "x")],
        ),
        endpoint("Func", None, &[]),
    ])
}

fn call() -> Method {
    greeter().method("Helloworld.Call").unwrap().clone()
}

fn sent(json: &str) -> Value {
    serde_json::from_slice(&call().message_from_json(json.as_bytes()).unwrap()).unwrap()
}

#[test]
fn handlers_are_methods_that_speak_json_and_subscribers_are_not() {
    let schema = greeter();
    let names: Vec<&str> = schema
        .methods()
        .iter()
        .map(|m| m.endpoint.as_str())
        .collect();
    assert_eq!(names, ["Helloworld.Call", "Helloworld.Stream"]);
    assert_eq!(
        schema.endpoints().len(),
        4,
        "all of them are still described"
    );
    let call = schema.method("helloworld.call").unwrap();
    assert_eq!(
        (call.codec, call.path.as_str()),
        (Codec::Json, "/Helloworld/Call")
    );
    assert_eq!(call.doc, "Greets.");
    assert!(schema.method("Helloworld.Stream").unwrap().server_streaming);
    assert_eq!(
        schema
            .method_by_path("/helloworld.Helloworld/Call")
            .unwrap()
            .endpoint,
        "Helloworld.Call"
    );
    assert!(schema.descriptor_set().is_none());
}

#[test]
fn json_that_fits_goes_through_byte_for_byte() {
    for json in [
        r#"{ "name" : "x","count":"5", "unknown":{"a":[1]} }"#,
        r#"{"userId":1}"#,
        r#"{"options":{"userId":"u"},"at":"2026-01-31T12:00:00Z","access":3}"#,
    ] {
        assert_eq!(
            call().message_from_json(json.as_bytes()).unwrap(),
            json.as_bytes()
        );
    }
    assert_eq!(call().message_from_json(b"").unwrap(), "{}");
    assert_eq!(call().message_from_json(b"null").unwrap(), "{}");
}

#[test]
fn what_a_go_service_would_stumble_over_is_put_right() {
    assert_eq!(sent(r#"{"name":123}"#), json!({"name": "123"}));
    assert_eq!(sent(r#"{"loud":"true"}"#), json!({"loud": true}));
    assert_eq!(
        sent(r#"{"tags":"one","x":1}"#),
        json!({"tags": ["one"], "x": 1})
    );
    assert_eq!(
        sent(r#"{"options":{"user-id":7}}"#),
        json!({"options": {"user_id": "7"}})
    );
    let error = call().message_from_json(br#"{"options":5}"#).unwrap_err();
    assert!(error.to_string().contains("`options`"), "{error}");
    assert!(call().message_from_json(b"{").is_err());
    assert!(call().message_from_json(b"{} {}").is_err());
}

fn list(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs
        .iter()
        .map(|(k, v)| ((*k).into(), (*v).into()))
        .collect()
}

#[test]
fn pairs_are_typed_by_the_tree() {
    let pairs = list(&[
        ("name", "123"),
        ("count", "0x10"),
        ("loud", ""),
        ("tags", "a,b"),
        ("labels", "k=v"),
        ("options-user-id", "u"),
        ("access", "GRANTED"),
    ]);
    assert_eq!(
        call().request_json_from_pairs(&pairs).unwrap(),
        json!({"name": "123", "count": 16, "loud": true, "tags": ["a", "b"],
               "labels": {"k": "v"}, "options": {"user_id": "u"}, "access": "GRANTED"})
    );
}

#[test]
fn an_unknown_flag_is_refused_but_an_unknown_query_value_is_passed_on() {
    let pairs = list(&[("cash.units", "5"), ("cash[currency]", "EUR")]);
    let error = call().request_json_from_pairs(&pairs).unwrap_err();
    assert!(error.to_string().contains("`cash.units`"), "{error}");
    assert_eq!(
        call().request_json_from_query(&pairs).unwrap(),
        json!({"cash": {"units": 5, "currency": "EUR"}})
    );
}

#[test]
fn a_stream_of_unknown_requests_takes_anything() {
    let stream = greeter().method("Helloworld.Stream").unwrap().clone();
    let pairs = list(&[
        ("count", "5"),
        ("name", "x"),
        ("a[b]", "true"),
        ("l[]", "1"),
    ]);
    assert_eq!(
        stream.request_json_from_pairs(&pairs).unwrap(),
        json!({"count": 5, "name": "x", "a": {"b": true}, "l": [1]})
    );
    assert_eq!(stream.message_from_json(b"[1, 2]").unwrap(), "[1, 2]");
    assert!(stream.flags().is_empty());
}

#[test]
fn flags_come_from_the_tree() {
    let flags = call().flags();
    let names: Vec<&str> = flags.iter().map(|f| f.name.as_str()).collect();
    assert_eq!(
        names,
        [
            "name",
            "count",
            "loud",
            "raw",
            "tags",
            "labels",
            "access",
            "options-domain",
            "options-user_id",
            "at"
        ]
    );
    assert!(flags[4].repeated && flags[5].is_map);
    assert_eq!(flags[3].type_name, "[]uint8");
    assert!(!flags[3].repeated, "bytes are one value");
}

#[test]
fn answers_pass_as_they_are() {
    assert_eq!(
        call().json_from_message(br#"{"msg":"hi"}"#).unwrap(),
        br#"{"msg":"hi"}"#
    );
    assert_eq!(call().json_from_message(b"").unwrap(), b"{}");
}
