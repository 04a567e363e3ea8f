//! `widgets-bench builds`: compares two builds: their throughput, and the CPU time of an addition.
//!
//! Both programs run for the whole time, each on a copy of one store, and take short turns, so that
//! drift of the machine affects both equally. The program whose turn it is not has nothing to do.

use crate::{
    load::{Run, Turn, Workload, median},
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
    /// The program to compare with the `widgets` in this program's folder. Comparing a program with
    /// itself shows how far a difference can be trusted.
    #[arg(value_name = "PROGRAM")]
    other: PathBuf,
    /// How many widgets the store holds, with half as many associations.
    #[arg(long, default_value_t = 10_000_000)]
    widgets: u64,
    /// How many turns each program has.
    #[arg(long, default_value_t = 20)]
    rounds: usize,
    /// How long a turn is measured, in seconds, after half a second of warm-up.
    #[arg(long, default_value_t = 1)]
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
    let copies = [copied(&made, "here")?, copied(&made, "other")?];
    let peers = [
        Peer::of_build(&programs[0], &copies[0])?,
        Peer::of_build(&programs[1], &copies[1])?,
    ];
    let mut turns = vec![[Vec::new(), Vec::new()]; arguments.connections.len()];
    for round in 0..arguments.rounds {
        for (&connections, all) in arguments.connections.iter().zip(&mut turns) {
            let run = Run {
                warm_up: Duration::from_millis(500),
                ..Run::closed(
                    Workload::Adds,
                    connections,
                    Duration::from_secs(arguments.seconds),
                )
            };
            // The program that goes first in one round goes last in the next.
            for which in [round % 2, 1 - round % 2] {
                let turn = Turn::of(&run, &peers[which], &directory)?;
                say(&format!(
                    "round {}: {}, {connections} connections: {}/s, {} microseconds",
                    round + 1,
                    programs[which].display(),
                    number(turn.figures.requests_per_second),
                    number(turn.micros),
                ))?;
                all[which].push(turn);
            }
        }
    }
    let mut table = Table::new(&[
        "connections",
        "adds/s",
        "the other's",
        "of the other's",
        "middle half of the rounds",
        "CPU time of an add, us",
        "the other's",
        "more than the other's, us",
        "p99 ms",
        "the other's",
    ]);
    for (connections, turns) in arguments.connections.iter().zip(&turns) {
        table.row(row(*connections, turns));
    }
    let method = format!(
        "Embedded store of {} widgets, half as many associations; additions in closed loop. {} alternating rounds \
         of {} s for each number of connections, on copies of one store. Medians; ratios and differences are those \
         of the rounds. The other: {}.",
        number(arguments.widgets as f64),
        arguments.rounds,
        arguments.seconds,
        programs[1].display(),
    );
    table.write(&directory, "builds", &method, &[])
}

fn row(connections: u32, [here, other]: &[Vec<Turn>; 2]) -> [String; 10] {
    let rate = |turn: &Turn| turn.figures.requests_per_second;
    let each = |pick: fn(&Turn) -> f64| [here, other].map(|turns| median(turns.iter().map(pick)));
    let pairs = || here.iter().zip(other);
    let mut ratios: Vec<f64> = pairs()
        .map(|(here, other)| rate(here) / rate(other))
        .collect();
    ratios.sort_by(f64::total_cmp);
    let quarter = ratios.len() / 4;
    let middle = &ratios[quarter..ratios.len() - quarter];
    let between = match (middle.first(), middle.last()) {
        (Some(&least), Some(&most)) => format!("{} to {}", number(least), number(most)),
        _ => String::new(),
    };
    let more = pairs().map(|(here, other)| here.micros - other.micros);
    let more = median(more);
    let rates = each(rate);
    let micros = each(|turn| turn.micros);
    let p99 = each(|turn| turn.figures.latency.p99);
    [
        connections.to_string(),
        number(rates[0]),
        number(rates[1]),
        number(median(ratios.iter().copied())),
        between,
        number(micros[0]),
        number(micros[1]),
        number(more),
        number(p99[0]),
        number(p99[1]),
    ]
}

/// Copies a store, replacing an earlier copy, and returns the path of the copy.
fn copied(made: &Path, name: &str) -> Result<PathBuf, Box<dyn Error>> {
    let copy = made.with_extension(name);
    if copy.exists() {
        std::fs::remove_dir_all(&copy)?;
    }
    peer::run(Command::new("cp").arg("-a").arg(made).arg(&copy))?;
    Ok(copy)
}
