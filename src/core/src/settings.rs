//! The boot file of the daemon and its overrides: compiled defaults < `micro.toml` <
//! `MICRO_SERVER_*` < flags. Read once. (Dynamic *config* is another thing.)
//!
//! [`KEYS`] (`settings/keys.rs`) is the single list of what exists; flags, environment names, `--print-settings` and the
//! reference page are made from it.

use std::{
    collections::BTreeMap,
    fmt,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use toml::{Table, Value};

use crate::{
    fault::{Fault, Kind},
    size::{ByteSize, Span},
};

mod keys;

pub use keys::{KEYS, Key, Shape};

/// Effective settings of one server.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Doors, state and identity of the node.
    pub server: Server,
    /// What build jobs may see and use.
    pub build: Build,
    /// Default bounds of services and requests.
    pub limits: Limits,
    /// Log of the daemon itself.
    pub log: Log,
}

/// `[server]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Server {
    /// See [`KEYS`].
    pub state_dir: PathBuf,
    /// See [`KEYS`].
    pub gateway_address: SocketAddr,
    /// See [`KEYS`].
    pub proxy_address: SocketAddr,
    /// See [`KEYS`].
    pub mesh_address: SocketAddr,
    /// See [`KEYS`].
    pub broker_address: SocketAddr,
    /// See [`KEYS`].
    pub registry_address: SocketAddr,
    /// See [`KEYS`].
    pub admin_address: SocketAddr,
    /// See [`KEYS`].
    pub domain: String,
    /// See [`KEYS`].
    pub isolation: Isolation,
    /// See [`KEYS`].
    pub default_account: DefaultAccount,
    /// See [`KEYS`].
    pub user: String,
}

/// `[build]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Build {
    /// See [`KEYS`].
    pub env: Vec<String>,
    /// See [`KEYS`].
    pub files: Vec<PathBuf>,
    /// See [`KEYS`].
    pub paths: Vec<PathBuf>,
    /// See [`KEYS`].
    pub timeout: Span,
    /// See [`KEYS`].
    pub memory: ByteSize,
    /// See [`KEYS`].
    pub processes: u32,
}

/// `[limits]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// See [`KEYS`].
    pub memory: ByteSize,
    /// See [`KEYS`].
    pub processes: u32,
    /// See [`KEYS`].
    pub cpu_percent: u32,
    /// See [`KEYS`].
    pub upload: ByteSize,
    /// See [`KEYS`].
    pub upload_files: u64,
    /// See [`KEYS`].
    pub body: ByteSize,
    /// See [`KEYS`].
    pub state: ByteSize,
    /// See [`KEYS`].
    pub start_timeout: Span,
    /// See [`KEYS`].
    pub log_file: ByteSize,
}

/// `[log]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Log {
    /// See [`KEYS`].
    pub level: String,
    /// See [`KEYS`].
    pub format: LogFormat,
}

/// Whether a service may run without all its fences.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Isolation {
    /// Refuse to run a service on a host that lacks a fence.
    Required,
    /// Run it, and say at start what is missing.
    BestEffort,
}

/// Whether the account `admin`/`micro` exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DefaultAccount {
    /// Only while every door listens on loopback.
    Auto,
    /// Never: a one-time login token makes the first account.
    Never,
}

/// How the daemon writes its log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LogFormat {
    /// Lines for people.
    Text,
    /// One JSON object per line.
    Json,
}

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Compiled in.
    Default,
    /// A settings file.
    File(PathBuf),
    /// An environment variable.
    Env(String),
    /// A flag.
    Flag(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Env(name) => write!(f, "{name}"),
            Self::Flag(name) => write!(f, "--{name}"),
        }
    }
}

/// Why settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file named on the command line cannot be read.
    #[error("cannot read settings from {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Not TOML.
    #[error("{path}: {source}")]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Line, column and reason.
        #[source]
        source: Box<toml::de::Error>,
    },
    /// A key that does not exist.
    #[error("{path}: there is no setting {key:?}; did you mean {nearest:?}?")]
    Unknown {
        /// The file.
        path: PathBuf,
        /// What was written.
        key: String,
        /// The closest existing key.
        nearest: &'static str,
    },
    /// A value of the wrong form.
    #[error("{key} (from {origin}): {reason}")]
    Value {
        /// The setting.
        key: String,
        /// Where the value came from.
        origin: Origin,
        /// What is wrong.
        reason: String,
    },
}

impl Fault for Error {
    fn kind(&self) -> Kind {
        Kind::Invalid
    }
}

/// Settings with the origin of every value.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The effective values.
    pub settings: Settings,
    /// Effective text and origin, by key.
    pub origins: BTreeMap<&'static str, (String, Origin)>,
}

/// Merges the layers. `file` is read when given, else `/etc/micro/micro.toml` if it exists; `env`
/// looks a variable up; `flags` are pairs of flag name and text.
///
/// # Errors
/// `Invalid`, naming the file or variable, the key and what is wrong.
pub fn load(
    file: Option<&Path>,
    env: impl Fn(&str) -> Option<String>,
    flags: &BTreeMap<String, String>,
) -> Result<Loaded, Error> {
    let mut values: BTreeMap<&'static str, (Value, Origin)> = BTreeMap::new();
    for key in KEYS {
        let text = if key.path == "server.state_dir" {
            default_state_dir(&env)
        } else {
            key.default.into()
        };
        values.insert(
            key.path,
            (parse(key, &text, &Origin::Default)?, Origin::Default),
        );
    }
    let (path, must_exist) =
        file.map_or((Path::new("/etc/micro/micro.toml"), false), |f| (f, true));
    match std::fs::read_to_string(path) {
        Ok(text) => merge_file(&mut values, path, &text)?,
        Err(e) if must_exist || e.kind() != std::io::ErrorKind::NotFound => {
            return Err(Error::Read {
                path: path.into(),
                source: e,
            });
        }
        Err(_) => {}
    }
    for key in KEYS {
        if let Some(text) = env(&key.env()) {
            let origin = Origin::Env(key.env());
            values.insert(key.path, (parse(key, &text, &origin)?, origin));
        }
        if let Some(text) = flags.get(&key.flag()) {
            let origin = Origin::Flag(key.flag());
            values.insert(key.path, (parse(key, text, &origin)?, origin));
        }
    }
    Ok(Loaded {
        settings: typed(&values)?,
        origins: values
            .into_iter()
            .map(|(k, (v, o))| (k, (show(&v), o)))
            .collect(),
    })
}

fn default_state_dir(env: &impl Fn(&str) -> Option<String>) -> String {
    match (env("HOME"), is_root()) {
        (Some(home), false) => format!("{home}/.micro/server"),
        _ => "/var/lib/micro".into(),
    }
}

fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt as _;
    std::fs::metadata("/proc/self").is_ok_and(|m| m.uid() == 0)
}

fn parse(key: &Key, text: &str, origin: &Origin) -> Result<Value, Error> {
    Ok(match key.shape {
        Shape::Text => Value::String(text.into()),
        Shape::Integer => Value::Integer(text.trim().parse().map_err(|_| Error::Value {
            key: key.path.into(),
            origin: origin.clone(),
            reason: format!("{text:?} is not a whole number"),
        })?),
        Shape::List => Value::Array(
            text.split(',')
                .map(str::trim)
                .filter(|t| !t.is_empty())
                .map(|t| Value::String(t.into()))
                .collect(),
        ),
    })
}

fn merge_file(
    values: &mut BTreeMap<&'static str, (Value, Origin)>,
    path: &Path,
    text: &str,
) -> Result<(), Error> {
    let table: Table = toml::from_str(text).map_err(|e| Error::Syntax {
        path: path.into(),
        source: Box::new(e),
    })?;
    for (section, inner) in table {
        let Value::Table(inner) = inner else {
            return Err(unknown(path, section));
        };
        for (name, value) in inner {
            let full = format!("{section}.{name}");
            let Some(key) = KEYS.iter().find(|k| k.path == full) else {
                return Err(unknown(path, full));
            };
            values.insert(key.path, (value, Origin::File(path.into())));
        }
    }
    Ok(())
}

fn unknown(path: &Path, key: String) -> Error {
    let nearest = KEYS
        .iter()
        .min_by_key(|k| distance(k.path, &key))
        .map_or("", |k| k.path);
    Error::Unknown {
        path: path.into(),
        key,
        nearest,
    }
}

/// Levenshtein distance; settings are few and short.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.chars().count()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut next = vec![i + 1];
        for (j, cb) in b.chars().enumerate() {
            let at = |r: &[usize], k: usize| r.get(k).copied().unwrap_or(usize::MAX - 1);
            next.push(
                (at(&row, j) + usize::from(ca != cb))
                    .min(at(&row, j + 1) + 1)
                    .min(at(&next, j) + 1),
            );
        }
        row = next;
    }
    row.last().copied().unwrap_or(0)
}

fn show(value: &Value) -> String {
    match value {
        Value::String(s) => s.clone(),
        Value::Array(items) => items.iter().map(show).collect::<Vec<_>>().join(","),
        other => other.to_string(),
    }
}

fn typed(values: &BTreeMap<&'static str, (Value, Origin)>) -> Result<Settings, Error> {
    let mut root = Table::new();
    for (path, (value, _)) in values {
        let (section, name) = path.split_once('.').unwrap_or((path, ""));
        if let Value::Table(inner) = root
            .entry(section)
            .or_insert_with(|| Value::Table(Table::new()))
        {
            inner.insert(name.into(), value.clone());
        }
    }
    root.try_into::<Settings>().map_err(|all| {
        // Find the one value that is wrong, so that the message can say where it came from.
        for (path, (value, origin)) in values {
            let mut only = defaults();
            let (section, name) = path.split_once('.').unwrap_or((path, ""));
            if let Some(Value::Table(inner)) = only.get_mut(section) {
                inner.insert(name.into(), value.clone());
            }
            if let Err(e) = only.try_into::<Settings>() {
                let reason = e.message().to_owned();
                return Error::Value {
                    key: (*path).into(),
                    origin: origin.clone(),
                    reason,
                };
            }
        }
        Error::Value {
            key: "settings".into(),
            origin: Origin::Default,
            reason: all.message().into(),
        }
    })
}

fn defaults() -> Table {
    let mut root = Table::new();
    for key in KEYS {
        let (section, name) = key.path.split_once('.').unwrap_or((key.path, ""));
        if let (Value::Table(inner), Ok(value)) = (
            root.entry(section)
                .or_insert_with(|| Value::Table(Table::new())),
            parse(key, key.default, &Origin::Default),
        ) {
            inner.insert(name.into(), value);
        }
    }
    root
}

#[cfg(test)]
mod tests;
