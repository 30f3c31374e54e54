//! JSON over HTTP to gRPC services, as a browser or a script would use it.

use micro_tests::Server;

use crate::fixtures::run_echo;

#[test]
fn queries_forms_and_bodies_reach_the_service_with_the_schemas_types() {
    let server = Server::start().logged_in();
    run_echo(&server, "greeter");
    let call = "/greeter/Helloworld/Call";
    assert_eq!(
        server.curl(&format!("{call}?name=123"), &[]).json()["msg"],
        "Hello 123",
        "a string field takes 123"
    );
    assert_eq!(
        server
            .curl(call, &["--data-urlencode", "name=A b&c"])
            .json()["msg"],
        "Hello A b&c"
    );
    assert_eq!(
        server.curl(call, &["-F", "name=form"]).json()["msg"],
        "Hello form"
    );
    assert_eq!(
        server
            .curl(
                call,
                &[
                    "-H",
                    "content-type: application/json",
                    "-d",
                    r#"{"name":"json"}"#
                ]
            )
            .json()["msg"],
        "Hello json"
    );
    let merged = server.curl(
        &format!("{call}?name=query"),
        &[
            "-H",
            "content-type: application/json",
            "-d",
            r#"{"name":"body"}"#,
        ],
    );
    assert_eq!(
        merged.json()["msg"],
        "Hello body",
        "the body wins over the query"
    );
    assert_eq!(
        server.curl(call, &[]).json()["msg"],
        "Hello ",
        "no parameters at all"
    );

    let typed = server.curl("/greeter/Helloworld/Echo?text=x&number=7&flags=true&tags=a&tags=b&inner.label=in&mode=LOUD", &[]);
    let json = typed.json();
    assert_eq!(json["number"], "7", "64-bit integers are strings: {json}");
    assert_eq!(json["tags"], serde_json::json!(["a", "b"]));
    assert_eq!(json["inner"]["label"], "in");
    assert_eq!(json["mode"], "LOUD");
    assert_eq!(json["flags"], true);
}

#[test]
fn errors_carry_micros_object_and_the_right_status() {
    let server = Server::start().logged_in();
    run_echo(&server, "greeter");
    let unknown = server.curl("/nobody/Foo/Bar", &[]);
    assert_eq!(unknown.status, 404);
    let json = unknown.json();
    assert_eq!(
        (json["code"].as_u64(), json["status"].as_str()),
        (Some(404), Some("Not Found")),
        "{json}"
    );
    assert!(
        json["detail"]
            .as_str()
            .unwrap()
            .contains("service not found"),
        "{json}"
    );
    let endpoint = server.curl("/greeter/Helloworld/Nope", &[]);
    assert_eq!(endpoint.status, 404, "{endpoint:?}");
    let own = server.curl(
        "/greeter/Helloworld/Fail",
        &["-d", r#"{"code":412,"detail":"not yet"}"#],
    );
    assert_eq!(own.status, 412, "{own:?}");
    assert_eq!(own.json()["detail"], "not yet");
}

#[test]
fn streams_are_delivered_message_by_message() {
    let server = Server::start().logged_in();
    run_echo(&server, "greeter");
    let reply = server.curl("/greeter/Helloworld/Stream?count=3", &[]);
    assert_eq!(reply.status, 200);
    assert_eq!(reply.body.matches("\"count\"").count(), 3, "{reply:?}");
    let events = server.curl(
        "/greeter/Helloworld/Stream?count=2",
        &["-H", "accept: text/event-stream"],
    );
    assert_eq!(events.body.matches("data:").count(), 2, "{events:?}");
}

#[test]
fn browsers_are_let_in() {
    let server = Server::start();
    let preflight = server.curl(
        "/anything",
        &["-X", "OPTIONS", "-H", "Origin: https://example.com"],
    );
    assert_eq!(preflight.status, 200);
    assert!(
        preflight
            .headers
            .contains("access-control-allow-origin: https://example.com"),
        "{preflight:?}"
    );
    assert!(
        preflight.headers.contains("micro-namespace"),
        "{preflight:?}"
    );
    let root = server.curl("/", &[]);
    assert!(root.body.starts_with("{\"version\": \"v"), "{root:?}");
}
