//! One instance as the supervisor sees it: on its way up, running, ending, ended. What it knows is in
//! the instance's directory, so that a later supervisor knows as much.

use std::{
    fs::{self, File},
    io::{Read as _, Write as _},
    os::{
        fd::{AsFd as _, BorrowedFd, OwnedFd},
        unix::{fs::DirBuilderExt as _, net::UnixStream},
    },
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use micro_core::Clock;
use nix::{
    errno::Errno,
    fcntl::{FcntlArg, OFlag, fcntl},
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        signal::Signal,
        socket::{getsockopt, sockopt},
        wait::{WaitPidFlag, waitpid},
    },
    unistd::{Gid, Pid, Uid, pipe2},
};

use super::{Caller, last_line};
use crate::{
    error::Error,
    plan::{Ask, Plan, Record, Report, Tell, file, line, lines},
    spec::{Exit, Running},
    sys, tree,
};

/// A launch that takes longer has hung, in a mount for instance.
const LAUNCH: Duration = Duration::from_secs(30);
/// What init gets beyond the grace it was given, before it is killed itself.
const BEYOND_GRACE: Duration = Duration::from_secs(5);
/// How long emptying a control group may take.
const CLEARING: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(super) struct Instance {
    pub(super) plan: Plan,
    pub(super) state: State,
}

#[derive(Debug)]
pub(super) enum State {
    Launching(Launching),
    Alive(Alive),
    Ending(Ending),
    Ended(Exit),
}

#[derive(Debug)]
pub(super) struct Launching {
    report: File,
    buffer: Vec<u8>,
    caller: Caller,
    stops: Vec<Caller>,
    until: Instant,
    init: Option<(i32, OwnedFd)>,
}

#[derive(Debug)]
pub(super) struct Alive {
    pid: i32,
    pidfd: OwnedFd,
    control: Option<UnixStream>,
    stops: Vec<Caller>,
    kill_at: Option<Instant>,
}

/// The processes are gone or going, the control group not yet.
#[derive(Debug)]
pub(super) struct Ending {
    exit: Exit,
    pidfd: Option<OwnedFd>,
    /// Who asked for a launch that failed.
    launch: Option<Caller>,
    stops: Vec<Caller>,
    until: Instant,
}

/// What the main loop has to pass on.
#[derive(Debug)]
pub(super) enum News {
    Launched(Caller),
    /// A launch came to nothing, and nothing is left of it. Some may have asked for its end meanwhile.
    Failed {
        launch: Caller,
        stops: Vec<Caller>,
        why: String,
    },
    Ended(Vec<Caller>, Exit),
}

impl Instance {
    /// Starts init. What becomes of it is told by [`Self::turn`].
    pub(super) fn launch(plan: Plan, caller: Caller) -> Result<Self, Error> {
        let report = start(&plan)?;
        let launching = Launching {
            report,
            buffer: Vec::new(),
            caller,
            stops: Vec::new(),
            until: Instant::now() + LAUNCH,
            init: None,
        };
        Ok(Self {
            plan,
            state: State::Launching(launching),
        })
    }

    /// Takes over what an earlier supervisor left in `dir`. `None` if that is no instance.
    pub(super) fn adopt(dir: &Path) -> Option<Self> {
        let text = fs::read(dir.join(file::PLAN)).ok()?;
        let plan: Plan = serde_json::from_slice(&text).ok()?;
        let state = match connect(dir) {
            Some((control, pid, pidfd)) => State::Alive(Alive {
                pid,
                pidfd,
                control: Some(control),
                stops: Vec::new(),
                kill_at: None,
            }),
            None => State::Ending(Ending {
                exit: exit(&plan, None),
                pidfd: None,
                launch: None,
                stops: Vec::new(),
                until: Instant::now() + CLEARING,
            }),
        };
        Some(Self { plan, state })
    }

    pub(super) fn running(&self) -> Running {
        Running {
            spec: self.plan.spec.clone(),
            pid: match &self.state {
                State::Alive(alive) => alive.pid,
                _ => 0,
            },
            started: self.plan.started,
            exit: match &self.state {
                State::Ended(exit) => Some(exit.clone()),
                _ => None,
            },
        }
    }

    pub(super) fn ended(&self) -> bool {
        matches!(self.state, State::Ended(_))
    }

    /// Asks it to end. `false` if it has.
    pub(super) fn stop(&mut self, caller: Option<Caller>, grace: Duration) -> bool {
        match &mut self.state {
            State::Ended(_) => false,
            State::Ending(ending) => {
                ending.stops.extend(caller);
                true
            }
            State::Launching(launching) => {
                // Not up yet: there is nothing to be graceful with.
                launching.stops.extend(caller);
                launching.until = Instant::now();
                true
            }
            State::Alive(alive) => {
                alive.stops.extend(caller);
                alive.ask(grace);
                true
            }
        }
    }

    /// Ends it without asking.
    pub(super) fn kill(&mut self) {
        match &mut self.state {
            State::Alive(alive) => alive.kill(),
            State::Launching(launching) => launching.until = Instant::now(),
            State::Ending(_) | State::Ended(_) => {}
        }
    }

    /// What to wait for.
    pub(super) fn fd(&self) -> Option<BorrowedFd<'_>> {
        match &self.state {
            State::Launching(launching) => Some(launching.report.as_fd()),
            State::Alive(alive) => Some(alive.pidfd.as_fd()),
            State::Ending(_) | State::Ended(_) => None,
        }
    }

    /// When to look again, even if nothing happens.
    pub(super) fn deadline(&self) -> Option<Instant> {
        match &self.state {
            State::Launching(launching) => Some(launching.until),
            State::Alive(alive) => alive.kill_at,
            State::Ending(_) => Some(Instant::now() + Duration::from_millis(5)),
            State::Ended(_) => None,
        }
    }

    /// Moves on as far as it goes. `readable`: whether [`Self::fd`] is.
    pub(super) fn turn(&mut self, readable: bool) -> Option<News> {
        match &mut self.state {
            State::Launching(launching) => {
                let outcome = launching.turn(readable)?;
                self.launched(outcome)
            }
            State::Alive(alive) => {
                if readable {
                    self.died();
                    return self.turn(false);
                }
                if alive.kill_at.is_some_and(|at| Instant::now() >= at) {
                    alive.kill();
                }
                None
            }
            State::Ending(ending) => {
                let gone = ending.pidfd.as_ref().is_none_or(|fd| ended(fd.as_fd()));
                if !(gone && self.plan.group.remove()) {
                    self.plan.group.kill();
                    if Instant::now() < ending.until {
                        return None;
                    }
                    tracing::error!(
                        instance = %self.plan.spec.id,
                        "Cannot remove the control group of an instance that has ended."
                    );
                }
                let exit = ending.exit.clone();
                let stops = std::mem::take(&mut ending.stops);
                let launch = ending.launch.take();
                self.state = State::Ended(exit.clone());
                if let (Some(launch), Exit::Launch(why)) = (launch, &exit) {
                    let why = why.clone();
                    return Some(News::Failed { launch, stops, why });
                }
                self.record(&exit);
                Some(News::Ended(stops, exit))
            }
            State::Ended(_) => None,
        }
    }

    fn launched(&mut self, outcome: Result<(), String>) -> Option<News> {
        let State::Launching(launching) = &mut self.state else {
            return None;
        };
        let caller = launching.caller;
        let stops = std::mem::take(&mut launching.stops);
        let (pid, pidfd) = match (outcome, launching.init.take()) {
            (Ok(()), Some(init)) => init,
            (outcome, init) => {
                let why = outcome.err();
                self.state = State::Ending(Ending {
                    exit: Exit::Launch(why.unwrap_or_else(|| "its init has no pid".into())),
                    pidfd: init.map(|(_, pidfd)| pidfd),
                    launch: Some(caller),
                    stops,
                    until: Instant::now() + CLEARING,
                });
                return self.turn(false);
            }
        };
        let control = connect(&self.plan.dir).map(|(control, ..)| control);
        self.state = State::Alive(Alive {
            pid,
            pidfd,
            control,
            stops,
            kill_at: None,
        });
        Some(News::Launched(caller))
    }

    fn died(&mut self) {
        let State::Alive(alive) = &mut self.state else {
            return;
        };
        let last = alive.control.take().and_then(last_word);
        let stops = std::mem::take(&mut alive.stops);
        self.state = State::Ending(Ending {
            exit: exit(&self.plan, last),
            pidfd: None,
            launch: None,
            stops,
            until: Instant::now() + CLEARING,
        });
    }

    /// What was found out goes with what init wrote, for a later supervisor.
    fn record(&self, exit: &Exit) {
        let record = Record {
            exit: exit.clone(),
            at: Clock::System.now(),
        };
        let known = read_record(&self.plan.dir).is_some_and(|known| known.exit == *exit);
        if known {
            return;
        }
        let written = tree::open(&self.plan.dir)
            .and_then(|dir| tree::write_whole(&dir, file::EXIT, &line(&record)));
        if let Err(error) = written {
            tracing::warn!(%error, instance = %self.plan.spec.id, "Cannot record how an instance ended.");
        }
        if let Err(error) = last_line::write(&self.plan, exit, record.at) {
            tracing::warn!(%error, instance = %self.plan.spec.id, "Cannot say in its log how an instance ended.");
        }
    }
}

impl Launching {
    /// `None` while it is undecided.
    fn turn(&mut self, readable: bool) -> Option<Result<(), String>> {
        if Instant::now() >= self.until {
            if let Some((_, pidfd)) = &self.init {
                let _ = sys::pidfd_signal(pidfd.as_fd(), Signal::SIGKILL); // it may be gone
            }
            return Some(Err("it was not up in time, or was stopped before".into()));
        }
        if !readable {
            return None;
        }
        let end = match self.report.read_to_end(&mut self.buffer) {
            Ok(_) => true,
            Err(error) => error.kind() != std::io::ErrorKind::WouldBlock,
        };
        let mut ready = false;
        for text in lines(&mut self.buffer) {
            match serde_json::from_slice(&text) {
                Ok(Report::Init(pid)) => {
                    // Not reaped before this loop does it, so the number is still its own.
                    let fd = sys::pidfd_open(Pid::from_raw(pid)).ok();
                    self.init = fd.map(|fd| (pid, fd));
                }
                Ok(Report::Ready) => ready = true,
                Ok(Report::Failed(why)) => return Some(Err(why)),
                Err(error) => return Some(Err(error.to_string())),
            }
        }
        match (end, ready) {
            (_, true) if self.init.is_some() => Some(Ok(())),
            (true, _) => Some(Err("its init ended without a word".into())),
            // The two processes of init share the pipe: their lines may come in any order.
            (false, _) => {
                if ready {
                    let again = line(&Report::Ready);
                    self.buffer.splice(0..0, again);
                }
                None
            }
        }
    }
}

impl Alive {
    fn ask(&mut self, grace: Duration) {
        let millis = u64::try_from(grace.as_millis()).unwrap_or(u64::MAX);
        let asked = self
            .control
            .as_mut()
            .is_some_and(|control| control.write_all(&line(&Ask::Stop(millis))).is_ok());
        if !asked {
            let _ = sys::pidfd_signal(self.pidfd.as_fd(), Signal::SIGTERM); // it may be gone
        }
        let at = Instant::now() + grace.min(Duration::from_secs(3600)) + BEYOND_GRACE;
        self.kill_at = Some(self.kill_at.map_or(at, |earlier| earlier.min(at)));
    }

    /// The end of its PID 1 is the end of everything in its pid namespace.
    fn kill(&mut self) {
        let _ = sys::pidfd_signal(self.pidfd.as_fd(), Signal::SIGKILL); // it may be gone
        self.kill_at = None;
    }
}

/// How it ended, from the best source there is.
fn exit(plan: &Plan, last_word: Option<Exit>) -> Exit {
    let exit = last_word
        .or_else(|| read_record(&plan.dir).map(|record| record.exit))
        // Init was killed, or the machine went down.
        .unwrap_or(Exit::Signal(Signal::SIGKILL as i32));
    let killed = matches!(exit, Exit::Signal(9) | Exit::Code(137));
    if killed && plan.group.oom_kills() > 0 {
        return Exit::OutOfMemory;
    }
    exit
}

fn read_record(dir: &Path) -> Option<Record> {
    serde_json::from_slice(&fs::read(dir.join(file::EXIT)).ok()?).ok()
}

/// Reads what init said before it closed the connection.
fn last_word(mut control: UnixStream) -> Option<Exit> {
    let mut said = Vec::new();
    let _ = control.read_to_end(&mut said); // what came before an error still counts
    lines(&mut said)
        .iter()
        .rev()
        .find_map(|text| match serde_json::from_slice(text) {
            Ok(Tell::Exited(exit)) => Some(exit),
            _ => None,
        })
}

/// Init's socket, its pid, and a descriptor for exactly that process. `None` if nobody listens.
fn connect(dir: &Path) -> Option<(UnixStream, i32, OwnedFd)> {
    let dir = tree::open(dir).ok()?;
    let path = format!("{}/{}", sys::fd_path(&dir), file::CONTROL);
    let control = UnixStream::connect(path).ok()?;
    control.set_nonblocking(true).ok()?;
    let pid = getsockopt(&control, sockopt::PeerCredentials).ok()?.pid();
    let pidfd = sys::pidfd_open(Pid::from_raw(pid)).ok()?;
    // If it has hung up by now, the pid may be somebody else's already.
    let mut fds = [PollFd::new(control.as_fd(), PollFlags::empty())];
    let hung_up = poll(&mut fds, PollTimeout::ZERO).is_ok_and(|n| n > 0);
    (!hung_up).then_some((control, pid, pidfd))
}

/// Makes the instance's directory and starts its init. Returns where init reports.
fn start(plan: &Plan) -> Result<File, Error> {
    let what = format!("start the init of {}", plan.spec.id);
    begin(plan).map_err(Error::os(what))
}

fn begin(plan: &Plan) -> std::io::Result<File> {
    fs::DirBuilder::new().mode(0o700).create(&plan.dir)?;
    fs::DirBuilder::new()
        .mode(0o755)
        .create(plan.dir.join(file::ROOT))?;
    let dir = tree::open(&plan.dir)?;
    tree::write_whole(&dir, file::PLAN, &line(plan))?;
    if let Some(keeper) = plan.keeper {
        let (uid, gid) = (Uid::from_raw(keeper.uid), Gid::from_raw(keeper.gid));
        nix::unistd::fchown(&dir, Some(uid), Some(gid))?;
    }
    let input = File::open(plan.dir.join(file::PLAN))?;
    let (report, end) = pipe2(OFlag::O_CLOEXEC)?;
    fcntl(&report, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    // It ends at once; the main loop reaps every child of this process.
    Command::new("/proc/self/exe")
        .arg("__init")
        .arg(plan.spec.id.as_str()) // for people who look at a list of processes
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::from(input))
        .stdout(Stdio::from(end))
        .stderr(Stdio::null())
        .spawn()?;
    Ok(report.into())
}

/// Takes every step of a launch, waiting for the outcome. For the time before the main loop.
pub(super) fn rehearse(plan: &Plan, patience: Duration) -> Result<(), String> {
    let until = Instant::now() + patience;
    let mut launching = Launching {
        report: start(plan).map_err(|error| error.chain())?,
        buffer: Vec::new(),
        caller: Caller::default(),
        stops: Vec::new(),
        until,
        init: None,
    };
    let outcome = loop {
        wait(launching.report.as_fd(), until);
        if let Some(outcome) = launching.turn(true) {
            break outcome;
        }
    };
    if let Some((_, pidfd)) = launching.init.take() {
        wait(pidfd.as_fd(), until);
    }
    // Its two processes, and nobody else's: nothing was started before.
    while waitpid(None, Some(WaitPidFlag::WNOHANG)).is_ok_and(|s| s.pid().is_some()) {}
    outcome
}

fn wait(fd: BorrowedFd<'_>, until: Instant) {
    let left = until.saturating_duration_since(Instant::now()).as_millis();
    let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
    while poll(&mut [PollFd::new(fd, PollFlags::POLLIN)], timeout) == Err(Errno::EINTR) {}
}

fn ended(pidfd: BorrowedFd<'_>) -> bool {
    let mut fds = [PollFd::new(pidfd, PollFlags::POLLIN)];
    poll(&mut fds, PollTimeout::ZERO).is_ok_and(|n| n > 0)
}
