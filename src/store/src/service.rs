//! [`Service`] runs what the store does by itself, [`Handle`] gives the databases and blobs of a
//! namespace to whoever may have them.

use std::{sync::Arc, time::Duration};

use micro_core::{Clock, Namespace, Timestamp};
use micro_proto::store::{blob_store_server::BlobStoreServer, store_server::StoreServer};
use micro_storage::Storage;
use tokio::{sync::Semaphore, time};
use tokio_util::sync::CancellationToken;

use crate::{
    BlobRpc, Bucket, Database, Error, Rpc, blobs, expiry::Deadlines, place, tables::Tables,
};

/// How often it is looked whether something has expired; one number is read for it.
const SWEEP: Duration = Duration::from_secs(1);
/// Long walks at a time. Each may hold an answer in memory.
const WALKS: usize = 4;
/// The largest request: the largest record, and its frame.
const MESSAGE: usize = 64 * 1024 * 1024 + 64 * 1024;

/// What the store has to be told.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The most bytes of one blob.
    pub blob: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self { blob: 16 << 30 }
    }
}

/// The store. Keep it running with [`Service::run`].
#[derive(Debug)]
pub struct Service {
    handle: Handle,
}

/// Gives out databases and blobs. It asks nobody who is calling. Clones share it.
#[derive(Clone)]
pub struct Handle {
    shared: Arc<Shared>,
}

pub(crate) struct Shared {
    pub(crate) storage: Storage,
    pub(crate) clock: Clock,
    pub(crate) settings: Settings,
    pub(crate) tables: Tables,
    pub(crate) deadlines: Deadlines,
    pub(crate) walks: Semaphore,
    pub(crate) stopped: CancellationToken,
}

impl std::fmt::Debug for Handle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Handle").finish_non_exhaustive()
    }
}

impl Service {
    /// Opens the store over `storage`, and removes what uploads left behind that a crash cut off.
    /// Nobody may be writing blobs yet.
    ///
    /// # Errors
    /// When `storage` cannot be read.
    pub async fn open(settings: Settings, storage: &Storage, clock: Clock) -> Result<Self, Error> {
        let shared = Shared {
            storage: storage.clone(),
            clock,
            settings,
            tables: Tables::default(),
            deadlines: Deadlines::default(),
            walks: Semaphore::new(WALKS),
            stopped: CancellationToken::new(),
        };
        blobs::remove_orphans(storage).await?;
        Ok(Self {
            handle: Handle {
                shared: Arc::new(shared),
            },
        })
    }

    /// A handle on this store.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// `store.Store` over gRPC.
    pub fn store_server(&self) -> StoreServer<Rpc> {
        StoreServer::new(Rpc::new(self.handle()))
            .max_decoding_message_size(MESSAGE)
            .max_encoding_message_size(usize::MAX)
    }

    /// `store.BlobStore` over gRPC.
    pub fn blob_server(&self) -> BlobStoreServer<BlobRpc> {
        BlobStoreServer::new(BlobRpc::new(self.handle())).max_decoding_message_size(MESSAGE)
    }

    /// Takes away what has expired, until `stop`; then ends all watches.
    pub async fn run(self, stop: CancellationToken) {
        let mut ticks = time::interval(SWEEP);
        ticks.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = stop.cancelled() => break,
            }
            // A sweep of many records must not hold up the stop; what is left is swept later.
            tokio::select! {
                swept = self.handle.sweep() => {
                    if let Err(error) = swept {
                        tracing::warn!(%error, "Records that have expired still take space.");
                    }
                }
                () = stop.cancelled() => break,
            }
        }
        self.handle.shared.stopped.cancel();
    }
}

impl Handle {
    /// The database of a namespace.
    pub fn database(&self, namespace: &Namespace) -> Database {
        Database::new(&self.shared, namespace)
    }

    /// The blobs of a namespace.
    pub fn bucket(&self, namespace: &Namespace) -> Bucket {
        Bucket::new(&self.shared, namespace)
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.shared.clock.now()
    }

    /// The namespaces that have a table, in order.
    ///
    /// # Errors
    /// `Internal` when they cannot be read.
    pub fn databases(&self) -> Result<Vec<Namespace>, Error> {
        Ok(self.shared.storage.namespaces(place::TABLES)?)
    }

    /// Takes away all records whose deadline has passed, and says how many there were. It happens by
    /// itself while [`Service::run`] runs.
    ///
    /// # Errors
    /// When it cannot be written; what is left is tried again.
    pub async fn sweep(&self) -> Result<u64, Error> {
        self.shared.sweep().await
    }
}
