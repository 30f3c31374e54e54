//! A build job: behind the same fences as a service, as the one user of its namespace's builds, with
//! the operator's settings for registries and nothing else of the node.

mod configured;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use micro_core::{InstanceId, Namespace};
use micro_sandbox::{Exit, Limits, Mount, Source, Spec, SpecKind, Toolchain};

use crate::{
    deploy::Reporter,
    engine::Engine,
    error::{Error, Output},
    instance::{OPEN_FILES, SYSTEM_PATH, toolchain_mounts},
    logs::{self, Follower},
    plan::{Job, Tool},
    repo::Key,
};

use configured::{Configured, configured};

/// The one cache of a namespace's builds.
const CACHE: &str = "builds";
/// A cache larger than this begins anew.
const CACHE_LIMIT: u64 = 10 << 30;
/// How often new output is looked for.
const LOOK: Duration = Duration::from_millis(50);
/// Lines below an error.
const LAST_LINES: u64 = 30;

/// Stops a job and removes its tree unless it went well: a deployment may be dropped at any await.
struct Running {
    engine: Arc<Engine>,
    key: Key,
    id: InstanceId,
    armed: bool,
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.armed {
            let (engine, key, id) = (Arc::clone(&self.engine), self.key.clone(), self.id.clone());
            self.engine.handle.spawn(async move {
                engine.clear_build(&key, &id).await;
            });
        }
    }
}

/// A finished build's tree, which the node may read now. It goes when this is dropped.
pub(crate) struct BuiltTree {
    engine: Arc<Engine>,
    namespace: Namespace,
    id: InstanceId,
    path: PathBuf,
}

impl BuiltTree {
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for BuiltTree {
    fn drop(&mut self) {
        // Only the supervisor may remove entries of the directory that all builds share.
        let (engine, namespace, id) = (
            Arc::clone(&self.engine),
            self.namespace.clone(),
            self.id.clone(),
        );
        self.engine.handle.spawn(async move {
            engine.remove_scratch(&namespace, &id).await;
        });
    }
}

impl Engine {
    /// The operator's variables that builds, and git, may see.
    pub(crate) fn build_env(&self) -> Vec<(String, String)> {
        let node = |name: &str| std::env::var(name).ok();
        let names = &self.settings.build.env;
        configured(names, &[], node).env.into_iter().collect()
    }

    /// Stops what runs of a build and removes its tree.
    pub(crate) async fn clear_build(&self, key: &Key, id: &InstanceId) {
        drop(self.supervisor.stop(id, Duration::ZERO).await);
        drop(self.supervisor.forget(id).await);
        self.exits.forget(id);
        self.remove_scratch(&key.namespace, id).await;
    }

    async fn remove_scratch(&self, namespace: &Namespace, id: &InstanceId) {
        let scratch = Source::Scratch(id.to_string());
        if let Err(error) = self.supervisor.remove_tree(scratch, namespace).await {
            tracing::warn!(%error, build = %id, "The tree of a build could not be removed.");
        }
    }

    /// Runs `job` on the source tree `tree`. Its lines go to `reporter`.
    pub(crate) async fn build(
        self: &Arc<Self>,
        key: &Key,
        tree: &str,
        job: &Job,
        reporter: &Reporter,
    ) -> Result<BuiltTree, Error> {
        let toolchains = self.tools_for(job).await?;
        let turn = self.build_turn(&key.namespace);
        let waits = turn.try_lock().is_err() || self.builders.available_permits() == 0;
        if waits {
            reporter.phase("waiting for another build to end");
        }
        let _turn = turn.lock().await;
        let _place = self.builders.acquire().await.map_err(|_| Error::Task)?;
        if waits {
            reporter.phase("building");
        }
        let id = format!("b-{}", ulid::Ulid::generate()).to_lowercase();
        let id = InstanceId::parse(&id)?;
        let node = |name: &str| std::env::var(name).ok();
        let build = &self.settings.build;
        let configured = configured(&build.env, &build.files, node);
        for file in &configured.missing {
            reporter.line(&format!(
                "note: {} is listed in [build] files and does not exist",
                file.display()
            ));
        }
        let user = self.repo.user(key.namespace.clone(), None).await?;
        let spec = self.build_spec(key, tree, job, id.clone(), user, &toolchains, configured);
        let running = Running {
            engine: Arc::clone(self),
            key: key.clone(),
            id: id.clone(),
            armed: true,
        };
        self.supervisor.launch(spec).await?;
        let exit = self.watch_build(key, &id, reporter).await;
        let built = match exit {
            Some(exit) if exit.success() => {
                let scratch = Source::Scratch(id.to_string());
                // A tree can be taken once nothing runs in it; forgetting says so.
                drop(self.supervisor.forget(&id).await);
                self.exits.forget(&id);
                let path = self.supervisor.take_tree(scratch, &key.namespace).await?;
                Ok(BuiltTree {
                    engine: Arc::clone(self),
                    namespace: key.namespace.clone(),
                    id: id.clone(),
                    path,
                })
            }
            Some(exit) => {
                let lines = self.last_lines(key, &id).await;
                Err(Error::Build {
                    reason: exit.to_string(),
                    remedy: remedy(&exit, &lines),
                    output: Output(lines),
                })
            }
            None => Err(Error::BuildTimeout {
                seconds: build.timeout.0.as_secs(),
                output: Output(self.last_lines(key, &id).await),
            }),
        };
        if built.is_ok() {
            let mut running = running;
            running.armed = false;
        }
        self.bound_cache(key);
        built
    }

    /// The toolchains of a job; those it needs must be there.
    async fn tools_for(&self, job: &Job) -> Result<Vec<Toolchain>, Error> {
        let have = self.supervisor.toolchains().await?;
        for need in &job.needs {
            if !have.iter().any(|t| t.name == need.name()) {
                let (language, tool, packages) = need.words();
                return Err(Error::NoToolchain {
                    language,
                    tool,
                    packages,
                });
            }
        }
        let wanted = |t: &Toolchain| {
            Tool::named(&t.name).is_some_and(|t| job.needs.contains(&t) || job.may_use.contains(&t))
        };
        let mut tools: Vec<Toolchain> = have.into_iter().filter(wanted).collect();
        // What the job needs comes first in PATH.
        tools.sort_by_key(|t| !job.needs.iter().any(|n| n.name() == t.name));
        Ok(tools)
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "the parts of one spec, put together in one place"
    )]
    fn build_spec(
        &self,
        key: &Key,
        tree: &str,
        job: &Job,
        id: InstanceId,
        user: u32,
        toolchains: &[Toolchain],
        configured: Configured,
    ) -> Spec {
        let mount = |source, target: &str, writable| Mount {
            source,
            target: PathBuf::from(target),
            writable,
        };
        let mut mounts = vec![
            mount(Source::SourceTree(tree.to_owned()), "/source", false),
            mount(Source::Scratch(id.to_string()), "/build", true),
            mount(Source::Cache(CACHE.to_owned()), "/cache", true),
        ];
        let mut path = Vec::new();
        let mut env: BTreeMap<String, String> = [
            ("HOME", "/build/home"),
            ("USER", "build"),
            ("TMPDIR", "/build/tmp"),
            ("LANG", "C.UTF-8"),
        ]
        .map(|(k, v)| (k.to_owned(), v.to_owned()))
        .into();
        for toolchain in toolchains {
            mounts.extend(toolchain_mounts(toolchain));
            path.extend(toolchain.bin.iter().map(|b| b.display().to_string()));
            env.extend(toolchain.env.iter().cloned());
        }
        path.push(SYSTEM_PATH.to_owned());
        env.insert("PATH".into(), path.join(":"));
        env.extend(job.env.iter().cloned());
        env.extend(configured.env);
        mounts.extend(configured.mounts);
        // Two toolchains may live in one place.
        let mut seen = std::collections::BTreeSet::new();
        mounts.retain(|m| seen.insert(m.target.clone()));
        let script = format!(
            "umask 022\nmkdir -p /build/home /build/tmp\n{}{}",
            configured.prelude, job.script
        );
        let build = &self.settings.build;
        Spec {
            id,
            namespace: key.namespace.clone(),
            service: key.name.clone(),
            kind: SpecKind::Build,
            command: vec!["/bin/sh".into(), "-c".into(), script],
            env: env.into_iter().collect(),
            cwd: PathBuf::from("/build"),
            user,
            mounts,
            limits: Limits {
                memory: build.memory.0,
                processes: build.processes,
                cpu_percent: 0,
                open_files: OPEN_FILES,
            },
            labels: BTreeMap::from([("version".to_owned(), key.version.to_string())]),
        }
    }

    /// Hands on what the job prints until it ends; `None` when it takes too long.
    async fn watch_build(&self, key: &Key, id: &InstanceId, reporter: &Reporter) -> Option<Exit> {
        let follow = follow(self.log_dir(key), id.clone(), reporter);
        let end = tokio::time::timeout(self.settings.build.timeout.0, self.exits.wait(id));
        follow.until(end).await.ok()
    }

    async fn last_lines(&self, key: &Key, id: &InstanceId) -> Vec<String> {
        let (dir, id) = (self.log_dir(key), id.clone());
        let read = tokio::task::spawn_blocking(move || logs::tail(&dir, &id, LAST_LINES));
        read.await.unwrap_or_default()
    }

    /// A cache that has grown too large begins anew.
    fn bound_cache(self: &Arc<Self>, key: &Key) {
        let (engine, namespace) = (Arc::clone(self), key.namespace.clone());
        let dir = self.state.cache(&namespace).join(CACHE);
        self.handle.spawn(async move {
            let size = tokio::task::spawn_blocking(move || size_of(&dir));
            if size.await.unwrap_or(0) > CACHE_LIMIT {
                let turn = engine.build_turn(&namespace);
                let _turn = turn.lock().await;
                let cache = Source::Cache(CACHE.to_owned());
                if let Err(error) = engine.supervisor.remove_tree(cache, &namespace).await {
                    tracing::warn!(%error, %namespace, "A build cache could not be emptied.");
                }
            }
        });
    }
}

/// Bytes below a directory, as far as the node may look.
fn size_of(dir: &Path) -> u64 {
    let mut total = 0;
    let mut pending = vec![dir.to_path_buf()];
    while let Some(dir) = pending.pop() {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            match entry.metadata() {
                Ok(meta) if meta.is_dir() => pending.push(entry.path()),
                Ok(meta) => total += meta.len(),
                Err(_) => {}
            }
        }
    }
    total
}

/// Follows the output of one instance or build while something else is waited for.
pub(crate) struct Follow<'a> {
    dir: PathBuf,
    ids: [InstanceId; 1],
    reporter: &'a Reporter,
}

pub(crate) fn follow(dir: PathBuf, id: InstanceId, reporter: &Reporter) -> Follow<'_> {
    Follow {
        dir,
        ids: [id],
        reporter,
    }
}

impl Follow<'_> {
    /// Reports lines until `end` is there, and those that were written before it.
    pub(crate) async fn until<T>(self, end: impl Future<Output = T>) -> T {
        if !self.reporter.listens() {
            return end.await;
        }
        let mut follower = Follower::from_start(&self.dir);
        let mut end = std::pin::pin!(end);
        let mut look = tokio::time::interval(LOOK);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        // The first tick is at once, and nothing is there yet.
        look.tick().await;
        loop {
            tokio::select! {
                done = &mut end => {
                    self.hand_on(&mut follower);
                    return done;
                }
                _ = look.tick() => self.hand_on(&mut follower),
            }
        }
    }

    fn hand_on(&self, follower: &mut Follower) {
        loop {
            let lines = follower.look(&self.ids);
            if lines.is_empty() {
                return;
            }
            for line in lines {
                self.reporter.line(&line.text);
            }
        }
    }
}

/// What may help, judging by the last lines.
fn remedy(exit: &Exit, lines: &[String]) -> Option<&'static str> {
    if *exit == Exit::OutOfMemory {
        return Some(
            "raise build.memory in the settings of the server, or build elsewhere and run the binary",
        );
    }
    let says = |words: &[&str]| lines.iter().any(|l| words.iter().any(|w| l.contains(w)));
    if says(&["No module named pip"]) {
        Some("install pip on the node with `apt install python3-pip`")
    } else if says(&[
        "linker `cc` not found",
        "C compiler \"gcc\" not found",
        "gcc: not found",
    ]) {
        Some("install a C compiler on the node with `apt install build-essential`")
    } else if says(&["Could not find `protoc`", "protoc: not found"]) {
        Some("install protoc on the node with `apt install protobuf-compiler`")
    } else if says(&[
        "Could not resolve host",
        "Temporary failure in name resolution",
        "no such host",
        "EAI_AGAIN",
        "failed to lookup address",
        "Network is unreachable",
        "Connection refused",
    ]) {
        Some(
            "the build could not reach a package registry: list the node's proxy or mirror variables and files under [build] in micro.toml of the server",
        )
    } else if says(&["No space left on device"]) {
        Some("the disk of the node is full")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_troubles_get_a_remedy() {
        let lines = ["/usr/bin/python3: No module named pip".to_owned()];
        assert!(
            remedy(&Exit::Code(1), &lines)
                .unwrap()
                .contains("python3-pip")
        );
        assert!(
            remedy(&Exit::OutOfMemory, &[])
                .unwrap()
                .contains("build.memory")
        );
        assert_eq!(remedy(&Exit::Code(1), &["error[E0308]".into()]), None);
    }
}
