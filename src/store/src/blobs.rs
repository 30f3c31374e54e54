//! The blobs of a namespace: files that storage keeps, and a row for each that says what it is.
//!
//! A blob is there from the moment its row is committed; the file is complete and synced before that.
//! The file of a blob that is replaced or deleted goes after the commit, so whoever is reading it
//! reads it to its end. What a crash leaves in between is a file that no row refers to, and those are
//! removed at the next start.

use std::{collections::HashSet, str::FromStr as _, sync::Arc};

use micro_core::{Namespace, Timestamp};
use micro_storage::{
    Batch, BlobId, BlobReader, BlobWriter, Error as StorageError, Expect, Range, Row, Space,
    Storage,
};
use prost::Message as _;

use crate::{
    Error,
    place::{BLOBS, MAX_KEY},
    query::ANSWER,
    service::Shared,
};

const FORMAT: u8 = 1;
/// The longest content type.
const CONTENT_TYPE: usize = 255;
/// Rows read at a time.
const PAGE: usize = 512;
/// How often somebody may come in between.
const TRIES: usize = 16;

/// What is said of a blob when it is written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BlobOptions {
    /// Readable by everybody through the gateway.
    pub public: bool,
    /// What it is, for those who read it over HTTP; may be empty.
    pub content_type: String,
}

/// What is known of a blob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlobInfo {
    /// Its key.
    pub key: String,
    /// The file; another one each time the blob is written.
    pub id: BlobId,
    /// Its bytes.
    pub size: u64,
    /// What it is; may be empty.
    pub content_type: String,
    /// Readable by everybody.
    pub public: bool,
    /// When it was written.
    pub modified: Timestamp,
}

/// The row of a blob. Numbers are never reused.
#[derive(Clone, PartialEq, prost::Message)]
struct Stored {
    #[prost(string, tag = "1")]
    id: String,
    #[prost(uint64, tag = "2")]
    size: u64,
    #[prost(string, tag = "3")]
    content_type: String,
    #[prost(bool, tag = "4")]
    public: bool,
    #[prost(int64, tag = "5")]
    modified_ms: i64,
}

fn encode(info: &BlobInfo) -> Vec<u8> {
    let stored = Stored {
        id: info.id.to_string(),
        size: info.size,
        content_type: info.content_type.clone(),
        public: info.public,
        modified_ms: info.modified.0,
    };
    let mut bytes = vec![FORMAT];
    bytes.extend(stored.encode_to_vec());
    bytes
}

fn decode(row: &Row) -> Result<BlobInfo, Error> {
    let (format, rest) = row.value.split_first().ok_or(Error::Broken)?;
    if *format != FORMAT {
        return Err(StorageError::Format {
            table: BLOBS,
            format: *format,
        }
        .into());
    }
    let stored = Stored::decode(rest).map_err(|_| Error::Broken)?;
    Ok(BlobInfo {
        key: String::from_utf8_lossy(&row.key).into_owned(),
        id: BlobId::from_str(&stored.id).map_err(|_| Error::Broken)?,
        size: stored.size,
        content_type: stored.content_type,
        public: stored.public,
        modified: Timestamp(stored.modified_ms),
    })
}

/// The blobs of a namespace. Clones share it.
#[derive(Clone)]
pub struct Bucket {
    shared: Arc<Shared>,
    space: Space,
}

impl std::fmt::Debug for Bucket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bucket")
            .field("namespace", self.space.namespace())
            .finish_non_exhaustive()
    }
}

impl Bucket {
    pub(crate) fn new(shared: &Arc<Shared>, namespace: &Namespace) -> Self {
        Self {
            shared: Arc::clone(shared),
            space: shared.storage.space(namespace),
        }
    }

    /// What is known of the blob of `key`.
    ///
    /// # Errors
    /// `Internal` when it cannot be read.
    pub fn info(&self, key: &str) -> Result<Option<BlobInfo>, Error> {
        Ok(self.row(key)?.map(|(info, _)| info))
    }

    fn row(&self, key: &str) -> Result<Option<(BlobInfo, Row)>, Error> {
        if key.is_empty() || key.len() > MAX_KEY {
            return Ok(None);
        }
        match self.space.get(BLOBS, key.as_bytes())? {
            Some(row) => Ok(Some((decode(&row)?, row))),
            None => Ok(None),
        }
    }

    /// Opens the blob of `key` for reading, to its end even if it is replaced meanwhile.
    ///
    /// # Errors
    /// `NotFound`; `Internal` when it cannot be read.
    pub async fn open(&self, key: &str) -> Result<(BlobInfo, BlobReader), Error> {
        let mut tries = TRIES;
        loop {
            let info = self.info(key)?.ok_or(Error::BlobNotFound)?;
            tries -= 1;
            match self.space.blobs().open(&info.id).await {
                Ok(reader) => return Ok((info, reader)),
                // It may have been replaced between the two.
                Err(error) if tries == 0 || self.info(key)?.as_ref() == Some(&info) => {
                    return Err(error.into());
                }
                Err(_) => {}
            }
        }
    }

    /// As [`Bucket::open`], for everybody: a blob that is not public is not there.
    ///
    /// # Errors
    /// As [`Bucket::open`].
    pub async fn open_public(&self, key: &str) -> Result<(BlobInfo, BlobReader), Error> {
        // Asked before the file is opened too, so that how long the answer takes says nothing.
        if !self.info(key)?.is_some_and(|info| info.public) {
            return Err(Error::BlobNotFound);
        }
        let (info, reader) = self.open(key).await?;
        if !info.public {
            return Err(Error::BlobNotFound);
        }
        Ok((info, reader))
    }

    /// Begins to write the blob of `key`. Nothing changes before [`Upload::finish`].
    ///
    /// # Errors
    /// `Invalid` for a key or a content type that cannot be; `Exhausted` when the disk is full.
    pub async fn create(&self, key: &str, options: BlobOptions) -> Result<Upload, Error> {
        if key.is_empty() {
            return Err(Error::MissingKey);
        }
        if key.len() > MAX_KEY {
            return Err(Error::Key {
                size: key.len(),
                limit: MAX_KEY,
            });
        }
        let kind = &options.content_type;
        if kind.len() > CONTENT_TYPE || !kind.bytes().all(|b| matches!(b, b' '..=b'~')) {
            let start = kind.chars().take(80).collect();
            return Err(Error::ContentType(start));
        }
        Ok(Upload {
            bucket: self.clone(),
            key: key.to_owned(),
            options,
            writer: self.space.blobs().create().await?,
            size: 0,
        })
    }

    /// Deletes the blob of `key`, if there is one. Durable when it returns.
    ///
    /// # Errors
    /// `Internal` when it cannot be written.
    pub async fn delete(&self, key: &str) -> Result<(), Error> {
        if self.row(key)?.is_none() {
            return Ok(());
        }
        let (bucket, key) = (self.clone(), key.to_owned());
        detached(async move {
            bucket
                .exchange(&key, |batch| {
                    batch.delete(BLOBS, &key);
                })
                .await
        })
        .await
    }

    /// The blobs whose keys begin with `prefix`, in the order of their keys.
    ///
    /// # Errors
    /// `Exhausted` when they are more than one answer may carry; `Internal` when they cannot be read.
    pub async fn list(&self, prefix: &str) -> Result<Vec<BlobInfo>, Error> {
        let mut found = Vec::new();
        let mut bytes = 0;
        let mut rows = Rows::new(&self.space, prefix.as_bytes());
        while let Some(page) = rows.page()? {
            for row in page {
                bytes += row.key.len() * 2 + row.value.len();
                if bytes > ANSWER {
                    return Err(Error::TooMuch { limit: ANSWER });
                }
                found.push(decode(&row)?);
            }
            tokio::task::yield_now().await;
        }
        Ok(found)
    }

    /// Removes a file that no row refers to.
    async fn remove_file(&self, id: &BlobId) {
        if let Err(error) = self.space.blobs().delete(id).await {
            tracing::warn!(%error, "The file of a blob that is gone stays until the next start.");
        }
    }

    /// Changes the row of `key` by `change`, and removes the file that the row referred to.
    async fn exchange(&self, key: &str, change: impl Fn(&mut Batch) + Send) -> Result<(), Error> {
        let mut tries = TRIES;
        loop {
            let old = self.row(key)?;
            let mut batch = self.space.batch();
            let expect = old
                .as_ref()
                .map_or(Expect::Absent, |(_, row)| Expect::At(row.revision));
            batch.expect(BLOBS, key, expect);
            change(&mut batch);
            tries -= 1;
            match batch.commit().await {
                Ok(_) => {
                    if let Some((info, _)) = old {
                        self.remove_file(&info.id).await;
                    }
                    return Ok(());
                }
                Err(StorageError::Conflict { .. }) if tries > 0 => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// A blob that is being written. Dropping it leaves nothing behind.
#[derive(Debug)]
pub struct Upload {
    bucket: Bucket,
    key: String,
    options: BlobOptions,
    writer: BlobWriter,
    size: u64,
}

impl Upload {
    /// Writes the next bytes.
    ///
    /// # Errors
    /// `Exhausted` when the blob becomes too large, the disk is full, or the namespace holds as much
    /// as it may.
    pub async fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.size += bytes.len() as u64;
        let limit = self.bucket.shared.settings.blob;
        if self.size > limit {
            return Err(Error::BlobTooLarge { limit });
        }
        Ok(self.writer.write(bytes).await?)
    }

    /// Makes it the blob of its key. Durable when it returns.
    ///
    /// # Errors
    /// As [`Upload::write`].
    pub async fn finish(self) -> Result<BlobInfo, Error> {
        let Self {
            bucket,
            key,
            options,
            writer,
            size,
        } = self;
        // A caller who leaves at this point must not leave a file of which nobody knows.
        detached(async move {
            let info = BlobInfo {
                id: writer.finish().await?,
                key,
                size,
                content_type: options.content_type,
                public: options.public,
                modified: bucket.shared.clock.now(),
            };
            let row = encode(&info);
            let exchanged = bucket.exchange(&info.key, |batch| {
                batch.put(BLOBS, &info.key, &row);
            });
            match exchanged.await {
                Ok(()) => Ok(info),
                Err(error) => {
                    bucket.remove_file(&info.id).await;
                    Err(error)
                }
            }
        })
        .await
    }
}

/// Runs `work` to its end, even if the caller does not wait for it.
async fn detached<T: Send + 'static>(
    work: impl Future<Output = Result<T, Error>> + Send + 'static,
) -> Result<T, Error> {
    let done = tokio::spawn(work).await;
    done.unwrap_or(Err(Error::Abandoned))
}

/// The rows of blobs below a prefix, page by page.
struct Rows<'a> {
    space: &'a Space,
    prefix: &'a [u8],
    last: Option<bytes::Bytes>,
    is_over: bool,
}

impl<'a> Rows<'a> {
    const fn new(space: &'a Space, prefix: &'a [u8]) -> Self {
        Self {
            space,
            prefix,
            last: None,
            is_over: false,
        }
    }

    fn page(&mut self) -> Result<Option<Vec<Row>>, Error> {
        if self.is_over {
            return Ok(None);
        }
        let mut range = Range::prefix(self.prefix).limit(PAGE);
        if let Some(last) = &self.last {
            range = range.after(last);
        }
        let page = self.space.scan(BLOBS, range)?;
        self.is_over = page.len() < PAGE;
        self.last = page.last().map(|row| row.key.clone());
        Ok(Some(page))
    }
}

/// Removes the files that no row refers to. Nobody else may keep blobs in storage.
pub(crate) async fn remove_orphans(storage: &Storage) -> Result<(), Error> {
    for namespace in storage.blob_namespaces()? {
        let space = storage.space(&namespace);
        let mut kept: HashSet<BlobId> = HashSet::new();
        let mut rows = Rows::new(&space, b"");
        while let Some(page) = rows.page()? {
            for row in page {
                kept.insert(decode(&row)?.id);
            }
        }
        let removed = space.blobs().keep_only(|id| kept.contains(id)).await?;
        if removed > 0 {
            tracing::info!(%namespace, removed, "Files of blobs that were never finished are removed.");
        }
    }
    Ok(())
}
