//! Config as clients see it: over gRPC.

use std::time::Duration;

use micro_proto::config::{
    GetRequest, HistoryRequest, Options, ReadRequest, RotateRequest, SetRequest, Value,
    WatchRequest, WatchResponse,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Streaming};

use crate::node::{Client, Node0, SOON, account, admin, failure, wire};

async fn next(stream: &mut Streaming<WatchResponse>) -> (String, u64) {
    let message = tokio::time::timeout(SOON, stream.message()).await.unwrap();
    let message = message.unwrap().unwrap();
    (message.value.unwrap().data, message.version)
}

/// A watch whose sending half stays open, as Micro's clients leave it.
async fn watch(
    client: &mut Client,
    path: &str,
    secret: bool,
) -> (mpsc::Sender<WatchRequest>, Streaming<WatchResponse>) {
    let (send, asks) = mpsc::channel(1);
    let ask = WatchRequest {
        namespace: "foo".into(),
        path: path.into(),
        options: Some(Options { secret }),
    };
    send.send(ask).await.unwrap();
    let opened = client.raw().watch(ReceiverStream::new(asks));
    let stream = tokio::time::timeout(SOON, opened).await.unwrap().unwrap();
    (send, stream.into_inner())
}

#[tokio::test]
async fn values_are_set_merged_read_and_deleted() {
    let node = Node0::start();
    let mut c = node.client(Some(admin("foo"))).await;
    assert_eq!(c.set("db.host", r#""a<b&c""#).await, 1);
    assert_eq!(
        c.set("db", r#"{"port":5432,"opts":[{"x":1},{"y":2}]}"#)
            .await,
        2
    );
    assert_eq!(c.get("db.host").await, r#""a<b&c""#);
    assert_eq!(
        c.get("").await,
        r#"{"db":{"host":"a<b&c","opts":[{"x":1},{"y":2}],"port":5432}}"#
    );
    assert_eq!(c.get("db.nothing.here").await, "null");
    assert_eq!(c.get("db.opts.x").await, "null");
    assert_eq!(c.set("db", "7").await, 3);
    assert_eq!(c.set("db.port", "1").await, 4);
    assert_eq!(c.get("db").await, r#"{"port":1}"#);
    assert_eq!(c.set("db.port", " 1 ").await, 4, "it is 1 already");
    assert_eq!(c.delete("db.port").await, 5);
    assert_eq!(c.delete("db.port").await, 5);
    assert_eq!(c.get("").await, r#"{"db":{}}"#);
    let read = c
        .raw()
        .read(ReadRequest {
            namespace: "foo".into(),
            path: "db".into(),
        })
        .await
        .unwrap()
        .into_inner()
        .change
        .unwrap();
    let set = read.change_set.unwrap();
    assert_eq!((set.data.as_str(), set.format.as_str()), ("{}", "json"));
    assert_eq!(set.timestamp, 1_700_000_000);
    assert_eq!(set.checksum.len(), 64);
}

#[tokio::test]
async fn failures_are_said_in_the_words_of_micro() {
    let node = Node0::start();
    let mut c = node.client(Some(admin("foo"))).await;
    let error = wire(c.try_get("a", false).await);
    assert_eq!((error.code, error.detail.as_str()), (404, "Not found"));
    assert_eq!(error.id, "config.Config.Get");
    let error = wire(c.try_delete("a").await);
    assert_eq!((error.code, error.detail.as_str()), (404, "Not found"));
    let nothing = c.raw().set(SetRequest {
        namespace: "foo".into(),
        path: "a".into(),
        ..SetRequest::default()
    });
    let error = failure(&nothing.await.unwrap_err());
    assert_eq!((error.code, error.detail.as_str()), (400, "invalid change"));
    let error = wire(c.try_set("a", "{no", false).await);
    assert_eq!(error.code, 400);
    assert!(
        error.detail.starts_with("Request is invalid JSON: "),
        "{error:?}"
    );
    assert_eq!(wire(c.try_set("a..b", "1", false).await).code, 400);
    assert_eq!(wire(c.try_set("", "1", false).await).code, 400);
    c.set("big", &format!("\"{}\"", "x".repeat(1_000_000)))
        .await;
    let error = wire(
        c.try_set("more", &format!("\"{}\"", "x".repeat(100_000)), false)
            .await,
    );
    assert_eq!(error.code, 429);
    assert!(error.detail.contains("1048576 bytes"), "{error:?}");
    assert_eq!(c.get("more").await, "null");
    // A document without anything in it is one; without a document there is none again.
    assert_eq!(c.delete("big").await, 2);
    assert_eq!(c.get("").await, "{}");
    assert_eq!(c.delete("").await, 3);
    assert_eq!(wire(c.try_get("", false).await).code, 404);
    assert_eq!(c.set("a", "1").await, 4);
}

#[tokio::test]
async fn only_administrators_of_the_namespace_come_near_it() {
    let node = Node0::start();
    node.client(Some(admin("foo"))).await.set("a", "1").await;
    for (caller, code) in [
        (None, Code::Unauthenticated),
        (Some(account("foo", "user", &[])), Code::Unauthenticated),
        (Some(admin("bar")), Code::PermissionDenied),
    ] {
        let mut c = node.client(caller).await;
        let code_of = |result: Result<_, tonic::Status>| result.err().unwrap().code();
        assert_eq!(code_of(c.try_get("a", false).await.map(drop)), code);
        assert_eq!(code_of(c.try_set("a", "2", false).await.map(drop)), code);
        assert_eq!(code_of(c.try_delete("a").await.map(drop)), code);
        assert_eq!(code_of(c.try_revert(1).await.map(drop)), code);
        let ask = HistoryRequest {
            namespace: "foo".into(),
            ..HistoryRequest::default()
        };
        assert_eq!(code_of(c.raw().history(ask).await.map(drop)), code);
        let ask = ReadRequest {
            namespace: "foo".into(),
            ..ReadRequest::default()
        };
        assert_eq!(code_of(c.raw().read(ask).await.map(drop)), code);
        let ask = WatchRequest {
            namespace: "foo".into(),
            ..WatchRequest::default()
        };
        let watched = c.raw().watch(tokio_stream::iter([ask])).await;
        assert_eq!(code_of(watched.map(drop)), code);
        let rotated = c.raw().rotate(RotateRequest {}).await;
        assert!(rotated.is_err());
    }
    let mut c = node.client(Some(admin("foo"))).await;
    let rotated = c.raw().rotate(RotateRequest {}).await.unwrap_err();
    assert_eq!(
        rotated.code(),
        Code::PermissionDenied,
        "rotation is for the operator"
    );
    assert_eq!(c.get("a").await, "1");
    // The operator reads everywhere; a service that says `micro` means its own namespace.
    assert_eq!(node.client(Some(admin("micro"))).await.get("a").await, "1");
    let mut service = node
        .client(Some(account("foo", "service", &["service"])))
        .await;
    for namespace in ["micro", ""] {
        let ask = GetRequest {
            namespace: namespace.into(),
            path: "a".into(),
            options: None,
        };
        let answer = service.raw().get(ask).await.unwrap().into_inner();
        assert_eq!(answer.value.unwrap().data, "1", "{namespace:?}");
    }
}

#[tokio::test]
async fn secrets_are_masked_unless_asked_for_and_never_written_in_plain() {
    let node = Node0::start();
    let mut c = node.client(Some(admin("foo"))).await;
    c.set("db.user", r#""ann""#).await;
    c.try_set(
        "db",
        r#"{"password":"hunter2-plain","tokens":["tok-plain",1]}"#,
        true,
    )
    .await
    .unwrap();
    let masked = r#"{"password":"[secret]","tokens":"[secret]","user":"ann"}"#;
    let open = r#"{"password":"hunter2-plain","tokens":["tok-plain",1],"user":"ann"}"#;
    assert_eq!(c.get("db").await, masked);
    assert_eq!(c.try_get("db", true).await.unwrap(), open);
    assert_eq!(
        c.try_get("db.password", true).await.unwrap(),
        r#""hunter2-plain""#
    );
    c.try_set("db.password", r#""second-plain""#, true)
        .await
        .unwrap();
    let history = format!("{:?}", c.history("", 0).await);
    assert!(!history.contains("plain"), "{history}");
    assert!(history.contains("[secret]"));
    // Neither what is, nor what was, in any file: not before a restart, and not after one.
    node.storage().checkpoint().await.unwrap();
    assert!(
        !node.files_with(&["ann"]).is_empty(),
        "what is no secret is found"
    );
    node.assert_no_file_has(&["hunter2-plain", "tok-plain", "second-plain"]);
    let key = std::fs::read_to_string(node.key_file()).unwrap();
    node.assert_no_file_has(&[key.trim()]);
    let node = node.restart();
    node.assert_no_file_has(&["hunter2-plain", "tok-plain", "second-plain"]);
    let mut c = node.client(Some(admin("foo"))).await;
    assert_eq!(c.get("db").await, masked);
    assert_eq!(
        c.try_get("db.password", true).await.unwrap(),
        r#""second-plain""#
    );
    // A plain value over a secret one is a plain one.
    c.set("db.password", r#""open""#).await;
    assert_eq!(c.get("db.password").await, r#""open""#);
}

#[tokio::test]
async fn a_secret_without_its_key_is_an_error_that_names_it() {
    let node = Node0::start();
    let mut c = node.client(Some(admin("foo"))).await;
    c.try_set("s", "1", true).await.unwrap();
    c.set("plain", "2").await;
    let aside = node.dir().join("aside");
    std::fs::rename(node.key_file(), &aside).unwrap();
    let node = node.restart();
    let mut c = node.client(Some(admin("foo"))).await;
    let error = wire(c.try_get("s", true).await);
    assert_eq!(error.code, 412);
    assert!(error.detail.starts_with("cannot decrypt s: "), "{error:?}");
    assert_eq!(c.get("").await, r#"{"plain":2,"s":"[secret]"}"#);
    std::fs::rename(&aside, node.key_file()).unwrap();
    assert_eq!(c.try_get("s", true).await.unwrap(), "1");
}

#[tokio::test]
async fn keys_that_others_can_read_are_refused_but_plain_values_go_on() {
    use std::os::unix::fs::PermissionsExt as _;
    let node = Node0::start();
    let mut c = node.client(Some(admin("foo"))).await;
    c.try_set("s", "1", true).await.unwrap();
    let mode = |mode| {
        let mode = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(node.key_file(), mode).unwrap();
    };
    mode(0o644);
    let node = {
        let file = node.key_file();
        let node = node.restart();
        assert_eq!(node.key_file(), file);
        node
    };
    let mut c = node.client(Some(admin("foo"))).await;
    for error in [
        wire(c.try_set("t", "2", true).await),
        wire(c.try_get("s", true).await),
    ] {
        assert_eq!(error.code, 412);
        assert!(
            error.detail.contains("mode 0644") && error.detail.contains("chmod 600"),
            "{error:?}"
        );
    }
    c.set("plain", "3").await;
    assert_eq!(c.get("").await, r#"{"plain":3,"s":"[secret]"}"#);
    let closed = std::fs::Permissions::from_mode(0o600);
    std::fs::set_permissions(node.key_file(), closed).unwrap();
    assert_eq!(c.try_get("s", true).await.unwrap(), "1");
}

#[tokio::test]
async fn the_history_says_who_did_what_and_leads_back() {
    let node = Node0::start();
    let mut c = node.client(Some(admin("foo"))).await;
    c.set("a", r#"{"x":1,"y":2}"#).await;
    node.clock().advance(Duration::from_secs(5));
    c.try_set("a.x", r#""s-one""#, true).await.unwrap();
    c.set("b", "[1]").await;
    c.delete("a").await;
    let entries = c.history("", 0).await;
    let brief: Vec<_> = entries
        .iter()
        .map(|e| {
            (
                e.version,
                e.action.as_str(),
                e.path.as_str(),
                e.before.as_str(),
                e.after.as_str(),
            )
        })
        .collect();
    assert_eq!(
        brief,
        [
            (4, "delete", "a", r#"{"x":"[secret]","y":2}"#, "null"),
            (3, "set", "b", "null", "[1]"),
            (2, "set", "a.x", "1", r#""[secret]""#),
            (1, "set", "a", "null", r#"{"x":1,"y":2}"#),
        ]
    );
    assert!(entries.iter().all(|e| e.by == "ann"));
    assert_eq!(entries[3].at + 5, entries[2].at);
    let versions = |entries: &[micro_proto::config::Entry]| -> Vec<u64> {
        entries.iter().map(|e| e.version).collect()
    };
    assert_eq!(versions(&c.history("a.x", 0).await), [4, 2, 1]);
    assert_eq!(versions(&c.history("b", 0).await), [3]);
    assert_eq!(versions(&c.history("", 2).await), [4, 3]);
    assert!(c.history("other", 0).await.is_empty());
    // Back, secrets included, also after a restart; and that is a change like any other.
    let node = node.restart();
    let mut c = node.client(Some(admin("foo"))).await;
    assert_eq!(c.try_revert(3).await.unwrap(), 5);
    assert_eq!(c.get("").await, r#"{"a":{"x":"[secret]","y":2},"b":[1]}"#);
    assert_eq!(c.try_get("a.x", true).await.unwrap(), r#""s-one""#);
    assert_eq!(c.try_revert(1).await.unwrap(), 6);
    assert_eq!(c.get("").await, r#"{"a":{"x":1,"y":2}}"#);
    assert_eq!(c.try_revert(6).await.unwrap(), 6, "it is so already");
    assert_eq!(c.try_revert(5).await.unwrap(), 7);
    assert_eq!(c.try_get("a.x", true).await.unwrap(), r#""s-one""#);
    let newest = &c.history("", 1).await[0];
    assert_eq!((newest.action.as_str(), newest.version), ("revert", 7));
    for wrong in [0, 8] {
        let error = wire(c.try_revert(wrong).await);
        assert_eq!(error.code, 400);
        assert!(error.detail.contains("from 1 to 7"), "{error:?}");
    }
    // Also back to a document that was deleted, and from none.
    assert_eq!(c.delete("").await, 8);
    assert_eq!(c.try_revert(7).await.unwrap(), 9);
    assert_eq!(c.try_revert(8).await.unwrap(), 10);
    assert_eq!(wire(c.try_get("", false).await).code, 404);
}

#[tokio::test]
async fn a_watch_shows_the_value_and_then_each_change_of_it() {
    let node = Node0::start();
    let mut c = node.client(Some(admin("foo"))).await;
    let (_held, mut early) = watch(&mut c, "a", false).await;
    assert_eq!(next(&mut early).await, ("null".into(), 0));
    c.set("a.b", "1").await;
    assert_eq!(next(&mut early).await, (r#"{"b":1}"#.into(), 1));
    let (_held, mut late) = watch(&mut c, "a.b", false).await;
    assert_eq!(next(&mut late).await, ("1".into(), 1));
    c.set("a.c", "2").await;
    c.set("other", "3").await;
    c.set("a", "4").await;
    // What is beside or elsewhere is not shown; what is above is.
    assert_eq!(next(&mut late).await, ("null".into(), 4));
    let mut seen = next(&mut early).await;
    while seen.1 < 4 {
        seen = next(&mut early).await;
    }
    assert_eq!(seen, ("4".into(), 4));
}

#[tokio::test]
async fn a_watch_of_a_secret_opens_it_or_says_that_it_changed() {
    let node = Node0::start();
    let mut c = node.client(Some(admin("foo"))).await;
    let (_one, mut open) = watch(&mut c, "s", true).await;
    let (_two, mut masked) = watch(&mut c, "s", false).await;
    for stream in [&mut open, &mut masked] {
        assert_eq!(next(stream).await.0, "null");
    }
    for (version, value) in [(1, "\"one\""), (2, "\"two\"")] {
        c.try_set("s", value, true).await.unwrap();
        assert_eq!(next(&mut open).await, (value.into(), version));
        assert_eq!(next(&mut masked).await, (r#""[secret]""#.into(), version));
    }
    // A rotation changes nothing that a watch shows.
    let mut operator = node.client(Some(admin("micro"))).await;
    operator.raw().rotate(RotateRequest {}).await.unwrap();
    c.try_set("s", "\"three\"", true).await.unwrap();
    assert_eq!(next(&mut open).await, ("\"three\"".into(), 3));
    assert_eq!(next(&mut masked).await, (r#""[secret]""#.into(), 3));
}

#[tokio::test]
async fn a_watch_ends_with_the_server() {
    let node = Node0::start();
    let mut c = node.client(Some(admin("foo"))).await;
    let (_held, mut stream) = watch(&mut c, "a", false).await;
    next(&mut stream).await;
    node.stop();
    let end = tokio::time::timeout(SOON, stream.message()).await.unwrap();
    assert_eq!(end.unwrap_err().code(), Code::Unavailable);
}

#[tokio::test]
async fn writers_of_different_paths_never_lose_each_other() {
    const WRITERS: usize = 8;
    const EACH: usize = 25;
    let node = Node0::start();
    let mut tasks = tokio::task::JoinSet::new();
    for writer in 0..WRITERS {
        let mut c = node.client(Some(admin("foo"))).await;
        tasks.spawn(async move {
            for i in 0..EACH {
                let secret = i % 5 == 0;
                let path = format!("w{writer}.k{i}");
                c.try_set(&path, &i.to_string(), secret).await.unwrap();
            }
        });
    }
    tasks.join_all().await;
    let node = node.restart();
    let mut c = node.client(Some(admin("foo"))).await;
    let text = c.try_get("", true).await.unwrap();
    let document: serde_json::Value = serde_json::from_str(&text).unwrap();
    for writer in 0..WRITERS {
        for i in 0..EACH {
            assert_eq!(document[format!("w{writer}")][format!("k{i}")], i);
        }
    }
    let entries = c.history("", 1000).await;
    let versions: Vec<u64> = entries.iter().map(|e| e.version).rev().collect();
    let all: Vec<u64> = (1..=(WRITERS * EACH) as u64).collect();
    assert_eq!(versions, all, "each change has a version of its own");
}

#[tokio::test]
async fn a_value_has_to_be_given_even_when_it_is_null() {
    let node = Node0::start();
    let mut c = node.client(Some(admin("foo"))).await;
    let null = Value {
        data: "null".into(),
        format: "json".into(),
    };
    let ask = SetRequest {
        namespace: "foo".into(),
        path: "a".into(),
        value: Some(null),
        options: None,
    };
    assert_eq!(c.raw().set(ask).await.unwrap().into_inner().version, 1);
    assert_eq!(c.get("").await, r#"{"a":null}"#);
}
