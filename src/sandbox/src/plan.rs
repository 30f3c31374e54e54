//! What the supervisor decided for one instance and hands to its init: the checked spec with every path,
//! uid and limit worked out. It is kept in the instance's directory, for a later supervisor.

use std::path::{Path, PathBuf};

use micro_core::{InstanceId, StateDir, Timestamp};
use serde::{Deserialize, Serialize};

use crate::{cgroup::Group, spec::Spec, tree::Owner};

/// How strong the fences are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Mode {
    /// By root: namespaces, a uid of its own, no user namespace.
    Root,
    /// By an ordinary user: the same namespaces inside a user namespace that knows one uid.
    Rootless,
    /// No namespaces to be had: limits and the system call filter are all there is.
    Plain,
}

impl Mode {
    /// Whether the instance has a view of its own.
    pub(crate) fn fenced(self) -> bool {
        self != Self::Plain
    }
}

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Plan {
    pub(crate) spec: Spec,
    pub(crate) started: Timestamp,
    pub(crate) mode: Mode,
    /// Whom the service becomes; `None` to stay who the server is.
    pub(crate) owner: Option<Owner>,
    /// Whom its init becomes.
    pub(crate) keeper: Option<Owner>,
    pub(crate) dir: PathBuf,
    pub(crate) log_dir: PathBuf,
    /// Bytes at which the log rotates.
    pub(crate) log_limit: u64,
    pub(crate) shown: Vec<Shown>,
    pub(crate) group: Group,
    pub(crate) filter: bool,
    pub(crate) bounds: Bounds,
    /// Take every step and end instead of running the command.
    pub(crate) rehearse: bool,
}

/// Bounds that are no control group's business.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Bounds {
    pub(crate) open_files: u64,
    /// Where no control group counts processes and the kernel counts this user's alone.
    pub(crate) processes: Option<u64>,
    /// Where no control group bounds memory: a coarse stop.
    pub(crate) data: Option<u64>,
    pub(crate) tmp_bytes: u64,
    pub(crate) tmp_files: u64,
}

/// One thing to show inside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Shown {
    pub(crate) origin: Origin,
    pub(crate) target: PathBuf,
    pub(crate) writable: bool,
    /// Made if missing, and given to the instance's user.
    pub(crate) owned: bool,
}

/// Where it is on the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Origin {
    /// Plain names below a directory of the server's; no link on the way is followed.
    Below(PathBuf, PathBuf),
    /// A path the operator allowed.
    Host(PathBuf),
    /// A small file the operator allowed: its content is copied, so that it can be read inside even if
    /// only root may read it outside.
    Copy(PathBuf),
}

impl Origin {
    /// The path on the host, for messages and for instances without a view of their own.
    pub(crate) fn path(&self) -> PathBuf {
        match self {
            Self::Below(base, below) => base.join(below),
            Self::Host(path) | Self::Copy(path) => path.clone(),
        }
    }
}

/// Files in an instance's directory.
pub(crate) mod file {
    /// The [`super::Plan`] as JSON.
    pub(crate) const PLAN: &str = "plan.json";
    /// The [`super::Record`] as JSON.
    pub(crate) const EXIT: &str = "exit.json";
    /// Where init listens.
    pub(crate) const CONTROL: &str = "control";
    /// Where the instance's root is put together; empty in every view but its own.
    pub(crate) const ROOT: &str = "root";
}

/// How an instance ended, written by its init.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) exit: crate::Exit,
    pub(crate) at: Timestamp,
}

/// What init says on its way up, one JSON line each.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Report {
    /// Its pid, as seen by the supervisor.
    Init(i32),
    /// The program runs.
    Ready,
    /// A step failed; nothing is left.
    Failed(String),
}

/// What the supervisor asks of init, one JSON line each.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Ask {
    /// SIGTERM now, SIGKILL after this many milliseconds.
    Stop(u64),
}

/// What init says to whom connects.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Tell {
    /// First line: whose init this is.
    Hello(InstanceId),
    /// Last line.
    Exited(crate::Exit),
}

/// A message as a line.
pub(crate) fn line(message: &impl Serialize) -> Vec<u8> {
    let mut line = serde_json::to_vec(message).unwrap_or_default();
    line.push(b'\n');
    line
}

/// Takes the whole lines out of `buffer`.
pub(crate) fn lines(buffer: &mut Vec<u8>) -> Vec<Vec<u8>> {
    let Some(end) = buffer.iter().rposition(|b| *b == b'\n') else {
        return Vec::new();
    };
    let rest = buffer.split_off(end + 1);
    let whole = std::mem::replace(buffer, rest);
    whole
        .split(|b| *b == b'\n')
        .filter(|line| !line.is_empty())
        .map(<[u8]>::to_vec)
        .collect()
}

/// The directory all instances live in.
pub(crate) fn instances(state: &StateDir) -> PathBuf {
    state.run().join("instances")
}

/// Why a step of a launch failed.
#[derive(Debug, thiserror::Error)]
#[error("{what}: {source}")]
pub(crate) struct Failure {
    what: String,
    source: std::io::Error,
}

impl Failure {
    pub(crate) fn new(what: impl Into<String>, source: impl Into<std::io::Error>) -> Self {
        Self {
            what: what.into(),
            source: source.into(),
        }
    }
}

/// Adds what was tried to an error.
pub(crate) trait On<T> {
    /// On this.
    fn on(self, what: impl Into<String>) -> Result<T, Failure>;
    /// On this path.
    fn at(self, path: impl AsRef<Path>) -> Result<T, Failure>;
}

impl<T, E: Into<std::io::Error>> On<T> for Result<T, E> {
    fn on(self, what: impl Into<String>) -> Result<T, Failure> {
        self.map_err(|source| Failure::new(what, source))
    }

    fn at(self, path: impl AsRef<Path>) -> Result<T, Failure> {
        self.on(path.as_ref().display().to_string())
    }
}
