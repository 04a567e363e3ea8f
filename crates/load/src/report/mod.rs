//! The report: all settings, measurements and findings, as data, text and HTML.

mod html;
mod objectives;
mod plot;
mod text;

use crate::{
    audit::Findings,
    clock::unix_time,
    error::Error,
    feed::FeedFindings,
    mix::Kind,
    objective::Objective,
    os_error::explain,
    output::{Existing, Output},
    schedule::Arrivals,
    session::{Point, Stretch},
    stats::{Measured, Percentiles},
};
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    fs,
    io::{self, Write as _},
    path::Path,
    time::Duration,
};
use widgets_files::read_at_most;

/// The version of the JSON format.
const FORMAT: u32 = 1;

/// The size limit when reading a report. Real reports are far smaller.
const BYTES_MAX: u64 = 64 << 20;

/// The report of a whole run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// The version of the format.
    pub format: u32,
    /// The version of `widgets` that wrote it.
    pub version: String,
    /// When the run ended, in seconds since the Unix epoch.
    pub ended_at_unix_seconds: u64,
    /// The machine on which the generator ran.
    pub host: Host,
    /// Every setting, by its name on the command line.
    pub settings: Vec<(String, String)>,
    /// The labels that the user gave the run.
    pub labels: Vec<(String, String)>,
    /// The measured stretches of load: one, or those of a search.
    pub stretches: Vec<StretchReport>,
    /// The result of a search for the highest rate.
    pub search: Option<Search>,
    /// The findings of the audit, if there was one.
    pub audit: Option<Findings>,
    /// The findings from the feed of changes, if it was followed.
    #[serde(default)]
    pub changes: Option<FeedFindings>,
    /// Remarks that a reader of the figures should know.
    pub remarks: Vec<String>,
    /// Why the run failed. Empty if it did not.
    pub failures: Vec<String>,
}

/// A machine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Host {
    /// The number of processors that the generator may use.
    pub cores: usize,
    /// The processor's name, as far as the system reveals it.
    pub processor: String,
    /// Memory in MiB.
    pub memory_mib: u64,
    /// The kernel's version.
    pub kernel: String,
}

impl Host {
    /// Describes this machine.
    #[must_use]
    pub fn this() -> Self {
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        let line = |text: &str, key: &str| {
            let line = text.lines().find(|line| line.starts_with(key));
            let value = line.and_then(|line| line.split_once(':'));
            value.map_or(String::new(), |(_, value)| value.trim().to_owned())
        };
        let memory = line(&read("/proc/meminfo"), "MemTotal");
        let kib = memory
            .split(' ')
            .next()
            .and_then(|number| number.parse::<u64>().ok());
        Self {
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            processor: line(&read("/proc/cpuinfo"), "model name"),
            memory_mib: kib.unwrap_or_default() / 1024,
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
        }
    }
}

/// A stretch of load at one rate.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StretchReport {
    /// How requests arrived; closed loop if there is no rate.
    #[serde(flatten)]
    pub arrivals: ArrivalsReport,
    /// How long it took until the last answer.
    pub seconds: f64,
    /// Completed requests.
    pub requests: u64,
    /// Completed requests per second.
    pub requests_per_second: f64,
    /// Requests that were due but never sent.
    pub unsent: u64,
    /// Requests that the service failed: 503, no answer, no connection.
    pub errors: u64,
    /// Answers that the rules do not allow.
    pub wrong: u64,
    /// How often a connection was opened in place of an earlier one.
    pub reconnects: u64,
    /// Requests that were sent again with their keys because their fate was unknown.
    #[serde(default)]
    pub retries: u64,
    /// How often a lane moved to the address that a standby named as its primary (WG507).
    #[serde(default)]
    pub moves: u64,
    /// The last of those addresses.
    #[serde(default)]
    pub moved_to: Option<String>,
    /// CPU time of the generator, in seconds.
    pub generator_cpu_seconds: f64,
    /// Time from when a request was due to its answer.
    pub latency: Percentiles,
    /// Time from sending a request to its answer.
    pub service: Percentiles,
    /// Time from sending a request to an answer that turned it away: nothing was applied, for a
    /// reason that no rule predicts, such as overload. Not included in the two above.
    #[serde(default)]
    pub turned_away: Percentiles,
    /// How long due requests waited for a free lane.
    pub wait: Percentiles,
    /// How late the generator was.
    pub lag: Percentiles,
    /// Each kind of request that was sent.
    pub kinds: BTreeMap<String, KindReport>,
    /// Points of the distributions, in equal steps towards 100 %.
    pub distribution: Vec<DistributionPoint>,
    /// The timeline.
    pub points: Vec<Point>,
    /// Why it ended early, if it did.
    pub ended_early: Option<String>,
    /// The first wrong answers as text.
    pub wrong_examples: Vec<String>,
}

/// How requests arrived.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ArrivalsReport {
    /// `constant`, `poisson` or `closed`.
    pub arrivals: String,
    /// How many requests were due per second. `None` in closed loop.
    pub offered_per_second: Option<f64>,
}

impl From<Arrivals> for ArrivalsReport {
    fn from(arrivals: Arrivals) -> Self {
        let name = match arrivals {
            Arrivals::Constant(_) => "constant",
            Arrivals::Poisson(_) => "poisson",
            Arrivals::Closed => "closed",
        };
        Self {
            arrivals: name.into(),
            offered_per_second: arrivals.rate(),
        }
    }
}

/// One kind of request.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct KindReport {
    /// Its latency.
    pub latency: Percentiles,
    /// How many requests had each outcome.
    pub outcomes: BTreeMap<String, u64>,
}

/// A point of the latency's distribution.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct DistributionPoint {
    /// The share of requests that took no longer, from 0 to 1.
    pub quantile: f64,
    /// That latency.
    pub latency_us: f64,
    /// The service time of the same share of requests.
    pub service_us: f64,
}

/// The result of a search for the highest rate.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Search {
    /// The objectives.
    pub objectives: Vec<Objective>,
    /// The highest rate at which they held, if there was one.
    pub rate_per_second: Option<f64>,
    /// Whether they held in each of the report's stretches.
    pub held: Vec<bool>,
}

impl StretchReport {
    /// Summarises a stretch.
    #[must_use]
    pub fn new(arrivals: Arrivals, stretch: Stretch) -> Self {
        let total = &stretch.total;
        let latency = total.latency();
        let seconds = stretch.elapsed.as_secs_f64();
        let kinds = Kind::ALL.into_iter().filter_map(|kind| {
            let outcomes = total.outcomes_of(kind);
            let report = KindReport {
                latency: Percentiles::from(&total.latency[kind.index()]),
                outcomes,
            };
            (!report.outcomes.is_empty()).then(|| (kind.as_str().to_owned(), report))
        });
        Self {
            arrivals: arrivals.into(),
            seconds,
            requests: total.requests(),
            requests_per_second: total.requests() as f64 / seconds.max(1e-9),
            unsent: stretch.unsent,
            errors: total.errors(),
            wrong: total.wrong,
            reconnects: total.reconnects,
            retries: total.retries,
            moves: total.moves,
            moved_to: total.moved_to.clone(),
            generator_cpu_seconds: stretch.cpu.as_secs_f64(),
            latency: Percentiles::from(&latency),
            service: Percentiles::from(&total.service),
            turned_away: Percentiles::from(&total.turned_away),
            wait: Percentiles::from(&total.wait),
            lag: Percentiles::from(&total.lag),
            kinds: kinds.collect(),
            distribution: distribution(&latency, total),
            points: stretch.points,
            ended_early: stretch.ended_early.map(|why| why.text()),
            wrong_examples: stretch.examples,
        }
    }

    /// Describes what limited this stretch other than the server.
    #[must_use]
    pub fn remarks(&self, workers: usize, lanes: usize) -> Vec<String> {
        let mut remarks = Vec::new();
        let (lag, latency) = (&self.lag, &self.latency);
        // The generator's lateness is part of every latency. From a tenth on it is no longer
        // negligible.
        if self.arrivals.offered_per_second.is_some()
            && lag.p99_us > 1000.0
            && lag.p99_us > latency.p99_us / 10.0
        {
            remarks.push(format!(
                "The generator was a bottleneck: with a lane free it sent 1 % of the requests {:.1} ms \
                 late or more, which is part of the latencies. Use more --workers, or another machine.",
                lag.p99_us / 1e3
            ));
        }
        let busy = self.generator_cpu_seconds / self.seconds.max(1e-9) / workers as f64;
        if busy > 0.95 {
            let percent = busy * 100.0;
            remarks.push(format!(
                "The generator was a bottleneck: its {workers} worker(s) were busy {percent:.0} % \
                 of the time. Use more --workers, or another machine."
            ));
        }
        if self.arrivals.offered_per_second.is_some()
            && self.wait.p99_us > latency.p99_us / 2.0
            && self.wait.p99_us > 1000.0
        {
            remarks.push(format!(
                "All {lanes} lanes were busy: 1 % of the requests waited {:.1} ms or more for one. \
                 Either the server is past its limit, or more --connections are needed.",
                self.wait.p99_us / 1e3
            ));
        }
        if self.unsent > 0 {
            remarks.push(format!(
                "{} requests were due and never sent; they are not in the latencies.",
                self.unsent
            ));
        }
        if let Some(why) = &self.ended_early {
            remarks.push(format!("The load ended early: {why}."));
        }
        remarks
    }
}

/// Returns both distributions at quantiles whose distance to 1 shrinks evenly on a logarithmic
/// scale.
fn distribution(latency: &Histogram<u64>, total: &Measured) -> Vec<DistributionPoint> {
    const STEPS_PER_DECADE: u32 = 20;
    const DECADES: u32 = 5;
    let steps = 0..=STEPS_PER_DECADE * DECADES;
    let quantiles =
        steps.map(|step| 1.0 - 10f64.powf(-f64::from(step) / f64::from(STEPS_PER_DECADE)));
    // There is no data past the last request.
    let last = 1.0 - 1.0 / latency.len().max(1) as f64;
    quantiles
        .take_while(|&quantile| quantile <= last)
        .chain([1.0])
        .map(|quantile| DistributionPoint {
            quantile,
            latency_us: latency.value_at_quantile(quantile) as f64 / 1e3,
            service_us: total.service.value_at_quantile(quantile) as f64 / 1e3,
        })
        .collect()
}

impl Report {
    /// Returns an empty report for this machine and time.
    #[must_use]
    pub fn new(settings: Vec<(String, String)>, labels: Vec<(String, String)>) -> Self {
        Self {
            format: FORMAT,
            version: env!("CARGO_PKG_VERSION").into(),
            ended_at_unix_seconds: unix_time().as_secs(),
            host: Host::this(),
            settings,
            labels,
            stretches: Vec::new(),
            search: None,
            audit: None,
            changes: None,
            remarks: Vec::new(),
            failures: Vec::new(),
        }
    }

    /// Sets the end of the run to now.
    pub fn close(&mut self) {
        self.ended_at_unix_seconds = unix_time().as_secs();
    }

    /// Reads a report that [`Self::write_json`] wrote.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let what = format!("reading the report {}", path.display());
        let text =
            read_at_most(path, BYTES_MAX).map_err(|error| Error::File(explain(&what, &error)))?;
        let wrong = |cause: String| Error::Content {
            what: what.clone(),
            cause,
        };
        let report: Self = serde_json::from_slice(&text)
            .map_err(|error| wrong(format!("it was not written by --json: {}", words(&error))))?;
        if report.format != FORMAT {
            let cause = format!(
                "its format is {}, and this program reads {FORMAT}",
                report.format
            );
            return Err(wrong(cause));
        }
        Ok(report)
    }

    /// Writes the report as JSON.
    pub fn write_json(&self, output: Output) -> Result<(), Error> {
        let json = serde_json::to_vec_pretty(self).map_err(io::Error::from);
        write(json.map_err(|error| error.to_string()), output)
    }

    /// Writes the report as a single, self-contained HTML file.
    pub fn write_html(&self, output: Output) -> Result<(), Error> {
        write(html::page(self).map(String::into_bytes), output)
    }

    /// Returns when the run ended, in RFC 3339 format.
    #[must_use]
    pub fn ended_at(&self) -> String {
        let since = Duration::from_secs(self.ended_at_unix_seconds);
        let time = std::time::UNIX_EPOCH.checked_add(since);
        time.map_or_else(String::new, |time| {
            humantime::format_rfc3339_seconds(time).to_string()
        })
    }
}

/// Returns a parser's message without the names of our types.
fn words(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match text.split_once("expected struct ") {
        Some((before, after)) => {
            let after = after.split_once(' ').map_or("", |(_, after)| after);
            format!("{before}expected an object {after}")
        }
        None => text,
    }
}

/// Begins the file of a report. It gets its name once it is complete.
pub(crate) fn begin(path: &Path) -> Result<Output, Error> {
    let output = Output::create(path, Existing::Replace);
    output.map_err(|cause| Error::File(format!("the report: {cause}")))
}

fn write(content: Result<Vec<u8>, String>, mut output: Output) -> Result<(), Error> {
    let written = content.and_then(|content| {
        let buffered = output.write_all(&content);
        buffered.map_err(|error| output.failed(&error))?;
        output.finish()
    });
    written.map_err(|cause| Error::File(format!("the report: {cause}")))
}

/// Formats a time in microseconds for people: three digits and a unit.
#[must_use]
pub fn time_text(microseconds: f64) -> String {
    let (value, unit) = match microseconds {
        us if us < 999.5 => (us, "µs"),
        us if us < 999_500.0 => (us / 1e3, "ms"),
        us => (us / 1e6, "s"),
    };
    let digits = match value {
        value if value < 9.995 => 2,
        value if value < 99.95 => 1,
        _ => 0,
    };
    format!("{value:.digits$} {unit}")
}

/// Formats a round time in microseconds for an axis, without trailing zeros.
#[must_use]
pub(crate) fn time_tick_text(microseconds: f64) -> String {
    let text = time_text(microseconds);
    match text.split_once(' ') {
        Some((value, unit)) if value.contains('.') => {
            let value = value.trim_end_matches('0').trim_end_matches('.');
            format!("{value} {unit}")
        }
        _ => text,
    }
}

/// Formats a whole number for people, with separated thousands.
#[must_use]
pub fn count_text(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::new();
    for (position, digit) in digits.chars().enumerate() {
        if position > 0 && (digits.len() - position).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Formats a rate for people.
#[must_use]
pub fn rate_text(per_second: f64) -> String {
    if per_second > 0.0 && per_second < 10.0 {
        format!("{per_second:.1}")
    } else {
        count_text(per_second.round() as u64)
    }
}
