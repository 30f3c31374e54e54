//! A deployment, step by step. The old release serves until the new one does; a failure at any step
//! leaves it serving and says why. What a deployment needs is written down before its first step, so
//! a node that ends in the middle begins it again.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use futures_util::future::{join_all, try_join_all};
use micro_core::Namespace;
use tokio::sync::mpsc;

use crate::{
    build::{BuiltTree, follow},
    detect::{self, Detected},
    engine::{Engine, Instance, Slot},
    error::{Error, Output},
    git,
    health::{self, Offer, Reached},
    instance::Launched,
    logs,
    manifest::{Protocol, is_env_name},
    plan::{self, BIN, Collect, Plan},
    ports::Announcement,
    release::{self, Artifact, Pick, Piece},
    repo::{Key, Options, Pending, Recipe, ReleaseRow, ServiceRow, Status},
    source,
    trees::TreeUse,
};

/// Releases kept of one service and version.
const KEEP: u32 = 5;
/// More copies than anyone means.
const MAX_INSTANCES: u32 = 64;
/// Deployments that the node's end interrupted begin again this often.
const MAX_ATTEMPTS: u32 = 3;
/// Lines below an error.
const LAST_LINES: u64 = 20;
/// The secret that is for git and for no service.
const GIT_CREDENTIALS: &str = "GIT_CREDENTIALS";

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

/// What a caller asks for, names checked and authorised.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) key: Key,
    /// Empty in an update: as before.
    pub(crate) source: String,
    pub(crate) options: Options,
    pub(crate) metadata: BTreeMap<String, String>,
    pub(crate) owner: String,
    pub(crate) group: String,
    /// Where the caller's uploads are.
    pub(crate) uploader: Namespace,
    /// Whether the caller is the operator.
    pub(crate) operator: bool,
    /// The service must exist; what is left out stays.
    pub(crate) update: bool,
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
        let row = merge(request, known, self.clock.now())?;
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

    /// Puts the release together and stores it.
    async fn release(
        self: &Arc<Self>,
        prepared: &Prepared,
        detected: Detected,
        plan: Plan,
        built: Option<BuiltTree>,
        reporter: &Reporter,
    ) -> Result<ReleaseRow, Error> {
        let row = &prepared.row;
        let work = Assembly {
            source: prepared.tree.path(),
            releases: self.state.releases(),
            service: row.key.name.to_string(),
            command: row.options.command.clone(),
            args: row.options.args.clone(),
            detected,
            plan,
            built,
        };
        let _artifacts = self.artifacts.read().await;
        let (artifact, start, detected) =
            tokio::task::spawn_blocking(move || work.assemble()).await??;
        for note in &artifact.notes {
            reporter.line(&format!("note: {note}"));
        }
        let manifest = detected.manifest;
        let mut env = manifest.env;
        env.extend(row.options.env.clone());
        let secrets = row.options.secrets.iter();
        env.extend(
            secrets
                .filter(|(name, _)| *name != GIT_CREDENTIALS)
                .map(|(k, v)| (k.clone(), v.clone())),
        );
        let instances = match row.options.instances {
            0 => manifest.instances.unwrap_or(1),
            n => n,
        };
        let recipe = Recipe {
            argv: start.argv,
            cwd: start.cwd,
            env,
            language_env: start.env,
            path: start.path,
            toolchain: start.toolchain.map(|t| t.name().to_owned()),
            limits: manifest.limits,
            instances: instances.clamp(1, MAX_INSTANCES),
            protocol: manifest.protocol,
            descriptor: manifest.descriptor,
        };
        self.repo
            .add_release(row.key.clone(), artifact.digest, recipe, self.clock.now())
            .await
    }

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
        since: micro_core::Timestamp,
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

    /// Brings the source of a deployment to disk: the tree, and the folder of the service in it.
    async fn fetch(self: &Arc<Self>, row: &ServiceRow) -> Result<(TreeUse, String), Error> {
        let pending = row.pending.as_ref().ok_or(Error::NotFound)?;
        if let Some(name) = pending.source.strip_prefix("source://") {
            let tree = self.uploaded(row, name, &pending.uploader).await?;
            return Ok((tree, row.options.entrypoint.clone()));
        }
        let source = git::parse(&pending.source, row.key.version.as_str())?;
        if source.is_local() && !pending.operator {
            return Err(Error::LocalRepository { url: source.url });
        }
        let tree = self.trees.create()?;
        let home = self.trees.create()?;
        let env = self.build_env();
        let build = &self.settings.build;
        let config = build
            .files
            .iter()
            .find(|f| f.file_name().is_some_and(|n| n == ".gitconfig"));
        let limits = self.source_limits();
        let how = git::Fetch {
            credentials: row.options.secrets.get(GIT_CREDENTIALS).map(String::as_str),
            env: &env,
            config: config.map(PathBuf::as_path),
            timeout: build.timeout.0,
            bytes: limits.bytes,
            home: &home.path(),
        };
        let commit = git::fetch(&source, &tree.path(), &how).await?;
        let path = tree.path();
        tokio::task::spawn_blocking(move || source::check_tree(&path, &limits)).await??;
        tracing::debug!(url = %source.url, %commit, "Source fetched.");
        Ok((tree, join(&source.folder, &row.options.entrypoint)))
    }

    async fn uploaded(
        &self,
        row: &ServiceRow,
        name: &str,
        uploader: &Namespace,
    ) -> Result<TreeUse, Error> {
        let bad = || Error::NoSource {
            source_name: format!("source://{name}"),
        };
        let (service, version) = name.split_once(':').unwrap_or((name, "latest"));
        for namespace in [&row.key.namespace, uploader] {
            let key = Key {
                namespace: namespace.clone(),
                name: service.parse().map_err(|_| bad())?,
                version: version.parse().map_err(|_| bad())?,
            };
            // Held before it is looked at, or a sweep could come between.
            if let Some(tree) = self.repo.source(key).await? {
                let held = self.trees.hold(&tree);
                if held.path().is_dir() {
                    return Ok(held);
                }
            }
        }
        Err(bad())
    }

    /// Bounds of a source tree.
    pub(crate) fn source_limits(&self) -> source::Limits {
        source::Limits {
            bytes: self.settings.limits.upload.0,
            entries: self.settings.limits.upload_files,
        }
    }

    /// Removes source trees that nobody needs, behind.
    pub(crate) fn sweep(self: &Arc<Self>) {
        let engine = Arc::clone(self);
        self.handle.spawn(async move {
            // What is looked at first is older than what is asked for next, so a tree that gets its
            // name in between is no candidate.
            let unused = engine.trees.unused();
            if let Ok(keep) = engine.repo.trees().await {
                let trees = engine.trees.clone();
                drop(tokio::task::spawn_blocking(move || trees.sweep(&unused, &keep)).await);
            }
        });
    }

    /// Forgets old releases and removes artifacts that nothing refers to, behind.
    fn prune_releases(self: &Arc<Self>, key: &Key) {
        let (engine, key) = (Arc::clone(self), key.clone());
        self.handle.spawn(async move {
            let _artifacts = engine.artifacts.write().await;
            match engine.repo.prune_releases(key, KEEP).await {
                Ok(free) => engine.remove_artifacts(free).await,
                Err(error) => tracing::warn!(%error, "Old releases could not be forgotten."),
            }
        });
    }

    /// Removes artifacts by digest. The caller holds `artifacts` for writing.
    pub(crate) async fn remove_artifacts(&self, digests: Vec<String>) {
        let dirs: Vec<PathBuf> = digests.iter().map(|d| self.release_dir(d)).collect();
        let remove = move || {
            for dir in dirs {
                if let Err(error) = std::fs::remove_dir_all(&dir)
                    && error.kind() != std::io::ErrorKind::NotFound
                {
                    tracing::warn!(%error, path = %dir.display(), "An old release could not be removed.");
                }
            }
        };
        drop(tokio::task::spawn_blocking(remove).await);
    }
}

/// The folder of a git address and the entrypoint option; both may name the same one.
fn join(folder: &str, entrypoint: &str) -> String {
    match (folder, entrypoint.trim_matches('/')) {
        (folder, "" | ".") => folder.to_owned(),
        ("", entrypoint) => entrypoint.to_owned(),
        (folder, entrypoint) if folder == entrypoint => folder.to_owned(),
        (folder, entrypoint) => format!("{folder}/{entrypoint}"),
    }
}

/// The row that a request makes of what is known.
fn merge(
    request: Request,
    known: Option<ServiceRow>,
    now: micro_core::Timestamp,
) -> Result<ServiceRow, Error> {
    let known = match (request.update, known) {
        (true, None) => return Err(Error::NotFound),
        (true, known) => known,
        (false, _) => None,
    };
    let mut options = request.options;
    let mut metadata = request.metadata;
    let mut source = request.source;
    if let Some(known) = known {
        let old = known.options;
        // An update keeps what it does not name (contract §8.5).
        if options.command.is_empty() {
            options.command = old.command;
        }
        if options.args.is_empty() {
            options.args = old.args;
        }
        if options.env.is_empty() {
            options.env = old.env;
        }
        for (name, value) in old.secrets {
            options.secrets.entry(name).or_insert(value);
        }
        // Another source has its own folders.
        if options.entrypoint.is_empty() && (source.is_empty() || source == known.source) {
            options.entrypoint = old.entrypoint;
        }
        if options.instances == 0 {
            options.instances = old.instances;
        }
        if source.is_empty() {
            source = known.source;
        }
        for (name, value) in known.metadata {
            metadata.entry(name).or_insert(value);
        }
    }
    if source.is_empty() {
        return Err(Error::SourceName {
            source_name: String::new(),
            reason: "it is empty",
        });
    }
    if options.instances > MAX_INSTANCES {
        return Err(Error::Option {
            what: "instances",
            value: options.instances.to_string(),
            reason: format!("at most {MAX_INSTANCES} copies run on one node"),
        });
    }
    for (name, value) in options.env.iter().chain(&options.secrets) {
        if !is_env_name(name) || value.contains('\0') {
            return Err(Error::Option {
                what: "variable",
                value: name.clone(),
                reason: "a name has no = and neither name nor value a zero byte".into(),
            });
        }
    }
    detect::relative(&options.entrypoint)?;
    metadata
        .entry("source".into())
        .or_insert_with(|| source.clone());
    Ok(ServiceRow {
        pending: Some(Pending {
            source: source.clone(),
            uploader: request.uploader,
            operator: request.operator,
        }),
        key: request.key,
        source,
        owner: request.owner,
        group: request.group,
        metadata,
        options,
        status: Status::Pending,
        error: String::new(),
        release: None,
        attempts: 1,
        created: now,
        updated: now,
    })
}

/// Everything a release is put together from; blocking work.
struct Assembly {
    source: PathBuf,
    releases: PathBuf,
    service: String,
    command: Vec<String>,
    args: Vec<String>,
    detected: Detected,
    plan: Plan,
    built: Option<BuiltTree>,
}

impl Assembly {
    fn assemble(self) -> Result<(Artifact, plan::Start, Detected), Error> {
        let mut program = None;
        let piece = |from: PathBuf, pick| Piece {
            from,
            to: PathBuf::new(),
            pick,
            executable: false,
        };
        let folder = self.source.join(&self.detected.folder);
        let built = self.built.as_ref().map(BuiltTree::path);
        let pieces = match (&self.plan.collect, built) {
            (Collect::Source, _) | (Collect::Tree | Collect::Built { .. }, None) => {
                vec![piece(self.source.clone(), Pick::All)]
            }
            (Collect::Program(name), _) => vec![
                Piece {
                    from: folder.join(name),
                    to: PathBuf::from(name),
                    pick: Pick::All,
                    executable: true,
                },
                piece(folder, Pick::All),
            ],
            (Collect::Tree, Some(built)) => vec![piece(built.join("src"), Pick::Tree)],
            (Collect::Built { package }, Some(built)) => {
                let bin = built.join("out/bin");
                let name = release::one_program(&bin, &self.service, package.as_deref())?;
                let pieces = vec![
                    Piece {
                        from: bin.join(&name),
                        to: PathBuf::from(BIN).join(&name),
                        pick: Pick::All,
                        executable: true,
                    },
                    piece(folder, Pick::Assets),
                ];
                program = Some(name);
                pieces
            }
        };
        let scratch = format!("new-{}", ulid::Ulid::generate()).to_lowercase();
        let mut start = None;
        let artifact = release::assemble(&self.releases, &scratch, &pieces, |root| {
            start = Some(plan::start(
                &self.plan,
                &self.detected,
                root,
                program.as_deref(),
                &self.command,
                &self.args,
            )?);
            Ok(())
        })?;
        let start = start.ok_or(Error::Task)?;
        Ok((artifact, start, self.detected))
    }
}

#[cfg(test)]
mod tests {
    use micro_core::{ServiceName, Timestamp, Version};

    use super::*;

    fn request(update: bool) -> Request {
        Request {
            key: Key {
                namespace: Namespace::operator(),
                name: ServiceName::parse("a").unwrap(),
                version: Version::latest(),
            },
            source: "source://a:latest".into(),
            options: Options::default(),
            metadata: BTreeMap::new(),
            owner: "o".into(),
            group: "micro".into(),
            uploader: Namespace::operator(),
            operator: true,
            update,
        }
    }

    #[test]
    fn an_update_keeps_what_it_leaves_out() {
        let mut first = request(false);
        first.options.env.insert("A".into(), "1".into());
        first.options.secrets.insert("S".into(), "old".into());
        first.options.entrypoint = "svc".into();
        first.options.instances = 3;
        first.metadata.insert("source".into(), "svc".into());
        let row = merge(first, None, Timestamp(1)).unwrap();
        let mut second = request(true);
        second.options.secrets.insert("S".into(), "new".into());
        let row = merge(second, Some(row), Timestamp(2)).unwrap();
        assert_eq!(row.options.env["A"], "1");
        assert_eq!(row.options.secrets["S"], "new");
        assert_eq!(row.options.entrypoint, "svc");
        assert_eq!(row.options.instances, 3);
        assert_eq!(row.metadata["source"], "svc");
        let mut third = request(true);
        third.source = String::new();
        let row = merge(third, Some(row), Timestamp(3)).unwrap();
        assert_eq!(row.source, "source://a:latest");
    }

    #[test]
    fn an_update_of_nothing_is_not_found_and_bad_values_are_named() {
        assert!(matches!(
            merge(request(true), None, Timestamp(1)),
            Err(Error::NotFound)
        ));
        let mut bad = request(false);
        bad.options.env.insert("A=B".into(), String::new());
        assert!(merge(bad, None, Timestamp(1)).is_err());
        let mut bad = request(false);
        bad.options.entrypoint = "../x".into();
        assert!(merge(bad, None, Timestamp(1)).is_err());
        let mut bad = request(false);
        bad.options.instances = 1000;
        assert!(merge(bad, None, Timestamp(1)).is_err());
    }

    #[test]
    fn folder_and_entrypoint_are_joined_once() {
        assert_eq!(join("a", ""), "a");
        assert_eq!(join("", "./b".trim_start_matches("./")), "b");
        assert_eq!(join("a", "a"), "a");
        assert_eq!(join("a", "b"), "a/b");
    }
}
