//! A child process writes and is killed in the middle. Whatever it had acknowledged must be there.
//!
//! SIGKILL shows that nothing is held back in the process. What the kernel holds is shown by the
//! tests of the engine, on a disk that forgets what was not synced.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "helpers of tests fail by panicking"
)]

use std::{
    collections::BTreeSet,
    io::{BufRead as _, BufReader, Write as _},
    path::Path,
    process::{Command, Stdio},
};

use micro_core::Namespace;
use micro_storage::{Options, Range, Sqlite, Storage};

const ENGINE: &str = "MICRO_TEST_CRASH_ENGINE";
const PLACE: &str = "MICRO_TEST_CRASH_PLACE";
const FIRST: &str = "MICRO_TEST_CRASH_FIRST";
/// How many rounds the storage gets, 20 when unset.
const ROUNDS: &str = "MICRO_CRASH_ROUNDS";
const SQLITE_ROUNDS: u32 = 4;
/// After so many rounds an empty state takes over, so that many rounds do not take ever longer.
const LIFE: u32 = 10;
const WRITERS: u32 = 8;
const STEPS: &[&str] = &["CREATE TABLE t (id INTEGER PRIMARY KEY, half INTEGER NOT NULL UNIQUE)"];

/// With a memtable so small that checkpoints go on all the time, and some rounds die in one.
fn open(place: &Path) -> Storage {
    let options = Options {
        memory: 128 << 10,
        cache: 1 << 20,
        segment: 256 << 10,
        ..Options::default()
    };
    Storage::open(place, options).unwrap()
}

fn acknowledge(id: u32) {
    // One write call per line: the parent reads complete lines only.
    let _ = std::io::stdout()
        .lock()
        .write_all(format!("ack {id}\n").as_bytes());
    let _ = std::io::stdout().flush();
}

/// Not a test of its own: the body of the child process.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child() {
    let (Ok(engine), Ok(place), Ok(first)) = (
        std::env::var(ENGINE),
        std::env::var(PLACE),
        std::env::var(FIRST),
    ) else {
        return;
    };
    let first: u32 = first.parse().unwrap();
    let place = Path::new(&place);
    match engine.as_str() {
        "sqlite" => {
            let db = Sqlite::open(place).unwrap();
            db.migrate("test", STEPS).unwrap();
            for writer in 0..WRITERS {
                let db = db.clone();
                tokio::spawn(async move {
                    for id in (first + writer..).step_by(WRITERS as usize) {
                        // Two rows that only make sense together.
                        db.write(move |tx| {
                            tx.execute("INSERT INTO t VALUES (?1, ?2)", (2 * id, 2 * id))?;
                            tx.execute("INSERT INTO t VALUES (?1, ?2)", (2 * id + 1, 2 * id + 1))
                        })
                        .await
                        .unwrap();
                        acknowledge(id);
                    }
                });
            }
        }
        _ => {
            let storage = open(place);
            for writer in 0..WRITERS {
                let space = storage.space(&Namespace::operator());
                tokio::spawn(async move {
                    for id in (first + writer..).step_by(WRITERS as usize) {
                        // Three things that only make sense together.
                        let mut batch = space.batch();
                        for half in [2 * id, 2 * id + 1] {
                            batch.put("t", half.to_be_bytes(), vec![1; 500]);
                        }
                        batch.append(&format!("topic {}", writer % 3), id.to_be_bytes());
                        batch.commit().await.unwrap();
                        acknowledge(id);
                    }
                });
            }
        }
    }
    std::future::pending::<()>().await;
}

/// Runs the child, kills it after some acknowledgements, and gives all that it had acknowledged.
fn crash(engine: &str, place: &Path, first: u32, after: usize) -> BTreeSet<u32> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["child", "--exact", "--nocapture", "--test-threads=1"])
        .env(ENGINE, engine)
        .env(PLACE, place)
        .env(FIRST, first.to_string())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .unwrap();
    let mut acknowledged = BTreeSet::new();
    let mut lines = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    let mut killed = false;
    loop {
        line.clear();
        if lines.read_line(&mut line).unwrap() == 0 {
            break;
        }
        if let Some((_, id)) = line.trim_end().split_once("ack ")
            && line.ends_with('\n')
        {
            acknowledged.insert(id.parse().unwrap());
        }
        if !killed && acknowledged.len() >= after {
            child.kill().unwrap();
            killed = true;
        }
    }
    child.wait().unwrap();
    assert!(killed, "the child ended by itself");
    acknowledged
}

/// `present` gives every stored half after a reopen.
fn rounds(engine: &str, rounds: u32, present: impl Fn(&Path) -> BTreeSet<u32>) {
    let dir = tempfile::tempdir().unwrap();
    let mut expected = BTreeSet::new();
    for round in 0..rounds {
        let place = dir.path().join(format!("state {}", round / LIFE));
        if round % LIFE == 0 {
            expected.clear();
        }
        let first = round * 1_000_000;
        let after = [1, 40, 300, 700][round as usize % 4] + round as usize;
        expected.extend(crash(engine, &place, first, after));
        let present = present(&place);
        for id in &expected {
            assert!(
                present.contains(&(2 * id)) && present.contains(&(2 * id + 1)),
                "{engine}: {id} was acknowledged and is gone"
            );
        }
        for half in &present {
            assert!(
                present.contains(&(half ^ 1)),
                "{engine}: half of a transaction is there"
            );
        }
    }
}

#[test]
fn sqlite_keeps_every_acknowledged_write() {
    rounds("sqlite", SQLITE_ROUNDS, |place| {
        let db = Sqlite::open(place).unwrap();
        db.read_blocking(|c| {
            let check: String = c.query_row("PRAGMA integrity_check", [], |r| r.get(0))?;
            assert_eq!(check, "ok");
            c.prepare("SELECT id FROM t")?
                .query_map([], |r| r.get(0))?
                .collect()
        })
        .unwrap()
    });
}

#[test]
fn the_storage_keeps_every_acknowledged_write() {
    let count = std::env::var(ROUNDS).map_or(20, |n| n.parse().unwrap());
    rounds("storage", count, |place| {
        let storage = open(place);
        let space = storage.space(&Namespace::operator());
        let rows = space.scan("t", Range::all().keys_only()).unwrap();
        let number = |bytes: &[u8]| u32::from_be_bytes(bytes.try_into().unwrap());
        let halves: BTreeSet<u32> = rows.iter().map(|row| number(&row.key)).collect();
        let mut entries = BTreeSet::new();
        for name in space.topics().unwrap() {
            let topic = space.topic(&name);
            let all = topic.read(0, usize::MAX, usize::MAX).unwrap();
            assert_eq!(all.len() as u64, topic.bounds().unwrap().next);
            entries.extend(all.iter().map(|entry| 2 * number(&entry.value)));
        }
        let even: BTreeSet<u32> = halves.iter().copied().filter(|n| n % 2 == 0).collect();
        assert_eq!(
            even, entries,
            "a row without its entry, or the other way round"
        );
        storage.close();
        let report = Storage::check(place).unwrap();
        assert_eq!(report.problems, [""; 0]);
        halves
    });
}
