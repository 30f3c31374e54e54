//! Source trees: unpacking an uploaded tar, and checking a tree that somebody else wrote.
//!
//! An archive comes from outside and is believed nothing. Entries are created below a directory
//! that only we write to, parents are real directories that we made, and files are opened with
//! `O_EXCL`, so nothing is ever followed or overwritten. The same rules hold for a cloned tree,
//! which git has already written: [`check_tree`].

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fs,
    io::{self, Read, Write as _},
    os::unix::{
        ffi::OsStrExt as _,
        fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _},
    },
    path::{Component, Path, PathBuf},
};

use tar::EntryType;

use crate::error::Error;

/// Bounds of one source tree.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Bytes of all files together.
    pub bytes: u64,
    /// Files, folders and links together.
    pub entries: u64,
}

/// Folders below each other.
const MAX_DEPTH: usize = 64;
/// Bytes of a whole path.
const MAX_PATH: usize = 3000;
/// Bytes of one name; what Linux file systems take.
const MAX_NAME: usize = 255;
/// Bytes of one extended header.
const MAX_HEADER: u64 = 256 * 1024;

/// What was unpacked or checked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Summary {
    /// Files, folders and links.
    pub entries: u64,
    /// Bytes of files.
    pub bytes: u64,
}

/// What an earlier entry made of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Made {
    Dir,
    File,
    Link,
}

/// Unpacks an uncompressed tar into `into`, which must be an empty directory of our own.
///
/// # Errors
/// `Invalid` for an entry that is not taken, naming it; `Exhausted` beyond `limits`.
pub fn unpack(archive: impl Read, into: &Path, limits: &Limits) -> Result<Summary, Error> {
    let mut work = Unpack {
        into,
        limits,
        made: BTreeMap::new(),
        summary: Summary::default(),
    };
    let mut archive = tar::Archive::new(archive);
    let mut long = Long::default();
    // Raw entries: the tar crate would read extended headers of any length into memory.
    for entry in archive.entries().map_err(Error::Archive)?.raw(true) {
        let mut entry = entry.map_err(Error::Archive)?;
        let kind = entry.header().entry_type();
        if long.take(kind, &mut entry)? {
            continue;
        }
        let size = entry.header().entry_size().map_err(Error::Archive)?;
        let path = long
            .path
            .take()
            .unwrap_or_else(|| entry.path_bytes().into_owned());
        let link = long
            .link
            .take()
            .or_else(|| entry.link_name_bytes().map(|l| l.into_owned()));
        if long.size.take().is_some_and(|s| s != size) {
            return Err(refuse(
                &path,
                "its size is written twice and differs",
                "make the archive with GNU tar or `micro run`",
            ));
        }
        work.entry(kind, &path, link.as_deref(), size, &mut entry)?;
    }
    Ok(work.summary)
}

/// Values of extended headers, which hold for the next entry.
#[derive(Default)]
struct Long {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
}

impl Long {
    /// Whether this entry is an extended header; if so it is read.
    fn take(&mut self, kind: EntryType, entry: &mut impl Read) -> Result<bool, Error> {
        let header = kind.is_gnu_longname()
            || kind.is_gnu_longlink()
            || kind.is_pax_local_extensions()
            || kind.is_pax_global_extensions();
        if !header {
            return Ok(false);
        }
        let mut bytes = Vec::new();
        entry
            .take(MAX_HEADER + 1)
            .read_to_end(&mut bytes)
            .map_err(Error::Archive)?;
        if bytes.len() as u64 > MAX_HEADER {
            return Err(refuse(
                b"an extended header",
                "it is longer than 256 KiB",
                "shorten the names in the tree",
            ));
        }
        let trimmed = |mut b: Vec<u8>| {
            while b.last() == Some(&0) {
                b.pop();
            }
            b
        };
        if kind.is_gnu_longname() {
            self.path = Some(trimmed(bytes));
        } else if kind.is_gnu_longlink() {
            self.link = Some(trimmed(bytes));
        } else if kind.is_pax_local_extensions() {
            for record in tar::PaxExtensions::new(&bytes) {
                let record = record.map_err(Error::Archive)?;
                match record.key_bytes() {
                    b"path" => self.path = Some(record.value_bytes().to_vec()),
                    b"linkpath" => self.link = Some(record.value_bytes().to_vec()),
                    b"size" => self.size = record.value().ok().and_then(|v| v.parse().ok()),
                    _ => {}
                }
            }
        }
        Ok(true)
    }
}

struct Unpack<'a> {
    into: &'a Path,
    limits: &'a Limits,
    made: BTreeMap<PathBuf, Made>,
    summary: Summary,
}

impl Unpack<'_> {
    fn entry(
        &mut self,
        kind: EntryType,
        raw: &[u8],
        link: Option<&[u8]>,
        size: u64,
        content: &mut tar::Entry<'_, impl Read>,
    ) -> Result<(), Error> {
        let path = clean(raw)?;
        if path.as_os_str().is_empty() {
            // The root itself; every tar of a directory has it.
            return if kind.is_dir() {
                Ok(())
            } else {
                Err(refuse(raw, "it has no name", "make the archive again"))
            };
        }
        let mode = content.header().mode().unwrap_or(0o644);
        // Old tars mark a folder by a trailing slash alone.
        let dir = kind.is_dir() || (kind.is_file() && raw.last() == Some(&b'/'));
        if dir {
            self.parents(&path, raw)?;
            return self.dir(path, raw);
        }
        if self.made.contains_key(&path) {
            return Err(refuse(
                raw,
                "the archive has it twice",
                "make the archive again",
            ));
        }
        self.parents(&path, raw)?;
        if kind.is_file() || kind.is_contiguous() {
            if mode & 0o6000 != 0 {
                return Err(refuse(
                    raw,
                    "it has the setuid or setgid bit",
                    "clear it with `chmod ug-s`",
                ));
            }
            self.file(path, raw, mode, size, content)
        } else if kind.is_symlink() {
            let target = link.unwrap_or_default();
            self.symlink(path, raw, target)
        } else if kind.is_hard_link() {
            self.hard_link(path, raw, link.unwrap_or_default())
        } else {
            Err(refuse(
                raw,
                "it is neither a file, a folder nor a link",
                "leave devices, pipes, sockets and sparse files out of the source",
            ))
        }
    }

    fn count(&mut self) -> Result<(), Error> {
        self.summary.entries += 1;
        if self.summary.entries > self.limits.entries {
            return Err(too_many(self.limits));
        }
        Ok(())
    }

    fn parents(&mut self, path: &Path, raw: &[u8]) -> Result<(), Error> {
        let Some(parent) = path.parent() else {
            return Ok(());
        };
        let mut so_far = PathBuf::new();
        for part in parent.components() {
            so_far.push(part);
            self.dir(so_far.clone(), raw)?;
        }
        Ok(())
    }

    fn dir(&mut self, path: PathBuf, raw: &[u8]) -> Result<(), Error> {
        match self.made.get(&path) {
            Some(Made::Dir) => return Ok(()),
            Some(_) => {
                return Err(refuse(
                    raw,
                    "it goes through a link or a file",
                    "make the archive again",
                ));
            }
            None => {}
        }
        self.count()?;
        let full = self.into.join(&path);
        fs::create_dir(&full).map_err(Error::io("create", &full))?;
        set_mode(&full, 0o755)?;
        self.made.insert(path, Made::Dir);
        Ok(())
    }

    fn file(
        &mut self,
        path: PathBuf,
        raw: &[u8],
        mode: u32,
        size: u64,
        content: &mut impl Read,
    ) -> Result<(), Error> {
        self.count()?;
        let left = self.limits.bytes.saturating_sub(self.summary.bytes);
        if size > left {
            return Err(too_many_bytes(self.limits));
        }
        let full = self.into.join(&path);
        let mode = if mode & 0o111 == 0 { 0o644 } else { 0o755 };
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(&full)
            .map_err(Error::io("create", &full))?;
        let copied = copy(content, &mut file, left, &full)?;
        if copied != size {
            return Err(Error::Archive(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                format!("{} ends too early", printable(raw)),
            )));
        }
        // The umask may have taken bits that other users of the node need to read the tree.
        file.set_permissions(fs::Permissions::from_mode(mode))
            .map_err(Error::io("set the mode of", &full))?;
        self.summary.bytes += copied;
        self.made.insert(path, Made::File);
        Ok(())
    }

    fn symlink(&mut self, path: PathBuf, raw: &[u8], target: &[u8]) -> Result<(), Error> {
        let target = Path::new(OsStr::from_bytes(target));
        if !stays_inside(&path, target) {
            return Err(link_out(raw));
        }
        self.count()?;
        let full = self.into.join(&path);
        std::os::unix::fs::symlink(target, &full).map_err(Error::io("create", &full))?;
        self.made.insert(path, Made::Link);
        Ok(())
    }

    fn hard_link(&mut self, path: PathBuf, raw: &[u8], target: &[u8]) -> Result<(), Error> {
        let target = clean(target).map_err(|_| link_out(raw))?;
        if self.made.get(&target) != Some(&Made::File) {
            return Err(link_out(raw));
        }
        self.count()?;
        let (from, to) = (self.into.join(target), self.into.join(&path));
        fs::hard_link(&from, &to).map_err(Error::io("create", &to))?;
        self.made.insert(path, Made::File);
        Ok(())
    }
}

/// Reads `content` to its end, at most `left` bytes.
fn copy(
    content: &mut impl Read,
    file: &mut fs::File,
    left: u64,
    path: &Path,
) -> Result<u64, Error> {
    let mut buffer = vec![0; 64 * 1024];
    let mut copied = 0_u64;
    loop {
        let read = match content.read(&mut buffer) {
            Ok(0) => return Ok(copied),
            Ok(n) => n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(Error::Archive(e)),
        };
        copied += read as u64;
        if copied > left {
            return Err(Error::TooLarge {
                limit: left,
                unit: "bytes",
                setting: "limits.upload",
            });
        }
        file.write_all(buffer.get(..read).unwrap_or_default())
            .map_err(Error::io("write", path))?;
    }
}

/// A path of an archive as a relative path of plain names.
fn clean(raw: &[u8]) -> Result<PathBuf, Error> {
    if raw.first() == Some(&b'/') {
        return Err(refuse(
            raw,
            "its path is absolute",
            "make the archive from inside the folder: tar -C folder -cf - .",
        ));
    }
    if raw.contains(&0) || raw.len() > MAX_PATH {
        return Err(refuse(
            raw,
            "its path is too long or holds a zero byte",
            "rename it",
        ));
    }
    let mut path = PathBuf::new();
    let mut depth = 0;
    for name in raw.split(|b| *b == b'/') {
        match name {
            b"" | b"." => {}
            b".." => {
                return Err(refuse(
                    raw,
                    "its path has a ..",
                    "make the archive from the folder that holds everything it needs",
                ));
            }
            name if name.len() > MAX_NAME => {
                return Err(refuse(raw, "a name is longer than 255 bytes", "rename it"));
            }
            name => {
                depth += 1;
                path.push(OsStr::from_bytes(name));
            }
        }
    }
    if depth > MAX_DEPTH {
        return Err(refuse(
            raw,
            "it is more than 64 folders deep",
            "flatten the tree or leave it out with a .gitignore",
        ));
    }
    Ok(path)
}

/// Whether a symlink at `link` (relative to the root of a tree) with `target` ends inside the tree.
///
/// `..` is taken at the front only: there it climbs over real directories. Behind another name it
/// could climb out of wherever that name, itself a link, leads to.
pub(crate) fn stays_inside(link: &Path, target: &Path) -> bool {
    let mut depth = link.parent().map_or(0, |p| p.components().count());
    let mut named = false;
    if target.as_os_str().is_empty() || target.as_os_str().len() > MAX_PATH {
        return false;
    }
    for part in target.components() {
        match part {
            Component::CurDir => {}
            Component::Normal(_) => named = true,
            Component::ParentDir if named || depth == 0 => return false,
            Component::ParentDir => depth -= 1,
            Component::RootDir | Component::Prefix(_) => return false,
        }
    }
    true
}

/// Checks a tree that another program wrote (git): links stay inside, nothing but files, folders
/// and links, within `limits`. Modes become 0755 or 0644. Nothing may be writing to it any more.
///
/// # Errors
/// As [`unpack`].
pub fn check_tree(root: &Path, limits: &Limits) -> Result<Summary, Error> {
    let mut summary = Summary::default();
    let mut pending = vec![PathBuf::new()];
    while let Some(dir) = pending.pop() {
        let full = root.join(&dir);
        if dir.components().count() > MAX_DEPTH {
            return Err(refuse(
                dir.as_os_str().as_bytes(),
                "it is more than 64 folders deep",
                "flatten the tree",
            ));
        }
        for entry in fs::read_dir(&full).map_err(Error::io("read", &full))? {
            let entry = entry.map_err(Error::io("read", &full))?;
            let path = dir.join(entry.file_name());
            let full = entry.path();
            let meta = fs::symlink_metadata(&full).map_err(Error::io("read", &full))?;
            summary.entries += 1;
            if summary.entries > limits.entries {
                return Err(too_many(limits));
            }
            if meta.is_symlink() {
                let target = fs::read_link(&full).map_err(Error::io("read", &full))?;
                if !stays_inside(&path, &target) {
                    return Err(link_out(path.as_os_str().as_bytes()));
                }
            } else if meta.is_dir() {
                set_mode(&full, 0o755)?;
                pending.push(path);
            } else if meta.is_file() {
                summary.bytes += meta.len();
                if summary.bytes > limits.bytes {
                    return Err(too_many_bytes(limits));
                }
                let mode = if meta.mode() & 0o111 == 0 {
                    0o644
                } else {
                    0o755
                };
                set_mode(&full, mode)?;
            } else {
                return Err(refuse(
                    path.as_os_str().as_bytes(),
                    "it is neither a file, a folder nor a link",
                    "take it out of the repository",
                ));
            }
        }
    }
    Ok(summary)
}

fn set_mode(path: &Path, mode: u32) -> Result<(), Error> {
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
        .map_err(Error::io("set the mode of", path))
}

fn too_many(limits: &Limits) -> Error {
    Error::TooLarge {
        limit: limits.entries,
        unit: "files",
        setting: "limits.upload_files",
    }
}

fn too_many_bytes(limits: &Limits) -> Error {
    Error::TooLarge {
        limit: limits.bytes,
        unit: "bytes",
        setting: "limits.upload",
    }
}

fn link_out(raw: &[u8]) -> Error {
    refuse(
        raw,
        "it is a link to something outside of the source",
        "link to a relative path inside of it, or replace the link by a copy",
    )
}

fn refuse(raw: &[u8], problem: &'static str, remedy: &'static str) -> Error {
    Error::Entry {
        entry: printable(raw),
        problem,
        remedy,
    }
}

/// A name from outside as it may stand in a message.
fn printable(raw: &[u8]) -> String {
    let text: String = String::from_utf8_lossy(raw).chars().take(120).collect();
    crate::error::printable(&text)
}

#[cfg(test)]
mod tests;
