//! A blob while it is written. What breaks off at the source breaks off at the platform, too: half a
//! blob is none.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::{
    io::{AsyncRead, ReadBuf},
    sync::oneshot,
};
use tokio_stream::{Stream, StreamExt as _};
use tonic::{
    Status,
    codegen::{Bytes, StdError},
};

use crate::{
    Error, Mesh, call,
    wire::store::{BlobOptions, BlobWriteRequest, BlobWriteResponse},
};

/// The most bytes in one message.
const PART: usize = 256 << 10;
/// How much is read from a reader at once.
const READ: usize = 64 << 10;

/// A new value for a key. Made by [`Blobs::upload`](super::Blobs::upload).
///
/// ```no_run
/// # async fn example(blobs: micro_sdk::blobs::Blobs) -> Result<(), micro_sdk::Error> {
/// blobs.upload("logo.svg").content_type("image/svg+xml").public().bytes("<svg/>").await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[must_use = "an upload does nothing until it is given bytes, a reader or a stream"]
pub struct Upload {
    mesh: Mesh,
    key: String,
    options: BlobOptions,
}

impl Upload {
    pub(super) fn new(mesh: Mesh, key: String) -> Self {
        Self {
            mesh,
            key,
            options: BlobOptions::default(),
        }
    }

    /// What it is, such as `image/png`.
    ///
    /// ```no_run
    /// # fn example(blobs: micro_sdk::blobs::Blobs) {
    /// let upload = blobs.upload("cat.png").content_type("image/png");
    /// # }
    /// ```
    pub fn content_type(mut self, content_type: impl Into<String>) -> Self {
        self.options.content_type = content_type.into();
        self
    }

    /// Lets everybody read it through the gateway.
    ///
    /// ```no_run
    /// # fn example(blobs: micro_sdk::blobs::Blobs) {
    /// let upload = blobs.upload("cat.png").public();
    /// # }
    /// ```
    pub fn public(mut self) -> Self {
        self.options.public = true;
        self
    }

    /// Writes bytes that are in memory.
    ///
    /// ```no_run
    /// # async fn example(blobs: micro_sdk::blobs::Blobs) -> Result<(), micro_sdk::Error> {
    /// blobs.upload("hello.txt").bytes("hello").await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// Those of every call.
    pub async fn bytes(self, bytes: impl Into<Bytes>) -> Result<(), Error> {
        self.parts(Box::pin(tokio_stream::once(Ok(bytes.into()))))
            .await
    }

    /// Writes what a reader reads.
    ///
    /// ```no_run
    /// # async fn example(blobs: micro_sdk::blobs::Blobs) -> Result<(), Box<dyn std::error::Error>> {
    /// let file = tokio::fs::File::open("cat.png").await?;
    /// blobs.upload("cat.png").reader(file).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// Those of the reader, after which nothing was written; those of every call.
    pub async fn reader(self, reader: impl AsyncRead + Send + 'static) -> Result<(), Error> {
        let parts = Parts {
            reader: Box::pin(reader),
            buffer: vec![0; READ].into(),
        };
        self.parts(Box::pin(parts)).await
    }

    /// Writes what a stream brings.
    ///
    /// ```no_run
    /// # async fn example(blobs: micro_sdk::blobs::Blobs) -> Result<(), micro_sdk::Error> {
    /// let parts = ["hello, ", "world"].map(|part| Ok::<_, std::io::Error>(part.into()));
    /// blobs.upload("hello.txt").stream(micro_sdk::tokio_stream::iter(parts)).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// Those of the stream, after which nothing was written; those of every call.
    pub async fn stream<S, E>(self, stream: S) -> Result<(), Error>
    where
        S: Stream<Item = Result<Bytes, E>> + Send + 'static,
        E: Into<StdError>,
    {
        self.parts(Box::pin(stream.map(|part| part.map_err(Into::into))))
            .await
    }

    async fn parts(self, source: Source) -> Result<(), Error> {
        let what = format!("write blob {:?}", self.key);
        let (failed, mut failure) = oneshot::channel();
        let messages = Messages {
            head: Some((self.key, self.options)),
            part: Bytes::new(),
            source,
            failed: Some(failed),
        };
        let answer: Result<BlobWriteResponse, Status> =
            call::upload(&self.mesh, "/store.BlobStore/Write", messages).await;
        match (answer, failure.try_recv()) {
            (_, Ok(error)) => Err(Error::invalid(what, error)),
            (Ok(_), _) => Ok(()),
            (Err(status), _) => Err(Error::call(what, &status)),
        }
    }
}

type Source = Pin<Box<dyn Stream<Item = Result<Bytes, StdError>> + Send>>;

/// A reader as a stream.
struct Parts {
    reader: Pin<Box<dyn AsyncRead + Send>>,
    buffer: Box<[u8]>,
}

impl Stream for Parts {
    type Item = Result<Bytes, StdError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Self { reader, buffer } = &mut *self;
        let mut buffer = ReadBuf::new(buffer);
        Poll::Ready(
            match ready!(reader.as_mut().poll_read(context, &mut buffer)) {
                Err(error) => Some(Err(error.into())),
                Ok(()) if buffer.filled().is_empty() => None,
                Ok(()) => Some(Ok(Bytes::copy_from_slice(buffer.filled()))),
            },
        )
    }
}

/// The messages of an upload: the first with key and options, even if there is no byte.
struct Messages {
    head: Option<(String, BlobOptions)>,
    part: Bytes,
    source: Source,
    /// Where the error of the source goes; none after it went there.
    failed: Option<oneshot::Sender<StdError>>,
}

impl Stream for Messages {
    type Item = Result<BlobWriteRequest, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if self.head.is_some() || !self.part.is_empty() {
                let (key, options) = self.head.take().unzip();
                let count = self.part.len().min(PART);
                return Poll::Ready(Some(Ok(BlobWriteRequest {
                    key: key.unwrap_or_default(),
                    options,
                    blob: self.part.split_to(count),
                })));
            }
            if self.failed.is_none() {
                return Poll::Ready(None);
            }
            match ready!(self.source.as_mut().poll_next(context)) {
                Some(Ok(part)) => self.part = part,
                None => return Poll::Ready(None),
                Some(Err(error)) => {
                    if let Some(failed) = self.failed.take() {
                        failed.send(error).ok();
                    }
                    // Breaks the call off, where an end would complete the blob.
                    let status = Status::cancelled("the source of the blob failed");
                    return Poll::Ready(Some(Err(status)));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn messages(parts: Vec<Result<Bytes, StdError>>) -> (Messages, oneshot::Receiver<StdError>) {
        let (failed, failure) = oneshot::channel();
        let messages = Messages {
            head: Some(("key".to_owned(), BlobOptions::default())),
            part: Bytes::new(),
            source: Box::pin(tokio_stream::iter(parts)),
            failed: Some(failed),
        };
        (messages, failure)
    }

    #[tokio::test]
    async fn an_empty_blob_is_one_message() {
        let (messages, _) = messages(Vec::new());
        let sent: Vec<_> = messages.collect().await;
        assert_eq!(sent.len(), 1);
        assert_eq!(sent[0].as_ref().unwrap().key, "key");
    }

    #[tokio::test]
    async fn large_parts_are_divided_and_the_key_is_said_once() {
        let (messages, _) = messages(vec![Ok(vec![7; PART * 2 + 1].into()), Ok("end".into())]);
        let sent: Vec<_> = messages.map(Result::unwrap).collect().await;
        let sizes: Vec<_> = sent.iter().map(|message| message.blob.len()).collect();
        assert_eq!(sizes, [0, PART, PART, 1, 3]);
        assert!(sent[1..].iter().all(|message| message.key.is_empty()));
    }

    #[tokio::test]
    async fn a_source_that_fails_breaks_the_call_off() {
        let (messages, mut failure) = messages(vec![Ok("half".into()), Err("disk gone".into())]);
        let sent: Vec<_> = messages.collect().await;
        assert!(sent.last().unwrap().is_err());
        assert_eq!(failure.try_recv().unwrap().to_string(), "disk gone");
    }

    #[tokio::test]
    async fn a_reader_is_read_to_its_end() {
        let parts = Parts {
            reader: Box::pin(std::io::Cursor::new(vec![7; READ + 1])),
            buffer: vec![0; READ].into(),
        };
        let sizes: Vec<_> = parts.map(|part| part.unwrap().len()).collect().await;
        assert_eq!(sizes, [READ, 1]);
    }
}
