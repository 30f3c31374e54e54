//! The unified hierarchy: version 2.
//!
//! ```text
//! <our own group>            controllers are switched on here for what is below
//! ├── supervisor             this server: a group with controllers below may hold no processes itself
//! └── micro.<tag>
//!     └── <instance>
//! ```

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use micro_core::InstanceId;

use super::{CPU_PERIOD, Controller, Group, Hierarchy, children, cpu_quota, make, remove_dir};
use crate::{error::Error, spec::Limits};

/// Where we are, and where instances go.
#[derive(Debug)]
pub(super) struct Unified {
    own: PathBuf,
    /// `None` where no group can be made.
    parent: Option<PathBuf>,
    available: Vec<Controller>,
    /// Whether we moved ourselves one level down, to move back at the end.
    moved: bool,
}

const SUPERVISOR: &str = "supervisor";

impl Unified {
    pub(super) fn new(own: &Path, tag: &str) -> Self {
        let mut this = Self {
            own: own.into(),
            parent: None,
            available: Vec::new(),
            moved: false,
        };
        let parent = own.join(format!("micro.{tag}"));
        if !parent.is_dir() && fs::create_dir(&parent).is_err() {
            return this;
        }
        if enabled(own).len() < Controller::ALL.len() {
            this.moved = step_down(own);
            enable(own);
        }
        enable(&parent);
        this.available = enabled(&parent);
        this.parent = Some(parent);
        this
    }
}

/// Moves this process into a group of its own below `own`. Others in `own` are not ours to move: with
/// them there the controllers stay off, and are reported missing.
fn step_down(own: &Path) -> bool {
    if !own.join("cgroup.type").exists() {
        return false; // the root of all groups may hold processes and controllers
    }
    let dir = own.join(SUPERVISOR);
    (dir.is_dir() || fs::create_dir(&dir).is_ok())
        && fs::write(dir.join("cgroup.procs"), "0").is_ok()
}

fn enable(dir: &Path) {
    for controller in Controller::ALL {
        // Whether it worked is read back by `enabled`.
        let _ = fs::write(
            dir.join("cgroup.subtree_control"),
            format!("+{}", controller.name()),
        );
    }
}

fn enabled(dir: &Path) -> Vec<Controller> {
    let text = fs::read_to_string(dir.join("cgroup.subtree_control")).unwrap_or_default();
    Controller::ALL
        .into_iter()
        .filter(|c| text.split_whitespace().any(|name| name == c.name()))
        .collect()
}

/// Files and values. No `memory.high`: it slows a process that needs too much for minutes instead of
/// ending it, and nobody learns why.
fn settings(controller: Controller, limits: &Limits) -> Vec<(&'static str, String)> {
    match controller {
        Controller::Memory => vec![
            ("memory.max", limits.memory.to_string()),
            ("memory.swap.max", "0".into()),
            ("memory.oom.group", "1".into()), // half a service is worse than none
        ],
        Controller::Pids => vec![("pids.max", limits.processes.to_string())],
        Controller::Cpu if limits.cpu_percent == 0 => Vec::new(),
        Controller::Cpu => vec![(
            "cpu.max",
            format!("{} {CPU_PERIOD}", cpu_quota(limits.cpu_percent)),
        )],
    }
}

impl Hierarchy for Unified {
    fn create(&self, id: &InstanceId, limits: &Limits) -> Result<Group, Error> {
        let Some(parent) = &self.parent else {
            return Ok(Group::default());
        };
        let dir = parent.join(id.as_str());
        let values: Vec<_> = self
            .available
            .iter()
            .flat_map(|controller| settings(*controller, limits))
            .collect();
        make(&dir, &values)?;
        Ok(Group { dirs: vec![dir] })
    }

    fn has(&self, controller: Controller) -> bool {
        self.available.contains(&controller)
    }

    fn found(&self) -> BTreeMap<String, Group> {
        self.parent
            .iter()
            .flat_map(|parent| children(parent))
            .map(|(name, dir)| (name, Group { dirs: vec![dir] }))
            .collect()
    }

    fn close(&self) {
        let Some(parent) = &self.parent else { return };
        let _ = remove_dir(parent); // survivors of a failed stop keep it; nothing else to do
        if self.moved && !parent.is_dir() {
            for controller in Controller::ALL {
                let off = format!("-{}", controller.name());
                let _ = fs::write(self.own.join("cgroup.subtree_control"), off);
            }
            if fs::write(self.own.join("cgroup.procs"), "0").is_ok() {
                let _ = remove_dir(&self.own.join(SUPERVISOR));
            }
        }
    }

    fn remedy(&self) -> &'static str {
        "start the server as root from a systemd unit with Delegate=yes"
    }
}

#[cfg(test)]
mod tests {
    use std::{process::Command, time::Duration};

    use super::*;

    #[test]
    fn limits_become_the_files_of_the_kernel() {
        let limits = Limits {
            memory: 1 << 26,
            processes: 64,
            cpu_percent: 50,
            open_files: 10,
        };
        let all: Vec<String> = Controller::ALL
            .into_iter()
            .flat_map(|c| settings(c, &limits))
            .map(|(file, value)| format!("{file}={value}"))
            .collect();
        assert_eq!(
            all.join(" "),
            "memory.max=67108864 memory.swap.max=0 memory.oom.group=1 pids.max=64 cpu.max=50000 100000"
        );
    }

    /// Needs root and a cgroup2 mount, with or without controllers.
    #[test]
    fn a_group_is_emptied_and_removed() {
        let mounts = super::super::Mounts::parse(
            &fs::read_to_string("/proc/self/mountinfo").unwrap(),
            &fs::read_to_string("/proc/self/cgroup").unwrap(),
        );
        let tag = format!("test-{}", std::process::id());
        let Some(own) = mounts.v2().filter(|own| {
            // Not where this test would have to move itself.
            !own.join("cgroup.type").exists()
        }) else {
            println!("skipped: no cgroup2 root here");
            return;
        };
        let hierarchy = Unified::new(own, &tag);
        if hierarchy.parent.is_none() {
            println!("skipped: cgroup2 is not writable here");
            return;
        }
        let limits = Limits {
            memory: 1 << 26,
            processes: 64,
            cpu_percent: 0,
            open_files: 10,
        };
        let id = InstanceId::parse("one").unwrap();
        let group = hierarchy.create(&id, &limits).unwrap();
        let mut child = Command::new("sleep").arg("1000").spawn().unwrap();
        fs::write(group.dirs[0].join("cgroup.procs"), child.id().to_string()).unwrap();
        assert!(!group.remove(), "it is not empty");
        assert_eq!(hierarchy.found().get("one"), Some(&group));
        group.kill();
        child.wait().unwrap();
        assert!(group.clear(Duration::from_secs(5)));
        hierarchy.close();
        assert!(!hierarchy.parent.unwrap().exists());
    }
}
