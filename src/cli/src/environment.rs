//! Environments: names for the servers a person works with. `local` is always there.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    config_file::ConfigFile,
    error::{Error, Result},
};

/// One server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Environment {
    /// What people call it.
    #[serde(rename = "Name", default)]
    pub(crate) name: String,
    /// Where its identity proxy listens; empty for none.
    #[serde(rename = "ProxyAddress", default)]
    pub(crate) address: String,
    /// Free text.
    #[serde(rename = "Description", default)]
    pub(crate) description: String,
}

/// The environment that exists without being added.
pub(crate) const LOCAL: &str = "local";

fn local() -> Environment {
    Environment {
        name: LOCAL.into(),
        address: "127.0.0.1:8081".into(),
        description: "Local running Micro Server".into(),
    }
}

/// All environments by name.
///
/// # Errors
/// When the `envs` setting is damaged.
pub(crate) fn all(config: &ConfigFile) -> Result<BTreeMap<String, Environment>> {
    let mut envs = match config.get("envs") {
        None => BTreeMap::new(),
        Some(text) => {
            serde_json::from_str::<BTreeMap<String, Environment>>(&text).map_err(|e| {
                Error::Damaged {
                    path: config.path().into(),
                    reason: format!("its `envs` cannot be read: {e}"),
                }
            })?
        }
    };
    for (name, env) in &mut envs {
        env.name.clone_from(name);
    }
    envs.entry(LOCAL.into()).or_insert_with(local);
    Ok(envs)
}

/// The name in force: a flag or variable, else the one that was set.
pub(crate) fn current_name(config: &ConfigFile, chosen: Option<&str>) -> String {
    chosen
        .filter(|name| !name.is_empty())
        .map(str::to_owned)
        .or_else(|| config.get("env"))
        .unwrap_or_else(|| LOCAL.into())
}

/// The environment in force.
///
/// # Errors
/// When there is none of that name, or it has no address.
pub(crate) fn current(config: &ConfigFile, chosen: Option<&str>) -> Result<Environment> {
    let name = current_name(config, chosen);
    all(config)?.remove(&name).ok_or_else(|| {
        Error::failed(format!(
            "Env {name:?} not found. See `micro env` for available environments."
        ))
    })
}

/// Adds or replaces an environment.
///
/// # Errors
/// When the name cannot be one, or the file cannot be written.
pub(crate) fn add(config: &mut ConfigFile, env: Environment) -> Result<()> {
    check_name(&env.name)?;
    let mut envs = all(config)?;
    envs.insert(env.name.clone(), env);
    save(config, &envs)
}

/// Removes an environment.
///
/// # Errors
/// When there is none of that name, or the file cannot be written.
pub(crate) fn remove(config: &mut ConfigFile, name: &str) -> Result<()> {
    let mut envs = all(config)?;
    if envs.remove(name).is_none() {
        return Err(missing(name));
    }
    save(config, &envs)
}

/// The error for a name that is not there.
pub(crate) fn missing(name: &str) -> Error {
    Error::failed(format!("Environment '{name}' does not exist"))
        .with_hint("`micro env` lists what there is, `micro env add NAME ADDRESS` adds one")
        .with_exit(128)
}

fn save(config: &mut ConfigFile, envs: &BTreeMap<String, Environment>) -> Result<()> {
    let text = serde_json::to_string(envs).map_err(std::io::Error::from)?;
    config.set("envs", &text)
}

/// A name becomes part of dotted paths in the file, so dots are out.
fn check_name(name: &str) -> Result<()> {
    let good = !name.is_empty()
        && name.len() <= 80
        && name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'));
    if good {
        Ok(())
    } else {
        Err(Error::usage(format!("{name:?} cannot name an environment"))
            .with_hint("use letters, digits, dashes and underscores"))
    }
}

/// The address to dial and whether by TLS: as Micro does, TLS on port 443 or without a port.
pub(crate) fn dial(address: &str) -> (String, bool) {
    if let Some(rest) = address.strip_prefix("https://") {
        return (with_port(rest.trim_end_matches('/')), true);
    }
    if let Some(rest) = address.strip_prefix("http://") {
        let rest = rest.trim_end_matches('/');
        return (
            if has_port(rest) {
                rest.into()
            } else {
                format!("{rest}:80")
            },
            false,
        );
    }
    let full = with_port(address.trim_end_matches('/'));
    let secure = full.ends_with(":443");
    (full, secure)
}

fn with_port(host: &str) -> String {
    if has_port(host) {
        host.into()
    } else {
        format!("{host}:443")
    }
}

fn has_port(host: &str) -> bool {
    host.rsplit_once(':').is_some_and(|(before, port)| {
        port.parse::<u16>().is_ok() && (!before.contains(':') || before.ends_with(']'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_without_a_port_mean_tls() {
        for (text, address, secure) in [
            ("micro.example.com", "micro.example.com:443", true),
            ("micro.example.com:443", "micro.example.com:443", true),
            ("host:8081", "host:8081", false),
            ("127.0.0.1:8081", "127.0.0.1:8081", false),
            ("[::1]:8081", "[::1]:8081", false),
            ("[::1]", "[::1]:443", true),
            ("https://host:8443/", "host:8443", true),
            ("http://host", "host:80", false),
        ] {
            assert_eq!(dial(text), (address.into(), secure), "{text}");
        }
    }

    #[test]
    fn micros_own_list_of_environments_is_read_and_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.json");
        std::fs::write(
            &path,
            r#"{"env":"dev","envs":"{\"dev\":{\"Name\":\"dev\",\"ProxyAddress\":\"dev.example.com:8081\",\"Description\":\"d\"}}"}"#,
        )
        .unwrap();
        let mut config = ConfigFile::load(&path).unwrap();
        assert_eq!(
            current(&config, None).unwrap().address,
            "dev.example.com:8081"
        );
        assert_eq!(
            current(&config, Some("local")).unwrap().address,
            "127.0.0.1:8081"
        );
        let text = current(&config, Some("nope")).unwrap_err().to_string();
        assert!(text.starts_with("Env \"nope\" not found."), "{text}");
        let prod = Environment {
            name: "prod".into(),
            address: "prod.example.com".into(),
            description: String::new(),
        };
        add(&mut config, prod).unwrap();
        let names: Vec<_> = all(&config).unwrap().into_keys().collect();
        assert_eq!(names, ["dev", "local", "prod"]);
        assert!(
            config
                .get("envs")
                .unwrap()
                .starts_with("{\"dev\":{\"Name\":\"dev\"")
        );
        assert!(check_name("a.b").is_err());
    }
}
