//! Read connections: opened when first needed, kept, never more than [`READERS`].

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
    sync::{Arc, Mutex},
};

use rusqlite::{Connection, OpenFlags};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::lock;
use crate::Error;

/// Reads at the same time; the node's hot paths read memory, not SQLite.
const READERS: usize = 2;
/// Page cache of each. Negative: KiB.
const READER_CACHE: i64 = -256;

pub(super) struct Readers {
    path: PathBuf,
    permits: Arc<Semaphore>,
    idle: Mutex<Vec<Connection>>,
}

impl Readers {
    pub(super) fn new(path: PathBuf) -> Self {
        Self {
            path,
            permits: Arc::new(Semaphore::new(READERS)),
            idle: Mutex::new(Vec::new()),
        }
    }

    /// The right to use one connection.
    pub(super) async fn permit(&self) -> Result<OwnedSemaphorePermit, Error> {
        Arc::clone(&self.permits)
            .acquire_owned()
            .await
            .map_err(|_| Error::Closed)
    }

    /// Runs `f` in a read transaction, so that all its queries see one state. The caller holds a
    /// permit.
    pub(super) fn run<T>(
        &self,
        f: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, Error> {
        let idle = lock(&self.idle).pop();
        let connection = match idle {
            Some(connection) => connection,
            None => self.open().map_err(Error::sqlite)?,
        };
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            let tx = connection.unchecked_transaction()?;
            let value = f(&tx)?;
            tx.finish()?;
            Ok(value)
        }));
        // A connection that a panic left is not trusted again; the next read opens a new one.
        let result = outcome.map_err(|_| Error::Panicked)?;
        if connection.is_autocommit() && !self.permits.is_closed() {
            lock(&self.idle).push(connection);
        }
        result.map_err(Error::sqlite)
    }

    pub(super) fn close(&self) {
        self.permits.close();
        lock(&self.idle).clear();
    }

    fn open(&self) -> rusqlite::Result<Connection> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(&self.path, flags)?;
        connection.busy_timeout(std::time::Duration::from_secs(5))?;
        connection.pragma_update(None, "query_only", true)?;
        connection.pragma_update(None, "trusted_schema", false)?;
        connection.pragma_update(None, "cache_size", READER_CACHE)?;
        Ok(connection)
    }
}
