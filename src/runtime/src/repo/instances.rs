//! Instances that were started, and the users they and the builds run as.

use std::collections::BTreeMap;

use micro_core::{InstanceId, Namespace, ServiceName, Timestamp, Version};
use micro_storage::rusqlite::{OptionalExtension as _, params};

use super::{InstanceRow, Key, Repo, parsed};
use crate::error::Error;

/// Ended instances remembered of one service.
const REMEMBERED: u32 = 20;

impl Repo {
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
