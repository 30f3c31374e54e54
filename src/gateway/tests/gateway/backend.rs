//! Services behind the gateway: one that speaks gRPC (with messages of Micro's own runtime, because
//! they have every shape) and one that speaks plain HTTP.

use std::{convert::Infallible, net::SocketAddr, pin::Pin, time::Duration};

use bytes::Bytes;
use futures_util::{SinkExt as _, Stream, StreamExt as _};
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt as _, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use micro_core::{Kind, WireError};
use micro_proto::{
    runtime::{
        BuildReadResponse, CreateRequest, CreateResponse, DeleteRequest, DeleteResponse,
        DeployEvent, DeployRequest, LogRecord, LogsRequest, ReadRequest, ReadResponse, Service,
        UpdateRequest, UpdateResponse, UploadRequest, UploadResponse, build_server,
        deploy_event::Event, runtime_server, source_server,
    },
    status,
};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{handshake::derive_accept_key, protocol::Role},
};
use tonic::{Request as Call, Response as Answer, Status, Streaming};

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// Answers with what it was asked, and with the metadata it saw.
#[derive(Clone, Copy)]
struct Echo;

fn error(kind: Kind) -> Status {
    status::from_wire(&WireError::new("demo", kind, "as asked"))
}

#[tonic::async_trait]
impl runtime_server::Runtime for Echo {
    async fn create(&self, call: Call<CreateRequest>) -> Result<Answer<CreateResponse>, Status> {
        let labels = call.into_inner().options.unwrap_or_default();
        assert!(labels.instances >= 0);
        Ok(Answer::new(CreateResponse {}))
    }

    async fn read(&self, call: Call<ReadRequest>) -> Result<Answer<ReadResponse>, Status> {
        let metadata = call
            .metadata()
            .clone()
            .into_headers()
            .iter()
            .map(|(n, v)| {
                (
                    n.to_string(),
                    String::from_utf8_lossy(v.as_bytes()).into_owned(),
                )
            })
            .collect();
        let options = call.into_inner().options.unwrap_or_default();
        match options.service.as_str() {
            "missing" => return Err(error(Kind::NotFound)),
            "plain" => return Err(Status::already_exists("no object of ours")),
            "forbidden" => return Err(error(Kind::Denied)),
            "large" => {
                let name = "x".repeat(1 << 20);
                let service = Service {
                    name,
                    ..Service::default()
                };
                return Ok(Answer::new(ReadResponse {
                    services: vec![service],
                }));
            }
            _ => {}
        }
        let service = Service {
            name: options.service,
            version: options.version,
            source: options.r#type,
            metadata,
            status: 4,
        };
        Ok(Answer::new(ReadResponse {
            services: vec![service],
        }))
    }

    async fn delete(&self, _: Call<DeleteRequest>) -> Result<Answer<DeleteResponse>, Status> {
        Err(Status::unimplemented("not in this test"))
    }

    async fn update(&self, _: Call<UpdateRequest>) -> Result<Answer<UpdateResponse>, Status> {
        Err(Status::unimplemented("not in this test"))
    }

    type LogsStream = Answers<LogRecord>;

    async fn logs(
        &self,
        call: Call<Streaming<LogsRequest>>,
    ) -> Result<Answer<Self::LogsStream>, Status> {
        let answers = call.into_inner().map(|request| {
            let request = request?;
            if request.service == "missing" {
                return Err(error(Kind::NotFound));
            }
            Ok(LogRecord {
                message: request.service,
                timestamp: request.count,
                ..LogRecord::default()
            })
        });
        Ok(Answer::new(Box::pin(answers)))
    }

    type DeployStream = Answers<DeployEvent>;

    async fn deploy(
        &self,
        call: Call<DeployRequest>,
    ) -> Result<Answer<Self::DeployStream>, Status> {
        let name = call.into_inner().service.unwrap_or_default().name;
        if name == "missing" {
            return Err(error(Kind::NotFound));
        }
        let line = move |index| DeployEvent {
            event: Some(Event::Line(format!("{name} {index}"))),
        };
        let broken = line(0).event == Some(Event::Line("broken 0".into()));
        let waits = line(0).event == Some(Event::Line("waits 0".into()));
        let answers = futures_util::stream::iter(0..3).then(move |index| {
            let line = line(index);
            async move {
                if index == 2 && waits {
                    std::future::pending::<()>().await;
                }
                if index == 2 && broken {
                    Err(error(Kind::Conflict))
                } else {
                    Ok(line)
                }
            }
        });
        Ok(Answer::new(Box::pin(answers)))
    }
}

#[tonic::async_trait]
impl source_server::Source for Echo {
    async fn upload(
        &self,
        call: Call<Streaming<UploadRequest>>,
    ) -> Result<Answer<UploadResponse>, Status> {
        let mut messages = call.into_inner();
        let mut bytes = 0;
        while let Some(message) = messages.message().await? {
            bytes += message.data.len();
        }
        Ok(Answer::new(UploadResponse {
            id: format!("{bytes} bytes"),
        }))
    }
}

#[tonic::async_trait]
impl build_server::Build for Echo {
    type ReadStream = Answers<BuildReadResponse>;

    async fn read(&self, _: Call<Streaming<Service>>) -> Result<Answer<Self::ReadStream>, Status> {
        Ok(Answer::new(Box::pin(futures_util::stream::empty())))
    }
}

/// Starts the gRPC service.
pub(crate) async fn grpc() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tonic::transport::Server::builder()
        .add_service(runtime_server::RuntimeServer::new(Echo))
        .add_service(source_server::SourceServer::new(Echo))
        .add_service(build_server::BuildServer::new(Echo))
        .serve_with_incoming(TcpListenerStream::new(listener));
    tokio::spawn(server);
    address
}

/// Starts the plain HTTP service.
pub(crate) async fn http() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let stream = listener.accept().await.unwrap().0;
            let connection = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service_fn(page))
                .with_upgrades();
            tokio::spawn(connection);
        }
    });
    address
}

async fn page(
    mut request: Request<Incoming>,
) -> Result<Response<UnsyncBoxBody<Bytes, Infallible>>, Infallible> {
    let whole = |text: String| Full::new(Bytes::from(text)).boxed_unsync();
    match request.uri().path() {
        "/ws" => {
            let accept = derive_accept_key(request.headers()["sec-websocket-key"].as_bytes());
            let upgrade = hyper::upgrade::on(&mut request);
            tokio::spawn(async move {
                let io = TokioIo::new(upgrade.await.unwrap());
                let mut socket = WebSocketStream::from_raw_socket(io, Role::Server, None).await;
                while let Some(Ok(message)) = socket.next().await {
                    if message.is_text() {
                        socket.send(message).await.unwrap();
                    }
                }
            });
            let response = Response::builder()
                .status(101)
                .header("connection", "upgrade")
                .header("upgrade", "websocket")
                .header("sec-websocket-accept", accept);
            Ok(response.body(whole(String::new())).unwrap())
        }
        "/sse" => {
            let events = futures_util::stream::unfold(0, |n| async move {
                if n > 0 {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                (n < 3).then(|| {
                    (
                        Ok(http_body::Frame::data(Bytes::from(format!(
                            "data: {n}\n\n"
                        )))),
                        n + 1,
                    )
                })
            });
            let response = Response::builder().header("content-type", "text/event-stream");
            Ok(response
                .body(StreamBody::new(events).boxed_unsync())
                .unwrap())
        }
        "/private" => {
            let response =
                Response::builder().header("access-control-allow-origin", "https://own.example");
            Ok(response.body(whole(String::new())).unwrap())
        }
        _ => {
            let (head, body) = request.into_parts();
            let body = body.collect().await.unwrap().to_bytes();
            let seen = serde_json::json!({
                "method": head.method.as_str(),
                "path": head.uri.to_string(),
                "headers": as_json(&head.headers),
                "body": String::from_utf8_lossy(&body),
            });
            Ok(Response::builder()
                .status(203)
                .body(whole(seen.to_string()))
                .unwrap())
        }
    }
}

fn as_json(headers: &HeaderMap) -> serde_json::Value {
    headers
        .iter()
        .map(|(n, v)| {
            (
                n.to_string(),
                serde_json::Value::from(String::from_utf8_lossy(v.as_bytes())),
            )
        })
        .collect::<serde_json::Map<_, _>>()
        .into()
}
