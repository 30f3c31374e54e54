//! Calls to other services: a connection to the platform that generated clients take as their
//! channel. It adds who calls and in which namespace, and leaves the rest alone.

use std::{
    future::poll_fn,
    sync::Arc,
    task::{Context, Poll},
};

use tonic::{
    Status,
    body::Body,
    codegen::{
        BoxFuture, Service,
        http::{
            self, HeaderName, HeaderValue, Uri,
            header::AUTHORIZATION,
            uri::{Parts, PathAndQuery},
        },
    },
};

use crate::{
    auth::Auth, blobs::Blobs, broker::Broker, config::Config, environment::Environment,
    events::Events, identity::Identity, platform::Platform, registry::Registry, store::Store,
};

const NAMESPACE: HeaderName = HeaderName::from_static("micro-namespace");
/// `UNAUTHENTICATED` in the header `grpc-status`.
const UNAUTHENTICATED: &str = "16";

/// The way to every service of the namespace. Give it to a generated client; clones are cheap and
/// share one connection and one token.
///
/// ```ignore
/// let mut greeter = GreeterClient::new(micro_sdk::mesh());
/// let answer = greeter.hello(HelloRequest { name: "Alice".into() }).await?;
/// ```
///
/// The platform finds the service by the full name of the client's proto service. Nothing is
/// connected before the first call, and a broken connection is made again by the next one.
/// An `authorization` or `micro-namespace` header that the request has already is kept.
#[derive(Debug, Clone)]
pub struct Mesh {
    shared: Arc<Shared>,
    service: Option<Arc<str>>,
}

#[derive(Debug)]
struct Shared {
    platform: Platform,
    identity: Identity,
    namespace: Option<HeaderValue>,
}

/// The way to the services of this service's namespace, as its environment says.
pub fn mesh() -> Mesh {
    Mesh::new(&Environment::of_process())
}

/// The way to the service registered as `service`, whatever the package of its proto is called.
///
/// ```ignore
/// let mut second = HelloworldClient::new(micro_sdk::client("helloworld-second"));
/// ```
pub fn client(service: impl Into<String>) -> Mesh {
    mesh().to(service)
}

impl Mesh {
    pub(crate) fn new(environment: &Environment) -> Self {
        let namespace = environment.namespace.clone();
        Self {
            shared: Arc::new(Shared {
                platform: Platform::new(environment.platform.clone()),
                namespace: HeaderValue::try_from(&namespace).ok(),
                identity: Identity::new(environment.credentials.clone(), namespace),
            }),
            service: None,
        }
    }

    /// The same way, to the service registered as `service`.
    #[must_use]
    pub fn to(&self, service: impl Into<String>) -> Self {
        Self {
            shared: self.shared.clone(),
            service: Some(service.into().into()),
        }
    }

    /// The settings of the namespace.
    ///
    /// ```no_run
    /// let config = micro_sdk::mesh().config();
    /// ```
    #[must_use]
    pub fn config(&self) -> Config {
        Config::new(self.platform())
    }

    /// The records of the namespace.
    ///
    /// ```no_run
    /// let store = micro_sdk::mesh().store();
    /// ```
    #[must_use]
    pub fn store(&self) -> Store {
        Store::new(self.platform())
    }

    /// The large values of the namespace.
    ///
    /// ```no_run
    /// let blobs = micro_sdk::mesh().blobs();
    /// ```
    #[must_use]
    pub fn blobs(&self) -> Blobs {
        Blobs::new(self.platform())
    }

    /// The streams of events of the namespace.
    ///
    /// ```no_run
    /// let events = micro_sdk::mesh().events();
    /// ```
    #[must_use]
    pub fn events(&self) -> Events {
        Events::new(self.platform())
    }

    /// Messages to whoever listens now.
    ///
    /// ```no_run
    /// let broker = micro_sdk::mesh().broker();
    /// ```
    #[must_use]
    pub fn broker(&self) -> Broker {
        Broker::new(self.platform())
    }

    /// Who calls, and who this service is.
    ///
    /// ```no_run
    /// let auth = micro_sdk::mesh().auth();
    /// ```
    #[must_use]
    pub fn auth(&self) -> Auth {
        Auth::new(self.platform())
    }

    /// Which services there are.
    ///
    /// ```no_run
    /// let registry = micro_sdk::mesh().registry();
    /// ```
    #[must_use]
    pub fn registry(&self) -> Registry {
        Registry::new(self.platform())
    }

    /// The way to the built-in services, whichever service this is the way to.
    fn platform(&self) -> Self {
        Self {
            shared: self.shared.clone(),
            service: None,
        }
    }

    /// The value of `authorization` that calls carry; `None` without credentials.
    pub(crate) async fn token(&self) -> Result<Option<HeaderValue>, Status> {
        self.shared.identity.header(&self.shared.platform).await
    }

    /// `host:port` of the platform.
    pub(crate) fn address(&self) -> &str {
        self.shared.platform.address()
    }

    /// Whether calls carry no token, because there are no credentials.
    pub(crate) fn is_anonymous(&self) -> bool {
        self.shared.identity.is_anonymous()
    }
}

impl Service<http::Request<Body>> for Mesh {
    type Response = http::Response<Body>;
    type Error = Status;
    type Future = BoxFuture<Self::Response, Status>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Status>> {
        // The connection is made, and waited for, in the call.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        let shared = self.shared.clone();
        let service = self.service.clone();
        Box::pin(async move {
            if let Some(service) = service {
                *request.uri_mut() = readdress(request.uri(), &service)?;
            }
            shared.send(request).await
        })
    }
}

impl Shared {
    async fn send(&self, mut request: http::Request<Body>) -> Result<http::Response<Body>, Status> {
        let mut channel = self.platform.channel()?;
        let mut token = None;
        if !request.headers().contains_key(AUTHORIZATION) {
            token = self.identity.header(&self.platform).await?;
        }
        let headers = request.headers_mut();
        if let Some(token) = &token {
            headers.insert(AUTHORIZATION, token.clone());
        }
        if let Some(namespace) = &self.namespace {
            headers
                .entry(NAMESPACE)
                .or_insert_with(|| namespace.clone());
        }
        poll_fn(|context| channel.poll_ready(context))
            .await
            .map_err(|error| self.platform.unreachable(&error))?;
        let response = channel
            .call(request)
            .await
            .map_err(|error| self.platform.unreachable(&error))?;
        // A refusal comes without a body, its status in the headers.
        if let Some(token) = token
            && let Some(status) = response.headers().get(Status::GRPC_STATUS)
            && status == UNAUTHENTICATED
        {
            self.identity.refused(&token);
        }
        Ok(response)
    }
}

/// `/package.Struct/Method` as `/service.Struct/Method`, which is how Micro names a service in a path.
fn readdress(uri: &Uri, service: &str) -> Result<Uri, Status> {
    let path = uri.path();
    let parts = path.strip_prefix('/').and_then(|path| path.split_once('/'));
    let Some((full_name, method)) = parts else {
        return Err(Status::internal(format!("{path:?} is no gRPC path")));
    };
    let name = full_name.rsplit('.').next().unwrap_or(full_name);
    let path = PathAndQuery::try_from(format!("/{service}.{name}/{method}"));
    let path = path.map_err(|_| {
        Status::invalid_argument(format!(
            "{service:?} is no service name; use the name that `micro services` shows"
        ))
    })?;
    let mut parts: Parts = uri.clone().into_parts();
    parts.path_and_query = Some(path);
    Uri::from_parts(parts).map_err(|error| Status::internal(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_is_named_in_the_path() {
        let to = |uri: &'static str, service: &str| {
            readdress(&Uri::from_static(uri), service).map(|uri| uri.to_string())
        };
        assert_eq!(
            to("/helloworld.Helloworld/Call", "second").unwrap(),
            "/second.Helloworld/Call"
        );
        assert_eq!(
            to("http://h:1/hello.v1.Greeter/Say", "v1.foo").unwrap(),
            "http://h:1/v1.foo.Greeter/Say"
        );
        assert!(to("/helloworld.Helloworld/Call", "no such").is_err());
        assert!(to("/", "second").is_err());
    }
}
