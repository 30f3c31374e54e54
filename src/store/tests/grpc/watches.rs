//! Watching records.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::time::Duration;

use micro_proto::store::{
    WatchRequest, WatchResponse, store_client::StoreClient, watch_response::Kind,
};
use tokio::sync::mpsc;
use tonic::{Code, Status, Streaming, transport::Channel};

use crate::node::{Node, SOON, admin, delete, open_stream, record, write};

/// A watch whose request stream stays open.
struct Watch {
    _asks: mpsc::Sender<WatchRequest>,
    events: Streaming<WatchResponse>,
}

impl Watch {
    async fn open(client: &mut StoreClient<Channel>, prefix: &str, changes_only: bool) -> Self {
        let (asks, outgoing) = open_stream(WatchRequest {
            prefix: prefix.into(),
            changes_only,
            ..WatchRequest::default()
        })
        .await;
        let opened = tokio::time::timeout(SOON, client.watch(outgoing)).await;
        Self {
            _asks: asks,
            events: opened.unwrap().unwrap().into_inner(),
        }
    }

    async fn try_next(&mut self) -> Result<WatchResponse, Status> {
        let next = tokio::time::timeout(SOON, self.events.message()).await;
        Ok(next.unwrap()?.unwrap())
    }

    async fn next(&mut self) -> (Kind, String, Vec<u8>) {
        let next = self.try_next().await.unwrap();
        let record = next.record.clone().unwrap_or_default();
        (next.kind(), record.key, record.value)
    }
}

fn event(kind: Kind, key: &str, value: &[u8]) -> (Kind, String, Vec<u8>) {
    (kind, key.to_owned(), value.to_vec())
}

#[tokio::test]
async fn a_watch_tells_what_is_there_and_then_what_changes() {
    let node = Node::start().await;
    let mut client = node.client(admin("foo")).await;
    for key in ["a/1", "a/2", "b"] {
        client
            .write(write("", "", record(key, b"v", 0)))
            .await
            .unwrap();
    }
    let mut watch = Watch::open(&mut client, "a/", false).await;
    assert_eq!(watch.next().await, event(Kind::Written, "a/1", b"v"));
    assert_eq!(watch.next().await, event(Kind::Written, "a/2", b"v"));
    assert_eq!(watch.next().await, event(Kind::Current, "", b""));
    client
        .write(write("", "", record("b", b"w", 0)))
        .await
        .unwrap();
    client
        .write(write("", "other", record("a/9", b"w", 0)))
        .await
        .unwrap();
    let written = client
        .write(write("", "", record("a/3", b"w", 9)))
        .await
        .unwrap();
    let told = watch.try_next().await.unwrap();
    let told = told.record.unwrap();
    assert_eq!((told.key.as_str(), told.expiry), ("a/3", 9));
    assert_eq!(told.revision, written.into_inner().revision);
    client.delete(delete("", "", "a/1")).await.unwrap();
    assert_eq!(watch.next().await, event(Kind::Deleted, "a/1", b""));
}

#[tokio::test]
async fn a_watch_of_changes_only_begins_with_current() {
    let node = Node::start().await;
    let mut client = node.client(admin("foo")).await;
    client
        .write(write("", "", record("a", b"v", 0)))
        .await
        .unwrap();
    let mut watch = Watch::open(&mut client, "", true).await;
    assert_eq!(watch.next().await, event(Kind::Current, "", b""));
    client
        .write(write("", "", record("a", b"w", 0)))
        .await
        .unwrap();
    assert_eq!(watch.next().await, event(Kind::Written, "a", b"w"));
}

#[tokio::test]
async fn a_watcher_is_told_when_a_record_expires() {
    let mut node = Node::start().await;
    let mut client = node.client(admin("foo")).await;
    client
        .write(write("", "", record("a", b"v", 5)))
        .await
        .unwrap();
    client
        .write(write("", "", record("b", b"v", 50)))
        .await
        .unwrap();
    let mut watch = Watch::open(&mut client, "", false).await;
    for _ in 0..3 {
        watch.next().await;
    }
    let (stop, running) = node.run();
    node.clock.advance(Duration::from_secs(5));
    assert_eq!(watch.next().await, event(Kind::Deleted, "a", b""));
    stop.cancel();
    running.await.unwrap();
    let end = watch.try_next().await.unwrap_err();
    assert_eq!(
        end.code(),
        Code::Unavailable,
        "a watch does not hold up the stop of the server"
    );
}

#[tokio::test]
async fn a_watch_that_begins_during_writes_ends_up_with_what_is_there() {
    let node = Node::start().await;
    let mut client = node.client(admin("foo")).await;
    let mut writer = node.client(admin("foo")).await;
    let writing = tokio::spawn(async move {
        for round in 0_u32..60 {
            for key in ["a", "b", "c"] {
                let value = round.to_string();
                let request = write("", "", record(key, value.as_bytes(), 0));
                writer.write(request).await.unwrap();
            }
        }
    });
    for _ in 0..10 {
        let mut watch = Watch::open(&mut client, "", false).await;
        let mut newest = std::collections::HashMap::new();
        let mut is_current = false;
        // Until it has seen a few changes, or the end of the writing.
        for _ in 0..30 {
            let next = tokio::time::timeout(Duration::from_millis(200), watch.try_next()).await;
            let Ok(next) = next else { break };
            let next = next.unwrap();
            is_current |= next.kind() == Kind::Current;
            if let Some(record) = next.record {
                let before = newest.insert(record.key.clone(), record.revision);
                assert!(
                    before.is_none_or(|before| before <= record.revision),
                    "{} went back from {before:?} to {}",
                    record.key,
                    record.revision
                );
            }
        }
        assert!(is_current);
    }
    writing.await.unwrap();
}

#[tokio::test]
async fn a_watcher_that_lags_is_told_to_begin_again() {
    let node = Node::start().await;
    let database = node
        .handle
        .database(&micro_core::Namespace::parse("foo").unwrap());
    let mut watching = database.watch("", "", false).unwrap();
    assert_eq!(watching.next().await.unwrap(), micro_store::Event::Current);
    // More than any queue holds, while nobody reads.
    let keys: Vec<String> = (0..3000).map(|n| format!("{n:05}")).collect();
    for hundred in keys.chunks(100) {
        let operations: Vec<_> = hundred
            .iter()
            .map(|key| micro_store::Operation {
                table: "",
                change: micro_store::Change::Write(micro_store::Write {
                    key,
                    value: b"v",
                    ..micro_store::Write::default()
                }),
                condition: None,
            })
            .collect();
        database.commit(&operations).await.unwrap();
    }
    assert_eq!(watching.next().await.unwrap(), micro_store::Event::Reset);
    let mut seen = Vec::new();
    while let micro_store::Event::Written(record) = watching.next().await.unwrap() {
        seen.push(record.key);
    }
    assert_eq!(seen, keys);
}
