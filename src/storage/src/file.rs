//! Small files: written whole, or not at all.

use std::{
    fs::{self, File, OpenOptions, Permissions},
    io::{self, Write as _},
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

use crate::Error;

/// Replaces the file at `path` by `bytes` with the permissions `mode`.
///
/// Readers and a crash see the old content or the new one. When this returns, the new one is on the
/// disk: temporary file, sync, rename, sync of the directory.
///
/// # Errors
/// `Internal`, naming the step that failed; the old file is untouched then.
pub fn write_atomic(path: &Path, bytes: &[u8], mode: u32) -> Result<(), Error> {
    static SERIAL: AtomicU64 = AtomicU64::new(0);
    let name = path
        .file_name()
        .ok_or_else(|| Error::file("write", path, io::ErrorKind::InvalidInput.into()))?;
    let mut temporary = std::ffi::OsString::from(".");
    temporary.push(name);
    temporary.push(format!(
        ".{}.{}.tmp",
        std::process::id(),
        SERIAL.fetch_add(1, Ordering::Relaxed)
    ));
    let temporary = path.with_file_name(temporary);
    let result = fill(&temporary, bytes, mode)
        .and_then(|()| fs::rename(&temporary, path).map_err(|e| Error::file("replace", path, e)));
    if let Err(error) = result {
        // It may not exist; the first failure is the one to tell.
        let _ = fs::remove_file(&temporary);
        return Err(error);
    }
    sync_directory(path)
}

fn fill(path: &Path, bytes: &[u8], mode: u32) -> Result<(), Error> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)
        .map_err(|e| Error::file("create", path, e))?;
    // The umask may have taken bits away that the caller asked for.
    file.set_permissions(Permissions::from_mode(mode))
        .and_then(|()| file.write_all(bytes))
        .and_then(|()| file.sync_all())
        .map_err(|e| Error::file("write", path, e))
}

/// Makes the entry of `path` in its directory durable.
pub(crate) fn sync_directory(path: &Path) -> Result<(), Error> {
    let directory = parent(path);
    File::open(&directory)
        .and_then(|d| d.sync_all())
        .map_err(|e| Error::file("sync", directory, e))
}

/// Makes an empty file that nobody else may read, with its directory, unless there is one.
///
/// Databases hold password hashes; their engines would make them readable for all.
pub(crate) fn create_private(path: &Path) -> Result<(), Error> {
    let directory = parent(path);
    fs::create_dir_all(&directory).map_err(|e| Error::file("create", &directory, e))?;
    match OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
    {
        Ok(_) => sync_directory(path),
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(e) => Err(Error::file("create", path, e)),
    }
}

fn parent(path: &Path) -> PathBuf {
    match path.parent() {
        Some(p) if !p.as_os_str().is_empty() => p.to_owned(),
        _ => PathBuf::from("."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_whole_and_gets_the_mode_asked_for() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("note");
        write_atomic(&path, b"old", 0o644).unwrap();
        write_atomic(&path, b"new and longer", 0o600).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new and longer");
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        assert_eq!(
            fs::read_dir(dir.path()).unwrap().count(),
            1,
            "no temporary file is left"
        );
    }

    #[test]
    fn a_failure_names_the_file_and_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("missing").join("note");
        let text = write_atomic(&path, b"x", 0o600).unwrap_err().to_string();
        assert!(text.contains("missing"), "{text}");
        // A directory in the way: the rename fails after the temporary file was written.
        let path = dir.path().join("taken");
        fs::create_dir_all(path.join("full")).unwrap();
        assert!(write_atomic(&path, b"x", 0o600).is_err());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
