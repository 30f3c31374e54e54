//! What a fresh Debian-like machine lacks, and how to get it. Installing needs root and `apt-get`;
//! without them the missing tool is named and its tests skip aloud.

use std::process::Command;

use anyhow::{Context as _, Result};

use crate::shell;

/// Program and the Debian package that brings it.
const PACKAGES: &[(&str, &str)] = &[
    ("curl", "curl"),
    ("git", "git"),
    ("gcc", "gcc"),
    ("go", "golang-go"),
    ("node", "nodejs"),
    ("npm", "npm"),
    ("python3", "python3"),
    ("pip3", "python3-pip"),
];

/// Installs what tests and demo use and what is missing.
pub(crate) fn install() -> Result<()> {
    let missing: Vec<&str> = PACKAGES
        .iter()
        .filter(|(program, _)| !shell::has(program))
        .map(|(_, p)| *p)
        .collect();
    apt(&missing)
}

/// Installs Debian packages, or says which to install.
pub(crate) fn apt(packages: &[&str]) -> Result<()> {
    if packages.is_empty() {
        return Ok(());
    }
    if !shell::has("apt-get") || !is_root() {
        eprintln!(
            "missing: {}. Install them (apt-get install {}); until then their parts are skipped.",
            packages.join(", "),
            packages.join(" ")
        );
        return Ok(());
    }
    shell::run(Command::new("apt-get").args(["update", "-qq"]))?;
    let install = ["install", "-y", "-qq", "--no-install-recommends"];
    shell::run(
        Command::new("apt-get")
            .args(install)
            .args(packages)
            .env("DEBIAN_FRONTEND", "noninteractive"),
    )
    .context("cannot install what is missing")
}

/// Whether `cargo deny` is there; it is large, so nobody installs it unasked.
pub(crate) fn cargo_deny() -> bool {
    let there = shell::has("cargo-deny");
    if !there {
        eprintln!("SKIPPED: cargo deny is not installed (cargo install --locked cargo-deny)");
    }
    there
}

fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt as _;
    std::fs::metadata("/proc/self").is_ok_and(|m| m.uid() == 0)
}
