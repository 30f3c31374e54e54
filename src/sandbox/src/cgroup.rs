//! Control groups: bounds on memory, processes and CPU that hold for an instance and all it starts.
//!
//! A thin layer of our own (see `docs/decisions/0003-cgroups.md`). It works below the group this server
//! was put into, in each hierarchy, and never writes anywhere else. A [`Group`] is plain data, so that a
//! new supervisor can find, empty and remove the groups an earlier one made.

mod v1;
mod v2;

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use micro_core::InstanceId;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde::{Deserialize, Serialize};

use crate::{error::Error, spec::Limits};

/// What the layer limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Controller {
    Memory,
    Pids,
    Cpu,
}

impl Controller {
    pub(crate) const ALL: [Self; 3] = [Self::Memory, Self::Pids, Self::Cpu];

    /// Its name in the kernel.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Pids => "pids",
            Self::Cpu => "cpu",
        }
    }

    /// What is lost without it, and what to do.
    fn missing(self, remedy: &str) -> String {
        let lost = match self {
            Self::Memory => "the memory of services is not bounded",
            Self::Pids => "the number of processes of services is not bounded by a control group",
            Self::Cpu => "the CPU use of services is not bounded",
        };
        format!(
            "{lost}: no {} controller here ({})",
            self.name(),
            match self {
                Self::Memory => format!(
                    "{remedy}; on a Raspberry Pi add cgroup_enable=memory to /boot/firmware/cmdline.txt and reboot"
                ),
                _ => remedy.into(),
            }
        )
    }
}

/// Where groups can be made on this machine.
pub(crate) trait Hierarchy: std::fmt::Debug {
    /// A new group with these limits, empty.
    fn create(&self, id: &InstanceId, limits: &Limits) -> Result<Group, Error>;
    /// Whether this limit is kept.
    fn has(&self, controller: Controller) -> bool;
    /// Groups made by an earlier supervisor of the same state directory.
    fn found(&self) -> BTreeMap<String, Group>;
    /// Removes what this layer made for itself. Groups must be gone.
    fn close(&self);
    /// What to do to get a controller that [`Self::has`] denies.
    fn remedy(&self) -> &'static str;
}

/// One sentence for each limit that is not kept.
pub(crate) fn missing(hierarchy: &dyn Hierarchy) -> Vec<String> {
    Controller::ALL
        .into_iter()
        .filter(|c| !hierarchy.has(*c))
        .map(|c| c.missing(hierarchy.remedy()))
        .collect()
}

/// Looks at this machine. `tag` tells the groups of several servers apart.
pub(crate) fn detect(tag: &str) -> Box<dyn Hierarchy> {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let mounts = Mounts::parse(&read("/proc/self/mountinfo"), &read("/proc/self/cgroup"));
    let parents = mounts.v1_parents(tag);
    if !parents.is_empty() {
        return Box::new(v1::Separate::new(parents));
    }
    match mounts.v2() {
        Some(own) => Box::new(v2::Unified::new(own, tag)),
        None => Box::new(Nowhere),
    }
}

/// A machine without control groups.
#[derive(Debug)]
struct Nowhere;

impl Hierarchy for Nowhere {
    fn create(&self, _: &InstanceId, _: &Limits) -> Result<Group, Error> {
        Ok(Group::default())
    }
    fn has(&self, _: Controller) -> bool {
        false
    }
    fn found(&self) -> BTreeMap<String, Group> {
        BTreeMap::new()
    }
    fn close(&self) {}
    fn remedy(&self) -> &'static str {
        "mount a cgroup2 file system at /sys/fs/cgroup"
    }
}

/// The group of one instance: one directory, or one in each hierarchy.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Group {
    pub(crate) dirs: Vec<PathBuf>,
}

impl Group {
    /// Puts the calling process into the group; what it starts is born there.
    pub(crate) fn join(&self) -> io::Result<()> {
        self.dirs
            .iter()
            .try_for_each(|dir| fs::write(dir.join("cgroup.procs"), "0"))
    }

    /// How many of its processes were killed for lack of memory.
    pub(crate) fn oom_kills(&self) -> u64 {
        self.dirs
            .iter()
            .flat_map(|dir| [dir.join("memory.events"), dir.join("memory.oom_control")])
            .filter_map(|file| fs::read_to_string(file).ok())
            .map(|text| field(&text, "oom_kill"))
            .sum()
    }

    /// Kills what is in it. A process may fork in between: call until [`Self::remove`] says it is gone.
    pub(crate) fn kill(&self) {
        for dir in &self.dirs {
            if fs::write(dir.join("cgroup.kill"), "1").is_ok() {
                continue;
            }
            for pid in pids(dir) {
                let _ = kill(pid, Signal::SIGKILL); // it may have ended by itself
            }
        }
    }

    /// Removes the group. `false` while something is in it.
    pub(crate) fn remove(&self) -> bool {
        self.dirs
            .iter()
            .filter(|dir| remove_dir(dir).is_err())
            .count()
            == 0
    }

    /// Kills and removes, for at most `patience`.
    pub(crate) fn clear(&self, patience: Duration) -> bool {
        let until = std::time::Instant::now() + patience;
        while !self.remove() {
            if std::time::Instant::now() >= until {
                return false;
            }
            self.kill();
            std::thread::sleep(Duration::from_millis(5));
        }
        true
    }
}

fn pids(dir: &Path) -> Vec<Pid> {
    fs::read_to_string(dir.join("cgroup.procs"))
        .unwrap_or_default()
        .lines()
        .filter_map(|line| line.parse().ok())
        .filter(|pid| *pid > 0)
        .map(Pid::from_raw)
        .collect()
}

fn remove_dir(dir: &Path) -> io::Result<()> {
    match fs::remove_dir(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// The number after `name` in a file of `name number` lines.
fn field(text: &str, name: &str) -> u64 {
    text.lines()
        .filter_map(|line| line.split_once(' '))
        .find(|(key, _)| *key == name)
        .and_then(|(_, value)| value.trim().parse().ok())
        .unwrap_or(0)
}

/// The groups below `parent`, by name.
fn children(parent: &Path) -> Vec<(String, PathBuf)> {
    let Ok(entries) = fs::read_dir(parent) else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|t| t.is_dir()))
        .filter_map(|entry| Some((entry.file_name().into_string().ok()?, entry.path())))
        .collect()
}

/// Makes a group and writes its limits; takes it away again when one cannot be written.
fn make(dir: &Path, limits: &[(&'static str, String)]) -> Result<(), Error> {
    let what = |name: &str| format!("set {name} of the control group {}", dir.display());
    match fs::create_dir(dir) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            return Err(Error::os(format!(
                "make the control group {}",
                dir.display()
            ))(error));
        }
        _ => {}
    }
    for (file, value) in limits {
        if let Err(error) = fs::write(dir.join(file), value) {
            // Files that not every kernel has; the limit proper is in another one.
            if file.contains("memsw") || file.contains("swap") || *file == "memory.oom.group" {
                continue;
            }
            let _ = fs::remove_dir(dir);
            return Err(Error::os(what(file))(error));
        }
    }
    Ok(())
}

/// Microseconds in which the CPU quota is counted.
const CPU_PERIOD: u64 = 100_000;

fn cpu_quota(percent: u32) -> u64 {
    u64::from(percent) * CPU_PERIOD / 100
}

/// What `/proc` says of the hierarchies and of our place in them.
#[derive(Debug, Default, PartialEq, Eq)]
struct Mounts {
    /// By controller: our own directory.
    v1: BTreeMap<Controller, PathBuf>,
    v2: Option<PathBuf>,
}

impl Mounts {
    fn parse(mountinfo: &str, own: &str) -> Self {
        let mut mounts = Self::default();
        for line in mountinfo.lines() {
            // 36 35 0:31 /root/of/mount /mount/point options … - type source super-options
            let Some((left, right)) = line.split_once(" - ") else {
                continue;
            };
            let mut left = left.split(' ').skip(3);
            let (Some(root), Some(point)) = (left.next(), left.next()) else {
                continue;
            };
            let mut right = right.split(' ');
            let (kind, options) = (right.next().unwrap_or(""), right.nth(1).unwrap_or(""));
            let place = |listed: &dyn Fn(&str) -> bool| {
                let path = own_path(own, listed)?;
                let below = Path::new(path).strip_prefix(root).ok()?;
                Some(
                    Path::new(&unescape(point))
                        .join(below)
                        .components()
                        .collect(),
                )
            };
            match kind {
                "cgroup2" if mounts.v2.is_none() => mounts.v2 = place(&|list| list.is_empty()),
                "cgroup" => {
                    for controller in Controller::ALL {
                        let named = |list: &str| list.split(',').any(|n| n == controller.name());
                        if named(options)
                            && let Some(dir) = place(&named)
                        {
                            mounts.v1.entry(controller).or_insert(dir);
                        }
                    }
                }
                _ => {}
            }
        }
        mounts
    }

    fn v1_parents(&self, tag: &str) -> BTreeMap<Controller, PathBuf> {
        self.v1
            .iter()
            .map(|(controller, own)| (*controller, own.join(format!("micro.{tag}"))))
            .collect()
    }

    fn v2(&self) -> Option<&Path> {
        self.v2.as_deref()
    }
}

/// The path on the line of `/proc/self/cgroup` whose controller list `listed` accepts.
fn own_path<'a>(own: &'a str, listed: &dyn Fn(&str) -> bool) -> Option<&'a str> {
    own.lines().find_map(|line| {
        let mut parts = line.splitn(3, ':');
        let (_, list, path) = (parts.next()?, parts.next()?, parts.next()?);
        listed(list).then_some(path)
    })
}

/// mountinfo writes blanks as octal.
fn unescape(text: &str) -> String {
    text.replace("\\040", " ").replace("\\011", "\t")
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "\
30 25 0:26 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
31 25 0:27 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
32 25 0:28 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct
33 25 0:29 /docker/x /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids
";
    const OWN: &str = "4:memory:/a/b\n3:pids:/docker/x/y\n2:cpu,cpuacct:/\n0::/u\n";

    #[test]
    fn our_place_in_each_hierarchy_is_found() {
        let mounts = Mounts::parse(HYBRID, OWN);
        let at = |c| mounts.v1[&c].to_str().unwrap();
        assert_eq!(at(Controller::Memory), "/sys/fs/cgroup/memory/a/b");
        assert_eq!(at(Controller::Cpu), "/sys/fs/cgroup/cpu,cpuacct");
        assert_eq!(at(Controller::Pids), "/sys/fs/cgroup/pids/y");
        assert_eq!(mounts.v2().unwrap(), Path::new("/sys/fs/cgroup/unified/u"));
    }

    #[test]
    fn a_mount_that_does_not_show_our_place_is_not_used() {
        let mounts = Mounts::parse(HYBRID, "3:pids:/elsewhere\n");
        assert_eq!(mounts, Mounts::default());
    }

    #[test]
    fn counters_are_read_by_name() {
        assert_eq!(field("low 0\noom 3\noom_kill 2\n", "oom_kill"), 2);
        assert_eq!(
            field("oom_kill_disable 0\nunder_oom 0\noom_kill 1", "oom_kill"),
            1
        );
        assert_eq!(field("", "oom_kill"), 0);
    }
}
