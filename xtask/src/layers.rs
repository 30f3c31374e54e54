//! Which crate may use which. The table is the architecture; `cargo metadata` is the truth; this
//! compares them.

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::shell;

/// Crate, and the crates of ours it may depend on. A crate missing here fails the check too.
pub(crate) const ALLOWED: &[(&str, &[&str])] = &[
    ("micro-core", &[]),
    ("micro-proto", &["micro-core"]),
    ("micro-schema", &["micro-core", "micro-proto"]),
    ("micro-storage", &["micro-core"]),
    ("micro-sandbox", &["micro-core"]),
    (
        "micro-auth",
        &["micro-core", "micro-proto", "micro-schema", "micro-storage"],
    ),
    (
        "micro-registry",
        &["micro-core", "micro-proto", "micro-schema", "micro-storage"],
    ),
    (
        "micro-config",
        &["micro-core", "micro-proto", "micro-storage"],
    ),
    (
        "micro-events",
        &["micro-core", "micro-proto", "micro-storage"],
    ),
    (
        "micro-store",
        &["micro-core", "micro-proto", "micro-storage"],
    ),
    (
        "micro-runtime",
        &[
            "micro-core",
            "micro-proto",
            "micro-schema",
            "micro-storage",
            "micro-sandbox",
        ],
    ),
    (
        "micro-pipeline",
        &["micro-core", "micro-proto", "micro-schema"],
    ),
    ("micro-mesh", &["micro-core", "micro-pipeline"]),
    (
        "micro-gateway",
        &["micro-core", "micro-schema", "micro-pipeline"],
    ),
    (
        "micro-server",
        &[
            "micro-core",
            "micro-proto",
            "micro-schema",
            "micro-storage",
            "micro-sandbox",
            "micro-auth",
            "micro-registry",
            "micro-runtime",
            "micro-store",
            "micro-config",
            "micro-events",
            "micro-pipeline",
            "micro-mesh",
            "micro-gateway",
        ],
    ),
    ("micro-cli", &["micro-core", "micro-proto", "micro-schema"]),
    ("micro", &["micro-cli", "micro-server", "micro-sandbox"]),
    ("micro-sdk", &[]),
    ("micro-tests", &["micro-sdk"]),
    ("micro-benches", &["micro-proto"]),
    ("xtask", &["micro-core", "micro-tests"]),
];

/// Prints the table and fails on any arrow that it does not allow.
pub(crate) fn run() -> Result<()> {
    let text = shell::output(
        shell::cargo(&["metadata", "--format-version=1", "--no-deps"]).current_dir(shell::root()),
    )?;
    let metadata: Value = serde_json::from_str(&text).context("cargo metadata is not JSON")?;
    let mut wrong = Vec::new();
    for package in metadata["packages"].as_array().into_iter().flatten() {
        let name = package["name"].as_str().unwrap_or_default();
        let Some((_, allowed)) = ALLOWED.iter().find(|(crate_name, _)| *crate_name == name) else {
            wrong.push(format!(
                "{name} has no layer: add it to xtask/src/layers.rs"
            ));
            continue;
        };
        let ours: Vec<&str> = package["dependencies"]
            .as_array()
            .into_iter()
            .flatten()
            // What tests use is no part of the structure.
            .filter(|dependency| {
                dependency["kind"].as_str() != Some("dev") && dependency["path"].is_string()
            })
            .filter_map(|dependency| dependency["name"].as_str())
            .collect();
        println!("{name:<16} → {}", ours.join(" "));
        for used in ours {
            if !allowed.contains(&used) {
                wrong.push(format!("{name} may not use {used}"));
            }
        }
    }
    if wrong.is_empty() {
        Ok(())
    } else {
        bail!("{}", wrong.join("\n"))
    }
}
