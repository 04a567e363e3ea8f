//! A stretch of load over time: the measurements of each interval, and of all of them together.

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
    /// The end of the interval, in seconds from the start of the stretch.
    pub at_seconds: f64,
    /// The length of the interval, in seconds.
    pub seconds: f64,
    /// Requests per second that were completed in it.
    pub requests_per_second: f64,
    /// How many of them the service failed.
    pub errors: u64,
    /// How many answers were wrong.
    pub wrong: u64,
    /// Their latency.
    pub latency: Percentiles,
}

/// The data that an observer gets at every interval.
pub struct Tick<'a> {
    /// The interval that has passed.
    pub point: Point,
    /// The measurements of this interval.
    pub measured: &'a Measured,
    /// The measurements since the start of the stretch.
    pub total: &'a Measured,
    /// Requests per second that are due; `None` in closed loop.
    pub offered_per_second: Option<f64>,
    /// How many lanes have a connection, of how many.
    pub lanes: (usize, usize),
    /// Why there are no connections, if there are none.
    pub connect_error: Option<&'a str>,
}

/// An observer of a stretch of load.
pub trait Observer {
    /// Called at every interval. Returning `Break` ends the stretch early, as a user may wish.
    fn tick(&mut self, tick: &Tick<'_>) -> ControlFlow<()>;
}

/// The result of a stretch of load.
#[derive(Debug, Default)]
pub struct Stretch {
    /// All measurements.
    pub total: Measured,
    /// The timeline.
    pub points: Vec<Point>,
    /// From the start of the stretch to its last answer.
    pub elapsed: Duration,
    /// CPU time that the generator used, all threads together.
    pub cpu: Duration,
    /// Requests that were due but not sent before the end.
    pub unsent: u64,
    /// The first wrong answers as text.
    pub examples: Vec<String>,
    /// Why it ended early, if it did.
    pub ended_early: Option<EndedEarly>,
}

/// Why a stretch of load ended before its time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EndedEarly {
    /// The user requested it.
    OnRequest,
    /// The user requested it twice: outstanding answers were not waited for.
    AtOnce,
    /// The server could not be reached, for this reason.
    Unreachable(String),
}

impl EndedEarly {
    /// Describes the reason.
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

    /// Reports whether an audit makes sense: the server may still be there, and the user is willing
    /// to wait for it.
    #[must_use]
    pub const fn server_is_there(&self) -> bool {
        matches!(self, Self::OnRequest)
    }
}

/// Collects what the workers record.
pub(super) struct Collector {
    start: Duration,
    lanes: usize,
    offered_per_second: Option<f64>,
    last: Duration,
    spare: Measured,
    interval: Measured,
    pub(super) stretch: Stretch,
    pub(super) connect_error: Option<String>,
    /// The number of intervals in a row without any connection.
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
