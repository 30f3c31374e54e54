//! Behaviour of [`Sqlite`] on a temporary file.

use std::{os::unix::fs::PermissionsExt as _, time::Duration};

use micro_core::{Fault as _, Kind};

use super::*;

const STEPS: &[&str] = &["CREATE TABLE t (id INTEGER PRIMARY KEY, text TEXT NOT NULL) STRICT"];

fn fresh() -> (tempfile::TempDir, Sqlite) {
    let dir = tempfile::tempdir().unwrap();
    let db = Sqlite::open(&dir.path().join("a.db")).unwrap();
    db.migrate("test", STEPS).unwrap();
    (dir, db)
}

fn add(id: i64) -> impl FnOnce(&Transaction<'_>) -> rusqlite::Result<usize> + Send + 'static {
    move |tx| tx.execute("INSERT INTO t VALUES (?1, 'x')", [id])
}

fn count(c: &Connection) -> rusqlite::Result<i64> {
    c.query_row("SELECT count(*) FROM t", [], |r| r.get(0))
}

#[tokio::test]
async fn a_write_is_seen_by_the_next_read_and_after_reopening() {
    let (dir, db) = fresh();
    db.write(add(1)).await.unwrap();
    assert_eq!(db.read(count).await.unwrap(), 1);
    assert_eq!(db.read_blocking(count).unwrap(), 1, "also inside a runtime");
    db.close();
    assert!(matches!(db.write(add(2)).await, Err(Error::Closed)));
    assert!(matches!(db.read(count).await, Err(Error::Closed)));
    let path = dir.path().join("a.db");
    assert_eq!(
        std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
        0o600
    );
    let wal = std::fs::metadata(dir.path().join("a.db-wal")).map_or(0, |m| m.len());
    assert_eq!(wal, 0, "closing folds the log in");
    let again = Sqlite::open(&path).unwrap();
    again.migrate("test", STEPS).unwrap();
    assert_eq!(again.read(count).await.unwrap(), 1);
}

#[tokio::test]
async fn every_commit_is_synced() {
    let (_dir, db) = fresh();
    let level = db
        .write(|tx| tx.query_row("PRAGMA synchronous", [], |r| r.get::<_, i64>(0)))
        .await
        .unwrap();
    assert_eq!(level, 2, "FULL");
}

#[tokio::test]
async fn a_failed_or_panicking_write_leaves_nothing_and_the_writer_goes_on() {
    let (_dir, db) = fresh();
    let failed = db
        .write(|tx| {
            add(1)(tx)?;
            add(1)(tx)
        })
        .await
        .unwrap_err();
    assert!(failed.is_constraint());
    assert_eq!(failed.kind(), Kind::Conflict);
    let panicked = db
        .write::<(), _>(|tx| {
            add(2)(tx)?;
            panic!("a bug of the caller");
        })
        .await;
    assert!(matches!(panicked, Err(Error::Panicked)));
    let panicked = db.read::<(), _>(|_| panic!("a bug of the caller")).await;
    assert!(matches!(panicked, Err(Error::Panicked)));
    db.write(add(3)).await.unwrap();
    assert_eq!(db.read(count).await.unwrap(), 1);
}

#[tokio::test]
async fn a_closure_that_breaks_out_of_its_transaction_does_not_poison_the_next() {
    let (_dir, db) = fresh();
    let _ = db.write(|tx| tx.execute_batch("COMMIT; BEGIN")).await;
    db.write(add(1)).await.unwrap();
    assert_eq!(db.read(count).await.unwrap(), 1);
}

#[tokio::test]
async fn a_reader_cannot_write_and_sees_one_state() {
    let (_dir, db) = fresh();
    assert!(
        db.read(|c| c.execute("INSERT INTO t VALUES (1, 'x')", []))
            .await
            .is_err()
    );
    let writer = db.clone();
    let (before, after) = db
        .read(move |c| {
            let before = count(c)?;
            writer.write_blocking(add(7)).unwrap();
            Ok((before, count(c)?))
        })
        .await
        .unwrap();
    assert_eq!((before, after), (0, 0));
    assert_eq!(db.read(count).await.unwrap(), 1);
}

#[tokio::test]
async fn a_full_queue_makes_writers_wait() {
    let (_dir, db) = fresh();
    let (open, gate) = std::sync::mpsc::channel::<()>();
    let first = tokio::spawn({
        let db = db.clone();
        async move {
            db.write(move |_| {
                gate.recv().unwrap();
                Ok(())
            })
            .await
        }
    });
    let mut rest = Vec::new();
    for id in 0..i64::try_from(QUEUE).unwrap() + 10 {
        let db = db.clone();
        rest.push(tokio::spawn(async move { db.write(add(id)).await }));
    }
    // The queue is full once no place is left; the writers beyond it are still waiting.
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    loop {
        let room = lock(&db.inner.queue).as_ref().unwrap().capacity();
        if room == 0 {
            break;
        }
        assert!(tokio::time::Instant::now() < deadline);
        tokio::task::yield_now().await;
    }
    assert!(rest.iter().all(|w| !w.is_finished()));
    open.send(()).unwrap();
    first.await.unwrap().unwrap();
    for write in rest {
        write.await.unwrap().unwrap();
    }
    assert_eq!(
        db.read(count).await.unwrap(),
        i64::try_from(QUEUE).unwrap() + 10
    );
}

#[test]
fn steps_are_applied_once_in_order_and_a_newer_file_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.db");
    let two = [STEPS[0], "ALTER TABLE t ADD COLUMN more TEXT"];
    let db = Sqlite::open(&path).unwrap();
    db.migrate("test", STEPS).unwrap();
    db.migrate("test", &two).unwrap();
    db.migrate("test", &two).unwrap();
    db.migrate("other", &["CREATE TABLE o (id INTEGER PRIMARY KEY)"])
        .unwrap();
    assert!(matches!(
        db.migrate("test", STEPS),
        Err(Error::Newer {
            found: 2,
            known: 1,
            ..
        })
    ));
    let broken = db.migrate("bad", &["CREATE TABLE b (id INTEGER)", "CREATE NONSENSE"]);
    assert!(matches!(broken, Err(Error::Migration { step: 2, .. })));
    db.migrate(
        "bad",
        &["CREATE TABLE b (id INTEGER)", "CREATE TABLE c (id INTEGER)"],
    )
    .unwrap();
}

#[test]
fn a_file_that_is_no_database_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.db");
    std::fs::write(&path, vec![b'x'; 8192]).unwrap();
    let text = Sqlite::open(&path).unwrap_err().to_string();
    assert!(text.contains("a.db"), "{text}");
}

#[test]
fn it_works_without_a_runtime() {
    let (_dir, db) = fresh();
    db.write_blocking(add(1)).unwrap();
    assert_eq!(db.read_blocking(count).unwrap(), 1);
    assert_eq!(wait(db.read(count)).unwrap(), 1);
}
