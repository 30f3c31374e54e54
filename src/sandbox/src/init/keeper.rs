//! What init does while its service runs: log, answer, wait, end what is left.

use std::{
    fs::File,
    io::{Read as _, Write as _},
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::net::{UnixListener, UnixStream},
    },
    time::{Duration, Instant},
};

use micro_core::{Clock, InstanceId};
use nix::{
    errno::Errno,
    fcntl::{FcntlArg, OFlag, fcntl},
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        signal::{SigSet, Signal, kill},
        signalfd::{SfdFlags, SignalFd},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::Pid,
};

use super::{
    control_path,
    log::{Log, Splitter},
    open_dir,
};
use crate::{
    Exit,
    plan::{Ask, Failure, On as _, Plan, Record, Tell, file, line, lines},
    sys,
};

/// Grace of a plain SIGTERM to init.
const GRACE: Duration = Duration::from_secs(10);
/// How long a line without an end may wait for it.
const PARTIAL: Duration = Duration::from_secs(1);
/// How long output may still arrive when everything that could write it has been killed.
const DRAIN: Duration = Duration::from_secs(2);
/// More connections than this are closed at once: a supervisor needs one.
const MAX_CLIENTS: usize = 8;

pub(super) struct Keeper {
    id: InstanceId,
    fenced: bool,
    dir: OwnedFd,
    log: Log,
    signals: SignalFd,
    listener: UnixListener,
    clients: Vec<Client>,
    outputs: Vec<Output>,
    kill_at: Option<Instant>,
    exit: Option<Exit>,
    clock: Clock,
    chunk: Vec<u8>,
}

struct Client {
    stream: UnixStream,
    buffer: Vec<u8>,
}

/// One of the service's two outputs.
struct Output {
    pipe: File,
    splitter: Splitter,
    flush_at: Option<Instant>,
}

impl Keeper {
    /// Opens all that must be open before root is given up.
    pub(super) fn open(plan: &Plan) -> Result<Self, Failure> {
        let mut set = SigSet::empty();
        for signal in [
            Signal::SIGCHLD,
            Signal::SIGTERM,
            Signal::SIGINT,
            Signal::SIGHUP,
            Signal::SIGQUIT,
            Signal::SIGPIPE,
        ] {
            set.add(signal);
        }
        set.thread_block().on("signals")?;
        let signals = SignalFd::with_flags(&set, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)
            .on("signals")?;
        let dir = open_dir(&plan.dir)?;
        let log_dir = open_dir(&plan.log_dir)?;
        let name = format!("{}.log", plan.spec.id);
        let owner = plan.keeper.map(|keeper| keeper.uid);
        let log = Log::open(log_dir, name, plan.log_limit, owner).at(&plan.log_dir)?;
        let path = control_path(&dir);
        let _ = std::fs::remove_file(&path); // of an attempt that failed
        let listener = UnixListener::bind(&path).at(&path)?;
        listener.set_nonblocking(true).at(&path)?;
        Ok(Self {
            id: plan.spec.id.clone(),
            fenced: plan.mode.fenced(),
            dir,
            log,
            signals,
            listener,
            clients: Vec::new(),
            outputs: Vec::new(),
            kill_at: None,
            exit: None,
            clock: Clock::System,
            chunk: vec![0; 64 << 10],
        })
    }

    pub(super) fn listen_to(&mut self, out: OwnedFd, err: OwnedFd) -> nix::Result<()> {
        for (pipe, mark) in [(out, b'o'), (err, b'e')] {
            fcntl(&pipe, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
            self.outputs.push(Output {
                pipe: pipe.into(),
                splitter: Splitter::new(mark),
                flush_at: None,
            });
        }
        Ok(())
    }

    /// Ends a service that did not come up.
    pub(super) fn abandon(mut self, service: Pid) {
        let _ = kill(service, Signal::SIGKILL);
        self.end_all(service);
    }

    /// Until the service and everything it started has ended, and its exit is on disk.
    pub(super) fn run(mut self, service: Pid) {
        sys::settle();
        while self.exit.is_none() {
            self.wait();
            self.take_signals(service);
            self.read_outputs();
            self.answer(service);
            if self.kill_at.is_some_and(|at| Instant::now() >= at) {
                self.kill_at = None;
                let _ = kill(service, Signal::SIGKILL);
            }
        }
        self.end_all(service);
        self.drain();
        let exit = self.exit.unwrap_or(Exit::Signal(Signal::SIGKILL as i32));
        let record = Record {
            exit: exit.clone(),
            at: self.clock.now(),
        };
        // On a full disk the supervisor that is connected still hears of it.
        let _ = crate::tree::write_whole(&self.dir, file::EXIT, &line(&record));
        for client in &mut self.clients {
            let _ = client.stream.write_all(&line(&Tell::Exited(exit.clone())));
        }
    }

    fn wait(&mut self) {
        let now = Instant::now();
        let next = self
            .outputs
            .iter()
            .filter_map(|output| output.flush_at)
            .chain(self.kill_at)
            .min();
        let timeout = next.map_or(PollTimeout::NONE, |at| {
            let left = at.saturating_duration_since(now).as_millis() + 1;
            PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)
        });
        let readable = |fd| PollFd::new(fd, PollFlags::POLLIN);
        let mut fds: Vec<PollFd<'_>> = vec![
            readable(self.signals.as_fd()),
            readable(self.listener.as_fd()),
        ];
        fds.extend(self.outputs.iter().map(|o| readable(o.pipe.as_fd())));
        fds.extend(self.clients.iter().map(|c| readable(c.stream.as_fd())));
        let _ = poll(&mut fds, timeout); // everything is non-blocking and looked at afterwards
    }

    fn take_signals(&mut self, service: Pid) {
        while let Ok(Some(info)) = self.signals.read_signal() {
            if info.ssi_signo == Signal::SIGTERM as u32 {
                self.stop(service, GRACE);
            }
        }
        self.reap(service);
    }

    fn reap(&mut self, service: Pid) {
        loop {
            match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(pid, code)) if pid == service => {
                    self.exit = Some(Exit::Code(code));
                }
                Ok(WaitStatus::Signaled(pid, signal, _)) if pid == service => {
                    self.exit = Some(Exit::Signal(signal as i32));
                }
                Ok(WaitStatus::StillAlive) | Err(_) => return,
                Ok(_) => {}
            }
        }
    }

    /// SIGTERM to all of its group now; the kill comes at the earliest time anyone asked for.
    fn stop(&mut self, service: Pid, grace: Duration) {
        if self.exit.is_some() {
            return;
        }
        let group = Pid::from_raw(-service.as_raw());
        if kill(group, Signal::SIGTERM).is_err() {
            let _ = kill(service, Signal::SIGTERM);
        }
        // A stopped process hears nothing until it is continued.
        let _ = kill(group, Signal::SIGCONT);
        let at = Instant::now() + grace.min(Duration::from_secs(3600));
        self.kill_at = Some(self.kill_at.map_or(at, |earlier| earlier.min(at)));
    }

    fn answer(&mut self, service: Pid) {
        while let Ok((stream, _)) = self.listener.accept() {
            let greeted = self.clients.len() < MAX_CLIENTS
                && stream.set_nonblocking(true).is_ok()
                && (&stream)
                    .write_all(&line(&Tell::Hello(self.id.clone())))
                    .is_ok();
            if greeted {
                let buffer = Vec::new();
                self.clients.push(Client { stream, buffer });
            }
        }
        let mut stops = Vec::new();
        self.clients.retain_mut(|client| {
            let mut chunk = [0; 1024];
            loop {
                match client.stream.read(&mut chunk) {
                    Ok(0) => return false,
                    Ok(read) => client
                        .buffer
                        .extend_from_slice(chunk.get(..read).unwrap_or_default()),
                    Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => break,
                    Err(_) => return false,
                }
                if client.buffer.len() > 64 << 10 {
                    return false;
                }
            }
            for text in lines(&mut client.buffer) {
                if let Ok(Ask::Stop(grace)) = serde_json::from_slice(&text) {
                    stops.push(Duration::from_millis(grace));
                }
            }
            true
        });
        for grace in stops {
            self.stop(service, grace);
        }
    }

    /// Whether any output is still open.
    fn read_outputs(&mut self) -> bool {
        let now = Instant::now();
        let (log, clock, chunk) = (&mut self.log, &self.clock, &mut self.chunk);
        self.outputs.retain_mut(|output| {
            match output.pipe.read(chunk) {
                Ok(0) => {
                    log.append(&output.splitter.flush(clock.now()));
                    return false;
                }
                Ok(read) => {
                    let text = chunk.get(..read).unwrap_or_default();
                    log.append(&output.splitter.split(text, clock.now()));
                    output.flush_at = output.splitter.pending().then_some(now + PARTIAL);
                }
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(_) => return false,
            }
            if output.flush_at.is_some_and(|at| now >= at) {
                output.flush_at = None;
                log.append(&output.splitter.flush(clock.now()));
            }
            true
        });
        !self.outputs.is_empty()
    }

    /// Ends every process the service left behind.
    fn end_all(&mut self, service: Pid) {
        loop {
            if self.fenced {
                // Everything in this pid namespace but ourselves.
                let _ = kill(Pid::from_raw(-1), Signal::SIGKILL);
            } else {
                let _ = kill(Pid::from_raw(-service.as_raw()), Signal::SIGKILL);
                for pid in children() {
                    let _ = kill(pid, Signal::SIGKILL);
                }
            }
            match waitpid(None, None) {
                Err(Errno::ECHILD) => return,
                Ok(WaitStatus::Exited(pid, code)) if pid == service => {
                    self.exit = Some(Exit::Code(code));
                }
                Ok(WaitStatus::Signaled(pid, signal, _)) if pid == service => {
                    self.exit = Some(Exit::Signal(signal as i32));
                }
                _ => {}
            }
        }
    }

    fn drain(&mut self) {
        let until = Instant::now() + DRAIN;
        while self.read_outputs() && Instant::now() < until {
            let mut fds: Vec<PollFd<'_>> = self
                .outputs
                .iter()
                .map(|o| PollFd::new(o.pipe.as_fd(), PollFlags::POLLIN))
                .collect();
            let _ = poll(&mut fds, PollTimeout::from(100_u8));
        }
        for output in &mut self.outputs {
            let rest = output.splitter.flush(self.clock.now());
            self.log.append(&rest);
        }
    }
}

/// Our children, those that came back to us included.
fn children() -> Vec<Pid> {
    let me = std::process::id();
    std::fs::read_to_string(format!("/proc/self/task/{me}/children"))
        .unwrap_or_default()
        .split_whitespace()
        .filter_map(|pid| pid.parse().ok())
        .map(Pid::from_raw)
        .collect()
}
