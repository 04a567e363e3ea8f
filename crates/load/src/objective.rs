//! Objectives: `p99<10ms`, `errors>0.1%`, `rate<10000`.

use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr, time::Duration};

/// A bound on a property of a stretch of load.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Objective {
    pub(crate) subject: Subject,
    pub(crate) relation: Relation,
    pub(crate) bound: f64,
}

/// The property that is bounded.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Subject {
    /// This quantile of the latency, in seconds.
    Quantile(Quantile),
    /// The mean latency, in seconds.
    Mean,
    /// The longest latency, in seconds.
    Max,
    /// Completed requests per second.
    Rate,
    /// The share of requests that the service failed, or that could not be sent.
    Errors,
}

/// A quantile that every report contains.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Quantile {
    P50,
    P90,
    P99,
    P99_9,
    P99_99,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Relation {
    Below,
    Above,
}

impl Objective {
    /// The objective that every search adds, because a service that turns callers away can be very
    /// fast.
    pub(crate) const FEW_ERRORS: Self = Self {
        subject: Subject::Errors,
        relation: Relation::Below,
        bound: 0.001,
    };

    pub(crate) fn is_about_errors(&self) -> bool {
        self.subject == Subject::Errors
    }

    /// Returns the bound in microseconds, for plots, if it is a bound on latency.
    #[must_use]
    pub fn latency_bound_us(&self) -> Option<f64> {
        let is_time = !matches!(self.subject, Subject::Rate | Subject::Errors);
        is_time.then_some(self.bound * 1e6)
    }
}

impl Subject {
    const NAMES: [(&'static str, Self); 9] = [
        ("p50", Self::Quantile(Quantile::P50)),
        ("p90", Self::Quantile(Quantile::P90)),
        ("p99", Self::Quantile(Quantile::P99)),
        ("p99.9", Self::Quantile(Quantile::P99_9)),
        ("p99.99", Self::Quantile(Quantile::P99_99)),
        ("mean", Self::Mean),
        ("max", Self::Max),
        ("rate", Self::Rate),
        ("errors", Self::Errors),
    ];

    fn name(self) -> &'static str {
        let found = Self::NAMES.into_iter().find(|&(_, each)| each == self);
        found.map_or("", |(name, _)| name)
    }

    pub(crate) fn text(self, value: f64) -> String {
        match self {
            Self::Rate => format!("{value:.0}"),
            Self::Errors => format!("{}%", (value * 1e6).round() / 1e4),
            Self::Quantile(_) | Self::Mean | Self::Max => {
                // A bound is parsed from the same form in which it is written.
                let time = Duration::from_nanos((value * 1e9).round().max(0.0) as u64);
                humantime::format_duration(time).to_string()
            }
        }
    }
}

impl FromStr for Objective {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let form = "an objective looks like `p99<10ms`, `errors>0.1%` or `rate<10000`";
        let position = text
            .find(['<', '>'])
            .ok_or_else(|| format!("{form}: `{text}` has neither < nor >"))?;
        let (name, rest) = text.split_at(position);
        let (relation, bound) = rest.split_at(1);
        let subject = Subject::NAMES
            .into_iter()
            .find(|&(each, _)| each == name.trim());
        let Some((_, subject)) = subject else {
            let known = Subject::NAMES.map(|(name, _)| name).join(", ");
            return Err(format!("`{}` is none of {known}", name.trim()));
        };
        let bound = bound.trim();
        let wrong = |what: &str| {
            format!(
                "the bound of {} must be {what}, `{bound}` was given",
                subject.name()
            )
        };
        let bound = match subject {
            Subject::Rate => crate::quantity::rate(bound),
            Subject::Errors => crate::mix::share(bound).ok(),
            _ => humantime::parse_duration(bound)
                .ok()
                .map(|time| time.as_secs_f64()),
        };
        let bound = bound.ok_or_else(|| match subject {
            Subject::Rate => wrong("requests a second"),
            Subject::Errors => wrong("a share, as 0.1%"),
            _ => wrong("a time with its unit, as 10ms"),
        })?;
        let relation = if relation == "<" {
            Relation::Below
        } else {
            Relation::Above
        };
        Ok(Self {
            subject,
            relation,
            bound,
        })
    }
}

impl fmt::Display for Objective {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = match self.relation {
            Relation::Below => '<',
            Relation::Above => '>',
        };
        let bound = self.subject.text(self.bound);
        write!(f, "{}{sign}{bound}", self.subject.name())
    }
}

impl From<Objective> for String {
    fn from(objective: Objective) -> Self {
        objective.to_string()
    }
}

impl TryFrom<String> for Objective {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[test]
    fn an_objective_round_trips_through_json() {
        for text in [
            "p99<10ms",
            "p99.9>1s 500ms",
            "errors>0.1%",
            "rate<10000",
            "max<250us",
            "p50<800ns",
        ] {
            let objective: Objective = text.parse().unwrap();
            let json = serde_json::to_string(&objective).unwrap();
            assert_eq!(
                serde_json::from_str::<Objective>(&json).unwrap(),
                objective,
                "{json}"
            );
        }
    }

    #[test]
    fn errors_in_an_objective_are_explained() {
        let refused = |text: &str| text.parse::<Objective>().unwrap_err();
        assert!(refused("p99=10ms").contains("has neither < nor >"));
        assert!(refused("p98<10ms").starts_with("`p98` is none of p50,"));
        assert!(refused("p99<10").contains("must be a time with its unit"));
        assert!(refused("errors>2").contains("a share, as 0.1%"));
    }
}
