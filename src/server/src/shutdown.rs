//! The order in which the node stops. SIGTERM (from the supervisor, a terminal or systemd) starts
//! it; a second signal ends the process at once. Instances are not the node's to stop: the
//! supervisor ends them after the node, or keeps them when only the node restarts.

use std::{future::Future, time::Duration};

/// What happens, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// `/ready` answers 503, the doors stop accepting, requests in flight finish.
    Doors,
    /// Deployments and the reconcile loop return; what they had decided is on disk already.
    Runtime,
    /// The registry stops expiring registrations.
    Registry,
    /// SQLite and the storage are checkpointed and closed.
    Storage,
}

/// Each stage with the time it may take. The sum stays below the supervisor's patience with its
/// node (15 s) plus systemd's `TimeoutStopSec` (a test holds the two together).
pub(crate) const ORDER: [(Stage, Duration); 4] = [
    (Stage::Doors, Duration::from_secs(8)),
    (Stage::Runtime, Duration::from_secs(3)),
    (Stage::Registry, Duration::from_secs(1)),
    (Stage::Storage, Duration::from_secs(2)),
];

/// Runs the stages; one that overruns is logged and left behind.
pub(crate) async fn run<F: Future<Output = ()>>(mut stage: impl FnMut(Stage) -> F) {
    for (which, budget) in ORDER {
        let begun = tokio::time::Instant::now();
        if tokio::time::timeout(budget, stage(which)).await.is_err() {
            tracing::warn!(stage = ?which, budget_ms = budget.as_millis(), "Stage overran its time and was left.");
        }
        tracing::debug!(stage = ?which, elapsed_ms = begun.elapsed().as_millis(), "Stage ended.");
    }
}

/// Resolves at the first SIGTERM or SIGINT.
pub(crate) async fn requested() -> std::io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut term, mut int) = (
        signal(SignalKind::terminate())?,
        signal(SignalKind::interrupt())?,
    );
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stages_fit_into_the_supervisors_patience() {
        let sum: Duration = ORDER.iter().map(|(_, budget)| *budget).sum();
        assert!(sum < Duration::from_secs(15), "{sum:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_stage_that_hangs_does_not_keep_the_others_from_running() {
        let seen = std::cell::RefCell::new(Vec::new());
        run(|stage| {
            seen.borrow_mut().push(stage);
            async move {
                if stage == Stage::Doors {
                    std::future::pending::<()>().await;
                }
            }
        })
        .await;
        assert_eq!(*seen.borrow(), ORDER.map(|(stage, _)| stage));
    }
}
