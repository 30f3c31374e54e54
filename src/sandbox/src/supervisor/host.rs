//! What this machine allows: found out by doing, once, when the server starts.

use std::{collections::BTreeMap, fs, path::Path, time::Duration};

use caps::{CapSet, Capability};
use micro_core::{InstanceId, Namespace, ServiceName, Timestamp};
use nix::unistd::geteuid;

use super::{instance, layout::Layout};
use crate::{
    cgroup::{self, Controller, Group, Hierarchy},
    plan::{Bounds, Mode, Plan},
    seccomp,
    spec::{Limits, Spec, SpecKind},
    tree::Owner,
};

/// Uids of services: one for each index, and one for all inits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Users {
    base: u32,
    count: u32,
}

impl Users {
    /// Above the ranges of containers and of user namespaces, below 2^31.
    const LARGE: Self = Self {
        base: 1_900_000_000,
        count: 100_000,
    };
    /// For a server inside a container that has 65536 uids.
    const SMALL: Self = Self {
        base: 30_000,
        count: 29_999,
    };

    /// Index to user.
    pub(super) fn owner(&self, index: u32) -> Option<Owner> {
        (index < self.count).then_some(Owner {
            uid: self.base + index,
            gid: self.base + index,
        })
    }

    /// The user of all inits. It owns the logs, so it cannot differ between instances of a service.
    pub(super) fn keeper(&self) -> Owner {
        Owner {
            uid: self.base + self.count,
            gid: self.base + self.count,
        }
    }

    #[cfg(test)]
    pub(super) fn for_tests() -> Self {
        Self::LARGE
    }

    fn choose(uid_map: &str, gid_map: &str) -> Option<Self> {
        [Self::LARGE, Self::SMALL]
            .into_iter()
            .find(|users| users.covered(uid_map) && users.covered(gid_map))
    }

    fn covered(&self, map: &str) -> bool {
        map.lines().any(|line| {
            let mut numbers = line
                .split_whitespace()
                .filter_map(|n| n.parse::<u64>().ok());
            let (Some(inside), _, Some(length)) = (numbers.next(), numbers.next(), numbers.next())
            else {
                return false;
            };
            inside <= u64::from(self.base)
                && u64::from(self.base) + u64::from(self.count) < inside + length
        })
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Host {
    pub(super) mode: Mode,
    pub(super) users: Option<Users>,
    pub(super) filter: bool,
    pub(super) groups: Box<dyn Hierarchy>,
    /// One sentence for each fence that is missing, with its remedy.
    pub(super) missing: Vec<String>,
    counts_own_processes: bool,
}

impl Host {
    /// Tries everything out.
    pub(super) fn examine(layout: &Layout) -> Self {
        let groups = cgroup::detect(&tag(layout.state.root()));
        let mut missing = cgroup::missing(&*groups);
        let users = users();
        let filter = seccomp::available();
        if !filter {
            missing.push(
                "the system calls of services are not filtered: use a kernel with CONFIG_SECCOMP_FILTER"
                    .into(),
            );
        }
        let mut this = Self {
            mode: Mode::Plain,
            users,
            filter,
            groups,
            missing: Vec::new(),
            counts_own_processes: kernel_at_least(5, 14),
        };
        let root = geteuid().is_root();
        let best = if root { Mode::Root } else { Mode::Rootless };
        match this.rehearse(layout, best) {
            Ok(()) => this.mode = best,
            Err(why) => missing.push(if root {
                format!(
                    "services see the files and processes of this machine ({why}): give this server CAP_SYS_ADMIN and the right to mount"
                )
            } else {
                format!(
                    "services see the files and processes of this machine ({why}): start the server as root, or allow user namespaces (kernel.apparmor_restrict_unprivileged_userns=0, kernel.unprivileged_userns_clone=1)"
                )
            }),
        }
        if this.users.is_none() {
            missing.push(format!(
                "services share the user of this server ({}), so only what they can see keeps them apart: start the server as root",
                geteuid()
            ));
        }
        this.missing = missing;
        this
    }

    /// Takes every step of a launch but the last.
    fn rehearse(&self, layout: &Layout, mode: Mode) -> Result<(), String> {
        let name = |text: &str| text.to_owned();
        let spec = Spec {
            id: InstanceId::parse("rehearsal").map_err(|e| e.to_string())?,
            namespace: Namespace::operator(),
            service: ServiceName::parse("rehearsal").map_err(|e| e.to_string())?,
            kind: SpecKind::Service,
            command: vec![name("true")],
            env: Vec::new(),
            cwd: "/".into(),
            user: 0,
            mounts: Vec::new(),
            limits: Limits {
                memory: 64 << 20,
                processes: 16,
                cpu_percent: 0,
                open_files: 64,
            },
            labels: BTreeMap::new(),
        };
        let dir = layout.state.run().join("rehearsal");
        let _ = fs::remove_dir_all(&dir); // of a server that was killed meanwhile
        let bounds = self.bounds(&spec, mode);
        let plan = Plan {
            started: Timestamp(0),
            mode,
            owner: self.users.and_then(|users| users.owner(0)),
            keeper: self.users.map(|users| users.keeper()),
            log_dir: dir.clone(),
            dir: dir.clone(),
            log_limit: 0,
            shown: Vec::new(),
            group: Group::default(),
            filter: self.filter,
            bounds,
            rehearse: true,
            spec,
        };
        let outcome = instance::rehearse(&plan, Duration::from_secs(20));
        let _ = fs::remove_dir_all(&dir);
        outcome
    }

    /// The bounds that no control group keeps.
    pub(super) fn bounds(&self, spec: &Spec, mode: Mode) -> Bounds {
        let limits = &spec.limits;
        let processes = u64::from(limits.processes);
        let alone = match mode {
            // Init and the service's first process live in the user namespace too.
            Mode::Rootless => self.counts_own_processes.then_some(processes + 2),
            Mode::Root | Mode::Plain => self.users.map(|_| processes),
        };
        let (tmp_bytes, tmp_files) = match spec.kind {
            // Charged to the instance: a full one must not be what kills it.
            SpecKind::Service => ((limits.memory / 4).min(64 << 20), 16 << 10),
            SpecKind::Build => ((limits.memory / 2).min(1 << 30), 128 << 10),
        };
        Bounds {
            open_files: limits.open_files,
            processes: alone.filter(|_| !self.groups.has(Controller::Pids)),
            data: (!self.groups.has(Controller::Memory))
                .then(|| limits.memory.saturating_mul(4).max(1 << 30)),
            tmp_bytes: tmp_bytes.max(1 << 20),
            tmp_files,
        }
    }
}

/// Users other than our own, if we may become them and own files for them.
fn users() -> Option<Users> {
    let needed = [
        Capability::CAP_SETUID,
        Capability::CAP_SETGID,
        Capability::CAP_CHOWN,
        Capability::CAP_KILL,
        Capability::CAP_SETPCAP,
    ];
    let may = |cap| caps::has_cap(None, CapSet::Effective, cap).unwrap_or(false);
    if !geteuid().is_root() || !needed.into_iter().all(may) {
        return None;
    }
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    Users::choose(&read("/proc/self/uid_map"), &read("/proc/self/gid_map"))
}

/// Tells the groups of servers with different state directories apart.
fn tag(root: &Path) -> String {
    use std::os::unix::ffi::OsStrExt as _;
    // FNV-1a: stable between versions, which a later server relies on.
    let hash = root
        .as_os_str()
        .as_bytes()
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
        });
    format!("{hash:016x}")
}

fn kernel_at_least(major: u32, minor: u32) -> bool {
    let release = nix::sys::utsname::uname()
        .ok()
        .and_then(|name| name.release().to_str().map(str::to_owned))
        .unwrap_or_default();
    let mut numbers = release
        .split(|c: char| !c.is_ascii_digit())
        .filter_map(|n| n.parse::<u32>().ok());
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= (major, minor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uids_are_taken_from_a_range_that_exists() {
        let whole = "         0          0 4294967295\n";
        let container = "0 100000 65536\n";
        assert_eq!(Users::choose(whole, whole), Some(Users::LARGE));
        assert_eq!(Users::choose(whole, container), Some(Users::SMALL));
        assert_eq!(Users::choose("0 1000 1\n", "0 1000 1\n"), None);
        let users = Users::SMALL;
        assert_eq!(users.owner(users.count), None, "that one is the keeper's");
        assert_eq!(users.keeper().uid, 59_999);
    }
}
