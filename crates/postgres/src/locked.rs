//! Operations whose widgets another transaction holds. They are retried until their time is over,
//! in separate batches that wait for no lock, so that no other operation waits for them. They are
//! bounded in number and in bytes, separately from the queue, so that they take no room from
//! others.

use crate::{Random, Settings, backoff::backoff, queue::Operation};
use std::{
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use widgets_registry::{Attempt, Request as _};

/// What the callers of such operations are told.
pub(crate) const HELD: &str = "another transaction of the database holds these widgets";

/// The pauses between attempts: half of how long an operation has waited, within these bounds.
const PAUSE_LEAST: Duration = Duration::from_millis(2);
const PAUSE_MOST: Duration = Duration::from_millis(100);

/// The maximum number of these operations in one batch, so that the batch is short whatever it
/// meets.
const BATCH_MAX: usize = 64;

/// These operations may take up the queue's bounds divided by this.
const PART: usize = 4;

/// How long after a lock was met all batches lock their widgets first.
const NEAR: Duration = Duration::from_secs(1);

/// The operations that wait for their next attempt.
pub(crate) struct Locked {
    waiting: Mutex<Waiting>,
    taken: Arc<Mutex<Taken>>,
    operations_max: usize,
    bytes_max: usize,
}

#[derive(Default)]
struct Waiting {
    /// In order of arrival, with the time of the next attempt.
    operations: Vec<(Duration, Operation)>,
    /// When a lock was last met.
    met: Option<Duration>,
}

/// How many operations have a place, including those that are being tried, and how many bytes they
/// hold.
#[derive(Default)]
struct Taken {
    operations: usize,
    bytes: usize,
}

/// An operation's place, which it keeps until it is answered.
pub(crate) struct Place {
    taken: Arc<Mutex<Taken>>,
    bytes: usize,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = lock(&self.taken);
        taken.operations -= 1;
        taken.bytes -= self.bytes;
    }
}

impl Locked {
    pub(crate) fn new(settings: &Settings) -> Self {
        Self {
            waiting: Mutex::default(),
            taken: Arc::default(),
            operations_max: (settings.queue_operations_max / PART).max(1),
            bytes_max: settings.queue_bytes_max / PART,
        }
    }

    /// Records that a lock was met.
    pub(crate) fn met(&self, now: Duration) {
        self.lock().met = Some(now);
    }

    /// Reports whether locks are likely, so that a batch should not wait for one.
    pub(crate) fn is_near(&self, now: Duration) -> bool {
        let waiting = self.lock();
        let lately = |met| now.saturating_sub(met) < NEAR;
        !waiting.operations.is_empty() || waiting.met.is_some_and(lately)
    }

    /// Gives an operation a place, or returns why it cannot wait. An operation that already has a
    /// place keeps it.
    pub(crate) fn admit(&self, operation: &mut Operation) -> Result<(), String> {
        if operation.place.is_none() {
            let place = self.place(operation.attempt.text_bytes())?;
            operation.place = Some(place);
        }
        Ok(())
    }

    /// Returns how long the oldest operation has waited.
    pub(crate) fn waited(&self, now: Duration) -> Duration {
        let waiting = self.lock();
        let arrived = waiting.operations.iter().map(|(_, each)| each.arrived);
        arrived
            .min()
            .map_or(Duration::ZERO, |arrived| now.saturating_sub(arrived))
    }

    /// Stores an operation that has a place, to be tried again after a pause.
    pub(crate) fn push(&self, operation: Operation, now: Duration, random: Random) {
        let waited = now.saturating_sub(operation.arrived);
        let pause = (waited / 2).clamp(PAUSE_LEAST, PAUSE_MOST);
        let due = now + backoff(pause, pause, 0, random);
        self.lock().operations.push((due, operation));
    }

    /// Returns a place for this many bytes, or why there is none.
    fn place(&self, bytes: usize) -> Result<Place, String> {
        let mut taken = lock(&self.taken);
        let (limit, most) = if taken.operations >= self.operations_max {
            ("queue_operations_max", self.operations_max)
        } else if taken.bytes + bytes > self.bytes_max {
            ("queue_bytes_max", self.bytes_max)
        } else {
            taken.operations += 1;
            taken.bytes += bytes;
            return Ok(Place {
                taken: self.taken.clone(),
                bytes,
            });
        };
        Err(format!(
            "{HELD}, and those that wait for such already are {limit} / {PART} = {most}"
        ))
    }

    /// Moves the operations that are due, and whose widgets `claim` allows to be named, into the
    /// empty `batch`.
    pub(crate) fn take(
        &self,
        batch: &mut Vec<Operation>,
        now: Duration,
        mut claim: impl FnMut(&Attempt) -> bool,
    ) {
        let mut waiting = self.lock();
        let mut room = BATCH_MAX;
        let due = waiting.operations.extract_if(.., |(due, operation)| {
            if *due > now || room == 0 {
                return false;
            }
            if claim(&operation.attempt) {
                room -= 1;
                return true;
            }
            // A batch in flight names one of these widgets, and will soon be answered.
            *due = now + PAUSE_LEAST;
            false
        });
        batch.extend(due.map(|(_, operation)| operation));
    }

    /// Returns when the next operation is due.
    pub(crate) fn next_due(&self) -> Option<Duration> {
        self.lock().operations.iter().map(|(due, _)| *due).min()
    }

    /// Reports whether no operation is waiting.
    pub(crate) fn is_empty(&self) -> bool {
        self.lock().operations.is_empty()
    }

    /// Returns how many operations have a place.
    pub(crate) fn len(&self) -> usize {
        lock(&self.taken).operations
    }

    /// Removes and returns all waiting operations.
    pub(crate) fn take_all(&self) -> impl Iterator<Item = Operation> + use<> {
        let operations = mem::take(&mut self.lock().operations);
        operations.into_iter().map(|(_, operation)| operation)
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        lock(&self.waiting)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // No code under these locks can panic halfway through a change.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
