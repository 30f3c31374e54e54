//! The supervisor: the process of `micro server` that may do things. It owns the listening sockets, the
//! fences and the instances, and parses nothing but small typed messages of its own node.
//!
//! One thread, one poll loop. What takes long is done by a child (`errand.rs`); what must outlive this
//! process is held by each instance's init.
//!
//! | file | owns |
//! |---|---|
//! | `layout.rs` | the state directory, its lock and whose each part is |
//! | `doors.rs` | the listening sockets |
//! | `host.rs` | what this machine allows |
//! | `node.rs` | the node process |
//! | `policy.rs` | what the node may ask for |
//! | `instance.rs`, `last_line.rs` | instances, from launch to exit record |
//! | `requests.rs` | what is done for each request |
//! | `errand.rs`, `toolchains.rs` | slow work |
//! | `notify.rs` | the service manager |

mod doors;
mod errand;
mod host;
mod instance;
mod last_line;
mod layout;
mod node;
mod notify;
mod policy;
mod requests;
mod toolchains;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::fd::AsFd as _,
    path::PathBuf,
    process::ExitCode,
    time::{Duration, Instant},
};

use micro_core::{InstanceId, Settings};
use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        prctl,
        resource::{Resource, getrlimit, setrlimit},
        signal::{SigSet, Signal},
        signalfd::{SfdFlags, SignalFd},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
};

use crate::{
    error::Error,
    plan,
    spec::{Event, Spec, Toolchain},
    sys,
    wire::{Answer, Message, Refusal, encode},
};
use doors::Door;
use errand::Errand;
use host::Host;
use instance::{Instance, News};
use layout::Layout;
use node::Node;

/// How long the node may finish requests when the server stops.
const DRAIN: Duration = Duration::from_secs(15);
/// How long services may take to stop then.
const GRACE: Duration = Duration::from_secs(10);
/// How long killing may take.
const KILL: Duration = Duration::from_secs(5);

/// Whose request an answer belongs to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Caller {
    node: u64,
    request: u64,
}

/// Where the server is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Serving,
    /// The node finishes its requests.
    Draining(Instant),
    /// Services end.
    Stopping(Instant),
    /// Asked a second time: everything is killed.
    Killing(Instant),
}

/// A request that an errand works on.
#[derive(Debug)]
struct Work {
    errand: Errand,
    kind: WorkKind,
}

#[derive(Debug)]
enum WorkKind {
    Toolchains,
    /// `Answer::Path` when it is kept, `Answer::Done` when it is removed.
    Tree {
        caller: Caller,
        path: PathBuf,
        kept: bool,
    },
}

#[derive(Debug)]
struct Supervisor {
    settings: Settings,
    layout: Layout,
    host: Host,
    doors: Vec<Door>,
    node: Node,
    signals: SignalFd,
    instances: BTreeMap<InstanceId, Instance>,
    works: Vec<Work>,
    toolchains: Option<(Vec<Toolchain>, Instant)>,
    /// Who waits for them, to hear of them or to have a spec checked.
    asking: Vec<Caller>,
    held: Vec<(Caller, Spec)>,
    phase: Phase,
    /// When the start is over and what it needed is given back.
    settle_at: Option<Instant>,
    signals_seen: u32,
    /// Groups above those of adopted instances. They are not where this server would make them, if it
    /// was started from another place than the one before.
    old_parents: BTreeSet<PathBuf>,
}

/// Runs the server of this state directory until it is told to stop. Call it from a process that has no
/// threads yet: it forks.
///
/// # Errors
/// `Precondition` when the state directory or a door is not to be had.
pub fn run(mut settings: Settings) -> Result<ExitCode, Error> {
    let threads = fs::read_dir("/proc/self/task").map_or(1, Iterator::count);
    if threads > 1 {
        return Err(Error::Threads(threads));
    }
    raise_open_files()?;
    let node_user = layout::node_user(&settings.server.user);
    let layout = Layout::open(&settings.server.state_dir, node_user)?;
    settings.server.state_dir = layout.state.root().into();
    let doors = doors::open(&mut settings)?;
    // Orphans of instances and of the node come to us, so that nobody is left a zombie.
    prctl::set_child_subreaper(true).map_err(Error::os("become the parent of orphans"))?;
    let signals = signals()?;
    let host = Host::examine(&layout);
    for fence in &host.missing {
        tracing::warn!("Missing fence: {fence}.");
    }
    if nix::unistd::geteuid().is_root() && layout.node.is_none() {
        tracing::warn!(
            user = settings.server.user,
            "The node runs as root, because there is no such user; make one with useradd --system."
        );
    }
    let mut supervisor = Supervisor {
        settings,
        layout,
        host,
        doors,
        node: Node::new(),
        signals,
        instances: BTreeMap::new(),
        works: Vec::new(),
        toolchains: None,
        asking: Vec::new(),
        held: Vec::new(),
        phase: Phase::Serving,
        settle_at: None,
        signals_seen: 0,
        old_parents: BTreeSet::new(),
    };
    supervisor.adopt();
    let outcome = supervisor.serve();
    supervisor.leave();
    outcome
}

/// The node inherits it, and holds two connections for each request that is being forwarded.
fn raise_open_files() -> Result<(), Error> {
    let resource = Resource::RLIMIT_NOFILE;
    getrlimit(resource)
        .and_then(|(_, hard)| setrlimit(resource, hard, hard))
        .map_err(Error::os("raise the limit of open files"))
}

/// What this process wants to hear of. A terminal that closes ends it, unless it was told not to care.
fn signals() -> Result<SignalFd, Error> {
    let os = || Error::os("listen for signals");
    let mut set = SigSet::empty();
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGCHLD] {
        set.add(signal);
    }
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status
        .lines()
        .find_map(|line| line.strip_prefix("SigIgn:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or(0);
    if ignored & 1 << (Signal::SIGHUP as u32 - 1) == 0 {
        set.add(Signal::SIGHUP);
    }
    set.thread_block().map_err(os())?;
    SignalFd::with_flags(&set, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC).map_err(os())
}

impl Supervisor {
    /// Finds the instances of an earlier supervisor, and removes what belongs to none.
    fn adopt(&mut self) {
        let root = plan::instances(&self.layout.state);
        for entry in fs::read_dir(&root).into_iter().flatten().flatten() {
            let id = entry.file_name().into_string().unwrap_or_default();
            let found = InstanceId::parse(&id)
                .ok()
                .zip(Instance::adopt(&entry.path()));
            match found {
                Some((id, instance)) => {
                    tracing::info!(instance = %id, "Instance found again.");
                    let dirs = instance.plan.group.dirs.iter();
                    self.old_parents
                        .extend(dirs.filter_map(|dir| Some(dir.parent()?.to_owned())));
                    self.instances.insert(id, instance);
                }
                None => {
                    tracing::warn!(path = %entry.path().display(), "Removing what is no instance.");
                    if let Err(error) = fs::remove_dir_all(entry.path()) {
                        tracing::warn!(%error, "Cannot remove it.");
                    }
                }
            }
        }
        for (name, group) in self.host.groups.found() {
            let known = self.instances.keys().any(|id| id.as_str() == name);
            if !known && !group.clear(KILL) {
                tracing::error!(
                    name,
                    "Cannot remove a control group that belongs to no instance."
                );
            }
        }
    }

    fn serve(&mut self) -> Result<ExitCode, Error> {
        loop {
            self.node.turn(
                self.layout.node.as_ref(),
                &|| node::greeting(&self.settings, &self.host.missing, &self.doors),
                &self.doors,
            )?;
            let ready = self.wait();
            if ready.signals {
                self.take_signals()?;
            }
            if ready.node {
                self.node.flush();
                for request in self.node.receive() {
                    self.answer_request(request);
                }
            }
            self.finish_works(&ready.works);
            self.turn_instances(&ready.instances);
            if self.settle_at.is_some_and(|at| Instant::now() >= at) {
                self.settle_at = None;
                sys::settle();
            }
            if let Some(code) = self.advance() {
                return Ok(code);
            }
        }
    }

    fn wait(&self) -> Ready {
        let deadlines = self
            .instances
            .values()
            .filter_map(Instance::deadline)
            .chain(self.node.deadline())
            .chain(self.settle_at)
            .chain(match self.phase {
                Phase::Serving => None,
                Phase::Draining(at) | Phase::Stopping(at) | Phase::Killing(at) => Some(at),
            });
        let timeout = deadlines.min().map_or(PollTimeout::NONE, |at| {
            let left = at.saturating_duration_since(Instant::now()).as_millis();
            let left = if left == 0 && at > Instant::now() {
                1
            } else {
                left
            };
            PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)
        });
        let mut fds = vec![PollFd::new(self.signals.as_fd(), PollFlags::POLLIN)];
        if let Some((fd, writes)) = self.node.fd() {
            let mut flags = PollFlags::POLLIN;
            flags.set(PollFlags::POLLOUT, writes);
            fds.push(PollFd::new(fd, flags));
        }
        let has_node = fds.len() > 1;
        for work in &self.works {
            fds.push(PollFd::new(work.errand.fd(), PollFlags::POLLIN));
        }
        let watched: Vec<&InstanceId> = self
            .instances
            .iter()
            .filter_map(|(id, instance)| {
                fds.push(PollFd::new(instance.fd()?, PollFlags::POLLIN));
                Some(id)
            })
            .collect();
        let _ = poll(&mut fds, timeout); // interrupted or not, all is looked at
        let mut any = fds.iter().map(|fd| fd.any().unwrap_or(false));
        Ready {
            signals: any.next().unwrap_or(false),
            node: has_node && any.next().unwrap_or(false),
            works: any.by_ref().take(self.works.len()).collect(),
            instances: watched
                .into_iter()
                .zip(any)
                .filter(|(_, ready)| *ready)
                .map(|(id, _)| id.clone())
                .collect(),
        }
    }

    fn take_signals(&mut self) -> Result<(), Error> {
        while let Ok(Some(info)) = self.signals.read_signal() {
            if info.ssi_signo != Signal::SIGCHLD as u32 {
                self.signals_seen += 1;
                self.begin_to_stop();
            }
        }
        // Children: the node, the first processes of inits, errands, orphans.
        while let Ok(status) = waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            let Some(pid) = status.pid() else { break };
            if Some(pid) != self.node.pid() {
                continue;
            }
            let how = match status {
                WaitStatus::Exited(_, code) => format!("exit code {code}"),
                WaitStatus::Signaled(_, signal, _) => signal.to_string(),
                _ => continue,
            };
            self.node.died(&how, self.phase == Phase::Serving)?;
        }
        Ok(())
    }

    fn begin_to_stop(&mut self) {
        if self.phase == Phase::Serving {
            tracing::info!("Stopping.");
            notify::say("STOPPING=1");
            self.phase = Phase::Draining(Instant::now() + DRAIN);
            self.node.retire();
            // The node has its own; when it closes them, nobody waits at a door that will not open.
            self.doors.clear();
            self.node.signal(Signal::SIGTERM);
        } else if self.signals_seen > 1 && !matches!(self.phase, Phase::Killing(_)) {
            tracing::warn!("Asked again: stopping at once.");
            self.phase = Phase::Killing(Instant::now() + KILL);
            self.node.signal(Signal::SIGKILL);
            for instance in self.instances.values_mut() {
                instance.kill();
            }
        }
    }

    /// Goes on with stopping. `Some` when all is done.
    fn advance(&mut self) -> Option<ExitCode> {
        let now = Instant::now();
        let left = self.instances.values().any(|instance| !instance.ended());
        match self.phase {
            Phase::Serving => None,
            Phase::Draining(until) => {
                if self.node.alive() {
                    if now >= until {
                        tracing::warn!("The node does not end; it is killed.");
                        self.node.signal(Signal::SIGKILL);
                        self.phase = Phase::Draining(now + KILL);
                    }
                    return None;
                }
                for instance in self.instances.values_mut() {
                    instance.stop(None, GRACE);
                }
                self.phase = Phase::Stopping(now + GRACE + KILL * 3);
                self.advance()
            }
            Phase::Stopping(until) | Phase::Killing(until) => {
                if (left || self.node.alive()) && now < until {
                    return None;
                }
                if left {
                    tracing::error!("Some services could not be ended.");
                }
                Some(match self.phase {
                    Phase::Killing(_) => ExitCode::from(130),
                    _ => ExitCode::SUCCESS,
                })
            }
        }
    }

    fn turn_instances(&mut self, readable: &[InstanceId]) {
        let mut news = Vec::new();
        for (id, instance) in &mut self.instances {
            if let Some(one) = instance.turn(readable.contains(id)) {
                news.push((id.clone(), one));
            }
        }
        for (id, one) in news {
            self.tell(id, one);
        }
    }

    fn tell(&mut self, id: InstanceId, news: News) {
        match news {
            News::Launched(caller) => {
                if let Some(instance) = self.instances.get(&id) {
                    let running = Box::new(instance.running());
                    self.reply(caller, Ok(Answer::Running(running)));
                }
            }
            News::Failed { launch, stops, why } => {
                self.drop_instance(&id);
                for caller in stops {
                    self.reply(caller, Ok(Answer::Done));
                }
                self.reply(launch, Err(Error::Launch { id, reason: why }));
            }
            News::Ended(stops, exit) => {
                for caller in stops {
                    self.reply(caller, Ok(Answer::Done));
                }
                self.send(&Message::Event(Event::Exited { id, exit }));
            }
        }
    }

    /// Removes an ended instance's directory.
    fn drop_instance(&mut self, id: &InstanceId) {
        if let Some(instance) = self.instances.remove(id)
            && let Err(error) = fs::remove_dir_all(&instance.plan.dir)
        {
            tracing::warn!(%error, instance = %id, "Cannot remove the directory of an instance.");
        }
    }

    fn reply(&mut self, caller: Caller, outcome: Result<Answer, Error>) {
        if caller.node != self.node.generation {
            return; // an earlier node asked
        }
        let outcome = outcome.map_err(|error| Refusal::of(&error));
        let id = caller.request;
        self.send(&Message::Answer { id, outcome });
    }

    fn send(&mut self, message: &Message) {
        match encode(message) {
            Ok(frame) => self.node.send(&frame),
            Err(error) => tracing::error!(error = %error.chain(), "Cannot answer the node."),
        }
    }

    /// Leaves nothing behind but what is worth keeping: exits of instances nobody stopped.
    fn leave(&mut self) {
        if let Some(pid) = self.node.pid() {
            self.node.signal(Signal::SIGKILL);
            let _ = waitpid(pid, None);
        }
        if self.phase != Phase::Serving {
            let ended: Vec<InstanceId> = self
                .instances
                .iter()
                .filter(|(_, instance)| instance.ended())
                .map(|(id, _)| id.clone())
                .collect();
            for id in ended {
                self.drop_instance(&id);
            }
        }
        for parent in &self.old_parents {
            let _ = fs::remove_dir(parent); // it is in use, or was removed as our own
        }
        self.host.groups.close();
    }
}

/// What [`Supervisor::wait`] found.
struct Ready {
    signals: bool,
    node: bool,
    works: Vec<bool>,
    instances: Vec<InstanceId>,
}
