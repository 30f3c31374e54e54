//! New instances: started, waited for, asked what they speak, announced.

use std::{collections::BTreeMap, sync::Arc};

use futures_util::future::try_join_all;
use micro_core::Timestamp;

use super::Reporter;
use crate::{
    build::follow,
    engine::{Engine, Instance},
    error::{Error, Output},
    health::{self, Offer, Reached},
    instance::Launched,
    logs,
    ports::Announcement,
    repo::ReleaseRow,
};

/// Lines below an error.
const LAST_LINES: u64 = 20;

impl Engine {
    /// Starts `count` instances and waits until all serve. `known` is what an earlier instance of the
    /// same release offered.
    pub(crate) async fn start(
        self: &Arc<Self>,
        release: &ReleaseRow,
        count: u32,
        known: Option<Offer>,
        reporter: &Reporter,
    ) -> Result<(Vec<Launched>, Offer), Error> {
        let since = self.clock.now();
        let launched = try_join_all((0..count).map(|_| self.launch(release))).await?;
        let instances = launched.iter().filter_map(Launched::get);
        let reached = try_join_all(instances.enumerate().map(|(n, instance)| {
            let lines = if n == 0 {
                reporter.clone()
            } else {
                Reporter::default()
            };
            async move { self.reached(release, instance, since, &lines).await }
        }))
        .await?;
        let offer = match (
            known,
            reached.first(),
            launched.first().and_then(Launched::get),
        ) {
            (Some(known), _, _) => known,
            (None, Some(Reached::Port), Some(first)) => {
                reporter.phase("checking");
                let key = release.key.clone();
                let directory = Arc::clone(&self.directory);
                let registered =
                    move || directory.has_self_registered(&key.namespace, &key.name, since);
                let artifact = self.release_dir(&release.digest);
                health::ask(first.address(), &release.recipe, &artifact, registered).await?
            }
            _ => Offer::own(),
        };
        Ok((launched, offer))
    }

    /// Waits until one instance serves, ends or takes too long.
    async fn reached(
        &self,
        release: &ReleaseRow,
        instance: &Instance,
        since: Timestamp,
        reporter: &Reporter,
    ) -> Result<Reached, Error> {
        let key = &release.key;
        let timeout = self.settings.limits.start_timeout.0;
        let registered = || {
            self.directory
                .has_self_registered(&key.namespace, &key.name, since)
        };
        let follow = follow(self.log_dir(key), instance.id.clone(), reporter);
        let outcome = follow
            .until(async {
                tokio::select! {
                    exit = self.exits.wait(&instance.id) => Err(exit),
                    reached = health::reach(instance.address(), registered, timeout) => Ok(reached),
                }
            })
            .await;
        let problem = match outcome {
            Ok(Some(reached)) => return Ok(reached),
            Ok(None) => None,
            Err(exit) => Some(exit),
        };
        let (dir, id) = (self.log_dir(key), instance.id.clone());
        let lines = tokio::task::spawn_blocking(move || logs::tail(&dir, &id, LAST_LINES)).await?;
        let (service, output) = (key.name.to_string(), Output(lines));
        Err(match problem {
            Some(exit) => Error::Exited {
                service,
                reason: exit.to_string(),
                output,
            },
            None => Error::NoPort {
                service,
                seconds: timeout.as_secs(),
                output,
            },
        })
    }

    /// Tells the directory of instances that serve.
    pub(crate) async fn announce(
        &self,
        release: &ReleaseRow,
        offer: &Offer,
        instances: &[Instance],
    ) -> Result<(), Error> {
        let Some(protocol) = offer.served.protocol else {
            return Ok(());
        };
        let key = &release.key;
        let all = instances.iter().map(|instance| {
            self.directory.announce(Announcement {
                namespace: key.namespace.clone(),
                service: key.name.clone(),
                version: key.version.clone(),
                metadata: BTreeMap::from([
                    ("protocol".to_owned(), protocol.as_str().to_owned()),
                    ("release".to_owned(), release.number.to_string()),
                ]),
                protocol,
                schema: Arc::clone(&offer.schema),
                node_id: instance.id.to_string(),
                address: instance.address(),
            })
        });
        try_join_all(all)
            .await
            .map(drop)
            .map_err(|source| Error::Directory {
                service: key.to_string(),
                source,
            })
    }
}
