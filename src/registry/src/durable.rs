//! Self-registrations on disk: a record per node that changes rarely, and beside it a lease that
//! each renewal rewrites, a few bytes long.

use std::{collections::HashMap, sync::Arc, time::Duration};

use micro_core::{Namespace, ServiceName, Timestamp, Version};
use micro_proto::registry::Endpoint;
use micro_schema::Schema;
use micro_storage::{Keys, KeysChange as Change};
use prost::Message as _;

use crate::{
    error::Error,
    model::{Node, Protocol, Registration},
    state::{Member, NodeKey},
};

const TABLE: &str = "registry";
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
pub(crate) async fn put(keys: &Keys, member: &Member, born: Timestamp) -> Result<(), Error> {
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
    let changes = vec![
        Change::Put {
            key: stored(RECORD, &key),
            value: record.encode_to_vec(),
        },
        Change::Put {
            key: stored(LEASE, &key),
            value: member.seen.0.to_be_bytes().to_vec(),
        },
    ];
    let table = keys.table(&r.namespace, TABLE);
    Ok(table.batch(changes).await?)
}

/// Notes that a node was heard of.
pub(crate) async fn renew(keys: &Keys, key: &NodeKey, seen: Timestamp) -> Result<(), Error> {
    let table = keys.table(&key.service.0, TABLE);
    let lease = stored(LEASE, key);
    Ok(table.put(&lease, &seen.0.to_be_bytes()).await?)
}

/// Forgets a node.
pub(crate) async fn delete(keys: &Keys, key: &NodeKey) -> Result<(), Error> {
    let changes = [RECORD, LEASE].map(|kind| Change::Delete {
        key: stored(kind, key),
    });
    let table = keys.table(&key.service.0, TABLE);
    Ok(table.batch(changes.into()).await?)
}

/// The nodes that were kept and are still alive, with the age of their versions. Others are removed
/// from the disk.
pub(crate) async fn load(keys: &Keys, now: Timestamp) -> Result<Vec<(Member, Timestamp)>, Error> {
    let mut alive = Vec::new();
    for namespace in keys.namespaces(TABLE)? {
        let table = keys.table(&namespace, TABLE);
        let leases: HashMap<Vec<u8>, Vec<u8>> = table.scan(LEASE)?.into_iter().collect();
        let mut known = Vec::new();
        let mut gone = Vec::new();
        for (key, value) in table.scan(RECORD)? {
            let bare = key.strip_prefix(RECORD).unwrap_or_default();
            let lease = [LEASE, bare].concat();
            match member(&namespace, bare, &value, leases.get(&lease)) {
                Some((member, born)) if member.expires().is_none_or(|at| at >= now) => {
                    alive.push((member, born));
                    known.push(lease);
                }
                Some(_) => gone.push(Change::Delete { key }),
                None => {
                    tracing::warn!(%namespace, key = %String::from_utf8_lossy(bare),
                        "a stored registration cannot be read and is dropped");
                    gone.push(Change::Delete { key });
                }
            }
        }
        let orphans = leases.into_keys().filter(|lease| !known.contains(lease));
        gone.extend(orphans.map(|key| Change::Delete { key }));
        table.batch(gone).await?;
    }
    Ok(alive)
}

fn member(
    namespace: &Namespace,
    key: &[u8],
    value: &[u8],
    lease: Option<&Vec<u8>>,
) -> Option<(Member, Timestamp)> {
    let mut parts = std::str::from_utf8(key).ok()?.splitn(3, '\0');
    let service = ServiceName::parse(parts.next()?).ok()?;
    let version = Version::parse(parts.next()?).ok()?;
    let id = parts.next()?.to_owned();
    let record = Record::decode(value).ok()?;
    let seen = Timestamp(i64::from_be_bytes(lease?.as_slice().try_into().ok()?));
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
