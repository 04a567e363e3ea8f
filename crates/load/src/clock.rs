//! The clock of a session, and a timer that is as fine as it.

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

/// Time since the session began, the same for all its threads.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    start: Instant,
}

impl Clock {
    /// A clock that stands at zero now.
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

    /// Time since the start.
    #[must_use]
    pub(crate) fn now(&self) -> Duration {
        self.start.elapsed()
    }
}

/// Time since the Unix epoch, by the wall clock.
#[must_use]
pub(crate) fn unix_time() -> Duration {
    std::time::SystemTime::UNIX_EPOCH
        .elapsed()
        .unwrap_or_default()
}

/// Waits for a moment to within microseconds.
///
/// The runtime's own timer counts whole milliseconds, which would add a millisecond of the
/// generator's own to every open-loop latency. Linux's timerfd does not round.
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

    /// Waits until `moment`. A moment that is past returns at once.
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
            // Nothing to read means that it was woken for the time set before: wait again.
            drop(ready.try_io(|file| Ok(rustix::io::read(file, &mut expirations)?)));
        }
    }
}
