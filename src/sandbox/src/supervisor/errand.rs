//! Work that takes long and must not hold the supervisor up, done in a fork of it: walking trees,
//! asking toolchains for their version. The answer comes back through a pipe.

use std::{
    fs::File,
    io::{Read as _, Write as _},
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
};

use nix::{
    fcntl::{FcntlArg, OFlag, fcntl},
    sys::{prctl, signal::Signal},
    unistd::{ForkResult, pipe2},
};
use serde::{Serialize, de::DeserializeOwned};

use crate::{error::Error, sys};

/// A child at work.
#[derive(Debug)]
pub(super) struct Errand {
    pipe: File,
    answer: Vec<u8>,
}

impl Errand {
    /// Does `work` elsewhere. Errors travel as text.
    pub(super) fn send<T: Serialize>(
        work: impl FnOnce() -> Result<T, String>,
    ) -> Result<Self, Error> {
        let os = || Error::os("start a helper process");
        let (pipe, end) = pipe2(OFlag::O_CLOEXEC).map_err(os())?;
        fcntl(&pipe, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).map_err(os())?;
        match sys::fork().map_err(os())? {
            ForkResult::Parent { .. } => Ok(Self {
                pipe: pipe.into(),
                answer: Vec::new(),
            }),
            ForkResult::Child => {
                sys::reset_signals();
                let _ = prctl::set_pdeathsig(Signal::SIGKILL);
                finish(end, work())
            }
        }
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.pipe.as_fd()
    }

    /// Call when readable. `None` while it still works.
    pub(super) fn read<T: DeserializeOwned>(&mut self) -> Option<Result<T, Error>> {
        match self.pipe.read_to_end(&mut self.answer) {
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return None,
            Err(error) => return Some(Err(Error::os("hear from a helper process")(error))),
            Ok(_) => {}
        }
        let answer: Result<Result<T, String>, _> = serde_json::from_slice(&self.answer);
        Some(match answer {
            Ok(outcome) => outcome.map_err(Error::Errand),
            Err(_) => Err(Error::Errand("a helper process ended early".into())),
        })
    }
}

fn finish<T: Serialize>(end: OwnedFd, outcome: Result<T, String>) -> ! {
    let answer = serde_json::to_vec(&outcome).unwrap_or_default();
    let done = File::from(end).write_all(&answer).is_ok();
    sys::exit_now(i32::from(!done))
}
