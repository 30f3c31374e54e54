//! What runs in the sandbox: tries things and prints `name=outcome` lines.
#![expect(
    unsafe_code,
    clippy::undocumented_unsafe_blocks,
    reason = "an attacker is not safe; each call is there to be refused"
)]

use std::{
    fs,
    io::Error,
    process::ExitCode,
    time::{Duration, Instant},
};

pub(crate) fn main(args: &[String]) -> ExitCode {
    match args[0].as_str() {
        "view" => view(),
        "refused" => refused(),
        "memory" => memory(),
        "bomb" => bomb(),
        "spin" => spin(),
        other => panic!("{other}"),
    }
    ExitCode::SUCCESS
}

fn say(name: &str, outcome: impl std::fmt::Display) {
    println!("{name}={outcome}");
}

fn errno(name: &str, result: Result<impl Sized, Error>) {
    match result {
        Ok(_) => say(name, "done"),
        Err(error) => say(name, error.raw_os_error().unwrap_or(-1)),
    }
}

fn view() {
    for path in [
        "/etc/shadow",
        "/root",
        "/home",
        "/work",
        "/sys",
        "/boot",
        "/proc/1/root/etc",
    ] {
        errno(&format!("read {path}"), fs::metadata(path));
    }
    errno("read /proc/1/environ", fs::read("/proc/1/environ"));
    errno("read /proc/kcore", fs::read("/proc/kcore"));
    for path in [
        "/x",
        "/app/x",
        "/usr/x",
        "/etc/x",
        "/dev/x",
        "/proc/sys/kernel/core_pattern",
    ] {
        errno(&format!("write {path}"), fs::write(path, "x"));
    }
    for path in ["/data/x", "/tmp/x", "/dev/shm/x", "/dev/null"] {
        errno(&format!("write {path}"), fs::write(path, "x"));
    }
    let status = fs::read_to_string("/proc/self/status").unwrap();
    for line in status.lines() {
        let (name, value) = line.split_once(':').unwrap();
        if name.starts_with("Cap")
            || [
                "Uid",
                "Gid",
                "Groups",
                "NoNewPrivs",
                "Seccomp",
                "Pid",
                "PPid",
            ]
            .contains(&name)
        {
            let value: Vec<&str> = value.split_whitespace().collect();
            say(name, value.join(" "));
        }
    }
    let mut processes: Vec<u32> = fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok())
        .collect();
    processes.sort_unstable();
    say("processes", format!("{processes:?}"));
    let mut env: Vec<String> = std::env::vars().map(|(n, v)| format!("{n}:{v}")).collect();
    env.sort();
    say("env", env.join(","));
    let fds = fs::read_dir("/proc/self/fd").unwrap().count();
    say("fds", fds - 1); // one is the listing's own
    say(
        "host",
        fs::read_to_string("/proc/sys/kernel/hostname")
            .unwrap()
            .trim(),
    );
    say("cwd", std::env::current_dir().unwrap().display());
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let loose = mounts.lines().filter(|line| {
        let point = line.split(' ').nth(4).unwrap();
        let options = line.split(' ').nth(5).unwrap();
        let kept = ["/data", "/tmp", "/dev", "/proc"];
        !(options.contains("ro,") || kept.iter().any(|k| point.starts_with(k)))
            || !options.contains("nosuid")
    });
    say("loose mounts", loose.collect::<Vec<_>>().join(";"));
    for (name, limit) in [("nofile", libc::RLIMIT_NOFILE), ("core", libc::RLIMIT_CORE)] {
        let mut value = libc::rlimit {
            rlim_cur: 0,
            rlim_max: 0,
        };
        unsafe { libc::getrlimit(limit, &raw mut value) };
        say(name, format!("{} {}", value.rlim_cur, value.rlim_max));
    }
    say(
        "oom",
        fs::read_to_string("/proc/self/oom_score_adj")
            .unwrap()
            .trim(),
    );
    say("mask", {
        let line = status.lines().find(|l| l.starts_with("SigBlk")).unwrap();
        line.split_whitespace().last().unwrap().to_owned()
    });
    say("ignored", {
        // This program's own runtime ignores SIGPIPE; a shell tells what was inherited.
        let out = std::process::Command::new("/bin/sh")
            .args(["-c", "grep SigIgn /proc/self/status"])
            .output()
            .unwrap();
        String::from_utf8(out.stdout)
            .unwrap()
            .split_whitespace()
            .last()
            .unwrap()
            .to_owned()
    });
}

fn call(name: &str, number: libc::c_long, args: [u64; 5]) {
    let [a, b, c, d, e] = args;
    let result = unsafe { libc::syscall(number, a, b, c, d, e) };
    errno(
        name,
        if result < 0 {
            Err(Error::last_os_error())
        } else {
            Ok(())
        },
    );
}

fn refused() {
    let c = |name, number| call(name, number, [0; 5]);
    let new = |flag: i32| [flag as u64 | 17, 0, 0, 0, 0];
    call(
        "unshare user",
        libc::SYS_unshare,
        [libc::CLONE_NEWUSER as u64, 0, 0, 0, 0],
    );
    call("clone user", libc::SYS_clone, new(libc::CLONE_NEWUSER));
    call("clone net", libc::SYS_clone, new(libc::CLONE_NEWNET));
    call("clone mount", libc::SYS_clone, new(libc::CLONE_NEWNS));
    c("clone3", libc::SYS_clone3);
    c("setns", libc::SYS_setns);
    c("mount", libc::SYS_mount);
    c("umount", libc::SYS_umount2);
    c("open_tree", libc::SYS_open_tree);
    c("chroot", libc::SYS_chroot);
    c("pivot_root", libc::SYS_pivot_root);
    c("ptrace", libc::SYS_ptrace);
    c("process_vm_readv", libc::SYS_process_vm_readv);
    c("bpf", libc::SYS_bpf);
    c("perf", libc::SYS_perf_event_open);
    c("keyctl", libc::SYS_keyctl);
    c("add_key", libc::SYS_add_key);
    c("io_uring", libc::SYS_io_uring_setup);
    c("userfaultfd", libc::SYS_userfaultfd);
    c("open_by_handle", libc::SYS_open_by_handle_at);
    c("init_module", libc::SYS_init_module);
    c("kexec", libc::SYS_kexec_load);
    c("reboot", libc::SYS_reboot);
    c("syslog", libc::SYS_syslog);
    c("adjtimex", libc::SYS_adjtimex);
    c("too new", 900);
    call("setuid 0", libc::SYS_setuid, [0; 5]);
    call("setgroups", libc::SYS_setgroups, [0; 5]);
    call(
        "personality",
        libc::SYS_personality,
        [0x0040000, 0, 0, 0, 0],
    );
    call(
        "personality query",
        libc::SYS_personality,
        [0xffff_ffff, 0, 0, 0, 0],
    );
    call("tiocsti", libc::SYS_ioctl, [0, libc::TIOCSTI, 0, 0, 0]);
    for (name, family, kind, protocol) in [
        ("unix", libc::AF_UNIX, libc::SOCK_STREAM, 0),
        ("inet", libc::AF_INET, libc::SOCK_STREAM, 0),
        ("inet6", libc::AF_INET6, libc::SOCK_DGRAM, 0),
        ("route", libc::AF_NETLINK, libc::SOCK_RAW, 0),
        ("raw", libc::AF_INET, libc::SOCK_RAW, 1),
        ("packet", libc::AF_PACKET, libc::SOCK_RAW, 0),
        ("alg", libc::AF_ALG, libc::SOCK_SEQPACKET, 0),
        ("vsock", libc::AF_VSOCK, libc::SOCK_STREAM, 0),
        ("sock_diag", libc::AF_NETLINK, libc::SOCK_RAW, 4),
        ("netfilter", libc::AF_NETLINK, libc::SOCK_RAW, 12),
    ] {
        let args = [family as u64, kind as u64, protocol, 0, 0];
        call(&format!("socket {name}"), libc::SYS_socket, args);
    }
    #[cfg(target_arch = "x86_64")]
    {
        call("x32", 0x4000_0000 | libc::SYS_getpid, [0; 5]);
        let child = unsafe { libc::fork() };
        if child == 0 {
            // getpid by the 32-bit gate.
            unsafe {
                std::arch::asm!("int 0x80", inout("eax") 20 => _);
                libc::_exit(0);
            }
        }
        let mut status = 0;
        unsafe { libc::waitpid(child, &raw mut status, 0) };
        say("i386", format!("signal {}", libc::WTERMSIG(status)));
    }
    // Threads and processes still work.
    errno(
        "thread",
        std::thread::spawn(|| ())
            .join()
            .map_err(|_| Error::other("")),
    );
    errno("process", std::process::Command::new("/bin/true").status());
}

fn memory() {
    let mut kept: Vec<Vec<u8>> = Vec::new();
    for _ in 0..100 {
        kept.push(vec![1; 4 << 20]);
        println!("{} MiB", kept.len() * 4);
    }
    println!("survived");
}

fn spin() {
    let end = Instant::now() + Duration::from_secs(1);
    while Instant::now() < end {}
    let used = nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_SELF).unwrap();
    let (user, system) = (used.user_time(), used.system_time());
    say(
        "ms",
        (user.tv_sec() + system.tv_sec()) * 1000 + (user.tv_usec() + system.tv_usec()) / 1000,
    );
}

/// Forks until it cannot, the children in sessions of their own, deaf to SIGTERM.
fn bomb() {
    let mut children = 0;
    let end = Instant::now() + Duration::from_secs(10);
    while Instant::now() < end {
        match unsafe { libc::fork() } {
            -1 => break,
            0 => unsafe {
                libc::setsid();
                libc::signal(libc::SIGTERM, libc::SIG_IGN);
                loop {
                    libc::fork();
                    libc::usleep(1000);
                }
            },
            _ => children += 1,
        }
    }
    say("children", children);
    say("full", Error::last_os_error().raw_os_error().unwrap());
    unsafe { libc::signal(libc::SIGTERM, libc::SIG_IGN) };
    loop {
        std::thread::sleep(Duration::from_secs(1));
    }
}
