//! Keeping services as they should be: adopting what outlived the node, starting what is missing,
//! stopping what nobody wants.

use std::{
    collections::BTreeSet,
    sync::{Arc, PoisonError},
    time::Instant,
};

use micro_core::InstanceId;
use micro_sandbox::{Running, SpecKind};
use tokio_util::sync::CancellationToken;

use crate::{
    deploy::Reporter,
    engine::{Engine, Instance, Live},
    error::Error,
    health::Offer,
    instance::{GRACE, Launched},
    repo::{Key, ReleaseRow, ServiceRow, Status},
};

impl Engine {
    /// Takes over after a start of the node.
    pub(crate) async fn restore(self: &Arc<Self>) -> Result<(), Error> {
        let running = self.supervisor.list().await?;
        let rows = self.repo.services(None).await?;
        let mut adopted = BTreeSet::new();
        for one in running {
            if one.spec.kind == SpecKind::Build {
                self.abandon_build(&one);
            } else if let Some(id) = self.adopt_or_end(&one, &rows) {
                adopted.insert(id);
            }
        }
        // Instances that ended while nobody looked may still be in the directory.
        for row in self.repo.instances().await? {
            if !adopted.contains(&row.id) {
                self.withdraw(&row.key, &row.id).await;
                self.repo.end_instance(row.id, self.clock.now()).await?;
            }
        }
        for row in rows {
            self.restore_service(row).await;
        }
        self.sweep();
        self.sweep_releases().await
    }

    /// A build that outlived its deployment is of no use; the deployment begins again.
    fn abandon_build(self: &Arc<Self>, build: &Running) {
        let version = build.spec.labels.get("version").map(String::as_str);
        let version = version.and_then(|v| v.parse().ok());
        let key = Key {
            namespace: build.spec.namespace.clone(),
            name: build.spec.service.clone(),
            version: version.unwrap_or_else(micro_core::Version::latest),
        };
        let (engine, id) = (Arc::clone(self), build.spec.id.clone());
        self.handle.spawn(async move {
            engine.clear_build(&key, &id).await;
        });
    }

    /// Takes an instance of the release that serves; ends any other.
    fn adopt_or_end(
        self: &Arc<Self>,
        running: &Running,
        rows: &[ServiceRow],
    ) -> Option<InstanceId> {
        let id = running.spec.id.clone();
        let wanted = Instance::from_running(running).filter(|(key, instance)| {
            running.exit.is_none()
                && rows
                    .iter()
                    .any(|r| r.key == *key && r.release == Some(instance.release))
        });
        let Some((key, instance)) = wanted else {
            let engine = Arc::clone(self);
            self.handle.spawn(async move {
                engine.end(&id, GRACE).await;
            });
            return None;
        };
        self.slot(&key).live().instances.push(instance);
        Some(id)
    }

    async fn restore_service(self: &Arc<Self>, row: ServiceRow) {
        let key = row.key.clone();
        let instances = self.slot(&key).live().instances.clone();
        if !instances.is_empty()
            && let Err(error) = self.announce_adopted(&row, &instances).await
        {
            tracing::error!(%error, service = %key.name, "Adopted instances could not be announced.");
        }
        self.catch_up(&instances);
        if row.pending.is_some() {
            let engine = Arc::clone(self);
            self.handle.spawn(async move { engine.resume(row).await });
        }
        self.wake(&key);
    }

    async fn announce_adopted(
        self: &Arc<Self>,
        row: &ServiceRow,
        instances: &[Instance],
    ) -> Result<(), Error> {
        let Some(release) = self.serving(row).await? else {
            return Ok(());
        };
        let offer = known_offer(&release).unwrap_or_else(Offer::own);
        self.announce(&release, &offer, instances).await
    }

    /// The release that should serve.
    async fn serving(&self, row: &ServiceRow) -> Result<Option<ReleaseRow>, Error> {
        match row.release {
            None => Ok(None),
            Some(number) => self.repo.release(row.key.clone(), number).await,
        }
    }

    /// Removes artifacts that no release refers to: leftovers of a node that ended in between.
    async fn sweep_releases(self: &Arc<Self>) -> Result<(), Error> {
        let _artifacts = self.artifacts.write().await;
        let known = self.repo.digests().await?;
        let dir = self.state.releases();
        let found = tokio::task::spawn_blocking(move || {
            std::fs::read_dir(dir)
                .into_iter()
                .flatten()
                .flatten()
                .filter_map(|e| e.file_name().into_string().ok())
                .filter(|name| !known.contains(name))
                .collect::<Vec<_>>()
        })
        .await?;
        self.remove_artifacts(found).await;
        Ok(())
    }

    /// Looks at services when something asks for it, until `stop`.
    pub(crate) async fn reconcile(self: Arc<Self>, stop: CancellationToken) {
        let woken = self
            .woken
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let Some(mut woken) = woken else {
            return; // Somebody does this already.
        };
        loop {
            let key = tokio::select! {
                () = stop.cancelled() => return,
                key = woken.recv() => match key {
                    Some(key) => key,
                    None => return,
                },
            };
            let (engine, stop) = (Arc::clone(&self), stop.clone());
            self.handle.spawn(async move {
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = Box::pin(engine.mend(&key)) => {}
                }
            });
        }
    }

    /// Starts what is missing of one service.
    async fn mend(self: &Arc<Self>, key: &Key) {
        let slot = self.slot(key);
        let _switching = slot.switching.lock().await;
        let outcome = async {
            let Some(row) = self.repo.service(key.clone()).await? else {
                return Ok(());
            };
            let Some(release) = self.serving(&row).await? else {
                return Ok(());
            };
            let (missing, early) = missing(&slot.live(), &release);
            if missing == 0 || early {
                return Ok(());
            }
            let _place = self.starters.acquire().await.map_err(|_| Error::Task)?;
            self.start_more(&row, &release, missing).await
        }
        .await;
        if let Err(error) = outcome {
            let pause = slot.live().crashed(0);
            let status = if slot.live().instances.is_empty() {
                Status::Error
            } else {
                Status::Running
            };
            tracing::warn!(namespace = %key.namespace, service = %key.name, %error, "An instance could not be started; it is tried again.");
            let now = self.clock.now();
            let stored = self.repo.set_status(key.clone(), status, error.full(), now);
            if let Err(error) = stored.await {
                tracing::error!(%error, "The status of a service could not be stored.");
            }
            self.wake_after(key, pause);
        }
    }

    async fn start_more(
        self: &Arc<Self>,
        row: &ServiceRow,
        release: &ReleaseRow,
        missing: u32,
    ) -> Result<(), Error> {
        let key = &row.key;
        let known = known_offer(release);
        let reporter = Reporter::default();
        let (launched, offer) = self.start(release, missing, known, &reporter).await?;
        let instances: Vec<Instance> = launched.iter().filter_map(Launched::get).cloned().collect();
        self.announce(release, &offer, &instances).await?;
        let new = launched.into_iter().filter_map(Launched::keep);
        self.slot(key).live().instances.extend(new);
        self.catch_up(&instances);
        let now = self.clock.now();
        self.repo
            .set_status(key.clone(), Status::Running, String::new(), now)
            .await
    }

    /// Stops a service and forgets it. Its data and its output stay.
    pub(crate) async fn delete(self: &Arc<Self>, key: &Key) -> Result<(), Error> {
        if self.repo.service(key.clone()).await?.is_none() {
            return Err(Error::NotFound);
        }
        let slot = self.slot(key);
        let cancel = std::mem::take(&mut slot.live().cancel);
        cancel.cancel();
        let _deploying = slot.deploying.lock().await;
        let _switching = slot.switching.lock().await;
        slot.live().phase = Some(Status::Stopping);
        let instances = std::mem::take(&mut slot.live().instances);
        let ended = instances.iter().map(|instance| async {
            self.withdraw(key, &instance.id).await;
            self.end(&instance.id, GRACE).await;
        });
        futures_util::future::join_all(ended).await;
        slot.live().phase = None;
        self.repo.delete(key.clone()).await?;
        tracing::info!(namespace = %key.namespace, service = %key.name, version = %key.version, "Service deleted.");
        self.sweep();
        self.sweep_releases().await
    }
}

/// What instances of this release offered before.
fn known_offer(release: &ReleaseRow) -> Option<Offer> {
    let served = release.served.as_ref()?;
    Offer::known(served, release.descriptors.as_deref())
}

/// How many instances of `release` are missing, and whether it is too early to start them.
fn missing(live: &Live, release: &ReleaseRow) -> (u32, bool) {
    let have = live
        .instances
        .iter()
        .filter(|i| i.release == release.number)
        .count();
    let have = u32::try_from(have).unwrap_or(u32::MAX);
    let early = live.not_before.is_some_and(|t| Instant::now() < t);
    (release.recipe.instances.saturating_sub(have), early)
}
