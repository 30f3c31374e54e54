//! A server that answers from a script and remembers what it was sent.

use std::{
    convert::Infallible,
    io::Read as _,
    net::SocketAddr,
    sync::{Arc, Mutex},
    task::{Context, Poll},
};

use bytes::Bytes;
use micro_core::{Kind, WireError};
use micro_proto::{
    auth::{self, auth_server::AuthServer},
    config::config_server::ConfigServer,
    events::store_server::StoreServer as EventStoreServer,
    registry::{self, registry_server::RegistryServer},
    runtime::{
        self, deploy_event::Event, runtime_server::RuntimeServer, source_server::SourceServer,
    },
    status::from_wire,
    store::{blob_store_server::BlobStoreServer, store_server::StoreServer},
};
use tokio_stream::{Stream, StreamExt as _};
use tonic::{
    Request, Response, Status, Streaming,
    body::Body,
    codegen::BoxFuture,
    server::{NamedService, UnaryService},
    transport::{Server, server::TcpIncoming},
};
use tower::Service;

#[path = "../../src/codec.rs"]
mod codec;
mod state;

use codec::Frames;
pub(crate) use state::State;

/// What clients sent.
#[derive(Default)]
pub(crate) struct Seen {
    pub(crate) state: State,
    pub(crate) authorization: Vec<String>,
    pub(crate) kinds: Vec<String>,
    pub(crate) claimed: Option<(String, String, String)>,
    pub(crate) uploaded: Vec<(String, u64)>,
    pub(crate) deploys: Vec<runtime::DeployRequest>,
}

#[derive(Clone)]
struct Script(Arc<Mutex<Seen>>);

pub(crate) async fn start(seen: Arc<Mutex<Seen>>) -> SocketAddr {
    let incoming = TcpIncoming::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = incoming.local_addr().unwrap();
    let script = Script(seen);
    tokio::spawn(
        Server::builder()
            .add_service(AuthServer::new(script.clone()))
            .add_service(RegistryServer::new(script.clone()))
            .add_service(RuntimeServer::new(script.clone()))
            .add_service(SourceServer::new(script.clone()))
            .add_service(StoreServer::new(script.clone()))
            .add_service(BlobStoreServer::new(script.clone()))
            .add_service(ConfigServer::new(script.clone()))
            .add_service(EventStoreServer::new(script.clone()))
            .add_service(state::Events(script.clone()))
            .add_service(Hello(script.clone()))
            .add_service(Gone)
            .serve_with_incoming(incoming),
    );
    address
}

fn refuse(kind: Kind, detail: &str) -> Status {
    from_wire(&WireError::new("test", kind, detail))
}

type Answers<T> = std::pin::Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

fn now() -> i64 {
    micro_core::Clock::System.now().unix_seconds()
}

impl Script {
    fn allow<T>(&self, request: &Request<T>) -> Result<(), Status> {
        let header = request.metadata().get("authorization");
        let text = header.and_then(|h| h.to_str().ok()).unwrap_or_default();
        self.0.lock().unwrap().authorization.push(text.into());
        if text.is_empty() {
            return Err(refuse(Kind::Unauthenticated, "an account is required"));
        }
        Ok(())
    }
}

#[tonic::async_trait]
impl auth::auth_server::Auth for Script {
    async fn generate(
        &self,
        _: Request<auth::GenerateRequest>,
    ) -> Result<Response<auth::GenerateResponse>, Status> {
        Err(Status::unimplemented("generate"))
    }

    async fn inspect(
        &self,
        _: Request<auth::InspectRequest>,
    ) -> Result<Response<auth::InspectResponse>, Status> {
        let account = auth::Account {
            id: "admin".into(),
            ..auth::Account::default()
        };
        Ok(Response::new(auth::InspectResponse {
            account: Some(account),
        }))
    }

    async fn token(
        &self,
        request: Request<auth::TokenRequest>,
    ) -> Result<Response<auth::TokenResponse>, Status> {
        let request = request.into_inner();
        let (access, life) = match request.refresh_token.as_str() {
            "refresh" => ("renewed", 3600),
            _ if ["micro", "secret"].contains(&request.secret.as_str()) => ("first", 30),
            _ => return Err(refuse(Kind::Invalid, "Secret not correct")),
        };
        Ok(Response::new(auth::TokenResponse {
            token: Some(auth::Token {
                access_token: access.into(),
                refresh_token: "refresh".into(),
                created: now(),
                expiry: now() + life,
            }),
        }))
    }

    async fn claim(
        &self,
        request: Request<auth::ClaimRequest>,
    ) -> Result<Response<auth::ClaimResponse>, Status> {
        let r = request.into_inner();
        self.0.lock().unwrap().claimed = Some((r.token, r.id, r.secret));
        Ok(Response::new(auth::ClaimResponse::default()))
    }
}

fn value(name: &str, kind: &str, values: Vec<registry::Value>) -> registry::Value {
    registry::Value {
        name: name.into(),
        r#type: kind.into(),
        values,
    }
}

#[tonic::async_trait]
impl registry::registry_server::Registry for Script {
    type WatchStream = Answers<registry::Result>;

    async fn get_service(
        &self,
        request: Request<registry::GetRequest>,
    ) -> Result<Response<registry::GetResponse>, Status> {
        let service = registry::Service {
            name: request.into_inner().service,
            version: "v1".into(),
            ..registry::Service::default()
        };
        Ok(Response::new(registry::GetResponse {
            services: vec![service],
        }))
    }

    async fn register(
        &self,
        _: Request<registry::Service>,
    ) -> Result<Response<registry::EmptyResponse>, Status> {
        Err(Status::unimplemented("register"))
    }

    async fn deregister(
        &self,
        _: Request<registry::Service>,
    ) -> Result<Response<registry::EmptyResponse>, Status> {
        Err(Status::unimplemented("deregister"))
    }

    async fn list_services(
        &self,
        request: Request<registry::ListRequest>,
    ) -> Result<Response<registry::ListResponse>, Status> {
        self.allow(&request)?;
        Ok(Response::new(registry::ListResponse::default()))
    }

    async fn watch(
        &self,
        _: Request<Streaming<registry::WatchRequest>>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        Err(Status::unimplemented("watch"))
    }

    async fn schema(
        &self,
        request: Request<registry::SchemaRequest>,
    ) -> Result<Response<registry::SchemaResponse>, Status> {
        self.allow(&request)?;
        if request.get_ref().service != "helloworld" {
            return Err(refuse(Kind::NotFound, "service not found"));
        }
        // As protobuf descriptors would be, but for the streaming method, which only they can say.
        let set = protos();
        Ok(Response::new(registry::SchemaResponse {
            descriptor_set: set,
            endpoints: vec![registry::Endpoint {
                name: "Helloworld.Call".into(),
                request: Some(value("Request", "Request", vec![])),
                ..registry::Endpoint::default()
            }],
            protocol: "grpc".into(),
        }))
    }
}

/// The descriptors of a small service, compiled from its text.
fn protos() -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let text = "syntax = \"proto3\"; package helloworld;
        service Helloworld { rpc Call(Request) returns (Response); rpc Stream(Count) returns (stream Count); }
        message Request { string name = 1; } message Response { string msg = 1; } message Count { int64 count = 1; }";
    std::fs::write(dir.path().join("hello.proto"), text).unwrap();
    micro_schema::protos::compile_dir(dir.path())
        .unwrap()
        .unwrap()
}

#[tonic::async_trait]
impl runtime::runtime_server::Runtime for Script {
    type LogsStream = Answers<runtime::LogRecord>;
    type DeployStream = Answers<runtime::DeployEvent>;

    async fn create(
        &self,
        _: Request<runtime::CreateRequest>,
    ) -> Result<Response<runtime::CreateResponse>, Status> {
        Err(Status::unimplemented("create"))
    }

    async fn read(
        &self,
        request: Request<runtime::ReadRequest>,
    ) -> Result<Response<runtime::ReadResponse>, Status> {
        self.allow(&request)?;
        let service = runtime::Service {
            name: "helloworld".into(),
            version: "latest".into(),
            status: 4,
            ..runtime::Service::default()
        };
        Ok(Response::new(runtime::ReadResponse {
            services: vec![service],
        }))
    }

    async fn delete(
        &self,
        request: Request<runtime::DeleteRequest>,
    ) -> Result<Response<runtime::DeleteResponse>, Status> {
        let service = request.into_inner().resource.unwrap().service.unwrap();
        if service.name == "gone" {
            return Err(refuse(Kind::Internal, "not found"));
        }
        Ok(Response::new(runtime::DeleteResponse {}))
    }

    async fn update(
        &self,
        _: Request<runtime::UpdateRequest>,
    ) -> Result<Response<runtime::UpdateResponse>, Status> {
        Err(Status::unimplemented("update"))
    }

    async fn logs(
        &self,
        request: Request<Streaming<runtime::LogsRequest>>,
    ) -> Result<Response<Self::LogsStream>, Status> {
        let ask = request.into_inner().message().await?.unwrap();
        let records = (1..=ask.count.min(3)).map(|n| {
            Ok(runtime::LogRecord {
                message: format!("line {n}"),
                ..runtime::LogRecord::default()
            })
        });
        let records: Vec<_> = records.collect();
        Ok(Response::new(Box::pin(tokio_stream::iter(records))))
    }

    async fn deploy(
        &self,
        request: Request<runtime::DeployRequest>,
    ) -> Result<Response<Self::DeployStream>, Status> {
        let request = request.into_inner();
        let name = request.service.clone().unwrap().name;
        self.0.lock().unwrap().deploys.push(request);
        let event = |event| Ok(runtime::DeployEvent { event: Some(event) });
        let end = if name == "broken" {
            Err(refuse(
                Kind::Precondition,
                "cannot build broken: exit code 1; its last output:\n  compiling\nhint: fix it",
            ))
        } else {
            event(Event::Deployed(runtime::Deployed {
                url: format!("http://127.0.0.1:8080/{name}"),
                name,
                release: 1,
                protocol: "grpc".into(),
                ..runtime::Deployed::default()
            }))
        };
        let events = vec![
            event(Event::Phase("building".into())),
            event(Event::Line("compiling".into())),
            end,
        ];
        Ok(Response::new(Box::pin(tokio_stream::iter(events))))
    }
}

#[tonic::async_trait]
impl runtime::source_server::Source for Script {
    async fn upload(
        &self,
        request: Request<Streaming<runtime::UploadRequest>>,
    ) -> Result<Response<runtime::UploadResponse>, Status> {
        let mut pieces = request.into_inner();
        let service = pieces.message().await?.unwrap().service.unwrap();
        if service.name == "toobig" {
            return Err(refuse(Kind::Exhausted, "the source is too large"));
        }
        let mut tar = Vec::new();
        while let Some(piece) = pieces.message().await? {
            tar.extend(piece.data);
        }
        let mut uploaded = Vec::new();
        for entry in tar::Archive::new(tar.as_slice()).entries().unwrap() {
            let mut entry = entry.unwrap();
            let name = entry.path().unwrap().to_str().unwrap().to_owned();
            let mut content = Vec::new();
            entry.read_to_end(&mut content).unwrap();
            uploaded.push((name, content.len() as u64));
        }
        self.0.lock().unwrap().uploaded = uploaded;
        Ok(Response::new(runtime::UploadResponse {
            id: format!("source://{}:{}", service.name, service.version),
        }))
    }
}

/// The service helloworld, asked in JSON.
#[derive(Clone)]
struct Hello(Script);

impl NamedService for Hello {
    const NAME: &'static str = "helloworld.Helloworld";
}

impl Service<http::Request<Body>> for Hello {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<http::Response<Body>, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let kind = request.headers()["content-type"]
            .to_str()
            .unwrap()
            .to_owned();
        self.0.0.lock().unwrap().kinds.push(kind);
        let streams = request.uri().path().ends_with("/Stream");
        Box::pin(async move {
            let mut grpc = tonic::server::Grpc::new(Frames);
            Ok(if streams {
                grpc.server_streaming(Counting, request).await
            } else {
                grpc.unary(Greeting, request).await
            })
        })
    }
}

struct Greeting;

impl UnaryService<Bytes> for Greeting {
    type Response = Bytes;
    type Future = BoxFuture<Response<Bytes>, Status>;

    fn call(&mut self, request: Request<Bytes>) -> Self::Future {
        let ask: serde_json::Value = serde_json::from_slice(request.get_ref()).unwrap();
        let name = ask["name"].as_str().unwrap().to_owned();
        Box::pin(async move {
            Ok(Response::new(
                format!("{{\"msg\":\"Hello {name}\"}}").into(),
            ))
        })
    }
}

struct Counting;

impl tonic::server::ServerStreamingService<Bytes> for Counting {
    type Response = Bytes;
    type ResponseStream = Answers<Bytes>;
    type Future = BoxFuture<Response<Self::ResponseStream>, Status>;

    fn call(&mut self, _: Request<Bytes>) -> Self::Future {
        let answers =
            tokio_stream::iter(1..=2).map(|n| Ok(Bytes::from(format!("{{\"count\":\"{n}\"}}"))));
        let answers: Answers<Bytes> = Box::pin(answers);
        Box::pin(async move { Ok(Response::new(answers)) })
    }
}

/// A service that the proxy has no route to.
#[derive(Clone)]
struct Gone;

impl NamedService for Gone {
    const NAME: &'static str = "gone.Gone";
}

impl Service<http::Request<Body>> for Gone {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<http::Response<Body>, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: http::Request<Body>) -> Self::Future {
        let inner = WireError::new(
            "go.micro.client",
            Kind::Internal,
            "service gone: route not found",
        );
        let outer = WireError::new("go.micro.client", Kind::Internal, inner.to_json());
        Box::pin(async move { Ok(from_wire(&outer).into_http()) })
    }
}
