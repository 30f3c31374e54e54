//! What concerns a namespace or the state as a whole.

use std::{sync::Arc, time::Duration};

use micro_core::{Fault as _, Kind};
use micro_storage::{Error, Range, Space};

use super::{Bench, Opener, delete, ns, put};

pub(crate) async fn a_lease_has_one_owner_at_a_time<O: Opener>(opener: O) {
    let mut bench = Bench::new(&opener);
    let ttl = Duration::from_secs(10);
    let space = bench.space("a");
    assert!(space.lease("leader", "one", ttl).await.unwrap());
    assert!(!space.lease("leader", "two", ttl).await.unwrap());
    assert!(bench.space("b").lease("leader", "two", ttl).await.unwrap());
    bench.options.clock.advance(Duration::from_secs(8));
    assert!(space.lease("leader", "one", ttl).await.unwrap(), "renewed");
    bench.options.clock.advance(Duration::from_secs(8));
    bench.reopen();
    let space = bench.space("a");
    assert!(!space.lease("leader", "two", ttl).await.unwrap());
    bench.options.clock.advance(Duration::from_secs(3));
    assert!(
        space.lease("leader", "two", ttl).await.unwrap(),
        "it ran out"
    );
    assert!(!space.release("leader", "one").await.unwrap());
    assert!(space.release("leader", "two").await.unwrap());
    let mut tasks = Vec::new();
    for i in 0..10 {
        let space = space.clone();
        tasks.push(tokio::spawn(async move {
            space.lease("leader", &format!("{i}"), ttl).await.unwrap()
        }));
    }
    let mut owners = 0;
    for task in tasks {
        owners += u32::from(task.await.unwrap());
    }
    assert_eq!(owners, 1);
}

pub(crate) async fn a_quota_holds_and_deleting_makes_room<O: Opener>(opener: O) {
    let bench = Bench::new(&opener);
    let space = bench.space("a");
    bench.storage.set_quota(&ns("a"), Some(100_000));
    let value = vec![0; 1000];
    // Written again and again, a row counts once.
    for _ in 0..5 {
        for i in 0..90u32 {
            put(&space, &i.to_be_bytes(), &value).await;
        }
    }
    let over = async |space: &Space| {
        let mut batch = space.batch();
        batch.put("t", b"more", vec![0; 20_000]);
        batch.commit().await
    };
    let error = over(&space).await.unwrap_err();
    assert!(
        matches!(error, Error::Quota { limit: 100_000, .. }),
        "{error}"
    );
    let mut batch = space.batch();
    batch.append("topic", vec![0; 20_000]);
    assert_eq!(batch.commit().await.unwrap_err().kind(), Kind::Exhausted);
    over(&bench.space("b")).await.unwrap();
    for i in 0..30u32 {
        delete(&space, &i.to_be_bytes()).await;
    }
    over(&space).await.unwrap();
    bench.storage.checkpoint().await.unwrap();
    let rows = space.usage().rows;
    assert_eq!(rows, 60 * 1004 + 20_004);
    bench.storage.set_quota(&ns("a"), None);
    over(&space).await.unwrap();
}

pub(crate) async fn what_is_closed_says_so<O: Opener>(opener: O) {
    let bench = Bench::new(&opener);
    let space = bench.space("a");
    put(&space, b"k", b"v").await;
    let writers: Vec<_> = (0..50u32)
        .map(|i| {
            let space = space.clone();
            tokio::spawn(async move {
                let mut batch = space.batch();
                batch.put("t", i.to_be_bytes(), b"");
                (i, batch.commit().await)
            })
        })
        .collect();
    tokio::task::yield_now().await;
    let storage = bench.storage.clone();
    tokio::task::spawn_blocking(move || storage.close())
        .await
        .unwrap();
    assert!(matches!(space.get("t", b"k"), Err(Error::Closed)));
    assert!(matches!(space.scan("t", Range::all()), Err(Error::Closed)));
    assert!(matches!(space.topics(), Err(Error::Closed)));
    let mut batch = space.batch();
    batch.put("t", b"x", b"");
    assert!(matches!(batch.commit().await, Err(Error::Closed)));
    assert!(matches!(
        bench.storage.checkpoint().await,
        Err(Error::Closed)
    ));
    let again = opener.open(bench.directory.path(), bench.options.clone());
    for writer in writers {
        let (i, outcome) = writer.await.unwrap();
        let there = again.space(&ns("a")).get("t", &i.to_be_bytes()).unwrap();
        assert_eq!(there.is_some(), outcome.is_ok());
    }
}

pub(crate) async fn blobs_are_streamed_and_counted<O: Opener>(opener: O) {
    let mut bench = Bench::new(&opener);
    let space = bench.space("a");
    let mut writer = space.blobs().create().await.unwrap();
    for _ in 0..100 {
        writer.write(&[7; 5000]).await.unwrap();
    }
    let id = writer.finish().await.unwrap();
    let mut batch = space.batch();
    batch.put("t", b"blob", id.to_string());
    batch.commit().await.unwrap();
    bench.reopen();
    let space = bench.space("a");
    let mut reader = space.blobs().open(&id).await.unwrap();
    let mut length = 0;
    while let Some(piece) = reader.read().await.unwrap() {
        assert!(piece.iter().all(|byte| *byte == 7));
        length += piece.len();
    }
    assert_eq!(length, 500_000);
    assert_eq!(space.usage().blobs, 500_000);
    assert!(bench.space("b").blobs().open(&id).await.is_err());
    bench.storage.set_quota(&ns("a"), Some(600_000));
    let mut writer = space.blobs().create().await.unwrap();
    let mut outcome = Ok(());
    for _ in 0..100 {
        outcome = outcome.and(writer.write(&[7; 5000]).await);
    }
    let error = match outcome {
        Ok(()) => writer.finish().await.unwrap_err(),
        Err(error) => error,
    };
    assert_eq!(error.kind(), Kind::Exhausted, "{error}");
    let mut batch = space.batch();
    batch.put("t", b"row", vec![0; 200_000]);
    assert_eq!(batch.commit().await.unwrap_err().kind(), Kind::Exhausted);
    space.blobs().delete(&id).await.unwrap();
    assert!(space.blobs().open(&id).await.is_err());
}

pub(crate) async fn a_snapshot_is_the_state_of_one_moment<O: Opener>(opener: O) {
    let bench = Bench::new(&opener);
    let space = bench.space("a");
    let mut blob = space.blobs().create().await.unwrap();
    blob.write(b"large").await.unwrap();
    let blob = blob.finish().await.unwrap();
    for i in 0..500u32 {
        let mut batch = space.batch();
        batch.put("t", i.to_be_bytes(), vec![1; 500]);
        batch.append("log", i.to_be_bytes());
        batch.commit().await.unwrap();
    }
    // Pairs that belong together are written while the snapshot is taken.
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let writer = tokio::spawn({
        let (space, stop) = (space.clone(), Arc::clone(&stop));
        async move {
            let mut i = 0u32;
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                i += 1;
                let mut batch = space.batch();
                batch.put("pairs", b"left", i.to_be_bytes());
                batch.put("pairs", b"right", i.to_be_bytes());
                batch.append("pairs", i.to_be_bytes());
                batch.commit().await.unwrap();
            }
        }
    });
    while space.get("pairs", b"left").unwrap().is_none() {
        tokio::task::yield_now().await;
    }
    let place = tempfile::tempdir().unwrap();
    let into = place.path().join("copy");
    let before = bench.storage.revision();
    bench.storage.snapshot(&into).await.unwrap();
    assert!(bench.storage.snapshot(&into).await.is_err(), "it is there");
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    writer.await.unwrap();
    let copy = opener.open(&into, bench.options.clone());
    assert!(copy.revision() >= before && copy.revision() <= bench.storage.revision());
    let copied = copy.space(&ns("a"));
    assert_eq!(copied.scan("t", Range::all()).unwrap().len(), 500);
    assert_eq!(copied.topic("log").bounds().unwrap().next, 500);
    assert_eq!(
        copied.topic("log").read(250, 1, 99).unwrap()[0].value,
        250u32.to_be_bytes().to_vec()
    );
    let pair = copied.scan("pairs", Range::all()).unwrap();
    assert_eq!(pair[0].value, pair[1].value);
    let entries = copied.topic("pairs").bounds().unwrap().next;
    assert_eq!(pair[0].value[..], (entries as u32).to_be_bytes());
    assert!(copied.blobs().open(&blob).await.is_ok());
    // It lives a life of its own.
    let next = put(&copied, b"new", b"").await;
    assert!(next > before);
    assert_eq!(space.get("t", b"new").unwrap(), None);
    copy.close();
    let again = opener.open(&into, bench.options.clone());
    assert!(again.space(&ns("a")).get("t", b"new").unwrap().is_some());
}
