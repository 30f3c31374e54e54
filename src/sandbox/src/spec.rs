//! What the node asks for and what it is told: plain data, the same on both sides of the socket.
//!
//! Nothing here is trusted by the supervisor: `supervisor/policy.rs` checks each field again.

use std::{collections::BTreeMap, fmt, path::PathBuf};

use micro_core::{InstanceId, Namespace, ServiceName, Timestamp};
use serde::{Deserialize, Serialize};

/// One process to run behind fences, with everything it may see and use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spec {
    /// Names the instance, its directory, its control group and its log file.
    pub id: InstanceId,
    /// The tenant it belongs to.
    pub namespace: Namespace,
    /// The service it is a copy of, or builds.
    pub service: ServiceName,
    /// Which profile of limits and system calls applies.
    pub kind: SpecKind,
    /// Program and arguments; a program without a slash is looked up in `PATH` of [`Self::env`].
    pub command: Vec<String>,
    /// The whole environment: nothing is inherited.
    pub env: Vec<(String, String)>,
    /// Where it starts, as seen from inside.
    pub cwd: PathBuf,
    /// Index of its user. Where the server runs as root each index is a uid and gid of its own, and
    /// belongs to one service (or to the builds of one namespace) for as long as its files exist.
    pub user: u32,
    /// What it sees besides the system's programs.
    pub mounts: Vec<Mount>,
    /// What it may use.
    pub limits: Limits,
    /// The node's own notes (port, release, version, …), given back by `list`.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
}

/// What an instance is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SpecKind {
    /// Serves requests until it is stopped.
    Service,
    /// Makes a release and ends.
    Build,
}

/// One directory or file of the host, shown inside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mount {
    /// What is shown.
    pub source: Source,
    /// Where it is shown: absolute, without `..`.
    pub target: PathBuf,
    /// Whether it may be written to. Releases, source trees and host paths never may.
    pub writable: bool,
}

/// What may be mounted. A name is one or more path segments of letters, digits, `.`, `_`, `+` and `-`
/// (none beginning with a dot), such as `blog/3`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Source {
    /// `<state>/releases/<name>`, made by the node.
    Release(String),
    /// `<state>/sources/<name>`, made by the node.
    SourceTree(String),
    /// The data directory of the spec's service, made by the supervisor and owned by the spec's user.
    Data,
    /// `<state>/builds/<name>`, made by the supervisor and owned by the spec's user.
    Scratch(String),
    /// `<state>/cache/<namespace>/<name>`, made by the supervisor and owned by the spec's user.
    Cache(String),
    /// A path of the host that the operator allowed (`build.paths`, `build.files`) or where a
    /// discovered toolchain lives. What lies below `/usr` is visible anyway and may be named too.
    Host(PathBuf),
}

/// Bounds of one instance. None may exceed the server's settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Bytes of memory, `/tmp` and page cache included.
    pub memory: u64,
    /// Processes and threads.
    pub processes: u32,
    /// CPU in percent of one core; 0 for no limit.
    pub cpu_percent: u32,
    /// Open files of one process.
    pub open_files: u64,
}

/// How an instance ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Exit {
    /// It returned this code.
    Code(i32),
    /// This signal ended it.
    Signal(i32),
    /// It needed more memory than its limit and was killed.
    OutOfMemory,
    /// It never ran: what could not be done, and why.
    Launch(String),
}

impl Exit {
    /// Whether it ended well.
    pub fn success(&self) -> bool {
        *self == Self::Code(0)
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exited with code {code}"),
            Self::Signal(number) => match nix::sys::signal::Signal::try_from(*number) {
                Ok(signal) => write!(f, "was ended by {signal}"),
                Err(_) => write!(f, "was ended by signal {number}"),
            },
            Self::OutOfMemory => f.write_str("was killed: it needed more memory than its limit"),
            Self::Launch(why) => write!(f, "could not be started: {why}"),
        }
    }
}

/// An instance the supervisor knows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Running {
    /// What was asked for.
    pub spec: Spec,
    /// The pid of its init as the host sees it; 0 once it has exited.
    pub pid: i32,
    /// When it was launched.
    pub started: Timestamp,
    /// How it ended; `None` while it runs. Kept until it is forgotten.
    pub exit: Option<Exit>,
}

/// What the supervisor says on its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Event {
    /// An instance ended, asked to or not, and nothing of it is left.
    Exited {
        /// Which.
        id: InstanceId,
        /// How.
        exit: Exit,
    },
}

/// A toolchain found on this machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Toolchain {
    /// `go`, `rust`, `node` or `python`.
    pub name: String,
    /// Its version, such as `1.25.4`.
    pub version: String,
    /// Directories for `PATH`, most specific first.
    pub bin: Vec<PathBuf>,
    /// Directories to mount read-only at the same path; empty when all of it is below `/usr`.
    pub roots: Vec<PathBuf>,
    /// What it needs in the environment.
    pub env: Vec<(String, String)>,
}
