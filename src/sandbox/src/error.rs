//! What can go wrong, said for the person who has to act on it.

use std::{io, net::SocketAddr, path::PathBuf};

use micro_core::{Fault, InstanceId, Kind};

/// Why the supervisor, an instance or the node's handle could not do something.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    // ---- the socket between supervisor and node
    /// The node's entry point was called by hand.
    #[error("this process was not started by a micro server")]
    NoSupervisor,
    /// The first words of the supervisor could not be read.
    #[error("cannot take over the listening sockets from the supervisor")]
    Greeting(#[source] io::Error),
    /// The supervisor has ended.
    #[error("the supervisor of this server is gone")]
    Gone,
    /// An answer of another kind than asked for.
    #[error("the supervisor answered something else than was asked")]
    Mixed,
    /// A frame that no sane peer sends.
    #[error("a message between supervisor and node is too large")]
    FrameTooBig,
    /// A value that cannot be written as JSON.
    #[error("cannot write a message between supervisor and node")]
    Encode(#[source] serde_json::Error),
    /// JSON that is no message.
    #[error("cannot read a message between supervisor and node")]
    Decode(#[source] serde_json::Error),
    /// The supervisor said no.
    #[error("{message}")]
    Refused {
        /// What kind of no.
        kind: Kind,
        /// What could not be done, and why.
        message: String,
        /// What to do.
        hint: Option<String>,
    },

    // ---- requests
    /// No such instance.
    #[error("there is no instance {0}")]
    UnknownInstance(InstanceId),
    /// The id is taken.
    #[error("there is an instance {0} already")]
    InstanceExists(InstanceId),
    /// It still runs.
    #[error("instance {0} still runs")]
    InstanceRuns(InstanceId),
    /// The supervisor ends and starts nothing any more.
    #[error("cannot start instance {0}: the server is stopping")]
    Stopping(InstanceId),
    /// A spec the node must never send.
    #[error("refused to run {id}: {reason}")]
    Spec {
        /// Which.
        id: InstanceId,
        /// The field and its rule.
        reason: String,
    },
    /// A tree the node must never ask for.
    #[error("refused to touch {what}: {reason}")]
    Tree {
        /// What was named.
        what: String,
        /// The rule.
        reason: &'static str,
    },
    /// A tree in use.
    #[error("{what} is in use by instance {by}")]
    TreeInUse {
        /// The tree.
        what: String,
        /// Who mounts it.
        by: InstanceId,
    },
    /// There is no such tree.
    #[error("there is no {what}")]
    NoTree {
        /// The tree.
        what: String,
    },
    /// Isolation is required and not possible here.
    #[error("refused to run {id} without all its fences: {missing}")]
    Fences {
        /// Which.
        id: InstanceId,
        /// The missing fences.
        missing: String,
    },
    /// A step of a launch failed.
    #[error("cannot start {id}: {reason}")]
    Launch {
        /// Which.
        id: InstanceId,
        /// The step and why it failed.
        reason: String,
    },
    /// Too many trees are being walked.
    #[error("too many trees are being removed or given away at once")]
    Busy,
    /// A job the supervisor gave to a child of its own failed.
    #[error("{0}")]
    Errand(String),

    // ---- the supervisor's own start
    /// Somebody else has the state directory.
    #[error("another micro server (pid {pid}) runs on {path}")]
    Locked {
        /// The state directory.
        path: PathBuf,
        /// Who; `?` when it did not say.
        pid: String,
    },
    /// A directory belongs to somebody it must not belong to.
    #[error("{path} belongs to uid {owner}, but must belong to uid {expected}")]
    Owner {
        /// The directory.
        path: PathBuf,
        /// Who owns it.
        owner: u32,
        /// Who should.
        expected: u32,
    },
    /// The node's user cannot get to the state directory.
    #[error("user {user} cannot enter {path}, which the server's state lies below")]
    Unreachable {
        /// The node's user.
        user: String,
        /// The directory that stops it.
        path: PathBuf,
    },
    /// A door is taken.
    #[error("cannot open the {door} door: {address} is in use by another program")]
    DoorTaken {
        /// Which door.
        door: &'static str,
        /// Where.
        address: SocketAddr,
    },
    /// A door cannot be opened for another reason.
    #[error("cannot open the {door} door on {address}")]
    Door {
        /// Which door.
        door: &'static str,
        /// Where.
        address: SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The supervisor forks, so it must be alone in its process.
    #[error("the supervisor must be started before its process has threads; this one has {0}")]
    Threads(usize),
    /// The node never came up.
    #[error("the node process ended {0} times before it was ready")]
    NodeFails(u32),
    /// Anything the system refused, with what was tried.
    #[error("cannot {what}")]
    Os {
        /// What was tried, on what.
        what: String,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl Error {
    /// The message with all its causes, for a place that shows one line.
    pub(crate) fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            text.push_str(": ");
            text.push_str(&error.to_string());
            cause = error.source();
        }
        text
    }

    /// For `map_err`: what was being tried when the system said no.
    pub(crate) fn os<E: Into<io::Error>>(what: impl Into<String>) -> impl FnOnce(E) -> Self {
        let what = what.into();
        move |source| Self::Os {
            what,
            source: source.into(),
        }
    }
}

impl Fault for Error {
    fn kind(&self) -> Kind {
        match self {
            Self::Refused { kind, .. } => *kind,
            Self::Gone => Kind::Unavailable,
            Self::UnknownInstance(_) | Self::NoTree { .. } => Kind::NotFound,
            Self::InstanceExists(_) => Kind::Conflict,
            Self::Spec { .. } | Self::Tree { .. } => Kind::Invalid,
            Self::Stopping(_) => Kind::Unavailable,
            Self::Busy => Kind::Exhausted,
            Self::NoSupervisor
            | Self::InstanceRuns(_)
            | Self::TreeInUse { .. }
            | Self::Fences { .. }
            | Self::Launch { .. }
            | Self::Locked { .. }
            | Self::Owner { .. }
            | Self::Unreachable { .. }
            | Self::DoorTaken { .. }
            | Self::Door { .. }
            | Self::Threads(_) => Kind::Precondition,
            Self::Greeting(_)
            | Self::Mixed
            | Self::FrameTooBig
            | Self::Encode(_)
            | Self::Decode(_)
            | Self::Errand(_)
            | Self::NodeFails(_)
            | Self::Os { .. } => Kind::Internal,
        }
    }

    fn hint(&self) -> Option<String> {
        let text = match self {
            Self::Refused { hint, .. } => return hint.clone(),
            Self::NoSupervisor => "start the server with `micro server`".into(),
            Self::InstanceRuns(_) | Self::TreeInUse { .. } => "stop it first".into(),
            Self::Locked { .. } => {
                "stop that server, or give this one a directory of its own with --state-dir".into()
            }
            Self::Owner { path, expected, .. } => format!(
                "if nothing else uses it: chown {expected} {}",
                path.display()
            ),
            Self::Unreachable { path, .. } => format!(
                "let everyone enter it (chmod o+x {}), or choose another --state-dir",
                path.display()
            ),
            Self::DoorTaken { door, .. } => format!(
                "stop that program, or choose another address with --{door}-address (port 0 takes any free one)"
            ),
            Self::Door {
                door,
                address,
                source,
            } => match source.kind() {
                io::ErrorKind::PermissionDenied if address.port() < 1024 => format!(
                    "ports below 1024 are for root: choose another with --{door}-address, or start the server as root"
                ),
                io::ErrorKind::AddrNotAvailable => format!(
                    "this machine does not have the address {}: choose another with --{door}-address",
                    address.ip()
                ),
                _ => return None,
            },
            Self::NodeFails(_) => "its own messages above say why".into(),
            Self::Fences { .. } => {
                "put the fences up, or allow running without them with --isolation best-effort"
                    .into()
            }
            _ => return None,
        };
        Some(text)
    }
}
