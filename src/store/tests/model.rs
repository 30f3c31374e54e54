//! Random operations, compared with the simplest store that could be right: a map. Time passes,
//! expired records are swept or not, and the node restarts.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests"
)]

use std::{collections::BTreeMap, time::Duration};

use micro_core::{Clock, Namespace, Timestamp};
use micro_storage::{Options, Revision, Storage};
use micro_store::{
    Change, Condition, Database, Error, Event, Field, Metadata, Operation, Query, Service,
    Settings, Write,
};
use proptest::prelude::*;
use tempfile::TempDir;

const START: Timestamp = Timestamp(1_700_000_000_000);
const TABLES: [&str; 3] = ["", "users", "a table"];
const KEYS: [&str; 8] = ["a", "ab", "abc", "b", "ba", "c/1", "c/2", "ü"];

#[derive(Debug, Clone)]
struct Put {
    table: usize,
    key: usize,
    value: Vec<u8>,
    ttl: Option<u64>,
    noted: bool,
}

#[derive(Debug, Clone)]
enum Step {
    Write(Put),
    Delete(usize, usize),
    Read(usize, usize),
    Query(usize, Query),
    Commit(Vec<(Kind, When)>),
    Pass(u64),
    Sweep,
    Restart,
}

#[derive(Debug, Clone)]
enum Kind {
    Write(Put),
    Delete(usize, usize),
    Check(usize, usize),
}

#[derive(Debug, Clone, Copy)]
enum When {
    Always,
    Absent,
    Present,
    /// The revision that the model knows, or one that cannot be.
    Known,
    Wrong,
}

fn put() -> impl Strategy<Value = Put> {
    (
        0..TABLES.len(),
        0..KEYS.len(),
        prop::collection::vec(any::<u8>(), 0..6),
        prop::option::weighted(0.4, 1_u64..6),
        any::<bool>(),
    )
        .prop_map(|(table, key, value, ttl, noted)| Put {
            table,
            key,
            value,
            ttl,
            noted,
        })
}

fn place() -> impl Strategy<Value = (usize, usize)> {
    (0..TABLES.len(), 0..KEYS.len())
}

fn query() -> impl Strategy<Value = Query> {
    let part = || prop::sample::select(vec!["", "", "a", "b", "c/", "1", "ü", "nothing"]);
    (part(), part(), 0_u64..4, 0_u64..3, any::<bool>()).prop_map(
        |(prefix, suffix, limit, offset, descending)| Query {
            prefix: prefix.to_owned(),
            suffix: suffix.to_owned(),
            limit,
            offset,
            descending,
        },
    )
}

fn kind() -> impl Strategy<Value = Kind> {
    prop_oneof![
        put().prop_map(Kind::Write),
        place().prop_map(|(t, k)| Kind::Delete(t, k)),
        place().prop_map(|(t, k)| Kind::Check(t, k)),
    ]
}

fn when() -> impl Strategy<Value = When> {
    prop::sample::select(vec![
        When::Always,
        When::Absent,
        When::Present,
        When::Known,
        When::Known,
        When::Wrong,
    ])
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => put().prop_map(Step::Write),
        2 => place().prop_map(|(t, k)| Step::Delete(t, k)),
        3 => place().prop_map(|(t, k)| Step::Read(t, k)),
        4 => (0..TABLES.len(), query()).prop_map(|(t, q)| Step::Query(t, q)),
        4 => prop::collection::vec((kind(), when()), 0..4).prop_map(Step::Commit),
        3 => (1_u64..4).prop_map(Step::Pass),
        1 => Just(Step::Sweep),
        1 => Just(Step::Restart),
    ]
}

/// A node with one store, which can be stopped and started.
struct Node {
    clock: Clock,
    dir: TempDir,
    storage: Storage,
    service: Service,
}

impl Node {
    async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let clock = Clock::fake(START);
        let (storage, service) = open(&dir, &clock).await;
        Self {
            clock,
            dir,
            storage,
            service,
        }
    }

    async fn restart(&mut self) {
        self.storage.close();
        (self.storage, self.service) = open(&self.dir, &self.clock).await;
    }

    fn database(&self) -> Database {
        self.service
            .handle()
            .database(&Namespace::parse("foo").unwrap())
    }
}

async fn open(dir: &TempDir, clock: &Clock) -> (Storage, Service) {
    let options = Options {
        clock: clock.clone(),
        ..Options::default()
    };
    let storage = Storage::open(dir.path(), options).unwrap();
    let service = Service::open(Settings::default(), &storage, clock.clone())
        .await
        .unwrap();
    (storage, service)
}

#[derive(Debug, Clone, PartialEq)]
struct Held {
    value: Vec<u8>,
    deadline: Option<Timestamp>,
    noted: bool,
    revision: Revision,
}

#[derive(Default)]
struct Model {
    records: BTreeMap<(usize, usize), Held>,
}

impl Model {
    fn get(&self, place: (usize, usize), now: Timestamp) -> Option<&Held> {
        self.records
            .get(&place)
            .filter(|held| held.deadline.is_none_or(|d| d > now))
    }

    fn put(&mut self, put: &Put, now: Timestamp, revision: Revision) {
        let held = Held {
            value: put.value.clone(),
            deadline: put.ttl.map(|ttl| now.plus(Duration::from_secs(ttl))),
            noted: put.noted,
            revision,
        };
        self.records.insert((put.table, put.key), held);
    }

    fn query(&self, table: usize, query: &Query, now: Timestamp) -> Vec<(String, Held)> {
        let mut found: Vec<_> = self
            .records
            .keys()
            .filter(|(t, _)| *t == table)
            .filter_map(|place| Some((KEYS[place.1].to_owned(), self.get(*place, now)?.clone())))
            .filter(|(key, _)| key.starts_with(&query.prefix) && key.ends_with(&query.suffix))
            .collect();
        found.sort_by(|a, b| a.0.cmp(&b.0));
        if query.descending {
            found.reverse();
        }
        let limit = match query.limit {
            0 => usize::MAX,
            limit => limit as usize,
        };
        found
            .into_iter()
            .skip(query.offset as usize)
            .take(limit)
            .collect()
    }
}

fn metadata(noted: bool) -> Metadata {
    let field = Field {
        kind: "string".into(),
        value: "yes".into(),
    };
    noted
        .then(|| ("noted".to_owned(), field))
        .into_iter()
        .collect()
}

fn write(put: &Put) -> Write<'_> {
    Write {
        key: KEYS[put.key],
        value: &put.value,
        ttl: put.ttl.map(Duration::from_secs),
        metadata: metadata(put.noted),
    }
}

fn held(record: micro_store::Record) -> Held {
    Held {
        value: record.value.to_vec(),
        deadline: record.deadline,
        noted: record.metadata == metadata(true),
        revision: record.revision,
    }
}

async fn commit(node: &Node, model: &mut Model, parts: &[(Kind, When)]) {
    let now = node.clock.now();
    let place = |kind: &Kind| match kind {
        Kind::Write(put) => (put.table, put.key),
        Kind::Delete(t, k) | Kind::Check(t, k) => (*t, *k),
    };
    let mut operations = Vec::new();
    let (mut holds, mut sensible) = (true, true);
    let mut seen = Vec::new();
    for (kind, when) in parts {
        let place = place(kind);
        sensible &= !seen.contains(&place);
        seen.push(place);
        let held = model.get(place, now);
        let condition = match when {
            When::Always => {
                sensible &= !matches!(kind, Kind::Check(..));
                None
            }
            When::Absent => {
                holds &= held.is_none();
                Some(Condition::Absent)
            }
            When::Present => {
                holds &= held.is_some();
                Some(Condition::Present)
            }
            When::Known => {
                holds &= held.is_some();
                Some(Condition::At(held.map_or(Revision(0), |h| h.revision)))
            }
            When::Wrong => {
                holds = false;
                Some(Condition::At(Revision(u64::MAX)))
            }
        };
        let change = match kind {
            Kind::Write(put) => Change::Write(write(put)),
            Kind::Delete(_, k) => Change::Delete(KEYS[*k]),
            Kind::Check(_, k) => Change::Check(KEYS[*k]),
        };
        operations.push(Operation {
            table: TABLES[place.0],
            change,
            condition,
        });
    }
    match node.database().commit(&operations).await {
        Ok(revision) => {
            assert!(holds && sensible, "{operations:?} went through");
            for (kind, _) in parts {
                match kind {
                    Kind::Write(put) => model.put(put, now, revision),
                    Kind::Delete(t, k) => drop(model.records.remove(&(*t, *k))),
                    Kind::Check(..) => {}
                }
            }
        }
        Err(Error::Conflict { .. }) => assert!(!holds && sensible, "{operations:?} was refused"),
        Err(Error::Operation(_)) => assert!(!sensible, "{operations:?} was refused"),
        Err(error) => panic!("{error}"),
    }
}

async fn run(steps: Vec<Step>) {
    let mut node = Node::start().await;
    let mut model = Model::default();
    for step in steps {
        let now = node.clock.now();
        let database = node.database();
        match step {
            Step::Write(put) => {
                let revision = database
                    .write(TABLES[put.table], write(&put))
                    .await
                    .unwrap();
                model.put(&put, now, revision);
            }
            Step::Delete(t, k) => {
                database.delete(TABLES[t], KEYS[k]).await.unwrap();
                model.records.remove(&(t, k));
            }
            Step::Read(t, k) => {
                let read = database.read(TABLES[t], KEYS[k]).unwrap().map(held);
                assert_eq!(read.as_ref(), model.get((t, k), now));
            }
            Step::Query(t, query) => {
                let wanted = model.query(t, &query, now);
                let keys = database.keys(TABLES[t], query.clone()).await.unwrap();
                let known: Vec<_> = wanted.iter().map(|(key, _)| key.clone()).collect();
                assert_eq!(keys, known, "{query:?}");
                let records = database.records(TABLES[t], query).await.unwrap();
                let records: Vec<_> = records
                    .into_iter()
                    .map(|r| (r.key.clone(), held(r)))
                    .collect();
                assert_eq!(records, wanted);
            }
            Step::Commit(parts) => commit(&node, &mut model, &parts).await,
            Step::Pass(seconds) => node.clock.advance(Duration::from_secs(seconds)),
            Step::Sweep => {
                node.service.handle().sweep().await.unwrap();
            }
            Step::Restart => node.restart().await,
        }
    }
    // Everything that has a deadline goes, rows of deadlines included.
    let now = node.clock.now();
    let database = node.database();
    for (t, table) in TABLES.into_iter().enumerate() {
        let mut watching = database.watch(table, "", false).unwrap();
        let mut seen = Vec::new();
        while let Event::Written(record) = watching.next().await.unwrap() {
            seen.push((record.key.clone(), held(record)));
        }
        assert_eq!(seen, model.query(t, &Query::default(), now));
    }
    node.clock.advance(Duration::from_secs(10));
    node.service.handle().sweep().await.unwrap();
    let space = node.storage.space(&Namespace::parse("foo").unwrap());
    let left = space.scan("store", micro_storage::Range::all()).unwrap();
    let kept = model.records.values().filter(|h| h.deadline.is_none());
    assert_eq!(left.len(), kept.count(), "the space is taken back");
    let deadlines = space
        .scan("store.expiry", micro_storage::Range::all())
        .unwrap();
    assert!(deadlines.is_empty(), "{deadlines:?}");
    node.storage.close();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
    #[test]
    fn the_store_is_a_map_with_deadlines(steps in prop::collection::vec(step(), 1..50)) {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(run(steps));
    }
}
