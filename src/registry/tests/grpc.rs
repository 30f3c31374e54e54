//! The registry as Micro's clients see it.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use micro_core::{Account, AccountId, Caller, Clock, Namespace, Timestamp, WireError};
use micro_proto::registry::{
    Endpoint, GetRequest, ListRequest, Node, Options, Result as Event, SchemaRequest, Service,
    WatchRequest, registry_client::RegistryClient, registry_server::RegistryServer,
};
use micro_registry::{Handle, Rpc};
use micro_schema::Schema;
use micro_storage::{Options as StorageOptions, Storage};
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tokio_util::sync::CancellationToken;
use tonic::{
    Code, Request, Status, Streaming,
    service::{Interceptor, interceptor::InterceptedService},
    transport::{Channel, Server},
};

const SOON: Duration = Duration::from_secs(20);

/// Says who is calling, as the pipeline does.
#[derive(Clone)]
struct As(Option<Caller>);

impl Interceptor for As {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(caller) = self.0.clone() {
            request.extensions_mut().insert(caller);
        }
        Ok(request)
    }
}

fn account(issuer: &str, scopes: &[&str]) -> Caller {
    let issuer = Namespace::parse(issuer).unwrap();
    Caller {
        account: Some(Arc::new(Account {
            id: AccountId::parse("ann").unwrap(),
            kind: "user".into(),
            issuer: issuer.clone(),
            scopes: scopes.iter().map(|s| (*s).into()).collect(),
            name: "ann".into(),
            metadata: BTreeMap::new(),
        })),
        namespace: issuer,
    }
}

fn admin(issuer: &str) -> Caller {
    account(issuer, &["admin"])
}

struct Node0 {
    service: Option<micro_registry::Service>,
    handle: Handle,
    rpc: RegistryServer<Rpc>,
    clock: Clock,
    storage: Storage,
    _dir: TempDir,
}

impl Node0 {
    async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let storage = Storage::open(dir.path(), StorageOptions::default()).unwrap();
        let clock = Clock::fake(Timestamp(1_700_000_000_000));
        let mesh = "127.0.0.1:8443".parse().unwrap();
        let service = micro_registry::Service::open(&storage, mesh, clock.clone())
            .await
            .unwrap();
        Self {
            handle: service.handle(),
            rpc: service.server(),
            service: Some(service),
            clock,
            storage,
            _dir: dir,
        }
    }

    /// A client whose calls come from `caller`.
    async fn client(&self, caller: Option<Caller>) -> RegistryClient<Channel> {
        let service = InterceptedService::new(self.rpc.clone(), As(caller));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let incoming = TcpListenerStream::new(listener);
        tokio::spawn(
            Server::builder()
                .add_service(service)
                .serve_with_incoming(incoming),
        );
        RegistryClient::connect(format!("http://{address}"))
            .await
            .unwrap()
    }
}

fn options(domain: &str, ttl: i64) -> Option<Options> {
    Some(Options {
        ttl,
        domain: domain.into(),
    })
}

fn greeter(domain: &str, node: &str, port: u16) -> Service {
    Service {
        name: "greeter".into(),
        version: "latest".into(),
        metadata: HashMap::new(),
        endpoints: vec![Endpoint {
            name: "Greeter.Hello".into(),
            ..Endpoint::default()
        }],
        nodes: vec![Node {
            id: node.into(),
            address: format!("[::]:{port}"),
            port: 0,
            metadata: HashMap::from([("protocol".to_owned(), "grpc".to_owned())]),
        }],
        options: options(domain, 90),
    }
}

fn get(domain: &str, service: &str) -> GetRequest {
    GetRequest {
        service: service.into(),
        options: options(domain, 0),
    }
}

fn list(domain: &str) -> ListRequest {
    ListRequest {
        options: options(domain, 0),
    }
}

fn detail(status: &Status) -> (String, u16, String) {
    let wire = WireError::parse(status.message()).unwrap();
    (wire.id, wire.code, wire.detail)
}

#[tokio::test]
async fn a_service_registers_is_found_and_leaves() {
    let node = Node0::start().await;
    let mut client = node.client(Some(admin("foo"))).await;
    client
        .register(greeter("foo", "greeter-1", 4000))
        .await
        .unwrap();
    let found = client
        .get_service(get("", "greeter"))
        .await
        .unwrap()
        .into_inner()
        .services;
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].metadata["domain"], "foo");
    assert_eq!(
        found[0].nodes[0].address, "127.0.0.1:4000",
        "a wildcard is dialled over loopback"
    );
    assert_eq!(found[0].nodes[0].metadata["domain"], "foo");
    assert_eq!(found[0].endpoints[0].name, "Greeter.Hello");
    client
        .deregister(greeter("foo", "greeter-1", 4000))
        .await
        .unwrap();
    client
        .deregister(greeter("foo", "greeter-1", 4000))
        .await
        .unwrap();
    let status = client.get_service(get("foo", "greeter")).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
    assert_eq!(
        detail(&status),
        (
            "registry.Registry.GetService".into(),
            404,
            "service not found".into()
        )
    );
}

#[tokio::test]
async fn reading_needs_an_account_of_the_namespace_and_writing_its_administrator() {
    let node = Node0::start().await;
    let mut admin_of_foo = node.client(Some(admin("foo"))).await;
    admin_of_foo
        .register(greeter("foo", "a", 4000))
        .await
        .unwrap();

    let mut nobody = node.client(None).await;
    for domain in ["", "micro", "foo", "*"] {
        let status = nobody.list_services(list(domain)).await.unwrap_err();
        assert_eq!(status.code(), Code::Unauthenticated, "{domain}");
        assert_eq!(
            nobody
                .get_service(get(domain, "greeter"))
                .await
                .unwrap_err()
                .code(),
            Code::Unauthenticated
        );
    }
    assert_eq!(
        nobody
            .register(greeter("foo", "b", 1))
            .await
            .unwrap_err()
            .code(),
        Code::Unauthenticated
    );

    let mut reader = node.client(Some(account("foo", &[]))).await;
    assert_eq!(
        reader
            .list_services(list("foo"))
            .await
            .unwrap()
            .into_inner()
            .services
            .len(),
        1
    );
    let status = reader
        .register(greeter("foo", "b", 4001))
        .await
        .unwrap_err();
    assert_eq!(
        status.code(),
        Code::Unauthenticated,
        "contract §5.5 says 401 here"
    );
    assert_eq!(detail(&status).0, "registry.Registry.Register");
    assert!(reader.deregister(greeter("foo", "a", 4000)).await.is_err());

    let mut stranger = node.client(Some(admin("bar"))).await;
    for status in [
        stranger.list_services(list("foo")).await.unwrap_err(),
        stranger.list_services(list("*")).await.unwrap_err(),
        stranger
            .get_service(get("foo", "greeter"))
            .await
            .unwrap_err(),
        stranger
            .register(greeter("foo", "b", 4001))
            .await
            .unwrap_err(),
        stranger
            .deregister(greeter("foo", "a", 4000))
            .await
            .unwrap_err(),
    ] {
        assert_eq!(status.code(), Code::PermissionDenied);
        assert_eq!(detail(&status).2, "access denied to namespace");
    }
    assert!(
        stranger
            .list_services(list(""))
            .await
            .unwrap()
            .into_inner()
            .services
            .is_empty()
    );

    let mut operator = node.client(Some(admin("micro"))).await;
    for domain in ["foo", "*"] {
        let services = operator
            .list_services(list(domain))
            .await
            .unwrap()
            .into_inner()
            .services;
        assert_eq!(services.len(), 1, "{domain}");
    }
    assert_eq!(
        operator
            .get_service(get("*", "greeter"))
            .await
            .unwrap()
            .into_inner()
            .services
            .len(),
        1
    );
}

#[tokio::test]
async fn a_node_of_the_platform_is_not_deregistered_by_its_tenant() {
    let node = Node0::start().await;
    let mut client = node.client(Some(admin("foo"))).await;
    let ours = micro_registry::Registration {
        namespace: Namespace::parse("foo").unwrap(),
        service: micro_core::ServiceName::parse("greeter").unwrap(),
        version: micro_core::Version::latest(),
        metadata: BTreeMap::new(),
        protocol: micro_registry::Protocol::Grpc,
        schema: Arc::new(Schema::empty()),
        node: micro_registry::Node {
            id: "a".into(),
            address: SocketAddr::from(([127, 0, 0, 1], 4000)),
            metadata: BTreeMap::new(),
        },
        ttl: None,
    };
    node.handle.register(ours).await.unwrap();
    client.deregister(greeter("foo", "a", 4000)).await.unwrap();
    assert_eq!(node.handle.snapshot().services.len(), 1);
    let status = client
        .register(greeter("foo", "a", 4001))
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::AlreadyExists);
}

#[tokio::test]
async fn registrations_that_cannot_be_are_refused_with_the_reason() {
    let node = Node0::start().await;
    let mut client = node.client(Some(admin("foo"))).await;
    let with = |change: fn(&mut Service)| {
        let mut service = greeter("foo", "a", 4000);
        change(&mut service);
        service
    };
    for (service, part) in [
        (with(|s| s.nodes.clear()), "no node"),
        (with(|s| s.name = "../x".into()), "service name"),
        (with(|s| s.version = "a b".into()), "version"),
        (with(|s| s.options = options("F", 90)), "namespace"),
        (
            with(|s| s.nodes[0].address = "169.254.169.254:80".into()),
            "169.254.169.254",
        ),
        (
            with(|s| s.nodes[0].address = "nonsense".into()),
            "host:port",
        ),
        (with(|s| s.nodes[0].id.clear()), "id of a node"),
    ] {
        let status = client.register(service).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{part}");
        assert!(detail(&status).2.contains(part), "{}", status.message());
    }
    assert!(node.handle.snapshot().services.is_empty());
}

#[tokio::test]
async fn built_in_services_are_listed_in_the_operators_namespace_and_found_in_all() {
    let node = Node0::start().await;
    let schema = Schema::from_descriptor_set(micro_proto::DESCRIPTOR_SET).unwrap();
    node.handle.add_builtin("registry", Arc::new(schema));
    assert!(node.handle.snapshot().services.is_empty());
    let mut operator = node.client(Some(admin("micro"))).await;
    let services = operator
        .list_services(list("micro"))
        .await
        .unwrap()
        .into_inner()
        .services;
    assert_eq!(services[0].name, "registry");
    assert_eq!(services[0].nodes[0].address, "127.0.0.1:8443");
    let mut tenant = node.client(Some(admin("foo"))).await;
    assert!(
        tenant
            .list_services(list("foo"))
            .await
            .unwrap()
            .into_inner()
            .services
            .is_empty()
    );
    let found = tenant
        .get_service(get("foo", "registry"))
        .await
        .unwrap()
        .into_inner()
        .services;
    let watch = found[0]
        .endpoints
        .iter()
        .find(|e| e.name == "Registry.Watch")
        .unwrap();
    assert_eq!(watch.metadata["stream"], "true");
    let ask = SchemaRequest {
        service: "registry".into(),
        options: options("foo", 0),
    };
    let schema = tenant.schema(ask).await.unwrap().into_inner();
    assert_eq!(schema.protocol, "grpc");
    assert!(
        Schema::from_descriptor_set(&schema.descriptor_set)
            .unwrap()
            .method("Registry.Watch")
            .is_some()
    );
}

/// A watch whose request stream stays open, as Micro's clients keep it.
struct Watching {
    _asks: mpsc::Sender<WatchRequest>,
    events: Streaming<Event>,
}

impl Watching {
    async fn open(
        client: &mut RegistryClient<Channel>,
        domain: &str,
        service: &str,
    ) -> Result<Self, Status> {
        let (asks, outgoing) = mpsc::channel(4);
        asks.send(WatchRequest {
            service: service.into(),
            options: options(domain, 0),
        })
        .await
        .unwrap();
        let events = client
            .watch(ReceiverStream::new(outgoing))
            .await?
            .into_inner();
        Ok(Self {
            _asks: asks,
            events,
        })
    }

    async fn next(&mut self) -> (String, Service) {
        let event = tokio::time::timeout(SOON, self.events.message())
            .await
            .unwrap()
            .unwrap()
            .unwrap();
        assert_eq!(event.timestamp.div_euclid(1_000_000), 1_700);
        (event.action, event.service.unwrap())
    }
}

#[tokio::test]
async fn a_watch_sees_every_change_on_the_first_message_also_expiry() {
    let mut node = Node0::start().await;
    let mut client = node.client(Some(admin("foo"))).await;
    let mut watch = Watching::open(&mut client, "foo", "greeter").await.unwrap();
    let mut other = greeter("foo", "x", 4100);
    other.name = "other".into();
    client.register(other).await.unwrap();
    client.register(greeter("foo", "a", 4000)).await.unwrap();
    client.register(greeter("foo", "a", 4000)).await.unwrap();
    client.register(greeter("foo", "b", 4001)).await.unwrap();
    client.deregister(greeter("foo", "a", 4000)).await.unwrap();
    for (action, id) in [("create", "a"), ("update", "b"), ("update", "a")] {
        let (was, service) = watch.next().await;
        assert_eq!((was.as_str(), service.nodes[0].id.as_str()), (action, id));
        assert_eq!(service.name, "greeter");
    }
    let stop = CancellationToken::new();
    let running = tokio::spawn(node.service.take().unwrap().run(stop.clone()));
    node.clock.advance(Duration::from_secs(91));
    let (action, service) = watch.next().await;
    assert_eq!(
        (action.as_str(), service.nodes[0].id.as_str()),
        ("delete", "b")
    );
    stop.cancel();
    running.await.unwrap();
    let end = tokio::time::timeout(SOON, watch.events.message())
        .await
        .unwrap()
        .unwrap_err();
    assert_eq!(
        end.code(),
        Code::Unavailable,
        "a watch does not hold up the stop of the server"
    );
}

#[tokio::test]
async fn a_watch_stays_in_its_namespace() {
    let node = Node0::start().await;
    let mut foo = node.client(Some(admin("foo"))).await;
    let mut bar = node.client(Some(admin("bar"))).await;
    let mut operator = node.client(Some(admin("micro"))).await;
    let mut of_bar = Watching::open(&mut bar, "", "").await.unwrap();
    let mut of_all = Watching::open(&mut operator, "*", "").await.unwrap();
    for domain in ["foo", "*"] {
        let status = Watching::open(&mut bar, domain, "").await.err().unwrap();
        assert_eq!(status.code(), Code::PermissionDenied, "{domain}");
    }
    let mut nobody = node.client(None).await;
    assert!(Watching::open(&mut nobody, "micro", "").await.is_err());
    foo.register(greeter("foo", "a", 4000)).await.unwrap();
    bar.register(greeter("bar", "b", 4001)).await.unwrap();
    assert_eq!(of_bar.next().await.1.metadata["domain"], "bar");
    assert_eq!(of_all.next().await.1.metadata["domain"], "foo");
    assert_eq!(of_all.next().await.1.metadata["domain"], "bar");
}

#[tokio::test]
async fn a_node_that_offers_reflection_is_asked_for_its_descriptors() {
    let node = Node0::start().await;
    let mut client = node.client(Some(admin("foo"))).await;
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(micro_proto::DESCRIPTOR_SET)
        .build_v1()
        .unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let incoming = TcpListenerStream::new(listener);
    tokio::spawn(
        Server::builder()
            .add_service(reflection)
            .serve_with_incoming(incoming),
    );
    let mut service = greeter("foo", "a", port);
    service.nodes[0]
        .metadata
        .insert("reflection".into(), "true".into());
    client.register(service.clone()).await.unwrap();
    client.register(service).await.unwrap();
    let ask = SchemaRequest {
        service: "greeter".into(),
        options: None,
    };
    let schema = client.schema(ask).await.unwrap().into_inner();
    let schema = Schema::from_descriptor_set(&schema.descriptor_set).unwrap();
    assert!(schema.method("Auth.Token").is_some());

    let mesh = "127.0.0.1:8443".parse().unwrap();
    let again = micro_registry::Service::open(&node.storage, mesh, node.clock.clone())
        .await
        .unwrap();
    let snapshot = again.handle().snapshot();
    let entry = &snapshot.services.values().next().unwrap()[0];
    assert!(
        entry.schema.method("Auth.Token").is_some(),
        "what was fetched is kept"
    );
}
