//! A store behind a real gRPC server, and clients of it.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use micro_core::{Account, AccountId, Caller, Clock, Namespace, Timestamp, WireError};
use micro_proto::store::{
    DeleteOptions, DeleteRequest, ListOptions, ListRequest, ReadOptions, ReadRequest, Record,
    WriteOptions, WriteRequest, blob_store_client::BlobStoreClient, store_client::StoreClient,
};
use micro_storage::{Options, Storage};
use micro_store::{Handle, Service, Settings};
use tempfile::TempDir;
use tokio::{sync::mpsc, task::JoinHandle};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tokio_util::sync::CancellationToken;
use tonic::{
    Request, Status,
    service::{Interceptor, interceptor::InterceptedService},
    transport::{Channel, Server},
};

/// How long anything here may take.
pub(crate) const SOON: Duration = Duration::from_secs(20);

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

fn caller(kind: &str, issuer: &str, scopes: &[&str], acting: &str) -> Caller {
    Caller {
        account: Some(Arc::new(Account {
            id: AccountId::parse("ann").unwrap(),
            kind: kind.into(),
            issuer: Namespace::parse(issuer).unwrap(),
            scopes: scopes.iter().map(|s| (*s).into()).collect(),
            name: "ann".into(),
            metadata: BTreeMap::new(),
        })),
        namespace: Namespace::parse(acting).unwrap(),
    }
}

/// The administrator of a namespace.
pub(crate) fn admin(issuer: &str) -> Caller {
    caller("user", issuer, &["admin"], issuer)
}

/// A user who administers nothing.
pub(crate) fn user(issuer: &str) -> Caller {
    caller("user", issuer, &[], issuer)
}

/// A service as Micro's library calls: it says `micro`, whatever its namespace is.
pub(crate) fn service(issuer: &str) -> Caller {
    caller("service", issuer, &["service"], "micro")
}

pub(crate) struct Node {
    pub(crate) service: Option<Service>,
    pub(crate) handle: Handle,
    pub(crate) storage: Storage,
    pub(crate) clock: Clock,
    pub(crate) dir: TempDir,
    settings: Settings,
}

impl Node {
    pub(crate) async fn start() -> Self {
        Self::with(Settings::default()).await
    }

    pub(crate) async fn with(settings: Settings) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let clock = Clock::fake(Timestamp(1_700_000_000_000));
        let (storage, service) = open(&dir, &clock, &settings).await;
        Self {
            handle: service.handle(),
            service: Some(service),
            storage,
            clock,
            dir,
            settings,
        }
    }

    /// Stops the node and starts it again; clients of before are clients of the stopped one.
    pub(crate) async fn restart(&mut self) {
        self.storage.close();
        let (storage, service) = open(&self.dir, &self.clock, &self.settings).await;
        self.handle = service.handle();
        self.service = Some(service);
        self.storage = storage;
    }

    /// Runs what the store does by itself.
    pub(crate) fn run(&mut self) -> (CancellationToken, JoinHandle<()>) {
        let stop = CancellationToken::new();
        let running = self.service.take().unwrap().run(stop.clone());
        (stop, tokio::spawn(running))
    }

    /// A connection whose calls come from `caller`.
    async fn connect(&self, caller: Option<Caller>) -> Channel {
        let service = self.service.as_ref().unwrap();
        let store = InterceptedService::new(service.store_server(), As(caller.clone()));
        let blobs = InterceptedService::new(service.blob_server(), As(caller));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = Server::builder().add_service(store).add_service(blobs);
        tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        Channel::from_shared(format!("http://{address}"))
            .unwrap()
            .connect()
            .await
            .unwrap()
    }

    pub(crate) async fn client(&self, caller: Caller) -> StoreClient<Channel> {
        StoreClient::new(self.connect(Some(caller)).await)
            .max_decoding_message_size(256 << 20)
            .max_encoding_message_size(256 << 20)
    }

    pub(crate) async fn anonymous(&self) -> StoreClient<Channel> {
        StoreClient::new(self.connect(None).await)
    }

    pub(crate) async fn blobs(&self, caller: Caller) -> BlobStoreClient<Channel> {
        BlobStoreClient::new(self.connect(Some(caller)).await)
    }

    pub(crate) async fn anonymous_blobs(&self) -> BlobStoreClient<Channel> {
        BlobStoreClient::new(self.connect(None).await)
    }
}

async fn open(dir: &TempDir, clock: &Clock, settings: &Settings) -> (Storage, Service) {
    let options = Options {
        clock: clock.clone(),
        ..Options::default()
    };
    let storage = Storage::open(dir.path(), options).unwrap();
    let service = Service::open(settings.clone(), &storage, clock.clone())
        .await
        .unwrap();
    (storage, service)
}

pub(crate) fn record(key: &str, value: &[u8], expiry: i64) -> Record {
    Record {
        key: key.into(),
        value: value.into(),
        expiry,
        ..Record::default()
    }
}

pub(crate) fn write(database: &str, table: &str, record: Record) -> WriteRequest {
    WriteRequest {
        record: Some(record),
        options: Some(WriteOptions {
            database: database.into(),
            table: table.into(),
        }),
    }
}

pub(crate) fn read(database: &str, table: &str, key: &str) -> ReadRequest {
    ReadRequest {
        key: key.into(),
        options: Some(ReadOptions {
            database: database.into(),
            table: table.into(),
            ..ReadOptions::default()
        }),
    }
}

pub(crate) fn delete(database: &str, table: &str, key: &str) -> DeleteRequest {
    DeleteRequest {
        key: key.into(),
        options: Some(DeleteOptions {
            database: database.into(),
            table: table.into(),
        }),
    }
}

pub(crate) fn all(database: &str, table: &str) -> ListOptions {
    ListOptions {
        database: database.into(),
        table: table.into(),
        ..ListOptions::default()
    }
}

/// Lists as Micro's clients do: the request stream stays open.
pub(crate) async fn list(
    client: &mut StoreClient<Channel>,
    options: ListOptions,
) -> Result<Vec<String>, Status> {
    let (_open, asks) = open_stream(ListRequest {
        options: Some(options),
    })
    .await;
    let answer = tokio::time::timeout(SOON, client.list(asks))
        .await
        .unwrap()?;
    let mut answer = answer.into_inner();
    let keys = tokio::time::timeout(SOON, answer.message())
        .await
        .unwrap()?
        .unwrap()
        .keys;
    let end = tokio::time::timeout(SOON, answer.message())
        .await
        .unwrap()?;
    assert!(end.is_none(), "there is one message only");
    Ok(keys)
}

/// A request stream with one message that does not end before what is returned is dropped.
pub(crate) async fn open_stream<T: Send + 'static>(
    first: T,
) -> (mpsc::Sender<T>, ReceiverStream<T>) {
    let (asks, outgoing) = mpsc::channel(4);
    assert!(asks.send(first).await.is_ok());
    (asks, ReceiverStream::new(outgoing))
}

/// Id, code and detail of an error.
pub(crate) fn detail(status: &Status) -> (String, u16, String) {
    let wire = WireError::parse(status.message()).unwrap();
    (wire.id, wire.code, wire.detail)
}
