//! Topics: ordered, durable sequences of events, behind the commit log.
//!
//! **Life of an event.** The commit log is the commit point. What it has synced comes here in memory
//! ([`Topics::append_recent`]) and can be read at once. A checkpoint takes a mark
//! ([`Topics::freeze`]), writes what lies before it into segment files and syncs them
//! ([`Topics::flush`]), stores the ends that this returns in the index together with the position of
//! the log, and confirms ([`Topics::confirm`]). Only then do the events leave memory.
//!
//! **Recovery.** [`Topics::open`] takes the ends that the index knows. Whatever the files hold beyond
//! them was never confirmed: it is cut off, and the log brings it again.
//!
//! **On disk.** `<namespace>/<name>~<incarnation>/<offset of the first event>.seg`, with an `.idx`
//! beside each segment that is full. A topic that is removed and made again gets another
//! incarnation, so nothing of the old one can come back.
//!
//! | file | owns |
//! |---|---|
//! | `topic.rs` | one topic in memory: its bounds, its recent events, its followers |
//! | `recorded.rs` | what the index stores about a topic |
//! | `flush.rs` | a checkpoint: mark, write, sync, confirm |
//! | `write.rs` | writing the events of one topic behind each other, from segment to segment |
//! | `record.rs` | the bytes of one event and of the head of a segment |
//! | `segment.rs` | reading a segment file: walking its records, finding the next good one |
//! | `index.rs` | from offset, time or size to a position in a segment, and the `.idx` file |
//! | `files.rs` | the segments of a topic in its directory, and the few that are open |
//! | `read.rs` | reading events by offset and finding them by time |
//! | `retain.rs` | letting go of what is old, and of whole topics |
//! | `check.rs` | reading everything, saying what is damaged |
//! | `copy.rs` | the files of a snapshot |

use std::{
    collections::{BTreeMap, HashMap},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
};

use micro_core::Namespace;
use tokio::sync::watch;

use crate::{Bounds, Entry, Error, disk::Disk};
use files::{Disposal, OpenFiles};
use topic::{Removed, Topic};

mod check;
mod copy;
mod files;
mod flush;
mod index;
mod read;
mod record;
mod recorded;
mod retain;
mod segment;
mod topic;
mod write;

pub(crate) use check::check;
pub(crate) use flush::{Flushed, Frozen};
pub(crate) use recorded::Recorded;
pub(crate) use retain::Cut;

/// All topics of the node. Readers and the committer never wait for a sync.
pub(crate) struct Topics {
    disk: Arc<dyn Disk>,
    directory: PathBuf,
    namespaces: RwLock<HashMap<Namespace, Tenant>>,
    /// Topics that changed since the last mark.
    changed: Mutex<Vec<Arc<Topic>>>,
    /// Topics removed since the last mark.
    removed: Mutex<Vec<Removed>>,
    /// What the next topic gets that comes into being.
    incarnation: AtomicU64,
    open: OpenFiles,
    disposal: Mutex<Disposal>,
    /// Whether files may be repaired and removed; false while they are only checked.
    writable: bool,
    /// Between which lengths a segment is full.
    full: (u64, u64),
}

/// The topics of one namespace.
#[derive(Default)]
struct Tenant {
    topics: BTreeMap<Arc<str>, Arc<Topic>>,
    bytes: Arc<AtomicU64>,
    /// At how many topics to look for those that nobody needs.
    sweep: usize,
}

impl std::fmt::Debug for Topics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Topics")
            .field("directory", &self.directory)
            .finish_non_exhaustive()
    }
}

impl Topics {
    /// Opens the topics in `directory` as the index knows them. Directories that it does not know
    /// are remains of topics that were removed, or never confirmed, and go.
    ///
    /// Segment files are looked at when they are first needed, so that this is quick.
    ///
    /// # Errors
    /// `Internal` when the directory cannot be read.
    pub(crate) fn open(
        disk: Arc<dyn Disk>,
        directory: &Path,
        recorded: Vec<Recorded>,
    ) -> Result<Self, Error> {
        let topics = Self::restore(disk, directory, recorded, true);
        topics.sweep()?;
        Ok(topics)
    }

    /// The topics as the index knows them; the files are not touched.
    fn restore(
        disk: Arc<dyn Disk>,
        directory: &Path,
        recorded: Vec<Recorded>,
        writable: bool,
    ) -> Self {
        let mut namespaces: HashMap<Namespace, Tenant> = HashMap::new();
        let mut newest = 0;
        for recorded in recorded {
            newest = newest.max(recorded.incarnation);
            let tenant = namespaces.entry(recorded.namespace.clone()).or_default();
            let topic = Topic::restored(recorded, Arc::clone(&tenant.bytes));
            tenant.topics.insert(Arc::clone(&topic.name), topic);
        }
        Self {
            disk,
            directory: directory.to_owned(),
            namespaces: RwLock::new(namespaces),
            changed: Mutex::default(),
            removed: Mutex::default(),
            incarnation: AtomicU64::new(newest.saturating_add(1)),
            open: OpenFiles::default(),
            disposal: Mutex::default(),
            writable,
            full: (write::SMALLEST, write::LARGEST),
        }
    }

    /// The offset that the next event of a topic gets; 0 when there is no such topic.
    pub(crate) fn next_offset(&self, namespace: &Namespace, topic: &str) -> u64 {
        self.find(namespace, topic).map_or(0, |t| t.state().next)
    }

    /// Takes events that the log has synced, in their order: readers see them, followers wake. A
    /// topic comes into being with its first event. Events that are already here are passed over,
    /// for the log may bring them again. A time before that of the event in front becomes that time.
    ///
    /// # Errors
    /// `Internal` when the offsets do not continue those of the topic.
    pub(crate) fn append_recent(
        &self,
        namespace: &Namespace,
        topic: &str,
        mut entries: Vec<Entry>,
    ) -> Result<(), Error> {
        if entries.is_empty() {
            return Ok(());
        }
        loop {
            let topic = self.find_or_make(namespace, topic);
            match topic.append(&mut entries)? {
                Some(true) => lock(&self.changed).push(topic),
                Some(false) => {}
                // Given up in this moment, for it had neither events nor followers.
                None => continue,
            }
            return Ok(());
        }
    }

    /// How far a topic reaches; nothing when there is no such topic.
    pub(crate) fn bounds(&self, namespace: &Namespace, topic: &str) -> Bounds {
        self.find(namespace, topic)
            .map_or_else(Bounds::default, |t| t.state().bounds())
    }

    /// Whether reading from `from` is answered from memory.
    pub(crate) fn is_recent(&self, namespace: &Namespace, topic: &str, from: u64) -> bool {
        self.find(namespace, topic)
            .is_none_or(|t| t.state().is_recent(from))
    }

    /// The offset of the next event, told anew whenever it changes, also for a topic that does not
    /// exist yet. It goes back to 0 when the topic is removed.
    pub(crate) fn follow(&self, namespace: &Namespace, topic: &str) -> watch::Receiver<u64> {
        loop {
            let topic = self.find_or_make(namespace, topic);
            // None: removed in this moment.
            if let Some(receiver) = topic.follow() {
                return receiver;
            }
        }
    }

    /// The names of the topics of a namespace, in order.
    pub(crate) fn names(&self, namespace: &Namespace) -> Vec<String> {
        let namespaces = self
            .namespaces
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        let Some(tenant) = namespaces.get(namespace) else {
            return Vec::new();
        };
        let topics = tenant.topics.values();
        topics
            .filter(|t| t.state().exists())
            .map(|t| t.name.to_string())
            .collect()
    }

    /// What the topics of a namespace take of the disk, or will take.
    pub(crate) fn usage(&self, namespace: &Namespace) -> u64 {
        self.namespaces
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(namespace)
            .map_or(0, |tenant| tenant.bytes.load(Ordering::Relaxed))
    }

    fn find(&self, namespace: &Namespace, topic: &str) -> Option<Arc<Topic>> {
        let namespaces = self
            .namespaces
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        namespaces.get(namespace)?.topics.get(topic).cloned()
    }

    fn find_or_make(&self, namespace: &Namespace, topic: &str) -> Arc<Topic> {
        if let Some(found) = self.find(namespace, topic) {
            return found;
        }
        let mut namespaces = self
            .namespaces
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        let tenant = namespaces.entry(namespace.clone()).or_default();
        if let Some(found) = tenant.topics.get(topic) {
            return Arc::clone(found);
        }
        if tenant.topics.len() >= tenant.sweep {
            // Followers of topics that never came into being leave an entry behind; here it goes.
            tenant.topics.retain(|_, t| !t.give_up());
            tenant.sweep = tenant.topics.len().saturating_mul(2).max(64);
        }
        let topic = self.make(namespace, topic, tenant);
        tenant
            .topics
            .insert(Arc::clone(&topic.name), Arc::clone(&topic));
        topic
    }

    fn make(&self, namespace: &Namespace, topic: &str, tenant: &Tenant) -> Arc<Topic> {
        let incarnation = self.incarnation.fetch_add(1, Ordering::Relaxed);
        Topic::new(
            namespace.clone(),
            topic.into(),
            incarnation,
            Arc::clone(&tenant.bytes),
        )
    }
}

/// Nothing that holds one of our locks can leave its value half changed.
fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
