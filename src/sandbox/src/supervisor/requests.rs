//! What is done for each request of the node, after it has been checked.

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use micro_core::{Clock, Namespace, ServiceName, settings::Isolation};

use super::{
    Caller, Phase, Supervisor, Work, WorkKind,
    errand::Errand,
    instance::Instance,
    notify,
    policy::{Policy, Verdict},
    toolchains,
};
use crate::{
    error::Error,
    plan::{self, Plan, Shown},
    spec::{Source, Spec, Toolchain},
    tree,
    wire::{Answer, Call, Request},
};

/// Trees that are walked at a time.
const MAX_WORKS: usize = 64;
/// How long the list of toolchains is good; after that a call looks again, for one installed meanwhile.
const FRESH: Duration = Duration::from_secs(60);
/// How long after a node is ready the supervisor lets go of what the start needed.
const SETTLE: Duration = Duration::from_secs(5);
/// Far above what a machine can run; a bound on what a node gone wild can start.
const MAX_INSTANCES: usize = 4096;

impl Supervisor {
    pub(super) fn answer_request(&mut self, request: Request) {
        let caller = Caller {
            node: self.node.generation,
            request: request.id,
        };
        match self.handle(caller, request.call) {
            Ok(Some(answer)) => self.reply(caller, Ok(answer)),
            Ok(None) => {} // later
            Err(error) => self.reply(caller, Err(error)),
        }
    }

    /// `None` when the answer comes later.
    fn handle(&mut self, caller: Caller, call: Call) -> Result<Option<Answer>, Error> {
        match call {
            Call::Launch(spec) => self.launch(caller, *spec).map(|()| None),
            Call::Stop { id, grace_ms } => {
                let instance = self
                    .instances
                    .get_mut(&id)
                    .ok_or(Error::UnknownInstance(id))?;
                let waits = instance.stop(Some(caller), Duration::from_millis(grace_ms));
                Ok((!waits).then_some(Answer::Done))
            }
            Call::List => {
                let list = self.instances.values().map(Instance::running).collect();
                Ok(Some(Answer::List(list)))
            }
            Call::Forget(id) => {
                match self.instances.get(&id) {
                    None => return Err(Error::UnknownInstance(id)),
                    Some(instance) if !instance.ended() => return Err(Error::InstanceRuns(id)),
                    Some(_) => self.drop_instance(&id),
                }
                Ok(Some(Answer::Done))
            }
            Call::RemoveTree { source, namespace } => {
                let (base, below) = self.tree(&source, &namespace)?;
                self.remove(caller, base, below).map(|()| None)
            }
            Call::RemoveData { namespace, service } => {
                let (base, below) = self.place(&Source::Data, &namespace, &service)?;
                self.remove(caller, base, below).map(|()| None)
            }
            Call::TakeTree { source, namespace } => {
                if !matches!(source, Source::Scratch(_)) {
                    return Err(refused(&source, "only scratch trees are given away"));
                }
                let (base, below) = self.tree(&source, &namespace)?;
                self.take(caller, base, below).map(|()| None)
            }
            Call::Toolchains => self.ask_toolchains(caller),
            Call::Ready => {
                if self.phase == Phase::Serving {
                    self.node.ready = true;
                    self.settle_at = Some(Instant::now() + SETTLE);
                    notify::say("READY=1");
                }
                Ok(Some(Answer::Done))
            }
        }
    }

    // ---- launch

    fn launch(&mut self, caller: Caller, spec: Spec) -> Result<(), Error> {
        if self.phase != Phase::Serving {
            return Err(Error::Stopping(spec.id));
        }
        if self.instances.contains_key(&spec.id) {
            return Err(Error::InstanceExists(spec.id));
        }
        if self.instances.len() >= MAX_INSTANCES {
            return Err(Error::Spec {
                id: spec.id,
                reason: format!("there are {MAX_INSTANCES} instances already"),
            });
        }
        let required = self.settings.server.isolation == Isolation::Required;
        if required && !self.host.missing.is_empty() {
            return Err(Error::Fences {
                id: spec.id,
                missing: self.host.missing.join("; "),
            });
        }
        match self.policy(|policy| policy.check(&spec))? {
            Verdict::AskToolchains => {
                self.look_for_toolchains()?;
                self.held.push((caller, spec));
                Ok(())
            }
            Verdict::Fine(shown) => self.start(caller, spec, shown),
        }
    }

    fn policy<T>(&self, ask: impl FnOnce(Policy<'_>) -> T) -> T {
        let roots: Option<Vec<PathBuf>> = self.toolchains.as_ref().map(|(list, _)| {
            list.iter()
                .flat_map(|toolchain| toolchain.roots.clone())
                .collect()
        });
        ask(Policy {
            state: &self.layout.state,
            settings: &self.settings,
            users: self.host.users.as_ref(),
            toolchains: roots.as_deref(),
        })
    }

    fn start(&mut self, caller: Caller, spec: Spec, shown: Vec<Shown>) -> Result<(), Error> {
        for one in &shown {
            self.idle(&one.origin.path())?;
        }
        let users = self.host.users;
        let log_dir = self
            .layout
            .log_dir(&spec.namespace, &spec.service, users.as_ref())?;
        let group = self.host.groups.create(&spec.id, &spec.limits)?;
        let id = spec.id.clone();
        let plan = Plan {
            started: Clock::System.now(),
            mode: self.host.mode,
            owner: users.and_then(|users| users.owner(spec.user)),
            keeper: users.map(|users| users.keeper()),
            dir: plan::instances(&self.layout.state).join(id.as_str()),
            log_dir,
            log_limit: self.settings.limits.log_file.0,
            shown,
            group: group.clone(),
            filter: self.host.filter,
            bounds: self.host.bounds(&spec, self.host.mode),
            rehearse: false,
            spec,
        };
        let dir = plan.dir.clone();
        match Instance::launch(plan, caller) {
            Ok(instance) => {
                self.instances.insert(id, instance);
                Ok(())
            }
            Err(error) => {
                group.remove();
                let _ = std::fs::remove_dir_all(dir); // whatever was made of it
                Err(error)
            }
        }
    }

    // ---- trees

    fn tree(&self, source: &Source, namespace: &Namespace) -> Result<(PathBuf, PathBuf), Error> {
        if !matches!(source, Source::Scratch(_) | Source::Cache(_)) {
            return Err(refused(source, "only scratch and cache trees are removed"));
        }
        // The service plays no part in where these two live.
        let service = ServiceName::parse("none").map_err(|_| refused(source, "has no name"))?;
        self.place(source, namespace, &service)
    }

    fn place(
        &self,
        source: &Source,
        namespace: &Namespace,
        service: &ServiceName,
    ) -> Result<(PathBuf, PathBuf), Error> {
        self.policy(|policy| policy.place(source, namespace, service))
            .map_err(|_| refused(source, "its name is not made of plain segments"))
    }

    /// Nobody uses the tree at `path`, or one around it, or one inside it.
    fn idle(&self, path: &Path) -> Result<(), Error> {
        let overlaps = |other: &Path| other.starts_with(path) || path.starts_with(other);
        let worked_on = self.works.iter().any(|work| match &work.kind {
            WorkKind::Tree { path, .. } => overlaps(path),
            WorkKind::Toolchains => false,
        });
        if worked_on {
            return Err(Error::Tree {
                what: path.display().to_string(),
                reason: "it is being removed or given away",
            });
        }
        Ok(())
    }

    fn unused(&self, path: &Path) -> Result<(), Error> {
        if self.works.len() >= MAX_WORKS {
            return Err(Error::Busy);
        }
        self.idle(path)?;
        for (id, instance) in self.instances.iter().filter(|(_, i)| !i.ended()) {
            let uses = instance.plan.shown.iter().any(|shown| {
                let used = shown.origin.path();
                used.starts_with(path) || path.starts_with(&used)
            });
            if uses {
                return Err(Error::TreeInUse {
                    what: path.display().to_string(),
                    by: id.clone(),
                });
            }
        }
        Ok(())
    }

    fn remove(&mut self, caller: Caller, base: PathBuf, below: PathBuf) -> Result<(), Error> {
        let path = base.join(&below);
        self.unused(&path)?;
        let errand = Errand::send(move || {
            let work = || -> std::io::Result<()> {
                let base = tree::open(&base)?;
                let (Some(name), parent) = (below.file_name(), below.parent()) else {
                    return Ok(());
                };
                match tree::open_below(&base, parent.unwrap_or(Path::new(""))) {
                    Ok(parent) => tree::remove(&parent, name),
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
                    Err(error) => Err(error),
                }
            };
            work()
                .map_err(|error| format!("cannot remove {}: {error}", base.join(&below).display()))
        })?;
        let kind = WorkKind::Tree {
            caller,
            path,
            kept: false,
        };
        self.works.push(Work { errand, kind });
        Ok(())
    }

    fn take(&mut self, caller: Caller, base: PathBuf, below: PathBuf) -> Result<(), Error> {
        let path = base.join(&below);
        self.unused(&path)?;
        let top = tree::open(&base).and_then(|base| tree::open_below(&base, &below));
        let top = match top {
            Ok(top) => top,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(Error::NoTree {
                    what: path.display().to_string(),
                });
            }
            Err(error) => return Err(Error::os(format!("open {}", path.display()))(error)),
        };
        let owner = self.layout.node_owner();
        let shown = path.display().to_string();
        let errand = Errand::send(move || {
            tree::claim(&top, owner)
                .map_err(|error| format!("cannot give {shown} to the node: {error}"))
        })?;
        let kind = WorkKind::Tree {
            caller,
            path,
            kept: true,
        };
        self.works.push(Work { errand, kind });
        Ok(())
    }

    // ---- toolchains

    fn ask_toolchains(&mut self, caller: Caller) -> Result<Option<Answer>, Error> {
        if let Some((list, at)) = &self.toolchains
            && at.elapsed() < FRESH
        {
            return Ok(Some(Answer::Toolchains(list.clone())));
        }
        self.look_for_toolchains()?;
        self.asking.push(caller);
        Ok(None)
    }

    fn look_for_toolchains(&mut self) -> Result<(), Error> {
        let looking = self
            .works
            .iter()
            .any(|work| matches!(work.kind, WorkKind::Toolchains));
        if looking {
            return Ok(());
        }
        let more = self.settings.build.paths.clone();
        let errand = Errand::send(move || Ok::<_, String>(toolchains::discover(&more)))?;
        let kind = WorkKind::Toolchains;
        self.works.push(Work { errand, kind });
        Ok(())
    }

    // ---- what errands bring home

    pub(super) fn finish_works(&mut self, ready: &[bool]) {
        let mut going = Vec::new();
        let works = std::mem::take(&mut self.works);
        // `ready` is about the works there were when the wait began; later ones come after them.
        let mut ready = ready.iter().copied();
        for mut work in works {
            if !ready.next().unwrap_or(false) {
                going.push(work);
                continue;
            }
            match work.kind {
                WorkKind::Toolchains => match work.errand.read::<Vec<Toolchain>>() {
                    None => going.push(work),
                    Some(found) => self.found_toolchains(found.unwrap_or_else(|error| {
                        tracing::error!(error = %error.chain(), "Cannot look for toolchains.");
                        Vec::new()
                    })),
                },
                WorkKind::Tree {
                    caller,
                    ref path,
                    kept,
                } => match work.errand.read::<()>() {
                    None => going.push(work),
                    Some(outcome) => {
                        let answer = if kept {
                            Answer::Path(path.clone())
                        } else {
                            Answer::Done
                        };
                        self.reply(caller, outcome.map(|()| answer));
                    }
                },
            }
        }
        // What was begun meanwhile, by launches that waited, is kept too.
        going.append(&mut self.works);
        self.works = going;
    }

    fn found_toolchains(&mut self, list: Vec<Toolchain>) {
        self.toolchains = Some((list.clone(), Instant::now()));
        for caller in std::mem::take(&mut self.asking) {
            self.reply(caller, Ok(Answer::Toolchains(list.clone())));
        }
        for (caller, spec) in std::mem::take(&mut self.held) {
            if let Err(error) = self.launch(caller, spec) {
                self.reply(caller, Err(error));
            }
        }
    }
}

fn refused(source: &Source, reason: &'static str) -> Error {
    let what = match source {
        Source::Release(name) => format!("release {name:?}"),
        Source::SourceTree(name) => format!("source tree {name:?}"),
        Source::Data => "a data directory".into(),
        Source::Scratch(name) => format!("scratch tree {name:?}"),
        Source::Cache(name) => format!("cache {name:?}"),
        Source::Host(path) => path.display().to_string(),
    };
    Error::Tree { what, reason }
}
