//! Reading one blob.

use std::{path::PathBuf, sync::Arc};

use bytes::Bytes;

use crate::{Error, disk::DiskFile};

use super::{
    BlobId, Inner, blocking,
    files::{self, PIECE},
};

/// The largest piece that [`BlobReader::read`] gives.
const MOST: usize = 64 * 1024;

/// A blob that is being read, in pieces.
#[derive(Debug)]
pub struct BlobReader {
    path: PathBuf,
    file: Arc<dyn DiskFile>,
    length: u64,
    checksum: u32,
    /// Of what was read so far; `None` when it was not read from the beginning.
    hasher: Option<crc32fast::Hasher>,
    /// Where the next read from the file begins.
    at: u64,
    /// Read, and not given yet.
    ahead: Bytes,
}

impl BlobReader {
    pub(super) async fn open(inner: &Arc<Inner>, id: BlobId) -> Result<Self, Error> {
        let inner = Arc::clone(inner);
        blocking(move || {
            let path = inner.path(id);
            let (file, length, checksum) =
                files::open(&*inner.disk, &path)?.ok_or(Error::NoBlob(id))?;
            Ok(Self {
                path,
                file: file.into(),
                length,
                checksum,
                hasher: Some(crc32fast::Hasher::new()),
                at: 0,
                ahead: Bytes::new(),
            })
        })
        .await
    }

    /// Bytes of the whole blob.
    pub fn len(&self) -> u64 {
        self.length
    }

    /// Whether the blob is empty.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Goes on from `offset`; behind the end there is nothing. What is not read from beginning to
    /// end is not verified.
    pub fn seek(&mut self, offset: u64) {
        self.ahead.clear();
        self.at = offset;
        self.hasher = (offset == 0).then(crc32fast::Hasher::new);
    }

    /// The next piece, at most 64 KiB; `None` at the end. A call that is given up loses nothing.
    ///
    /// # Errors
    /// `Internal` when it cannot be read, and instead of the last piece when the content is not what
    /// was written.
    pub async fn read(&mut self) -> Result<Option<Bytes>, Error> {
        if self.ahead.is_empty() {
            let left = self.length.saturating_sub(self.at);
            let size = usize::try_from(left).unwrap_or(PIECE).min(PIECE);
            if size == 0 {
                return Ok(None);
            }
            let (file, path, at) = (Arc::clone(&self.file), self.path.clone(), self.at);
            let mut hasher = self.hasher.clone();
            let (piece, hasher) = blocking(move || {
                let mut piece = vec![0; size];
                file.read_exact_at(&mut piece, at)
                    .map_err(|e| Error::file("read", path, e))?;
                if let Some(hasher) = &mut hasher {
                    hasher.update(&piece);
                }
                Ok((piece, hasher))
            })
            .await?;
            let at = self.at.saturating_add(size as u64);
            if at == self.length
                && let Some(hasher) = &hasher
                && hasher.clone().finalize() != self.checksum
            {
                return Err(files::wrong_content(&self.path));
            }
            self.hasher = hasher;
            self.at = at;
            self.ahead = piece.into();
        }
        let most = MOST.min(self.ahead.len());
        Ok(Some(self.ahead.split_to(most)))
    }
}
