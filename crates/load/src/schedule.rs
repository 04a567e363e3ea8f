//! Decides when each request is due.
//!
//! Open loop: request `i` is due at `start + i / rate`, whatever happened to earlier requests, so
//! that a slow answer does not delay the others ("coordinated omission", Gil Tene, "How NOT to
//! Measure Latency", 2013). Closed loop: a request is due whenever a lane is free.
//!
//! This module is pure: the time is an argument.

use crate::random::Random;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// How requests arrive.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(
    tag = "arrivals",
    content = "rate_per_second",
    rename_all = "snake_case"
)]
pub enum Arrivals {
    /// Evenly spaced, this many per second.
    Constant(f64),
    /// With exponentially distributed gaps, on average this many per second: independent users.
    Poisson(f64),
    /// Closed loop: as soon as a lane is free.
    Closed,
}

impl Arrivals {
    /// Returns the requests per second, or `None` in closed loop.
    #[must_use]
    pub const fn rate(self) -> Option<f64> {
        match self {
            Self::Constant(rate) | Self::Poisson(rate) => Some(rate),
            Self::Closed => None,
        }
    }

    /// Returns the same kind of arrivals at another rate.
    #[must_use]
    pub const fn with_rate(self, rate: f64) -> Self {
        match self {
            Self::Poisson(_) => Self::Poisson(rate),
            Self::Constant(_) | Self::Closed => Self::Constant(rate),
        }
    }
}

/// When a schedule ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// No request is due this long after the start or later.
    pub duration: Option<Duration>,
    /// The maximum number of requests, over all workers.
    pub requests: Option<u64>,
}

/// How long after the end overdue requests may still be sent. The rest are counted as not sent.
pub const GRACE: Duration = Duration::from_millis(100);

/// What a schedule says at some time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// A request is or was due at this time.
    Due(Duration),
    /// No request is due before this time.
    At(Duration),
    /// No request will be due any more.
    Over,
}

/// One worker's share of the due times. Times count from the session's start.
#[derive(Clone, Debug)]
pub struct Schedule {
    arrivals: Arrivals,
    start: Duration,
    end: Option<Duration>,
    remaining: u64,
    worker: u64,
    workers: u64,
    issued: u64,
    next: Duration,
    random: Random,
}

impl Schedule {
    /// Returns the share of worker `worker` of `workers`.
    ///
    /// Constant arrivals are assigned to the workers in turn. For Poisson arrivals, each worker has
    /// a separate stream at its share of the rate; together these are again Poisson arrivals.
    #[must_use]
    pub fn new(
        arrivals: Arrivals,
        extent: Extent,
        start: Duration,
        (worker, workers): (u64, u64),
        seed: u64,
    ) -> Self {
        let requests = extent.requests.unwrap_or(u64::MAX);
        let rest = u64::from(worker < requests % workers.max(1));
        let mut schedule = Self {
            arrivals,
            start,
            end: extent
                .duration
                .map(|duration| start.saturating_add(duration)),
            remaining: (requests / workers.max(1)).saturating_add(rest),
            worker,
            workers: workers.max(1),
            issued: 0,
            next: start,
            random: Random::part(seed, worker),
        };
        schedule.advance();
        schedule
    }

    /// Returns what is to be done at `now`, and takes the request if one is due.
    pub fn take(&mut self, now: Duration) -> Next {
        let next = self.peek(now);
        if matches!(next, Next::Due(_)) {
            self.issued += 1;
            self.remaining -= 1;
            self.advance();
        }
        next
    }

    /// Returns what is to be done at `now`, without taking it.
    #[must_use]
    pub fn peek(&self, now: Duration) -> Next {
        let due = self.due(now);
        let late = |end: Duration| due >= end || now >= end.saturating_add(GRACE);
        if self.remaining == 0 || self.end.is_some_and(late) {
            return Next::Over;
        }
        if due <= now {
            Next::Due(due)
        } else {
            Next::At(due)
        }
    }

    fn due(&self, now: Duration) -> Duration {
        match self.arrivals {
            Arrivals::Closed => now.max(self.start),
            Arrivals::Constant(_) | Arrivals::Poisson(_) => self.next,
        }
    }

    /// Ends the schedule at `now`: no later request is due.
    pub fn stop(&mut self, now: Duration) {
        self.end = Some(self.end.map_or(now, |end| end.min(now)));
    }

    /// Returns how many requests were due by `now` but not taken.
    #[must_use]
    pub fn overdue(&self, now: Duration) -> u64 {
        let Some(rate) = self.arrivals.rate() else {
            return 0;
        };
        let until = self.end.map_or(now, |end| end.min(now));
        if self.next >= until {
            return 0;
        }
        // Counts the due times before `until`: `next`, one gap later, and so on. Rounding must not
        // add one.
        let gaps = until.saturating_sub(self.next).as_secs_f64() * rate / self.workers as f64;
        let due = ((gaps - 1e-6).ceil() as u64).max(1);
        due.min(self.remaining)
    }

    fn advance(&mut self) {
        match self.arrivals {
            // Computed from the request's number and not from the previous time, so that rounding
            // errors do not accumulate.
            Arrivals::Constant(rate) => {
                let number = self.issued * self.workers + self.worker;
                self.next = self.start.saturating_add(seconds(number as f64 / rate));
            }
            Arrivals::Poisson(rate) => {
                let mean = self.workers as f64 / rate;
                // 1 - unit() is above 0, so the logarithm is finite.
                let gap = -(1.0 - self.random.unit()).ln() * mean;
                self.next = self.next.saturating_add(seconds(gap));
            }
            Arrivals::Closed => {}
        }
    }
}

fn seconds(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn extent(duration: Option<Duration>, requests: Option<u64>) -> Extent {
        Extent { duration, requests }
    }

    /// Returns every due time of all workers, in order.
    fn drain(arrivals: Arrivals, extent: Extent, workers: u64) -> Vec<Duration> {
        let mut due = Vec::new();
        for worker in 0..workers {
            let mut schedule = Schedule::new(arrivals, extent, SECOND, (worker, workers), 1);
            let mut now = SECOND;
            loop {
                match schedule.take(now) {
                    Next::Due(time) => due.push(time),
                    Next::At(time) => now = time,
                    Next::Over => break,
                }
            }
        }
        due.sort_unstable();
        due
    }

    #[test]
    fn request_i_is_due_at_start_plus_i_over_rate() {
        for workers in [1, 3] {
            let due = drain(
                Arrivals::Constant(3000.0),
                extent(Some(SECOND), None),
                workers,
            );
            assert_eq!(due.len(), 3000);
            for (i, time) in due.iter().enumerate() {
                let expected = SECOND + Duration::from_secs_f64(i as f64 / 3000.0);
                assert_eq!(*time, expected, "request {i} of {workers} workers");
            }
        }
    }

    #[test]
    fn poisson_gaps_are_exponential() {
        for workers in [1, 4] {
            let due = drain(
                Arrivals::Poisson(1000.0),
                extent(Some(SECOND * 100), None),
                workers,
            );
            let n = due.len() as f64;
            assert!((98_000.0..102_000.0).contains(&n), "the rate: {n}");
            let gaps: Vec<f64> = due
                .windows(2)
                .map(|w| w[1].saturating_sub(w[0]).as_secs_f64())
                .collect();
            let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
            let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / n;
            // The standard deviation of an exponential distribution equals its mean.
            assert!(
                (variance.sqrt() / mean - 1.0).abs() < 0.03,
                "{}",
                variance.sqrt() / mean
            );
            let longer = gaps.iter().filter(|&&gap| gap > mean).count() as f64 / n;
            assert!((longer - (-1.0f64).exp()).abs() < 0.01, "{longer}");
        }
    }

    #[test]
    fn all_workers_together_send_the_requested_count() {
        for workers in [1, 3, 7] {
            for arrivals in [
                Arrivals::Constant(10.0),
                Arrivals::Poisson(10.0),
                Arrivals::Closed,
            ] {
                assert_eq!(drain(arrivals, extent(None, Some(100)), workers).len(), 100);
            }
        }
    }

    #[test]
    fn closed_loop_requests_are_due_immediately_until_the_end() {
        let end = extent(Some(SECOND), None);
        let mut schedule = Schedule::new(Arrivals::Closed, end, SECOND, (0, 1), 1);
        let now = Duration::from_millis(1500);
        assert_eq!(schedule.take(Duration::ZERO), Next::At(SECOND));
        assert_eq!(schedule.take(now), Next::Due(now));
        assert_eq!(schedule.take(SECOND * 2), Next::Over);
        assert_eq!(schedule.overdue(SECOND * 2), 0);
    }

    #[test]
    fn requests_that_were_due_and_not_sent_are_counted() {
        let end = extent(Some(SECOND), None);
        let mut schedule = Schedule::new(Arrivals::Constant(100.0), end, Duration::ZERO, (0, 1), 1);
        for _ in 0..30 {
            assert!(matches!(schedule.take(SECOND), Next::Due(_)));
        }
        assert_eq!(schedule.overdue(SECOND * 9), 70);
        schedule.stop(SECOND / 2);
        assert_eq!(schedule.overdue(SECOND * 9), 20);
        assert_eq!(schedule.overdue(Duration::from_millis(299)), 0);
    }
}
