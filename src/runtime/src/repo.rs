//! What the runtime remembers, in SQLite: services as they should be, their releases, uploaded
//! sources, users of sandboxes, and which instances were announced. Nothing else here knows SQL.

mod instances;
mod record;
mod releases;

use micro_core::{Namespace, Timestamp};
use micro_storage::{
    Sqlite,
    rusqlite::{self, Connection, OptionalExtension as _, Row, Transaction, params, types},
};
use serde::{Serialize, de::DeserializeOwned};

use crate::error::Error;

pub(crate) use record::{
    InstanceRow, Key, Options, Pending, Recipe, ReleaseRow, Served, ServiceRow, Status,
};

const COMPONENT: &str = "runtime";

/// Never edit a step; add one.
const STEPS: &[&str] = &["
    CREATE TABLE runtime_service (
        namespace TEXT NOT NULL, name TEXT NOT NULL, version TEXT NOT NULL,
        source TEXT NOT NULL,
        owner TEXT NOT NULL, team TEXT NOT NULL,
        metadata TEXT NOT NULL,
        options TEXT NOT NULL,
        status INTEGER NOT NULL,
        error TEXT NOT NULL DEFAULT '',
        release INTEGER,
        pending TEXT,
        attempts INTEGER NOT NULL DEFAULT 0,
        created INTEGER NOT NULL, updated INTEGER NOT NULL,
        PRIMARY KEY (namespace, name, version)
    ) STRICT;
    CREATE TABLE runtime_number (
        namespace TEXT NOT NULL, name TEXT NOT NULL, last INTEGER NOT NULL,
        PRIMARY KEY (namespace, name)
    ) STRICT;
    CREATE TABLE runtime_release (
        namespace TEXT NOT NULL, name TEXT NOT NULL, number INTEGER NOT NULL,
        version TEXT NOT NULL,
        digest TEXT NOT NULL,
        recipe TEXT NOT NULL,
        served TEXT,
        descriptors BLOB,
        created INTEGER NOT NULL,
        PRIMARY KEY (namespace, name, number)
    ) STRICT;
    CREATE TABLE runtime_source (
        namespace TEXT NOT NULL, name TEXT NOT NULL, version TEXT NOT NULL,
        tree TEXT NOT NULL, bytes INTEGER NOT NULL, created INTEGER NOT NULL,
        PRIMARY KEY (namespace, name, version)
    ) STRICT;
    CREATE TABLE runtime_user (
        namespace TEXT NOT NULL, service TEXT NOT NULL, number INTEGER NOT NULL UNIQUE,
        PRIMARY KEY (namespace, service)
    ) STRICT;
    CREATE TABLE runtime_instance (
        id TEXT NOT NULL PRIMARY KEY,
        namespace TEXT NOT NULL, name TEXT NOT NULL, version TEXT NOT NULL,
        release INTEGER NOT NULL, started INTEGER NOT NULL, ended INTEGER
    ) STRICT;
    CREATE INDEX runtime_instance_service ON runtime_instance (namespace, name);
"];

/// The tables.
#[derive(Clone)]
pub(crate) struct Repo {
    sqlite: Sqlite,
}

impl Repo {
    /// Opens the tables. Blocks for the migration.
    ///
    /// # Errors
    /// As the database.
    pub(crate) fn open(sqlite: &Sqlite) -> Result<Self, Error> {
        sqlite.migrate(COMPONENT, STEPS)?;
        Ok(Self {
            sqlite: sqlite.clone(),
        })
    }

    async fn write<T: Send + 'static>(
        &self,
        f: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, Error> {
        Ok(self.sqlite.write(f).await?)
    }

    async fn read<T: Send + 'static>(
        &self,
        f: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, Error> {
        Ok(self.sqlite.read(f).await?)
    }

    /// Writes down that a deployment begins: the row is made, or takes the new source and options.
    pub(crate) async fn begin(&self, row: ServiceRow) -> Result<(), Error> {
        self.write(move |tx| {
            tx.execute(
                "INSERT INTO runtime_service (namespace, name, version, source, owner, team, metadata,
                    options, status, error, pending, attempts, created, updated)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, '', ?10, 1, ?11, ?11)
                 ON CONFLICT DO UPDATE SET source = ?4, owner = ?5, team = ?6, metadata = ?7,
                    options = ?8, status = ?9, error = '', pending = ?10, attempts = 1, updated = ?11",
                params![
                    row.key.namespace.as_str(),
                    row.key.name.as_str(),
                    row.key.version.as_str(),
                    row.source,
                    row.owner,
                    row.group,
                    json(&row.metadata)?,
                    json(&row.options)?,
                    row.status as i64,
                    row.pending.as_ref().map(json).transpose()?,
                    row.updated.0,
                ],
            )
            .map(drop)
        })
        .await
    }

    /// Counts one more attempt at an unfinished deployment.
    pub(crate) async fn attempt(&self, key: Key) -> Result<(), Error> {
        self.write(move |tx| {
            tx.execute(
                "UPDATE runtime_service SET attempts = attempts + 1
                 WHERE namespace = ?1 AND name = ?2 AND version = ?3",
                key_params(&key),
            )
            .map(drop)
        })
        .await
    }

    /// Moves a service to another status.
    pub(crate) async fn set_status(
        &self,
        key: Key,
        status: Status,
        error: String,
        now: Timestamp,
    ) -> Result<(), Error> {
        self.write(move |tx| {
            tx.execute(
                "UPDATE runtime_service SET status = ?4, error = ?5, updated = ?6
                 WHERE namespace = ?1 AND name = ?2 AND version = ?3",
                params![
                    key.namespace.as_str(),
                    key.name.as_str(),
                    key.version.as_str(),
                    status as i64,
                    error,
                    now.0
                ],
            )
            .map(drop)
        })
        .await
    }

    /// Ends a deployment that failed: what served before still serves.
    pub(crate) async fn fail(
        &self,
        key: Key,
        status: Status,
        error: String,
        now: Timestamp,
    ) -> Result<(), Error> {
        self.write(move |tx| {
            tx.execute(
                "UPDATE runtime_service SET status = ?4, error = ?5, updated = ?6, pending = NULL
                 WHERE namespace = ?1 AND name = ?2 AND version = ?3",
                params![
                    key.namespace.as_str(),
                    key.name.as_str(),
                    key.version.as_str(),
                    status as i64,
                    error,
                    now.0
                ],
            )
            .map(drop)
        })
        .await
    }

    /// Ends a deployment that went well: `number` is what serves from now on.
    pub(crate) async fn serve(
        &self,
        key: Key,
        number: i64,
        served: Served,
        descriptors: Option<Vec<u8>>,
        now: Timestamp,
    ) -> Result<(), Error> {
        self.write(move |tx| {
            tx.execute(
                "UPDATE runtime_release SET served = ?4, descriptors = ?5
                 WHERE namespace = ?1 AND name = ?2 AND number = ?3",
                params![
                    key.namespace.as_str(),
                    key.name.as_str(),
                    number,
                    json(&served)?,
                    descriptors
                ],
            )?;
            tx.execute(
                "UPDATE runtime_service SET status = ?4, error = '', release = ?5, pending = NULL, updated = ?6
                 WHERE namespace = ?1 AND name = ?2 AND version = ?3",
                params![
                    key.namespace.as_str(),
                    key.name.as_str(),
                    key.version.as_str(),
                    Status::Running as i64,
                    number,
                    now.0
                ],
            )
            .map(drop)
        })
        .await
    }

    /// One service.
    pub(crate) async fn service(&self, key: Key) -> Result<Option<ServiceRow>, Error> {
        self.read(move |db| {
            db.query_row(
                &format!("{SERVICE} WHERE namespace = ?1 AND name = ?2 AND version = ?3"),
                key_params(&key),
                service,
            )
            .optional()
        })
        .await
    }

    /// The services of a namespace, or of all.
    pub(crate) async fn services(
        &self,
        namespace: Option<Namespace>,
    ) -> Result<Vec<ServiceRow>, Error> {
        self.read(move |db| {
            let mut query = db.prepare_cached(&format!(
                "{SERVICE} WHERE ?1 IS NULL OR namespace = ?1 ORDER BY namespace, name, version"
            ))?;
            query
                .query_map([namespace.as_ref().map(Namespace::as_str)], service)?
                .collect()
        })
        .await
    }

    /// Forgets a service with its releases and its source. Release numbers go on counting, and the
    /// sandbox's user stays with the data.
    pub(crate) async fn delete(&self, key: Key) -> Result<bool, Error> {
        self.write(move |tx| {
            for table in ["runtime_release", "runtime_source"] {
                tx.execute(
                    &format!(
                        "DELETE FROM {table} WHERE namespace = ?1 AND name = ?2 AND version = ?3"
                    ),
                    key_params(&key),
                )?;
            }
            let gone = tx.execute(
                "DELETE FROM runtime_service WHERE namespace = ?1 AND name = ?2 AND version = ?3",
                key_params(&key),
            )?;
            Ok(gone > 0)
        })
        .await
    }

    /// Points an upload's name at its tree.
    pub(crate) async fn put_source(
        &self,
        key: Key,
        tree: String,
        bytes: u64,
        now: Timestamp,
    ) -> Result<(), Error> {
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        self.write(move |tx| {
            tx.execute(
                "INSERT OR REPLACE INTO runtime_source (namespace, name, version, tree, bytes, created)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
                params![
                    key.namespace.as_str(),
                    key.name.as_str(),
                    key.version.as_str(),
                    tree,
                    bytes,
                    now.0
                ],
            )
            .map(drop)
        })
        .await
    }

    /// The tree of an upload.
    pub(crate) async fn source(&self, key: Key) -> Result<Option<String>, Error> {
        self.read(move |db| {
            db.query_row(
                "SELECT tree FROM runtime_source WHERE namespace = ?1 AND name = ?2 AND version = ?3",
                key_params(&key),
                |r| r.get(0),
            )
            .optional()
        })
        .await
    }

    /// Every tree some upload's name points at.
    pub(crate) async fn trees(&self) -> Result<Vec<String>, Error> {
        self.read(|db| {
            db.prepare_cached("SELECT tree FROM runtime_source")?
                .query_map([], |r| r.get(0))?
                .collect()
        })
        .await
    }
}

const SERVICE: &str =
    "SELECT namespace, name, version, source, owner, team, metadata, options, status, error,
    release, pending, attempts, created, updated FROM runtime_service";

fn service(r: &Row<'_>) -> rusqlite::Result<ServiceRow> {
    Ok(ServiceRow {
        key: Key {
            namespace: parsed(r, 0)?,
            name: parsed(r, 1)?,
            version: parsed(r, 2)?,
        },
        source: r.get(3)?,
        owner: r.get(4)?,
        group: r.get(5)?,
        metadata: unjson(r, 6)?,
        options: unjson(r, 7)?,
        status: Status::of(r.get(8)?),
        error: r.get(9)?,
        release: r.get(10)?,
        pending: r
            .get::<_, Option<String>>(11)?
            .map(|_| unjson(r, 11))
            .transpose()?,
        attempts: r.get(12)?,
        created: Timestamp(r.get(13)?),
        updated: Timestamp(r.get(14)?),
    })
}

fn key_params(key: &Key) -> [&str; 3] {
    [
        key.namespace.as_str(),
        key.name.as_str(),
        key.version.as_str(),
    ]
}

fn json(value: &impl Serialize) -> rusqlite::Result<String> {
    serde_json::to_string(value).map_err(|e| rusqlite::Error::ToSqlConversionFailure(Box::new(e)))
}

fn unjson<T: DeserializeOwned>(row: &Row<'_>, column: usize) -> rusqlite::Result<T> {
    let text: String = row.get(column)?;
    serde_json::from_str(&text).map_err(|e| conversion(column, e))
}

fn parsed<T: std::str::FromStr<Err = micro_core::id::InvalidName>>(
    row: &Row<'_>,
    column: usize,
) -> rusqlite::Result<T> {
    let text: String = row.get(column)?;
    text.parse().map_err(|e| conversion(column, e))
}

fn conversion(
    column: usize,
    error: impl std::error::Error + Send + Sync + 'static,
) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(column, types::Type::Text, Box::new(error))
}

#[cfg(test)]
mod tests;
