//! What the rest of the node holds of identity.
//!
//! Two kinds of functions. [`Handle::inspect`] and [`Handle::verify`] run for every request, on the
//! doors' threads: memory only. Everything else hashes, signs or writes; it runs on a blocking
//! thread, behind a semaphore, from its first step to its last, so that a caller who goes away in
//! the middle cannot leave the memory behind the database.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use micro_core::{Account, Clock, Namespace, Timestamp};
use micro_storage::Sqlite;
use moka::sync::Cache;
use tokio::sync::Semaphore;

use crate::{
    Error,
    brake::Brake,
    living::{Life, Living},
    repo::rules::RuleBook,
    rules::{self, Denied},
    token::Signer,
};

mod accounts;
mod policy;
mod tokens;

pub use accounts::SecretChange;
pub use tokens::{Proof, Token};

/// Password hashes at once: each takes 19 MiB.
const HASHING: usize = 2;
/// Other work at once.
const WORKING: usize = 8;
/// Callers that may wait for their turn.
const WAITING: usize = 256;
/// Tokens whose check is remembered.
const REMEMBERED: u64 = 10_000;

/// Identity, as others in the node use it. Clones share it.
#[derive(Clone)]
pub struct Handle {
    shared: Arc<Shared>,
}

impl std::fmt::Debug for Handle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Handle").finish_non_exhaustive()
    }
}

/// The token of the first login, until it is used or too old.
pub(crate) struct Entrance {
    pub(crate) digest: [u8; 32],
    pub(crate) until: Timestamp,
}

/// A token that was found valid.
struct Verified {
    account: Arc<Account>,
    /// Unix seconds.
    exp: i64,
    turn: i64,
    /// `None` for accounts that exist by signature only: the services that the node runs.
    life: Option<Arc<Life>>,
}

impl Verified {
    fn holds(&self, now: Timestamp) -> bool {
        self.exp > now.unix_seconds() && self.life.as_ref().is_none_or(|life| life.is_alive())
    }
}

struct Shared {
    clock: Clock,
    sqlite: Sqlite,
    signer: Signer,
    public_key: String,
    living: Living,
    rules: ArcSwap<RuleBook>,
    /// Held while rules change, so that the book in memory is the last one committed.
    changing_rules: Mutex<()>,
    brake: Mutex<Brake>,
    entrance: Mutex<Option<Entrance>>,
    /// By the digest of the token, so that memory holds no token.
    verified: Cache<[u8; 32], Arc<Verified>>,
    hashing: Arc<Semaphore>,
    working: Arc<Semaphore>,
    waiting: AtomicUsize,
}

/// What [`crate::Service`] has opened.
pub(crate) struct Parts {
    pub(crate) clock: Clock,
    pub(crate) sqlite: Sqlite,
    pub(crate) signer: Signer,
    pub(crate) public_key: String,
    pub(crate) living: Living,
    pub(crate) rules: RuleBook,
    pub(crate) entrance: Option<Entrance>,
}

/// Nothing that holds one of our locks can leave its value half changed.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Handle {
    pub(crate) fn new(parts: Parts) -> Self {
        Self {
            shared: Arc::new(Shared {
                clock: parts.clock,
                sqlite: parts.sqlite,
                signer: parts.signer,
                public_key: parts.public_key,
                living: parts.living,
                rules: ArcSwap::from_pointee(parts.rules),
                changing_rules: Mutex::new(()),
                brake: Mutex::new(Brake::default()),
                entrance: Mutex::new(parts.entrance),
                verified: Cache::builder()
                    .max_capacity(REMEMBERED)
                    .time_to_idle(Duration::from_secs(15 * 60))
                    .build(),
                hashing: Arc::new(Semaphore::new(HASHING)),
                working: Arc::new(Semaphore::new(WORKING)),
                waiting: AtomicUsize::new(0),
            }),
        }
    }

    /// Whose token this is: signed by this node, not expired, its account not deleted.
    pub fn inspect(&self, token: &str) -> Option<Arc<Account>> {
        let verified = self.shared.verified(token)?;
        Some(Arc::clone(&verified.account))
    }

    /// Whether the rules of `namespace` let `account` call `endpoint` of `service`.
    ///
    /// # Errors
    /// [`Denied::Unauthorized`] without an account, [`Denied::Forbidden`] with one.
    pub fn verify(
        &self,
        account: Option<&Account>,
        namespace: &Namespace,
        service: &str,
        endpoint: &str,
    ) -> Result<(), Denied> {
        let book = self.shared.rules.load();
        rules::decide(book.of(namespace), account, namespace, service, endpoint)
    }

    /// The public half of the key that signs tokens: base64 of the PEM, as services get it.
    pub fn public_key(&self) -> String {
        self.shared.public_key.clone()
    }

    /// Runs `f` as one of the few that hash passwords.
    async fn hash<T, F>(&self, f: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: FnOnce(&Shared) -> Result<T, Error> + Send + 'static,
    {
        self.run(&self.shared.hashing, f).await
    }

    /// Runs `f` as one of those that sign and write.
    async fn work<T, F>(&self, f: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: FnOnce(&Shared) -> Result<T, Error> + Send + 'static,
    {
        self.run(&self.shared.working, f).await
    }

    async fn run<T, F>(&self, turnstile: &Arc<Semaphore>, f: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: FnOnce(&Shared) -> Result<T, Error> + Send + 'static,
    {
        let permit = {
            let _waiting = Waiting::enter(&self.shared.waiting)?;
            Arc::clone(turnstile)
                .acquire_owned()
                .await
                .map_err(|_| Error::Stopping)?
        };
        let shared = Arc::clone(&self.shared);
        let job = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            f(&shared)
        });
        match job.await {
            Ok(result) => result,
            Err(e) if e.is_panic() => Err(Error::Panicked),
            Err(_) => Err(Error::Stopping),
        }
    }
}

/// One of those who wait; leaves when dropped.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn enter(count: &'a AtomicUsize) -> Result<Self, Error> {
        let place = Self(count);
        if count.fetch_add(1, Ordering::AcqRel) >= WAITING {
            return Err(Error::Busy);
        }
        Ok(place)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
pub(crate) mod tests;
