//! Holds the hand-written messages against the platform's own `.proto` files: every field that they
//! have must be there with the same number and type, so that what they encode is read as it was meant.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test may"
)]

use prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage, Value};

#[path = "wire/state.rs"]
mod state;
#[path = "../src/wire.rs"]
mod wire;

use wire::{auth, registry};

const PROTO: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../proto");

fn pool() -> DescriptorPool {
    let files = ["auth", "broker", "config", "events", "registry", "store"];
    let files = files.map(|file| format!("{PROTO}/{file}/{file}.proto"));
    DescriptorPool::from_file_descriptor_set(protox::compile(files, [PROTO]).unwrap()).unwrap()
}

/// What the platform reads out of `message`.
fn read(name: &str, message: &impl Message) -> DynamicMessage {
    let descriptor = pool().get_message_by_name(name).unwrap();
    let read = DynamicMessage::decode(descriptor, message.encode_to_vec().as_slice()).unwrap();
    assert_eq!(
        read.unknown_fields().count(),
        0,
        "{name} has unknown fields"
    );
    read
}

fn text(message: &DynamicMessage, field: &str) -> String {
    message
        .get_field_by_name(field)
        .unwrap()
        .as_str()
        .unwrap()
        .to_owned()
}

fn number(message: &DynamicMessage, field: &str) -> i64 {
    message.get_field_by_name(field).unwrap().as_i64().unwrap()
}

fn message(message: &DynamicMessage, field: &str) -> DynamicMessage {
    message
        .get_field_by_name(field)
        .unwrap()
        .as_message()
        .unwrap()
        .clone()
}

fn first(of: &DynamicMessage, field: &str) -> DynamicMessage {
    of.get_field_by_name(field).unwrap().as_list().unwrap()[0]
        .as_message()
        .unwrap()
        .clone()
}

fn pair(of: &DynamicMessage, field: &str) -> String {
    let value = of.get_field_by_name(field).unwrap();
    let (key, value) = value.as_map().unwrap().iter().next().unwrap();
    match (key, value) {
        (prost_reflect::MapKey::String(key), Value::String(value)) => format!("{key}={value}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_platform_reads_what_the_library_asks_auth() {
    let request = read(
        "auth.TokenRequest",
        &auth::TokenRequest {
            id: "id".into(),
            secret: "secret".into(),
            refresh_token: "refresh".into(),
            token_expiry: 60,
            options: Some(auth::Options {
                namespace: "ns".into(),
            }),
        },
    );
    assert_eq!(text(&request, "id"), "id");
    assert_eq!(text(&request, "secret"), "secret");
    assert_eq!(text(&request, "refresh_token"), "refresh");
    assert_eq!(number(&request, "token_expiry"), 60);
    assert_eq!(text(&message(&request, "options"), "namespace"), "ns");

    let response = read(
        "auth.TokenResponse",
        &auth::TokenResponse {
            token: Some(auth::Token {
                access_token: "access".into(),
                refresh_token: "refresh".into(),
                created: 1,
                expiry: 2,
            }),
        },
    );
    let token = message(&response, "token");
    assert_eq!(text(&token, "access_token"), "access");
    assert_eq!(text(&token, "refresh_token"), "refresh");
    assert_eq!(number(&token, "created"), 1);
    assert_eq!(number(&token, "expiry"), 2);
}

#[test]
fn the_platform_reads_what_the_library_registers() {
    let pairs = |key: &str| [(key.to_owned(), "value".to_owned())].into();
    let value = |name: &str, values| registry::Value {
        name: name.into(),
        r#type: "string".into(),
        values,
    };
    let service = read(
        "registry.Service",
        &registry::Service {
            name: "name".into(),
            version: "version".into(),
            metadata: pairs("service"),
            endpoints: vec![registry::Endpoint {
                name: "Struct.Method".into(),
                request: Some(value("Request", vec![value("inner", vec![])])),
                response: Some(value("Response", vec![])),
                metadata: pairs("endpoint"),
            }],
            nodes: vec![registry::Node {
                id: "id".into(),
                address: "127.0.0.1:1".into(),
                port: 1,
                metadata: pairs("node"),
            }],
            options: Some(registry::Options {
                ttl: 90,
                domain: "domain".into(),
            }),
        },
    );
    assert_eq!(text(&service, "name"), "name");
    assert_eq!(text(&service, "version"), "version");
    assert_eq!(pair(&service, "metadata"), "service=value");
    let endpoint = first(&service, "endpoints");
    assert_eq!(text(&endpoint, "name"), "Struct.Method");
    assert_eq!(pair(&endpoint, "metadata"), "endpoint=value");
    let request = message(&endpoint, "request");
    assert_eq!(text(&request, "name"), "Request");
    assert_eq!(text(&request, "type"), "string");
    assert_eq!(text(&first(&request, "values"), "name"), "inner");
    assert_eq!(text(&message(&endpoint, "response"), "name"), "Response");
    let node = first(&service, "nodes");
    assert_eq!(text(&node, "id"), "id");
    assert_eq!(text(&node, "address"), "127.0.0.1:1");
    assert_eq!(number(&node, "port"), 1);
    assert_eq!(pair(&node, "metadata"), "node=value");
    assert_eq!(number(&message(&service, "options"), "ttl"), 90);
    assert_eq!(text(&message(&service, "options"), "domain"), "domain");
    assert_eq!(registry::EmptyResponse {}.encoded_len(), 0);
}

#[test]
fn the_methods_that_the_library_calls_exist() {
    let pool = pool();
    for (service, method) in [
        ("auth.Auth", "Inspect"),
        ("auth.Auth", "Token"),
        ("broker.Broker", "Publish"),
        ("broker.Broker", "Subscribe"),
        ("config.Config", "Delete"),
        ("config.Config", "Get"),
        ("config.Config", "Set"),
        ("config.Config", "Watch"),
        ("events.Stream", "Consume"),
        ("events.Stream", "Publish"),
        ("events.Stream", "PublishBatch"),
        ("registry.Registry", "GetService"),
        ("registry.Registry", "ListServices"),
        ("registry.Registry", "Watch"),
        ("store.BlobStore", "Delete"),
        ("store.BlobStore", "List"),
        ("store.BlobStore", "Read"),
        ("store.BlobStore", "Write"),
        ("store.Store", "Commit"),
        ("store.Store", "Delete"),
        ("store.Store", "List"),
        ("store.Store", "Read"),
        ("store.Store", "Watch"),
        ("store.Store", "Write"),
        ("registry.Registry", "Register"),
        ("registry.Registry", "Deregister"),
    ] {
        let service = pool.get_service_by_name(service).unwrap();
        let mut methods = service.methods();
        assert!(methods.any(|m| m.name() == method), "{method}");
    }
}
