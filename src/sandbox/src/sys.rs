//! The only `unsafe` code of Micro: system calls that have no safe wrapper, one function each.
#![expect(unsafe_code, reason = "raw system calls and descriptors by number")]

use std::{
    ffi::CStr,
    io::{self, IoSliceMut},
    os::fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd},
};

use nix::{
    errno::Errno,
    fcntl::{FcntlArg, FdFlag, fcntl},
    sys::{
        signal::Signal,
        socket::{ControlMessageOwned, MsgFlags, recvmsg},
    },
    unistd::{ForkResult, Pid},
};
use seccompiler::sock_filter;

/// `MOUNT_ATTR_*` of `mount_setattr(2)`.
pub(crate) const ATTR_READ_ONLY: u64 = 0x1;
/// No set-uid programs.
pub(crate) const ATTR_NO_SUID: u64 = 0x2;
/// No device nodes.
pub(crate) const ATTR_NO_DEVICES: u64 = 0x4;
/// No programs.
pub(crate) const ATTR_NO_EXEC: u64 = 0x8;

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
    let mut control = vec![0; space as usize];
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

/// Makes `fd` available under the number `number` to a program that is about to be executed.
pub(crate) fn place_at(fd: BorrowedFd<'_>, number: RawFd) -> nix::Result<()> {
    if fd.as_raw_fd() == number {
        return fcntl(fd, FcntlArg::F_SETFD(FdFlag::empty())).map(drop);
    }
    // SAFETY: called in a forked child right before exec, where no owner of `number` runs any more.
    Errno::result(unsafe { libc::dup2(fd.as_raw_fd(), number) }).map(drop)
}

/// Marks every descriptor from `first` on to be closed when a program is executed.
pub(crate) fn close_on_exec_from(first: RawFd) {
    let first = u32::try_from(first).unwrap_or(0);
    // SAFETY: touches descriptor flags only.
    let done = unsafe {
        libc::syscall(
            libc::SYS_close_range,
            first,
            u32::MAX,
            libc::CLOSE_RANGE_CLOEXEC,
        )
    };
    if done == 0 {
        return;
    }
    // Kernels before 5.11. Our own descriptors are close-on-exec already, so this is for inherited ones.
    for fd in first..4096 {
        // SAFETY: F_SETFD on a number that is not open fails cleanly.
        unsafe { libc::fcntl(RawFd::try_from(fd).unwrap_or(0), libc::F_SETFD, 1) };
    }
}

/// Splits this process in two. Only for processes with a single thread: the supervisor checks that
/// when it starts, and init never makes one. There any code may run in the child.
pub(crate) fn fork() -> nix::Result<ForkResult> {
    // SAFETY: single-threaded (see above), so no lock is held by a thread that does not exist after.
    unsafe { nix::unistd::fork() }
}

/// Ends this process without running anything of the parent's that it inherited by `fork`.
pub(crate) fn exit_now(code: i32) -> ! {
    // SAFETY: `_exit` only ends the process.
    unsafe { libc::_exit(code) }
}

/// Gives every signal its default meaning and unblocks all of them, as a new program expects.
pub(crate) fn reset_signals() {
    for number in 1..=64 {
        // SAFETY: SIG_DFL is valid for every signal; those that cannot be set are refused cleanly.
        unsafe { libc::signal(number, libc::SIG_DFL) };
    }
    let none = nix::sys::signal::SigSet::empty();
    // Setting a valid mask does not fail.
    let _ =
        nix::sys::signal::sigprocmask(nix::sys::signal::SigmaskHow::SIG_SETMASK, Some(&none), None);
}

/// A descriptor that becomes readable when `pid` has ended and nothing of its pid namespace is left.
pub(crate) fn pidfd_open(pid: Pid) -> nix::Result<OwnedFd> {
    // SAFETY: takes two numbers.
    let fd = Errno::result(unsafe { libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), 0) })?;
    // SAFETY: the kernel has just made it; it is close-on-exec by definition.
    Ok(unsafe { OwnedFd::from_raw_fd(RawFd::try_from(fd).unwrap_or(-1)) })
}

/// Signals exactly the process behind the descriptor, never one that got its number later.
pub(crate) fn pidfd_signal(pidfd: BorrowedFd<'_>, signal: Signal) -> nix::Result<()> {
    // SAFETY: a null siginfo stands for the same one kill(2) makes.
    let result = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_raw_fd(),
            signal as i32,
            std::ptr::null::<libc::siginfo_t>(),
            0,
        )
    };
    Errno::result(result).map(drop)
}

/// Sets `MOUNT_ATTR_*` flags on a mount and on all below it. `ENOSYS` before kernel 5.12.
pub(crate) fn mount_setattr(path: &CStr, set: u64) -> nix::Result<()> {
    #[repr(C)]
    struct Attributes {
        set: u64,
        clear: u64,
        propagation: u64,
        user_namespace: u64,
    }
    let attributes = Attributes {
        set,
        clear: 0,
        propagation: 0,
        user_namespace: 0,
    };
    const RECURSIVE: i32 = 0x8000;
    // SAFETY: path and struct live for the call; the size passed is the struct's.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            libc::AT_FDCWD,
            path.as_ptr(),
            RECURSIVE,
            &raw const attributes,
            size_of::<Attributes>(),
        )
    };
    Errno::result(result).map(drop)
}

/// Leaves the session keyring of whoever started the server.
pub(crate) fn join_new_session_keyring() -> nix::Result<()> {
    const KEYCTL_JOIN_SESSION_KEYRING: i32 = 1;
    // SAFETY: a null name asks for an anonymous keyring.
    let result = unsafe {
        libc::syscall(
            libc::SYS_keyctl,
            KEYCTL_JOIN_SESSION_KEYRING,
            std::ptr::null::<u8>(),
        )
    };
    Errno::result(result).map(drop)
}

/// Empties the capability bounding set, capabilities newer than this program included.
pub(crate) fn drop_bounding_set() -> nix::Result<()> {
    for number in 0..64 {
        // SAFETY: takes numbers only.
        match Errno::result(unsafe { libc::prctl(libc::PR_CAPBSET_DROP, number, 0, 0, 0) }) {
            Ok(_) => {}
            Err(Errno::EINVAL) => return Ok(()), // past the last one this kernel knows
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Root is nobody special from here on, for good: no capabilities by uid 0 or by set-uid programs.
pub(crate) fn lock_securebits() -> nix::Result<()> {
    // NOROOT, NO_SETUID_FIXUP, both locked; KEEP_CAPS locked off.
    const LOCKED: i32 = 0x2f;
    // SAFETY: takes numbers only.
    Errno::result(unsafe { libc::prctl(libc::PR_SET_SECUREBITS, LOCKED, 0, 0, 0) }).map(drop)
}

/// Whether this kernel filters system calls.
pub(crate) fn seccomp_available() -> bool {
    const GET_ACTION_AVAIL: u32 = 2;
    let action: u32 = libc::SECCOMP_RET_KILL_PROCESS;
    // SAFETY: reads the one number it is given.
    unsafe { libc::syscall(libc::SYS_seccomp, GET_ACTION_AVAIL, 0, &raw const action) == 0 }
}

/// Adds a filter to this process and all it will start.
pub(crate) fn seccomp_install(program: &[sock_filter]) -> io::Result<()> {
    #[repr(C)]
    struct Program {
        length: u16,
        filter: *const sock_filter,
    }
    const SET_MODE_FILTER: u32 = 1;
    // Without it kernels before 5.16 slow every filtered process down (speculative store bypass).
    const SPEC_ALLOW: u32 = 4;
    let program = Program {
        length: u16::try_from(program.len()).map_err(|_| Errno::E2BIG)?,
        filter: program.as_ptr(),
    };
    // SAFETY: `program` describes a slice that lives for the call; the kernel copies and checks it.
    let result = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            SET_MODE_FILTER,
            SPEC_ALLOW,
            &raw const program,
        )
    };
    Ok(Errno::result(result).map(drop)?)
}

/// The path under which a descriptor can be mounted or opened again.
pub(crate) fn fd_path(fd: impl AsFd) -> String {
    format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd())
}

/// Gives back what only the start needed: freed memory that the allocator keeps, and the pages of
/// code. The kernel maps code again, from its page cache, as it is executed; what stays mapped is
/// what an idle process uses. Called when a process has nothing to do, for it costs a few
/// milliseconds.
pub fn settle() {
    // SAFETY: takes no pointer and touches nothing but the allocator's own, locked state.
    unsafe { libmimalloc_sys::mi_collect(true) };
    // SAFETY: the callback has the required signature and does not keep what it is given.
    unsafe { libc::dl_iterate_phdr(Some(unmap_code), std::ptr::null_mut()) };
}

/// For [`settle`]: gets the program itself first, and ends the iteration there.
unsafe extern "C" fn unmap_code(
    info: *mut libc::dl_phdr_info,
    _: libc::size_t,
    _: *mut libc::c_void,
) -> libc::c_int {
    const PAGE: usize = 4096;
    // SAFETY: the linker hands over a valid pointer for the length of this call.
    let info = unsafe { &*info };
    // SAFETY: `dlpi_phdr` points to that many headers, which are part of the loaded program.
    let headers = unsafe { std::slice::from_raw_parts(info.dlpi_phdr, info.dlpi_phnum.into()) };
    for header in headers {
        let code = header.p_type == libc::PT_LOAD && header.p_flags == libc::PF_R | libc::PF_X;
        if code {
            let begin = (info.dlpi_addr + header.p_vaddr) as usize / PAGE * PAGE;
            let end = (info.dlpi_addr + header.p_vaddr + header.p_memsz) as usize;
            // SAFETY: a private mapping of a file that was never writable holds what the file
            // holds, before and after; whoever executes in it meanwhile waits for the page.
            // A refusal leaves the pages mapped.
            unsafe {
                libc::madvise(
                    std::ptr::with_exposed_provenance_mut(begin),
                    end - begin,
                    libc::MADV_DONTNEED,
                );
            }
        }
    }
    1
}
