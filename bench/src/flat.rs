//! `widgets-bench flat`: whether an operation costs more when there are more widgets.
//!
//! Operations come in pairs that undo each other, so that the store keeps its size during the
//! measurement. They touch all widgets of the dataset, or of a part of it if it is large.

use crate::{
    load::{Dataset, Figures, Run, Times, Workload, median},
    report::{Output, Table, number, say},
    store,
};
use std::{error::Error, time::Duration};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// How many widgets the store holds, with half as many associations; the first number is the
    /// baseline.
    #[arg(long, value_delimiter = ',', default_value = "10000,10000000")]
    sizes: Vec<u64>,
    /// How many turns each size has.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// How long a turn is measured, in seconds, after one second of warm-up.
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// How many connections the client has.
    #[arg(long, default_value_t = 64)]
    connections: u32,
    #[command(flatten)]
    store: store::Choice,
    #[command(flatten)]
    output: Output,
}

const PAIRS: [(Workload, [&str; 2]); 2] = [
    (Workload::Widgets, ["add_widget", "remove_widget"]),
    (
        Workload::Associations,
        ["associate_widgets", "remove_association"],
    ),
];

pub(crate) fn run(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    let directory = arguments.output.directory()?;
    let duration = Duration::from_secs(arguments.seconds);
    let parts = arguments.rounds * PAIRS.len();
    // A large store is made once, and each turn uses a different part of it; a small one is made anew
    // for each turn.
    let is_large = |widgets: u64| widgets / parts as u64 >= 100_000;
    let store = arguments.store.open(&directory, None)?;
    let mut large = Vec::new();
    for &widgets in arguments.sizes.iter().filter(|&&widgets| is_large(widgets)) {
        large.push((widgets, store.serve(widgets)?));
    }
    let mut measured: Vec<Vec<Vec<Figures>>> =
        vec![vec![Vec::new(); PAIRS.len()]; arguments.sizes.len()];
    for round in 0..arguments.rounds {
        for (pair, &(workload, kinds)) in PAIRS.iter().enumerate() {
            for (size, &widgets) in arguments.sizes.iter().enumerate() {
                let run = Run::closed(workload, arguments.connections, duration);
                let dataset = |part, parts| {
                    Some(Dataset {
                        widgets,
                        part,
                        parts,
                    })
                };
                let kept = large.iter().find(|&&(each, _)| each == widgets);
                let figures = if let Some((_, peer)) = kept {
                    let dataset = dataset(round * PAIRS.len() + pair + 1, parts);
                    Run { dataset, ..run }.on(peer, &directory)?
                } else {
                    let peer = store.serve(widgets)?;
                    let dataset = dataset(1, 1);
                    Run { dataset, ..run }.on(&peer, &directory)?
                };
                let [one, other] = kinds.map(|kind| number(figures.of(kind).p99));
                say(&format!(
                    "round {}: {widgets:>10} widgets, {}: {}/s, p99 {one} and {other} ms",
                    round + 1,
                    workload.as_str(),
                    number(figures.requests_per_second),
                ))?;
                measured[size][pair].push(figures);
            }
        }
    }
    let mut table = Table::new(&[
        "operation",
        "widgets",
        "of both requests/s",
        "ratio",
        "p50 ms",
        "p99 ms",
        "ratio of p99",
    ]);
    for (pair, (_, kinds)) in PAIRS.iter().enumerate() {
        for kind in kinds {
            for (size, &widgets) in arguments.sizes.iter().enumerate() {
                let (here, first) = (&measured[size][pair], &measured[0][pair]);
                let middle = |figure: &dyn Fn(&Figures) -> f64| median(here.iter().map(figure));
                let ratio = |figure: &dyn Fn(&Figures) -> f64| {
                    let pairs = here.iter().zip(first);
                    median(pairs.map(|(here, first)| figure(here) / figure(first)))
                };
                let rate = |figures: &Figures| figures.requests_per_second;
                let time = |pick: fn(Times) -> f64| move |figures: &Figures| pick(figures.of(kind));
                table.row([
                    (*kind).to_owned(),
                    number(widgets as f64),
                    number(middle(&rate)),
                    number(ratio(&rate)),
                    number(middle(&time(|times| times.p50))),
                    number(middle(&time(|times| times.p99))),
                    number(ratio(&time(|times| times.p99))),
                ]);
            }
        }
    }
    let method = format!(
        "{}, half as many associations as widgets. Closed loop, {} connections; an \
         operation and the one that undoes it by turns, on all of the store; {} alternating rounds of \
         {} s. Medians; ratios to the first size are medians of the rounds' ratios.",
        arguments.store.name(),
        arguments.connections,
        arguments.rounds,
        arguments.seconds
    );
    let name = format!("flat{}", arguments.store.suffix());
    table.write(&directory, &name, &method, &[])
}
