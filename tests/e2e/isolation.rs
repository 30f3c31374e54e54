//! Every method of every built-in service, called from one namespace about another: nothing of it is
//! told and nothing is changed. The methods and their messages are what the platform itself
//! describes, so a new method is tried without a line here.

use std::{
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
    time::Duration,
};

use micro_tests::{Reply, Server};
use serde_json::{Map, Value, json};

use crate::fixtures::{Ends, administrator, enter, run_echo};

/// Stands in everything of red's that a caller cannot know.
const SECRET: &str = "cinnabar";
/// What a caller of blue may have guessed.
const KNOWN: &str = "known";

const SERVICES: [&str; 7] = [
    "auth", "broker", "config", "events", "registry", "runtime", "store",
];

/// Long enough for a stream to say something it should not.
const LISTEN: &str = "0.5";

fn token(server: &Server) -> String {
    server.cli(["user", "token"]).ok().trim().to_owned()
}

#[track_caller]
fn call(server: &Server, namespace: &str, token: &str, path: &str, body: &Value) -> Reply {
    listen(server, namespace, token, path, body).unwrap()
}

/// The answer so far when [`LISTEN`] is over.
fn listen(
    server: &Server,
    namespace: &str,
    token: &str,
    path: &str,
    body: &Value,
) -> Result<Reply, String> {
    let (bearer, header) = (
        format!("Authorization: Bearer {token}"),
        format!("Micro-Namespace: {namespace}"),
    );
    let body = body.to_string();
    let mut args = vec!["-H", &header, "--max-time", LISTEN, "-d", &body];
    if !token.is_empty() {
        args.extend(["-H", &bearer]);
    }
    let url = format!("http://{}{path}", server.address("gateway"));
    server.listen(&url, &args)
}

/// What red has of each kind: one thing whose name is known, one that is not, and secret content.
fn plant(server: &Server, red: &str) {
    let content = "Y2lubmFiYXI="; // base64 of SECRET
    let mut all = Vec::new();
    for name in [KNOWN, SECRET] {
        all.extend([
            (
                "/store/Store/Write",
                json!({"record": {"key": name, "value": content}, "options": {"table": KNOWN}}),
            ),
            (
                "/store/Store/Write",
                json!({"record": {"key": name, "value": content}, "options": {"table": name}}),
            ),
            (
                "/store/BlobStore/Write",
                json!({"key": name, "blob": content}),
            ),
            (
                "/config/Config/Set",
                json!({"namespace": "red", "path": name, "value": {"data": format!("\"{SECRET}\"")}}),
            ),
            (
                "/events/Stream/Publish",
                json!({"topic": name, "payload": content, "metadata": {"m": SECRET}}),
            ),
            (
                "/auth/Rules/Create",
                json!({"rule": {"id": name, "scope": "x", "resource": {"type": "service", "name": SECRET, "endpoint": "*"}, "access": "GRANTED"}, "options": {"namespace": "red"}}),
            ),
            (
                "/auth/Auth/Generate",
                json!({"id": name, "secret": "s3cret", "metadata": {"m": SECRET}, "options": {"namespace": "red"}}),
            ),
        ]);
    }
    for (path, body) in all {
        let reply = call(server, "red", red, path, &body);
        assert_eq!(reply.status, 200, "{path} {body}: {reply:?}");
    }
}

/// Everything of red's that was planted, as red itself sees it.
fn inventory(server: &Server, red: &str) -> Vec<Value> {
    let ask = |path: &str, body: Value| {
        let reply = call(server, "red", red, path, &body);
        assert_eq!(reply.status, 200, "{path}: {reply:?}");
        reply.json()
    };
    vec![
        ask(
            "/store/Store/Read",
            json!({"key": SECRET, "options": {"table": KNOWN}}),
        )["records"][0]["value"]
            .clone(),
        ask(
            "/store/Store/Read",
            json!({"key": KNOWN, "options": {"table": KNOWN}}),
        )["records"][0]["value"]
            .clone(),
        ask("/store/BlobStore/List", json!({}))["keys"].clone(),
        ask(
            "/config/Config/Get",
            json!({"namespace": "red", "path": KNOWN}),
        ),
        ask(
            "/config/Config/Get",
            json!({"namespace": "red", "path": SECRET}),
        ),
        ask("/events/Store/Read", json!({"topic": SECRET}))["events"]
            .as_array()
            .map(Vec::len)
            .into(),
        ask(
            "/auth/Accounts/List",
            json!({"options": {"namespace": "red"}}),
        )["accounts"]
            .as_array()
            .map(Vec::len)
            .into(),
        ask("/auth/Rules/List", json!({"options": {"namespace": "red"}}))["rules"]
            .as_array()
            .map(Vec::len)
            .into(),
        ask("/runtime/Runtime/Read", json!({}))["services"][0]["name"].clone(),
    ]
}

/// What a built-in service says it offers.
fn endpoints(server: &Server, service: &str) -> Vec<Value> {
    let described = server
        .cli(["get", "service", service, "--output", "json"])
        .json();
    let endpoints = described[0]["endpoints"]
        .as_array()
        .or_else(|| described["endpoints"].as_array())
        .expect("its endpoints");
    assert!(!endpoints.is_empty(), "{service}");
    endpoints.clone()
}

/// A request about red, from the platform's own description of the message.
fn about_red(value: &Value, flags: bool) -> Value {
    let mut object = Map::new();
    for field in value["values"].as_array().into_iter().flatten() {
        let (name, kind) = (
            field["name"].as_str().unwrap(),
            field["type"].as_str().unwrap(),
        );
        let nested = !field["values"].as_array().is_none_or(Vec::is_empty);
        let filled = match (name, kind) {
            ("namespace" | "domain" | "database", "string") => json!("red"),
            ("prefix" | "suffix", "string") => json!(""),
            ("service", "string") => json!("paint"),
            ("operations", _) => json!([{"delete": KNOWN, "table": KNOWN}]),
            (_, "string") => json!(KNOWN),
            ("retry_limit", _) => json!(-1),
            ("ack_wait", _) => json!(1_000_000_000_i64),
            (_, "bool") => json!(flags),
            (_, repeated) if repeated.starts_with("[]") && nested => {
                json!([about_red(field, flags)])
            }
            _ if nested => about_red(field, flags),
            _ => continue,
        };
        object.insert(name.to_owned(), filled);
    }
    Value::Object(object)
}

#[test]
fn no_method_tells_or_changes_anything_of_another_namespace() {
    let server = Server::start().logged_in();
    let offered = SERVICES.map(|service| (service, endpoints(&server, service)));
    administrator(&server, "red");
    run_echo(&server, "paint");
    let red = token(&server);
    plant(&server, &red);
    let before = inventory(&server, &red);
    administrator(&server, "blue");
    let admin = token(&server);
    let made = call(
        &server,
        "blue",
        &admin,
        "/auth/Auth/Generate",
        &json!({"id": "worker", "type": "service", "secret": "s3cret", "scopes": ["service"], "options": {"namespace": "blue"}}),
    );
    assert_eq!(made.status, 200, "{made:?}");
    let worker = call(
        &server,
        "blue",
        "",
        "/auth/Auth/Token",
        &json!({"id": "worker", "secret": "s3cret", "options": {"namespace": "blue"}}),
    );
    let worker = worker.json()["token"]["access_token"]
        .as_str()
        .expect("a token")
        .to_owned();

    // Something happens in red all the time, for those who watch.
    let done = AtomicBool::new(false);
    let tried = thread::scope(|scope| {
        let _end = Ends(&done);
        scope.spawn(|| {
            while !done.load(Relaxed) {
                for (path, body) in [
                    (
                        "/store/Store/Write",
                        json!({"record": {"key": "tick", "value": "Y2lubmFiYXI="}, "options": {"table": KNOWN}}),
                    ),
                    (
                        "/config/Config/Set",
                        json!({"namespace": "red", "path": "tick", "value": {"data": format!("\"{SECRET}\"")}}),
                    ),
                    (
                        "/events/Stream/Publish",
                        json!({"topic": KNOWN, "payload": "Y2lubmFiYXI="}),
                    ),
                    (
                        "/broker/Broker/Publish",
                        json!({"topic": KNOWN, "message": {"header": {"m": SECRET}}}),
                    ),
                ] {
                    call(&server, "red", &red, path, &body);
                }
                thread::sleep(Duration::from_millis(50));
            }
        });
        let mut tried = 0;
        for (service, endpoints) in &offered {
            for endpoint in endpoints {
                let name = endpoint["name"].as_str().unwrap();
                let path = format!("/{service}/{}", name.replace('.', "/"));
                for (who, token) in [("admin", &admin), ("service", &worker)] {
                    for namespace in ["blue", "red"] {
                        for flags in [false, true] {
                            let body = about_red(&endpoint["request"], flags);
                            let told = listen(&server, namespace, token, &path, &body)
                                .map_or_else(|_| String::new(), |r| r.headers + &r.body);
                            assert!(
                                !told.contains(SECRET) && !told.contains("Y2lubmFiYXI"),
                                "{who} of blue learned from {path} in {namespace} with {body}: {told}"
                            );
                            tried += 1;
                        }
                    }
                }
            }
        }
        tried
    });
    assert!(tried > 100, "only {tried} calls were tried");
    enter(&server, "red");
    assert_eq!(inventory(&server, &token(&server)), before);
}
