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

use super::DiskFile;

mod operations;
#[cfg(test)]
mod tests;

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
                // Small seeds must not mean few bits.
                random: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(32) | 1,
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
