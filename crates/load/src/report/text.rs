//! The report as text, for terminals and logs.

use super::{Percentiles, Report, StretchReport, count_text, rate_text, time_text};
use crate::audit::Findings;
use std::fmt::{self, Write as _};

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(search) = &self.search {
            writeln!(
                f,
                "{:>12} {:>12} {:>9} {:>9} {:>9} {:>9}  objective",
                "rate/s", "reached/s", "p50", "p99", "p99.9", "errors"
            )?;
            let mut steps: Vec<_> = self.stretches.iter().zip(&search.held).collect();
            steps.sort_by(|a, b| a.0.requests_per_second.total_cmp(&b.0.requests_per_second));
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
                    "{rate:>12} {reached:>12} {p50:>9} {p99:>9} {p99_9:>9} {errors:>9}  {held}"
                )?;
            }
            let objectives: Vec<String> =
                search.objectives.iter().map(ToString::to_string).collect();
            let objectives = objectives.join(" and ");
            match search.rate_per_second {
                Some(rate) => writeln!(
                    f,
                    "\nThe highest rate with {objectives}: {} requests a second.",
                    rate_text(rate)
                )?,
                None => writeln!(f, "\nNo rate that was tried held {objectives}.")?,
            }
        } else {
            for stretch in &self.stretches {
                write_stretch(f, stretch)?;
            }
        }
        if let Some(audit) = &self.audit {
            write_audit(f, audit)?;
        }
        for (title, list) in [("Remarks", &self.remarks), ("Failed", &self.failures)] {
            if !list.is_empty() {
                writeln!(f, "\n{title}")?;
            }
            for text in list {
                write_wrapped(f, text)?;
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
    writeln!(
        f,
        "{} requests in {:.1} s: {} a second; {offered}",
        count_text(stretch.requests),
        stretch.seconds,
        rate_text(stretch.requests_per_second),
    )?;
    let cpu = stretch.generator_cpu_seconds;
    let per_cpu = stretch.requests as f64 / cpu.max(1e-3);
    let [errors, wrong, unsent, reconnects] = [
        stretch.errors,
        stretch.wrong,
        stretch.unsent,
        stretch.reconnects,
    ]
    .map(count_text);
    writeln!(
        f,
        "{errors} failed, {wrong} wrong answers, {unsent} not sent, {reconnects} reconnects"
    )?;
    writeln!(
        f,
        "generator: {cpu:.1} s of processor time, {} requests for each second of it",
        rate_text(per_cpu)
    )?;
    writeln!(
        f,
        "\n{:<20} {:>11} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9}",
        "", "count", "mean", "p50", "p90", "p99", "p99.9", "max"
    )?;
    for (name, kind) in &stretch.kinds {
        write_times(f, name, &kind.latency)?;
    }
    write_times(f, "all: latency", &stretch.latency)?;
    write_times(f, "     service time", &stretch.service)?;
    if stretch.turned_away.count > 0 {
        write_times(f, "     time to a 503", &stretch.turned_away)?;
    }
    write_times(f, "     wait for lane", &stretch.wait)?;
    write_times(f, "     generator lag", &stretch.lag)?;
    writeln!(f, "\n{:<20} outcomes", "")?;
    for (name, kind) in &stretch.kinds {
        let mut outcomes = String::new();
        // Acceptance first, then the codes.
        let (ok, others): (Vec<_>, Vec<_>) =
            kind.outcomes.iter().partition(|(name, _)| *name == "ok");
        for (outcome, count) in ok.into_iter().chain(others) {
            write!(outcomes, "  {outcome} {}", count_text(*count))?;
        }
        writeln!(f, "{name:<19}{outcomes}")?;
    }
    if !stretch.wrong_examples.is_empty() {
        writeln!(f, "\nWrong answers")?;
    }
    for text in stretch.wrong_examples.iter().take(10) {
        writeln!(f, "  {text}")?;
    }
    Ok(())
}

/// Writes words in lines of 100 columns at most.
fn write_wrapped(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    const COLUMNS: usize = 100;
    let mut column = 0;
    for word in text.split_whitespace() {
        let width = word.chars().count();
        if column == 0 {
            write!(f, "  {word}")?;
            column = 2 + width;
        } else if column + 1 + width > COLUMNS {
            write!(f, "\n    {word}")?;
            column = 4 + width;
        } else {
            write!(f, " {word}")?;
            column += 1 + width;
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
        "{name:<20} {count:>11} {mean:>9} {p50:>9} {p90:>9} {p99:>9} {p99_9:>9} {max:>9}"
    )
}

fn write_audit(f: &mut fmt::Formatter<'_>, audit: &Findings) -> fmt::Result {
    writeln!(
        f,
        "\nAudit: {} widgets and {} operations of unknown fate read back, {} faults",
        count_text(audit.widgets_checked),
        count_text(audit.unknown_fates_checked),
        count_text(audit.faults()),
    )?;
    for (name, count) in audit.rows() {
        if count > 0 {
            writeln!(f, "  {:>11} {name}", count_text(count))?;
        }
    }
    for text in audit.examples.iter().take(10) {
        writeln!(f, "  {text}")?;
    }
    Ok(())
}

impl Findings {
    /// What was found, by name.
    #[must_use]
    pub const fn rows(&self) -> [(&'static str, u64); 8] {
        [
            ("acknowledged but lost", self.acknowledged_but_lost),
            ("refused but applied", self.refused_but_applied),
            ("asymmetric associations", self.asymmetric),
            ("partly applied", self.partly_applied),
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
