//! [`Service`] and [`Handle`]: documents as they are, and each change as one durable step.
//!
//! Changes of a namespace take turns here; on top of that each batch expects the revision that it
//! was made from, so that nothing is lost even when a caller gives up while its commit is on the
//! way. Secrets are encrypted within the turn: that is what [`crate::rotation`] relies on.

use std::{
    hash::{BuildHasher as _, RandomState},
    sync::Arc,
};

use micro_core::{Clock, Namespace, Timestamp};
use micro_proto::config::config_server::ConfigServer;
use micro_storage::{Expect, Revision, Space, Storage};
use moka::sync::Cache;
use tokio::sync::{Mutex, MutexGuard};
use tokio_util::sync::CancellationToken;

use crate::{
    Action, Entry, Error, KeySource, Rpc, Watch,
    document::{self, NOTHING, Node},
    history,
    keys::Keys,
    path::Path,
    record::{self, Change, DOCUMENT, HEAD, Head, TABLE},
    secrets::Place,
};

/// Bytes of a document as it is stored.
pub(crate) const DOCUMENT_BYTES: usize = 1024 * 1024;
/// How often somebody may come in between.
pub(crate) const ATTEMPTS: usize = 100;
/// Namespaces that change at the same time, more or less.
const TURNS: usize = 64;
/// Memory for documents that were read.
const CACHE_BYTES: u64 = 32 * 1024 * 1024;
/// A document takes about so many times its stored bytes in memory when its values are small.
const CACHE_FACTOR: usize = 8;

/// How secrets are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Secrets {
    /// As `"[secret]"`.
    Masked,
    /// Decrypted.
    Open,
}

/// The documents of all namespaces.
pub struct Service {
    handle: Handle,
}

/// Reads and changes documents. Clones share them. Who may do what is asked elsewhere.
#[derive(Clone)]
pub struct Handle {
    inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) storage: Storage,
    pub(crate) keys: Keys,
    clock: Clock,
    cache: Cache<Namespace, Arc<Stored>>,
    hasher: RandomState,
    pub(crate) turns: Vec<Mutex<()>>,
    /// Held while all secrets are encrypted again.
    pub(crate) rotating: Mutex<()>,
    stopped: CancellationToken,
}

/// A document as it was at a revision.
#[derive(Debug)]
pub(crate) struct Stored {
    /// `None`: there never was a document.
    pub(crate) revision: Option<Revision>,
    pub(crate) head: Head,
    /// `None`: there is no document now.
    pub(crate) root: Option<Node>,
    bytes: usize,
}

/// Who makes a change, and which.
struct Author<'a> {
    action: Action,
    path: &'a Path,
    by: &'a str,
}

impl Service {
    /// Opens the documents in `storage`. The keys of secrets are looked for when they are needed.
    pub fn open(storage: &Storage, keys: KeySource, clock: Clock) -> Self {
        let weigh = |_: &Namespace, stored: &Arc<Stored>| {
            u32::try_from(256 + CACHE_FACTOR * stored.bytes).unwrap_or(u32::MAX)
        };
        let inner = Inner {
            storage: storage.clone(),
            keys: Keys::new(keys),
            clock,
            cache: Cache::builder()
                .max_capacity(CACHE_BYTES)
                .weigher(weigh)
                .build(),
            hasher: RandomState::new(),
            turns: (0..TURNS).map(|_| Mutex::default()).collect(),
            rotating: Mutex::default(),
            stopped: CancellationToken::new(),
        };
        Self {
            handle: Handle {
                inner: Arc::new(inner),
            },
        }
    }

    /// A handle on these documents.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// `config.Config` over gRPC.
    pub fn server(&self) -> ConfigServer<Rpc> {
        ConfigServer::new(Rpc::new(self.handle()))
    }

    /// Finishes a rotation of the key that was interrupted; then waits for `stop` and ends all
    /// watches.
    pub async fn run(self, stop: CancellationToken) {
        tokio::select! {
            () = self.handle.finish_rotation() => stop.cancelled().await,
            () = stop.cancelled() => {}
        }
        self.handle.inner.stopped.cancel();
    }
}

impl Handle {
    /// The JSON at a path; `null` for nothing.
    ///
    /// # Errors
    /// `NotFound` when the namespace has no document; `Precondition` for secrets whose key is not
    /// here.
    pub fn get(&self, ns: &Namespace, path: &str, secrets: Secrets) -> Result<String, Error> {
        Ok(self.read(ns, path, secrets)?.0)
    }

    /// As [`Self::get`], with the time of the last change of the document.
    ///
    /// # Errors
    /// Those of [`Self::get`].
    pub fn read(
        &self,
        ns: &Namespace,
        path: &str,
        secrets: Secrets,
    ) -> Result<(String, Timestamp), Error> {
        let path = Path::parse(path)?;
        let space = self.inner.storage.space(ns);
        self.fresh(|| {
            let stored = self.load(&space)?;
            let root = stored.root.as_ref().ok_or(Error::NotFound)?;
            let json = self.json(ns, &path, root.get(path.segments()), secrets)?;
            Ok((json, Timestamp(stored.head.changed_ms)))
        })
    }

    /// Merges JSON in at a path: objects member by member, everything else replaces what was there.
    /// With `secret`, each leaf of it is encrypted. Gives the version of the document.
    ///
    /// # Errors
    /// `Invalid` for what is no JSON or no path; `Exhausted` when the document would be too large;
    /// `Precondition` when the keys of secrets cannot be used.
    pub async fn set(
        &self,
        ns: &Namespace,
        path: &str,
        json: &str,
        secret: bool,
        by: &str,
    ) -> Result<u64, Error> {
        let path = Path::parse(path)?;
        let plain = Node::parse(json, &path)?;
        let author = Author {
            action: Action::Set,
            path: &path,
            by,
        };
        let space = self.inner.storage.space(ns);
        let _turn = self.turn(ns).await;
        for _ in 0..ATTEMPTS {
            let stored = self.load(&space)?;
            let value = if secret {
                let ring = self.inner.keys.need()?;
                ring.seal_all(ns, path.segments(), &plain)?
            } else {
                plain.clone()
            };
            let mut root = stored.root.clone().unwrap_or_else(Node::empty);
            root.merge(path.segments(), value);
            if let Some(version) = self.commit(&space, &stored, Some(root), &author).await? {
                return Ok(version);
            }
        }
        Err(Error::Busy)
    }

    /// Takes away what is at a path; the whole document when the path is empty. Gives the version of
    /// the document.
    ///
    /// # Errors
    /// `NotFound` when the namespace has no document.
    pub async fn delete(&self, ns: &Namespace, path: &str, by: &str) -> Result<u64, Error> {
        let path = Path::parse(path)?;
        let author = Author {
            action: Action::Delete,
            path: &path,
            by,
        };
        let space = self.inner.storage.space(ns);
        let _turn = self.turn(ns).await;
        for _ in 0..ATTEMPTS {
            let stored = self.load(&space)?;
            let mut root = stored.root.clone().ok_or(Error::NotFound)?;
            root.remove(path.segments());
            let root = (!path.is_root()).then_some(root);
            if let Some(version) = self.commit(&space, &stored, root, &author).await? {
                return Ok(version);
            }
        }
        Err(Error::Busy)
    }

    /// Makes the document what it was after `version`, secrets included, as a new change. Gives the
    /// version of the document.
    ///
    /// # Errors
    /// `Invalid` when the history does not lead back to that version; `NotFound` when there never
    /// was a document.
    pub async fn revert(&self, ns: &Namespace, version: u64, by: &str) -> Result<u64, Error> {
        let author = Author {
            action: Action::Revert,
            path: &Path::default(),
            by,
        };
        let space = self.inner.storage.space(ns);
        let _turn = self.turn(ns).await;
        for _ in 0..ATTEMPTS {
            let stored = self.load(&space)?;
            let (there, now) = (space.clone(), Arc::clone(&stored));
            let root =
                tokio::task::spawn_blocking(move || history::at_version(&there, &now, version))
                    .await
                    .map_err(|_| Error::Panicked)?;
            if self.load(&space)?.revision != stored.revision {
                continue;
            }
            if let Some(version) = self.commit(&space, &stored, root?, &author).await? {
                return Ok(version);
            }
        }
        Err(Error::Busy)
    }

    /// The changes of what is at a path, the newest first, secrets masked; `limit` 0 means 50. Fewer
    /// than there are when they are long.
    ///
    /// # Errors
    /// `Invalid` for what is no path.
    pub async fn history(
        &self,
        ns: &Namespace,
        path: &str,
        limit: u64,
    ) -> Result<Vec<Entry>, Error> {
        let path = Path::parse(path)?;
        let space = self.inner.storage.space(ns);
        let stored = self.load(&space)?;
        tokio::task::spawn_blocking(move || history::entries(&space, &stored, &path, limit))
            .await
            .map_err(|_| Error::Panicked)?
    }

    /// The value at a path, now and each time it changes. There may be none yet.
    ///
    /// # Errors
    /// `Invalid` for what is no path.
    pub fn watch(&self, ns: &Namespace, path: &str, secrets: Secrets) -> Result<Watch, Error> {
        let path = Path::parse(path)?;
        let space = self.inner.storage.space(ns);
        Ok(Watch::new(self.clone(), space, path, secrets))
    }

    pub(crate) fn inner(&self) -> &Inner {
        &self.inner
    }

    pub(crate) fn stopped(&self) -> CancellationToken {
        self.inner.stopped.clone()
    }

    /// Nobody else changes documents of `ns` while this is held.
    pub(crate) async fn turn(&self, ns: &Namespace) -> Option<MutexGuard<'_, ()>> {
        let turns = &self.inner.turns;
        let hash = self.inner.hasher.hash_one(ns.as_str());
        let which = usize::try_from(hash % turns.len().max(1) as u64).unwrap_or(0);
        // There is one for every remainder.
        match turns.get(which) {
            Some(turn) => Some(turn.lock().await),
            None => None,
        }
    }

    /// The document as it is.
    pub(crate) fn load(&self, space: &Space) -> Result<Arc<Stored>, Error> {
        for _ in 0..ATTEMPTS {
            let Some(row) = space.get(TABLE, HEAD)? else {
                return Ok(Arc::new(Stored {
                    revision: None,
                    head: Head::default(),
                    root: None,
                    bytes: 0,
                }));
            };
            if let Some(stored) = self.inner.cache.get(space.namespace())
                && stored.revision == Some(row.revision)
            {
                return Ok(stored);
            }
            let head = record::decode_head(&row.value)?;
            let document = space.get(TABLE, DOCUMENT)?;
            let (root, bytes) = match document {
                // Every change rewrites both, so anything else is a change in between.
                Some(document) if head.exists && document.revision == row.revision => {
                    let root = record::decode_document(&document.value)?;
                    (Some(root), document.value.len())
                }
                None if !head.exists => (None, 0),
                _ => continue,
            };
            let stored = Arc::new(Stored {
                revision: Some(row.revision),
                head,
                root,
                bytes,
            });
            self.keep(space, &stored);
            return Ok(stored);
        }
        Err(Error::Busy)
    }

    fn keep(&self, space: &Space, stored: &Arc<Stored>) {
        self.inner
            .cache
            .insert(space.namespace().clone(), Arc::clone(stored));
    }

    /// Makes `root` the document after `stored`. `None` when somebody came in between.
    async fn commit(
        &self,
        space: &Space,
        stored: &Stored,
        root: Option<Node>,
        author: &Author<'_>,
    ) -> Result<Option<u64>, Error> {
        let edits = document::difference(stored.root.as_ref(), root.as_ref());
        if edits.is_empty() {
            return Ok(Some(stored.head.version));
        }
        let document = root.as_ref().map(record::encode_document);
        let bytes = document.as_ref().map_or(0, Vec::len);
        if bytes > DOCUMENT_BYTES && bytes > stored.bytes {
            return Err(Error::TooLarge {
                size: bytes,
                limit: DOCUMENT_BYTES,
            });
        }
        let at = self.inner.clock.now();
        let mut head = Head {
            version: stored.head.version + 1,
            exists: root.is_some(),
            changed_ms: at.0,
            ..stored.head.clone()
        };
        let change = Change {
            action: author.action,
            path: author.path.to_string(),
            by: author.by.to_owned(),
            at,
            edits,
        };
        let mut batch = space.batch();
        batch.expect(
            TABLE,
            HEAD,
            stored.revision.map_or(Expect::Absent, Expect::At),
        );
        history::add(space, &mut batch, &mut head, &change)?;
        batch.put(TABLE, HEAD, record::encode_head(&head));
        match &document {
            Some(document) => batch.put(TABLE, DOCUMENT, document),
            None => batch.delete(TABLE, DOCUMENT),
        };
        match batch.commit().await {
            Ok(receipt) => {
                let version = head.version;
                let stored = Stored {
                    revision: Some(receipt.revision),
                    head,
                    root,
                    bytes,
                };
                self.keep(space, &Arc::new(stored));
                Ok(Some(version))
            }
            Err(micro_storage::Error::Conflict { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// `node`, which lies at `path`, as JSON.
    pub(crate) fn json(
        &self,
        ns: &Namespace,
        path: &Path,
        node: Option<&Node>,
        secrets: Secrets,
    ) -> Result<String, Error> {
        let Some(node) = node else {
            return Ok(NOTHING.to_owned());
        };
        if secrets == Secrets::Masked {
            return Ok(node.masked());
        }
        let mut ring = None;
        let mut out = String::new();
        let mut at = path.segments().to_vec();
        node.write(&mut out, &mut at, &mut |path, sealed, out| {
            let place = Place {
                namespace: ns,
                path,
            };
            // Keys are asked for only where there are secrets.
            if ring.is_none() {
                ring = self.inner.keys.ring()?;
            }
            let ring = ring.as_ref().ok_or_else(|| sealed.no_key(place))?;
            out.push_str(&ring.open(place, sealed)?);
            Ok(())
        })?;
        Ok(out)
    }

    /// Reads; once more when a key was retired between the reading and the decrypting.
    pub(crate) fn fresh<T>(&self, read: impl Fn() -> Result<T, Error>) -> Result<T, Error> {
        match read() {
            Err(Error::NoKey { .. }) => read(),
            other => other,
        }
    }
}
