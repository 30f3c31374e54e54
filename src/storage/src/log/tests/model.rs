//! Random appends, faults, crashes and power cuts against the simplest model: a list.
//!
//! What was acknowledged is replayed, in order and nothing else, with two exceptions that the log
//! promises nothing about: a group that was on its way when the power went, and one that was refused
//! by a disk that would not even let it be cut off. Of these the first records may be there.

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone)]
enum Step {
    /// Records of these lengths as one group.
    Append(Vec<usize>),
    /// The checkpoint moves on to this part of what is there, in 255ths; then segments are given up.
    Checkpoint(u8),
    /// The thread gets to run.
    Work,
    /// The nth next operation of this kind fails.
    Fail(Op, u64, Trouble),
    FailAlways(Op, Trouble),
    /// Files may grow by this much together.
    Full(u64),
    Heal,
    /// The process is killed.
    Kill,
    /// The machine loses power; the number decides what survives.
    PowerCut(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let record = prop_oneof![6 => 0..900usize, 3 => 900..6000usize, 1 => 6000..40_000usize];
    let group = prop_oneof![
        3 => prop::collection::vec(record.clone(), 1..3),
        1 => prop::collection::vec(record, 3..12),
    ];
    let op = prop::sample::select(vec![
        Op::Write,
        Op::Write,
        Op::Sync,
        Op::Sync,
        Op::SetLen,
        Op::SyncDir,
        Op::Create,
        Op::Open,
        Op::Rename,
        Op::Remove,
    ]);
    let trouble = prop_oneof![
        3 => Just(Trouble::Eio),
        1 => Just(Trouble::NoSpace),
        1 => (0..5000usize).prop_map(Trouble::Short),
        2 => Just(Trouble::PowerOff),
    ];
    prop_oneof![
        12 => group.prop_map(Step::Append),
        2 => any::<u8>().prop_map(Step::Checkpoint),
        3 => Just(Step::Work),
        3 => (op.clone(), 1..4u64, trouble.clone()).prop_map(|(o, n, t)| Step::Fail(o, n, t)),
        1 => (op, trouble).prop_map(|(o, t)| Step::FailAlways(o, t)),
        1 => (0..60_000u64).prop_map(Step::Full),
        2 => Just(Step::Heal),
        1 => Just(Step::Kill),
        2 => any::<u64>().prop_map(Step::PowerCut),
    ]
}

/// The log and what must be in it.
struct World {
    disk: FaultyDisk,
    log: Log,
    /// What was acknowledged, with the position behind it.
    records: Vec<(Position, Vec<u8>)>,
    checkpoint: Position,
    /// Groups of this process without a definite answer; one of them may be there.
    open: Vec<Vec<Vec<u8>>>,
    /// The same from processes that were killed, while the power did not go since.
    before: Vec<Vec<Vec<u8>>>,
    serial: u64,
}

impl World {
    fn new(seed: u64) -> Self {
        let disk = FaultyDisk::new(seed);
        let (log, _) = open_from(&disk, Position(0)).unwrap();
        Self {
            disk,
            log,
            records: Vec::new(),
            checkpoint: Position(0),
            open: Vec::new(),
            before: Vec::new(),
            serial: 0,
        }
    }

    fn append(&mut self, lengths: &[usize]) {
        let mut group = Group::new();
        let mut records = Vec::new();
        for length in lengths {
            self.serial += 1;
            let mut record = vec![self.serial as u8; *length];
            for (to, from) in record.iter_mut().zip(self.serial.to_le_bytes()) {
                *to = from;
            }
            group.push(&record);
            records.push(record);
        }
        match self.log.append(&mut group) {
            Ok(end) => {
                self.open.clear();
                self.before.clear();
                // The size of the last record is known; the places of those before are not.
                for record in records {
                    self.records.push((end, record));
                }
                assert_eq!(end, self.log.end());
            }
            Err(_) if self.log.suspect.is_none() => self.open.clear(),
            Err(_) => self.open.push(records),
        }
    }

    fn checkpoint(&mut self, part: u8) {
        let at = self.records.len() * usize::from(part) / 255;
        if let Some((position, _)) = at.checked_sub(1).and_then(|at| self.records.get(at)) {
            self.checkpoint = self.checkpoint.max(*position);
        }
        self.log.recycle(self.checkpoint);
        let checkpoint = self.checkpoint;
        self.records.retain(|(position, _)| *position > checkpoint);
    }

    fn restart(&mut self) -> Result<(), TestCaseError> {
        let report = Log::check(
            &self.disk,
            &directory(),
            self.checkpoint,
            &mut |_, _| Ok(()),
        )
        .map_err(|e| TestCaseError::fail(format!("check: {e}")))?;
        let (log, found) = open_from(&self.disk, self.checkpoint)
            .map_err(|e| TestCaseError::fail(format!("open: {e}")))?;
        self.log = log;
        prop_assert_eq!(report.end, self.log.end());
        prop_assert_eq!(report.records, found.len() as u64);
        prop_assert!(
            found.len() >= self.records.len(),
            "acknowledged records are lost"
        );
        let (known, more) = found.split_at(self.records.len());
        prop_assert!(
            known
                .iter()
                .eq(self.records.iter().map(|(_, record)| record))
        );
        self.before.append(&mut self.open);
        prop_assert!(
            more.is_empty() || self.before.iter().any(|group| group.starts_with(more)),
            "a refused record came back"
        );
        if !more.is_empty() {
            self.before.clear();
        }
        // They are in the log now, for good.
        let end = self.log.end();
        let more = more.iter().map(|record| (end, record.clone()));
        self.records.extend(more);
        Ok(())
    }

    fn run(&mut self, step: &Step) -> Result<(), TestCaseError> {
        match step {
            Step::Append(lengths) => self.append(lengths),
            Step::Checkpoint(part) => self.checkpoint(*part),
            Step::Work => {
                self.log.spares.want();
                let _ = self.log.work();
            }
            Step::Fail(op, nth, trouble) => self.disk.fail(*op, *nth, *trouble),
            Step::FailAlways(op, trouble) => self.disk.fail_always(*op, *trouble),
            Step::Full(room) => self.disk.set_capacity(Some(self.disk.used() + room)),
            Step::Heal => self.disk.heal(),
            Step::Kill => {
                // A machine without power ends in a power cut, not here.
                self.disk.heal();
                if self.disk.list(&directory()).is_ok() {
                    self.restart()?;
                }
            }
            Step::PowerCut(seed) => {
                self.disk.heal();
                let mut toss = seed | 1;
                self.disk.power_cut(|| {
                    toss ^= toss << 13;
                    toss ^= toss >> 7;
                    toss ^= toss << 17;
                    match seed % 4 {
                        0 => false,
                        1 => true,
                        _ => toss & 2 == 0,
                    }
                });
                self.restart()?;
                self.before.clear();
            }
        }
        Ok(())
    }
}

proptest! {
    #[test]
    fn what_was_acknowledged_is_replayed_and_what_was_refused_is_not(
        seed in any::<u64>(),
        steps in prop::collection::vec(step(), 1..60),
    ) {
        let mut world = World::new(seed);
        for step in &steps {
            world.run(step)?;
        }
        world.run(&Step::PowerCut(seed & !3))?;
        world.append(&[100]);
        world.run(&Step::PowerCut(seed | 1))?;
        prop_assert!(!world.records.is_empty());
    }
}
