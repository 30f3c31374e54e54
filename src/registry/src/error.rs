//! Why a registration was not taken or not found.

use micro_core::{Fault, Kind, caller::NotAllowed, id::InvalidName};

/// A failure of the registry.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Nobody is registered under the name. Micro's clients look for this text.
    #[error("service not found")]
    NotFound,
    /// The caller may not do this.
    #[error(transparent)]
    NotAllowed(#[from] NotAllowed),
    /// A name that breaks its rules.
    #[error(transparent)]
    Name(#[from] InvalidName),
    /// A part of a registration that cannot be.
    #[error("cannot register {service}: {reason}")]
    Invalid {
        /// The service.
        service: String,
        /// What is wrong, and what would be right.
        reason: String,
    },
    /// Something that belongs to somebody else.
    #[error("cannot register {service}: {reason}")]
    Taken {
        /// The service.
        service: String,
        /// What is taken.
        reason: String,
    },
    /// The namespace has as many nodes as it may have.
    #[error(
        "cannot register {service}: the namespace has {limit} nodes already, which is the most"
    )]
    TooMany {
        /// The service.
        service: String,
        /// The most.
        limit: usize,
    },
    /// A watcher that did not keep up, or a server that stops.
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
            Self::NotAllowed(e) => e.kind(),
            Self::Name(e) => e.kind(),
            Self::Invalid { .. } => Kind::Invalid,
            Self::Taken { .. } => Kind::Conflict,
            Self::TooMany { .. } => Kind::Exhausted,
            Self::WatchEnded(_) => Kind::Unavailable,
            Self::Storage(e) => e.kind(),
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Storage(e) => e.hint(),
            Self::WatchEnded(_) => Some("list the services again and open a new watch".into()),
            // The exact detail `service not found` is part of the contract.
            _ => None,
        }
    }
}
