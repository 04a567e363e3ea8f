//! `widgets-bench builds`: compares the throughput of two builds.
//!
//! The two programs take turns on copies of one store, so that drift of the machine affects both
//! equally.

use crate::{
    load::{Figures, Run, Workload, median},
    peer::{self, Peer, generate, sibling},
    report::{Output, Table, number, say},
};
use std::{
    error::Error,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The program to compare with the `widgets` in this program's folder.
    #[arg(value_name = "PROGRAM")]
    other: PathBuf,
    /// How many widgets the store holds, with half as many associations.
    #[arg(long, default_value_t = 10_000_000)]
    widgets: u64,
    /// How many turns each program has.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// How long a turn is measured, in seconds, after one second of warm-up.
    #[arg(long, default_value_t = 3)]
    seconds: u64,
    /// How many connections the client has; each number is measured in turn.
    #[arg(long, value_delimiter = ',', default_value = "64,256")]
    connections: Vec<u32>,
    #[command(flatten)]
    output: Output,
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    let directory = arguments.output.directory()?;
    let made = directory.join("builds");
    generate(&made, arguments.widgets)?;
    let programs = [sibling("widgets")?, arguments.other.clone()];
    let mut figures = vec![[Vec::new(), Vec::new()]; arguments.connections.len()];
    for round in 0..arguments.rounds {
        // The program that goes first in one round goes last in the next.
        for turn in [round % 2, 1 - round % 2] {
            let data_dir = copied(&made)?;
            let peer = Peer::of_build(&programs[turn], &data_dir)?;
            for (&connections, all) in arguments.connections.iter().zip(&mut figures) {
                let duration = Duration::from_secs(arguments.seconds);
                let measured =
                    Run::closed(Workload::Adds, connections, duration).on(&peer, &directory)?;
                say(&format!(
                    "round {}: {}, {connections} connections: {}/s",
                    round + 1,
                    programs[turn].display(),
                    number(measured.requests_per_second),
                ))?;
                all[turn].push(measured);
            }
        }
    }
    let mut table = Table::new(&[
        "connections",
        "adds/s",
        "of the other's",
        "least",
        "most",
        "the other's adds/s",
        "p99 ms",
        "the other's",
    ]);
    for (connections, [here, other]) in arguments.connections.iter().zip(&figures) {
        let rate = |figures: &Figures| figures.requests_per_second;
        let ratios = || here.iter().map(rate).zip(other.iter().map(rate));
        let ratios = || ratios().map(|(here, other)| here / other);
        table.row([
            connections.to_string(),
            number(median(here.iter().map(rate))),
            number(median(ratios())),
            number(ratios().fold(f64::INFINITY, f64::min)),
            number(ratios().fold(0.0, f64::max)),
            number(median(other.iter().map(rate))),
            number(median(here.iter().map(|each| each.latency.p99))),
            number(median(other.iter().map(|each| each.latency.p99))),
        ]);
    }
    let method = format!(
        "Embedded store of {} widgets, half as many associations; additions in closed loop. {} alternating rounds \
         of {} s for each number of connections, on copies of one store. Medians; ratios are those of the rounds. \
         The other: {}.",
        number(arguments.widgets as f64),
        arguments.rounds,
        arguments.seconds,
        programs[1].display(),
    );
    table.write(&directory, "builds", &method, &[])
}

/// Copies a store, replacing an earlier copy, and returns the path of the copy.
fn copied(made: &Path) -> Result<PathBuf, Box<dyn Error>> {
    let copy = made.with_extension("copy");
    if copy.exists() {
        std::fs::remove_dir_all(&copy)?;
    }
    peer::run(Command::new("cp").arg("-a").arg(made).arg(&copy))?;
    Ok(copy)
}
