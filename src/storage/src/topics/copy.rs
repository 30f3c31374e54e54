//! The files of a snapshot.
//!
//! A full segment never changes, so a hard link is a copy of it. The last one is copied as far as it
//! was confirmed.

use std::{fs, path::Path};

use super::{
    Topics,
    files::{Dirty, Hold},
    record,
    recorded::Recorded,
};
use crate::Error;

/// Bytes copied at once.
const CHUNK: usize = 1 << 20;

impl Topics {
    /// Puts the files of the topics as `recorded` has them below `into`, synced. Take the
    /// [`Hold`] before `recorded` is read from the index, so that its files are still there.
    ///
    /// # Errors
    /// `Exhausted` when there is no room, `Internal` otherwise.
    pub(crate) fn copy(
        &self,
        _held: &Hold<'_>,
        recorded: &[Recorded],
        into: &Path,
    ) -> Result<(), Error> {
        let mut dirty = Dirty::new(&self.disk, into);
        self.disk
            .create_dir_all(into)
            .map_err(|e| Error::file("create", into, e))?;
        for recorded in recorded {
            self.copy_topic(recorded, into, &mut dirty)?;
        }
        dirty.made(&into.join("topic"));
        dirty.sync()
    }

    fn copy_topic(&self, recorded: &Recorded, into: &Path, dirty: &mut Dirty) -> Result<(), Error> {
        let name = record::directory_name(&recorded.topic, recorded.incarnation);
        let namespace = recorded.namespace.as_str();
        let from = self.directory.join(namespace).join(&name);
        let into = into.join(namespace).join(&name);
        let stored = recorded.stored;
        let listed = self
            .disk
            .list(&from)
            .map_err(|e| Error::file("read", &from, e))?;
        let mut made = false;
        for listed in listed {
            let Some(base) = listed.name.to_str().and_then(record::segment_base) else {
                continue;
            };
            if stored.length == 0 || base > stored.base {
                continue;
            }
            if !made {
                self.disk
                    .create_dir_all(&into)
                    .map_err(|e| Error::file("create", &into, e))?;
                dirty.made(&into);
                dirty.directory(&into);
                made = true;
            }
            let (source, target) = (from.join(&listed.name), into.join(&listed.name));
            if base == stored.base {
                self.copy_file(&source, &target, stored.length, dirty)?;
            } else if fs::hard_link(&source, &target).is_err() {
                // Another file system, or one without links.
                self.copy_file(&source, &target, listed.bytes, dirty)?;
            }
        }
        Ok(())
    }

    fn copy_file(
        &self,
        source: &Path,
        target: &Path,
        length: u64,
        dirty: &mut Dirty,
    ) -> Result<(), Error> {
        let reading = |e| Error::file("read", source, e);
        let writing = |e| Error::file("write", target, e);
        let from = self.disk.open_read(source).map_err(reading)?;
        let into = self.disk.create(target).map_err(writing)?;
        let mut chunk = vec![0; CHUNK];
        let mut at = 0u64;
        while at < length {
            let wanted = usize::try_from(length.saturating_sub(at)).unwrap_or(CHUNK);
            let wanted = wanted.min(CHUNK);
            let part = chunk.get_mut(..wanted).unwrap_or_default();
            let read = from.fill_at(part, at).map_err(reading)?;
            let Some(part) = chunk.get(..read).filter(|part| !part.is_empty()) else {
                break;
            };
            into.write_all_at(part, at).map_err(writing)?;
            at = at.saturating_add(read as u64);
        }
        dirty.file(target.to_owned(), into);
        Ok(())
    }
}
