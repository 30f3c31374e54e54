//! Sends a packed source to the server while it is being packed, in constant memory.

use std::{
    io::{self, Write},
    thread,
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use micro_proto::runtime::{Service, UploadRequest};
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Request;

use crate::{
    deploy::pack::{self, Plan},
    error::{Error, Result},
    printer::Printer,
    session::Session,
};

/// Bytes of one message, and how many of them wait at most.
const PIECE: usize = 128 * 1024;
const WAITING: usize = 8;

/// Uploads and gives what to name as the source of a deployment.
///
/// # Errors
/// When the source cannot be read or the server refuses it.
pub(crate) async fn upload(
    session: &Session,
    printer: Printer,
    plan: Plan,
    service: Service,
) -> Result<String> {
    let bar = progress(printer, plan.bytes);
    let (sender, receiver) = mpsc::channel(WAITING);
    let (tell, packed) = oneshot::channel();
    // Held until all is packed: a stream that ends early would look like a complete upload.
    let open = sender.clone();
    let worker_bar = bar.clone();
    thread::spawn(move || {
        let first = UploadRequest {
            service: Some(service),
            data: Vec::new(),
        };
        let result = match sender.blocking_send(first) {
            Ok(()) => pack::write(&plan, Pieces::new(sender), |n| worker_bar.inc(n)),
            Err(_) => Ok(()),
        };
        // Nobody listens when the server refused first.
        let _ = tell.send(result);
    });
    let mut client = session.source();
    let mut answer = Box::pin(client.upload(Request::new(ReceiverStream::new(receiver))));
    let answer = tokio::select! {
        biased;
        early = &mut answer => early,
        packed = packed => {
            match packed {
                // The server stopped reading: its answer says why.
                Ok(Err(_)) if open.is_closed() => {}
                Ok(result) => result?,
                Err(_) => return Err(Error::failed("packing the source failed")),
            }
            drop(open);
            answer.await
        }
    };
    bar.finish_and_clear();
    let id = answer.map_err(|s| session.failure(s))?.into_inner().id;
    if id.is_empty() {
        return Err(Error::failed("the server gave the upload no name"));
    }
    Ok(id)
}

fn progress(printer: Printer, bytes: u64) -> ProgressBar {
    let target = if printer.is_watched() {
        ProgressDrawTarget::stderr()
    } else {
        ProgressDrawTarget::hidden()
    };
    let bar = ProgressBar::with_draw_target(Some(bytes), target);
    let template = "Uploading {bar:30} {bytes}/{total_bytes} {bytes_per_sec}";
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar
}

/// Cuts what is written into messages.
struct Pieces {
    sender: mpsc::Sender<UploadRequest>,
    buffer: Vec<u8>,
}

impl Pieces {
    fn new(sender: mpsc::Sender<UploadRequest>) -> Self {
        Self {
            sender,
            buffer: Vec::with_capacity(PIECE),
        }
    }

    fn send(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let data = std::mem::replace(&mut self.buffer, Vec::with_capacity(PIECE));
        self.sender
            .blocking_send(UploadRequest {
                service: None,
                data,
            })
            .map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))
    }
}

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.buffer.len() == PIECE {
            self.send()?;
        }
        let room = PIECE - self.buffer.len();
        let taken = bytes.get(..room).unwrap_or(bytes);
        self.buffer.extend_from_slice(taken);
        Ok(taken.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.send()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_full_but_the_last_and_nothing_is_lost() {
        let (sender, mut receiver) = mpsc::channel(WAITING);
        let text: Vec<u8> = (0..300_000u32).map(|n| n.to_le_bytes()[0]).collect();
        let sent = text.clone();
        let writer = thread::spawn(move || {
            let mut pieces = Pieces::new(sender);
            for part in sent.chunks(7_777) {
                pieces.write_all(part).unwrap();
            }
            pieces.flush().unwrap();
        });
        let (mut got, mut sizes) = (Vec::new(), Vec::new());
        while let Some(message) = receiver.blocking_recv() {
            sizes.push(message.data.len());
            got.extend(message.data);
        }
        writer.join().unwrap();
        assert_eq!(got, text);
        assert_eq!(sizes, [PIECE, PIECE, 300_000 - 2 * PIECE]);
    }

    #[test]
    fn a_server_that_stopped_reading_ends_the_packing() {
        let (sender, receiver) = mpsc::channel(1);
        drop(receiver);
        let mut pieces = Pieces::new(sender);
        pieces.write_all(b"x").unwrap();
        assert_eq!(
            pieces.flush().unwrap_err().kind(),
            io::ErrorKind::BrokenPipe
        );
    }
}
