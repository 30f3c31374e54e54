//! What keeps the state, seen from the handles.
//!
//! The trait is small and can be an object, so that another engine (a PostgreSQL database, say) fits
//! behind the same handles. `tests/conformance.rs` says what an engine must do.

use std::{future::Future, path::Path, pin::Pin, time::Duration};

use micro_core::{Namespace, Timestamp};
use tokio::sync::watch;

use crate::{Blobs, Bounds, Entry, Error, Range, Receipt, Revision, Row, Watch, Writes};

/// An answer to wait for.
pub type Answer<T> = Pin<Box<dyn Future<Output = Result<T, Error>> + Send>>;

/// What a namespace holds, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Keys and values of rows. While commits are fresh this may count a row twice.
    pub rows: u64,
    /// Entries of topics.
    pub topics: u64,
    /// Blobs.
    pub blobs: u64,
}

/// Keeps rows and topics for all namespaces. Reads are synchronous and short.
///
/// The methods mean what those of [`crate::Storage`], [`crate::Space`] and [`crate::Topic`] mean.
pub trait Engine: Send + Sync {
    /// One row.
    ///
    /// # Errors
    /// `Internal` when it cannot be read.
    fn get(
        &self,
        namespace: &Namespace,
        table: &'static str,
        key: &[u8],
    ) -> Result<Option<Row>, Error>;
    /// Rows in the order of their keys, as they were at one moment.
    ///
    /// # Errors
    /// `Internal` when they cannot be read.
    fn scan(
        &self,
        namespace: &Namespace,
        table: &'static str,
        range: Range<'_>,
    ) -> Result<Vec<Row>, Error>;
    /// The namespaces that have rows in `table`, in order.
    ///
    /// # Errors
    /// `Internal` when they cannot be read.
    fn namespaces(&self, table: &'static str) -> Result<Vec<Namespace>, Error>;
    /// Commits a batch that is neither too large nor without any purpose.
    fn commit(&self, writes: Writes) -> Answer<Receipt>;
    /// Of the last commit that was acknowledged.
    fn revision(&self) -> Revision;
    /// Changes committed from now on.
    fn watch(&self, namespace: &Namespace, table: &'static str, prefix: &[u8]) -> Watch;

    /// The topics that there are, in order.
    ///
    /// # Errors
    /// `Internal` when they cannot be read.
    fn topics(&self, namespace: &Namespace) -> Result<Vec<String>, Error>;
    /// What a topic holds.
    ///
    /// # Errors
    /// `Internal` when it cannot be read.
    fn topic_bounds(&self, namespace: &Namespace, topic: &str) -> Result<Bounds, Error>;
    /// Entries of a topic.
    ///
    /// # Errors
    /// `Internal` when they cannot be read.
    fn topic_read(
        &self,
        namespace: &Namespace,
        topic: &str,
        from: u64,
        entries: usize,
        bytes: usize,
    ) -> Result<Vec<Entry>, Error>;
    /// Whether reading there needs no file.
    fn topic_is_recent(&self, namespace: &Namespace, topic: &str, from: u64) -> bool;
    /// The first entry of that time or later.
    ///
    /// # Errors
    /// `Internal` when it cannot be read.
    fn topic_offset_at(
        &self,
        namespace: &Namespace,
        topic: &str,
        time: Timestamp,
    ) -> Result<u64, Error>;
    /// The next offset of a topic, as it grows.
    fn topic_follow(&self, namespace: &Namespace, topic: &str) -> watch::Receiver<u64>;
    /// Drops old entries.
    fn topic_retain(
        &self,
        namespace: &Namespace,
        topic: &str,
        age: Option<Duration>,
        bytes: Option<u64>,
    ) -> Answer<()>;
    /// Removes a topic.
    fn topic_remove(&self, namespace: &Namespace, topic: &str) -> Answer<()>;

    /// The blobs of a namespace.
    fn blobs(&self, namespace: &Namespace) -> Blobs;
    /// The namespaces that have blobs, in order. Blocking.
    ///
    /// # Errors
    /// `Internal` when they cannot be read.
    fn blob_namespaces(&self) -> Result<Vec<Namespace>, Error>;
    /// What a namespace holds.
    fn usage(&self, namespace: &Namespace) -> Usage;
    /// What a namespace may hold; `None` for whatever fits.
    fn set_quota(&self, namespace: &Namespace, bytes: Option<u64>);
    /// Brings everything that is committed into its final place.
    fn checkpoint(&self) -> Answer<()>;
    /// Copies the state of one moment into a directory.
    fn snapshot(&self, into: &Path) -> Answer<()>;
    /// Finishes what is queued and stops. Later calls answer [`Error::Closed`].
    fn close(&self);
}
