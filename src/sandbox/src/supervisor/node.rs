//! The node process: started, fed with the listeners, started again when it dies, never left behind.

use std::{
    ffi::CString,
    io::{IoSlice, Read as _, Write as _},
    os::{
        fd::{AsFd as _, AsRawFd as _, BorrowedFd, RawFd},
        unix::{ffi::OsStringExt as _, net::UnixStream},
    },
    time::{Duration, Instant},
};

use micro_core::Settings;
use nix::{
    sys::{
        prctl,
        signal::{Signal, kill},
        socket::{ControlMessage, MsgFlags, sendmsg},
    },
    unistd::{
        ForkResult, Gid, Pid, Uid, execve, getppid, initgroups, setresgid, setresuid, setsid,
    },
};

use super::{doors::Door, layout::NodeUser, notify};
use crate::{
    credentials::Credentials,
    error::Error,
    sys,
    wire::{Decoder, FDS_PER_MESSAGE, Greeting, MAX_REQUEST, NODE_FD, Request, encode},
};

/// First pause before a node that died is started again; it doubles up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// A node that lived this long was well.
const WELL: Duration = Duration::from_secs(30);
/// A server whose node dies this often without ever having been ready does not work at all.
const FUTILE: u32 = 5;
/// A node that leaves this much unread does not read any more.
const MAX_UNREAD: usize = 512 << 20;

/// The node, alive or about to be started again.
#[derive(Debug)]
pub(super) struct Node {
    process: Option<Process>,
    /// Tells answers to this node's requests from answers to an earlier one's.
    pub(super) generation: u64,
    start_at: Option<Instant>,
    pause: Duration,
    deaths: u32,
    pub(super) ready: bool,
}

#[derive(Debug)]
struct Process {
    pid: Pid,
    stream: UnixStream,
    decoder: Decoder,
    unsent: Vec<u8>,
    since: Instant,
}

impl Node {
    pub(super) fn new() -> Self {
        Self {
            process: None,
            generation: 0,
            start_at: Some(Instant::now()),
            pause: FIRST_PAUSE,
            deaths: 0,
            ready: false,
        }
    }

    /// Starts it if it is time to.
    pub(super) fn turn(
        &mut self,
        user: Option<&NodeUser>,
        greeting: &dyn Fn() -> Greeting,
        doors: &[Door],
    ) -> Result<(), Error> {
        if self.process.is_some() || self.start_at.is_none_or(|at| Instant::now() < at) {
            return Ok(());
        }
        self.start_at = None;
        self.generation += 1;
        let (ours, theirs) = UnixStream::pair().map_err(Error::os("make a socket for the node"))?;
        let pid = spawn(user, theirs.as_fd())?;
        drop(theirs);
        self.process = Some(Process {
            pid,
            decoder: Decoder::new(MAX_REQUEST),
            unsent: Vec::new(),
            since: Instant::now(),
            stream: ours,
        });
        if let Some(process) = &self.process
            && let Err(error) = process.greet(&greeting(), doors)
        {
            // It died already; the signal about that is on its way.
            tracing::warn!(error = %error.chain(), "Cannot greet the node.");
        }
        Ok(())
    }

    pub(super) fn fd(&self) -> Option<(BorrowedFd<'_>, bool)> {
        let process = self.process.as_ref()?;
        Some((process.stream.as_fd(), !process.unsent.is_empty()))
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.start_at
    }

    pub(super) fn alive(&self) -> bool {
        self.process.is_some()
    }

    pub(super) fn pid(&self) -> Option<Pid> {
        self.process.as_ref().map(|process| process.pid)
    }

    /// Ends it: SIGTERM to let it finish requests, SIGKILL to not wait.
    pub(super) fn signal(&self, signal: Signal) {
        if let Some(process) = &self.process {
            let _ = kill(process.pid, signal); // it is our child and not reaped, so it is still it
        }
    }

    /// Starts no other.
    pub(super) fn retire(&mut self) {
        self.start_at = None;
    }

    /// It ended. `Err` when there is no point in starting it once more.
    pub(super) fn died(&mut self, how: &str, restart: bool) -> Result<(), Error> {
        let Some(process) = self.process.take() else {
            return Ok(());
        };
        if !restart {
            return Ok(());
        }
        if process.since.elapsed() >= WELL {
            self.pause = FIRST_PAUSE;
        }
        self.deaths += 1;
        if !self.ready && self.deaths >= FUTILE {
            return Err(Error::NodeFails(self.deaths));
        }
        tracing::error!(
            how,
            pause_ms = self.pause.as_millis(),
            "The node process ended; services keep running, and it is started again."
        );
        self.start_at = Some(Instant::now() + self.pause);
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        Ok(())
    }

    /// What it asks. A node that sends what cannot be read is ended, and with it the socket.
    pub(super) fn receive(&mut self) -> Vec<Request> {
        let mut requests = Vec::new();
        let Some(process) = &mut self.process else {
            return requests;
        };
        let mut chunk = vec![0; 64 << 10];
        loop {
            match process.stream.read(&mut chunk) {
                Ok(0) => break, // it is ending
                Ok(read) => process.decoder.push(chunk.get(..read).unwrap_or_default()),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(_) => break,
            }
            loop {
                match process.decoder.next() {
                    Ok(Some(request)) => requests.push(request),
                    Ok(None) => break,
                    Err(error) => {
                        tracing::error!(error = %error.chain(), "The node does not make sense.");
                        let _ = kill(process.pid, Signal::SIGKILL);
                        return Vec::new();
                    }
                }
            }
        }
        requests
    }

    /// Queues a frame, and sends what the socket takes now.
    pub(super) fn send(&mut self, frame: &[u8]) {
        let Some(process) = &mut self.process else {
            return;
        };
        process.unsent.extend_from_slice(frame);
        if process.unsent.len() > MAX_UNREAD {
            tracing::error!("The node does not read; it is started again.");
            let _ = kill(process.pid, Signal::SIGKILL);
        }
        self.flush();
    }

    pub(super) fn flush(&mut self) {
        let Some(process) = &mut self.process else {
            return;
        };
        while !process.unsent.is_empty() {
            match process.stream.write(&process.unsent) {
                Ok(written) => drop(process.unsent.drain(..written)),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(_) => process.unsent.clear(), // it is ending
            }
        }
    }
}

impl Process {
    /// Small enough for the socket's buffer, so this does not wait for the node.
    fn greet(&self, greeting: &Greeting, doors: &[Door]) -> Result<(), Error> {
        let frame = encode(greeting)?;
        let fds: Vec<RawFd> = doors
            .iter()
            .flat_map(|door| door.sockets.iter().map(|fd| fd.as_raw_fd()))
            .collect();
        let send = || -> std::io::Result<()> {
            (&self.stream).write_all(&frame)?;
            for some in fds.chunks(FDS_PER_MESSAGE) {
                let rights = [ControlMessage::ScmRights(some)];
                let byte = [IoSlice::new(b"+")];
                let flags = MsgFlags::empty();
                sendmsg::<()>(self.stream.as_raw_fd(), &byte, &rights, flags, None)?;
            }
            self.stream.set_nonblocking(true)
        };
        send().map_err(Error::os("greet the node"))
    }
}

/// What the node is told first.
pub(super) fn greeting(settings: &Settings, missing: &[String], doors: &[Door]) -> Greeting {
    Greeting {
        settings: settings.clone(),
        missing: missing.to_vec(),
        listeners: doors
            .iter()
            .map(|door| (door.name.to_owned(), door.sockets.len()))
            .collect(),
        credentials: Credentials::of_systemd(),
    }
}

fn spawn(user: Option<&NodeUser>, socket: BorrowedFd<'_>) -> Result<Pid, Error> {
    let parent = nix::unistd::getpid();
    match sys::fork().map_err(Error::os("start the node process"))? {
        ForkResult::Parent { child } => Ok(child),
        ForkResult::Child => {
            let error = become_node(user, socket, parent);
            tracing::error!(%error, "Cannot start the node process.");
            sys::exit_now(127)
        }
    }
}

/// In the child. Returns only if it cannot.
fn become_node(user: Option<&NodeUser>, socket: BorrowedFd<'_>, parent: Pid) -> nix::Error {
    let steps = || -> nix::Result<()> {
        sys::reset_signals();
        setsid()?; // an interrupt typed at the terminal is the supervisor's to handle
        if let Some(user) = user {
            let (uid, gid) = (Uid::from_raw(user.owner.uid), Gid::from_raw(user.owner.gid));
            let name = CString::new(user.name.as_str()).unwrap_or_default();
            initgroups(&name, gid)?;
            setresgid(gid, gid, gid)?;
            setresuid(uid, uid, uid)?;
        }
        // After the change of user, which would undo it. Without a supervisor nobody holds the doors.
        prctl::set_pdeathsig(Signal::SIGKILL)?;
        if getppid() != parent {
            sys::exit_now(1);
        }
        prctl::set_no_new_privs()?;
        sys::place_at(socket, NODE_FD)?;
        sys::close_on_exec_from(NODE_FD + 1);
        let env: Vec<CString> = std::env::vars_os()
            .filter(|(name, _)| name != notify::VARIABLE)
            .filter_map(|(mut name, value)| {
                name.push("=");
                name.push(value);
                CString::new(name.into_vec()).ok()
            })
            .collect();
        let Err(error) = execve(c"/proc/self/exe", &[c"micro", c"__node"], &env);
        Err(error)
    };
    steps().err().unwrap_or(nix::errno::Errno::EINVAL)
}
