//! Time, as an argument: durations in the metrics and the lifetimes of tokens come from this and
//! nothing else.

use std::time::{Duration, Instant, SystemTime};

/// Time, in both senses.
pub trait Clock: Send + Sync + 'static {
    /// Time since some fixed moment. Only goes forward.
    fn now(&self) -> Duration;

    /// Seconds since 1970 began (UTC), as calendars count. May be set back.
    fn unix_seconds(&self) -> i64;
}

/// The clock of the operating system.
#[derive(Debug)]
pub struct SystemClock {
    start: Instant,
}

impl SystemClock {
    /// A clock that stands at zero now.
    #[must_use]
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place where the server reads the clock"
    )]
    pub fn new() -> Self {
        Self {
            start: Instant::now(),
        }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Duration {
        self.start.elapsed()
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "the one place where the server reads the calendar"
    )]
    fn unix_seconds(&self) -> i64 {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        // Before 1970 no token is valid, as it should be.
        since.map_or(0, |since| {
            i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
        })
    }
}
