//! Where the source of a deployment comes from: an upload that is here already, or git.

use std::{path::PathBuf, sync::Arc};

use micro_core::Namespace;

use super::assemble::GIT_CREDENTIALS;
use crate::{
    engine::Engine,
    error::Error,
    git,
    repo::{Key, ServiceRow},
    source,
    trees::TreeUse,
};

impl Engine {
    /// Brings the source of a deployment to disk: the tree, and the folder of the service in it.
    pub(super) async fn fetch(
        self: &Arc<Self>,
        row: &ServiceRow,
    ) -> Result<(TreeUse, String), Error> {
        let pending = row.pending.as_ref().ok_or(Error::NotFound)?;
        if let Some(name) = pending.source.strip_prefix("source://") {
            let tree = self.uploaded(row, name, &pending.uploader).await?;
            return Ok((tree, row.options.entrypoint.clone()));
        }
        let source = git::parse(&pending.source, row.key.version.as_str())?;
        if source.is_local() && !pending.operator {
            return Err(Error::LocalRepository { url: source.url });
        }
        let tree = self.trees.create()?;
        let home = self.trees.create()?;
        let env = self.build_env();
        let build = &self.settings.build;
        let config = build
            .files
            .iter()
            .find(|f| f.file_name().is_some_and(|n| n == ".gitconfig"));
        let limits = self.source_limits();
        let how = git::Fetch {
            credentials: row.options.secrets.get(GIT_CREDENTIALS).map(String::as_str),
            env: &env,
            config: config.map(PathBuf::as_path),
            timeout: build.timeout.0,
            bytes: limits.bytes,
            home: &home.path(),
        };
        let commit = git::fetch(&source, &tree.path(), &how).await?;
        let path = tree.path();
        tokio::task::spawn_blocking(move || source::check_tree(&path, &limits)).await??;
        tracing::debug!(url = %source.url, %commit, "Source fetched.");
        Ok((tree, join(&source.folder, &row.options.entrypoint)))
    }

    async fn uploaded(
        &self,
        row: &ServiceRow,
        name: &str,
        uploader: &Namespace,
    ) -> Result<TreeUse, Error> {
        let bad = || Error::NoSource {
            source_name: format!("source://{name}"),
        };
        let (service, version) = name.split_once(':').unwrap_or((name, "latest"));
        for namespace in [&row.key.namespace, uploader] {
            let key = Key {
                namespace: namespace.clone(),
                name: service.parse().map_err(|_| bad())?,
                version: version.parse().map_err(|_| bad())?,
            };
            // Held before it is looked at, or a sweep could come between.
            if let Some(tree) = self.repo.source(key).await? {
                let held = self.trees.hold(&tree);
                if held.path().is_dir() {
                    return Ok(held);
                }
            }
        }
        Err(bad())
    }

    /// Bounds of a source tree.
    pub(crate) fn source_limits(&self) -> source::Limits {
        source::Limits {
            bytes: self.settings.limits.upload.0,
            entries: self.settings.limits.upload_files,
        }
    }

    /// Removes source trees that nobody needs, behind.
    pub(crate) fn sweep(self: &Arc<Self>) {
        let engine = Arc::clone(self);
        self.handle.spawn(async move {
            // What is looked at first is older than what is asked for next, so a tree that gets its
            // name in between is no candidate.
            let unused = engine.trees.unused();
            if let Ok(keep) = engine.repo.trees().await {
                let trees = engine.trees.clone();
                drop(tokio::task::spawn_blocking(move || trees.sweep(&unused, &keep)).await);
            }
        });
    }
}

/// The folder of a git address and the entrypoint option; both may name the same one.
fn join(folder: &str, entrypoint: &str) -> String {
    match (folder, entrypoint.trim_matches('/')) {
        (folder, "" | ".") => folder.to_owned(),
        ("", entrypoint) => entrypoint.to_owned(),
        (folder, entrypoint) if folder == entrypoint => folder.to_owned(),
        (folder, entrypoint) => format!("{folder}/{entrypoint}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folder_and_entrypoint_are_joined_once() {
        assert_eq!(join("a", ""), "a");
        assert_eq!(join("", "./b".trim_start_matches("./")), "b");
        assert_eq!(join("a", "a"), "a");
        assert_eq!(join("a", "b"), "a/b");
    }
}
