//! Connections that speak something else, stay silent, or are open when the door closes.

use std::{sync::atomic::Ordering::SeqCst, time::Duration};

use micro_proto::runtime::{LogsRequest, runtime_client::RuntimeClient};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tokio_stream::wrappers::ReceiverStream;

use crate::{
    backend::Backend,
    fixture::{Fixture, eventually},
    raw::Client,
};

#[tokio::test]
async fn a_browser_is_told_where_the_gateway_is() {
    let fixture = Fixture::service(&[]).await;
    let mut stream = TcpStream::connect(fixture.address).await.unwrap();
    stream
        .write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        .await
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    assert!(answer.contains("gateway"), "{answer}");

    let mut raw = Client::connect(fixture.address).await;
    let answer = raw
        .call("/", &[("content-type", "application/json")], b"{}")
        .await;
    assert_eq!(answer.status, 415);
}

#[tokio::test]
async fn a_preface_in_pieces_is_understood() {
    let backend = Backend::new("one");
    let instance = backend.start().await;
    let fixture = Fixture::service(&[instance.address]).await;
    let (mut near, far) = tokio::io::duplex(1 << 16);
    let mut socket = TcpStream::connect(fixture.address).await.unwrap();
    tokio::spawn(async move {
        let mut first = [0; 24];
        near.read_exact(&mut first).await.unwrap();
        for byte in first {
            socket.write_all(&[byte]).await.unwrap();
            socket.flush().await.unwrap();
            tokio::task::yield_now().await;
        }
        let _ = tokio::io::copy_bidirectional(&mut near, &mut socket).await;
    });
    let (send, connection) = h2::client::handshake(far).await.unwrap();
    tokio::spawn(connection);
    let mut send = send.ready().await.unwrap();
    let request = http::Request::post("http://x/runtime.Runtime/Nope")
        .header("content-type", "application/grpc")
        .body(())
        .unwrap();
    let (response, _) = send.send_request(request, true).unwrap();
    let answer = crate::raw::read(response).await;
    assert_eq!(answer.status().0, 12);
    let _: h2::client::SendRequest<bytes::Bytes> = send;
}

#[tokio::test]
async fn the_door_closes_when_open_calls_have_ended() {
    let backend = Backend::new("one");
    let instance = backend.start().await;
    let mut fixture = Fixture::service(&[instance.address]).await;
    let mut client = RuntimeClient::new(fixture.channel().await);
    let (messages, stream) = tokio::sync::mpsc::channel(4);
    let mut echo = client
        .logs(ReceiverStream::new(stream))
        .await
        .unwrap()
        .into_inner();
    messages.send(LogsRequest::default()).await.unwrap();
    echo.message().await.unwrap().unwrap();

    fixture.stop.cancel();
    // The call in flight goes on.
    for _ in 0..3 {
        messages.send(LogsRequest::default()).await.unwrap();
        echo.message().await.unwrap().unwrap();
    }
    eventually("new connections are refused", || {
        std::net::TcpStream::connect(fixture.address).is_err()
    })
    .await;
    assert!(!fixture.serving.is_finished(), "a call is still open");
    drop(messages);
    assert_eq!(echo.message().await.unwrap(), None);
    assert!(backend.seen.half_closed.load(SeqCst));
    tokio::time::timeout(Duration::from_secs(5), &mut fixture.serving)
        .await
        .expect("the door closes soon after")
        .unwrap();
}
