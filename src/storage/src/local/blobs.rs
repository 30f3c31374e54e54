//! The blobs of each namespace: one handle that all share, so that they are counted together, and
//! against the quota.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use micro_core::Namespace;

use super::Shared;
use crate::{Blobs, Error, disk::Disk};

/// All handles.
pub(crate) struct BlobStores {
    disk: Arc<dyn Disk>,
    root: PathBuf,
    stores: Mutex<HashMap<Namespace, Blobs>>,
}

impl BlobStores {
    pub(crate) fn new(disk: Arc<dyn Disk>, root: &Path) -> Self {
        Self {
            disk,
            root: root.to_owned(),
            stores: Mutex::default(),
        }
    }

    /// The blobs of `namespace`.
    pub(crate) fn of(&self, namespace: &Namespace, shared: &Arc<Shared>) -> Blobs {
        let mut stores = self.lock();
        if let Some(blobs) = stores.get(namespace) {
            return blobs.clone();
        }
        let allow = {
            // The handles live in what they ask.
            let (shared, namespace) = (Arc::downgrade(shared), namespace.clone());
            move |bytes: u64| {
                let Some(shared) = shared.upgrade() else {
                    return Err(Error::Closed);
                };
                shared.open_or_closed()?;
                shared.allow_blobs(&namespace, bytes)
            }
        };
        let blobs = Blobs::on(
            Arc::clone(&self.disk),
            &self.root,
            namespace,
            Some(Box::new(allow)),
        );
        stores.insert(namespace.clone(), blobs.clone());
        blobs
    }

    /// The namespaces that have files of blobs, in order.
    pub(crate) fn namespaces(&self) -> Result<Vec<Namespace>, Error> {
        crate::blobs::namespaces(&*self.disk, &self.root)
    }

    /// Bytes in blobs. May read the directory.
    pub(crate) fn bytes(&self, namespace: &Namespace, shared: &Arc<Shared>) -> u64 {
        self.of(namespace, shared).bytes().unwrap_or_else(|error| {
            tracing::warn!(%error, %namespace, "The blobs cannot be counted.");
            0
        })
    }

    /// As [`BlobStores::bytes`], of those that were ever asked for.
    pub(crate) fn known_bytes(&self, namespace: &Namespace) -> u64 {
        let blobs = self.lock().get(namespace).cloned();
        blobs.map_or(0, |blobs| blobs.bytes().unwrap_or(0))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Namespace, Blobs>> {
        self.stores.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shared {
    /// Whether the blobs of a namespace may have this many bytes altogether.
    fn allow_blobs(&self, namespace: &Namespace, bytes: u64) -> Result<(), Error> {
        let (rows, quota) = self.ledger.rows_and_quota(namespace);
        let held = rows.saturating_add(self.topics.usage(namespace));
        match quota {
            Some(limit) if held.saturating_add(bytes) > limit => Err(Error::Quota {
                namespace: namespace.clone(),
                limit,
            }),
            _ => Ok(()),
        }
    }
}
