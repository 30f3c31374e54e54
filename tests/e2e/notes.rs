//! The example that uses everything that Micro keeps for a service (`examples/notes-rust`), built
//! from source, through the death of the node.

use std::time::Duration;

use micro_tests::{Server, eventually, repository, require};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(30);

fn run(server: &Server, example: &str, name: &str) {
    let path = repository().join("examples").join(example);
    let out = server.cli(["run", "--name", name, path.to_str().unwrap()]);
    assert_eq!(out.code, 0, "{}{}", out.stdout, out.stderr);
}

/// Asks an endpoint by HTTP: the status and what it answers.
fn ask(server: &Server, endpoint: &str, body: &Value) -> (u16, Value) {
    let reply = server.curl(
        &format!("/notes/Notes/{endpoint}"),
        &[
            "-H",
            "content-type: application/json",
            "-d",
            &body.to_string(),
        ],
    );
    (
        reply.status,
        serde_json::from_str(&reply.body).unwrap_or(Value::Null),
    )
}

#[track_caller]
fn answer(server: &Server, endpoint: &str, body: &Value) -> Value {
    let (status, answer) = ask(server, endpoint, body);
    assert_eq!(status, 200, "{endpoint} {body}: {answer}");
    answer
}

/// 64-bit numbers are text in JSON.
fn number(value: &Value) -> u64 {
    value.as_str().unwrap_or("0").parse().unwrap()
}

fn feed(server: &Server) -> (u64, String, u64) {
    let (_, feed) = ask(server, "Feed", &json!({}));
    let latest = feed["latest"][0].as_str().unwrap_or_default().to_owned();
    (number(&feed["count"]), latest, number(&feed["heard"]))
}

/// Waits until the feed has so many changes, this one last.
#[track_caller]
fn feed_comes_to(server: &Server, count: u64, latest: &str) {
    eventually(
        &format!("{count} changes, last {latest:?}"),
        PATIENCE,
        || {
            let (now, last, _) = feed(server);
            assert!(
                now <= count,
                "{now} changes were counted, there were {count}"
            );
            (now == count && last == latest).then_some(())
        },
    );
}

#[track_caller]
fn greeting_becomes(server: &Server, expected: &str) {
    eventually(&format!("the greeting {expected:?}"), PATIENCE, || {
        let (_, greeting) = ask(server, "Greet", &json!({"name": "Alice"}));
        (greeting["msg"] == expected).then_some(())
    });
}

#[test]
fn notes_keep_working_with_their_state_when_the_node_dies() {
    if !require(&["cargo", "curl"]) {
        return;
    }
    let server = Server::for_builds().logged_in();
    run(&server, "helloworld-rust", "helloworld");
    run(&server, "notes-rust", "notes");
    records(&server);
    attachments(&server);
    greeting_becomes(&server, "Hello Alice");
    server
        .cli(["config", "set", "notes.greeting", "Dear friend: "])
        .ok();
    greeting_becomes(&server, "Dear friend: Hello Alice");
    // Five changes by now.
    feed_comes_to(&server, 5, "deleted b");
    eventually("messages are heard", PATIENCE, || {
        (feed(&server).2 > 0).then_some(())
    });

    let node = server.node().expect("the node runs");
    kill(Pid::from_raw(node), Signal::SIGKILL).expect("the node is ours");
    eventually("a new node", PATIENCE, || {
        server.node().filter(|fresh| *fresh != node)
    });
    let read = eventually("the note is there", PATIENCE, || {
        let (status, note) = ask(&server, "Read", &json!({"id": "a"}));
        (status == 200).then_some(note)
    });
    assert_eq!(read["text"], "second");

    // The watch of the setting, the consumer of events and the subscriber go on by themselves.
    server
        .cli(["config", "set", "notes.greeting", "Still here: "])
        .ok();
    greeting_becomes(&server, "Still here: Hello Alice");
    answer(&server, "Create", &json!({"id": "c", "text": "later"}));
    feed_comes_to(&server, 6, "created c");
    let before = feed(&server).2;
    let mut revision = answer(&server, "Read", &json!({"id": "c"}))["revision"].clone();
    eventually("messages are heard again", PATIENCE, || {
        let update = json!({"id": "c", "text": "later", "revision": revision});
        revision = answer(&server, "Update", &update)["revision"].clone();
        (feed(&server).2 > before).then_some(())
    });
}

/// Create, read, list, update and delete; five changes.
fn records(server: &Server) {
    let note = server
        .cli(["notes", "create", "--id=a", "--text=first"])
        .json();
    assert_eq!(
        (&note["text"], &note["author"]),
        (&json!("first"), &json!("admin"))
    );
    let (status, error) = ask(server, "Create", &json!({"id": "a", "text": "again"}));
    assert_eq!(status, 409, "{error}");

    let read = server.curl("/notes/Notes/Read?id=a", &[]).json();
    assert_eq!(read["revision"], note["revision"]);
    assert_eq!(ask(server, "Read", &json!({"id": "none"})).0, 404);

    let update = json!({"id": "a", "text": "second", "revision": note["revision"]});
    let updated = answer(server, "Update", &update);
    assert!(number(&updated["revision"]) > number(&note["revision"]));
    // The same again is by somebody who has not seen the second text.
    let (status, error) = ask(server, "Update", &update);
    assert_eq!(status, 409, "{error}");

    answer(server, "Create", &json!({"id": "b", "text": "other"}));
    answer(server, "Create", &json!({"id": "ab", "text": "third"}));
    let ids = |list: &Value| -> Vec<String> {
        let notes = list["notes"].as_array().cloned().unwrap_or_default();
        notes
            .iter()
            .map(|note| note["id"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(ids(&answer(server, "List", &json!({}))), ["a", "ab", "b"]);
    let few = answer(server, "List", &json!({"prefix": "a", "limit": 1}));
    assert_eq!(ids(&few), ["a"]);
    answer(server, "Delete", &json!({"id": "b"}));
    assert_eq!(ids(&answer(server, "List", &json!({}))), ["a", "ab"]);
}

fn attachments(server: &Server) {
    assert_eq!(ask(server, "Attachment", &json!({"id": "a"})).0, 404);
    let content = "aGVsbG8gYmxvYg==";
    answer(
        server,
        "Attach",
        &json!({"id": "a", "content": content, "content_type": "text/plain"}),
    );
    let attached = answer(server, "Attachment", &json!({"id": "a"}));
    assert_eq!(attached["content"], content);
    let listed = server.cli(["blob", "list"]).ok();
    assert!(listed.contains("notes/a"), "{listed}");
}
