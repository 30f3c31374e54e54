//! Behaviour of [`Topics`]. The rest of the engine is played by [`World`]: a log that keeps what was
//! committed, and an index that keeps what a checkpoint recorded.

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use micro_core::Timestamp;

use super::*;
use crate::disk::{
    OsDisk,
    faulty::{FaultyDisk, Op, Trouble},
};

mod damage;
mod faults;
mod model;
mod together;

/// What the log remembers.
#[derive(Debug, Clone)]
enum Change {
    Append(usize, String, Entry),
    Retain(usize, String, u64),
    Remove(usize, String),
}

/// A node without its committer and its index.
struct World {
    disk: FaultyDisk,
    topics: Topics,
    log: Vec<Change>,
    /// How far the index has the log.
    position: usize,
    index: BTreeMap<(Namespace, String), Vec<u8>>,
}

/// Namespaces of which one begins like the other.
fn ns(n: usize) -> Namespace {
    Namespace::parse(["a", "ab"][n]).unwrap()
}

const DIRECTORY: &str = "/state/topics";

impl World {
    fn new(seed: u64) -> Self {
        let disk = FaultyDisk::new(seed);
        Self {
            topics: Self::open(&disk, Vec::new()),
            disk,
            log: Vec::new(),
            position: 0,
            index: BTreeMap::new(),
        }
    }

    fn open(disk: &FaultyDisk, recorded: Vec<Recorded>) -> Topics {
        let disk = Arc::new(disk.clone());
        let mut topics = Topics::open(disk, Path::new(DIRECTORY), recorded).unwrap();
        topics.full = (8 << 10, 100 << 10);
        topics
    }

    fn recorded(&self) -> Vec<Recorded> {
        let rows = self.index.iter();
        rows.map(|((ns, topic), row)| Recorded::decode(ns.clone(), topic, row).unwrap())
            .collect()
    }

    fn commit(&mut self, change: Change) {
        apply(&self.topics, &change);
        self.log.push(change);
    }

    fn append(&mut self, n: usize, topic: &str, time: i64, values: &[Vec<u8>]) {
        for value in values {
            let entry = Entry {
                offset: self.topics.next_offset(&ns(n), topic),
                time: Timestamp(time),
                value: Bytes::from(value.clone()),
            };
            self.commit(Change::Append(n, topic.into(), entry));
        }
    }

    /// Freezes, lets `meanwhile` happen, flushes and stores what that gives.
    fn checkpoint_while(&mut self, meanwhile: impl FnOnce(&mut Self)) -> Result<(), Error> {
        let mut frozen = self.topics.freeze();
        let position = self.log.len();
        meanwhile(self);
        let mut failed = None;
        let flushed = loop {
            match self.topics.flush(&mut frozen) {
                Ok(flushed) => break flushed,
                Err(error) => {
                    failed = Some(error);
                    self.disk.heal();
                    self.disk.set_capacity(None);
                }
            }
        };
        self.store(flushed, position);
        self.topics.confirm(frozen);
        failed.map_or(Ok(()), Err)
    }

    fn store(&mut self, flushed: Flushed, position: usize) {
        for key in flushed.removed {
            self.index.remove(&key);
        }
        for recorded in flushed.recorded {
            let key = (recorded.namespace.clone(), recorded.topic.clone());
            self.index.insert(key, recorded.encode());
        }
        self.position = position;
    }

    fn checkpoint(&mut self) {
        self.checkpoint_while(|_| {}).unwrap();
    }

    /// The process dies and comes back.
    fn restart(&mut self) {
        self.topics = Self::open(&self.disk, self.recorded());
        for change in &self.log[self.position..] {
            apply(&self.topics, change);
        }
    }

    fn all(&self, n: usize, topic: &str) -> Vec<Entry> {
        self.topics
            .read(&ns(n), topic, 0, usize::MAX, usize::MAX)
            .unwrap()
    }

    fn files(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        for namespace in self.disk.list(Path::new(DIRECTORY)).unwrap() {
            let namespace = Path::new(DIRECTORY).join(namespace.name);
            for topic in self.disk.list(&namespace).unwrap() {
                let topic = namespace.join(topic.name);
                let files = self.disk.list(&topic).unwrap();
                found.extend(files.into_iter().map(|f| topic.join(f.name)));
            }
        }
        found
    }

    /// Offline, as a stopped node would be checked.
    fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let disk = Arc::new(self.disk.clone());
        check(disk, Path::new(DIRECTORY), self.recorded(), |p| {
            problems.push(p);
        })
        .unwrap();
        problems
    }
}

fn apply(topics: &Topics, change: &Change) {
    match change {
        Change::Append(n, topic, entry) => topics
            .append_recent(&ns(*n), topic, vec![entry.clone()])
            .unwrap(),
        Change::Retain(n, topic, first) => topics.retain(&ns(*n), topic, *first),
        Change::Remove(n, topic) => topics.remove(&ns(*n), topic),
    }
}

fn values(range: std::ops::Range<u32>, size: usize) -> Vec<Vec<u8>> {
    range
        .map(|i| {
            let mut value = i.to_le_bytes().to_vec();
            value.resize(size.max(4), 7);
            value
        })
        .collect()
}

fn offsets(entries: &[Entry]) -> Vec<u64> {
    entries.iter().map(|e| e.offset).collect()
}

#[test]
fn events_are_read_the_same_before_and_after_they_come_into_files() {
    let mut world = World::new(1);
    world.append(0, "t", 5, &values(0..500, 100));
    let before = world.all(0, "t");
    assert_eq!(before.len(), 500);
    assert!(world.topics.is_recent(&ns(0), "t", 0));
    world.checkpoint();
    assert!(!world.topics.is_recent(&ns(0), "t", 499));
    assert!(world.topics.is_recent(&ns(0), "t", 500));
    assert_eq!(world.all(0, "t"), before);
    assert!(world.files().len() > 5, "{:?}", world.files());
    world.restart();
    assert_eq!(world.all(0, "t"), before);
    // Half of it in files, half in memory, in one answer.
    world.append(0, "t", 6, &values(500..600, 100));
    let all = world.all(0, "t");
    assert_eq!(offsets(&all), (0..600).collect::<Vec<_>>());
    assert_eq!(all[599].time, Timestamp(6));
    assert_eq!(world.problems(), [""; 0]);
}

#[test]
fn an_answer_has_at_least_one_event_and_keeps_to_its_bounds() {
    let mut world = World::new(1);
    world.append(0, "t", 5, &values(0..50, 1000));
    for _ in 0..2 {
        let read = |from, entries, bytes| {
            offsets(
                &world
                    .topics
                    .read(&ns(0), "t", from, entries, bytes)
                    .unwrap(),
            )
        };
        assert_eq!(read(3, 2, usize::MAX), [3, 4]);
        assert_eq!(read(3, 0, 0), [3]);
        assert_eq!(read(3, 10, 2999), [3, 4]);
        assert_eq!(read(3, 10, 3000), [3, 4, 5]);
        assert_eq!(read(49, 10, 3000), [49]);
        assert_eq!(read(50, 10, 3000), [0; 0]);
        assert_eq!(read(u64::MAX, 10, 3000), [0; 0]);
        world.checkpoint();
    }
    let none = world.topics.read(&ns(1), "t", 0, 9, 9).unwrap();
    assert_eq!(none, []);
    assert_eq!(world.topics.bounds(&ns(1), "t"), Bounds::default());
    assert!(world.topics.is_recent(&ns(1), "t", 0));
}

#[test]
fn times_never_go_back_and_find_their_events() {
    let mut world = World::new(1);
    for (i, time) in [10, 10, 30, 20, 40].into_iter().enumerate() {
        let i = u32::try_from(i).unwrap();
        world.append(0, "t", time, &values(i * 300..(i + 1) * 300, 100));
    }
    for _ in 0..3 {
        let at = |time| {
            world
                .topics
                .offset_at(&ns(0), "t", Timestamp(time))
                .unwrap()
        };
        assert_eq!(at(0), 0);
        assert_eq!(at(10), 0);
        assert_eq!(at(11), 600);
        assert_eq!(at(30), 600, "20 became 30");
        assert_eq!(at(31), 1200);
        assert_eq!(at(41), 1500);
        world.checkpoint();
        world.restart();
    }
    assert_eq!(
        world
            .topics
            .offset_at(&ns(0), "none", Timestamp(0))
            .unwrap(),
        0
    );
}

#[test]
fn a_topic_made_again_has_nothing_of_the_old_one() {
    let mut world = World::new(1);
    world.append(0, "t", 5, &values(0..500, 100));
    world.checkpoint();
    world.append(0, "t", 5, &values(500..600, 100));
    world.commit(Change::Remove(0, "t".into()));
    assert_eq!(world.topics.names(&ns(0)), [""; 0]);
    assert_eq!(world.topics.usage(&ns(0)), 0);
    assert_eq!(world.all(0, "t"), []);
    world.append(0, "t", 1, &values(9..11, 10));
    for step in 0..4 {
        let all = world.all(0, "t");
        assert_eq!(offsets(&all), [0, 1]);
        assert_eq!(all[0].time, Timestamp(1), "not that of the old one");
        assert_eq!(world.topics.names(&ns(0)), ["t"]);
        match step {
            0 => world.restart(),
            1 => world.checkpoint(),
            _ => world.restart(),
        }
    }
    assert_eq!(world.files().len(), 1, "the old ones are gone");
}

#[test]
fn what_is_let_go_is_gone_at_once_and_its_files_after_the_checkpoint() {
    let mut world = World::new(1);
    world.append(0, "t", 10, &values(0..500, 100));
    world.append(0, "t", 20, &values(500..1000, 100));
    world.checkpoint();
    let files = world.files().len();
    let full = world.topics.bounds(&ns(0), "t").bytes;
    assert_eq!(full, world.topics.usage(&ns(0)));
    let plan = |world: &World, age: Option<u64>, bytes| {
        let age = age.map(Duration::from_millis);
        let now = Timestamp(30);
        let cut = world.topics.plan_retain(&ns(0), "t", age, bytes, now);
        cut.unwrap().map(|cut| cut.first)
    };
    assert_eq!(plan(&world, None, None), None);
    assert_eq!(plan(&world, Some(20), Some(full)), None);
    assert_eq!(plan(&world, Some(19), None), Some(500), "older than 19");
    assert_eq!(plan(&world, Some(5), None), Some(1000), "all of it");
    assert_eq!(plan(&world, None, Some(0)), Some(1000));
    let kept = plan(&world, None, Some(1240)).unwrap();
    assert_eq!(kept, 990, "124 bytes each");
    world.commit(Change::Retain(0, "t".into(), 500));
    assert_eq!(plan(&world, Some(19), None), None, "done");
    let bounds = world.topics.bounds(&ns(0), "t");
    assert_eq!((bounds.first, bounds.next), (500, 1000));
    assert!(bounds.bytes < full * 6 / 10, "{} of {full}", bounds.bytes);
    assert_eq!(world.all(0, "t")[0].offset, 500);
    assert_eq!(world.files().len(), files, "the index still needs them");
    world.restart();
    assert_eq!(world.topics.bounds(&ns(0), "t").first, 500);
    world.checkpoint();
    assert!(world.files().len() < files * 6 / 10);
    assert_eq!(world.topics.bounds(&ns(0), "t"), bounds);
    world.commit(Change::Retain(0, "t".into(), 5000));
    world.checkpoint();
    assert!(world.files().is_empty());
    world.restart();
    let bounds = world.topics.bounds(&ns(0), "t");
    assert_eq!((bounds.first, bounds.next, bounds.bytes), (1000, 1000, 0));
    world.append(0, "t", 1, &values(0..1, 100));
    assert_eq!(world.all(0, "t")[0].time, Timestamp(20), "time goes on");
    world.checkpoint();
    assert_eq!(offsets(&world.all(0, "t")), [1000]);
}

#[test]
fn a_plan_for_a_topic_that_was_made_again_is_outdated() {
    let mut world = World::new(1);
    world.append(0, "t", 10, &values(0..10, 100));
    let cut = world
        .topics
        .plan_retain(&ns(0), "t", None, Some(0), Timestamp(30))
        .unwrap()
        .unwrap();
    assert!(world.topics.is_current(&ns(0), "t", &cut));
    world.commit(Change::Remove(0, "t".into()));
    world.append(0, "t", 10, &values(0..50, 100));
    assert!(!world.topics.is_current(&ns(0), "t", &cut));
}

#[test]
fn followers_see_each_group_and_the_next_topic_of_the_name() {
    let mut world = World::new(1);
    let mut follower = world.topics.follow(&ns(0), "t");
    assert_eq!(*follower.borrow_and_update(), 0);
    assert_eq!(
        world.topics.names(&ns(0)),
        [""; 0],
        "following makes no topic"
    );
    world.append(0, "t", 1, &values(0..3, 10));
    assert!(follower.has_changed().unwrap());
    assert_eq!(*follower.borrow_and_update(), 3);
    world.append(1, "t", 1, &values(0..3, 10));
    assert!(!follower.has_changed().unwrap(), "of another namespace");
    world.commit(Change::Remove(0, "t".into()));
    assert_eq!(*follower.borrow_and_update(), 0);
    world.append(0, "t", 1, &values(0..1, 10));
    assert_eq!(*follower.borrow_and_update(), 1);
    world.commit(Change::Remove(0, "t".into()));
    world.checkpoint();
    drop(follower);
    // What was followed in vain does not stay.
    for i in 0..500 {
        drop(world.topics.follow(&ns(0), &format!("never {i}")));
    }
    let namespaces = world.topics.namespaces.read().unwrap();
    assert!(namespaces[&ns(0)].topics.len() <= 64);
}

#[test]
fn events_that_come_again_are_passed_over_and_a_gap_is_refused() {
    let mut world = World::new(1);
    world.append(0, "t", 1, &values(0..3, 10));
    let again = world.all(0, "t");
    world.topics.append_recent(&ns(0), "t", again).unwrap();
    assert_eq!(world.all(0, "t").len(), 3);
    let later = Entry {
        offset: 4,
        time: Timestamp(1),
        value: Bytes::new(),
    };
    let refused = world.topics.append_recent(&ns(0), "t", vec![later]);
    assert!(matches!(
        refused,
        Err(Error::Gap {
            expected: 3,
            found: 4,
            ..
        })
    ));
}

#[test]
fn a_record_of_the_index_reads_back_and_anything_else_does_not() {
    let mut world = World::new(1);
    world.append(0, "t", 7, &values(0..3, 10));
    world.checkpoint();
    let recorded = world.recorded().remove(0);
    assert_eq!(recorded.stored.end, 3);
    assert_eq!(recorded.stored.bytes, world.topics.usage(&ns(0)));
    let mut row = recorded.encode();
    assert_eq!(Recorded::decode(ns(0), "t", &row), Some(recorded));
    assert_eq!(Recorded::decode(ns(0), "t", &row[1..]), None);
    row[0] = 9;
    assert_eq!(Recorded::decode(ns(0), "t", &row), None);
}

#[test]
fn thousands_of_idle_topics_are_cheap() {
    let mut world = World::new(1);
    for i in 0..100 {
        world.append(0, &format!("t{i}"), 1, &values(0..1, 100));
    }
    world.checkpoint();
    // In memory only the fixed part is left; no list of files before one is needed.
    assert!(size_of::<Topic>() <= 400, "{}", size_of::<Topic>());
    world.restart();
    let topic = world.topics.find(&ns(0), "t7").unwrap();
    assert!(topic.state().segments.is_none());
    assert_eq!(topic.state().recent.capacity(), 0);
    assert_eq!(world.all(0, "t7").len(), 1);
}

#[test]
fn any_name_will_do() {
    let mut world = World::new(1);
    let names = ["..", "/", "a/b", "a%2fb", "ü", "\0", &"x".repeat(255), " "];
    for (i, name) in names.into_iter().enumerate() {
        let i = u32::try_from(i).unwrap();
        world.append(0, name, 1, &values(i..i + 1, 10));
    }
    world.checkpoint();
    world.restart();
    for (i, name) in names.into_iter().enumerate() {
        let i = u32::try_from(i).unwrap();
        assert_eq!(world.all(0, name)[0].value, values(i..i + 1, 10)[0]);
    }
    let mut sorted = names.to_vec();
    sorted.sort_unstable();
    assert_eq!(world.topics.names(&ns(0)), sorted);
    assert_eq!(world.problems(), [""; 0]);
}

#[test]
fn a_snapshot_opens_as_the_topics_were() {
    let dir = tempfile::tempdir().unwrap();
    let (from, into) = (dir.path().join("from"), dir.path().join("into"));
    let mut topics = Topics::open(Arc::new(OsDisk), &from, Vec::new()).unwrap();
    topics.full = (8 << 10, 100 << 10);
    let entries = |range: std::ops::Range<u64>| -> Vec<Entry> {
        let entry = |offset| Entry {
            offset,
            time: Timestamp(1),
            value: Bytes::from(vec![1; 100]),
        };
        range.map(entry).collect()
    };
    topics.append_recent(&ns(0), "t", entries(0..500)).unwrap();
    let mut frozen = topics.freeze();
    let recorded = topics.flush(&mut frozen).unwrap().recorded;
    topics.confirm(frozen);
    let hold = topics.hold();
    // All of it goes while the snapshot is taken.
    topics
        .append_recent(&ns(0), "t", entries(500..900))
        .unwrap();
    topics.retain(&ns(0), "t", 900);
    let mut frozen = topics.freeze();
    topics.flush(&mut frozen).unwrap();
    topics.confirm(frozen);
    topics.copy(&hold, &recorded, &into).unwrap();
    drop(hold);
    assert_eq!(topics.bounds(&ns(0), "t").bytes, 0);
    let left = std::fs::read_dir(from.join("a")).unwrap().next().unwrap();
    let left = std::fs::read_dir(left.unwrap().path()).unwrap().count();
    assert_eq!(left, 0, "gone when the hold was");
    let copy = Topics::open(Arc::new(OsDisk), &into, recorded.clone()).unwrap();
    let read = copy.read(&ns(0), "t", 0, usize::MAX, usize::MAX).unwrap();
    assert_eq!(read, entries(0..500));
    let checked = check(Arc::new(OsDisk), &into, recorded, |p| panic!("{p}")).unwrap();
    assert_eq!((checked.topics, checked.entries), (1, 500));
}
