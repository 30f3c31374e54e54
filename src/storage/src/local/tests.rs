//! The engine on ground that fails: a disk that is full or broken under the log, the topics or the
//! index, and a machine that loses its power.

use std::{
    collections::BTreeMap,
    io,
    ops::Bound,
    sync::atomic::{AtomicI64, AtomicU8, AtomicUsize},
};

use micro_core::{Fault as _, Kind};
use redb::{BackendError, ReadableTable as _, StorageBackend, backends::InMemoryBackend};

use super::{
    recovery::{Ground, open_on},
    *,
};
use crate::{
    Options, Space, Storage,
    disk::faulty::{FaultyDisk, Op, Trouble},
};

const HEALTHY: u8 = 0;
const BROKEN: u8 = 1;
const FULL: u8 = 2;

/// What lies below redb, kept over restarts, and failing on demand.
#[derive(Debug, Clone)]
struct FaultyFile {
    bytes: Arc<InMemoryBackend>,
    mode: Arc<AtomicU8>,
    /// Writes that still work before the mode counts.
    grace: Arc<AtomicI64>,
    opened: Arc<AtomicUsize>,
}

impl FaultyFile {
    fn new() -> Self {
        Self {
            bytes: Arc::new(InMemoryBackend::new()),
            mode: Arc::default(),
            grace: Arc::default(),
            opened: Arc::default(),
        }
    }

    fn set(&self, mode: u8, grace: i64) {
        self.grace.store(grace, Ordering::SeqCst);
        self.mode.store(mode, Ordering::SeqCst);
    }

    fn trouble(&self) -> Result<(), io::Error> {
        let mode = self.mode.load(Ordering::SeqCst);
        if mode == HEALTHY || self.grace.fetch_sub(1, Ordering::SeqCst) > 0 {
            return Ok(());
        }
        let kind = match mode {
            FULL => io::ErrorKind::StorageFull,
            _ => io::ErrorKind::Other,
        };
        Err(io::Error::from(kind))
    }
}

impl StorageBackend for FaultyFile {
    fn len(&self) -> Result<u64, io::Error> {
        self.bytes.len()
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), io::Error> {
        self.bytes.read(offset, out)
    }
    fn set_len(&self, len: u64) -> Result<(), io::Error> {
        self.trouble()?;
        self.bytes.set_len(len)
    }
    fn sync_data(&self) -> Result<(), io::Error> {
        self.trouble()?;
        self.bytes.sync_data()
    }
    fn write(&self, offset: u64, data: &[u8]) -> Result<(), io::Error> {
        self.trouble()?;
        self.bytes.write(offset, data)
    }
    fn close(&self) -> Result<(), io::Error> {
        self.opened.fetch_sub(1, Ordering::SeqCst);
        Ok(())
    }
    fn try_lock_range(&self, _: Bound<u64>, _: Bound<u64>) -> Result<bool, BackendError> {
        Ok(true)
    }
    fn unlock_range(&self, _: Bound<u64>, _: Bound<u64>) -> Result<(), BackendError> {
        Ok(())
    }
}

/// An engine whose every file can fail.
struct Bench {
    disk: FaultyDisk,
    file: FaultyFile,
    directory: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        Self {
            disk: FaultyDisk::new(7),
            file: FaultyFile::new(),
            directory: tempfile::tempdir().unwrap(),
        }
    }

    fn open(&self) -> Storage {
        self.try_open().unwrap()
    }

    fn try_open(&self) -> Result<Storage, Error> {
        let file = self.file.clone();
        let ground = Ground {
            disk: Arc::new(self.disk.clone()),
            index: Some(Box::new(move |builder| {
                file.opened.fetch_add(1, Ordering::SeqCst);
                builder.create_with_backend(file.clone())
            })),
        };
        let options = Options {
            memory: 64 << 10,
            cache: 1 << 20,
            segment: 64 << 10,
            ..Options::default()
        };
        let engine = open_on(ground, self.directory.path(), options)?;
        Ok(Storage::over(Arc::new(engine), Clock::System))
    }
}

fn space(storage: &Storage) -> Space {
    storage.space(&Namespace::parse("a").unwrap())
}

/// Writes a row and an entry that belong together.
async fn put(storage: &Storage, i: u32) -> Result<(), Error> {
    let mut batch = space(storage).batch();
    batch.put("t", i.to_be_bytes(), vec![i as u8; 1000]);
    batch.append("log", i.to_be_bytes());
    batch.commit().await.map(drop)
}

/// All that was acknowledged is there, in order; and of the rest, whole batches or nothing.
fn check(storage: &Storage, acknowledged: &[u32], refused: &[u32]) {
    let space = space(storage);
    let rows = space.scan("t", Range::all()).unwrap();
    let mut found = BTreeMap::new();
    for row in rows {
        let i = u32::from_be_bytes(row.key[..].try_into().unwrap());
        assert!(row.value.iter().all(|byte| *byte == i as u8));
        found.insert(i, row.revision);
    }
    for i in acknowledged {
        assert!(found.contains_key(i), "{i} was acknowledged and is gone");
    }
    for i in refused {
        assert!(!found.contains_key(i), "{i} was refused and is there");
    }
    let topic = space.topic("log");
    let entries = topic.read(0, usize::MAX, usize::MAX).unwrap();
    assert_eq!(topic.bounds().unwrap().next, entries.len() as u64);
    let mut appended: Vec<u32> = entries
        .iter()
        .map(|entry| u32::from_be_bytes(entry.value[..].try_into().unwrap()))
        .collect();
    appended.sort_unstable();
    assert_eq!(appended, found.keys().copied().collect::<Vec<_>>());
}

async fn eventually(mut what: impl AsyncFnMut() -> bool) {
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    while !what().await {
        assert!(std::time::Instant::now() < deadline, "it never happened");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_write_of_the_log_is_refused_and_never_comes_back() {
    let bench = Bench::new();
    let storage = bench.open();
    let (mut good, mut bad) = (Vec::new(), Vec::new());
    for i in 0..60 {
        match i % 6 {
            2 => bench.disk.fail_on("log", Op::Write, 1, 1, Trouble::Eio),
            4 => bench.disk.fail_on("log", Op::Sync, 1, 1, Trouble::Eio),
            _ => {}
        }
        match put(&storage, i).await {
            Ok(()) => good.push(i),
            Err(error) => {
                assert!(
                    matches!(error.kind(), Kind::Internal | Kind::Exhausted),
                    "{error}"
                );
                bad.push(i);
            }
        }
        check(&storage, &good, &bad);
    }
    assert!(
        good.len() > 20 && !bad.is_empty(),
        "{} {}",
        good.len(),
        bad.len()
    );
    bench.disk.heal();
    drop(storage);
    check(&bench.open(), &good, &bad);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_is_told_and_forgotten_when_there_is_room() {
    let bench = Bench::new();
    let storage = bench.open();
    let (mut good, mut bad) = (Vec::new(), Vec::new());
    for i in 0..20 {
        put(&storage, i).await.unwrap();
        good.push(i);
    }
    bench.disk.set_capacity(Some(bench.disk.used()));
    bench.file.set(FULL, 0);
    let mut i = 20;
    eventually(async || {
        i += 1;
        match put(&storage, i).await {
            Ok(()) => {
                good.push(i);
                false
            }
            Err(error) => {
                assert!(matches!(error, Error::Full), "{error}");
                assert!(error.hint().is_some());
                bad.push(i);
                true
            }
        }
    })
    .await;
    check(&storage, &good, &bad);
    bench.disk.heal();
    bench.file.set(HEALTHY, 0);
    eventually(async || {
        i += 1;
        let outcome = put(&storage, i).await;
        if outcome.is_ok() { &mut good } else { &mut bad }.push(i);
        outcome.is_ok()
    })
    .await;
    storage.checkpoint().await.unwrap();
    check(&storage, &good, &bad);
    drop(storage);
    check(&bench.open(), &good, &bad);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_the_index_fails_writing_goes_on_until_the_memory_is_full() {
    for (mode, grace) in [(BROKEN, 0), (BROKEN, 5), (FULL, 0), (FULL, 9)] {
        let bench = Bench::new();
        let storage = bench.open();
        let mut good: Vec<u32> = Vec::new();
        for i in 0..100 {
            put(&storage, i).await.unwrap();
            good.push(i);
        }
        storage.checkpoint().await.unwrap();
        bench.file.set(mode, grace);
        let mut bad = Vec::new();
        let mut i = 100;
        while bad.is_empty() {
            assert!(i < 1000, "the memory is not bounded");
            match put(&storage, i).await {
                Ok(()) => good.push(i),
                Err(error) => {
                    if mode == FULL {
                        assert!(matches!(error, Error::Full), "{error}");
                    }
                    bad.push(i);
                }
            }
            i += 1;
        }
        assert!(good.len() > 130, "only {} got through", good.len());
        assert!(storage.checkpoint().await.is_err());
        // What is in memory can be read, whatever the index does.
        let last = good.last().unwrap().to_be_bytes();
        assert!(space(&storage).get("t", &last).unwrap().is_some());
        bench.file.set(HEALTHY, 0);
        eventually(async || {
            i += 1;
            let outcome = put(&storage, i).await;
            if outcome.is_ok() { &mut good } else { &mut bad }.push(i);
            outcome.is_ok()
        })
        .await;
        storage.checkpoint().await.unwrap();
        check(&storage, &good, &bad);
        storage.close();
        check(&bench.open(), &good, &bad);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flush_of_topics_that_fails_is_tried_again() {
    let bench = Bench::new();
    let storage = bench.open();
    let mut good = Vec::new();
    for round in 0..6 {
        let op = if round % 2 == 0 { Op::Write } else { Op::Sync };
        for i in 0..20 {
            let i = round * 100 + i;
            put(&storage, i).await.unwrap();
            good.push(i);
        }
        bench.disk.fail_on("topics", op, 1, 1, Trouble::Eio);
        // Another checkpoint may have run into it.
        let _ = storage.checkpoint().await;
        check(&storage, &good, &[]);
        storage.checkpoint().await.unwrap();
        check(&storage, &good, &[]);
    }
    drop(storage);
    check(&bench.open(), &good, &[]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_power_cut_takes_nothing_that_was_acknowledged() {
    let mut random = 1u64;
    let mut coin = move || {
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        random >> 63 == 1
    };
    let bench = Bench::new();
    let mut good = Vec::new();
    let mut next = 0;
    for round in 0..15 {
        let storage = bench.open();
        check(&storage, &good, &[]);
        let cut = 5 + round * 3;
        bench.disk.fail_on("", Op::Sync, cut, 1, Trouble::PowerOff);
        loop {
            next += 1;
            match put(&storage, next).await {
                Ok(()) => good.push(next),
                Err(_) => break,
            }
            if next % 7 == 0 {
                let _ = storage.checkpoint().await;
            }
        }
        // The index is not on this disk: it has either all of a checkpoint or nothing of it.
        bench.file.set(BROKEN, 0);
        storage.close();
        drop(storage);
        bench.file.set(HEALTHY, 0);
        bench.disk.power_cut(&mut coin);
    }
    check(&bench.open(), &good, &[]);
}

/// Changes one value of the index behind the engine's back.
fn tamper(directory: &Path, table: &str, change: impl Fn(&mut Vec<u8>)) {
    let database = redb::Database::open(directory.join("index.redb")).unwrap();
    let transaction = database.begin_write().unwrap();
    {
        let table = redb::TableDefinition::<&[u8], &[u8]>::new(table);
        let mut table = transaction.open_table(table).unwrap();
        let (key, mut value) = {
            let (key, value) = table.first().unwrap().unwrap();
            (key.value().to_vec(), value.value().to_vec())
        };
        change(&mut value);
        table.insert(key.as_slice(), value.as_slice()).unwrap();
    }
    transaction.commit().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_newer_version_wrote_is_refused_by_name() {
    let directory = tempfile::tempdir().unwrap();
    let open = || Storage::open(directory.path(), Options::default());
    let storage = open().unwrap();
    put(&storage, 1).await.unwrap();
    storage.close();
    tamper(directory.path(), "rows", |value| value[0] = 9);
    let storage = open().unwrap();
    let refused = space(&storage).get("t", &1u32.to_be_bytes()).unwrap_err();
    assert!(
        matches!(refused, Error::Format { format: 9, .. }),
        "{refused}"
    );
    storage.close();
    let report = Storage::check(directory.path()).unwrap();
    assert_eq!(
        report.problems.len(),
        2,
        "the row, and its bytes: {report:?}"
    );
    tamper(directory.path(), "meta", |value| value[0] = 2);
    let refused = open().unwrap_err();
    assert!(
        matches!(
            refused,
            Error::NewerFile {
                found: 2,
                known: 1,
                ..
            }
        ),
        "{refused}"
    );
    assert_eq!(refused.kind(), Kind::Precondition);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn entries_leave_memory_while_they_are_written() {
    let bench = Bench::new();
    let storage = bench.open();
    let space = space(&storage);
    for _ in 0..200 {
        let mut batch = space.batch();
        batch.append("log", vec![1; 1000]);
        batch.commit().await.unwrap();
    }
    let topic = space.topic("log");
    eventually(async || !topic.is_recent(0)).await;
    assert_eq!(topic.read(0, 1, 1).unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_that_change_nothing_do_not_stay_in_the_log() {
    let bench = Bench::new();
    let storage = bench.open();
    let topic = space(&storage).topic("none");
    let mut used = Vec::new();
    for _ in 0..8 {
        for _ in 0..400 {
            topic.remove().await.unwrap();
        }
        storage.checkpoint().await.unwrap();
        used.push(bench.disk.used());
    }
    assert!(used[7] <= used[2], "{used:?}");
}

#[tokio::test]
async fn a_record_that_makes_no_sense_is_damage_and_no_panic() {
    let bench = Bench::new();
    let storage = bench.open();
    put(&storage, 1).await.unwrap();
    let engine = bench.directory.path().join("log");
    drop(storage);
    // Every bit of the log is covered by a checksum, so what is changed is the end of the log.
    for listed in crate::disk::Disk::list(&bench.disk, &engine).unwrap() {
        let path = engine.join(listed.name);
        bench
            .disk
            .edit(&path, |bytes| bytes.truncate(bytes.len() / 2));
    }
    // It is opened, or refused with a text; nothing in between.
    if let Err(error) = bench.try_open() {
        assert!(!error.to_string().is_empty());
    }
}
