//! The boot file of the daemon and its overrides: compiled defaults < `micro.toml` <
//! `MICRO_SERVER_*` < flags. Read once. (Dynamic *config* is another thing.)
//!
//! [`KEYS`] is the single list of what exists; flags, environment names, `--print-settings` and the
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

/// What a key's text on the command line or in the environment becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// A text; sizes and times included.
    Text,
    /// A whole number.
    Integer,
    /// A comma-separated list of texts.
    List,
}

/// One setting.
#[derive(Debug, Clone, Copy)]
pub struct Key {
    /// Section and name, such as `server.gateway_address`.
    pub path: &'static str,
    /// How its text is read.
    pub shape: Shape,
    /// The compiled default, in the text form.
    pub default: &'static str,
    /// One sentence for help and reference.
    pub doc: &'static str,
}

impl Key {
    /// The flag, such as `gateway-address` or `build-timeout`.
    pub fn flag(&self) -> String {
        self.path
            .trim_start_matches("server.")
            .replace(['.', '_'], "-")
    }

    /// The environment variable, such as `MICRO_SERVER_GATEWAY_ADDRESS`.
    pub fn env(&self) -> String {
        format!(
            "MICRO_SERVER_{}",
            self.flag().replace('-', "_").to_uppercase()
        )
    }
}

const fn key(path: &'static str, shape: Shape, default: &'static str, doc: &'static str) -> Key {
    Key {
        path,
        shape,
        default,
        doc,
    }
}

/// Every setting there is.
pub const KEYS: &[Key] = &[
    key(
        "server.state_dir",
        Shape::Text,
        "",
        "Where everything is kept; /var/lib/micro for root, else ~/.micro/server.",
    ),
    key(
        "server.gateway_address",
        Shape::Text,
        "127.0.0.1:8080",
        "HTTP gateway: JSON to services, and plain HTTP services.",
    ),
    key(
        "server.proxy_address",
        Shape::Text,
        "127.0.0.1:8081",
        "Identity proxy: gRPC for the CLI, SDKs and other machines.",
    ),
    key(
        "server.mesh_address",
        Shape::Text,
        "127.0.0.1:8443",
        "gRPC between services (h2c). Keep it on loopback.",
    ),
    key(
        "server.broker_address",
        Shape::Text,
        "127.0.0.1:8003",
        "The mesh once more, where Micro's Go library looks for the broker.",
    ),
    key(
        "server.registry_address",
        Shape::Text,
        "127.0.0.1:8000",
        "The mesh once more, where Micro's Go library looks for the registry.",
    ),
    key(
        "server.admin_address",
        Shape::Text,
        "127.0.0.1:8089",
        "Liveness, readiness and metrics for the operator.",
    ),
    key(
        "server.domain",
        Shape::Text,
        "localhost",
        "HTTP services answer at <name>.<namespace>.<domain>.",
    ),
    key(
        "server.isolation",
        Shape::Text,
        "best-effort",
        "required: refuse to run a service without all its fences; best-effort: run it and say what is missing.",
    ),
    key(
        "server.default_account",
        Shape::Text,
        "auto",
        "auto: admin/micro exists while every door is on loopback; never: a one-time token makes the first account.",
    ),
    key(
        "server.user",
        Shape::Text,
        "micro",
        "The user the node process runs as when the server is started by root.",
    ),
    key(
        "build.env",
        Shape::List,
        "",
        "Environment variables of the server that build jobs may see: proxies, mirrors, tokens of package registries.",
    ),
    key(
        "build.files",
        Shape::List,
        "",
        "Files that build jobs may read at the same path: pip.conf, .npmrc, CA bundles, cargo's config.toml.",
    ),
    key(
        "build.paths",
        Shape::List,
        "",
        "More directories that build jobs and services may read, such as toolchains outside the usual places.",
    ),
    key(
        "build.timeout",
        Shape::Text,
        "20m",
        "How long one build may take.",
    ),
    key(
        "build.memory",
        Shape::Text,
        "3GiB",
        "Memory of one build job.",
    ),
    key(
        "build.processes",
        Shape::Integer,
        "1024",
        "Processes and threads of one build job.",
    ),
    key(
        "limits.memory",
        Shape::Text,
        "512MiB",
        "Memory of one instance, unless its micro.toml says less.",
    ),
    key(
        "limits.processes",
        Shape::Integer,
        "512",
        "Processes and threads of one instance.",
    ),
    key(
        "limits.cpu_percent",
        Shape::Integer,
        "0",
        "CPU of one instance in percent of one core; 0 for no limit.",
    ),
    key(
        "limits.upload",
        Shape::Text,
        "512MiB",
        "Largest source tree or binary that may be uploaded.",
    ),
    key(
        "limits.upload_files",
        Shape::Integer,
        "50000",
        "Most files one upload may hold.",
    ),
    key(
        "limits.body",
        Shape::Text,
        "32MiB",
        "Largest request body that the gateway turns into a message.",
    ),
    key(
        "limits.start_timeout",
        Shape::Text,
        "30s",
        "How long a new instance may take until it serves.",
    ),
    key(
        "limits.log_file",
        Shape::Text,
        "8MiB",
        "Size at which a service's log rotates; three files are kept.",
    ),
    key(
        "log.level",
        Shape::Text,
        "info",
        "error, warn, info, debug or trace; or a tracing filter.",
    ),
    key("log.format", Shape::Text, "text", "text or json."),
];

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
mod tests {
    use super::*;

    fn none(_: &str) -> Option<String> {
        None
    }

    fn file(text: &str) -> (PathBuf, impl Drop) {
        struct Remove(PathBuf);
        impl Drop for Remove {
            fn drop(&mut self) {
                let _ = std::fs::remove_file(&self.0);
            }
        }
        static N: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let n = N.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let path =
            std::env::temp_dir().join(format!("micro-settings-{}-{n}.toml", std::process::id()));
        std::fs::write(&path, text).unwrap();
        (path.clone(), Remove(path))
    }

    #[test]
    fn later_layers_win_and_say_so() {
        let (path, _gone) = file(
            "[server]\ngateway_address = '127.0.0.1:1'\nproxy_address = '127.0.0.1:2'\ndomain = 'a.test'\n[build]\nenv = ['A', 'B']\n",
        );
        let env = |name: &str| match name {
            "MICRO_SERVER_PROXY_ADDRESS" => Some("127.0.0.1:3".into()),
            "MICRO_SERVER_DOMAIN" => Some("b.test".into()),
            _ => None,
        };
        let flags = BTreeMap::from([("domain".to_owned(), "c.test".to_owned())]);
        let loaded = load(Some(&path), env, &flags).unwrap();
        assert_eq!(loaded.settings.server.gateway_address.port(), 1);
        assert_eq!(loaded.settings.server.proxy_address.port(), 3);
        assert_eq!(loaded.settings.server.domain, "c.test");
        assert_eq!(loaded.settings.build.env, ["A", "B"]);
        assert_eq!(
            loaded.origins["server.gateway_address"].1,
            Origin::File(path)
        );
        assert_eq!(
            loaded.origins["server.proxy_address"].1,
            Origin::Env("MICRO_SERVER_PROXY_ADDRESS".into())
        );
        assert_eq!(
            loaded.origins["server.domain"].1,
            Origin::Flag("domain".into())
        );
        assert_eq!(
            loaded.origins["limits.memory"],
            ("512MiB".into(), Origin::Default)
        );
    }

    #[test]
    fn an_unknown_key_names_the_nearest_one() {
        let (path, _gone) = file("[server]\ngateway_adress = 'x'\n");
        let text = load(Some(&path), none, &BTreeMap::new())
            .unwrap_err()
            .to_string();
        assert!(text.contains("server.gateway_address"), "{text}");
    }

    #[test]
    fn a_wrong_value_names_its_key_and_origin() {
        let flags = BTreeMap::from([("gateway-address".to_owned(), "nowhere".to_owned())]);
        let text = load(None, none, &flags).unwrap_err().to_string();
        assert!(
            text.contains("server.gateway_address") && text.contains("--gateway-address"),
            "{text}"
        );
        let flags = BTreeMap::from([("isolation".to_owned(), "maybe".to_owned())]);
        let text = load(None, none, &flags).unwrap_err().to_string();
        assert!(
            text.contains("required") && text.contains("best-effort"),
            "{text}"
        );
    }

    #[test]
    fn every_default_is_valid() {
        let gone = { file("").0.clone() };
        assert!(
            load(Some(&gone), none, &BTreeMap::new()).is_err(),
            "the file is gone already"
        );
        let (path, _gone) = file("");
        assert!(load(Some(&path), none, &BTreeMap::new()).is_ok());
    }
}
