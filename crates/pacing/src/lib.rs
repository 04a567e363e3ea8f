//! How short processor time is, and what waits for others because of it.
//!
//! A commit costs a write and a sync however few operations it has, and waking a thread costs a system
//! call and a switch however little it then finds. Where processors have time to spare that costs
//! nobody anything, and whatever comes is done at once. Where they have none, the same work done in
//! larger pieces leaves more of them for the requests. So waits pay only there, and only as far as time
//! is short: elsewhere they would cost half of the throughput (docs/performance.md).
//!
//! [`Pacing`] measures that four times a second, from what the kernel says of this process's quota
//! and of the processors it may run on, and keeps a shortage between nothing and everything. From it
//! come all waits that nobody asked for: [between commits](Pacing::commit_interval),
//! [before a worker waits for events](Pacing::rest), and [of who copies](Pacing::copy_rest). It reads when it is asked: a service that has
//! nothing to do reads nothing.

mod meter;
mod shortage;

pub use meter::{Meter, Reading, SystemMeter};

use prometheus::Gauge;
use shortage::Shortage;
use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};
use widgets_clock::Clock;

/// What decides whether anything waits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// What is measured.
    #[default]
    Auto,
    /// As if no processor had any time to spare.
    Always,
    /// Nothing waits.
    Never,
}

/// How often the shortage is measured, while somebody asks.
const MEASURE_EVERY: Duration = Duration::from_millis(250);

/// After a batch of so many operations more of them are on their way for certain. A lone client never
/// meets a wait.
const COMMIT_OPERATIONS_MIN: usize = 4;

/// Where processors have no time at all to spare, the next commit begins this long after the last one for
/// each operation that the last one had, within the bounds.
const COMMIT_INTERVAL_PER_OPERATION: Duration = Duration::from_micros(50);
const COMMIT_INTERVAL_MIN: Duration = Duration::from_micros(500);
const COMMIT_INTERVAL_MAX: Duration = Duration::from_millis(1);

/// This many waiting operations are worth a commit at any time: its cost for each of them is then little
/// beside what a request costs in HTTP.
pub const ENOUGH: usize = 16;

/// With so many requests of one worker pending, more of them are on their way for certain.
const REST_PENDING_MIN: usize = 4;

/// The rest of a worker. Hypervisors often poll for an idle processor's next event before they give
/// it away, KVM for up to 200 microseconds, and count that as used: a shorter rest would be none.
const REST: Duration = Duration::from_micros(200);

/// A worker rests from this shortage on.
const REST_SHORTAGE: u32 = WHOLE / 2;

/// Who copies beside the operations, with nobody waiting, rests so many times as long as a piece of its work took:
/// it takes a tenth of one processor where there is time to spare, and a fiftieth where there is none.
const COPY_REST: u32 = 9;
const COPY_REST_SHORT: u32 = 49;

/// It goes on after this in any case: its work takes longer where it had to wait for a processor.
const COPY_REST_MAX: Duration = Duration::from_secs(1);

/// A shortage is counted in so many parts.
const WHOLE: u32 = 1000;

/// How short processor time is. One for a process: its threads ask the same.
pub struct Pacing {
    mode: Mode,
    clock: Arc<dyn Clock>,
    shortage: AtomicU32,
    /// When to measure next, in microseconds of the clock.
    next_measure: AtomicU64,
    measure: Mutex<Measure>,
    gauge: Gauge,
}

struct Measure {
    meter: Box<dyn Meter>,
    shortage: Shortage,
}

impl Pacing {
    /// Goes by this meter, if the mode leaves it to that.
    pub fn new(mode: Mode, clock: Arc<dyn Clock>, meter: impl Meter) -> Self {
        let gauge = Gauge::new(
            "widgets_processor_shortage",
            "How short processor time is, from 0 to 1: as far as it is, commits and workers wait for \
             more to come.",
        );
        let gauge = match gauge {
            Ok(gauge) => gauge,
            Err(error) => unreachable!("the metric is well-formed: {error}"),
        };
        let shortage = if mode == Mode::Always { WHOLE } else { 0 };
        gauge.set(f64::from(shortage) / f64::from(WHOLE));
        Self {
            mode,
            clock,
            shortage: AtomicU32::new(shortage),
            next_measure: AtomicU64::new(0),
            measure: Mutex::new(Measure {
                meter: Box::new(meter),
                shortage: Shortage::default(),
            }),
            gauge,
        }
    }

    /// The metric that shows the shortage.
    #[must_use]
    pub fn metric(&self) -> &Gauge {
        &self.gauge
    }

    /// How long after the beginning of a commit of so many operations the next one begins, at the
    /// earliest; `None` where nothing waits. [`ENOUGH`] operations end the wait.
    pub fn commit_interval(&self, operations: usize) -> Option<Duration> {
        let shortage = self.shortage();
        if shortage == 0 || operations < COMMIT_OPERATIONS_MIN {
            return None;
        }
        let operations = u32::try_from(operations).unwrap_or(u32::MAX);
        let interval = COMMIT_INTERVAL_PER_OPERATION
            .saturating_mul(operations)
            .clamp(COMMIT_INTERVAL_MIN, COMMIT_INTERVAL_MAX);
        Some(interval * shortage / WHOLE)
    }

    /// How long a worker with so many pending requests rests before it waits for events; `None` for
    /// not at all.
    pub fn rest(&self, pending: usize) -> Option<Duration> {
        (pending >= REST_PENDING_MIN && self.shortage() >= REST_SHORTAGE).then_some(REST)
    }

    /// How long who copies beside the operations rests after a piece of work that took so long.
    pub fn copy_rest(&self, work: Duration) -> Duration {
        let more = (COPY_REST_SHORT - COPY_REST) * self.shortage() / WHOLE;
        work.saturating_mul(COPY_REST + more).min(COPY_REST_MAX)
    }

    /// How short processor time is, in parts of [`WHOLE`].
    fn shortage(&self) -> u32 {
        if self.mode == Mode::Auto {
            self.measure();
        }
        self.shortage.load(Ordering::Relaxed)
    }

    /// Measures where it is time to. One thread does; the others go by what was measured last.
    fn measure(&self) {
        let now = self.clock.now();
        let due = self.next_measure.load(Ordering::Relaxed);
        if micros(now) < due {
            return;
        }
        let next = micros(now + MEASURE_EVERY);
        let taken =
            self.next_measure
                .compare_exchange(due, next, Ordering::Relaxed, Ordering::Relaxed);
        if taken.is_err() {
            return;
        }
        let mut measure = self.measure.lock().unwrap_or_else(PoisonError::into_inner);
        let Measure { meter, shortage } = &mut *measure;
        let parts = shortage.observe(now, meter.read());
        self.shortage.store(parts, Ordering::Relaxed);
        self.gauge.set(f64::from(parts) / f64::from(WHOLE));
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

impl std::fmt::Debug for Pacing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let shortage = self.shortage.load(Ordering::Relaxed);
        f.debug_struct("Pacing")
            .field("mode", &self.mode)
            .field("shortage", &shortage)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
