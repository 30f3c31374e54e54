//! One instance as the balancer sees it: requests in flight and health, shared by all threads and
//! kept when the table changes.

use std::{
    net::SocketAddr,
    sync::{
        Arc, LazyLock,
        atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use http::uri::Authority;

/// The first rest of an instance that takes no connection; it doubles with each failure.
const FIRST_REST: Duration = Duration::from_millis(100);
const LONGEST_REST: Duration = Duration::from_secs(5);

static START: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Milliseconds on the process's own clock, never 0.
pub(crate) fn now() -> u64 {
    u64::try_from(START.elapsed().as_millis()).unwrap_or(u64::MAX - 1) + 1
}

#[derive(Debug)]
pub(crate) struct Backend {
    pub(crate) address: SocketAddr,
    /// The address as `:authority`.
    pub(crate) authority: Authority,
    in_flight: AtomicUsize,
    /// No request is sent before this time; 0 for a healthy instance.
    rests_until: AtomicU64,
    /// Failures in a row.
    failures: AtomicU32,
}

impl Backend {
    pub(crate) fn new(address: SocketAddr) -> Self {
        Self {
            address,
            authority: address
                .to_string()
                .parse()
                .unwrap_or_else(|_| Authority::from_static("localhost")),
            in_flight: AtomicUsize::new(0),
            rests_until: AtomicU64::new(0),
            failures: AtomicU32::new(0),
        }
    }

    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight.load(Relaxed)
    }

    pub(crate) fn rests_until(&self) -> u64 {
        self.rests_until.load(Relaxed)
    }

    /// The instance took no connection: let it rest, longer each time.
    pub(crate) fn failed(&self) {
        let failures = self.failures.fetch_add(1, Relaxed);
        self.rests_until
            .store(now() + millis(rest(failures)), Relaxed);
    }

    /// The instance took a connection.
    pub(crate) fn works(&self) {
        if self.failures.load(Relaxed) != 0 {
            self.failures.store(0, Relaxed);
            self.rests_until.store(0, Relaxed);
        }
    }

    /// Of all requests that find a rest to be over only one goes first; the others see a rest that
    /// is longer by one step.
    pub(crate) fn claim_probe(&self, now: u64) {
        let until = self.rests_until();
        if until != 0 && until <= now {
            let again = now + millis(rest(self.failures.load(Relaxed)));
            let _ = self
                .rests_until
                .compare_exchange(until, again, Relaxed, Relaxed);
        }
    }
}

fn rest(failures: u32) -> Duration {
    FIRST_REST
        .saturating_mul(1 << failures.min(6))
        .min(LONGEST_REST)
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX / 2)
}

/// One request on its way to an instance.
#[derive(Debug)]
pub(crate) struct Flight {
    pub(crate) backend: Arc<Backend>,
}

impl Flight {
    pub(crate) fn new(backend: &Arc<Backend>) -> Self {
        backend.in_flight.fetch_add(1, Relaxed);
        Self {
            backend: Arc::clone(backend),
        }
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.backend.in_flight.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rests_grow_to_a_bound_and_end_with_success() {
        assert_eq!(rest(0), Duration::from_millis(100));
        assert_eq!(rest(1), Duration::from_millis(200));
        assert_eq!(rest(60), LONGEST_REST);
        let backend = Backend::new("127.0.0.1:1".parse().unwrap());
        backend.failed();
        assert!(backend.rests_until() > now());
        backend.works();
        assert_eq!(backend.rests_until(), 0);
    }

    #[test]
    fn one_request_probes_while_the_others_see_a_rest() {
        let backend = Backend::new("127.0.0.1:1".parse().unwrap());
        backend.failed();
        let later = backend.rests_until() + 1;
        backend.claim_probe(later);
        assert!(backend.rests_until() > later);
    }
}
