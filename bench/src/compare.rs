//! `widgets-bench compare`: throughput and latency of the stores and of a route that does nothing, at
//! several sizes.

use crate::{
    load::{Arrivals, Dataset, Figures, Run, Times, Workload, median},
    peer::{Peer, generate},
    plot::{self, Series},
    postgres::{Database, ONE_CALL, Server},
    report::{Output, Table, number, say},
};
use std::{error::Error, path::Path, time::Duration};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// How many widgets the stores hold beforehand; each size is measured.
    #[arg(long, value_delimiter = ',', default_value = "10000,1000000,10000000")]
    sizes: Vec<u64>,
    /// How many turns each peer has.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// How long a turn is measured, in seconds, after one second of warm-up.
    #[arg(long, default_value_t = 4)]
    seconds: u64,
    /// How many connections the client has.
    #[arg(long, default_value_t = 256)]
    connections: u32,
    /// Give the embedded store and PostgreSQL one CPU and everything else another, as if it were on
    /// another machine.
    #[arg(long)]
    apart: bool,
    /// Leave PostgreSQL out.
    #[arg(long)]
    no_postgres: bool,
    #[command(flatten)]
    output: Output,
}

/// Which CPU each process may use.
struct Processors {
    store: Option<usize>,
    others: Option<usize>,
}

impl Arguments {
    fn processors(&self) -> Processors {
        Processors {
            store: self.apart.then_some(0),
            others: self.apart.then_some(1),
        }
    }
}

/// All rounds of one peer under one workload at one size.
struct Row {
    widgets: u64,
    peer: &'static str,
    workload: Workload,
    arrivals: Arrivals,
    rounds: Vec<Figures>,
}

impl Row {
    fn rate(&self) -> f64 {
        median(self.rounds.iter().map(|each| each.requests_per_second))
    }

    fn time(&self, pick: fn(&Times) -> f64) -> f64 {
        median(self.rounds.iter().map(|each| pick(&each.latency)))
    }

    /// Returns the median over the rounds of the ratio to `other`, or NaN if the requests differ.
    fn ratio_to(&self, other: Option<&Self>) -> f64 {
        let closed = matches!(self.arrivals, Arrivals::Closed);
        let other = other.filter(|other| closed && other.workload == self.workload);
        let pairs = other.map(|other| self.rounds.iter().zip(&other.rounds));
        let ratios = pairs.into_iter().flatten();
        median(ratios.map(|(one, other)| one.requests_per_second / other.requests_per_second))
    }
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    let directory = arguments.output.directory()?;
    let server = if arguments.no_postgres {
        None
    } else {
        let processor = arguments.processors().store;
        Some(Server::start(&directory.join("postgres"), processor)?)
    };
    let mut rows = Vec::new();
    for &widgets in &arguments.sizes {
        rows.extend(size(arguments, &directory, server.as_ref(), widgets)?);
    }
    write(arguments, &directory, &rows)
}

/// The figure of a row that a chart shows.
type Figure = fn(&Row) -> f64;

/// What is measured in a turn.
#[derive(Clone, Copy)]
enum Turn<'a> {
    Http(&'a Peer, Run),
    OneCall(&'a Database<'a>),
}

fn size(
    arguments: &Arguments,
    directory: &Path,
    server: Option<&Server>,
    widgets: u64,
) -> Result<Vec<Row>, Box<dyn Error>> {
    let duration = Duration::from_secs(arguments.seconds);
    let data_dir = directory.join("compare");
    generate(&data_dir, widgets)?;
    let database = server.map(|server| server.database(widgets)).transpose()?;
    let Processors { store, others } = arguments.processors();
    let (nothing, embedded) = (Peer::do_nothing(store)?, Peer::embedded(&data_dir, store)?);
    let postgres = database
        .as_ref()
        .map(|database| Peer::postgres(&database.store(), others));
    let postgres = postgres.transpose()?;
    let adds = Run {
        processor: others,
        ..Run::closed(Workload::Adds, arguments.connections, duration)
    };
    let mix = Run {
        workload: Workload::Mix,
        ..adds
    };
    let unread = Run {
        audit: false,
        ..adds
    };
    let stores = || std::iter::once(&embedded).chain(&postgres);
    let turns = std::iter::once(Turn::Http(&nothing, unread))
        .chain(stores().map(|peer| Turn::Http(peer, adds)))
        .chain(database.as_ref().map(Turn::OneCall))
        .chain(stores().map(|peer| Turn::Http(peer, mix)));
    let turns: Vec<Turn<'_>> = turns.collect();
    let mut rows = rounds(arguments, directory, widgets, &turns)?;
    // Each at half of its own highest rate, whatever that is: the latency that users see.
    let mut at_half = Vec::new();
    for peer in stores() {
        let adds_of = |row: &&Row| row.peer == peer.name && row.workload == Workload::Adds;
        let rate = rows.iter().find(adds_of).map_or(f64::NAN, Row::rate);
        at_half.push(Turn::Http(peer, adds.at((rate / 2.0).max(1.0))));
    }
    rows.extend(rounds(arguments, directory, widgets, &at_half)?);
    Ok(rows)
}

/// Runs all rounds of these turns, alternately.
fn rounds(
    arguments: &Arguments,
    directory: &Path,
    widgets: u64,
    turns: &[Turn<'_>],
) -> Result<Vec<Row>, Box<dyn Error>> {
    let row = |turn: &Turn<'_>| match turn {
        Turn::Http(peer, run) => (peer.name, run.workload, run.arrivals),
        Turn::OneCall(_) => (ONE_CALL, Workload::Adds, Arrivals::Closed),
    };
    let rows = turns.iter().map(row);
    let mut rows: Vec<Row> = rows
        .map(|(peer, workload, arrivals)| Row {
            widgets,
            peer,
            workload,
            arrivals,
            rounds: Vec::new(),
        })
        .collect();
    for round in 1..=arguments.rounds {
        for (turn, row) in turns.iter().zip(&mut rows) {
            let figures = match turn {
                Turn::Http(peer, run) => {
                    let dataset = (run.workload == Workload::Mix).then_some(Dataset {
                        widgets,
                        part: round,
                        parts: arguments.rounds,
                    });
                    Run { dataset, ..*run }.on(peer, directory)?
                }
                Turn::OneCall(database) => {
                    let duration = Duration::from_secs(arguments.seconds);
                    let processor = arguments.processors().others;
                    database.adds(directory, round, duration, processor)?
                }
            };
            say(&format!(
                "{widgets:>10} widgets, round {round}: {:>25}, {:>10}: {:>8}/s, p99 {} ms",
                row.peer,
                row.workload.as_str(),
                number(figures.requests_per_second),
                number(figures.latency.p99),
            ))?;
            row.rounds.push(figures);
        }
    }
    Ok(rows)
}

fn write(arguments: &Arguments, directory: &Path, rows: &[Row]) -> Result<(), Box<dyn Error>> {
    let mut table = Table::new(&[
        "widgets",
        "peer",
        "load",
        "requests/s",
        "of do nothing",
        "of one call each",
        "p50 ms",
        "p99 ms",
        "p99.9 ms",
        "max ms",
    ]);
    for row in rows {
        let load = match row.arrivals {
            Arrivals::Closed => format!("{}, closed loop", row.workload.as_str()),
            Arrivals::Open(rate) => {
                format!("{}, open loop at {}/s", row.workload.as_str(), number(rate))
            }
        };
        let peer = |name: &str| {
            let mut others = rows.iter().filter(|each| each.widgets == row.widgets);
            others.find(|each| each.peer == name)
        };
        let times = [
            row.time(|times| times.p50),
            row.time(|times| times.p99),
            row.time(|times| times.p99_9),
            row.time(|times| times.max),
        ];
        let mut cells = vec![
            number(row.widgets as f64),
            row.peer.to_owned(),
            load,
            number(row.rate()),
            number(row.ratio_to(peer("do nothing"))),
            number(row.ratio_to(peer(ONE_CALL))),
        ];
        cells.extend(times.map(number));
        table.row(cells);
    }
    let mut pictures = Vec::new();
    let figures: [(&str, &str, Figure); 2] = [
        (
            "compare-rate",
            "requests/s, add_widget, closed loop",
            Row::rate,
        ),
        ("compare-p99", "p99 in ms, add_widget, closed loop", |row| {
            row.time(|times| times.p99)
        }),
    ];
    for (name, title, figure) in figures {
        let mut series: Vec<Series> = Vec::new();
        let closed_adds =
            |row: &&Row| row.workload == Workload::Adds && matches!(row.arrivals, Arrivals::Closed);
        for row in rows.iter().filter(closed_adds) {
            let point = (row.widgets, figure(row));
            match series.iter_mut().find(|each| each.name == row.peer) {
                Some(each) => each.points.push(point),
                None => series.push(Series {
                    name: row.peer,
                    points: vec![point],
                }),
            }
        }
        plot::bars(
            &directory.join(format!("{name}.svg")),
            title,
            "widgets",
            &series,
        )?;
        pictures.push(format!("![{title}]({name}.svg)"));
    }
    let method = format!(
        "Closed loop: {} connections of `widgets load`, which reads a sample back; one call each: `pgbench` \
         with 32 clients and no HTTP. PostgreSQL syncs, and has 6 GB of buffers. {} alternating rounds of \
         {} s. Medians; ratios are medians of the rounds' ratios.{}",
        arguments.connections,
        arguments.rounds,
        arguments.seconds,
        if arguments.apart {
            " The embedded store with its service, and PostgreSQL, have one processor; clients, and the \
             service before PostgreSQL, have the other one."
        } else {
            ""
        }
    );
    table.write(directory, "compare", &method, &pictures)
}
