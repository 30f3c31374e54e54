//! The rows, as the rest of the runtime reads them.

use std::collections::BTreeMap;

use micro_core::{InstanceId, Namespace, ServiceName, Timestamp, Version};
use serde::{Deserialize, Serialize};

use crate::manifest::{Limits, Protocol};

/// A service: its name, its version, and whose it is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) struct Key {
    /// The tenant.
    pub(crate) namespace: Namespace,
    /// The name.
    pub(crate) name: ServiceName,
    /// The version.
    pub(crate) version: Version,
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.name, self.version)
    }
}

/// Micro's status numbers (contract §8.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Status {
    /// A deployment waits.
    Pending = 1,
    /// A build runs.
    Building = 2,
    /// Instances start.
    Starting = 3,
    /// It serves.
    Running = 4,
    /// It is being stopped.
    Stopping = 5,
    /// It does not run, and should not.
    Stopped = 6,
    /// It should run and does not.
    Error = 7,
}

impl Status {
    /// Micro's word.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Building => "building",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Stopping => "stopping",
            Self::Stopped => "stopped",
            Self::Error => "error",
        }
    }

    pub(super) fn of(number: i64) -> Self {
        match number {
            1 => Self::Pending,
            2 => Self::Building,
            3 => Self::Starting,
            4 => Self::Running,
            5 => Self::Stopping,
            6 => Self::Stopped,
            _ => Self::Error,
        }
    }
}

/// What the person who deploys asked for, besides the source.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Options {
    /// Instead of what the source says.
    pub(crate) command: Vec<String>,
    /// After the command.
    pub(crate) args: Vec<String>,
    /// Environment of the service.
    pub(crate) env: BTreeMap<String, String>,
    /// More environment, and `GIT_CREDENTIALS`.
    pub(crate) secrets: BTreeMap<String, String>,
    /// Folder of the service below the source's root.
    pub(crate) entrypoint: String,
    /// Copies to run; 0 for what the source says.
    pub(crate) instances: u32,
}

/// A deployment that has begun: enough to begin it again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Pending {
    /// What to deploy.
    pub(crate) source: String,
    /// The namespace in which an uploaded source is looked for besides the service's own.
    pub(crate) uploader: Namespace,
    /// Whether the caller may deploy from the node's own disk.
    pub(crate) operator: bool,
}

/// A service as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ServiceRow {
    /// Which.
    pub(crate) key: Key,
    /// What was deployed last.
    pub(crate) source: String,
    /// Who deployed it.
    pub(crate) owner: String,
    /// The owner's namespace.
    pub(crate) group: String,
    /// The deployer's own notes; `source` among them.
    pub(crate) metadata: BTreeMap<String, String>,
    /// What was asked for.
    pub(crate) options: Options,
    /// Where it is.
    pub(crate) status: Status,
    /// Why it is not where it should be.
    pub(crate) error: String,
    /// The release that serves.
    pub(crate) release: Option<i64>,
    /// A deployment that has not ended.
    pub(crate) pending: Option<Pending>,
    /// How often that deployment began.
    pub(crate) attempts: u32,
    /// First deployed.
    pub(crate) created: Timestamp,
    /// Last changed.
    pub(crate) updated: Timestamp,
}

/// Everything needed to start an instance of a release. Immutable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Recipe {
    /// Program and arguments.
    pub(crate) argv: Vec<String>,
    /// Where, as the instance sees it.
    pub(crate) cwd: std::path::PathBuf,
    /// The author's and the deployer's environment, secrets included.
    pub(crate) env: BTreeMap<String, String>,
    /// What the language needs; the author may override it.
    pub(crate) language_env: Vec<(String, String)>,
    /// More directories for `PATH`.
    pub(crate) path: Vec<String>,
    /// The toolchain to bind while it runs.
    pub(crate) toolchain: Option<String>,
    /// Bounds below the node's.
    pub(crate) limits: Limits,
    /// Copies to run.
    pub(crate) instances: u32,
    /// What it speaks, when the author says so.
    pub(crate) protocol: Option<Protocol>,
    /// The author's descriptor set, relative to the artifact.
    pub(crate) descriptor: Option<String>,
}

/// How an instance of a release was found to serve.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Served {
    /// `None`: it registers itself.
    pub(crate) protocol: Option<Protocol>,
}

/// A release.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ReleaseRow {
    /// Counted from 1 over all versions of a service, and never used again.
    pub(crate) number: i64,
    /// Whose.
    pub(crate) key: Key,
    /// The artifact.
    pub(crate) digest: String,
    /// How to start it.
    pub(crate) recipe: Recipe,
    /// How it served, once it did.
    pub(crate) served: Option<Served>,
    /// Its descriptor set.
    pub(crate) descriptors: Option<Vec<u8>>,
}

/// An instance we started and have not seen ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct InstanceRow {
    /// Which.
    pub(crate) id: InstanceId,
    /// Of what.
    pub(crate) key: Key,
}
