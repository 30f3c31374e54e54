//! Where blobs lie and what is around their content.
//!
//! A file is the content and a footer: `MICROBLB`, version u32, checksum of the content u32, length
//! u64; little-endian. The footer comes last, so a file without it was never finished.

use std::{
    io,
    path::{Path, PathBuf},
};

use micro_core::Namespace;

use crate::{
    Error,
    disk::{Disk, DiskFile},
};

use super::BlobId;

/// Bytes that are read or written at once.
pub(super) const PIECE: usize = 256 * 1024;
/// Bytes behind the content.
pub(super) const FOOTER: usize = 24;
const VERSION: u32 = 1;
const MAGIC: [u8; 8] = *b"MICROBLB";
const UNFINISHED: &str = ".tmp";

/// A file of a blob.
#[derive(Debug, Clone)]
pub(super) struct BlobFile {
    pub(super) id: BlobId,
    pub(super) path: PathBuf,
    pub(super) finished: bool,
    /// Bytes of the content.
    pub(super) bytes: u64,
}

/// What [`check`] found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct BlobReport {
    /// Finished blobs.
    pub(crate) blobs: u64,
    /// Bytes in them.
    pub(crate) bytes: u64,
    /// Files that were never finished; the next start removes them.
    pub(crate) unfinished: u64,
}

/// Bytes of content in a file of `bytes`.
pub(super) fn content_bytes(bytes: u64) -> u64 {
    bytes.saturating_sub(FOOTER as u64)
}

/// The path under which a blob is written.
pub(super) fn unfinished(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(UNFINISHED);
    name.into()
}

/// The namespaces that have a directory below `root`, in order.
pub(crate) fn namespaces(disk: &dyn Disk, root: &Path) -> Result<Vec<Namespace>, Error> {
    let directories = shards(disk, root)?;
    let names = directories.iter().filter_map(|d| d.file_name()?.to_str());
    let mut found: Vec<_> = names.filter_map(|n| Namespace::parse(n).ok()).collect();
    found.sort();
    Ok(found)
}

/// The directories that hold a namespace's blobs.
pub(super) fn shards(disk: &dyn Disk, directory: &Path) -> Result<Vec<PathBuf>, Error> {
    let entries = disk
        .list(directory)
        .map_err(|e| Error::file("read", directory, e))?;
    let shards = entries.into_iter().filter(|entry| entry.is_dir);
    Ok(shards.map(|entry| directory.join(entry.name)).collect())
}

/// The blobs in one of them. Files that are not ours are left alone.
pub(super) fn list(disk: &dyn Disk, shard: &Path) -> Result<Vec<BlobFile>, Error> {
    let entries = disk
        .list(shard)
        .map_err(|e| Error::file("read", shard, e))?;
    let mut found = Vec::new();
    for entry in entries {
        let Some(name) = entry.name.to_str() else {
            continue;
        };
        let (id, finished) = match name.strip_suffix(UNFINISHED) {
            Some(id) => (id, false),
            None => (name, true),
        };
        if let Ok(id) = BlobId::parse(id) {
            found.push(BlobFile {
                id,
                finished,
                path: shard.join(name),
                bytes: content_bytes(entry.bytes),
            });
        }
    }
    Ok(found)
}

pub(super) fn footer(length: u64, checksum: u32) -> Vec<u8> {
    let mut footer = MAGIC.to_vec();
    footer.extend_from_slice(&VERSION.to_le_bytes());
    footer.extend_from_slice(&checksum.to_le_bytes());
    footer.extend_from_slice(&length.to_le_bytes());
    footer
}

/// Length and checksum of the content, as the footer has them.
pub(super) fn read_footer(path: &Path, file: &dyn DiskFile) -> Result<(u64, u32), Error> {
    let damaged = |detail: &str| Error::Damaged {
        path: path.to_owned(),
        detail: detail.to_owned(),
    };
    let mut footer = [0; FOOTER];
    let length = file
        .len()
        .map(content_bytes)
        .map_err(|e| Error::file("read", path, e))?;
    match file.read_exact_at(&mut footer, length) {
        Ok(()) => {}
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => {
            return Err(damaged("it is too short"));
        }
        Err(e) => return Err(Error::file("read", path, e)),
    }
    let (numbers, _) = footer.as_chunks::<4>();
    let [m, agic, version, checksum, low, high] = *numbers else {
        return Err(damaged("it is too short"));
    };
    if [m, agic].as_flattened() != MAGIC {
        return Err(damaged("its end is missing"));
    }
    let version = u32::from_le_bytes(version);
    if version != VERSION {
        return Err(Error::NewerFile {
            path: path.to_owned(),
            found: version,
            known: VERSION,
        });
    }
    let recorded = u64::from(u32::from_le_bytes(low)) | (u64::from(u32::from_le_bytes(high)) << 32);
    if recorded != length {
        return Err(damaged("its length is not what was written"));
    }
    Ok((length, u32::from_le_bytes(checksum)))
}

/// Opens a blob; `None` when there is none.
#[expect(clippy::type_complexity, reason = "a file, its length, its checksum")]
pub(super) fn open(
    disk: &dyn Disk,
    path: &Path,
) -> Result<Option<(Box<dyn DiskFile>, u64, u32)>, Error> {
    match disk.open_read(path) {
        Ok(file) => {
            let (length, checksum) = read_footer(path, &*file)?;
            Ok(Some((file, length, checksum)))
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(Error::file("open", path, e)),
    }
}

/// That the content is not what was written.
pub(super) fn wrong_content(path: &Path) -> Error {
    Error::Damaged {
        path: path.to_owned(),
        detail: "its content is not what was written".to_owned(),
    }
}

/// Reads every blob of every namespace below `root` and verifies it.
pub(crate) fn check(disk: &dyn Disk, root: &Path) -> Result<BlobReport, Error> {
    let mut report = BlobReport::default();
    let mut buffer = vec![0; PIECE];
    for namespace in shards(disk, root)? {
        for shard in shards(disk, &namespace)? {
            for blob in list(disk, &shard)? {
                if !blob.finished {
                    report.unfinished = report.unfinished.saturating_add(1);
                    continue;
                }
                let Some((file, length, checksum)) = open(disk, &blob.path)? else {
                    continue;
                };
                verify(&blob.path, &*file, length, checksum, &mut buffer)?;
                report.blobs = report.blobs.saturating_add(1);
                report.bytes = report.bytes.saturating_add(length);
            }
        }
    }
    Ok(report)
}

fn verify(
    path: &Path,
    file: &dyn DiskFile,
    length: u64,
    checksum: u32,
    buffer: &mut [u8],
) -> Result<(), Error> {
    let mut hasher = crc32fast::Hasher::new();
    let mut at = 0u64;
    while at < length {
        let left = usize::try_from(length.saturating_sub(at)).unwrap_or(usize::MAX);
        let size = left.min(buffer.len());
        let piece = buffer.get_mut(..size).unwrap_or_default();
        file.read_exact_at(piece, at)
            .map_err(|e| Error::file("read", path, e))?;
        hasher.update(piece);
        at = at.saturating_add(size as u64);
    }
    if hasher.finalize() == checksum {
        Ok(())
    } else {
        Err(wrong_content(path))
    }
}

/// Puts all finished blobs below `root` into `into` as well, durably. On one file system they share
/// their bytes with the originals, which never change. Those that are there already stay, so that it
/// can be called again for what came meanwhile. Answers how many it added.
pub(crate) fn snapshot(disk: &dyn Disk, root: &Path, into: &Path) -> Result<u64, Error> {
    let mut added = 0u64;
    let make = |directory: &Path| {
        disk.create_dir_all(directory)
            .map_err(|e| Error::file("create", directory, e))
    };
    let sync = |directory: &Path| {
        disk.sync_dir(directory)
            .map_err(|e| Error::file("sync", directory, e))
    };
    make(into)?;
    for namespace in shards(disk, root)? {
        let target = into.join(namespace.file_name().unwrap_or_default());
        for shard in shards(disk, &namespace)? {
            let target = target.join(shard.file_name().unwrap_or_default());
            make(&target)?;
            for blob in list(disk, &shard)? {
                if blob.finished && share(disk, &blob.path, &target.join(blob.id.to_string()))? {
                    added = added.saturating_add(1);
                }
            }
            sync(&target)?;
        }
        make(&target)?;
        sync(&target)?;
    }
    sync(into)?;
    Ok(added)
}

fn share(disk: &dyn Disk, from: &Path, to: &Path) -> Result<bool, Error> {
    match disk.link(from, to) {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        // Deleted meanwhile.
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
        // Another file system, or one without links.
        Err(e)
            if matches!(
                e.kind(),
                io::ErrorKind::CrossesDevices
                    | io::ErrorKind::Unsupported
                    | io::ErrorKind::PermissionDenied
                    | io::ErrorKind::TooManyLinks
            ) =>
        {
            copy(disk, from, to).map(|()| true)
        }
        Err(e) => Err(Error::file("link", to, e)),
    }
}

fn copy(disk: &dyn Disk, from: &Path, to: &Path) -> Result<(), Error> {
    let copied = (|| {
        let source = disk.open_read(from)?;
        let target = disk.create(to)?;
        let mut buffer = vec![0; PIECE];
        let mut at = 0u64;
        loop {
            let size = source.fill_at(&mut buffer, at)?;
            let piece = buffer.get(..size).unwrap_or_default();
            if piece.is_empty() {
                return target.sync_all();
            }
            target.write_all_at(piece, at)?;
            at = at.saturating_add(size as u64);
        }
    })();
    copied.map_err(|e| {
        // Half a copy must not be taken for the blob by the next call.
        let _ = disk.remove(to);
        Error::file("copy", from, e)
    })
}
