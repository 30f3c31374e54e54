//! The node's state: opened once, handed out per namespace.

use std::{path::Path, sync::Arc};

use micro_core::{Clock, Namespace};

use crate::{Engine, Error, Revision, Space, local};

/// How the state is kept. The defaults suit a small machine.
#[derive(Debug, Clone)]
pub struct Options {
    /// Bytes of fresh commits in memory before they are brought into the index. About twice as much
    /// may be held, and is read again at start after a crash.
    pub memory: u64,
    /// Bytes of the index kept in memory.
    pub cache: usize,
    /// Bytes of one file of the log.
    pub segment: u64,
    /// What a namespace may hold unless something else is set for it; `None` for whatever fits.
    pub quota: Option<u64>,
    /// The time of appends and leases.
    pub clock: Clock,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            memory: 16 << 20,
            cache: 16 << 20,
            segment: 16 << 20,
            quota: None,
            clock: Clock::System,
        }
    }
}

/// What [`Storage::check`] found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Report {
    /// Rows that were read.
    pub rows: u64,
    /// Records of the log that were read.
    pub records: u64,
    /// Topics.
    pub topics: u64,
    /// Their entries.
    pub entries: u64,
    /// Blobs.
    pub blobs: u64,
    /// What is wrong, a sentence each; empty when all is well.
    pub problems: Vec<String>,
}

/// A handle on the node's state. Clones share it.
#[derive(Clone)]
pub struct Storage {
    engine: Arc<dyn Engine>,
    clock: Clock,
}

impl std::fmt::Debug for Storage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Storage")
            .field("revision", &self.revision())
            .finish_non_exhaustive()
    }
}

impl Storage {
    /// Opens the state below `directory`, or makes it, and recovers what a crash left behind.
    /// Blocking.
    ///
    /// # Errors
    /// `Unavailable` when another process has it; `Precondition` when a newer version wrote it;
    /// `Internal` when it cannot be opened.
    pub fn open(directory: &Path, options: Options) -> Result<Self, Error> {
        let clock = options.clock.clone();
        Ok(Self::over(local::open(directory, options)?, clock))
    }

    /// Handles over another engine.
    pub fn over(engine: Arc<dyn Engine>, clock: Clock) -> Self {
        Self { engine, clock }
    }

    /// The state as `namespace` sees it.
    pub fn space(&self, namespace: &Namespace) -> Space {
        Space::new(Arc::clone(&self.engine), namespace, self.clock.clone())
    }

    /// The namespaces that have rows in `table`, in order.
    ///
    /// # Errors
    /// `Internal` when they cannot be read.
    pub fn namespaces(&self, table: &'static str) -> Result<Vec<Namespace>, Error> {
        self.engine.namespaces(table)
    }

    /// The namespaces that have blobs, or files of blobs that nobody refers to, in order. Blocking;
    /// for sweeping at the start.
    ///
    /// # Errors
    /// `Internal` when they cannot be read.
    pub fn blob_namespaces(&self) -> Result<Vec<Namespace>, Error> {
        self.engine.blob_namespaces()
    }

    /// Of the last commit that was acknowledged.
    pub fn revision(&self) -> Revision {
        self.engine.revision()
    }

    /// Brings everything that is committed into its final place. Nobody needs to call it; it happens
    /// by itself.
    ///
    /// # Errors
    /// `Exhausted` when the disk is full; `Internal` when it cannot be written.
    pub async fn checkpoint(&self) -> Result<(), Error> {
        self.engine.checkpoint().await
    }

    /// Copies the state, as it is at one moment, into the new directory `into`, while it is in use.
    /// [`Storage::open`] accepts the copy.
    ///
    /// # Errors
    /// `Exhausted` when the disk is full; `Internal` when it cannot be written.
    pub async fn snapshot(&self, into: &Path) -> Result<(), Error> {
        self.engine.snapshot(into).await
    }

    /// Reads all of the state below `directory`, which nobody may have open, and compares it with
    /// its checksums. Changes nothing.
    ///
    /// # Errors
    /// When it cannot be read at all; what is wrong inside is in the report.
    pub fn check(directory: &Path) -> Result<Report, Error> {
        local::check(directory)
    }

    /// What `namespace` may hold; `None` for whatever fits. Not remembered over a restart.
    pub fn set_quota(&self, namespace: &Namespace, bytes: Option<u64>) {
        self.engine.set_quota(namespace, bytes);
    }

    /// Finishes the commits that are queued, brings everything into its final place and closes the
    /// files. Every later use answers [`Error::Closed`]. Blocking.
    pub fn close(&self) {
        self.engine.close();
    }
}
