//! Which accounts exist now.
//!
//! A JWT proves who somebody was when it was signed. For accounts that are stored, this says whether
//! they still are: a token holds the generation of its account, and a deleted account takes its
//! generation with it, so that another one of the same id does not inherit old tokens.

use std::{
    collections::HashMap,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
};

use micro_core::{AccountId, Namespace};

/// The life of one stored account. Cached tokens hold it, so a check is one load.
#[derive(Debug)]
pub(crate) struct Life {
    /// Random, drawn when the account was made.
    pub(crate) generation: i64,
    turn: AtomicI64,
    alive: AtomicBool,
}

impl Life {
    /// How often the secret was changed. A token of an earlier turn runs out but is not renewed.
    pub(crate) fn turn(&self) -> i64 {
        self.turn.load(Ordering::Acquire)
    }

    pub(crate) fn is_alive(&self) -> bool {
        self.alive.load(Ordering::Acquire)
    }
}

/// All stored accounts.
#[derive(Debug, Default)]
pub(crate) struct Living {
    accounts: RwLock<HashMap<Namespace, HashMap<AccountId, Arc<Life>>>>,
}

impl Living {
    pub(crate) fn get(&self, namespace: &Namespace, id: &AccountId) -> Option<Arc<Life>> {
        self.accounts
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(namespace)?
            .get(id)
            .cloned()
    }

    /// Notes an account that was committed.
    pub(crate) fn born(&self, namespace: &Namespace, id: &AccountId, generation: i64, turn: i64) {
        let life = Arc::new(Life {
            generation,
            turn: AtomicI64::new(turn),
            alive: AtomicBool::new(true),
        });
        let mut accounts = self
            .accounts
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        let before = accounts
            .entry(namespace.clone())
            .or_default()
            .insert(id.clone(), life);
        if let Some(before) = before {
            before.alive.store(false, Ordering::Release);
        }
    }

    /// Notes a deletion that was committed. The generation tells it from a successor of the same id
    /// that was noted first.
    pub(crate) fn died(&self, namespace: &Namespace, id: &AccountId, generation: i64) {
        let mut accounts = self
            .accounts
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        let Some(ids) = accounts.get_mut(namespace) else {
            return;
        };
        if let Some(life) = ids.get(id)
            && life.generation == generation
        {
            life.alive.store(false, Ordering::Release);
            ids.remove(id);
        }
        if ids.is_empty() {
            accounts.remove(namespace);
        }
    }

    /// Notes a changed secret that was committed.
    pub(crate) fn turned(&self, namespace: &Namespace, id: &AccountId, generation: i64, turn: i64) {
        if let Some(life) = self.get(namespace, id)
            && life.generation == generation
        {
            life.turn.fetch_max(turn, Ordering::AcqRel);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_successor_of_the_same_id_survives_a_late_note_of_the_deletion() {
        let (living, ns) = (Living::default(), Namespace::operator());
        let id = AccountId::parse("bob").unwrap();
        living.born(&ns, &id, 1, 0);
        let first = living.get(&ns, &id).unwrap();
        living.born(&ns, &id, 2, 0);
        assert!(!first.is_alive());
        living.died(&ns, &id, 1);
        let second = living.get(&ns, &id).unwrap();
        assert!(second.is_alive());
        living.turned(&ns, &id, 1, 9);
        living.turned(&ns, &id, 2, 1);
        assert_eq!(second.turn(), 1);
        living.died(&ns, &id, 2);
        assert!(!second.is_alive());
        assert!(living.get(&ns, &id).is_none());
    }
}
