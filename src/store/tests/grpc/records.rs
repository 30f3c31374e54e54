//! Reading and writing records.

use std::{collections::HashMap, time::Duration};

use micro_proto::store::{
    CommitRequest, DatabasesRequest, Field, ListOptions, Operation, ReadOptions, ReadRequest,
    Record, TablesRequest, WriteRequest,
    operation::{Change, Condition},
};
use tonic::Code;

use crate::node::{Node, admin, all, delete, detail, list, read, record, service, write};

#[tokio::test]
async fn a_record_is_read_as_it_was_written_also_after_a_restart() {
    let mut node = Node::start().await;
    let mut client = node.client(admin("foo")).await;
    let field = Field {
        r#type: "number".into(),
        value: "7".into(),
    };
    let written = Record {
        metadata: HashMap::from([("size".to_owned(), field)]),
        ..record("k", b"\0v\xff", 0)
    };
    let revision = client
        .write(write("foo", "users", written.clone()))
        .await
        .unwrap()
        .into_inner()
        .revision;
    assert!(revision > 0);
    let wanted = Record {
        revision,
        ..written
    };
    let ask = || read("foo", "users", "k");
    let found = client.read(ask()).await.unwrap().into_inner().records;
    assert_eq!(found, std::slice::from_ref(&wanted));
    node.restart().await;
    let mut client = node.client(admin("foo")).await;
    let found = client.read(ask()).await.unwrap().into_inner().records;
    assert_eq!(found, [wanted]);
    client.delete(delete("foo", "users", "k")).await.unwrap();
    client.delete(delete("foo", "users", "k")).await.unwrap();
    let status = client.read(ask()).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
    assert_eq!(
        detail(&status),
        ("store.Store.Read".into(), 404, "not found".into())
    );
}

#[tokio::test]
async fn without_names_a_record_is_in_the_callers_database_and_the_table_micro() {
    let node = Node::start().await;
    let mut client = node.client(service("foo")).await;
    let bare = WriteRequest {
        record: Some(record("k", b"v", 0)),
        options: None,
    };
    client.write(bare).await.unwrap();
    for (database, table) in [("", ""), ("micro", "micro"), ("foo", "micro")] {
        let found = client.read(read(database, table, "k")).await.unwrap();
        assert_eq!(found.into_inner().records.len(), 1, "{database}/{table}");
    }
    let status = client.read(read("", "other", "k")).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
}

#[tokio::test]
async fn an_expired_record_is_not_there_and_its_space_is_taken_back() {
    let node = Node::start().await;
    let mut client = node.client(admin("foo")).await;
    for (key, expiry) in [("a", 10), ("b", 20), ("c", 0), ("d", 10)] {
        let request = write("foo", "", record(key, b"v", expiry));
        client.write(request).await.unwrap();
    }
    // Written again with another expiry, and without one.
    client
        .write(write("foo", "", record("a", b"w", 30)))
        .await
        .unwrap();
    client
        .write(write("foo", "", record("d", b"w", 0)))
        .await
        .unwrap();
    node.clock.advance(Duration::from_millis(500));
    let left = client.read(read("foo", "", "b")).await.unwrap();
    assert_eq!(left.into_inner().records[0].expiry, 19, "truncated");
    node.clock.advance(Duration::from_millis(19_500));
    let status = client.read(read("foo", "", "b")).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
    let keys = list(&mut client, all("foo", "")).await.unwrap();
    assert_eq!(keys, ["a", "c", "d"]);
    let left = client.read(read("foo", "", "a")).await.unwrap();
    assert_eq!(left.into_inner().records[0].expiry, 10);
    assert_eq!(node.handle.sweep().await.unwrap(), 1);
    node.clock.advance(Duration::from_secs(100));
    assert_eq!(node.handle.sweep().await.unwrap(), 1);
    assert_eq!(node.handle.sweep().await.unwrap(), 0);
    let keys = list(&mut client, all("foo", "")).await.unwrap();
    assert_eq!(keys, ["c", "d"]);
}

fn ask(key: &str, prefix: bool, suffix: bool, page: (u64, u64), order: &str) -> ReadRequest {
    ReadRequest {
        key: key.into(),
        options: Some(ReadOptions {
            prefix,
            suffix,
            limit: page.0,
            offset: page.1,
            order: order.into(),
            ..ReadOptions::default()
        }),
    }
}

#[tokio::test]
async fn records_are_read_and_listed_by_prefix_suffix_limit_offset_and_order() {
    let node = Node::start().await;
    let mut client = node.client(admin("foo")).await;
    for key in ["b/2", "a/1", "b/1", "b", "a/2", "ab/1"] {
        client
            .write(write("", "", record(key, b"v", 0)))
            .await
            .unwrap();
    }
    for (request, wanted) in [
        (
            ask("a", true, false, (0, 0), ""),
            &["a/1", "a/2", "ab/1"][..],
        ),
        (
            ask("/1", false, true, (0, 0), "asc"),
            &["a/1", "ab/1", "b/1"],
        ),
        (ask("b", true, true, (0, 0), ""), &["b"]),
        (ask("", true, false, (2, 1), ""), &["a/2", "ab/1"]),
        (ask("", true, false, (2, 1), "desc"), &["b/1", "b"]),
        (ask("a", true, false, (0, 3), ""), &[]),
        (ask("nothing", true, false, (0, 0), ""), &[]),
    ] {
        let records = client
            .read(request.clone())
            .await
            .unwrap()
            .into_inner()
            .records;
        let keys: Vec<_> = records.iter().map(|r| r.key.as_str()).collect();
        assert_eq!(keys, wanted, "{request:?}");
    }
    let options = ListOptions {
        prefix: "a".into(),
        suffix: "/1".into(),
        ..ListOptions::default()
    };
    assert_eq!(list(&mut client, options).await.unwrap(), ["a/1", "ab/1"]);
    let options = ListOptions {
        limit: 2,
        offset: 1,
        order: "desc".into(),
        ..ListOptions::default()
    };
    assert_eq!(list(&mut client, options).await.unwrap(), ["b/1", "b"]);
    let none = list(&mut client, all("foo", "no such table"))
        .await
        .unwrap();
    assert!(none.is_empty());
}

#[tokio::test]
async fn a_walk_over_many_records_goes_on_past_its_first_page() {
    let node = Node::start().await;
    let mut client = node.client(admin("foo")).await;
    for hundred in 0..20 {
        let operations = (0..100).map(|n| Operation {
            change: Some(Change::Write(record(
                &format!("{hundred:02}{n:02}"),
                b"v",
                0,
            ))),
            ..Operation::default()
        });
        let request = CommitRequest {
            operations: operations.collect(),
            ..CommitRequest::default()
        };
        client.commit(request).await.unwrap();
    }
    let keys = list(&mut client, all("", "")).await.unwrap();
    assert_eq!(keys.len(), 2000);
    assert!(keys.is_sorted());
    let options = ListOptions {
        suffix: "99".into(),
        order: "desc".into(),
        offset: 18,
        ..ListOptions::default()
    };
    assert_eq!(list(&mut client, options).await.unwrap(), ["0199", "0099"]);
    let request = ask("", true, false, (0, 1995), "");
    let records = client.read(request).await.unwrap().into_inner().records;
    assert_eq!(records.len(), 5);
}

#[tokio::test]
async fn an_answer_that_would_be_too_large_is_refused_with_a_hint() {
    let node = Node::start().await;
    let mut client = node.client(admin("foo")).await;
    let value = vec![7; 23 << 20];
    for key in ["a", "b", "c"] {
        client
            .write(write("", "", record(key, &value, 0)))
            .await
            .unwrap();
    }
    let status = client
        .read(ask("", true, false, (0, 0), ""))
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert!(detail(&status).2.contains("limit and offset"), "{status}");
    let two = client.read(ask("", true, false, (2, 0), "")).await.unwrap();
    assert_eq!(two.into_inner().records.len(), 2);
}

#[tokio::test]
async fn what_cannot_be_written_is_refused_with_the_reason() {
    let node = Node::start().await;
    let mut client = node.client(admin("foo")).await;
    let long = "k".repeat(4000);
    for (request, part) in [
        (WriteRequest::default(), "Missing record"),
        (write("", "", record("", b"", 0)), "Missing key"),
        (write("", "", record(&long, b"", 0)), "4000 bytes"),
        (write("", "a\0b", record("k", b"", 0)), "no table"),
        (write("", "", record("k", b"", -1)), "-1 seconds"),
    ] {
        let status = client.write(request).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{part}");
        assert!(detail(&status).2.contains(part), "{status}");
        assert_eq!(detail(&status).0, "store.Store.Write");
    }
}

#[tokio::test]
async fn databases_and_tables_are_those_that_were_written_to() {
    let mut node = Node::start().await;
    let mut foo = node.client(service("foo")).await;
    let mut operator = node.client(admin("micro")).await;
    for (table, expiry) in [("users", 0), ("tokens", 5), ("users", 0), ("users", 5)] {
        foo.write(write("micro", table, record("k", b"v", expiry)))
            .await
            .unwrap();
    }
    node.restart().await;
    let mut again = node.client(service("foo")).await;
    let tables = |database: &str| TablesRequest {
        database: database.into(),
    };
    for database in ["foo", "", "micro"] {
        let found = again.tables(tables(database)).await.unwrap().into_inner();
        assert_eq!(found.tables, ["tokens", "users"], "{database}");
    }
    drop((foo, operator));
    operator = node.client(admin("micro")).await;
    let found = operator.tables(tables("micro")).await.unwrap().into_inner();
    assert!(found.tables.is_empty(), "{:?}", found.tables);
    let found = operator.databases(DatabasesRequest {}).await.unwrap();
    assert_eq!(found.into_inner().databases, ["foo", "micro"]);
    let found = again.databases(DatabasesRequest {}).await.unwrap();
    assert_eq!(found.into_inner().databases, ["foo"]);
}

fn operation(table: &str, change: Change, condition: Option<Condition>) -> Operation {
    Operation {
        table: table.into(),
        change: Some(change),
        condition,
    }
}

fn commit(operations: Vec<Operation>) -> CommitRequest {
    CommitRequest {
        database: "foo".into(),
        operations,
    }
}

#[tokio::test]
async fn a_commit_happens_as_a_whole_or_not_at_all() {
    let node = Node::start().await;
    let mut client = node.client(admin("foo")).await;
    let put = |key: &str| Change::Write(record(key, b"v", 0));
    let revision = client
        .commit(commit(vec![
            operation("one", put("a"), Some(Condition::Absent(true))),
            operation("two", put("b"), None),
        ]))
        .await
        .unwrap()
        .into_inner()
        .revision;
    let found = client
        .read(read("", "two", "b"))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(found.records[0].revision, revision);
    let status = client
        .commit(commit(vec![
            operation("two", Change::Delete("b".into()), None),
            operation("one", put("a"), Some(Condition::Absent(true))),
        ]))
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::AlreadyExists);
    let (id, code, text) = detail(&status);
    assert_eq!((id.as_str(), code), ("store.Store.Commit", 409));
    for part in ["\"a\"", "table one", &format!("revision {revision}")] {
        assert!(text.contains(part), "{text}");
    }
    assert!(client.read(read("", "two", "b")).await.is_ok());
    let status = client
        .commit(commit(vec![operation(
            "one",
            Change::Check("c".into()),
            Some(Condition::Present(true)),
        )]))
        .await
        .unwrap_err();
    assert!(detail(&status).2.contains("no record \"c\""), "{status}");
    client
        .commit(commit(vec![
            operation(
                "one",
                Change::Check("a".into()),
                Some(Condition::Revision(revision)),
            ),
            operation("two", Change::Delete("b".into()), None),
        ]))
        .await
        .unwrap();
    assert!(client.read(read("", "two", "b")).await.is_err());
}

#[tokio::test]
async fn a_record_that_has_expired_counts_as_absent_in_a_condition() {
    let node = Node::start().await;
    let mut client = node.client(admin("foo")).await;
    let put = |expiry| Change::Write(record("lock", b"me", expiry));
    let take = || commit(vec![operation("", put(5), Some(Condition::Absent(true)))]);
    client.commit(take()).await.unwrap();
    assert!(client.commit(take()).await.is_err());
    node.clock.advance(Duration::from_secs(5));
    let present = operation("", put(5), Some(Condition::Present(true)));
    assert!(client.commit(commit(vec![present])).await.is_err());
    client.commit(take()).await.unwrap();
    assert!(client.commit(take()).await.is_err());
}

#[tokio::test]
async fn of_many_who_want_the_same_record_one_gets_it() {
    let node = Node::start().await;
    let mut tasks = Vec::new();
    for _ in 0..16 {
        let mut client = node.client(admin("foo")).await;
        tasks.push(tokio::spawn(async move {
            let put = Change::Write(record("lock", b"me", 0));
            let take = commit(vec![operation("", put, Some(Condition::Absent(true)))]);
            client.commit(take).await.is_ok()
        }));
    }
    let mut taken = 0;
    for task in tasks {
        taken += usize::from(task.await.unwrap());
    }
    assert_eq!(taken, 1);
}

#[tokio::test]
async fn commits_that_make_no_sense_are_refused() {
    let node = Node::start().await;
    let mut client = node.client(admin("foo")).await;
    let put = || Change::Write(record("a", b"v", 0));
    for (operations, part) in [
        (
            vec![operation("", put(), None), operation("micro", put(), None)],
            "twice",
        ),
        (
            vec![operation("", Change::Check("a".into()), None)],
            "no condition",
        ),
        (vec![Operation::default()], "neither"),
        (
            vec![operation("", put(), Some(Condition::Absent(false)))],
            "false",
        ),
    ] {
        let status = client.commit(commit(operations)).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{part}");
        assert!(detail(&status).2.contains(part), "{status}");
    }
}
