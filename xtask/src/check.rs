//! What must hold before anything is tested.

use anyhow::Result;

use crate::{generate, layers, shell, tools};

/// Formatting, lints, docs, layers, generated pages, dependencies.
pub(crate) fn run() -> Result<()> {
    shell::run(&mut shell::cargo(&["fmt", "--all", "--check"]))?;
    layers::run()?;
    generate::run(true)?;
    shell::run(&mut shell::cargo(&[
        "clippy",
        "--workspace",
        "--all-targets",
        "--",
        "-D",
        "warnings",
    ]))?;
    shell::run(
        shell::cargo(&["doc", "--workspace", "--no-deps"]).env("RUSTDOCFLAGS", "-D warnings"),
    )?;
    if tools::cargo_deny() {
        shell::run(&mut shell::cargo(&[
            "deny", "check", "bans", "licenses", "sources",
        ]))?;
    }
    Ok(())
}
