//! Several instances, some of them gone.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
};

use micro_proto::runtime::{ReadRequest, UpdateRequest, runtime_client::RuntimeClient};
use tokio::net::TcpListener;

use crate::{
    backend::Backend,
    fixture::{Fixture, eventually, spec},
    raw::{Client, frame},
};

/// An address that refuses connections.
async fn dead() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap()
}

#[tokio::test]
async fn calls_go_round_the_living_and_none_fails() {
    let backends = [Backend::new("a"), Backend::new("b")];
    let (a, b) = (backends[0].start().await, backends[1].start().await);
    let fixture = Fixture::service(&[a.address, dead().await, b.address]).await;
    let mut client = RuntimeClient::new(fixture.channel().await);
    for _ in 0..40 {
        client.read(ReadRequest::default()).await.unwrap();
    }
    for backend in &backends {
        let calls = backend.seen.calls.load(SeqCst);
        assert!(calls >= 10, "{} got {calls} of 40", backend.name);
    }
    let page = fixture.pipeline.metrics();
    assert!(page.contains("} 0"), "the dead one is reported: {page}");
}

#[tokio::test]
async fn the_least_busy_instance_is_next() {
    let backends = [Backend::new("a"), Backend::new("b")];
    let (a, b) = (backends[0].start().await, backends[1].start().await);
    let fixture = Fixture::service(&[a.address, b.address]).await;
    let client = RuntimeClient::new(fixture.channel().await);
    // One call that never ends makes its instance the busier one.
    let mut hanging = client.clone();
    let call = tokio::spawn(async move { hanging.update(UpdateRequest::default()).await });
    let calls = |i: usize| backends[i].seen.calls.load(SeqCst);
    eventually("the call hangs", || calls(0) + calls(1) == 1).await;
    let busy = usize::from(calls(1) == 1);
    for _ in 0..10 {
        client.clone().read(ReadRequest::default()).await.unwrap();
    }
    assert_eq!((calls(busy), calls(1 - busy)), (1, 10));

    // The counters survive a new table.
    fixture
        .router
        .update(vec![spec("runtime", &[b.address, a.address])]);
    for _ in 0..10 {
        client.clone().read(ReadRequest::default()).await.unwrap();
    }
    assert_eq!((calls(busy), calls(1 - busy)), (1, 20));
    call.abort();
}

#[tokio::test]
async fn a_service_without_living_instances_is_unavailable_and_comes_back() {
    let fixture = Fixture::service(&[]).await;
    let mut raw = Client::connect(fixture.address).await;
    let (code, message) = raw.call("/runtime.Runtime/Read", &[], b"").await.status();
    assert_eq!(code, 14);
    assert!(message.contains("no instance is running"), "{message}");

    let address = dead().await;
    fixture.router.update(vec![spec("runtime", &[address])]);
    let (code, message) = raw.call("/runtime.Runtime/Read", &[], b"").await.status();
    assert_eq!(code, 14);
    assert!(message.contains("connection refused"), "{message}");

    // The same address, alive again: resting, but there is no better one to try.
    let listener = TcpListener::bind(address).await.unwrap();
    let server = tonic::transport::Server::builder().add_routes(Backend::new("back").routes());
    let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
    tokio::spawn(server.serve_with_incoming(incoming));
    let (code, _) = raw.call("/runtime.Runtime/Read", &[], b"").await.status();
    assert_eq!(code, 0);
}

/// Answers every stream on its connections as `refuse` says, and counts them.
async fn picky(
    refuse: impl Fn(usize) -> bool + Send + Sync + 'static,
) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let count = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&count);
    let refuse = Arc::new(refuse);
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let (counter, refuse) = (Arc::clone(&counter), Arc::clone(&refuse));
            tokio::spawn(async move {
                let mut connection = h2::server::handshake(stream).await.unwrap();
                while let Some(Ok((_, mut respond))) = connection.accept().await {
                    if refuse(counter.fetch_add(1, SeqCst)) {
                        respond.send_reset(h2::Reason::REFUSED_STREAM);
                        continue;
                    }
                    let response = http::Response::builder()
                        .header("content-type", "application/grpc")
                        .body(())
                        .unwrap();
                    let mut send = respond.send_response(response, false).unwrap();
                    send.send_data(frame(b""), false).unwrap();
                    let mut trailers = http::HeaderMap::new();
                    trailers.insert("grpc-status", "0".parse().unwrap());
                    send.send_trailers(trailers).unwrap();
                }
            });
        }
    });
    (address, count)
}

#[tokio::test]
async fn a_refused_stream_goes_out_again_with_its_message() {
    let (address, count) = picky(|n| n == 0).await;
    let fixture = Fixture::service(&[address]).await;
    let mut raw = Client::connect(fixture.address).await;
    let answer = raw.call("/runtime.Runtime/Read", &[], b"").await;
    assert_eq!(answer.status().0, 0);
    assert_eq!(count.load(SeqCst), 2);
}

#[tokio::test]
async fn an_instance_that_refuses_for_ever_is_given_up() {
    let (address, count) = picky(|_| true).await;
    let fixture = Fixture::service(&[address]).await;
    let mut raw = Client::connect(fixture.address).await;
    let (code, _) = raw.call("/runtime.Runtime/Read", &[], b"").await.status();
    assert_eq!(code, 14);
    assert_eq!(count.load(SeqCst), 4, "one try and three more");
}

#[tokio::test]
async fn a_connection_that_says_goodbye_is_replaced_without_a_failed_call() {
    // Each connection serves two streams and then goes away.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let mut connection = h2::server::handshake(stream).await.unwrap();
                let mut served = 0;
                while let Some(Ok((_, mut respond))) = connection.accept().await {
                    let response = http::Response::builder()
                        .header("content-type", "application/grpc")
                        .header("grpc-status", "0")
                        .body(())
                        .unwrap();
                    respond.send_response(response, true).unwrap();
                    served += 1;
                    if served == 2 {
                        connection.graceful_shutdown();
                    }
                }
            });
        }
    });
    let fixture = Fixture::service(&[address]).await;
    let mut raw = Client::connect(fixture.address).await;
    for _ in 0..20 {
        let answer = raw.call("/runtime.Runtime/Read", &[], b"").await;
        assert_eq!(answer.status().0, 0);
    }
}

#[tokio::test]
async fn more_calls_than_streams_wait_or_spread_and_all_are_answered() {
    let backend = Backend::new("one");
    let instance = backend.start().await;
    let fixture = Fixture::service(&[instance.address]).await;
    let client = RuntimeClient::new(fixture.channel().await);
    let calls: Vec<_> = (0..500)
        .map(|_| {
            let mut client = client.clone();
            tokio::spawn(async move { client.read(ReadRequest::default()).await })
        })
        .collect();
    for call in calls {
        call.await.unwrap().unwrap();
    }
}
