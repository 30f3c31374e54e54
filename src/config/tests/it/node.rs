//! A node with config alone, and a client of it.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use micro_config::{Handle, KeySource, Rpc, Service};
use micro_core::{Account, AccountId, Caller, Clock, Namespace, StateDir, Timestamp, WireError};
use micro_proto::config::{
    DeleteRequest, Entry, GetRequest, HistoryRequest, Options, RevertRequest, SetRequest, Value,
    config_client::ConfigClient, config_server::ConfigServer,
};
use micro_storage::Storage;
use tempfile::TempDir;
use tokio_stream::wrappers::TcpListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::{
    Request, Status,
    service::{Interceptor, interceptor::InterceptedService},
    transport::{Channel, Server},
};

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

pub(crate) fn account(issuer: &str, kind: &str, scopes: &[&str]) -> Caller {
    let issuer = Namespace::parse(issuer).unwrap();
    Caller {
        account: Some(Arc::new(Account {
            id: AccountId::parse("ann").unwrap(),
            kind: kind.into(),
            issuer: issuer.clone(),
            scopes: scopes.iter().map(|s| (*s).into()).collect(),
            name: "ann".into(),
            metadata: BTreeMap::new(),
        })),
        namespace: issuer,
    }
}

pub(crate) fn admin(issuer: &str) -> Caller {
    account(issuer, "user", &["admin"])
}

pub(crate) fn failure(status: &Status) -> WireError {
    WireError::parse(status.message()).unwrap()
}

pub(crate) fn wire<T: std::fmt::Debug>(result: Result<T, Status>) -> WireError {
    failure(&result.unwrap_err())
}

pub(crate) struct Node0 {
    dir: TempDir,
    clock: Clock,
    storage: Storage,
    handle: Handle,
    rpc: ConfigServer<Rpc>,
    stop: CancellationToken,
}

impl Node0 {
    pub(crate) fn start() -> Self {
        let clock = Clock::fake(Timestamp(1_700_000_000_000));
        Self::over(tempfile::tempdir().unwrap(), clock, None)
    }

    fn over(dir: TempDir, clock: Clock, credential: Option<&str>) -> Self {
        let state = StateDir::new(dir.path());
        let options = micro_storage::Options {
            clock: clock.clone(),
            ..Default::default()
        };
        let storage = Storage::open(&dir.path().join("storage"), options).unwrap();
        let keys = KeySource::new(&state).with_credential(credential);
        let service = Service::open(&storage, keys, clock.clone());
        let (handle, rpc) = (service.handle(), service.server());
        let stop = CancellationToken::new();
        tokio::spawn(service.run(stop.clone()));
        Self {
            dir,
            clock,
            storage,
            handle,
            rpc,
            stop,
        }
    }

    /// The same node, stopped and started again.
    pub(crate) fn restart(self) -> Self {
        self.stop.cancel();
        self.storage.close();
        Self::over(self.dir, self.clock, None)
    }

    /// The same, with keys from a credential.
    pub(crate) fn restart_with(self, credential: &str) -> Self {
        self.stop.cancel();
        self.storage.close();
        Self::over(self.dir, self.clock, Some(credential))
    }

    pub(crate) async fn wait_until(&self, done: impl Fn() -> bool) {
        let waited = tokio::time::timeout(SOON, async {
            while !done() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        waited.await.unwrap();
    }

    pub(crate) fn stop(&self) {
        self.stop.cancel();
    }

    pub(crate) fn clock(&self) -> &Clock {
        &self.clock
    }

    pub(crate) fn storage(&self) -> &Storage {
        &self.storage
    }

    pub(crate) fn handle(&self) -> &Handle {
        &self.handle
    }

    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn key_file(&self) -> PathBuf {
        self.dir().join("keys/config")
    }

    /// Looks into every file below `storage`.
    pub(crate) fn assert_no_file_has(&self, needles: &[&str]) {
        assert_eq!(self.files_with(needles), Vec::<String>::new());
    }

    /// Each needle with the file below `storage` that it is in.
    pub(crate) fn files_with(&self, needles: &[&str]) -> Vec<String> {
        let (mut found, mut files) = (Vec::new(), 0);
        let mut open = vec![self.dir().join("storage")];
        while let Some(directory) = open.pop() {
            for entry in std::fs::read_dir(directory).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    open.push(path);
                    continue;
                }
                files += 1;
                let bytes = std::fs::read(&path).unwrap();
                for needle in needles {
                    if bytes.windows(needle.len()).any(|w| w == needle.as_bytes()) {
                        found.push(format!("{needle} in {}", path.display()));
                    }
                }
            }
        }
        assert!(files > 0, "there is something to look into");
        found
    }

    /// A client whose calls come from `caller`.
    pub(crate) async fn client(&self, caller: Option<Caller>) -> Client {
        let service = InterceptedService::new(self.rpc.clone(), As(caller));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let incoming = TcpListenerStream::new(listener);
        tokio::spawn(
            Server::builder()
                .add_service(service)
                .serve_with_incoming(incoming),
        );
        let address = format!("http://{address}");
        Client(ConfigClient::connect(address).await.unwrap())
    }
}

/// Speaks of the namespace `foo`.
pub(crate) struct Client(ConfigClient<Channel>);

impl Client {
    pub(crate) fn raw(&mut self) -> &mut ConfigClient<Channel> {
        &mut self.0
    }

    pub(crate) async fn try_set(
        &mut self,
        path: &str,
        json: &str,
        secret: bool,
    ) -> Result<u64, Status> {
        let ask = SetRequest {
            namespace: "foo".into(),
            path: path.into(),
            value: Some(Value {
                data: json.into(),
                format: "json".into(),
            }),
            options: Some(Options { secret }),
        };
        Ok(self.0.set(ask).await?.into_inner().version)
    }

    pub(crate) async fn set(&mut self, path: &str, json: &str) -> u64 {
        self.try_set(path, json, false).await.unwrap()
    }

    pub(crate) async fn try_get(&mut self, path: &str, secret: bool) -> Result<String, Status> {
        let ask = GetRequest {
            namespace: "foo".into(),
            path: path.into(),
            options: Some(Options { secret }),
        };
        let value = self.0.get(ask).await?.into_inner().value.unwrap();
        assert_eq!(value.format, "json");
        Ok(value.data)
    }

    pub(crate) async fn get(&mut self, path: &str) -> String {
        self.try_get(path, false).await.unwrap()
    }

    pub(crate) async fn try_delete(&mut self, path: &str) -> Result<u64, Status> {
        let ask = DeleteRequest {
            namespace: "foo".into(),
            path: path.into(),
        };
        Ok(self.0.delete(ask).await?.into_inner().version)
    }

    pub(crate) async fn delete(&mut self, path: &str) -> u64 {
        self.try_delete(path).await.unwrap()
    }

    pub(crate) async fn try_revert(&mut self, version: u64) -> Result<u64, Status> {
        let ask = RevertRequest {
            namespace: "foo".into(),
            version,
        };
        Ok(self.0.revert(ask).await?.into_inner().version)
    }

    pub(crate) async fn history(&mut self, path: &str, limit: u64) -> Vec<Entry> {
        let ask = HistoryRequest {
            namespace: "foo".into(),
            path: path.into(),
            limit,
        };
        self.0.history(ask).await.unwrap().into_inner().entries
    }
}
