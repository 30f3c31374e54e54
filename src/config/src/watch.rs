//! A value, now and each time it changes.
//!
//! A watch follows the revision of the document, not the changes in it: when several changes come
//! close to each other it may show the last of them only, but it never misses the last one, and
//! never goes back.

use micro_storage::{Space, WatchEnd};

use crate::{
    Error, Handle, Secrets,
    document::Node,
    path::Path,
    record::{HEAD, TABLE},
};

/// What a watch saw.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// JSON; `null` for nothing.
    pub json: String,
    /// Of the document; 0 when there never was one.
    pub version: u64,
}

/// One open watch.
pub struct Watch {
    handle: Handle,
    space: Space,
    path: Path,
    secrets: Secrets,
    changes: micro_storage::Watch,
    /// Something may have happened since the last look.
    stale: bool,
    last: Option<(u64, Option<Node>)>,
}

impl Watch {
    pub(crate) fn new(handle: Handle, space: Space, path: Path, secrets: Secrets) -> Self {
        // Before the first look, so that nothing falls in between.
        let changes = space.watch(TABLE, HEAD);
        Self {
            handle,
            space,
            path,
            secrets,
            changes,
            stale: true,
            last: None,
        }
    }

    /// The value now, the first time; then the value after a change of it. Can be dropped and asked
    /// again.
    ///
    /// # Errors
    /// `Unavailable` when the server stops; those of [`Handle::get`].
    pub async fn next(&mut self) -> Result<Seen, Error> {
        let stopped = self.handle.stopped();
        loop {
            if self.stale {
                if let Some(seen) = self.look()? {
                    return Ok(seen);
                }
                self.stale = false;
            }
            let change = tokio::select! {
                change = self.changes.next() => change,
                () = stopped.cancelled() => return Err(Error::WatchEnded("the server stops")),
            };
            match change {
                Ok(_) => {}
                Err(WatchEnd::Lagged) => self.changes = self.space.watch(TABLE, HEAD),
                Err(WatchEnd::Closed) => return Err(Error::WatchEnded("the server stops")),
            }
            self.stale = true;
        }
    }

    /// The value, if it is another one than last time.
    fn look(&mut self) -> Result<Option<Seen>, Error> {
        let last = self.last.as_ref();
        let (now, seen) = self.handle.fresh(|| {
            let stored = self.handle.load(&self.space)?;
            let root = stored.root.as_ref();
            let node = root.and_then(|root| root.get(self.path.segments()));
            let version = stored.head.version;
            // The same version with another node: encrypted again.
            let same = last.is_some_and(|(v, n)| *v == version || n.as_ref() == node);
            let json = if same {
                None
            } else {
                let ns = self.space.namespace();
                Some(self.handle.json(ns, &self.path, node, self.secrets)?)
            };
            Ok(((version, node.cloned()), json))
        })?;
        let version = now.0;
        self.last = Some(now);
        Ok(seen.map(|json| Seen { json, version }))
    }
}
