//! Taking back the space of records whose deadline has passed. Readers do not see them before that
//! either; watchers learn of it here.

use std::sync::atomic::{AtomicI64, Ordering};

use micro_core::{Namespace, Timestamp};
use micro_storage::{Batch, Error as StorageError, Expect, Range, Space};

use crate::{
    Error,
    place::{self, EXPIRY, RECORDS},
    record::Stored,
    service::Shared,
};

/// Records taken away in one commit.
const PAGE: usize = 256;
/// How often a record is looked at again when somebody writes it at the same time.
const TRIES: usize = 4;

/// When something expires next, as far as is known, so that an idle node reads nothing.
pub(crate) struct Deadlines(AtomicI64);

impl Default for Deadlines {
    /// Something may have expired while nobody looked.
    fn default() -> Self {
        Self(AtomicI64::new(i64::MIN))
    }
}

impl Deadlines {
    /// Something expires at `deadline`. To be called once it is committed.
    pub(crate) fn note(&self, deadline: Timestamp) {
        self.0.fetch_min(deadline.0, Ordering::AcqRel);
    }

    /// Notes `deadline` when what this gives is dropped.
    pub(crate) const fn note_at_end(&self, deadline: Timestamp) -> Noting<'_> {
        Noting {
            deadlines: self,
            deadline,
        }
    }

    fn is_due(&self, now: Timestamp) -> bool {
        self.0.load(Ordering::Acquire) <= now.0
    }

    /// Forgets what is known. What is committed from now on is noted again after this, and what was
    /// committed before is seen by whoever reads after this.
    fn forget(&self) {
        self.0.store(i64::MAX, Ordering::Release);
    }
}

/// A deadline that is about to be noted.
pub(crate) struct Noting<'a> {
    deadlines: &'a Deadlines,
    deadline: Timestamp,
}

impl Drop for Noting<'_> {
    fn drop(&mut self) {
        self.deadlines.note(self.deadline);
    }
}

impl Shared {
    /// Takes away all records whose deadline has passed, and says how many there were.
    pub(crate) async fn sweep(&self) -> Result<u64, Error> {
        let now = self.clock.now();
        if !self.deadlines.is_due(now) {
            return Ok(0);
        }
        self.deadlines.forget();
        let swept = self.sweep_all(now).await;
        if swept.is_err() {
            // To be tried again.
            self.deadlines.note(now);
        }
        swept
    }

    async fn sweep_all(&self, now: Timestamp) -> Result<u64, Error> {
        let (mut count, mut failure) = (0, None);
        for namespace in self.storage.namespaces(EXPIRY)? {
            match self.sweep_namespace(&namespace, now).await {
                Ok(swept) => count += swept,
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        failure.map_or(Ok(count), Err)
    }

    async fn sweep_namespace(&self, namespace: &Namespace, now: Timestamp) -> Result<u64, Error> {
        let space = self.storage.space(namespace);
        let mut count = 0;
        loop {
            let rows = space.scan(EXPIRY, Range::all().limit(PAGE).keys_only())?;
            let mut due = Vec::with_capacity(rows.len());
            let mut next = None;
            for row in &rows {
                match place::expiry_parts(&row.key) {
                    Some((deadline, _)) if deadline > now => {
                        next = Some(deadline);
                        break;
                    }
                    _ => due.push(row.key.as_ref()),
                }
            }
            count += take(&space, &due, now).await?;
            if let Some(next) = next {
                self.deadlines.note(next);
            }
            if next.is_some() || rows.len() < PAGE {
                return Ok(count);
            }
        }
    }
}

/// Takes away what the rows of deadlines say, in one commit if nobody comes in between.
async fn take(space: &Space, rows: &[&[u8]], now: Timestamp) -> Result<u64, Error> {
    if rows.is_empty() {
        return Ok(0);
    }
    let mut batch = space.batch();
    let mut count = 0;
    for row in rows {
        count += add(space, &mut batch, row, now)?;
    }
    match batch.commit().await {
        Ok(_) => return Ok(count),
        Err(StorageError::Conflict { .. }) => {}
        Err(error) => return Err(error.into()),
    }
    count = 0;
    for row in rows {
        // Whoever came in between wrote the record anew, so that the second time only the row of the
        // old deadline goes.
        for _ in 0..TRIES {
            let mut batch = space.batch();
            let added = add(space, &mut batch, row, now)?;
            match batch.commit().await {
                Ok(_) => {
                    count += added;
                    break;
                }
                Err(StorageError::Conflict { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(count)
}

/// Adds the removal of what one row says: the record, if that is its deadline still, and the row.
fn add(space: &Space, batch: &mut Batch, row: &[u8], now: Timestamp) -> Result<u64, Error> {
    batch.delete(EXPIRY, row);
    let Some((deadline, place)) = place::expiry_parts(row) else {
        return Ok(0);
    };
    let Some(found) = space.get(RECORDS, place)? else {
        return Ok(0);
    };
    let stored = match Stored::decode(found.value) {
        Ok(stored) => stored,
        Err(error) => {
            // One record must not keep all others from being taken away.
            tracing::error!(%error, place = %place.escape_ascii(), "A record cannot be read and stays.");
            return Ok(0);
        }
    };
    if stored.deadline != Some(deadline) || !stored.is_over(now) {
        return Ok(0);
    }
    batch.expect(RECORDS, place, Expect::At(found.revision));
    batch.delete(RECORDS, place);
    Ok(1)
}
