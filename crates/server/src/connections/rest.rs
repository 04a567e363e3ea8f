//! Rests of a worker, which let requests accumulate.
//!
//! A worker that waits for events is woken by the first one: at some thousand requests a second, by
//! nearly every request. Each wake-up costs system calls, thread switches and, on a virtual
//! machine, work outside of it. But a store decides requests in batches, so requests that arrive
//! while others already wait for a batch lose nothing by waiting too. So when CPU time is short, as
//! [`Pacing`] measures it, a worker with several pending requests rests before it waits for events,
//! and then finds everything that has arrived.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};
use widgets_pacing::Pacing;

/// How many requests of one worker wait for their answers.
#[derive(Clone, Debug, Default)]
pub(super) struct Pending(Arc<AtomicUsize>);

impl Pending {
    /// Counts one more request until the result is dropped.
    pub(super) fn request(&self) -> PendingRequest {
        self.0.fetch_add(1, Ordering::Relaxed);
        PendingRequest(self.clone())
    }

    /// Rests if it is time to. To be called by the worker's thread before it waits for events. When
    /// a store unparks the thread, the rest ends, so answers are not delayed.
    pub(super) fn rest(&self, pacing: &Pacing) {
        if let Some(rest) = pacing.rest(self.count()) {
            thread::park_timeout(rest);
        }
    }

    fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
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
    use super::Pending;

    #[test]
    fn requests_count_as_pending_until_they_are_answered() {
        let pending = Pending::default();
        let mut requests: Vec<_> = (0..4).map(|_| pending.request()).collect();
        assert_eq!(pending.count(), 4);
        requests.pop();
        assert_eq!(pending.count(), 3);
        drop(requests);
        assert_eq!(pending.count(), 0);
    }
}
