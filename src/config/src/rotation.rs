//! A new key for everything: it is written down beside the old ones, every secret of every
//! namespace is encrypted again with it, its history included, and then the old ones are forgotten.
//! Interrupted anywhere, all keys that are needed are still there, and the next start goes on.

use std::sync::Arc;

use micro_core::Namespace;
use micro_storage::{Batch, Expect, Range, Space};

use crate::{
    Error, Handle,
    document::Node,
    record::{self, DOCUMENT, HEAD, HISTORY, TABLE},
    secrets::{Place, Ring},
    service::ATTEMPTS,
};

/// Changes that are read at once.
const PAGE: usize = 64;
/// A key under which nothing is ever kept.
const NOBODY: &[u8] = b"none";

/// What was done to the secrets of a namespace.
#[derive(Debug, Clone, Copy, Default)]
struct Outcome {
    /// Encrypted with the new key.
    done: u64,
    /// Left alone, because no key opens them.
    lost: u64,
}

impl Handle {
    /// Makes a new key, encrypts every secret again with it, and forgets the old keys. Gives the
    /// number of secrets, those of the history included. Goes on when the caller does not wait.
    ///
    /// # Errors
    /// `Precondition` when the keys come from a credential or cannot be used. After any other error
    /// the old keys are kept, and the next call or start finishes the work.
    pub async fn rotate(&self) -> Result<u64, Error> {
        let this = self.clone();
        let work = async move {
            let _one = this.inner().rotating.lock().await;
            let ring = this.inner().keys.add()?;
            this.encrypt_again(&ring).await
        };
        tokio::spawn(work).await.map_err(|_| Error::Panicked)?
    }

    /// Goes on where a rotation stopped, if there is anything to do. What fails is logged.
    pub async fn finish_rotation(&self) {
        let _one = self.inner().rotating.lock().await;
        let finished = match self.inner().keys.ring() {
            Ok(Some(ring)) if ring.has_old() => self.encrypt_again(&ring).await.map(drop),
            Ok(_) => Ok(()),
            Err(error) => Err(error),
        };
        if let Err(error) = finished {
            let hint = micro_core::Fault::hint(&error).unwrap_or_default();
            tracing::error!(%error, hint, "Secrets of config cannot be used or not be encrypted with the newest key.");
        }
    }

    async fn encrypt_again(&self, ring: &Ring) -> Result<u64, Error> {
        self.settle().await?;
        let mut all = Outcome::default();
        for namespace in self.inner().storage.namespaces(TABLE)? {
            let outcome = self.reseal(&namespace, ring).await?;
            if outcome.lost > 0 {
                tracing::warn!(%namespace, secrets = outcome.lost,
                    "Some secrets are left as they are, because no key here decrypts them.");
            }
            all.done += outcome.done;
        }
        self.inner().keys.retire(ring)?;
        tracing::info!(secrets = all.done, key = %ring.first().id(),
            "Every secret is encrypted with the newest key.");
        Ok(all.done)
    }

    /// Waits for every change that may have been encrypted with an older key.
    async fn settle(&self) -> Result<(), Error> {
        for turn in &self.inner().turns {
            drop(turn.lock().await);
        }
        // Changes whose callers went away hold no turn, but stand before this one in the queue.
        let mut batch = self.inner().storage.space(&Namespace::operator()).batch();
        batch.expect(TABLE, NOBODY, Expect::Absent);
        batch.commit().await?;
        Ok(())
    }

    async fn reseal(&self, namespace: &Namespace, ring: &Ring) -> Result<Outcome, Error> {
        let space = self.inner().storage.space(namespace);
        let _turn = self.turn(namespace).await;
        for _ in 0..ATTEMPTS {
            let (this, there, ring) = (self.clone(), space.clone(), ring.clone());
            let planned = tokio::task::spawn_blocking(move || this.plan(&there, &ring))
                .await
                .map_err(|_| Error::Panicked)?;
            let (outcome, batch) = planned?;
            let Some(batch) = batch else {
                return Ok(outcome);
            };
            match batch.commit().await {
                Ok(_) => return Ok(outcome),
                Err(micro_storage::Error::Conflict { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(Error::Busy)
    }

    /// The rows of a namespace with every secret encrypted again; no batch when that changes
    /// nothing.
    fn plan(&self, space: &Space, ring: &Ring) -> Result<(Outcome, Option<Batch>), Error> {
        let stored = self.load(space)?;
        let Some(revision) = stored.revision else {
            return Ok((Outcome::default(), None));
        };
        let mut outcome = Outcome::default();
        let mut batch = space.batch();
        batch.expect(TABLE, HEAD, Expect::At(revision));
        let mut head = stored.head.clone();
        let mut document = None;
        if let Some(root) = &stored.root {
            let root = tree(space.namespace(), &[], root, ring, &mut outcome)?;
            document = Some(record::encode_document(&root));
        }
        head.history_bytes = 0;
        let mut last = HISTORY.to_vec();
        loop {
            let page = Range::prefix(HISTORY).after(&last).limit(PAGE);
            let rows = space.scan(TABLE, page)?;
            let Some(row) = rows.last() else { break };
            last = row.key.to_vec();
            for row in rows {
                let mut change = record::decode_change(&row.value)?;
                let before = outcome.done;
                for edit in &mut change.edits {
                    if let Some(node) = &edit.before {
                        let node = tree(space.namespace(), &edit.path, node, ring, &mut outcome)?;
                        edit.before = Some(node);
                    }
                }
                let mut bytes = row.value.len();
                if outcome.done > before {
                    let value = record::encode_change(&change);
                    bytes = value.len();
                    batch.put(TABLE, row.key, value);
                }
                head.history_bytes += bytes as u64;
            }
        }
        if outcome.done == 0 {
            return Ok((outcome, None));
        }
        // Both, whatever changed: their revisions go together.
        batch.put(TABLE, HEAD, record::encode_head(&head));
        if let Some(document) = document {
            batch.put(TABLE, DOCUMENT, document);
        }
        Ok((outcome, Some(batch)))
    }
}

/// `node`, which lies at `at`, with its secrets encrypted by the first key.
fn tree(
    namespace: &Namespace,
    at: &[Box<str>],
    node: &Node,
    ring: &Ring,
    outcome: &mut Outcome,
) -> Result<Node, Error> {
    node.map(&mut at.to_vec(), &mut |path, leaf| {
        let Node::Secret(sealed) = leaf else {
            return Ok(leaf.clone());
        };
        if sealed.key() == ring.first().id() {
            return Ok(leaf.clone());
        }
        match ring.reseal(Place { namespace, path }, sealed) {
            Ok(sealed) => {
                outcome.done += 1;
                Ok(Node::Secret(Arc::new(sealed)))
            }
            // Keeping an old key would not help it either.
            Err(Error::NoKey { .. } | Error::Damaged { .. }) => {
                outcome.lost += 1;
                Ok(leaf.clone())
            }
            Err(error) => Err(error),
        }
    })
}
