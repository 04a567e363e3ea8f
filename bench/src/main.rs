//! Side-by-side comparisons behind `docs/performance.md`.
//!
//! Peers are real processes on this machine, and the client is `widgets load`, which also checks
//! their answers. Rounds alternate between the peers, because a machine's speed drifts: ratios within
//! one run mean something, absolute figures of two runs may not.

mod load;
mod null_store;
mod peer;
mod report;
mod serve_null;
mod throughput;

use clap::{Parser, Subcommand};
use std::error::Error;

/// Compares the service with named peers, in one run, alternating.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serves the same routes as `widgets serve` over a store that does nothing.
    ServeNull(serve_null::Arguments),
    /// Requests a second and latency, beside the do-nothing route and at several sizes.
    Throughput(throughput::Arguments),
}

fn main() -> Result<(), Box<dyn Error>> {
    let Arguments { command } = Arguments::parse();
    match command {
        Command::ServeNull(arguments) => serve_null::run(&arguments),
        Command::Throughput(arguments) => throughput::run(&arguments),
    }
}
