//! Benchmarks beside peers, in one interleaved run; figures are ratios first. What the rows mean is
//! in `docs/explanation/performance.md`.

mod footprint;
mod gateway;
mod process;
mod round;
mod state;

use anyhow::{Result, bail};

use crate::shell;

/// Runs one benchmark by name.
pub(crate) fn run(args: &[&str]) -> Result<()> {
    let (build, args): (Vec<&str>, Vec<&str>) = args.iter().partition(|arg| **arg == "--no-build");
    if build.is_empty() {
        self::build()?;
    }
    match args.as_slice() {
        ["gateway", rest @ ..] => gateway::run(rest),
        ["state", rest @ ..] => state::run(rest),
        ["footprint"] => footprint::run(),
        other => bail!("unknown benchmark {other:?}; there are gateway, state and footprint"),
    }
}

/// Builds the product as packaged, and the generator and backend beside it.
fn build() -> Result<()> {
    shell::run(&mut shell::cargo(&[
        "build",
        "--profile",
        "dist",
        "--package",
        "micro",
    ]))?;
    shell::run(&mut shell::cargo(&[
        "build",
        "--release",
        "--package",
        "micro-benches",
    ]))
}
