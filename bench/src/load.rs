//! The client: runs `widgets load`.

use crate::peer::{Peer, pinned, sibling};
use serde_json::Value;
use std::{error::Error, path::Path, process::Stdio, time::Duration};

/// Which operations to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Workload {
    /// `add_widget` alone, none of them refused.
    Adds,
    /// All operations and lookups, some of them refused: the default mix of `widgets load`.
    Mix,
    /// As many `add_widget` as `remove_widget`, so that the store keeps its size.
    Widgets,
    /// As many `associate_widgets` as `remove_association`.
    Associations,
}

impl Workload {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Adds => "add_widget",
            Self::Mix => "mix",
            Self::Widgets => "add_widget and remove_widget",
            Self::Associations => "associate_widgets and remove_association",
        }
    }

    const fn arguments(self) -> &'static [&'static str] {
        match self {
            Self::Adds => &["--mix", "add_widget=100", "--conflicts", "0%"],
            Self::Mix => &[],
            Self::Widgets => &[
                "--mix",
                "add_widget=50,remove_widget=50",
                "--conflicts",
                "0%",
            ],
            Self::Associations => &[
                "--mix",
                "associate_widgets=50,remove_association=50",
                "--conflicts",
                "0%",
            ],
        }
    }
}

/// How fast to send requests.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Arrivals {
    /// Each request as soon as the previous answer has arrived.
    Closed,
    /// This many requests a second, whatever the server does.
    Open(f64),
}

/// The widgets of `widgets generate` that a run may touch.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Dataset {
    pub(crate) widgets: u64,
    /// Which part of the dataset, counted from 1.
    pub(crate) part: usize,
    pub(crate) parts: usize,
}

/// One run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Run {
    pub(crate) workload: Workload,
    pub(crate) arrivals: Arrivals,
    pub(crate) connections: u32,
    /// How long load runs before it is measured.
    pub(crate) warm_up: Duration,
    pub(crate) duration: Duration,
    /// Whether to audit the run. A server that stores nothing cannot be audited.
    pub(crate) audit: bool,
    pub(crate) dataset: Option<Dataset>,
    /// Whether requests may be turned away (503). Wrong answers never may be.
    pub(crate) overload: bool,
    /// The only CPU that the client may use.
    pub(crate) processor: Option<usize>,
    /// Whether every operation carries an idempotency key.
    pub(crate) keys: bool,
    /// The highest number of requests.
    pub(crate) requests: Option<u64>,
}

impl Run {
    /// Returns a closed loop of this many connections for this long.
    pub(crate) const fn closed(workload: Workload, connections: u32, duration: Duration) -> Self {
        Self {
            workload,
            arrivals: Arrivals::Closed,
            connections,
            warm_up: Duration::from_secs(1),
            duration,
            audit: true,
            dataset: None,
            overload: false,
            processor: None,
            keys: false,
            requests: None,
        }
    }

    /// Returns the same run at a fixed rate.
    pub(crate) const fn at(self, requests_per_second: f64) -> Self {
        Self {
            arrivals: Arrivals::Open(requests_per_second),
            ..self
        }
    }

    /// Runs the load. Fails if an answer was wrong or lost or, unless in overload, missing.
    pub(crate) fn on(&self, peer: &Peer, directory: &Path) -> Result<Figures, Box<dyn Error>> {
        let json = directory.join("load.json");
        let mut command = pinned(&sibling("widgets")?, self.processor);
        command.args(["load", &peer.url, "--plain", "--json"]);
        command.arg(&json);
        command.args(self.workload.arguments());
        for (name, time) in [("--warm-up", self.warm_up), ("--duration", self.duration)] {
            command.arg(name).arg(format!("{}ms", time.as_millis()));
        }
        let connections = self.connections.to_string();
        command.args(["--connections", &connections]);
        if !self.overload {
            command.args(["--fail-if", "errors>0%"]);
        }
        match self.arrivals {
            Arrivals::Closed => command.args(["--rate", "max"]),
            Arrivals::Open(rate) => command.arg("--rate").arg(format!("{rate:.0}")),
        };
        command.args(["--audit", if self.audit { "1000" } else { "none" }]);
        if self.keys {
            command.arg("--idempotency-keys");
        }
        if let Some(requests) = self.requests {
            command.args(["--requests", &requests.to_string()]);
        }
        if let Some(Dataset {
            widgets,
            part,
            parts,
        }) = self.dataset
        {
            command.args(["--dataset", &format!("widgets={widgets}")]);
            command.args(["--dataset-part", &format!("{part}/{parts}")]);
        }
        let output = command.stdin(Stdio::null()).output()?;
        if !output.status.success() {
            let text = String::from_utf8_lossy(&output.stdout);
            let errors = String::from_utf8_lossy(&output.stderr);
            return Err(format!("{command:?}: {}\n{text}\n{errors}", output.status).into());
        }
        let report: Value = serde_json::from_slice(&std::fs::read(&json)?)?;
        let stretches = report["stretches"].as_array();
        let measured = stretches.and_then(|stretches| stretches.last());
        Figures::read(measured.ok_or("a report without a measured stretch")?)
    }
}

/// The results of a run. A figure that does not exist is NaN.
#[derive(Clone, Debug)]
pub(crate) struct Figures {
    /// Requests that completed.
    pub(crate) requests_per_second: f64,
    /// Requests that the service served without a failure.
    pub(crate) served_per_second: f64,
    pub(crate) latency: Times,
    /// From sending, for requests that were served.
    pub(crate) service: Times,
    /// From sending to a 503.
    pub(crate) turned_away: Times,
    /// The latency of each kind of request, by name.
    pub(crate) kinds: Vec<(String, Times)>,
    /// Requests that failed, or that were due but not sent.
    pub(crate) failed: u64,
    /// How many CPUs the client kept busy.
    pub(crate) client_processors: f64,
}

/// Percentiles in milliseconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Times {
    pub(crate) mean: f64,
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    pub(crate) p99_9: f64,
    pub(crate) max: f64,
}

impl Times {
    pub(crate) const NONE: Self = Self {
        mean: f64::NAN,
        p50: f64::NAN,
        p99: f64::NAN,
        p99_9: f64::NAN,
        max: f64::NAN,
    };

    fn read(value: &Value) -> Self {
        let milliseconds = |name: &str| value[name].as_f64().map_or(f64::NAN, |us| us / 1e3);
        if value["count"] == 0 {
            return Self::NONE;
        }
        Self {
            mean: milliseconds("mean_us"),
            p50: milliseconds("p50_us"),
            p99: milliseconds("p99_us"),
            p99_9: milliseconds("p99_9_us"),
            max: milliseconds("max_us"),
        }
    }
}

impl Figures {
    fn read(measured: &Value) -> Result<Self, Box<dyn Error>> {
        let number = |name: &str| {
            let number = measured[name].as_f64();
            number.ok_or_else(|| format!("a report without {name}"))
        };
        let count = |name: &str| {
            let count = measured[name].as_u64();
            count.ok_or_else(|| format!("a report without {name}"))
        };
        let (requests, seconds) = (number("requests")?, number("seconds")?);
        let kinds = measured["kinds"]
            .as_object()
            .ok_or("a report without kinds")?;
        Ok(Self {
            requests_per_second: requests / seconds,
            served_per_second: (requests - number("errors")?) / seconds,
            latency: Times::read(&measured["latency"]),
            service: Times::read(&measured["service"]),
            turned_away: Times::read(&measured["turned_away"]),
            kinds: kinds
                .iter()
                .map(|(name, kind)| (name.clone(), Times::read(&kind["latency"])))
                .collect(),
            failed: count("errors")? + count("unsent")?,
            client_processors: number("generator_cpu_seconds")? / seconds,
        })
    }

    /// Returns the latency of one kind of request.
    pub(crate) fn of(&self, kind: &str) -> Times {
        let found = self.kinds.iter().find(|(name, _)| name == kind);
        found.map_or(Times::NONE, |&(_, times)| times)
    }
}

/// A run, and what it cost the service.
#[derive(Clone, Debug)]
pub(crate) struct Turn {
    pub(crate) figures: Figures,
    /// The service's CPU time per request, in microseconds.
    pub(crate) micros: f64,
}

/// The metric in which the service counts the requests that it has answered.
const REQUESTS: &str = "widgets_request_duration_seconds_count";

impl Turn {
    pub(crate) fn of(run: &Run, peer: &Peer, directory: &Path) -> Result<Self, Box<dyn Error>> {
        let (before, done) = (peer.processor_seconds()?, peer.metric(REQUESTS)?);
        let figures = run.on(peer, directory)?;
        let (seconds, done) = (
            peer.processor_seconds()? - before,
            peer.metric(REQUESTS)? - done,
        );
        Ok(Self {
            figures,
            micros: seconds * 1e6 / done,
        })
    }
}

/// Returns the median: the mean of the two in the middle if the number of values is even, NaN if
/// there are none.
pub(crate) fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.get(middle) {
        None => f64::NAN,
        Some(upper) if values.len().is_multiple_of(2) => f64::midpoint(values[middle - 1], *upper),
        Some(middle) => *middle,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_median_of_two_values_is_their_mean() {
        assert!((median([4.0, 1.0]) - 2.5).abs() < f64::EPSILON);
    }

    #[test]
    fn failed_requests_are_not_counted_as_served() {
        let measured = json!({
            "requests": 1000, "seconds": 2.0, "errors": 400, "unsent": 7,
            "generator_cpu_seconds": 1.0,
            "latency": {"count": 600, "p50_us": 500.0, "p99_us": 2500.0, "p99_9_us": 3000.0, "max_us": 9000.0},
            "service": {"count": 0},
            "turned_away": {"count": 400, "p50_us": 100.0, "p99_us": 900.0, "p99_9_us": 950.0, "max_us": 990.0},
            "kinds": {"add_widget": {"latency": {"count": 1, "p99_us": 2400.0}}},
        });
        let figures = Figures::read(&measured).unwrap();
        let numbers = [
            figures.requests_per_second,
            figures.served_per_second,
            figures.latency.p99,
            figures.service.p99,
            figures.of("add_widget").p99,
            figures.of("lookup").p99,
            figures.client_processors,
        ];
        assert_eq!(
            format!("{numbers:?}"),
            "[500.0, 300.0, 2.5, NaN, 2.4, NaN, 0.5]"
        );
        assert_eq!(figures.failed, 407);
    }

    #[test]
    fn the_median_is_the_middle_value_or_nan_if_there_is_none() {
        let middle = [median([3.0, 1.0, 2.0]), median([])];
        assert_eq!(format!("{middle:?}"), "[2.0, NaN]");
    }
}
