//! A client that sends exactly what a test says.

use std::net::SocketAddr;

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use h2::{
    Reason, RecvStream, SendStream,
    client::{self, SendRequest},
};
use http::{HeaderMap, Request};
use tokio::net::TcpStream;

pub(crate) fn frame(message: &[u8]) -> Bytes {
    let mut framed = BytesMut::new();
    framed.put_u8(0);
    framed.put_u32(message.len() as u32);
    framed.put_slice(message);
    framed.freeze()
}

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) messages: Vec<Bytes>,
    pub(crate) trailers: HeaderMap,
    pub(crate) reset: Option<Reason>,
}

impl Answer {
    /// Code and message, from trailers or from headers.
    pub(crate) fn status(&self) -> (i32, String) {
        let map = if self.trailers.contains_key("grpc-status") {
            &self.trailers
        } else {
            &self.headers
        };
        let status = tonic::Status::from_header_map(map).expect("a gRPC status");
        (status.code() as i32, status.message().to_owned())
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.messages[0]).unwrap()
    }
}

pub(crate) struct Client(SendRequest<Bytes>);

/// A request that is open in both directions.
pub(crate) struct Open {
    pub(crate) send: SendStream<Bytes>,
    pub(crate) response: client::ResponseFuture,
}

impl Client {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        let (send, connection) = client::handshake(stream).await.unwrap();
        tokio::spawn(connection);
        Self(send.ready().await.unwrap())
    }

    /// Opens a request and leaves it open.
    pub(crate) fn open(&mut self, path: &str, headers: &[(&str, &str)]) -> Open {
        let mut request =
            Request::post(format!("http://micro{path}")).version(http::Version::HTTP_2);
        if !headers.iter().any(|(name, _)| *name == "content-type") {
            request = request.header("content-type", "application/grpc");
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (response, send) = self
            .0
            .send_request(request.body(()).unwrap(), false)
            .unwrap();
        Open { send, response }
    }

    /// Sends one message and half-closes.
    pub(crate) async fn call(
        &mut self,
        path: &str,
        headers: &[(&str, &str)],
        message: &[u8],
    ) -> Answer {
        let mut open = self.open(path, headers);
        open.send.send_data(frame(message), true).unwrap();
        read(open.response).await
    }

    /// Sends one message and leaves the stream open, as Micro's Go clients do.
    pub(crate) async fn call_open(
        &mut self,
        path: &str,
        headers: &[(&str, &str)],
        message: &[u8],
    ) -> Answer {
        let mut open = self.open(path, headers);
        open.send.send_data(frame(message), false).unwrap();
        let answer = read(open.response).await;
        drop(open.send);
        answer
    }
}

pub(crate) async fn read(response: client::ResponseFuture) -> Answer {
    let response = tokio::time::timeout(std::time::Duration::from_secs(10), response)
        .await
        .expect("an answer in time")
        .unwrap();
    let mut answer = Answer {
        status: response.status().as_u16(),
        headers: response.headers().clone(),
        messages: Vec::new(),
        trailers: HeaderMap::new(),
        reset: None,
    };
    let mut body = response.into_body();
    let mut bytes = BytesMut::new();
    while let Some(chunk) = body.data().await {
        match chunk {
            Ok(chunk) => {
                let _ = body.flow_control().release_capacity(chunk.len());
                bytes.extend_from_slice(&chunk);
            }
            Err(error) => {
                answer.reset = error.reason();
                return answer;
            }
        }
    }
    answer.trailers = body.trailers().await.unwrap().unwrap_or_default();
    while bytes.len() >= 5
        && answer.headers["content-type"]
            .as_bytes()
            .starts_with(b"application/grpc")
    {
        bytes.advance(1);
        let size = bytes.get_u32() as usize;
        answer.messages.push(bytes.split_to(size).freeze());
    }
    if !bytes.is_empty() {
        answer.messages.push(bytes.freeze());
    }
    answer
}

/// The next chunk of an answer's body.
pub(crate) async fn chunk(body: &mut RecvStream) -> Bytes {
    let chunk = body.data().await.unwrap().unwrap();
    let _ = body.flow_control().release_capacity(chunk.len());
    chunk
}
