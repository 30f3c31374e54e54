//! The commit thread: puts all changes that wait into one transaction and answers them together.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    panic::{AssertUnwindSafe, catch_unwind},
};

use redb::Database;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};

use super::Definition;
use crate::Error;

/// Commits in one transaction; bounds the time that the first of them waits.
const GROUP: usize = 512;

/// One change with its full key and its value in our encoding; `None` deletes.
pub(super) struct Op {
    pub(super) table: &'static str,
    pub(super) key: Vec<u8>,
    pub(super) value: Option<Vec<u8>>,
}

/// Changes that belong together, and who waits for them.
pub(super) struct Commit {
    pub(super) ops: Vec<Op>,
    pub(super) done: oneshot::Sender<Result<(), Error>>,
    /// Given back when the commit is answered.
    pub(super) room: OwnedSemaphorePermit,
}

/// Works until every sender is gone.
pub(super) fn run(database: &Database, mut commits: mpsc::Receiver<Commit>) {
    let mut group = Vec::new();
    while let Some(first) = commits.blocking_recv() {
        group.push(first);
        while group.len() < GROUP
            && let Ok(next) = commits.try_recv()
        {
            group.push(next);
        }
        // Sizes were checked before, so what fails here is the disk, and fails for all of them.
        // A transaction that a panic drops is rolled back.
        let outcome = catch_unwind(AssertUnwindSafe(|| apply(database, &group)))
            .unwrap_or(Err(Error::Panicked));
        for Commit { done, room, .. } in group.drain(..) {
            let _ = done.send(outcome.clone());
            drop(room);
        }
    }
}

fn apply(database: &Database, group: &[Commit]) -> Result<(), Error> {
    let mut transaction = database.begin_write().map_err(Error::keys)?;
    transaction.set_quick_repair(true);
    transaction
        .set_durability(redb::Durability::Immediate)
        .map_err(Error::keys)?;
    {
        // redb allows one handle per table; each stays open for the whole group.
        let mut tables = BTreeMap::new();
        for op in group.iter().flat_map(|commit| &commit.ops) {
            let table = match tables.entry(op.table) {
                Entry::Occupied(open) => open.into_mut(),
                Entry::Vacant(closed) => closed.insert(
                    transaction
                        .open_table(Definition::new(op.table))
                        .map_err(Error::keys)?,
                ),
            };
            match &op.value {
                Some(value) => table.insert(op.key.as_slice(), value.as_slice()),
                None => table.remove(op.key.as_slice()),
            }
            .map_err(Error::keys)?;
        }
    }
    transaction.commit().map_err(Error::keys)
}
