//! What a build job runs for each language, and what a release then starts.
//!
//! A job sees the source read-only at `/source`, works on a copy at `/build/src` and leaves its
//! programs in `/build/out/bin`; `/cache` is shared by all builds of a namespace. [`Plan`] says what
//! to run before anything runs; [`start`] looks at the finished tree, because a build may make the
//! very file that is to be started.

mod start;

use std::path::Path;

use serde::Deserialize;
use toml::Table;

use crate::{
    detect::{Detected, Language},
    error::Error,
    manifest::text_of,
};

pub use start::{Start, start};

/// Where a release is seen by its instances.
pub(crate) const APP: &str = "/app";
/// Where installed Python packages go, below the release.
const SITE_PACKAGES: &str = ".micro/site-packages";
/// Where built programs go, below the release.
pub(crate) const BIN: &str = ".micro/bin";

/// What to do with a source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The job, when there is something to build.
    pub job: Option<Job>,
    /// What of source and job becomes the release.
    pub collect: Collect,
    /// The toolchain that the service needs while it runs.
    pub runs_with: Option<Tool>,
}

/// A build job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// For `/bin/sh`.
    pub script: String,
    /// Toolchains it needs; without them it is not started.
    pub needs: Vec<Tool>,
    /// Toolchains it may use when they are there.
    pub may_use: Vec<Tool>,
    /// Environment besides what all jobs get.
    pub env: Vec<(String, String)>,
}

/// What becomes the release.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Collect {
    /// The whole source as it was sent.
    Source,
    /// The folder with the program of this name.
    Program(String),
    /// The whole tree that the job worked on.
    Tree,
    /// The job's one program, and the files beside its source that it may read while it runs.
    Built {
        /// The name that decides among several programs, besides the service's.
        package: Option<String>,
    },
}

/// A toolchain by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tool {
    /// The Go tools.
    Go,
    /// Cargo and rustc.
    Rust,
    /// node and npm.
    Node,
    /// python3 and pip.
    Python,
}

impl Tool {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Go, Self::Rust, Self::Node, Self::Python];

    /// As the sandbox calls it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Go => "go",
            Self::Rust => "rust",
            Self::Node => "node",
            Self::Python => "python",
        }
    }

    /// The tool of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|t| t.name() == name)
    }

    /// Language, program and Debian packages, for [`Error::NoToolchain`].
    pub const fn words(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Self::Go => ("Go", "go", "golang-go"),
            Self::Rust => ("Rust", "cargo", "cargo"),
            Self::Node => ("Node.js", "npm", "nodejs npm"),
            Self::Python => ("Python", "python3", "python3 python3-pip"),
        }
    }
}

/// Decides what to do with `detected` below `root`.
///
/// # Errors
/// `Invalid` when a file of the source cannot be read.
pub fn plan(root: &Path, detected: &Detected) -> Result<Plan, Error> {
    let dir = root.join(&detected.folder);
    if let Some(line) = &detected.manifest.build {
        return Ok(custom(&detected.folder, line, detected.language.as_ref()));
    }
    Ok(match &detected.language {
        None => Plan {
            job: None,
            collect: Collect::Source,
            runs_with: None,
        },
        Some(Language::Binary(name)) => Plan {
            job: None,
            collect: Collect::Program(name.clone()),
            runs_with: None,
        },
        Some(Language::Go { module }) => go(root, &detected.folder, module),
        Some(Language::Rust) => rust(root, &detected.folder)?,
        Some(Language::Node) => node(&dir, &detected.folder)?,
        Some(Language::Python) => python(&dir, &detected.folder),
    })
}

/// `text` as one word of the shell.
pub(crate) fn quote(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

fn enter(folder: &Path) -> String {
    format!(
        "cd {}",
        quote(&Path::new("/build/src").join(folder).to_string_lossy())
    )
}

/// Copies the source to where the job may write. Not `cp -a`: the copies must be newer than what
/// earlier builds left in a shared target directory, or Cargo takes another tree's results for
/// those of this one.
const COPY: &str = "set -eu\numask 022\nmkdir -p /build/src /build/out/bin /build/home /build/tmp\ncp -RP /source/. /build/src\nchmod -R u+rwX /build/src\n";

fn go(root: &Path, folder: &Path, module: &Path) -> Plan {
    let modules = if root.join(module).join("vendor/modules.txt").is_file() {
        "vendor"
    } else {
        // A go.sum that misses lines is completed in the copy instead of failing the build.
        "mod"
    };
    let script = format!(
        "{COPY}{}\ngo build -mod={modules} -buildvcs=false -trimpath -o /build/out/bin/ .\n",
        enter(folder)
    );
    Plan {
        job: Some(Job {
            script,
            needs: vec![Tool::Go],
            may_use: Vec::new(),
            env: pairs(&[
                ("GOPATH", "/cache/go"),
                ("GOMODCACHE", "/cache/go/mod"),
                ("GOCACHE", "/cache/go-build"),
                ("GOTELEMETRY", "off"),
            ]),
        }),
        collect: Collect::Built { package: None },
        runs_with: None,
    }
}

fn rust(root: &Path, folder: &Path) -> Result<Plan, Error> {
    let locked = folder
        .ancestors()
        .any(|a| root.join(a).join("Cargo.lock").is_file());
    let locked = if locked { " --locked" } else { "" };
    // The messages of cargo name the programs of the packages that were asked for, and only those;
    // the target directory is shared and holds everybody's.
    let script = format!(
        "{COPY}{}\ncargo build --release{locked} --message-format=json-render-diagnostics > /build/out/cargo.json\n\
         sed -n '/\"kind\":\\[\"bin\"\\]/s/.*\"executable\":\"\\([^\"]*\\)\".*/\\1/p' /build/out/cargo.json |\n\
         while IFS= read -r program; do cp \"$program\" /build/out/bin/; done\n",
        enter(folder)
    );
    let mut env = pairs(&[
        ("CARGO_TARGET_DIR", "/cache/cargo-target"),
        ("CARGO_INCREMENTAL", "0"),
        ("CARGO_TERM_COLOR", "never"),
    ]);
    env.extend(cargo_home());
    Ok(Plan {
        job: Some(Job {
            script,
            needs: vec![Tool::Rust],
            // Some build scripts call Python.
            may_use: vec![Tool::Python],
            env,
        }),
        collect: Collect::Built {
            package: cargo_package(&root.join(folder))?,
        },
        runs_with: None,
    })
}

fn cargo_home() -> Vec<(String, String)> {
    pairs(&[("CARGO_HOME", "/cache/cargo")])
}

/// The name of the package in `dir`, if its `Cargo.toml` is one.
fn cargo_package(dir: &Path) -> Result<Option<String>, Error> {
    let Some(text) = text_of(&dir.join("Cargo.toml"))? else {
        return Ok(None);
    };
    let table: Table = toml::from_str(&text).unwrap_or_default();
    Ok(table
        .get("package")
        .and_then(|p| p.get("name"))
        .and_then(|n| n.as_str())
        .map(str::to_owned))
}

/// What we read of a `package.json`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Package {
    main: Option<String>,
    scripts: std::collections::BTreeMap<String, String>,
    dependencies: serde_json::Map<String, serde_json::Value>,
    dev_dependencies: serde_json::Map<String, serde_json::Value>,
    optional_dependencies: serde_json::Map<String, serde_json::Value>,
}

fn package(dir: &Path) -> Result<Package, Error> {
    match text_of(&dir.join("package.json"))? {
        None => Ok(Package::default()),
        Some(text) => serde_json::from_str(&text).map_err(|e| Error::Manifest {
            file: "package.json".into(),
            problem: e.to_string(),
        }),
    }
}

fn node(dir: &Path, folder: &Path) -> Result<Plan, Error> {
    let package = package(dir)?;
    let builds = package.scripts.contains_key("build");
    let hooks = ["preinstall", "install", "postinstall", "prepare"]
        .iter()
        .any(|h| package.scripts.contains_key(*h));
    let depends = !package.dependencies.is_empty()
        || !package.optional_dependencies.is_empty()
        || (builds && !package.dev_dependencies.is_empty());
    if !builds && !depends && !hooks {
        return Ok(Plan {
            job: None,
            collect: Collect::Source,
            runs_with: Some(Tool::Node),
        });
    }
    let locked = ["package-lock.json", "npm-shrinkwrap.json"]
        .iter()
        .any(|f| dir.join(f).is_file());
    let install = if locked { "ci" } else { "install" };
    let omit = if builds { "" } else { " --omit=dev" };
    let script = format!(
        "{COPY}{}\nnpm {install} --no-audit --no-fund{omit}\nnpm run build --if-present\n",
        enter(folder)
    );
    Ok(Plan {
        job: Some(Job {
            script,
            needs: vec![Tool::Node],
            // node-gyp is written in Python.
            may_use: vec![Tool::Python],
            env: npm_env(),
        }),
        collect: Collect::Tree,
        runs_with: Some(Tool::Node),
    })
}

fn npm_env() -> Vec<(String, String)> {
    pairs(&[
        ("npm_config_cache", "/cache/npm"),
        ("npm_config_update_notifier", "false"),
        ("npm_config_progress", "false"),
    ])
}

fn pip_env() -> Vec<(String, String)> {
    pairs(&[
        ("PIP_CACHE_DIR", "/cache/pip"),
        ("PIP_DISABLE_PIP_VERSION_CHECK", "1"),
        ("PIP_NO_INPUT", "1"),
        ("PIP_PROGRESS_BAR", "off"),
        ("PIP_ROOT_USER_ACTION", "ignore"),
    ])
}

fn python(dir: &Path, folder: &Path) -> Plan {
    let what = if dir.join("requirements.txt").is_file() {
        Some("-r requirements.txt")
    } else if dir.join("pyproject.toml").is_file() {
        Some(".")
    } else {
        None
    };
    let job = what.map(|what| Job {
        script: format!(
            "{COPY}{}\npython3 -m pip install --no-compile --target /build/src/{SITE_PACKAGES} {what}\n",
            enter(folder)
        ),
        needs: vec![Tool::Python],
        // Packages without a wheel may need a compiler of Rust.
        may_use: vec![Tool::Rust],
        env: [pip_env(), cargo_home()].concat(),
    });
    Plan {
        collect: if job.is_some() {
            Collect::Tree
        } else {
            Collect::Source
        },
        job,
        runs_with: Some(Tool::Python),
    }
}

/// A `build` line of `micro.toml`: it may use every toolchain, and its whole tree is the release.
fn custom(folder: &Path, line: &str, language: Option<&Language>) -> Plan {
    let mut env = pairs(&[
        ("GOPATH", "/cache/go"),
        ("GOMODCACHE", "/cache/go/mod"),
        ("GOCACHE", "/cache/go-build"),
        ("GOFLAGS", "-buildvcs=false"),
        ("CARGO_TERM_COLOR", "never"),
    ]);
    env.extend([cargo_home(), npm_env(), pip_env()].concat());
    Plan {
        job: Some(Job {
            script: format!("{COPY}{}\n/bin/sh -ec {}\n", enter(folder), quote(line)),
            needs: Vec::new(),
            may_use: Tool::ALL.into(),
            env,
        }),
        collect: Collect::Tree,
        runs_with: match language {
            Some(Language::Node) => Some(Tool::Node),
            Some(Language::Python) => Some(Tool::Python),
            _ => None,
        },
    }
}

fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
    list.iter()
        .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
        .collect()
}

#[cfg(test)]
mod tests;
