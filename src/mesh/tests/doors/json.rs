//! JSON from Micro's command line to services that speak protobuf.

use std::sync::Arc;

use micro_core::Namespace;
use micro_pipeline::{Protocol, RouteSpec};
use micro_proto::registry::Endpoint;
use micro_schema::Schema;
use serde_json::json;

use crate::{
    backend::{Backend, FAILURE},
    fixture::Fixture,
    raw::{self, Client, frame},
};

const JSON: [(&str, &str); 1] = [("content-type", "application/grpc+json")];

async fn asked(fixture: &Fixture) {
    let mut raw = Client::connect(fixture.address).await;
    let answer = raw
        .call(
            "/runtime.Runtime/Read",
            &JSON,
            br#"{"options":{"service":"x"}}"#,
        )
        .await;
    assert_eq!(answer.status().0, 0, "{answer:?}");
    assert_eq!(answer.headers["content-type"], "application/grpc+json");
    let service = &answer.json()["services"][0];
    assert_eq!(service["source"], "x");
    assert_eq!(service["status"], 7);
    assert_eq!(service["version"], "", "defaults are written out");

    for empty in [&b""[..], b"null"] {
        let answer = raw.call_open("/runtime.Runtime/Read", &JSON, empty).await;
        assert_eq!(answer.status().0, 0, "an empty request, never half-closed");
    }

    let answer = raw.call("/runtime.Runtime/Create", &JSON, b"{}").await;
    assert_eq!(answer.status(), (6, FAILURE.to_owned()));

    let answer = raw
        .call("/runtime.Runtime/Read", &JSON, br#"{"nonsense":1}"#)
        .await;
    let (code, message) = answer.status();
    let error = micro_core::WireError::parse(&message).unwrap();
    assert_eq!((code, error.code), (3, 400));
    assert!(error.detail.contains("nonsense"), "{}", error.detail);

    // A stream in both directions, message by message.
    let mut open = raw.open("/runtime.Runtime/Logs", &JSON);
    open.send
        .send_data(frame(br#"{"service":"a"}"#), false)
        .unwrap();
    let mut body = open.response.await.unwrap().into_body();
    let first = raw::chunk(&mut body).await;
    let record: serde_json::Value = serde_json::from_slice(&first[5..]).unwrap();
    assert_eq!(
        record,
        json!({"timestamp": "0", "metadata": {}, "message": "a"})
    );
    open.send
        .send_data(frame(br#"{"service":"b"}"#), true)
        .unwrap();
    assert!(String::from_utf8_lossy(&raw::chunk(&mut body).await).contains(r#""message":"b""#));
}

#[tokio::test]
async fn an_instance_that_speaks_protobuf_is_asked_in_json() {
    let backend = Backend::new("one");
    let instance = backend.start().await;
    asked(&Fixture::service(&[instance.address]).await).await;
}

#[tokio::test]
async fn a_builtin_is_asked_in_json() {
    asked(&Fixture::builtin(&Backend::new("one")).await).await;
}

#[tokio::test]
async fn a_service_that_speaks_json_gets_it_as_it_came() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let mut connection = h2::server::handshake(stream).await.unwrap();
        while let Some(Ok((request, mut respond))) = connection.accept().await {
            let path = request.uri().path().to_owned();
            let kind = request.headers()["content-type"].clone();
            let response = http::Response::builder()
                .header("content-type", kind)
                .body(())
                .unwrap();
            let mut send = respond.send_response(response, false).unwrap();
            send.send_data(frame(path.as_bytes()), false).unwrap();
            let mut trailers = http::HeaderMap::new();
            trailers.insert("grpc-status", "0".parse().unwrap());
            send.send_trailers(trailers).unwrap();
        }
    });
    let endpoint = Endpoint {
        name: "Greeter.Hello".into(),
        ..Endpoint::default()
    };
    let route = RouteSpec {
        namespace: Namespace::operator(),
        service: "greeter".parse().unwrap(),
        protocol: Protocol::Grpc,
        schema: Arc::new(Schema::from_endpoints(vec![endpoint])),
        addresses: vec![address],
    };
    let fixture = Fixture::with(vec![route], None).await;
    let mut raw = Client::connect(fixture.address).await;
    let answer = raw.call("/greeter.Greeter/Hello", &JSON, b"{}").await;
    assert_eq!(answer.messages[0], "/greeter.Greeter/Hello");
    assert_eq!(answer.headers["content-type"], "application/grpc+json");
    let answer = raw.call("/greeter.Greeter/Nope", &JSON, b"{}").await;
    assert_eq!(
        answer.status(),
        (12, "unknown service Greeter.Nope".to_owned())
    );
}
