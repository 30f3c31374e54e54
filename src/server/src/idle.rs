//! A node that nobody uses gives its memory back: after the start, which needs far more than what
//! follows, and after each time of work.

use std::time::Duration;

use nix::sys::{
    resource::{UsageWho, getrusage},
    time::TimeValLike as _,
};
use tokio_util::sync::CancellationToken;

/// Between two looks.
const LOOK: Duration = Duration::from_secs(5);
/// Less processor time than this between two looks is no work.
const WORK: Duration = Duration::from_millis(50);

/// Watches until `stop` fires.
pub(crate) async fn watch(stop: CancellationToken) {
    let mut worked = true;
    let mut before = used();
    while stop
        .run_until_cancelled(tokio::time::sleep(LOOK))
        .await
        .is_some()
    {
        let now = used();
        let works = now.saturating_sub(before) >= WORK;
        before = now;
        if worked && !works {
            // Not on this thread: it has calls to answer.
            let _ = tokio::task::spawn_blocking(micro_sandbox::settle).await;
            before = used();
        }
        worked = works;
    }
}

/// Processor time of this process so far.
fn used() -> Duration {
    getrusage(UsageWho::RUSAGE_SELF).map_or(Duration::ZERO, |usage| {
        let micros = (usage.user_time() + usage.system_time()).num_microseconds();
        Duration::from_micros(u64::try_from(micros).unwrap_or(0))
    })
}
