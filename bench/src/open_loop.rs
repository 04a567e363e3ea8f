//! `widgets-bench open-loop`: latency at a steady rate, checkpoints included.

use crate::{
    busy::Busy,
    load::{Dataset, Run, Workload},
    report::{Output, Table, number, say},
    store,
};
use std::{error::Error, time::Duration};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// How many requests a second are sent.
    #[arg(long, default_value_t = 10_000.0)]
    rate: f64,
    /// How long the load runs.
    #[arg(long, default_value = "10m", value_parser = humantime::parse_duration)]
    duration: Duration,
    /// How many widgets the store holds, with half as many associations.
    #[arg(long, default_value_t = 10_000_000)]
    widgets: u64,
    /// How many connections the client has.
    #[arg(long, default_value_t = 64)]
    connections: u32,
    /// Run a second time beside processes of the lowest priority that keep every core out of idle
    /// states: some machines take milliseconds to wake a core.
    #[arg(long)]
    busy: bool,
    #[command(flatten)]
    store: store::Choice,
    #[command(flatten)]
    output: Output,
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    let directory = arguments.output.directory()?;
    let (rate, widgets) = (arguments.rate, arguments.widgets);
    let store = arguments.store.open(&directory, None)?;
    let peer = store.serve(widgets)?;
    let modes: &[_] = if arguments.busy {
        &[(1, "idle"), (2, "kept awake")]
    } else {
        &[(1, "idle")]
    };
    let mut table = Table::new(&[
        "the machine otherwise",
        "requests/s",
        "p50 ms",
        "p99 ms",
        "p99.9 ms",
        "max ms",
        "service p99 ms",
        "failed",
        "checkpoints",
    ]);
    for &(part, mode) in modes {
        let busy = (mode == "kept awake").then(Busy::start).transpose()?;
        let before = peer.metric("widgets_checkpoints_total")?;
        let run = Run {
            dataset: Some(Dataset {
                widgets,
                part,
                parts: modes.len(),
            }),
            // The report shows how many requests failed, so failures must not end the run.
            overload: true,
            ..Run::closed(Workload::Mix, arguments.connections, arguments.duration)
        };
        let figures = run.at(rate).on(&peer, &directory)?;
        drop(busy);
        let checkpoints = peer.metric("widgets_checkpoints_total")? - before;
        // PostgreSQL makes its own checkpoints, which the service does not see.
        let checkpoints = if arguments.store.is_postgres() {
            String::new()
        } else {
            format!("{checkpoints:.0}")
        };
        let times = figures.latency;
        say(&format!("{mode}: p99 {} ms", number(times.p99)))?;
        let milliseconds = [
            times.p50,
            times.p99,
            times.p99_9,
            times.max,
            figures.service.p99,
        ];
        let mut cells = vec![mode.to_owned(), number(figures.requests_per_second)];
        cells.extend(milliseconds.map(number));
        cells.extend([figures.failed.to_string(), checkpoints]);
        table.row(cells);
    }
    let method = format!(
        "{} of {} widgets with half as many associations, open loop at {}/s for {}, the \
         usual mix of operations and lookups on all of the store, {} connections.",
        arguments.store.name(),
        number(widgets as f64),
        number(rate),
        humantime::format_duration(arguments.duration),
        arguments.connections,
    );
    let name = format!("open-loop{}", arguments.store.suffix());
    table.write(&directory, &name, &method, &[])
}
