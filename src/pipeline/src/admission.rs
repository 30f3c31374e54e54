//! From a request to a permission and a place: identity → namespace → route → rules.
//!
//! The route is looked up before the rules are asked, because a service can be called by its proto
//! name and an endpoint in several spellings, and the rules must see the one real name. A caller who
//! is refused learns only that.

use std::sync::Arc;

use http::{HeaderMap, HeaderValue, header};
use micro_core::{Account, Caller, Kind, Namespace, WireError, caller::NotAllowed};
use micro_schema::{Method, Schema};

use crate::{
    builtin::{Builtin, Builtins},
    error::SPEAKER,
    header::MICRO_NAMESPACE,
    metrics::{self, Outcome, Record, Refused, Stats},
    ports::{Door, Identity, Protocol, Refusal, Rules},
    router::{Route, Router},
};

/// The speaker of the gateway's own errors (contract §6.6).
const GATEWAY: &str = "go.micro.api";

/// What a door wants to know about one request.
pub struct Ask<'a> {
    /// Where it came in.
    pub door: Door,
    /// Its headers: `authorization` and `micro-namespace` are read.
    pub headers: &'a HeaderMap,
    /// A token from elsewhere (a cookie), when no header carries one.
    pub token: Option<&'a str>,
    /// A namespace from elsewhere (the host name), when no header names one.
    pub namespace: Option<&'a str>,
    /// The service by its registered name; for gRPC what stands before the last dot of the path's
    /// first part, empty if there is none.
    pub service: &'a str,
    /// `Struct.Method`, in any spelling that the schema understands; any text for an HTTP service.
    pub endpoint: &'a str,
}

/// Where an admitted request goes.
#[derive(Clone)]
pub enum Target {
    /// A service in this process.
    Builtin(Builtin),
    /// A service with instances.
    Service(Arc<Route>),
}

impl Target {
    /// What the service offers.
    pub fn schema(&self) -> &Arc<Schema> {
        match self {
            Self::Builtin(builtin) => builtin.schema(),
            Self::Service(route) => route.schema(),
        }
    }

    /// What the service speaks.
    pub fn protocol(&self) -> Protocol {
        match self {
            Self::Builtin(_) => Protocol::Grpc,
            Self::Service(route) => route.protocol(),
        }
    }

    /// The service's registered name.
    pub fn name(&self) -> &str {
        match self {
            Self::Builtin(builtin) => builtin.name(),
            Self::Service(route) => route.service().as_str(),
        }
    }

    pub(crate) fn stats(&self) -> &Arc<Stats> {
        match self {
            Self::Builtin(builtin) => builtin.stats(),
            Self::Service(route) => &route.stats,
        }
    }
}

/// A request that may go where it wants to go.
pub struct Admitted {
    /// Who calls, and in which namespace.
    pub caller: Caller,
    /// Where to.
    pub target: Target,
    pub(crate) door: Door,
    /// The method's place in the schema.
    method: Option<usize>,
    /// `Struct.Method` as asked, when the schema does not know it.
    asked: String,
    /// `authorization` for the instance, when the token did not come in that header.
    pub(crate) authorization: Option<HeaderValue>,
    /// Whether the account belongs to the namespace, so that an instance may be told its name.
    pub(crate) at_home: bool,
    /// Whether the token is one of another namespace. An instance that had it could act as the
    /// caller there; the operator's token would open everything to it.
    pub(crate) foreign: bool,
    /// Whether the token came in the cookie, so that the instance may see that one.
    pub(crate) by_cookie: bool,
}

impl Admitted {
    /// The method of the schema that was asked for.
    pub fn method(&self) -> Option<&Method> {
        self.target.schema().methods().get(self.method?)
    }

    /// The endpoint as the schema spells it, or as it was asked for when the schema has none such.
    pub fn endpoint(&self) -> &str {
        self.method().map_or(&self.asked, |m| &m.endpoint)
    }

    /// The method's place in the schema, for what must outlive this borrow.
    pub(crate) fn method_index(&self) -> Option<usize> {
        self.method
    }

    /// The same permission, for a call that outlives the borrow.
    pub(crate) fn copy(&self) -> Self {
        Self {
            caller: self.caller.clone(),
            target: self.target.clone(),
            door: self.door,
            method: self.method,
            asked: self.asked.clone(),
            authorization: self.authorization.clone(),
            at_home: self.at_home,
            foreign: self.foreign,
            by_cookie: self.by_cookie,
        }
    }

    pub(crate) fn record(&self) -> Record {
        Record::start(self.target.stats(), self.door)
    }
}

/// Everything that is the same for all doors and all threads.
pub struct Pipeline {
    identity: Arc<dyn Identity>,
    rules: Arc<dyn Rules>,
    router: Arc<Router>,
    builtins: Builtins,
    refused: Refused,
}

impl Pipeline {
    /// Puts the parts together.
    pub fn new(
        identity: Arc<dyn Identity>,
        rules: Arc<dyn Rules>,
        router: Arc<Router>,
        builtins: Builtins,
    ) -> Arc<Self> {
        Arc::new(Self {
            identity,
            rules,
            router,
            builtins,
            refused: Refused::default(),
        })
    }

    /// The routing table.
    pub fn router(&self) -> &Arc<Router> {
        &self.router
    }

    /// The services in this process.
    pub fn builtins(&self) -> &Builtins {
        &self.builtins
    }

    /// Lets a request in, or says why not.
    ///
    /// # Errors
    /// Micro's error object, worded for the door (contract §3.4, §3.7, §6.2): 400 for an impossible
    /// namespace, 401 or 403 from identity and rules, and for an unknown service 404 at the gateway
    /// and `service x: route not found` at the gRPC doors.
    pub fn admit(&self, ask: &Ask<'_>) -> Result<Admitted, WireError> {
        self.counted(ask, None)
    }

    /// As [`Pipeline::admit`], for a gRPC request: the whole path tells methods of equal names in
    /// different packages apart.
    ///
    /// # Errors
    /// As [`Pipeline::admit`].
    pub fn admit_grpc(&self, ask: &Ask<'_>, path: &str) -> Result<Admitted, WireError> {
        self.counted(ask, Some(path))
    }

    fn counted(&self, ask: &Ask<'_>, path: Option<&str>) -> Result<Admitted, WireError> {
        self.judge(ask, path).inspect_err(|error| {
            self.refused.add(ask.door, Outcome::of_wire(error.code));
        })
    }

    /// Counters in Prometheus' text format.
    pub fn metrics(&self) -> String {
        let routes = self.router.all();
        let rows: Vec<_> = self
            .builtins
            .iter()
            .map(Builtin::row)
            .chain(routes.iter().map(|r| r.row()))
            .collect();
        metrics::render(&rows, &self.refused)
    }

    fn judge(&self, ask: &Ask<'_>, path: Option<&str>) -> Result<Admitted, WireError> {
        let (account, authorization) = self.account(ask)?;
        let namespace = namespace(ask, account.as_deref())?;
        let target = self.find(ask, &namespace);
        let method = target.as_ref().and_then(|t| {
            let schema = t.schema();
            match path {
                Some(path) => schema.method_by_path(path),
                None => schema.method(ask.endpoint),
            }
        });
        let service = target.as_ref().map_or(ask.service, Target::name);
        let endpoint = method.map_or(ask.endpoint, |m| &m.endpoint);

        let at_home = account
            .as_ref()
            .is_some_and(|a| a.issuer == namespace || a.is_operator());
        if account.is_some() && !at_home && ask.door != Door::Gateway {
            return Err(WireError::new(
                service,
                Kind::Denied,
                NotAllowed::OtherNamespace.to_string(),
            ));
        }
        // At the gateway an account of another namespace is a stranger like any other (§6.2).
        let judged = account.as_deref().filter(|_| at_home);
        if let Err(refusal) = self.rules.verify(judged, &namespace, service, endpoint) {
            return Err(refused(refusal, judged, service, endpoint));
        }
        let asked = match method {
            Some(_) => String::new(),
            None => ask.endpoint.to_owned(),
        };
        // Comparing addresses, not methods: this is a subtraction in disguise.
        let method = method.and_then(|found| {
            let methods = target.as_ref()?.schema().methods();
            methods.iter().position(|m| std::ptr::eq(m, found))
        });
        let foreign = account.as_ref().is_some_and(|a| a.issuer != namespace);
        let by_cookie = account.is_some() && (authorization.is_some() || !bears(ask.headers));
        Ok(Admitted {
            caller: Caller { account, namespace },
            target: target.ok_or_else(|| not_found(ask))?,
            door: ask.door,
            method,
            asked,
            authorization: authorization.filter(|_| !foreign),
            at_home,
            foreign,
            by_cookie: by_cookie && !foreign,
        })
    }

    /// The account that the request proves. A token that proves nothing makes an anonymous caller,
    /// as in Micro; another scheme is an error at the gRPC doors and nothing at the gateway.
    fn account(
        &self,
        ask: &Ask<'_>,
    ) -> Result<(Option<Arc<Account>>, Option<HeaderValue>), WireError> {
        let Some(value) = ask.headers.get(header::AUTHORIZATION) else {
            let Some(token) = ask.token else {
                return Ok((None, None));
            };
            let header = HeaderValue::try_from(format!("Bearer {token}")).ok();
            return Ok((self.identity.identify(token), header));
        };
        match bearer(value) {
            Some(token) => Ok((self.identity.identify(token), None)),
            None if ask.door == Door::Gateway => {
                Ok((ask.token.and_then(|t| self.identity.identify(t)), None))
            }
            None => Err(WireError::new(
                ask.service,
                Kind::Unauthenticated,
                "invalid authorization header. expected Bearer schema",
            )),
        }
    }

    fn find(&self, ask: &Ask<'_>, namespace: &Namespace) -> Option<Target> {
        if let Some(builtin) = self.builtins.get(ask.service) {
            return Some(Target::Builtin(builtin.clone()));
        }
        self.router
            .route(namespace, ask.service, ask.endpoint)
            .map(Target::Service)
    }
}

/// The token in an `authorization` header.
fn bearer(value: &HeaderValue) -> Option<&str> {
    value.to_str().ok()?.strip_prefix("Bearer ")
}

fn bears(headers: &HeaderMap) -> bool {
    headers
        .get(header::AUTHORIZATION)
        .is_some_and(|value| bearer(value).is_some())
}

/// The namespace of the request: named, else implied by the host, else the account's own.
fn namespace(ask: &Ask<'_>, account: Option<&Account>) -> Result<Namespace, WireError> {
    let named = ask
        .headers
        .get(&MICRO_NAMESPACE)
        .map(|v| v.to_str().unwrap_or("?"))
        .filter(|v| !v.is_empty())
        .or(ask.namespace);
    match named {
        Some(text) => Namespace::parse(text).map_err(|e| {
            let id = if ask.door == Door::Gateway {
                GATEWAY
            } else {
                ask.service
            };
            WireError::of(id, &e)
        }),
        None => Ok(account.map_or_else(Namespace::operator, |a| a.issuer.clone())),
    }
}

fn refused(
    refusal: Refusal,
    account: Option<&Account>,
    service: &str,
    endpoint: &str,
) -> WireError {
    match (refusal, account) {
        (Refusal::Forbidden, Some(account)) => WireError::new(
            service,
            Kind::Denied,
            format!(
                "Forbidden call made to {service}:{endpoint} by {}",
                account.id
            ),
        ),
        _ => WireError::new(
            service,
            Kind::Unauthenticated,
            format!("Unauthorized call made to {service}:{endpoint}"),
        ),
    }
}

fn not_found(ask: &Ask<'_>) -> WireError {
    match ask.door {
        Door::Gateway => WireError::new(GATEWAY, Kind::NotFound, "service not found"),
        _ if ask.service.is_empty() => {
            WireError::new("go.micro.proxy", Kind::Invalid, "service name is blank")
        }
        // Micro answers 500 here and its clients read the text.
        _ => WireError::new(
            SPEAKER,
            Kind::Internal,
            format!("service {}: route not found", ask.service),
        ),
    }
}
