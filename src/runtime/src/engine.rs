//! What deployments, reconciling and the gRPC services share: the ports, the slots of services, and
//! the one task that listens to the supervisor.

use std::{
    collections::{BTreeMap, HashMap},
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use micro_core::{Clock, InstanceId, Namespace, Settings, StateDir, Timestamp};
use micro_sandbox::{Event, Exit, Supervisor};
use tokio::{
    runtime::Handle,
    sync::{Mutex as AsyncMutex, RwLock, Semaphore, mpsc},
};
use tokio_util::sync::CancellationToken;

use crate::{
    Parts,
    error::Error,
    exits::Exits,
    ports::{Credentials, Directory, Doors},
    repo::{Key, Repo, Status},
    trees::Trees,
};

/// First pause before a crashed instance is started again; it doubles.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// Longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// An instance that lived this long crashed for a new reason.
const STEADY_MS: i64 = 60_000;

/// The runtime's state. One per node, behind an `Arc`.
pub(crate) struct Engine {
    pub(crate) settings: Settings,
    pub(crate) state: StateDir,
    pub(crate) repo: Repo,
    pub(crate) supervisor: Supervisor,
    pub(crate) directory: Arc<dyn Directory>,
    pub(crate) credentials: Arc<dyn Credentials>,
    pub(crate) doors: Doors,
    pub(crate) clock: Clock,
    pub(crate) missing: Vec<String>,
    /// The control plane's runtime; requests may be polled on others.
    pub(crate) handle: Handle,
    pub(crate) exits: Exits,
    pub(crate) trees: Trees,
    /// How many builds may run at once.
    pub(crate) builders: Semaphore,
    /// Read while an artifact is made and named by a release, written while artifacts are removed.
    pub(crate) artifacts: RwLock<()>,
    /// How many restarts may be under way at once: after a reboot all services come at the same time.
    pub(crate) starters: Semaphore,
    build_turns: Mutex<HashMap<Namespace, Arc<AsyncMutex<()>>>>,
    slots: Mutex<BTreeMap<Key, Arc<Slot>>>,
    wake: mpsc::UnboundedSender<Key>,
    pub(crate) woken: Mutex<Option<mpsc::UnboundedReceiver<Key>>>,
}

/// One service while the node runs.
#[derive(Default)]
pub(crate) struct Slot {
    /// Held by a deployment from its first step to its last.
    pub(crate) deploying: AsyncMutex<()>,
    /// Held while instances are exchanged; short, so that crashes are mended during builds.
    pub(crate) switching: AsyncMutex<()>,
    live: Mutex<Live>,
}

/// What runs of a service.
#[derive(Default)]
pub(crate) struct Live {
    /// Instances that serve.
    pub(crate) instances: Vec<Instance>,
    /// What a deployment does right now.
    pub(crate) phase: Option<Status>,
    /// Ends deployments of a service that is deleted.
    pub(crate) cancel: CancellationToken,
    /// Crashes in a row.
    pub(crate) crashes: u32,
    /// Restarts since the node started.
    pub(crate) retries: u32,
    /// No start before this.
    pub(crate) not_before: Option<Instant>,
}

/// One running copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Instance {
    pub(crate) id: InstanceId,
    pub(crate) release: i64,
    pub(crate) port: u16,
    pub(crate) pid: i32,
    pub(crate) started: Timestamp,
}

impl Slot {
    pub(crate) fn live(&self) -> MutexGuard<'_, Live> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Live {
    /// Counts a crash; how long to wait before the next start.
    pub(crate) fn crashed(&mut self, lived_ms: i64) -> Duration {
        if lived_ms >= STEADY_MS {
            self.crashes = 0;
        }
        let pause = FIRST_PAUSE
            .saturating_mul(1 << self.crashes.min(16))
            .min(LONGEST_PAUSE);
        self.crashes += 1;
        self.retries += 1;
        self.not_before = Some(Instant::now() + pause);
        pause
    }
}

impl Engine {
    pub(crate) async fn open(parts: Parts) -> Result<Arc<Self>, Error> {
        let sqlite = parts.sqlite.clone();
        let repo = tokio::task::spawn_blocking(move || Repo::open(&sqlite)).await??;
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let (wake, woken) = mpsc::unbounded_channel();
        let engine = Arc::new(Self {
            trees: Trees::new(parts.state.sources()),
            settings: parts.settings,
            state: parts.state,
            repo,
            supervisor: parts.supervisor,
            directory: parts.directory,
            credentials: parts.credentials,
            doors: parts.doors,
            clock: parts.clock,
            missing: parts.missing,
            handle: Handle::current(),
            exits: Exits::default(),
            builders: Semaphore::new((cores / 2).max(1)),
            artifacts: RwLock::default(),
            starters: Semaphore::new(cores * 2),
            build_turns: Mutex::default(),
            slots: Mutex::default(),
            wake,
            woken: Mutex::new(Some(woken)),
        });
        engine
            .handle
            .spawn(listen(Arc::clone(&engine), parts.events));
        Ok(engine)
    }

    /// The slot of a service; made when there is none.
    pub(crate) fn slot(&self, key: &Key) -> Arc<Slot> {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(slots.entry(key.clone()).or_default())
    }

    /// All slots there are.
    pub(crate) fn slots(&self) -> Vec<(Key, Arc<Slot>)> {
        let slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        slots
            .iter()
            .map(|(k, s)| (k.clone(), Arc::clone(s)))
            .collect()
    }

    /// Builds of one namespace share caches and a user, so they take turns.
    pub(crate) fn build_turn(&self, namespace: &Namespace) -> Arc<AsyncMutex<()>> {
        let mut turns = self
            .build_turns
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        Arc::clone(turns.entry(namespace.clone()).or_default())
    }

    /// Asks for a look at a service.
    pub(crate) fn wake(&self, key: &Key) {
        // Nobody listens only when the node ends.
        drop(self.wake.send(key.clone()));
    }

    /// Asks for a look at a service later.
    pub(crate) fn wake_after(self: &Arc<Self>, key: &Key, pause: Duration) {
        let (engine, key) = (Arc::clone(self), key.clone());
        self.handle.spawn(async move {
            tokio::time::sleep(pause).await;
            engine.wake(&key);
        });
    }

    /// Where the output of a service's instances and builds is.
    pub(crate) fn log_dir(&self, key: &Key) -> PathBuf {
        self.state.logs(&key.namespace, &key.name)
    }

    pub(crate) fn release_dir(&self, digest: &str) -> PathBuf {
        self.state.releases().join(digest)
    }

    /// An instance that served has ended on its own.
    pub(crate) fn ended(self: &Arc<Self>, id: &InstanceId, exit: &Exit) {
        for (key, slot) in self.slots() {
            let found = {
                let mut live = slot.live();
                let at = live.instances.iter().position(|i| i.id == *id);
                at.map(|at| {
                    let instance = live.instances.remove(at);
                    let lived = self.clock.now().0.saturating_sub(instance.started.0);
                    let pause = live.crashed(lived);
                    (pause, live.instances.is_empty(), live.retries)
                })
            };
            let Some((pause, last, retries)) = found else {
                continue;
            };
            tracing::warn!(namespace = %key.namespace, service = %key.name, version = %key.version, instance = %id, %exit, retries, "An instance ended; it is started again.");
            let (engine, id, exit) = (Arc::clone(self), id.clone(), exit.clone());
            self.handle.spawn(async move {
                engine.withdraw(&key, &id).await;
                engine.clear(&id).await;
                let status = if last { Status::Error } else { Status::Running };
                let text = format!("{} {exit}; it is started again", key.name);
                let now = engine.clock.now();
                if let Err(error) = engine.repo.set_status(key.clone(), status, text, now).await {
                    tracing::error!(%error, "The status of a service could not be stored.");
                }
                engine.wake_after(&key, pause);
            });
            return;
        }
    }

    /// Tells the directory that an instance serves no more.
    pub(crate) async fn withdraw(&self, key: &Key, id: &InstanceId) {
        let told = self.directory.withdraw(
            key.namespace.clone(),
            key.name.clone(),
            key.version.clone(),
            id.to_string(),
        );
        if let Err(error) = told.await {
            tracing::error!(%error, service = %key.name, instance = %id, "An instance that ended could not be withdrawn.");
        }
    }

    /// Forgets an instance that has ended, everywhere.
    pub(crate) async fn clear(&self, id: &InstanceId) {
        // Forgetting what is forgotten already is fine.
        drop(self.supervisor.forget(id).await);
        self.exits.forget(id);
        if let Err(error) = self.repo.end_instance(id.clone(), self.clock.now()).await {
            tracing::error!(%error, instance = %id, "The end of an instance could not be stored.");
        }
    }
}

/// Hears of ends for as long as the node lives.
async fn listen(engine: Arc<Engine>, mut events: mpsc::UnboundedReceiver<Event>) {
    while let Some(event) = events.recv().await {
        match event {
            Event::Exited { id, exit } => {
                engine.exits.record(&id, &exit);
                engine.ended(&id, &exit);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_to_half_a_minute_and_begin_anew_after_a_steady_minute() {
        let mut live = Live::default();
        let pauses: Vec<u128> = (0..10).map(|_| live.crashed(5).as_millis()).collect();
        assert_eq!(
            pauses,
            [
                200, 400, 800, 1600, 3200, 6400, 12_800, 25_600, 30_000, 30_000
            ]
        );
        assert_eq!(live.crashed(STEADY_MS).as_millis(), 200);
        assert_eq!(live.retries, 11);
    }
}
