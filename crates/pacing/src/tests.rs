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
fn never_means_never() {
    let pacing = fixed(Mode::Never);
    assert_eq!(pacing.commit_interval(1000), None);
    assert_eq!(pacing.rest(1000), None);
    assert_eq!(pacing.metric().get().to_bits(), 0f64.to_bits());
}

#[test]
fn a_lone_client_meets_no_wait_however_short_time_is() {
    let pacing = fixed(Mode::Always);
    assert_eq!(pacing.commit_interval(3), None);
    assert_eq!(pacing.rest(3), None);
    assert_eq!(pacing.rest(4), Some(REST));
    for (operations, microseconds) in [(4, 500), (10, 500), (15, 750), (20, 1000), (2048, 1000)] {
        let interval = Duration::from_micros(microseconds);
        assert_eq!(pacing.commit_interval(operations), Some(interval));
    }
}

/// It measures when it is time to, and waits in proportion to the shortage.
#[test]
fn waits_follow_what_is_measured() {
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
fn who_copies_rests_longer_where_time_is_short_and_never_long() {
    let millis = Duration::from_millis;
    let rests = |mode| [0, 1, 10, 3600].map(|work| fixed(mode).copy_rest(millis(work)));
    assert_eq!(rests(Mode::Never), [0, 9, 90, 1000].map(millis));
    assert_eq!(rests(Mode::Always), [0, 49, 490, 1000].map(millis));
}
