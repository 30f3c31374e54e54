//! redb: ordered bytes by key, group commit by one thread, every commit synced.
//!
//! **Layout.** One redb table per name. A key is `[length of namespace][namespace][key]`, so the
//! keys of one namespace form one range and no prefix of another can reach into it. A value is
//! `[format byte][value]`. redb itself sees `&[u8]` only: its typed encodings change between major
//! versions, ours does not.
//!
//! **Commit.** Writers hand their changes to one thread, which puts all that wait into one
//! transaction; one sync acknowledges them together. The allocator's state is saved with each commit
//! (quick repair), so that opening after a crash takes milliseconds whatever the size.

use std::{
    ops::Bound,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock},
    thread::{self, JoinHandle},
};

use micro_core::Namespace;
use redb::{Database, DatabaseError, ReadableDatabase as _, TableDefinition, TableError};
use tokio::sync::{Semaphore, mpsc, oneshot};

use crate::{Error, file::create_private};
use commit::{Commit, Op};

mod commit;
mod encoding;

/// Commits that may wait at once, whatever their size.
const QUEUE: usize = 1024;
/// Bytes that may wait at once, in units of [`UNIT`].
const ROOM: u32 = 32 * 1024;
/// What one permit of the room stands for.
const UNIT: usize = 1024;
/// The longest key, in bytes.
const MAX_KEY: usize = 16 * 1024;
/// The longest value, and the largest batch, in bytes.
const MAX_VALUE: usize = 16 * 1024 * 1024;

/// A key and its value.
pub type Pair = (Vec<u8>, Vec<u8>);

type Bytes = &'static [u8];
type Definition = TableDefinition<'static, Bytes, Bytes>;

/// A handle on the node's key store. Clones share it.
#[derive(Clone)]
pub struct Keys {
    inner: Arc<Inner>,
}

/// One named table, seen from one namespace: no other namespace can be reached through it.
#[derive(Clone)]
pub struct Table {
    inner: Arc<Inner>,
    name: &'static str,
    prefix: Arc<[u8]>,
}

/// One change of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Sets the value of a key.
    Put {
        /// The key.
        key: Vec<u8>,
        /// Its new value.
        value: Vec<u8>,
    },
    /// Removes a key; nothing happens when there is none.
    Delete {
        /// The key.
        key: Vec<u8>,
    },
}

struct Inner {
    database: RwLock<Option<Arc<Database>>>,
    queue: Mutex<Option<mpsc::Sender<Commit>>>,
    committer: Mutex<Option<JoinHandle<()>>>,
    room: Arc<Semaphore>,
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keys").finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Table")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl Keys {
    /// Opens the key store at `path`, or makes it, readable by its owner only. `cache_bytes` bounds
    /// the memory for pages.
    ///
    /// # Errors
    /// `Unavailable` when another process has it; `Internal` when it cannot be opened.
    pub fn open(path: &Path, cache_bytes: usize) -> Result<Self, Error> {
        create_private(path)?;
        let failed = |cause| Error::Open {
            path: path.to_owned(),
            cause,
        };
        // redb may panic on a file that something else has written into.
        let opened = catch_unwind(|| Database::builder().set_cache_size(cache_bytes).create(path));
        let database = match opened {
            Ok(Ok(database)) => Arc::new(database),
            Ok(Err(DatabaseError::DatabaseAlreadyOpen)) => {
                return Err(Error::Locked {
                    path: path.to_owned(),
                });
            }
            Ok(Err(e)) => return Err(failed(Arc::new(e))),
            Err(_) => {
                let damaged = std::io::Error::other("the file is damaged");
                return Err(failed(Arc::new(damaged)));
            }
        };
        let (queue, commits) = mpsc::channel(QUEUE);
        let committer = thread::Builder::new()
            .name("micro-keys".into())
            .spawn({
                let database = Arc::clone(&database);
                move || commit::run(&database, commits)
            })
            .map_err(|e| failed(Arc::new(e)))?;
        Ok(Self {
            inner: Arc::new(Inner {
                database: RwLock::new(Some(database)),
                queue: Mutex::new(Some(queue)),
                committer: Mutex::new(Some(committer)),
                room: Arc::new(Semaphore::new(ROOM as usize)),
            }),
        })
    }

    /// The table `name` as `namespace` sees it. It comes into being with its first value.
    pub fn table(&self, namespace: &Namespace, name: &'static str) -> Table {
        Table {
            inner: Arc::clone(&self.inner),
            name,
            prefix: encoding::prefix(namespace).into(),
        }
    }

    /// The namespaces that have anything in the table `name`, in order.
    ///
    /// # Errors
    /// `Internal` when it cannot be read.
    pub fn namespaces(&self, name: &'static str) -> Result<Vec<Namespace>, Error> {
        let mut found = Vec::new();
        let database = self.inner.database()?;
        let Some(table) = open(&database, name)? else {
            return Ok(found);
        };
        // From each namespace jump behind its last possible key: one seek per namespace.
        let mut from = Some(Vec::new());
        while let Some(start) = from {
            let mut range = table
                .range::<&[u8]>((Bound::Included(start.as_slice()), Bound::Unbounded))
                .map_err(Error::keys)?;
            let Some(entry) = range.next() else { break };
            let (key, _) = entry.map_err(Error::keys)?;
            let namespace = encoding::namespace(key.value()).ok_or(Error::Format {
                table: name,
                format: key.value().first().copied().unwrap_or(0),
            })?;
            from = encoding::after(&encoding::prefix(&namespace));
            found.push(namespace);
        }
        found.sort();
        Ok(found)
    }

    /// Finishes the commits that are queued and closes the file. Every later use answers
    /// [`Error::Closed`].
    pub fn close(&self) {
        self.inner.close();
    }
}

impl Table {
    /// The value of `key`.
    ///
    /// # Errors
    /// `Internal` when it cannot be read.
    pub fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        let database = self.inner.database()?;
        let Some(table) = open(&database, self.name)? else {
            return Ok(None);
        };
        match table.get(self.full(key).as_slice()).map_err(Error::keys)? {
            Some(value) => encoding::value(self.name, value.value()).map(Some),
            None => Ok(None),
        }
    }

    /// All keys that start with `prefix`, in order, with their values; everything for an empty one.
    ///
    /// # Errors
    /// `Internal` when it cannot be read.
    pub fn scan(&self, prefix: &[u8]) -> Result<Vec<Pair>, Error> {
        let database = self.inner.database()?;
        let Some(table) = open(&database, self.name)? else {
            return Ok(Vec::new());
        };
        let from = self.full(prefix);
        let to = encoding::after(&from);
        let end = match &to {
            Some(to) => Bound::Excluded(to.as_slice()),
            None => Bound::Unbounded,
        };
        let range = table
            .range::<&[u8]>((Bound::Included(from.as_slice()), end))
            .map_err(Error::keys)?;
        let mut found = Vec::new();
        for entry in range {
            let (key, value) = entry.map_err(Error::keys)?;
            let key = key.value().get(self.prefix.len()..).unwrap_or_default();
            found.push((key.to_vec(), encoding::value(self.name, value.value())?));
        }
        Ok(found)
    }

    /// Sets the value of `key`. Synced when this returns `Ok`.
    ///
    /// # Errors
    /// `Invalid` when it is too large; `Exhausted` when the disk is full; `Internal` otherwise.
    pub async fn put(&self, key: &[u8], value: &[u8]) -> Result<(), Error> {
        self.batch(vec![Change::Put {
            key: key.to_vec(),
            value: value.to_vec(),
        }])
        .await
    }

    /// Removes `key`. Synced when this returns `Ok`, also when there was none.
    ///
    /// # Errors
    /// As [`Table::put`].
    pub async fn delete(&self, key: &[u8]) -> Result<(), Error> {
        self.batch(vec![Change::Delete { key: key.to_vec() }]).await
    }

    /// Makes all `changes` in their order, or none of them.
    ///
    /// # Errors
    /// As [`Table::put`].
    pub async fn batch(&self, changes: Vec<Change>) -> Result<(), Error> {
        let mut ops = Vec::with_capacity(changes.len());
        let mut total = 0usize;
        for change in changes {
            let (key, value) = match change {
                Change::Put { key, value } => (key, Some(value)),
                Change::Delete { key } => (key, None),
            };
            within("key", key.len(), MAX_KEY)?;
            let length = value.as_ref().map_or(0, Vec::len);
            within("value", length, MAX_VALUE)?;
            total = total.saturating_add(key.len()).saturating_add(length);
            ops.push(Op {
                table: self.name,
                key: self.full(&key),
                value: value.as_deref().map(encoding::envelope),
            });
        }
        within("batch", total, 2 * MAX_VALUE)?;
        if ops.is_empty() {
            return Ok(());
        }
        self.inner.commit(ops, total).await
    }

    fn full(&self, key: &[u8]) -> Vec<u8> {
        [&self.prefix, key].concat()
    }
}

impl Inner {
    fn database(&self) -> Result<Arc<Database>, Error> {
        self.database
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
            .ok_or(Error::Closed)
    }

    async fn commit(&self, ops: Vec<Op>, bytes: usize) -> Result<(), Error> {
        let queue = lock(&self.queue).clone().ok_or(Error::Closed)?;
        let units = u32::try_from(bytes / UNIT + 1).unwrap_or(ROOM).min(ROOM);
        let room = Arc::clone(&self.room)
            .acquire_many_owned(units)
            .await
            .map_err(|_| Error::Closed)?;
        let (done, answer) = oneshot::channel();
        let commit = Commit { ops, done, room };
        queue.send(commit).await.map_err(|_| Error::Closed)?;
        // A sender kept here would keep the committer alive after `close`.
        drop(queue);
        answer.await.unwrap_or(Err(Error::Closed))
    }

    fn close(&self) {
        drop(lock(&self.queue).take());
        if let Some(committer) = lock(&self.committer).take() {
            // The thread catches panics of its work; there is nothing to learn from its end.
            let _ = committer.join();
        }
        let database = self
            .database
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        // A reader may hold it for another moment; then its drop closes the file.
        if let Some(Ok(database)) = database.map(Arc::try_unwrap)
            && let Err(error) = catch_unwind(AssertUnwindSafe(|| database.close()))
                .unwrap_or(Err(DatabaseError::RepairAborted))
        {
            tracing::warn!(%error, "The key store was not closed cleanly; the next start repairs it.");
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.close();
    }
}

fn within(what: &'static str, size: usize, limit: usize) -> Result<(), Error> {
    if size > limit {
        Err(Error::TooLarge { what, size, limit })
    } else {
        Ok(())
    }
}

/// Nothing that holds one of our locks can leave its value half changed.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The last committed state of a table; `None` while nothing was ever put into it.
fn open(
    database: &Database,
    name: &'static str,
) -> Result<Option<redb::ReadOnlyTable<Bytes, Bytes>>, Error> {
    let transaction = database.begin_read().map_err(Error::keys)?;
    match transaction.open_table(Definition::new(name)) {
        Ok(table) => Ok(Some(table)),
        Err(TableError::TableDoesNotExist(_)) => Ok(None),
        Err(e) => Err(Error::keys(e)),
    }
}

#[cfg(test)]
mod tests;
