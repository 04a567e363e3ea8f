//! Rests of a worker, so that requests come together.
//!
//! A worker that waits for events is woken for the first that comes: at some thousand requests a second
//! for nearly every request, by system calls, switches between threads and, on a virtual machine, with
//! work outside of it. But a store decides requests in batches, and while some wait for one, those that
//! come meanwhile miss nothing. So a worker of which several requests are pending rests before it
//! waits for events, and then finds all that has come. What that saves: docs/performance.md.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

/// With so many pending requests more of them are on their way for certain. A lone client never
/// meets a rest.
const PENDING_MIN: usize = 4;

/// The longest rest. Hypervisors often poll for an idle processor's next event before they give it
/// away, KVM for up to 200 microseconds, and count that as used: rests must be longer to be any.
const REST_MAX: Duration = Duration::from_micros(200);

/// How many requests of one worker wait for their answers.
#[derive(Clone, Debug, Default)]
pub(super) struct Pending(Arc<AtomicUsize>);

impl Pending {
    /// Counts one more, until what is returned is dropped.
    pub(super) fn request(&self) -> PendingRequest {
        self.0.fetch_add(1, Ordering::Relaxed);
        PendingRequest(self.clone())
    }

    /// Rests if it is time to. For the worker's thread, before it waits for events. A store that
    /// unparks the thread ends the rest: answers are not kept waiting.
    pub(super) fn rest(&self) {
        if self.is_busy() {
            thread::park_timeout(REST_MAX);
        }
    }

    fn is_busy(&self) -> bool {
        self.0.load(Ordering::Relaxed) >= PENDING_MIN
    }
}

/// A request that waits for its answer.
#[derive(Debug)]
pub(super) struct PendingRequest(Pending);

impl Drop for PendingRequest {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::{PENDING_MIN, Pending};

    #[test]
    fn rests_only_while_several_requests_are_pending() {
        let pending = Pending::default();
        assert!(!pending.is_busy());
        let mut requests: Vec<_> = (1..PENDING_MIN).map(|_| pending.request()).collect();
        assert!(!pending.is_busy());
        requests.push(pending.request());
        assert!(pending.is_busy());
        requests.pop();
        assert!(!pending.is_busy());
    }
}
