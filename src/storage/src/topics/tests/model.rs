//! Random lives of topics against a plain vector.

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone)]
enum Step {
    /// Some events of one size.
    Append(usize, usize, u8, u16),
    Tick(u8),
    /// A checkpoint during which something is appended or let go.
    Checkpoint(Vec<Step>),
    /// One whose disk fails first.
    Failing(u8, u64),
    /// Written, but the index never heard of it.
    Unconfirmed,
    Retain(usize, usize, Option<u8>, Option<u32>),
    Remove(usize, usize),
    Restart,
    PowerCut(u64),
}

const OPS: [Op; 7] = [
    Op::Write,
    Op::Sync,
    Op::SyncDir,
    Op::Create,
    Op::Open,
    Op::SetLen,
    Op::Remove,
];
const NAMES: [&str; 2] = ["t", "t~1/ü"];

fn step() -> impl Strategy<Value = Step> {
    let single = prop_oneof![
        8 => (0..2usize, 0..2usize, 1..40u8, 0..3000u16).prop_map(|(n, t, c, s)| Step::Append(n, t, c, s)),
        2 => (0..20u8).prop_map(Step::Tick),
        2 => (0..2usize, 0..2usize, prop::option::of(0..40u8), prop::option::of(0..100_000u32))
            .prop_map(|(n, t, a, b)| Step::Retain(n, t, a, b)),
        1 => (0..2usize, 0..2usize).prop_map(|(n, t)| Step::Remove(n, t)),
    ];
    let single = single.boxed();
    prop_oneof![
        8 => single.clone(),
        4 => prop::collection::vec(single, 0..4).prop_map(Step::Checkpoint),
        2 => (0..7u8, 1..6u64).prop_map(|(o, n)| Step::Failing(o, n)),
        1 => Just(Step::Unconfirmed),
        2 => Just(Step::Restart),
        1 => any::<u64>().prop_map(Step::PowerCut),
    ]
}

/// What a topic should be.
#[derive(Default)]
struct Model {
    first: u64,
    events: Vec<(i64, Vec<u8>)>,
}

struct Pair {
    world: World,
    models: BTreeMap<(usize, usize), Model>,
    now: i64,
    written: u32,
}

impl Pair {
    fn act(&mut self, step: &Step) {
        match step {
            Step::Append(n, t, count, size) => {
                let range = self.written..self.written + u32::from(*count);
                self.written = range.end;
                let values = values(range, usize::from(*size));
                self.world.append(*n, NAMES[*t], self.now, &values);
                let model = self.models.entry((*n, *t)).or_default();
                // The clock of a machine may go back; times of events do not.
                let time = model.events.last().map_or(self.now, |e| e.0.max(self.now));
                model.events.extend(values.into_iter().map(|v| (time, v)));
            }
            Step::Tick(by) => self.now += i64::from(*by) - 3,
            Step::Retain(n, t, age, bytes) => {
                let age = age.map(|age| Duration::from_millis(age.into()));
                let bytes = bytes.map(u64::from);
                let now = Timestamp(self.now);
                let cut = self
                    .world
                    .topics
                    .plan_retain(&ns(*n), NAMES[*t], age, bytes, now);
                let Some(cut) = cut.unwrap() else { return };
                let change = Change::Retain(*n, NAMES[*t].into(), cut.first);
                self.world.commit(change);
                let model = self.models.get_mut(&(*n, *t)).unwrap();
                assert!(cut.first > model.first && cut.first <= model.events.len() as u64);
                let kept = &model.events[usize::try_from(cut.first).unwrap()..];
                let gone = &model.events[..usize::try_from(cut.first).unwrap()];
                let oldest = age.map_or(i64::MIN, |a| self.now - a.as_millis() as i64);
                assert!(kept.iter().all(|e| e.0 >= oldest));
                let size: usize = kept.iter().map(|e| e.1.len() + 24).sum();
                assert!(bytes.is_none_or(|limit| size as u64 <= limit));
                if let (Some(last), None) = (gone.last(), bytes) {
                    assert!(last.0 < oldest, "nothing young goes");
                }
                model.first = cut.first;
            }
            Step::Remove(n, t) => {
                self.world.commit(Change::Remove(*n, NAMES[*t].into()));
                self.models.remove(&(*n, *t));
            }
            Step::Checkpoint(meanwhile) => {
                let mut world = std::mem::replace(&mut self.world, World::new(1));
                world
                    .checkpoint_while(|world| {
                        std::mem::swap(&mut self.world, world);
                        for step in meanwhile {
                            self.act(step);
                        }
                        std::mem::swap(&mut self.world, world);
                    })
                    .unwrap();
                self.world = world;
            }
            Step::Failing(op, nth) => {
                let op = OPS[usize::from(*op)];
                self.world.disk.fail(op, *nth, Trouble::Eio);
                let _ = self.world.checkpoint_while(|_| {});
                self.world.disk.heal();
            }
            Step::Unconfirmed => {
                let mut frozen = self.world.topics.freeze();
                self.world.topics.flush(&mut frozen).unwrap();
                drop(frozen);
                self.world.restart();
            }
            Step::Restart => self.world.restart(),
            Step::PowerCut(seed) => {
                let mut toss = *seed;
                self.world.disk.power_cut(|| {
                    toss = toss.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    toss >> 63 == 0
                });
                self.world.restart();
            }
        }
    }

    fn compare(&self, probe: u64) {
        for n in 0..2 {
            let mut names = Vec::new();
            let mut bytes = 0;
            for (t, name) in NAMES.iter().enumerate() {
                let empty = Model::default();
                let model = self.models.get(&(n, t)).unwrap_or(&empty);
                let next = model.events.len() as u64;
                if next > 0 {
                    names.push((*name).to_owned());
                }
                let topics = &self.world.topics;
                let bounds = topics.bounds(&ns(n), name);
                assert_eq!((bounds.first, bounds.next), (model.first, next));
                assert_eq!(topics.next_offset(&ns(n), name), next);
                bytes += bounds.bytes;
                // From some place on, in pages.
                let start = probe % (next + 2);
                let mut from = start;
                let mut read = Vec::new();
                loop {
                    let page = topics.read(&ns(n), name, from, 17, 5000).unwrap();
                    let Some(last) = page.last() else { break };
                    assert_eq!(page[0].offset, from.max(model.first));
                    from = last.offset + 1;
                    read.extend(page);
                }
                let start = usize::try_from(start.max(model.first)).unwrap();
                let expected = model.events.get(start..).unwrap_or_default();
                assert_eq!(read.len(), expected.len());
                for (i, (entry, (time, value))) in read.iter().zip(expected).enumerate() {
                    assert_eq!(entry.offset, (start + i) as u64);
                    assert_eq!(entry.time.0, *time);
                    assert_eq!(entry.value, *value);
                }
                let time = i64::try_from(probe % 100).unwrap();
                let at = model.events.partition_point(|e| e.0 < time) as u64;
                let found = topics.offset_at(&ns(n), name, Timestamp(time)).unwrap();
                assert_eq!(found, at.max(model.first));
            }
            assert_eq!(self.world.topics.names(&ns(n)), names);
            assert_eq!(self.world.topics.usage(&ns(n)), bytes);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn topics_behave_like_vectors(
        steps in prop::collection::vec(step(), 1..40),
        probes in prop::collection::vec(any::<u64>(), 40),
        seed in any::<u64>(),
    ) {
        let mut pair = Pair { world: World::new(seed), models: BTreeMap::new(), now: 3, written: 0 };
        for (step, probe) in steps.iter().zip(probes) {
            pair.act(step);
            pair.compare(probe);
        }
        pair.world.checkpoint();
        prop_assert_eq!(pair.world.problems(), Vec::<String>::new());
        pair.world.restart();
        pair.compare(0);
        // What the index counts is what the files take, once a topic is written to again: a power cut
        // may bring files back that had been removed.
        let topics: Vec<_> = pair.models.keys().copied().collect();
        for (n, t) in topics {
            pair.act(&Step::Append(n, t, 1, 1));
        }
        pair.world.checkpoint();
        let recorded: u64 = pair.world.recorded().iter().map(|r| r.stored.bytes).sum();
        let taken: u64 = pair.world.files().iter()
            .filter(|f| f.extension().is_some_and(|e| e == "seg"))
            .map(|f| pair.world.disk.open_read(f).unwrap().len().unwrap())
            .sum();
        prop_assert_eq!(recorded, taken);
    }
}
