//! Rests of a worker, so that requests come together.
//!
//! A worker that waits for events is woken for the first that comes: at some thousand requests a second
//! for nearly every request, by system calls, switches between threads and, on a virtual machine, with
//! work outside of it. But a store decides requests in batches, and while some wait for one, those that
//! come meanwhile miss nothing. So where processor time is short, as [`Pacing`] measures it, a worker of
//! which several requests are pending rests before it waits for events, and then finds all that has
//! come.

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
    /// Counts one more, until what is returned is dropped.
    pub(super) fn request(&self) -> PendingRequest {
        self.0.fetch_add(1, Ordering::Relaxed);
        PendingRequest(self.clone())
    }

    /// Rests if it is time to. For the worker's thread, before it waits for events. A store that
    /// unparks the thread ends the rest: answers are not kept waiting.
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
    fn requests_count_until_they_are_answered() {
        let pending = Pending::default();
        let mut requests: Vec<_> = (0..4).map(|_| pending.request()).collect();
        assert_eq!(pending.count(), 4);
        requests.pop();
        assert_eq!(pending.count(), 3);
        drop(requests);
        assert_eq!(pending.count(), 0);
    }
}
