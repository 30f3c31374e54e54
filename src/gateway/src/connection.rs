//! One client connection: HTTP/1.1 or HTTP/2 in clear text, told apart by their first bytes; how
//! long a client may dawdle; and the end of a connection when the door closes.

use std::{
    convert::Infallible,
    io::{self, IoSlice},
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use http::Request;
use hyper::{
    body::Incoming,
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use micro_pipeline::Peer;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf},
    net::TcpStream,
};

use crate::{Gateway, route};

/// How long a client may take from connecting, or from its last request, to the end of the next
/// request's headers.
const HEADERS: Duration = Duration::from_secs(60);
/// Request line and headers of one request, and the unit in which bodies are read.
const BUFFER: usize = 128 * 1024;
/// Requests in flight on one HTTP/2 connection.
const STREAMS: u32 = 256;
/// When a silent HTTP/2 connection is asked whether it is still there, and for how long.
const PING_AFTER: Duration = Duration::from_secs(30);
const PING_WAIT: Duration = Duration::from_secs(20);

/// How an HTTP/2 client with prior knowledge begins (RFC 9113 §3.4).
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Serves one connection to its end.
pub(crate) async fn serve(stream: TcpStream, peer: SocketAddr, gateway: Arc<Gateway>) {
    let stop = gateway.stop.clone();
    // Answers are written whole; waiting for more to send would only delay them.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "Cannot set TCP_NODELAY.");
    }
    let sniffed = tokio::select! {
        sniffed = tokio::time::timeout(HEADERS, Sniffed::read(stream)) => sniffed,
        () = stop.cancelled() => return,
    };
    let Ok(Ok(Some((io, is_http2)))) = sniffed else {
        return;
    };
    let io = TokioIo::new(io);
    let peer = Peer {
        address: peer,
        tls: false,
    };
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(peer);
        let answer = route::answer(Arc::clone(&gateway), request);
        async move { Ok::<_, Infallible>(answer.await) }
    });
    let outcome = if is_http2 {
        let connection = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .max_concurrent_streams(STREAMS)
            .initial_stream_window_size(1 << 20)
            .initial_connection_window_size(4 << 20)
            .keep_alive_interval(PING_AFTER)
            .keep_alive_timeout(PING_WAIT)
            .serve_connection(io, service);
        let mut connection = std::pin::pin!(connection);
        tokio::select! {
            biased;
            outcome = connection.as_mut() => outcome,
            () = stop.cancelled() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        }
    } else {
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADERS)
            .max_buf_size(BUFFER)
            .pipeline_flush(true)
            .serve_connection(io, service)
            .with_upgrades();
        let mut connection = std::pin::pin!(connection);
        tokio::select! {
            biased;
            outcome = connection.as_mut() => outcome,
            () = stop.cancelled() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        }
    };
    if let Err(error) = outcome {
        // Clients go away in all sorts of ways; none of them is news.
        tracing::debug!(%error, "A connection ended early.");
    }
}

/// A connection whose first bytes have been looked at, and are read again.
struct Sniffed {
    seen: [u8; PREFACE.len()],
    from: usize,
    to: usize,
    stream: TcpStream,
}

impl Sniffed {
    /// Reads until it is certain which protocol the client speaks; `None` if it left before.
    async fn read(mut stream: TcpStream) -> io::Result<Option<(Self, bool)>> {
        let mut seen = [0; PREFACE.len()];
        let mut to = 0;
        loop {
            let Some(rest) = seen.get_mut(to..) else {
                return Ok(None);
            };
            match stream.read(rest).await? {
                0 => return Ok(None),
                count => to += count,
            }
            let is_http2 = to == PREFACE.len() && seen == *PREFACE;
            if is_http2 || seen.get(..to) != PREFACE.get(..to) {
                return Ok(Some((
                    Self {
                        seen,
                        from: 0,
                        to,
                        stream,
                    },
                    is_http2,
                )));
            }
        }
    }
}

impl AsyncRead for Sniffed {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.from < self.to {
            let end = self.to.min(self.from + buffer.remaining());
            buffer.put_slice(self.seen.get(self.from..end).unwrap_or_default());
            self.from = end;
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Sniffed {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::{io::AsyncWriteExt as _, net::TcpListener};

    use super::*;

    async fn sniff(pieces: &[&[u8]]) -> Option<(bool, Vec<u8>)> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap())
            .await
            .unwrap();
        let server = listener.accept().await.unwrap().0;
        let write = async {
            for piece in pieces {
                client.write_all(piece).await.unwrap();
                tokio::task::yield_now().await;
            }
            drop(client);
        };
        let ((), sniffed) = tokio::join!(write, Sniffed::read(server));
        let (mut io, is_http2) = sniffed.unwrap()?;
        let mut all = Vec::new();
        io.read_to_end(&mut all).await.unwrap();
        Some((is_http2, all))
    }

    #[tokio::test]
    async fn protocols_are_told_apart_and_no_byte_is_lost() {
        let get = &b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"[..];
        assert_eq!(sniff(&[get]).await, Some((false, get.to_vec())));
        assert_eq!(
            sniff(&[b"P", b"OST / HTTP/1.1"]).await,
            Some((false, b"POST / HTTP/1.1".to_vec()))
        );
        let mut h2 = PREFACE.to_vec();
        h2.extend_from_slice(b"settings");
        assert_eq!(
            sniff(&[b"PRI * HTTP/2.0\r\n", b"\r\nSM\r\n\r\nsettings"]).await,
            Some((true, h2))
        );
        assert_eq!(sniff(&[b"PRI"]).await, None);
    }
}
