//! `~/.micro/config.json`: a JSON object edited by dotted paths, shared with Micro's own CLI.
//!
//! That CLI uses the file as a lock for an instant and then writes a process id into it, so content
//! that is no object is read again for a moment before it counts as damage.

use std::{
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use serde_json::{Map, Value};

use crate::{
    error::{Error, Result},
    private_file,
};

const TRIES: u32 = 10;
const PAUSE: Duration = Duration::from_millis(20);

/// The user's settings.
#[derive(Debug, Clone)]
pub(crate) struct ConfigFile {
    path: PathBuf,
    root: Map<String, Value>,
}

impl ConfigFile {
    /// Reads the file; a missing one is as good as Micro's first one.
    ///
    /// # Errors
    /// When the file cannot be read, or is no JSON object.
    pub(crate) fn load(path: &Path) -> Result<Self> {
        Ok(Self {
            path: path.into(),
            root: read(path)?,
        })
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The text at a dotted path; other values than texts come as JSON.
    pub(crate) fn get(&self, path: &str) -> Option<String> {
        let mut keys = path.split('.');
        let mut value = self.root.get(keys.next()?)?;
        for key in keys {
            value = value.get(key)?;
        }
        let text = match value {
            Value::Null => return None,
            Value::String(text) => text.trim().to_owned(),
            other => other.to_string(),
        };
        (!text.is_empty()).then_some(text)
    }

    /// Sets the text at a dotted path, in the file too.
    ///
    /// # Errors
    /// When the file cannot be read again or written.
    pub(crate) fn set(&mut self, path: &str, value: &str) -> Result<()> {
        self.change(|root| {
            let mut keys: Vec<&str> = path.split('.').collect();
            let Some(last) = keys.pop() else { return };
            let mut inner = root;
            for key in keys {
                let slot = inner
                    .entry(key)
                    .or_insert_with(|| Value::Object(Map::new()));
                if !slot.is_object() {
                    *slot = Value::Object(Map::new());
                }
                let Value::Object(next) = slot else { return };
                inner = next;
            }
            inner.insert(last.into(), Value::String(value.into()));
        })
    }

    /// Removes what is at a dotted path, in the file too.
    ///
    /// # Errors
    /// When the file cannot be read again or written.
    pub(crate) fn delete(&mut self, path: &str) -> Result<()> {
        if self.get(path).is_none() {
            return Ok(());
        }
        self.change(|root| {
            let mut keys: Vec<&str> = path.split('.').collect();
            let Some(last) = keys.pop() else { return };
            let mut inner = root;
            for key in keys {
                let Some(Value::Object(next)) = inner.get_mut(key) else {
                    return;
                };
                inner = next;
            }
            inner.remove(last);
        })
    }

    /// Another command may have written the file since: changes are made on what it holds now.
    fn change(&mut self, edit: impl FnOnce(&mut Map<String, Value>)) -> Result<()> {
        self.root = read(&self.path)?;
        edit(&mut self.root);
        let text = Value::Object(self.root.clone()).to_string();
        private_file::replace(&self.path, &text)
    }
}

fn read(path: &Path) -> Result<Map<String, Value>> {
    let mut reason = String::new();
    for attempt in 0..TRIES {
        if attempt > 0 {
            thread::sleep(PAUSE);
        }
        let Some(text) = private_file::read(path)? else {
            return Ok(first());
        };
        match serde_json::from_str(&text) {
            Ok(Value::Object(root)) => return Ok(root),
            Ok(_) => reason = "it holds no JSON object".into(),
            Err(e) => reason = format!("it is no JSON: {e}"),
        }
    }
    Err(Error::Damaged {
        path: path.into(),
        reason,
    })
}

fn first() -> Map<String, Value> {
    Map::from_iter([("env".to_owned(), Value::String("local".into()))])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dotted_paths_reach_into_objects_and_other_keys_stay() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.json");
        std::fs::write(
            &path,
            r#"{"env":"local","namespaces":{"local":{"current":"foo","all":"micro,foo"}},"n":3}"#,
        )
        .unwrap();
        let mut config = ConfigFile::load(&path).unwrap();
        assert_eq!(
            config.get("namespaces.local.current").as_deref(),
            Some("foo")
        );
        config.set("local.current-user", "admin").unwrap();
        config.set("namespaces.local.current", "bar").unwrap();
        config.delete("namespaces.local.all").unwrap();
        config.delete("nothing.there").unwrap();
        let again = ConfigFile::load(&path).unwrap();
        assert_eq!(again.get("local.current-user").as_deref(), Some("admin"));
        assert_eq!(
            again.get("namespaces.local.current").as_deref(),
            Some("bar")
        );
        assert_eq!(again.get("namespaces.local.all"), None);
        assert_eq!(again.get("n").as_deref(), Some("3"));
        assert_eq!(again.get("env").as_deref(), Some("local"));
    }

    #[test]
    fn a_missing_file_means_the_local_environment() {
        let config = ConfigFile::load(Path::new("/nonexistent/config.json")).unwrap();
        assert_eq!(config.get("env").as_deref(), Some("local"));
    }

    #[test]
    fn a_process_id_in_the_file_is_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.json");
        std::fs::write(&path, "12345").unwrap();
        let writer = {
            let path = path.clone();
            thread::spawn(move || {
                thread::sleep(PAUSE * 2);
                std::fs::write(path, r#"{"env":"dev"}"#).unwrap();
            })
        };
        let config = ConfigFile::load(&path).unwrap();
        writer.join().unwrap();
        assert_eq!(config.get("env").as_deref(), Some("dev"));
    }

    #[test]
    fn damage_is_named_with_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.json");
        std::fs::write(&path, "{").unwrap();
        let text = ConfigFile::load(&path).unwrap_err().to_string();
        assert!(
            text.contains("config.json") && text.contains("no JSON"),
            "{text}"
        );
    }
}
