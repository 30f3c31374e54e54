//! Many records at once, by the beginning and the end of their keys.
//!
//! Keys are walked page by page and values are read one by one, so that memory holds one page and the
//! answer, which has a bound. A walk that is not over after its first page goes on elsewhere: the
//! threads of the doors have other requests to answer. Only a few of those run at a time, since each
//! may hold a large answer.

use bytes::Bytes;
use micro_core::Timestamp;
use micro_storage::{Range, Row};
use tokio_util::sync::CancellationToken;

use crate::{
    Database, Error, Record,
    place::{self, RECORDS},
    record::Stored,
};

/// Keys looked at before a walk moves to a thread of its own.
const FIRST: usize = 256;
/// Bytes found before it does.
const FIRST_BYTES: usize = 1024 * 1024;
/// Keys in each further page.
const PAGE: usize = 1024;
/// The most bytes of keys and values in one answer.
pub(crate) const ANSWER: usize = 64 * 1024 * 1024;
/// What a record costs beside key and value.
const OVERHEAD: usize = 64;

/// Which records, in the order of their keys' bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Query {
    /// Keys that begin with this.
    pub prefix: String,
    /// Keys that end with this.
    pub suffix: String,
    /// At most so many; 0 for all.
    pub limit: u64,
    /// Without the first so many.
    pub offset: u64,
    /// From the last to the first, which comes before limit and offset.
    pub descending: bool,
}

/// A walk along the keys of a query.
struct Walk<T> {
    database: Database,
    query: Query,
    /// What all rows of the table begin with.
    table: usize,
    prefix: Vec<u8>,
    /// Whether a record must be read to know that it is there.
    expiring: bool,
    now: Timestamp,
    last: Option<Bytes>,
    skipped: u64,
    bytes: usize,
    found: Vec<T>,
    make: Make<T>,
}

/// What becomes of a record that was found.
enum Make<T> {
    Key(fn(&[u8]) -> T),
    Record(fn(Stored, Row) -> Result<T, Error>),
}

impl<T> Clone for Make<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Make<T> {}

pub(crate) async fn records(
    database: &Database,
    table: &str,
    query: Query,
) -> Result<Vec<Record>, Error> {
    let make = |stored: Stored, row: Row| stored.record(&row.key, row.revision);
    walk(database, table, query, Make::Record(make)).await
}

pub(crate) async fn keys(
    database: &Database,
    table: &str,
    query: Query,
) -> Result<Vec<String>, Error> {
    let make = |key: &[u8]| String::from_utf8_lossy(key).into_owned();
    walk(database, table, query, Make::Key(make)).await
}

async fn walk<T: Send + 'static>(
    database: &Database,
    table: &str,
    query: Query,
    make: Make<T>,
) -> Result<Vec<T>, Error> {
    let shared = &database.shared;
    let Some(expiring) = shared.tables.is_expiring(&database.space, table)? else {
        return Ok(Vec::new());
    };
    let mut walk = Walk {
        database: database.clone(),
        table: table.len() + 1,
        prefix: place::prefix(table, &query.prefix),
        query,
        expiring,
        now: shared.clock.now(),
        last: None,
        skipped: 0,
        bytes: 0,
        found: Vec::new(),
        make,
    };
    if walk.page(FIRST, FIRST_BYTES)? {
        return Ok(walk.found);
    }
    let _turn = shared.walks.acquire().await.map_err(|_| Error::Abandoned)?;
    // A caller who has left wants no answer.
    let cancel = CancellationToken::new();
    let _cancel = cancel.clone().drop_guard();
    let rest = tokio::task::spawn_blocking(move || {
        while !cancel.is_cancelled() && !walk.page(PAGE, usize::MAX)? {}
        Ok(walk.found)
    });
    rest.await.map_err(|error| {
        tracing::error!(%error, "A search in the store ended early.");
        Error::Abandoned
    })?
}

impl<T> Walk<T> {
    /// Looks at so many keys, or until so many bytes are found; `true` when there is nothing more to
    /// find.
    fn page(&mut self, most: usize, bytes: usize) -> Result<bool, Error> {
        let rows = self.keys(most)?;
        let is_last = rows.len() < most;
        for row in rows {
            if self.look_at(&row)? {
                return Ok(true);
            }
            self.last = Some(row.key);
            if self.bytes > bytes {
                return Ok(false);
            }
        }
        Ok(is_last)
    }

    fn keys(&self, most: usize) -> Result<Vec<Row>, Error> {
        let mut range = Range::prefix(&self.prefix).limit(most).keys_only();
        if self.query.descending {
            range = range.reverse();
        }
        if let Some(last) = &self.last {
            range = range.after(last);
        }
        Ok(self.database.space.scan(RECORDS, range)?)
    }

    /// Takes one record, if it is one of those; `true` when that was the last.
    fn look_at(&mut self, row: &Row) -> Result<bool, Error> {
        let key = row.key.get(self.table..).unwrap_or_default();
        if !key.ends_with(self.query.suffix.as_bytes()) {
            return Ok(false);
        }
        let skip = self.skipped < self.query.offset;
        let wanted = !skip && matches!(self.make, Make::Record(_));
        let mut size = key.len() + OVERHEAD;
        let mut stored = None;
        if self.expiring || wanted {
            let Some(row) = self.database.space.get(RECORDS, &row.key)? else {
                return Ok(false);
            };
            let record = Stored::decode(row.value.clone())?;
            if record.is_over(self.now) {
                return Ok(false);
            }
            if wanted {
                size += row.value.len();
            }
            stored = Some((record, row));
        }
        if skip {
            self.skipped += 1;
            return Ok(false);
        }
        self.bytes += size;
        if self.bytes > ANSWER {
            return Err(Error::TooMuch { limit: ANSWER });
        }
        match (self.make, stored) {
            (Make::Key(make), _) => self.found.push(make(key)),
            (Make::Record(make), Some((record, row))) => self.found.push(make(record, row)?),
            (Make::Record(_), None) => {}
        }
        Ok(self.query.limit > 0 && self.found.len() as u64 >= self.query.limit)
    }
}
