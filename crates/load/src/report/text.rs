//! The report as text, for terminals and logs.

use super::{Percentiles, Report, StretchReport, count_text, rate_text, time_text};
use crate::{audit::Findings, feed::FeedFindings, redacted};
use std::fmt;

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(search) = &self.search {
            writeln!(
                f,
                "{:>11} {:>11} {:>9} {:>9} {:>9} {:>9}  objective",
                "rate/s", "reached/s", "p50", "p99", "p99.9", "errors"
            )?;
            let mut steps: Vec<_> = self.stretches.iter().zip(&search.held).collect();
            let due = |stretch: &StretchReport| {
                let offered = stretch.arrivals.offered_per_second;
                offered.unwrap_or(stretch.requests_per_second)
            };
            steps.sort_by(|a, b| due(a.0).total_cmp(&due(b.0)));
            for (stretch, held) in steps {
                let rate = stretch
                    .arrivals
                    .offered_per_second
                    .map_or("closed".into(), rate_text);
                let latency = &stretch.latency;
                let times = [latency.p50_us, latency.p99_us, latency.p99_9_us].map(time_text);
                let [p50, p99, p99_9] = times;
                let errors = count_text(stretch.errors + stretch.unsent);
                let reached = rate_text(stretch.requests_per_second);
                let held = if *held { "held" } else { "missed" };
                writeln!(
                    f,
                    "{rate:>11} {reached:>11} {p50:>9} {p99:>9} {p99_9:>9} {errors:>9}  {held}"
                )?;
            }
            let objectives: Vec<String> =
                search.objectives.iter().map(ToString::to_string).collect();
            let objectives = objectives.join(" and ");
            writeln!(f)?;
            let found = match search.rate_per_second {
                Some(rate) => format!(
                    "The highest rate with {objectives}: {} requests a second.",
                    rate_text(rate)
                ),
                None => format!("No rate that was tried held {objectives}."),
            };
            write_wrapped(f, "", &found)?;
        } else {
            for stretch in &self.stretches {
                write_stretch(f, stretch)?;
            }
        }
        if let Some(audit) = &self.audit {
            write_audit(f, audit)?;
        }
        if let Some(changes) = &self.changes {
            write_changes(f, changes)?;
        }
        for (title, list) in [("Remarks", &self.remarks), ("Failed", &self.failures)] {
            if !list.is_empty() {
                writeln!(f, "\n{title}")?;
            }
            for text in list {
                write_wrapped(f, "  ", text)?;
            }
        }
        Ok(())
    }
}

fn write_stretch(f: &mut fmt::Formatter<'_>, stretch: &StretchReport) -> fmt::Result {
    let offered = match stretch.arrivals.offered_per_second {
        Some(rate) => format!(
            "{} a second were due ({})",
            rate_text(rate),
            stretch.arrivals.arrivals
        ),
        None => "closed loop".into(),
    };
    let done = format!(
        "{} requests in {:.1} s: {} a second; {offered}",
        count_text(stretch.requests),
        stretch.seconds,
        rate_text(stretch.requests_per_second),
    );
    write_wrapped(f, "", &done)?;
    let cpu = stretch.generator_cpu_seconds;
    let per_cpu = stretch.requests as f64 / cpu.max(1e-3);
    let [errors, wrong, unsent, reconnects] = [
        stretch.errors,
        stretch.wrong,
        stretch.unsent,
        stretch.reconnects,
    ]
    .map(count_text);
    let retries = match stretch.retries {
        0 => String::new(),
        retries => format!(", {} sent again", count_text(retries)),
    };
    let moves = match &stretch.moved_to {
        None => String::new(),
        Some(primary) => format!(
            ", {} times a lane went over to the primary that a standby named, last to {}",
            count_text(stretch.moves),
            redacted(primary)
        ),
    };
    let failed = format!(
        "{errors} failed, {wrong} wrong answers, {unsent} not sent, {reconnects} reconnects{retries}{moves}"
    );
    write_wrapped(f, "", &failed)?;
    let generator = format!(
        "generator: {cpu:.1} s of processor time, {} requests for each second of it",
        rate_text(per_cpu)
    );
    write_wrapped(f, "", &generator)?;
    writeln!(
        f,
        "\n{:<18} {:>11} {:>7} {:>7} {:>7} {:>7} {:>7} {:>7}",
        "", "count", "mean", "p50", "p90", "p99", "p99.9", "max"
    )?;
    for (name, kind) in &stretch.kinds {
        write_times(f, name, &kind.latency)?;
    }
    write_times(f, "all: latency", &stretch.latency)?;
    write_times(f, "     service time", &stretch.service)?;
    if stretch.turned_away.count > 0 {
        write_times(f, "     turned away", &stretch.turned_away)?;
    }
    write_times(f, "     wait for lane", &stretch.wait)?;
    write_times(f, "     generator lag", &stretch.lag)?;
    writeln!(f, "\n{:<18}  outcomes", "")?;
    for (name, kind) in &stretch.kinds {
        let mut words = vec![format!("{name:<18}")];
        // Acceptance comes first, then the codes.
        let (ok, others): (Vec<_>, Vec<_>) =
            kind.outcomes.iter().partition(|(name, _)| *name == "ok");
        for (outcome, count) in ok.into_iter().chain(others) {
            words.push(format!("{outcome} {}", count_text(*count)));
        }
        let further = " ".repeat(20);
        write_words(f, "", &further, "  ", words.iter().map(String::as_str))?;
    }
    if !stretch.wrong_examples.is_empty() {
        writeln!(f, "\nWrong answers")?;
    }
    for text in stretch.wrong_examples.iter().take(10) {
        write_wrapped(f, "  ", text)?;
    }
    Ok(())
}

/// The default width of a terminal.
const COLUMNS: usize = 80;

/// Writes words in lines of at most 80 columns, if their lengths allow it. Lines after the first
/// are indented.
fn write_wrapped(f: &mut fmt::Formatter<'_>, indent: &str, text: &str) -> fmt::Result {
    write_words(
        f,
        indent,
        &format!("{indent}  "),
        " ",
        text.split_whitespace(),
    )
}

/// Writes words in lines of at most 80 columns, with separate indents for the first line and the
/// others.
fn write_words<'a>(
    f: &mut fmt::Formatter<'_>,
    first: &str,
    further: &str,
    gap: &str,
    words: impl Iterator<Item = &'a str>,
) -> fmt::Result {
    let mut column = 0;
    for word in words {
        let width = word.chars().count();
        if column == 0 {
            write!(f, "{first}{word}")?;
            column = first.len() + width;
        } else if column + gap.len() + width > COLUMNS {
            write!(f, "\n{further}{word}")?;
            column = further.len() + width;
        } else {
            write!(f, "{gap}{word}")?;
            column += gap.len() + width;
        }
    }
    writeln!(f)
}

fn write_times(f: &mut fmt::Formatter<'_>, name: &str, times: &Percentiles) -> fmt::Result {
    let count = count_text(times.count);
    let columns = [
        times.mean_us,
        times.p50_us,
        times.p90_us,
        times.p99_us,
        times.p99_9_us,
        times.max_us,
    ];
    let [mean, p50, p90, p99, p99_9, max] = columns.map(time_text);
    writeln!(
        f,
        "{name:<18} {count:>11} {mean:>7} {p50:>7} {p90:>7} {p99:>7} {p99_9:>7} {max:>7}"
    )
}

fn write_audit(f: &mut fmt::Formatter<'_>, audit: &Findings) -> fmt::Result {
    writeln!(f)?;
    let read = format!(
        "Audit: {} widgets and {} operations of unknown fate read back, {} faults",
        count_text(audit.widgets_checked),
        count_text(audit.unknown_fates_checked),
        count_text(audit.faults()),
    );
    write_wrapped(f, "", &read)?;
    write_findings(f, &audit.rows(), &audit.examples)
}

fn write_changes(f: &mut fmt::Formatter<'_>, changes: &FeedFindings) -> fmt::Result {
    writeln!(f)?;
    let read = format!(
        "Changes: {} of this run held against the answers, {} faults",
        count_text(changes.changes_checked),
        count_text(changes.faults()),
    );
    write_wrapped(f, "", &read)?;
    write_findings(f, &changes.rows(), &changes.examples)
}

fn write_findings(
    f: &mut fmt::Formatter<'_>,
    rows: &[(&'static str, u64)],
    examples: &[String],
) -> fmt::Result {
    for &(name, count) in rows {
        if count > 0 {
            writeln!(f, "  {:>11} {name}", count_text(count))?;
        }
    }
    for text in examples.iter().take(10) {
        write_wrapped(f, "  ", text)?;
    }
    Ok(())
}

impl Findings {
    /// Returns the number of each kind of finding, by name.
    #[must_use]
    pub const fn rows(&self) -> [(&'static str, u64); 9] {
        [
            ("acknowledged but lost", self.acknowledged_but_lost),
            ("refused but applied", self.refused_but_applied),
            ("asymmetric associations", self.asymmetric),
            ("partly applied", self.partly_applied),
            (
                "of unknown fate, and told otherwise by the feed of changes",
                self.told_otherwise,
            ),
            ("altered", self.altered),
            ("unreadable", self.unreadable),
            (
                "made, but no longer remembered: not checked",
                self.forgotten,
            ),
            (
                "of unknown fate, but too many to remember: not checked",
                self.unknown_fates_forgotten,
            ),
        ]
    }
}

impl FeedFindings {
    /// Returns the number of each kind of finding, by name.
    #[must_use]
    pub const fn rows(&self) -> [(&'static str, u64); 7] {
        [
            ("acknowledged, but not in the feed", self.never_told),
            ("twice in the feed", self.told_twice),
            ("in the feed, but not sent or refused", self.unasked),
            ("in the feed out of order", self.out_of_order),
            ("in the feed with other names or slots", self.altered),
            (
                "in the feed, of unknown fate by the answers",
                self.doubts_told,
            ),
            ("of others: not checked", self.of_others),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{ArrivalsReport, KindReport, Search};
    use std::collections::BTreeMap;

    /// Returns a report with numbers of the greatest possible length.
    fn long() -> Report {
        let times = Percentiles {
            count: 123_456_789,
            mean_us: 123_456.0,
            p50_us: 99_900.0,
            p90_us: 1_234.0,
            p99_us: 9_876_543.0,
            p99_9_us: 999_400.0,
            p99_99_us: 1.0,
            max_us: 3_600_000_000.0,
        };
        let outcomes = [
            "ok", "23505", "22P02", "WG001", "WG002", "WG003", "WG004", "WG503", "WG504", "timeout",
        ];
        let kind = KindReport {
            latency: times,
            outcomes: BTreeMap::from(outcomes.map(|outcome| (outcome.to_owned(), 123_456_789))),
        };
        let stretch = StretchReport {
            arrivals: ArrivalsReport {
                arrivals: "constant".into(),
                offered_per_second: Some(1_234_567.0),
            },
            seconds: 86_400.0,
            requests: 12_345_678_901,
            requests_per_second: 1_234_567.0,
            errors: 123_456_789,
            wrong: 123_456_789,
            unsent: 123_456_789,
            reconnects: 123_456_789,
            retries: 123_456_789,
            moves: 123_456_789,
            moved_to: Some("https://primary.example.org:3000/widgets".into()),
            generator_cpu_seconds: 86_400.0,
            latency: times,
            service: times,
            turned_away: times,
            wait: times,
            lag: times,
            kinds: BTreeMap::from([("associate_widgets".into(), kind)]),
            wrong_examples: vec!["a wrong answer in many words ".repeat(9)],
            ..StretchReport::default()
        };
        let mut report = Report::new(Vec::new(), Vec::new());
        report.stretches.push(stretch);
        report.audit = Some(Findings {
            widgets_checked: 123_456_789,
            unknown_fates_checked: 123_456_789,
            examples: vec!["a finding in many words ".repeat(9)],
            ..Findings::default()
        });
        report.changes = Some(FeedFindings {
            changes_checked: 123_456_789,
            never_told: 123_456_789,
            doubts_told: 123_456_789,
            of_others: 123_456_789,
            examples: vec!["a finding in many words ".repeat(9)],
            ..FeedFindings::default()
        });
        report.remarks = vec!["a remark in many words ".repeat(9)];
        report.failures = vec!["a failure in many words ".repeat(9)];
        report
    }

    fn check(report: &Report) {
        let text = report.to_string();
        for line in text.lines() {
            let columns = line.chars().count();
            assert!(columns <= COLUMNS, "{columns} columns: {line}");
        }
        assert!(text.contains("in many words"), "{text}");
    }

    #[test]
    fn a_report_fits_a_terminal_of_80_columns() {
        let mut report = long();
        check(&report);
        report.search = Some(Search {
            objectives: vec![
                "p99.99<999ms".parse().unwrap(),
                "errors<0.1%".parse().unwrap(),
            ],
            rate_per_second: Some(1_234_567.0),
            held: vec![false],
        });
        check(&report);
    }
}
