//! Decides whether a stretch of a report meets an objective.

use super::{StretchReport, time_text};
use crate::objective::{Objective, Quantile, Relation, Subject};

impl Objective {
    /// Reports whether the objective is true of this stretch. It is not true of a figure that was not
    /// measured.
    #[must_use]
    pub fn holds(&self, stretch: &StretchReport) -> bool {
        self.value(stretch)
            .is_some_and(|value| match self.relation {
                Relation::Below => value < self.bound,
                Relation::Above => value > self.bound,
            })
    }

    /// Returns the observed value as text, if it was measured.
    #[must_use]
    pub fn observed(&self, stretch: &StretchReport) -> Option<String> {
        let value = self.value(stretch)?;
        Some(match self.subject {
            Subject::Quantile(_) | Subject::Mean | Subject::Max => time_text(value * 1e6),
            Subject::Rate | Subject::Errors => self.subject.text(value),
        })
    }

    fn value(&self, stretch: &StretchReport) -> Option<f64> {
        let latency = &stretch.latency;
        let requests = stretch.requests + stretch.unsent;
        let is_measured = match self.subject {
            Subject::Quantile(_) | Subject::Mean | Subject::Max => latency.count > 0,
            Subject::Rate => true,
            Subject::Errors => requests > 0,
        };
        is_measured.then(|| match self.subject {
            Subject::Quantile(quantile) => {
                let microseconds = match quantile {
                    Quantile::P50 => latency.p50_us,
                    Quantile::P90 => latency.p90_us,
                    Quantile::P99 => latency.p99_us,
                    Quantile::P99_9 => latency.p99_9_us,
                    Quantile::P99_99 => latency.p99_99_us,
                };
                microseconds / 1e6
            }
            // An average has more digits than were measured.
            Subject::Mean => latency.mean_us.round() / 1e6,
            Subject::Max => latency.max_us / 1e6,
            Subject::Rate => stretch.requests_per_second,
            Subject::Errors => (stretch.errors + stretch.unsent) as f64 / requests as f64,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::Percentiles;

    fn stretch() -> StretchReport {
        StretchReport {
            requests: 999,
            unsent: 1,
            errors: 4,
            requests_per_second: 5000.0,
            latency: Percentiles {
                count: 995,
                p99_us: 9_000.0,
                p99_9_us: 20_000.0,
                ..Default::default()
            },
            ..Default::default()
        }
    }

    #[test]
    fn objectives_are_checked_against_the_reported_figures() {
        let holds = |text: &str| text.parse::<Objective>().unwrap().holds(&stretch());
        assert!(holds("p99<10ms") && !holds("p99 > 10ms") && !holds("p99<9ms"));
        assert!(!holds("p99.9<10ms") && holds("p99.9<1s"));
        assert!(
            holds("errors>0.1%") && !holds("errors>0.5%"),
            "4 failed and 1 unsent of 1000"
        );
        assert!(holds("rate<10k") && !holds("rate<5000"));
        let objective: Objective = "p99<10ms".parse().unwrap();
        let observed = objective.observed(&stretch());
        assert_eq!(observed.as_deref(), Some("9.00 ms"));
        let nothing = StretchReport::default();
        assert!(!objective.holds(&nothing) && objective.observed(&nothing).is_none());
    }
}
