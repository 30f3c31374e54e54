//! Micro's `Runtime`, `Source` and `Build` over the engine: names are checked, callers authorised,
//! messages translated. Long work is spawned on the control plane's runtime, because a request may
//! be polled on a door's own.

mod logs;
mod upload;

use std::{collections::BTreeMap, pin::Pin, sync::Arc};

use futures_util::Stream;
use micro_core::{Caller, Fault as _, Kind, Namespace};
use micro_proto::{
    runtime::{
        self as wire, build_server::Build, deploy_event::Event, runtime_server::Runtime,
        source_server::Source,
    },
    status,
};
use tokio::sync::mpsc;
use tokio_stream::{StreamExt as _, wrappers::ReceiverStream};
use tonic::{Request, Response, Status, Streaming};

use crate::{
    deploy::{Deployed, Progress, Reporter, Request as Deployment},
    engine::Engine,
    error::Error,
    manifest::Protocol,
    repo::{Key, Options, ServiceRow, Status as State},
};

/// Most bytes of one message of an upload.
pub(crate) const MAX_CHUNK: usize = 16 << 20;
/// Messages of a deployment that may wait for a slow reader.
const BACKLOG: usize = 4096;

type BoxStream<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// The adapter.
#[derive(Clone)]
pub struct Grpc {
    engine: Arc<Engine>,
}

/// The status for `error`; what is our fault goes to the log too.
fn refuse(id: &'static str) -> impl Fn(Error) -> Status + Copy {
    move |error| {
        if error.kind() == Kind::Internal {
            let cause = std::error::Error::source(&error).map(ToString::to_string);
            tracing::error!(%error, cause, method = id, "A request failed.");
        }
        status::of(id, &error)
    }
}

fn caller<T>(request: &Request<T>) -> Caller {
    request
        .extensions()
        .get::<Caller>()
        .cloned()
        .unwrap_or_else(|| Caller::anonymous(Namespace::operator()))
}

/// The namespace a request names, or the caller's.
fn namespace(caller: &Caller, named: &str) -> Result<Namespace, Error> {
    if named.is_empty() {
        Ok(caller.namespace.clone())
    } else {
        Ok(named.parse()?)
    }
}

/// Where a caller's uploads are: its own namespace, unless the operator acts for another.
fn own_namespace(caller: &Caller) -> Result<Namespace, Error> {
    let account = caller.account()?;
    Ok(if account.is_operator() {
        caller.namespace.clone()
    } else {
        account.issuer.clone()
    })
}

fn key(namespace: Namespace, name: &str, version: &str) -> Result<Key, Error> {
    Ok(Key {
        namespace,
        name: name.parse()?,
        version: if version.is_empty() {
            "latest"
        } else {
            version
        }
        .parse()?,
    })
}

fn options(sent: wire::CreateOptions) -> Result<Options, Error> {
    let mut env = BTreeMap::new();
    for pair in sent.env {
        let Some((name, value)) = pair.split_once('=') else {
            return Err(Error::Option {
                what: "variable",
                value: pair,
                reason: "write it as NAME=value".into(),
            });
        };
        env.insert(name.to_owned(), value.to_owned());
    }
    let words = |list: Vec<String>| list.into_iter().filter(|w| !w.is_empty()).collect();
    Ok(Options {
        command: words(sent.command),
        args: words(sent.args),
        env,
        secrets: sent.secrets.into_iter().collect(),
        entrypoint: sent.entrypoint,
        instances: u32::try_from(sent.instances.max(0)).unwrap_or(u32::MAX),
    })
}

/// A deployment asked for by `caller`, who may.
fn deployment(
    caller: &Caller,
    service: wire::Service,
    sent: wire::CreateOptions,
    update: bool,
) -> Result<Deployment, Error> {
    let namespace = namespace(caller, &sent.namespace)?;
    let account = Arc::clone(caller.authorize_admin(&namespace)?);
    Ok(Deployment {
        key: key(namespace, &service.name, &service.version)?,
        source: service.source,
        options: options(sent)?,
        metadata: service.metadata.into_iter().collect(),
        owner: if account.name.is_empty() {
            account.id.to_string()
        } else {
            account.name.clone()
        },
        group: account.issuer.to_string(),
        uploader: own_namespace(caller)?,
        operator: account.is_operator(),
        update,
    })
}

impl Grpc {
    pub(crate) fn new(engine: Arc<Engine>) -> Self {
        Self { engine }
    }

    /// Fetches and goes on behind: what Micro's `Create` and `Update` do.
    async fn behind(&self, deployment: Deployment) -> Result<(), Error> {
        let engine = Arc::clone(&self.engine);
        let begun = self.engine.handle.spawn(async move {
            let reporter = Reporter::default();
            let prepared = engine.prepare(deployment, &reporter).await?;
            let behind = Arc::clone(&engine);
            engine.handle.spawn(async move {
                // How it ends is in the status of the service.
                drop(behind.deploy(prepared, reporter).await);
            });
            Ok(())
        });
        begun.await?
    }

    async fn create_service(
        &self,
        caller: &Caller,
        service: wire::Service,
        sent: wire::CreateOptions,
    ) -> Result<(), Error> {
        let force = sent.force;
        let deployment = deployment(caller, service, sent, false)?;
        let known = self.engine.repo.service(deployment.key.clone()).await?;
        if known.is_some_and(|row| row.status != State::Error) && !force {
            return Ok(());
        }
        self.behind(deployment).await
    }

    async fn list(
        &self,
        caller: &Caller,
        sent: wire::ReadOptions,
    ) -> Result<Vec<wire::Service>, Error> {
        let namespace = namespace(caller, &sent.namespace)?;
        caller.authorize(&namespace)?;
        let rows = self.engine.repo.services(Some(namespace)).await?;
        let mut services = Vec::new();
        for row in rows {
            let named = sent.service.is_empty() || sent.service == row.key.name.as_str();
            let versioned = sent.version.is_empty() || sent.version == row.key.version.as_str();
            if named && versioned {
                services.push(self.shown(row).await?);
            }
        }
        Ok(services)
    }

    /// A service as Micro's clients read it (contract §8.3).
    async fn shown(&self, row: ServiceRow) -> Result<wire::Service, Error> {
        let slot = self.engine.slot(&row.key);
        let (state, pids, started, retries) = {
            let live = slot.live();
            let pids: Vec<String> = live.instances.iter().map(|i| i.pid.to_string()).collect();
            let started = live.instances.iter().map(|i| i.started).max();
            let stored = match row.status {
                // After a start of the node, until it has been started again.
                State::Running if pids.is_empty() => State::Starting,
                status => status,
            };
            (live.phase.unwrap_or(stored), pids, started, live.retries)
        };
        let mut metadata: BTreeMap<String, String> = row.metadata;
        let mut put = |name: &str, value: String| {
            metadata.insert(name.to_owned(), value);
        };
        put("owner", row.owner);
        put("group", row.group);
        put("started", started.unwrap_or(row.updated).rfc3339());
        put("lastStatusUpdate", row.updated.rfc3339());
        put("status", state.word().to_owned());
        put("retries", retries.to_string());
        put("instances", pids.len().to_string());
        if !pids.is_empty() {
            put("pid", pids.join(","));
        }
        if !row.error.is_empty() {
            put("error", row.error);
        }
        if let Some(number) = row.release {
            put("release", number.to_string());
            if let Some(release) = self.engine.repo.release(row.key.clone(), number).await? {
                let short = release.digest.get(..12).unwrap_or(&release.digest);
                put("build", short.to_owned());
            }
        }
        Ok(wire::Service {
            name: row.key.name.to_string(),
            version: row.key.version.to_string(),
            source: row.source,
            metadata: metadata.into_iter().collect(),
            status: state as i32,
        })
    }

    fn deployed(&self, deployed: &Deployed) -> wire::Deployed {
        let doors = &self.engine.doors;
        let (host, port) = (doors.gateway.ip(), doors.gateway.port());
        let host = if host.is_unspecified() {
            doors.domain.clone()
        } else if host.is_ipv6() {
            format!("[{host}]")
        } else {
            host.to_string()
        };
        wire::Deployed {
            name: deployed.key.name.to_string(),
            version: deployed.key.version.to_string(),
            release: deployed.release,
            protocol: deployed.protocol.unwrap_or(Protocol::Grpc).as_str().into(),
            url: format!("http://{host}:{port}/{}", deployed.key.name),
            missing_isolation: self.engine.missing.clone(),
        }
    }
}

#[tonic::async_trait]
impl Runtime for Grpc {
    async fn create(
        &self,
        request: Request<wire::CreateRequest>,
    ) -> Result<Response<wire::CreateResponse>, Status> {
        let refuse = refuse("runtime.Runtime.Create");
        let caller = caller(&request);
        let sent = request.into_inner();
        let options = sent.options.unwrap_or_default();
        let resource = sent.resource.unwrap_or_default();
        match resource.service {
            Some(service) => self
                .create_service(&caller, service, options)
                .await
                .map_err(refuse)?,
            None => other_resource(&caller, &resource, &options.namespace).map_err(refuse)?,
        }
        Ok(Response::new(wire::CreateResponse {}))
    }

    async fn read(
        &self,
        request: Request<wire::ReadRequest>,
    ) -> Result<Response<wire::ReadResponse>, Status> {
        let caller = caller(&request);
        let sent = request.into_inner().options.unwrap_or_default();
        let services = self
            .list(&caller, sent)
            .await
            .map_err(refuse("runtime.Runtime.Read"))?;
        Ok(Response::new(wire::ReadResponse { services }))
    }

    async fn update(
        &self,
        request: Request<wire::UpdateRequest>,
    ) -> Result<Response<wire::UpdateResponse>, Status> {
        let refuse = refuse("runtime.Runtime.Update");
        let caller = caller(&request);
        let sent = request.into_inner();
        let options = sent.options.unwrap_or_default();
        let resource = sent.resource.unwrap_or_default();
        let Some(service) = resource.service else {
            other_resource(&caller, &resource, &options.namespace).map_err(refuse)?;
            return Ok(Response::new(wire::UpdateResponse {}));
        };
        let options = wire::CreateOptions {
            namespace: options.namespace,
            entrypoint: options.entrypoint,
            instances: options.instances,
            ..wire::CreateOptions::default()
        };
        let deployment = deployment(&caller, service, options, true).map_err(refuse)?;
        self.behind(deployment).await.map_err(refuse)?;
        Ok(Response::new(wire::UpdateResponse {}))
    }

    async fn delete(
        &self,
        request: Request<wire::DeleteRequest>,
    ) -> Result<Response<wire::DeleteResponse>, Status> {
        let refuse = refuse("runtime.Runtime.Delete");
        let caller = caller(&request);
        let sent = request.into_inner();
        let named = sent.options.unwrap_or_default().namespace;
        let resource = sent.resource.unwrap_or_default();
        let Some(service) = resource.service else {
            other_resource(&caller, &resource, &named).map_err(refuse)?;
            return Ok(Response::new(wire::DeleteResponse {}));
        };
        let target = namespace(&caller, &named)
            .and_then(|ns| {
                caller.authorize_admin(&ns)?;
                key(ns, &service.name, &service.version)
            })
            .map_err(refuse)?;
        let engine = Arc::clone(&self.engine);
        let work = self
            .engine
            .handle
            .spawn(async move { engine.delete(&target).await });
        work.await.map_err(|e| refuse(e.into()))?.map_err(refuse)?;
        Ok(Response::new(wire::DeleteResponse {}))
    }

    type LogsStream = BoxStream<wire::LogRecord>;

    async fn logs(
        &self,
        request: Request<Streaming<wire::LogsRequest>>,
    ) -> Result<Response<Self::LogsStream>, Status> {
        let refuse = refuse("runtime.Runtime.Logs");
        let (caller, sent) = first(request, refuse).await?;
        let stream = self.open_logs(&caller, sent).await.map_err(refuse)?;
        Ok(Response::new(Box::pin(ReceiverStream::new(stream).map(Ok))))
    }

    type DeployStream = BoxStream<wire::DeployEvent>;

    async fn deploy(
        &self,
        request: Request<wire::DeployRequest>,
    ) -> Result<Response<Self::DeployStream>, Status> {
        let refuse = refuse("runtime.Runtime.Deploy");
        let caller = caller(&request);
        let sent = request.into_inner();
        let service = sent.service.ok_or_else(|| refuse(Error::NoServiceSent))?;
        let options = sent.options.unwrap_or_default();
        let deployment = deployment(&caller, service, options, sent.update).map_err(refuse)?;
        let (progress, mut steps) = mpsc::channel(BACKLOG);
        let (events, stream) = mpsc::channel(64);
        let engine = Arc::clone(&self.engine);
        let work = self.engine.handle.spawn(async move {
            let reporter = Reporter::new(progress);
            let prepared = engine.prepare(deployment, &reporter).await?;
            engine.deploy(prepared, reporter).await
        });
        let this = self.clone();
        self.engine.handle.spawn(async move {
            let event = |event| Ok(wire::DeployEvent { event: Some(event) });
            while let Some(step) = steps.recv().await {
                let step = match step {
                    Progress::Phase(text) => Event::Phase(text),
                    Progress::Line(text) => Event::Line(text),
                };
                if events.send(event(step)).await.is_err() {
                    return; // Nobody reads any more; the deployment goes on.
                }
            }
            let end = match work.await.map_err(Error::from).and_then(|r| r) {
                Ok(deployed) => event(Event::Deployed(this.deployed(&deployed))),
                Err(error) => Err(refuse(error)),
            };
            drop(events.send(end).await);
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }
}

/// Who asks, and what. Micro's clients do not close their side; the first message is all there is to
/// wait for.
async fn first<T>(
    request: Request<Streaming<T>>,
    refuse: impl FnOnce(Error) -> Status,
) -> Result<(Caller, T), Status> {
    let caller = caller(&request);
    let sent = request.into_inner().message().await?;
    Ok((caller, sent.ok_or_else(|| refuse(Error::NoServiceSent))?))
}

/// Namespaces, network policies and quotas are taken and have no effect, as on Micro's own local
/// runtime.
fn other_resource(caller: &Caller, resource: &wire::Resource, named: &str) -> Result<(), Error> {
    if resource.namespace.is_none()
        && resource.networkpolicy.is_none()
        && resource.resourcequota.is_none()
    {
        return Err(Error::BlankResource);
    }
    let namespace = namespace(caller, named)?;
    caller.authorize_admin(&namespace)?;
    Ok(())
}

#[tonic::async_trait]
impl Source for Grpc {
    async fn upload(
        &self,
        request: Request<Streaming<wire::UploadRequest>>,
    ) -> Result<Response<wire::UploadResponse>, Status> {
        let refuse = refuse("runtime.Source.Upload");
        let caller = caller(&request);
        let mut messages = request.into_inner();
        if caller.account.is_none() {
            return Err(refuse(Error::UploadNeedsAccount));
        }
        let first = messages
            .message()
            .await?
            .ok_or_else(|| refuse(Error::NoServiceSent))?;
        let id = self
            .take_upload(&caller, first, messages)
            .await
            .map_err(refuse)?;
        Ok(Response::new(wire::UploadResponse { id }))
    }
}

#[tonic::async_trait]
impl Build for Grpc {
    type ReadStream = BoxStream<wire::BuildReadResponse>;

    async fn read(
        &self,
        request: Request<Streaming<wire::Service>>,
    ) -> Result<Response<Self::ReadStream>, Status> {
        let refuse = refuse("runtime.Build.Read");
        let (caller, sent) = first(request, refuse).await?;
        let stream = self.open_build(&caller, sent).await.map_err(refuse)?;
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }
}
