//! A stretch of load over time: what each interval brought, and what came of all of it.

use super::Worker;
use crate::{
    stats::{Measured, Percentiles},
    worker::{Recorder, lock},
};
use serde::{Deserialize, Serialize};
use std::{ops::ControlFlow, time::Duration};

/// One point of the timeline.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// Where it ends, in seconds from the stretch's start.
    pub at_seconds: f64,
    /// How long it is, in seconds.
    pub seconds: f64,
    /// Requests that came to an end in it, a second.
    pub requests_per_second: f64,
    /// How many of them the service failed.
    pub errors: u64,
    /// How many answers were wrong.
    pub wrong: u64,
    /// Their latency.
    pub latency: Percentiles,
}

/// What an observer is told at every interval.
pub struct Tick<'a> {
    /// The stretch that just passed.
    pub point: Point,
    /// What was measured in it.
    pub measured: &'a Measured,
    /// What was measured since the stretch's start.
    pub total: &'a Measured,
    /// Requests that are due a second; none in closed loop.
    pub offered_per_second: Option<f64>,
    /// Lanes with a connection, of so many.
    pub lanes: (usize, usize),
    /// Why there are no connections, if there are none.
    pub connect_error: Option<&'a str>,
}

/// Somebody who watches a stretch of load.
pub trait Observer {
    /// Called at every interval. `Break` ends the stretch early, as a user may wish.
    fn tick(&mut self, tick: &Tick<'_>) -> ControlFlow<()>;
}

/// What came of a stretch of load.
#[derive(Debug, Default)]
pub struct Stretch {
    /// What was measured.
    pub total: Measured,
    /// The same over time.
    pub points: Vec<Point>,
    /// From its start to its last answer.
    pub elapsed: Duration,
    /// Processor time that the generator took, all threads together.
    pub cpu: Duration,
    /// Requests that were due and not sent before the end.
    pub unsent: u64,
    /// The first wrong answers, in words.
    pub examples: Vec<String>,
    /// Why it ended early, if it did.
    pub ended_early: Option<EndedEarly>,
}

/// Why a stretch of load ended before its time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EndedEarly {
    /// The user wished so.
    OnRequest,
    /// The user wished so twice: answers that were still to come were not waited for.
    AtOnce,
    /// The server could not be reached for this reason.
    Unreachable(String),
}

impl EndedEarly {
    /// The reason in words.
    #[must_use]
    pub fn text(&self) -> String {
        match self {
            Self::OnRequest => "on request".into(),
            Self::AtOnce => {
                "at a second signal, without the answers that were still to come".into()
            }
            Self::Unreachable(cause) => format!("the server cannot be reached: {cause}"),
        }
    }

    /// Whether an audit makes sense: there is somebody left to ask, and the user waits for it.
    #[must_use]
    pub const fn server_is_there(&self) -> bool {
        matches!(self, Self::OnRequest)
    }
}

/// Gathers what the workers record.
pub(super) struct Collector {
    start: Duration,
    lanes: usize,
    offered_per_second: Option<f64>,
    last: Duration,
    spare: Measured,
    interval: Measured,
    pub(super) stretch: Stretch,
    pub(super) connect_error: Option<String>,
    /// Intervals in a row without any connection.
    unreachable: u32,
}

impl Collector {
    pub(super) fn new(start: Duration, lanes: usize, offered_per_second: Option<f64>) -> Self {
        Self {
            start,
            lanes,
            offered_per_second,
            last: start,
            spare: Measured::default(),
            interval: Measured::default(),
            stretch: Stretch::default(),
            connect_error: None,
            unreachable: 0,
        }
    }

    pub(super) fn unreachable(&self, interval: Duration) -> Duration {
        interval * self.unreachable
    }

    pub(super) fn collect(
        &mut self,
        workers: &[Worker],
        now: Duration,
        observer: &mut dyn Observer,
    ) -> ControlFlow<()> {
        self.interval.clear();
        let mut connected = 0;
        self.connect_error = None;
        for worker in workers {
            self.spare.clear();
            {
                let Recorder {
                    measured,
                    lanes_connected,
                    connect_error,
                    ..
                } = &mut *lock(&worker.recorder);
                std::mem::swap(measured, &mut self.spare);
                connected += *lanes_connected;
                if self.connect_error.is_none() {
                    self.connect_error.clone_from(connect_error);
                }
            }
            self.interval.add(&self.spare);
        }
        self.unreachable = if connected == 0 {
            self.unreachable + 1
        } else {
            0
        };
        self.stretch.total.add(&self.interval);
        let seconds = now.saturating_sub(self.last).as_secs_f64();
        self.last = now;
        let point = Point {
            at_seconds: now.saturating_sub(self.start).as_secs_f64(),
            seconds,
            requests_per_second: self.interval.requests() as f64 / seconds.max(1e-9),
            errors: self.interval.errors(),
            wrong: self.interval.wrong,
            latency: Percentiles::from(&self.interval.latency()),
        };
        self.stretch.points.push(point);
        let tick = Tick {
            point,
            measured: &self.interval,
            total: &self.stretch.total,
            offered_per_second: self.offered_per_second,
            lanes: (connected, self.lanes),
            connect_error: self.connect_error.as_deref(),
        };
        observer.tick(&tick)
    }
}
