//! The segments of a topic in its directory, and the few that are open.

use std::{
    collections::{BTreeSet, HashMap, HashSet, VecDeque},
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use super::{
    Topics,
    index::{self, Index},
    lock, record,
    segment::Segment as Open,
    topic::{Segment, Topic},
    write::scan,
};
use crate::{
    Error,
    disk::{Disk, DiskFile, Listed},
};

/// Segments that stay open for reading, of all topics together.
const OPEN: usize = 64;
/// Above this many files one sync of the file system is cheaper than one of each.
const FEW: usize = 16;

/// Segments that were read lately.
#[derive(Default)]
pub(super) struct OpenFiles(Mutex<Lately>);

#[derive(Default)]
struct Lately {
    /// By incarnation and base, with the moment of the last use.
    open: HashMap<(u64, u64), (Arc<Open>, u64)>,
    moment: u64,
}

/// Files that nothing needs any more.
pub(super) enum Doomed {
    /// One segment of the topic in this directory.
    Segment(PathBuf, u64),
    /// A directory with all that is in it.
    Topic(PathBuf),
}

/// Removing files, which waits while they are copied.
#[derive(Default)]
pub(super) struct Disposal {
    holds: usize,
    waiting: Vec<Doomed>,
}

/// While this lives, no confirmed file is removed.
pub(crate) struct Hold<'a>(&'a Topics);

/// What a flush has to sync.
pub(super) struct Dirty {
    disk: Arc<dyn Disk>,
    root: PathBuf,
    files: Vec<(PathBuf, Box<dyn DiskFile>)>,
    directories: BTreeSet<PathBuf>,
    many: bool,
}

impl OpenFiles {
    fn get(&self, incarnation: u64, base: u64) -> Option<Arc<Open>> {
        let mut lately = lock(&self.0);
        lately.moment = lately.moment.saturating_add(1);
        let moment = lately.moment;
        let (open, used) = lately.open.get_mut(&(incarnation, base))?;
        *used = moment;
        Some(Arc::clone(open))
    }

    fn put(&self, incarnation: u64, base: u64, segment: &Arc<Open>) {
        let mut lately = lock(&self.0);
        lately.moment = lately.moment.saturating_add(1);
        let entry = (Arc::clone(segment), lately.moment);
        lately.open.insert((incarnation, base), entry);
        while lately.open.len() > OPEN {
            let oldest = lately.open.iter().min_by_key(|(_, (_, used))| *used);
            let Some(oldest) = oldest.map(|(key, _)| *key) else {
                break;
            };
            lately.open.remove(&oldest);
        }
    }

    pub(super) fn forget(&self, incarnation: u64, base: u64) {
        lock(&self.0).open.remove(&(incarnation, base));
    }

    pub(super) fn forget_all(&self, incarnation: u64) {
        lock(&self.0).open.retain(|key, _| key.0 != incarnation);
    }
}

impl Topics {
    /// Removes directories of topics that the index does not know.
    pub(super) fn sweep(&self) -> Result<(), Error> {
        let known: HashSet<PathBuf> = {
            let namespaces = self
                .namespaces
                .read()
                .unwrap_or_else(PoisonError::into_inner);
            let topics = namespaces.values().flat_map(|t| t.topics.values());
            topics.map(|t| t.directory(&self.directory)).collect()
        };
        let list = |path: &Path| {
            self.disk
                .list(path)
                .map_err(|e| Error::file("read", path, e))
        };
        for namespace in list(&self.directory)?.into_iter().filter(|l| l.is_dir) {
            let namespace = self.directory.join(namespace.name);
            for topic in list(&namespace)?.into_iter().filter(|l| l.is_dir) {
                let path = namespace.join(topic.name);
                if !known.contains(&path) {
                    discard_all(&*self.disk, &path);
                }
            }
        }
        Ok(())
    }

    /// Makes sure that the segments of a topic are known.
    pub(super) fn load(&self, topic: &Topic) -> Result<(), Error> {
        let listing = lock(&topic.listing);
        if topic.state().segments.is_none() {
            self.read_directory(topic, false)?;
        }
        drop(listing);
        Ok(())
    }

    /// Cuts off what was never confirmed, unless that was done since the last crash or failure.
    /// For the one that writes.
    pub(super) fn repair(&self, topic: &Topic) -> Result<(), Error> {
        let listing = lock(&topic.listing);
        if !topic.state().repaired {
            self.read_directory(topic, true)?;
        }
        drop(listing);
        Ok(())
    }

    fn read_directory(&self, topic: &Topic, repair: bool) -> Result<(), Error> {
        let stored = topic.state().stored;
        let directory = topic.directory(&self.directory);
        let failed = |action, path: &Path| {
            let path = path.to_owned();
            move |e| Error::file(action, path, e)
        };
        let listed = self
            .disk
            .list(&directory)
            .map_err(failed("read", &directory))?;
        let mut segments: VecDeque<Segment> = VecDeque::new();
        for Listed { name, bytes, .. } in listed {
            let path = directory.join(&name);
            let base = name.to_str().and_then(record::segment_base);
            let indexed = name.to_str().and_then(record::index_base);
            let confirmed = match (base, indexed) {
                (Some(base), _) => stored.length > 0 && base <= stored.base,
                // That of the last segment would be of a longer life of it.
                (_, Some(base)) => stored.length > 0 && base < stored.base,
                _ => continue,
            };
            if !confirmed {
                if repair {
                    self.disk.remove(&path).map_err(failed("remove", &path))?;
                }
            } else if let Some(base) = base {
                segments.push_back(Segment { base, bytes });
            }
        }
        segments.make_contiguous().sort_by_key(|s| s.base);
        let mut whole = stored.length == 0;
        if let Some(last) = segments.back_mut().filter(|last| last.base == stored.base) {
            whole = last.bytes >= stored.length;
            if last.bytes > stored.length {
                last.bytes = stored.length;
                if repair {
                    // Synced, for nothing may be written to this file any more.
                    let path = directory.join(record::segment_name(stored.base));
                    self.disk
                        .open(&path)
                        .and_then(|file| file.set_len(stored.length).and(file.sync_data()))
                        .map_err(failed("cut off", &path))?;
                }
            }
        }
        // The files of what had been let go when the node stopped.
        let over = super::topic::expired(&segments, stored.end, stored.first);
        let over = segments.drain(..over).map(|s| s.base);
        let over = over.map(|base| Doomed::Segment(directory.clone(), base));
        if repair {
            self.discard(over.collect());
        } else {
            drop(over);
        }
        let mut state = topic.state();
        if !whole {
            tracing::error!(
                namespace = %topic.namespace, topic = &*topic.name, directory = %directory.display(),
                "Events of a topic are missing in its files."
            );
            state.spoiled = true;
        }
        state.repaired |= repair;
        state.segments = Some(segments);
        Ok(())
    }

    /// The segment of a topic that begins with the event `base`, open for reading; `None` when there
    /// is no such file.
    pub(super) fn segment(&self, topic: &Topic, base: u64) -> Result<Option<Arc<Open>>, Error> {
        if let Some(open) = self.open.get(topic.incarnation, base) {
            return Ok(Some(open));
        }
        // Where it ends, if it is full.
        let end = {
            let state = topic.state();
            let bases = state.segments.iter().flatten().map(|s| s.base);
            bases.filter(|other| *other > base).min()
        };
        let directory = topic.directory(&self.directory);
        let path = directory.join(record::segment_name(base));
        let failed = |e| Error::file("read", &path, e);
        let file = match self.disk.open_read(&path) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(failed(e)),
        };
        let mut head = [0; 9];
        let read = file.fill_at(&mut head, 0).map_err(failed)?;
        let version = head.get(..read).and_then(record::version);
        if let Some(found) = version.filter(|v| *v > record::VERSION) {
            return Err(Error::NewerFile {
                path,
                found: found.into(),
                known: record::VERSION.into(),
            });
        }
        let seed = record::seed(topic.incarnation, base);
        let length = record::segment_head_length(&topic.namespace, &topic.name);
        let start = (base, length);
        let index = match end {
            Some(end) => self.full_index(&*file, &path, seed, start, end)?,
            None => Index::new(base, length),
        };
        let open = Arc::new(Open::new(file, path, seed, start, index));
        self.open.put(topic.incarnation, base, &open);
        Ok(Some(open))
    }

    /// The index of a full segment: from its file, or made again when that is missing or damaged.
    fn full_index(
        &self,
        file: &dyn DiskFile,
        path: &Path,
        seed: u32,
        start: (u64, u64),
        end: u64,
    ) -> Result<Index, Error> {
        let failed = |e| Error::file("read", path, e);
        let beside = path.with_extension("idx");
        if let Ok(stored) = self.disk.open_read(&beside) {
            let limit = index::longest(file.len().map_err(failed)?);
            let length = stored.len().map_err(failed)?.min(limit);
            let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
            if stored.read_exact_at(&mut bytes, 0).is_ok()
                && let Some(index) = Index::decode(&bytes, start.0, end)
            {
                return Ok(index);
            }
        }
        let index = scan(file, path, seed, start, end)?;
        if self.writable
            && let Err(error) = write_index(&*self.disk, &beside, &index.encode(start.0))
        {
            // It only saves time, the next time.
            tracing::warn!(%error, file = %beside.display(), "An index could not be written.");
        }
        Ok(index)
    }

    /// Removes files, or leaves that to those who hold them.
    pub(super) fn discard(&self, doomed: Vec<Doomed>) {
        if doomed.is_empty() || !self.writable {
            return;
        }
        let mut disposal = lock(&self.disposal);
        if disposal.holds > 0 {
            disposal.waiting.extend(doomed);
            return;
        }
        drop(disposal);
        for doomed in doomed {
            match doomed {
                Doomed::Segment(directory, base) => {
                    for name in [record::index_name(base), record::segment_name(base)] {
                        discard(&*self.disk, &directory.join(name));
                    }
                }
                Doomed::Topic(directory) => discard_all(&*self.disk, &directory),
            }
        }
    }

    /// Keeps all confirmed files as long as the answer lives, for a snapshot.
    pub(crate) fn hold(&self) -> Hold<'_> {
        let mut disposal = lock(&self.disposal);
        disposal.holds = disposal.holds.saturating_add(1);
        Hold(self)
    }
}

impl Drop for Hold<'_> {
    fn drop(&mut self) {
        let mut disposal = lock(&self.0.disposal);
        disposal.holds = disposal.holds.saturating_sub(1);
        let doomed = std::mem::take(&mut disposal.waiting);
        drop(disposal);
        self.0.discard(doomed);
    }
}

impl Dirty {
    pub(super) fn new(disk: &Arc<dyn Disk>, root: &Path) -> Self {
        Self {
            disk: Arc::clone(disk),
            root: root.to_owned(),
            files: Vec::new(),
            directories: BTreeSet::new(),
            many: false,
        }
    }

    /// A file was written to.
    pub(super) fn file(&mut self, path: PathBuf, file: Box<dyn DiskFile>) {
        if !self.many {
            self.files.push((path, file));
            self.count();
        }
    }

    /// A name was made in a directory.
    pub(super) fn directory(&mut self, path: &Path) {
        if !self.many && self.directories.insert(path.to_owned()) {
            self.count();
        }
    }

    /// A directory was made, and perhaps those above it.
    pub(super) fn made(&mut self, path: &Path) {
        for above in path.ancestors().skip(1) {
            self.directory(above);
            if *above == *self.root {
                break;
            }
        }
        // The directory of the topics itself may be new, too.
        if let Some(parent) = self.root.clone().parent() {
            self.directory(parent);
        }
    }

    fn count(&mut self) {
        if self.files.len().saturating_add(self.directories.len()) > FEW {
            self.many = true;
            self.files.clear();
            self.directories.clear();
        }
    }

    /// Makes all of it durable.
    pub(super) fn sync(self) -> Result<(), Error> {
        if self.many {
            return self
                .disk
                .sync_file_system(&self.root)
                .map_err(|e| Error::file("sync", self.root, e));
        }
        for (path, file) in self.files {
            file.sync_data().map_err(|e| Error::file("sync", path, e))?;
        }
        for path in self.directories {
            self.disk
                .sync_dir(&path)
                .map_err(|e| Error::file("sync", path, e))?;
        }
        Ok(())
    }
}

/// Writes the index beside a full segment, in place of one that may be there.
pub(super) fn write_index(
    disk: &dyn Disk,
    path: &Path,
    bytes: &[u8],
) -> io::Result<Box<dyn DiskFile>> {
    match disk.remove(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let file = disk.create(path)?;
    file.write_all_at(bytes, 0)?;
    Ok(file)
}

/// Removes a file. What stays in spite of that only takes room.
fn discard(disk: &dyn Disk, path: &Path) {
    if let Err(error) = disk.remove(path)
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(%error, file = %path.display(), "A file that is not needed any more could not be removed.");
    }
}

/// Removes a directory with the files in it.
fn discard_all(disk: &dyn Disk, directory: &Path) {
    for listed in disk.list(directory).unwrap_or_default() {
        discard(disk, &directory.join(listed.name));
    }
    if let Err(error) = disk.remove_dir(directory)
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(%error, directory = %directory.display(), "A directory that is not needed any more could not be removed.");
    }
}
