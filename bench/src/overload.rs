//! `widgets-bench overload`: how much the service serves under overload, and how long it takes to
//! recover.
//!
//! If there are two CPUs, the server has one and the client the other: otherwise the client would take
//! CPU time from the server that it is to overload.

use crate::{
    load::{Run, Workload},
    report::{Output, Table, number, say},
    store,
};
use std::{error::Error, time::Duration};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The offered load, as multiples of the highest rate.
    #[arg(long, value_delimiter = ',', default_value = "2,5")]
    factors: Vec<f64>,
    /// How long each load is measured, in seconds.
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    /// How long half the load runs after an overload before latency is measured again, in seconds.
    #[arg(long, default_value_t = 50)]
    recovery_seconds: u64,
    /// How many widgets the store holds.
    #[arg(long, default_value_t = 1_000_000)]
    widgets: u64,
    /// How many connections make the overload: more than the service's queue has places, because
    /// otherwise nothing would be refused.
    #[arg(long, default_value_t = 6_000)]
    connections: u32,
    #[command(flatten)]
    store: store::Choice,
    #[command(flatten)]
    output: Output,
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    let directory = arguments.output.directory()?;
    let (for_server, for_client) = if std::thread::available_parallelism()?.get() > 1 {
        (Some(0), Some(1))
    } else {
        (None, None)
    };
    let store = arguments.store.open(&directory, for_server)?;
    let peer = store.serve(arguments.widgets)?;
    let duration = Duration::from_secs(arguments.seconds);
    let closed = Run {
        processor: for_client,
        ..Run::closed(Workload::Adds, 256, duration)
    };
    let highest = closed.on(&peer, &directory)?.served_per_second;
    let crowd = Run {
        connections: arguments.connections,
        ..closed
    };
    let of_crowd = crowd.on(&peer, &directory)?.served_per_second;
    say(&format!(
        "the highest rate: {}/s; by {} connections: {}/s",
        number(highest),
        arguments.connections,
        number(of_crowd),
    ))?;
    let mut table = Table::new(&[
        "load",
        "due/s",
        "of the highest",
        "answered/s",
        "served/s",
        "of the highest",
        "served: p99 ms from sending",
        "turned away/s",
        "503: p50, p99 ms",
        "p50, p99 ms from due",
        "processors: server, client",
    ]);
    let mut row = |name: &str, due: f64, run: Run| -> Result<(), Box<dyn Error>> {
        let run = run.at(due);
        let before = peer.processor_seconds()?;
        let figures = run.on(&peer, &directory)?;
        let busy =
            (peer.processor_seconds()? - before) / (run.warm_up + run.duration).as_secs_f64();
        let served = figures.served_per_second;
        say(&format!(
            "{name}: {}/s due, {}/s served, p99 {} ms",
            number(due),
            number(served),
            number(figures.latency.p99)
        ))?;
        let both = |one: f64, other: f64| {
            if one.is_finite() {
                format!("{}, {}", number(one), number(other))
            } else {
                String::new()
            }
        };
        table.row([
            name.to_owned(),
            number(due),
            number(due / highest),
            number(figures.requests_per_second),
            number(served),
            number(served / highest),
            number(figures.service.p99),
            number(figures.requests_per_second - served),
            both(figures.turned_away.p50, figures.turned_away.p99),
            both(figures.latency.p50, figures.latency.p99),
            both(busy, figures.client_processors),
        ]);
        Ok(())
    };
    row("half", highest / 2.0, closed)?;
    for &factor in &arguments.factors {
        let overload = Run {
            overload: true,
            ..crowd
        };
        row("overload", highest * factor, overload)?;
        let after = Run {
            warm_up: Duration::from_secs(arguments.recovery_seconds),
            ..closed
        };
        row("half again", highest / 2.0, after)?;
    }
    let method = method(arguments, highest, of_crowd);
    let name = format!("overload{}", arguments.store.suffix());
    table.write(&directory, &name, &method, &[])
}

fn method(arguments: &Arguments, highest: f64, of_crowd: f64) -> String {
    format!(
        "{} of {} widgets, add_widget, the server (with its database) on one processor and the client \
         on another. The highest rate, {}/s, is that of a closed loop of 256 connections; overload comes \
         from {} connections, of which a closed loop is served {}/s, over {} s. \"Half again\" is \
         measured {} s after the overload. Where fewer were answered than were due, all connections \
         waited for an answer.",
        arguments.store.name(),
        number(arguments.widgets as f64),
        number(highest),
        arguments.connections,
        number(of_crowd),
        arguments.seconds,
        arguments.recovery_seconds,
    )
}
