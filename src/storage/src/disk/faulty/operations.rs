//! What the disk does when it is asked, fault or no fault.

use std::{io, path::Path, sync::MutexGuard};

use super::{
    Entry, FaultyDisk, FaultyFile, NameOp, Node, Op, Pending, State, Trouble, apply, dead, error,
    put,
};
use crate::disk::{Disk, DiskFile, Listed};

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
