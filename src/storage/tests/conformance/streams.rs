//! What is told as it happens: watches on rows, and topics.

use std::time::Duration;

use micro_core::Timestamp;
use micro_storage::{Bounds, Change, WatchEnd};

use super::{Bench, Opener, put};

pub(crate) async fn a_watch_gives_every_change_below_its_prefix<O: Opener>(opener: O) {
    let bench = Bench::new(&opener);
    let space = bench.space("a");
    put(&space, b"p/before", b"").await;
    let mut watch = space.watch("t", b"p/");
    let mut all = space.watch("t", b"");
    let revision = put(&space, b"p/1", b"one").await;
    put(&space, b"q/1", b"elsewhere").await;
    put(&bench.space("b"), b"p/1", b"another namespace").await;
    let mut batch = space.batch();
    batch
        .put("t", b"p/2", b"two")
        .delete("t", b"p/1")
        .put("other", b"p/3", b"");
    let both = batch.commit().await.unwrap().revision;
    let change = |key: &'static str, value: Option<&'static str>, revision| Change {
        key: key.into(),
        value: value.map(Into::into),
        revision,
    };
    assert_eq!(
        watch.next().await.unwrap(),
        change("p/1", Some("one"), revision)
    );
    assert_eq!(
        watch.next().await.unwrap(),
        change("p/2", Some("two"), both)
    );
    assert_eq!(watch.next().await.unwrap(), change("p/1", None, both));
    let nothing = tokio::time::timeout(Duration::from_millis(20), watch.next()).await;
    assert!(nothing.is_err());
    let waiting = tokio::spawn(async move { watch.next().await });
    put(&space, b"p/9", b"").await;
    assert_eq!(&waiting.await.unwrap().unwrap().key[..], b"p/9");
    for key in ["p/1", "q/1", "p/2", "p/1", "p/9"] {
        assert_eq!(&all.next().await.unwrap().key[..], key.as_bytes());
    }
    bench.storage.close();
    assert_eq!(all.next().await.unwrap_err(), WatchEnd::Closed);
    let mut late = space.watch("t", b"");
    assert_eq!(late.next().await.unwrap_err(), WatchEnd::Closed);
}

pub(crate) async fn a_slow_watcher_is_told_so_and_holds_up_nobody<O: Opener>(opener: O) {
    let bench = Bench::new(&opener);
    let space = bench.space("a");
    let (mut slow, mut quick) = (space.watch("t", b""), space.watch("t", b"3"));
    for i in 0..4000u32 {
        let mut batch = space.batch();
        batch.put("t", i.to_string(), vec![0; 100]);
        batch.commit().await.unwrap();
        if i.to_string().starts_with('3') {
            assert_eq!(quick.next().await.unwrap().key, i.to_string());
        }
    }
    assert_eq!(slow.next().await.unwrap_err(), WatchEnd::Lagged);
    assert_eq!(slow.next().await.unwrap_err(), WatchEnd::Lagged);
    let mut again = space.watch("t", b"");
    put(&space, b"x", b"").await;
    assert_eq!(&again.next().await.unwrap().key[..], b"x");
}

pub(crate) async fn topics_keep_their_order_and_their_numbers<O: Opener>(opener: O) {
    let mut bench = Bench::new(&opener);
    let space = bench.space("a");
    let topic = space.topic("orders");
    assert_eq!(topic.bounds().unwrap(), Bounds::default());
    let mut follower = topic.follow();
    let tasks: Vec<_> = (0..8u8)
        .map(|writer| {
            let space = space.clone();
            tokio::spawn(async move {
                let mut offsets = Vec::new();
                for i in 0..50u8 {
                    let mut batch = space.batch();
                    batch.append("orders", [writer, i]);
                    batch.append("bills", [writer, i]);
                    offsets.push(batch.commit().await.unwrap().offsets[0]);
                }
                (writer, offsets)
            })
        })
        .collect();
    let mut places = vec![None; 400];
    for task in tasks {
        let (writer, offsets) = task.await.unwrap();
        assert!(offsets.is_sorted());
        for (i, offset) in offsets.into_iter().enumerate() {
            places[offset as usize] = Some([writer, i as u8]);
        }
    }
    assert_eq!(*follower.borrow_and_update(), 400);
    bench.options.clock.advance(Duration::from_secs(10));
    let mut late = space.batch();
    late.append("orders", b"late");
    assert_eq!(late.commit().await.unwrap().offsets, [400]);
    for round in 0..3 {
        let space = bench.space("a");
        let topic = space.topic("orders");
        let mut read = Vec::new();
        while let Some(next) = Some(topic.read(read.len() as u64, 37, usize::MAX).unwrap())
            && !next.is_empty()
        {
            read.extend(next);
        }
        assert_eq!(read.len(), 401, "round {round}");
        for (i, entry) in read.iter().take(400).enumerate() {
            assert_eq!(entry.offset, i as u64);
            assert_eq!(entry.value, places[i].unwrap().to_vec());
            assert_eq!(entry.time, Timestamp(1_000_000));
        }
        assert_eq!(topic.offset_at(Timestamp(1_000_000)).unwrap(), 0);
        assert_eq!(topic.offset_at(Timestamp(1_000_001)).unwrap(), 400);
        assert_eq!(topic.offset_at(Timestamp(9_000_000)).unwrap(), 401);
        assert_eq!(space.topics().unwrap(), ["bills", "orders"]);
        assert_eq!(bench.space("b").topics().unwrap(), [""; 0]);
        match round {
            0 => bench.storage.checkpoint().await.unwrap(),
            _ => bench.reopen(),
        }
    }
    let space = bench.space("a");
    let topic = space.topic("orders");
    let mut follower = topic.follow();
    assert_eq!(*follower.borrow_and_update(), 401);
    topic.remove().await.unwrap();
    assert_eq!(topic.bounds().unwrap(), Bounds::default());
    let mut first = space.batch();
    first.append("orders", b"anew");
    assert_eq!(first.commit().await.unwrap().offsets, [0]);
    follower.changed().await.unwrap();
    bench.reopen();
    let read = bench.space("a").topic("orders").read(0, 9, 999).unwrap();
    assert_eq!((read.len(), &read[0].value[..]), (1, &b"anew"[..]));
}

pub(crate) async fn old_entries_go_and_stay_gone<O: Opener>(opener: O) {
    let mut bench = Bench::new(&opener);
    let space = bench.space("a");
    for _ in 0..10 {
        let mut batch = space.batch();
        for _ in 0..100 {
            batch.append("log", vec![7; 1000]);
        }
        batch.commit().await.unwrap();
        bench.options.clock.advance(Duration::from_secs(60));
    }
    let topic = space.topic("log");
    topic.retain(None, Some(10 << 20)).await.unwrap();
    assert_eq!(topic.bounds().unwrap().first, 0, "nothing has to go");
    bench.storage.checkpoint().await.unwrap();
    topic.retain(None, Some(500_000)).await.unwrap();
    let kept = topic.bounds().unwrap();
    assert!(
        kept.first > 0 && kept.first < 1000 && kept.next == 1000,
        "{kept:?}"
    );
    let read = topic.read(0, 1, usize::MAX).unwrap();
    assert_eq!(read[0].offset, kept.first);
    bench.reopen();
    let topic = bench.space("a").topic("log");
    assert_eq!(topic.bounds().unwrap().first, kept.first);
    topic
        .retain(Some(Duration::from_secs(1)), None)
        .await
        .unwrap();
    bench.reopen();
    let topic = bench.space("a").topic("log");
    let kept = topic.bounds().unwrap();
    assert_eq!(kept.next, 1000);
    assert!(kept.first > 500, "{kept:?}");
}
