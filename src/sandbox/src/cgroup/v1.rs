//! One hierarchy for each controller: version 1, and the hybrid layout.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use micro_core::InstanceId;

use super::{CPU_PERIOD, Controller, Group, Hierarchy, children, cpu_quota, make};
use crate::{error::Error, spec::Limits};

/// Our parent group in each hierarchy that can be written to.
#[derive(Debug)]
pub(super) struct Separate {
    parents: BTreeMap<Controller, PathBuf>,
}

impl Separate {
    pub(super) fn new(parents: BTreeMap<Controller, PathBuf>) -> Self {
        let usable = |parent: &Path| parent.is_dir() || fs::create_dir(parent).is_ok();
        Self {
            parents: parents
                .into_iter()
                .filter(|(_, parent)| usable(parent))
                .collect(),
        }
    }
}

/// Files and values, in the order the kernel wants them.
fn settings(controller: Controller, limits: &Limits) -> Vec<(&'static str, String)> {
    match controller {
        Controller::Memory => vec![
            ("memory.limit_in_bytes", limits.memory.to_string()),
            // Memory and swap together: no growing into swap. After the limit, never below it.
            ("memory.memsw.limit_in_bytes", limits.memory.to_string()),
        ],
        Controller::Pids => vec![("pids.max", limits.processes.to_string())],
        Controller::Cpu if limits.cpu_percent == 0 => Vec::new(),
        Controller::Cpu => vec![
            ("cpu.cfs_period_us", CPU_PERIOD.to_string()),
            (
                "cpu.cfs_quota_us",
                cpu_quota(limits.cpu_percent).to_string(),
            ),
        ],
    }
}

impl Hierarchy for Separate {
    fn create(&self, id: &InstanceId, limits: &Limits) -> Result<Group, Error> {
        let mut group = Group::default();
        for (controller, parent) in &self.parents {
            let _ = fs::create_dir(parent); // somebody may have tidied up an empty one
            let dir = parent.join(id.as_str());
            if let Err(error) = make(&dir, &settings(*controller, limits)) {
                group.remove();
                return Err(error);
            }
            group.dirs.push(dir);
        }
        Ok(group)
    }

    fn has(&self, controller: Controller) -> bool {
        self.parents.contains_key(&controller)
    }

    fn found(&self) -> BTreeMap<String, Group> {
        let mut found: BTreeMap<String, Group> = BTreeMap::new();
        for (name, dir) in self.parents.values().flat_map(|parent| children(parent)) {
            found.entry(name).or_default().dirs.push(dir);
        }
        found
    }

    fn close(&self) {
        for parent in self.parents.values() {
            let _ = fs::remove_dir(parent); // survivors of a failed stop keep it; nothing else to do
        }
    }

    fn remedy(&self) -> &'static str {
        "start the server as root, or from a systemd unit with Delegate=yes"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unlimited_cpu_is_left_alone() {
        let mut limits = Limits {
            memory: 1 << 20,
            processes: 5,
            cpu_percent: 0,
            open_files: 10,
        };
        assert!(settings(Controller::Cpu, &limits).is_empty());
        limits.cpu_percent = 150;
        let quota = ("cpu.cfs_quota_us", "150000".to_owned());
        assert!(settings(Controller::Cpu, &limits).contains(&quota));
    }
}
