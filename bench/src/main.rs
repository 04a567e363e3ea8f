//! The side-by-side comparisons in `docs/performance.md`.
//!
//! Peers are real processes on this machine, and the client is `widgets load`, which also checks
//! their answers. Rounds alternate between the peers because the speed of a machine drifts: ratios
//! within one run can be compared, absolute figures of two runs perhaps not.

#![expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "statistics: counts and times become floating point numbers and back, well within range"
)]

mod builds;
mod busy;
mod changes;
mod compare;
mod connections;
mod flat;
mod lists;
mod load;
mod memory;
mod null_store;
mod open_loop;
mod overload;
mod peer;
mod plot;
mod postgres;
mod quota;
mod redis;
mod report;
mod serve_null;
mod store;
mod wire;

use clap::{Parser, Subcommand};
use std::{error::Error, io::Write as _, process::ExitCode};

/// Measures the service side by side with peers, and prints tables for docs/performance.md.
///
/// Run `cargo build --release -p widgets -p widgets-bench` first. Each scenario writes NAME.md, which
/// states the conditions, and its data into --output: some gigabytes for 10 million widgets.
#[derive(Parser)]
#[command(max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Requests a second and latency at several sizes: do nothing, embedded, PostgreSQL in batches, and
    /// PostgreSQL with one call per operation.
    Compare(compare::Arguments),
    /// How the cost of an operation depends on the number of widgets.
    Flat(flat::Arguments),
    /// Latency at a steady rate, checkpoints included.
    OpenLoop(open_loop::Arguments),
    /// How much is served under overload, and how latency recovers afterwards.
    Overload(overload::Arguments),
    /// What many mostly idle connections cost.
    Connections(connections::Arguments),
    /// The memory of a widget, and the time of a start.
    Memory(memory::Arguments),
    /// Latency when CPU time is short, with and without pacing.
    Quota(quota::Arguments),
    /// Durable operations a second beside Redis, from 1 to 1,024 connections.
    Redis(redis::Arguments),
    /// How long lists take, alone and beside writes, and how much they slow the writes.
    Lists(lists::Arguments),
    /// The throughput of two builds: additions to a large embedded store.
    Builds(builds::Arguments),
    /// What the feed of changes and idempotency keys cost in throughput, CPU time and memory.
    Changes(changes::Arguments),
    /// Serves the same routes as `widgets serve` over a store that does nothing.
    ServeNull(serve_null::Arguments),
    /// Keeps a core awake.
    #[command(hide = true)]
    Spin,
}

fn main() -> ExitCode {
    let Arguments { command } = Arguments::parse();
    let outcome: Result<(), Box<dyn Error>> = match command {
        Command::Compare(arguments) => compare::run(&arguments),
        Command::Flat(arguments) => flat::run(&arguments),
        Command::OpenLoop(arguments) => open_loop::run(&arguments),
        Command::Overload(arguments) => overload::run(&arguments),
        Command::Connections(arguments) => connections::run(&arguments),
        Command::Memory(arguments) => memory::run(&arguments),
        Command::Quota(arguments) => quota::run(&arguments),
        Command::Redis(arguments) => redis::run(&arguments),
        Command::Lists(arguments) => lists::run(&arguments),
        Command::Builds(arguments) => builds::run(&arguments),
        Command::Changes(arguments) => changes::run(&arguments),
        Command::ServeNull(arguments) => serve_null::run(&arguments),
        Command::Spin => {
            busy::spin();
            Ok(())
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // If even this cannot be written, there is no other way to report the error.
            drop(writeln!(std::io::stderr(), "error: {error}"));
            ExitCode::FAILURE
        }
    }
}
