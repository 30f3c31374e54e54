//! A service from start to stop: listen, serve with reflection and health, register if nobody else
//! does, and at the signal deregister, drain and return.

use std::{
    borrow::Cow,
    convert::Infallible,
    fmt,
    future::{Future, pending},
    io::Write as _,
    pin::{Pin, pin},
    time::Duration,
};

use prost::Message as _;
use prost_types::FileDescriptorSet;
use tokio::{
    net::TcpListener,
    signal::unix::{Signal, SignalKind, signal},
    sync::oneshot,
    time::timeout,
};
use tonic::{
    codegen::{Body, Bytes, Service as HttpService, StdError, http},
    server::NamedService,
    service::{Routes, RoutesBuilder},
    transport::{Server, server::TcpIncoming},
};
use tonic_health::{ServingStatus, server::HealthReporter};

use crate::{
    endpoints,
    environment::Environment,
    error::Error,
    mesh::Mesh,
    registration::{self, Registration},
};

/// The name of tonic-health's own service, which reflection lists with the rest.
const HEALTH: &str = "grpc.health.v1.Health";
/// One connection of the platform carries the calls of all its callers.
const MAX_CONCURRENT_STREAMS: u32 = 4096;

/// A service: a name, tonic services, and what the platform needs of them.
///
/// ```no_run
/// # async fn example() -> Result<(), micro_sdk::Error> {
/// micro_sdk::Service::new("helloworld")
///     // .descriptors(helloworld::FILE_DESCRIPTOR_SET)
///     // .add(HelloworldServer::new(MyHelloworld))
///     .run()
///     .await
/// # }
/// ```
#[must_use = "a service does nothing until it is run"]
pub struct Service {
    name: String,
    version: Option<String>,
    drain: Duration,
    beat: Duration,
    descriptors: Vec<Cow<'static, [u8]>>,
    served: Vec<&'static str>,
    routes: RoutesBuilder,
}

impl fmt::Debug for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Service")
            .field("name", &self.name)
            .field("served", &self.served)
            .finish_non_exhaustive()
    }
}

impl Service {
    /// A service that is called `name`.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            version: None,
            drain: Duration::from_secs(10),
            beat: registration::BEAT,
            descriptors: Vec::new(),
            served: Vec::new(),
            routes: RoutesBuilder::default(),
        }
    }

    /// The version it registers; without, `MICRO_SERVICE_VERSION` or `latest`.
    pub fn version(mut self, version: impl Into<String>) -> Self {
        self.version = Some(version.into());
        self
    }

    /// How long a stop waits for calls in flight; 10 seconds unless set.
    pub fn drain(mut self, limit: Duration) -> Self {
        self.drain = limit;
        self
    }

    /// Descriptors of the added services, for reflection: the `FILE_DESCRIPTOR_SET` that
    /// [`include_proto!`](crate::include_proto) defines. It may describe more than is served.
    pub fn descriptors(mut self, set: impl Into<Cow<'static, [u8]>>) -> Self {
        self.descriptors.push(set.into());
        self
    }

    /// Adds a tonic service, such as `HelloworldServer::new(…)`.
    // Named as people say it; a service is no number.
    #[expect(clippy::should_implement_trait, reason = "this adds to the service")]
    pub fn add<S, B>(mut self, service: S) -> Self
    where
        S: HttpService<
                http::Request<tonic::body::Body>,
                Response = http::Response<B>,
                Error = Infallible,
            > + NamedService
            + Clone
            + Send
            + Sync
            + 'static,
        S::Future: Send + 'static,
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<StdError>,
    {
        self.served.push(S::NAME);
        self.routes.add_service(service);
        self
    }

    /// Serves until SIGTERM or SIGINT, then deregisters, lets calls in flight finish and returns. A
    /// second signal ends the waiting.
    ///
    /// # Errors
    /// When it cannot listen, or was given bytes that are no descriptors.
    pub async fn run(self) -> Result<(), Error> {
        let signals = Signals::new().map_err(|source| Error::Signals { source })?;
        self.serve(Environment::of_process(), Stop::Signals(signals))
            .await
    }

    /// As [`run`](Self::run), until `stop` is ready instead of a signal.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub async fn run_until(
        self,
        stop: impl Future<Output = ()> + Send + 'static,
    ) -> Result<(), Error> {
        self.serve(Environment::of_process(), Stop::When(Box::pin(stop)))
            .await
    }

    async fn serve(self, environment: Environment, stop: Stop) -> Result<(), Error> {
        let address = environment.listen_address()?;
        match TcpListener::bind(&address).await {
            Ok(listener) => self.serve_on(listener, environment, stop).await,
            Err(source) => Err(Error::Listen { address, source }),
        }
    }

    async fn serve_on(
        self,
        listener: TcpListener,
        environment: Environment,
        mut stop: Stop,
    ) -> Result<(), Error> {
        let (routes, mut health) = self.routes().await?;
        let bound = listener.local_addr().map_err(|source| Error::Listen {
            address: "the socket".to_owned(),
            source,
        })?;
        say(&format!("{} listens on {bound}", self.name));

        let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
        let (drain, drained) = oneshot::channel::<()>();
        let mut server = pin!(
            Server::builder()
                .max_concurrent_streams(MAX_CONCURRENT_STREAMS)
                .add_routes(routes)
                .serve_with_incoming_shutdown(incoming, async {
                    // Sent or dropped, it is time.
                    drained.await.ok();
                })
        );

        let registration = self.registration(&environment, bound).await?;
        let keep = async {
            match &registration {
                Some(registration) => registration.keep().await,
                None => pending().await,
            }
        };
        tokio::select! {
            result = &mut server => return result.map_err(|source| Error::Serve { source }),
            () = keep => {}
            () = stop.first() => {}
        }

        // No new callers first, then nobody is turned away.
        let withdraw = async {
            if let Some(registration) = &registration {
                registration.withdraw().await;
            }
            close(&mut health, &self.served).await;
        };
        tokio::select! {
            result = &mut server => return result.map_err(|source| Error::Serve { source }),
            () = withdraw => {}
            () = stop.again() => {}
        }
        drain.send(()).ok();
        tokio::select! {
            result = timeout(self.drain, server) => match result {
                Ok(result) => result.map_err(|source| Error::Serve { source })?,
                Err(_) => say(&format!(
                    "{} stops with calls still in flight after {} seconds",
                    self.name,
                    self.drain.as_secs()
                )),
            },
            () = stop.again() => say(&format!("{} stops at once", self.name)),
        }
        say(&format!("{} has stopped", self.name));
        Ok(())
    }

    /// Everything that is served, health and reflection included.
    async fn routes(&self) -> Result<(Routes, HealthReporter), Error> {
        let (reporter, health) = tonic_health::server::health_reporter();
        for name in &self.served {
            reporter
                .set_service_status(name, ServingStatus::Serving)
                .await;
        }
        // Only what is served here is listed: the platform would send the rest here, too.
        let builder = || {
            let mut builder = tonic_reflection::server::Builder::configure()
                .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
                .with_service_name(HEALTH);
            for set in &self.descriptors {
                builder = builder.register_encoded_file_descriptor_set(set);
            }
            for name in &self.served {
                builder = builder.with_service_name(*name);
            }
            builder
        };
        let invalid = |source| Error::Descriptors { source };
        let v1 = builder()
            .with_service_name("grpc.reflection.v1.ServerReflection")
            .build_v1()
            .map_err(invalid)?;
        let v1alpha = builder()
            .with_service_name("grpc.reflection.v1alpha.ServerReflection")
            .build_v1alpha()
            .map_err(invalid)?;
        let mut routes = self.routes.clone();
        routes
            .add_service(health)
            .add_service(v1)
            .add_service(v1alpha);
        Ok((routes.routes(), reporter))
    }

    /// The registration, where it is this process's own to make.
    async fn registration(
        &self,
        environment: &Environment,
        address: std::net::SocketAddr,
    ) -> Result<Option<Registration>, Error> {
        let mut sets = Vec::new();
        for bytes in &self.descriptors {
            let set = FileDescriptorSet::decode(bytes.as_ref());
            sets.push(set.map_err(|error| Error::Descriptors {
                source: error.into(),
            })?);
        }
        self.warn_of_missing_descriptors(&sets);
        if environment.managed {
            return Ok(None);
        }
        let mesh = Mesh::new(environment);
        if mesh.is_anonymous() {
            say(&format!(
                "{} is not registered, so it can be called at its address only: \
                 set MICRO_CLIENT_ID and MICRO_CLIENT_SECRET to an account of the platform \
                 (and MICRO_PROXY, if that is not at {}), or start it with `micro run`",
                self.name,
                mesh.address()
            ));
            return Ok(None);
        }
        let version = self.version.as_deref().or(environment.version.as_deref());
        let registration = Registration::new(
            &self.name,
            version.unwrap_or("latest"),
            &environment.namespace,
            address,
            endpoints::of(&sets, &self.served),
            mesh,
        );
        Ok(Some(registration.await.with_beat(self.beat)))
    }

    /// A service without descriptors runs, but nobody can call it with JSON or by the CLI; tell why.
    fn warn_of_missing_descriptors(&self, sets: &[FileDescriptorSet]) {
        for name in &self.served {
            let (package, short) = name.rsplit_once('.').unwrap_or(("", name));
            let described = sets.iter().flat_map(|set| &set.file).any(|file| {
                file.package() == package && file.service.iter().any(|s| s.name() == short)
            });
            if !described {
                say(&format!(
                    "{name} has no descriptors: add .descriptors(FILE_DESCRIPTOR_SET), \
                     which include_proto! defines, so that the CLI and HTTP can call it"
                ));
            }
        }
    }
}

/// Ends the health service: who watches it is told, and let go, because a watch would keep the
/// service from draining.
async fn close(health: &mut HealthReporter, served: &[&'static str]) {
    for name in served.iter().chain([&""]) {
        health
            .set_service_status(name, ServingStatus::NotServing)
            .await;
        health.clear_service_status(name).await;
        health
            .set_service_status(name, ServingStatus::NotServing)
            .await;
    }
}

/// A line on standard error, which the platform keeps as the service's log. A closed one is no
/// reason to stop.
pub(crate) fn say(line: &str) {
    writeln!(std::io::stderr().lock(), "{line}").ok();
}

/// What ends a service.
enum Stop {
    Signals(Signals),
    When(Pin<Box<dyn Future<Output = ()> + Send>>),
}

impl Stop {
    async fn first(&mut self) {
        match self {
            Self::Signals(signals) => signals.next().await,
            Self::When(stop) => stop.await,
        }
    }

    /// The wish not to wait any longer; only people have it.
    async fn again(&mut self) {
        match self {
            Self::Signals(signals) => signals.next().await,
            Self::When(_) => pending().await,
        }
    }
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

#[cfg(test)]
mod tests;
