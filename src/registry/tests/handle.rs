//! The registry through its handle: what is kept, what expires, what is refused.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::{collections::BTreeMap, net::SocketAddr, path::Path, sync::Arc, time::Duration};

use micro_core::{Clock, Fault as _, Kind, Namespace, ServiceName, Timestamp, Version};
use micro_proto::registry::Endpoint;
use micro_registry::{Error, Handle, Node, Protocol, Registration, Service};
use micro_schema::Schema;
use micro_storage::{Options as StorageOptions, Storage};
use tokio_util::sync::CancellationToken;

const START: Timestamp = Timestamp(1_700_000_000_000);

fn mesh() -> SocketAddr {
    "127.0.0.1:8443".parse().unwrap()
}

fn ns(name: &str) -> Namespace {
    Namespace::parse(name).unwrap()
}

fn name(name: &str) -> ServiceName {
    ServiceName::parse(name).unwrap()
}

fn endpoints(names: &[&str]) -> Arc<Schema> {
    let endpoint = |name: &&str| Endpoint {
        name: (*name).to_owned(),
        ..Endpoint::default()
    };
    Arc::new(Schema::from_endpoints(names.iter().map(endpoint).collect()))
}

fn registration(
    namespace: &str,
    service: &str,
    node: &str,
    port: u16,
    ttl: Option<u64>,
) -> Registration {
    Registration {
        namespace: ns(namespace),
        service: name(service),
        version: Version::latest(),
        metadata: BTreeMap::new(),
        protocol: Protocol::Grpc,
        schema: endpoints(&["Greeter.Hello"]),
        node: Node {
            id: node.to_owned(),
            address: SocketAddr::from(([127, 0, 0, 1], port)),
            metadata: BTreeMap::new(),
        },
        ttl: ttl.map(Duration::from_secs),
    }
}

struct Setup {
    service: Service,
    storage: Storage,
}

impl Setup {
    async fn open(dir: &Path, clock: &Clock) -> Self {
        let storage = Storage::open(dir, StorageOptions::default()).unwrap();
        let service = Service::open(&storage, mesh(), clock.clone())
            .await
            .unwrap();
        Self { service, storage }
    }

    fn handle(&self) -> Handle {
        self.service.handle()
    }
}

fn ports(handle: &Handle, namespace: &str, service: &str) -> Vec<u16> {
    let snapshot = handle.snapshot();
    let entries = snapshot.get(&ns(namespace), &name(service));
    entries
        .iter()
        .flat_map(|e| e.nodes.iter().map(|n| n.address.port()))
        .collect()
}

#[tokio::test]
async fn self_registrations_survive_a_restart_with_the_rest_of_their_time() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Clock::fake(START);
    let first = Setup::open(dir.path(), &clock).await;
    let handle = first.handle();
    handle
        .register(registration("foo", "kept", "a", 1, Some(90)))
        .await
        .unwrap();
    let forever = Registration {
        ttl: Some(Registration::FOREVER),
        ..registration("bar", "forever", "c", 3, None)
    };
    handle.register(forever).await.unwrap();
    handle
        .register(registration("foo", "ours", "d", 4, None))
        .await
        .unwrap();
    handle
        .register(registration("foo", "short", "e", 5, Some(10)))
        .await
        .unwrap();
    clock.advance(Duration::from_secs(60));
    first.storage.close();
    drop(first);

    let second = Setup::open(dir.path(), &clock).await;
    let handle = second.handle();
    assert_eq!(ports(&handle, "foo", "kept"), [1]);
    assert_eq!(ports(&handle, "bar", "forever"), [3]);
    assert!(
        ports(&handle, "foo", "ours").is_empty(),
        "the platform announces its own again"
    );
    assert!(
        ports(&handle, "foo", "short").is_empty(),
        "its time is over"
    );
    let entry = Arc::clone(&handle.snapshot().get(&ns("foo"), &name("kept"))[0]);
    assert!(entry.schema.method("Greeter.Hello").is_some());

    let mut changes = handle.changes();
    let stop = CancellationToken::new();
    let running = tokio::spawn(second.service.run(stop.clone()));
    clock.advance(Duration::from_secs(31));
    let gone = changes.wait_for(|s| s.get(&ns("foo"), &name("kept")).is_empty());
    drop(
        tokio::time::timeout(Duration::from_secs(20), gone)
            .await
            .unwrap()
            .unwrap(),
    );
    assert_eq!(ports(&handle, "bar", "forever"), [3]);
    stop.cancel();
    running.await.unwrap();
}

#[tokio::test]
async fn renewing_extends_the_time_also_over_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Clock::fake(START);
    let first = Setup::open(dir.path(), &clock).await;
    let handle = first.handle();
    let r = registration("foo", "kept", "a", 1, Some(90));
    handle.register(r.clone()).await.unwrap();
    let mut changes = handle.changes();
    changes.mark_unchanged();
    clock.advance(Duration::from_secs(80));
    handle.register(r.clone()).await.unwrap();
    assert!(
        !changes.has_changed().unwrap(),
        "a heartbeat changes nothing"
    );
    clock.advance(Duration::from_secs(80));
    first.storage.close();
    drop(first);
    let second = Setup::open(dir.path(), &clock).await;
    assert_eq!(ports(&second.handle(), "foo", "kept"), [1]);
}

#[tokio::test]
async fn address_endpoints_and_metadata_are_updated() {
    let dir = tempfile::tempdir().unwrap();
    let setup = Setup::open(dir.path(), &Clock::fake(START)).await;
    let handle = setup.handle();
    handle
        .register(registration("foo", "s", "a", 1, Some(90)))
        .await
        .unwrap();
    let mut next = registration("foo", "s", "a", 2, Some(90));
    next.schema = endpoints(&["Greeter.Bye"]);
    next.metadata.insert("owner".into(), "ann".into());
    handle.register(next).await.unwrap();
    let snapshot = handle.snapshot();
    let entries = snapshot.get(&ns("foo"), &name("s"));
    assert_eq!(entries.len(), 1);
    assert_eq!(entries[0].nodes[0].address.port(), 2);
    assert_eq!(entries[0].metadata["owner"], "ann");
    assert!(entries[0].schema.method("Greeter.Bye").is_some());
    assert!(entries[0].schema.method("Greeter.Hello").is_none());
}

#[tokio::test]
async fn the_node_that_changed_last_speaks_for_its_version() {
    let dir = tempfile::tempdir().unwrap();
    let setup = Setup::open(dir.path(), &Clock::fake(START)).await;
    let handle = setup.handle();
    let old = registration("foo", "s", "a", 1, Some(90));
    let mut new = registration("foo", "s", "b", 2, Some(90));
    new.schema = endpoints(&["Greeter.New"]);
    handle.register(old.clone()).await.unwrap();
    handle.register(new.clone()).await.unwrap();
    handle.register(old.clone()).await.unwrap();
    let speaks = |handle: &Handle| {
        let snapshot = handle.snapshot();
        snapshot.get(&ns("foo"), &name("s"))[0].schema.methods()[0]
            .endpoint
            .clone()
    };
    assert_eq!(
        speaks(&handle),
        "Greeter.New",
        "a heartbeat of the old one changes nothing"
    );
    handle
        .deregister(&ns("foo"), &name("s"), &Version::latest(), "b")
        .await
        .unwrap();
    assert_eq!(speaks(&handle), "Greeter.Hello");
}

#[tokio::test]
async fn the_newest_version_is_the_last() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Clock::fake(START);
    let setup = Setup::open(dir.path(), &clock).await;
    let handle = setup.handle();
    for (i, version) in ["v2", "v10", "v1"].into_iter().enumerate() {
        let mut r = registration("foo", "s", "a", 1 + u16::try_from(i).unwrap(), None);
        r.version = Version::parse(version).unwrap();
        handle.register(r).await.unwrap();
        clock.advance(Duration::from_secs(1));
    }
    let snapshot = handle.snapshot();
    let versions: Vec<&str> = snapshot
        .get(&ns("foo"), &name("s"))
        .iter()
        .map(|e| e.version.as_str())
        .collect();
    assert_eq!(versions, ["v2", "v10", "v1"]);
}

#[tokio::test]
async fn deregistering_removes_node_version_and_service_also_from_disk() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Clock::fake(START);
    let first = Setup::open(dir.path(), &clock).await;
    let handle = first.handle();
    handle
        .register(registration("foo", "s", "a", 1, Some(90)))
        .await
        .unwrap();
    handle
        .register(registration("foo", "s", "b", 2, Some(90)))
        .await
        .unwrap();
    let gone = |id: &'static str| {
        let handle = handle.clone();
        async move {
            handle
                .deregister(&ns("foo"), &name("s"), &Version::latest(), id)
                .await
        }
    };
    gone("unknown").await.unwrap();
    gone("a").await.unwrap();
    assert_eq!(ports(&handle, "foo", "s"), [2]);
    gone("b").await.unwrap();
    assert!(handle.snapshot().services.is_empty());
    first.storage.close();
    drop((first, handle));
    let second = Setup::open(dir.path(), &clock).await;
    assert!(second.handle().snapshot().services.is_empty());
}

#[tokio::test]
async fn an_address_of_another_namespace_is_taken_unless_the_platform_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let setup = Setup::open(dir.path(), &Clock::fake(START)).await;
    let handle = setup.handle();
    handle
        .register(registration("foo", "s", "a", 1, Some(90)))
        .await
        .unwrap();
    let error = handle
        .register(registration("bar", "t", "b", 1, Some(90)))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), Kind::Conflict);
    handle
        .register(registration("foo", "t", "b", 1, Some(90)))
        .await
        .unwrap();
    handle
        .register(registration("bar", "t", "b", 1, None))
        .await
        .unwrap();
    assert!(
        ports(&handle, "foo", "s").is_empty(),
        "whoever said so before is gone"
    );
    assert_eq!(ports(&handle, "bar", "t"), [1]);
}

#[tokio::test]
async fn names_ids_and_addresses_of_the_platform_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let setup = Setup::open(dir.path(), &Clock::fake(START)).await;
    let handle = setup.handle();
    handle.add_builtin("auth", endpoints(&["Auth.Token"]));
    handle
        .register(registration("foo", "s", "ours", 1, None))
        .await
        .unwrap();
    for (r, kind) in [
        (
            registration("foo", "auth", "a", 2, Some(90)),
            Kind::Conflict,
        ),
        (
            registration("foo", "s", "ours", 2, Some(90)),
            Kind::Conflict,
        ),
        (
            registration("foo", "s", "a", 8443, Some(90)),
            Kind::Conflict,
        ),
        (registration("foo", "s", "", 2, Some(90)), Kind::Invalid),
        (registration("foo", "s", "a\0b", 2, Some(90)), Kind::Invalid),
    ] {
        let error = handle.register(r.clone()).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{r:?}: {error}");
        assert!(!matches!(error, Error::Storage(_)));
    }
    assert_eq!(ports(&handle, "foo", "s"), [1]);
}

#[tokio::test]
async fn only_fresh_self_registrations_count_as_such() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Clock::fake(START);
    let setup = Setup::open(dir.path(), &clock).await;
    let handle = setup.handle();
    let (foo, s) = (ns("foo"), name("s"));
    handle
        .register(registration("foo", "s", "ours", 1, None))
        .await
        .unwrap();
    assert!(!handle.has_self_registered(&foo, &s, START));
    let own = registration("foo", "s", "own", 2, Some(90));
    handle.register(own.clone()).await.unwrap();
    assert!(handle.has_self_registered(&foo, &s, START));
    clock.advance(Duration::from_secs(5));
    let later = clock.now();
    assert!(!handle.has_self_registered(&foo, &s, later));
    handle.register(own).await.unwrap();
    assert!(handle.has_self_registered(&foo, &s, later));
    assert!(!handle.has_self_registered(&ns("bar"), &s, START));
}
