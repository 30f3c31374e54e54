//! The only `unsafe` code of Micro: system calls that have no safe wrapper, one function each.
#![expect(unsafe_code, reason = "raw system calls and descriptors by number")]

use std::{
    io::IoSliceMut,
    os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd},
};

use nix::{
    errno::Errno,
    fcntl::{FcntlArg, FdFlag, fcntl},
    sys::socket::{ControlMessageOwned, MsgFlags, recvmsg},
};

/// Takes over a descriptor that was open when this program started. `None` if it was not.
/// The caller sees to it that nobody takes the same one twice.
pub(crate) fn take_inherited(fd: RawFd) -> Option<OwnedFd> {
    // SAFETY: borrowed only for this call, which fails cleanly when the number is not open.
    let borrowed = unsafe { BorrowedFd::borrow_raw(fd) };
    fcntl(borrowed, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).ok()?;
    // SAFETY: it is open (see above), and by this function's contract nobody else owns it.
    Some(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Reads one byte and the descriptors that came with it; none at the end of the stream.
pub(crate) fn receive_fds(stream: BorrowedFd<'_>, most: usize) -> nix::Result<Vec<OwnedFd>> {
    let mut byte = [0];
    let mut iov = [IoSliceMut::new(&mut byte)];
    // SAFETY: CMSG_SPACE only computes a size.
    let space = unsafe { libc::CMSG_SPACE(u32::try_from(most * size_of::<RawFd>()).unwrap_or(0)) };
    let mut control = Vec::with_capacity(space as usize);
    let message = loop {
        let flags = MsgFlags::MSG_CMSG_CLOEXEC;
        match recvmsg::<()>(stream.as_raw_fd(), &mut iov, Some(&mut control), flags) {
            Err(Errno::EINTR) => {}
            other => break other?,
        }
    };
    let mut fds = Vec::new();
    for part in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(raw) = part {
            // SAFETY: the kernel has just made these descriptors for us.
            fds.extend(
                raw.into_iter()
                    .map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }),
            );
        }
    }
    Ok(fds)
}
