//! A service against a platform in miniature: who calls whom, with what, and in which order.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    task::{Context, Poll},
};

use tokio::{sync::watch, task::JoinHandle, time::Instant};
use tokio_stream::StreamExt as _;
use tonic::{
    Code, Request, Response, Status,
    body::Body as GrpcBody,
    client::Grpc,
    codegen::{BoxFuture, http::uri::PathAndQuery},
    transport::Channel,
};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
use tonic_prost::ProstCodec;
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
    server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
};

use super::*;
use crate::wire::auth::Options;

use platform::{Fake, answer};

mod platform;

/// A service of the user's: answers once it is released.
#[derive(Clone)]
struct Slow {
    entered: watch::Sender<bool>,
    release: watch::Receiver<bool>,
}

impl NamedService for Slow {
    const NAME: &'static str = "test.Slow";
}

impl HttpService<http::Request<GrpcBody>> for Slow {
    type Response = http::Response<GrpcBody>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<GrpcBody>) -> Self::Future {
        let mut this = self.clone();
        Box::pin(async move {
            this.entered.send_replace(true);
            this.release.wait_for(|released| *released).await.unwrap();
            Ok(answer(request, |message: Options| Ok(message)).await)
        })
    }
}

struct Running {
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    task: JoinHandle<Result<(), Error>>,
    entered: watch::Receiver<bool>,
    release: watch::Sender<bool>,
}

/// Runs a service with `test.Slow` in an environment of `pairs`.
async fn run(pairs: &[(&str, &str)]) -> Running {
    let pairs: BTreeMap<String, String> = pairs
        .iter()
        .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
        .collect();
    let environment = Environment::read(|name| pairs.get(name).cloned());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (entered, was_entered) = watch::channel(false);
    let (release, released) = watch::channel(false);
    let mut service = Service::new("slow")
        .descriptors(slow_descriptors())
        .add(Slow {
            entered,
            release: released,
        });
    service.beat = Duration::from_millis(50);
    let (stop, stopped) = oneshot::channel();
    let stop_signal = Stop::When(Box::pin(async {
        stopped.await.ok();
    }));
    let task = tokio::spawn(service.serve_on(listener, environment, stop_signal));
    Running {
        address,
        stop,
        task,
        entered: was_entered,
        release,
    }
}

/// `test.Slow`, and `test.Elsewhere` that a client in the same build may have brought in.
fn slow_descriptors() -> Vec<u8> {
    struct One;
    impl protox::file::FileResolver for One {
        fn open_file(&self, name: &str) -> Result<protox::file::File, protox::Error> {
            protox::file::File::from_source(
                name,
                "syntax = \"proto3\"; package test; message Options { string namespace = 1; }
                 service Slow { rpc Call(Options) returns (Options); }
                 service Elsewhere { rpc Call(Options) returns (Options); }",
            )
        }
    }
    let mut compiler = protox::Compiler::with_file_resolver(One);
    compiler.open_file("slow.proto").unwrap();
    compiler.encode_file_descriptor_set()
}

async fn channel(address: SocketAddr) -> Channel {
    let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{address}")).unwrap();
    endpoint.connect().await.unwrap()
}

async fn call<T>(channel: T, path: &'static str) -> Result<Options, Status>
where
    T: HttpService<http::Request<GrpcBody>, Response = http::Response<GrpcBody>>,
    T::Error: Into<StdError>,
{
    let mut grpc = Grpc::new(channel);
    grpc.ready()
        .await
        .map_err(|_| Status::unknown("not ready"))?;
    let codec = ProstCodec::<Options, Options>::default();
    let message = Request::new(Options {
        namespace: "hello".into(),
    });
    let answer = grpc
        .unary(message, PathAndQuery::from_static(path), codec)
        .await?;
    Ok(answer.into_inner())
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(Instant::now() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn by_hand(platform: &str) -> [(&str, &str); 4] {
    [
        ("MICRO_PROXY", platform),
        ("MICRO_NAMESPACE", "foo"),
        ("MICRO_CLIENT_ID", "admin"),
        ("MICRO_CLIENT_SECRET", "micro"),
    ]
}

fn fake(lifetime: i64) -> Fake {
    let fake = Fake::default();
    fake.see(|seen| seen.lifetime = lifetime);
    fake
}

#[tokio::test]
async fn reflection_lists_what_is_served_and_health_says_so() {
    let running = run(&[("MICRO_INSTANCE_ID", "i")]).await;
    let channel = channel(running.address).await;
    let list = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let answer = ServerReflectionClient::new(channel.clone())
        .server_reflection_info(tokio_stream::once(list))
        .await
        .unwrap();
    let message = answer.into_inner().next().await.unwrap().unwrap();
    let Some(MessageResponse::ListServicesResponse(list)) = message.message_response else {
        panic!("{message:?}");
    };
    let mut names: Vec<_> = list.service.into_iter().map(|s| s.name).collect();
    names.sort();
    assert_eq!(
        names,
        [
            "grpc.health.v1.Health",
            "grpc.reflection.v1.ServerReflection",
            "test.Slow"
        ]
    );
    for service in ["", "test.Slow"] {
        let request = HealthCheckRequest {
            service: service.to_owned(),
        };
        let answer = HealthClient::new(channel.clone()).check(request).await;
        assert_eq!(answer.unwrap().into_inner().status, 1, "{service:?} serves");
    }
}

#[tokio::test]
async fn a_call_in_flight_and_a_health_watch_end_well_at_the_stop() {
    let mut running = run(&[("MICRO_INSTANCE_ID", "i")]).await;
    let channel = channel(running.address).await;
    let watch = HealthCheckRequest {
        service: String::new(),
    };
    let answer = HealthClient::new(channel.clone()).watch(watch).await;
    let mut watch = answer.unwrap().into_inner();
    assert_eq!(watch.next().await.unwrap().unwrap().status, 1);
    let in_flight = tokio::spawn(call(channel, "/test.Slow/Call"));
    running.entered.wait_for(|entered| *entered).await.unwrap();

    running.stop.send(()).unwrap();
    assert_eq!(
        watch.next().await.unwrap().unwrap().status,
        2,
        "the watcher is told"
    );
    assert!(watch.next().await.is_none(), "and let go");
    assert!(!running.task.is_finished(), "the call is waited for");
    running.release.send_replace(true);
    assert_eq!(in_flight.await.unwrap().unwrap().namespace, "hello");
    running.task.await.unwrap().unwrap();
}

#[tokio::test]
async fn run_by_hand_it_registers_again_after_a_restart_and_deregisters_at_the_stop() {
    let fake = fake(3600);
    let server = fake.start("127.0.0.1:0");
    let platform = server.address.clone();
    let running = run(&by_hand(&platform)).await;
    until("registered", || {
        fake.see(|seen| !seen.registered.is_empty())
    })
    .await;

    let service = fake.see(|seen| seen.registered.values().next().cloned().unwrap());
    assert_eq!(service.name, "slow");
    assert_eq!(service.version, "latest");
    assert_eq!(service.nodes[0].address, running.address.to_string());
    assert_eq!(service.endpoints[0].name, "Slow.Call");
    assert_eq!(
        service.endpoints.len(),
        1,
        "nothing that is served elsewhere"
    );
    let options = service.options.unwrap();
    assert_eq!((options.ttl, options.domain.as_str()), (90, "foo"));

    drop(server);
    fake.see(|seen| seen.registered.clear());
    // The old one's listener closes in its own time.
    until("the port is free", || {
        std::net::TcpListener::bind(&platform).is_ok()
    })
    .await;
    let server = fake.start(&platform);
    until("registered again", || {
        fake.see(|seen| !seen.registered.is_empty())
    })
    .await;

    running.stop.send(()).unwrap();
    running.task.await.unwrap().unwrap();
    assert!(fake.see(|seen| seen.registered.is_empty()), "deregistered");
    assert_eq!(fake.see(|seen| seen.tokens), 1, "one token for all of it");
    drop(server);
}

#[tokio::test]
async fn it_serves_without_a_platform_and_registers_when_there_is_one() {
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let platform = free.local_addr().unwrap().to_string();
    drop(free);
    let running = run(&by_hand(&platform)).await;
    running.release.send_replace(true);
    let channel = channel(running.address).await;
    call(channel, "/test.Slow/Call").await.unwrap();

    let fake = fake(3600);
    let _server = fake.start(&platform);
    until("registered", || {
        fake.see(|seen| !seen.registered.is_empty())
    })
    .await;
}

#[tokio::test]
async fn without_credentials_or_run_by_the_platform_it_leaves_the_registry_alone() {
    let fake = fake(3600);
    let server = fake.start("127.0.0.1:0");
    let platform = server.address.clone();
    let anonymous = run(&[("MICRO_PROXY", &platform)]).await;
    let mut managed = by_hand(&platform).to_vec();
    managed.push(("MICRO_INSTANCE_ID", "i"));
    let managed = run(&managed).await;
    for running in [anonymous, managed] {
        running.release.send_replace(true);
        let channel = channel(running.address).await;
        call(channel, "/test.Slow/Call").await.unwrap();
        running.stop.send(()).unwrap();
        running.task.await.unwrap().unwrap();
    }
    assert!(fake.see(|seen| seen.calls.is_empty()));
}

fn mesh_in(pairs: &[(&str, &str)]) -> Mesh {
    Mesh::new(&Environment::read(|name| {
        let (_, value) = pairs.iter().find(|(n, _)| *n == name)?;
        Some((*value).to_owned())
    }))
}

#[tokio::test]
async fn calls_carry_the_services_token_and_namespace() {
    let fake = fake(3600);
    let server = fake.start("127.0.0.1:0");
    let platform = server.address.clone();
    let mesh = mesh_in(&by_hand(&platform));
    call(mesh.clone(), "/test.Echo/Call").await.unwrap();
    call(mesh.to("second"), "/test.Echo/Call").await.unwrap();
    call(mesh_in(&[("MICRO_PROXY", &platform)]), "/test.Echo/Call")
        .await
        .unwrap();
    assert_eq!(
        fake.see(|seen| seen.calls.clone()),
        [
            "/auth.Auth/Token - -",
            "/test.Echo/Call Bearer token-1 foo",
            "/second.Echo/Call Bearer token-1 foo",
            "/test.Echo/Call - micro"
        ]
    );
}

#[tokio::test]
async fn a_token_is_renewed_before_it_ends() {
    let fake = fake(1);
    let server = fake.start("127.0.0.1:0");
    let platform = server.address.clone();
    let mesh = mesh_in(&by_hand(&platform));
    let deadline = Instant::now() + Duration::from_secs(20);
    while fake.see(|seen| seen.tokens) < 3 {
        assert!(Instant::now() < deadline);
        call(mesh.clone(), "/test.Echo/Call").await.unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_token_that_the_platform_does_not_know_any_more_is_replaced() {
    let fake = fake(3600);
    let server = fake.start("127.0.0.1:0");
    let mesh = mesh_in(&by_hand(&server.address));
    call(mesh.clone(), "/test.Echo/Call").await.unwrap();
    fake.see(|seen| seen.refuse_tokens_before = 2);
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(60)).await;
    tokio::time::resume();
    let status = call(mesh.clone(), "/test.Echo/Call").await.unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated);
    call(mesh, "/test.Echo/Call").await.unwrap();
}

#[tokio::test]
async fn credentials_that_are_wrong_are_named() {
    let fake = fake(3600);
    let server = fake.start("127.0.0.1:0");
    let platform = server.address.clone();
    let mut pairs = by_hand(&platform);
    pairs[3].1 = "wrong";
    let status = call(mesh_in(&pairs), "/test.Echo/Call").await.unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated);
    assert_eq!(
        status.message(),
        "cannot log in as admin in namespace foo: Secret not correct; \
         check MICRO_CLIENT_ID and MICRO_CLIENT_SECRET"
    );
    let status = call(
        mesh_in(&[("MICRO_PROXY", "127.0.0.1:1")]),
        "/test.Echo/Call",
    )
    .await
    .unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert!(
        status
            .message()
            .starts_with("cannot reach the platform at 127.0.0.1:1: "),
        "{status}"
    );
}

#[tokio::test]
async fn bytes_that_are_no_descriptors_are_refused() {
    let service = Service::new("x").descriptors(&b"\xff\xff"[..]);
    let error = service.run_until(async {}).await.unwrap_err();
    assert!(error.to_string().contains("FILE_DESCRIPTOR_SET"), "{error}");
}

#[tokio::test]
async fn an_address_in_use_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let environment = Environment::read(|name| (name == "PORT").then(|| port.clone()));
    let service = Service::new("x");
    let error = service.serve(environment, Stop::When(Box::pin(pending())));
    let error = error.await.unwrap_err().to_string();
    assert!(
        error.starts_with(&format!("cannot listen on 127.0.0.1:{port}: ")),
        "{error}"
    );
}
