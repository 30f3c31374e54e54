//! What a service sees: a root of its own, put together from read-only pieces of the host.
//!
//! From [`root`] to [`enter`] the working directory is the new root, and every path without a leading
//! slash is inside it.

use std::{
    fs::{self, DirBuilder, OpenOptions},
    io::Write as _,
    os::{
        fd::AsFd as _,
        unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, symlink},
    },
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    mount::{MntFlags, MsFlags, mount, umount2},
    sys::statvfs::{FsFlags, statvfs},
    unistd::{chdir, pivot_root, sethostname},
};

use crate::{
    plan::{Failure, On as _, Origin, Plan, file},
    sys, tree,
};

const NONE: Option<&str> = None;
const READ_ONLY: u64 = sys::ATTR_READ_ONLY | sys::ATTR_NO_SUID | sys::ATTR_NO_DEVICES;
const WRITABLE: u64 = sys::ATTR_NO_SUID | sys::ATTR_NO_DEVICES;

/// Directories of the host's root that hold programs; links on a merged system.
const PROGRAMS: &[&str] = &["bin", "sbin", "lib", "lib32", "lib64", "libx32"];

/// Of `/etc` only what programs need to find libraries, certificates and names. The rest is generated.
pub(crate) const SHOWN: &[&str] = &[
    "alternatives",
    "ca-certificates",
    "crypto-policies",
    "gai.conf",
    "host.conf",
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "localtime",
    "mime.types",
    "pki",
    "protocols",
    "services",
    "ssl",
    "timezone",
];

/// Files of `/etc` that are written for each instance.
pub(crate) const GENERATED: &[&str] = &[
    "passwd",
    "group",
    "hosts",
    "hostname",
    "nsswitch.conf",
    "resolv.conf",
];

/// Parts of `/proc` that tell of the whole machine, or steer it.
const HIDDEN: &[&str] = &[
    "kallsyms",
    "kcore",
    "key-users",
    "keys",
    "kmsg",
    "sched_debug",
    "sysrq-trigger",
    "timer_list",
];
const FROZEN: &[&str] = &["bus", "fs", "irq", "sys"];

/// Nothing mounted here shows on the host, nor the other way round.
pub(super) fn privacy(_: &Plan) -> Result<(), Failure> {
    let flags = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(NONE, "/", NONE, flags, NONE).at("/")
}

pub(super) fn root(plan: &Plan) -> Result<(), Failure> {
    let root = plan.dir.join(file::ROOT);
    tmpfs(&root, "size=8m,nr_inodes=4k,mode=755", MsFlags::empty())?;
    chdir(&root).at(&root)?;
    for name in ["usr", "etc", "dev", "proc", "tmp", "run"] {
        directory(Path::new(name))?;
    }
    directory(Path::new("var"))?;
    symlink("/tmp", "var/tmp").at("/var/tmp")
}

pub(super) fn programs(_: &Plan) -> Result<(), Failure> {
    bind(Path::new("/usr"), Path::new("usr"), READ_ONLY)?;
    for name in PROGRAMS {
        let host = Path::new("/").join(name);
        match fs::symlink_metadata(&host) {
            Ok(meta) if meta.is_symlink() => {
                let to = fs::read_link(&host).at(&host)?;
                symlink(to, name).at(name)?;
            }
            Ok(meta) if meta.is_dir() => {
                directory(Path::new(name))?;
                bind(&host, Path::new(name), READ_ONLY)?;
            }
            _ => {}
        }
    }
    Ok(())
}

pub(super) fn etc(plan: &Plan) -> Result<(), Failure> {
    for name in SHOWN {
        let host = Path::new("/etc").join(name);
        // Links (localtime) are followed to what they show; a dangling one shows nothing.
        let Ok(meta) = fs::metadata(&host) else {
            continue;
        };
        let inside = Path::new("etc").join(name);
        if meta.is_dir() {
            directory(&inside)?;
        } else {
            write(&inside, b"", 0o644)?;
        }
        bind(&host, &inside, READ_ONLY | sys::ATTR_NO_EXEC)?;
    }
    let (uid, gid) = plan.owner.map_or_else(
        || {
            (
                nix::unistd::getuid().as_raw(),
                nix::unistd::getgid().as_raw(),
            )
        },
        |owner| (owner.uid, owner.gid),
    );
    let home = home(plan);
    let host = host_label(plan);
    let passwd = format!(
        "root:x:0:0:root:/:/usr/sbin/nologin\n\
         service:x:{uid}:{gid}:{}:{}:/usr/sbin/nologin\n\
         nobody:x:65534:65534:nobody:/:/usr/sbin/nologin\n",
        plan.spec.service,
        home.display()
    );
    let group = format!("root:x:0:\nservice:x:{gid}:\nnogroup:x:65534:\n");
    // The network is the host's, so its names are right inside too.
    let hosts = fs::read_to_string("/etc/hosts")
        .unwrap_or_else(|_| "127.0.0.1 localhost\n::1 localhost\n".into());
    let hosts = format!("{}\n127.0.0.1 {host}\n", hosts.trim_end());
    let resolv = fs::read("/etc/resolv.conf").unwrap_or_default();
    let nsswitch =
        "passwd: files\ngroup: files\nhosts: files dns\nservices: files\nprotocols: files\n";
    for (name, content) in [
        ("passwd", passwd.as_bytes()),
        ("group", group.as_bytes()),
        ("hosts", hosts.as_bytes()),
        ("hostname", format!("{host}\n").as_bytes()),
        ("nsswitch.conf", nsswitch.as_bytes()),
        ("resolv.conf", &resolv),
    ] {
        write(&Path::new("etc").join(name), content, 0o644)?;
    }
    Ok(())
}

fn home(plan: &Plan) -> PathBuf {
    let data = plan.shown.iter().find(|shown| shown.writable);
    data.map_or_else(|| "/tmp".into(), |shown| shown.target.clone())
}

pub(super) fn devices(_: &Plan) -> Result<(), Failure> {
    for name in ["null", "zero", "full", "random", "urandom", "tty"] {
        let (host, inside) = (Path::new("/dev").join(name), Path::new("dev").join(name));
        if !host.exists() {
            continue;
        }
        write(&inside, b"", 0o666)?;
        mount(Some(&host), &inside, NONE, MsFlags::MS_BIND, NONE).at(&host)?;
        seal(&inside, sys::ATTR_NO_SUID | sys::ATTR_NO_EXEC)?;
    }
    for (name, to) in [
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
    ] {
        let inside = Path::new("dev").join(name);
        symlink(to, &inside).at(&inside)?;
    }
    directory(Path::new("dev/shm"))?;
    tmpfs(
        Path::new("dev/shm"),
        "size=16m,nr_inodes=1k,mode=1777",
        MsFlags::MS_NOEXEC,
    )
}

pub(super) fn scratch(plan: &Plan) -> Result<(), Failure> {
    let options = format!(
        "size={},nr_inodes={},mode=1777",
        plan.bounds.tmp_bytes, plan.bounds.tmp_files
    );
    tmpfs(Path::new("tmp"), &options, MsFlags::empty())
}

pub(super) fn given(plan: &Plan) -> Result<(), Failure> {
    for shown in &plan.shown {
        let inside = shown.target.strip_prefix("/").unwrap_or(&shown.target);
        if let Some(parent) = inside.parent() {
            directory(parent)?;
        }
        let attributes = if shown.writable { WRITABLE } else { READ_ONLY };
        match &shown.origin {
            Origin::Below(base, below) => {
                let dir = tree::open(base)
                    .and_then(|base| tree::open_below(&base, below))
                    .at(base.join(below))?;
                directory(inside)?;
                bind(Path::new(&sys::fd_path(dir.as_fd())), inside, attributes)?;
            }
            Origin::Host(path) => {
                let opened = tree::reach(path).at(path)?;
                let found = sys::fd_path(&opened);
                if fs::metadata(&found).at(path)?.is_dir() {
                    directory(inside)?;
                } else {
                    write(inside, b"", 0o644)?;
                }
                bind(Path::new(&found), inside, attributes)?;
            }
            Origin::Copy(path) => write(inside, &fs::read(path).at(path)?, 0o444)?,
        }
    }
    Ok(())
}

/// A `/proc` of its own pid namespace. Processes of other users, init among them, do not show in it.
pub(super) fn proc(_: &Plan) -> Result<(), Failure> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    let proc = Some("proc");
    match mount(proc, "proc", proc, flags, Some("hidepid=2")) {
        Err(Errno::EINVAL) => mount(proc, "proc", proc, flags, NONE).at("/proc")?,
        other => other.at("/proc")?,
    }
    for name in HIDDEN {
        let inside = Path::new("proc").join(name);
        if inside.exists() {
            let null = Some("/dev/null");
            mount(null, &inside, NONE, MsFlags::MS_BIND, NONE).at(&inside)?;
            seal(&inside, READ_ONLY | sys::ATTR_NO_EXEC)?;
        }
    }
    for name in FROZEN {
        let inside = Path::new("proc").join(name);
        if inside.exists() {
            bind(&inside, &inside, READ_ONLY | sys::ATTR_NO_EXEC)?;
        }
    }
    Ok(())
}

/// The new root takes the place of the old one, which goes away with all its mounts.
pub(super) fn enter(_: &Plan) -> Result<(), Failure> {
    pivot_root(".", ".").on("pivot_root")?;
    umount2(".", MntFlags::MNT_DETACH).on("the host's root")?;
    chdir("/").at("/")?;
    // Only the root itself: what is mounted below has its own say.
    remount(Path::new("/"), READ_ONLY)
}

pub(super) fn host_name(plan: &Plan) -> Result<(), Failure> {
    sethostname(host_label(plan)).on("sethostname")
}

/// The service's name as a host name.
fn host_label(plan: &Plan) -> String {
    let service: String = plan
        .spec
        .service
        .as_str()
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
        .take(60)
        .collect();
    service.trim_matches('-').to_ascii_lowercase()
}

// ---- pieces

fn directory(path: &Path) -> Result<(), Failure> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(path)
        .at(path)
}

fn write(path: &Path, content: &[u8], mode: u32) -> Result<(), Failure> {
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(mode)
        .open(path)
        .at(path)?;
    file.write_all(content).at(path)?;
    nix::sys::stat::fchmod(&file, nix::sys::stat::Mode::from_bits_truncate(mode)).at(path)
}

fn tmpfs(path: &Path, options: &str, more: MsFlags) -> Result<(), Failure> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | more;
    mount(Some("tmpfs"), path, Some("tmpfs"), flags, Some(options)).at(path)
}

/// Shows `host` and all that is mounted below it, with fewer rights.
fn bind(host: &Path, inside: &Path, attributes: u64) -> Result<(), Failure> {
    let flags = MsFlags::MS_BIND | MsFlags::MS_REC;
    mount(Some(host), inside, NONE, flags, NONE).at(host)?;
    seal(inside, attributes)
}

fn seal(inside: &Path, attributes: u64) -> Result<(), Failure> {
    use std::os::unix::ffi::OsStrExt as _;
    let path = std::ffi::CString::new(inside.as_os_str().as_bytes()).at(inside)?;
    match sys::mount_setattr(&path, attributes) {
        Err(Errno::ENOSYS) => seal_each(inside, attributes),
        other => other.at(inside),
    }
}

/// The same for kernels before 5.12, one mount after the other.
fn seal_each(inside: &Path, attributes: u64) -> Result<(), Failure> {
    let top = fs::canonicalize(inside).at(inside)?;
    let table = fs::read_to_string("/proc/thread-self/mountinfo").on("the list of mounts")?;
    for line in table.lines() {
        let point = line.split(' ').nth(4).unwrap_or_default();
        let point = PathBuf::from(point.replace("\\040", " "));
        if point.starts_with(&top) {
            remount(&point, attributes)?;
        }
    }
    Ok(())
}

/// Flags that a mount has already must be repeated: a user namespace may not take any away.
fn remount(path: &Path, attributes: u64) -> Result<(), Failure> {
    let has = statvfs(path).at(path)?.flags();
    let mut flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT;
    for (attribute, existing, flag) in [
        (sys::ATTR_READ_ONLY, FsFlags::ST_RDONLY, MsFlags::MS_RDONLY),
        (sys::ATTR_NO_SUID, FsFlags::ST_NOSUID, MsFlags::MS_NOSUID),
        (sys::ATTR_NO_DEVICES, FsFlags::ST_NODEV, MsFlags::MS_NODEV),
        (sys::ATTR_NO_EXEC, FsFlags::ST_NOEXEC, MsFlags::MS_NOEXEC),
        (0, FsFlags::ST_NOATIME, MsFlags::MS_NOATIME),
        (0, FsFlags::ST_NODIRATIME, MsFlags::MS_NODIRATIME),
        (0, FsFlags::ST_RELATIME, MsFlags::MS_RELATIME),
    ] {
        if attributes & attribute != 0 || has.contains(existing) {
            flags |= flag;
        }
    }
    mount(NONE, path, NONE, flags, NONE).at(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// In a thread with mounts of its own. Needs root.
    #[test]
    fn old_kernels_seal_every_mount_of_a_tree() {
        if !nix::unistd::geteuid().is_root() {
            println!("SKIPPED: needs root");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let top = fs::canonicalize(dir.path()).unwrap();
        let thread = std::thread::spawn(move || {
            use nix::sched::{CloneFlags, unshare};
            unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_FS).unwrap();
            let flags = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
            mount(NONE, "/", NONE, flags, NONE).unwrap();
            tmpfs(&top, "size=1m", MsFlags::empty()).unwrap();
            fs::create_dir(top.join("sub")).unwrap();
            tmpfs(&top.join("sub"), "size=1m", MsFlags::MS_NOEXEC).unwrap();
            seal_each(&top, READ_ONLY).unwrap();
            for path in [top.join("x"), top.join("sub/x")] {
                let error = fs::write(path, "x").unwrap_err();
                assert_eq!(error.raw_os_error(), Some(Errno::EROFS as i32));
            }
            let flags = statvfs(&top.join("sub")).unwrap().flags();
            assert!(flags.contains(FsFlags::ST_NOEXEC), "what it had is kept");
        });
        thread.join().unwrap();
    }
}
