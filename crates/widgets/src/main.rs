//! The only binary: the command line. Each command has its own module.

mod archive;
mod ask;
mod completions;
mod config;
mod descriptors;
#[cfg(test)]
mod documented;
mod export;
mod generate;
mod health;
mod help;
mod import;
mod jwks;
mod listen;
mod load;
mod log;
mod manual;
mod metrics;
mod migrate;
mod notify;
mod plan;
#[cfg(test)]
mod reference;
mod replication;
mod security;
mod serve;
mod served;
mod signals;
mod stores;

use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand, error::ErrorKind};
use rustix::fs::Mode;
use std::{error::Error, process::ExitCode};

/// Registers widgets and associates them port to port.
#[derive(Parser)]
#[command(version, max_term_width = 100, after_help = EXIT_CODES)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

const EXIT_CODES: &str = "\
Exit codes: 0 it did what it was asked to do; 1 it could not, and says why on standard error; 2 the \
command line or a configuration value is wrong.";

/// The commands. A command without a description here has one on its arguments.
#[derive(Subcommand)]
enum Command {
    /// Shows a widget of a running service.
    Get(ask::Get),
    /// Lists widgets of a running service, by name, free slots or peer, or all of them.
    List(ask::List),
    /// Shows the neighbourhood of a widget, up to a number of associations away.
    Near(ask::Near),
    /// Registers a widget.
    Add(ask::Add),
    /// Removes a widget and its associations.
    Remove(ask::Remove),
    /// Associates two widgets over one free slot of a port type on each.
    Associate(ask::Associate),
    /// Removes the association of two widgets over a port type.
    Dissociate(ask::Dissociate),
    /// Shows the changes of a running service as they happen, a line each, with who made them.
    ///
    /// After a restart of the service it resumes on its own and misses nothing.
    Watch(ask::Watch),
    Generate(generate::Arguments),
    Import(import::Arguments),
    Export(export::Arguments),
    Restore(archive::Restore),
    #[command(subcommand)]
    Archive(archive::Command),
    Verify(archive::VerifyStore),
    /// Makes a standby the primary.
    ///
    /// The standby accepts operations from then on, and the old primary stops accepting them as soon as it learns of the
    /// promotion. Operations that had not reached the standby are lost (`widgets_replication_behind_seconds` shows whether
    /// there may be any), so make sure that the primary is gone, or stop it first and wait. Requires a role in
    /// `auth.admin_roles`.
    Promote(ask::Promote),
    /// Shows or changes which standby must have an operation before it is acknowledged.
    ///
    /// This standby is the holder; there is one if `replication.acknowledge` is "standby". A change that you ask for is made
    /// as soon as the rules allow it: run the command again to see it. Requires a role in `auth.admin_roles`.
    Holder(ask::Holder),
    Backup(archive::Backup),
    /// Measures a running service and proves that its answers are right.
    ///
    /// Sends requests on a schedule, predicts every answer, and at the end reads back what was
    /// acknowledged. The load is open loop: request i is due at i/RATE seconds, whatever happened to
    /// the requests before it, and its latency counts from then. Each lane (a connection or, over h2,
    /// a stream) uses widgets that no other lane uses, so each answer follows from the lane's own
    /// history.
    Load(Box<load::Arguments>),
    /// Runs the service.
    ///
    /// Every configuration key has a flag, an environment variable and a place in the configuration
    /// file. A flag overrides a variable, and a variable overrides the file. On SIGTERM or SIGINT the
    /// service answers the requests that it has accepted and stops; a second signal stops it at once.
    ///
    /// Below are the flags that people use first. `--help --all` shows all flags, and `--help http`
    /// those of one section.
    Serve(serve::Arguments),
    /// Prepares the database of the PostgreSQL store, or brings it up to date.
    ///
    /// Applies the missing migrations in one transaction, and then the roles and privileges. Several
    /// may run at the same time. The role in the URL must own the schema `widgets`, or be allowed to
    /// create a schema in the database.
    Migrate(migrate::Arguments),
    /// Estimates which machines a number of widgets and a rate of operations need.
    ///
    /// The estimate extrapolates measurements (docs/scale.md) and contacts no service. For each store it shows the machines,
    /// memory, disk and shards, the CPU time of an operation, and what limits it.
    Plan(plan::Arguments),
    /// Checks whether the service on this host is healthy: exit code 0 if it is, 1 if not.
    ///
    /// It takes the same configuration as `serve`, and asks the address that `serve` listens on. With
    /// --running it takes the configuration that the service was started with, as the health check of
    /// the image does. If every client must present a certificate, it presents the service's own,
    /// which must then come from `http.tls_client_ca`.
    Health(health::Arguments),
    /// Checks, shows and explains the configuration.
    #[command(subcommand)]
    Config(config::command::Command),
    Completions(completions::Arguments),
    Manual(manual::Arguments),
}

/// The command line, a variable or a value in a configuration file is invalid, whatever the state
/// of the system.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Misuse(pub(crate) String);

/// The exit code after an invalid input, the same as clap's.
const MISUSE: u8 = 2;

/// Returns the exit code of a command that ended with this error.
fn failed(error: &(dyn Error + 'static)) -> ExitCode {
    use widgets_load::Error as Load;
    let of_load = error.downcast_ref::<Load>();
    let of_client = error.downcast_ref::<widgets_client::Error>();
    let is_misuse = error.is::<Misuse>()
        || error.is::<config::Problems>()
        || matches!(of_load, Some(Load::Setting { .. } | Load::Target(_)))
        || matches!(of_client, Some(widgets_client::Error::Settings(_)));
    if is_misuse {
        MISUSE.into()
    } else {
        ExitCode::FAILURE
    }
}

/// The outcome of a command: the exit code of the process, or why the command failed.
type Outcome = Result<ExitCode, Box<dyn Error>>;

fn main() -> ExitCode {
    let command = help::hearing_negative_numbers(Arguments::command());
    let prepared = help::prepare(command, std::env::args_os().collect());
    let (mut command, arguments) = prepared.unwrap_or_else(|error| error.exit());
    let matches = command.try_get_matches_from_mut(&arguments);
    let matches = matches
        .unwrap_or_else(|error| help::with_own_usage(error, command.clone(), &arguments).exit());
    let together = matches.subcommand_matches("load").map(load::check);
    if let Some(Err(why)) = together {
        let command = command.find_subcommand_mut("load");
        command
            .unwrap_or(&mut Arguments::command())
            .error(ErrorKind::ArgumentConflict, why)
            .exit();
    }
    let parsed = Arguments::from_arg_matches(&matches);
    let Arguments { command } = parsed.unwrap_or_else(|error| error.format(&mut command).exit());
    // What these commands create is for its owner only. The library that writes an archive to a
    // folder leaves that to the umask.
    if matches!(
        command,
        Command::Serve(_) | Command::Backup(_) | Command::Archive(_)
    ) {
        rustix::process::umask(Mode::RWXG | Mode::RWXO);
    }
    // These two have work to finish when a signal arrives, so they handle signals themselves.
    let ends_itself = matches!(command, Command::Serve(_) | Command::Load(_));
    let hearing = if ends_itself {
        Ok(())
    } else {
        signals::exit_on_signals().map_err(Into::into)
    };
    let outcome = hearing.and_then(|()| match command {
        Command::Get(arguments) => arguments.run(),
        Command::List(arguments) => arguments.run(),
        Command::Near(arguments) => arguments.run(),
        Command::Add(arguments) => arguments.run(),
        Command::Remove(arguments) => arguments.run(),
        Command::Associate(arguments) => arguments.run(),
        Command::Dissociate(arguments) => arguments.run(),
        Command::Watch(arguments) => arguments.run(),
        Command::Generate(arguments) => generate::run(arguments),
        Command::Import(arguments) => import::run(arguments),
        Command::Export(arguments) => export::run(arguments),
        Command::Restore(arguments) => arguments.run(),
        Command::Archive(command) => archive::run(command),
        Command::Verify(arguments) => arguments.run(),
        Command::Promote(arguments) => arguments.run(),
        Command::Holder(arguments) => arguments.run(),
        Command::Backup(arguments) => arguments.run(),
        Command::Load(arguments) => load::run(*arguments),
        Command::Serve(arguments) => serve::run(arguments),
        Command::Migrate(arguments) => migrate::run(arguments),
        Command::Plan(arguments) => plan::run(&arguments),
        Command::Health(arguments) => health::run(arguments),
        Command::Config(command) => config::command::run(command),
        Command::Completions(arguments) => completions::run(&arguments),
        Command::Manual(arguments) => manual::run(&arguments),
    });
    outcome.unwrap_or_else(|error| {
        // The reader has gone, as `head` does, so there is nobody to report to.
        let cause = error.downcast_ref::<std::io::Error>();
        if cause.is_some_and(|cause| cause.kind() == std::io::ErrorKind::BrokenPipe) {
            return ExitCode::FAILURE;
        }
        // The message may contain text from a server or a file, which must not control the
        // terminal.
        let told = error.to_string();
        let told = widgets_load::shown_lines(&told);
        log::say_last(format_args!("error: {told}"));
        failed(&*error)
    })
}
