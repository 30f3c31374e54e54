//! Writing one blob.

use std::{
    io,
    path::PathBuf,
    sync::{Arc, atomic::Ordering},
};

use crate::{Error, disk::DiskFile};

use super::{
    BlobId, Inner, blocking,
    files::{PIECE, footer, unfinished},
};

/// So many bytes are synced together. A sync of everything at the end would make every commit of
/// the node wait for gigabytes.
const SYNC_EVERY: u64 = 8 * 1024 * 1024;

/// A blob that is being written. Dropped before [`BlobWriter::finish`], nothing of it stays.
#[derive(Debug)]
pub struct BlobWriter {
    inner: Arc<Inner>,
    id: BlobId,
    temporary: PathBuf,
    /// Away while a blocking thread has it; gone for good when the call was given up meanwhile.
    work: Option<Work>,
    length: u64,
}

#[derive(Debug)]
struct Work {
    file: Box<dyn DiskFile>,
    buffer: Vec<u8>,
    hasher: crc32fast::Hasher,
    written: u64,
    unsynced: u64,
}

impl BlobWriter {
    pub(super) async fn create(inner: Arc<Inner>) -> Result<Self, Error> {
        blocking(move || {
            if inner.allow.is_some() {
                // The first count reads the directory: here, where that holds nobody up.
                inner.bytes()?;
            }
            let id = BlobId::new();
            let temporary = unfinished(&inner.path(id));
            let file = match inner.disk.create(&temporary) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => {
                    inner.make_directories(id)?;
                    inner.disk.create(&temporary)
                }
                other => other,
            };
            let file = file.map_err(|e| Error::file("create", &temporary, e))?;
            let work = Work {
                file,
                buffer: Vec::new(),
                hasher: crc32fast::Hasher::new(),
                written: 0,
                unsynced: 0,
            };
            Ok(Self {
                inner,
                id,
                temporary,
                work: Some(work),
                length: 0,
            })
        })
        .await
    }

    /// Bytes that were written so far.
    pub fn len(&self) -> u64 {
        self.length
    }

    /// Whether nothing was written yet.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Appends `bytes`. After an error, or when the call was given up, the blob cannot be finished.
    ///
    /// # Errors
    /// `Exhausted` when the disk or the namespace is full; `Internal` otherwise.
    pub async fn write(&mut self, mut bytes: &[u8]) -> Result<(), Error> {
        while !bytes.is_empty() {
            let work = self.work.as_mut().ok_or_else(given_up)?;
            let room = PIECE.saturating_sub(work.buffer.len());
            let (now, later) = bytes.split_at_checked(room).unwrap_or((bytes, &[]));
            if let Err(error) = self.inner.take(now.len() as u64) {
                self.work = None;
                return Err(error);
            }
            self.length = self.length.saturating_add(now.len() as u64);
            work.buffer.extend_from_slice(now);
            bytes = later;
            if work.buffer.len() >= PIECE {
                let mut work = self.work.take().ok_or_else(given_up)?;
                let path = self.temporary.clone();
                let write = move || {
                    let written = work.write();
                    written.map_err(|e| Error::file("write", path, e))?;
                    Ok(work)
                };
                self.work = Some(blocking(write).await?);
            }
        }
        Ok(())
    }

    /// Makes the blob durable and gives its name, which nothing refers to yet.
    ///
    /// # Errors
    /// As [`BlobWriter::write`].
    pub async fn finish(mut self) -> Result<BlobId, Error> {
        let work = self.work.take().ok_or_else(given_up)?;
        let (inner, id, length) = (Arc::clone(&self.inner), self.id, self.length);
        let temporary = self.temporary.clone();
        blocking(move || {
            let path = inner.path(id);
            let finished = work.finish(length);
            finished.map_err(|e| Error::file("write", &temporary, e))?;
            let mut used = inner.used();
            inner
                .disk
                .rename(&temporary, &path)
                .map_err(|e| Error::file("rename", &temporary, e))?;
            *used = used.map(|used| used.saturating_add(length));
            drop(used);
            if let Some(shard) = path.parent()
                && let Err(e) = inner.disk.sync_dir(shard)
            {
                let error = Error::file("sync", shard, e);
                if let Err(error) = inner.remove(id) {
                    tracing::warn!(%error, "A blob without an owner stays until the next start.");
                }
                return Err(error);
            }
            Ok(id)
        })
        .await
    }
}

impl Drop for BlobWriter {
    fn drop(&mut self) {
        self.inner.pending.fetch_sub(self.length, Ordering::Relaxed);
        let (inner, temporary) = (Arc::clone(&self.inner), std::mem::take(&mut self.temporary));
        let remove = move || match inner.disk.remove(&temporary) {
            Ok(()) => {}
            // It was finished.
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                tracing::warn!(%error, path = %temporary.display(), "An unfinished blob stays until the next start.");
            }
        };
        // Removing a large file takes a while.
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(remove)),
            Err(_) => remove(),
        }
    }
}

impl Work {
    fn write(&mut self) -> io::Result<()> {
        self.hasher.update(&self.buffer);
        self.file.write_all_at(&self.buffer, self.written)?;
        let bytes = self.buffer.len() as u64;
        self.buffer.clear();
        self.written = self.written.saturating_add(bytes);
        self.unsynced = self.unsynced.saturating_add(bytes);
        if self.unsynced >= SYNC_EVERY {
            self.unsynced = 0;
            self.file.sync_data()?;
        }
        Ok(())
    }

    fn finish(mut self, length: u64) -> io::Result<()> {
        self.write()?;
        let checksum = self.hasher.finalize();
        self.file
            .write_all_at(&footer(length, checksum), self.written)?;
        self.file.sync_all()
    }
}

impl Inner {
    /// Counts bytes that are about to be written, if there may be so many.
    fn take(&self, bytes: u64) -> Result<(), Error> {
        self.pending.fetch_add(bytes, Ordering::Relaxed);
        let allowed = match &self.allow {
            Some(allow) => self.bytes().and_then(allow),
            None => Ok(()),
        };
        if allowed.is_err() {
            self.pending.fetch_sub(bytes, Ordering::Relaxed);
        }
        allowed
    }

    /// Makes the directory for a blob, durably.
    fn make_directories(&self, id: BlobId) -> Result<(), Error> {
        let shard = self.directory.join(id.shard());
        self.disk
            .create_dir_all(&shard)
            .map_err(|e| Error::file("create", &shard, e))?;
        let above = self.root.parent().unwrap_or(&self.root);
        for directory in [self.directory.as_path(), &self.root, above] {
            self.disk
                .sync_dir(directory)
                .map_err(|e| Error::file("sync", directory, e))?;
        }
        Ok(())
    }
}

fn given_up() -> Error {
    Error::file(
        "go on with",
        "a blob",
        io::Error::other("an earlier write of it failed or was given up"),
    )
}
