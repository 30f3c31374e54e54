//! SQLite: one writer thread, a few lazily opened readers, every commit synced.
//!
//! SQLite allows one writer at a time. Instead of many connections that wait for each other's locks,
//! all writes go through one bounded queue to one thread: a full queue makes callers wait, which is
//! the back-pressure. Readers see the last committed state and never block the writer (WAL).
//!
//! A write closure runs on the writer thread: it must not wait for another write, or both wait
//! forever. A write whose future is dropped after it was queued is still carried out.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    thread::{self, JoinHandle},
};

use rusqlite::{Connection, OpenFlags, Transaction, TransactionBehavior};
use tokio::sync::{mpsc, oneshot};

use crate::{Error, error::Cause, file::create_private, sqlite::readers::Readers, wait::wait};

mod readers;

/// Writes that may wait at once; the next caller waits for a place.
const QUEUE: usize = 128;
/// Page cache of the writer. Negative: KiB. The whole node has to stay small when idle.
const WRITER_CACHE: i64 = -1024;

type Job = Box<dyn FnOnce(&mut Connection) + Send>;

/// A handle on the node's SQLite database. Clones share it.
#[derive(Clone)]
pub struct Sqlite {
    inner: Arc<Inner>,
}

struct Inner {
    queue: Mutex<Option<mpsc::Sender<Job>>>,
    writer: Mutex<Option<JoinHandle<()>>>,
    readers: Arc<Readers>,
}

impl std::fmt::Debug for Sqlite {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sqlite").finish_non_exhaustive()
    }
}

impl Sqlite {
    /// Opens the database at `path`, or makes it, readable by its owner only.
    ///
    /// # Errors
    /// `Internal` when the file cannot be opened or is no database.
    pub fn open(path: &Path) -> Result<Self, Error> {
        create_private(path)?;
        let connection = open_writer(path).map_err(|e| failed(path, Arc::new(e)))?;
        let (queue, jobs) = mpsc::channel(QUEUE);
        let writer = thread::Builder::new()
            .name("micro-sqlite".into())
            .spawn(move || run(connection, jobs))
            .map_err(|e| failed(path, Arc::new(e)))?;
        Ok(Self {
            inner: Arc::new(Inner {
                queue: Mutex::new(Some(queue)),
                writer: Mutex::new(Some(writer)),
                readers: Arc::new(Readers::new(path.to_owned())),
            }),
        })
    }

    /// Brings the tables of `component` up to date: applies each of `steps` that was not applied
    /// yet, in order, each with its record in one transaction. Steps are only ever added at the end.
    ///
    /// # Errors
    /// `Precondition` when the file knows more steps than this program; `Internal` when a step fails.
    pub fn migrate(&self, component: &'static str, steps: &[&str]) -> Result<(), Error> {
        let done = self.write_blocking(move |tx| {
            tx.execute_batch(
                "CREATE TABLE IF NOT EXISTS micro_migrations (
                     component TEXT NOT NULL,
                     step INTEGER NOT NULL,
                     PRIMARY KEY (component, step)
                 ) STRICT, WITHOUT ROWID",
            )?;
            tx.query_row(
                "SELECT count(*) FROM micro_migrations WHERE component = ?1",
                [component],
                |row| row.get::<_, i64>(0),
            )
        })?;
        let done = usize::try_from(done).unwrap_or(0);
        if done > steps.len() {
            return Err(Error::Newer {
                component,
                found: done,
                known: steps.len(),
            });
        }
        for (index, sql) in steps.iter().enumerate().skip(done) {
            let (step, sql) = (index + 1, (*sql).to_owned());
            self.write_blocking(move |tx| {
                tx.execute_batch(&sql)?;
                tx.execute(
                    "INSERT INTO micro_migrations (component, step) VALUES (?1, ?2)",
                    (component, i64::try_from(step).unwrap_or(i64::MAX)),
                )
            })
            .map_err(|e| match e {
                Error::Sqlite(cause) => Error::Migration {
                    component,
                    step,
                    cause,
                },
                other => other,
            })?;
        }
        Ok(())
    }

    /// Runs `f` in a transaction of its own and commits it. Committed and synced when this returns
    /// `Ok`; rolled back when `f` gives an error or panics.
    ///
    /// # Errors
    /// What `f` gave, or why the commit failed.
    pub async fn write<T, F>(&self, f: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: FnOnce(&Transaction<'_>) -> rusqlite::Result<T> + Send + 'static,
    {
        let queue = lock(&self.inner.queue).clone().ok_or(Error::Closed)?;
        let (done, answer) = oneshot::channel();
        let job: Job = Box::new(move |connection| {
            let _ = done.send(transact(connection, f));
        });
        queue.send(job).await.map_err(|_| Error::Closed)?;
        // A sender kept here would keep the writer alive after `close`.
        drop(queue);
        answer.await.unwrap_or(Err(Error::Closed))
    }

    /// [`Sqlite::write`] for code that is not async. It blocks the thread.
    ///
    /// # Errors
    /// As [`Sqlite::write`].
    pub fn write_blocking<T, F>(&self, f: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: FnOnce(&Transaction<'_>) -> rusqlite::Result<T> + Send + 'static,
    {
        wait(self.write(f))
    }

    /// Runs `f` on one consistent snapshot of what is committed; it cannot write.
    ///
    /// # Errors
    /// What `f` gave.
    pub async fn read<T, F>(&self, f: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        let permit = self.inner.readers.permit().await?;
        let readers = Arc::clone(&self.inner.readers);
        let job = move || {
            let _permit = permit;
            readers.run(f)
        };
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => match runtime.spawn_blocking(job).await {
                Ok(result) => result,
                Err(e) if e.is_panic() => Err(Error::Panicked),
                Err(_) => Err(Error::Closed),
            },
            Err(_) => job(),
        }
    }

    /// [`Sqlite::read`] for code that is not async. It blocks the thread.
    ///
    /// # Errors
    /// As [`Sqlite::read`].
    pub fn read_blocking<T, F>(&self, f: F) -> Result<T, Error>
    where
        F: FnOnce(&Connection) -> rusqlite::Result<T>,
    {
        let _permit = wait(self.inner.readers.permit())?;
        self.inner.readers.run(f)
    }

    /// Reads the whole file, changing nothing, and says what is damaged; the server must not run.
    /// Nothing where there is no file.
    ///
    /// # Errors
    /// When it cannot be opened at all.
    pub fn check(path: &Path) -> Result<Vec<String>, Error> {
        if !path.exists() {
            return Ok(Vec::new());
        }
        let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)
            .map_err(Error::sqlite)?;
        let mut found = Vec::new();
        connection
            .pragma_query(None, "integrity_check", |row| {
                found.push(row.get::<_, String>(0)?);
                Ok(())
            })
            .map_err(Error::sqlite)?;
        found.retain(|line| line != "ok");
        Ok(found)
    }

    /// Finishes the writes that are queued, moves the log into the database and closes it. Every
    /// later use answers [`Error::Closed`].
    pub fn close(&self) {
        self.inner.close();
    }
}

impl Inner {
    fn close(&self) {
        // Readers first: an open one would keep the log from being emptied.
        self.readers.close();
        drop(lock(&self.queue).take());
        if let Some(writer) = lock(&self.writer).take()
            && writer.thread().id() != thread::current().id()
        {
            // The thread catches panics of its jobs; there is nothing to learn from its end.
            let _ = writer.join();
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.close();
    }
}

fn failed(path: &Path, cause: Cause) -> Error {
    Error::Open {
        path: path.to_owned(),
        cause,
    }
}

/// Nothing that holds one of our locks can leave its value half changed.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn open_writer(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(std::time::Duration::from_secs(5))?;
    let mode: String = connection.query_row("PRAGMA journal_mode = WAL", [], |r| r.get(0))?;
    if mode != "wal" {
        // Some network file systems cannot do it; without it readers would block the writer.
        return Err(rusqlite::Error::SqliteFailure(
            rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CANTOPEN),
            Some("the file system does not support a write-ahead log".into()),
        ));
    }
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "foreign_keys", true)?;
    connection.pragma_update(None, "trusted_schema", false)?;
    connection.pragma_update(None, "cache_size", WRITER_CACHE)?;
    connection.pragma_update(None, "journal_size_limit", 4 * 1024 * 1024)?;
    Ok(connection)
}

/// The writer thread: one job after the other until every sender is gone.
fn run(mut connection: Connection, mut jobs: mpsc::Receiver<Job>) {
    while let Some(job) = jobs.blocking_recv() {
        // `transact` catches what `f` does; this catches the rest, such as a value's destructor.
        if catch_unwind(AssertUnwindSafe(|| job(&mut connection))).is_err() {
            tracing::error!("The answer of a database write panicked.");
        }
        if !connection.is_autocommit()
            && let Err(error) = connection.execute_batch("ROLLBACK")
        {
            tracing::error!(%error, "An unfinished transaction could not be rolled back.");
        }
    }
    if let Err(error) = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| {
        row.get::<_, i64>(0)
    }) {
        // Nothing is lost: the log is replayed at the next start.
        tracing::warn!(%error, "The database log could not be folded in at shutdown.");
    }
}

fn transact<T>(
    connection: &mut Connection,
    f: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>,
) -> Result<T, Error> {
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        // Dropped before `commit`, by an error or a panic, the transaction rolls back.
        let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let value = f(&tx)?;
        tx.commit()?;
        Ok(value)
    }));
    match outcome {
        Ok(result) => result.map_err(Error::sqlite),
        Err(_) => Err(Error::Panicked),
    }
}

#[cfg(test)]
mod tests;
