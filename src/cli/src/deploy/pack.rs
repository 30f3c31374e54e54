//! Packs a source tree into a tar, as git would see it: `.gitignore` is respected, `.git` stays here,
//! and so does what builds leave behind. Links are taken where they lead to something inside.

use std::{
    fs::{self, File},
    io::{self, Read as _, Write},
    os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _},
    path::{Component, Path, PathBuf},
};

use ignore::{DirEntry, WalkBuilder};
use tar::{Builder, EntryType, Header};

use crate::error::{Error, Result};

/// What will be packed.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    root: PathBuf,
    entries: Vec<Entry>,
    /// Bytes of all files.
    pub(crate) bytes: u64,
    /// Number of files.
    pub(crate) files: u64,
    /// What is left out because it cannot be packed, such as sockets.
    pub(crate) skipped: Vec<PathBuf>,
}

#[derive(Debug)]
struct Entry {
    path: PathBuf,
    mtime: u64,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Folder,
    File { size: u64, executable: bool },
    Link(PathBuf),
}

/// Looks at the tree below `root`, or at the one file `only` in it.
///
/// # Errors
/// For what cannot be read, a link that leads out, and a tree without files.
pub(crate) fn plan(root: &Path, only: Option<&Path>) -> Result<Plan> {
    let mut plan = Plan {
        root: root.into(),
        ..Plan::default()
    };
    if let Some(file) = only {
        let full = root.join(file);
        let metadata = fs::metadata(&full).map_err(Error::file("read", &full))?;
        plan.bytes = metadata.len();
        plan.files = 1;
        plan.entries.push(Entry {
            path: file.into(),
            mtime: seconds(&metadata),
            // People forget chmod after a download; what is run is a program.
            kind: Kind::File {
                size: metadata.len(),
                executable: true,
            },
        });
        return Ok(plan);
    }
    for entry in walk(root) {
        let entry = entry.map_err(|e| Error::failed(format!("cannot read the source: {e}")))?;
        plan.add(&entry)?;
    }
    if plan.files == 0 {
        return Err(
            Error::failed(format!("there is nothing to upload in {}", root.display()))
                .with_hint("its files may all be ignored by a .gitignore"),
        );
    }
    Ok(plan)
}

fn walk(root: &Path) -> ignore::Walk {
    // Ignore files above the source count only within a repository, as for git.
    let in_repository = root.ancestors().any(|dir| dir.join(".git").exists());
    WalkBuilder::new(root)
        .hidden(false)
        .ignore(false)
        .git_ignore(true)
        .git_exclude(true)
        .git_global(true)
        .require_git(false)
        .parents(in_repository)
        .follow_links(false)
        .sort_by_file_name(Ord::cmp)
        .filter_entry(|entry| entry.depth() == 0 || !is_left_here(entry))
        .build()
}

/// The history, and what tools put beside the source and make again.
fn is_left_here(entry: &DirEntry) -> bool {
    let name = entry.file_name();
    if name == ".git" {
        return true;
    }
    if !entry.file_type().is_some_and(|t| t.is_dir()) {
        return false;
    }
    let path = entry.path();
    name == "__pycache__"
        || (name == "node_modules"
            && path
                .parent()
                .is_some_and(|p| p.join("package.json").is_file()))
        || path.join("pyvenv.cfg").is_file()
        || is_cache(&path.join("CACHEDIR.TAG"))
}

/// Folders of caches say so by a file with a fixed beginning (cargo's `target` does).
fn is_cache(tag: &Path) -> bool {
    const SIGNATURE: &[u8] = b"Signature: 8a477f597d28d172789f06886806bc55";
    let mut head = [0u8; SIGNATURE.len()];
    File::open(tag)
        .and_then(|mut file| file.read_exact(&mut head))
        .is_ok_and(|()| head == SIGNATURE)
}

impl Plan {
    fn add(&mut self, entry: &DirEntry) -> Result<()> {
        let Ok(path) = entry.path().strip_prefix(&self.root) else {
            return Ok(());
        };
        if path.as_os_str().is_empty() {
            return Ok(());
        }
        let full = entry.path();
        let metadata = fs::symlink_metadata(full).map_err(Error::file("read", full))?;
        let kind = metadata.file_type();
        let kind = if kind.is_dir() {
            Kind::Folder
        } else if kind.is_symlink() {
            let target = fs::read_link(full).map_err(Error::file("read", full))?;
            if !stays_inside(path, &target) {
                return Err(Error::failed(format!(
                    "cannot upload {}: the link leads out of the source, to {}",
                    path.display(),
                    target.display()
                ))
                .with_hint("put a copy in its place, or name it in .gitignore"));
            }
            Kind::Link(target)
        } else if kind.is_file() {
            // Fails now rather than in the middle of the upload.
            File::open(full).map_err(Error::file("read", full))?;
            self.bytes += metadata.len();
            self.files += 1;
            Kind::File {
                size: metadata.len(),
                executable: metadata.permissions().mode() & 0o111 != 0,
            }
        } else {
            debug_assert!(
                kind.is_fifo()
                    || kind.is_socket()
                    || kind.is_char_device()
                    || kind.is_block_device()
            );
            self.skipped.push(path.into());
            return Ok(());
        };
        self.entries.push(Entry {
            path: path.into(),
            mtime: seconds(&metadata),
            kind,
        });
        Ok(())
    }
}

fn seconds(metadata: &fs::Metadata) -> u64 {
    u64::try_from(metadata.mtime()).unwrap_or(0)
}

/// The server's own rule: `..` only at the front, where it climbs over real folders.
fn stays_inside(link: &Path, target: &Path) -> bool {
    let mut depth = link.parent().map_or(0, |p| p.components().count());
    let mut named = false;
    for part in target.components() {
        match part {
            Component::CurDir => {}
            Component::Normal(_) => named = true,
            Component::ParentDir if named || depth == 0 => return false,
            Component::ParentDir => depth -= 1,
            Component::RootDir | Component::Prefix(_) => return false,
        }
    }
    !target.as_os_str().is_empty()
}

/// Writes the tar; `progress` hears of the bytes of files as they go.
///
/// # Errors
/// When a file changes meanwhile, or `out` takes no more.
pub(crate) fn write(plan: &Plan, out: impl Write, progress: impl Fn(u64)) -> Result<()> {
    let mut tar = Builder::new(out);
    for entry in &plan.entries {
        let full = plan.root.join(&entry.path);
        let mut header = Header::new_gnu();
        header.set_mtime(entry.mtime);
        header.set_uid(0);
        header.set_gid(0);
        match &entry.kind {
            Kind::Folder => {
                header.set_entry_type(EntryType::Directory);
                header.set_mode(0o755);
                header.set_size(0);
                tar.append_data(&mut header, &entry.path, io::empty())
            }
            Kind::Link(target) => {
                header.set_entry_type(EntryType::Symlink);
                header.set_mode(0o777);
                header.set_size(0);
                tar.append_link(&mut header, &entry.path, target)
            }
            Kind::File { size, executable } => {
                header.set_entry_type(EntryType::Regular);
                header.set_mode(if *executable { 0o755 } else { 0o644 });
                header.set_size(*size);
                let file = File::open(&full).map_err(Error::file("read", &full))?;
                let mut content = Exactly {
                    file,
                    left: *size,
                    progress: &progress,
                };
                tar.append_data(&mut header, &entry.path, &mut content)
            }
        }
        .map_err(Error::file("pack", &full))?;
    }
    let mut out = tar.into_inner().map_err(Error::file("pack", &plan.root))?;
    out.flush().map_err(Error::file("pack", &plan.root))
}

/// As many bytes of a file as its header says; the archive would be broken otherwise.
struct Exactly<'a, P> {
    file: File,
    left: u64,
    progress: &'a P,
}

impl<P: Fn(u64)> io::Read for Exactly<'_, P> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let room = usize::try_from(self.left)
            .unwrap_or(usize::MAX)
            .min(into.len());
        let Some(into) = into.get_mut(..room).filter(|b| !b.is_empty()) else {
            return Ok(0);
        };
        let read = self.file.read(into)?;
        if read == 0 {
            return Err(io::Error::other("it became shorter meanwhile"));
        }
        self.left -= read as u64;
        (self.progress)(read as u64);
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use std::{cell::Cell, collections::BTreeMap, os::unix::fs::symlink};

    use super::*;

    fn tree(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let full = dir.path().join(path);
            fs::create_dir_all(full.parent().unwrap()).unwrap();
            fs::write(full, text).unwrap();
        }
        dir
    }

    fn packed(plan: &Plan) -> BTreeMap<String, (u32, String)> {
        let mut bytes = Vec::new();
        let told = Cell::new(0);
        write(plan, &mut bytes, |n| told.set(told.get() + n)).unwrap();
        assert_eq!(told.get(), plan.bytes, "progress tells of every byte");
        let mut archive = tar::Archive::new(bytes.as_slice());
        archive
            .entries()
            .unwrap()
            .map(|entry| {
                let mut entry = entry.unwrap();
                let path = entry.path().unwrap().to_str().unwrap().to_owned();
                let mode = entry.header().mode().unwrap();
                let mut text = String::new();
                match entry.link_name().unwrap() {
                    Some(link) => text = format!("-> {}", link.display()),
                    None => {
                        entry.read_to_string(&mut text).unwrap();
                    }
                }
                (path, (mode, text))
            })
            .collect()
    }

    #[test]
    fn ignored_files_history_and_build_products_stay_here() {
        let dir = tree(&[
            (".gitignore", "*.log\n/secret\n!keep.log\n"),
            (".git/HEAD", "ref"),
            (".env.example", "x"),
            ("main.rs", "fn main() {}"),
            ("a.log", "x"),
            ("keep.log", "x"),
            ("secret/key", "x"),
            ("sub/.gitignore", "tmp\n"),
            ("sub/tmp", "x"),
            ("sub/data.json", "{}"),
            (
                "target/CACHEDIR.TAG",
                "Signature: 8a477f597d28d172789f06886806bc55\n",
            ),
            ("target/debug/x", "x"),
            ("package.json", "{}"),
            ("node_modules/a/index.js", "x"),
            ("venv/pyvenv.cfg", ""),
            ("venv/bin/python", "x"),
        ]);
        let plan = plan(dir.path(), None).unwrap();
        let names: Vec<_> = packed(&plan).into_keys().collect();
        assert_eq!(
            names,
            [
                ".env.example",
                ".gitignore",
                "keep.log",
                "main.rs",
                "package.json",
                "sub",
                "sub/.gitignore",
                "sub/data.json"
            ]
        );
        assert_eq!(plan.files, 7);
    }

    #[test]
    fn sizes_modes_and_links_are_kept() {
        let dir = tree(&[("bin/run", "#!/bin/sh\n"), ("a.txt", "12345")]);
        let run = dir.path().join("bin/run");
        fs::set_permissions(&run, fs::Permissions::from_mode(0o700)).unwrap();
        symlink("../a.txt", dir.path().join("bin/link")).unwrap();
        symlink("missing", dir.path().join("dangling")).unwrap();
        let plan = plan(dir.path(), None).unwrap();
        assert_eq!((plan.files, plan.bytes), (2, 15));
        let all = packed(&plan);
        assert_eq!(all["bin/run"], (0o755, "#!/bin/sh\n".into()));
        assert_eq!(all["a.txt"], (0o644, "12345".into()));
        assert_eq!(all["bin/link"].1, "-> ../a.txt");
        assert_eq!(all["dangling"].1, "-> missing");
    }

    #[test]
    fn a_link_out_is_refused_by_name() {
        for target in ["/etc/passwd", "../x", "sub/../../x"] {
            let dir = tree(&[("a", "x"), ("sub/b", "x")]);
            symlink(target, dir.path().join("out")).unwrap();
            let error = plan(dir.path(), None).unwrap_err().to_string();
            assert!(
                error.contains("cannot upload out") && error.contains(target),
                "{error}"
            );
        }
    }

    #[test]
    fn an_ignored_link_out_is_nobodys_business() {
        let dir = tree(&[("a", "x"), (".gitignore", "out\n")]);
        symlink("/etc/passwd", dir.path().join("out")).unwrap();
        assert_eq!(plan(dir.path(), None).unwrap().files, 2);
    }

    #[test]
    fn one_program_is_packed_alone_and_executable() {
        let dir = tree(&[("bin", "\u{7f}ELF"), ("other", "x")]);
        let plan = plan(dir.path(), Some(Path::new("bin"))).unwrap();
        let all = packed(&plan);
        assert_eq!(all.len(), 1);
        assert_eq!(all["bin"].0, 0o755);
    }

    #[test]
    fn long_names_survive() {
        let long = format!("{}/{}", "d".repeat(120), "f".repeat(150));
        let dir = tree(&[(&long, "x")]);
        assert!(packed(&plan(dir.path(), None).unwrap()).contains_key(&long));
    }

    #[test]
    fn a_file_that_shrinks_is_an_error_and_one_that_grows_is_cut() {
        let dir = tree(&[("a", "12345"), ("b", "12345")]);
        let plan = plan(dir.path(), None).unwrap();
        fs::write(dir.path().join("a"), "123456789").unwrap();
        assert_eq!(packed(&plan)["a"].1, "12345");
        fs::write(dir.path().join("b"), "1").unwrap();
        let error = write(&plan, Vec::new(), |_| {}).unwrap_err().to_string();
        assert!(error.contains("shorter"), "{error}");
    }

    #[test]
    fn an_empty_tree_is_refused() {
        let dir = tree(&[(".gitignore", "*\n")]);
        assert!(plan(dir.path(), None).is_err());
    }
}
