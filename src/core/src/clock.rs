//! Time that tests can move. Nothing else in the product reads the system clock.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use serde::{Deserialize, Serialize};

/// Milliseconds since the Unix epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// Whole seconds since the epoch, as Micro's messages carry them.
    pub const fn unix_seconds(self) -> i64 {
        self.0.div_euclid(1000)
    }

    /// This much later.
    #[must_use]
    pub fn plus(self, span: Duration) -> Self {
        Self(
            self.0
                .saturating_add(i64::try_from(span.as_millis()).unwrap_or(i64::MAX)),
        )
    }

    /// RFC 3339 in UTC, whole seconds.
    pub fn rfc3339(self) -> String {
        jiff::Timestamp::from_second(self.unix_seconds())
            .map_or_else(|_| String::new(), |t| t.to_string())
    }
}

/// The source of [`Timestamp`]s.
#[derive(Debug, Clone, Default)]
pub enum Clock {
    /// The machine's clock.
    #[default]
    System,
    /// A clock that stands still until a test moves it; milliseconds.
    Fake(Arc<AtomicI64>),
}

impl Clock {
    /// The current time.
    pub fn now(&self) -> Timestamp {
        match self {
            Self::System => Timestamp(jiff::Timestamp::now().as_millisecond()),
            Self::Fake(ms) => Timestamp(ms.load(Ordering::Relaxed)),
        }
    }

    /// A fake clock that starts at `start`.
    pub fn fake(start: Timestamp) -> Self {
        Self::Fake(Arc::new(AtomicI64::new(start.0)))
    }

    /// Moves a fake clock; the system's clock stays as it is.
    pub fn advance(&self, by: Duration) {
        if let Self::Fake(ms) = self {
            ms.fetch_add(
                i64::try_from(by.as_millis()).unwrap_or(0),
                Ordering::Relaxed,
            );
        }
    }
}
