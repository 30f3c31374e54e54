//! Why a document cannot be read or changed. Where Micro has a text for it, the text is Micro's and
//! has no hint behind it, because clients compare.

use micro_core::{
    Fault, Kind,
    caller::{NoTarget, NotAllowed},
};

/// A failure of config.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The namespace has no document.
    #[error("Not found")]
    NotFound,
    /// A change without a value.
    #[error("invalid change")]
    InvalidChange,
    /// A value that is no JSON.
    #[error("Request is invalid JSON: {0}")]
    InvalidJson(String),
    /// The caller may not do this.
    #[error(transparent)]
    NotAllowed(#[from] NotAllowed),
    /// The caller may not do this there.
    #[error(transparent)]
    NoTarget(#[from] NoTarget),
    /// A path that leads nowhere.
    #[error("invalid path {path:?}: {reason}")]
    Path {
        /// Its beginning.
        path: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A scalar or an array where the whole document would be.
    #[error("cannot set the document to something that is not an object")]
    NoObject,
    /// Objects in objects in objects.
    #[error("cannot set this value: the document would be deeper than 32 objects and arrays")]
    TooDeep,
    /// More than a document holds.
    #[error("cannot change the document: it would have {size} bytes; the limit is {limit} bytes")]
    TooLarge {
        /// What it would have.
        size: usize,
        /// What it may have.
        limit: usize,
    },
    /// A version that the history does not lead back to.
    #[error("cannot go back to version {wanted}: the versions from {oldest} to {newest} are kept")]
    Version {
        /// What was asked for.
        wanted: u64,
        /// The oldest there is.
        oldest: u64,
        /// The one of now.
        newest: u64,
    },
    /// Somebody else was always faster.
    #[error("cannot change the document: others change it all the time")]
    Busy,
    /// The keys of secrets cannot be used.
    #[error("cannot use the keys of secrets in {place}: {reason}")]
    Keys {
        /// The file or the credential.
        place: String,
        /// What is wrong.
        reason: String,
        /// What to do.
        hint: String,
    },
    /// The keys are not this node's to change.
    #[error(
        "cannot make a new key: the keys come from the systemd credential {}",
        crate::keys::CREDENTIAL
    )]
    Credential,
    /// A secret whose key is not here.
    #[error(
        "cannot decrypt {path}: it was encrypted with key {key}, which this node does not have"
    )]
    NoKey {
        /// Where the secret is.
        path: String,
        /// Its key.
        key: String,
    },
    /// A secret that is not what was encrypted.
    #[error(
        "cannot decrypt {path}: the stored value is damaged or was moved here from another path"
    )]
    Damaged {
        /// Where the secret is.
        path: String,
    },
    /// The system gave no random numbers.
    #[error("cannot encrypt: the system gives no random numbers")]
    NoRandom,
    /// The cipher refused.
    #[error("cannot encrypt this value")]
    Crypto,
    /// A row that makes no sense.
    #[error("cannot read {0} as it is stored")]
    Record(&'static str),
    /// A row written by another version of micro.
    #[error("cannot read {what}: it is stored in the unknown format {format}")]
    Format {
        /// What the row holds.
        what: &'static str,
        /// The number found.
        format: u8,
    },
    /// Our own code failed while it worked on a document.
    #[error("this was abandoned because of a fault inside micro")]
    Panicked,
    /// A server that stops.
    #[error("the watch ends: {0}")]
    WatchEnded(&'static str),
    /// The disk.
    #[error(transparent)]
    Storage(#[from] micro_storage::Error),
}

impl Fault for Error {
    fn kind(&self) -> Kind {
        match self {
            Self::NotFound => Kind::NotFound,
            Self::InvalidChange
            | Self::InvalidJson(_)
            | Self::Path { .. }
            | Self::NoObject
            | Self::TooDeep
            | Self::Version { .. } => Kind::Invalid,
            Self::TooLarge { .. } => Kind::Exhausted,
            Self::NotAllowed(e) => e.kind(),
            Self::NoTarget(e) => e.kind(),
            Self::Busy => Kind::Conflict,
            Self::Keys { .. } | Self::Credential | Self::NoKey { .. } | Self::Format { .. } => {
                Kind::Precondition
            }
            Self::Damaged { .. }
            | Self::NoRandom
            | Self::Crypto
            | Self::Record(_)
            | Self::Panicked => Kind::Internal,
            Self::WatchEnded(_) => Kind::Unavailable,
            Self::Storage(e) => e.kind(),
        }
    }

    fn hint(&self) -> Option<String> {
        let text = match self {
            Self::Path { .. } => "write it as in db.pool.size",
            Self::NoObject => "name the path that the value belongs to",
            Self::TooLarge { .. } => "keep large values in the store or as a blob",
            Self::Version { .. } => "`micro config history` lists them",
            Self::Busy => "try again",
            Self::Keys { hint, .. } => hint,
            Self::Credential => {
                "write a new line above the old one in the credential (openssl rand -base64 32) and restart micro; its log says when every secret is encrypted anew and the old line can go"
            }
            Self::NoKey { .. } => "put the key back, or set the secret again",
            Self::Damaged { .. } => "set the secret again, or restore a backup",
            Self::Format { .. } => "install the newer version of micro again, or restore a backup",
            Self::Record(_) => {
                "restore a backup; `micro server --check-data` says what else is wrong"
            }
            Self::Panicked => "the log of the server says why",
            Self::WatchEnded(_) => "open a new watch",
            Self::Storage(e) => return e.hint(),
            _ => return None,
        };
        Some(text.into())
    }
}
