//! Time, as an argument: the engine asks this and nothing else.

use std::time::{Duration, Instant};

/// A clock that only goes forward.
pub trait Clock: Send + Sync + 'static {
    /// Time since some fixed moment.
    fn now(&self) -> Duration;
    /// Waits.
    fn sleep(&self, duration: Duration);
    /// Waits, but for no longer than until this thread is unparked. It may also end early.
    fn park(&self, duration: Duration) {
        self.sleep(duration);
    }
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
        reason = "the one place where the engine reads the clock"
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

    fn sleep(&self, duration: Duration) {
        std::thread::sleep(duration);
    }

    fn park(&self, duration: Duration) {
        std::thread::park_timeout(duration);
    }
}
