//! What a standby knows about how it follows.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use widgets_clock::Clock;

/// After this long without a message from the primary, a standby counts as not following.
const HEARD_MAX: Duration = Duration::from_secs(10);

/// How a standby follows. Clones share their state.
#[derive(Clone)]
pub struct Status(Arc<Inner>);

struct Inner {
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
    /// Approximately how many bytes the primary has not sent yet.
    behind_bytes: AtomicU64,
}

struct State {
    /// Why the standby does not follow at present, if it does not.
    failure: Option<String>,
    /// When the primary last sent something.
    heard: Option<Duration>,
    /// When this standby last had everything that the primary had announced; initially when this
    /// standby began.
    had_all: Duration,
    has_all: bool,
}

impl Status {
    /// Creates the status of a standby that begins now.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        let state = State {
            failure: Some("it has not reached its primary yet".into()),
            heard: None,
            had_all: clock.now(),
            has_all: false,
        };
        Self(Arc::new(Inner {
            clock,
            state: Mutex::new(state),
            behind_bytes: AtomicU64::new(0),
        }))
    }

    /// The primary has begun to send.
    pub(crate) fn connected(&self) {
        let now = self.0.clock.now();
        let mut state = self.lock();
        state.failure = None;
        state.heard = Some(now);
    }

    /// The primary has announced its end. `has_all` says whether this standby has everything before
    /// it.
    pub(crate) fn heard(&self, has_all: bool, behind_bytes: u64) {
        let now = self.0.clock.now();
        self.0.behind_bytes.store(behind_bytes, Ordering::Relaxed);
        let mut state = self.lock();
        state.failure = None;
        state.heard = Some(now);
        state.has_all = has_all;
        if has_all {
            state.had_all = now;
        }
    }

    /// The store cannot be written to at present.
    pub(crate) fn cannot_write(&self, why: &str) {
        let mut state = self.lock();
        if state.failure.as_deref() != Some(why) {
            tracing::warn!(
                error = why,
                "a group from the primary could not be written; trying again"
            );
            state.failure = Some(why.into());
        }
        state.has_all = false;
    }

    /// The standby does not follow, for this reason.
    pub(crate) fn failed(&self, why: String) {
        let mut state = self.lock();
        state.failure = Some(why);
        state.has_all = false;
    }

    /// Returns why the standby does not follow, if it has not for a while.
    #[must_use]
    pub fn failure(&self) -> Option<String> {
        let now = self.0.clock.now();
        let state = self.lock();
        let is_recent = state
            .heard
            .is_some_and(|heard| now.saturating_sub(heard) < HEARD_MAX);
        if is_recent {
            return None;
        }
        let silent = || "its primary sends nothing".into();
        Some(state.failure.clone().unwrap_or_else(silent))
    }

    /// Returns for how long this standby has lacked something that its primary has, as far as it
    /// knows.
    #[must_use]
    pub fn behind(&self) -> Duration {
        let now = self.0.clock.now();
        let state = self.lock();
        if state.has_all {
            Duration::ZERO
        } else {
            now.saturating_sub(state.had_all)
        }
    }

    /// Returns approximately how many bytes of journal the primary had not sent when it last
    /// announced its end.
    #[must_use]
    pub fn behind_bytes(&self) -> u64 {
        self.0.behind_bytes.load(Ordering::Relaxed)
    }

    /// Returns whether the standby is connected.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.lock().failure.is_none()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
