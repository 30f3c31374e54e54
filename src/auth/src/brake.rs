//! Slows down whoever guesses secrets. Pure: time comes in as an argument.
//!
//! Ten wrong secrets in a row cost nothing but their hashing; from then on each costs a wait that
//! doubles up to a minute. The wait is short enough that nobody can keep the owner of an account out
//! for long, and long enough that guessing leads nowhere. Refused attempts do not count.

use std::{collections::HashMap, time::Duration};

use micro_core::{AccountId, Namespace, Timestamp};

/// Failures in a row that cost nothing.
const FREE: u32 = 10;
/// The longest wait.
const LONGEST: Duration = Duration::from_secs(60);
/// Accounts remembered at once; the one that failed longest ago makes room.
const MOST: usize = 4096;

type Key = (Namespace, AccountId);

#[derive(Debug, Default)]
pub(crate) struct Brake {
    failures: HashMap<Key, Failures>,
}

#[derive(Debug)]
struct Failures {
    in_a_row: u32,
    last: Timestamp,
}

impl Failures {
    fn wait(&self) -> Duration {
        match self.in_a_row.checked_sub(FREE) {
            None => Duration::ZERO,
            Some(beyond) => Duration::from_secs(1 << beyond.min(10)).min(LONGEST),
        }
    }
}

impl Brake {
    /// How long this account has to wait before the next attempt; `None` when it may try now.
    pub(crate) fn wait(&self, key: &Key, now: Timestamp) -> Option<Duration> {
        let failures = self.failures.get(key)?;
        let wait = failures.wait();
        let until = failures.last.plus(wait);
        let left = u64::try_from(until.0.saturating_sub(now.0)).unwrap_or(0);
        // A clock that was set back must not lock anybody out.
        let left = Duration::from_millis(left).min(wait);
        (!left.is_zero()).then_some(left)
    }

    /// Notes a wrong secret.
    pub(crate) fn failed(&mut self, key: Key, now: Timestamp) {
        if self.failures.len() >= MOST
            && !self.failures.contains_key(&key)
            && let Some(oldest) = self
                .failures
                .iter()
                .min_by_key(|(_, f)| f.last)
                .map(|(key, _)| key.clone())
        {
            self.failures.remove(&oldest);
        }
        let failures = self.failures.entry(key).or_insert(Failures {
            in_a_row: 0,
            last: now,
        });
        failures.in_a_row = failures.in_a_row.saturating_add(1);
        failures.last = now;
    }

    /// Forgets the failures of an account: it logged in, or it is gone.
    pub(crate) fn release(&mut self, key: &Key) {
        self.failures.remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(id: &str) -> Key {
        (Namespace::operator(), AccountId::parse(id).unwrap())
    }

    #[test]
    fn the_wait_grows_from_the_tenth_failure_to_a_minute_and_ends_with_a_success() {
        let (mut brake, bob, mut now) = (Brake::default(), key("bob"), Timestamp(0));
        for _ in 0..FREE - 1 {
            brake.failed(bob.clone(), now);
            assert_eq!(brake.wait(&bob, now), None);
        }
        for seconds in [1, 2, 4, 8, 16, 32, 60, 60] {
            brake.failed(bob.clone(), now);
            let wait = Duration::from_secs(seconds);
            assert_eq!(brake.wait(&bob, now), Some(wait));
            assert_eq!(brake.wait(&bob, Timestamp(now.0 - 9_000_000)), Some(wait));
            now = now.plus(wait);
            assert_eq!(brake.wait(&bob, now), None);
        }
        assert_eq!(brake.wait(&key("eve"), now), None, "others are not touched");
        brake.failed(bob.clone(), now);
        brake.release(&bob);
        assert_eq!(brake.wait(&bob, now), None);
    }

    #[test]
    fn memory_is_bounded_and_the_freshest_are_kept() {
        let mut brake = Brake::default();
        for n in 0..MOST + 10 {
            let at = Timestamp(i64::try_from(n).unwrap());
            brake.failed(key(&n.to_string()), at);
        }
        assert_eq!(brake.failures.len(), MOST);
        assert!(!brake.failures.contains_key(&key("9")));
        assert!(brake.failures.contains_key(&key("10")));
    }
}
