//! The records of one namespace: reading one, writing one, deleting one.

use std::{sync::Arc, time::Duration};

use micro_core::Namespace;
use micro_storage::{Revision, Space};

use crate::{
    Error, Metadata, Operation, Query, Record, Watching, commit,
    draft::{Draft, Refused},
    place::{self, RECORDS},
    query, record,
    service::Shared,
    tables,
};

/// How often a draft is put together again before the last refusal counts.
pub(crate) const TRIES: usize = 16;

/// A record to be written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Write<'a> {
    /// Its key.
    pub key: &'a str,
    /// Its value.
    pub value: &'a [u8],
    /// How long it is there; `None` for ever.
    pub ttl: Option<Duration>,
    /// What is noted about it.
    pub metadata: Metadata,
}

/// The database of a namespace. Clones share it. An empty name of a table means `micro`.
#[derive(Clone)]
pub struct Database {
    pub(crate) shared: Arc<Shared>,
    pub(crate) space: Space,
}

impl std::fmt::Debug for Database {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Database")
            .field("namespace", self.namespace())
            .finish_non_exhaustive()
    }
}

impl Database {
    pub(crate) fn new(shared: &Arc<Shared>, namespace: &Namespace) -> Self {
        Self {
            shared: Arc::clone(shared),
            space: shared.storage.space(namespace),
        }
    }

    /// Whose it is.
    pub fn namespace(&self) -> &Namespace {
        self.space.namespace()
    }

    /// The record of `key`.
    ///
    /// # Errors
    /// `Invalid` for a name that cannot be; `Internal` when it cannot be read.
    pub fn read(&self, table: &str, key: &str) -> Result<Option<Record>, Error> {
        let table = place::table(table)?;
        if key.is_empty() || key.len() > place::MAX_KEY {
            return Ok(None);
        }
        match self.space.get(RECORDS, &place::prefix(table, key))? {
            Some(row) => record::alive(row, self.shared.clock.now()),
            None => Ok(None),
        }
    }

    /// The records of `query`.
    ///
    /// # Errors
    /// `Exhausted` when they are more than one answer may carry; else as [`Database::read`].
    pub async fn records(&self, table: &str, query: Query) -> Result<Vec<Record>, Error> {
        query::records(self, place::table(table)?, query).await
    }

    /// The keys of the records of `query`.
    ///
    /// # Errors
    /// As [`Database::records`].
    pub async fn keys(&self, table: &str, query: Query) -> Result<Vec<String>, Error> {
        query::keys(self, place::table(table)?, query).await
    }

    /// Writes a record, whether there is one or not. Durable when it returns.
    ///
    /// # Errors
    /// `Invalid` for a name that cannot be; `Exhausted` when the disk is full or the namespace holds
    /// as much as it may.
    pub async fn write(&self, table: &str, write: Write<'_>) -> Result<Revision, Error> {
        let table = place::table(table)?;
        let place = place::record(table, write.key)?;
        let deadline = self.deadline(write.ttl);
        let bytes = record::encode(write.value, deadline, write.metadata);
        let mut tries = TRIES;
        loop {
            let mut draft = Draft::new(&self.shared, &self.space);
            draft.write(table, &place, &bytes, deadline)?;
            tries -= 1;
            match draft.commit().await {
                Ok(revision) => return Ok(revision),
                Err(Refused::Stale) if tries > 0 => {}
                Err(refused) => return Err(commit::failure(refused)),
            }
        }
    }

    /// Deletes the record of `key`, if there is one. Durable when it returns.
    ///
    /// # Errors
    /// As [`Database::write`].
    pub async fn delete(&self, table: &str, key: &str) -> Result<(), Error> {
        let table = place::table(table)?;
        let place = place::record(table, key)?;
        if self.space.get(RECORDS, &place)?.is_none() {
            return Ok(());
        }
        let mut draft = Draft::new(&self.shared, &self.space);
        draft.delete(table, &place)?;
        draft.commit().await.map_err(commit::failure)?;
        Ok(())
    }

    /// Makes all of the operations, or none, and gives the revision of what was written.
    ///
    /// # Errors
    /// `Conflict` when a condition does not hold; `Invalid` when the operations make no sense; else
    /// as [`Database::write`].
    pub async fn commit(&self, operations: &[Operation<'_>]) -> Result<Revision, Error> {
        commit::commit(self, operations).await
    }

    /// The records whose keys begin with `prefix`, as they are ([`crate::Event::Current`] says when that is
    /// all of them) and then as they change; or only as they change.
    ///
    /// # Errors
    /// `Invalid` for a name that cannot be.
    pub fn watch(&self, table: &str, prefix: &str, changes_only: bool) -> Result<Watching, Error> {
        Ok(Watching::new(
            self.clone(),
            place::prefix(place::table(table)?, prefix),
            changes_only,
        ))
    }

    /// The names of the tables, in order.
    ///
    /// # Errors
    /// `Internal` when they cannot be read.
    pub fn tables(&self) -> Result<Vec<String>, Error> {
        tables::names(&self.space)
    }

    pub(crate) fn deadline(&self, ttl: Option<Duration>) -> Option<micro_core::Timestamp> {
        ttl.map(|ttl| self.shared.clock.now().plus(ttl))
    }
}
