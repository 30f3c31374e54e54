//! Random operations on an engine and on ordered maps, compared after every step.

use std::collections::BTreeMap;

use micro_core::Namespace;
use micro_storage::{
    Batch, Change, Error, Expect, Options, Range, Revision, Space, Storage, Watch,
};
use proptest::{prelude::*, test_runner::TestRunner};

use super::Opener;

/// Names of which one begins another.
const NAMESPACES: [&str; 3] = ["a", "aa", "b"];
const TABLES: [&str; 2] = ["t", "tt"];
const TOPICS: [&str; 2] = ["x", "xy"];

#[derive(Debug, Clone)]
enum Step {
    Batch {
        namespace: u8,
        expect: Vec<(u8, Vec<u8>, Expecting)>,
        changes: Vec<Doing>,
    },
    Scan {
        namespace: u8,
        table: u8,
        prefix: Vec<u8>,
        after: Option<Vec<u8>>,
        limit: usize,
        reverse: bool,
    },
    RemoveTopic(u8, u8),
    Watch(u8, u8, Vec<u8>),
    Checkpoint,
    Reopen,
}

#[derive(Debug, Clone)]
enum Doing {
    Put(u8, Vec<u8>, Vec<u8>),
    Delete(u8, Vec<u8>),
    Append(u8, Vec<u8>),
}

/// An expectation that is right, or one that need not be.
#[derive(Debug, Clone, Copy)]
enum Expecting {
    AsItIs,
    Absent,
    Present,
    At(u64),
}

type Key = (u8, u8, Vec<u8>);

#[derive(Default)]
struct Model {
    revision: u64,
    rows: BTreeMap<Key, (Vec<u8>, u64)>,
    topics: BTreeMap<(u8, u8), Vec<Vec<u8>>>,
}

/// A watch, and what it has to give.
struct Watching {
    namespace: u8,
    table: u8,
    prefix: Vec<u8>,
    watch: Watch,
}

/// Short keys over a small alphabet with the extremes in it, so that operations meet.
fn key() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(prop::sample::select(vec![0u8, 1, b'a', b'b', 0xff]), 0..4)
}

fn value() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        9 => prop::collection::vec(any::<u8>(), 0..20),
        // Some that fill the memtable, so that checkpoints come by themselves.
        1 => any::<u8>().prop_map(|byte| vec![byte; 30_000]),
    ]
}

fn doing() -> impl Strategy<Value = Doing> {
    prop_oneof![
        4 => (0..2u8, key(), value()).prop_map(|(t, k, v)| Doing::Put(t, k, v)),
        3 => (0..2u8, key()).prop_map(|(t, k)| Doing::Delete(t, k)),
        2 => (0..2u8, value()).prop_map(|(t, v)| Doing::Append(t, v)),
    ]
}

fn expecting() -> impl Strategy<Value = Expecting> {
    prop_oneof![
        6 => Just(Expecting::AsItIs),
        1 => Just(Expecting::Absent),
        1 => Just(Expecting::Present),
        1 => (0..40u64).prop_map(Expecting::At),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let expect = prop::collection::vec((0..2u8, key(), expecting()), 0..2);
    let changes = prop::collection::vec(doing(), 0..6);
    let scan = (
        0..3u8,
        0..2u8,
        key(),
        prop::option::of(key()),
        prop_oneof![Just(usize::MAX), 0..5usize],
        any::<bool>(),
    );
    prop_oneof![
        8 => (0..3u8, expect, changes).prop_map(|(namespace, expect, changes)| Step::Batch {
            namespace, expect, changes,
        }),
        6 => scan.prop_map(|(namespace, table, prefix, after, limit, reverse)| Step::Scan {
            namespace, table, prefix, after, limit, reverse,
        }),
        1 => (0..3u8, 0..2u8).prop_map(|(n, t)| Step::RemoveTopic(n, t)),
        1 => (0..3u8, 0..2u8, key()).prop_map(|(n, t, p)| Step::Watch(n, t, p)),
        1 => Just(Step::Checkpoint),
        1 => Just(Step::Reopen),
    ]
}

fn space(storage: &Storage, namespace: u8) -> Space {
    storage.space(&Namespace::parse(NAMESPACES[usize::from(namespace)]).unwrap())
}

impl Model {
    fn expect(&self, key: &Key, expecting: Expecting) -> Expect {
        match (expecting, self.rows.get(key)) {
            (Expecting::Absent, _) | (Expecting::AsItIs, None) => Expect::Absent,
            (Expecting::Present, _) => Expect::Present,
            (Expecting::At(revision), _) => Expect::At(Revision(revision)),
            (Expecting::AsItIs, Some((_, revision))) => Expect::At(Revision(*revision)),
        }
    }

    fn holds(&self, key: &Key, expect: Expect) -> bool {
        match (expect, self.rows.get(key)) {
            (Expect::Absent, found) => found.is_none(),
            (Expect::Present, found) => found.is_some(),
            (Expect::At(revision), found) => found.is_some_and(|(_, r)| *r == revision.0),
        }
    }

    /// Does what a batch does; gives the offsets of its appends.
    fn apply(&mut self, namespace: u8, changes: &[Doing]) -> Vec<u64> {
        self.revision += 1;
        let mut offsets = Vec::new();
        for change in changes {
            match change.clone() {
                Doing::Put(table, key, value) => {
                    self.rows
                        .insert((namespace, table, key), (value, self.revision));
                }
                Doing::Delete(table, key) => drop(self.rows.remove(&(namespace, table, key))),
                Doing::Append(topic, value) => {
                    let entries = self.topics.entry((namespace, topic)).or_default();
                    offsets.push(entries.len() as u64);
                    entries.push(value);
                }
            }
        }
        offsets
    }
}

fn batch(space: &Space, changes: &[Doing]) -> Batch {
    let mut batch = space.batch();
    for change in changes {
        match change {
            Doing::Put(t, k, v) => batch.put(TABLES[usize::from(*t)], k, v),
            Doing::Delete(t, k) => batch.delete(TABLES[usize::from(*t)], k),
            Doing::Append(t, v) => batch.append(TOPICS[usize::from(*t)], v),
        };
    }
    batch
}

async fn compare(opener: &impl Opener, steps: Vec<Step>) -> Result<(), TestCaseError> {
    let dir = tempfile::tempdir().unwrap();
    let options = Options {
        memory: 64 << 10,
        cache: 1 << 20,
        segment: 256 << 10,
        ..Options::default()
    };
    let mut storage = opener.open(dir.path(), options.clone());
    let mut model = Model::default();
    let mut watching: Vec<Watching> = Vec::new();
    for step in steps {
        match step {
            Step::Batch {
                namespace,
                expect,
                changes,
            } => {
                let space = space(&storage, namespace);
                let mut batch = batch(&space, &changes);
                let mut holds = true;
                for (table, key, expecting) in expect {
                    let place = (namespace, table, key);
                    let expect = model.expect(&place, expecting);
                    holds &= model.holds(&place, expect);
                    batch.expect(TABLES[usize::from(table)], &place.2, expect);
                }
                let outcome = batch.commit().await;
                if !holds {
                    let refused = matches!(outcome, Err(Error::Conflict { .. }));
                    prop_assert!(refused, "{outcome:?}");
                    continue;
                }
                let receipt = outcome.unwrap();
                if changes.is_empty() {
                    continue;
                }
                let offsets = model.apply(namespace, &changes);
                prop_assert_eq!(receipt.revision, Revision(model.revision));
                prop_assert_eq!(receipt.offsets, offsets);
                check_watches(&mut watching, namespace, &changes, model.revision).await?;
            }
            Step::Scan {
                namespace,
                table,
                prefix,
                after,
                limit,
                reverse,
            } => {
                let mut range = Range::prefix(&prefix).limit(limit);
                if let Some(after) = &after {
                    range = range.after(after);
                }
                if reverse {
                    range = range.reverse();
                }
                let found: Vec<_> = space(&storage, namespace)
                    .scan(TABLES[usize::from(table)], range)
                    .unwrap()
                    .into_iter()
                    .map(|row| (row.key.to_vec(), row.value.to_vec(), row.revision.0))
                    .collect();
                let mut expected: Vec<_> = model
                    .rows
                    .iter()
                    .filter(|((n, t, k), _)| {
                        (*n, *t) == (namespace, table)
                            && k.starts_with(&prefix)
                            && after
                                .as_ref()
                                .is_none_or(|a| if reverse { k < a } else { k > a })
                    })
                    .map(|((_, _, k), (v, r))| (k.clone(), v.clone(), *r))
                    .collect();
                if reverse {
                    expected.reverse();
                }
                expected.truncate(limit);
                prop_assert_eq!(found, expected);
            }
            Step::RemoveTopic(namespace, topic) => {
                let name = TOPICS[usize::from(topic)];
                space(&storage, namespace)
                    .topic(name)
                    .remove()
                    .await
                    .unwrap();
                model.topics.remove(&(namespace, topic));
                model.revision = storage.revision().0;
            }
            Step::Watch(namespace, table, prefix) => {
                let watch = space(&storage, namespace).watch(TABLES[usize::from(table)], &prefix);
                watching.push(Watching {
                    namespace,
                    table,
                    prefix,
                    watch,
                });
            }
            Step::Checkpoint => storage.checkpoint().await.unwrap(),
            Step::Reopen => {
                watching.clear();
                storage.close();
                storage = opener.open(dir.path(), options.clone());
            }
        }
        prop_assert_eq!(storage.revision().0, model.revision);
        check_topics(&storage, &model)?;
        check_namespaces(&storage, &model)?;
    }
    Ok(())
}

/// Each watch gives what it has to, in order.
async fn check_watches(
    watching: &mut [Watching],
    namespace: u8,
    changes: &[Doing],
    revision: u64,
) -> Result<(), TestCaseError> {
    for one in watching.iter_mut().filter(|w| w.namespace == namespace) {
        for change in changes {
            let (table, key, value) = match change {
                Doing::Put(table, key, value) => (table, key, Some(value.clone())),
                Doing::Delete(table, key) => (table, key, None),
                Doing::Append(..) => continue,
            };
            if *table != one.table || !key.starts_with(&one.prefix) {
                continue;
            }
            let expected = Change {
                key: key.clone().into(),
                value: value.map(Into::into),
                revision: Revision(revision),
            };
            prop_assert_eq!(one.watch.next().await.unwrap(), expected);
        }
    }
    Ok(())
}

fn check_topics(storage: &Storage, model: &Model) -> Result<(), TestCaseError> {
    for namespace in 0..3u8 {
        let space = space(storage, namespace);
        let mut names = Vec::new();
        for topic in 0..2u8 {
            let none = Vec::new();
            let expected = model.topics.get(&(namespace, topic)).unwrap_or(&none);
            let handle = space.topic(TOPICS[usize::from(topic)]);
            let found: Vec<_> = handle
                .read(0, usize::MAX, usize::MAX)
                .unwrap()
                .into_iter()
                .map(|entry| entry.value.to_vec())
                .collect();
            prop_assert_eq!(&found, expected);
            prop_assert_eq!(handle.bounds().unwrap().next, expected.len() as u64);
            if !expected.is_empty() {
                names.push(handle.name().to_owned());
            }
        }
        prop_assert_eq!(space.topics().unwrap(), names);
    }
    Ok(())
}

fn check_namespaces(storage: &Storage, model: &Model) -> Result<(), TestCaseError> {
    for table in 0..2u8 {
        let mut expected: Vec<_> = model
            .rows
            .keys()
            .filter(|(_, t, _)| *t == table)
            .map(|(n, _, _)| Namespace::parse(NAMESPACES[usize::from(*n)]).unwrap())
            .collect();
        expected.sort();
        expected.dedup();
        let found = storage.namespaces(TABLES[usize::from(table)]).unwrap();
        prop_assert_eq!(found, expected);
    }
    Ok(())
}

/// Compares an engine with the model; as many cases as `PROPTEST_CASES` says, 24 by default.
pub(crate) fn run(opener: impl Opener) {
    let mut config = ProptestConfig::default();
    if std::env::var_os("PROPTEST_CASES").is_none() {
        config.cases = 24;
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    TestRunner::new(config)
        .run(&prop::collection::vec(step(), 1..80), |steps| {
            runtime.block_on(compare(&opener, steps))
        })
        .unwrap();
}
