//! The reflection client against servers of every kind, in this process.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

#[path = "protos/fixture.rs"]
#[expect(dead_code, reason = "only its descriptors are used here")]
mod shop;

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use micro_core::Fault as _;
use micro_schema::{ReflectError, Schema, reflect};
use prost::Message as _;
use prost_types::{FileDescriptorProto, FileDescriptorSet};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};
use tokio_stream::{StreamExt as _, wrappers::TcpListenerStream};
use tonic::{Request, Response, Status, Streaming, transport::Server};
use tonic_reflection::pb::v1::{
    ErrorResponse, FileDescriptorResponse, ListServiceResponse, ServerReflectionRequest,
    ServerReflectionResponse, ServiceResponse,
    server_reflection_request::MessageRequest as Ask,
    server_reflection_response::MessageResponse as Answer,
    server_reflection_server::{ServerReflection, ServerReflectionServer},
};

const DEADLINE: Duration = Duration::from_secs(20);

async fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

async fn serve(routes: tonic::service::Routes) -> SocketAddr {
    let (listener, address) = listen().await;
    let incoming = TcpListenerStream::new(listener);
    tokio::spawn(
        Server::builder()
            .add_routes(routes)
            .serve_with_incoming(incoming),
    );
    address
}

fn builder(set: &[u8]) -> tonic_reflection::server::Builder<'_> {
    tonic_reflection::server::Builder::configure().register_encoded_file_descriptor_set(set)
}

fn assert_is_the_shop(set: &[u8]) {
    let schema = Schema::from_descriptor_set(set).unwrap();
    let names: Vec<&str> = schema.service_names().collect();
    assert_eq!(names, ["shop.v1.Shop", "shop.v1.MyStock"]);
    let place = schema.method("Shop.PlaceOrder").unwrap();
    place
        .message_from_json(br#"{"cash":{"units":1},"at":"2026-01-31T12:00:00Z"}"#)
        .unwrap();
}

#[tokio::test]
async fn version_1_is_asked_first() {
    let set = shop::set();
    let address = serve(tonic::service::Routes::new(
        builder(&set).build_v1().unwrap(),
    ))
    .await;
    assert_is_the_shop(&reflect::descriptor_set(address, DEADLINE).await.unwrap());
}

#[tokio::test]
async fn v1alpha_is_asked_when_version_1_is_not_there() {
    let set = shop::set();
    let address = serve(tonic::service::Routes::new(
        builder(&set).build_v1alpha().unwrap(),
    ))
    .await;
    assert_is_the_shop(&reflect::descriptor_set(address, DEADLINE).await.unwrap());
}

/// Answers with one file per question and not with what it imports.
struct Sparse {
    files: Vec<FileDescriptorProto>,
    /// A file that it does not hand out.
    withheld: &'static str,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Sparse {
    fn answer(files: &[FileDescriptorProto], withheld: &str, ask: &Ask) -> Answer {
        let file = match ask {
            Ask::ListServices(_) => {
                let service = [
                    "shop.v1.Shop",
                    "shop.v1.MyStock",
                    "grpc.reflection.v1.ServerReflection",
                ];
                return Answer::ListServicesResponse(ListServiceResponse {
                    service: service
                        .map(|name| ServiceResponse { name: name.into() })
                        .into(),
                });
            }
            Ask::FileContainingSymbol(_) => files.iter().find(|f| f.name().ends_with("shop.proto")),
            Ask::FileByFilename(name) => {
                files.iter().find(|f| f.name() == name && name != withheld)
            }
            _ => None,
        };
        match file {
            Some(file) => Answer::FileDescriptorResponse(FileDescriptorResponse {
                file_descriptor_proto: vec![file.encode_to_vec()],
            }),
            None => Answer::ErrorResponse(ErrorResponse {
                error_code: 5,
                error_message: "no such file".into(),
            }),
        }
    }
}

#[tonic::async_trait]
impl ServerReflection for Sparse {
    type ServerReflectionInfoStream = std::pin::Pin<
        Box<dyn tokio_stream::Stream<Item = Result<ServerReflectionResponse, Status>> + Send>,
    >;

    async fn server_reflection_info(
        &self,
        request: Request<Streaming<ServerReflectionRequest>>,
    ) -> Result<Response<Self::ServerReflectionInfoStream>, Status> {
        let (files, withheld, asked) = (self.files.clone(), self.withheld, Arc::clone(&self.asked));
        let answers = request.into_inner().map(move |ask| {
            let ask = ask?;
            let question = ask.message_request.clone().unwrap();
            if let Ask::FileByFilename(name) = &question {
                asked.lock().unwrap().push(name.clone());
            }
            Ok(ServerReflectionResponse {
                message_response: Some(Self::answer(&files, withheld, &question)),
                ..ServerReflectionResponse::default()
            })
        });
        Ok(Response::new(Box::pin(answers)))
    }
}

async fn sparse(withheld: &'static str) -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let server = Sparse {
        files: FileDescriptorSet::decode(shop::set().as_slice())
            .unwrap()
            .file,
        withheld,
        asked: Arc::clone(&asked),
    };
    let routes = tonic::service::Routes::new(ServerReflectionServer::new(server));
    (serve(routes).await, asked)
}

#[tokio::test]
async fn imports_that_were_not_sent_are_asked_for_by_name() {
    let (address, asked) = sparse("").await;
    assert_is_the_shop(&reflect::descriptor_set(address, DEADLINE).await.unwrap());
    let asked = asked.lock().unwrap();
    assert!(
        asked.iter().any(|name| name == "common/money.proto"),
        "{asked:?}"
    );
}

#[tokio::test]
async fn a_well_known_import_that_is_withheld_is_our_own() {
    let (address, _) = sparse("google/protobuf/timestamp.proto").await;
    assert_is_the_shop(&reflect::descriptor_set(address, DEADLINE).await.unwrap());
}

#[tokio::test]
async fn another_import_that_is_withheld_is_named() {
    let (address, _) = sparse("common/money.proto").await;
    let error = reflect::descriptor_set(address, DEADLINE)
        .await
        .unwrap_err();
    assert!(matches!(error, ReflectError::Failed { .. }), "{error}");
    assert!(error.to_string().contains("common/money.proto"), "{error}");
}

#[tokio::test]
async fn a_grpc_server_without_reflection_is_told_apart() {
    let other = Sparse {
        files: Vec::new(),
        withheld: "",
        asked: Arc::default(),
    };
    // Mounted where nobody asks for it.
    let routes = tonic::service::Routes::new(Elsewhere(ServerReflectionServer::new(other)));
    let address = serve(routes).await;
    let error = reflect::descriptor_set(address, DEADLINE)
        .await
        .unwrap_err();
    assert_eq!(error, ReflectError::NoReflection(address));
    assert!(error.hint().unwrap().contains(".proto"));
}

#[derive(Clone)]
struct Elsewhere(ServerReflectionServer<Sparse>);

impl tonic::server::NamedService for Elsewhere {
    const NAME: &'static str = "shop.v1.Elsewhere";
}

impl tower::Service<http::Request<tonic::body::Body>> for Elsewhere {
    type Response = http::Response<tonic::body::Body>;
    type Error = Infallible;
    type Future = <ServerReflectionServer<Sparse> as tower::Service<
        http::Request<tonic::body::Body>,
    >>::Future;

    fn poll_ready(
        &mut self,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Result<(), Infallible>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<tonic::body::Body>) -> Self::Future {
        tower::Service::call(&mut self.0, request)
    }
}

#[tokio::test]
async fn an_http_1_server_is_not_grpc() {
    let (listener, address) = listen().await;
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut buffer = [0; 1024];
            let _ = stream.read(&mut buffer).await;
            let _ = stream
                .write_all(
                    b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
                )
                .await;
        }
    });
    let error = reflect::descriptor_set(address, DEADLINE)
        .await
        .unwrap_err();
    assert_eq!(error, ReflectError::NotGrpc(address));
}

#[tokio::test]
async fn an_http_2_server_without_grpc_is_not_grpc() {
    let (listener, address) = listen().await;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let page = hyper::service::service_fn(|_| async {
                Ok::<_, Infallible>(http::Response::new("hello".to_owned()))
            });
            let io = hyper_util::rt::TokioIo::new(stream);
            let executor = hyper_util::rt::TokioExecutor::new();
            tokio::spawn(
                hyper::server::conn::http2::Builder::new(executor).serve_connection(io, page),
            );
        }
    });
    let error = reflect::descriptor_set(address, DEADLINE)
        .await
        .unwrap_err();
    assert_eq!(error, ReflectError::NotGrpc(address));
}

#[tokio::test]
async fn a_closed_port_and_a_silent_server_fail() {
    let (listener, address) = listen().await;
    drop(listener);
    let error = reflect::descriptor_set(address, DEADLINE)
        .await
        .unwrap_err();
    assert!(matches!(error, ReflectError::Failed { .. }), "{error}");
    let (_silent, address) = listen().await;
    let error = reflect::descriptor_set(address, Duration::from_millis(200))
        .await
        .unwrap_err();
    assert!(error.to_string().contains("200 ms"), "{error}");
}
