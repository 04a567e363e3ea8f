//! Operations whose widgets another transaction holds. They are tried again and again until their time
//! is over, in batches of their own that wait for no lock, so that nobody waits for them. They are
//! bounded in number and in bytes, apart from the queue, so that they take no room from others.

use crate::{Random, Settings, backoff::backoff, queue::Operation};
use std::{
    mem,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use widgets_registry::Command;

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
    operations_max: usize,
    bytes_max: usize,
}

#[derive(Default)]
struct Waiting {
    /// In the order in which they came, with the time of the next attempt.
    operations: Vec<(Duration, Operation)>,
    bytes: usize,
    /// When a lock was met last.
    met: Option<Duration>,
}

impl Locked {
    pub(crate) fn new(settings: &Settings) -> Self {
        Self {
            waiting: Mutex::default(),
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

    /// Takes an operation in, to be tried again after a pause, or gives it back with the reason why it
    /// cannot wait.
    pub(crate) fn push(
        &self,
        operation: Operation,
        now: Duration,
        random: Random,
    ) -> Result<(), (Operation, String)> {
        let bytes = operation.command.text_bytes();
        let mut waiting = self.lock();
        let (limit, most) = if waiting.operations.len() >= self.operations_max {
            ("queue_operations_max", self.operations_max)
        } else if waiting.bytes + bytes > self.bytes_max {
            ("queue_bytes_max", self.bytes_max)
        } else {
            let waited = now.saturating_sub(operation.arrived);
            let pause = (waited / 2).clamp(PAUSE_LEAST, PAUSE_MOST);
            let due = now + backoff(pause, pause, 0, random);
            waiting.bytes += bytes;
            waiting.operations.push((due, operation));
            return Ok(());
        };
        drop(waiting);
        let why = format!("{HELD}, and so do those that wait already: {limit} / {PART} = {most}");
        Err((operation, why))
    }

    /// Takes operations whose time has come and whose widgets `claim` allows to be named into `batch`,
    /// which is empty.
    pub(crate) fn take(
        &self,
        batch: &mut Vec<Operation>,
        now: Duration,
        mut claim: impl FnMut(&Command) -> bool,
    ) {
        let mut waiting = self.lock();
        let Waiting {
            operations, bytes, ..
        } = &mut *waiting;
        let mut room = BATCH_MAX;
        let due = operations.extract_if(.., |(due, operation)| {
            if *due > now || room == 0 {
                return false;
            }
            if claim(&operation.command) {
                room -= 1;
                return true;
            }
            // Another batch names one of them, and will soon be answered.
            *due = now + PAUSE_LEAST;
            false
        });
        for (_, operation) in due {
            *bytes -= operation.command.text_bytes();
            batch.push(operation);
        }
    }

    /// When the next one is to be tried.
    pub(crate) fn next_due(&self) -> Option<Duration> {
        self.lock().operations.iter().map(|(due, _)| *due).min()
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.lock().operations.len()
    }

    /// Gives all of them up.
    pub(crate) fn take_all(&self) -> Vec<Operation> {
        let mut waiting = self.lock();
        waiting.bytes = 0;
        mem::take(&mut waiting.operations)
            .into_iter()
            .map(|(_, operation)| operation)
            .collect()
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // Nothing in here can panic halfway through a change.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
