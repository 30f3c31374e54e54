//! Changes that happen in one durable step, or not at all.

use std::sync::Arc;

use micro_core::Namespace;

use crate::{Engine, Error, Revision, Writes};

/// What a batch expects of a row before it changes anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    /// There is none.
    Absent,
    /// There is one.
    Present,
    /// It is the one of this revision, and nobody has changed it since.
    At(Revision),
}

/// What a committed batch became.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    /// The revision of every row that it wrote.
    pub revision: Revision,
    /// The offset of each appended entry, in the order of the appends.
    pub offsets: Vec<u64>,
}

/// Changes to one namespace that are collected and then committed together. Dropping it changes
/// nothing.
#[must_use = "nothing happens before `commit`"]
pub struct Batch {
    engine: Arc<dyn Engine>,
    writes: Writes,
}

impl std::fmt::Debug for Batch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Batch")
            .field("namespace", self.writes.namespace())
            .field("bytes", &self.writes.bytes())
            .finish_non_exhaustive()
    }
}

impl Batch {
    pub(crate) fn new(engine: Arc<dyn Engine>, namespace: &Namespace) -> Self {
        Self {
            engine,
            writes: Writes::new(namespace),
        }
    }

    /// Sets the value of `key`.
    pub fn put(
        &mut self,
        table: &'static str,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
    ) -> &mut Self {
        self.writes.put(table, key.as_ref(), value.as_ref());
        self
    }

    /// Removes `key`; nothing happens when there is none.
    pub fn delete(&mut self, table: &'static str, key: impl AsRef<[u8]>) -> &mut Self {
        self.writes.delete(table, key.as_ref());
        self
    }

    /// Lets nothing happen unless `expect` holds for `key`, as the row was before this batch.
    pub fn expect(
        &mut self,
        table: &'static str,
        key: impl AsRef<[u8]>,
        expect: Expect,
    ) -> &mut Self {
        self.writes.expect(table, key.as_ref(), expect);
        self
    }

    /// Appends an entry to a topic, which comes into being with its first entry.
    pub fn append(&mut self, topic: &str, value: impl AsRef<[u8]>) -> &mut Self {
        self.writes.append(topic, value.as_ref());
        self
    }

    /// Whether it changes nothing.
    pub fn is_empty(&self) -> bool {
        self.writes.is_empty()
    }

    /// How large it is by now, in bytes.
    pub fn bytes(&self) -> usize {
        self.writes.bytes()
    }

    /// Makes all of it durable and visible. Synced when this returns `Ok`. When the future is
    /// dropped before it is ready, the batch may have been committed or not.
    ///
    /// # Errors
    /// [`Error::Conflict`] when something was not as expected; `Exhausted` when the disk is full or
    /// the namespace holds as much as it may; `Invalid` when it is too large; `Unavailable` when the
    /// storage is closed; `Internal` otherwise. In each case nothing of it has happened.
    pub async fn commit(mut self) -> Result<Receipt, Error> {
        if let Some(error) = self.writes.take_failure() {
            return Err(error);
        }
        if self.writes.is_empty() && self.writes.expectations().is_empty() {
            return Ok(Receipt {
                revision: self.engine.revision(),
                offsets: Vec::new(),
            });
        }
        self.engine.commit(self.writes).await
    }
}
