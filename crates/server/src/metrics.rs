//! The number and duration of requests, by operation and outcome.
//!
//! Every label value comes from an enum, so nothing that a caller sends can create a series. Every
//! counter exists from the start, at 0: Prometheus sees an increase only between two values, so a
//! counter that appeared with its first failure would hide that failure from every alert. A
//! histogram is twenty times as long, so it appears with the first request that belongs to it.

use crate::Code;
use prometheus::{
    Encoder as _, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    Opts, Registry, TextEncoder,
};
use std::{array, sync::OnceLock, time::Duration};
use widgets_registry::{Operation, query::Table};

/// Upper bounds in seconds: from one sync of a fast disk to far more than the longest wait in a
/// queue.
const BUCKETS_SECONDS: [f64; 16] = [
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
    5.0, 10.0,
];

/// What a request is for, as the label `operation`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Subject {
    Operation(Operation),
    /// `lookup`: a widget.
    Lookup,
    /// `list_widgets` and `list_slots`: rows.
    List(Table),
    /// `neighbourhood`: the surroundings of a widget.
    Neighbourhood,
    /// `changes`: the feed of changes.
    Changes,
    /// `none`: the path or the function does not exist.
    None,
}

impl Subject {
    const ALL: [Self; 10] = [
        Self::Operation(Operation::ALL[0]),
        Self::Operation(Operation::ALL[1]),
        Self::Operation(Operation::ALL[2]),
        Self::Operation(Operation::ALL[3]),
        Self::Lookup,
        Self::List(Table::Widgets),
        Self::List(Table::Slots),
        Self::Neighbourhood,
        Self::Changes,
        Self::None,
    ];

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Operation(operation) => operation.as_str(),
            Self::Lookup => "lookup",
            Self::List(Table::Widgets) => "list_widgets",
            Self::List(Table::Slots) => "list_slots",
            Self::Neighbourhood => "neighbourhood",
            Self::Changes => "changes",
            Self::None => "none",
        }
    }

    const fn index(self) -> usize {
        match self {
            Self::Operation(operation) => operation as usize,
            Self::Lookup => Operation::ALL.len(),
            Self::List(Table::Widgets) => Operation::ALL.len() + 1,
            Self::List(Table::Slots) => Operation::ALL.len() + 2,
            Self::Neighbourhood => Operation::ALL.len() + 3,
            Self::Changes => Operation::ALL.len() + 4,
            Self::None => Operation::ALL.len() + 5,
        }
    }
}

/// The outcome `ok`, then every code.
const OUTCOMES: usize = 1 + Code::ALL.len();

fn index(code: Option<Code>) -> usize {
    code.map_or(0, |code| 1 + code as usize)
}

/// Returns the label value of the outcome with this index.
fn word(outcome: usize) -> &'static str {
    let code = outcome
        .checked_sub(1)
        .and_then(|index| Code::ALL.get(index));
    code.map_or("ok", |code| code.as_str())
}

/// Makes a gauge of this crate; its name is always a constant.
pub(crate) fn gauge(name: &str, help: &str) -> IntGauge {
    match IntGauge::new(name, help) {
        Ok(gauge) => gauge,
        Err(error) => unreachable!("the metric is well-formed: {error}"),
    }
}

pub(crate) struct Metrics {
    registry: Registry,
    durations: HistogramVec,
    series: [[Series; OUTCOMES]; Subject::ALL.len()],
    /// By subject, for those that have rows.
    rows: [Option<RowCounts>; Subject::ALL.len()],
}

/// How many rows were scanned and returned.
struct RowCounts {
    scanned: IntCounter,
    returned: IntCounter,
}

/// The requests for one subject with one outcome.
struct Series {
    count: IntCounter,
    duration: OnceLock<Histogram>,
}

impl Metrics {
    pub(crate) fn new(registry: Registry) -> prometheus::Result<Self> {
        let options = HistogramOpts::new(
            "widgets_request_duration_seconds",
            "How long requests took, from their head to their answer, by operation and outcome (a \
             code, or ok).",
        );
        let options = options.buckets(BUCKETS_SECONDS.to_vec());
        let durations = HistogramVec::new(options, &["operation", "outcome"])?;
        registry.register(Box::new(durations.clone()))?;
        let requests = Opts::new(
            "widgets_requests_total",
            "Requests that were answered, by operation and outcome (a code, or ok).",
        );
        let requests = IntCounterVec::new(requests, &["operation", "outcome"])?;
        registry.register(Box::new(requests.clone()))?;
        let scanned = Opts::new(
            "widgets_rows_scanned_total",
            "Rows that were looked at for lists and neighbourhoods, by operation.",
        );
        let scanned = IntCounterVec::new(scanned, &["operation"])?;
        registry.register(Box::new(scanned.clone()))?;
        let returned = Opts::new(
            "widgets_rows_returned_total",
            "Rows that lists and neighbourhoods were answered with, by operation.",
        );
        let returned = IntCounterVec::new(returned, &["operation"])?;
        registry.register(Box::new(returned.clone()))?;
        let build = Opts::new("widgets_build_info", "Which build this is; always 1.")
            .const_label("version", env!("CARGO_PKG_VERSION"));
        let build = IntGauge::with_opts(build)?;
        build.set(1);
        registry.register(Box::new(build))?;
        let metrics = Self {
            registry,
            durations,
            series: array::from_fn(|subject| {
                array::from_fn(|outcome| Series {
                    count: requests
                        .with_label_values(&[Subject::ALL[subject].as_str(), word(outcome)]),
                    duration: OnceLock::new(),
                })
            }),
            rows: Subject::ALL.map(|subject| {
                let has_rows = matches!(subject, Subject::List(_) | Subject::Neighbourhood);
                has_rows.then(|| RowCounts {
                    scanned: scanned.with_label_values(&[subject.as_str()]),
                    returned: returned.with_label_values(&[subject.as_str()]),
                })
            }),
        };
        for operation in Operation::ALL {
            metrics.histogram(Subject::Operation(operation), None);
        }
        metrics.histogram(Subject::Lookup, None);
        Ok(metrics)
    }

    /// Counts a request that ended with this code, or successfully if there is none.
    pub(crate) fn observe(&self, subject: Subject, code: Option<Code>, duration: Duration) {
        self.series[subject.index()][index(code)].count.inc();
        self.histogram(subject, code)
            .observe(duration.as_secs_f64());
    }

    /// Counts the rows that were scanned, and those of them that were returned.
    pub(crate) fn rows(&self, subject: Subject, scanned: u64, returned: usize) {
        if let Some(rows) = &self.rows[subject.index()] {
            rows.scanned.inc_by(scanned);
            rows.returned.inc_by(returned as u64);
        }
    }

    fn histogram(&self, subject: Subject, code: Option<Code>) -> &Histogram {
        let outcome = index(code);
        let series = &self.series[subject.index()][outcome];
        series.duration.get_or_init(|| {
            self.durations
                .with_label_values(&[subject.as_str(), word(outcome)])
        })
    }

    /// Returns all registered metrics in the text format of Prometheus.
    pub(crate) fn text(&self) -> prometheus::Result<Vec<u8>> {
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_series_has_its_own_index() {
        for (index, subject) in Subject::ALL.into_iter().enumerate() {
            assert_eq!(subject.index(), index, "{subject:?}");
        }
        for (index, code) in Code::ALL.into_iter().enumerate() {
            assert_eq!(code as usize, index, "{code:?}");
        }
    }
}
