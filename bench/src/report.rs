//! The report: a table with its conditions, for `docs/performance.md`.

use crate::load::{Figures, Workload};
use std::{
    error::Error,
    fmt::Write as _,
    io::Write as _,
    path::Path,
    process::{Command, Stdio},
};

/// One peer under one workload at one size: all its rounds.
pub(crate) struct Row {
    widgets: u64,
    peer: &'static str,
    workload: Workload,
    /// For an open loop.
    offered_per_second: Option<f64>,
    rounds: Vec<Figures>,
}

impl Row {
    pub(crate) fn new(
        widgets: u64,
        peer: &'static str,
        workload: Workload,
        rounds: Vec<Figures>,
    ) -> Self {
        Self {
            widgets,
            peer,
            workload,
            offered_per_second: None,
            rounds,
        }
    }

    /// The same, measured with an open loop at this rate.
    pub(crate) fn offered(self, requests_per_second: f64) -> Self {
        Self {
            offered_per_second: Some(requests_per_second),
            ..self
        }
    }

    /// The median of each figure over the rounds, each by itself.
    pub(crate) fn median(&self) -> Figures {
        let median = |figure: fn(&Figures) -> f64| {
            let mut figures: Vec<f64> = self.rounds.iter().map(figure).collect();
            figures.sort_by(f64::total_cmp);
            figures.get(figures.len() / 2).copied().unwrap_or(f64::NAN)
        };
        Figures {
            requests_per_second: median(|each| each.requests_per_second),
            p50_ms: median(|each| each.p50_ms),
            p99_ms: median(|each| each.p99_ms),
            p99_9_ms: median(|each| each.p99_9_ms),
            max_ms: median(|each| each.max_ms),
        }
    }

    /// The middle one of the ratios to `other`, round by round.
    fn ratio_to(&self, other: &Self) -> f64 {
        let pairs = self.rounds.iter().zip(&other.rounds);
        let mut ratios: Vec<f64> = pairs
            .map(|(one, other)| one.requests_per_second / other.requests_per_second)
            .collect();
        ratios.sort_by(f64::total_cmp);
        ratios.get(ratios.len() / 2).copied().unwrap_or(f64::NAN)
    }
}

/// All rows of a run.
pub(crate) struct Report {
    pub(crate) rows: Vec<Row>,
}

impl Report {
    pub(crate) fn new() -> Self {
        Self { rows: Vec::new() }
    }

    /// Prints the table, and writes it into the directory.
    pub(crate) fn write(&self, directory: &Path) -> Result<(), Box<dyn Error>> {
        let text = self.markdown()?;
        std::io::stdout().write_all(text.as_bytes())?;
        let path = directory.join("throughput.md");
        std::fs::write(&path, text)?;
        writeln!(std::io::stdout(), "\nwritten to {}", path.display())?;
        Ok(())
    }

    fn markdown(&self) -> Result<String, Box<dyn Error>> {
        let mut text = String::new();
        writeln!(text, "{}\n", conditions()?)?;
        writeln!(
            text,
            "| widgets | peer | load | requests/s | of do nothing | p50 ms | p99 ms | p99.9 ms | max ms |"
        )?;
        writeln!(text, "|---|---|---|---|---|---|---|---|---|")?;
        for row in &self.rows {
            let Figures {
                requests_per_second,
                p50_ms,
                p99_ms,
                p99_9_ms,
                max_ms,
            } = row.median();
            let load = match row.offered_per_second {
                Some(rate) => format!("{}, open loop at {rate:.0}/s", row.workload.as_str()),
                None => format!("{}, closed loop", row.workload.as_str()),
            };
            // Only the same requests compare.
            let nothing = self.rows.iter().find(|each| {
                each.peer == "do nothing"
                    && each.widgets == row.widgets
                    && each.workload == row.workload
                    && row.offered_per_second.is_none()
            });
            let ratio =
                nothing.map_or_else(String::new, |other| format!("{:.2}", row.ratio_to(other)));
            writeln!(
                text,
                "| {} | {} | {load} | {requests_per_second:.0} | {ratio} | {p50_ms:.2} | {p99_ms:.2} | \
                 {p99_9_ms:.2} | {max_ms:.1} |",
                row.widgets, row.peer
            )?;
        }
        Ok(text)
    }
}

/// What the figures were taken with.
fn conditions() -> Result<String, Box<dyn Error>> {
    let cpu = std::fs::read_to_string("/proc/cpuinfo")?;
    let processor = cpu
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
        .map_or("an unknown processor", |(_, name)| name);
    let cores = std::thread::available_parallelism()?;
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    Ok(format!(
        "`cargo run --release -p widgets-bench -- {}`, commit {}, {cores} cores of {processor}, Linux \
         {}; the client is on the same cores. Medians over the rounds.",
        arguments.join(" "),
        commit(),
        kernel.trim(),
    ))
}

fn commit() -> String {
    let output = Command::new("git")
        .args(["describe", "--always", "--dirty"])
        .stderr(Stdio::null())
        .output();
    match output {
        Ok(output) if output.status.success() => {
            String::from_utf8_lossy(&output.stdout).trim().to_owned()
        }
        _ => "unknown".into(),
    }
}
