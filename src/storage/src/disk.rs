//! The few things that the log and the topics ask of a file system, so that tests can take them away.
//!
//! [`OsDisk`] is the real one. The tests' disk lives in memory and fails on demand: an error at the
//! nth write or sync, a disk that is full, a power cut that forgets what was not synced.
//! redb has a seam of its own (`StorageBackend`), SQLite and small files are not seen from here.

use std::{
    ffi::OsString,
    fmt,
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

#[cfg(test)]
pub(crate) mod faulty;

/// A directory tree in which the log and the topics keep their files.
pub(crate) trait Disk: Send + Sync + fmt::Debug + 'static {
    /// Opens a file that exists, for reading and writing.
    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;
    /// Opens a file that exists, for reading alone.
    fn open_read(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;
    /// Makes a file that only its owner may read; `AlreadyExists` when there is one. Its name is
    /// durable after [`Disk::sync_dir`] of its directory.
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;
    /// What is in a directory, ordered by name; nothing when there is no such directory.
    fn list(&self, directory: &Path) -> io::Result<Vec<Listed>>;
    /// Removes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Removes an empty directory.
    fn remove_dir(&self, path: &Path) -> io::Result<()>;
    /// Gives a file or directory another name, replacing a file that has it.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Gives a file a second name; `AlreadyExists` when there is one of that name.
    fn link(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Makes a directory and those above it, for their owner alone, unless they exist.
    fn create_dir_all(&self, directory: &Path) -> io::Result<()>;
    /// Makes the names in a directory durable.
    fn sync_dir(&self, directory: &Path) -> io::Result<()>;
    /// Makes everything durable that was written to the file system that holds `directory`. One
    /// call in place of a sync per file when many files are dirty.
    fn sync_file_system(&self, directory: &Path) -> io::Result<()>;
}

/// One open file. Every read and write says where.
pub(crate) trait DiskFile: Send + Sync + fmt::Debug {
    /// Writes all of `bytes` at `offset`, growing the file where it ends before. After an error any
    /// part of it may have been written.
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Reads up to `buffer.len()` bytes from `offset`; 0 at the end of the file.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Makes the content durable, with what of the metadata is needed to read it back.
    fn sync_data(&self) -> io::Result<()>;
    /// Makes the content and all of the metadata durable.
    fn sync_all(&self) -> io::Result<()>;
    /// Cuts the file off, or grows it by zeros that take no space yet.
    fn set_len(&self, bytes: u64) -> io::Result<()>;
    /// How long it is.
    fn len(&self) -> io::Result<u64>;

    /// Fills `buffer` from `offset`; `UnexpectedEof` when the file ends before.
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        if self.fill_at(buffer, offset)? == buffer.len() {
            Ok(())
        } else {
            Err(io::ErrorKind::UnexpectedEof.into())
        }
    }

    /// Reads from `offset` until `buffer` is full or the file ends; says how much it was.
    fn fill_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut filled = 0usize;
        while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match self.read_at(rest, offset.saturating_add(filled as u64)) {
                Ok(0) => break,
                Ok(read) => filled = filled.saturating_add(read),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(filled)
    }
}

/// One entry of a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Listed {
    /// Its name, without the directory.
    pub(crate) name: OsString,
    /// Its length; of no meaning for a directory.
    pub(crate) bytes: u64,
    /// Whether it is a directory itself.
    pub(crate) is_dir: bool,
}

/// Whether an error says that there is no room: the disk is full, or what the user may take of it.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}

/// The machine's own file system.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct OsDisk;

impl Disk for OsDisk {
    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        Ok(Box::new(file))
    }

    fn open_read(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(File::open(path)?))
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)?;
        Ok(Box::new(file))
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<Listed>> {
        let entries = match fs::read_dir(directory) {
            Ok(entries) => entries,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(e),
        };
        let mut found = Vec::new();
        for entry in entries {
            let entry = entry?;
            let metadata = match entry.metadata() {
                Ok(metadata) => metadata,
                // Removed since the directory was read.
                Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                Err(e) => return Err(e),
            };
            found.push(Listed {
                name: entry.file_name(),
                bytes: metadata.len(),
                is_dir: metadata.is_dir(),
            });
        }
        found.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(found)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        fs::remove_dir(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::hard_link(from, to)
    }

    fn create_dir_all(&self, directory: &Path) -> io::Result<()> {
        create_private_dir(directory)
    }

    fn sync_dir(&self, directory: &Path) -> io::Result<()> {
        File::open(directory)?.sync_all()
    }

    fn sync_file_system(&self, directory: &Path) -> io::Result<()> {
        Ok(nix::unistd::syncfs(File::open(directory)?)?)
    }
}

impl DiskFile for File {
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        std::os::unix::fs::FileExt::write_all_at(self, bytes, offset)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        std::os::unix::fs::FileExt::read_at(self, buffer, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        Self::sync_data(self)
    }

    fn sync_all(&self) -> io::Result<()> {
        Self::sync_all(self)
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        Self::set_len(self, bytes)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }
}

/// Makes a directory and those above it, for their owner alone, unless they exist.
pub(crate) fn create_private_dir(directory: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
}
