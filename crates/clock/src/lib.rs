//! What time it is: time as an argument.
//!
//! Code that reads a clock or waits takes a [`Clock`], so that tests and the simulation can control
//! it. [`SystemClock`] is the only place where the service reads the operating system's clock.

use std::{
    pin::Pin,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

/// A wait of a task. It needs a tokio runtime with time enabled.
pub type Timer = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Monotonic time, calendar time, and ways to wait.
pub trait Clock: Send + Sync + 'static {
    /// Returns the time since some fixed moment. It never goes backwards.
    fn now(&self) -> Duration;

    /// Returns the time since 1970 (UTC), as calendars count it. It may be set back.
    fn unix_time(&self) -> Duration;

    /// Makes the thread wait.
    fn sleep(&self, duration: Duration);

    /// Makes the thread wait until this time has passed or it is unparked. It may also end early.
    fn park(&self, duration: Duration) {
        self.sleep(duration);
    }

    /// Makes a task wait.
    fn timer(&self, duration: Duration) -> Timer;

    /// Returns the whole seconds since 1970 (UTC).
    fn unix_seconds(&self) -> i64 {
        i64::try_from(self.unix_time().as_secs()).unwrap_or(i64::MAX)
    }
}

/// The operating system's clock.
#[derive(Debug)]
pub struct SystemClock {
    start: Instant,
}

impl SystemClock {
    /// Returns a clock that starts at zero now.
    #[must_use]
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place where the service reads the clock"
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
        reason = "the one place where the service reads the calendar"
    )]
    fn unix_time(&self) -> Duration {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        // Before 1970 no token is valid, as intended.
        since.unwrap_or_default()
    }

    fn sleep(&self, duration: Duration) {
        std::thread::sleep(duration);
    }

    fn park(&self, duration: Duration) {
        std::thread::park_timeout(duration);
    }

    fn timer(&self, duration: Duration) -> Timer {
        Box::pin(tokio::time::sleep(duration))
    }
}

impl<C: Clock + ?Sized> Clock for Arc<C> {
    fn now(&self) -> Duration {
        (**self).now()
    }

    fn unix_time(&self) -> Duration {
        (**self).unix_time()
    }

    fn sleep(&self, duration: Duration) {
        (**self).sleep(duration);
    }

    fn park(&self, duration: Duration) {
        (**self).park(duration);
    }

    fn timer(&self, duration: Duration) -> Timer {
        (**self).timer(duration)
    }
}
