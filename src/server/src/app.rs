//! The node, from start to stop, in the order in which things depend on each other. Nowhere else
//! is a service constructed.

use std::{net::SocketAddr, sync::Arc};

use micro_auth as auth;
use micro_config as config;
use micro_core::{Clock, Fault, Kind, Settings, StateDir, settings::DefaultAccount};
use micro_pipeline::{Pipeline, Router};
use micro_registry as registry;
use micro_runtime as runtime;
use micro_sandbox::{Hello, Supervisor};
use micro_storage::{Sqlite, Storage};
use micro_store as store;
use tokio_util::sync::CancellationToken;

use crate::{
    admin::{self, Readiness},
    banner::{self, Addresses, FirstAccess},
    builtins, doors, idle, ports, routes,
    shutdown::{self, Stage},
    telemetry,
};

/// What the CLI calls itself, and `GET /` answers.
pub(crate) const VERSION: &str = concat!("v", env!("CARGO_PKG_VERSION"));

/// Why the node cannot run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The supervisor does not answer.
    #[error("cannot talk to the supervisor")]
    Supervisor(#[from] micro_sandbox::Error),
    /// The databases.
    #[error("cannot open the state directory")]
    Storage(#[from] micro_storage::Error),
    /// Accounts or keys.
    #[error("cannot start auth")]
    Auth(#[from] auth::Error),
    /// Registrations.
    #[error("cannot start the registry")]
    Registry(#[from] registry::Error),
    /// Records and blobs.
    #[error("cannot start the store")]
    Store(#[from] store::Error),
    /// Services and releases.
    #[error("cannot start the runtime")]
    Runtime(#[from] runtime::Error),
    /// Our own descriptors.
    #[error("the built-in services have a broken schema")]
    Schema(#[from] micro_schema::Error),
    /// Threads, runtimes, signals.
    #[error("the operating system refused a thread or a socket")]
    Os(#[from] std::io::Error),
    /// The supervisor handed over no listener for a door.
    #[error("the supervisor handed over no listener for the {0} door")]
    NoListener(&'static str),
}

impl Fault for Error {
    fn kind(&self) -> Kind {
        Kind::Internal
    }
}

/// Runs the node until it is told to stop.
pub(crate) fn run() -> Result<(), Error> {
    // One worker: the control plane waits more than it works, and each thread costs memory.
    let control = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .max_blocking_threads(16)
        .enable_all()
        .build()?;
    let outcome = control.block_on(serve());
    control.shutdown_timeout(std::time::Duration::from_secs(1));
    outcome
}

async fn serve() -> Result<(), Error> {
    // What the supervisor gives: settings, sockets, and what this host can fence.
    let (supervisor, hello, events) = Supervisor::connect().await?;
    let Hello {
        settings,
        mut listeners,
        missing,
        credentials,
    } = hello;
    telemetry::init(&settings.log);
    let mut take = |name: &'static str| -> Result<(SocketAddr, Vec<std::net::TcpListener>), Error> {
        let sockets: Vec<std::net::TcpListener> = listeners
            .remove(name)
            .unwrap_or_default()
            .into_iter()
            .map(Into::into)
            .collect();
        let address = sockets
            .first()
            .ok_or(Error::NoListener(name))?
            .local_addr()?;
        Ok((address, sockets))
    };
    let (gateway_address, gateway) = take("gateway")?;
    let (proxy_address, proxy) = take("proxy")?;
    let (mesh_address, mesh) = take("mesh")?;
    let (broker_address, broker) = take("broker")?;
    let (registry_address, registry_door) = take("registry")?;
    let (admin_address, admin_door) = take("admin")?;
    let addresses: Addresses = [
        ("gateway", gateway_address),
        ("proxy", proxy_address),
        ("mesh", mesh_address),
        ("broker", broker_address),
        ("registry", registry_address),
        ("admin", admin_address),
    ]
    .into();

    // Stores.
    let state = StateDir::new(&settings.server.state_dir);
    let clock = Clock::System;
    let sqlite = Sqlite::open(&state.sqlite())?;
    let quota = Some(settings.limits.state.0).filter(|bytes| *bytes > 0);
    let storage = Storage::open(
        &state.storage(),
        micro_storage::Options {
            quota,
            ..Default::default()
        },
    )?;

    // Services.
    let default_account = has_default_account(&settings, &addresses);
    let auth = auth::Service::open(
        auth::Settings { default_account },
        &sqlite,
        &state,
        clock.clone(),
    )
    .await?;
    let registry = registry::Service::open(&storage, mesh_address, clock.clone()).await?;
    let config_keys = config::KeySource::new(&state)
        .with_credential(credentials.get(config::KeySource::CREDENTIAL));
    let config = config::Service::open(&storage, config_keys, clock.clone());
    let store = store::Service::open(store::Settings::default(), &storage, clock.clone()).await?;
    let streams = micro_events::Service::open(&storage, clock.clone());
    let runtime = runtime::Service::open(runtime::Parts {
        settings: settings.clone(),
        state: state.clone(),
        sqlite: sqlite.clone(),
        supervisor: supervisor.clone(),
        events,
        directory: Arc::new(ports::Phonebook(registry.handle())),
        credentials: Arc::new(ports::Issuer(auth.handle())),
        doors: runtime::Doors {
            gateway: gateway_address,
            proxy: proxy_address,
            mesh: mesh_address,
            broker: broker_address,
            registry: registry_address,
            domain: settings.server.domain.clone(),
        },
        clock,
        missing: missing.clone(),
    })
    .await?;
    let runtime = Arc::new(runtime);

    // The pipeline, and the routes it sends requests along.
    let router = Arc::new(Router::new());
    let gatekeeper = Arc::new(ports::Gatekeeper(auth.handle()));
    let builtins = builtins::mount(&auth, &registry, &runtime, &config, &store, &streams)?;
    let pipeline = Pipeline::new(
        Arc::clone(&gatekeeper) as _,
        gatekeeper,
        Arc::clone(&router),
        builtins,
    );

    let blobs: Arc<dyn micro_gateway::PublicBlobs> = Arc::new(ports::Shelf(store.handle()));

    // Background work. Each group has its own stop, fired in the order of `shutdown::ORDER`.
    let (stop_doors, stop_runtime, stop_registry) = (
        CancellationToken::new(),
        CancellationToken::new(),
        CancellationToken::new(),
    );
    let handle = registry.handle();
    let registry_task = tokio::spawn(registry.run(stop_registry.clone()));
    let routes_task = tokio::spawn(routes::follow(handle, router, stop_registry.clone()));
    // Their watches end with the doors, which wait for the calls that are open.
    tokio::spawn(config.run(stop_doors.clone()));
    tokio::spawn(store.run(stop_doors.clone()));
    tokio::spawn(streams.run(stop_doors.clone()));

    // Doors.
    let ready = Readiness::default();
    let stop_admin = CancellationToken::new();
    let admin_thread = admin::spawn(
        admin_door,
        ready.clone(),
        Arc::clone(&pipeline),
        stop_admin.clone(),
    )?;
    let mesh = mesh
        .into_iter()
        .chain(broker)
        .chain(registry_door)
        .collect();
    let shares = doors::deal(gateway.len(), gateway, proxy, mesh);
    let gateway_settings = micro_gateway::Settings {
        version: VERSION.into(),
        domain: settings.server.domain.clone(),
        body_limit: settings.limits.body.0,
    };
    let door_threads = doors::spawn(shares, &gateway_settings, &pipeline, &blobs, &stop_doors)?;

    // Services that were running: adopted, or started again. They may call us while they start,
    // so the doors are open already.
    runtime.restore().await?;
    let reconcile = {
        let (runtime, stop) = (Arc::clone(&runtime), stop_runtime.clone());
        tokio::spawn(async move { runtime.run(stop).await })
    };

    banner::write_addresses(&state, &addresses)?;
    let access = match (auth.first_access(), default_account) {
        (Some(token), _) => FirstAccess::Token(token),
        (None, true) => FirstAccess::Default,
        (None, false) => FirstAccess::None,
    };
    banner::greet(VERSION, &addresses, &missing, &access);
    ready.set(true);
    supervisor.ready().await?;
    tokio::spawn(idle::watch(stop_doors.clone()));

    shutdown::requested().await?;
    tracing::info!("Stopping.");
    ready.set(false);
    let mut door_threads = Some(door_threads);
    let mut tasks = Some((reconcile, registry_task, routes_task));
    shutdown::run(|stage| {
        let doors = (stage == Stage::Doors)
            .then(|| door_threads.take())
            .flatten();
        let tasks = (stage == Stage::Runtime).then(|| tasks.take()).flatten();
        let (stop_doors, stop_runtime, stop_registry) = (
            stop_doors.clone(),
            stop_runtime.clone(),
            stop_registry.clone(),
        );
        let (sqlite, storage) = (sqlite.clone(), storage.clone());
        async move {
            match stage {
                Stage::Doors => {
                    stop_doors.cancel();
                    let joined = tokio::task::spawn_blocking(move || {
                        doors
                            .into_iter()
                            .flatten()
                            .for_each(|thread| drop(thread.join()));
                    });
                    drop(joined.await);
                }
                Stage::Runtime => {
                    stop_runtime.cancel();
                    if let Some((reconcile, registry, routes)) = tasks {
                        drop(reconcile.await);
                        stop_registry.cancel();
                        drop((registry.await, routes.await));
                    }
                }
                Stage::Registry => stop_registry.cancel(),
                Stage::Storage => {
                    let closed = tokio::task::spawn_blocking(move || {
                        sqlite.close();
                        storage.close();
                    });
                    drop(closed.await);
                }
            }
        }
    })
    .await;
    stop_admin.cancel();
    drop(tokio::task::spawn_blocking(move || admin_thread.join()).await);
    Ok(())
}

/// `admin`/`micro` exists only where nobody else can reach it (`default_account = "auto"`).
fn has_default_account(settings: &Settings, addresses: &Addresses) -> bool {
    settings.server.default_account == DefaultAccount::Auto
        && addresses.values().all(|a| a.ip().is_loopback())
}
