//! What systemd keeps for the server (`LoadCredential=` and its kin) and only root may read, handed
//! on to the node.

use std::{collections::BTreeMap, env, fmt, fs, io, path::Path};

use serde::{Deserialize, Serialize};

/// The names that mean something to the node. Others are left alone.
const NAMES: [&str; 1] = ["micro-config-key"];
/// No credential of ours is longer.
const LONGEST: u64 = 64 * 1024;

/// Credentials by name. Their texts are secret: they are never shown.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Credentials(BTreeMap<String, String>);

impl Credentials {
    /// The text of a credential, if systemd has it.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// Those of this process.
    pub(crate) fn of_systemd() -> Self {
        env::var_os("CREDENTIALS_DIRECTORY")
            .map(|directory| Self::read(Path::new(&directory)))
            .unwrap_or_default()
    }

    fn read(directory: &Path) -> Self {
        let mut found = BTreeMap::new();
        for name in NAMES {
            let path = directory.join(name);
            let read = fs::metadata(&path).and_then(|meta| {
                if meta.len() > LONGEST {
                    return Err(io::ErrorKind::FileTooLarge.into());
                }
                fs::read_to_string(&path)
            });
            match read {
                Ok(text) => drop(found.insert(name.to_owned(), text)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => {
                    tracing::error!(path = %path.display(), %error, "Cannot read a credential.");
                }
            }
        }
        Self(found)
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_of_ours_are_read_and_never_shown() {
        let dir = tempfile::tempdir().unwrap();
        assert!(Credentials::read(dir.path()).get(NAMES[0]).is_none());
        fs::write(dir.path().join(NAMES[0]), "abc\n").unwrap();
        fs::write(dir.path().join("other"), "xyz").unwrap();
        let read = Credentials::read(dir.path());
        assert_eq!(read.get(NAMES[0]), Some("abc\n"));
        assert_eq!(read.get("other"), None);
        let shown = format!("{read:?}");
        assert!(
            shown.contains(NAMES[0]) && !shown.contains("abc"),
            "{shown}"
        );
        let json = serde_json::to_string(&read).unwrap();
        let again: Credentials = serde_json::from_str(&json).unwrap();
        assert_eq!(again.get(NAMES[0]), Some("abc\n"));
    }
}
