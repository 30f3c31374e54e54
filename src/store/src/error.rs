//! Why something was not stored or not found.

use micro_core::{Fault, Kind, caller::NoTarget};
use micro_storage::Revision;

/// A failure of the store.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There is no such record. Micro's clients look at the kind, people at this text.
    #[error("not found")]
    NotFound,
    /// There is no such blob.
    #[error("Blob not found")]
    BlobNotFound,
    /// The caller may not use the database, or named one that cannot be.
    #[error(transparent)]
    Target(#[from] NoTarget),
    /// A write without a record.
    #[error("Missing record")]
    MissingRecord,
    /// A write or a blob without a key.
    #[error("Missing key")]
    MissingKey,
    /// A blob was announced and never came.
    #[error("No blob was sent")]
    NoBlob,
    /// A key that is too long.
    #[error("a key of {size} bytes is too long; the limit is {limit} bytes")]
    Key {
        /// Its length.
        size: usize,
        /// The longest.
        limit: usize,
    },
    /// A name that no table can have.
    #[error("there can be no table {name:?}: use up to {limit} bytes without control characters")]
    Table {
        /// The name, or its beginning.
        name: String,
        /// The longest.
        limit: usize,
    },
    /// An expiry in the past.
    #[error("an expiry of {0} seconds has passed already; use 0 for never")]
    Expiry(i64),
    /// A content type that cannot be a header.
    #[error("the content type {0:?} is none: use one such as text/plain")]
    ContentType(String),
    /// A commit that makes no sense.
    #[error("cannot commit: {0}")]
    Operation(String),
    /// A condition of a commit did not hold; nothing was changed.
    #[error("nothing was committed: {}", state_of(table, key, *found))]
    Conflict {
        /// The table.
        table: String,
        /// The key that the condition was about.
        key: String,
        /// The revision of the record as it is; `None` when there is none.
        found: Option<Revision>,
    },
    /// An answer beyond what one message may carry.
    #[error("the answer is larger than {limit} bytes")]
    TooMuch {
        /// The most.
        limit: usize,
    },
    /// A blob beyond what one may be.
    #[error("the blob is larger than {limit} bytes, which is the most")]
    BlobTooLarge {
        /// The most.
        limit: u64,
    },
    /// What is stored is no record.
    #[error("a stored record cannot be read")]
    Broken,
    /// A server that stops.
    #[error("the watch ends: the server stops")]
    WatchEnded,
    /// A search that was given up.
    #[error("the search was given up because of a fault inside micro")]
    Abandoned,
    /// The disk.
    #[error(transparent)]
    Storage(#[from] micro_storage::Error),
}

fn state_of(table: &str, key: &str, found: Option<Revision>) -> String {
    match found {
        Some(revision) => {
            format!("the record {key:?} of table {table} is there, of revision {revision}")
        }
        None => format!("there is no record {key:?} in table {table}"),
    }
}

impl From<micro_core::caller::NotAllowed> for Error {
    fn from(error: micro_core::caller::NotAllowed) -> Self {
        Self::Target(error.into())
    }
}

impl Fault for Error {
    fn kind(&self) -> Kind {
        match self {
            Self::NotFound | Self::BlobNotFound => Kind::NotFound,
            Self::Target(e) => e.kind(),
            Self::MissingRecord
            | Self::MissingKey
            | Self::NoBlob
            | Self::Key { .. }
            | Self::Table { .. }
            | Self::Expiry(_)
            | Self::ContentType(_)
            | Self::Operation(_) => Kind::Invalid,
            Self::Conflict { .. } => Kind::Conflict,
            Self::TooMuch { .. } | Self::BlobTooLarge { .. } => Kind::Exhausted,
            Self::Broken | Self::Abandoned => Kind::Internal,
            Self::WatchEnded => Kind::Unavailable,
            Self::Storage(e) => e.kind(),
        }
    }

    fn hint(&self) -> Option<String> {
        let text = match self {
            Self::Target(NoTarget::Invalid(_)) => {
                "a database is the namespace of its name; use tables to divide your records"
            }
            Self::Conflict { .. } => "read it again and decide anew",
            Self::TooMuch { .. } => "ask for less at a time with limit and offset",
            Self::WatchEnded => "open a new watch",
            Self::Broken => "the log of the server says more; restore a backup",
            Self::Storage(e) => return e.hint(),
            // The exact details `not found` and `Blob not found` are part of the contract.
            _ => return None,
        };
        Some(text.into())
    }
}
