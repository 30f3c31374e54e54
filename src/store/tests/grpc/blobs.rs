//! Blobs as streams.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::path::{Path, PathBuf};

use micro_core::Namespace;
use micro_proto::store::{
    BlobDeleteRequest, BlobInfo, BlobListOptions, BlobListRequest, BlobOptions, BlobReadRequest,
    BlobReadResponse, BlobWriteRequest, blob_store_client::BlobStoreClient,
};
use micro_store::Settings;
use tonic::{Code, Status, Streaming, transport::Channel};

use crate::node::{Node, SOON, admin, detail, open_stream, service};

type Client = BlobStoreClient<Channel>;

fn parts(key: &str, options: &BlobOptions, chunks: &[&[u8]]) -> Vec<BlobWriteRequest> {
    let part = |chunk: &&[u8]| BlobWriteRequest {
        key: key.into(),
        options: Some(options.clone()),
        blob: chunk.to_vec(),
    };
    chunks.iter().map(part).collect()
}

async fn write(client: &mut Client, key: &str, chunks: &[&[u8]]) -> Result<(), Status> {
    let parts = parts(key, &BlobOptions::default(), chunks);
    client.write(tokio_stream::iter(parts)).await.map(drop)
}

/// Opens as Micro's clients do: the request stream stays open.
async fn open(client: &mut Client, key: &str) -> Result<Streaming<BlobReadResponse>, Status> {
    let (open, asks) = open_stream(BlobReadRequest {
        key: key.into(),
        options: None,
    })
    .await;
    let answer = tokio::time::timeout(SOON, client.read(asks)).await.unwrap();
    // Kept open for as long as the test runs.
    tokio::spawn(async move { open.closed().await });
    answer.map(tonic::Response::into_inner)
}

async fn rest(mut chunks: Streaming<BlobReadResponse>) -> Result<Vec<u8>, Status> {
    let mut whole = Vec::new();
    while let Some(chunk) = tokio::time::timeout(SOON, chunks.message())
        .await
        .unwrap()?
    {
        whole.extend(chunk.blob);
    }
    Ok(whole)
}

async fn read(client: &mut Client, key: &str) -> Result<Vec<u8>, Status> {
    rest(open(client, key).await?).await
}

async fn list(client: &mut Client, prefix: &str) -> Vec<BlobInfo> {
    let options = BlobListOptions {
        prefix: prefix.into(),
        ..BlobListOptions::default()
    };
    let request = BlobListRequest {
        options: Some(options),
    };
    let found = client.list(request).await.unwrap().into_inner();
    let keys: Vec<_> = found.blobs.iter().map(|blob| blob.key.clone()).collect();
    assert_eq!(found.keys, keys);
    found.blobs
}

#[tokio::test]
async fn a_blob_is_read_as_it_was_written_also_after_a_restart() {
    let mut node = Node::start().await;
    let mut client = node.blobs(admin("foo")).await;
    let chunk: Vec<u8> = (0..300_000_u32).map(|n| (n % 251) as u8).collect();
    let options = BlobOptions {
        content_type: "image/png".into(),
        public: true,
        ..BlobOptions::default()
    };
    let mut written = parts("a/b", &options, &[&chunk, &chunk]);
    // What later messages say does not count.
    written[1].key = "other".into();
    client.write(tokio_stream::iter(written)).await.unwrap();
    write(&mut client, "empty", &[b""]).await.unwrap();
    let whole = [chunk.as_slice(), &chunk].concat();
    assert_eq!(read(&mut client, "a/b").await.unwrap(), whole);
    node.restart().await;
    let mut client = node.blobs(service("foo")).await;
    assert_eq!(read(&mut client, "a/b").await.unwrap(), whole);
    assert!(read(&mut client, "empty").await.unwrap().is_empty());
    let wanted = BlobInfo {
        key: "a/b".into(),
        size: 600_000,
        content_type: "image/png".into(),
        public: true,
        modified: 1_700_000_000,
    };
    assert_eq!(list(&mut client, "a").await, [wanted]);
    assert_eq!(list(&mut client, "").await.len(), 2);
    let delete = BlobDeleteRequest {
        key: "a/b".into(),
        options: None,
    };
    client.delete(delete.clone()).await.unwrap();
    client.delete(delete).await.unwrap();
    let status = read(&mut client, "a/b").await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
    assert_eq!(
        detail(&status),
        ("store.BlobStore.Read".into(), 404, "Blob not found".into())
    );
}

#[tokio::test]
async fn who_reads_a_blob_reads_it_to_its_end_though_it_is_replaced() {
    let node = Node::start().await;
    let mut client = node.blobs(admin("foo")).await;
    let old = vec![1; 4 << 20];
    write(&mut client, "k", &[&old[..2 << 20], &old[2 << 20..]])
        .await
        .unwrap();
    let reading = open(&mut client, "k").await.unwrap();
    write(&mut client, "k", &[b"new"]).await.unwrap();
    assert_eq!(rest(reading).await.unwrap(), old);
    assert_eq!(read(&mut client, "k").await.unwrap(), b"new");
    let foo = Namespace::parse("foo").unwrap();
    let used = node.storage.space(&foo).usage().blobs;
    assert_eq!(used, 3, "the old file is gone");
}

#[tokio::test]
async fn an_upload_that_breaks_off_changes_nothing() {
    let node = Node::with(Settings { blob: 1000 }).await;
    let mut client = node.blobs(admin("foo")).await;
    write(&mut client, "k", &[b"old"]).await.unwrap();
    let status = write(&mut client, "k", &[&[0; 600], &[0; 600]])
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert!(detail(&status).2.contains("1000 bytes"), "{status}");
    assert_eq!(read(&mut client, "k").await.unwrap(), b"old");
    let foo = Namespace::parse("foo").unwrap();
    assert_eq!(node.storage.space(&foo).usage().blobs, 3);
}

#[tokio::test]
async fn blobs_that_cannot_be_are_refused_with_the_reason() {
    let node = Node::start().await;
    let mut client = node.blobs(admin("foo")).await;
    let status = write(&mut client, "k", &[]).await.unwrap_err();
    assert_eq!(detail(&status).2, "No blob was sent");
    assert_eq!(status.code(), Code::InvalidArgument);
    let status = write(&mut client, "", &[b"x"]).await.unwrap_err();
    assert_eq!(detail(&status).2, "Missing key");
    let status = read(&mut client, "").await.unwrap_err();
    assert_eq!(detail(&status).2, "Missing key");
    let options = BlobOptions {
        content_type: "text/plain\r\nset-cookie: a=b".into(),
        ..BlobOptions::default()
    };
    let parts = parts("k", &options, &[b"x"]);
    let status = client.write(tokio_stream::iter(parts)).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
}

/// Puts a copy of the only blob of `foo` beside it, or into `namespace`, as an earlier process that
/// died would have left it.
fn leave_orphan(node: &Node, namespace: &str) -> PathBuf {
    let blobs = node.dir.path().join("blobs");
    let only = |directory: &Path| {
        let mut entries = std::fs::read_dir(directory).unwrap();
        entries.next().unwrap().unwrap().path()
    };
    let shard = only(&blobs.join("foo"));
    let file = only(&shard);
    let mut name = file.file_name().unwrap().to_str().unwrap().to_owned();
    // A letter that says which process made it.
    let other = if name.chars().nth(13) == Some('0') {
        "1"
    } else {
        "0"
    };
    name.replace_range(13..14, other);
    let directory = blobs.join(namespace).join(shard.file_name().unwrap());
    std::fs::create_dir_all(&directory).unwrap();
    let orphan = directory.join(name);
    std::fs::copy(file, &orphan).unwrap();
    orphan
}

#[tokio::test]
async fn files_that_no_blob_refers_to_go_at_the_next_start() {
    let mut node = Node::start().await;
    let mut client = node.blobs(admin("foo")).await;
    write(&mut client, "k", &[b"kept"]).await.unwrap();
    let orphans = ["foo", "bar"].map(|namespace| leave_orphan(&node, namespace));
    node.restart().await;
    for orphan in orphans {
        assert!(!orphan.exists(), "{orphan:?}");
    }
    let mut client = node.blobs(admin("foo")).await;
    assert_eq!(read(&mut client, "k").await.unwrap(), b"kept");
}
