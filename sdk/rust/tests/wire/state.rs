//! The messages of config, store, events and broker, and those of auth and registry that ask. Each
//! message has something in every field, and the platform must read exactly that.

use std::collections::HashMap;

use prost::Message;
use prost_reflect::{DynamicMessage, MapKey, Value};

use crate::{
    read,
    wire::{auth, broker, config, events, registry, store},
};

/// A message in one line: the fields that are set, in the order of their numbers.
fn line(message: &DynamicMessage) -> String {
    let fields = message.fields();
    let fields: Vec<String> = fields
        .map(|(field, value)| format!("{}={}", field.name(), text(value)))
        .collect();
    fields.join(" ")
}

fn text(value: &Value) -> String {
    let key = |key: &MapKey| key.as_str().unwrap_or("?").to_owned();
    match value {
        Value::Bool(value) => value.to_string(),
        Value::I32(value) | Value::EnumNumber(value) => value.to_string(),
        Value::I64(value) => value.to_string(),
        Value::U32(value) => value.to_string(),
        Value::U64(value) => value.to_string(),
        Value::String(value) => value.clone(),
        Value::Bytes(value) => String::from_utf8_lossy(value).into_owned(),
        Value::Message(message) => format!("{{{}}}", line(message)),
        Value::List(values) => {
            let values: Vec<String> = values.iter().map(text).collect();
            format!("[{}]", values.join(" "))
        }
        Value::Map(map) => {
            let pairs = map.iter();
            let pairs: Vec<String> = pairs
                .map(|(name, value)| format!("{}:{}", key(name), text(value)))
                .collect();
            pairs.join(",")
        }
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn check(name: &str, message: &impl Message, expected: &str) {
    let message = read(name, message);
    assert_eq!(line(&message), expected, "{name}");
}

fn pair() -> HashMap<String, String> {
    [("k".to_owned(), "v".to_owned())].into()
}

#[test]
fn config() {
    let value = Some(config::Value {
        data: "1".into(),
        format: "json".into(),
    });
    let options = Some(config::Options { secret: true });
    let get = config::GetRequest {
        namespace: "n".into(),
        path: "p".into(),
        options: options.clone(),
    };
    check(
        "config.GetRequest",
        &get,
        "namespace=n path=p options={secret=true}",
    );
    check(
        "config.WatchRequest",
        &get,
        "namespace=n path=p options={secret=true}",
    );
    check(
        "config.SetRequest",
        &config::SetRequest {
            namespace: "n".into(),
            path: "p".into(),
            value: value.clone(),
            options,
        },
        "namespace=n path=p value={data=1 format=json} options={secret=true}",
    );
    check(
        "config.DeleteRequest",
        &config::DeleteRequest {
            namespace: "n".into(),
            path: "p".into(),
        },
        "namespace=n path=p",
    );
    check(
        "config.GetResponse",
        &config::GetResponse {
            value: value.clone(),
        },
        "value={data=1 format=json}",
    );
    check(
        "config.WatchResponse",
        &config::WatchResponse { value, version: 2 },
        "value={data=1 format=json} version=2",
    );
    check(
        "config.SetResponse",
        &config::SetResponse { version: 2 },
        "version=2",
    );
    check(
        "config.DeleteResponse",
        &config::DeleteResponse { version: 2 },
        "version=2",
    );
}

fn record() -> store::Record {
    store::Record {
        key: "k".into(),
        value: "v".into(),
        expiry: 3,
        revision: 4,
    }
}

const RECORD: &str = "{key=k value=v expiry=3 revision=4}";

#[test]
fn store_reads_and_writes() {
    check(
        "store.ReadRequest",
        &store::ReadRequest {
            key: "k".into(),
            options: Some(store::ReadOptions {
                database: "d".into(),
                table: "t".into(),
                prefix: true,
                suffix: true,
                limit: 5,
                offset: 6,
                order: "asc".into(),
            }),
        },
        "key=k options={database=d table=t prefix=true suffix=true limit=5 offset=6 order=asc}",
    );
    let records = vec![record()];
    check(
        "store.ReadResponse",
        &store::ReadResponse { records },
        &format!("records=[{RECORD}]"),
    );
    let options = Some(store::WriteOptions {
        database: "d".into(),
        table: "t".into(),
    });
    check(
        "store.WriteRequest",
        &store::WriteRequest {
            record: Some(record()),
            options: options.clone(),
        },
        &format!("record={RECORD} options={{database=d table=t}}"),
    );
    check(
        "store.WriteResponse",
        &store::WriteResponse { revision: 1 },
        "revision=1",
    );
    let key = "k".into();
    check(
        "store.DeleteRequest",
        &store::DeleteRequest { key, options },
        "key=k options={database=d table=t}",
    );
    check("store.DeleteResponse", &store::DeleteResponse {}, "");
    check(
        "store.ListRequest",
        &store::ListRequest {
            options: Some(store::ListOptions {
                database: "d".into(),
                table: "t".into(),
                prefix: "p".into(),
                suffix: "s".into(),
                limit: 5,
                offset: 6,
                order: "asc".into(),
            }),
        },
        "options={database=d table=t prefix=p suffix=s limit=5 offset=6 order=asc}",
    );
    let keys = vec!["a".into(), "b".into()];
    check(
        "store.ListResponse",
        &store::ListResponse { keys },
        "keys=[a b]",
    );
}

#[test]
fn store_commits_and_watches() {
    use store::{Change, Condition};
    let operation = |change, condition| store::Operation {
        table: "t".into(),
        change: Some(change),
        condition: Some(condition),
    };
    check(
        "store.CommitRequest",
        &store::CommitRequest {
            database: "d".into(),
            operations: vec![
                operation(Change::Write(record()), Condition::Absent(true)),
                operation(Change::Delete("k".into()), Condition::Present(true)),
                operation(Change::Check("k".into()), Condition::Revision(6)),
            ],
        },
        &format!(
            "database=d operations=[{{table=t write={RECORD} absent=true}} \
             {{table=t delete=k present=true}} {{table=t revision=6 check=k}}]"
        ),
    );
    check(
        "store.CommitResponse",
        &store::CommitResponse { revision: 1 },
        "revision=1",
    );
    check(
        "store.WatchRequest",
        &store::WatchRequest {
            database: "d".into(),
            table: "t".into(),
            prefix: "p".into(),
            changes_only: true,
        },
        "database=d table=t prefix=p changes_only=true",
    );
    for (kind, number) in [
        (store::Kind::Deleted, 1),
        (store::Kind::Current, 2),
        (store::Kind::Reset, 3),
    ] {
        check(
            "store.WatchResponse",
            &store::WatchResponse {
                kind: kind.into(),
                record: Some(record()),
            },
            &format!("kind={number} record={RECORD}"),
        );
    }
}

#[test]
fn blobs() {
    let options = Some(store::BlobOptions {
        namespace: "n".into(),
        public: true,
        content_type: "c".into(),
    });
    let expected = "key=k options={namespace=n public=true contentType=c}";
    let request = store::BlobRequest {
        key: "k".into(),
        options: options.clone(),
    };
    check("store.BlobReadRequest", &request, expected);
    check("store.BlobDeleteRequest", &request, expected);
    check(
        "store.BlobWriteRequest",
        &store::BlobWriteRequest {
            key: "k".into(),
            options,
            blob: "b".into(),
        },
        &format!("{expected} blob=b"),
    );
    check(
        "store.BlobReadResponse",
        &store::BlobReadResponse { blob: "b".into() },
        "blob=b",
    );
    check("store.BlobWriteResponse", &store::BlobWriteResponse {}, "");
    check(
        "store.BlobDeleteResponse",
        &store::BlobDeleteResponse {},
        "",
    );
    check(
        "store.BlobListRequest",
        &store::BlobListRequest {
            options: Some(store::BlobListOptions {
                namespace: "n".into(),
                prefix: "p".into(),
            }),
        },
        "options={namespace=n prefix=p}",
    );
    check(
        "store.BlobListResponse",
        &store::BlobListResponse {
            keys: vec!["k".into()],
            blobs: vec![store::BlobInfo {
                key: "k".into(),
                size: 2,
                content_type: "c".into(),
                public: true,
                modified: 5,
            }],
        },
        "keys=[k] blobs=[{key=k size=2 contentType=c public=true modified=5}]",
    );
}

#[test]
fn events() {
    let publish = events::PublishRequest {
        topic: "t".into(),
        metadata: pair(),
        payload: "p".into(),
        timestamp: 4,
        namespace: "n".into(),
    };
    let expected = "topic=t metadata=k:v payload=p timestamp=4 namespace=n";
    check("events.PublishRequest", &publish, expected);
    let published = events::PublishResponse {
        id: "i".into(),
        offset: 16,
    };
    check("events.PublishResponse", &published, "id=i offset=16");
    check(
        "events.PublishBatchRequest",
        &events::PublishBatchRequest {
            events: vec![publish],
            namespace: "n".into(),
        },
        &format!("events=[{{{expected}}}] namespace=n"),
    );
    check(
        "events.PublishBatchResponse",
        &events::PublishBatchResponse {
            events: vec![published],
        },
        "events=[{id=i offset=16}]",
    );
    check(
        "events.ConsumeRequest",
        &events::ConsumeRequest {
            group: "g".into(),
            topic: "t".into(),
            offset: 3,
            auto_ack: true,
            ack_wait: 5,
            retry_limit: -1,
            // The oldest event, which is not the same as none.
            from: Some(0),
            in_flight: 16,
            namespace: "n".into(),
        },
        "group=g topic=t offset=3 auto_ack=true ack_wait=5 retry_limit=-1 from=0 in_flight=16 namespace=n",
    );
    check(
        "events.Event",
        &events::Event {
            id: "i".into(),
            topic: "t".into(),
            metadata: pair(),
            payload: "p".into(),
            timestamp: 5,
            offset: 15,
            delivery: 16,
        },
        "id=i topic=t metadata=k:v payload=p timestamp=5 offset=15 delivery=16",
    );
    check(
        "events.AckRequest",
        &events::AckRequest {
            id: "i".into(),
            success: true,
        },
        "id=i success=true",
    );
}

#[test]
fn broker() {
    check(
        "broker.PublishRequest",
        &broker::PublishRequest {
            topic: "t".into(),
            message: Some(broker::Message {
                header: pair(),
                body: "b".into(),
            }),
        },
        "topic=t message={header=k:v body=b}",
    );
    check(
        "broker.SubscribeRequest",
        &broker::SubscribeRequest {
            topic: "t".into(),
            queue: "q".into(),
        },
        "topic=t queue=q",
    );
    check("broker.Empty", &broker::Empty {}, "");
}

#[test]
fn auth_and_registry() {
    check(
        "auth.InspectRequest",
        &auth::InspectRequest {
            token: "t".into(),
            options: Some(auth::Options {
                namespace: "n".into(),
            }),
        },
        "token=t options={namespace=n}",
    );
    check(
        "auth.InspectResponse",
        &auth::InspectResponse {
            account: Some(auth::Account {
                id: "i".into(),
                r#type: "user".into(),
                metadata: pair(),
                scopes: vec!["s".into()],
                issuer: "n".into(),
                name: "m".into(),
            }),
        },
        "account={id=i type=user metadata=k:v scopes=[s] issuer=n name=m}",
    );
    let options = Some(registry::Options {
        ttl: 1,
        domain: "d".into(),
    });
    let service = || "s".to_owned();
    let get = registry::GetRequest {
        service: service(),
        options: options.clone(),
    };
    check(
        "registry.GetRequest",
        &get,
        "service=s options={ttl=1 domain=d}",
    );
    let watch = registry::WatchRequest {
        service: service(),
        options: options.clone(),
    };
    check(
        "registry.WatchRequest",
        &watch,
        "service=s options={ttl=1 domain=d}",
    );
    let list = registry::ListRequest { options };
    check("registry.ListRequest", &list, "options={ttl=1 domain=d}");
    let services = registry::Services {
        services: vec![registry::Service {
            name: service(),
            ..registry::Service::default()
        }],
    };
    check("registry.GetResponse", &services, "services=[{name=s}]");
    check("registry.ListResponse", &services, "services=[{name=s}]");
    let event = registry::Event {
        action: "create".into(),
        service: Some(registry::Service::default()),
        timestamp: 3,
    };
    check(
        "registry.Result",
        &event,
        "action=create service={} timestamp=3",
    );
}
