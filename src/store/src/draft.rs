//! Changes of records on their way into one batch of storage: with each record go the note of its
//! table and the row of its deadline.
//!
//! A row of deadlines that an overwritten record leaves behind is harmless, because the sweep looks at
//! the record before it takes it away; but in a table whose records have deadlines it is removed with
//! the record, so that records written again and again do not fill the disk.

use micro_core::Timestamp;
use micro_storage::{Batch, Error as StorageError, Expect, Revision, Space};

use crate::{
    Error,
    place::{self, EXPIRY, RECORDS, TABLES},
    record::Stored,
    service::Shared,
    tables,
};

/// A batch that is being put together.
pub(crate) struct Draft<'a> {
    shared: &'a Shared,
    space: &'a Space,
    batch: Batch,
    /// Tables that the batch notes, and whether as expiring.
    noted: Vec<(String, bool)>,
    earliest: Option<Timestamp>,
}

/// Why a draft did not become a commit.
pub(crate) enum Refused {
    /// Somebody made one of its tables in the meantime: put it together again.
    Stale,
    /// A row was not as expected.
    Conflict {
        place: Vec<u8>,
        found: Option<Revision>,
    },
    /// It cannot be.
    Failed(Error),
}

impl<'a> Draft<'a> {
    pub(crate) fn new(shared: &'a Shared, space: &'a Space) -> Self {
        Self {
            shared,
            space,
            batch: space.batch(),
            noted: Vec::new(),
            earliest: None,
        }
    }

    /// Lets nothing happen unless `expect` holds for the row of a record.
    pub(crate) fn expect(&mut self, place: &[u8], expect: Expect) {
        self.batch.expect(RECORDS, place, expect);
    }

    /// Writes a record whose bytes are `record`.
    pub(crate) fn write(
        &mut self,
        table: &str,
        place: &[u8],
        record: &[u8],
        deadline: Option<Timestamp>,
    ) -> Result<(), Error> {
        let expiring = self.shared.tables.is_expiring(self.space, table)?;
        if expiring == Some(true) {
            let old = self.deadline_of(place)?;
            if let Some(old) = old.filter(|old| Some(*old) != deadline) {
                self.batch.delete(EXPIRY, place::expiry(old, place));
            }
        } else {
            self.note(table, expiring.is_some(), deadline.is_some());
        }
        if let Some(deadline) = deadline {
            self.batch.put(EXPIRY, place::expiry(deadline, place), b"");
            self.earliest = Some(self.earliest.map_or(deadline, |e| e.min(deadline)));
        }
        self.batch.put(RECORDS, place, record);
        Ok(())
    }

    /// Deletes the record at `place`, if there is one.
    pub(crate) fn delete(&mut self, table: &str, place: &[u8]) -> Result<(), Error> {
        match self.shared.tables.is_expiring(self.space, table)? {
            None => return Ok(()),
            Some(false) => {}
            Some(true) => {
                if let Some(old) = self.deadline_of(place)? {
                    self.batch.delete(EXPIRY, place::expiry(old, place));
                }
            }
        }
        self.batch.delete(RECORDS, place);
        Ok(())
    }

    /// Notes a table that is new, or has its first record with a deadline.
    fn note(&mut self, table: &str, is_known: bool, expiring: bool) {
        let noted = self.noted.iter_mut().find(|(name, _)| name == table);
        match noted {
            Some((_, marked)) if *marked || !expiring => return,
            Some((_, marked)) => *marked = true,
            None if is_known && !expiring => return,
            None => {
                if !expiring {
                    // Else this note could overwrite one that says more.
                    self.batch.expect(TABLES, table, Expect::Absent);
                }
                self.noted.push((table.to_owned(), expiring));
            }
        }
        self.batch.put(TABLES, table, tables::note(expiring));
    }

    fn deadline_of(&self, place: &[u8]) -> Result<Option<Timestamp>, Error> {
        match self.space.get(RECORDS, place)? {
            Some(row) => Ok(Stored::decode(row.value)?.deadline),
            None => Ok(None),
        }
    }

    /// Makes all of it durable.
    pub(crate) async fn commit(self) -> Result<Revision, Refused> {
        // Also when the caller leaves before the answer: the batch may be committed all the same.
        let _deadline = self
            .earliest
            .map(|at| self.shared.deadlines.note_at_end(at));
        match self.batch.commit().await {
            Ok(receipt) => {
                for (table, expiring) in self.noted {
                    let namespace = self.space.namespace();
                    self.shared.tables.learn(namespace, &table, expiring);
                }
                Ok(receipt.revision)
            }
            Err(StorageError::Conflict { table: TABLES, .. }) => Err(Refused::Stale),
            Err(StorageError::Conflict { key, found, .. }) => {
                Err(Refused::Conflict { place: key, found })
            }
            Err(error) => Err(Refused::Failed(error.into())),
        }
    }
}
