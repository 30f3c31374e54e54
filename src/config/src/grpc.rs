//! `config.Config` for Micro's clients and our own: who may do what, and messages in and out.
//! Everything here is for administrators of a namespace, which its services are.

use std::pin::Pin;

use futures_util::{Stream, StreamExt as _, stream};
use micro_core::{Caller, Namespace};
use micro_proto::{
    config::{
        Change, ChangeSet, DeleteRequest, DeleteResponse, Entry as HistoryEntry, GetRequest,
        GetResponse, HistoryRequest, HistoryResponse, Options, ReadRequest, ReadResponse,
        RevertRequest, RevertResponse, RotateRequest, RotateResponse, SetRequest, SetResponse,
        Value, WatchRequest, WatchResponse, config_server::Config,
    },
    status,
};
use ring::digest;
use tonic::{Request, Response, Status, Streaming};

use crate::{Error, Handle, Secrets, Watch};

/// The one format.
const JSON: &str = "json";

/// The gRPC face of config.
#[derive(Clone)]
pub struct Rpc {
    handle: Handle,
}

/// Where a request acts, and for whom.
struct Scope {
    namespace: Namespace,
    by: String,
}

impl Rpc {
    pub(crate) fn new(handle: Handle) -> Self {
        Self { handle }
    }

    fn read_all(&self, caller: &Caller, ask: ReadRequest) -> Result<ReadResponse, Error> {
        let scope = scope(caller, &ask.namespace)?;
        let (data, changed) = self
            .handle
            .read(&scope.namespace, &ask.path, Secrets::Masked)?;
        let digest = digest::digest(&digest::SHA256, data.as_bytes());
        let checksum = digest.as_ref().iter().map(|b| format!("{b:02x}")).collect();
        Ok(ReadResponse {
            change: Some(Change {
                namespace: scope.namespace.to_string(),
                path: ask.path,
                change_set: Some(ChangeSet {
                    data,
                    checksum,
                    format: JSON.to_owned(),
                    source: String::new(),
                    timestamp: changed.unix_seconds(),
                }),
            }),
        })
    }

    async fn set_value(&self, caller: &Caller, ask: SetRequest) -> Result<u64, Error> {
        let scope = scope(caller, &ask.namespace)?;
        let value = ask.value.ok_or(Error::InvalidChange)?;
        let secret = ask.options.is_some_and(|options| options.secret);
        self.handle
            .set(&scope.namespace, &ask.path, &value.data, secret, &scope.by)
            .await
    }

    async fn entries(
        &self,
        caller: &Caller,
        ask: &HistoryRequest,
    ) -> Result<Vec<HistoryEntry>, Error> {
        let scope = scope(caller, &ask.namespace)?;
        let entries = self
            .handle
            .history(&scope.namespace, &ask.path, ask.limit)
            .await?;
        let entry = |entry: crate::Entry| HistoryEntry {
            version: entry.version,
            action: entry.action.as_str().to_owned(),
            path: entry.path,
            by: entry.by,
            at: entry.at.unix_seconds(),
            before: entry.before,
            after: entry.after,
        };
        Ok(entries.into_iter().map(entry).collect())
    }

    fn open_watch(&self, caller: &Caller, ask: &WatchRequest) -> Result<Watch, Error> {
        let scope = scope(caller, &ask.namespace)?;
        self.handle
            .watch(&scope.namespace, &ask.path, secrets(ask.options.as_ref()))
    }
}

fn caller<T>(request: &Request<T>) -> Caller {
    request
        .extensions()
        .get::<Caller>()
        .cloned()
        .unwrap_or_else(|| Caller::anonymous(Namespace::operator()))
}

fn scope(caller: &Caller, named: &str) -> Result<Scope, Error> {
    let namespace = caller.target_admin(named)?;
    Ok(Scope {
        namespace,
        by: caller.account()?.id.to_string(),
    })
}

fn secrets(options: Option<&Options>) -> Secrets {
    if options.is_some_and(|options| options.secret) {
        Secrets::Open
    } else {
        Secrets::Masked
    }
}

fn value(data: String) -> Value {
    Value {
        data,
        format: JSON.to_owned(),
    }
}

/// A failure as `config.Config.<method>` says it.
fn refuse(method: &'static str) -> impl Fn(Error) -> Status {
    move |error| status::of(&format!("config.Config.{method}"), &error)
}

/// The values of a watch; its questions are held, so that the stream stays open in both directions.
fn values(
    watch: Watch,
    asks: Streaming<WatchRequest>,
) -> impl Stream<Item = Result<WatchResponse, Status>> + Send {
    stream::unfold(Some((watch, asks)), |open| async move {
        let (mut watch, asks) = open?;
        match watch.next().await {
            Ok(seen) => {
                let answer = WatchResponse {
                    value: Some(value(seen.json)),
                    version: seen.version,
                };
                Some((Ok(answer), Some((watch, asks))))
            }
            Err(error) => Some((Err(refuse("Watch")(error)), None)),
        }
    })
}

#[tonic::async_trait]
impl Config for Rpc {
    type WatchStream = Pin<Box<dyn Stream<Item = Result<WatchResponse, Status>> + Send>>;

    async fn get(&self, request: Request<GetRequest>) -> Result<Response<GetResponse>, Status> {
        let caller = caller(&request);
        let ask = request.into_inner();
        let data = scope(&caller, &ask.namespace)
            .and_then(|scope| {
                let secrets = secrets(ask.options.as_ref());
                self.handle.get(&scope.namespace, &ask.path, secrets)
            })
            .map_err(refuse("Get"))?;
        Ok(Response::new(GetResponse {
            value: Some(value(data)),
        }))
    }

    async fn set(&self, request: Request<SetRequest>) -> Result<Response<SetResponse>, Status> {
        let caller = caller(&request);
        let version = self
            .set_value(&caller, request.into_inner())
            .await
            .map_err(refuse("Set"))?;
        Ok(Response::new(SetResponse { version }))
    }

    async fn delete(
        &self,
        request: Request<DeleteRequest>,
    ) -> Result<Response<DeleteResponse>, Status> {
        let caller = caller(&request);
        let ask = request.into_inner();
        let scope = scope(&caller, &ask.namespace).map_err(refuse("Delete"))?;
        let version = self
            .handle
            .delete(&scope.namespace, &ask.path, &scope.by)
            .await
            .map_err(refuse("Delete"))?;
        Ok(Response::new(DeleteResponse { version }))
    }

    async fn read(&self, request: Request<ReadRequest>) -> Result<Response<ReadResponse>, Status> {
        let caller = caller(&request);
        let answer = self
            .read_all(&caller, request.into_inner())
            .map_err(refuse("Read"))?;
        Ok(Response::new(answer))
    }

    async fn watch(
        &self,
        request: Request<Streaming<WatchRequest>>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let caller = caller(&request);
        let mut asks = request.into_inner();
        // Clients need not half-close: the first message is the question (contract §3.6).
        let ask = asks.message().await?.unwrap_or_default();
        let watch = self.open_watch(&caller, &ask).map_err(refuse("Watch"))?;
        Ok(Response::new(values(watch, asks).boxed()))
    }

    async fn history(
        &self,
        request: Request<HistoryRequest>,
    ) -> Result<Response<HistoryResponse>, Status> {
        let caller = caller(&request);
        let entries = self
            .entries(&caller, &request.into_inner())
            .await
            .map_err(refuse("History"))?;
        Ok(Response::new(HistoryResponse { entries }))
    }

    async fn revert(
        &self,
        request: Request<RevertRequest>,
    ) -> Result<Response<RevertResponse>, Status> {
        let caller = caller(&request);
        let ask = request.into_inner();
        let scope = scope(&caller, &ask.namespace).map_err(refuse("Revert"))?;
        let version = self
            .handle
            .revert(&scope.namespace, ask.version, &scope.by)
            .await
            .map_err(refuse("Revert"))?;
        Ok(Response::new(RevertResponse { version }))
    }

    async fn rotate(
        &self,
        request: Request<RotateRequest>,
    ) -> Result<Response<RotateResponse>, Status> {
        caller(&request)
            .authorize_admin(&Namespace::operator())
            .map_err(|error| refuse("Rotate")(error.into()))?;
        let secrets = self.handle.rotate().await.map_err(refuse("Rotate"))?;
        Ok(Response::new(RotateResponse { secrets }))
    }
}
