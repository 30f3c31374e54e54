//! The same few operations on Micro, redis, etcd and NATS, each over its own protocol by a client
//! that does as little as it can, so that what is measured is the server.

mod grpc;
mod nats;
mod resp;

use std::sync::Arc;

use bytes::Bytes;
use micro_proto::{events, store};
use prost::Message as _;

use crate::etcdserverpb as etcd;

/// Anything that went wrong; the generator counts it or ends.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// The table, bucket, group and prefix of the benchmark.
const NAME: &str = "bench";

/// What can be measured, and where it listens.
#[derive(Clone)]
pub struct System {
    kind: Kind,
    address: String,
    /// Micro's only.
    token: Option<Arc<str>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Micro,
    Redis,
    Etcd,
    Nats,
}

/// One connection. HTTP/2 carries several clients on one, as their libraries do.
pub struct Connection(Wire);

enum Wire {
    Micro(grpc::Connection),
    Etcd(grpc::Connection),
    /// A connection for each client.
    Own(System),
}

/// One client: one request at a time.
pub struct Client(Kept);

enum Kept {
    Micro(grpc::Connection),
    Etcd(grpc::Connection),
    Redis(resp::Client),
    Nats(nats::Client),
}

/// A member of a consumer group: gives events and acknowledges each.
pub struct Consumer(Member);

enum Member {
    Micro(grpc::Stream),
    Redis(resp::Client, String),
    Nats(nats::Consumer),
}

/// Follows one key.
pub struct Watcher {
    stream: grpc::Stream,
    etcd: bool,
}

impl System {
    /// `kind` is `micro`, `redis`, `etcd` or `nats`.
    ///
    /// # Errors
    /// For any other word.
    pub fn new(kind: &str, address: &str, token: Option<&str>) -> Result<Self, Failure> {
        let kind = match kind {
            "micro" => Kind::Micro,
            "redis" => Kind::Redis,
            "etcd" => Kind::Etcd,
            "nats" => Kind::Nats,
            other => return Err(format!("unknown system {other}").into()),
        };
        Ok(Self {
            kind,
            address: address.to_owned(),
            token: token.map(Into::into),
        })
    }

    /// How many clients share a connection.
    pub fn shared(&self) -> usize {
        match self.kind {
            Kind::Micro | Kind::Etcd => 8,
            Kind::Redis | Kind::Nats => 1,
        }
    }

    /// Creates what must be there first: NATS wants its streams declared.
    ///
    /// # Errors
    /// When it does not answer or refuses.
    pub async fn prepare(&self) -> Result<(), Failure> {
        if self.kind == Kind::Nats {
            let mut client = nats::Client::connect(&self.address).await?;
            client.prepare(NAME).await?;
        }
        Ok(())
    }

    /// A connection for [`System::shared`] clients.
    ///
    /// # Errors
    /// When nothing answers.
    pub async fn connect(&self) -> Result<Connection, Failure> {
        let token = self.token.clone();
        Ok(Connection(match self.kind {
            Kind::Micro => Wire::Micro(grpc::Connection::open(&self.address, token).await?),
            Kind::Etcd => Wire::Etcd(grpc::Connection::open(&self.address, None).await?),
            Kind::Redis | Kind::Nats => Wire::Own(self.clone()),
        }))
    }

    /// A member of a group on `topic`.
    ///
    /// # Errors
    /// When the system has no such thing, or refuses.
    pub async fn consume(&self, topic: &str) -> Result<Consumer, Failure> {
        Ok(Consumer(match self.kind {
            Kind::Micro => {
                let request = events::ConsumeRequest {
                    group: NAME.into(),
                    topic: topic.into(),
                    ack_wait: 30_000_000_000,
                    retry_limit: -1,
                    in_flight: 1024,
                    ..Default::default()
                };
                let connection = grpc::Connection::open(&self.address, self.token.clone()).await?;
                let request = request.encode_to_vec();
                Member::Micro(
                    connection
                        .stream("/events.Stream/Consume", &request)
                        .await?,
                )
            }
            Kind::Redis => {
                let mut client = resp::Client::connect(&self.address).await?;
                client.create_group(topic, NAME).await?;
                Member::Redis(client, topic.into())
            }
            Kind::Nats => {
                let client = nats::Client::connect(&self.address).await?;
                Member::Nats(client.consume(NAME, topic).await?)
            }
            Kind::Etcd => return Err("etcd has no consumer groups".into()),
        }))
    }
}

impl Connection {
    /// One more client on this connection.
    ///
    /// # Errors
    /// When nothing answers.
    pub async fn client(&self) -> Result<Client, Failure> {
        Ok(Client(match &self.0 {
            Wire::Micro(connection) => Kept::Micro(connection.clone()),
            Wire::Etcd(connection) => Kept::Etcd(connection.clone()),
            Wire::Own(system) if system.kind == Kind::Redis => {
                Kept::Redis(resp::Client::connect(&system.address).await?)
            }
            Wire::Own(system) => Kept::Nats(nats::Client::connect(&system.address).await?),
        }))
    }

    /// Follows `key`; Micro and etcd only.
    ///
    /// # Errors
    /// When it is refused.
    pub async fn watch(&self, key: &str) -> Result<Watcher, Failure> {
        let (connection, path, request, etcd) = match &self.0 {
            Wire::Micro(connection) => {
                let request = store::WatchRequest {
                    table: NAME.into(),
                    prefix: key.into(),
                    changes_only: true,
                    ..Default::default()
                };
                let request = request.encode_to_vec();
                (connection, "/store.Store/Watch", request, false)
            }
            Wire::Etcd(connection) => {
                let key = key.as_bytes().to_vec();
                let request = etcd::WatchRequest {
                    create_request: Some(etcd::WatchCreateRequest { key }),
                };
                let request = request.encode_to_vec();
                (connection, "/etcdserverpb.Watch/Watch", request, true)
            }
            Wire::Own(_) => return Err("watching is measured on Micro and etcd".into()),
        };
        let stream = connection.stream(path, &request).await?;
        Ok(Watcher { stream, etcd })
    }
}

fn record(key: &str, value: &[u8]) -> store::Record {
    store::Record {
        key: key.into(),
        value: value.to_vec(),
        ..Default::default()
    }
}

fn event(topic: &str, payload: &[u8]) -> events::PublishRequest {
    events::PublishRequest {
        topic: topic.into(),
        payload: payload.to_vec(),
        ..Default::default()
    }
}

fn subject(key: &str) -> String {
    format!("$KV.{NAME}.{key}")
}

impl Client {
    /// A durable put.
    ///
    /// # Errors
    /// When it was not acknowledged.
    pub async fn put(&mut self, key: &str, value: &[u8]) -> Result<(), Failure> {
        match &mut self.0 {
            Kept::Micro(c) => {
                let request = store::WriteRequest {
                    record: Some(record(key, value)),
                    options: Some(store::WriteOptions {
                        table: NAME.into(),
                        ..Default::default()
                    }),
                };
                c.unary("/store.Store/Write", &request).await.map(drop)
            }
            Kept::Etcd(c) => {
                let (key, value) = (key.as_bytes().to_vec(), value.to_vec());
                let request = etcd::PutRequest { key, value };
                c.unary("/etcdserverpb.KV/Put", &request).await.map(drop)
            }
            Kept::Redis(c) => c.set(key, value).await,
            Kept::Nats(c) => c.publish(&subject(key), value).await,
        }
    }

    /// Reads one key; an error when it is not there.
    ///
    /// # Errors
    /// When there is no answer or no value.
    pub async fn get(&mut self, key: &str) -> Result<(), Failure> {
        let found = match &mut self.0 {
            Kept::Micro(c) => {
                let request = store::ReadRequest {
                    key: key.into(),
                    options: Some(store::ReadOptions {
                        table: NAME.into(),
                        ..Default::default()
                    }),
                };
                let answer = c.unary("/store.Store/Read", &request).await?;
                !store::ReadResponse::decode(answer)?.records.is_empty()
            }
            Kept::Etcd(c) => {
                let key = key.as_bytes().to_vec();
                let request = etcd::RangeRequest { key };
                let answer = c.unary("/etcdserverpb.KV/Range", &request).await?;
                !etcd::RangeResponse::decode(answer)?.kvs.is_empty()
            }
            Kept::Redis(c) => c.get(key).await?,
            Kept::Nats(c) => c.get(NAME, key).await?,
        };
        if found {
            Ok(())
        } else {
            Err("no value".into())
        }
    }

    /// Puts of one batch: one transaction where there are such, a pipeline elsewhere.
    ///
    /// # Errors
    /// When not all were acknowledged.
    pub async fn put_batch(&mut self, keys: &[String], value: &[u8]) -> Result<(), Failure> {
        match &mut self.0 {
            Kept::Micro(c) => {
                let write = |key: &String| store::Operation {
                    table: NAME.into(),
                    change: Some(store::operation::Change::Write(record(key, value))),
                    condition: None,
                };
                let request = store::CommitRequest {
                    operations: keys.iter().map(write).collect(),
                    ..Default::default()
                };
                c.unary("/store.Store/Commit", &request).await.map(drop)
            }
            Kept::Etcd(c) => {
                let put = |key: &String| etcd::RequestOp {
                    request_put: Some(etcd::PutRequest {
                        key: key.as_bytes().to_vec(),
                        value: value.to_vec(),
                    }),
                };
                let success = keys.iter().map(put).collect();
                let request = etcd::TxnRequest { success };
                c.unary("/etcdserverpb.KV/Txn", &request).await.map(drop)
            }
            Kept::Redis(c) => c.set_all(keys, value).await,
            Kept::Nats(c) => {
                let subjects: Vec<String> = keys.iter().map(|k| subject(k)).collect();
                c.publish_all(subjects.iter().map(String::as_str), value)
                    .await
            }
        }
    }

    /// A durable publish.
    ///
    /// # Errors
    /// When it was not acknowledged.
    pub async fn publish(&mut self, topic: &str, payload: &[u8]) -> Result<(), Failure> {
        match &mut self.0 {
            Kept::Micro(c) => {
                let request = event(topic, payload);
                c.unary("/events.Stream/Publish", &request).await.map(drop)
            }
            Kept::Redis(c) => c.add_all(topic, payload, 1).await,
            Kept::Nats(c) => c.publish(&format!("{NAME}.{topic}"), payload).await,
            Kept::Etcd(_) => Err("etcd has no streams".into()),
        }
    }

    /// `count` publishes at once.
    ///
    /// # Errors
    /// When not all were acknowledged.
    pub async fn publish_batch(
        &mut self,
        topic: &str,
        payload: &[u8],
        count: usize,
    ) -> Result<(), Failure> {
        match &mut self.0 {
            Kept::Micro(c) => {
                let request = events::PublishBatchRequest {
                    events: vec![event(topic, payload); count],
                    ..Default::default()
                };
                let answer = c.unary("/events.Stream/PublishBatch", &request).await;
                answer.map(drop)
            }
            Kept::Redis(c) => c.add_all(topic, payload, count).await,
            Kept::Nats(c) => {
                let subject = format!("{NAME}.{topic}");
                c.publish_all(std::iter::repeat_n(subject.as_str(), count), payload)
                    .await
            }
            Kept::Etcd(_) => Err("etcd has no streams".into()),
        }
    }
}

impl Consumer {
    /// The payloads of the next events; each has been acknowledged when this returns, as far as the
    /// protocol lets one wait for that.
    ///
    /// # Errors
    /// When the stream ends.
    pub async fn next(&mut self) -> Result<Vec<Bytes>, Failure> {
        match &mut self.0 {
            Member::Micro(stream) => {
                let event = events::Event::decode(stream.next().await?)?;
                let ack = events::AckRequest {
                    id: event.id,
                    success: true,
                };
                stream.send(&ack.encode_to_vec()).await?;
                Ok(vec![event.payload.into()])
            }
            Member::Redis(client, topic) => client.read_group(topic, NAME).await,
            Member::Nats(consumer) => consumer.next().await,
        }
    }
}

impl Watcher {
    /// The value of the next change.
    ///
    /// # Errors
    /// When the stream ends.
    pub async fn next(&mut self) -> Result<Vec<u8>, Failure> {
        loop {
            let message = self.stream.next().await?;
            let value = if self.etcd {
                let mut answer = etcd::WatchResponse::decode(message)?;
                answer.events.pop().and_then(|e| e.kv).map(|kv| kv.value)
            } else {
                let answer = store::WatchResponse::decode(message)?;
                answer.record.map(|r| r.value)
            };
            if let Some(value) = value {
                return Ok(value);
            }
        }
    }
}
