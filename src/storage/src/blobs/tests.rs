//! Blobs on a real directory, and on a disk that fails.

use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::*;
use crate::disk::{
    OsDisk,
    faulty::{FaultyDisk, Op, Trouble},
};

fn namespace() -> Namespace {
    Namespace::parse("shop").unwrap()
}

fn root() -> PathBuf {
    PathBuf::from("/state/storage/blobs")
}

fn on(disk: &FaultyDisk) -> Blobs {
    Blobs::on(Arc::new(disk.clone()), &root(), &namespace(), None)
}

fn faulty() -> FaultyDisk {
    let disk = FaultyDisk::new(11);
    disk.create_dir_all(&root()).unwrap();
    for directory in ["/state/storage", "/state", "/"] {
        disk.sync_dir(Path::new(directory)).unwrap();
    }
    disk
}

fn content(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|n| (n * 31 % 251) as u8).collect()
}

async fn write(blobs: &Blobs, bytes: &[u8]) -> Result<BlobId, Error> {
    let mut writer = blobs.create().await?;
    for piece in bytes.chunks(100_000) {
        writer.write(piece).await?;
    }
    assert_eq!(writer.len(), bytes.len() as u64);
    writer.finish().await
}

async fn read(blobs: &Blobs, id: &BlobId) -> Result<Vec<u8>, Error> {
    let mut reader = blobs.open(id).await?;
    let mut bytes = Vec::new();
    while let Some(piece) = reader.read().await? {
        assert!(piece.len() <= 64 * 1024 && !piece.is_empty());
        bytes.extend_from_slice(&piece);
    }
    assert_eq!(reader.len(), bytes.len() as u64);
    Ok(bytes)
}

/// Files below the directory of the blobs.
fn files(disk: &FaultyDisk) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let namespace = root().join("shop");
    for shard in disk.list(&namespace).unwrap() {
        let shard = namespace.join(shard.name);
        for file in disk.list(&shard).unwrap() {
            found.push(shard.join(file.name));
        }
    }
    found
}

/// An id as an earlier process would have made it.
fn earlier() -> BlobId {
    let BlobId(id) = BlobId::new();
    BlobId(Ulid::from_parts(id.timestamp_ms(), id.random() ^ (1 << 50)))
}

async fn eventually(what: &str, done: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !done() {
        assert!(Instant::now() < deadline, "{what}");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_blob_of_any_size_is_read_as_it_was_written() {
    let dir = tempfile::tempdir().unwrap();
    let blobs = Blobs::new(&dir.path().join("blobs"), &namespace());
    for bytes in [0, 1, 65_536, 65_537, 262_144, 1_000_000] {
        let content = content(bytes);
        let id = write(&blobs, &content).await.unwrap();
        assert_eq!(read(&blobs, &id).await.unwrap(), content);
        assert_eq!(BlobId::parse(&id.to_string()), Ok(id));
    }
    assert_eq!(blobs.bytes().unwrap(), 1_393_218);
}

#[tokio::test]
async fn reading_can_begin_anywhere() {
    let blobs = on(&faulty());
    let content = content(700_000);
    let id = write(&blobs, &content).await.unwrap();
    for from in [0, 5, 262_144, 699_999, 700_000, 800_000] {
        let mut reader = blobs.open(&id).await.unwrap();
        reader.read().await.unwrap();
        reader.seek(from as u64);
        let mut bytes = Vec::new();
        while let Some(piece) = reader.read().await.unwrap() {
            bytes.extend_from_slice(&piece);
        }
        assert_eq!(bytes, content.get(from..).unwrap_or_default());
    }
}

#[tokio::test]
async fn a_finished_blob_survives_a_power_cut() {
    let disk = faulty();
    let blobs = on(&disk);
    let content = content(300_000);
    let id = write(&blobs, &content).await.unwrap();
    disk.power_cut(|| false);
    assert_eq!(read(&on(&disk), &id).await.unwrap(), content);
}

#[tokio::test]
async fn a_blob_that_is_not_finished_leaves_nothing() {
    let disk = faulty();
    let blobs = on(&disk);
    let mut writer = blobs.create().await.unwrap();
    writer.write(&content(600_000)).await.unwrap();
    assert_eq!(files(&disk).len(), 1);
    assert_eq!(blobs.bytes().unwrap(), 600_000);
    drop(writer);
    eventually("the file goes", || files(&disk).is_empty()).await;
    assert_eq!(blobs.bytes().unwrap(), 0);
}

#[tokio::test]
async fn a_blob_can_be_read_to_its_end_while_it_is_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let blobs = Blobs::new(&dir.path().join("blobs"), &namespace());
    let content = content(900_000);
    let id = write(&blobs, &content).await.unwrap();
    assert_eq!(blobs.bytes().unwrap(), 900_000);
    let mut reader = blobs.open(&id).await.unwrap();
    blobs.delete(&id).await.unwrap();
    blobs.delete(&id).await.unwrap();
    assert_eq!(blobs.bytes().unwrap(), 0);
    let mut bytes = Vec::new();
    while let Some(piece) = reader.read().await.unwrap() {
        bytes.extend_from_slice(&piece);
    }
    assert_eq!(bytes, content);
    assert!(matches!(blobs.open(&id).await, Err(Error::NoBlob(_))));
}

#[tokio::test]
async fn a_start_sweeps_orphans_and_nothing_that_this_process_made() {
    let disk = faulty();
    let blobs = on(&disk);
    let mine = write(&blobs, b"mine").await.unwrap();
    let unfinished = blobs.create().await.unwrap();
    let mut earlier_ids = Vec::new();
    for finished in [true, true, false] {
        let id = earlier();
        let path = blobs.inner.path(id);
        blobs
            .inner
            .disk
            .create_dir_all(path.parent().unwrap())
            .unwrap();
        let path = if finished {
            path
        } else {
            files::unfinished(&path)
        };
        disk.create(&path).unwrap();
        earlier_ids.push(id);
    }
    let stranger = root().join("shop").join(mine.shard()).join("notes.txt");
    disk.create(&stranger).unwrap();
    let kept = earlier_ids[0];
    let swept = blobs.keep_only(|id| *id == kept).await.unwrap();
    assert_eq!(swept, 2);
    let left = files(&disk);
    assert_eq!(left.len(), 4, "{left:?}");
    assert!(left.contains(&blobs.inner.path(kept)));
    assert!(left.contains(&blobs.inner.path(mine)));
    assert!(left.contains(&stranger));
    unfinished.finish().await.unwrap();
}

#[tokio::test]
async fn a_full_disk_refuses_with_its_own_error_and_gets_its_space_back() {
    let disk = faulty();
    let blobs = on(&disk);
    let small = write(&blobs, b"small").await.unwrap();
    let used = disk.used();
    disk.set_capacity(Some(used + 400_000));
    let refused = write(&blobs, &content(900_000)).await.unwrap_err();
    assert!(matches!(refused, Error::Full), "{refused}");
    eventually("the space comes back", || disk.used() == used).await;
    assert_eq!(read(&blobs, &small).await.unwrap(), b"small");
    write(&blobs, &content(300_000)).await.unwrap();
}

#[tokio::test]
async fn a_blob_is_only_named_when_all_of_it_is_durable() {
    for (op, nth) in [
        (Op::Write, 2),
        (Op::Sync, 1),
        (Op::Rename, 1),
        (Op::SyncDir, 1),
    ] {
        let disk = faulty();
        let blobs = on(&disk);
        let mut writer = blobs.create().await.unwrap();
        writer.write(&content(10)).await.unwrap();
        disk.fail(op, nth, Trouble::Eio);
        writer.finish().await.unwrap_err();
        eventually("nothing stays", || files(&disk).is_empty()).await;
        assert_eq!(blobs.bytes().unwrap(), 0, "{op:?}");
    }
}

#[tokio::test]
async fn a_namespace_gets_no_more_than_it_may() {
    let disk = faulty();
    let allow = |bytes: u64| match bytes {
        0..=500_000 => Ok(()),
        _ => Err(Error::TooLarge {
            what: "blob",
            size: 0,
            limit: 0,
        }),
    };
    let blobs = Blobs::on(
        Arc::new(disk.clone()),
        &root(),
        &namespace(),
        Some(Box::new(allow)),
    );
    let id = write(&blobs, &content(400_000)).await.unwrap();
    write(&blobs, &content(200_000)).await.unwrap_err();
    blobs.delete(&id).await.unwrap();
    eventually("the refused one is not counted", || {
        blobs.bytes().unwrap() == 0
    })
    .await;
    write(&blobs, &content(500_000)).await.unwrap();
}

#[tokio::test]
async fn damage_is_told() {
    let disk = faulty();
    let blobs = on(&disk);
    let id = write(&blobs, &content(300_000)).await.unwrap();
    let path = blobs.inner.path(id);
    let damages: [fn(&mut Vec<u8>); 4] = [
        |bytes| bytes[299_000] ^= 1,
        |bytes| bytes.truncate(200_000),
        |bytes| bytes.truncate(3),
        |bytes| _ = bytes.drain(100..200),
    ];
    let whole = {
        let mut whole = Vec::new();
        disk.edit(&path, |bytes| whole.clone_from(bytes));
        whole
    };
    check(&disk, &root()).unwrap();
    for damage in damages {
        disk.edit(&path, damage);
        let error = read(&blobs, &id).await.unwrap_err();
        assert!(matches!(error, Error::Damaged { .. }), "{error}");
        let error = check(&disk, &root()).unwrap_err();
        assert!(matches!(error, Error::Damaged { .. }), "{error}");
        disk.edit(&path, |bytes| bytes.clone_from(&whole));
    }
    disk.edit(&path, |bytes| bytes[300_008] = 2);
    let error = blobs.open(&id).await.unwrap_err();
    assert!(
        matches!(error, Error::NewerFile { found: 2, .. }),
        "{error}"
    );
}

#[tokio::test]
async fn a_snapshot_has_every_finished_blob_and_can_be_brought_up_to_date() {
    let dir = tempfile::tempdir().unwrap();
    let (from, into) = (dir.path().join("blobs"), dir.path().join("copy"));
    let blobs = Blobs::new(&from, &namespace());
    let first = write(&blobs, b"first").await.unwrap();
    assert_eq!(snapshot(&OsDisk, &from, &into).unwrap(), 1);
    let second = write(&blobs, &content(300_000)).await.unwrap();
    let mut unfinished = blobs.create().await.unwrap();
    unfinished.write(b"not yet").await.unwrap();
    assert_eq!(snapshot(&OsDisk, &from, &into).unwrap(), 1);
    blobs.delete(&first).await.unwrap();
    let copy = Blobs::new(&into, &namespace());
    assert_eq!(read(&copy, &first).await.unwrap(), b"first");
    assert_eq!(read(&copy, &second).await.unwrap(), content(300_000));
    let report = check(&OsDisk, &into).unwrap();
    assert_eq!(
        (report.blobs, report.bytes, report.unfinished),
        (2, 300_005, 0)
    );
    assert_eq!(check(&OsDisk, &from).unwrap().unfinished, 1);
}

#[tokio::test]
async fn one_namespace_does_not_see_the_blobs_of_another() {
    let disk = faulty();
    let blobs = on(&disk);
    let id = write(&blobs, b"mine").await.unwrap();
    let other = Namespace::parse("other").unwrap();
    let others = Blobs::on(Arc::new(disk.clone()), &root(), &other, None);
    assert!(matches!(others.open(&id).await, Err(Error::NoBlob(_))));
    others.delete(&id).await.unwrap();
    others.keep_only(|_| false).await.unwrap();
    assert_eq!(others.bytes().unwrap(), 0);
    assert_eq!(read(&blobs, &id).await.unwrap(), b"mine");
}

proptest! {
    #[test]
    fn an_id_has_one_spelling(text in ".{0,30}|[0-9a-zA-Z]{26}") {
        if let Ok(id) = BlobId::parse(&text) {
            prop_assert_eq!(id.to_string(), text);
        }
    }
}
