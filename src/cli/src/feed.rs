//! Sends a stream to the server while it is being made, in constant memory: a thread makes the
//! messages, and a bounded queue makes it wait for the network.

use std::{
    future::Future,
    io::{self, Write},
    thread,
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use crate::{
    error::{Error, Result},
    printer::Printer,
};

/// Bytes of one message, and how many of them wait at most.
pub(crate) const PIECE: usize = 128 * 1024;
const WAITING: usize = 8;

/// Calls with the messages that `fill` sends, and gives the answer.
///
/// # Errors
/// When `fill` fails, in which case the server never sees the end of the stream.
pub(crate) async fn feed<T, A, F>(
    fill: impl FnOnce(mpsc::Sender<T>) -> Result<()> + Send + 'static,
    call: impl FnOnce(ReceiverStream<T>) -> F,
) -> Result<std::result::Result<A, Status>>
where
    T: Send + 'static,
    F: Future<Output = std::result::Result<A, Status>>,
{
    let (sender, receiver) = mpsc::channel(WAITING);
    let (tell, filled) = oneshot::channel();
    // Held until all is made: a stream that ends early would look like a complete one.
    let open = sender.clone();
    thread::spawn(move || {
        // Nobody listens when the server refused first.
        let _ = tell.send(fill(sender));
    });
    let mut answer = Box::pin(call(ReceiverStream::new(receiver)));
    tokio::select! {
        biased;
        early = &mut answer => Ok(early),
        filled = filled => {
            match filled {
                // The server stopped reading: its answer says why.
                Ok(Err(_)) if open.is_closed() => {}
                Ok(result) => result?,
                Err(_) => return Err(Error::failed("reading what is to be sent failed")),
            }
            drop(open);
            Ok(answer.await)
        }
    }
}

/// A bar for a stream of so many bytes, if a person watches.
pub(crate) fn progress(printer: Printer, bytes: u64) -> ProgressBar {
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
pub(crate) struct Pieces<T, F> {
    sender: mpsc::Sender<T>,
    message: F,
    buffer: Vec<u8>,
}

impl<T, F: FnMut(Vec<u8>) -> T> Pieces<T, F> {
    /// Sends what `message` makes of each piece.
    pub(crate) fn new(sender: mpsc::Sender<T>, message: F) -> Self {
        Self {
            sender,
            message,
            buffer: Vec::with_capacity(PIECE),
        }
    }

    fn send(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let data = std::mem::replace(&mut self.buffer, Vec::with_capacity(PIECE));
        self.sender
            .blocking_send((self.message)(data))
            .map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))
    }
}

impl<T, F: FnMut(Vec<u8>) -> T> Write for Pieces<T, F> {
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
            let mut pieces = Pieces::new(sender, |data| data);
            for part in sent.chunks(7_777) {
                pieces.write_all(part).unwrap();
            }
            pieces.flush().unwrap();
        });
        let (mut got, mut sizes) = (Vec::new(), Vec::new());
        while let Some(data) = receiver.blocking_recv() {
            sizes.push(data.len());
            got.extend(data);
        }
        writer.join().unwrap();
        assert_eq!(got, text);
        assert_eq!(sizes, [PIECE, PIECE, 300_000 - 2 * PIECE]);
    }

    #[test]
    fn a_server_that_stopped_reading_ends_the_making() {
        let (sender, receiver) = mpsc::channel(1);
        drop(receiver);
        let mut pieces = Pieces::new(sender, |data| data);
        pieces.write_all(b"x").unwrap();
        assert_eq!(
            pieces.flush().unwrap_err().kind(),
            io::ErrorKind::BrokenPipe
        );
    }

    #[tokio::test]
    async fn a_stream_that_could_not_be_made_has_no_end() {
        let ended = feed::<u8, (), _>(
            |sender| {
                sender.blocking_send(1).unwrap();
                Err(Error::failed("no more"))
            },
            async |mut messages| {
                use tokio_stream::StreamExt as _;
                assert_eq!(messages.next().await, Some(1));
                messages.next().await;
                panic!("the end was seen")
            },
        );
        assert_eq!(ended.await.unwrap_err().to_string(), "no more");
    }
}
