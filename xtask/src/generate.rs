//! Reference pages made from the code, so that they cannot rot.

use std::fmt::Write as _;

use anyhow::{Context as _, Result, bail};
use micro_core::{Kind, settings::KEYS};

use crate::{layers::ALLOWED, shell};

/// Writes the pages, or fails when one differs from what it would be.
pub(crate) fn run(check: bool) -> Result<()> {
    for (path, text) in [
        ("docs/reference/settings.md", settings()?),
        ("docs/reference/errors.md", errors()?),
        ("docs/reference/crates.md", crates()?),
    ] {
        let file = shell::root().join(path);
        if check {
            let now = std::fs::read_to_string(&file).unwrap_or_default();
            if now != text {
                bail!("{path} is out of date: run `cargo xtask generate`");
            }
        } else {
            if let Some(parent) = file.parent() {
                std::fs::create_dir_all(parent)?;
            }
            std::fs::write(&file, text).with_context(|| format!("cannot write {path}"))?;
            println!("wrote {path}");
        }
    }
    Ok(())
}

const NOTE: &str = "<!-- Made by `cargo xtask generate`; edits are lost. -->\n\n";

fn settings() -> Result<String> {
    let mut text = format!("# Settings\n\n{NOTE}");
    text.push_str(
        "Compiled defaults < `micro.toml` < environment < flags. `micro server --print-settings` shows each \
         effective value and where it came from. The file is `/etc/micro/micro.toml`, or what \
         `--settings FILE` names.\n\n| in `micro.toml` | flag | environment | default | meaning |\n|---|---|---|---|---|\n",
    );
    for key in KEYS {
        let default = if key.default.is_empty() {
            "–".into()
        } else {
            format!("`{}`", key.default)
        };
        writeln!(
            text,
            "| `{}` | `--{}` | `{}` | {default} | {} |",
            key.path,
            key.flag(),
            key.env(),
            key.doc
        )?;
    }
    Ok(text)
}

fn errors() -> Result<String> {
    let mut text = format!("# Errors\n\n{NOTE}");
    text.push_str(
        "An error is the same JSON object everywhere, `{\"id\",\"code\",\"detail\",\"status\"}`: in an HTTP body and \
         in `grpc-message`. `code` is an HTTP status.\n\n| kind | code and HTTP status | gRPC status |\n|---|---|---|\n",
    );
    for kind in Kind::ALL {
        writeln!(text, "| {kind:?} | {} | {} |", kind.http(), kind.grpc())?;
    }
    Ok(text)
}

fn crates() -> Result<String> {
    let mut text = format!("# Crates\n\n{NOTE}");
    text.push_str("One folder in `src/` is one crate. `cargo xtask layers` fails on any arrow that is not here.\n\n");
    text.push_str("| crate | may use |\n|---|---|\n");
    for (name, allowed) in ALLOWED {
        let list = if allowed.is_empty() {
            "nothing of ours".into()
        } else {
            format!("`{}`", allowed.join("` `"))
        };
        writeln!(text, "| `{name}` | {list} |")?;
    }
    Ok(text)
}
