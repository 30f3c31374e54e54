//! Behaviour of [`Keys`], and a comparison with an ordered map under random operations.

use std::collections::BTreeMap;

use micro_core::{Fault as _, Kind};
use proptest::prelude::*;

use super::*;
use crate::wait::wait;

const CACHE: usize = 1024 * 1024;

fn ns(text: &str) -> Namespace {
    Namespace::parse(text).unwrap()
}

fn fresh() -> (tempfile::TempDir, Keys) {
    let dir = tempfile::tempdir().unwrap();
    let keys = Keys::open(&dir.path().join("k.redb"), CACHE).unwrap();
    (dir, keys)
}

#[tokio::test]
async fn namespaces_whose_names_begin_alike_do_not_see_each_other() {
    let (_dir, keys) = fresh();
    let (a, ab) = (keys.table(&ns("a"), "t"), keys.table(&ns("ab"), "t"));
    a.put(b"b1", b"in a").await.unwrap();
    ab.put(b"1", b"in ab").await.unwrap();
    a.put(&[0xff, 0xff], b"last").await.unwrap();
    assert_eq!(a.scan(b"").unwrap().len(), 2);
    assert_eq!(
        a.scan(&[0xff]).unwrap(),
        [(vec![0xff, 0xff], b"last".to_vec())]
    );
    assert_eq!(ab.scan(b"").unwrap(), [(b"1".to_vec(), b"in ab".to_vec())]);
    assert_eq!(a.get(b"1").unwrap(), None);
    assert_eq!(keys.namespaces("t").unwrap(), [ns("a"), ns("ab")]);
    assert_eq!(keys.namespaces("none").unwrap(), []);
}

#[tokio::test]
async fn a_batch_is_whole_and_in_order() {
    let (_dir, keys) = fresh();
    let t = keys.table(&ns("a"), "t");
    let put = |k: &[u8], v: &[u8]| Change::Put {
        key: k.into(),
        value: v.into(),
    };
    t.batch(vec![
        put(b"x", b"1"),
        Change::Delete { key: b"x".into() },
        put(b"y", b"2"),
    ])
    .await
    .unwrap();
    assert_eq!(t.scan(b"").unwrap(), [(b"y".to_vec(), b"2".to_vec())]);
    let long = vec![0; MAX_KEY + 1];
    let refused = t
        .batch(vec![put(b"z", b"3"), put(&long, b"")])
        .await
        .unwrap_err();
    assert_eq!(refused.kind(), Kind::Invalid);
    assert_eq!(t.get(b"z").unwrap(), None);
    t.batch(Vec::new()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_writers_are_all_answered() {
    let (dir, keys) = fresh();
    let writers: Vec<_> = (0..300u32)
        .map(|i| {
            let t = keys.table(&ns("a"), if i % 2 == 0 { "even" } else { "odd" });
            tokio::spawn(async move { t.put(&i.to_be_bytes(), &vec![7; 40_000]).await })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap().unwrap();
    }
    keys.close();
    assert!(matches!(
        keys.table(&ns("a"), "even").get(b"x"),
        Err(Error::Closed)
    ));
    let keys = Keys::open(&dir.path().join("k.redb"), CACHE).unwrap();
    assert_eq!(keys.table(&ns("a"), "even").scan(b"").unwrap().len(), 150);
    assert_eq!(keys.table(&ns("a"), "odd").scan(b"").unwrap().len(), 150);
}

#[test]
fn a_second_opener_is_told_that_the_file_is_in_use() {
    let (dir, _keys) = fresh();
    let second = Keys::open(&dir.path().join("k.redb"), CACHE).unwrap_err();
    assert!(matches!(second, Error::Locked { .. }), "{second}");
    assert!(second.hint().is_some());
}

#[test]
fn a_foreign_file_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("k.redb");
    std::fs::write(&path, vec![b'x'; 100_000]).unwrap();
    let text = Keys::open(&path, CACHE).unwrap_err().to_string();
    assert!(text.contains("k.redb"), "{text}");
}

#[test]
fn an_unknown_format_byte_is_an_error_and_no_garbage() {
    assert!(matches!(
        encoding::value("t", &[9, 1]),
        Err(Error::Format { format: 9, .. })
    ));
    assert!(encoding::value("t", &[]).is_err());
}

#[derive(Debug, Clone)]
enum Step {
    Put(u8, Vec<u8>, Vec<u8>),
    Delete(u8, Vec<u8>),
    Batch(u8, Vec<(Vec<u8>, Option<Vec<u8>>)>),
    Scan(u8, Vec<u8>),
    Reopen,
}

/// Short keys over a small alphabet with the extremes in it, so that operations meet.
fn key() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(prop::sample::select(vec![0u8, 1, b'a', b'b', 0xff]), 0..4)
}

fn step() -> impl Strategy<Value = Step> {
    let value = || prop::collection::vec(any::<u8>(), 0..20);
    prop_oneof![
        6 => (0..3u8, key(), value()).prop_map(|(n, k, v)| Step::Put(n, k, v)),
        3 => (0..3u8, key()).prop_map(|(n, k)| Step::Delete(n, k)),
        2 => (0..3u8, prop::collection::vec((key(), prop::option::of(value())), 0..5))
            .prop_map(|(n, b)| Step::Batch(n, b)),
        3 => (0..3u8, key()).prop_map(|(n, k)| Step::Scan(n, k)),
        1 => Just(Step::Reopen),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    #[test]
    fn it_behaves_like_an_ordered_map(steps in prop::collection::vec(step(), 1..60)) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("k.redb");
        let mut keys = Keys::open(&path, CACHE).unwrap();
        // Names of which one begins another.
        let names = [ns("a"), ns("aa"), ns("b")];
        let mut model: BTreeMap<(u8, Vec<u8>), Vec<u8>> = BTreeMap::new();
        for step in steps {
            let table = |keys: &Keys, n: u8| keys.table(&names[usize::from(n)], "t");
            match step {
                Step::Put(n, k, v) => {
                    wait(table(&keys, n).put(&k, &v)).unwrap();
                    prop_assert_eq!(table(&keys, n).get(&k).unwrap(), Some(v.clone()));
                    model.insert((n, k), v);
                }
                Step::Delete(n, k) => {
                    wait(table(&keys, n).delete(&k)).unwrap();
                    prop_assert_eq!(table(&keys, n).get(&k).unwrap(), None);
                    model.remove(&(n, k));
                }
                Step::Batch(n, changes) => {
                    let batch = changes.iter().cloned().map(|(key, value)| match value {
                        Some(value) => Change::Put { key, value },
                        None => Change::Delete { key },
                    });
                    wait(table(&keys, n).batch(batch.collect())).unwrap();
                    for (k, v) in changes {
                        match v {
                            Some(v) => { model.insert((n, k), v); }
                            None => { model.remove(&(n, k)); }
                        }
                    }
                }
                Step::Scan(n, prefix) => {
                    let expected: Vec<_> = model
                        .iter()
                        .filter(|((m, k), _)| *m == n && k.starts_with(&prefix))
                        .map(|((_, k), v)| (k.clone(), v.clone()))
                        .collect();
                    prop_assert_eq!(table(&keys, n).scan(&prefix).unwrap(), expected);
                }
                Step::Reopen => {
                    keys.close();
                    keys = Keys::open(&path, CACHE).unwrap();
                }
            }
            let mut used: Vec<_> = model.keys().map(|(n, _)| names[usize::from(*n)].clone()).collect();
            used.dedup();
            used.sort();
            prop_assert_eq!(keys.namespaces("t").unwrap(), used);
        }
    }
}
