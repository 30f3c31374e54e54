//! A service with all four kinds of calls, as an instance or built in.

use std::{
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
};

use micro_proto::runtime::{
    CreateRequest, CreateResponse, DeleteRequest, DeleteResponse, DeployEvent, DeployRequest,
    LogRecord, LogsRequest, ReadRequest, ReadResponse, Service, UpdateRequest, UpdateResponse,
    UploadRequest, UploadResponse, deploy_event::Event, runtime_server::Runtime,
    source_server::Source,
};
use micro_proto::runtime::{runtime_server::RuntimeServer, source_server::SourceServer};
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_stream::{Stream, StreamExt as _, wrappers::TcpListenerStream};
use tonic::{Request, Response, Status, Streaming, service::Routes, transport::Server};

type Events<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// What tests look at and turn.
#[derive(Default)]
pub(crate) struct Seen {
    pub(crate) calls: AtomicUsize,
    /// A call that never ends was dropped.
    pub(crate) cancelled: AtomicBool,
    /// A client half-closed its stream.
    pub(crate) half_closed: AtomicBool,
    pub(crate) caller: Mutex<Option<micro_core::Caller>>,
}

#[derive(Clone)]
pub(crate) struct Backend {
    pub(crate) name: String,
    pub(crate) seen: Arc<Seen>,
}

struct OnDrop(Arc<Seen>);

impl Drop for OnDrop {
    fn drop(&mut self) {
        self.0.cancelled.store(true, SeqCst);
    }
}

impl Backend {
    pub(crate) fn new(name: &str) -> Self {
        Self {
            name: name.into(),
            seen: Arc::default(),
        }
    }

    pub(crate) fn routes(&self) -> Routes {
        Routes::new(RuntimeServer::new(self.clone())).add_service(SourceServer::new(self.clone()))
    }

    /// Serves on a port of its own.
    pub(crate) async fn start(&self) -> Instance {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = Server::builder().add_routes(self.routes());
        let task = tokio::spawn(async move {
            let _ = server
                .serve_with_incoming(TcpListenerStream::new(listener))
                .await;
        });
        Instance { address, task }
    }
}

pub(crate) struct Instance {
    pub(crate) address: SocketAddr,
    task: JoinHandle<()>,
}

impl Drop for Instance {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A failure as Micro's services send it.
pub(crate) const FAILURE: &str =
    r#"{"id":"jobs","code":409,"detail":"100% taken","status":"Conflict"}"#;

#[tonic::async_trait]
impl Runtime for Backend {
    /// Fails.
    async fn create(&self, _: Request<CreateRequest>) -> Result<Response<CreateResponse>, Status> {
        self.seen.calls.fetch_add(1, SeqCst);
        let mut status = Status::already_exists(FAILURE);
        status
            .metadata_mut()
            .insert("x-extra", "1".parse().unwrap());
        Err(status)
    }

    /// Says its name and the headers it got.
    async fn read(&self, request: Request<ReadRequest>) -> Result<Response<ReadResponse>, Status> {
        self.seen.calls.fetch_add(1, SeqCst);
        *self.seen.caller.lock().unwrap() =
            request.extensions().get::<micro_core::Caller>().cloned();
        let metadata = request
            .metadata()
            .clone()
            .into_headers()
            .iter()
            .map(|(k, v)| (k.to_string(), v.to_str().unwrap_or("?").to_owned()))
            .collect();
        let asked = request.into_inner().options.unwrap_or_default();
        let service = Service {
            name: self.name.clone(),
            source: asked.service,
            metadata,
            status: 7,
            ..Service::default()
        };
        let mut response = Response::new(ReadResponse {
            services: vec![service],
        });
        response
            .metadata_mut()
            .insert("x-answered", "yes".parse().unwrap());
        Ok(response)
    }

    async fn delete(&self, _: Request<DeleteRequest>) -> Result<Response<DeleteResponse>, Status> {
        Ok(Response::new(DeleteResponse {}))
    }

    /// Never answers.
    async fn update(&self, _: Request<UpdateRequest>) -> Result<Response<UpdateResponse>, Status> {
        self.seen.calls.fetch_add(1, SeqCst);
        let _dropped = OnDrop(Arc::clone(&self.seen));
        std::future::pending().await
    }

    type LogsStream = Events<LogRecord>;

    /// Echoes each message; `fail` ends it with an error.
    async fn logs(
        &self,
        request: Request<Streaming<LogsRequest>>,
    ) -> Result<Response<Self::LogsStream>, Status> {
        self.seen.calls.fetch_add(1, SeqCst);
        let mut requests = request.into_inner();
        let seen = Arc::clone(&self.seen);
        let dropped = OnDrop(Arc::clone(&self.seen));
        let (answers, stream) = tokio::sync::mpsc::channel(1);
        tokio::spawn(async move {
            let _dropped = dropped;
            loop {
                let answer = match requests.message().await {
                    Ok(Some(request)) if request.service == "fail" => {
                        Err(Status::aborted("half way"))
                    }
                    Ok(Some(request)) => Ok(LogRecord {
                        message: request.service,
                        ..LogRecord::default()
                    }),
                    Ok(None) => {
                        seen.half_closed.store(true, SeqCst);
                        return;
                    }
                    Err(_) => return,
                };
                if answers.send(answer).await.is_err() {
                    return;
                }
            }
        });
        Ok(Response::new(Box::pin(
            tokio_stream::wrappers::ReceiverStream::new(stream),
        )))
    }

    type DeployStream = Events<DeployEvent>;

    /// As many events as the name says, or for ever.
    async fn deploy(
        &self,
        request: Request<DeployRequest>,
    ) -> Result<Response<Self::DeployStream>, Status> {
        self.seen.calls.fetch_add(1, SeqCst);
        let name = request.into_inner().service.unwrap_or_default().name;
        let count = name.parse::<usize>().unwrap_or(usize::MAX);
        let dropped = OnDrop(Arc::clone(&self.seen));
        let events = tokio_stream::iter(0..count).map(move |n| {
            let _ = &dropped;
            Ok(DeployEvent {
                event: Some(Event::Line(n.to_string())),
            })
        });
        Ok(Response::new(Box::pin(events)))
    }
}

#[tonic::async_trait]
impl Source for Backend {
    /// Adds up the bytes.
    async fn upload(
        &self,
        request: Request<Streaming<UploadRequest>>,
    ) -> Result<Response<UploadResponse>, Status> {
        let mut requests = request.into_inner();
        let mut bytes = 0;
        while let Some(part) = requests.message().await? {
            bytes += part.data.len();
        }
        self.seen.half_closed.store(true, SeqCst);
        Ok(Response::new(UploadResponse {
            id: bytes.to_string(),
        }))
    }
}
