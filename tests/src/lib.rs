//! The harness of the black-box suites: it starts the real binary in a temporary directory on free
//! ports and talks to it as a user does, by CLI and by curl. Nothing of the product is linked.
//!
//! Tests wait on conditions with a deadline ([`eventually`]), never on time.
#![expect(
    clippy::indexing_slicing,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test harness"
)]

mod client;
mod server;

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

pub use client::{Outcome, Reply};
pub use server::{Builder, Server, operator_settings};

/// The binary under test: `MICRO_BIN`, else the one beside the test executable.
pub fn binary() -> PathBuf {
    if let Some(path) = std::env::var_os("MICRO_BIN") {
        return path.into();
    }
    let exe = std::env::current_exe().expect("the test knows where it is");
    let path = exe
        .ancestors()
        .nth(2)
        .unwrap_or(Path::new("/"))
        .join("micro");
    assert!(
        path.is_file(),
        "no micro binary at {}: run `cargo build -p micro` or `cargo xtask test`",
        path.display()
    );
    path
}

/// The root of the repository.
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("tests/ has a parent")
        .to_path_buf()
}

/// Polls until `probe` answers, or panics naming `what` after `limit`.
pub fn eventually<T>(what: &str, limit: Duration, mut probe: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(value) = probe() {
            return value;
        }
        assert!(
            Instant::now() < deadline,
            "{what} did not happen within {limit:?}"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Whether all `programs` are there. In CI (or with `MICRO_TEST_REQUIRE=all`) a missing one fails
/// the test; elsewhere the test is skipped aloud.
pub fn require(programs: &[&str]) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let missing: Vec<_> = programs
        .iter()
        .filter(|program| !std::env::split_paths(&path).any(|dir| dir.join(program).is_file()))
        .collect();
    skip_unless(missing.is_empty(), &format!("needs {missing:?}"))
}

/// Whether the test runs as root; see [`require`].
pub fn require_root() -> bool {
    skip_unless(nix::unistd::geteuid().is_root(), "needs root")
}

fn skip_unless(there: bool, why: &str) -> bool {
    let strict =
        std::env::var_os("CI").is_some() || std::env::var_os("MICRO_TEST_REQUIRE").is_some();
    assert!(there || !strict, "{why}");
    if !there {
        eprintln!("SKIPPED: {why}");
    }
    there
}
