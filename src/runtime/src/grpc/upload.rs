//! `Source.Upload` and `Build.Read`: archives in and out, unpacked and packed while they flow.

use std::{
    io::{self, Read, Write},
    sync::Arc,
};

use bytes::{Buf as _, Bytes, BytesMut};
use micro_core::Caller;
use micro_proto::{runtime as wire, status};
use tokio::sync::mpsc;
use tonic::{Status, Streaming};

use super::{Grpc, key, own_namespace};
use crate::{error::Error, release, source};

/// Pieces that may wait between the wire and the disk.
const PIECES: usize = 16;
/// Bytes of one piece that we send.
const PIECE: usize = 64 * 1024;
/// What a tar adds to each entry, at most: header, padding, and long names.
const OVERHEAD: u64 = 4096;

impl Grpc {
    pub(super) async fn take_upload(
        &self,
        caller: &Caller,
        first: wire::UploadRequest,
        mut messages: Streaming<wire::UploadRequest>,
    ) -> Result<String, Error> {
        let service = first.service.ok_or(Error::NoServiceSent)?;
        let key = key(own_namespace(caller)?, &service.name, &service.version)?;
        let limits = self.engine.source_limits();
        let most = limits
            .bytes
            .saturating_add(limits.entries.saturating_mul(OVERHEAD));
        let tree = self.engine.trees.create()?;
        let (to, pieces) = mpsc::channel(PIECES);
        let path = tree.path();
        let unpacked = self
            .engine
            .handle
            .spawn_blocking(move || source::unpack(Pieces::new(pieces), &path, &limits));
        let mut sent = 0_u64;
        let mut next = Some(Bytes::from(first.data));
        let outcome = loop {
            if let Some(data) = next.take() {
                sent = sent.saturating_add(data.len() as u64);
                if sent > most {
                    break Err(Error::TooLarge {
                        limit: limits.bytes,
                        unit: "bytes",
                        setting: "limits.upload",
                    });
                }
                // The other end stops reading at the end of the archive, or at an error, which it
                // reports itself.
                if to.send(Ok(data)).await.is_err() {
                    break Ok(());
                }
            }
            match messages.message().await {
                Ok(Some(message)) => next = Some(Bytes::from(message.data)),
                Ok(None) => break Ok(()),
                Err(_) => break Err(Error::Interrupted),
            }
        };
        if outcome.is_err() {
            // Without this the archive would seem to end here.
            drop(to.send(Err(io::ErrorKind::ConnectionAborted.into())).await);
        }
        drop(to);
        let unpacked = unpacked.await?;
        outcome?;
        let summary = unpacked?;
        let id = format!("source://{}:{}", key.name, key.version);
        tracing::debug!(namespace = %key.namespace, source = %id, entries = summary.entries, bytes = summary.bytes, "Source uploaded.");
        let now = self.engine.clock.now();
        self.engine
            .repo
            .put_source(key, tree.name().to_owned(), summary.bytes, now)
            .await?;
        tree.keep();
        self.engine.sweep();
        Ok(id)
    }

    pub(super) async fn open_build(
        &self,
        caller: &Caller,
        sent: wire::Service,
    ) -> Result<mpsc::Receiver<Result<wire::BuildReadResponse, Status>>, Error> {
        let key = key(own_namespace(caller)?, &sent.name, &sent.version)?;
        let row = self.engine.repo.service(key.clone()).await?;
        let row = row.ok_or(Error::NotFound)?;
        let none = || Error::NoRelease {
            service: key.to_string(),
        };
        let number = row.release.ok_or_else(none)?;
        let release = self.engine.repo.release(key.clone(), number).await?;
        let dir = self.engine.release_dir(&release.ok_or_else(none)?.digest);
        let (to, from) = mpsc::channel(PIECES);
        let engine = Arc::clone(&self.engine);
        self.engine.handle.spawn(async move {
            // An artifact that is being read stays.
            let _artifacts = engine.artifacts.read().await;
            let errors = to.clone();
            let written = tokio::task::spawn_blocking(move || {
                let mut out = Sender::new(to);
                release::write_tar(&dir, &mut out)?;
                out.flush()
            });
            if let Ok(Err(error)) = written.await
                && !errors.is_closed()
            {
                let error = Error::io("read", "the artifact")(error);
                drop(
                    errors
                        .send(Err(status::of("runtime.Build.Read", &error)))
                        .await,
                );
            }
        });
        Ok(from)
    }
}

/// Pieces of an archive as something to read from, on a blocking thread.
struct Pieces {
    pieces: mpsc::Receiver<io::Result<Bytes>>,
    now: Bytes,
}

impl Pieces {
    fn new(pieces: mpsc::Receiver<io::Result<Bytes>>) -> Self {
        Self {
            pieces,
            now: Bytes::new(),
        }
    }
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.now.is_empty() {
            match self.pieces.blocking_recv() {
                Some(piece) => self.now = piece?,
                None => return Ok(0),
            }
        }
        let size = self.now.len().min(buffer.len());
        if let Some(to) = buffer.get_mut(..size) {
            self.now.copy_to_slice(to);
        }
        Ok(size)
    }
}

/// A stream of messages as something to write to, on a blocking thread.
struct Sender {
    to: mpsc::Sender<Result<wire::BuildReadResponse, Status>>,
    waiting: BytesMut,
}

impl Sender {
    fn new(to: mpsc::Sender<Result<wire::BuildReadResponse, Status>>) -> Self {
        Self {
            to,
            waiting: BytesMut::with_capacity(PIECE),
        }
    }
}

impl Write for Sender {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = PIECE.saturating_sub(self.waiting.len());
        let size = room.min(bytes.len());
        self.waiting
            .extend_from_slice(bytes.get(..size).unwrap_or_default());
        if self.waiting.len() >= PIECE {
            self.flush()?;
        }
        Ok(size)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.waiting.is_empty() {
            return Ok(());
        }
        let data = self.waiting.split().to_vec();
        self.to
            .blocking_send(Ok(wire::BuildReadResponse { data }))
            .map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}
