//! `widgets-bench throughput`: requests a second and latency, beside the do-nothing route.

use crate::{
    load::{Arrivals, Figures, Run, Workload},
    peer::{Peer, sibling},
    report::{Report, Row},
};
use std::{
    error::Error,
    io::Write as _,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// How many widgets the embedded store holds beforehand; every size is measured.
    #[arg(long, value_delimiter = ',', default_value = "10000,1000000,10000000")]
    sizes: Vec<u64>,
    /// How often each peer has its turn.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// How long a turn is measured, in seconds, after one second of warm-up.
    #[arg(long, default_value_t = 4)]
    seconds: u64,
    /// How many connections the client has.
    #[arg(long, default_value_t = 256)]
    connections: u32,
    /// Where datasets are made and the report is written.
    #[arg(long, default_value = "target/bench")]
    output: PathBuf,
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    std::fs::create_dir_all(&arguments.output)?;
    let mut report = Report::new();
    for &widgets in &arguments.sizes {
        report.rows.extend(size(arguments, widgets)?);
    }
    report.write(&arguments.output)
}

fn size(arguments: &Arguments, widgets: u64) -> Result<Vec<Row>, Box<dyn Error>> {
    let data_dir = arguments.output.join(format!("data-{widgets}"));
    generate(&data_dir, widgets)?;
    let (nothing, embedded) = (Peer::do_nothing()?, Peer::embedded(&data_dir)?);
    say(&format!(
        "{widgets} widgets: {} MiB resident",
        embedded.resident_mib()?
    ))?;
    let run = |workload, audit| Run {
        workload,
        arrivals: Arrivals::Closed,
        connections: arguments.connections,
        duration: Duration::from_secs(arguments.seconds),
        audit,
    };
    let turns = [
        (&nothing, run(Workload::Adds, false)),
        (&embedded, run(Workload::Adds, true)),
        (&embedded, run(Workload::Mix, true)),
    ];
    let mut figures = vec![Vec::new(); turns.len()];
    for round in 1..=arguments.rounds {
        for (turn, (peer, run)) in turns.iter().enumerate() {
            let measured = run.on(peer, &arguments.output)?;
            let Figures {
                requests_per_second,
                p99_ms,
                ..
            } = measured;
            let (name, workload) = (peer.name, run.workload.as_str());
            say(&format!(
                "round {round}: {name:>10} {workload:>10} {requests_per_second:>8.0}/s, p99 {p99_ms:.2} ms"
            ))?;
            figures[turn].push(measured);
        }
    }
    let mut rows: Vec<Row> = turns
        .iter()
        .zip(figures)
        .map(|((peer, run), figures)| Row::new(widgets, peer.name, run.workload, figures))
        .collect();
    // Half of what it carries, whatever the server does: the latency that users see.
    let half = rows[1].median().requests_per_second / 2.0;
    let open = Run {
        arrivals: Arrivals::Open(half),
        ..run(Workload::Adds, true)
    };
    let mut figures = Vec::new();
    for _ in 0..arguments.rounds {
        figures.push(open.on(&embedded, &arguments.output)?);
    }
    rows.push(Row::new(widgets, embedded.name, open.workload, figures).offered(half));
    Ok(rows)
}

/// Makes a dataset anew: what was measured before has changed it.
fn generate(data_dir: &Path, widgets: u64) -> Result<(), Box<dyn Error>> {
    if data_dir.exists() {
        std::fs::remove_dir_all(data_dir)?;
    }
    let mut command = Command::new(sibling("widgets")?);
    command.args(["generate", "--widgets", &widgets.to_string(), "--data-dir"]);
    let status = command.arg(data_dir).status()?;
    if !status.success() {
        return Err(format!("{command:?}: {status}").into());
    }
    Ok(())
}

fn say(line: &str) -> std::io::Result<()> {
    writeln!(std::io::stdout(), "{line}")
}
