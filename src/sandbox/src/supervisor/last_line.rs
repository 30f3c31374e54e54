//! The last line of an instance's log, where the instance could not write it: its limit ended it, and
//! whoever reads the log would see it stop in the middle of a sentence.

use std::{fs::File, io::Write as _, os::unix::fs::MetadataExt as _, path::Path};

use micro_core::Timestamp;
use nix::{
    errno::Errno,
    fcntl::{OFlag, openat},
    sys::stat::Mode,
};

use crate::{plan::Plan, spec::Exit, tree};

/// Adds it, if this end is one to be explained.
pub(super) fn write(plan: &Plan, exit: &Exit, now: Timestamp) -> std::io::Result<()> {
    let Some(text) = text(plan, exit) else {
        return Ok(());
    };
    let keeper = plan.keeper.map(|keeper| keeper.uid);
    let name = format!("{}.log", plan.spec.id);
    append(
        &plan.log_dir,
        &name,
        keeper,
        &format!("{} e {text}\n", now.0),
    )
}

fn text(plan: &Plan, exit: &Exit) -> Option<String> {
    (*exit == Exit::OutOfMemory).then(|| {
        format!(
            "Killed: it needed more memory than its limit of {} MiB.",
            plan.spec.limits.memory >> 20
        )
    })
}

/// The node may write to this directory, so what lies there under the log's name may be anything: only
/// a plain file of init's is written to, and nothing is waited for.
fn append(dir: &Path, name: &str, owner: Option<u32>, line: &str) -> std::io::Result<()> {
    let dir = tree::open(dir)?;
    let flags = OFlag::O_WRONLY
        | OFlag::O_APPEND
        | OFlag::O_NOFOLLOW
        | OFlag::O_NONBLOCK
        | OFlag::O_CLOEXEC;
    let mut file = File::from(openat(&dir, name, flags, Mode::empty())?);
    let meta = file.metadata()?;
    let own = owner.unwrap_or_else(|| nix::unistd::geteuid().as_raw());
    if !meta.is_file() || meta.nlink() != 1 || meta.uid() != own {
        return Err(Errno::EPERM.into());
    }
    file.write_all(line.as_bytes())
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use super::*;

    #[test]
    fn the_line_is_added_to_the_log() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("a.log"), "7 o one\n").unwrap();
        append(dir.path(), "a.log", None, "8 e two\n").unwrap();
        let text = fs::read_to_string(dir.path().join("a.log")).unwrap();
        assert_eq!(text, "7 o one\n8 e two\n");
    }

    #[test]
    fn what_is_no_log_is_not_written_to() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("precious");
        fs::write(&file, "").unwrap();
        symlink(&file, dir.path().join("link.log")).unwrap();
        fs::hard_link(&file, dir.path().join("name.log")).unwrap();
        let mode = Mode::from_bits_truncate(0o600);
        nix::unistd::mkfifo(&dir.path().join("pipe.log"), mode).unwrap();
        for name in ["link.log", "name.log", "pipe.log", "missing.log"] {
            assert!(append(dir.path(), name, None, "x\n").is_err(), "{name}");
        }
        assert_eq!(fs::read_to_string(file).unwrap(), "");
        assert!(!dir.path().join("missing.log").exists());
    }

    #[test]
    fn the_log_of_somebody_else_is_not_written_to() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("a.log"), "").unwrap();
        let other = nix::unistd::geteuid().as_raw() + 1;
        assert!(append(dir.path(), "a.log", Some(other), "x\n").is_err());
    }
}
