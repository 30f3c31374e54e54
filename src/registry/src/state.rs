//! The table in memory. Each operation says what it changed; nothing here waits or writes.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc};

use micro_core::{Namespace, ServiceName, Timestamp, Version};
use micro_schema::Schema;

use crate::model::{Entry, Node, Registration};

/// A service of a namespace.
pub(crate) type Key = (Namespace, ServiceName);

/// A node: service, version and id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NodeKey {
    pub(crate) service: Key,
    pub(crate) version: Version,
    pub(crate) node: String,
}

impl NodeKey {
    pub(crate) fn of(r: &Registration) -> Self {
        Self {
            service: (r.namespace.clone(), r.service.clone()),
            version: r.version.clone(),
            node: r.node.id.clone(),
        }
    }
}

/// What happened to a version (contract §4.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    Create,
    Update,
    Delete,
}

/// One change, with the nodes that it is about.
#[derive(Debug, Clone)]
pub(crate) struct Change {
    pub(crate) action: Action,
    pub(crate) entry: Entry,
}

impl Change {
    pub(crate) fn key(&self) -> Key {
        (self.entry.namespace.clone(), self.entry.name.clone())
    }
}

/// One node as the table keeps it.
#[derive(Debug, Clone)]
pub(crate) struct Member {
    /// As it was registered.
    pub(crate) registration: Registration,
    /// What the node said when it was asked for its descriptors; better than what it registered.
    pub(crate) fetched: Option<Arc<Schema>>,
    /// The address as the node gave it, before it was made one that we can dial.
    pub(crate) given_address: String,
    /// When it was last heard of.
    pub(crate) seen: Timestamp,
    /// Grows with each change of any node; the largest speaks for its version.
    order: u64,
}

impl Member {
    pub(crate) fn new(registration: Registration, given_address: String, seen: Timestamp) -> Self {
        Self {
            registration,
            fetched: None,
            given_address,
            seen,
            order: 0,
        }
    }

    /// Whether the node registered itself.
    pub(crate) fn is_own(&self) -> bool {
        self.registration.ttl.is_some()
    }

    /// When it is given up.
    pub(crate) fn expires(&self) -> Option<Timestamp> {
        match self.registration.ttl {
            None | Some(Registration::FOREVER) => None,
            Some(ttl) => Some(self.seen.plus(ttl)),
        }
    }

    fn schema(&self) -> &Arc<Schema> {
        self.fetched.as_ref().unwrap_or(&self.registration.schema)
    }

    fn entry(&self) -> Entry {
        let r = &self.registration;
        Entry {
            namespace: r.namespace.clone(),
            name: r.service.clone(),
            version: r.version.clone(),
            metadata: r.metadata.clone(),
            protocol: r.protocol,
            schema: Arc::clone(self.schema()),
            nodes: vec![r.node.clone()],
        }
    }
}

/// The nodes of one version, by id.
struct Nodes {
    born: Timestamp,
    members: BTreeMap<String, Member>,
}

impl Nodes {
    fn entry(&self) -> Option<Entry> {
        let speaker = self.members.values().max_by_key(|m| m.order)?;
        let nodes: Vec<Node> = self
            .members
            .values()
            .map(|m| m.registration.node.clone())
            .collect();
        Some(Entry {
            nodes,
            ..speaker.entry()
        })
    }
}

#[derive(Default)]
pub(crate) struct State {
    services: BTreeMap<Key, BTreeMap<Version, Nodes>>,
    order: u64,
}

impl State {
    pub(crate) fn get(&self, key: &NodeKey) -> Option<&Member> {
        let versions = self.services.get(&key.service)?;
        versions.get(&key.version)?.members.get(&key.node)
    }

    fn get_mut(&mut self, key: &NodeKey) -> Option<&mut Member> {
        let versions = self.services.get_mut(&key.service)?;
        versions.get_mut(&key.version)?.members.get_mut(&key.node)
    }

    pub(crate) fn members(&self) -> impl Iterator<Item = &Member> {
        self.services
            .values()
            .flat_map(BTreeMap::values)
            .flat_map(|nodes| nodes.members.values())
    }

    /// When the version came into being.
    pub(crate) fn born(&self, key: &NodeKey) -> Option<Timestamp> {
        Some(self.services.get(&key.service)?.get(&key.version)?.born)
    }

    /// The versions of a service, the newest last.
    pub(crate) fn entries(&self, key: &Key) -> Vec<Arc<Entry>> {
        let Some(versions) = self.services.get(key) else {
            return Vec::new();
        };
        let mut nodes: Vec<&Nodes> = versions.values().collect();
        nodes.sort_by_key(|n| n.born);
        nodes
            .into_iter()
            .filter_map(|n| n.entry().map(Arc::new))
            .collect()
    }

    /// All services that have a node.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &Key> {
        self.services.keys()
    }

    /// Notes that a node was heard of, when `r` says nothing new of it.
    pub(crate) fn renew(&mut self, r: &Registration, now: Timestamp) -> bool {
        match self.get_mut(&NodeKey::of(r)) {
            Some(member) if member.registration.is_same(r) => {
                member.seen = now;
                true
            }
            _ => false,
        }
    }

    /// Adds or replaces a node. `born` is the age of its version if that is new.
    pub(crate) fn put(&mut self, mut member: Member, born: Timestamp) -> Change {
        self.order += 1;
        member.order = self.order;
        let key = NodeKey::of(&member.registration);
        let mut action = Action::Update;
        let nodes = self
            .services
            .entry(key.service)
            .or_default()
            .entry(key.version)
            .or_insert_with(|| {
                action = Action::Create;
                Nodes {
                    born,
                    members: BTreeMap::new(),
                }
            });
        let entry = member.entry();
        nodes.members.insert(key.node, member);
        Change { action, entry }
    }

    /// Takes a node out.
    pub(crate) fn remove(&mut self, key: &NodeKey) -> Option<Change> {
        let versions = self.services.get_mut(&key.service)?;
        let nodes = versions.get_mut(&key.version)?;
        let entry = nodes.members.remove(&key.node)?.entry();
        let mut action = Action::Update;
        if nodes.members.is_empty() {
            action = Action::Delete;
            versions.remove(&key.version);
            if versions.is_empty() {
                self.services.remove(&key.service);
            }
        }
        Some(Change { action, entry })
    }

    /// The nodes whose time is over.
    pub(crate) fn expired(&self, now: Timestamp) -> Vec<NodeKey> {
        self.members()
            .filter(|m| m.expires().is_some_and(|at| at < now))
            .map(|m| NodeKey::of(&m.registration))
            .collect()
    }

    /// The nodes of other namespaces that say they listen on `address`.
    pub(crate) fn strangers(&self, namespace: &Namespace, address: SocketAddr) -> Vec<&Member> {
        self.members()
            .filter(|m| {
                m.registration.node.address == address && m.registration.namespace != *namespace
            })
            .collect()
    }
}
