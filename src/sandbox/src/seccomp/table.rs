//! The reviewed list: which call, what it is answered, for whom, and why.
//!
//! Review a new kernel's calls before raising [`NEWEST_REVIEWED`]; until then they do not exist inside.

use libc::c_long;

/// `file_setattr`, Linux 6.17. Numbers from 424 on are the same on every architecture.
pub(super) const NEWEST_REVIEWED: u32 = 469;

/// What a refused call is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Answer {
    /// `EPERM`: not allowed.
    Denied,
    /// `ENOSYS`: does not exist; programs fall back to the older way.
    Missing,
    /// `EAFNOSUPPORT`: no such kind of socket.
    NoSuchFamily,
}

impl Answer {
    pub(super) fn errno(self) -> i32 {
        match self {
            Self::Denied => libc::EPERM,
            Self::Missing => libc::ENOSYS,
            Self::NoSuchFamily => libc::EAFNOSUPPORT,
        }
    }
}

/// A condition on the lower 32 bits of an argument, counted from 0.
#[derive(Debug, Clone, Copy)]
pub(super) enum Test {
    Is(u8, u64),
    IsNot(u8, u64),
    /// All these bits are set.
    Has(u8, u64),
}

/// One refusal. Several rows of one call: any of them refuses.
#[derive(Debug, Clone, Copy)]
pub(super) struct Row {
    pub(super) call: c_long,
    pub(super) answer: Answer,
    /// All must hold; `None` refuses always.
    pub(super) when: Option<&'static [Test]>,
    /// Lifted for build jobs.
    pub(super) builds_may: bool,
    #[cfg_attr(not(test), expect(dead_code, reason = "for the reviewer, and a test"))]
    pub(super) why: &'static str,
}

const fn deny(call: c_long, why: &'static str) -> Row {
    Row {
        call,
        answer: Answer::Denied,
        when: None,
        builds_may: false,
        why,
    }
}

const fn deny_if(call: c_long, when: &'static [Test], why: &'static str) -> Row {
    Row {
        when: Some(when),
        ..deny(call, why)
    }
}

const fn missing(call: c_long, why: &'static str) -> Row {
    Row {
        answer: Answer::Missing,
        ..deny(call, why)
    }
}

const MOUNTS: &str = "changes what is mounted, the wall of the sandbox";
const NAMESPACE: &str =
    "new namespaces bring capabilities and a large part of the kernel with them";
const OTHERS: &str = "reads or steers other processes";
const KERNEL: &str = "changes the kernel itself";
const MACHINE: &str = "changes the whole machine";
const CLOCK: &str = "the clock belongs to everyone";
const KEYS: &str = "kernel keys are shared between processes of one user and were often broken";
const HANDLES: &str = "opens files by number, past the mounts";
const FAMILY: &str =
    "only local, internet and routing sockets: the others have a long record of holes";
const NUMA: &str = "moves memory of other processes";

const AF_UNIX: u64 = 1;
const AF_INET: u64 = 2;
const AF_INET6: u64 = 10;
const AF_NETLINK: u64 = 16;
const NETLINK_ROUTE: u64 = 0;

/// `open_tree_attr`, too new for the table of names.
const SYS_OPEN_TREE_ATTR: c_long = 467;

const ROWS: &[Row] = &[
    // mounts and roots
    deny(libc::SYS_mount, MOUNTS),
    deny(libc::SYS_umount2, MOUNTS),
    deny(libc::SYS_pivot_root, MOUNTS),
    deny(libc::SYS_chroot, MOUNTS),
    deny(libc::SYS_open_tree, MOUNTS),
    deny(SYS_OPEN_TREE_ATTR, MOUNTS),
    deny(libc::SYS_move_mount, MOUNTS),
    deny(libc::SYS_fsopen, MOUNTS),
    deny(libc::SYS_fsconfig, MOUNTS),
    deny(libc::SYS_fsmount, MOUNTS),
    deny(libc::SYS_fspick, MOUNTS),
    deny(libc::SYS_mount_setattr, MOUNTS),
    deny(libc::SYS_quotactl, MACHINE),
    deny(libc::SYS_quotactl_fd, MACHINE),
    // namespaces
    deny(libc::SYS_unshare, NAMESPACE),
    deny(libc::SYS_setns, NAMESPACE),
    missing(
        libc::SYS_clone3,
        "its flags cannot be seen by a filter; the C library falls back to clone",
    ),
    deny_if(
        libc::SYS_clone,
        &[Test::Has(0, libc::CLONE_NEWNS as u64)],
        NAMESPACE,
    ),
    deny_if(
        libc::SYS_clone,
        &[Test::Has(0, libc::CLONE_NEWCGROUP as u64)],
        NAMESPACE,
    ),
    deny_if(
        libc::SYS_clone,
        &[Test::Has(0, libc::CLONE_NEWUTS as u64)],
        NAMESPACE,
    ),
    deny_if(
        libc::SYS_clone,
        &[Test::Has(0, libc::CLONE_NEWIPC as u64)],
        NAMESPACE,
    ),
    deny_if(
        libc::SYS_clone,
        &[Test::Has(0, libc::CLONE_NEWUSER as u64)],
        NAMESPACE,
    ),
    deny_if(
        libc::SYS_clone,
        &[Test::Has(0, libc::CLONE_NEWPID as u64)],
        NAMESPACE,
    ),
    deny_if(
        libc::SYS_clone,
        &[Test::Has(0, libc::CLONE_NEWNET as u64)],
        NAMESPACE,
    ),
    // other processes
    deny(libc::SYS_ptrace, OTHERS),
    deny(libc::SYS_process_vm_readv, OTHERS),
    deny(libc::SYS_process_vm_writev, OTHERS),
    deny(libc::SYS_pidfd_getfd, OTHERS),
    deny(libc::SYS_kcmp, OTHERS),
    deny(libc::SYS_process_madvise, OTHERS),
    deny(libc::SYS_move_pages, NUMA),
    deny(libc::SYS_migrate_pages, NUMA),
    deny(libc::SYS_lookup_dcookie, OTHERS),
    // the kernel
    deny(libc::SYS_bpf, KERNEL),
    deny(
        libc::SYS_perf_event_open,
        "reads what other processes and the kernel do",
    ),
    deny(libc::SYS_init_module, KERNEL),
    deny(libc::SYS_finit_module, KERNEL),
    deny(libc::SYS_delete_module, KERNEL),
    deny(libc::SYS_kexec_load, KERNEL),
    deny(libc::SYS_kexec_file_load, KERNEL),
    deny(libc::SYS_syslog, "the kernel's log belongs to the operator"),
    deny(
        libc::SYS_userfaultfd,
        "makes races in the kernel easy to win",
    ),
    deny(libc::SYS_fanotify_init, "watches whole file systems"),
    deny(libc::SYS_nfsservctl, KERNEL),
    missing(
        libc::SYS_io_uring_setup,
        "does what other calls do without passing this list",
    ),
    missing(
        libc::SYS_io_uring_enter,
        "does what other calls do without passing this list",
    ),
    missing(
        libc::SYS_io_uring_register,
        "does what other calls do without passing this list",
    ),
    missing(
        libc::SYS_memfd_secret,
        "memory that the operator cannot inspect",
    ),
    // the machine
    deny(libc::SYS_reboot, MACHINE),
    deny(libc::SYS_swapon, MACHINE),
    deny(libc::SYS_swapoff, MACHINE),
    deny(libc::SYS_acct, MACHINE),
    deny(libc::SYS_sethostname, MACHINE),
    deny(libc::SYS_setdomainname, MACHINE),
    deny(
        libc::SYS_vhangup,
        "ends the terminal session of somebody else",
    ),
    deny(libc::SYS_settimeofday, CLOCK),
    deny(libc::SYS_clock_settime, CLOCK),
    deny(libc::SYS_adjtimex, CLOCK),
    deny(libc::SYS_clock_adjtime, CLOCK),
    // keys and handles
    deny(libc::SYS_add_key, KEYS),
    deny(libc::SYS_request_key, KEYS),
    deny(libc::SYS_keyctl, KEYS),
    deny(libc::SYS_open_by_handle_at, HANDLES),
    deny(libc::SYS_name_to_handle_at, HANDLES),
    // arguments
    deny_if(
        libc::SYS_ioctl,
        &[Test::Is(1, libc::TIOCSTI)],
        "types on somebody else's terminal",
    ),
    deny_if(
        libc::SYS_ioctl,
        &[Test::Is(1, libc::TIOCLINUX)],
        "types on somebody else's console",
    ),
    deny_if(
        libc::SYS_ioctl,
        &[Test::Is(1, libc::TIOCSETD)],
        "loads line disciplines, a part of the kernel with a long record of holes",
    ),
    Row {
        builds_may: true, // some tool chains switch address randomisation off to make the same output twice
        ..deny_if(
            libc::SYS_personality,
            &[
                Test::IsNot(0, 0),
                Test::IsNot(0, 0x0008),
                Test::IsNot(0, 0xffff_ffff),
            ],
            "other personalities switch protections off",
        )
    },
    Row {
        answer: Answer::NoSuchFamily,
        ..deny_if(
            libc::SYS_socket,
            &[
                Test::IsNot(0, AF_UNIX),
                Test::IsNot(0, AF_INET),
                Test::IsNot(0, AF_INET6),
                Test::IsNot(0, AF_NETLINK),
            ],
            FAMILY,
        )
    },
    Row {
        answer: Answer::NoSuchFamily,
        ..deny_if(
            libc::SYS_socket,
            &[Test::Is(0, AF_NETLINK), Test::IsNot(2, NETLINK_ROUTE)],
            "of the kernel's message buses only routing, which lists the machine's addresses",
        )
    },
];

#[cfg(target_arch = "x86_64")]
const ARCH_ROWS: &[Row] = &[
    deny(libc::SYS_iopl, "talks to the hardware"),
    deny(libc::SYS_ioperm, "talks to the hardware"),
    deny(
        libc::SYS_modify_ldt,
        "old segment tricks, a frequent source of holes",
    ),
    deny(libc::SYS__sysctl, KERNEL),
    deny(libc::SYS_uselib, "loads libraries the old way"),
    deny(libc::SYS_ustat, MACHINE),
];

#[cfg(not(target_arch = "x86_64"))]
const ARCH_ROWS: &[Row] = &[];

/// The whole table.
pub(super) fn rows() -> impl Iterator<Item = &'static Row> {
    ROWS.iter().chain(ARCH_ROWS)
}
