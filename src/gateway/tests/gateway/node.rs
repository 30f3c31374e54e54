//! A gateway with the real pipeline on a thread of its own, as the server runs it, and a client that
//! speaks HTTP without any cleverness.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, mpsc},
    thread::JoinHandle,
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use micro_core::{Account, AccountId, Namespace, ServiceName, WireError};
use micro_gateway::{PublicBlob, PublicBlobs, Settings};
use micro_pipeline::{Builtins, Identity, Pipeline, Protocol, Refusal, RouteSpec, Router, Rules};
use micro_schema::Schema;
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::{WebSocketStream, tungstenite::protocol::Role};
use tokio_util::sync::CancellationToken;

use crate::backend;

/// How long anything here may take.
const PATIENCE: Duration = Duration::from_secs(20);
pub(crate) const BODY_LIMIT: u64 = 1 << 20;

/// Knows `<namespace>-<id>` as the token of a user; `micro-admin` is one with the scope `admin`.
struct Names;

impl Identity for Names {
    fn identify(&self, token: &str) -> Option<Arc<Account>> {
        let (issuer, id) = token.split_once('-')?;
        Some(Arc::new(Account {
            id: AccountId::parse(id).ok()?,
            kind: "user".into(),
            issuer: Namespace::parse(issuer).ok()?,
            scopes: if id == "admin" {
                vec!["admin".into()]
            } else {
                Vec::new()
            },
            name: id.into(),
            metadata: BTreeMap::new(),
        }))
    }
}

/// All may do all, but `Create` and pages below `/admin` are for administrators, and of `pages` there
/// is nothing but pages.
struct Closed;

impl Rules for Closed {
    fn verify(
        &self,
        account: Option<&Account>,
        _: &Namespace,
        service: &str,
        endpoint: &str,
    ) -> Result<(), Refusal> {
        if service.starts_with("pages") && !endpoint.starts_with('/') {
            return Err(Refusal::Unauthorized);
        }
        if endpoint != "Runtime.Create" && !endpoint.starts_with("/admin") {
            return Ok(());
        }
        match account {
            None => Err(Refusal::Unauthorized),
            Some(account) if account.has_scope("admin") => Ok(()),
            Some(_) => Err(Refusal::Forbidden),
        }
    }
}

/// The public blobs of `shop`.
struct Shelf;

impl PublicBlobs for Shelf {
    fn find(
        &self,
        namespace: Namespace,
        key: String,
    ) -> futures_util::future::BoxFuture<'static, Result<PublicBlob, WireError>> {
        const LOGO: &[u8] = b"0123456789";
        let content_type = match (namespace.as_str(), key.as_str()) {
            ("shop", "img/logo") => Some("image/png"),
            ("shop", "page") => Some("text/html"),
            ("shop", "plain") => Some(""),
            _ => None,
        };
        let found = content_type.map(|content_type| PublicBlob {
            size: 10,
            content_type: content_type.into(),
            tag: "t1".into(),
            content: Box::new(|range| {
                let range = range.start as usize..range.end as usize;
                // In pieces, as files are read.
                let pieces = LOGO[range].chunks(4).map(|c| Ok(Bytes::from_static(c)));
                Box::pin(futures_util::stream::iter(pieces))
            }),
        });
        let missing = || WireError::with_code("go.micro.api", 404, "Blob not found");
        Box::pin(std::future::ready(found.ok_or_else(missing)))
    }
}

pub(crate) struct Node {
    pub(crate) address: SocketAddr,
    stop: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

impl Node {
    /// Starts the services and a gateway that knows them.
    pub(crate) async fn start() -> Self {
        let schema = Arc::new(Schema::from_descriptor_set(micro_proto::DESCRIPTOR_SET).unwrap());
        let none = Arc::new(Schema::empty());
        let (grpc, http) = (backend::grpc().await, backend::http().await);
        let unused = std::net::TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap();
        let route =
            |namespace: &str, service: &str, protocol, schema: &Arc<Schema>, address| RouteSpec {
                namespace: Namespace::parse(namespace).unwrap(),
                service: ServiceName::parse(service).unwrap(),
                protocol,
                schema: Arc::clone(schema),
                addresses: vec![address],
            };
        let router = Arc::new(Router::new());
        router.update(vec![
            route("micro", "runtime", Protocol::Grpc, &schema, grpc),
            route("micro", "v1.runtime", Protocol::Grpc, &schema, grpc),
            route("micro", "other", Protocol::Grpc, &schema, grpc),
            route("micro", "mute", Protocol::Grpc, &none, grpc),
            route("micro", "dead", Protocol::Grpc, &schema, unused),
            route("micro", "web", Protocol::Http, &none, http),
            route("micro", "pages", Protocol::Http, &none, http),
            route("micro", "web.site", Protocol::Http, &none, http),
            route("shop", "runtime", Protocol::Grpc, &schema, grpc),
            route("shop", "cart", Protocol::Http, &none, http),
        ]);
        let pipeline = Pipeline::new(Arc::new(Names), Arc::new(Closed), router, Builtins::new());
        let settings = Settings {
            version: "v9.9.9".into(),
            domain: "example.test".into(),
            body_limit: BODY_LIMIT,
        };
        let stop = CancellationToken::new();
        let (sender, receiver) = mpsc::channel();
        let ended = stop.clone();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            let serve = async move {
                let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
                sender.send(listener.local_addr().unwrap()).unwrap();
                let blobs = Arc::new(Shelf);
                micro_gateway::serve(listener, settings, pipeline, blobs, ended).await;
            };
            tokio::task::LocalSet::new().block_on(&runtime, serve);
        });
        Self {
            address: receiver.recv().unwrap(),
            stop,
            thread: Some(thread),
        }
    }

    /// Tells the gateway to stop; the answer says when it has.
    pub(crate) fn stop(&mut self) -> JoinHandle<()> {
        self.stop.cancel();
        self.thread.take().unwrap()
    }

    /// Sends a request over a connection of its own and reads the whole answer.
    pub(crate) async fn send(&self, request: Request<impl Into<Bytes>>) -> Answer {
        let response = self.open(request).await;
        let (head, body) = response.into_parts();
        let body = tokio::time::timeout(PATIENCE, body.collect())
            .await
            .unwrap()
            .unwrap()
            .to_bytes();
        Answer {
            status: head.status.as_u16(),
            headers: head.headers,
            body,
        }
    }

    /// Sends a request; its answer is still to be read.
    pub(crate) async fn open(&self, request: Request<impl Into<Bytes>>) -> Response<Incoming> {
        let stream = TcpStream::connect(self.address).await.unwrap();
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .unwrap();
        tokio::spawn(connection.with_upgrades());
        let (mut head, body) = request.into_parts();
        if !head.headers.contains_key("host") {
            head.headers
                .insert("host", self.address.to_string().parse().unwrap());
        }
        let request = Request::from_parts(head, Full::new(body.into()));
        tokio::time::timeout(PATIENCE, sender.send_request(request))
            .await
            .unwrap()
            .unwrap()
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send(Request::get(path).body("").unwrap()).await
    }

    pub(crate) async fn post(&self, path: &str, body: &str) -> Answer {
        let request = Request::post(path).header("content-type", "application/json");
        self.send(request.body(body.to_owned()).unwrap()).await
    }

    /// Opens a WebSocket.
    pub(crate) async fn websocket(&self, request: http::request::Builder) -> Socket {
        let request = request
            .header("connection", "Upgrade")
            .header("upgrade", "websocket")
            .header("sec-websocket-version", "13")
            .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==");
        let response = self.open(request.body("").unwrap()).await;
        assert_eq!(response.status(), 101);
        assert_eq!(
            response.headers()["sec-websocket-accept"],
            "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
        );
        let io = TokioIo::new(hyper::upgrade::on(response).await.unwrap());
        Socket(WebSocketStream::from_raw_socket(io, Role::Client, None).await)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {:?}", self.body))
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |v| v.to_str().unwrap())
    }

    /// The error object, after checking that it agrees with the status.
    #[track_caller]
    pub(crate) fn error(&self) -> (String, u16, String) {
        let error = self.json();
        assert_eq!(error["code"], self.status, "{error}");
        assert_eq!(self.header("content-type"), "application/json");
        let text = |name: &str| error[name].as_str().unwrap().to_owned();
        assert!(!text("status").is_empty());
        (text("id"), self.status, text("detail"))
    }
}

pub(crate) struct Socket(WebSocketStream<TokioIo<hyper::upgrade::Upgraded>>);

impl Socket {
    pub(crate) async fn say(&mut self, text: &str) {
        use futures_util::SinkExt as _;
        self.0
            .send(tokio_tungstenite::tungstenite::Message::text(text))
            .await
            .unwrap();
    }

    /// The next text frame as JSON; `None` when the other side has closed, with its code.
    pub(crate) async fn hear(&mut self) -> Result<Value, Option<u16>> {
        use futures_util::StreamExt as _;
        use tokio_tungstenite::tungstenite::Message;
        loop {
            match tokio::time::timeout(PATIENCE, self.0.next()).await.unwrap() {
                Some(Ok(Message::Text(text))) => return Ok(serde_json::from_str(&text).unwrap()),
                Some(Ok(Message::Close(frame))) => return Err(frame.map(|f| f.code.into())),
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return Err(None),
            }
        }
    }
}
