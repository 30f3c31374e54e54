//! `store.Store` for Micro's clients and our own: who may use which database, and messages in and
//! out.

mod blobs;

use std::{collections::HashMap, pin::Pin, time::Duration};

use futures_util::{Stream, StreamExt as _, stream};
use micro_core::{Caller, Namespace, caller::NotAllowed};
use micro_proto::{
    status,
    store::{
        CommitRequest, CommitResponse, DatabasesRequest, DatabasesResponse, DeleteRequest,
        DeleteResponse, ListRequest, ListResponse, Operation as WireOperation, ReadRequest,
        ReadResponse, Record as WireRecord, TablesRequest, TablesResponse, WatchRequest,
        WatchResponse, WriteRequest, WriteResponse, operation, store_server::Store,
        watch_response::Kind,
    },
};
use micro_storage::Revision;
use tonic::{Extensions, Request, Response, Status, Streaming};

pub use blobs::BlobRpc;

use crate::{
    Change, Condition, Database, Error, Event, Field, Handle, Metadata, Operation, Query, Record,
    Watching, Write,
};

/// The gRPC face of the records.
#[derive(Debug, Clone)]
pub struct Rpc {
    handle: Handle,
}

impl Rpc {
    pub(crate) const fn new(handle: Handle) -> Self {
        Self { handle }
    }

    /// The database that the caller means by `named` and may use.
    fn database(&self, extensions: &Extensions, named: &str) -> Result<Database, Error> {
        Ok(self.handle.database(&target(extensions, named)?))
    }

    async fn read_any(
        &self,
        extensions: &Extensions,
        ask: ReadRequest,
    ) -> Result<Vec<WireRecord>, Error> {
        let options = ask.options.unwrap_or_default();
        let database = self.database(extensions, &options.database)?;
        let now = self.handle.now();
        let wire = |record: Record| wire(record, now);
        if !options.prefix && !options.suffix {
            let record = database.read(&options.table, &ask.key)?;
            return Ok(vec![wire(record.ok_or(Error::NotFound)?)]);
        }
        let query = Query {
            prefix: part(options.prefix, &ask.key),
            suffix: part(options.suffix, &ask.key),
            limit: options.limit,
            offset: options.offset,
            descending: is_descending(&options.order),
        };
        let records = database.records(&options.table, query).await?;
        Ok(records.into_iter().map(wire).collect())
    }

    async fn write_one(
        &self,
        extensions: &Extensions,
        ask: WriteRequest,
    ) -> Result<Revision, Error> {
        let options = ask.options.unwrap_or_default();
        let database = self.database(extensions, &options.database)?;
        let record = ask.record.ok_or(Error::MissingRecord)?;
        let write = Write {
            key: &record.key,
            value: &record.value,
            ttl: ttl(record.expiry)?,
            metadata: metadata(record.metadata),
        };
        database.write(&options.table, write).await
    }

    async fn delete_one(&self, extensions: &Extensions, ask: DeleteRequest) -> Result<(), Error> {
        let options = ask.options.unwrap_or_default();
        let database = self.database(extensions, &options.database)?;
        database.delete(&options.table, &ask.key).await
    }

    async fn list_keys(
        &self,
        extensions: &Extensions,
        ask: ListRequest,
    ) -> Result<Vec<String>, Error> {
        let options = ask.options.unwrap_or_default();
        let database = self.database(extensions, &options.database)?;
        let query = Query {
            prefix: options.prefix,
            suffix: options.suffix,
            limit: options.limit,
            offset: options.offset,
            descending: is_descending(&options.order),
        };
        database.keys(&options.table, query).await
    }

    /// All databases for the operator, for others their own.
    fn list_databases(&self, extensions: &Extensions) -> Result<Vec<String>, Error> {
        let own = target(extensions, "")?;
        let is_operator = extensions
            .get::<Caller>()
            .and_then(|caller| caller.account.as_ref())
            .is_some_and(|account| account.is_operator());
        if !is_operator {
            return Ok(vec![own.into()]);
        }
        let mut all = self.handle.databases()?;
        let operator = Namespace::operator();
        if let Err(at) = all.binary_search(&operator) {
            all.insert(at, operator);
        }
        Ok(all.into_iter().map(String::from).collect())
    }

    async fn commit_all(
        &self,
        extensions: &Extensions,
        ask: CommitRequest,
    ) -> Result<Revision, Error> {
        let database = self.database(extensions, &ask.database)?;
        let operations: Result<Vec<_>, _> = ask.operations.iter().map(operation).collect();
        database.commit(&operations?).await
    }

    fn open_watch(&self, extensions: &Extensions, ask: &WatchRequest) -> Result<Watching, Error> {
        let database = self.database(extensions, &ask.database)?;
        database.watch(&ask.table, &ask.prefix, ask.changes_only)
    }
}

/// The namespace that the caller means by `named` and administers.
fn target(extensions: &Extensions, named: &str) -> Result<Namespace, Error> {
    let caller = extensions.get::<Caller>().ok_or(NotAllowed::Anonymous)?;
    Ok(caller.target_admin(named)?)
}

/// Micro reads everything else as ascending.
fn is_descending(order: &str) -> bool {
    order.eq_ignore_ascii_case("desc")
}

fn part(wanted: bool, key: &str) -> String {
    if wanted {
        key.to_owned()
    } else {
        String::new()
    }
}

/// Seconds on the wire; 0 is never.
fn ttl(seconds: i64) -> Result<Option<Duration>, Error> {
    match u64::try_from(seconds) {
        Ok(0) => Ok(None),
        Ok(seconds) => Ok(Some(Duration::from_secs(seconds))),
        Err(_) => Err(Error::Expiry(seconds)),
    }
}

fn metadata(fields: HashMap<String, micro_proto::store::Field>) -> Metadata {
    let field = |field: micro_proto::store::Field| Field {
        kind: field.r#type,
        value: field.value,
    };
    fields.into_iter().map(|(k, v)| (k, field(v))).collect()
}

fn operation(wire: &WireOperation) -> Result<Operation<'_>, Error> {
    let change = match &wire.change {
        Some(operation::Change::Write(record)) => Change::Write(Write {
            key: &record.key,
            value: &record.value,
            ttl: ttl(record.expiry)?,
            metadata: metadata(record.metadata.clone()),
        }),
        Some(operation::Change::Delete(key)) => Change::Delete(key),
        Some(operation::Change::Check(key)) => Change::Check(key),
        None => {
            let reason = "an operation says neither write, delete nor check";
            return Err(Error::Operation(reason.to_owned()));
        }
    };
    let condition = match wire.condition {
        Some(operation::Condition::Absent(true)) => Some(Condition::Absent),
        Some(operation::Condition::Present(true)) => Some(Condition::Present),
        Some(operation::Condition::Revision(revision)) => Some(Condition::At(Revision(revision))),
        Some(operation::Condition::Absent(false) | operation::Condition::Present(false)) => {
            let reason = "a condition that is false says nothing; leave it out";
            return Err(Error::Operation(reason.to_owned()));
        }
        None => None,
    };
    Ok(Operation {
        table: &wire.table,
        change,
        condition,
    })
}

fn wire(record: Record, now: micro_core::Timestamp) -> WireRecord {
    let field = |field: Field| micro_proto::store::Field {
        r#type: field.kind,
        value: field.value,
    };
    WireRecord {
        key: record.key,
        value: record.value.into(),
        // What is left of it, in whole seconds (contract §9.2).
        expiry: record
            .deadline
            .map_or(0, |deadline| deadline.0.saturating_sub(now.0) / 1000),
        metadata: record
            .metadata
            .into_iter()
            .map(|(k, v)| (k, field(v)))
            .collect(),
        revision: record.revision.0,
    }
}

fn event(event: Event, now: micro_core::Timestamp) -> WatchResponse {
    let (kind, record) = match event {
        Event::Written(record) => (Kind::Written, Some(wire(record, now))),
        Event::Deleted { key, revision } => {
            let record = WireRecord {
                key,
                revision: revision.0,
                ..WireRecord::default()
            };
            (Kind::Deleted, Some(record))
        }
        Event::Current => (Kind::Current, None),
        Event::Reset => (Kind::Reset, None),
    };
    WatchResponse {
        kind: kind.into(),
        record,
    }
}

/// A failure as `store.Store.<method>` says it.
fn refuse(method: &'static str) -> impl Fn(Error) -> Status {
    move |error| status::of(&format!("store.Store.{method}"), &error)
}

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl Store for Rpc {
    type ListStream = Answers<ListResponse>;
    type WatchStream = Answers<WatchResponse>;

    async fn read(&self, request: Request<ReadRequest>) -> Result<Response<ReadResponse>, Status> {
        let (_, extensions, ask) = request.into_parts();
        let records = self
            .read_any(&extensions, ask)
            .await
            .map_err(refuse("Read"))?;
        Ok(Response::new(ReadResponse { records }))
    }

    async fn write(
        &self,
        request: Request<WriteRequest>,
    ) -> Result<Response<WriteResponse>, Status> {
        let (_, extensions, ask) = request.into_parts();
        let revision = self
            .write_one(&extensions, ask)
            .await
            .map_err(refuse("Write"))?
            .0;
        Ok(Response::new(WriteResponse { revision }))
    }

    async fn delete(
        &self,
        request: Request<DeleteRequest>,
    ) -> Result<Response<DeleteResponse>, Status> {
        let (_, extensions, ask) = request.into_parts();
        self.delete_one(&extensions, ask)
            .await
            .map_err(refuse("Delete"))?;
        Ok(Response::new(DeleteResponse {}))
    }

    async fn list(
        &self,
        request: Request<Streaming<ListRequest>>,
    ) -> Result<Response<Self::ListStream>, Status> {
        let (_, extensions, mut asks) = request.into_parts();
        // Micro's clients never half-close: the first message is the question (contract §3.6).
        let ask = asks.message().await?.unwrap_or_default();
        let keys = self
            .list_keys(&extensions, ask)
            .await
            .map_err(refuse("List"))?;
        let answer = stream::iter([Ok(ListResponse { keys })]);
        Ok(Response::new(answer.boxed()))
    }

    async fn databases(
        &self,
        request: Request<DatabasesRequest>,
    ) -> Result<Response<DatabasesResponse>, Status> {
        let databases = self
            .list_databases(request.extensions())
            .map_err(refuse("Databases"))?;
        Ok(Response::new(DatabasesResponse { databases }))
    }

    async fn tables(
        &self,
        request: Request<TablesRequest>,
    ) -> Result<Response<TablesResponse>, Status> {
        let tables = self
            .database(request.extensions(), &request.get_ref().database)
            .and_then(|database| database.tables())
            .map_err(refuse("Tables"))?;
        Ok(Response::new(TablesResponse { tables }))
    }

    async fn commit(
        &self,
        request: Request<CommitRequest>,
    ) -> Result<Response<CommitResponse>, Status> {
        let (_, extensions, ask) = request.into_parts();
        let revision = self
            .commit_all(&extensions, ask)
            .await
            .map_err(refuse("Commit"))?
            .0;
        Ok(Response::new(CommitResponse { revision }))
    }

    async fn watch(
        &self,
        request: Request<Streaming<WatchRequest>>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let (_, extensions, mut asks) = request.into_parts();
        let ask = asks.message().await?.unwrap_or_default();
        let watching = self
            .open_watch(&extensions, &ask)
            .map_err(refuse("Watch"))?;
        let handle = self.handle.clone();
        // The request stream is kept, because its end would be the end of the call for some clients.
        let state = Some((watching, handle, asks));
        let events = stream::unfold(state, |state| async {
            let (mut watching, handle, asks) = state?;
            match watching.next().await {
                Ok(next) => {
                    let event = event(next, handle.now());
                    Some((Ok(event), Some((watching, handle, asks))))
                }
                Err(error) => Some((Err(refuse("Watch")(error)), None)),
            }
        });
        Ok(Response::new(events.boxed()))
    }
}
