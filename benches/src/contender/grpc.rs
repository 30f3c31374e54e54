//! gRPC straight over hyper: no middleware.

use std::{convert::Infallible, sync::Arc};

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use http_body_util::{BodyExt as _, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    Request, Response,
    body::{Frame, Incoming},
    client::conn::http2::{self, SendRequest},
    header::HeaderValue,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use tokio::{net::TcpStream, sync::mpsc};
use tokio_stream::{StreamExt as _, wrappers::ReceiverStream};

use super::Failure;

type Body = UnsyncBoxBody<Bytes, Infallible>;

/// One HTTP/2 connection; clones share it.
#[derive(Clone)]
pub(super) struct Connection {
    sender: SendRequest<Body>,
    address: Arc<str>,
    token: Option<Arc<str>>,
}

/// A bidirectional call.
pub(super) struct Stream {
    messages: mpsc::Sender<Bytes>,
    answer: Incoming,
    buffer: BytesMut,
}

fn frame(message: &[u8]) -> Bytes {
    let mut framed = BytesMut::with_capacity(message.len() + 5);
    framed.put_u8(0);
    framed.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    framed.put_slice(message);
    framed.freeze()
}

impl Connection {
    pub(super) async fn open(address: &str, token: Option<Arc<str>>) -> Result<Self, Failure> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) = http2::Builder::new(TokioExecutor::new())
            .initial_stream_window_size(4 << 20)
            .initial_connection_window_size(16 << 20)
            .handshake(TokioIo::new(stream))
            .await?;
        tokio::spawn(connection);
        Ok(Self {
            sender,
            address: address.into(),
            token,
        })
    }

    async fn call(&self, path: &str, body: Body) -> Result<Response<Incoming>, Failure> {
        let mut request = Request::post(format!("http://{}{path}", self.address))
            .header("content-type", "application/grpc")
            .header("te", "trailers");
        if let Some(token) = &self.token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let mut sender = self.sender.clone();
        sender.ready().await?;
        let response = sender.send_request(request.body(body)?).await?;
        match response.headers().get("grpc-status") {
            Some(code) if code != "0" => Err(refused(path, code)),
            _ => Ok(response),
        }
    }

    pub(super) async fn unary(&self, path: &str, message: &impl Message) -> Result<Bytes, Failure> {
        let body = Full::new(frame(&message.encode_to_vec())).boxed_unsync();
        let body = self.call(path, body).await?.into_body().collect().await?;
        match body.trailers().and_then(|t| t.get("grpc-status")) {
            Some(code) if code != "0" => Err(refused(path, code)),
            _ => {
                let mut bytes = body.to_bytes();
                bytes.advance(5.min(bytes.len()));
                Ok(bytes)
            }
        }
    }

    pub(super) async fn stream(&self, path: &str, first: &[u8]) -> Result<Stream, Failure> {
        let (messages, queue) = mpsc::channel(1024);
        messages.send(frame(first)).await?;
        let body = StreamBody::new(ReceiverStream::new(queue).map(|b| Ok(Frame::data(b))));
        let response = self.call(path, body.boxed_unsync()).await?;
        Ok(Stream {
            messages,
            answer: response.into_body(),
            buffer: BytesMut::new(),
        })
    }
}

fn refused(path: &str, code: &HeaderValue) -> Failure {
    format!("gRPC status {code:?} from {path}").into()
}

impl Stream {
    pub(super) async fn send(&mut self, message: &[u8]) -> Result<(), Failure> {
        Ok(self.messages.send(frame(message)).await?)
    }

    pub(super) async fn next(&mut self) -> Result<Bytes, Failure> {
        loop {
            if let Some(mut head) = self.buffer.get(1..5) {
                let size = head.get_u32() as usize;
                if self.buffer.len() >= size + 5 {
                    self.buffer.advance(5);
                    return Ok(self.buffer.split_to(size).freeze());
                }
            }
            let frame = self.answer.frame().await.ok_or("the stream ended")??;
            match frame.into_data() {
                Ok(data) => self.buffer.extend_from_slice(&data),
                Err(trailers) => return Err(format!("the stream ended: {trailers:?}").into()),
            }
        }
    }
}
