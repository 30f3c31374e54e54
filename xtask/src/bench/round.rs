//! One round of one contender, and what rounds have in common.

use std::process::Command;

use anyhow::{Context as _, Result};
use micro_tests::Server;
use serde_json::Value;

use super::process::cpu_nanos;
use crate::shell;

/// What one round measured.
#[derive(Clone, Copy, Default)]
pub(crate) struct Round {
    pub(crate) per_second: f64,
    /// Microseconds.
    pub(crate) p50: f64,
    /// Microseconds.
    pub(crate) p99: f64,
    /// Of the server, for each operation.
    pub(crate) cpu_micros: f64,
    pub(crate) errors: u64,
}

impl Round {
    /// Runs a generator against the process `pid` and reads its report.
    pub(crate) fn of(generator: &mut Command, pid: u32) -> Result<Self> {
        let before = cpu_nanos(pid);
        let report: Value = serde_json::from_str(&shell::output(generator)?)?;
        let used = cpu_nanos(pid).saturating_sub(before);
        let number = |key: &str| report[key].as_f64();
        let operations = number("operations").or(number("calls")).unwrap_or_default();
        Ok(Self {
            per_second: number("per_second").unwrap_or_default(),
            p50: number("p50").unwrap_or_default(),
            p99: number("p99").unwrap_or_default(),
            cpu_micros: used as f64 / 1000.0 / operations.max(1.0),
            errors: report["errors"].as_u64().unwrap_or_default(),
        })
    }
}

/// The middle one of the figures that `of` takes out of each round.
pub(crate) fn median(rounds: &[Round], of: fn(&Round) -> f64) -> f64 {
    let mut values: Vec<f64> = rounds.iter().map(of).collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

/// A token of the default administrator for a day.
pub(crate) fn token(server: &Server) -> Result<String> {
    let token = server
        .cli([
            "auth", "create", "token", "--id", "admin", "--secret", "micro", "--expiry", "86400",
            "--output", "json",
        ])
        .json();
    let token = token["access_token"].as_str().context("a token")?;
    Ok(token.to_owned())
}
