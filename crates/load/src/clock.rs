//! The clock of a session, and a timer with the same precision.

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};
use std::{
    io,
    os::fd::OwnedFd,
    time::{Duration, Instant},
};
use tokio::io::unix::AsyncFd;

/// A clock that measures the time since the session began, the same for all its threads.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    start: Instant,
}

impl Clock {
    /// Returns a clock that starts at zero now.
    #[must_use]
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place where the load generator reads the monotonic clock"
    )]
    pub(crate) fn start() -> Self {
        Self {
            start: Instant::now(),
        }
    }

    /// Returns the time since the start.
    #[must_use]
    pub(crate) fn now(&self) -> Duration {
        self.start.elapsed()
    }
}

/// Returns the wall-clock time since the Unix epoch.
#[must_use]
pub(crate) fn unix_time() -> Duration {
    std::time::SystemTime::UNIX_EPOCH
        .elapsed()
        .unwrap_or_default()
}

/// A timer that is precise to microseconds.
///
/// The runtime's timer counts whole milliseconds, which would add up to a millisecond of the
/// generator's making to every open-loop latency. Linux's timerfd does not round.
pub(crate) struct Timer {
    clock: Clock,
    file: AsyncFd<OwnedFd>,
}

impl Timer {
    #[expect(
        deprecated,
        reason = "unsound for types that may change or close their descriptor, which an `OwnedFd` \
                  does not; the replacement is an unsafe function"
    )]
    pub(crate) fn new(clock: Clock) -> io::Result<Self> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let file = AsyncFd::new(timerfd_create(TimerfdClockId::Monotonic, flags)?)?;
        Ok(Self { clock, file })
    }

    /// Waits until `moment`. Returns at once if it is past.
    pub(crate) async fn wait_until(&self, moment: Duration) -> io::Result<()> {
        loop {
            let wait = moment.saturating_sub(self.clock.now());
            if wait.is_zero() {
                return Ok(());
            }
            let value = Itimerspec {
                it_interval: Timespec::default(),
                it_value: Timespec {
                    tv_sec: wait.as_secs().try_into().unwrap_or(i64::MAX),
                    tv_nsec: wait.subsec_nanos().into(),
                },
            };
            timerfd_settime(self.file.get_ref(), TimerfdTimerFlags::empty(), &value)?;
            let mut ready = self.file.readable().await?;
            let mut expirations = [0; 8];
            // If there is nothing to read, the timer was woken for an earlier setting: wait again.
            drop(ready.try_io(|file| Ok(rustix::io::read(file, &mut expirations)?)));
        }
    }
}
