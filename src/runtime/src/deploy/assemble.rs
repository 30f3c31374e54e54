//! From a source and what was built of it to a stored release; and the end of old ones.

use std::{path::PathBuf, sync::Arc};

use super::{Prepared, Reporter, request::MAX_INSTANCES};
use crate::{
    build::BuiltTree,
    detect::Detected,
    engine::Engine,
    error::Error,
    plan::{self, BIN, Collect, Plan},
    release::{self, Artifact, Pick, Piece},
    repo::{Key, Recipe, ReleaseRow},
};

/// Releases kept of one service and version.
const KEEP: u32 = 5;
/// The secret that is for git and for no service.
pub(super) const GIT_CREDENTIALS: &str = "GIT_CREDENTIALS";

impl Engine {
    /// Puts the release together and stores it.
    pub(super) async fn release(
        self: &Arc<Self>,
        prepared: &Prepared,
        detected: Detected,
        plan: Plan,
        built: Option<BuiltTree>,
        reporter: &Reporter,
    ) -> Result<ReleaseRow, Error> {
        let row = &prepared.row;
        let work = Assembly {
            source: prepared.tree.path(),
            releases: self.state.releases(),
            service: row.key.name.to_string(),
            command: row.options.command.clone(),
            args: row.options.args.clone(),
            detected,
            plan,
            built,
        };
        let _artifacts = self.artifacts.read().await;
        let (artifact, start, detected) =
            tokio::task::spawn_blocking(move || work.assemble()).await??;
        for note in &artifact.notes {
            reporter.line(&format!("note: {note}"));
        }
        let manifest = detected.manifest;
        let mut env = manifest.env;
        env.extend(row.options.env.clone());
        let secrets = row.options.secrets.iter();
        env.extend(
            secrets
                .filter(|(name, _)| *name != GIT_CREDENTIALS)
                .map(|(k, v)| (k.clone(), v.clone())),
        );
        let instances = match row.options.instances {
            0 => manifest.instances.unwrap_or(1),
            n => n,
        };
        let recipe = Recipe {
            argv: start.argv,
            cwd: start.cwd,
            env,
            language_env: start.env,
            path: start.path,
            toolchain: start.toolchain.map(|t| t.name().to_owned()),
            limits: manifest.limits,
            instances: instances.clamp(1, MAX_INSTANCES),
            protocol: manifest.protocol,
            descriptor: manifest.descriptor,
        };
        self.repo
            .add_release(row.key.clone(), artifact.digest, recipe, self.clock.now())
            .await
    }

    /// Forgets old releases and removes artifacts that nothing refers to, behind.
    pub(super) fn prune_releases(self: &Arc<Self>, key: &Key) {
        let (engine, key) = (Arc::clone(self), key.clone());
        self.handle.spawn(async move {
            let _artifacts = engine.artifacts.write().await;
            match engine.repo.prune_releases(key, KEEP).await {
                Ok(free) => engine.remove_artifacts(free).await,
                Err(error) => tracing::warn!(%error, "Old releases could not be forgotten."),
            }
        });
    }

    /// Removes artifacts by digest. The caller holds `artifacts` for writing.
    pub(crate) async fn remove_artifacts(&self, digests: Vec<String>) {
        let dirs: Vec<PathBuf> = digests.iter().map(|d| self.release_dir(d)).collect();
        let remove = move || {
            for dir in dirs {
                if let Err(error) = std::fs::remove_dir_all(&dir)
                    && error.kind() != std::io::ErrorKind::NotFound
                {
                    tracing::warn!(%error, path = %dir.display(), "An old release could not be removed.");
                }
            }
        };
        drop(tokio::task::spawn_blocking(remove).await);
    }
}

/// Everything a release is put together from; blocking work.
struct Assembly {
    source: PathBuf,
    releases: PathBuf,
    service: String,
    command: Vec<String>,
    args: Vec<String>,
    detected: Detected,
    plan: Plan,
    built: Option<BuiltTree>,
}

impl Assembly {
    fn assemble(self) -> Result<(Artifact, plan::Start, Detected), Error> {
        let mut program = None;
        let piece = |from: PathBuf, pick| Piece {
            from,
            to: PathBuf::new(),
            pick,
            executable: false,
        };
        let folder = self.source.join(&self.detected.folder);
        let built = self.built.as_ref().map(BuiltTree::path);
        let pieces = match (&self.plan.collect, built) {
            (Collect::Source, _) | (Collect::Tree | Collect::Built { .. }, None) => {
                vec![piece(self.source.clone(), Pick::All)]
            }
            (Collect::Program(name), _) => vec![
                Piece {
                    from: folder.join(name),
                    to: PathBuf::from(name),
                    pick: Pick::All,
                    executable: true,
                },
                piece(folder, Pick::All),
            ],
            (Collect::Tree, Some(built)) => vec![piece(built.join("src"), Pick::Tree)],
            (Collect::Built { package }, Some(built)) => {
                let bin = built.join("out/bin");
                let name = release::one_program(&bin, &self.service, package.as_deref())?;
                let pieces = vec![
                    Piece {
                        from: bin.join(&name),
                        to: PathBuf::from(BIN).join(&name),
                        pick: Pick::All,
                        executable: true,
                    },
                    piece(folder, Pick::Assets),
                ];
                program = Some(name);
                pieces
            }
        };
        let scratch = format!("new-{}", ulid::Ulid::generate()).to_lowercase();
        let mut start = None;
        let artifact = release::assemble(&self.releases, &scratch, &pieces, |root| {
            start = Some(plan::start(
                &self.plan,
                &self.detected,
                root,
                program.as_deref(),
                &self.command,
                &self.args,
            )?);
            Ok(())
        })?;
        let start = start.ok_or(Error::Task)?;
        Ok((artifact, start, self.detected))
    }
}
