//! What the platform costs when nobody uses it, and how soon a binary answers.

use std::{
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use micro_tests::Server;

use super::process::pss_kib;
use crate::shell;

const RUNS: usize = 9;
/// After this time without a call a server is idle.
const IDLE: Duration = Duration::from_secs(30);

/// Prints idle memory, binary size, time to first answer and the time of `micro status`.
pub(crate) fn run() -> Result<()> {
    let target = shell::target();
    let binary = target.join("dist/micro");
    println!(
        "binary               {:>8.1} MB",
        std::fs::metadata(&binary)?.len() as f64 / 1e6
    );

    let server = Server::with().binary(binary.clone()).start();
    std::thread::sleep(IDLE);
    let supervisor = u32::try_from(server.supervisor())?;
    let node = u32::try_from(server.node().context("the node runs")?)?;
    println!(
        "idle PSS supervisor  {:>8.1} MB",
        pss_kib(&[supervisor]) as f64 / 1024.0
    );
    println!(
        "idle PSS node        {:>8.1} MB",
        pss_kib(&[node]) as f64 / 1024.0
    );
    let server = server.logged_in();

    let status = timed(RUNS, || {
        server.cli(["status"]).ok();
        Ok(())
    })?;
    println!(
        "micro status         {:>8.1} ms (median of {RUNS}, minimum {:.1})",
        status.0, status.1
    );

    // Padded to 5 MB, so that the upload is part of what is measured.
    let padded = server.scratch("bench").join("hello");
    std::fs::copy(target.join("release/hello"), &padded)?;
    let size = std::fs::metadata(&padded)?.len();
    if size < 5_000_000 {
        std::fs::OpenOptions::new()
            .write(true)
            .open(&padded)?
            .set_len(5_000_000)?;
    }
    let mut number = 0;
    let deploy = timed(RUNS, || {
        number += 1;
        let name = format!("hello-{number}");
        server
            .cli([
                Path::new("run"),
                Path::new("--name"),
                Path::new(&name),
                &padded,
            ])
            .ok();
        let reply = server.curl(&format!("/{name}/Helloworld/Call?name=x"), &[]);
        anyhow::ensure!(reply.status == 200, "{reply:?}");
        Ok(())
    })?;
    println!(
        "run to first answer  {:>8.1} ms (median of {RUNS}, minimum {:.1}; {:.1} MB binary, curl included)",
        deploy.0,
        deploy.1,
        size.max(5_000_000) as f64 / 1e6
    );
    let curl = timed(RUNS, || {
        Command::new("curl").arg("--version").output()?;
        Ok(())
    })?;
    println!("  of which curl      {:>8.1} ms to start", curl.0);
    Ok(())
}

/// Median and minimum in milliseconds.
fn timed(runs: usize, mut action: impl FnMut() -> Result<()>) -> Result<(f64, f64)> {
    let mut times = Vec::new();
    for _ in 0..runs {
        let begun = Instant::now();
        action()?;
        times.push(begun.elapsed().as_secs_f64() * 1000.0);
    }
    times.sort_by(f64::total_cmp);
    let at = |index: usize| times.get(index).copied().unwrap_or_default();
    Ok((at(runs / 2), at(0)))
}
