//! What the runtime remembers, in SQLite: services as they should be, their releases, uploaded
//! sources, users of sandboxes, and which instances were announced. Nothing else here knows SQL.

use std::collections::BTreeMap;

use micro_core::{InstanceId, Namespace, ServiceName, Timestamp, Version};
use micro_storage::{
    Sqlite,
    rusqlite::{self, Connection, OptionalExtension as _, Row, Transaction, params, types},
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    error::Error,
    manifest::{Limits, Protocol},
};

const COMPONENT: &str = "runtime";
/// Ended instances remembered of one service.
const REMEMBERED: u32 = 20;

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

/// A service: its name, its version, and whose it is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) struct Key {
    /// The tenant.
    pub(crate) namespace: Namespace,
    /// The name.
    pub(crate) name: ServiceName,
    /// The version.
    pub(crate) version: Version,
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.name, self.version)
    }
}

/// Micro's status numbers (contract §8.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Status {
    /// A deployment waits.
    Pending = 1,
    /// A build runs.
    Building = 2,
    /// Instances start.
    Starting = 3,
    /// It serves.
    Running = 4,
    /// It is being stopped.
    Stopping = 5,
    /// It does not run, and should not.
    Stopped = 6,
    /// It should run and does not.
    Error = 7,
}

impl Status {
    /// Micro's word.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Building => "building",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Stopping => "stopping",
            Self::Stopped => "stopped",
            Self::Error => "error",
        }
    }

    fn of(number: i64) -> Self {
        match number {
            1 => Self::Pending,
            2 => Self::Building,
            3 => Self::Starting,
            4 => Self::Running,
            5 => Self::Stopping,
            6 => Self::Stopped,
            _ => Self::Error,
        }
    }
}

/// What the person who deploys asked for, besides the source.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Options {
    /// Instead of what the source says.
    pub(crate) command: Vec<String>,
    /// After the command.
    pub(crate) args: Vec<String>,
    /// Environment of the service.
    pub(crate) env: BTreeMap<String, String>,
    /// More environment, and `GIT_CREDENTIALS`.
    pub(crate) secrets: BTreeMap<String, String>,
    /// Folder of the service below the source's root.
    pub(crate) entrypoint: String,
    /// Copies to run; 0 for what the source says.
    pub(crate) instances: u32,
}

/// A deployment that has begun: enough to begin it again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Pending {
    /// What to deploy.
    pub(crate) source: String,
    /// The namespace in which an uploaded source is looked for besides the service's own.
    pub(crate) uploader: Namespace,
    /// Whether the caller may deploy from the node's own disk.
    pub(crate) operator: bool,
}

/// A service as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ServiceRow {
    /// Which.
    pub(crate) key: Key,
    /// What was deployed last.
    pub(crate) source: String,
    /// Who deployed it.
    pub(crate) owner: String,
    /// The owner's namespace.
    pub(crate) group: String,
    /// The deployer's own notes; `source` among them.
    pub(crate) metadata: BTreeMap<String, String>,
    /// What was asked for.
    pub(crate) options: Options,
    /// Where it is.
    pub(crate) status: Status,
    /// Why it is not where it should be.
    pub(crate) error: String,
    /// The release that serves.
    pub(crate) release: Option<i64>,
    /// A deployment that has not ended.
    pub(crate) pending: Option<Pending>,
    /// How often that deployment began.
    pub(crate) attempts: u32,
    /// First deployed.
    pub(crate) created: Timestamp,
    /// Last changed.
    pub(crate) updated: Timestamp,
}

/// Everything needed to start an instance of a release. Immutable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Recipe {
    /// Program and arguments.
    pub(crate) argv: Vec<String>,
    /// Where, as the instance sees it.
    pub(crate) cwd: std::path::PathBuf,
    /// The author's and the deployer's environment, secrets included.
    pub(crate) env: BTreeMap<String, String>,
    /// What the language needs; the author may override it.
    pub(crate) language_env: Vec<(String, String)>,
    /// More directories for `PATH`.
    pub(crate) path: Vec<String>,
    /// The toolchain to bind while it runs.
    pub(crate) toolchain: Option<String>,
    /// Bounds below the node's.
    pub(crate) limits: Limits,
    /// Copies to run.
    pub(crate) instances: u32,
    /// What it speaks, when the author says so.
    pub(crate) protocol: Option<Protocol>,
    /// The author's descriptor set, relative to the artifact.
    pub(crate) descriptor: Option<String>,
}

/// How an instance of a release was found to serve.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Served {
    /// `None`: it registers itself.
    pub(crate) protocol: Option<Protocol>,
}

/// A release.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ReleaseRow {
    /// Counted from 1 over all versions of a service, and never used again.
    pub(crate) number: i64,
    /// Whose.
    pub(crate) key: Key,
    /// The artifact.
    pub(crate) digest: String,
    /// How to start it.
    pub(crate) recipe: Recipe,
    /// How it served, once it did.
    pub(crate) served: Option<Served>,
    /// Its descriptor set.
    pub(crate) descriptors: Option<Vec<u8>>,
}

/// An instance we started and have not seen ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct InstanceRow {
    /// Which.
    pub(crate) id: InstanceId,
    /// Of what.
    pub(crate) key: Key,
}

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

    /// Stores a release under the next number of its service.
    pub(crate) async fn add_release(
        &self,
        key: Key,
        digest: String,
        recipe: Recipe,
        now: Timestamp,
    ) -> Result<ReleaseRow, Error> {
        let row = self
            .write(move |tx| {
                let number: i64 = tx.query_row(
                    "INSERT INTO runtime_number (namespace, name, last) VALUES (?1, ?2, 1)
                     ON CONFLICT DO UPDATE SET last = last + 1 RETURNING last",
                    [key.namespace.as_str(), key.name.as_str()],
                    |r| r.get(0),
                )?;
                tx.execute(
                    "INSERT INTO runtime_release (namespace, name, number, version, digest, recipe, created)
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
                    params![
                        key.namespace.as_str(),
                        key.name.as_str(),
                        number,
                        key.version.as_str(),
                        digest,
                        json(&recipe)?,
                        now.0
                    ],
                )?;
                Ok(ReleaseRow {
                    number,
                    key,
                    digest,
                    recipe,
                    served: None,
                    descriptors: None,
                })
            })
            .await?;
        Ok(row)
    }

    /// One release.
    pub(crate) async fn release(&self, key: Key, number: i64) -> Result<Option<ReleaseRow>, Error> {
        self.read(move |db| {
            db.query_row(
                "SELECT digest, recipe, served, descriptors FROM runtime_release
                 WHERE namespace = ?1 AND name = ?2 AND number = ?3",
                params![key.namespace.as_str(), key.name.as_str(), number],
                |r| {
                    Ok(ReleaseRow {
                        number,
                        key: key.clone(),
                        digest: r.get(0)?,
                        recipe: unjson(r, 1)?,
                        served: r
                            .get::<_, Option<String>>(2)?
                            .map(|_| unjson(r, 2))
                            .transpose()?,
                        descriptors: r.get(3)?,
                    })
                },
            )
            .optional()
        })
        .await
    }

    /// Forgets all but the last `keep` releases of a service, never the one that serves, and returns
    /// the artifacts that nothing refers to any more.
    pub(crate) async fn prune_releases(&self, key: Key, keep: u32) -> Result<Vec<String>, Error> {
        self.write(move |tx| {
            let mut query = tx.prepare_cached(
                "DELETE FROM runtime_release WHERE namespace = ?1 AND name = ?2 AND version = ?3
                   AND number NOT IN (SELECT number FROM runtime_release
                        WHERE namespace = ?1 AND name = ?2 AND version = ?3
                        ORDER BY number DESC LIMIT ?4)
                   AND number NOT IN (SELECT release FROM runtime_service
                        WHERE namespace = ?1 AND name = ?2 AND release IS NOT NULL)
                 RETURNING digest",
            )?;
            let gone: Vec<String> = query
                .query_map(
                    params![
                        key.namespace.as_str(),
                        key.name.as_str(),
                        key.version.as_str(),
                        keep
                    ],
                    |r| r.get(0),
                )?
                .collect::<rusqlite::Result<_>>()?;
            let mut free = Vec::new();
            for digest in gone {
                let used: bool = tx.query_row(
                    "SELECT EXISTS (SELECT 1 FROM runtime_release WHERE digest = ?1)",
                    [&digest],
                    |r| r.get(0),
                )?;
                if !used {
                    free.push(digest);
                }
            }
            Ok(free)
        })
        .await
    }

    /// Every artifact some release refers to.
    pub(crate) async fn digests(&self) -> Result<Vec<String>, Error> {
        self.read(|db| {
            db.prepare_cached("SELECT DISTINCT digest FROM runtime_release")?
                .query_map([], |r| r.get(0))?
                .collect()
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

    /// The sandbox's user of a service, or of the builds of a namespace. Made once, kept for good: its
    /// files may still be there.
    pub(crate) async fn user(
        &self,
        namespace: Namespace,
        service: Option<ServiceName>,
    ) -> Result<u32, Error> {
        let find = "SELECT number FROM runtime_user WHERE namespace = ?1 AND service = ?2";
        let name = service.map_or_else(String::new, String::from);
        let (known_namespace, known_name) = (namespace.clone(), name.clone());
        let known = self
            .read(move |db| {
                db.query_row(find, [known_namespace.as_str(), &known_name], |r| r.get(0))
                    .optional()
            })
            .await?;
        if let Some(number) = known {
            return Ok(number);
        }
        self.write(move |tx| {
            tx.execute(
                "INSERT INTO runtime_user (namespace, service, number)
                 SELECT ?1, ?2, COALESCE(MAX(number), 0) + 1 FROM runtime_user WHERE true
                 ON CONFLICT (namespace, service) DO NOTHING",
                [namespace.as_str(), &name],
            )?;
            tx.query_row(find, [namespace.as_str(), &name], |r| r.get(0))
        })
        .await
    }

    /// Writes down an instance before it is started.
    pub(crate) async fn add_instance(
        &self,
        id: InstanceId,
        key: Key,
        release: i64,
        now: Timestamp,
    ) -> Result<(), Error> {
        self.write(move |tx| {
            tx.execute(
                "INSERT INTO runtime_instance (id, namespace, name, version, release, started)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
                params![
                    id.as_str(),
                    key.namespace.as_str(),
                    key.name.as_str(),
                    key.version.as_str(),
                    release,
                    now.0
                ],
            )
            .map(drop)
        })
        .await
    }

    /// Writes down that an instance has ended and was withdrawn. The last few are remembered, because
    /// their output is kept and says nothing of versions.
    pub(crate) async fn end_instance(&self, id: InstanceId, now: Timestamp) -> Result<(), Error> {
        self.write(move |tx| {
            tx.execute(
                "UPDATE runtime_instance SET ended = ?2 WHERE id = ?1",
                params![id.as_str(), now.0],
            )?;
            tx.execute(
                "DELETE FROM runtime_instance WHERE ended IS NOT NULL AND id IN (
                    SELECT other.id FROM runtime_instance AS other, runtime_instance AS this
                    WHERE this.id = ?1 AND other.namespace = this.namespace AND other.name = this.name
                    ORDER BY other.id DESC LIMIT -1 OFFSET ?2)",
                params![id.as_str(), REMEMBERED],
            )
            .map(drop)
        })
        .await
    }

    /// The version of each instance of a service that is remembered.
    pub(crate) async fn versions(
        &self,
        namespace: Namespace,
        name: ServiceName,
    ) -> Result<BTreeMap<InstanceId, Version>, Error> {
        self.read(move |db| {
            db.prepare_cached(
                "SELECT id, version FROM runtime_instance WHERE namespace = ?1 AND name = ?2",
            )?
            .query_map([namespace.as_str(), name.as_str()], |r| {
                Ok((parsed(r, 0)?, parsed(r, 1)?))
            })?
            .collect()
        })
        .await
    }

    /// The instances we have not seen ended.
    pub(crate) async fn instances(&self) -> Result<Vec<InstanceRow>, Error> {
        self.read(|db| {
            db.prepare_cached(
                "SELECT id, namespace, name, version FROM runtime_instance
                 WHERE ended IS NULL ORDER BY id",
            )?
            .query_map([], |r| {
                Ok(InstanceRow {
                    id: parsed(r, 0)?,
                    key: Key {
                        namespace: parsed(r, 1)?,
                        name: parsed(r, 2)?,
                        version: parsed(r, 3)?,
                    },
                })
            })?
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
