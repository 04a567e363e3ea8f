//! How short CPU time is, computed from two readings of what was used and what was idle.

use crate::{Reading, WHOLE};
use std::time::Duration;

/// If less than this fraction of its CPU time is spare, the service is short of it.
const SHORT: f64 = 0.05;

/// If more than this fraction is spare, it is not. In between the shortage stays unchanged, because
/// the time that a wait saves must not end the wait.
const AMPLE: f64 = 0.2;

/// A shortage becomes total within a second: while throttled, a request waits for tens of
/// milliseconds.
const GROWS: u32 = WHOLE / 4;

/// Once it may shrink, it ends within five seconds.
const SHRINKS: u32 = WHOLE / 20;

/// How long CPU time must have been sufficient before a shortage shrinks. If it shrinks too early,
/// the process is throttled again, and all requests of that moment wait for tens of milliseconds.
/// Each such relapse doubles the time up to the maximum, because under a steady load the waits are
/// what leaves CPU time to spare. Once nothing has been short for this long, it is the minimum again.
const HOLD_MIN: Duration = Duration::from_secs(5);
const HOLD_MAX: Duration = Duration::from_mins(1);

/// The shortage, and the last reading.
#[derive(Debug)]
pub(crate) struct Shortage {
    parts: u32,
    last: Option<(Duration, Reading)>,
    /// When CPU time was short last.
    short_at: Duration,
    /// Whether the shortage has shrunk since then.
    has_shrunk: bool,
    hold: Duration,
}

impl Default for Shortage {
    fn default() -> Self {
        Self {
            parts: 0,
            last: None,
            short_at: Duration::ZERO,
            has_shrunk: false,
            hold: HOLD_MIN,
        }
    }
}

impl Shortage {
    /// Takes a reading into account, and returns how short CPU time is: not at all if there is no
    /// reading.
    pub(crate) fn observe(&mut self, now: Duration, reading: Option<Reading>) -> u32 {
        let Some(reading) = reading else {
            *self = Self::default();
            return 0;
        };
        if let Some((then, before)) = self.last.replace((now, reading)) {
            let elapsed = now.saturating_sub(then).as_secs_f64();
            match spare(elapsed, &before, &reading) {
                Some(spare) if spare < SHORT => self.grow(now),
                Some(spare) if spare > AMPLE => self.shrink(now),
                _ => {}
            }
        }
        self.parts
    }

    fn grow(&mut self, now: Duration) {
        if std::mem::take(&mut self.has_shrunk) {
            self.hold = (self.hold * 2).min(HOLD_MAX);
        }
        self.short_at = now;
        self.parts = (self.parts + GROWS).min(WHOLE);
    }

    fn shrink(&mut self, now: Duration) {
        if now.saturating_sub(self.short_at) < self.hold {
            return;
        }
        if self.parts > 0 {
            self.parts = self.parts.saturating_sub(SHRINKS);
            self.has_shrunk = true;
            // From when it has ended, the same time must pass before it is forgotten.
            if self.parts == 0 {
                self.short_at = now;
            }
        } else {
            self.hold = HOLD_MIN;
            self.has_shrunk = false;
        }
    }
}

/// Returns the fraction of the CPU time available to this process between two readings that nobody
/// used; `None` if it cannot be computed.
fn spare(elapsed: f64, before: &Reading, after: &Reading) -> Option<f64> {
    if elapsed <= 0.0 {
        return None;
    }
    let since =
        |part: fn(&Reading) -> Duration| part(after).saturating_sub(part(before)).as_secs_f64();
    let of_processors = since(|reading| reading.idle) / (elapsed * f64::from(after.processors));
    let of_quota = after.quota.map(|quota| {
        if after.throttled_periods > before.throttled_periods {
            0.0
        } else {
            1.0 - since(|reading| reading.used) / (elapsed * quota)
        }
    });
    Some(of_quota.map_or(of_processors, |of_quota| of_quota.min(of_processors)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the shortages for readings a quarter of a second apart. Each has the milliseconds of
    /// idle time of the machine and of CPU time used by this process, with two CPUs and this quota.
    fn shortages(quota: Option<f64>, readings: &[(u64, u64, u64)]) -> Vec<u32> {
        let mut shortage = Shortage::default();
        let (mut now, mut reading) = (Duration::from_secs(5), Reading::default());
        reading.processors = 2;
        reading.quota = quota;
        assert_eq!(shortage.observe(now, Some(reading)), 0);
        let observed = readings.iter().map(|&(idle, used, throttled)| {
            now += Duration::from_millis(250);
            reading.idle += Duration::from_millis(idle);
            reading.used += Duration::from_millis(used);
            reading.throttled_periods += throttled;
            shortage.observe(now, Some(reading))
        });
        observed.collect()
    }

    /// Passes `short` readings in which CPU time is short, and then readings in which it is ample.
    /// Returns for how many of the latter the shortage stays the same.
    fn held(pass: &mut impl FnMut(u64) -> u32, short: usize) -> usize {
        let before = (0..short).map(|_| pass(0)).last().unwrap_or_default();
        (0..1000).take_while(|_| pass(400) == before).count()
    }

    #[test]
    fn idle_processors_mean_no_shortage() {
        assert_eq!(shortages(None, &[(400, 100, 0); 9]), [0; 9]);
    }

    #[test]
    fn a_shortage_rises_within_a_second_and_falls_after_five_seconds() {
        let mut readings = vec![(10, 200, 0); 5];
        readings.extend([(60, 200, 0); 2]);
        readings.extend([(150, 100, 0); 20]);
        let found = shortages(None, &readings);
        assert_eq!(found[..5], [250, 500, 750, 1000, 1000]);
        // For five seconds after the last shortage nothing changes.
        assert_eq!(found[5..24], [1000; 19]);
        assert_eq!(found[24..], [950, 900, 850]);
    }

    #[test]
    fn a_recurring_shortage_lasts_longer_each_time_up_to_a_minute() {
        let mut shortage = Shortage::default();
        let (mut now, mut reading) = (Duration::from_secs(5), Reading::default());
        reading.processors = 2;
        let mut pass = |idle| {
            now += Duration::from_millis(250);
            reading.idle += Duration::from_millis(idle);
            shortage.observe(now, Some(reading))
        };
        assert_eq!(held(&mut pass, 5), 19, "the first time five seconds");
        let relapses = [1; 4].map(|short| held(&mut pass, short));
        assert_eq!(relapses, [39, 79, 159, 239]);
        assert_eq!(held(&mut pass, 1), 239, "at most a minute");
        assert_eq!((0..400).map(|_| pass(400)).last(), Some(0));
        assert_eq!(held(&mut pass, 1), 19, "five seconds again");
    }

    #[test]
    fn an_exhausted_cpu_quota_is_a_shortage_even_on_an_idle_machine() {
        // 0.4 of a CPU for a quarter of a second is 100 ms.
        let readings = [(400, 98, 0), (400, 90, 0), (400, 85, 1), (400, 50, 0)];
        assert_eq!(shortages(Some(0.4), &readings), [250, 250, 500, 500]);
    }

    #[test]
    fn an_unreadable_meter_means_no_shortage() {
        let mut shortage = Shortage::default();
        let reading = Reading {
            processors: 2,
            ..Reading::default()
        };
        assert_eq!(shortage.observe(Duration::ZERO, Some(reading)), 0);
        assert_eq!(shortage.observe(Duration::from_secs(1), Some(reading)), 250);
        assert_eq!(shortage.observe(Duration::from_secs(2), None), 0);
        assert_eq!(shortage.observe(Duration::from_secs(3), Some(reading)), 0);
        // No time has passed.
        assert_eq!(shortage.observe(Duration::from_secs(3), Some(reading)), 0);
    }
}
