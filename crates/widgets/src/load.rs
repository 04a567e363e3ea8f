//! `widgets load`: measures a running service, and proves that its answers are right.

mod together;

pub(crate) use together::check;

use crate::{Misuse, Outcome};
use clap::Subcommand;
use std::{
    io::{IsTerminal as _, Write as _},
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};
use widgets_files::read_short;
use widgets_load::{
    Objective, Protocol, TargetSettings,
    dataset::Dataset,
    mix::{self, Mix},
    os_error::explain,
    quantity,
    report::Report,
    run::{Plan, Rate},
    session::{Settings, fresh_run_name},
    shown_lines,
};

const EXAMPLES: &str = "\
Examples:
  widgets load http://127.0.0.1:3000 --rate 5000 --duration 1m --html report.html
  widgets load http://127.0.0.1:3000 --rate max --connections 256
  widgets load http://127.0.0.1:3000 --find-max --slo 'p99<10ms' --html curve.html
  widgets load http://127.0.0.1:3000 --rate 2000 --json now.json --fail-if 'p99>20ms'
  widgets load compare before.json now.json

Exit codes: 0 every answer was right, everything acknowledged was found, and no --fail-if came true; 1 \
otherwise, or if the run was not possible: standard error says why; 2 the command line or another input is \
wrong.";

/// The command line of `widgets load`.
#[derive(clap::Args)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "flags of a command line are what they are"
)]
#[command(
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    after_help = EXAMPLES
)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    /// The URL of the server: http:// (may be omitted) or https://, a host, and optionally a port and a
    /// path that precedes every route. All addresses of a host name are used.
    #[arg(required = true)]
    url: Option<String>,

    /// Requests per second, such as 2500 or 5k. With `max` the load is closed loop: each lane sends its next request as soon
    /// as the last one is answered.
    #[arg(long, default_value = "1000", help_heading = "Load")]
    rate: Rate,
    /// Space requests by exponentially distributed gaps (Poisson arrivals) instead of evenly.
    #[arg(long, help_heading = "Load")]
    poisson: bool,
    /// How long to send requests.
    #[arg(long, default_value = "30s", value_parser = quantity::time, help_heading = "Load")]
    duration: Duration,
    /// How many requests to send at most.
    #[arg(long, value_parser = count, help_heading = "Load")]
    requests: Option<u64>,
    /// How long to send load before the measurement begins. Its answers are checked, but not measured.
    #[arg(long, default_value = "2s", value_parser = quantity::time, help_heading = "Load")]
    warm_up: Duration,
    /// How many connections to use. They are kept alive.
    #[arg(long, default_value = "64", value_parser = number, help_heading = "Load")]
    connections: usize,
    /// How many threads send and receive.
    #[arg(long, default_value = "1", value_parser = number, help_heading = "Load")]
    workers: usize,
    /// How often each kind of request is sent: add, remove, associate, dissociate, lookup and list, as in
    /// add=40,lookup=50,list=10.
    #[arg(long, default_value_t = Mix::default(), help_heading = "Load")]
    mix: Mix,
    /// The share of requests that are meant to be refused. Each refusal is predicted.
    #[arg(long, default_value = "5%", value_parser = mix::share, help_heading = "Load")]
    conflicts: f64,
    /// The dataset in the server, as printed by `widgets generate`. Operations and lookups then use all
    /// of it. A run changes the dataset, so a second run needs a fresh one or another part.
    #[arg(long, help_heading = "Load")]
    dataset: Option<Dataset>,
    /// Use only this part of the dataset, such as 1/4 to 4/4, so that several runs can share it.
    #[arg(long, default_value = "1/1", value_parser = part, help_heading = "Load")]
    dataset_part: (u32, u32),
    /// The seed of the random choices.
    #[arg(long, default_value_t = 1, help_heading = "Load")]
    seed: u64,
    /// The prefix of the serial numbers that the run adds. By default, every run has a new one.
    #[arg(long, help_heading = "Load")]
    run: Option<String>,

    /// Use HTTP/2: over https by ALPN, over http with prior knowledge.
    #[arg(long, help_heading = "Connection")]
    http2: bool,
    /// How many requests are in flight on each HTTP/2 connection.
    #[arg(long, default_value = "1", value_parser = number, help_heading = "Connection")]
    streams: usize,
    /// A file with the bearer token to send with every request.
    #[arg(long, value_name = "FILE", help_heading = "Connection")]
    token_file: Option<PathBuf>,
    /// The bearer token itself. Other users of the machine can read flags, so prefer the variable or a file.
    #[arg(
        long,
        env = "WIDGETS_TOKEN",
        hide_env_values = true,
        help_heading = "Connection"
    )]
    token: Option<String>,
    /// Trust the certificates in this PEM file instead of the system's.
    #[arg(long, value_name = "FILE", help_heading = "Connection")]
    ca: Option<PathBuf>,
    /// Trust any certificate.
    #[arg(long, help_heading = "Connection")]
    insecure: bool,
    /// How long to wait for an answer. After that the request is given up, and its fate is unknown.
    #[arg(long, default_value = "10s", value_parser = quantity::time, help_heading = "Connection")]
    timeout: Duration,

    /// How many widgets to read back at the end: a number, `all` or `none`.
    #[arg(long, default_value = "100000", help_heading = "Check")]
    audit: Audit,
    /// How many of the widgets that it added the run remembers for the audit, at 16 bytes each. Older
    /// ones are forgotten, and the report says how many.
    #[arg(long, default_value = "10M", value_parser = count, help_heading = "Check")]
    audit_widgets_max: u64,
    /// Carry on while the server is killed and restarted, and check it afterwards.
    #[arg(long, help_heading = "Check")]
    during_crash: bool,
    /// Send each operation with an Idempotency-Key, and retry it for up to a minute if its fate is
    /// unknown, so that every fate becomes known, even across crashes.
    #[arg(long, help_heading = "Check")]
    idempotency_keys: bool,
    /// Follow the feed of changes during the run, even across crashes, and compare it with the answers: it must contain
    /// every acknowledged operation once, in an order that explains every answer, and nothing else.
    #[arg(long, help_heading = "Check")]
    follow_changes: bool,
    /// How long the audit may take, including the time that the server needs to recover.
    #[arg(long, default_value = "10m", value_parser = quantity::time, help_heading = "Check")]
    audit_timeout: Duration,
    /// Exit with 1 if this is true of the measurement: a bound on p50, p90, p99, p99.9, p99.99, mean,
    /// max, rate or errors, such as `p99>10ms` or `errors>0.1%`. May be repeated.
    #[arg(long, value_name = "OBJECTIVE", help_heading = "Check")]
    fail_if: Vec<Objective>,

    /// Search for the highest rate at which every --slo holds.
    #[arg(long, help_heading = "Search")]
    find_max: bool,
    /// An objective that must hold, such as `p99<10ms`. May be repeated.
    #[arg(long, value_name = "OBJECTIVE", help_heading = "Search")]
    slo: Vec<Objective>,
    /// How long to try each rate.
    #[arg(long, default_value = "10s", value_parser = quantity::time, help_heading = "Search")]
    step: Duration,

    /// Write the report as a single HTML file.
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    html: Option<PathBuf>,
    /// Write the report as JSON, for `widgets load compare` and for programs.
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    json: Option<PathBuf>,
    /// Write the latency histogram of every interval, in the log format of `HdrHistogram`.
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    hdr: Option<PathBuf>,
    /// Push live metrics to the VictoriaMetrics at this URL, such as `http://127.0.0.1:8428`.
    #[arg(long, value_name = "URL", help_heading = "Output")]
    push: Option<String>,
    /// Add this label to the report, such as commit=abc123. May be repeated.
    #[arg(long, value_name = "NAME=VALUE", value_parser = label, help_heading = "Output")]
    label: Vec<(String, String)>,
    /// How much time each point of the timeline covers.
    #[arg(long, default_value = "500ms", value_parser = quantity::time, help_heading = "Output")]
    interval: Duration,
    /// Print plain lines even on a terminal.
    #[arg(long, help_heading = "Output")]
    plain: bool,
}

#[derive(Subcommand)]
enum Command {
    /// Says whether two reports differ by more than chance.
    Compare {
        /// The report to compare with, as written by --json.
        before: PathBuf,
        /// The report to compare, as written by --json.
        after: PathBuf,
    },
}

/// How much is read back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Audit {
    All,
    Widgets(u64),
    None,
}

impl std::str::FromStr for Audit {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "all" => Ok(Self::All),
            "none" => Ok(Self::None),
            _ => quantity::count(text)
                .map(Self::Widgets)
                .ok_or_else(|| format!("must be a number, `all` or `none`, `{text}` was given")),
        }
    }
}

fn count(text: &str) -> Result<u64, String> {
    quantity::count(text)
        .ok_or_else(|| format!("must be a whole number, as in `5000` or `10M`, `{text}` was given"))
}

fn number(text: &str) -> Result<usize, String> {
    let number = usize::try_from(count(text)?);
    number.map_err(|_| format!("must be at most {}, `{text}` was given", usize::MAX))
}

/// Parses `PART/PARTS`, counted from 1; the returned part is counted from 0.
fn part(text: &str) -> Result<(u32, u32), String> {
    let wrong = || format!("must be PART/PARTS with PART from 1 to PARTS, `{text}` was given");
    let (part, parts) = text.split_once('/').ok_or_else(wrong)?;
    let number = |text: &str| text.parse::<u32>().map_err(|_| wrong());
    let (part, parts) = (number(part)?, number(parts)?);
    if !(1..=parts).contains(&part) {
        return Err(wrong());
    }
    Ok((part - 1, parts))
}

fn label(text: &str) -> Result<(String, String), String> {
    let (name, value) = text
        .split_once('=')
        .ok_or_else(|| format!("must be NAME=VALUE, `{text}` was given"))?;
    Ok((name.into(), value.into()))
}

pub(crate) fn run(arguments: Arguments) -> Outcome {
    if let Some(Command::Compare { before, after }) = &arguments.command {
        let comparison =
            widgets_load::compare::compare(&Report::read(before)?, &Report::read(after)?);
        let comparison = comparison.to_string();
        write!(std::io::stdout(), "{}", shown_lines(&comparison))?;
        return Ok(ExitCode::SUCCESS);
    }
    let plan = plan(arguments).map_err(Misuse)?;
    let report = widgets_load::run::run(plan)?;
    // The report contains wrong answers exactly as they were received.
    let told = report.to_string();
    write!(std::io::stdout(), "{}", shown_lines(&told))?;
    let passed = report.failures.is_empty();
    Ok(if passed {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn plan(arguments: Arguments) -> Result<Plan, String> {
    // Clap requires it unless there is a subcommand.
    let url = arguments.url.ok_or("the URL is missing")?;
    // A flag takes precedence over a variable, and only WIDGETS_TOKEN can be set as well.
    let token = match &arguments.token_file {
        Some(path) => {
            let what = format!("reading the token in {}", path.display());
            let token = read_short(path).and_then(crate::config::text);
            let token = token.map_err(|error| explain(&what, &error))?;
            Some(token.trim().to_owned())
        }
        None => arguments.token,
    };
    let session = Settings {
        target: TargetSettings {
            url,
            protocol: if arguments.http2 {
                Protocol::Http2
            } else {
                Protocol::Http1
            },
            // A deployment may pass on a variable that nobody has set.
            token: token.filter(|token| !token.is_empty()),
            ca: arguments.ca,
            insecure: arguments.insecure,
        },
        workers: arguments.workers,
        connections: arguments.connections,
        streams: arguments.streams,
        mix: arguments.mix,
        conflicts: arguments.conflicts,
        dataset: arguments
            .dataset
            .map(|dataset| (dataset, arguments.dataset_part)),
        run: arguments.run.unwrap_or_else(fresh_run_name),
        seed: arguments.seed,
        timeout: arguments.timeout,
        audit_widgets_max: arguments.audit_widgets_max,
        interval: arguments.interval,
        during_crash: arguments.during_crash,
        idempotency_keys: arguments.idempotency_keys,
        follow_changes: arguments.follow_changes,
    };
    Ok(Plan {
        session,
        rate: arguments.rate,
        poisson: arguments.poisson,
        duration: arguments.duration,
        requests: arguments.requests,
        warm_up: arguments.warm_up,
        audit: match arguments.audit {
            Audit::All => Some(None),
            Audit::Widgets(number) => Some(Some(number)),
            Audit::None => None,
        },
        audit_timeout: arguments.audit_timeout,
        fail_if: arguments.fail_if,
        objectives: arguments.slo,
        step: arguments.step,
        html: arguments.html,
        json: arguments.json,
        hdr: arguments.hdr,
        push: arguments.push,
        labels: arguments.label,
        terminal: !arguments.plain && std::io::stdout().is_terminal(),
    })
}
