//! People, rules, routes, and an instance that does as it is told.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use bytes::{BufMut as _, Bytes, BytesMut};
use http::{HeaderMap, Request};
use micro_core::{Account, AccountId, Namespace};
use micro_pipeline::{
    Admitted, Ask, Builtins, Door, Identity, Pipeline, Protocol, Refusal, RouteSpec, Router, Rules,
};
use micro_schema::Schema;
use tokio::net::TcpListener;

struct People;

impl Identity for People {
    /// `<id>@<namespace>`, an administrator when the id is `admin`.
    fn identify(&self, token: &str) -> Option<Arc<Account>> {
        let (id, namespace) = token.split_once('@')?;
        Some(Arc::new(Account {
            id: AccountId::parse(id).ok()?,
            kind: "user".into(),
            issuer: Namespace::parse(namespace).ok()?,
            scopes: if id == "admin" {
                vec!["admin".into()]
            } else {
                vec![]
            },
            name: id.into(),
            metadata: BTreeMap::new(),
        }))
    }
}

/// Remembers what it was asked and refuses `Runtime.Delete` to strangers.
#[derive(Default)]
pub(crate) struct House(pub(crate) Mutex<Vec<Asked>>);

/// Account, namespace, service, endpoint.
pub(crate) type Asked = (Option<String>, String, String, String);

impl Rules for House {
    fn verify(
        &self,
        account: Option<&Account>,
        namespace: &Namespace,
        service: &str,
        endpoint: &str,
    ) -> Result<(), Refusal> {
        self.0.lock().unwrap().push((
            account.map(|a| a.id.to_string()),
            namespace.to_string(),
            service.into(),
            endpoint.into(),
        ));
        if endpoint == "Runtime.Delete" && account.is_none() {
            return Err(Refusal::Unauthorized);
        }
        Ok(())
    }
}

pub(crate) fn schema() -> Arc<Schema> {
    Arc::new(Schema::from_descriptor_set(micro_proto::DESCRIPTOR_SET).unwrap())
}

pub(crate) fn spec(service: &str, protocol: Protocol, addresses: &[SocketAddr]) -> RouteSpec {
    RouteSpec {
        namespace: Namespace::operator(),
        service: service.parse().unwrap(),
        protocol,
        schema: match protocol {
            Protocol::Grpc => schema(),
            Protocol::Http => Arc::new(Schema::empty()),
        },
        addresses: addresses.to_vec(),
    }
}

pub(crate) struct Fixture {
    pub(crate) router: Arc<Router>,
    pub(crate) rules: Arc<House>,
    pub(crate) pipeline: Arc<Pipeline>,
}

impl Fixture {
    pub(crate) fn with(routes: Vec<RouteSpec>, builtins: Builtins) -> Self {
        let router = Arc::new(Router::new());
        router.update(routes);
        let rules = Arc::new(House::default());
        let pipeline = Pipeline::new(
            Arc::new(People),
            Arc::clone(&rules) as Arc<dyn Rules>,
            Arc::clone(&router),
            builtins,
        );
        Self {
            router,
            rules,
            pipeline,
        }
    }

    pub(crate) fn grpc(addresses: &[SocketAddr]) -> Self {
        Self::with(
            vec![spec("jobs", Protocol::Grpc, addresses)],
            Builtins::new(),
        )
    }

    pub(crate) fn admit(&self, service: &str, endpoint: &str) -> Admitted {
        self.ask(service, endpoint, &HeaderMap::new()).unwrap()
    }

    pub(crate) fn ask(
        &self,
        service: &str,
        endpoint: &str,
        headers: &HeaderMap,
    ) -> Result<Admitted, micro_core::WireError> {
        self.pipeline.admit(&Ask {
            door: Door::Gateway,
            headers,
            token: None,
            namespace: None,
            service,
            endpoint,
        })
    }
}

pub(crate) fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
    pairs
        .iter()
        .map(|(n, v)| (http::HeaderName::from_static(n), v.parse().unwrap()))
        .collect()
}

pub(crate) fn frame(message: &[u8]) -> Bytes {
    let mut framed = BytesMut::new();
    framed.put_u8(0);
    framed.put_u32(u32::try_from(message.len()).unwrap());
    framed.put_slice(message);
    framed.freeze()
}

/// What a scripted instance answers.
#[derive(Clone)]
pub(crate) enum Script {
    /// Each request message back, then these trailers.
    Echo(Vec<(&'static str, String)>),
    /// These messages at once, then these trailers.
    Say(Vec<Bytes>, Vec<(&'static str, String)>),
    /// Nothing, ever.
    Hang,
    /// An HTTP status and no gRPC.
    Status(u16),
}

pub(crate) fn ok() -> Vec<(&'static str, String)> {
    vec![("grpc-status", "0".into())]
}

pub(crate) struct Instance {
    pub(crate) address: SocketAddr,
    /// The last request's head.
    pub(crate) head: Arc<Mutex<Option<Request<()>>>>,
    /// The caller reset the stream.
    pub(crate) reset: Arc<AtomicBool>,
}

/// An instance that answers every request as `script` says.
pub(crate) async fn instance(script: Script) -> Instance {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let head = Arc::new(Mutex::new(None));
    let reset = Arc::new(AtomicBool::new(false));
    let instance = Instance {
        address,
        head: Arc::clone(&head),
        reset: Arc::clone(&reset),
    };
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let (script, head, reset) = (script.clone(), Arc::clone(&head), Arc::clone(&reset));
            tokio::spawn(async move {
                let mut connection = h2::server::handshake(stream).await.unwrap();
                while let Some(Ok((request, respond))) = connection.accept().await {
                    let (parts, body) = request.into_parts();
                    *head.lock().unwrap() = Some(Request::from_parts(parts, ()));
                    tokio::spawn(answer(script.clone(), body, respond, Arc::clone(&reset)));
                }
            });
        }
    });
    instance
}

async fn answer(
    script: Script,
    mut body: h2::RecvStream,
    mut respond: h2::server::SendResponse<Bytes>,
    reset: Arc<AtomicBool>,
) {
    let (messages, trailers, echo) = match script {
        Script::Hang => {
            let _ = std::future::poll_fn(|cx| respond.poll_reset(cx)).await;
            reset.store(true, SeqCst);
            return;
        }
        Script::Status(status) => {
            let response = http::Response::builder().status(status).body(()).unwrap();
            respond.send_response(response, true).unwrap();
            return;
        }
        Script::Echo(trailers) => (vec![], trailers, true),
        Script::Say(messages, trailers) => (messages, trailers, false),
    };
    let response = http::Response::builder()
        .header("content-type", "application/grpc")
        .body(())
        .unwrap();
    let mut send = respond.send_response(response, false).unwrap();
    for message in messages {
        send.send_data(frame(&message), false).unwrap();
    }
    while echo && let Some(chunk) = body.data().await {
        let Ok(chunk) = chunk else {
            reset.store(true, SeqCst);
            return;
        };
        let _ = body.flow_control().release_capacity(chunk.len());
        send.send_data(chunk, false).unwrap();
    }
    let map = trailers
        .iter()
        .map(|(n, v)| (http::HeaderName::from_static(n), v.parse().unwrap()))
        .collect();
    send.send_trailers(map).unwrap();
}

/// An address that refuses connections.
pub(crate) async fn dead() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap()
}

/// Waits for a condition that something else brings about.
pub(crate) async fn eventually(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !condition() {
        assert!(Instant::now() < deadline, "never happened: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
