//! Self-registrations on disk: a record per node that changes rarely, and beside it a lease that
//! each renewal rewrites, a few bytes long.

use std::{collections::HashMap, sync::Arc, time::Duration};

use micro_core::{Namespace, ServiceName, Timestamp, Version};
use micro_proto::registry::Endpoint;
use micro_schema::Schema;
use micro_storage::{Range, Row, Storage};
use prost::Message as _;

use crate::{
    error::Error,
    model::{Node, Protocol, Registration},
    state::{Member, NodeKey},
};

const TABLE: &str = "registry.nodes";
const RECORD: &[u8] = b"node/";
const LEASE: &[u8] = b"lease/";
/// Descriptors above this size are not kept; the node is asked for them again.
const DESCRIPTORS: usize = 8 * 1024 * 1024;

/// A node as it is stored. Numbers are never reused.
#[derive(Clone, PartialEq, prost::Message)]
struct Record {
    #[prost(map = "string, string", tag = "1")]
    metadata: HashMap<String, String>,
    #[prost(bool, tag = "2")]
    http: bool,
    #[prost(message, repeated, tag = "3")]
    endpoints: Vec<Endpoint>,
    #[prost(bytes = "vec", tag = "4")]
    descriptor_set: Vec<u8>,
    #[prost(string, tag = "5")]
    address: String,
    #[prost(string, tag = "6")]
    given_address: String,
    #[prost(map = "string, string", tag = "7")]
    node_metadata: HashMap<String, String>,
    /// 0 for ever.
    #[prost(uint64, tag = "8")]
    ttl_ms: u64,
    #[prost(int64, tag = "9")]
    born_ms: i64,
    /// The descriptors were fetched from the node; the endpoints are what it registered.
    #[prost(bool, tag = "10")]
    fetched: bool,
}

/// Keeps a node.
pub(crate) async fn put(storage: &Storage, member: &Member, born: Timestamp) -> Result<(), Error> {
    let r = &member.registration;
    let schema = member.fetched.as_ref().unwrap_or(&r.schema);
    let descriptors = schema
        .descriptor_set()
        .filter(|set| set.len() <= DESCRIPTORS)
        .unwrap_or_default();
    let record = Record {
        metadata: r.metadata.clone().into_iter().collect(),
        http: r.protocol == Protocol::Http,
        endpoints: if descriptors.is_empty() || member.fetched.is_some() {
            r.schema.endpoints().to_vec()
        } else {
            Vec::new()
        },
        descriptor_set: descriptors.to_vec(),
        address: r.node.address.to_string(),
        given_address: member.given_address.clone(),
        node_metadata: r.node.metadata.clone().into_iter().collect(),
        ttl_ms: match r.ttl {
            None | Some(Registration::FOREVER) => 0,
            Some(ttl) => u64::try_from(ttl.as_millis()).unwrap_or(0),
        },
        born_ms: born.0,
        fetched: member.fetched.is_some() && !descriptors.is_empty(),
    };
    let key = NodeKey::of(r);
    let mut batch = storage.space(&r.namespace).batch();
    batch.put(TABLE, stored(RECORD, &key), record.encode_to_vec());
    batch.put(TABLE, stored(LEASE, &key), member.seen.0.to_be_bytes());
    batch.commit().await?;
    Ok(())
}

/// Notes that a node was heard of.
pub(crate) async fn renew(storage: &Storage, key: &NodeKey, seen: Timestamp) -> Result<(), Error> {
    let mut batch = storage.space(&key.service.0).batch();
    batch.put(TABLE, stored(LEASE, key), seen.0.to_be_bytes());
    batch.commit().await?;
    Ok(())
}

/// Forgets a node.
pub(crate) async fn delete(storage: &Storage, key: &NodeKey) -> Result<(), Error> {
    let mut batch = storage.space(&key.service.0).batch();
    for kind in [RECORD, LEASE] {
        batch.delete(TABLE, stored(kind, key));
    }
    batch.commit().await?;
    Ok(())
}

/// The nodes that were kept and are still alive, with the age of their versions. Others are removed
/// from the disk.
pub(crate) async fn load(
    storage: &Storage,
    now: Timestamp,
) -> Result<Vec<(Member, Timestamp)>, Error> {
    let mut alive = Vec::new();
    for namespace in storage.namespaces(TABLE)? {
        let space = storage.space(&namespace);
        let leases = space.scan(TABLE, Range::prefix(LEASE))?;
        let leases: HashMap<Vec<u8>, Row> = leases
            .into_iter()
            .map(|row| (row.key.to_vec(), row))
            .collect();
        let mut known = Vec::new();
        let mut gone = space.batch();
        for row in space.scan(TABLE, Range::prefix(RECORD))? {
            let bare = row.key.strip_prefix(RECORD).unwrap_or_default();
            let lease = [LEASE, bare].concat();
            let seen = leases.get(&lease).map(|row| &row.value[..]);
            match member(&namespace, bare, &row.value, seen) {
                Some((member, born)) if member.expires().is_none_or(|at| at >= now) => {
                    alive.push((member, born));
                    known.push(lease);
                }
                Some(_) => drop(gone.delete(TABLE, &row.key)),
                None => {
                    tracing::warn!(%namespace, key = %String::from_utf8_lossy(bare),
                        "a stored registration cannot be read and is dropped");
                    gone.delete(TABLE, &row.key);
                }
            }
        }
        for orphan in leases.into_keys().filter(|lease| !known.contains(lease)) {
            gone.delete(TABLE, orphan);
        }
        gone.commit().await?;
    }
    Ok(alive)
}

fn member(
    namespace: &Namespace,
    key: &[u8],
    value: &[u8],
    lease: Option<&[u8]>,
) -> Option<(Member, Timestamp)> {
    let mut parts = std::str::from_utf8(key).ok()?.splitn(3, '\0');
    let service = ServiceName::parse(parts.next()?).ok()?;
    let version = Version::parse(parts.next()?).ok()?;
    let id = parts.next()?.to_owned();
    let record = Record::decode(value).ok()?;
    let seen = Timestamp(i64::from_be_bytes(lease?.try_into().ok()?));
    let described = if record.descriptor_set.is_empty() {
        None
    } else {
        Some(Arc::new(
            Schema::from_descriptor_set(&record.descriptor_set).ok()?,
        ))
    };
    let given = || Arc::new(Schema::from_endpoints(record.endpoints.clone()));
    let (schema, fetched) = match described {
        Some(schema) if record.fetched => (given(), Some(schema)),
        Some(schema) => (schema, None),
        None => (given(), None),
    };
    let registration = Registration {
        namespace: namespace.clone(),
        service,
        version,
        metadata: record.metadata.into_iter().collect(),
        protocol: if record.http {
            Protocol::Http
        } else {
            Protocol::Grpc
        },
        schema,
        node: Node {
            id,
            address: record.address.parse().ok()?,
            metadata: record.node_metadata.into_iter().collect(),
        },
        ttl: Some(match record.ttl_ms {
            0 => Registration::FOREVER,
            ms => Duration::from_millis(ms),
        }),
    };
    let mut member = Member::new(registration, record.given_address, seen);
    member.fetched = fetched;
    Some((member, Timestamp(record.born_ms)))
}

/// Names hold no zero byte, so the parts cannot run into each other.
fn stored(kind: &[u8], key: &NodeKey) -> Vec<u8> {
    let mut out = kind.to_vec();
    for (i, part) in [key.service.1.as_str(), key.version.as_str(), &key.node]
        .into_iter()
        .enumerate()
    {
        if i > 0 {
            out.push(0);
        }
        out.extend_from_slice(part.as_bytes());
    }
    out
}
