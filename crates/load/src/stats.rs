//! Measurements: HDR histograms and counts, in memory that does not grow with the run.
//!
//! Four times are kept separately. *Latency* runs from the moment at which a request was due to its
//! answer: this is how long a user waits. *Service time* runs from sending it. *Wait* is how long a
//! due request waited for a free lane: more connections would shorten it. *Lag* is how late the
//! generator was although a lane was free: the part of the latency that the generator causes.

use crate::mix::Kind;
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, time::Duration};

/// The outcome of a request: accepted, refused with a code, or failed in some way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome(usize);

impl Outcome {
    const NAMES: [&'static str; 22] = [
        "ok",
        "23505",
        "22P02",
        "23502",
        "WG001",
        "WG002",
        "WG003",
        "WG004",
        "WG005",
        "WG006",
        "WG007",
        "WG408",
        "WG429",
        "WG503",
        "WG504",
        "WG506",
        "WG507",
        "WG505",
        "timeout",
        "connection",
        "unsent",
        "other",
    ];
    /// Accepted.
    pub const OK: Self = Self(0);
    /// No answer in time.
    pub const TIMEOUT: Self = Self(18);
    /// The connection ended before the answer came.
    pub const CONNECTION: Self = Self(19);
    /// The connection ended before the request was sent.
    pub const UNSENT: Self = Self(20);
    /// An answer without a code, or with one that the rules do not know.
    pub const OTHER: Self = Self(21);

    /// Returns the outcome for this code.
    #[must_use]
    pub fn of_code(code: &str) -> Self {
        let known = Self::NAMES[1..18].iter().position(|&name| name == code);
        known.map_or(Self::OTHER, |position| Self(position + 1))
    }

    /// Returns its name in reports and metrics: `ok`, the code, or what failed.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        Self::NAMES[self.0]
    }

    /// Reports whether the service failed the caller: no rule refused the request, and it is not
    /// certain that it was applied.
    #[must_use]
    pub const fn is_error(self) -> bool {
        self.0 >= 11
    }

    /// Reports whether the service says that it applied nothing, for a reason that no rule predicts.
    #[must_use]
    pub const fn is_turned_away(self) -> bool {
        matches!(self.0, 11..17)
    }

    /// Returns every outcome.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..Self::NAMES.len()).map(Self)
    }
}

/// Returns a histogram of times, from a microsecond to an hour, to three significant digits.
///
/// It takes about 190 KB, however much is recorded.
#[must_use]
pub fn histogram() -> Histogram<u64> {
    const LOWEST_NS: u64 = 1_000;
    const HIGHEST_NS: u64 = 3_600_000_000_000;
    match Histogram::new_with_bounds(LOWEST_NS, HIGHEST_NS, 3) {
        Ok(histogram) => histogram,
        Err(error) => unreachable!("the bounds are constants: {error}"),
    }
}

/// Records a time. One past the histogram's end counts as the end.
pub(crate) fn record(histogram: &mut Histogram<u64>, time: Duration) {
    let nanoseconds = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
    histogram.saturating_record(nanoseconds);
}

/// The measurements of a period.
#[derive(Clone, Debug)]
pub struct Measured {
    /// Latency of each kind, by [`Kind::index`].
    pub latency: [Histogram<u64>; Kind::ALL.len()],
    /// Service time of all kinds.
    pub service: Histogram<u64>,
    /// Time from sending to an answer that [turned the request away](Outcome::is_turned_away).
    pub turned_away: Histogram<u64>,
    /// How late the generator was.
    pub lag: Histogram<u64>,
    /// How long due requests waited for a free lane.
    pub wait: Histogram<u64>,
    /// How many requests of each kind had each outcome.
    pub outcomes: [[u64; Outcome::NAMES.len()]; Kind::ALL.len()],
    /// Answers that the rules do not allow.
    pub wrong: u64,
    /// Connections that were opened in place of earlier ones, before a request or for a repetition
    /// of one.
    pub reconnects: u64,
    /// Requests that were sent again with their keys.
    pub retries: u64,
    /// How often a lane moved to the address that a standby named as its primary.
    pub moves: u64,
    /// The last of those addresses.
    pub moved_to: Option<String>,
}

impl Default for Measured {
    fn default() -> Self {
        Self {
            latency: std::array::from_fn(|_| histogram()),
            service: histogram(),
            turned_away: histogram(),
            lag: histogram(),
            wait: histogram(),
            outcomes: Default::default(),
            wrong: 0,
            reconnects: 0,
            retries: 0,
            moves: 0,
            moved_to: None,
        }
    }
}

/// The times and the outcome of one request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    pub(crate) kind: Kind,
    pub(crate) outcome: Outcome,
    pub(crate) wrong: bool,
    pub(crate) due: Duration,
    /// When the lane became free for it.
    pub(crate) free: Duration,
    pub(crate) sent: Duration,
    pub(crate) done: Duration,
}

impl Measured {
    /// Records one request.
    ///
    /// A request that was never answered counts with the time that was spent waiting for it. A
    /// request that was turned away is timed separately, and one that was not sent is not timed at
    /// all, because a fast refusal is not a fast answer.
    pub(crate) fn record(&mut self, sample: &Sample) {
        self.outcomes[sample.kind.index()][sample.outcome.0] += 1;
        self.wrong += u64::from(sample.wrong);
        let ready = sample.due.max(sample.free);
        record(&mut self.lag, sample.sent.saturating_sub(ready));
        record(&mut self.wait, sample.free.saturating_sub(sample.due));
        let service = sample.done.saturating_sub(sample.sent);
        match sample.outcome {
            turned_away if turned_away.is_turned_away() => record(&mut self.turned_away, service),
            Outcome::UNSENT => {}
            _ => {
                let latency = &mut self.latency[sample.kind.index()];
                record(latency, sample.done.saturating_sub(sample.due));
                record(&mut self.service, service);
            }
        }
    }

    /// Adds the measurements of another period.
    pub fn add(&mut self, other: &Self) {
        // All histograms have the same bounds, so adding cannot fail.
        for (mine, theirs) in self.latency.iter_mut().zip(&other.latency) {
            let _ = mine.add(theirs);
        }
        let _ = self.service.add(&other.service);
        let _ = self.turned_away.add(&other.turned_away);
        let _ = self.lag.add(&other.lag);
        let _ = self.wait.add(&other.wait);
        for (mine, theirs) in self.outcomes.iter_mut().zip(&other.outcomes) {
            for (mine, theirs) in mine.iter_mut().zip(theirs) {
                *mine += theirs;
            }
        }
        self.wrong += other.wrong;
        self.reconnects += other.reconnects;
        self.retries += other.retries;
        self.moves += other.moves;
        if other.moved_to.is_some() {
            self.moved_to.clone_from(&other.moved_to);
        }
    }

    /// Resets everything, but keeps its memory.
    pub fn clear(&mut self) {
        // `Histogram::clear` would keep the maximum and the minimum.
        for histogram in &mut self.latency {
            histogram.reset();
        }
        self.service.reset();
        self.turned_away.reset();
        self.lag.reset();
        self.wait.reset();
        self.outcomes = Default::default();
        self.wrong = 0;
        self.reconnects = 0;
        self.retries = 0;
        self.moves = 0;
        self.moved_to = None;
    }

    /// Returns the latency of all kinds.
    #[must_use]
    pub fn latency(&self) -> Histogram<u64> {
        let mut all = histogram();
        for each in &self.latency {
            let _ = all.add(each);
        }
        all
    }

    /// Returns how many requests were completed, with any outcome.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.outcomes.iter().flatten().sum()
    }

    /// Returns how many requests the service failed.
    #[must_use]
    pub fn errors(&self) -> u64 {
        let errors = Outcome::all().filter(|outcome| outcome.is_error());
        errors.map(|outcome| self.count(outcome)).sum()
    }

    /// Returns how many requests of any kind had this outcome.
    #[must_use]
    pub fn count(&self, outcome: Outcome) -> u64 {
        self.outcomes.iter().map(|counts| counts[outcome.0]).sum()
    }

    /// Returns how many requests of this kind had this outcome.
    #[must_use]
    pub const fn count_of(&self, kind: Kind, outcome: Outcome) -> u64 {
        self.outcomes[kind.index()][outcome.0]
    }

    /// Returns the counts that are not 0, by name.
    #[must_use]
    pub fn outcomes_of(&self, kind: Kind) -> BTreeMap<String, u64> {
        let counts =
            Outcome::all().map(|outcome| (outcome, self.outcomes[kind.index()][outcome.0]));
        counts
            .filter(|&(_, count)| count > 0)
            .map(|(outcome, count)| (outcome.as_str().to_owned(), count))
            .collect()
    }
}

/// A distribution of times, in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[expect(
    missing_docs,
    reason = "the names say it, and JSON readers see only those"
)]
pub struct Percentiles {
    pub count: u64,
    pub mean_us: f64,
    pub p50_us: f64,
    pub p90_us: f64,
    pub p99_us: f64,
    pub p99_9_us: f64,
    pub p99_99_us: f64,
    pub max_us: f64,
}

impl From<&Histogram<u64>> for Percentiles {
    fn from(histogram: &Histogram<u64>) -> Self {
        // A bucket represents its highest value, which may exceed the highest recorded value.
        let at = |quantile| histogram.value_at_quantile(quantile).min(histogram.max()) as f64 / 1e3;
        Self {
            count: histogram.len(),
            mean_us: histogram.mean() / 1e3,
            p50_us: at(0.5),
            p90_us: at(0.9),
            p99_us: at(0.99),
            p99_9_us: at(0.999),
            p99_99_us: at(0.9999),
            max_us: histogram.max() as f64 / 1e3,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn sample(outcome: Outcome) -> Sample {
        Sample {
            kind: Kind::AddWidget,
            outcome,
            wrong: false,
            due: MS * 10,
            free: MS * 12,
            sent: MS * 15,
            done: MS * 35,
        }
    }

    #[test]
    fn latency_service_wait_and_lag_are_recorded_separately() {
        let mut measured = Measured::default();
        measured.record(&sample(Outcome::OK));
        let max = |histogram: &Histogram<u64>| Percentiles::from(histogram).max_us.round();
        // The tolerance is that of three digits.
        assert!((max(&measured.latency()) - 25_000.0).abs() < 25.0);
        assert!((max(&measured.service) - 20_000.0).abs() < 20.0);
        assert!((max(&measured.wait) - 2_000.0).abs() < 2.0);
        assert!((max(&measured.lag) - 3_000.0).abs() < 3.0);
    }

    #[test]
    fn refusals_by_overload_are_not_latencies_but_timeouts_are() {
        let mut measured = Measured::default();
        for code in ["WG408", "WG429", "WG503", "WG504", "WG506", "WG507"] {
            measured.record(&sample(Outcome::of_code(code)));
        }
        measured.record(&sample(Outcome::UNSENT));
        assert_eq!((measured.latency().len(), measured.errors()), (0, 7));
        assert_eq!(measured.turned_away.len(), 6);
        measured.record(&sample(Outcome::TIMEOUT));
        measured.record(&sample(Outcome::of_code("WG505")));
        measured.record(&sample(Outcome::of_code("WG001")));
        measured.record(&sample(Outcome::of_code("WG999")));
        assert_eq!((measured.latency().len(), measured.errors()), (4, 10));
        assert_eq!(measured.requests(), 11);
        assert_eq!(measured.outcomes_of(Kind::AddWidget)["other"], 1);
    }

    #[test]
    fn measurements_are_added_and_cleared() {
        let (mut all, mut one) = (Measured::default(), Measured::default());
        one.record(&Sample {
            wrong: true,
            ..sample(Outcome::OK)
        });
        all.add(&one);
        all.add(&one);
        assert_eq!((all.requests(), all.wrong, all.service.len()), (2, 2, 2));
        all.clear();
        assert_eq!((all.requests(), all.wrong, all.service.len()), (0, 0, 0));
    }

    #[test]
    fn clearing_measurements_resets_the_maximum_latency() {
        let mut measured = Measured::default();
        measured.record(&sample(Outcome::OK));
        measured.clear();
        let quick = Sample {
            done: MS * 16,
            ..sample(Outcome::OK)
        };
        measured.record(&quick);
        let longest = Percentiles::from(&measured.latency()).max_us;
        assert!((longest - 6_000.0).abs() < 6.0, "{longest} µs");
    }
}
