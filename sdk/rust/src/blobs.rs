//! Large values as streams: files, images, backups.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let blobs = micro_sdk::mesh().blobs();
//! let file = tokio::fs::File::open("cat.png").await?;
//! blobs.upload("pictures/cat.png").content_type("image/png").reader(file).await?;
//!
//! if let Some(mut picture) = blobs.read("pictures/cat.png").await? {
//!     while let Some(part) = picture.next().await {
//!         println!("{} bytes", part?.len());
//!     }
//! }
//! # Ok(())
//! # }
//! ```

mod reader;
mod upload;

use std::time::{Duration, SystemTime};

use crate::{
    Error, Kind, Mesh, call,
    wire::store::{
        BlobDeleteResponse, BlobListOptions, BlobListRequest, BlobListResponse, BlobRequest,
    },
};

pub use self::{reader::Reader, upload::Upload};

/// The large values of the service's namespace. Made by [`Mesh::blobs`]; clones are cheap.
///
/// ```no_run
/// let blobs = micro_sdk::mesh().blobs();
/// ```
#[derive(Debug, Clone)]
pub struct Blobs {
    mesh: Mesh,
}

/// What is known of a blob without reading it.
///
/// ```no_run
/// # async fn example(blobs: micro_sdk::blobs::Blobs) -> Result<(), micro_sdk::Error> {
/// for blob in blobs.list("pictures/").await? {
///     println!("{}: {} bytes of {}", blob.key, blob.size, blob.content_type);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Info {
    /// Its key.
    pub key: String,
    /// Its size in bytes.
    pub size: u64,
    /// Its content type; empty when nobody said.
    pub content_type: String,
    /// Readable by everybody through the gateway.
    pub is_public: bool,
    /// When it was written.
    pub modified: SystemTime,
}

impl Blobs {
    pub(crate) const fn new(mesh: Mesh) -> Self {
        Self { mesh }
    }

    /// A new value for `key`. It is there, as a whole and on disk, when the upload returns; until then
    /// readers see the old one.
    ///
    /// ```no_run
    /// # async fn example(blobs: micro_sdk::blobs::Blobs) -> Result<(), micro_sdk::Error> {
    /// blobs.upload("hello.txt").content_type("text/plain").bytes("hello").await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn upload(&self, key: impl Into<String>) -> Upload {
        Upload::new(self.mesh.clone(), key.into())
    }

    /// The blob of `key`, part by part; `None` when there is none.
    ///
    /// ```no_run
    /// # async fn example(blobs: micro_sdk::blobs::Blobs) -> Result<(), micro_sdk::Error> {
    /// if let Some(blob) = blobs.read("hello.txt").await? {
    ///     let bytes = blob.bytes().await?;
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// Those of every call.
    pub async fn read(&self, key: &str) -> Result<Option<Reader>, Error> {
        match call::stream(&self.mesh, "/store.BlobStore/Read", request(key)).await {
            Ok(parts) => Ok(Some(Reader::new(key, parts))),
            Err(status) => {
                let error = Error::call(format_args!("read blob {key:?}"), &status);
                if error.kind() == Kind::NotFound {
                    return Ok(None);
                }
                Err(error)
            }
        }
    }

    /// The blobs whose keys begin with `prefix`, in the order of their keys.
    ///
    /// ```no_run
    /// # async fn example(blobs: micro_sdk::blobs::Blobs) -> Result<(), micro_sdk::Error> {
    /// let pictures = blobs.list("pictures/").await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// Those of every call.
    pub async fn list(&self, prefix: &str) -> Result<Vec<Info>, Error> {
        let request = BlobListRequest {
            options: Some(BlobListOptions {
                namespace: String::new(),
                prefix: prefix.to_owned(),
            }),
        };
        let answer: BlobListResponse = call::unary(&self.mesh, "/store.BlobStore/List", request)
            .await
            .map_err(|status| Error::call("list blobs", &status))?;
        let seconds = |at| Duration::from_secs(u64::try_from(at).unwrap_or(0));
        let blobs = answer.blobs.into_iter().map(|blob| Info {
            key: blob.key,
            size: blob.size,
            content_type: blob.content_type,
            is_public: blob.public,
            modified: SystemTime::UNIX_EPOCH + seconds(blob.modified),
        });
        Ok(blobs.collect())
    }

    /// Deletes the blob, if there is one.
    ///
    /// ```no_run
    /// # async fn example(blobs: micro_sdk::blobs::Blobs) -> Result<(), micro_sdk::Error> {
    /// blobs.delete("hello.txt").await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// Those of every call.
    pub async fn delete(&self, key: &str) -> Result<(), Error> {
        let answer = call::unary(&self.mesh, "/store.BlobStore/Delete", request(key)).await;
        answer
            .map(|_: BlobDeleteResponse| ())
            .map_err(|status| Error::call(format_args!("delete blob {key:?}"), &status))
    }
}

fn request(key: &str) -> BlobRequest {
    BlobRequest {
        key: key.to_owned(),
        options: None,
    }
}

#[cfg(test)]
mod tests;
