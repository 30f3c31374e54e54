//! What an author says about a service: its own `micro.toml`, and a `Procfile`.

use std::{collections::BTreeMap, fs, io::Read as _, path::Path};

use micro_core::ByteSize;
use serde::{Deserialize, Serialize};
use toml::{Table, Value};

use crate::error::Error;

/// Larger than any manifest a person writes.
const MAX_BYTES: u64 = 256 * 1024;

/// The `micro.toml` of a service.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Manifest {
    /// What the service is called when nobody says otherwise.
    pub name: Option<String>,
    /// What to start.
    pub command: Option<Command>,
    /// What to build with, instead of what the language would do.
    pub build: Option<String>,
    /// A serialised descriptor set, below the folder of the service.
    pub descriptor: Option<String>,
    /// What the service speaks, instead of asking it.
    pub protocol: Option<Protocol>,
    /// Environment of the service.
    pub env: BTreeMap<String, String>,
    /// How many copies to run.
    pub instances: Option<u32>,
    /// Bounds below those of the node.
    pub limits: Limits,
}

/// `[limits]` of a `micro.toml`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Memory of one instance.
    pub memory: Option<ByteSize>,
    /// Processes and threads of one instance.
    pub processes: Option<u32>,
    /// Percent of one core.
    pub cpu_percent: Option<u32>,
}

/// A line for the shell, or the words of a command.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum Command {
    /// Run by `/bin/sh -c`.
    Line(String),
    /// Run as it is.
    Words(Vec<String>),
}

impl Command {
    /// The words to execute.
    pub fn argv(&self) -> Vec<String> {
        match self {
            Self::Line(line) => shell(line),
            Self::Words(words) => words.clone(),
        }
    }
}

/// The words that make the shell run `line`.
pub(crate) fn shell(line: &str) -> Vec<String> {
    ["/bin/sh", "-c", line].map(String::from).into()
}

/// What an instance speaks on its port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// gRPC over h2c.
    Grpc,
    /// Plain HTTP/1.1.
    Http,
}

impl Protocol {
    /// `grpc` or `http`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Grpc => "grpc",
            Self::Http => "http",
        }
    }
}

const KEYS: [&str; 8] = [
    "name",
    "command",
    "build",
    "descriptor",
    "protocol",
    "env",
    "instances",
    "limits",
];
const LIMIT_KEYS: [&str; 3] = ["memory", "processes", "cpu_percent"];

/// Reads `micro.toml` in `dir`; `None` when there is none.
///
/// # Errors
/// `Invalid`, naming the line, or the key and the nearest one there is.
pub fn read(dir: &Path) -> Result<Option<Manifest>, Error> {
    let Some(text) = text_of(&dir.join("micro.toml"))? else {
        return Ok(None);
    };
    parse(&text).map(Some)
}

fn parse(text: &str) -> Result<Manifest, Error> {
    let bad = |problem: String| Error::Manifest {
        file: "micro.toml".into(),
        problem,
    };
    let table: Table = toml::from_str(text).map_err(|e| bad(e.to_string().trim_end().into()))?;
    known(&table, &KEYS, "").map_err(bad)?;
    if let Some(Value::Table(limits)) = table.get("limits") {
        known(limits, &LIMIT_KEYS, "limits.").map_err(bad)?;
    }
    let manifest: Manifest = table
        .try_into()
        .map_err(|e: toml::de::Error| bad(e.to_string().trim_end().into()))?;
    for name in manifest.env.keys() {
        if !is_env_name(name) {
            return Err(bad(format!("env.{name:?} is no name of a variable")));
        }
    }
    if let Some(Command::Words(words)) = &manifest.command
        && words.is_empty()
    {
        return Err(bad("command is empty".into()));
    }
    Ok(manifest)
}

fn known(table: &Table, keys: &[&str], prefix: &str) -> Result<(), String> {
    match table.keys().find(|k| !keys.contains(&k.as_str())) {
        None => Ok(()),
        Some(key) => {
            let nearest = keys
                .iter()
                .min_by_key(|k| distance(k, key))
                .copied()
                .unwrap_or_default();
            Err(format!(
                "there is no key {:?}; did you mean {:?}?",
                format!("{prefix}{key}"),
                format!("{prefix}{nearest}")
            ))
        }
    }
}

/// Whether `name` can be a variable of an environment.
pub(crate) fn is_env_name(name: &str) -> bool {
    !name.is_empty() && !name.contains(['=', '\0'])
}

/// The command of the `Procfile` in `dir`: the `web:` line, or the only one there is.
///
/// # Errors
/// `Invalid` when there are several and none is `web`.
pub fn procfile(dir: &Path) -> Result<Option<String>, Error> {
    let Some(text) = text_of(&dir.join("Procfile"))? else {
        return Ok(None);
    };
    parse_procfile(&text).map(Some)
}

fn parse_procfile(text: &str) -> Result<String, Error> {
    let bad = |problem: String| Error::Manifest {
        file: "Procfile".into(),
        problem,
    };
    let mut lines = BTreeMap::new();
    for line in text.lines().map(str::trim) {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let Some((name, command)) = line.split_once(':') else {
            return Err(bad(format!("{line:?} is not of the form `web: command`")));
        };
        lines.insert(name.trim().to_owned(), command.trim().to_owned());
    }
    if let Some(web) = lines.get("web") {
        return Ok(web.clone());
    }
    match (lines.len(), lines.values().next()) {
        (1, Some(only)) => Ok(only.clone()),
        (0, _) => Err(bad(
            "it is empty; write `web: command` with the command that starts the service".into(),
        )),
        _ => Err(bad(format!(
            "it has {} and no `web:` line; call the one to run `web`",
            lines.keys().cloned().collect::<Vec<_>>().join(", ")
        ))),
    }
}

/// The text of a small file; `None` when it does not exist or is no file.
pub(crate) fn text_of(path: &Path) -> Result<Option<String>, Error> {
    // Links of a source tree stay inside of it (source.rs), so following one is safe.
    if !path.is_file() {
        return Ok(None);
    }
    let mut bytes = Vec::new();
    fs::File::open(path)
        .and_then(|f| f.take(MAX_BYTES).read_to_end(&mut bytes))
        .map_err(Error::io("read", path))?;
    Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
}

/// Levenshtein distance; keys are few and short.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.chars().count()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut next = vec![i + 1];
        let mut left = i + 1;
        for ((cb, above_left), above) in b.chars().zip(&row).zip(row.iter().skip(1)) {
            left = (above_left + usize::from(ca != cb))
                .min(above + 1)
                .min(left + 1);
            next.push(left);
        }
        row = next;
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_manifest_is_read() {
        let m = parse(
            "name='x'\ncommand=['a','b']\nbuild='make'\nprotocol='http'\ninstances=2\n[env]\nA='1'\n[limits]\nmemory='64MiB'\ncpu_percent=50\n",
        )
        .unwrap();
        assert_eq!(m.command.unwrap().argv(), ["a", "b"]);
        assert_eq!(m.protocol, Some(Protocol::Http));
        assert_eq!(m.limits.memory, Some(ByteSize(64 << 20)));
        let line = parse("command='a && b'").unwrap().command.unwrap().argv();
        assert_eq!(line, ["/bin/sh", "-c", "a && b"]);
    }

    #[test]
    fn an_unknown_key_names_the_nearest() {
        let text = parse("comand='x'").unwrap_err().to_string();
        assert!(text.contains("\"command\""), "{text}");
        let text = parse("[limits]\nmemmory='1'").unwrap_err().to_string();
        assert!(text.contains("limits.memory"), "{text}");
        assert!(parse("command=[]").is_err());
        assert!(parse("protocol='smtp'").is_err());
        assert!(parse("[env]\n'A=B'='x'").is_err());
    }

    #[test]
    fn the_web_line_of_a_procfile_is_taken() {
        assert_eq!(
            parse_procfile("# x\nworker: w\nweb: python3 app.py\n").unwrap(),
            "python3 app.py"
        );
        assert_eq!(parse_procfile("api: ./run :80").unwrap(), "./run :80");
        assert!(parse_procfile("a: 1\nb: 2").is_err());
        assert!(parse_procfile("").is_err());
        assert!(parse_procfile("nonsense").is_err());
    }
}
