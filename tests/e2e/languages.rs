//! Each example from source to answer. (`helloworld-rust` is built with the generated service in
//! `announcement.rs`, because the two share their dependencies.)

use micro_tests::{Server, repository, require};

/// Asks a helloworld service every way there is.
#[track_caller]
pub(crate) fn answers(server: &Server, name: &str) {
    let out = server.cli([name, "--name=Alice"]).ok();
    assert!(out.contains("\"msg\": \"Hello Alice\""), "{out}");
    let reply = server.curl(&format!("/{name}/Helloworld/Call?name=Alice"), &[]);
    assert_eq!(
        (reply.status, reply.json()["msg"].as_str()),
        (200, Some("Hello Alice")),
        "{reply:?}"
    );
    let body = server.curl(
        &format!("/{name}/Helloworld/Call"),
        &["-d", r#"{"name":"Bob"}"#],
    );
    assert_eq!(body.json()["msg"], "Hello Bob");
    let help = server.cli([name, "--help"]);
    assert!(
        format!("{}{}", help.stdout, help.stderr).contains("call"),
        "{help:?}"
    );
    let streamed = server
        .cli(["stream", name, "Helloworld.Stream", r#"{"count":3}"#])
        .ok();
    assert_eq!(streamed.matches("\"count\"").count(), 3, "{streamed}");
}

#[track_caller]
fn example(name: &str, needs: &[&str]) -> Option<Server> {
    if !require(needs) {
        return None;
    }
    let server = Server::for_builds().logged_in();
    let path = repository().join("examples").join(name);
    let run = server.cli(["run", path.to_str().unwrap()]);
    assert_eq!(run.code, 0, "{}{}", run.stdout, run.stderr);
    Some(server)
}

#[test]
fn go_grpc() {
    if let Some(server) = example("helloworld-go", &["go"]) {
        answers(&server, "helloworld-go");
    }
}

#[test]
fn python_grpc() {
    if let Some(server) = example("helloworld-python", &["python3"]) {
        answers(&server, "helloworld-python");
    }
}

#[test]
fn node_grpc() {
    if let Some(server) = example("helloworld-node", &["node", "npm"]) {
        answers(&server, "helloworld-node");
    }
}

#[test]
fn python_plain_http() {
    if let Some(server) = example("web-python", &["python3"]) {
        assert_eq!(server.curl("/web-python/", &[]).status, 200);
    }
}

#[test]
fn node_plain_http_with_server_sent_events() {
    if let Some(server) = example("web-node", &["node", "npm"]) {
        assert_eq!(server.curl("/web-node/", &[]).status, 200);
        let events = server.curl("/web-node/events", &["--no-buffer"]);
        assert!(events.headers.contains("text/event-stream"), "{events:?}");
        assert!(events.body.contains("data:"), "{events:?}");
    }
}
