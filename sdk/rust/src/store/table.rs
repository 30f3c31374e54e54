//! A table of values of one type.

use std::{fmt, marker::PhantomData, sync::Arc, time::Duration};

use serde::{Serialize, de::DeserializeOwned};

use super::{Batch, Query, Watch};
use crate::{
    Error, Kind, Mesh, call,
    wire::store::{
        self as wire, DeleteRequest, DeleteResponse, ReadOptions, ReadRequest, ReadResponse,
        WriteOptions, WriteRequest, WriteResponse,
    },
};

/// A table of values of type `T`. Made by [`Store::table`](super::Store::table); clones are cheap.
///
/// ```no_run
/// let counters = micro_sdk::mesh().store().table::<u64>("counters");
/// ```
pub struct Table<T> {
    pub(super) mesh: Mesh,
    pub(super) name: Arc<str>,
    value: PhantomData<fn(T) -> T>,
}

// By hand: a `T` need not be `Clone` or `Debug` for its table to be.
impl<T> Clone for Table<T> {
    fn clone(&self) -> Self {
        Self {
            mesh: self.mesh.clone(),
            name: Arc::clone(&self.name),
            value: PhantomData,
        }
    }
}

impl<T> fmt::Debug for Table<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Table").field(&self.name).finish()
    }
}

/// A value with its key, as it was read.
///
/// ```no_run
/// # async fn example(counters: micro_sdk::store::Table<u64>) -> Result<(), micro_sdk::Error> {
/// if let Some(counter) = counters.get("visits").await? {
///     println!("{} visits, at revision {}", counter.value, counter.revision);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Record<T> {
    /// Its key.
    pub key: String,
    /// Its value.
    pub value: T,
    /// What [`Table::update`] and [`Table::delete_at`] compare. Grows with every change.
    pub revision: u64,
    /// How long it will still be there, in whole seconds; `None` without an end.
    pub expires_in: Option<Duration>,
}

impl<T> Table<T> {
    pub(super) fn new(mesh: Mesh, name: String) -> Self {
        Self {
            mesh,
            name: name.into(),
            value: PhantomData,
        }
    }

    /// What it is called.
    ///
    /// ```no_run
    /// # fn example(table: micro_sdk::store::Table<u64>) {
    /// println!("{}", table.name());
    /// # }
    /// ```
    pub fn name(&self) -> &str {
        &self.name
    }

    fn options(&self) -> Option<WriteOptions> {
        Some(WriteOptions {
            database: String::new(),
            table: self.name.to_string(),
        })
    }

    fn named<'a>(&'a self, verb: &'a str, key: &'a str) -> Named<'a> {
        Named {
            verb,
            key,
            table: &self.name,
        }
    }

    /// Deletes the record, if there is one.
    ///
    /// ```no_run
    /// # async fn example(counters: micro_sdk::store::Table<u64>) -> Result<(), micro_sdk::Error> {
    /// counters.delete("visits").await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// Those of every call.
    pub async fn delete(&self, key: &str) -> Result<(), Error> {
        let request = DeleteRequest {
            key: key.to_owned(),
            options: self.options(),
        };
        let answer = call::unary(&self.mesh, "/store.Store/Delete", request).await;
        answer
            .map(|_: DeleteResponse| ())
            .map_err(|status| Error::call(self.named("delete", key), &status))
    }

    /// Deletes the record if it is still the one of `revision`.
    ///
    /// ```no_run
    /// # async fn example(counters: micro_sdk::store::Table<u64>) -> Result<(), micro_sdk::Error> {
    /// if let Some(counter) = counters.get("visits").await? {
    ///     counters.delete_at("visits", counter.revision).await?;
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Conflict`](Kind::Conflict) when it is another one or there is none; those of every call.
    pub async fn delete_at(&self, key: &str, revision: u64) -> Result<(), Error> {
        let mut batch = Batch::new(self.mesh.clone());
        batch.delete_at(self, key, revision);
        batch.commit_as(self.named("delete", key)).await.map(|_| ())
    }
}

impl<T: Serialize + DeserializeOwned> Table<T> {
    /// The record of `key`; `None` when there is none.
    ///
    /// ```no_run
    /// # async fn example(counters: micro_sdk::store::Table<u64>) -> Result<(), micro_sdk::Error> {
    /// let visits = counters.get("visits").await?.map_or(0, |counter| counter.value);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Invalid`](Kind::Invalid) when the value is no `T`, and those of every call.
    pub async fn get(&self, key: &str) -> Result<Option<Record<T>>, Error> {
        let request = ReadRequest {
            key: key.to_owned(),
            options: Some(ReadOptions {
                table: self.name.to_string(),
                ..ReadOptions::default()
            }),
        };
        let answer: Result<ReadResponse, _> =
            call::unary(&self.mesh, "/store.Store/Read", request).await;
        match answer {
            Ok(answer) => answer
                .records
                .into_iter()
                .next()
                .map(|record| decode(&self.name, record))
                .transpose(),
            Err(status) => {
                let error = Error::call(self.named("read", key), &status);
                if error.kind() == Kind::NotFound {
                    return Ok(None);
                }
                Err(error)
            }
        }
    }

    /// Writes the value, whatever was there; gives the new revision. It is on disk then.
    ///
    /// ```no_run
    /// # async fn example(counters: micro_sdk::store::Table<u64>) -> Result<(), micro_sdk::Error> {
    /// counters.put("visits", &1).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// Those of every call.
    pub async fn put(&self, key: &str, value: &T) -> Result<u64, Error> {
        self.write(key, value, 0).await
    }

    /// As [`put`](Self::put); the record is gone after `lifetime`, which counts in whole seconds.
    ///
    /// ```no_run
    /// # async fn example(sessions: micro_sdk::store::Table<String>) -> Result<(), micro_sdk::Error> {
    /// let day = std::time::Duration::from_secs(24 * 3600);
    /// sessions.put_for("c0ffee", &"alice".to_owned(), day).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// Those of every call.
    pub async fn put_for(&self, key: &str, value: &T, lifetime: Duration) -> Result<u64, Error> {
        self.write(key, value, seconds(lifetime)).await
    }

    /// Writes the value if there is none yet.
    ///
    /// ```no_run
    /// # async fn example(counters: micro_sdk::store::Table<u64>) -> Result<(), micro_sdk::Error> {
    /// counters.create("visits", &0).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Conflict`](Kind::Conflict) when there is one; those of every call.
    pub async fn create(&self, key: &str, value: &T) -> Result<u64, Error> {
        let mut batch = Batch::new(self.mesh.clone());
        batch.create(self, key, value);
        batch.commit_as(self.named("create", key)).await
    }

    /// Writes the value if the record is still the one of `revision`: what was read and thought
    /// about is not written over what somebody else wrote meanwhile.
    ///
    /// ```no_run
    /// # async fn example(counters: micro_sdk::store::Table<u64>) -> Result<(), micro_sdk::Error> {
    /// if let Some(counter) = counters.get("visits").await? {
    ///     counters.update("visits", &(counter.value + 1), counter.revision).await?;
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Conflict`](Kind::Conflict) when it is another one or there is none; those of every call.
    pub async fn update(&self, key: &str, value: &T, revision: u64) -> Result<u64, Error> {
        let mut batch = Batch::new(self.mesh.clone());
        batch.update(self, key, value, revision);
        batch.commit_as(self.named("update", key)).await
    }

    /// Some or all of the records, in the order of their keys.
    ///
    /// ```no_run
    /// # async fn example(counters: micro_sdk::store::Table<u64>) -> Result<(), micro_sdk::Error> {
    /// let newest = counters.list().prefix("2026-").descending().limit(10).records().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn list(&self) -> Query<T> {
        Query::new(self.clone())
    }

    /// The records whose keys begin with `prefix` as they are, then each change. See [`Watch`].
    ///
    /// ```no_run
    /// # async fn example(counters: micro_sdk::store::Table<u64>) {
    /// let mut changes = counters.watch("2026-");
    /// # }
    /// ```
    pub fn watch(&self, prefix: &str) -> Watch<T>
    where
        T: Send + 'static,
    {
        Watch::new(self.mesh.clone(), &self.name, prefix)
    }

    async fn write(&self, key: &str, value: &T, expiry: i64) -> Result<u64, Error> {
        let request = WriteRequest {
            record: Some(record(self.named("write", key), key, value, expiry)?),
            options: self.options(),
        };
        let answer: Result<WriteResponse, _> =
            call::unary(&self.mesh, "/store.Store/Write", request).await;
        match answer {
            Ok(answer) => Ok(answer.revision),
            Err(status) => Err(Error::call(self.named("write", key), &status)),
        }
    }
}

/// `write a of table notes`, made only when something went wrong.
#[derive(Clone, Copy)]
pub(super) struct Named<'a> {
    pub(super) verb: &'a str,
    pub(super) key: &'a str,
    pub(super) table: &'a str,
}

impl fmt::Display for Named<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?} of table {}", self.verb, self.key, self.table)
    }
}

/// At least one second: 0 is never on the wire.
pub(super) fn seconds(lifetime: Duration) -> i64 {
    i64::try_from(lifetime.as_secs().max(1)).unwrap_or(i64::MAX)
}

pub(super) fn record<T: Serialize>(
    what: impl fmt::Display,
    key: &str,
    value: &T,
    expiry: i64,
) -> Result<wire::Record, Error> {
    Ok(wire::Record {
        key: key.to_owned(),
        value: call::to_json(what, value)?,
        expiry,
        revision: 0,
    })
}

pub(super) fn decode<T: DeserializeOwned>(
    table: &str,
    record: wire::Record,
) -> Result<Record<T>, Error> {
    let what = Named {
        verb: "read",
        key: &record.key,
        table,
    };
    Ok(Record {
        value: call::from_json(what, &record.value)?,
        key: record.key,
        revision: record.revision,
        expires_in: u64::try_from(record.expiry)
            .ok()
            .filter(|seconds| *seconds > 0)
            .map(Duration::from_secs),
    })
}
