//! Source to running: fetches or takes a source, builds it behind fences, keeps the result as a
//! numbered release, runs instances of it and keeps them running; and the gRPC services of Micro's
//! `runtime` (`Runtime`, `Source`, `Build`) in front of that.
//!
//! | file | owns |
//! |---|---|
//! | `ports.rs` | what the assembly plugs in: [`Directory`], [`Credentials`], [`Doors`] |
//! | `source.rs` | unpacking hostile archives, checking foreign trees |
//! | `git.rs` | repository addresses and fetching |
//! | `manifest.rs`, `detect.rs`, `plan.rs` | what a source is, how it is built, what is started |
//! | `build.rs` | a build job in the sandbox |
//! | `release.rs` | content-addressed artifacts |
//! | `instance.rs`, `health.rs` | one running copy; whether and how it serves |
//! | `deploy.rs` | the steps of a deployment, old release serving until the new one does |
//! | `reconcile.rs` | adopting, restarting, stopping |
//! | `engine.rs`, `exits.rs`, `trees.rs` | what these share |
//! | `logs.rs` | output of instances, merged and followed |
//! | `repo.rs` | what is remembered, in SQLite |
//! | `grpc.rs` | the adapter to Micro's messages |

mod build;
mod deploy;
pub mod detect;
mod engine;
mod error;
mod exits;
pub mod git;
mod grpc;
mod health;
mod instance;
pub mod logs;
pub mod manifest;
pub mod plan;
mod ports;
mod reconcile;
pub mod release;
mod repo;
pub mod source;
mod trees;

use std::sync::Arc;

use micro_core::{Clock, Settings, StateDir};
use micro_proto::runtime::{
    build_server::BuildServer, runtime_server::RuntimeServer, source_server::SourceServer,
};
use micro_sandbox::{Event, Supervisor};
use micro_storage::Sqlite;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

pub use error::{Error, Output, PortError};
pub use grpc::Grpc;
pub use manifest::Protocol;
pub use ports::{Announcement, Credentials, Directory, Doors};

use engine::Engine;

/// What the runtime is made of.
pub struct Parts {
    /// Effective settings.
    pub settings: Settings,
    /// Where everything lies.
    pub state: StateDir,
    /// What is remembered.
    pub sqlite: Sqlite,
    /// Who runs processes.
    pub supervisor: Supervisor,
    /// What the supervisor says on its own.
    pub events: mpsc::UnboundedReceiver<Event>,
    /// Who is told where instances serve.
    pub directory: Arc<dyn Directory>,
    /// Who gives services their accounts.
    pub credentials: Arc<dyn Credentials>,
    /// Where the node listens.
    pub doors: Doors,
    /// The time.
    pub clock: Clock,
    /// Fences this host lacks.
    pub missing: Vec<String>,
}

/// The runtime of a node.
#[derive(Clone)]
pub struct Service {
    engine: Arc<Engine>,
}

impl Service {
    /// Opens the tables and begins to listen to the supervisor. Everything long-lived runs on the
    /// tokio runtime that this is called on, whoever calls the gRPC services later.
    ///
    /// # Errors
    /// When the database or the state directory cannot be used.
    pub async fn open(parts: Parts) -> Result<Self, Error> {
        let engine = Engine::open(parts).await?;
        Ok(Self { engine })
    }

    fn grpc(&self) -> Grpc {
        Grpc::new(Arc::clone(&self.engine))
    }

    /// `runtime.Runtime`.
    pub fn runtime_server(&self) -> RuntimeServer<Grpc> {
        RuntimeServer::new(self.grpc())
    }

    /// `runtime.Source`.
    pub fn source_server(&self) -> SourceServer<Grpc> {
        SourceServer::new(self.grpc()).max_decoding_message_size(grpc::MAX_CHUNK)
    }

    /// `runtime.Build`.
    pub fn build_server(&self) -> BuildServer<Grpc> {
        BuildServer::new(self.grpc())
    }

    /// Takes over instances that outlived the node, clears what was left half done, begins
    /// interrupted deployments again and starts what should run and does not. Returns when adopted
    /// instances are announced; starting goes on behind.
    ///
    /// # Errors
    /// When the supervisor or the database does not answer.
    pub async fn restore(&self) -> Result<(), Error> {
        self.engine.restore().await
    }

    /// Keeps services as they should be until `stop`.
    pub async fn run(&self, stop: CancellationToken) {
        Arc::clone(&self.engine).reconcile(stop).await;
    }
}
