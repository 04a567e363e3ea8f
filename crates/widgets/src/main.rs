//! The one binary: the command line. Each command has a module of its own.

mod serve;

use clap::{Parser, Subcommand};
use std::{error::Error, process::ExitCode};

/// Registers widgets and associates them port to port.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs the service.
    Serve(serve::Arguments),
}

/// What a command ends with: how the process exits, or why it could not do its work.
type Outcome = Result<ExitCode, Box<dyn Error>>;

fn main() -> ExitCode {
    let Arguments { command } = Arguments::parse();
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .init();
    let outcome = match command {
        Command::Serve(arguments) => serve::run(arguments),
    };
    outcome.unwrap_or_else(|error| {
        tracing::error!("{error}");
        ExitCode::FAILURE
    })
}
