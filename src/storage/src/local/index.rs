//! The index: all rows as of the last checkpoint, in redb, with what recovery needs to go on.
//!
//! One redb table holds the rows of everybody; a key is the full key of `record.rs`, so each table
//! and each namespace in it is one range. redb itself sees `&[u8]` only: its typed encodings change
//! between major versions, ours does not. A value is `version u8 = 1 · revision u64 · value`.
//!
//! redb refuses everything after a failed read or write until the file is opened anew. Nothing is
//! lost then, because the log and the memtable hold what the index lacks: [`Index::reopen`].

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use micro_core::{Namespace, Timestamp};
use redb::{
    Builder, Database, DatabaseError, Durability, ReadOnlyTable, ReadTransaction,
    ReadableDatabase as _, ReadableTable as _, TableDefinition, WriteTransaction,
    backends::FileBackend,
};

use super::memtable::Memtable;
use crate::{
    Error, Revision,
    file::create_private,
    log::Position,
    record,
    topics::{Flushed, Recorded},
};

type Raw = &'static [u8];

const ROWS: TableDefinition<'static, Raw, Raw> = TableDefinition::new("rows");
/// Named numbers and texts.
const META: TableDefinition<'static, Raw, Raw> = TableDefinition::new("meta");
/// What the topics want to find again, by namespace and name.
const TOPICS: TableDefinition<'static, Raw, Raw> = TableDefinition::new("topics");
/// Bytes of rows per namespace.
const USAGE: TableDefinition<'static, Raw, Raw> = TableDefinition::new("usage");

const FORMAT_KEY: &[u8] = b"format";
const POINT_KEY: &[u8] = b"point";
/// The format of the index as a whole.
const FORMAT: u32 = 1;
/// The format of one row.
const ROW: u8 = 1;
/// Bytes in front of a row's value.
const HEAD: usize = 9;

/// Rows of the index as of one moment. Readers keep it until the next checkpoint.
pub(crate) type Rows = ReadOnlyTable<Raw, Raw>;

/// Opens the file. Tests put a backend that fails on demand in here.
pub(crate) type Opener =
    Box<dyn Fn(&Builder) -> Result<Database, DatabaseError> + Send + Sync + 'static>;

/// How far the index reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Point {
    /// The log up to here is in the index.
    pub(crate) position: Position,
    /// The last commit in it.
    pub(crate) revision: Revision,
    /// When that was; the next commit is not earlier.
    pub(crate) time: Timestamp,
}

/// All of an index at one moment.
pub(crate) struct Source {
    pub(crate) rows: Rows,
    pub(crate) found: Found,
}

/// What the index knew when it was opened.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) point: Point,
    pub(crate) topics: Vec<Recorded>,
    pub(crate) usage: Vec<(Namespace, u64)>,
}

/// The open file. The checkpoint thread owns it.
pub(crate) struct Index {
    database: Option<Database>,
    opener: Opener,
    path: PathBuf,
    cache: usize,
}

impl Index {
    /// Opens the index at `path`, or makes it.
    pub(crate) fn open(path: &Path, cache: usize) -> Result<(Self, Found), Error> {
        create_private(path)?;
        let opener = {
            let path = path.to_owned();
            Box::new(move |builder: &Builder| {
                let file = std::fs::OpenOptions::new()
                    .read(true)
                    .write(true)
                    .open(&path)?;
                builder.create_with_backend(FileBackend::new(file)?)
            })
        };
        Self::open_with(path, cache, opener)
    }

    /// As [`Index::open`], over any backend.
    pub(crate) fn open_with(
        path: &Path,
        cache: usize,
        opener: Opener,
    ) -> Result<(Self, Found), Error> {
        let mut index = Self {
            database: None,
            opener,
            path: path.to_owned(),
            cache,
        };
        index.reopen()?;
        let found = index.found()?;
        Ok((index, found))
    }

    /// Closes what is open, whatever state it is in, and opens it again.
    pub(crate) fn reopen(&mut self) -> Result<(), Error> {
        drop(self.database.take());
        let failed = |cause| Error::Open {
            path: self.path.clone(),
            cause,
        };
        let mut builder = Database::builder();
        builder.set_cache_size(self.cache);
        // redb may panic on a file that something else has written into.
        let opened = catch_unwind(AssertUnwindSafe(|| (self.opener)(&builder)));
        let database = match opened {
            Ok(Ok(database)) => database,
            Ok(Err(DatabaseError::DatabaseAlreadyOpen)) => {
                return Err(Error::Locked {
                    path: self.path.clone(),
                });
            }
            Ok(Err(DatabaseError::Storage(redb::StorageError::Io(e))))
                if crate::disk::is_full(&e) =>
            {
                return Err(Error::Full);
            }
            Ok(Err(e)) => return Err(failed(Arc::new(e))),
            Err(_) => {
                return Err(Error::Damaged {
                    path: self.path.clone(),
                    detail: "its pages make no sense".into(),
                });
            }
        };
        prepare(&database, &self.path)?;
        self.database = Some(database);
        Ok(())
    }

    /// The rows as of now.
    pub(crate) fn rows(&self) -> Result<Rows, Error> {
        let transaction = self.database()?.begin_read().map_err(Error::index)?;
        transaction.open_table(ROWS).map_err(Error::index)
    }

    /// Brings the rows of `memtable` in, and everything else that belongs to `point`, in one synced
    /// step. Gives by how many bytes each namespace has grown.
    pub(crate) fn apply(
        &self,
        memtable: &Memtable,
        point: Point,
        topics: &Flushed,
    ) -> Result<Vec<(Namespace, i64)>, Error> {
        let mut transaction = self.database()?.begin_write().map_err(Error::index)?;
        // The allocator's state goes along, so that opening after a crash takes milliseconds
        // whatever the size.
        transaction.set_quick_repair(true);
        transaction
            .set_durability(Durability::Immediate)
            .map_err(Error::index)?;
        let mut growth: Vec<(Namespace, i64)> = Vec::new();
        {
            let mut rows = transaction.open_table(ROWS).map_err(Error::index)?;
            let mut row = Vec::new();
            // Keys of a namespace stand together, so its name is compared and not looked up.
            let mut current: Option<(Vec<u8>, usize)> = None;
            for (key, slot) in memtable.iter() {
                let old = match &slot.value {
                    Some(value) => {
                        encode(&mut row, slot.revision, value);
                        let old = rows
                            .insert(&key[..], row.as_slice())
                            .map_err(Error::index)?;
                        old.map_or(0, |old| size(key, old.value().len()))
                    }
                    None => {
                        let old = rows.remove(&key[..]).map_err(Error::index)?;
                        old.map_or(0, |old| size(key, old.value().len()))
                    }
                };
                let new = slot
                    .value
                    .as_ref()
                    .map_or(0, |value| size(key, value.len() + HEAD));
                let known = current
                    .as_ref()
                    .filter(|(prefix, _)| key.starts_with(prefix));
                let at = match known {
                    Some((_, at)) => *at,
                    None => {
                        let Some((_, namespace, own)) = record::split_key(key) else {
                            continue;
                        };
                        let at = match growth.iter().position(|(n, _)| *n == namespace) {
                            Some(at) => at,
                            None => {
                                growth.push((namespace, 0));
                                growth.len() - 1
                            }
                        };
                        let prefix = key.get(..key.len() - own.len()).unwrap_or_default();
                        current = Some((prefix.to_vec(), at));
                        at
                    }
                };
                if let Some((_, sum)) = growth.get_mut(at) {
                    *sum += new - old;
                }
            }
            let mut usage = transaction.open_table(USAGE).map_err(Error::index)?;
            for (namespace, sum) in &growth {
                let key = namespace.as_str().as_bytes();
                let before = usage
                    .get(key)
                    .map_err(Error::index)?
                    .map_or(0, |v| number(v.value()));
                let after = before.saturating_add_signed(*sum).to_le_bytes();
                usage.insert(key, after.as_slice()).map_err(Error::index)?;
            }
            let mut meta = transaction.open_table(META).map_err(Error::index)?;
            meta.insert(POINT_KEY, encode_point(point).as_slice())
                .map_err(Error::index)?;
            let mut table = transaction.open_table(TOPICS).map_err(Error::index)?;
            for (namespace, topic) in &topics.removed {
                table
                    .remove(topic_key(namespace, topic).as_slice())
                    .map_err(Error::index)?;
            }
            drop(table);
            put_topics(&transaction, &topics.recorded)?;
        }
        transaction.commit().map_err(Error::index)?;
        Ok(growth)
    }

    /// Everything in the index, as of now, for as long as it is kept.
    pub(crate) fn source(&self) -> Result<Source, Error> {
        let transaction = self.database()?.begin_read().map_err(Error::index)?;
        let found = self.found_in(&transaction)?;
        let rows = transaction.open_table(ROWS).map_err(Error::index)?;
        Ok(Source { rows, found })
    }

    /// Closes the file.
    pub(crate) fn close(&mut self) {
        let Some(database) = self.database.take() else {
            return;
        };
        let closed = catch_unwind(AssertUnwindSafe(|| database.close()))
            .unwrap_or(Err(DatabaseError::RepairAborted));
        if let Err(error) = closed {
            tracing::warn!(%error, "The index was not closed cleanly; the next start repairs it.");
        }
    }

    /// Reads every page and compares it with its checksum. False when something was wrong that could
    /// be put right.
    pub(crate) fn check(&mut self) -> Result<bool, Error> {
        let database = self.database.as_mut().ok_or(Error::Closed)?;
        catch_unwind(AssertUnwindSafe(|| database.check_integrity()))
            .map_err(|_| Error::Panicked)?
            .map_err(Error::index)
    }

    fn found(&self) -> Result<Found, Error> {
        let transaction = self.database()?.begin_read().map_err(Error::index)?;
        self.found_in(&transaction)
    }

    fn found_in(&self, transaction: &ReadTransaction) -> Result<Found, Error> {
        let meta = transaction.open_table(META).map_err(Error::index)?;
        let point = meta.get(POINT_KEY).map_err(Error::index)?;
        let point = decode_point(point.as_ref().map_or(&[], |v| v.value()));
        let mut topics = Vec::new();
        let table = transaction.open_table(TOPICS).map_err(Error::index)?;
        for entry in table.iter().map_err(Error::index)? {
            let (key, value) = entry.map_err(Error::index)?;
            let recorded = topic_of(key.value())
                .and_then(|(namespace, topic)| Recorded::decode(namespace, topic, value.value()));
            topics.push(recorded.ok_or_else(|| Error::Damaged {
                path: self.path.clone(),
                detail: format!("the topic {} cannot be read", key.value().escape_ascii()),
            })?);
        }
        let mut usage = Vec::new();
        let table = transaction.open_table(USAGE).map_err(Error::index)?;
        for entry in table.iter().map_err(Error::index)? {
            let (name, bytes) = entry.map_err(Error::index)?;
            let name = std::str::from_utf8(name.value()).ok();
            if let Some(namespace) = name.and_then(|name| Namespace::parse(name).ok()) {
                usage.push((namespace, number(bytes.value())));
            }
        }
        Ok(Found {
            point,
            topics,
            usage,
        })
    }

    fn database(&self) -> Result<&Database, Error> {
        self.database.as_ref().ok_or(Error::Closed)
    }
}

impl Source {
    /// Writes all of it into a new file at `path`.
    pub(crate) fn copy(&self, path: &Path, cache: usize) -> Result<(), Error> {
        let (mut index, _) = Index::open(path, cache)?;
        let mut transaction = index.database()?.begin_write().map_err(Error::index)?;
        transaction.set_quick_repair(true);
        {
            let mut rows = transaction.open_table(ROWS).map_err(Error::index)?;
            for entry in self.rows.iter().map_err(Error::index)? {
                let (key, value) = entry.map_err(Error::index)?;
                rows.insert(key.value(), value.value())
                    .map_err(Error::index)?;
            }
            let mut usage = transaction.open_table(USAGE).map_err(Error::index)?;
            for (namespace, bytes) in &self.found.usage {
                let key = namespace.as_str().as_bytes();
                usage
                    .insert(key, bytes.to_le_bytes().as_slice())
                    .map_err(Error::index)?;
            }
            put_topics(&transaction, &self.found.topics)?;
            let mut meta = transaction.open_table(META).map_err(Error::index)?;
            meta.insert(POINT_KEY, encode_point(self.found.point).as_slice())
                .map_err(Error::index)?;
        }
        transaction.commit().map_err(Error::index)?;
        index.close();
        Ok(())
    }

    /// Reads all rows; tells what is wrong with them, and how many there are.
    pub(crate) fn check(&self, mut problem: impl FnMut(String)) -> Result<u64, Error> {
        let mut count = 0;
        let mut usage: Vec<(Namespace, u64)> = Vec::new();
        for entry in self.rows.iter().map_err(Error::index)? {
            let (key, value) = entry.map_err(Error::index)?;
            let (key, value) = (key.value(), value.value());
            count += 1;
            let namespace = match (record::split_key(key), decode_ref(value)) {
                (Some((_, namespace, _)), Ok(_)) => namespace,
                _ => {
                    problem(format!("the row {} cannot be read", key.escape_ascii()));
                    continue;
                }
            };
            let bytes = size(key, value.len()).unsigned_abs();
            match usage.iter_mut().find(|(n, _)| *n == namespace) {
                Some((_, sum)) => *sum += bytes,
                None => usage.push((namespace, bytes)),
            }
        }
        for (namespace, counted) in &self.found.usage {
            let held = usage.iter().find(|(n, _)| n == namespace);
            let held = held.map_or(0, |(_, bytes)| *bytes);
            if held != *counted {
                problem(format!(
                    "the rows of {namespace} have {held} bytes, but {counted} are counted"
                ));
            }
        }
        Ok(count)
    }
}

/// A row of the index, from the bytes that it has there.
pub(crate) fn decode(stored: &[u8]) -> Result<(Revision, Bytes), Error> {
    let (revision, value) = decode_ref(stored)?;
    Ok((revision, Bytes::copy_from_slice(value)))
}

/// As [`decode`], without a copy.
pub(crate) fn decode_ref(stored: &[u8]) -> Result<(Revision, &[u8]), Error> {
    let format = stored.first().copied().unwrap_or(0);
    match stored.get(1..).and_then(<[u8]>::split_first_chunk) {
        Some((revision, value)) if format == ROW => {
            Ok((Revision(u64::from_le_bytes(*revision)), value))
        }
        _ => Err(Error::Format {
            table: "rows",
            format,
        }),
    }
}

fn encode(row: &mut Vec<u8>, revision: Revision, value: &[u8]) {
    row.clear();
    row.push(ROW);
    row.extend_from_slice(&revision.0.to_le_bytes());
    row.extend_from_slice(value);
}

/// What a row counts: its own key and its value.
fn size(full_key: &[u8], stored: usize) -> i64 {
    let own = record::split_key_lengths(full_key).map_or(0, |prefix| full_key.len() - prefix);
    i64::try_from(own + stored.saturating_sub(HEAD)).unwrap_or(i64::MAX)
}

fn put_topics(transaction: &WriteTransaction, topics: &[Recorded]) -> Result<(), Error> {
    let mut table = transaction.open_table(TOPICS).map_err(Error::index)?;
    for recorded in topics {
        let key = topic_key(&recorded.namespace, &recorded.topic);
        table
            .insert(key.as_slice(), recorded.encode().as_slice())
            .map_err(Error::index)?;
    }
    Ok(())
}

fn topic_key(namespace: &Namespace, topic: &str) -> Vec<u8> {
    let namespace = namespace.as_str().as_bytes();
    let mut key = vec![u8::try_from(namespace.len()).unwrap_or(u8::MAX)];
    key.extend_from_slice(namespace);
    key.extend_from_slice(topic.as_bytes());
    key
}

fn topic_of(key: &[u8]) -> Option<(Namespace, &str)> {
    let (length, rest) = key.split_first()?;
    let (namespace, topic) = rest.split_at_checked((*length).into())?;
    let namespace = Namespace::parse(std::str::from_utf8(namespace).ok()?).ok()?;
    Some((namespace, std::str::from_utf8(topic).ok()?))
}

fn encode_point(point: Point) -> Vec<u8> {
    let mut bytes = point.position.0.to_le_bytes().to_vec();
    bytes.extend_from_slice(&point.revision.0.to_le_bytes());
    bytes.extend_from_slice(&point.time.0.to_le_bytes());
    bytes
}

fn decode_point(bytes: &[u8]) -> Point {
    let part = |at: usize| number(bytes.get(at..at + 8).unwrap_or_default());
    Point {
        position: Position(part(0)),
        revision: Revision(part(8)),
        time: Timestamp(part(16).cast_signed()),
    }
}

fn number(bytes: &[u8]) -> u64 {
    bytes.try_into().map_or(0, u64::from_le_bytes)
}

/// Makes the tables, so that every later transaction finds them; or reads which format they have.
fn prepare(database: &Database, path: &Path) -> Result<(), Error> {
    let known = {
        let transaction = database.begin_read().map_err(Error::index)?;
        match transaction.open_table(META) {
            Ok(meta) => meta
                .get(FORMAT_KEY)
                .map_err(Error::index)?
                .map(|v| v.value().try_into().map_or(0, u32::from_le_bytes)),
            Err(redb::TableError::TableDoesNotExist(_)) => None,
            Err(e) => return Err(Error::index(e)),
        }
    };
    match known {
        Some(FORMAT) => return Ok(()),
        Some(found) => {
            return Err(Error::NewerFile {
                path: path.to_owned(),
                found,
                known: FORMAT,
            });
        }
        None => {}
    }
    let mut transaction = database.begin_write().map_err(Error::index)?;
    transaction.set_quick_repair(true);
    {
        transaction.open_table(ROWS).map_err(Error::index)?;
        transaction.open_table(USAGE).map_err(Error::index)?;
        transaction.open_table(TOPICS).map_err(Error::index)?;
        let mut meta = transaction.open_table(META).map_err(Error::index)?;
        meta.insert(FORMAT_KEY, FORMAT.to_le_bytes().as_slice())
            .map_err(Error::index)?;
    }
    transaction.commit().map_err(Error::index)
}
