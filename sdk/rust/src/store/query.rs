//! Which records of a table.

use std::fmt;

use serde::{Serialize, de::DeserializeOwned};

use super::{Record, Table, table::decode};
use crate::{
    Error, call,
    wire::store::{ListOptions, ListRequest, ListResponse, ReadOptions, ReadRequest, ReadResponse},
};

/// Some or all records of a table. Made by [`Table::list`].
///
/// ```no_run
/// # async fn example(counters: micro_sdk::store::Table<u64>) -> Result<(), micro_sdk::Error> {
/// let mut page = counters.list().prefix("2026-").limit(100);
/// let first = page.records().await?;
/// page = page.offset(100);
/// let second = page.records().await?;
/// # Ok(())
/// # }
/// ```
#[must_use = "a query does nothing until its records or keys are asked for"]
pub struct Query<T> {
    table: Table<T>,
    prefix: String,
    limit: u64,
    offset: u64,
    is_descending: bool,
}

impl<T> fmt::Debug for Query<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Query")
            .field("table", &self.table)
            .field("prefix", &self.prefix)
            .field("limit", &self.limit)
            .field("offset", &self.offset)
            .field("is_descending", &self.is_descending)
            .finish()
    }
}

impl<T> Query<T> {
    pub(super) fn new(table: Table<T>) -> Self {
        Self {
            table,
            prefix: String::new(),
            limit: 0,
            offset: 0,
            is_descending: false,
        }
    }

    /// Only keys that begin with this.
    ///
    /// ```no_run
    /// # fn example(counters: micro_sdk::store::Table<u64>) {
    /// let query = counters.list().prefix("2026-");
    /// # }
    /// ```
    pub fn prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// At most so many; all without. An answer of more than 64 MiB is refused: ask for less then.
    ///
    /// ```no_run
    /// # fn example(counters: micro_sdk::store::Table<u64>) {
    /// let query = counters.list().limit(100);
    /// # }
    /// ```
    pub fn limit(mut self, limit: u64) -> Self {
        self.limit = limit;
        self
    }

    /// Leaves out so many, in the order asked for.
    ///
    /// ```no_run
    /// # fn example(counters: micro_sdk::store::Table<u64>) {
    /// let query = counters.list().offset(100).limit(100);
    /// # }
    /// ```
    pub fn offset(mut self, offset: u64) -> Self {
        self.offset = offset;
        self
    }

    /// The last key first.
    ///
    /// ```no_run
    /// # fn example(counters: micro_sdk::store::Table<u64>) {
    /// let query = counters.list().descending();
    /// # }
    /// ```
    pub fn descending(mut self) -> Self {
        self.is_descending = true;
        self
    }

    fn order(&self) -> String {
        if self.is_descending { "desc" } else { "asc" }.to_owned()
    }

    /// The keys, without the values.
    ///
    /// ```no_run
    /// # async fn example(counters: micro_sdk::store::Table<u64>) -> Result<(), micro_sdk::Error> {
    /// let keys = counters.list().keys().await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// Those of every call.
    pub async fn keys(&self) -> Result<Vec<String>, Error> {
        let request = ListRequest {
            options: Some(ListOptions {
                table: self.table.name().to_owned(),
                prefix: self.prefix.clone(),
                limit: self.limit,
                offset: self.offset,
                order: self.order(),
                ..ListOptions::default()
            }),
        };
        let failed = |status| Error::call(self.what(), &status);
        let mut answers =
            call::stream::<_, ListResponse>(&self.table.mesh, "/store.Store/List", request)
                .await
                .map_err(failed)?;
        let mut keys = Vec::new();
        while let Some(answer) = answers.message().await.map_err(failed)? {
            keys.extend(answer.keys);
        }
        Ok(keys)
    }

    fn what(&self) -> String {
        format!("list table {}", self.table.name())
    }
}

impl<T: Serialize + DeserializeOwned> Query<T> {
    /// The records.
    ///
    /// ```no_run
    /// # async fn example(counters: micro_sdk::store::Table<u64>) -> Result<(), micro_sdk::Error> {
    /// for counter in counters.list().records().await? {
    ///     println!("{}: {}", counter.key, counter.value);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Invalid`](crate::Kind::Invalid) when one of the values is no `T`, and those of every call.
    pub async fn records(&self) -> Result<Vec<Record<T>>, Error> {
        let request = ReadRequest {
            key: self.prefix.clone(),
            options: Some(ReadOptions {
                table: self.table.name().to_owned(),
                prefix: true,
                limit: self.limit,
                offset: self.offset,
                order: self.order(),
                ..ReadOptions::default()
            }),
        };
        let answer: ReadResponse = call::unary(&self.table.mesh, "/store.Store/Read", request)
            .await
            .map_err(|status| Error::call(self.what(), &status))?;
        let records = answer.records.into_iter();
        records
            .map(|record| decode(self.table.name(), record))
            .collect()
    }
}
