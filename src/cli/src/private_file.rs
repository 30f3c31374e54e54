//! Reading and replacing the small files under `~/.micro`. They hold credentials: mode 0600 in
//! folders of mode 0700, replaced as a whole or not at all.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::Path,
};

use crate::error::{Error, Result};

/// The text of a file; `None` if there is no such file.
///
/// # Errors
/// When it cannot be read or is no UTF-8.
pub(crate) fn read(path: &Path) -> Result<Option<String>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) if e.kind() == io::ErrorKind::InvalidData => Err(Error::Damaged {
            path: path.into(),
            reason: "it is not text".into(),
        }),
        Err(e) => Err(Error::file("read", path)(e)),
    }
}

/// Puts `text` in the place of the file, making its folder if there is none.
///
/// # Errors
/// When the folder or the file cannot be written.
pub(crate) fn replace(path: &Path, text: &str) -> Result<()> {
    // A link is followed, so that people can keep the real file elsewhere.
    let target = fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
    let folder = target.parent().unwrap_or_else(|| Path::new("."));
    if !folder.as_os_str().is_empty() && !folder.is_dir() {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .map_err(Error::file("create", folder))?;
    }
    let mut name = target.file_name().unwrap_or_default().to_os_string();
    name.push(format!(".{}.new", std::process::id()));
    let temporary = target.with_file_name(name);
    let written = write_new(&temporary, text)
        .map_err(Error::file("write", &temporary))
        .and_then(|()| fs::rename(&temporary, &target).map_err(Error::file("replace", &target)));
    if written.is_err() {
        // The old file is untouched; only the half-made one goes.
        let _ = fs::remove_file(&temporary);
    }
    written
}

fn write_new(path: &Path, text: &str) -> io::Result<()> {
    let _ = fs::remove_file(path);
    let mut file: File = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn files_are_for_their_owner_only_and_leave_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/tokens");
        replace(&path, "one").unwrap();
        replace(&path, "two").unwrap();
        assert_eq!(read(&path).unwrap().as_deref(), Some("two"));
        let mode = |p: &Path| fs::metadata(p).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&path), 0o600);
        assert_eq!(mode(&dir.path().join("a")), 0o700);
        assert_eq!(fs::read_dir(dir.path().join("a")).unwrap().count(), 1);
    }

    #[test]
    fn a_missing_file_is_no_error() {
        assert!(read(Path::new("/nonexistent/micro")).unwrap().is_none());
    }
}
