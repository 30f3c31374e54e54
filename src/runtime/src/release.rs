//! Artifacts: what a release runs, stored once under the digest of its content.
//!
//! An artifact is assembled beside the others, synced, made read-only and renamed to its digest, so
//! a name that exists is whole. Files come from source trees and finished build trees, which nobody
//! writes to any more; both belong to the node, so they are linked rather than copied where the
//! file system can. Links out of the tree, devices and set-uid bits do not come along.

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    fs,
    io::{self, Read as _, Write as _},
    os::unix::{
        ffi::OsStrExt as _,
        fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _},
    },
    path::{Path, PathBuf},
};

use nix::fcntl::OFlag;
use ring::digest::{Context, SHA256};

use crate::{error::Error, source::stays_inside};

/// Up to this many files are synced one by one; beyond, the file system is synced as a whole.
const SYNC_EACH: usize = 32;

/// What is left out of an artifact.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pick {
    /// Version control only.
    All,
    /// Version control, and what compilers leave beside their results.
    Tree,
    /// Only what a compiled service may want to read: no sources, no dependencies.
    Assets,
}

/// A file or folder that goes into an artifact.
#[derive(Debug, Clone)]
pub struct Piece {
    /// Where it is.
    pub from: PathBuf,
    /// Where it goes, relative to the artifact; empty for the root.
    pub to: PathBuf,
    /// What of it.
    pub pick: Pick,
    /// Make this file executable whatever its mode says.
    pub executable: bool,
}

/// A stored artifact.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Artifact {
    /// Its name: the SHA-256 of its content, in hex.
    pub digest: String,
    /// Bytes of all files.
    pub bytes: u64,
    /// What was left behind, for the person who deploys.
    pub notes: Vec<String>,
}

/// Puts `pieces` together below `releases`. `scratch` names the unfinished tree.
///
/// # Errors
/// `Internal` when the disk fails us.
pub fn assemble(
    releases: &Path,
    scratch: &str,
    pieces: &[Piece],
    finish: impl FnOnce(&Path) -> Result<(), Error>,
) -> Result<Artifact, Error> {
    fs::create_dir_all(releases).map_err(Error::io("create", releases))?;
    let root = releases.join(scratch);
    fs::create_dir(&root).map_err(Error::io("create", &root))?;
    let built = build(&root, pieces).and_then(|work| {
        finish(&root)?;
        work.modes()?;
        work.sync()?;
        let digest = work.digest();
        Ok(Artifact {
            digest,
            bytes: work.bytes,
            notes: work.notes,
        })
    });
    let artifact = match built {
        Ok(artifact) => artifact,
        Err(error) => {
            drop(fs::remove_dir_all(&root));
            return Err(error);
        }
    };
    let target = releases.join(&artifact.digest);
    if target.is_dir() {
        fs::remove_dir_all(&root).map_err(Error::io("remove", &root))?;
        return Ok(artifact);
    }
    fs::rename(&root, &target).map_err(Error::io("name", &target))?;
    sync_dir(releases)?;
    Ok(artifact)
}

fn build<'a>(root: &'a Path, pieces: &[Piece]) -> Result<Assembly<'a>, Error> {
    let mut work = Assembly {
        root,
        entries: BTreeMap::new(),
        bytes: 0,
        notes: Vec::new(),
    };
    fs::set_permissions(root, fs::Permissions::from_mode(0o755))
        .map_err(Error::io("set the mode of", root))?;
    for piece in pieces {
        work.add(piece)?;
    }
    Ok(work)
}

/// What the digest says of one path.
#[derive(Debug, Clone)]
enum Entry {
    Dir,
    File { executable: bool, sha: [u8; 32] },
    Link(OsString),
}

struct Assembly<'a> {
    root: &'a Path,
    entries: BTreeMap<PathBuf, Entry>,
    bytes: u64,
    notes: Vec<String>,
}

impl Assembly<'_> {
    fn add(&mut self, piece: &Piece) -> Result<(), Error> {
        self.parents(&piece.to)?;
        let mut pending = vec![(piece.from.clone(), piece.to.clone())];
        while let Some((from, to)) = pending.pop() {
            let meta = fs::symlink_metadata(&from).map_err(Error::io("read", &from))?;
            if meta.is_dir() {
                self.dir(&to)?;
                for entry in fs::read_dir(&from).map_err(Error::io("read", &from))? {
                    let entry = entry.map_err(Error::io("read", &from))?;
                    let name = entry.file_name();
                    if !left_out(piece.pick, &from, &name) {
                        pending.push((entry.path(), to.join(name)));
                    }
                }
            } else if meta.is_file() {
                let executable = piece.executable || meta.mode() & 0o111 != 0;
                self.file(&from, &to, executable)?;
            } else if meta.is_symlink() {
                self.link(&from, &to, &piece.from)?;
            } else {
                self.note(&to, "it is no file, folder or link");
            }
        }
        Ok(())
    }

    fn note(&mut self, path: &Path, why: &str) {
        if self.notes.len() < 20 {
            let name = crate::error::printable(&path.display().to_string());
            self.notes
                .push(format!("left {name} out of the release: {why}"));
        }
    }

    fn parents(&mut self, path: &Path) -> Result<(), Error> {
        let mut above: Vec<&Path> = path.ancestors().skip(1).collect();
        above.reverse();
        for dir in above {
            self.dir(dir)?;
        }
        Ok(())
    }

    fn dir(&mut self, to: &Path) -> Result<(), Error> {
        if to.as_os_str().is_empty() || self.entries.contains_key(to) {
            return Ok(());
        }
        let full = self.root.join(to);
        fs::create_dir(&full).map_err(Error::io("create", &full))?;
        self.entries.insert(to.into(), Entry::Dir);
        Ok(())
    }

    fn file(&mut self, from: &Path, to: &Path, executable: bool) -> Result<(), Error> {
        if self.entries.contains_key(to) {
            return Ok(()); // An earlier piece wins.
        }
        let full = self.root.join(to);
        let mut source = fs::OpenOptions::new()
            .read(true)
            .custom_flags(OFlag::O_NOFOLLOW.bits())
            .open(from)
            .map_err(Error::io("read", from))?;
        let linked = fs::hard_link(from, &full).is_ok();
        let mut target = if linked {
            None
        } else {
            let file = fs::OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o644)
                .open(&full)
                .map_err(Error::io("create", &full))?;
            Some(file)
        };
        let mut context = Context::new(&SHA256);
        let mut buffer = vec![0; 128 * 1024];
        loop {
            let read = match source.read(&mut buffer) {
                Ok(0) => break,
                Ok(n) => n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(Error::io("read", from)(e)),
            };
            let chunk = buffer.get(..read).unwrap_or_default();
            context.update(chunk);
            self.bytes += read as u64;
            if let Some(target) = &mut target {
                target.write_all(chunk).map_err(Error::io("write", &full))?;
            }
        }
        let mut sha = [0; 32];
        sha.copy_from_slice(context.finish().as_ref());
        self.entries
            .insert(to.into(), Entry::File { executable, sha });
        Ok(())
    }

    fn link(&mut self, from: &Path, to: &Path, base: &Path) -> Result<(), Error> {
        if self.entries.contains_key(to) {
            return Ok(());
        }
        let mut target = fs::read_link(from).map_err(Error::io("read", from))?;
        // A tool that links by the path of the build means a place in this tree.
        if let Ok(inside) = target.strip_prefix("/build/src") {
            let above = from
                .strip_prefix(base)
                .ok()
                .and_then(Path::parent)
                .map_or(0, |p| p.components().count());
            target = std::iter::repeat_n("..", above)
                .collect::<PathBuf>()
                .join(inside);
            if target.as_os_str().is_empty() {
                target = PathBuf::from(".");
            }
        }
        if !stays_inside(to, &target) {
            self.note(to, "it is a link to something outside");
            return Ok(());
        }
        let full = self.root.join(to);
        std::os::unix::fs::symlink(&target, &full).map_err(Error::io("create", &full))?;
        self.entries
            .insert(to.into(), Entry::Link(target.into_os_string()));
        Ok(())
    }

    /// Read-only for everyone; folders stay writable for us, so that we can remove them.
    fn modes(&self) -> Result<(), Error> {
        for (path, entry) in &self.entries {
            let mode = match entry {
                Entry::Dir => 0o755,
                Entry::File {
                    executable: true, ..
                } => 0o555,
                Entry::File { .. } => 0o444,
                Entry::Link(_) => continue,
            };
            let full = self.root.join(path);
            fs::set_permissions(&full, fs::Permissions::from_mode(mode))
                .map_err(Error::io("set the mode of", full))?;
        }
        Ok(())
    }

    fn sync(&self) -> Result<(), Error> {
        if self.entries.len() > SYNC_EACH {
            let dir = fs::File::open(self.root).map_err(Error::io("open", self.root))?;
            return nix::unistd::syncfs(dir).map_err(|e| Error::io("sync", self.root)(e.into()));
        }
        for (path, entry) in &self.entries {
            let full = self.root.join(path);
            match entry {
                Entry::Link(_) => {}
                Entry::Dir => sync_dir(&full)?,
                Entry::File { .. } => fs::File::open(&full)
                    .and_then(|f| f.sync_all())
                    .map_err(Error::io("sync", full))?,
            }
        }
        sync_dir(self.root)
    }

    /// SHA-256 over every path in order: kind, path, and what is there. Lengths before texts, so
    /// that no two trees read the same.
    fn digest(&self) -> String {
        let mut context = Context::new(&SHA256);
        let text = |context: &mut Context, bytes: &[u8]| {
            context.update(&(bytes.len() as u64).to_be_bytes());
            context.update(bytes);
        };
        for (path, entry) in &self.entries {
            match entry {
                Entry::Dir => {
                    context.update(b"d");
                    text(&mut context, path.as_os_str().as_bytes());
                }
                Entry::File { executable, sha } => {
                    context.update(if *executable { b"x" } else { b"f" });
                    text(&mut context, path.as_os_str().as_bytes());
                    context.update(sha);
                }
                Entry::Link(target) => {
                    context.update(b"l");
                    text(&mut context, path.as_os_str().as_bytes());
                    text(&mut context, target.as_bytes());
                }
            }
        }
        context
            .finish()
            .as_ref()
            .iter()
            .map(|b| format!("{b:02x}"))
            .collect()
    }
}

fn left_out(pick: Pick, dir: &Path, name: &OsStr) -> bool {
    let Some(name) = name.to_str() else {
        return false;
    };
    if matches!(name, ".git" | ".hg" | ".svn") {
        return true;
    }
    match pick {
        Pick::All => false,
        Pick::Tree => {
            // target/{debug,release}: the programs are wanted, what they were made from is not.
            let profile = dir
                .file_name()
                .is_some_and(|n| n == "release" || n == "debug")
                && dir
                    .parent()
                    .and_then(Path::file_name)
                    .is_some_and(|n| n == "target");
            profile
                && matches!(
                    name,
                    "deps" | "build" | "incremental" | "examples" | ".fingerprint"
                )
        }
        Pick::Assets => {
            let source = Path::new(name)
                .extension()
                .is_some_and(|e| e == "go" || e == "rs");
            source
                || matches!(
                    name,
                    "go.mod"
                        | "go.sum"
                        | "go.work"
                        | "go.work.sum"
                        | "vendor"
                        | "Cargo.toml"
                        | "Cargo.lock"
                        | "target"
                        | "node_modules"
                        | ".cargo"
                        | ".gitignore"
                        | ".github"
                )
        }
    }
}

fn sync_dir(path: &Path) -> Result<(), Error> {
    fs::File::open(path)
        .and_then(|d| d.sync_all())
        .map_err(Error::io("sync", path))
}

/// Writes an artifact as an uncompressed tar, the same bytes for the same artifact.
///
/// # Errors
/// The reader's end, or a disk that fails.
pub fn write_tar(artifact: &Path, to: impl io::Write) -> io::Result<()> {
    let mut tar = tar::Builder::new(to);
    tar.mode(tar::HeaderMode::Deterministic);
    tar.follow_symlinks(false);
    let mut pending = vec![artifact.to_path_buf()];
    while let Some(path) = pending.pop() {
        let name = path.strip_prefix(artifact).unwrap_or(&path);
        let meta = fs::symlink_metadata(&path)?;
        if meta.is_dir() {
            if !name.as_os_str().is_empty() {
                tar.append_dir(name, &path)?;
            }
            let mut inside: Vec<PathBuf> = fs::read_dir(&path)?
                .map(|e| e.map(|e| e.path()))
                .collect::<io::Result<_>>()?;
            inside.sort_by(|a, b| b.cmp(a));
            pending.extend(inside);
        } else {
            tar.append_path_with_name(&path, name)?;
        }
    }
    tar.finish()
}

/// The one program of a build: the only one, or the one called like the service or its package.
///
/// # Errors
/// `Invalid`, listing what there is.
pub fn one_program(bin: &Path, service: &str, package: Option<&str>) -> Result<String, Error> {
    let mut names = Vec::new();
    if bin.is_dir() {
        for entry in fs::read_dir(bin).map_err(Error::io("read", bin))? {
            let entry = entry.map_err(Error::io("read", bin))?;
            let file = entry.file_type().is_ok_and(|t| t.is_file());
            if let (true, Ok(name)) = (file, entry.file_name().into_string()) {
                names.push(name);
            }
        }
    }
    names.sort();
    match names.as_slice() {
        [] => Err(Error::NoBinary {
            reason: "the folder holds a library, or no main package",
        }),
        [only] => Ok(only.clone()),
        several => [Some(service), package]
            .into_iter()
            .flatten()
            .find_map(|wanted| several.iter().find(|n| *n == wanted))
            .cloned()
            .ok_or(Error::ManyBinaries {
                place: "the package".into(),
                wanted: service.into(),
                names,
            }),
    }
}

#[cfg(test)]
mod tests;
