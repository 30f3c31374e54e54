//! The operator's `[build]` settings, as a job sees them: variables and files for package registries.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use micro_sandbox::Mount;

use crate::{instance::host, plan::quote};

/// What builds see of the operator's settings.
pub(super) struct Configured {
    pub(super) env: BTreeMap<String, String>,
    pub(super) mounts: Vec<Mount>,
    /// Commands before the job's own.
    pub(super) prelude: String,
    /// Listed files that do not exist.
    pub(super) missing: Vec<PathBuf>,
}

/// Reads `[build] env` and `files`. Well-known files are also named to the tools that read them.
pub(super) fn configured(
    names: &[String],
    files: &[PathBuf],
    node: impl Fn(&str) -> Option<String>,
) -> Configured {
    let mut all = Configured {
        env: BTreeMap::new(),
        mounts: Vec::new(),
        prelude: String::from(
            "[ -z \"${CARGO_HOME:-}\" ] || { mkdir -p \"$CARGO_HOME\"; rm -f \"$CARGO_HOME/config.toml\"; }\n",
        ),
        missing: Vec::new(),
    };
    for name in names {
        if let Some(value) = node(name) {
            all.env.insert(name.clone(), value);
        }
    }
    for file in files {
        // What the node may not see, the supervisor may.
        if fs::symlink_metadata(file).is_err_and(|e| e.kind() == std::io::ErrorKind::NotFound) {
            all.missing.push(file.clone());
            continue;
        }
        all.mounts.push(host(file));
        let path = file.to_string_lossy().into_owned();
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        let parent = file
            .parent()
            .and_then(Path::file_name)
            .unwrap_or_default()
            .to_string_lossy();
        let variable = match (&*name, &*parent) {
            (".npmrc" | "npmrc", _) => Some("NPM_CONFIG_USERCONFIG"),
            ("pip.conf" | "pip.ini", _) => Some("PIP_CONFIG_FILE"),
            ("env", "go") | ("go.env", _) => Some("GOENV"),
            (".netrc", _) => Some("NETRC"),
            (".gitconfig", _) => Some("GIT_CONFIG_GLOBAL"),
            ("config.toml" | "config", ".cargo" | "cargo") => {
                all.prelude.push_str(&format!(
                    "[ -z \"${{CARGO_HOME:-}}\" ] || cp {} \"$CARGO_HOME/config.toml\"\n",
                    quote(&path)
                ));
                None
            }
            _ => None,
        };
        if let Some(variable) = variable {
            all.env.entry(variable.to_owned()).or_insert(path);
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_listed_variables_and_files_reach_a_build() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str| {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, "").unwrap();
            path
        };
        let files = [
            file(".npmrc"),
            file("pip.conf"),
            file(".cargo/config.toml"),
            file("go/env"),
            file("ca.pem"),
            dir.path().join("missing"),
        ];
        let node = |name: &str| Some(format!("value of {name}"));
        let seen = configured(&["HTTPS_PROXY".into()], &files, node);
        assert_eq!(seen.env["HTTPS_PROXY"], "value of HTTPS_PROXY");
        assert_eq!(
            seen.env["NPM_CONFIG_USERCONFIG"],
            files[0].to_str().unwrap()
        );
        assert_eq!(seen.env["PIP_CONFIG_FILE"], files[1].to_str().unwrap());
        assert_eq!(seen.env["GOENV"], files[3].to_str().unwrap());
        assert_eq!(seen.env.len(), 4);
        assert!(seen.prelude.contains(".cargo/config.toml"));
        assert_eq!(seen.mounts.len(), 5);
        assert!(seen.mounts.iter().all(|m| !m.writable));
        assert_eq!(seen.missing, [dir.path().join("missing")]);
    }
}
