//! Rows, batches and scans.

use std::sync::Arc;

use micro_core::{Fault as _, Kind};
use micro_storage::{Error, Expect, Range, Revision};

use super::{Bench, Opener, delete, keys, ns, put};

pub(crate) async fn a_row_is_there_when_its_commit_is_answered<O: Opener>(opener: O) {
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

pub(crate) async fn tables_and_namespaces_do_not_see_each_other<O: Opener>(opener: O) {
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

pub(crate) async fn a_batch_happens_whole_or_not_at_all<O: Opener>(opener: O) {
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

pub(crate) async fn expectations_hold_against_what_came_before<O: Opener>(opener: O) {
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

pub(crate) async fn of_many_that_expect_the_same_one_wins<O: Opener>(opener: O) {
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

pub(crate) async fn counting_up_by_compare_and_set_loses_nothing<O: Opener>(opener: O) {
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

pub(crate) async fn scans_page_in_both_directions<O: Opener>(opener: O) {
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

pub(crate) async fn many_writers_are_all_answered<O: Opener>(opener: O) {
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

pub(crate) async fn a_large_value_comes_back<O: Opener>(opener: O) {
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
