//! `Runtime.Logs`: what instances wrote, and what they go on writing.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use micro_core::{Caller, InstanceId, Namespace, ServiceName, Timestamp, Version};
use micro_proto::runtime as wire;
use tokio::sync::mpsc;

use super::{Grpc, namespace};
use crate::{
    error::Error,
    instance::is_instance,
    logs::{self, Follower, Line},
};

/// How often a followed service is looked at.
const LOOK: Duration = Duration::from_millis(100);
/// How often the versions of new instances are looked up.
const LOOKS_PER_LIST: u32 = 10;

/// Whose output.
#[derive(Clone)]
struct Wanted {
    namespace: Namespace,
    name: ServiceName,
    version: Option<Version>,
    dir: PathBuf,
}

impl Wanted {
    /// The instances that wrote it; the last build when there are none.
    fn ids(&self, versions: &BTreeMap<InstanceId, Version>) -> Vec<InstanceId> {
        let (mut ids, builds): (Vec<_>, Vec<_>) = logs::instances(&self.dir)
            .into_iter()
            .partition(is_instance);
        if let Some(version) = &self.version {
            // Of one that is forgotten nobody knows the version; rather too much than nothing.
            ids.retain(|id| versions.get(id).is_none_or(|v| v == version));
        }
        if ids.is_empty() {
            ids.extend(builds.into_iter().next_back());
        }
        ids
    }
}

fn record(line: Line) -> wire::LogRecord {
    let stream = if line.error { "stderr" } else { "stdout" };
    wire::LogRecord {
        timestamp: line.time.unix_seconds(),
        metadata: [
            ("instance".to_owned(), line.instance.to_string()),
            ("stream".to_owned(), stream.to_owned()),
        ]
        .into(),
        message: line.text,
    }
}

impl Grpc {
    pub(super) async fn open_logs(
        &self,
        caller: &Caller,
        sent: wire::LogsRequest,
    ) -> Result<mpsc::Receiver<wire::LogRecord>, Error> {
        let namespace = namespace(caller, &sent.options.unwrap_or_default().namespace)?;
        caller.authorize_admin(&namespace)?;
        let missing = || Error::LogsNotFound {
            service: sent.service.clone(),
        };
        let name: ServiceName = sent.service.parse().map_err(|_| missing())?;
        let version = match sent.version.as_str() {
            "" => None,
            version => Some(version.parse()?),
        };
        let wanted = Wanted {
            dir: self.engine.state.logs(&namespace, &name),
            namespace,
            name,
            version,
        };
        let ids = self.wanted_ids(&wanted).await?;
        if ids.is_empty() && !(sent.stream && self.exists(&wanted).await?) {
            return Err(missing());
        }
        let count = u64::try_from(sent.count).unwrap_or(0);
        let since = Timestamp(sent.since.max(0).saturating_mul(1000));
        let (to, from) = mpsc::channel(256);
        let this = self.clone();
        self.engine.handle.spawn(async move {
            this.pour(wanted, ids, count, since, sent.stream, to).await;
        });
        Ok(from)
    }

    async fn exists(&self, wanted: &Wanted) -> Result<bool, Error> {
        let rows = self
            .engine
            .repo
            .services(Some(wanted.namespace.clone()))
            .await?;
        Ok(rows.iter().any(|r| r.key.name == wanted.name))
    }

    async fn wanted_ids(&self, wanted: &Wanted) -> Result<Vec<InstanceId>, Error> {
        let versions = self
            .engine
            .repo
            .versions(wanted.namespace.clone(), wanted.name.clone())
            .await?;
        let wanted = wanted.clone();
        Ok(tokio::task::spawn_blocking(move || wanted.ids(&versions)).await?)
    }

    async fn pour(
        &self,
        wanted: Wanted,
        mut ids: Vec<InstanceId>,
        count: u64,
        since: Timestamp,
        stream: bool,
        to: mpsc::Sender<wire::LogRecord>,
    ) {
        // The present end is noted first, the past is read up to it, and following begins there: no
        // line is lost or comes twice.
        let (dir, known, sender) = (wanted.dir.clone(), ids.clone(), to.clone());
        let past = tokio::task::spawn_blocking(move || {
            let follower = Follower::new(&dir, &known);
            logs::read(&dir, &known, count, since, Some(&follower), |line| {
                sender.blocking_send(record(line)).is_ok()
            });
            follower
        });
        let Ok(mut follower) = past.await else {
            return;
        };
        if !stream {
            return;
        }
        let mut looks = 0;
        loop {
            tokio::time::sleep(LOOK).await;
            looks += 1;
            if looks % LOOKS_PER_LIST == 0
                && let Ok(now) = self.wanted_ids(&wanted).await
            {
                ids = now;
            }
            let asked = ids.clone();
            let look = tokio::task::spawn_blocking(move || {
                let lines = follower.look(&asked);
                (follower, lines)
            });
            let Ok((back, lines)) = look.await else {
                return;
            };
            follower = back;
            for line in lines {
                if to.send(record(line)).await.is_err() {
                    return;
                }
            }
            if to.is_closed() {
                return;
            }
        }
    }
}
