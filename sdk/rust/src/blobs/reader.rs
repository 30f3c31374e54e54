//! A blob while it is read.

use std::{
    future::poll_fn,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, ReadBuf};
use tokio_stream::Stream;
use tonic::{Streaming, codegen::Bytes};

use crate::{Error, wire::store::BlobReadResponse};

/// A blob, part by part: a [`Stream`] of bytes, and an [`AsyncRead`]. Made by
/// [`Blobs::read`](super::Blobs::read). A connection that breaks is an error, never a shorter blob.
///
/// ```no_run
/// # async fn example(mut blob: micro_sdk::blobs::Reader) -> std::io::Result<()> {
/// let mut file = tokio::fs::File::create("copy.png").await?;
/// tokio::io::copy(&mut blob, &mut file).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Reader {
    key: String,
    parts: Streaming<BlobReadResponse>,
    /// What a reader with a small buffer has not taken yet.
    rest: Bytes,
}

impl Reader {
    pub(super) fn new(key: &str, parts: Streaming<BlobReadResponse>) -> Self {
        Self {
            key: key.to_owned(),
            parts,
            rest: Bytes::new(),
        }
    }

    /// The next part; `None` at the end.
    ///
    /// ```no_run
    /// # async fn example(mut blob: micro_sdk::blobs::Reader) -> Result<(), micro_sdk::Error> {
    /// while let Some(part) = blob.next().await {
    ///     println!("{} bytes", part?.len());
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn next(&mut self) -> Option<Result<Bytes, Error>> {
        poll_fn(|context| self.poll_part(context)).await
    }

    /// All of it, in memory.
    ///
    /// ```no_run
    /// # async fn example(blob: micro_sdk::blobs::Reader) -> Result<(), micro_sdk::Error> {
    /// let bytes = blob.bytes().await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// When the reading breaks off.
    pub async fn bytes(mut self) -> Result<Bytes, Error> {
        let mut all = Vec::new();
        while let Some(part) = self.next().await {
            all.extend_from_slice(&part?);
        }
        Ok(all.into())
    }

    fn poll_part(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, Error>>> {
        if !self.rest.is_empty() {
            return Poll::Ready(Some(Ok(std::mem::take(&mut self.rest))));
        }
        let part = ready!(Pin::new(&mut self.parts).poll_next(context));
        Poll::Ready(part.map(|part| match part {
            Ok(part) => Ok(part.blob),
            Err(status) => Err(Error::call(
                format_args!("read blob {:?}", self.key),
                &status,
            )),
        }))
    }
}

impl Stream for Reader {
    type Item = Result<Bytes, Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.poll_part(context)
    }
}

impl AsyncRead for Reader {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.rest.is_empty() {
            match ready!(self.poll_part(context)) {
                Some(part) => self.rest = part.map_err(io::Error::other)?,
                None => return Poll::Ready(Ok(())),
            }
        }
        let count = self.rest.len().min(buffer.remaining());
        buffer.put_slice(&self.rest.split_to(count));
        Poll::Ready(Ok(()))
    }
}
