//! How short CPU time is, and what waits because of it.
//!
//! A commit costs a write and a sync however few operations it has, and waking a thread costs a
//! system call and a context switch however little work it then finds. If the CPUs have time to
//! spare, these costs do not matter, and everything is done at once. If they have none, doing the
//! same work in larger pieces leaves more CPU time for requests. So waiting pays only then, and
//! only in proportion to the shortage; otherwise it would cost half of the throughput
//! (docs/performance.md).
//!
//! [`Pacing`] measures this four times a second, from the kernel's counters for this process's
//! quota and for the CPUs that it may run on, and derives a shortage between none and total. All
//! waits that nobody asked for depend on it: [between commits](Pacing::commit_interval), [before a
//! worker waits for events](Pacing::rest), and [between the pieces of a copy](Pacing::copy_rest).
//! It measures only when it is asked, so an idle service measures nothing.

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
    /// The measured shortage.
    #[default]
    Auto,
    /// Waits as if no CPU had any time to spare.
    Always,
    /// Nothing waits.
    Never,
}

/// How often the shortage is measured, as long as somebody asks.
const MEASURE_EVERY: Duration = Duration::from_millis(250);

/// After a batch of at least this many operations, more are certainly on their way. So a lone
/// client never has to wait.
const COMMIT_OPERATIONS_MIN: usize = 4;

/// If the CPUs have no time to spare at all, the next commit begins this long after the last one
/// for each operation that the last one had, within the limits.
const COMMIT_INTERVAL_PER_OPERATION: Duration = Duration::from_micros(50);
const COMMIT_INTERVAL_MIN: Duration = Duration::from_micros(500);
const COMMIT_INTERVAL_MAX: Duration = Duration::from_millis(1);

/// This many waiting operations are always worth a commit: its cost per operation is then small
/// compared to that of a request in HTTP.
pub const ENOUGH: usize = 16;

/// With at least this many pending requests of one worker, more are certainly on their way.
const REST_PENDING_MIN: usize = 4;

/// The rest of a worker. Before a hypervisor gives an idle CPU away, it often polls for the next
/// event, KVM for up to 200 microseconds, and that time counts as used. So a shorter rest would
/// free no CPU time.
const REST: Duration = Duration::from_micros(200);

/// The shortage from which a worker rests.
const REST_SHORTAGE: u32 = WHOLE / 2;

/// A background copy, for which nobody waits, rests this many times as long as its last piece of
/// work took. So it uses a tenth of a CPU if there is time to spare, and a fiftieth if there is
/// none.
const COPY_REST: u32 = 9;
const COPY_REST_SHORT: u32 = 49;

/// The longest rest of a copy. A piece of work takes longer if it had to wait for a CPU.
const COPY_REST_MAX: Duration = Duration::from_secs(1);

/// The number of parts in which a shortage is counted.
const WHOLE: u32 = 1000;

/// How short CPU time is. There is one per process; all its threads ask the same one.
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
    /// Uses this meter, if the mode requires measuring.
    pub fn new(mode: Mode, clock: Arc<dyn Clock>, meter: impl Meter) -> Self {
        let gauge = Gauge::new(
            "widgets_processor_shortage",
            "How short CPU time is, from 0 to 1: the shorter, the longer commits and workers wait \
             for more requests.",
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

    /// Returns the metric that shows the shortage.
    #[must_use]
    pub fn metric(&self) -> &Gauge {
        &self.gauge
    }

    /// Returns how long after the beginning of a commit of this many operations the next one begins
    /// at the earliest; `None` if nothing waits. [`ENOUGH`] operations end the wait.
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

    /// Returns how long a worker with this many pending requests rests before it waits for events;
    /// `None` if not at all.
    pub fn rest(&self, pending: usize) -> Option<Duration> {
        (pending >= REST_PENDING_MIN && self.shortage() >= REST_SHORTAGE).then_some(REST)
    }

    /// Returns how long a background copy rests after a piece of work that took this long.
    pub fn copy_rest(&self, work: Duration) -> Duration {
        let more = (COPY_REST_SHORT - COPY_REST) * self.shortage() / WHOLE;
        work.saturating_mul(COPY_REST + more).min(COPY_REST_MAX)
    }

    /// Returns how short CPU time is, in parts of [`WHOLE`].
    fn shortage(&self) -> u32 {
        if self.mode == Mode::Auto {
            self.measure();
        }
        self.shortage.load(Ordering::Relaxed)
    }

    /// Measures if it is time to. Only one thread does; the others use the last result.
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
