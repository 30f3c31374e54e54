//! What every engine must do, seen through the handles. `Opener` says how one is opened; another
//! engine adds one line at the end of this file.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "helpers of tests fail by panicking"
)]

use std::{path::Path, sync::Arc, time::Duration};

use micro_core::{Clock, Fault as _, Kind, Namespace, Timestamp};
use micro_storage::{
    Bounds, Change, Error, Expect, Options, Range, Revision, Space, Storage, WatchEnd,
};

#[path = "conformance/model.rs"]
mod model;

/// How the engine under test is opened on a directory, again and again.
pub trait Opener: Clone + Send + 'static {
    /// Opens what is in `directory`.
    fn open(&self, directory: &Path, options: Options) -> Storage;
}

/// The engine that the product uses.
#[derive(Clone, Copy)]
struct Local;

impl Opener for Local {
    fn open(&self, directory: &Path, options: Options) -> Storage {
        Storage::open(directory, options).unwrap()
    }
}

fn ns(text: &str) -> Namespace {
    Namespace::parse(text).unwrap()
}

/// An engine on a directory of its own, with a memtable so small that checkpoints happen.
struct Bench<O> {
    opener: O,
    directory: tempfile::TempDir,
    options: Options,
    storage: Storage,
}

impl<O: Opener> Bench<O> {
    fn new(opener: &O) -> Self {
        let options = Options {
            memory: 256 << 10,
            cache: 1 << 20,
            segment: 1 << 20,
            clock: Clock::fake(Timestamp(1_000_000)),
            ..Options::default()
        };
        Self::with(opener, options)
    }

    fn with(opener: &O, options: Options) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let storage = opener.open(directory.path(), options.clone());
        Self {
            opener: opener.clone(),
            directory,
            options,
            storage,
        }
    }

    fn space(&self, namespace: &str) -> Space {
        self.storage.space(&ns(namespace))
    }

    fn reopen(&mut self) {
        self.storage.close();
        self.storage = self
            .opener
            .open(self.directory.path(), self.options.clone());
    }
}

/// The first file below `directory` with that ending.
fn find(directory: &Path, ending: &str) -> std::path::PathBuf {
    let mut places = vec![directory.to_owned()];
    while let Some(place) = places.pop() {
        if place.is_dir() {
            places.extend(
                std::fs::read_dir(&place)
                    .unwrap()
                    .map(|e| e.unwrap().path()),
            );
        } else if place.extension().is_some_and(|e| e == ending) {
            return place;
        }
    }
    panic!("there is none");
}

async fn put(space: &Space, key: &[u8], value: &[u8]) -> Revision {
    let mut batch = space.batch();
    batch.put("t", key, value);
    batch.commit().await.unwrap().revision
}

async fn delete(space: &Space, key: &[u8]) -> Revision {
    let mut batch = space.batch();
    batch.delete("t", key);
    batch.commit().await.unwrap().revision
}

fn keys(space: &Space, range: Range<'_>) -> Vec<String> {
    let rows = space.scan("t", range).unwrap();
    rows.iter()
        .map(|row| String::from_utf8_lossy(&row.key).into_owned())
        .collect()
}

async fn a_row_is_there_when_its_commit_is_answered<O: Opener>(opener: O) {
    let mut bench = Bench::new(&opener);
    let space = bench.space("a");
    assert_eq!(bench.storage.revision(), Revision(0));
    assert_eq!(space.get("t", b"k").unwrap(), None);
    let revision = put(&space, b"k", b"v").await;
    assert_eq!(
        (revision, bench.storage.revision()),
        (Revision(1), Revision(1))
    );
    for _ in 0..3 {
        let row = bench.space("a").get("t", b"k").unwrap().unwrap();
        assert_eq!(
            (&row.key[..], &row.value[..], row.revision),
            (&b"k"[..], &b"v"[..], revision)
        );
        bench.reopen();
    }
    let space = bench.space("a");
    assert_eq!(delete(&space, b"k").await, Revision(2));
    assert_eq!(space.get("t", b"k").unwrap(), None);
    bench.storage.checkpoint().await.unwrap();
    assert_eq!(space.get("t", b"k").unwrap(), None);
    assert_eq!(keys(&space, Range::all()), [""; 0]);
}

async fn tables_and_namespaces_do_not_see_each_other<O: Opener>(opener: O) {
    let bench = Bench::new(&opener);
    let (a, ab) = (bench.space("a"), bench.space("ab"));
    put(&a, b"b1", b"in a").await;
    put(&a, &[0xff, 0xff], b"last").await;
    put(&ab, b"1", b"in ab").await;
    let mut other = a.batch();
    other.put("tt", b"x", b"other table");
    other.commit().await.unwrap();
    for _ in 0..2 {
        assert_eq!(a.scan("t", Range::all()).unwrap().len(), 2);
        assert_eq!(a.scan("t", Range::prefix(&[0xff])).unwrap().len(), 1);
        assert_eq!(a.scan("tt", Range::all()).unwrap().len(), 1);
        assert_eq!(keys(&ab, Range::all()), ["1"]);
        assert_eq!(a.get("t", b"1").unwrap(), None);
        assert_eq!(bench.storage.namespaces("t").unwrap(), [ns("a"), ns("ab")]);
        assert_eq!(bench.storage.namespaces("tt").unwrap(), [ns("a")]);
        assert_eq!(bench.storage.namespaces("none").unwrap(), []);
        bench.storage.checkpoint().await.unwrap();
    }
    delete(&ab, b"1").await;
    assert_eq!(bench.storage.namespaces("t").unwrap(), [ns("a")]);
}

async fn a_batch_happens_whole_or_not_at_all<O: Opener>(opener: O) {
    let bench = Bench::new(&opener);
    let space = bench.space("a");
    let mut batch = space.batch();
    batch
        .put("t", b"x", b"1")
        .delete("t", b"x")
        .put("t", b"y", b"2");
    batch.append("events", b"first").append("events", b"second");
    let receipt = batch.commit().await.unwrap();
    assert_eq!(receipt.offsets, [0, 1]);
    assert_eq!(keys(&space, Range::all()), ["y"]);
    let mut refused = space.batch();
    refused.put("t", b"z", b"3").put("t", vec![0; 4097], b"");
    let error = refused.commit().await.unwrap_err();
    assert_eq!(error.kind(), Kind::Invalid);
    let mut refused = space.batch();
    refused
        .expect("t", b"y", Expect::Absent)
        .append("events", b"third")
        .delete("t", b"y");
    assert_eq!(refused.commit().await.unwrap_err().kind(), Kind::Conflict);
    assert_eq!(keys(&space, Range::all()), ["y"]);
    assert_eq!(space.topic("events").bounds().unwrap().next, 2);
    // Nothing to do is done at once.
    let empty = space.batch().commit().await.unwrap();
    assert_eq!(empty.revision, receipt.revision);
}

async fn expectations_hold_against_what_came_before<O: Opener>(opener: O) {
    let bench = Bench::new(&opener);
    let space = bench.space("a");
    let try_put = async |key: &[u8], expect: Expect| {
        let mut batch = space.batch();
        batch.expect("t", key, expect).put("t", key, b"new");
        batch.commit().await
    };
    let first = try_put(b"k", Expect::Absent).await.unwrap().revision;
    // Once from memory, and once from the index.
    for _ in 0..2 {
        match try_put(b"k", Expect::Absent).await.unwrap_err() {
            Error::Conflict { table, key, found } => {
                assert_eq!((table, &key[..]), ("t", &b"k"[..]));
                assert!(found >= Some(first));
            }
            other => panic!("{other}"),
        }
        assert!(try_put(b"none", Expect::Present).await.is_err());
        assert!(try_put(b"none", Expect::At(Revision(1))).await.is_err());
        bench.storage.checkpoint().await.unwrap();
    }
    let second = try_put(b"k", Expect::At(first)).await.unwrap().revision;
    assert!(try_put(b"k", Expect::At(first)).await.is_err());
    try_put(b"k", Expect::Present).await.unwrap();
    assert!(try_put(b"k", Expect::At(second)).await.is_err());
    delete(&space, b"k").await;
    try_put(b"k", Expect::Absent).await.unwrap();
    // An expectation about another row than the one that is written.
    let mut guarded = space.batch();
    guarded
        .expect("t", b"gate", Expect::Absent)
        .put("t", b"x", b"");
    guarded.commit().await.unwrap();
    // Only an expectation.
    let mut question = space.batch();
    question.expect("t", b"x", Expect::Present);
    let before = bench.storage.revision();
    assert_eq!(question.commit().await.unwrap().revision, before);
}

async fn of_many_that_expect_the_same_one_wins<O: Opener>(opener: O) {
    let bench = Bench::new(&opener);
    let space = bench.space("a");
    for round in 0..20u32 {
        let key = round.to_be_bytes();
        let tasks: Vec<_> = (0..16u8)
            .map(|i| {
                let space = space.clone();
                tokio::spawn(async move {
                    let mut batch = space.batch();
                    batch.expect("t", key, Expect::Absent).put("t", key, [i]);
                    batch.commit().await.is_ok()
                })
            })
            .collect();
        let mut winners = 0;
        for task in tasks {
            winners += u32::from(task.await.unwrap());
        }
        assert_eq!(winners, 1);
    }
}

async fn counting_up_by_compare_and_set_loses_nothing<O: Opener>(opener: O) {
    let bench = Bench::new(&opener);
    let tasks: Vec<_> = (0..8)
        .map(|_| {
            let space = bench.space("a");
            tokio::spawn(async move {
                let mut done = 0;
                while done < 50 {
                    let row = space.get("t", b"n").unwrap();
                    let n = row.as_ref().map_or(0, |r| r.value[0]);
                    let mut batch = space.batch();
                    let expect = row.map_or(Expect::Absent, |r| Expect::At(r.revision));
                    batch.expect("t", b"n", expect);
                    batch.put("t", b"n", [n.wrapping_add(1)]);
                    done += u32::from(batch.commit().await.is_ok());
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let row = bench.space("a").get("t", b"n").unwrap().unwrap();
    assert_eq!(row.value[0], (8u32 * 50 % 256) as u8);
}

async fn scans_page_in_both_directions<O: Opener>(opener: O) {
    let bench = Bench::new(&opener);
    let space = bench.space("a");
    // A third in the index, a third over it in memory, a third deleted again, some of them in both.
    for i in 0..300u32 {
        put(&space, format!("k{i:03}").as_bytes(), b"old").await;
    }
    put(&space, b"j", b"").await;
    put(&space, b"l", b"").await;
    bench.storage.checkpoint().await.unwrap();
    let mut expected: Vec<String> = Vec::new();
    for i in 0..320u32 {
        let key = format!("k{i:03}");
        match i % 3 {
            0 => drop(delete(&space, key.as_bytes()).await),
            1 => {
                put(&space, key.as_bytes(), b"new").await;
                expected.push(key);
            }
            _ if i < 300 => expected.push(key),
            _ => {}
        }
    }
    assert_eq!(keys(&space, Range::prefix(b"k")), expected);
    for limit in [1, 7, 1000] {
        for reverse in [false, true] {
            let mut range = Range::prefix(b"k").limit(limit);
            if reverse {
                range = range.reverse();
            }
            let mut found: Vec<String> = Vec::new();
            loop {
                let last = found.last().cloned();
                let range = match &last {
                    Some(last) => range.after(last.as_bytes()),
                    None => range,
                };
                let page = keys(&space, range);
                assert!(page.len() <= limit);
                if page.is_empty() {
                    break;
                }
                found.extend(page);
            }
            if reverse {
                found.reverse();
            }
            assert_eq!(found, expected, "limit {limit}, reverse {reverse}");
        }
    }
    let rows = space.scan("t", Range::prefix(b"k").limit(2)).unwrap();
    assert_eq!(
        (&rows[0].value[..], &rows[1].value[..]),
        (&b"new"[..], &b"old"[..])
    );
    let rows = space.scan("t", Range::prefix(b"k").keys_only()).unwrap();
    assert!(
        rows.iter()
            .all(|row| row.value.is_empty() && row.revision > Revision(0))
    );
    // Places behind and before everything.
    assert_eq!(keys(&space, Range::prefix(b"k").after(b"zzz")), [""; 0]);
    assert_eq!(keys(&space, Range::prefix(b"k").after(b"a")), expected);
    assert_eq!(
        keys(&space, Range::prefix(b"k").after(b"a").reverse()),
        [""; 0]
    );
    assert_eq!(
        keys(&space, Range::prefix(b"k").after(b"zzz").reverse()).len(),
        expected.len()
    );
    assert_eq!(keys(&space, Range::all().limit(0)), [""; 0]);
    assert_eq!(keys(&space, Range::all().reverse().limit(1)), ["l"]);
}

async fn a_watch_gives_every_change_below_its_prefix<O: Opener>(opener: O) {
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

async fn a_slow_watcher_is_told_so_and_holds_up_nobody<O: Opener>(opener: O) {
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

async fn topics_keep_their_order_and_their_numbers<O: Opener>(opener: O) {
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

async fn old_entries_go_and_stay_gone<O: Opener>(opener: O) {
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

async fn a_lease_has_one_owner_at_a_time<O: Opener>(opener: O) {
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

async fn a_quota_holds_and_deleting_makes_room<O: Opener>(opener: O) {
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

async fn what_is_closed_says_so<O: Opener>(opener: O) {
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

async fn many_writers_are_all_answered<O: Opener>(opener: O) {
    let mut bench = Bench::new(&opener);
    let writers: Vec<_> = (0..200u32)
        .map(|i| {
            let space = bench.space(if i % 2 == 0 { "even" } else { "odd" });
            tokio::spawn(async move { put(&space, &i.to_be_bytes(), &vec![7; 40_000]).await })
        })
        .collect();
    let mut revisions = Vec::new();
    for writer in writers {
        revisions.push(writer.await.unwrap().0);
    }
    revisions.sort_unstable();
    assert_eq!(revisions, (1..=200).collect::<Vec<_>>());
    bench.reopen();
    for name in ["even", "odd"] {
        let rows = bench.space(name).scan("t", Range::all()).unwrap();
        assert_eq!(rows.len(), 100);
    }
}

async fn a_large_value_comes_back<O: Opener>(opener: O) {
    let mut bench = Bench::new(&opener);
    let space = bench.space("a");
    let value: Arc<[u8]> = (0..5_000_000u32).map(|i| i as u8).collect();
    put(&space, b"large", &value).await;
    bench.storage.checkpoint().await.unwrap();
    put(&space, b"again", &value).await;
    bench.reopen();
    let space = bench.space("a");
    for key in [b"large", b"again"] {
        assert_eq!(space.get("t", key).unwrap().unwrap().value[..], value[..]);
    }
}

async fn blobs_are_streamed_and_counted<O: Opener>(opener: O) {
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

async fn a_snapshot_is_the_state_of_one_moment<O: Opener>(opener: O) {
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

macro_rules! conformance {
    ($opener:expr; $($name:ident),* $(,)?) => {$(
        #[test]
        fn $name() {
            tokio::runtime::Builder::new_multi_thread()
                .worker_threads(2)
                .enable_all()
                .build()
                .unwrap()
                .block_on(super::$name($opener));
        }
    )*};
}

mod local {
    use super::Local;

    conformance! { Local;
        a_row_is_there_when_its_commit_is_answered,
        tables_and_namespaces_do_not_see_each_other,
        a_batch_happens_whole_or_not_at_all,
        expectations_hold_against_what_came_before,
        of_many_that_expect_the_same_one_wins,
        counting_up_by_compare_and_set_loses_nothing,
        scans_page_in_both_directions,
        a_watch_gives_every_change_below_its_prefix,
        a_slow_watcher_is_told_so_and_holds_up_nobody,
        topics_keep_their_order_and_their_numbers,
        old_entries_go_and_stay_gone,
        a_lease_has_one_owner_at_a_time,
        a_quota_holds_and_deleting_makes_room,
        what_is_closed_says_so,
        many_writers_are_all_answered,
        a_large_value_comes_back,
        blobs_are_streamed_and_counted,
        a_snapshot_is_the_state_of_one_moment,
    }

    #[tokio::test]
    async fn checking_finds_what_was_damaged() {
        let bench = super::Bench::new(&Local);
        let space = bench.space("a");
        for i in 0..100u32 {
            let mut batch = space.batch();
            batch
                .put("t", i.to_be_bytes(), vec![1; 500])
                .append("log", vec![2; 5000]);
            batch.commit().await.unwrap();
        }
        bench.storage.close();
        let directory = bench.directory.path();
        let report = super::Storage::check(directory).unwrap();
        assert_eq!(report.problems, [""; 0]);
        assert_eq!((report.rows, report.topics, report.entries), (100, 1, 100));
        let segment = super::find(&directory.join("topics"), "seg");
        let mut bytes = std::fs::read(&segment).unwrap();
        bytes[300_000] ^= 1;
        std::fs::write(&segment, bytes).unwrap();
        let report = super::Storage::check(directory).unwrap();
        assert_eq!(report.problems.len(), 1, "{report:?}");
        assert!(report.problems[0].contains("log"), "{report:?}");
        assert!(super::Storage::check(&directory.join("none")).is_err());
    }

    #[test]
    fn a_second_opener_is_told_that_it_is_in_use() {
        let bench = super::Bench::new(&Local);
        let second = super::Storage::open(bench.directory.path(), super::Options::default());
        assert!(matches!(second, Err(super::Error::Locked { .. })));
    }

    #[test]
    fn a_foreign_file_is_refused_by_name() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("index.redb"), vec![b'x'; 100_000]).unwrap();
        let refused = super::Storage::open(directory.path(), super::Options::default());
        let text = refused.unwrap_err().to_string();
        assert!(text.contains("index.redb"), "{text}");
    }

    #[test]
    fn it_behaves_like_an_ordered_map() {
        super::model::run(Local);
    }
}
