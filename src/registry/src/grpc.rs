//! `registry.Registry` for Micro's clients and our own: who may do what, and messages in and out.

use std::{collections::HashMap, pin::Pin, sync::Arc, time::Duration};

use futures_util::{Stream, StreamExt as _, stream};
use micro_core::{Caller, Namespace, ServiceName, Version, caller::NotAllowed};
use micro_proto::{
    registry::{
        EmptyResponse, GetRequest, GetResponse, ListRequest, ListResponse, Options,
        Result as Event, SchemaRequest, SchemaResponse, Service, WatchRequest,
        registry_server::Registry,
    },
    status,
};
use micro_schema::{Schema, reflect};
use tokio::sync::broadcast::{Receiver, error::RecvError};
use tonic::{Request, Response, Status, Streaming};

use crate::{
    Error, Handle, address, convert,
    model::{Entry, Node, Protocol, Registration},
    state::{Change, NodeKey},
};

/// How long a node that offers reflection is waited for while it registers.
const REFLECTION: Duration = Duration::from_secs(3);
/// Nodes in one registration; Micro's clients send one.
const NODES: usize = 16;
/// Endpoints in one registration.
const ENDPOINTS: usize = 10_000;

/// The gRPC face of the registry.
#[derive(Clone)]
pub struct Rpc {
    handle: Handle,
}

/// The namespaces that a read is about.
enum Domain {
    One(Namespace),
    All,
}

impl Domain {
    fn has(&self, namespace: &Namespace) -> bool {
        match self {
            Self::One(one) => one == namespace,
            Self::All => true,
        }
    }
}

impl Rpc {
    pub(crate) fn new(handle: Handle) -> Self {
        Self { handle }
    }

    async fn register_all(&self, caller: &Caller, service: Service) -> Result<(), Error> {
        let (namespace, ttl) = writable(caller, service.options.as_ref())?;
        let name = ServiceName::parse(&service.name)?;
        let version = version(&service.version)?;
        let invalid = |reason: String| Error::Invalid {
            service: service.name.clone(),
            reason,
        };
        if service.nodes.is_empty() {
            return Err(invalid("it has no node; say where it listens".to_owned()));
        }
        if service.nodes.len() > NODES || service.endpoints.len() > ENDPOINTS {
            return Err(invalid(format!(
                "a registration has at most {NODES} nodes and {ENDPOINTS} endpoints"
            )));
        }
        let schema = Arc::new(Schema::from_endpoints(service.endpoints));
        let metadata = without_domain(service.metadata);
        for node in service.nodes {
            let key = NodeKey {
                service: (namespace.clone(), name.clone()),
                version: version.clone(),
                node: node.id.clone(),
            };
            let address = match self.handle.known_address(&key) {
                Some((given, address)) if given == node.address => address,
                _ => address::dialable(&node.address, node.port)
                    .await
                    .map_err(invalid)?,
            };
            let is = |key: &str, value: &str| node.metadata.get(key).is_some_and(|v| v == value);
            let (http, reflection) = (is("protocol", "http"), is("reflection", "true"));
            let registration = Registration {
                namespace: namespace.clone(),
                service: name.clone(),
                version: version.clone(),
                metadata: metadata.clone(),
                protocol: if http { Protocol::Http } else { Protocol::Grpc },
                schema: Arc::clone(&schema),
                node: Node {
                    id: node.id,
                    address,
                    metadata: without_domain(node.metadata),
                },
                ttl: Some(ttl),
            };
            let fetched = if reflection && self.handle.wants_descriptors(&registration) {
                fetch(&registration).await
            } else {
                None
            };
            self.handle
                .register_given(registration, node.address, fetched)
                .await?;
        }
        Ok(())
    }

    async fn deregister_all(&self, caller: &Caller, service: Service) -> Result<(), Error> {
        let (namespace, _) = writable(caller, service.options.as_ref())?;
        let name = ServiceName::parse(&service.name)?;
        let version = version(&service.version)?;
        for node in service.nodes {
            let key = NodeKey {
                service: (namespace.clone(), name.clone()),
                version: version.clone(),
                node: node.id,
            };
            self.handle.deregister_own(&key).await?;
        }
        Ok(())
    }

    /// The versions of a service, the newest first: Micro's CLI takes the first one.
    fn find(
        &self,
        caller: &Caller,
        name: &str,
        options: Option<&Options>,
    ) -> Result<Vec<Arc<Entry>>, Error> {
        let domain = readable(caller, options)?;
        let snapshot = self.handle.snapshot();
        let mut found: Vec<Arc<Entry>> = match &domain {
            Domain::One(namespace) => match ServiceName::parse(name) {
                Ok(service) => snapshot.get(namespace, &service).to_vec(),
                Err(_) => Vec::new(),
            },
            Domain::All => snapshot
                .services
                .iter()
                .filter(|((_, service), _)| service.as_str() == name)
                .flat_map(|(_, entries)| entries.iter().cloned())
                .collect(),
        };
        found.reverse();
        // Built-in services answer in every namespace, so they are found in every one.
        found.extend(self.handle.builtin(name));
        if found.is_empty() {
            return Err(Error::NotFound);
        }
        Ok(found)
    }

    fn list(&self, caller: &Caller, options: Option<&Options>) -> Result<Vec<Service>, Error> {
        let domain = readable(caller, options)?;
        let snapshot = self.handle.snapshot();
        let mut services: Vec<Service> = snapshot
            .services
            .iter()
            .filter(|((namespace, _), _)| domain.has(namespace))
            .flat_map(|(_, entries)| entries.iter().rev())
            .map(|entry| convert::service(entry))
            .collect();
        if domain.has(&Namespace::operator()) {
            let builtins = self.handle.builtins();
            services.extend(builtins.iter().map(|entry| convert::service(entry)));
        }
        Ok(services)
    }
}

fn caller<T>(request: &Request<T>) -> Caller {
    request
        .extensions()
        .get::<Caller>()
        .cloned()
        .unwrap_or_else(|| Caller::anonymous(Namespace::operator()))
}

fn domain_of(options: Option<&Options>) -> &str {
    options.map_or("", |options| options.domain.as_str())
}

/// The namespace of a write and the time to live.
fn writable(caller: &Caller, options: Option<&Options>) -> Result<(Namespace, Duration), Error> {
    let namespace = match domain_of(options) {
        "" => caller.namespace.clone(),
        text => Namespace::parse(text)?,
    };
    caller.authorize_admin(&namespace)?;
    let seconds = options.map_or(0, |options| options.ttl);
    let ttl = match u64::try_from(seconds) {
        Ok(seconds) if seconds > 0 => Duration::from_secs(seconds),
        _ => Registration::FOREVER,
    };
    Ok((namespace, ttl))
}

/// The namespace of a read; `*` for the operator only.
fn readable(caller: &Caller, options: Option<&Options>) -> Result<Domain, Error> {
    let namespace = match domain_of(options) {
        "" => caller.namespace.clone(),
        "*" => {
            return if caller.account()?.is_operator() {
                Ok(Domain::All)
            } else {
                Err(NotAllowed::OtherNamespace.into())
            };
        }
        text => Namespace::parse(text)?,
    };
    caller.authorize(&namespace)?;
    Ok(Domain::One(namespace))
}

fn version(text: &str) -> Result<Version, Error> {
    match text {
        "" => Ok(Version::latest()),
        text => Ok(Version::parse(text)?),
    }
}

/// The registry writes the domain itself, so what a client says of it is dropped.
fn without_domain(metadata: HashMap<String, String>) -> std::collections::BTreeMap<String, String> {
    metadata
        .into_iter()
        .filter(|(key, _)| key != "domain")
        .collect()
}

/// The node's own descriptors. Without them it is known by what it registered, and is asked again
/// when it renews.
async fn fetch(r: &Registration) -> Option<Arc<Schema>> {
    let set = match reflect::descriptor_set(r.node.address, REFLECTION).await {
        Ok(set) => set,
        Err(error) => {
            tracing::info!(service = %r.service, node = %r.node.id, %error,
                "a node that offers reflection did not answer");
            return None;
        }
    };
    match Schema::from_descriptor_set(&set) {
        Ok(schema) => Some(Arc::new(schema)),
        Err(error) => {
            tracing::warn!(service = %r.service, node = %r.node.id, %error,
                "the descriptors of a node cannot be read");
            None
        }
    }
}

/// A failure as `registry.Registry.<method>` says it.
fn refuse(method: &'static str) -> impl Fn(Error) -> Status {
    move |error| status::of(&format!("registry.Registry.{method}"), &error)
}

#[tonic::async_trait]
impl Registry for Rpc {
    type WatchStream = Pin<Box<dyn Stream<Item = Result<Event, Status>> + Send>>;

    async fn get_service(
        &self,
        request: Request<GetRequest>,
    ) -> Result<Response<GetResponse>, Status> {
        let caller = caller(&request);
        let ask = request.into_inner();
        let found = self
            .find(&caller, &ask.service, ask.options.as_ref())
            .map_err(refuse("GetService"))?;
        let services = found.iter().map(|entry| convert::service(entry)).collect();
        Ok(Response::new(GetResponse { services }))
    }

    async fn register(&self, request: Request<Service>) -> Result<Response<EmptyResponse>, Status> {
        let caller = caller(&request);
        // On the heap: fetching descriptors has a large state.
        Box::pin(self.register_all(&caller, request.into_inner()))
            .await
            .map_err(refuse("Register"))?;
        Ok(Response::new(EmptyResponse {}))
    }

    async fn deregister(
        &self,
        request: Request<Service>,
    ) -> Result<Response<EmptyResponse>, Status> {
        let caller = caller(&request);
        self.deregister_all(&caller, request.into_inner())
            .await
            .map_err(refuse("Deregister"))?;
        Ok(Response::new(EmptyResponse {}))
    }

    async fn list_services(
        &self,
        request: Request<ListRequest>,
    ) -> Result<Response<ListResponse>, Status> {
        let caller = caller(&request);
        let services = self
            .list(&caller, request.into_inner().options.as_ref())
            .map_err(refuse("ListServices"))?;
        Ok(Response::new(ListResponse { services }))
    }

    async fn watch(
        &self,
        request: Request<Streaming<WatchRequest>>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let caller = caller(&request);
        let mut asks = request.into_inner();
        // Micro's clients never half-close: the first message is the question (contract §3.6).
        let ask = asks.message().await?.unwrap_or_default();
        let domain = readable(&caller, ask.options.as_ref()).map_err(refuse("Watch"))?;
        let watch = Watch {
            changes: self.handle.watch(),
            handle: self.handle.clone(),
            domain,
            service: ask.service,
            _asks: asks,
        };
        Ok(Response::new(watch.into_stream().boxed()))
    }

    async fn schema(
        &self,
        request: Request<SchemaRequest>,
    ) -> Result<Response<SchemaResponse>, Status> {
        let caller = caller(&request);
        let ask = request.into_inner();
        let found = self
            .find(&caller, &ask.service, ask.options.as_ref())
            .map_err(refuse("Schema"))?;
        let newest = found
            .first()
            .ok_or_else(|| refuse("Schema")(Error::NotFound))?;
        Ok(Response::new(SchemaResponse {
            descriptor_set: newest.schema.descriptor_set().unwrap_or_default().to_vec(),
            endpoints: newest.schema.endpoints().to_vec(),
            protocol: newest.protocol.as_str().to_owned(),
        }))
    }
}

/// One open watch.
struct Watch {
    changes: Receiver<Arc<Change>>,
    handle: Handle,
    domain: Domain,
    /// Empty for every service.
    service: String,
    /// Held, so that the stream stays open in both directions.
    _asks: Streaming<WatchRequest>,
}

impl Watch {
    fn into_stream(self) -> impl Stream<Item = Result<Event, Status>> + Send {
        stream::unfold(Some(self), |watch| async move {
            let mut watch = watch?;
            match watch.next().await {
                Ok(event) => Some((Ok(event), Some(watch))),
                // Better an end that the client sees than events that it misses.
                Err(error) => Some((Err(refuse("Watch")(error)), None)),
            }
        })
    }

    async fn next(&mut self) -> Result<Event, Error> {
        let stopped = self.handle.stopped();
        loop {
            let change = tokio::select! {
                change = self.changes.recv() => change,
                () = stopped.cancelled() => {
                    return Err(Error::WatchEnded("the server stops"));
                }
            };
            match change {
                Ok(change) if self.concerns(&change.entry) => {
                    return Ok(Event {
                        action: change.action.as_str().to_owned(),
                        service: Some(convert::service(&change.entry)),
                        timestamp: self.handle.now().unix_seconds(),
                    });
                }
                Ok(_) => {}
                Err(RecvError::Lagged(_)) => {
                    return Err(Error::WatchEnded("the client did not keep up"));
                }
                Err(RecvError::Closed) => return Err(Error::WatchEnded("the server stops")),
            }
        }
    }

    fn concerns(&self, entry: &Entry) -> bool {
        self.domain.has(&entry.namespace)
            && (self.service.is_empty() || self.service == entry.name.as_str())
    }
}
