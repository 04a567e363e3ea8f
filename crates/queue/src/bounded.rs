//! The queue: requests that wait, bounded in number and in bytes, and the answers to those without
//! room.

use crate::{Depth, Submission, Waits};
use std::{collections::VecDeque, mem, time::Duration};
use widgets_registry::{Fault, Reason};

/// How much may wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// How many requests.
    pub operations_max: usize,
    /// How many bytes of text.
    pub bytes_max: usize,
}

/// The longest wait that `Retry-After` asks for, because the rate may rise again at any time.
pub const RETRY_AFTER_SECONDS_MAX: u32 = 30;

/// Returns the fault of a request that exceeded this limit of so many milliseconds. A client that
/// retried earlier would only wait for nothing again.
#[must_use]
pub fn too_long(limit: String, milliseconds: u64) -> Fault {
    let seconds = u32::try_from(milliseconds.div_ceil(1000)).unwrap_or(u32::MAX);
    Fault::Busy {
        limit,
        retry_after_seconds: seconds.clamp(1, RETRY_AFTER_SECONDS_MAX),
    }
}

/// After this long without an operation there was nothing to apply, so the rate says nothing.
const IDLE: Duration = Duration::from_secs(1);

/// Requests that wait, in lanes that share the limits. It knows nothing about threads and tasks: a
/// store keeps it behind a lock, and wakes the thread that takes from it.
#[derive(Debug)]
pub struct Bounded<T, const LANES: usize = 1> {
    lanes: [VecDeque<Submission<T>>; LANES],
    bytes: usize,
    limits: Limits,
    closed: bool,
    /// Why a lane is unavailable.
    unavailable: [Option<Reason>; LANES],
    rate: Rate,
}

/// How fast operations are applied, to estimate when a retry makes sense. Operations that were
/// answered without being applied do not count.
#[derive(Debug, Default)]
struct Rate {
    /// A moving average in which older batches count less and less. `None` before the first one.
    per_second: Option<f64>,
    /// When the last operation arrived.
    asked: Duration,
    /// When operations were last applied, or there was nothing to do.
    moved: Duration,
}

impl<T: Waits, const LANES: usize> Bounded<T, LANES> {
    /// Returns an open, empty queue.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            lanes: std::array::from_fn(|_| VecDeque::new()),
            bytes: 0,
            limits,
            closed: false,
            unavailable: std::array::from_fn(|_| None),
            rate: Rate::default(),
        }
    }

    /// Adds a request, or returns it with the reason why it cannot wait.
    pub fn push(
        &mut self,
        lane: usize,
        submission: Submission<T>,
    ) -> Result<(), (Submission<T>, Fault)> {
        let bytes = submission.request.text_bytes();
        let stalled = if submission.request.is_operation() {
            self.rate.ask(submission.arrived)
        } else {
            Duration::ZERO
        };
        if let Some(fault) = self.no_room(lane, bytes, stalled) {
            return Err((submission, fault));
        }
        self.bytes += bytes;
        self.lanes[lane].push_back(submission);
        Ok(())
    }

    /// Returns why a request with this many bytes of text cannot wait.
    fn no_room(&self, lane: usize, bytes: usize, stalled: Duration) -> Option<Fault> {
        if self.closed {
            let reason = "it is shutting down".into();
            return Some(Fault::Unavailable { reason });
        }
        if let Some(reason) = self.unavailable[lane].clone() {
            return Some(Fault::Unavailable { reason });
        }
        let Limits {
            operations_max,
            bytes_max,
        } = self.limits;
        let requests = self.depth().requests;
        let (limit, value) = if requests >= operations_max {
            ("queue_operations_max", operations_max)
        } else if self.bytes + bytes > bytes_max {
            ("queue_bytes_max", bytes_max)
        } else {
            return None;
        };
        Some(Fault::Busy {
            limit: format!("{limit} = {value}"),
            retry_after_seconds: self.rate.seconds_for(requests, stalled),
        })
    }

    /// Returns after how many whole seconds a retry of an operation makes sense.
    #[must_use]
    pub fn retry_after_seconds(&self, now: Duration) -> u32 {
        let requests = self.depth().requests;
        self.rate.seconds_for(requests, self.rate.stalled(now))
    }

    /// Returns what waits in a lane, the oldest first.
    #[must_use]
    pub fn lane(&self, lane: usize) -> &VecDeque<Submission<T>> {
        &self.lanes[lane]
    }

    /// Reports whether nothing waits in any lane.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.lanes.iter().all(VecDeque::is_empty)
    }

    /// Moves everything in a lane into `batch`, which must be empty.
    pub fn take_all(&mut self, lane: usize, batch: &mut VecDeque<Submission<T>>) {
        debug_assert!(
            batch.is_empty(),
            "what is in it would wait again, uncounted"
        );
        mem::swap(batch, &mut self.lanes[lane]);
        // In most cases that is everything in the queue.
        if self.is_empty() {
            self.bytes = 0;
        } else {
            self.bytes -= text_bytes(batch);
        }
    }

    /// Offers the requests of a lane to `take`, the oldest first, until it has taken this many. A
    /// request that `take` returns, because it may not proceed yet, keeps its place.
    pub fn take(
        &mut self,
        lane: usize,
        most: usize,
        mut take: impl FnMut(Submission<T>) -> Option<Submission<T>>,
    ) {
        let (mut taken, mut passed_over) = (0, Vec::new());
        while taken < most
            && let Some(submission) = self.lanes[lane].pop_front()
        {
            let bytes = submission.request.text_bytes();
            if let Some(submission) = take(submission) {
                passed_over.push(submission);
            } else {
                self.bytes -= bytes;
                taken += 1;
            }
        }
        for submission in passed_over.into_iter().rev() {
            self.lanes[lane].push_front(submission);
        }
    }

    /// Sets why a lane is unavailable. All its new requests are refused with this reason until it
    /// is `None` again. Waiting requests can still be [taken](Self::take_all).
    pub fn set_unavailable(&mut self, lane: usize, reason: Option<Reason>) {
        self.unavailable[lane] = reason;
    }

    /// Returns why a lane is unavailable.
    #[must_use]
    pub fn unavailable(&self, lane: usize) -> Option<&Reason> {
        self.unavailable[lane].as_ref()
    }

    /// Records that this many operations have been applied in this time, on which `Retry-After` is
    /// based. Operations that were refused for lack of time or of a store must not be counted.
    pub fn applied(&mut self, operations: usize, elapsed: Duration, now: Duration) {
        self.rate.count(operations, elapsed, now);
    }

    /// Returns how much waits.
    #[must_use]
    pub fn depth(&self) -> Depth {
        Depth {
            requests: self.lanes.iter().map(VecDeque::len).sum(),
            bytes: self.bytes,
        }
    }

    /// Refuses further requests; those that wait can still be taken.
    pub fn close(&mut self) {
        self.closed = true;
    }

    /// Reports whether it is closed.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.closed
    }
}

fn text_bytes<T: Waits>(batch: &VecDeque<Submission<T>>) -> usize {
    let bytes = |submission: &Submission<T>| submission.request.text_bytes();
    batch.iter().map(bytes).sum()
}

impl Rate {
    #[expect(clippy::cast_precision_loss, reason = "an estimate")]
    fn count(&mut self, operations: usize, elapsed: Duration, now: Duration) {
        let latest = operations as f64 / elapsed.as_secs_f64().max(1e-6);
        let before = self.per_second.unwrap_or(latest);
        self.per_second = Some(before + (latest - before) / 8.0);
        self.moved = now;
    }

    /// Records that an operation arrives, and returns for how long nothing has been applied.
    fn ask(&mut self, now: Duration) -> Duration {
        if now.saturating_sub(self.asked) > IDLE {
            self.moved = now;
        }
        self.asked = now;
        self.stalled(now)
    }

    /// Returns for how long nothing has been applied although there was something to do.
    fn stalled(&self, now: Duration) -> Duration {
        now.saturating_sub(self.moved)
    }

    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "an estimate, kept within its bounds"
    )]
    fn seconds_for(&self, requests: usize, stalled: Duration) -> u32 {
        let seconds = self
            .per_second
            .map_or(1.0, |rate| requests as f64 / rate.max(1.0));
        // If nothing has been applied for some time, it may take as long again.
        let seconds = seconds.max(stalled.as_secs_f64());
        (seconds.ceil() as u32).clamp(1, RETRY_AFTER_SECONDS_MAX)
    }
}

#[cfg(test)]
mod tests;
