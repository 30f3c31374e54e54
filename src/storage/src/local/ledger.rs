//! What each namespace holds, and what it may.
//!
//! Rows are exact as of the last checkpoint: only there the old length of each row is at hand. What
//! was committed since is counted on top, at its most. Topics keep their own count.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use micro_core::Namespace;

/// Rows of all namespaces, in bytes.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    accounts: Mutex<HashMap<Namespace, Account>>,
    /// For those who have no quota of their own.
    quota: Option<u64>,
}

#[derive(Debug, Default)]
struct Account {
    /// In the index.
    stored: u64,
    /// What the frozen memtable adds at most.
    frozen: i64,
    /// What the active memtable adds at most.
    active: i64,
    /// Set for this namespace, perhaps to no limit.
    quota: Option<Option<u64>>,
}

impl Account {
    fn rows(&self) -> u64 {
        self.stored
            .saturating_add_signed(self.frozen)
            .saturating_add_signed(self.active)
    }
}

impl Ledger {
    pub(crate) fn new(stored: Vec<(Namespace, u64)>, quota: Option<u64>) -> Self {
        let accounts = stored.into_iter().map(|(namespace, stored)| {
            let account = Account {
                stored,
                ..Account::default()
            };
            (namespace, account)
        });
        Self {
            accounts: Mutex::new(accounts.collect()),
            quota,
        }
    }

    /// Bytes of rows, and the limit for everything together.
    pub(crate) fn rows_and_quota(&self, namespace: &Namespace) -> (u64, Option<u64>) {
        let accounts = self.lock();
        let Some(account) = accounts.get(namespace) else {
            return (0, self.quota);
        };
        (account.rows(), account.quota.unwrap_or(self.quota))
    }

    /// Whether nobody has any limit, so that nothing need be asked.
    pub(crate) fn is_unlimited(&self) -> bool {
        self.quota.is_none() && self.lock().values().all(|a| a.quota.flatten().is_none())
    }

    pub(crate) fn set_quota(&self, namespace: &Namespace, bytes: Option<u64>) {
        self.lock().entry(namespace.clone()).or_default().quota = Some(bytes);
    }

    /// A commit added this much, at most.
    pub(crate) fn grow(&self, namespace: &Namespace, by: i64) {
        let mut accounts = self.lock();
        match accounts.get_mut(namespace) {
            Some(account) => account.active = account.active.saturating_add(by),
            None => accounts.entry(namespace.clone()).or_default().active = by,
        }
    }

    /// The active memtable was frozen.
    pub(crate) fn freeze(&self) {
        for account in self.lock().values_mut() {
            account.frozen = account.frozen.saturating_add(account.active);
            account.active = 0;
        }
    }

    /// The frozen memtable is in the index and has added exactly this.
    pub(crate) fn settle(&self, growth: Vec<(Namespace, i64)>) {
        let mut accounts = self.lock();
        for account in accounts.values_mut() {
            account.frozen = 0;
        }
        for (namespace, by) in growth {
            let account = accounts.entry(namespace).or_default();
            account.stored = account.stored.saturating_add_signed(by);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Namespace, Account>> {
        self.accounts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
