//! A deployment, step by step. The old release serves until the new one does; a failure at any step
//! leaves it serving and says why. What a deployment needs is written down before its first step, so
//! a node that ends in the middle begins it again.

mod assemble;
mod fetch;
mod request;
mod start;

use std::sync::Arc;

use futures_util::future::join_all;
use tokio::sync::mpsc;

use crate::{
    detect,
    engine::{Engine, Instance, Slot},
    error::Error,
    instance::Launched,
    manifest::Protocol,
    plan,
    repo::{Key, ServiceRow, Status},
    trees::TreeUse,
};

pub(crate) use request::Request;

/// Deployments that the node's end interrupted begin again this often.
const MAX_ATTEMPTS: u32 = 3;

/// One message of a deployment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Progress {
    /// A phase begins.
    Phase(String),
    /// One line of output.
    Line(String),
}

/// Where a deployment tells what it does. Someone who reads too slowly loses lines, and a deployment
/// never waits for anyone to read.
#[derive(Clone, Default)]
pub(crate) struct Reporter(Option<mpsc::Sender<Progress>>);

impl Reporter {
    pub(crate) fn new(to: mpsc::Sender<Progress>) -> Self {
        Self(Some(to))
    }

    pub(crate) fn listens(&self) -> bool {
        self.0.as_ref().is_some_and(|to| !to.is_closed())
    }

    pub(crate) fn phase(&self, text: &str) {
        self.send(Progress::Phase(text.to_owned()));
    }

    pub(crate) fn line(&self, text: &str) {
        self.send(Progress::Line(text.to_owned()));
    }

    fn send(&self, progress: Progress) {
        if let Some(to) = &self.0 {
            drop(to.try_send(progress));
        }
    }
}

/// What serves after a deployment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Deployed {
    pub(crate) key: Key,
    pub(crate) release: i64,
    /// `None`: it registers itself.
    pub(crate) protocol: Option<Protocol>,
}

/// A deployment whose source is there.
pub(crate) struct Prepared {
    row: ServiceRow,
    tree: TreeUse,
    entrypoint: String,
}

impl Engine {
    /// Fetches the source and writes the deployment down; from here on it goes on without the caller.
    pub(crate) async fn prepare(
        self: &Arc<Self>,
        request: Request,
        reporter: &Reporter,
    ) -> Result<Prepared, Error> {
        let known = self.repo.service(request.key.clone()).await?;
        let row = request.merge(known, self.clock.now())?;
        reporter.phase("fetching");
        let (tree, entrypoint) = self.fetch(&row).await?;
        self.repo.begin(row.clone()).await?;
        Ok(Prepared {
            row,
            tree,
            entrypoint,
        })
    }

    /// Begins a deployment again that the node's end interrupted.
    pub(crate) async fn resume(self: &Arc<Self>, row: ServiceRow) {
        let key = row.key.clone();
        let outcome = if row.attempts >= MAX_ATTEMPTS {
            Err(Error::GaveUp {
                times: row.attempts,
            })
        } else {
            async {
                self.repo.attempt(key.clone()).await?;
                let (tree, entrypoint) = self.fetch(&row).await?;
                Ok(Prepared {
                    row,
                    tree,
                    entrypoint,
                })
            }
            .await
        };
        match outcome {
            // How it ends is in its status.
            Ok(prepared) => drop(self.deploy(prepared, Reporter::default()).await),
            Err(error) => self.failed(&key, &self.slot(&key), &error).await,
        }
    }

    /// Builds, starts and switches. Its outcome is also in the service's status.
    pub(crate) async fn deploy(
        self: &Arc<Self>,
        prepared: Prepared,
        reporter: Reporter,
    ) -> Result<Deployed, Error> {
        let key = prepared.row.key.clone();
        let slot = self.slot(&key);
        let cancel = slot.live().cancel.clone();
        let _deploying = match slot.deploying.try_lock() {
            Ok(turn) => turn,
            Err(_) => {
                reporter.phase("waiting for another deployment of this service");
                let turn = slot.deploying.lock().await;
                if !cancel.is_cancelled() {
                    // The other one's end has cleared what was written down for this one.
                    self.repo.begin(prepared.row.clone()).await?;
                }
                turn
            }
        };
        if self.repo.service(key.clone()).await?.is_none() {
            return Err(Error::Cancelled {
                service: key.to_string(),
            });
        }
        let steps = Box::pin(self.steps(&prepared, &slot, &reporter));
        let outcome = tokio::select! {
            outcome = steps => outcome,
            () = cancel.cancelled() => Err(Error::Cancelled { service: key.to_string() }),
        };
        slot.live().phase = None;
        match &outcome {
            Ok(deployed) => {
                tracing::info!(namespace = %key.namespace, service = %key.name, version = %key.version, release = deployed.release, "Service deployed.");
            }
            Err(error) => self.failed(&key, &slot, error).await,
        }
        drop(prepared.tree);
        self.sweep();
        outcome
    }

    async fn failed(&self, key: &Key, slot: &Slot, error: &Error) {
        let serves = !slot.live().instances.is_empty();
        let status = if serves {
            Status::Running
        } else {
            Status::Error
        };
        let text = if serves {
            format!("the last deployment failed: {}", error.full())
        } else {
            error.full()
        };
        tracing::warn!(namespace = %key.namespace, service = %key.name, version = %key.version, %error, "A deployment failed.");
        let now = self.clock.now();
        if let Err(error) = self.repo.fail(key.clone(), status, text, now).await {
            tracing::error!(%error, "The end of a deployment could not be stored.");
        }
    }

    async fn steps(
        self: &Arc<Self>,
        prepared: &Prepared,
        slot: &Slot,
        reporter: &Reporter,
    ) -> Result<Deployed, Error> {
        let row = &prepared.row;
        let key = &row.key;
        slot.live().phase = Some(Status::Building);
        let (root, entrypoint, name) = (
            prepared.tree.path(),
            prepared.entrypoint.clone(),
            key.name.to_string(),
        );
        let (detected, plan) = tokio::task::spawn_blocking(move || {
            let detected = detect::detect(&root, &entrypoint, &name)?;
            let plan = plan::plan(&root, &detected)?;
            Ok::<_, Error>((detected, plan))
        })
        .await??;
        let built = match &plan.job {
            None => None,
            Some(job) => {
                reporter.phase("building");
                let tree = prepared.tree.name();
                Some(self.build(key, tree, job, reporter).await?)
            }
        };
        let release = self
            .release(prepared, detected, plan, built, reporter)
            .await?;
        reporter.phase("starting");
        slot.live().phase = Some(Status::Starting);
        let _switching = slot.switching.lock().await;
        let wanted = release.recipe.instances.max(1);
        let (launched, offer) = self.start(&release, wanted, None, reporter).await?;
        if let Some(note) = offer.note {
            reporter.line(&format!("note: {note}"));
        }
        let instances: Vec<Instance> = launched.iter().filter_map(Launched::get).cloned().collect();
        if let Err(error) = self.announce(&release, &offer, &instances).await {
            join_all(instances.iter().map(|i| self.withdraw(key, &i.id))).await;
            return Err(error);
        }
        let protocol = offer.served.protocol;
        self.repo
            .serve(
                key.clone(),
                release.number,
                offer.served,
                offer.descriptors,
                self.clock.now(),
            )
            .await?;
        let new: Vec<Instance> = launched.into_iter().filter_map(Launched::keep).collect();
        let old = {
            let mut live = slot.live();
            live.crashes = 0;
            live.not_before = None;
            std::mem::replace(&mut live.instances, new.clone())
        };
        self.retire(key, old);
        self.catch_up(&new);
        self.prune_releases(key);
        Ok(Deployed {
            key: key.clone(),
            release: release.number,
            protocol,
        })
    }

    /// An instance may have ended between its check and its place among the living.
    pub(crate) fn catch_up(self: &Arc<Self>, instances: &[Instance]) {
        for instance in instances {
            if let Some(exit) = self.exits.seen(&instance.id) {
                self.ended(&instance.id, &exit);
            }
        }
    }
}
