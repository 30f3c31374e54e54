//! What can go wrong with durable state.
//!
//! The texts are for the person at the other end, so they carry no SQL and no engine's words; those
//! go to the log, here, at the moment of the failure. Errors can be cloned, because one failed group
//! commit answers many writers.

use std::{io, path::PathBuf, sync::Arc};

use micro_core::{Fault, Kind, Namespace};
use rusqlite::ErrorCode;

use crate::{BlobId, Revision};

/// Any cause that can be shared.
pub(crate) type Cause = Arc<dyn std::error::Error + Send + Sync>;

/// A failure of storage.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// The database file cannot be opened or made.
    #[error("cannot open the database {}: {cause}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        cause: Cause,
    },
    /// Another process has the file.
    #[error("the database {} is in use by another process", path.display())]
    Locked {
        /// The file.
        path: PathBuf,
    },
    /// The file was written by a newer version of this program.
    #[error(
        "the database was written by a newer version of micro: {component} is at step {found}, this version knows {known}"
    )]
    Newer {
        /// Whose tables.
        component: &'static str,
        /// Steps recorded in the file.
        found: usize,
        /// Steps that this program has.
        known: usize,
    },
    /// A step of a schema could not be applied; nothing of it stays.
    #[error("cannot bring the tables of {component} to step {step}: {cause}")]
    Migration {
        /// Whose tables.
        component: &'static str,
        /// The step, counted from 1.
        step: usize,
        /// Why.
        #[source]
        cause: Arc<rusqlite::Error>,
    },
    /// SQLite refused.
    #[error("{}", sqlite_text(.0))]
    Sqlite(#[source] Arc<rusqlite::Error>),
    /// The index refused.
    #[error("the index of the node's state failed")]
    Index(#[source] Arc<redb::Error>),
    /// A stored value has a version byte that this program does not know.
    #[error("a stored value of table {table} has the unknown format {format}")]
    Format {
        /// The table.
        table: &'static str,
        /// The byte found.
        format: u8,
    },
    /// A key or a value beyond what one write may carry.
    #[error("a {what} of {size} bytes is too large; the limit is {limit} bytes")]
    TooLarge {
        /// `key`, `value` or `batch`.
        what: &'static str,
        /// Its length.
        size: usize,
        /// What is allowed.
        limit: usize,
    },
    /// There is no such blob.
    #[error("there is no blob {0}")]
    NoBlob(BlobId),
    /// Something that a batch expected is not so; nothing of the batch happened.
    #[error("the row {} of table {table} was changed by somebody else", key.escape_ascii())]
    Conflict {
        /// The table.
        table: &'static str,
        /// The key that the expectation was about.
        key: Vec<u8>,
        /// The revision of the row as it is; `None` when there is none.
        found: Option<Revision>,
    },
    /// The namespace holds as much as it may; deleting still works.
    #[error("the namespace {namespace} has used up its {limit} bytes of storage")]
    Quota {
        /// The namespace.
        namespace: Namespace,
        /// What it may hold.
        limit: u64,
    },
    /// There is no room on the disk. Nothing of the write stays; it works again once there is room.
    #[error("cannot write: the disk of the node is full")]
    Full,
    /// The index cannot be opened at the moment; what was committed is safe in the log.
    #[error("the index of the node's state cannot be read at the moment")]
    Unreadable,
    /// A file of the state does not hold what was written into it.
    #[error("{} is damaged: {detail}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, and where.
        detail: String,
    },
    /// Events of a topic do not hold any more what was written; those from `resume` on can be read.
    #[error(
        "event {offset} of the topic {topic:?} in namespace {namespace} is damaged; the next that can be read is {resume}"
    )]
    Event {
        /// Whose topic it is.
        namespace: Namespace,
        /// The topic.
        topic: String,
        /// The event that was asked for.
        offset: u64,
        /// The next that can be read.
        resume: u64,
    },
    /// A file of the state was written by a newer version of this program.
    #[error("{} has format {found}, which is newer than this version of micro knows ({known})", path.display())]
    NewerFile {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u32,
        /// The newest that this program reads.
        known: u32,
    },
    /// Entries of a topic are missing between those that are there and those that come.
    #[error("the topic {topic} of {namespace} continues at {expected}, and not at {found}")]
    Gap {
        /// Whose topic.
        namespace: Namespace,
        /// Its name.
        topic: String,
        /// The offset that its next entry has to have.
        expected: u64,
        /// The offset that came.
        found: u64,
    },
    /// Our own code failed while it held a transaction; the transaction was rolled back.
    #[error("this change was abandoned because of a fault inside micro")]
    Panicked,
    /// The database has been closed.
    #[error("the node is shutting down")]
    Closed,
    /// A small file could not be written.
    #[error("cannot {action} {}: {cause}", path.display())]
    File {
        /// `create`, `write`, `rename`, …
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        cause: Arc<io::Error>,
    },
}

impl Error {
    /// Whether a uniqueness or foreign-key constraint refused a write.
    pub fn is_constraint(&self) -> bool {
        matches!(self, Self::Sqlite(e) if e.sqlite_error_code() == Some(ErrorCode::ConstraintViolation))
    }

    /// Whether a query that must give a row gave none.
    pub fn is_no_rows(&self) -> bool {
        matches!(self, Self::Sqlite(e) if matches!(**e, rusqlite::Error::QueryReturnedNoRows))
    }

    /// Takes an error of SQLite; logs it unless it is an answer rather than a failure.
    pub(crate) fn sqlite(error: rusqlite::Error) -> Self {
        let error = Self::Sqlite(Arc::new(error));
        if let Self::Sqlite(cause) = &error
            && !error.is_constraint()
            && !error.is_no_rows()
        {
            tracing::error!(error = %cause, "The database refused an operation.");
        }
        error
    }

    /// Takes an error of the index and logs it.
    pub(crate) fn index(error: impl Into<redb::Error>) -> Self {
        let error = error.into();
        if redb_full(&error) {
            return Self::Full;
        }
        tracing::error!(%error, "The index of the state refused an operation.");
        Self::Index(Arc::new(error))
    }

    /// Takes an error of a file; no space left, or none for this user, is [`Error::Full`].
    pub(crate) fn file(action: &'static str, path: impl Into<PathBuf>, cause: io::Error) -> Self {
        if matches!(
            cause.kind(),
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
        ) {
            return Self::Full;
        }
        Self::File {
            action,
            path: path.into(),
            cause: Arc::new(cause),
        }
    }
}

fn sqlite_full(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(ErrorCode::DiskFull)
}

fn redb_full(error: &redb::Error) -> bool {
    matches!(error, redb::Error::Io(e) if e.kind() == io::ErrorKind::StorageFull)
}

fn sqlite_text(error: &rusqlite::Error) -> &'static str {
    match error {
        rusqlite::Error::QueryReturnedNoRows => "there is no such record",
        e if sqlite_full(e) => "cannot write: the disk of the node is full",
        e if e.sqlite_error_code() == Some(ErrorCode::ConstraintViolation) => {
            "there is such a record already, or one that it refers to is missing"
        }
        _ => "the node's database failed",
    }
}

impl Fault for Error {
    fn kind(&self) -> Kind {
        match self {
            Self::Sqlite(_) if self.is_constraint() => Kind::Conflict,
            Self::Sqlite(_) if self.is_no_rows() => Kind::NotFound,
            Self::Sqlite(e) if sqlite_full(e) => Kind::Exhausted,
            Self::TooLarge { .. } => Kind::Invalid,
            Self::NoBlob(_) => Kind::NotFound,
            Self::Conflict { .. } => Kind::Conflict,
            Self::Quota { .. } | Self::Full => Kind::Exhausted,
            Self::Closed | Self::Locked { .. } | Self::Unreadable => Kind::Unavailable,
            Self::Newer { .. } | Self::NewerFile { .. } => Kind::Precondition,
            Self::Open { .. }
            | Self::Migration { .. }
            | Self::Sqlite(_)
            | Self::Index(_)
            | Self::Format { .. }
            | Self::Panicked
            | Self::Damaged { .. }
            | Self::Event { .. }
            | Self::Gap { .. }
            | Self::File { .. } => Kind::Internal,
        }
    }

    fn hint(&self) -> Option<String> {
        let text = match self {
            Self::Locked { .. } => {
                "stop the other server, or give this one a state directory of its own"
            }
            Self::Newer { .. } | Self::NewerFile { .. } | Self::Format { .. } => {
                "install the newer version again, or restore a backup made by this one"
            }
            Self::Open { .. } => "check that the directory exists, is writable and has space",
            _ if self.kind() == Kind::Exhausted => "free some space and try again",
            Self::Sqlite(_) | Self::Index(_) | Self::Panicked if self.kind() == Kind::Internal => {
                "the log of the server says why"
            }
            _ => return None,
        };
        Some(text.into())
    }
}
