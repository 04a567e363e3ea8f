//! Operations whose widgets another transaction holds. They are tried again and again until their time
//! is over, in batches of their own that wait for no lock, so that nobody waits for them. They are
//! bounded in number and in bytes, apart from the queue, so that they take no room from others.

use crate::{Random, Settings, backoff::backoff, queue::Operation};
use std::{
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use widgets_registry::{Attempt, Request as _};

/// What callers are told of such an operation.
pub(crate) const HELD: &str = "another transaction of the database holds these widgets";

/// The pauses between attempts: half of how long an operation has waited, within these bounds.
const PAUSE_LEAST: Duration = Duration::from_millis(2);
const PAUSE_MOST: Duration = Duration::from_millis(100);

/// At most so many are tried in one batch, which is short then whatever it meets.
const BATCH_MAX: usize = 64;

/// This part of the queue's bounds.
const PART: usize = 4;

/// For so long after locks were met, all batches look for them beforehand.
const NEAR: Duration = Duration::from_secs(1);

/// Those that wait for their next attempt.
pub(crate) struct Locked {
    waiting: Mutex<Waiting>,
    taken: Arc<Mutex<Taken>>,
    operations_max: usize,
    bytes_max: usize,
}

#[derive(Default)]
struct Waiting {
    /// In the order in which they came, with the time of the next attempt.
    operations: Vec<(Duration, Operation)>,
    /// When a lock was met last.
    met: Option<Duration>,
}

/// How many there are, with those that are just being tried, and how many bytes they have.
#[derive(Default)]
struct Taken {
    operations: usize,
    bytes: usize,
}

/// The place of an operation: it has it until it is answered.
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

    /// Says that a lock was met.
    pub(crate) fn met(&self, now: Duration) {
        self.lock().met = Some(now);
    }

    /// Whether locks are to be expected: a batch does well not to wait for one.
    pub(crate) fn is_near(&self, now: Duration) -> bool {
        let waiting = self.lock();
        let lately = |met| now.saturating_sub(met) < NEAR;
        !waiting.operations.is_empty() || waiting.met.is_some_and(lately)
    }

    /// Gives an operation a place, or says why it cannot wait. One that was here before keeps its own.
    pub(crate) fn admit(&self, operation: &mut Operation) -> Result<(), String> {
        if operation.place.is_none() {
            let place = self.place(operation.attempt.text_bytes())?;
            operation.place = Some(place);
        }
        Ok(())
    }

    /// For how long the oldest one has waited.
    pub(crate) fn waited(&self, now: Duration) -> Duration {
        let waiting = self.lock();
        let arrived = waiting.operations.iter().map(|(_, each)| each.arrived);
        arrived
            .min()
            .map_or(Duration::ZERO, |arrived| now.saturating_sub(arrived))
    }

    /// Takes an operation in that has a place, to be tried again after a pause.
    pub(crate) fn push(&self, operation: Operation, now: Duration, random: Random) {
        let waited = now.saturating_sub(operation.arrived);
        let pause = (waited / 2).clamp(PAUSE_LEAST, PAUSE_MOST);
        let due = now + backoff(pause, pause, 0, random);
        self.lock().operations.push((due, operation));
    }

    /// A place for so many bytes, or why there is none.
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

    /// Takes operations whose time has come and whose widgets `claim` allows to be named into `batch`,
    /// which is empty.
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
            // Another batch names one of them, and will soon be answered.
            *due = now + PAUSE_LEAST;
            false
        });
        batch.extend(due.map(|(_, operation)| operation));
    }

    /// When the next one is to be tried.
    pub(crate) fn next_due(&self) -> Option<Duration> {
        self.lock().operations.iter().map(|(due, _)| *due).min()
    }

    /// Whether none waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.lock().operations.is_empty()
    }

    /// How many have a place.
    pub(crate) fn len(&self) -> usize {
        lock(&self.taken).operations
    }

    /// Gives up all that wait.
    pub(crate) fn take_all(&self) -> impl Iterator<Item = Operation> + use<> {
        let operations = mem::take(&mut self.lock().operations);
        operations.into_iter().map(|(_, operation)| operation)
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        lock(&self.waiting)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing that is done under these locks can panic halfway through a change.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
