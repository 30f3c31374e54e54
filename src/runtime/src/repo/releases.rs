//! Releases and their numbers.

use micro_core::Timestamp;
use micro_storage::rusqlite::{self, OptionalExtension as _, params};

use super::{Key, Recipe, ReleaseRow, Repo, json, unjson};
use crate::error::Error;

impl Repo {
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
}
