//! Decides whether two runs differ by more than chance.
//!
//! It compares the values of the timeline's intervals. Neighbouring intervals are alike (a slow
//! sync or a busy neighbour spans several), so they are not independent samples. Their mean is
//! therefore resampled in blocks of neighbours: the moving block bootstrap (H. R. Künsch, "The
//! Jackknife and the Bootstrap for General Stationary Observations", Annals of Statistics 17,
//! 1989), with blocks of about n^(1/3) intervals (P. Hall, J. Horowitz, B.-Y. Jing, "On Blocking
//! Rules for the Bootstrap with Dependent Data", Biometrika 82, 1995). A difference is significant
//! if its confidence interval excludes 0. The intervals are wide enough that all intervals of a
//! comparison hold together with 95 % probability (Bonferroni).
//!
//! It cannot see what differs between runs but not within them, such as the placement of files on a
//! disk. For that, alternate runs of both kinds and compare several.

use crate::{
    random::Random,
    report::{Report, StretchReport, rate_text, time_text},
    session::Point,
};
use std::{collections::BTreeMap, fmt};

/// With fewer intervals than this on either side, there is no verdict.
const INTERVALS_MIN: usize = 10;
const RESAMPLES: usize = 2000;
/// The probability of a false alarm among all lines.
const ALPHA: f64 = 0.05;

/// Two reports compared.
#[derive(Clone, Debug)]
pub struct Comparison {
    /// One line for each figure.
    pub lines: Vec<Line>,
    /// Settings that differ, with both values.
    pub settings: Vec<(String, String, String)>,
}

/// One figure of both reports.
#[derive(Clone, Debug)]
pub struct Line {
    /// The figure's name.
    pub name: &'static str,
    /// The mean of the figure over each report's intervals.
    pub means: [f64; 2],
    /// The difference as a share of the first mean, with its confidence interval. `None` if there
    /// are too few intervals.
    pub difference: Option<Difference>,
    text: fn(f64) -> String,
}

/// A difference as a share of the first report's figure, with its confidence interval.
#[derive(Clone, Copy, Debug, PartialEq)]
#[expect(missing_docs, reason = "the type's line says it")]
pub struct Difference {
    pub estimate: f64,
    pub low: f64,
    pub high: f64,
}

impl Difference {
    /// Reports whether the difference is significant.
    #[must_use]
    pub fn is_significant(&self) -> bool {
        self.low > 0.0 || self.high < 0.0
    }
}

type Figure = (&'static str, fn(&Point) -> f64, fn(f64) -> String);

const FIGURES: [Figure; 5] = [
    (
        "requests a second",
        |point| point.requests_per_second,
        rate_text,
    ),
    ("latency mean", |point| point.latency.mean_us, time_text),
    ("latency p50", |point| point.latency.p50_us, time_text),
    ("latency p99", |point| point.latency.p99_us, time_text),
    ("latency p99.9", |point| point.latency.p99_9_us, time_text),
];

/// Compares the first stretch of load of both reports.
#[must_use]
pub fn compare(before: &Report, after: &Report) -> Comparison {
    let lines = FIGURES.map(|(name, figure, text)| {
        let values = [before, after].map(|report| values(report, figure));
        let [first, second] = &values;
        Line {
            name,
            means: [mean(first), mean(second)],
            difference: difference(first, second),
            text,
        }
    });
    Comparison {
        lines: lines.into(),
        settings: differing(before, after),
    }
}

/// Returns a figure's values, one for each interval that is whole and not empty.
fn values(report: &Report, figure: fn(&Point) -> f64) -> Vec<f64> {
    let points = report
        .stretches
        .first()
        .map(|stretch: &StretchReport| &stretch.points);
    let points = points.map(Vec::as_slice).unwrap_or_default();
    let longest = points.iter().map(|point| point.seconds).fold(0.0, f64::max);
    points
        .iter()
        .filter(|point| point.seconds > longest / 2.0 && point.latency.count > 0)
        .map(figure)
        .collect()
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

fn difference(before: &[f64], after: &[f64]) -> Option<Difference> {
    if before.len().min(after.len()) < INTERVALS_MIN {
        return None;
    }
    // The seed depends only on the reports, so that the same reports give the same answer.
    let mut random = Random::new(before.len() as u64 ^ (after.len() as u64) << 32);
    let relative = |before: f64, after: f64| (after - before) / before.abs().max(f64::MIN_POSITIVE);
    let mut resampled: Vec<f64> = (0..RESAMPLES)
        .map(|_| relative(resample(before, &mut random), resample(after, &mut random)))
        .collect();
    resampled.sort_unstable_by(f64::total_cmp);
    let tail = ALPHA / 2.0 / FIGURES.len() as f64;
    let at = |share: f64| resampled[(share * (RESAMPLES - 1) as f64).round() as usize];
    Some(Difference {
        estimate: relative(mean(before), mean(after)),
        low: at(tail),
        high: at(1.0 - tail),
    })
}

/// Returns the mean of as many values as `values` has, drawn in blocks of neighbours.
fn resample(values: &[f64], random: &mut Random) -> f64 {
    let block = (values.len() as f64).cbrt().ceil() as usize;
    let (mut sum, mut count) = (0.0, 0);
    while count < values.len() {
        let start = random.index(values.len() - block + 1).unwrap_or(0);
        for value in values[start..start + block]
            .iter()
            .take(values.len() - count)
        {
            sum += value;
            count += 1;
        }
    }
    sum / count as f64
}

/// Returns the settings that differ, except those that differ in every run.
fn differing(before: &Report, after: &Report) -> Vec<(String, String, String)> {
    const OF_EVERY_RUN: [&str; 2] = ["url", "run"];
    let all = |report: &Report| {
        let host = [
            ("version".to_owned(), report.version.clone()),
            ("processor".to_owned(), report.host.processor.clone()),
            ("cores".to_owned(), report.host.cores.to_string()),
        ];
        let settings = report.settings.iter().chain(&report.labels).cloned();
        settings.chain(host).collect::<BTreeMap<_, _>>()
    };
    let (before, after) = (all(before), all(after));
    let mut names: Vec<&String> = before.keys().chain(after.keys()).collect();
    names.sort_unstable();
    names.dedup();
    names
        .into_iter()
        .filter(|name| !OF_EVERY_RUN.contains(&name.as_str()))
        .filter_map(|name| {
            let value = |of: &BTreeMap<String, String>| of.get(name).cloned().unwrap_or_default();
            let (before, after) = (value(&before), value(&after));
            (before != after).then(|| (name.clone(), before, after))
        })
        .collect()
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let head = ["", "before", "after", "change"];
        let [name, before, after, difference] = head;
        writeln!(
            f,
            "{name:<17} {before:>9} {after:>9} {difference:>8}  interval"
        )?;
        for line in &self.lines {
            let [before, after] = line.means.map(line.text);
            write!(f, "{:<17} {before:>9} {after:>9}", line.name)?;
            let Some(difference) = line.difference else {
                writeln!(f, " {:>8}  too few intervals to tell", "")?;
                continue;
            };
            let percent = |share: f64| format!("{:+.1}%", share * 100.0);
            let interval = format!(
                "{} to {}",
                percent(difference.low),
                percent(difference.high)
            );
            let verdict = if difference.is_significant() {
                "differs"
            } else {
                "may be chance"
            };
            writeln!(
                f,
                " {:>8}  {interval:<17} {verdict}",
                percent(difference.estimate)
            )?;
        }
        // A run's p99 is higher than the mean of its intervals' p99, because its worst intervals
        // have full weight.
        writeln!(
            f,
            "\nEach figure is the mean of the intervals' values, a p99 that of their p99: the\n\
             reports have those of the whole runs."
        )?;
        if self.lines.iter().any(|line| line.difference.is_none()) {
            writeln!(
                f,
                "Fewer than {INTERVALS_MIN} intervals tell nothing: load for longer, or with a shorter\n\
                 --interval."
            )?;
        }
        if !self.settings.is_empty() {
            writeln!(f, "\nThe runs were not alike:")?;
        }
        for (name, before, after) in &self.settings {
            writeln!(f, "  {name}: {before:?} before, {after:?} after")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::Percentiles;

    /// Returns a series around `mean` in which each value keeps this share of the previous value's
    /// deviation.
    fn series(mean: f64, count: usize, kept: f64, seed: u64) -> Vec<f64> {
        let mut random = Random::new(seed);
        let mut deviation = 0.0;
        let noise = |random: &mut Random| (0..6).map(|_| random.unit() - 0.5).sum::<f64>();
        (0..count)
            .map(|_| {
                deviation = kept * deviation + noise(&mut random);
                mean + deviation
            })
            .collect()
    }

    fn alarms(kept: f64, second_mean: f64) -> usize {
        let pairs = (0..50).map(|seed| {
            let first = series(100.0, 60, kept, seed * 2);
            let second = series(second_mean, 60, kept, seed * 2 + 1);
            difference(&first, &second).unwrap()
        });
        pairs.filter(Difference::is_significant).count()
    }

    #[test]
    fn noise_is_not_significant_and_a_real_difference_is() {
        // The confidence intervals allow 1 % of false alarms for each figure. Blocks that are short
        // compared with the correlation cause a few more.
        let (independent, correlated) = (alarms(0.0, 100.0), alarms(0.5, 100.0));
        assert!(independent <= 3, "{independent} false alarms in 50");
        assert!(correlated <= 6, "{correlated} false alarms in 50");
        assert!(
            alarms(0.0, 101.0) >= 49,
            "1 % is clear where the noise is 0.7 %"
        );
    }

    fn report(rate: f64, seed: u64, label: &str) -> Report {
        let points = series(rate, 40, 0.3, seed).into_iter().map(|rate| Point {
            seconds: 0.5,
            requests_per_second: rate,
            latency: Percentiles {
                count: 10,
                p50_us: 500.0,
                ..Default::default()
            },
            ..Point::default()
        });
        let settings = vec![
            ("run".into(), seed.to_string()),
            ("mix".into(), label.into()),
        ];
        let mut report = Report::new(settings, Vec::new());
        report.stretches.push(StretchReport {
            points: points.collect(),
            ..Default::default()
        });
        report
    }

    #[test]
    fn a_comparison_lists_differing_figures_and_settings() {
        let text = compare(&report(100.0, 1, "a"), &report(110.0, 2, "b")).to_string();
        for line in text.lines() {
            assert!(line.chars().count() <= 80, "{line}");
        }
        let line = |start: &str| text.lines().find(|line| line.starts_with(start)).unwrap();
        assert!(line("requests a second").ends_with("differs"), "{text}");
        assert!(line("latency p50").ends_with("may be chance"), "{text}");
        assert!(text.contains("mix: \"a\" before, \"b\" after"), "{text}");
        assert!(!text.contains("run:"), "{text}");
    }

    #[test]
    fn a_comparison_with_too_few_intervals_reports_no_difference() {
        let mut short = report(100.0, 1, "a");
        short.stretches[0].points.truncate(9);
        let comparison = compare(&short, &report(200.0, 2, "a"));
        assert!(
            comparison
                .lines
                .iter()
                .all(|line| line.difference.is_none())
        );
        assert!(comparison.to_string().contains("too few intervals"));
        let empty = Report::new(Vec::new(), Vec::new());
        assert!(
            compare(&empty, &empty)
                .to_string()
                .contains("too few intervals")
        );
    }
}
