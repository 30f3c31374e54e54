//! Store, blobs, config and events of the server that answers from a script.

use std::collections::BTreeMap;

use micro_core::Kind;
use micro_proto::{
    config, events as wire,
    store::{self, watch_response},
};
use tokio_stream::StreamExt as _;
use tonic::{Request, Response, Status, Streaming};

use super::{Answers, Script, refuse};

mod events;

pub(crate) use events::Events;

/// What clients stored, asked for and answered.
#[derive(Default)]
pub(crate) struct State {
    pub(crate) records: BTreeMap<String, store::Record>,
    pub(crate) reads: Vec<store::ReadRequest>,
    pub(crate) lists: Vec<store::ListOptions>,
    pub(crate) places: Vec<store::WriteOptions>,
    pub(crate) watches: Vec<store::WatchRequest>,
    pub(crate) blobs: BTreeMap<String, (store::BlobOptions, Vec<u8>)>,
    pub(crate) settings: Vec<config::SetRequest>,
    pub(crate) reverts: Vec<u64>,
    pub(crate) published: Vec<wire::PublishRequest>,
    pub(crate) batches: Vec<usize>,
    pub(crate) consumers: Vec<wire::ConsumeRequest>,
    pub(crate) acks: Vec<wire::AckRequest>,
    pub(crate) retention: Option<wire::Retention>,
    pub(crate) deleted: Vec<(String, String)>,
}

/// Messages, then nothing more and no end.
fn open_end<T: Send + 'static>(messages: Vec<Result<T, Status>>) -> Answers<T> {
    Box::pin(tokio_stream::iter(messages).chain(tokio_stream::pending()))
}

impl Script {
    fn with<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        change(&mut self.0.lock().unwrap().state)
    }
}

#[tonic::async_trait]
impl store::store_server::Store for Script {
    type ListStream = Answers<store::ListResponse>;
    type WatchStream = Answers<store::WatchResponse>;

    async fn read(
        &self,
        request: Request<store::ReadRequest>,
    ) -> Result<Response<store::ReadResponse>, Status> {
        self.allow(&request)?;
        let ask = request.into_inner();
        let options = ask.options.clone().unwrap();
        let records: Vec<_> = self.with(|state| {
            state.reads.push(ask.clone());
            state
                .records
                .values()
                .filter(|r| {
                    if options.prefix {
                        r.key.starts_with(&ask.key)
                    } else {
                        r.key == ask.key
                    }
                })
                .cloned()
                .collect()
        });
        if records.is_empty() && !options.prefix {
            return Err(refuse(Kind::NotFound, "not found"));
        }
        Ok(Response::new(store::ReadResponse { records }))
    }

    async fn write(
        &self,
        request: Request<store::WriteRequest>,
    ) -> Result<Response<store::WriteResponse>, Status> {
        self.allow(&request)?;
        let ask = request.into_inner();
        let record = ask.record.unwrap();
        if record.key == "full" {
            return Err(refuse(
                Kind::Exhausted,
                "cannot write: the disk is full\nhint: make room",
            ));
        }
        self.with(|state| {
            state.places.push(ask.options.unwrap());
            state.records.insert(record.key.clone(), record);
        });
        Ok(Response::new(store::WriteResponse::default()))
    }

    async fn delete(
        &self,
        request: Request<store::DeleteRequest>,
    ) -> Result<Response<store::DeleteResponse>, Status> {
        let key = request.into_inner().key;
        self.with(|state| state.records.remove(&key));
        Ok(Response::new(store::DeleteResponse {}))
    }

    async fn list(
        &self,
        request: Request<Streaming<store::ListRequest>>,
    ) -> Result<Response<Self::ListStream>, Status> {
        let ask = request.into_inner().message().await?.unwrap();
        let keys = self.with(|state| {
            state.lists.push(ask.options.unwrap());
            state.records.keys().cloned().collect()
        });
        let answer = Ok(store::ListResponse { keys });
        Ok(Response::new(Box::pin(tokio_stream::once(answer))))
    }

    async fn databases(
        &self,
        _: Request<store::DatabasesRequest>,
    ) -> Result<Response<store::DatabasesResponse>, Status> {
        Ok(Response::new(store::DatabasesResponse {
            databases: vec!["blue".into(), "micro".into()],
        }))
    }

    async fn tables(
        &self,
        request: Request<store::TablesRequest>,
    ) -> Result<Response<store::TablesResponse>, Status> {
        let database = request.into_inner().database;
        Ok(Response::new(store::TablesResponse {
            tables: vec![format!("one of {database}")],
        }))
    }

    async fn commit(
        &self,
        _: Request<store::CommitRequest>,
    ) -> Result<Response<store::CommitResponse>, Status> {
        Err(Status::unimplemented("commit"))
    }

    /// A change, then a restart; then what is there, of which one record is new.
    async fn watch(
        &self,
        request: Request<Streaming<store::WatchRequest>>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        use watch_response::Kind::{Current, Deleted, Written};
        let ask = request.into_inner().message().await?.unwrap();
        let count = self.with(|state| {
            state.watches.push(ask);
            state.watches.len()
        });
        let event = |kind: watch_response::Kind, key: &str, revision| {
            let record = store::Record {
                key: key.into(),
                value: format!("value of {key}").into(),
                revision,
                ..store::Record::default()
            };
            Ok(store::WatchResponse {
                kind: kind.into(),
                record: Some(record),
            })
        };
        Ok(Response::new(open_end(if count == 1 {
            vec![
                event(Current, "", 0),
                event(Written, "b", 5),
                Err(refuse(
                    Kind::Unavailable,
                    "the server stops\nhint: open a new watch",
                )),
            ]
        } else {
            vec![
                event(Written, "a", 7),
                event(Written, "b", 5),
                event(Written, "c", 6),
                event(Current, "", 0),
                event(Deleted, "b", 8),
            ]
        })))
    }
}

#[tonic::async_trait]
impl store::blob_store_server::BlobStore for Script {
    type ReadStream = Answers<store::BlobReadResponse>;

    async fn read(
        &self,
        request: Request<Streaming<store::BlobReadRequest>>,
    ) -> Result<Response<Self::ReadStream>, Status> {
        let ask = request.into_inner().message().await?.unwrap();
        let Some((_, blob)) = self.with(|state| state.blobs.get(&ask.key).cloned()) else {
            return Err(refuse(Kind::NotFound, "Blob not found"));
        };
        let mut pieces: Vec<_> = blob
            .chunks(65_536)
            .map(|piece| Ok(store::BlobReadResponse { blob: piece.into() }))
            .collect();
        if ask.key == "torn" {
            pieces.push(Err(Status::unavailable("the server stops")));
        }
        Ok(Response::new(Box::pin(tokio_stream::iter(pieces))))
    }

    async fn write(
        &self,
        request: Request<Streaming<store::BlobWriteRequest>>,
    ) -> Result<Response<store::BlobWriteResponse>, Status> {
        let mut pieces = request.into_inner();
        let first = pieces.message().await?.unwrap();
        if first.key == "toobig" {
            return Err(refuse(Kind::Exhausted, "the blob is too large"));
        }
        let mut blob = first.blob;
        while let Some(piece) = pieces.message().await? {
            blob.extend(piece.blob);
        }
        let options = first.options.unwrap();
        self.with(|state| state.blobs.insert(first.key, (options, blob)));
        Ok(Response::new(store::BlobWriteResponse {}))
    }

    async fn delete(
        &self,
        request: Request<store::BlobDeleteRequest>,
    ) -> Result<Response<store::BlobDeleteResponse>, Status> {
        let key = request.into_inner().key;
        self.with(|state| state.blobs.remove(&key));
        Ok(Response::new(store::BlobDeleteResponse {}))
    }

    async fn list(
        &self,
        request: Request<store::BlobListRequest>,
    ) -> Result<Response<store::BlobListResponse>, Status> {
        let prefix = request.into_inner().options.unwrap().prefix;
        let blobs: Vec<_> = self.with(|state| {
            let matching = state.blobs.iter().filter(|(k, _)| k.starts_with(&prefix));
            matching
                .map(|(key, (options, blob))| store::BlobInfo {
                    key: key.clone(),
                    size: blob.len() as u64,
                    content_type: options.content_type.clone(),
                    public: options.public,
                    modified: 1_700_000_000,
                })
                .collect()
        });
        Ok(Response::new(store::BlobListResponse {
            keys: blobs.iter().map(|blob| blob.key.clone()).collect(),
            blobs,
        }))
    }
}

#[tonic::async_trait]
impl config::config_server::Config for Script {
    type WatchStream = Answers<config::WatchResponse>;

    async fn get(
        &self,
        request: Request<config::GetRequest>,
    ) -> Result<Response<config::GetResponse>, Status> {
        self.allow(&request)?;
        let ask = request.into_inner();
        let secret = ask.options.unwrap_or_default().secret;
        let data = match ask.path.as_str() {
            "" => r#"{"a":1,"b":"x"}"#,
            "text" => r#""line\nbreak""#,
            "key" if secret => r#""s3cret""#,
            "key" => r#""[secret]""#,
            "empty.document" => return Err(refuse(Kind::NotFound, "Not found")),
            _ => "null",
        };
        Ok(Response::new(config::GetResponse {
            value: Some(value(data)),
        }))
    }

    async fn set(
        &self,
        request: Request<config::SetRequest>,
    ) -> Result<Response<config::SetResponse>, Status> {
        self.allow(&request)?;
        self.with(|state| state.settings.push(request.into_inner()));
        Ok(Response::new(config::SetResponse { version: 4 }))
    }

    async fn delete(
        &self,
        request: Request<config::DeleteRequest>,
    ) -> Result<Response<config::DeleteResponse>, Status> {
        self.allow(&request)?;
        Ok(Response::new(config::DeleteResponse { version: 5 }))
    }

    async fn read(
        &self,
        _: Request<config::ReadRequest>,
    ) -> Result<Response<config::ReadResponse>, Status> {
        Err(Status::unimplemented("read"))
    }

    async fn watch(
        &self,
        request: Request<Streaming<config::WatchRequest>>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        request.into_inner().message().await?.unwrap();
        let seen = |version, data| {
            Ok(config::WatchResponse {
                value: Some(value(data)),
                version,
            })
        };
        Ok(Response::new(Box::pin(tokio_stream::iter(vec![
            seen(1, "\"one\""),
            seen(2, "null"),
            Err(refuse(Kind::Denied, "not any more")),
        ]))))
    }

    async fn history(
        &self,
        request: Request<config::HistoryRequest>,
    ) -> Result<Response<config::HistoryResponse>, Status> {
        let entry = config::Entry {
            version: 3,
            action: "set".into(),
            path: request.into_inner().path,
            by: "admin".into(),
            at: 1_700_000_000,
            before: String::new(),
            after: "1".into(),
        };
        Ok(Response::new(config::HistoryResponse {
            entries: vec![entry],
        }))
    }

    async fn revert(
        &self,
        request: Request<config::RevertRequest>,
    ) -> Result<Response<config::RevertResponse>, Status> {
        let version = request.into_inner().version;
        self.with(|state| state.reverts.push(version));
        Ok(Response::new(config::RevertResponse { version: 9 }))
    }

    async fn rotate(
        &self,
        _: Request<config::RotateRequest>,
    ) -> Result<Response<config::RotateResponse>, Status> {
        Ok(Response::new(config::RotateResponse { secrets: 2 }))
    }
}

fn value(data: &str) -> config::Value {
    config::Value {
        data: data.into(),
        format: "json".into(),
    }
}
