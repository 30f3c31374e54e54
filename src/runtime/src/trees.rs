//! Source trees on disk: who uses which, and which may go.
//!
//! A tree is in use from its first byte until nobody builds from it and no upload's name points at
//! it. Its name says nothing, so that two uploads of one service never meet.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use crate::error::Error;

/// Before the name of a tree that is being removed.
const GONE: &str = "gone-";

/// The directory of all trees.
#[derive(Clone)]
pub(crate) struct Trees {
    root: PathBuf,
    used: Arc<Mutex<BTreeMap<String, usize>>>,
}

/// While this lives, the tree stays.
pub(crate) struct TreeUse {
    trees: Trees,
    name: String,
    temporary: bool,
}

impl Trees {
    pub(crate) fn new(root: PathBuf) -> Self {
        Self {
            root,
            used: Arc::default(),
        }
    }

    fn used(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, usize>> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Uses a tree that exists.
    pub(crate) fn hold(&self, name: &str) -> TreeUse {
        *self.used().entry(name.to_owned()).or_default() += 1;
        TreeUse {
            trees: self.clone(),
            name: name.to_owned(),
            temporary: false,
        }
    }

    /// Makes an empty tree. It goes with its use unless it is kept.
    pub(crate) fn create(&self) -> Result<TreeUse, Error> {
        let name = ulid::Ulid::generate().to_string().to_lowercase();
        let mut tree = self.hold(&name);
        tree.temporary = true;
        let path = tree.path();
        fs::create_dir_all(&path).map_err(Error::io("create", &path))?;
        Ok(tree)
    }

    /// The trees that nobody uses now.
    pub(crate) fn unused(&self) -> Vec<String> {
        let used = self.used();
        fs::read_dir(&self.root)
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|e| e.file_name().into_string().ok())
            .filter(|name| !used.contains_key(name))
            .collect()
    }

    /// Removes those of `unused` that no upload's name points at (`keep`, asked for later) and that
    /// nobody has begun to use.
    pub(crate) fn sweep(&self, unused: &[String], keep: &[String]) {
        for name in unused.iter().filter(|n| !keep.contains(n)) {
            let gone = self.root.join(format!("{GONE}{name}"));
            {
                // Whoever holds a tree and then finds it has it whole.
                let used = self.used();
                if used.contains_key(name) {
                    continue;
                }
                if name.starts_with(GONE) {
                    remove(&self.root.join(name));
                    continue;
                }
                if fs::rename(self.root.join(name), &gone).is_err() {
                    continue;
                }
            }
            remove(&gone);
        }
    }
}

impl TreeUse {
    /// As the sandbox names it.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.trees.root.join(&self.name)
    }

    /// An upload's name points at it now: a sweep decides when it goes.
    pub(crate) fn keep(mut self) {
        self.temporary = false;
    }
}

impl Drop for TreeUse {
    fn drop(&mut self) {
        let mut used = self.trees.used();
        if let Some(count) = used.get_mut(&self.name) {
            *count -= 1;
            if *count == 0 {
                used.remove(&self.name);
            }
        }
        drop(used);
        if self.temporary {
            remove_later(self.path());
        }
    }
}

/// Removing many files takes a while; nobody needs to wait for it.
fn remove_later(path: PathBuf) {
    let remove = move || remove(&path);
    match tokio::runtime::Handle::try_current() {
        Ok(handle) => drop(handle.spawn_blocking(remove)),
        Err(_) => remove(),
    }
}

fn remove(path: &Path) {
    if let Err(error) = fs::remove_dir_all(path)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        tracing::warn!(%error, path = %path.display(), "A tree that nobody needs could not be removed.");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_stays_while_it_is_used_or_named() {
        let dir = tempfile::tempdir().unwrap();
        let trees = Trees::new(dir.path().join("sources"));
        let sweep = |keep: &[String]| trees.sweep(&trees.unused(), keep);
        let temporary = trees.create().unwrap();
        let path = temporary.path();
        sweep(&[]);
        assert!(path.is_dir(), "it is used");
        drop(temporary);
        assert!(!path.exists());
        let kept = trees.create().unwrap();
        let (path, name) = (kept.path(), kept.name().to_owned());
        kept.keep();
        sweep(std::slice::from_ref(&name));
        assert!(path.is_dir(), "it is named");
        let stale = trees.unused();
        let used = trees.hold(&name);
        trees.sweep(&stale, &[]);
        assert!(path.is_dir(), "it is built from");
        drop(used);
        sweep(&[]);
        assert!(!path.exists());
        assert!(trees.unused().is_empty());
    }
}
