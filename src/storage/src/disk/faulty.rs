//! A disk in memory that misbehaves as tests ask: errors, half writes, no space, power cuts.
//!
//! It remembers what of each file was synced and which writes came after. A power cut keeps the
//! synced part and, by the toss of a coin for each 512 bytes, what came after, in any order. A sync
//! that fails behaves as on Linux: what was dirty is on the disk or not, readers still see it until
//! the power goes, and the next sync says that all is well. Names behave as in a journal: a cut keeps
//! what [`Disk::sync_dir`] made durable and some first part of what came after.
//!
//! To kill the process alone, drop what uses the disk and open it again.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::{Disk, DiskFile, Listed};

/// What the disk can be asked to do, for counting and for faults.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Op {
    /// `open` and `open_read`.
    Open,
    Create,
    Read,
    Write,
    /// `sync_data`, `sync_all` and `sync_file_system`.
    Sync,
    SetLen,
    /// `remove` and `remove_dir`.
    Remove,
    Rename,
    SyncDir,
}

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// An input/output error; a write may have got through in part.
    Eio,
    /// No space, nothing done.
    NoSpace,
    /// A write gets this many bytes through, then there is no space.
    Short(usize),
    /// The power goes before the operation is done; everything fails until
    /// [`FaultyDisk::power_cut`].
    PowerOff,
}

#[derive(Debug)]
struct Fault {
    op: Op,
    skip: u64,
    times: u64,
    trouble: Trouble,
    path: String,
}

/// See the page of this module. Clones share the disk.
#[derive(Clone)]
pub(crate) struct FaultyDisk {
    state: Arc<Mutex<State>>,
}

impl std::fmt::Debug for FaultyDisk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("FaultyDisk")
    }
}

#[derive(Debug)]
struct State {
    nodes: Vec<Node>,
    names: BTreeMap<PathBuf, Entry>,
    durable: BTreeMap<PathBuf, Entry>,
    journal: Vec<NameOp>,
    faults: Vec<Fault>,
    counts: BTreeMap<Op, u64>,
    capacity: Option<u64>,
    epoch: u64,
    off: bool,
    random: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Entry {
    Dir,
    File(usize),
}

#[derive(Debug, Default)]
struct Node {
    now: Vec<u8>,
    synced: Vec<u8>,
    pending: Vec<Pending>,
}

#[derive(Debug)]
enum Pending {
    Write(u64, Vec<u8>),
    SetLen(u64),
}

#[derive(Debug, Clone)]
enum NameOp {
    Link(PathBuf, Entry),
    Unlink(PathBuf),
    Rename(PathBuf, PathBuf),
}

#[derive(Debug)]
struct FaultyFile {
    disk: FaultyDisk,
    node: usize,
    epoch: u64,
    path: PathBuf,
}

impl FaultyDisk {
    /// An empty disk without faults. `seed` decides what a failed operation leaves behind.
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            state: Arc::new(Mutex::new(State {
                nodes: Vec::new(),
                names: BTreeMap::new(),
                durable: BTreeMap::new(),
                journal: Vec::new(),
                faults: Vec::new(),
                counts: BTreeMap::new(),
                capacity: None,
                epoch: 0,
                off: false,
                random: seed | 1,
            })),
        }
    }

    /// Lets the `nth` next operation (from 1) of this kind fail, once.
    pub(crate) fn fail(&self, op: Op, nth: u64, trouble: Trouble) {
        self.fail_on("", op, nth, 1, trouble);
    }

    /// Lets every operation of this kind fail until [`FaultyDisk::heal`].
    pub(crate) fn fail_always(&self, op: Op, trouble: Trouble) {
        self.fail_on("", op, 1, u64::MAX, trouble);
    }

    /// As the two above, on paths that contain `path` alone.
    pub(crate) fn fail_on(&self, path: &str, op: Op, nth: u64, times: u64, trouble: Trouble) {
        self.lock().faults.push(Fault {
            op,
            skip: nth.saturating_sub(1),
            times,
            trouble,
            path: path.to_owned(),
        });
    }

    /// Takes all faults away, and the bound on the capacity.
    pub(crate) fn heal(&self) {
        let mut state = self.lock();
        state.faults.clear();
        state.capacity = None;
    }

    /// From now on files can grow to this many bytes together. `None`: without bound.
    pub(crate) fn set_capacity(&self, bytes: Option<u64>) {
        self.lock().capacity = bytes;
    }

    /// Bytes in all files.
    pub(crate) fn used(&self) -> u64 {
        self.lock().used()
    }

    /// How often it was asked to do this.
    pub(crate) fn count(&self, op: Op) -> u64 {
        self.lock().counts.get(&op).copied().unwrap_or(0)
    }

    /// The machine loses its power and starts again. Of what was not synced, `keep` decides, once
    /// for each piece. Files that are open stay dead.
    pub(crate) fn power_cut(&self, mut keep: impl FnMut() -> bool) {
        let mut state = self.lock();
        state.epoch += 1;
        state.off = false;
        state.faults.clear();
        for op in std::mem::take(&mut state.journal) {
            if !keep() {
                break;
            }
            apply(&mut state.durable, &op);
        }
        state.names = state.durable.clone();
        for node in &mut state.nodes {
            node.resolve(&mut keep);
            node.now.clone_from(&node.synced);
        }
    }

    /// Changes the bytes of a file behind everybody's back.
    pub(crate) fn edit(&self, path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
        let mut state = self.lock();
        let Some(Entry::File(node)) = state.names.get(path).copied() else {
            panic!("no file {}", path.display());
        };
        let node = &mut state.nodes[node];
        change(&mut node.now);
        node.synced.clone_from(&node.now);
        node.pending.clear();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn handle(&self, state: &State, node: usize, path: &Path) -> Box<dyn DiskFile> {
        Box::new(FaultyFile {
            disk: self.clone(),
            node,
            epoch: state.epoch,
            path: path.to_owned(),
        })
    }
}

impl Node {
    /// Brings to the disk what the coin lets through of the writes since the last sync.
    fn resolve(&mut self, keep: &mut dyn FnMut() -> bool) {
        for pending in std::mem::take(&mut self.pending) {
            match pending {
                Pending::SetLen(bytes) => {
                    if keep() {
                        self.synced.resize(bytes as usize, 0);
                    }
                }
                Pending::Write(offset, bytes) => {
                    let mut at = offset as usize;
                    let mut rest = bytes.as_slice();
                    while !rest.is_empty() {
                        let piece = (512 - at % 512).min(rest.len());
                        if keep() {
                            put(&mut self.synced, at, &rest[..piece]);
                        }
                        at += piece;
                        rest = &rest[piece..];
                    }
                }
            }
        }
    }

    fn sync(&mut self) {
        self.resolve(&mut || true);
    }
}

fn put(content: &mut Vec<u8>, at: usize, bytes: &[u8]) {
    let end = at + bytes.len();
    if content.len() < end {
        content.resize(end, 0);
    }
    content[at..end].copy_from_slice(bytes);
}

fn apply(names: &mut BTreeMap<PathBuf, Entry>, op: &NameOp) {
    match op {
        NameOp::Link(path, entry) => {
            names.insert(path.clone(), *entry);
        }
        NameOp::Unlink(path) => {
            names.remove(path);
        }
        NameOp::Rename(from, to) => {
            let moved: Vec<_> = names
                .iter()
                .filter(|(path, _)| path.starts_with(from))
                .map(|(path, entry)| (path.clone(), *entry))
                .collect();
            for (path, entry) in moved {
                names.remove(&path);
                let rest = path.strip_prefix(from).unwrap();
                let path = if rest.as_os_str().is_empty() {
                    to.clone()
                } else {
                    to.join(rest)
                };
                names.insert(path, entry);
            }
        }
    }
}

impl State {
    /// Counts an operation and says what is wrong with it.
    fn begin(&mut self, op: Op, path: &Path) -> Result<Option<Trouble>, io::Error> {
        if self.off {
            return Err(dead());
        }
        *self.counts.entry(op).or_default() += 1;
        let mut trouble = None;
        for fault in &mut self.faults {
            if fault.op != op || !path.to_string_lossy().contains(&fault.path) {
                continue;
            }
            if fault.skip > 0 {
                fault.skip -= 1;
            } else if fault.times > 0 {
                fault.times -= 1;
                trouble = Some(fault.trouble);
            }
        }
        if trouble == Some(Trouble::PowerOff) {
            self.off = true;
        }
        Ok(trouble)
    }

    /// As `begin`, for operations that happen or do not.
    fn simple(&mut self, op: Op, path: &Path) -> io::Result<()> {
        match self.begin(op, path)? {
            None => Ok(()),
            Some(trouble) => Err(error(trouble)),
        }
    }

    fn change(&mut self, op: NameOp) {
        apply(&mut self.names, &op);
        self.journal.push(op);
    }

    fn used(&self) -> u64 {
        self.names
            .values()
            .map(|entry| match entry {
                Entry::Dir => 0,
                Entry::File(node) => self.nodes[*node].now.len() as u64,
            })
            .sum()
    }

    fn next(&mut self) -> u64 {
        // xorshift64
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random
    }

    fn sync_node(&mut self, node: usize, failed: bool) {
        if failed {
            let mut random = self.next();
            self.nodes[node].resolve(&mut || {
                random = random.rotate_left(1);
                random & 1 == 1
            });
        } else {
            self.nodes[node].sync();
        }
    }
}

fn dead() -> io::Error {
    io::Error::other("the machine has no power")
}

fn error(trouble: Trouble) -> io::Error {
    match trouble {
        Trouble::Eio => io::Error::from_raw_os_error(5),
        Trouble::NoSpace | Trouble::Short(_) => io::Error::from_raw_os_error(28),
        Trouble::PowerOff => dead(),
    }
}

impl Disk for FaultyDisk {
    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let mut state = self.lock();
        state.simple(Op::Open, path)?;
        match state.names.get(path) {
            Some(Entry::File(node)) => Ok(self.handle(&state, *node, path)),
            Some(Entry::Dir) => Err(io::ErrorKind::IsADirectory.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn open_read(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        self.open(path)
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let mut state = self.lock();
        state.simple(Op::Create, path)?;
        if state.names.contains_key(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        if path
            .parent()
            .is_none_or(|dir| !state.names.contains_key(dir))
        {
            return Err(io::ErrorKind::NotFound.into());
        }
        let node = state.nodes.len();
        state.nodes.push(Node::default());
        state.change(NameOp::Link(path.to_owned(), Entry::File(node)));
        Ok(self.handle(&state, node, path))
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<Listed>> {
        let state = self.lock();
        if state.off {
            return Err(dead());
        }
        Ok(state
            .names
            .iter()
            .filter(|(path, _)| path.parent() == Some(directory))
            .map(|(path, entry)| Listed {
                name: path.file_name().unwrap_or_default().to_owned(),
                bytes: match entry {
                    Entry::Dir => 0,
                    Entry::File(node) => state.nodes[*node].now.len() as u64,
                },
                is_dir: *entry == Entry::Dir,
            })
            .collect())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.lock();
        state.simple(Op::Remove, path)?;
        match state.names.get(path) {
            Some(Entry::File(_)) => {
                state.change(NameOp::Unlink(path.to_owned()));
                Ok(())
            }
            Some(Entry::Dir) => Err(io::ErrorKind::IsADirectory.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        let mut state = self.lock();
        state.simple(Op::Remove, path)?;
        if state.names.keys().any(|p| p.parent() == Some(path)) {
            return Err(io::ErrorKind::DirectoryNotEmpty.into());
        }
        if state.names.get(path) != Some(&Entry::Dir) {
            return Err(io::ErrorKind::NotFound.into());
        }
        state.change(NameOp::Unlink(path.to_owned()));
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.lock();
        state.simple(Op::Rename, from)?;
        if !state.names.contains_key(from) {
            return Err(io::ErrorKind::NotFound.into());
        }
        state.change(NameOp::Rename(from.to_owned(), to.to_owned()));
        Ok(())
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.lock();
        state.simple(Op::Create, to)?;
        if state.names.contains_key(to) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        match state.names.get(from).copied() {
            Some(entry) => {
                state.change(NameOp::Link(to.to_owned(), entry));
                Ok(())
            }
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn create_dir_all(&self, directory: &Path) -> io::Result<()> {
        let mut state = self.lock();
        if state.off {
            return Err(dead());
        }
        let missing: Vec<_> = directory
            .ancestors()
            .filter(|dir| !state.names.contains_key(*dir))
            .map(Path::to_owned)
            .collect();
        for dir in missing.into_iter().rev() {
            state.change(NameOp::Link(dir, Entry::Dir));
        }
        Ok(())
    }

    fn sync_dir(&self, directory: &Path) -> io::Result<()> {
        let mut state = self.lock();
        state.simple(Op::SyncDir, directory)?;
        let concerns = |op: &NameOp| match op {
            NameOp::Link(path, _) | NameOp::Unlink(path) => path.parent() == Some(directory),
            NameOp::Rename(from, to) => {
                from.parent() == Some(directory) || to.parent() == Some(directory)
            }
        };
        let done = state
            .journal
            .iter()
            .rposition(concerns)
            .map_or(0, |i| i + 1);
        let ops: Vec<_> = state.journal.drain(..done).collect();
        for op in &ops {
            apply(&mut state.durable, op);
        }
        Ok(())
    }

    fn sync_file_system(&self, directory: &Path) -> io::Result<()> {
        let mut state = self.lock();
        let trouble = state.begin(Op::Sync, directory)?;
        if trouble == Some(Trouble::PowerOff) {
            return Err(dead());
        }
        for node in 0..state.nodes.len() {
            state.sync_node(node, trouble.is_some());
        }
        match trouble {
            Some(trouble) => Err(error(trouble)),
            None => {
                state.journal.clear();
                state.durable = state.names.clone();
                Ok(())
            }
        }
    }
}

impl FaultyFile {
    fn lock(&self) -> io::Result<MutexGuard<'_, State>> {
        let state = self.disk.lock();
        if state.epoch == self.epoch {
            Ok(state)
        } else {
            Err(dead())
        }
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.lock()?;
        match state.begin(Op::Sync, &self.path)? {
            None => {
                state.sync_node(self.node, false);
                Ok(())
            }
            Some(Trouble::PowerOff) => Err(dead()),
            Some(trouble) => {
                state.sync_node(self.node, true);
                Err(error(trouble))
            }
        }
    }
}

impl DiskFile for FaultyFile {
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut state = self.lock()?;
        let trouble = state.begin(Op::Write, &self.path)?;
        let through = match trouble {
            None => bytes.len(),
            Some(Trouble::NoSpace) => 0,
            Some(Trouble::Short(through)) => through.min(bytes.len()),
            Some(Trouble::Eio | Trouble::PowerOff) => state.next() as usize % (bytes.len() + 1),
        };
        let used = state.used();
        let length = state.nodes[self.node].now.len() as u64;
        let most = state.capacity.map_or(usize::MAX, |capacity| {
            let end = length + capacity.saturating_sub(used);
            end.saturating_sub(offset) as usize
        });
        let written = through.min(most);
        if written > 0 {
            let piece = bytes[..written].to_vec();
            let node = &mut state.nodes[self.node];
            put(&mut node.now, offset as usize, &piece);
            node.pending.push(Pending::Write(offset, piece));
        }
        match trouble {
            Some(trouble) => Err(error(trouble)),
            None if written < bytes.len() => Err(error(Trouble::NoSpace)),
            None => Ok(()),
        }
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut state = self.lock()?;
        state.simple(Op::Read, &self.path)?;
        let content = &state.nodes[self.node].now;
        let from = (offset as usize).min(content.len());
        let bytes = (content.len() - from).min(buffer.len());
        buffer[..bytes].copy_from_slice(&content[from..from + bytes]);
        Ok(bytes)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.sync()
    }

    fn sync_all(&self) -> io::Result<()> {
        self.sync()
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        let mut state = self.lock()?;
        state.simple(Op::SetLen, &self.path)?;
        let node = &mut state.nodes[self.node];
        node.now.resize(bytes as usize, 0);
        node.pending.push(Pending::SetLen(bytes));
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.lock()?.nodes[self.node].now.len() as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk() -> (FaultyDisk, PathBuf) {
        let disk = FaultyDisk::new(7);
        let dir = PathBuf::from("/state/log");
        disk.create_dir_all(&dir).unwrap();
        disk.sync_dir(Path::new("/state")).unwrap();
        (disk, dir)
    }

    fn content(disk: &FaultyDisk, path: &Path) -> Vec<u8> {
        let file = disk.open(path).unwrap();
        let mut bytes = vec![0; file.len().unwrap() as usize];
        file.read_exact_at(&mut bytes, 0).unwrap();
        bytes
    }

    #[test]
    fn a_power_cut_forgets_what_was_not_synced() {
        let (disk, dir) = disk();
        let path = dir.join("a");
        let file = disk.create(&path).unwrap();
        file.write_all_at(b"old", 0).unwrap();
        file.sync_data().unwrap();
        disk.sync_dir(&dir).unwrap();
        file.write_all_at(b"new", 0).unwrap();
        disk.create(&dir.join("b")).unwrap();
        assert_eq!(content(&disk, &path), b"new");
        disk.power_cut(|| false);
        assert_eq!(content(&disk, &path), b"old");
        assert_eq!(disk.list(&dir).unwrap().len(), 1);
        assert!(file.write_all_at(b"x", 0).is_err(), "the handle is dead");
    }

    #[test]
    fn a_full_disk_takes_what_fits_and_still_lets_files_be_overwritten() {
        let (disk, dir) = disk();
        let file = disk.create(&dir.join("a")).unwrap();
        disk.set_capacity(Some(6));
        let error = file.write_all_at(b"12345678", 0).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        assert_eq!(content(&disk, &dir.join("a")), b"123456");
        file.write_all_at(b"abcdef", 0).unwrap();
    }

    #[test]
    fn a_failed_sync_leaves_a_clean_looking_page_that_the_disk_may_not_have() {
        let (disk, dir) = disk();
        let path = dir.join("a");
        let file = disk.create(&path).unwrap();
        disk.sync_dir(&dir).unwrap();
        disk.fail(Op::Sync, 1, Trouble::Eio);
        let bytes = vec![7; 512 * 64];
        file.write_all_at(&bytes, 0).unwrap();
        assert!(file.sync_data().is_err());
        assert_eq!(content(&disk, &path), bytes, "readers still see it");
        file.sync_data().unwrap();
        disk.power_cut(|| true);
        let lost = content(&disk, &path);
        assert!(lost.contains(&0) || lost.len() < bytes.len());
    }
}
