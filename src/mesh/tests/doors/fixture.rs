//! A door with people, rules and routes for one test.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use micro_core::{Account, AccountId, Namespace};
use micro_pipeline::{
    Builtins, Door, Identity, Pipeline, Protocol, Refusal, RouteSpec, Router, Rules,
};
use micro_schema::Schema;
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint};

use crate::backend::Backend;

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
            metadata: Default::default(),
        }))
    }
}

struct House;

impl Rules for House {
    /// `Runtime.Delete` is for accounts, and not for `guest`.
    fn verify(
        &self,
        account: Option<&Account>,
        _: &Namespace,
        _: &str,
        endpoint: &str,
    ) -> Result<(), Refusal> {
        match account {
            _ if endpoint != "Runtime.Delete" => Ok(()),
            None => Err(Refusal::Unauthorized),
            Some(account) if account.id.as_str() == "guest" => Err(Refusal::Forbidden),
            Some(_) => Ok(()),
        }
    }
}

pub(crate) fn schema() -> Arc<Schema> {
    Arc::new(Schema::from_descriptor_set(micro_proto::DESCRIPTOR_SET).unwrap())
}

pub(crate) fn spec(service: &str, addresses: &[SocketAddr]) -> RouteSpec {
    RouteSpec {
        namespace: Namespace::operator(),
        service: service.parse().unwrap(),
        protocol: Protocol::Grpc,
        schema: schema(),
        addresses: addresses.to_vec(),
    }
}

pub(crate) struct Fixture {
    pub(crate) router: Arc<Router>,
    pub(crate) pipeline: Arc<Pipeline>,
    pub(crate) address: SocketAddr,
    pub(crate) stop: CancellationToken,
    pub(crate) serving: JoinHandle<()>,
}

impl Fixture {
    pub(crate) async fn with(routes: Vec<RouteSpec>, builtin: Option<&Backend>) -> Self {
        let router = Arc::new(Router::new());
        router.update(routes);
        let mut builtins = Builtins::new();
        if let Some(backend) = builtin {
            builtins.add("runtime", schema(), backend.routes());
        }
        let pipeline = Pipeline::new(
            Arc::new(People),
            Arc::new(House),
            Arc::clone(&router),
            builtins,
        );
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let serving = tokio::spawn(micro_mesh::serve(
            listener,
            Door::Proxy,
            Arc::clone(&pipeline),
            stop.clone(),
        ));
        Self {
            router,
            pipeline,
            address,
            stop,
            serving,
        }
    }

    pub(crate) async fn service(addresses: &[SocketAddr]) -> Self {
        Self::with(vec![spec("runtime", addresses)], None).await
    }

    pub(crate) async fn builtin(backend: &Backend) -> Self {
        Self::with(vec![], Some(backend)).await
    }

    pub(crate) async fn channel(&self) -> Channel {
        Endpoint::from_shared(format!("http://{}", self.address))
            .unwrap()
            .connect()
            .await
            .unwrap()
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// Waits for a condition that something else brings about.
pub(crate) async fn eventually(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !condition() {
        assert!(Instant::now() < deadline, "never happened: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
