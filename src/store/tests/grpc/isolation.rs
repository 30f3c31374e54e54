//! Nobody sees what belongs to another namespace.

use micro_proto::store::{
    BlobDeleteRequest, BlobListOptions, BlobListRequest, BlobOptions, BlobReadRequest,
    BlobWriteRequest, CommitRequest, DatabasesRequest, ListOptions, Operation, ReadOptions,
    ReadRequest, TablesRequest, WatchRequest, operation::Change,
};
use tonic::Code;

use crate::node::{
    Node, admin, all, delete, detail, list, open_stream, read, record, service, user, write,
};

#[tokio::test]
async fn the_same_names_in_two_namespaces_are_two_records() {
    let node = Node::start().await;
    let mut foo = node.client(service("foo")).await;
    let mut bar = node.client(service("bar")).await;
    let mut operator = node.client(admin("micro")).await;
    for (client, value) in [
        (&mut foo, "foo's"),
        (&mut bar, "bar's"),
        (&mut operator, "ours"),
    ] {
        // All of them say `micro`, as Micro's library does.
        let request = write("micro", "users", record("k", value.as_bytes(), 0));
        client.write(request).await.unwrap();
    }
    let value = |found: tonic::Response<micro_proto::store::ReadResponse>| {
        String::from_utf8(found.into_inner().records.remove(0).value).unwrap()
    };
    for (client, wanted) in [
        (&mut foo, "foo's"),
        (&mut bar, "bar's"),
        (&mut operator, "ours"),
    ] {
        let found = client.read(read("micro", "users", "k")).await.unwrap();
        assert_eq!(value(found), wanted);
        let keys = list(client, all("micro", "users")).await.unwrap();
        assert_eq!(keys, ["k"]);
    }
    // The operator reaches the records of a namespace by its name.
    let found = operator.read(read("foo", "users", "k")).await.unwrap();
    assert_eq!(value(found), "foo's");
    operator.delete(delete("foo", "users", "k")).await.unwrap();
    assert!(foo.read(read("foo", "users", "k")).await.is_err());
    assert!(bar.read(read("bar", "users", "k")).await.is_ok());
}

#[tokio::test]
async fn no_call_reaches_another_namespace() {
    let node = Node::start().await;
    let mut foo = node.client(admin("foo")).await;
    foo.write(write("foo", "users", record("k", b"secret", 0)))
        .await
        .unwrap();
    for caller in [admin("bar"), service("bar"), user("bar"), user("micro")] {
        let mut stranger = node.client(caller.clone()).await;
        let mut codes = Vec::new();
        let by_prefix = ReadRequest {
            key: String::new(),
            options: Some(ReadOptions {
                database: "foo".into(),
                table: "users".into(),
                prefix: true,
                ..ReadOptions::default()
            }),
        };
        codes.push(stranger.read(read("foo", "users", "k")).await.err());
        codes.push(stranger.read(by_prefix).await.err());
        let request = write("foo", "users", record("k", b"", 0));
        codes.push(stranger.write(request).await.err());
        codes.push(stranger.delete(delete("foo", "users", "k")).await.err());
        codes.push(list(&mut stranger, all("foo", "users")).await.err());
        let tables = TablesRequest {
            database: "foo".into(),
        };
        codes.push(stranger.tables(tables).await.err());
        let commit = CommitRequest {
            database: "foo".into(),
            operations: vec![Operation {
                table: "users".into(),
                change: Some(Change::Delete("k".into())),
                condition: None,
            }],
        };
        codes.push(stranger.commit(commit).await.err());
        let (_open, asks) = open_stream(WatchRequest {
            database: "foo".into(),
            table: "users".into(),
            ..WatchRequest::default()
        })
        .await;
        codes.push(stranger.watch(asks).await.err());
        for (call, status) in codes.into_iter().enumerate() {
            let code = status.map(|status| status.code());
            assert_eq!(
                code,
                Some(Code::PermissionDenied),
                "call {call} of {caller:?}"
            );
        }
    }
    assert!(foo.read(read("foo", "users", "k")).await.is_ok());
}

#[tokio::test]
async fn only_administrators_use_the_database_of_their_namespace() {
    let node = Node::start().await;
    let mut plain = node.client(user("foo")).await;
    let status = plain.read(read("foo", "", "k")).await.unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated);
    let status = plain.databases(DatabasesRequest {}).await.unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated);
    let mut nobody = node.anonymous().await;
    let status = nobody.read(read("", "", "k")).await.unwrap_err();
    assert_eq!(
        detail(&status),
        (
            "store.Store.Read".into(),
            401,
            "an account is required".into()
        )
    );
    let status = list(&mut nobody, ListOptions::default()).await.unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated);
    let mut operator = node.client(admin("micro")).await;
    let status = operator.read(read("No such", "", "k")).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(detail(&status).2.contains("use tables"), "{status}");
}

#[tokio::test]
async fn no_call_reaches_the_blobs_of_another_namespace() {
    let node = Node::start().await;
    let options = Some(BlobOptions {
        namespace: "foo".into(),
        ..BlobOptions::default()
    });
    let part = BlobWriteRequest {
        key: "k".into(),
        options: options.clone(),
        blob: b"secret".to_vec(),
    };
    let mut foo = node.blobs(admin("foo")).await;
    foo.write(tokio_stream::iter([part.clone()])).await.unwrap();
    let mut strangers = vec![(node.anonymous_blobs().await, Code::Unauthenticated)];
    for caller in [admin("bar"), service("bar"), user("micro")] {
        strangers.push((node.blobs(caller).await, Code::PermissionDenied));
    }
    strangers.push((node.blobs(user("foo")).await, Code::Unauthenticated));
    for (mut stranger, wanted) in strangers {
        let mut codes = Vec::new();
        let (_open, asks) = open_stream(BlobReadRequest {
            key: "k".into(),
            options: options.clone(),
        })
        .await;
        codes.push(stranger.read(asks).await.err());
        codes.push(
            stranger
                .write(tokio_stream::iter([part.clone()]))
                .await
                .err(),
        );
        let request = BlobDeleteRequest {
            key: "k".into(),
            options: options.clone(),
        };
        codes.push(stranger.delete(request).await.err());
        let request = BlobListRequest {
            options: Some(BlobListOptions {
                namespace: "foo".into(),
                prefix: String::new(),
            }),
        };
        codes.push(stranger.list(request).await.err());
        for (call, status) in codes.into_iter().enumerate() {
            assert_eq!(status.map(|s| s.code()), Some(wanted), "call {call}");
        }
    }
}
