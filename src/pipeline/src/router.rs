//! Where services are. One immutable table behind one atomic pointer: a request reads it without
//! waiting for anybody, an update replaces it whole. What must outlive an update (requests in
//! flight, health, counters) lives in shared parts that the next table takes over.

pub(crate) mod backend;

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use arc_swap::ArcSwap;
use http::{HeaderValue, uri::PathAndQuery};
use micro_core::{Namespace, ServiceName};
use micro_schema::Schema;

use crate::{
    metrics::{Row, Stats},
    ports::Protocol,
};
use backend::{Backend, Flight};

/// What the registry knows of one service.
#[derive(Clone)]
pub struct RouteSpec {
    /// The tenant.
    pub namespace: Namespace,
    /// The name it is called by.
    pub service: ServiceName,
    /// What its instances speak.
    pub protocol: Protocol,
    /// What it offers.
    pub schema: Arc<Schema>,
    /// Its instances. An address is balanced over, tried, rested and probed on its own.
    pub addresses: Vec<SocketAddr>,
}

/// The routing table.
pub struct Router {
    table: ArcSwap<Table>,
    /// Updates build on the table before them, so they go one at a time.
    updating: Mutex<()>,
}

#[derive(Default)]
struct Table {
    namespaces: HashMap<Namespace, Services>,
}

#[derive(Default)]
struct Services {
    by_name: HashMap<ServiceName, Arc<Route>>,
    /// By full proto service name, for callers that know a service by its proto only.
    by_proto: HashMap<Box<str>, Arc<Route>>,
}

impl Default for Router {
    fn default() -> Self {
        Self::new()
    }
}

impl Router {
    /// A router that knows no service.
    pub fn new() -> Self {
        Self {
            table: ArcSwap::default(),
            updating: Mutex::new(()),
        }
    }

    /// Replaces the whole table. Addresses that stay keep their requests in flight and their health.
    /// When a service is listed more than once (several versions), its addresses are joined and the
    /// first entry's schema and protocol count: list the newest first.
    pub fn update(&self, routes: Vec<RouteSpec>) {
        let _one_at_a_time = self.updating.lock().unwrap_or_else(PoisonError::into_inner);
        let old = self.table.load();
        let mut merged: BTreeMap<(Namespace, ServiceName), RouteSpec> = BTreeMap::new();
        for spec in routes {
            let key = (spec.namespace.clone(), spec.service.clone());
            match merged.get_mut(&key) {
                None => {
                    merged.insert(key, spec);
                }
                Some(first) if first.protocol == spec.protocol => {
                    first.addresses.extend(spec.addresses);
                }
                Some(_) => {}
            }
        }
        let mut table = Table::default();
        for spec in merged.into_values() {
            let before = old
                .namespaces
                .get(&spec.namespace)
                .and_then(|s| s.by_name.get(&spec.service));
            let services = table.namespaces.entry(spec.namespace.clone()).or_default();
            let route = Arc::new(Route::new(spec, before.map(Arc::as_ref)));
            for name in route.schema.service_names() {
                services
                    .by_proto
                    .entry(name.into())
                    .or_insert_with(|| Arc::clone(&route));
            }
            services.by_name.insert(route.service.clone(), route);
        }
        self.table.store(Arc::new(table));
    }

    /// The route to `service`, by its name or else by the full name of one of its proto services
    /// (`<service>.<struct of endpoint>`).
    pub fn route(
        &self,
        namespace: &Namespace,
        service: &str,
        endpoint: &str,
    ) -> Option<Arc<Route>> {
        let table = self.table.load();
        let services = table.namespaces.get(namespace)?;
        if let Some(route) = services.by_name.get(service) {
            return Some(Arc::clone(route));
        }
        let (structure, _) = endpoint.split_once('.')?;
        if service.is_empty() {
            return services.by_proto.get(structure).cloned();
        }
        services
            .by_proto
            .get(format!("{service}.{structure}").as_str())
            .cloned()
    }

    /// Whether any namespace has a plain HTTP service of this name.
    pub fn has_http(&self, service: &str) -> bool {
        self.table.load().namespaces.values().any(|services| {
            let route = services.by_name.get(service);
            route.is_some_and(|route| route.protocol() == Protocol::Http)
        })
    }

    /// All routes of `namespace`, by name.
    pub fn routes(&self, namespace: &Namespace) -> Vec<Arc<Route>> {
        let table = self.table.load();
        let mut routes: Vec<Arc<Route>> = table
            .namespaces
            .get(namespace)
            .into_iter()
            .flat_map(|s| s.by_name.values().cloned())
            .collect();
        routes.sort_by(|a, b| a.service.cmp(&b.service));
        routes
    }

    pub(crate) fn all(&self) -> Vec<Arc<Route>> {
        let table = self.table.load();
        let mut routes: Vec<Arc<Route>> = table
            .namespaces
            .values()
            .flat_map(|s| s.by_name.values().cloned())
            .collect();
        routes.sort_by(|a, b| (&a.namespace, &a.service).cmp(&(&b.namespace, &b.service)));
        routes
    }
}

/// One service and its instances.
pub struct Route {
    namespace: Namespace,
    service: ServiceName,
    protocol: Protocol,
    schema: Arc<Schema>,
    backends: Vec<Arc<Backend>>,
    /// Where the next search for the least busy instance begins.
    next: AtomicUsize,
    /// The namespace as instances are told it.
    pub(crate) namespace_value: HeaderValue,
    /// The paths of the schema's methods, parsed once.
    paths: HashMap<Box<str>, PathAndQuery>,
    pub(crate) stats: Arc<Stats>,
}

impl fmt::Debug for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.service)
    }
}

impl Route {
    fn new(spec: RouteSpec, before: Option<&Self>) -> Self {
        let mut backends: Vec<Arc<Backend>> = Vec::with_capacity(spec.addresses.len());
        for address in spec.addresses {
            if backends.iter().any(|b| b.address == address) {
                continue;
            }
            let known = before.and_then(|r| r.backends.iter().find(|b| b.address == address));
            backends.push(known.map_or_else(|| Arc::new(Backend::new(address)), Arc::clone));
        }
        let paths = spec
            .schema
            .methods()
            .iter()
            .filter_map(|m| Some((m.path.as_str().into(), m.path.parse().ok()?)))
            .collect();
        Self {
            namespace_value: HeaderValue::from_str(spec.namespace.as_str())
                .unwrap_or_else(|_| HeaderValue::from_static("micro")),
            namespace: spec.namespace,
            service: spec.service,
            protocol: spec.protocol,
            schema: spec.schema,
            backends,
            next: AtomicUsize::new(0),
            paths,
            stats: before.map_or_else(Arc::default, |r| Arc::clone(&r.stats)),
        }
    }

    /// The tenant.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// The name it is called by.
    pub fn service(&self) -> &ServiceName {
        &self.service
    }

    /// What its instances speak.
    pub fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// What it offers.
    pub fn schema(&self) -> &Arc<Schema> {
        &self.schema
    }

    /// Its instances.
    pub fn addresses(&self) -> impl Iterator<Item = SocketAddr> + '_ {
        self.backends.iter().map(|b| b.address)
    }

    /// `path` of one of the schema's methods, ready for a request.
    pub(crate) fn path(&self, path: &str) -> Option<PathAndQuery> {
        self.paths.get(path).cloned()
    }

    /// The instance with the least requests in flight that is neither resting nor in `tried`, in
    /// turn among equals. When all rest, the one whose rest ends first: better a try than a refusal.
    pub(crate) fn pick(&self, tried: &[SocketAddr]) -> Option<Flight> {
        let now = backend::now();
        let start = self.next.fetch_add(1, Relaxed) % self.backends.len().max(1);
        let (tail, head) = self.backends.split_at_checked(start)?;
        let mut best: Option<(usize, &Arc<Backend>)> = None;
        let mut resting: Option<(u64, &Arc<Backend>)> = None;
        for backend in head.iter().chain(tail) {
            if tried.contains(&backend.address) {
                continue;
            }
            let until = backend.rests_until();
            if until > now {
                if resting.is_none_or(|(least, _)| until < least) {
                    resting = Some((until, backend));
                }
                continue;
            }
            let load = backend.in_flight();
            if best.is_none_or(|(least, _)| load < least) {
                best = Some((load, backend));
            }
        }
        let (_, backend) = best.or(resting.map(|(_, b)| (0, b)))?;
        backend.claim_probe(now);
        Some(Flight::new(backend))
    }

    pub(crate) fn row(&self) -> Row<'_> {
        let now = backend::now();
        Row {
            namespace: self.namespace.as_str(),
            service: self.service.as_str(),
            stats: &self.stats,
            instances: self
                .backends
                .iter()
                .map(|b| (b.address.to_string(), b.in_flight(), b.rests_until() <= now))
                .collect(),
        }
    }
}
