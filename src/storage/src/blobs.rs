//! Blobs: large values as files of their own, streamed, never whole in memory.
//!
//! | file | owns |
//! |---|---|
//! | `writer.rs` | [`BlobWriter`]: temporary file, sync, rename, sync of the directory |
//! | `reader.rs` | [`BlobReader`]: pieces of at most 64 KiB, verified at the end |
//! | `files.rs` | where they lie, the footer, checks and snapshots |
//!
//! A blob lies in `<root>/<namespace>/<2 hex digits>/<id>` and never changes. Nothing refers to it
//! when it was written: the writer puts its [`BlobId`] into a row, and if the node dies before that,
//! the next start sweeps the file away ([`Blobs::keep_only`]). Files that are being written end in
//! `.tmp`. Removal goes the other way round: first the row, then the file.
//!
//! All file access happens on the runtime's blocking threads.

use std::{
    fmt,
    hash::{BuildHasher as _, RandomState},
    path::{Path, PathBuf},
    str::FromStr,
    sync::{
        Arc, LazyLock, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use micro_core::Namespace;
use ulid::Ulid;

use crate::{Error, disk::Disk};
pub(crate) use files::{check, namespaces, snapshot};
pub use reader::BlobReader;
pub use writer::BlobWriter;

mod files;
mod reader;
mod writer;

/// The name of a blob: 26 letters and digits, unique in time and space.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlobId(Ulid);

/// Text that is not the name of a blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a blob's id has 26 lower-case letters and digits")]
pub struct InvalidBlobId;

/// The blobs of one namespace. Clones share what is counted.
#[derive(Debug, Clone)]
pub struct Blobs {
    inner: Arc<Inner>,
}

/// Asked before bytes are taken: may the blobs of this namespace have this many altogether?
pub(crate) type Allow = dyn Fn(u64) -> Result<(), Error> + Send + Sync;

struct Inner {
    disk: Arc<dyn Disk>,
    root: PathBuf,
    directory: PathBuf,
    allow: Option<Box<Allow>>,
    /// Bytes in finished blobs; `None` until somebody asks. Held while a blob comes or goes.
    used: Mutex<Option<u64>>,
    /// Bytes in blobs that are being written.
    pending: AtomicU64,
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Blobs")
            .field("directory", &self.directory)
            .finish_non_exhaustive()
    }
}

/// Distinguishes what this process made from what an earlier one left.
static RUN: LazyLock<u128> =
    LazyLock::new(|| u128::from(RandomState::new().hash_one("run") & 0xffff_ffff) << 48);
const RUN_BITS: u128 = 0xffff_ffff << 48;

impl BlobId {
    fn new() -> Self {
        let id = Ulid::generate();
        Self(Ulid::from_parts(
            id.timestamp_ms(),
            (id.random() & !RUN_BITS) | *RUN,
        ))
    }

    /// Checks a name of a blob.
    ///
    /// # Errors
    /// When it is none.
    pub fn parse(text: &str) -> Result<Self, InvalidBlobId> {
        let id = Self(Ulid::from_string(text).map_err(|_| InvalidBlobId)?);
        // The alphabet has letters that stand for others, and a blob has one name.
        if id.to_string() == text {
            Ok(id)
        } else {
            Err(InvalidBlobId)
        }
    }

    /// Whether this process made it.
    fn is_of_this_run(self) -> bool {
        self.0.random() & RUN_BITS == *RUN
    }

    /// The directory within the namespace's. The last bits are random, the first are the time.
    fn shard(self) -> String {
        format!("{:02x}", self.0.random() & 0xff)
    }
}

impl fmt::Display for BlobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.to_string().to_lowercase())
    }
}

impl FromStr for BlobId {
    type Err = InvalidBlobId;
    fn from_str(text: &str) -> Result<Self, InvalidBlobId> {
        Self::parse(text)
    }
}

impl Blobs {
    /// The blobs of `namespace` below `root`, without anybody to ask.
    #[cfg(test)]
    pub(crate) fn new(root: &Path, namespace: &Namespace) -> Self {
        Self::on(Arc::new(crate::disk::OsDisk), root, namespace, None)
    }

    /// The blobs of `namespace` below `root`, with somebody to ask whether there may be more.
    /// Handles that should count together are clones.
    pub(crate) fn on(
        disk: Arc<dyn Disk>,
        root: &Path,
        namespace: &Namespace,
        allow: Option<Box<Allow>>,
    ) -> Self {
        Self {
            inner: Arc::new(Inner {
                disk,
                root: root.to_owned(),
                directory: root.join(namespace.as_str()),
                allow,
                used: Mutex::new(None),
                pending: AtomicU64::new(0),
            }),
        }
    }

    /// Begins a blob. Unless it is finished, nothing of it stays.
    ///
    /// # Errors
    /// `Exhausted` when the disk is full; `Internal` otherwise.
    pub async fn create(&self) -> Result<BlobWriter, Error> {
        BlobWriter::create(Arc::clone(&self.inner)).await
    }

    /// Opens a blob for reading. It can be read to its end, whoever deletes it meanwhile.
    ///
    /// # Errors
    /// `NotFound` when there is none; `Internal` when it is damaged or cannot be read.
    pub async fn open(&self, id: &BlobId) -> Result<BlobReader, Error> {
        BlobReader::open(&self.inner, *id).await
    }

    /// Removes a blob; nothing happens when there is none.
    ///
    /// # Errors
    /// `Internal` when it cannot be removed.
    pub async fn delete(&self, id: &BlobId) -> Result<(), Error> {
        let (inner, id) = (Arc::clone(&self.inner), *id);
        // A removal that a power cut takes back leaves a blob that the next start sweeps away.
        blocking(move || inner.remove(id).map(drop)).await
    }

    /// Sweeps away what `keep` does not name and what was never finished; says how many files that
    /// were. For the start, when all rows have been read: blobs that this process made stay, since
    /// their rows may be on the way.
    ///
    /// # Errors
    /// `Internal` when the directory cannot be read or a file cannot be removed.
    pub async fn keep_only(&self, keep: impl Fn(&BlobId) -> bool + Send) -> Result<u64, Error> {
        let mut swept = 0u64;
        let inner = Arc::clone(&self.inner);
        let shards = blocking(move || files::shards(&*inner.disk, &inner.directory)).await?;
        for shard in shards {
            let inner = Arc::clone(&self.inner);
            let found = blocking(move || files::list(&*inner.disk, &shard)).await?;
            let orphans: Vec<files::BlobFile> = found
                .into_iter()
                .filter(|file| !file.id.is_of_this_run() && (!file.finished || !keep(&file.id)))
                .collect();
            swept = swept.saturating_add(orphans.len() as u64);
            let inner = Arc::clone(&self.inner);
            blocking(move || {
                for file in orphans {
                    if file.finished {
                        inner.remove(file.id)?;
                    } else {
                        let removed = inner.disk.remove(&file.path);
                        removed.map_err(|e| Error::file("remove", &file.path, e))?;
                    }
                }
                Ok(())
            })
            .await?;
        }
        Ok(swept)
    }

    /// Bytes in all blobs of the namespace, with those that are being written. The first call reads
    /// the directory, so it may block.
    ///
    /// # Errors
    /// `Internal` when the directory cannot be read.
    pub(crate) fn bytes(&self) -> Result<u64, Error> {
        self.inner.bytes()
    }
}

impl Inner {
    fn path(&self, id: BlobId) -> PathBuf {
        self.directory.join(id.shard()).join(id.to_string())
    }

    fn used(&self) -> MutexGuard<'_, Option<u64>> {
        // Nothing that holds it can leave it half changed.
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn bytes(&self) -> Result<u64, Error> {
        let mut used = self.used();
        let finished = match *used {
            Some(finished) => finished,
            None => {
                let mut total = 0u64;
                for shard in files::shards(&*self.disk, &self.directory)? {
                    for file in files::list(&*self.disk, &shard)? {
                        if file.finished {
                            total = total.saturating_add(file.bytes);
                        }
                    }
                }
                *used = Some(total);
                total
            }
        };
        Ok(finished.saturating_add(self.pending.load(Ordering::Relaxed)))
    }

    /// Removes a finished blob.
    fn remove(&self, id: BlobId) -> Result<(), Error> {
        let path = self.path(id);
        let mut used = self.used();
        let bytes = match used.as_ref().map(|_| self.disk.open_read(&path)) {
            Some(Ok(file)) => file.len().map_or(0, files::content_bytes),
            _ => 0,
        };
        match self.disk.remove(&path) {
            Ok(()) => {
                *used = used.map(|used| used.saturating_sub(bytes));
                Ok(())
            }
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
            Err(e) => Err(Error::file("remove", path, e)),
        }
    }
}

/// Runs `work` where waiting for a disk holds nobody up.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(e) if e.is_panic() => Err(Error::Panicked),
        Err(_) => Err(Error::Closed),
    }
}

#[cfg(test)]
mod tests;
