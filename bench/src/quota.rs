//! `widgets-bench quota`: latency at a steady rate when CPU time is short, with and without pacing.

use crate::{
    load::{Figures, Run, Times, Workload, median},
    peer::Peer,
    report::{Output, Table, number, say},
};
use std::{
    error::Error,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The service's quota of CPU time in CPUs, as with `docker run --cpus`; 0 for no quota.
    /// Needs permission to make a control group.
    #[arg(long, value_delimiter = ',', default_value = "0.4,0.6,1")]
    quotas: Vec<f64>,
    /// How many requests a second are sent.
    #[arg(long, value_delimiter = ',', default_value = "10000")]
    rates: Vec<f64>,
    /// How many turns each mode has.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// How long a turn is measured, in seconds, after three seconds of warm-up.
    #[arg(long, default_value_t = 8)]
    seconds: u64,
    /// How many connections the client has.
    #[arg(long, default_value_t = 64)]
    connections: u32,
    #[command(flatten)]
    output: Output,
}

const MODES: [&str; 3] = ["never", "always", "auto"];

/// A control group with a quota. Dropping this removes the group, which must be empty by then.
struct Group(PathBuf);

impl Group {
    fn new(quota: f64) -> Result<Self, Box<dyn Error>> {
        let older = Path::new("/sys/fs/cgroup/cpu");
        let is_older = older.join("cgroup.procs").exists();
        let root = if is_older {
            older
        } else {
            Path::new("/sys/fs/cgroup")
        };
        let group = Self(root.join(format!("widgets-bench-{}", std::process::id())));
        let path = &group.0;
        let failed = |error| format!("the control group {}: {error}", path.display());
        if !path.exists() {
            fs::create_dir(path).map_err(failed)?;
        }
        let period = 100_000;
        let quota = (quota * f64::from(period)).round();
        if is_older {
            fs::write(path.join("cpu.cfs_period_us"), period.to_string()).map_err(failed)?;
            fs::write(path.join("cpu.cfs_quota_us"), quota.to_string()).map_err(failed)?;
        } else {
            fs::write(path.join("cpu.max"), format!("{quota} {period}")).map_err(failed)?;
        }
        Ok(group)
    }

    /// Returns in how many periods the group was throttled: it had used its quota and wanted more.
    fn throttled(&self) -> Result<f64, Box<dyn Error>> {
        let stat = fs::read_to_string(self.0.join("cpu.stat"))?;
        let mut lines = stat.lines();
        let count = lines.find_map(|line| line.strip_prefix("nr_throttled "));
        Ok(count.unwrap_or("0").trim().parse()?)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // The last process may not have ended yet.
        for _ in 0..100 {
            if fs::remove_dir(&self.0).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// The figures of one mode at one rate with one quota.
struct Measured {
    figures: Figures,
    throttled: f64,
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    let directory = arguments.output.directory()?;
    let mut table = Table::new(&[
        "processors",
        "requests/s",
        "waits",
        "served/s",
        "mean ms",
        "p50 ms",
        "p99 ms",
        "throttled periods",
    ]);
    for &quota in &arguments.quotas {
        for &rate in &arguments.rates {
            let mut rounds: [Vec<Measured>; 3] = Default::default();
            for _ in 0..arguments.rounds {
                for (mode, measured) in MODES.into_iter().zip(&mut rounds) {
                    measured.push(turn(arguments, &directory, quota, rate, mode)?);
                }
            }
            for (mode, measured) in MODES.into_iter().zip(&rounds) {
                let time = |pick: fn(&Times) -> f64| {
                    median(measured.iter().map(|each| pick(&each.figures.latency)))
                };
                let served = measured.iter().map(|each| each.figures.served_per_second);
                let figures = [
                    median(served),
                    time(|times| times.mean),
                    time(|times| times.p50),
                    time(|times| times.p99),
                    median(measured.iter().map(|each| each.throttled)),
                ];
                let quota = if quota > 0.0 {
                    number(quota)
                } else {
                    "all".into()
                };
                let head = [quota, number(rate), mode.to_owned()];
                let cells: Vec<String> = head.into_iter().chain(figures.map(number)).collect();
                say(&cells.join("  "))?;
                table.row(cells);
            }
        }
    }
    let method = format!(
        "`add_widget` in open loop from {} connections; the service alone within the quota, the client \
         beside it on the same processors. Medians of {} alternating rounds of {} s.",
        arguments.connections, arguments.rounds, arguments.seconds,
    );
    table.write(&directory, "quota", &method, &[])
}

fn turn(
    arguments: &Arguments,
    directory: &Path,
    quota: f64,
    rate: f64,
    mode: &str,
) -> Result<Measured, Box<dyn Error>> {
    let data_dir = directory.join("quota");
    if data_dir.exists() {
        fs::remove_dir_all(&data_dir)?;
    }
    let group = (quota > 0.0).then(|| Group::new(quota)).transpose()?;
    let path = group.as_ref().map(|group| group.0.as_path());
    let peer = Peer::paced(&data_dir, mode, path)?;
    let throttled = || group.as_ref().map_or(Ok(0.0), Group::throttled);
    let before = throttled()?;
    let run = Run {
        warm_up: Duration::from_secs(3),
        audit: false,
        // The report shows how many requests failed, so failures must not end the run.
        overload: true,
        ..Run::closed(
            Workload::Adds,
            arguments.connections,
            Duration::from_secs(arguments.seconds),
        )
    };
    let figures = run.at(rate).on(&peer, directory)?;
    let throttled = throttled()? - before;
    drop(peer);
    Ok(Measured { figures, throttled })
}
