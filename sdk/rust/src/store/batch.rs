//! Several changes in one step.

use std::{fmt, mem, time::Duration};

use serde::Serialize;

use super::{
    Table,
    table::{Named, record, seconds},
};
use crate::{
    Error, Mesh, call,
    wire::store::{Change, CommitRequest, CommitResponse, Condition, Operation},
};

/// Changes of one or more tables that happen together or not at all, each on a condition if wanted.
/// Made by [`Store::batch`](super::Store::batch). A key may be named once.
///
/// ```no_run
/// # async fn example(store: micro_sdk::store::Store) -> Result<(), micro_sdk::Error> {
/// let accounts = store.table::<i64>("accounts");
/// let (Some(alice), Some(bob)) = (accounts.get("alice").await?, accounts.get("bob").await?) else {
///     return Ok(());
/// };
/// store
///     .batch()
///     .update(&accounts, "alice", &(alice.value - 5), alice.revision)
///     .update(&accounts, "bob", &(bob.value + 5), bob.revision)
///     .commit()
///     .await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[must_use = "a batch does nothing until it is committed"]
pub struct Batch {
    mesh: Mesh,
    operations: Vec<Operation>,
    /// A value that cannot be written, told at the commit.
    error: Option<Error>,
}

impl Batch {
    pub(super) const fn new(mesh: Mesh) -> Self {
        Self {
            mesh,
            operations: Vec::new(),
            error: None,
        }
    }

    /// Writes the value, whatever is there.
    ///
    /// ```no_run
    /// # fn example(store: micro_sdk::store::Store, counters: micro_sdk::store::Table<u64>) {
    /// store.batch().put(&counters, "visits", &1);
    /// # }
    /// ```
    pub fn put<T: Serialize>(&mut self, table: &Table<T>, key: &str, value: &T) -> &mut Self {
        self.write(table, key, value, 0, None)
    }

    /// As [`put`](Self::put); the record is gone after `lifetime`.
    ///
    /// ```no_run
    /// # fn example(store: micro_sdk::store::Store, counters: micro_sdk::store::Table<u64>) {
    /// let day = std::time::Duration::from_secs(24 * 3600);
    /// store.batch().put_for(&counters, "today", &1, day);
    /// # }
    /// ```
    pub fn put_for<T: Serialize>(
        &mut self,
        table: &Table<T>,
        key: &str,
        value: &T,
        lifetime: Duration,
    ) -> &mut Self {
        self.write(table, key, value, seconds(lifetime), None)
    }

    /// Writes the value; there must be none.
    ///
    /// ```no_run
    /// # fn example(store: micro_sdk::store::Store, counters: micro_sdk::store::Table<u64>) {
    /// store.batch().create(&counters, "visits", &1);
    /// # }
    /// ```
    pub fn create<T: Serialize>(&mut self, table: &Table<T>, key: &str, value: &T) -> &mut Self {
        self.write(table, key, value, 0, Some(Condition::Absent(true)))
    }

    /// Writes the value; the record must be the one of `revision`.
    ///
    /// ```no_run
    /// # fn example(store: micro_sdk::store::Store, counters: micro_sdk::store::Table<u64>) {
    /// store.batch().update(&counters, "visits", &2, 41);
    /// # }
    /// ```
    pub fn update<T: Serialize>(
        &mut self,
        table: &Table<T>,
        key: &str,
        value: &T,
        revision: u64,
    ) -> &mut Self {
        self.write(table, key, value, 0, Some(Condition::Revision(revision)))
    }

    /// Deletes the record, if there is one.
    ///
    /// ```no_run
    /// # fn example(store: micro_sdk::store::Store, counters: micro_sdk::store::Table<u64>) {
    /// store.batch().delete(&counters, "visits");
    /// # }
    /// ```
    pub fn delete<T>(&mut self, table: &Table<T>, key: &str) -> &mut Self {
        self.push(table, Change::Delete(key.to_owned()), None)
    }

    /// Deletes the record; it must be the one of `revision`.
    ///
    /// ```no_run
    /// # fn example(store: micro_sdk::store::Store, counters: micro_sdk::store::Table<u64>) {
    /// store.batch().delete_at(&counters, "visits", 42);
    /// # }
    /// ```
    pub fn delete_at<T>(&mut self, table: &Table<T>, key: &str, revision: u64) -> &mut Self {
        let condition = Some(Condition::Revision(revision));
        self.push(table, Change::Delete(key.to_owned()), condition)
    }

    /// Changes nothing; the record must be the one of `revision`.
    ///
    /// ```no_run
    /// # fn example(store: micro_sdk::store::Store, counters: micro_sdk::store::Table<u64>) {
    /// store.batch().check(&counters, "limit", 7).put(&counters, "visits", &2);
    /// # }
    /// ```
    pub fn check<T>(&mut self, table: &Table<T>, key: &str, revision: u64) -> &mut Self {
        let condition = Some(Condition::Revision(revision));
        self.push(table, Change::Check(key.to_owned()), condition)
    }

    /// Changes nothing; there must be a record.
    ///
    /// ```no_run
    /// # fn example(store: micro_sdk::store::Store, users: micro_sdk::store::Table<String>) {
    /// store.batch().check_present(&users, "alice");
    /// # }
    /// ```
    pub fn check_present<T>(&mut self, table: &Table<T>, key: &str) -> &mut Self {
        let condition = Some(Condition::Present(true));
        self.push(table, Change::Check(key.to_owned()), condition)
    }

    /// Changes nothing; there must be no record.
    ///
    /// ```no_run
    /// # fn example(store: micro_sdk::store::Store, users: micro_sdk::store::Table<String>) {
    /// store.batch().check_absent(&users, "alice");
    /// # }
    /// ```
    pub fn check_absent<T>(&mut self, table: &Table<T>, key: &str) -> &mut Self {
        let condition = Some(Condition::Absent(true));
        self.push(table, Change::Check(key.to_owned()), condition)
    }

    /// Makes all of the changes, or none; gives the revision of every record that was written. The
    /// batch is empty then.
    ///
    /// ```no_run
    /// # async fn example(store: micro_sdk::store::Store) -> Result<(), micro_sdk::Error> {
    /// # let counters = store.table::<u64>("counters");
    /// let revision = store.batch().put(&counters, "visits", &1).commit().await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Conflict`](crate::Kind::Conflict) when one of the conditions does not hold; those of every
    /// call.
    pub async fn commit(&mut self) -> Result<u64, Error> {
        self.commit_as("commit the batch").await
    }

    pub(super) async fn commit_as(&mut self, what: impl fmt::Display) -> Result<u64, Error> {
        if let Some(error) = self.error.take() {
            return Err(error);
        }
        let request = CommitRequest {
            database: String::new(),
            operations: mem::take(&mut self.operations),
        };
        let answer: Result<CommitResponse, _> =
            call::unary(&self.mesh, "/store.Store/Commit", request).await;
        match answer {
            Ok(answer) => Ok(answer.revision),
            Err(status) => Err(Error::call(what, &status)),
        }
    }

    fn write<T: Serialize>(
        &mut self,
        table: &Table<T>,
        key: &str,
        value: &T,
        expiry: i64,
        condition: Option<Condition>,
    ) -> &mut Self {
        let what = Named {
            verb: "write",
            key,
            table: table.name(),
        };
        match record(what, key, value, expiry) {
            Ok(record) => self.push(table, Change::Write(record), condition),
            Err(error) => {
                self.error.get_or_insert(error);
                self
            }
        }
    }

    fn push<T>(
        &mut self,
        table: &Table<T>,
        change: Change,
        condition: Option<Condition>,
    ) -> &mut Self {
        self.operations.push(Operation {
            table: table.name().to_owned(),
            change: Some(change),
            condition,
        });
        self
    }
}
