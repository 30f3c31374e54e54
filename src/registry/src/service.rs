//! [`Service`] owns the table, [`Handle`] changes and reads it: disk first, then memory, then
//! whoever follows.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock},
    time::Duration,
};

use micro_core::{Clock, Namespace, ServiceName, Timestamp, Version};
use micro_proto::registry::registry_server::RegistryServer;
use micro_schema::Schema;
use micro_storage::Storage;
use tokio::{
    sync::{broadcast, watch},
    time,
};
use tokio_util::sync::CancellationToken;

use crate::{
    Error, Rpc, durable,
    model::{Entry, Node, Protocol, Registration, Snapshot},
    state::{Action, Change, Key, Member, NodeKey, State},
};

/// How often nodes are looked through for those whose time is over.
const PRUNE: Duration = Duration::from_secs(1);
/// Changes that a watcher may be behind.
const BACKLOG: usize = 1024;
/// Nodes of one namespace.
const NODES: usize = 10_000;
const ID: usize = 200;
const METADATA: usize = 64 * 1024;

/// The registry. Keep it running with [`Service::run`].
pub struct Service {
    handle: Handle,
}

/// Reads and changes the registry. Clones share it.
#[derive(Clone)]
pub struct Handle {
    inner: Arc<Inner>,
}

struct Inner {
    state: Mutex<State>,
    /// Held while disk and memory change together, so that both see the same order.
    writing: tokio::sync::Mutex<()>,
    storage: Storage,
    clock: Clock,
    /// Where built-in services are reached.
    mesh: SocketAddr,
    builtins: RwLock<BTreeMap<String, Arc<Entry>>>,
    snapshots: watch::Sender<Arc<Snapshot>>,
    changes: broadcast::Sender<Arc<Change>>,
    stopped: CancellationToken,
}

impl Service {
    /// Opens the registry with the self-registrations that are kept in `storage` and still alive.
    /// `mesh` is the address that built-in services are listed with.
    ///
    /// # Errors
    /// When `storage` cannot be read.
    pub async fn open(storage: &Storage, mesh: SocketAddr, clock: Clock) -> Result<Self, Error> {
        let mut state = State::default();
        for (member, born) in durable::load(storage, clock.now()).await? {
            state.put(member, born);
        }
        let mut snapshot = Snapshot::default();
        for key in state.keys() {
            snapshot.services.insert(key.clone(), state.entries(key));
        }
        let inner = Inner {
            state: Mutex::new(state),
            writing: tokio::sync::Mutex::new(()),
            storage: storage.clone(),
            clock,
            mesh,
            builtins: RwLock::default(),
            snapshots: watch::Sender::new(Arc::new(snapshot)),
            changes: broadcast::Sender::new(BACKLOG),
            stopped: CancellationToken::new(),
        };
        Ok(Self {
            handle: Handle {
                inner: Arc::new(inner),
            },
        })
    }

    /// A handle on this registry.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// `registry.Registry` over gRPC.
    pub fn server(&self) -> RegistryServer<Rpc> {
        RegistryServer::new(Rpc::new(self.handle()))
    }

    /// Gives up nodes whose time is over, until `stop`; then ends all watches.
    pub async fn run(self, stop: CancellationToken) {
        let mut ticks = time::interval(PRUNE);
        ticks.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = ticks.tick() => self.handle.prune().await,
                () = stop.cancelled() => break,
            }
        }
        self.handle.inner.stopped.cancel();
    }
}

impl Handle {
    /// Adds or renews a node. Address, endpoints and metadata are updated; a self-registration is
    /// on disk when this returns.
    ///
    /// # Errors
    /// `Invalid` for a registration that cannot be; `Conflict` for a name, an id or an address that
    /// belongs to somebody else; `Exhausted` when the namespace has too many nodes.
    pub async fn register(&self, r: Registration) -> Result<(), Error> {
        let given = r.node.address.to_string();
        self.register_given(r, given, None).await
    }

    /// As [`Handle::register`], with the address as the node gave it and the descriptors that were
    /// fetched from it.
    pub(crate) async fn register_given(
        &self,
        r: Registration,
        given_address: String,
        fetched: Option<Arc<Schema>>,
    ) -> Result<(), Error> {
        self.check(&r)?;
        let now = self.inner.clock.now();
        let key = NodeKey::of(&r);
        if fetched.is_none() && self.state().renew(&r, now) {
            if r.ttl.is_some() {
                durable::renew(&self.inner.storage, &key, now).await?;
            }
            return Ok(());
        }
        let _writing = self.inner.writing.lock().await;
        let (born, evicted) = {
            let state = self.state();
            (
                state.born(&key).unwrap_or(now),
                self.admit(&state, &r, &key)?,
            )
        };
        for stranger in evicted {
            self.forget(&stranger).await?;
        }
        let own = r.ttl.is_some();
        let was_own = self.state().get(&key).is_some_and(Member::is_own);
        let mut member = Member::new(r, given_address, now);
        member.fetched = fetched;
        if own {
            durable::put(&self.inner.storage, &member, born).await?;
        } else if was_own {
            durable::delete(&self.inner.storage, &key).await?;
        }
        let mut state = self.state();
        let change = state.put(member, born);
        self.publish(&state, vec![change]);
        Ok(())
    }

    /// What cannot be, whoever asks.
    fn check(&self, r: &Registration) -> Result<(), Error> {
        let invalid = |reason: String| Error::Invalid {
            service: r.service.to_string(),
            reason,
        };
        if r.node.id.is_empty() || r.node.id.len() > ID || r.node.id.chars().any(char::is_control) {
            return Err(invalid(format!(
                "the id of a node has 1 to {ID} bytes and no control characters"
            )));
        }
        let size = |map: &BTreeMap<String, String>| {
            map.iter().map(|(k, v)| k.len() + v.len()).sum::<usize>()
        };
        if size(&r.metadata) + size(&r.node.metadata) > METADATA {
            return Err(invalid(format!(
                "its metadata is more than {METADATA} bytes"
            )));
        }
        let taken = |reason: &str| Error::Taken {
            service: r.service.to_string(),
            reason: reason.to_owned(),
        };
        if self.builtin(r.service.as_str()).is_some() {
            return Err(taken("the name belongs to a built-in service"));
        }
        if r.node.address == self.inner.mesh {
            return Err(taken("its address is the platform's own"));
        }
        Ok(())
    }

    /// Whether there is room for the node, and which nodes have to go for it.
    fn admit(&self, state: &State, r: &Registration, key: &NodeKey) -> Result<Vec<NodeKey>, Error> {
        let service = || r.service.to_string();
        let known = state.get(key);
        if known.is_none() {
            let nodes = state
                .members()
                .filter(|m| m.registration.namespace == r.namespace)
                .count();
            if nodes >= NODES {
                return Err(Error::TooMany {
                    service: service(),
                    limit: NODES,
                });
            }
        }
        let strangers = state.strangers(&r.namespace, r.node.address);
        if r.ttl.is_none() {
            // The platform knows who listens there; who else said so is gone.
            return Ok(strangers
                .into_iter()
                .filter(|m| m.is_own())
                .map(|m| NodeKey::of(&m.registration))
                .collect());
        }
        if known.is_some_and(|member| !member.is_own()) {
            return Err(Error::Taken {
                service: service(),
                reason: format!("the platform runs the node {} itself", key.node),
            });
        }
        // Else one tenant could receive what was meant for another one, or call it past its rules.
        if !strangers.is_empty() {
            return Err(Error::Taken {
                service: service(),
                reason: format!("another namespace listens on {}", r.node.address),
            });
        }
        Ok(Vec::new())
    }

    /// Takes a node out; nothing happens when it is not there.
    ///
    /// # Errors
    /// When a self-registration cannot be removed from the disk.
    pub async fn deregister(
        &self,
        namespace: &Namespace,
        service: &ServiceName,
        version: &Version,
        node_id: &str,
    ) -> Result<(), Error> {
        let key = NodeKey {
            service: (namespace.clone(), service.clone()),
            version: version.clone(),
            node: node_id.to_owned(),
        };
        let _writing = self.inner.writing.lock().await;
        self.forget(&key).await
    }

    /// Takes out a node that registered itself; one that the platform runs stays.
    pub(crate) async fn deregister_own(&self, key: &NodeKey) -> Result<(), Error> {
        let _writing = self.inner.writing.lock().await;
        if self.state().get(key).is_some_and(Member::is_own) {
            self.forget(key).await?;
        }
        Ok(())
    }

    /// Removes a node from disk and memory. The caller holds `writing`.
    async fn forget(&self, key: &NodeKey) -> Result<(), Error> {
        let Some(own) = self.state().get(key).map(Member::is_own) else {
            return Ok(());
        };
        if own {
            durable::delete(&self.inner.storage, key).await?;
        }
        let mut state = self.state();
        let change = state.remove(key);
        self.publish(&state, change.into_iter().collect());
        Ok(())
    }

    /// Gives up the nodes whose time is over.
    pub(crate) async fn prune(&self) {
        if self.state().expired(self.inner.clock.now()).is_empty() {
            return;
        }
        let _writing = self.inner.writing.lock().await;
        let gone = {
            let mut state = self.state();
            let gone = state.expired(self.inner.clock.now());
            let changes = gone.iter().filter_map(|key| state.remove(key)).collect();
            self.publish(&state, changes);
            gone
        };
        for key in gone {
            tracing::info!(namespace = %key.service.0, service = %key.service.1, node = %key.node,
                "a node did not renew its registration and is given up");
            // Still on disk it does no harm: it is as dead after the next start.
            if let Err(error) = durable::delete(&self.inner.storage, &key).await {
                tracing::warn!(%error, "an expired registration stays on disk");
            }
        }
    }

    /// Rebuilds what changed in the snapshot and tells everybody, in the order of `state`.
    fn publish(&self, state: &State, changes: Vec<Change>) {
        if changes.is_empty() {
            return;
        }
        let keys: BTreeSet<Key> = changes.iter().map(Change::key).collect();
        self.inner.snapshots.send_modify(|snapshot| {
            let mut services = snapshot.services.clone();
            for key in keys {
                let entries = state.entries(&key);
                if entries.is_empty() {
                    services.remove(&key);
                } else {
                    services.insert(key, entries);
                }
            }
            *snapshot = Arc::new(Snapshot { services });
        });
        for change in changes {
            // Nobody may be watching.
            let _ = self.inner.changes.send(Arc::new(change));
        }
    }

    /// Everything that is registered now.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.inner.snapshots.borrow())
    }

    /// The snapshot, and each new one.
    pub fn changes(&self) -> watch::Receiver<Arc<Snapshot>> {
        self.inner.snapshots.subscribe()
    }

    /// Whether a node of the service registered itself, or renewed, at `since` or later.
    pub fn has_self_registered(
        &self,
        namespace: &Namespace,
        service: &ServiceName,
        since: Timestamp,
    ) -> bool {
        self.state().members().any(|m| {
            m.is_own()
                && m.seen >= since
                && m.registration.namespace == *namespace
                && m.registration.service == *service
        })
    }

    /// Lists a service that the platform answers itself. It is no part of a [`Snapshot`].
    pub fn add_builtin(&self, name: &str, schema: Arc<Schema>) {
        let Ok(service) = ServiceName::parse(name) else {
            return;
        };
        let entry = Entry {
            namespace: Namespace::operator(),
            name: service,
            version: Version::latest(),
            metadata: BTreeMap::new(),
            protocol: Protocol::Grpc,
            schema,
            nodes: vec![Node {
                id: format!("{name}-builtin"),
                address: self.inner.mesh,
                metadata: [
                    ("protocol", "grpc"),
                    ("server", "grpc"),
                    ("transport", "grpc"),
                ]
                .map(|(k, v)| (k.to_owned(), v.to_owned()))
                .into(),
            }],
        };
        self.inner
            .builtins
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(name.to_owned(), Arc::new(entry));
    }

    /// The built-in service of this name.
    pub(crate) fn builtin(&self, name: &str) -> Option<Arc<Entry>> {
        let builtins = self.inner.builtins.read();
        builtins
            .unwrap_or_else(PoisonError::into_inner)
            .get(name)
            .cloned()
    }

    /// All built-in services.
    pub(crate) fn builtins(&self) -> Vec<Arc<Entry>> {
        let builtins = self.inner.builtins.read();
        builtins
            .unwrap_or_else(PoisonError::into_inner)
            .values()
            .cloned()
            .collect()
    }

    /// Each change from now on.
    pub(crate) fn watch(&self) -> broadcast::Receiver<Arc<Change>> {
        self.inner.changes.subscribe()
    }

    /// Fires when the registry stops.
    pub(crate) fn stopped(&self) -> CancellationToken {
        self.inner.stopped.clone()
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.inner.clock.now()
    }

    /// The address that the node gave before and the one that was made of it.
    pub(crate) fn known_address(&self, key: &NodeKey) -> Option<(String, SocketAddr)> {
        let state = self.state();
        let member = state.get(key)?;
        Some((
            member.given_address.clone(),
            member.registration.node.address,
        ))
    }

    /// Whether asking the node for its descriptors would tell something new.
    pub(crate) fn wants_descriptors(&self, r: &Registration) -> bool {
        let state = self.state();
        match state.get(&NodeKey::of(r)) {
            Some(member) => member.fetched.is_none() || !member.registration.is_same(r),
            None => true,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.inner
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Action {
    /// The word on the wire.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Update => "update",
            Self::Delete => "delete",
        }
    }
}
