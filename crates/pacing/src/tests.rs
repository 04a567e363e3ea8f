//! The waits, with a clock and readings that the test controls.

use super::*;
use std::sync::mpsc;
use widgets_clock::Timer;

/// Stands still until it is advanced.
#[derive(Default)]
struct ManualClock(AtomicU64);

impl Clock for ManualClock {
    fn now(&self) -> Duration {
        Duration::from_millis(self.0.load(Ordering::Relaxed))
    }

    fn unix_time(&self) -> Duration {
        self.now()
    }

    fn sleep(&self, _: Duration) {
        unreachable!("nothing here waits");
    }

    fn timer(&self, _: Duration) -> Timer {
        unreachable!("nothing here waits");
    }
}

/// Returns the readings that were sent to it.
struct Sent(mpsc::Receiver<Reading>);

impl Meter for Sent {
    fn read(&mut self) -> Option<Reading> {
        self.0.try_recv().ok()
    }
}

fn fixed(mode: Mode) -> Pacing {
    Pacing::new(mode, Arc::<ManualClock>::default(), ())
}

#[test]
fn pacing_mode_never_adds_no_waits() {
    let pacing = fixed(Mode::Never);
    assert_eq!(pacing.commit_interval(1000), None);
    assert_eq!(pacing.rest(1000), None);
    assert_eq!(pacing.metric().get().to_bits(), 0f64.to_bits());
}

/// A lone client never waits, however short CPU time is.
#[test]
fn waits_begin_at_four_operations_and_grow_with_their_number() {
    let pacing = fixed(Mode::Always);
    assert_eq!(pacing.commit_interval(3), None);
    assert_eq!(pacing.rest(3), None);
    assert_eq!(pacing.rest(4), Some(REST));
    for (operations, microseconds) in [(4, 500), (10, 500), (15, 750), (20, 1000), (2048, 1000)] {
        let interval = Duration::from_micros(microseconds);
        assert_eq!(pacing.commit_interval(operations), Some(interval));
    }
}

/// The shortage is measured at most every 250 milliseconds, and the waits are in proportion to it.
#[test]
fn waits_are_proportional_to_the_measured_shortage() {
    let (readings, meter) = mpsc::channel();
    let clock = Arc::<ManualClock>::default();
    let pacing = Pacing::new(Mode::Auto, clock.clone(), Sent(meter));
    let mut reading = Reading {
        processors: 2,
        ..Reading::default()
    };
    let mut after = |milliseconds, idle| {
        clock.0.fetch_add(milliseconds, Ordering::Relaxed);
        reading.idle += Duration::from_millis(idle);
        readings.send(reading).expect("the meter is there");
        (pacing.commit_interval(20), pacing.rest(4))
    };
    assert_eq!(after(0, 0), (None, None));
    let micros = |micros| Some(Duration::from_micros(micros));
    assert_eq!(after(250, 0), (micros(250), None));
    assert_eq!(after(250, 0), (micros(500), Some(REST)));
    assert_eq!(after(250, 500), (micros(500), Some(REST)));
    assert_eq!(after(4750, 9500), (micros(450), None));
    for _ in 0..9 {
        after(250, 500);
    }
    assert_eq!(after(250, 500), (None, None));
    // Too early for another reading.
    assert_eq!(after(249, 0), (None, None));
    assert_eq!(after(1, 0), (micros(250), None));
}

#[test]
fn copying_rests_longer_when_cpu_time_is_short_up_to_one_second() {
    let millis = Duration::from_millis;
    let rests = |mode| [0, 1, 10, 3600].map(|work| fixed(mode).copy_rest(millis(work)));
    assert_eq!(rests(Mode::Never), [0, 9, 90, 1000].map(millis));
    assert_eq!(rests(Mode::Always), [0, 49, 490, 1000].map(millis));
}
