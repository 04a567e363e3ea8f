//! `widgets config`: checks, shows and explains the configuration.

use super::{
    Configuration, Given, Resolved,
    keys::{KEYS, SECTIONS},
    values::StoreKind,
};
use crate::{Outcome, security::Security};
use std::{fmt::Write as _, io::Write as _, process::ExitCode};

#[derive(clap::Subcommand)]
pub(crate) enum Command {
    /// Checks the configuration that `serve` would run with. Prints every problem, and exits with 1
    /// if there is one.
    Check(Given),
    /// Prints the values that `serve` would run with and where each comes from. Secrets are redacted.
    Show(Given),
    /// Prints a configuration file with every key, its description and its default.
    Example,
}

pub(crate) fn run(command: Command) -> Outcome {
    let mut stdout = std::io::stdout();
    match command {
        Command::Check(given) => match given.resolve() {
            Ok(Resolved { configuration, .. }) => {
                let problems = problems(&configuration);
                if !problems.is_empty() {
                    return Err(problems.join("\n").into());
                }
                writeln!(stdout, "the configuration is right")?;
            }
            Err(problems) => {
                writeln!(std::io::stderr(), "{problems}")?;
                return Ok(ExitCode::FAILURE);
            }
        },
        Command::Show(given) => stdout.write_all(show(&given.resolve()?).as_bytes())?,
        Command::Example => stdout.write_all(example().as_bytes())?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Returns what prevents a start although every value is valid in itself: an open address, and files
/// that cannot be used.
fn problems(configuration: &Configuration) -> Vec<String> {
    let Configuration {
        http,
        auth,
        store,
        replication,
        ..
    } = configuration;
    let of_store = match store.url {
        StoreKind::Embedded => replication.check_files(),
        StoreKind::Postgres(_) => store.reachable_database().map(drop),
    };
    let checks = [
        configuration.check_public(),
        Security::load(http, auth).map(drop),
        of_store,
    ];
    checks.into_iter().filter_map(Result::err).collect()
}

/// Returns a file with the effective values, each followed by where it comes from.
fn show(resolved: &Resolved) -> String {
    let mut shown = String::new();
    for (section, _) in SECTIONS {
        let gap = if shown.is_empty() { "" } else { "\n" };
        // Writing to a string cannot fail.
        _ = writeln!(shown, "{gap}[{section}]");
        for (key, source) in KEYS.iter().zip(&resolved.sources) {
            if key.section == *section {
                let given = format!("{} = {}", key.name, (key.get)(&resolved.configuration));
                _ = writeln!(shown, "{given:<40} # {source}");
            }
        }
    }
    shown
}

/// Returns every key with its description and its default.
fn example() -> String {
    let defaults = Configuration::default();
    let mut example = String::from(
        "# The configuration of widgets, with every default. A flag overrides a variable, and a variable\n\
         # overrides this file.\n",
    );
    for (section, about) in SECTIONS {
        _ = writeln!(example, "\n# {}\n[{section}]", about.trim());
        for key in KEYS.iter().filter(|key| key.section == *section) {
            _ = writeln!(example);
            for line in wrap(&key.help(), 96) {
                _ = writeln!(example, "# {line}");
            }
            _ = writeln!(example, "# --{}, {}", key.flag(), key.variable());
            _ = writeln!(example, "{} = {}", key.name, (key.get)(&defaults));
        }
    }
    example
}

/// Breaks a paragraph into lines of at most `width` bytes, if its words let it.
fn wrap(paragraph: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in paragraph.split(' ') {
        match lines.last_mut() {
            Some(line) if line.is_empty() => line.push_str(word),
            Some(line) if line.len() + 1 + word.len() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.into()),
        }
    }
    lines
}
