//! All tests, the same way on a laptop and in CI.

use anyhow::Result;

use crate::{shell, tools};

/// Installs what tests need, builds the binary once, runs everything. `filter` goes to the test
/// runner of the black-box suites.
pub(crate) fn run(filter: &[&str]) -> Result<()> {
    tools::install()?;
    shell::run(&mut shell::cargo(&["build", "--package", "micro"]))?;
    if filter.is_empty() {
        shell::run(&mut shell::cargo(&[
            "test",
            "--workspace",
            "--exclude",
            "micro-tests",
        ]))?;
    }
    let mut suites = shell::cargo(&["test", "--package", "micro-tests", "--"]);
    suites
        .args(filter)
        .env("MICRO_BIN", shell::target().join("debug/micro"));
    shell::run(&mut suites)
}
