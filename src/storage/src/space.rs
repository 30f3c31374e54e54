//! What one namespace sees of the state. Nothing of another namespace can be reached through it.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use micro_core::{Clock, Namespace, Timestamp};

use crate::{Batch, Blobs, Engine, Error, Expect, Topic, Usage, Watch};

/// Where leases are kept.
const LEASES: &str = "storage.leases";
/// How often somebody may come in between while a lease is taken.
const LEASE_TRIES: usize = 8;

/// The number of a commit. It grows by one with each; 0 is before the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Revision(pub u64);

impl std::fmt::Display for Revision {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// A row as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Its key in the table.
    pub key: Bytes,
    /// Its value; empty in a scan of keys only.
    pub value: Bytes,
    /// The commit that wrote it last.
    pub revision: Revision,
}

/// Which rows a scan gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range<'a> {
    /// Only keys that start with this.
    pub prefix: &'a [u8],
    /// Only keys behind this one, in the direction of the scan.
    pub after: Option<&'a [u8]>,
    /// At most so many.
    pub limit: usize,
    /// From the last to the first.
    pub reverse: bool,
    /// Leave the values out.
    pub keys_only: bool,
}

impl<'a> Range<'a> {
    /// Everything in the table.
    pub const fn all() -> Self {
        Self::prefix(b"")
    }

    /// All keys that start with `prefix`.
    pub const fn prefix(prefix: &'a [u8]) -> Self {
        Self {
            prefix,
            after: None,
            limit: usize::MAX,
            reverse: false,
            keys_only: false,
        }
    }

    /// Goes on behind `key`: the last key of the page before.
    #[must_use]
    pub const fn after(mut self, key: &'a [u8]) -> Self {
        self.after = Some(key);
        self
    }

    /// At most `rows`.
    #[must_use]
    pub const fn limit(mut self, rows: usize) -> Self {
        self.limit = rows;
        self
    }

    /// From the last key to the first.
    #[must_use]
    pub const fn reverse(mut self) -> Self {
        self.reverse = true;
        self
    }

    /// Without values.
    #[must_use]
    pub const fn keys_only(mut self) -> Self {
        self.keys_only = true;
        self
    }
}

impl Default for Range<'_> {
    fn default() -> Self {
        Self::all()
    }
}

/// The state of one namespace. Clones share it.
#[derive(Clone)]
pub struct Space {
    engine: Arc<dyn Engine>,
    namespace: Namespace,
    clock: Clock,
}

impl std::fmt::Debug for Space {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Space")
            .field("namespace", &self.namespace)
            .finish_non_exhaustive()
    }
}

impl Space {
    pub(crate) fn new(engine: Arc<dyn Engine>, namespace: &Namespace, clock: Clock) -> Self {
        Self {
            engine,
            namespace: namespace.clone(),
            clock,
        }
    }

    /// Whose it is.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// The row of `key`.
    ///
    /// # Errors
    /// `Internal` when it cannot be read.
    pub fn get(&self, table: &'static str, key: &[u8]) -> Result<Option<Row>, Error> {
        self.engine.get(&self.namespace, table, key)
    }

    /// The rows of `range`, in the order of their keys, as they were at one moment.
    ///
    /// # Errors
    /// `Internal` when they cannot be read.
    pub fn scan(&self, table: &'static str, range: Range<'_>) -> Result<Vec<Row>, Error> {
        self.engine.scan(&self.namespace, table, range)
    }

    /// Changes to be made together.
    pub fn batch(&self) -> Batch {
        Batch::new(Arc::clone(&self.engine), &self.namespace)
    }

    /// The changes of keys that start with `prefix`, committed after this call.
    pub fn watch(&self, table: &'static str, prefix: &[u8]) -> Watch {
        self.engine.watch(&self.namespace, table, prefix)
    }

    /// The topic of that name. It comes into being with its first entry.
    pub fn topic(&self, name: &str) -> Topic {
        Topic::new(Arc::clone(&self.engine), &self.namespace, name)
    }

    /// The topics that there are, in order.
    ///
    /// # Errors
    /// `Internal` when they cannot be read.
    pub fn topics(&self) -> Result<Vec<String>, Error> {
        self.engine.topics(&self.namespace)
    }

    /// Large values that live in files of their own.
    pub fn blobs(&self) -> Blobs {
        self.engine.blobs(&self.namespace)
    }

    /// What the namespace holds.
    pub fn usage(&self) -> Usage {
        self.engine.usage(&self.namespace)
    }

    /// Takes the lease `name` for `owner`, or renews it; `false` when somebody else has it. It ends
    /// by itself after `ttl`.
    ///
    /// # Errors
    /// As [`Batch::commit`].
    pub async fn lease(&self, name: &str, owner: &str, ttl: Duration) -> Result<bool, Error> {
        self.change_lease(name, |held, now| {
            let free = held.is_none_or(|(until, by)| until <= now || by == owner);
            free.then(|| Some(lease_value(now.plus(ttl), owner)))
        })
        .await
    }

    /// Gives the lease `name` back; `false` when `owner` did not have it.
    ///
    /// # Errors
    /// As [`Batch::commit`].
    pub async fn release(&self, name: &str, owner: &str) -> Result<bool, Error> {
        self.change_lease(name, |held, now| {
            let mine = held.is_some_and(|(until, by)| until > now && by == owner);
            mine.then_some(None)
        })
        .await
    }

    /// `decide` gets the lease as it is, and gives its new value, or nothing to leave it alone.
    async fn change_lease(
        &self,
        name: &str,
        decide: impl Fn(Option<(Timestamp, &str)>, Timestamp) -> Option<Option<Vec<u8>>>,
    ) -> Result<bool, Error> {
        let mut tries = LEASE_TRIES;
        loop {
            let row = self.get(LEASES, name.as_bytes())?;
            let held = row.as_ref().and_then(|row| lease_of(&row.value));
            let Some(value) = decide(held, self.clock.now()) else {
                return Ok(false);
            };
            let mut batch = self.batch();
            let expect = row.map_or(Expect::Absent, |row| Expect::At(row.revision));
            batch.expect(LEASES, name, expect);
            match value {
                Some(value) => batch.put(LEASES, name, value),
                None => batch.delete(LEASES, name),
            };
            tries -= 1;
            match batch.commit().await {
                Ok(_) => return Ok(true),
                Err(Error::Conflict { .. }) if tries > 0 => {}
                Err(error) => return Err(error),
            }
        }
    }
}

fn lease_value(until: Timestamp, owner: &str) -> Vec<u8> {
    [until.0.to_be_bytes().as_slice(), owner.as_bytes()].concat()
}

fn lease_of(value: &[u8]) -> Option<(Timestamp, &str)> {
    let (until, owner) = value.split_first_chunk()?;
    let owner = std::str::from_utf8(owner).ok()?;
    Some((Timestamp(i64::from_be_bytes(*until)), owner))
}
