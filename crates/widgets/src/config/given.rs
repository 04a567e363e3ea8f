//! The settings from the command line and the environment.

use super::{
    keys::{KEYS, Key, SECTIONS},
    values::Kind,
};
use clap::{
    Arg, ArgMatches, Args, Command, FromArgMatches, builder::UnknownArgumentValueParser,
    parser::ValueSource,
};
use std::{marker::PhantomData, path::PathBuf};

/// Which keys a command takes. It has no flags for the others and does not read them from the
/// environment.
pub(crate) trait Scope: Clone + std::fmt::Debug {
    /// Returns whether the command takes the key with this path.
    fn takes(path: &str) -> bool;

    /// Returns whether the help shows that key unless all keys are asked for.
    fn shows(_path: &str) -> bool {
        true
    }
}

/// Every key: for `serve`, and for commands that check what `serve` would be given.
#[derive(Clone, Debug)]
pub(crate) struct Everything;

/// What people set first.
const FIRST: &[&str] = &[
    "http.listen",
    "http.tls_certificate",
    "http.tls_key",
    "auth.jwt_secret_file",
    "auth.jwks_url",
    "auth.anonymous_role",
    "auth.allow_public_without_auth",
    "store.url",
    "store.data_dir",
    "store.must_exist",
    "archive.url",
    "log.format",
    "log.filter",
];

impl Scope for Everything {
    fn takes(_: &str) -> bool {
        true
    }

    fn shows(path: &str) -> bool {
        FIRST.contains(&path)
    }
}

/// The keys for reaching a running service.
#[derive(Clone, Debug)]
pub(crate) struct Reaching;

impl Scope for Reaching {
    fn takes(path: &str) -> bool {
        path == "http.listen" || path.starts_with("http.tls_")
    }
}

/// The keys for opening a store for exclusive use.
#[derive(Clone, Debug)]
pub(crate) struct Opening;

impl Scope for Opening {
    fn takes(path: &str) -> bool {
        let of = |section| path.starts_with(section);
        // How much of the changes and idempotency keys is kept must not depend on which command
        // opens the store.
        of("store.")
            || of("engine.")
            || of("changes.")
            || of("idempotency.")
            // The journal that is not archived yet must be kept.
            || of("archive.")
            || of("log.")
            || path == "postgres.connect_timeout_ms"
    }

    fn shows(path: &str) -> bool {
        ["store.url", "store.data_dir", "store.must_exist"].contains(&path)
    }
}

/// The keys for connecting to a database.
#[derive(Clone, Debug)]
pub(crate) struct Migrating;

impl Scope for Migrating {
    fn takes(path: &str) -> bool {
        let database = [
            "store.url",
            "store.password",
            "store.password_file",
            "postgres.connect_timeout_ms",
        ]
        .contains(&path);
        // The command serves no requests, so it logs none.
        database || path.starts_with("log.") && path != "log.requests"
    }
}

/// Values as text, each with its origin. Not checked yet.
#[derive(Clone, Debug, Default)]
pub(crate) struct Given<S = Everything> {
    /// The configuration file.
    pub(super) file: Option<PathBuf>,
    /// Each value with its key's index in [`KEYS`].
    pub(super) values: Vec<(usize, String, Origin)>,
    scope: PhantomData<S>,
}

impl<S> Given<S> {
    /// Returns whether a flag sets the key with this path.
    pub(crate) fn is_flag(&self, path: &str) -> bool {
        let of_flag = |(place, _, origin): &(usize, String, Origin)| {
            *origin == Origin::Flag && KEYS[*place].path() == path
        };
        self.values.iter().any(of_flag)
    }
}

/// Whether a flag or a variable gave a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    Variable,
    Flag,
}

/// The argument that names the file.
const FILE: &str = "config";

/// Returns the heading of a section's flags in the help.
pub(crate) fn heading(section: &str, about: &str) -> String {
    format!("[{section}] {}", about.trim().trim_end_matches('.'))
}

impl<S: Scope> Args for Given<S> {
    fn augment_args(command: Command) -> Command {
        let file = Arg::new(FILE)
            .long(FILE)
            .env("WIDGETS_CONFIG")
            .value_name("FILE")
            .value_parser(clap::value_parser!(PathBuf))
            .hide_env_values(true)
            .help("A configuration file (see `widgets config example`). Flags and variables override it.");
        let mut command = command.arg(file);
        // The names that other programs use, and names that resemble it.
        let others = ["address", "bind", "host", "port"];
        for name in others.into_iter().filter(|_| S::takes("http.listen")) {
            let listen = UnknownArgumentValueParser::suggest_arg("--listen");
            let other = Arg::new(name).long(name).hide(true);
            command = command.arg(other.value_parser(listen));
        }
        for (section, about) in SECTIONS {
            let heading = heading(section, about);
            let keys = KEYS.iter().filter(|key| key.section == *section);
            for key in keys.filter(|key| S::takes(&key.path())) {
                let hidden = !S::shows(&key.path());
                command = command.arg(argument(key).help_heading(heading.clone()).hide(hidden));
            }
        }
        command
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

/// Returns the flag of a key. Its value is checked later, together with the file's.
fn argument(key: &Key) -> Arg {
    let default = (key.get)(&super::Configuration::default());
    let argument = Arg::new(key.path())
        .long(key.flag())
        .env(key.variable())
        // Variables may contain passwords, and the help is public.
        .hide_env_values(true)
        .value_name(key.name.to_uppercase())
        .default_value(default.trim_matches('"').to_owned())
        .help(key.help());
    if key.kind == Kind::Boolean {
        // The flag without a value means yes.
        return argument
            .num_args(0..=1)
            .require_equals(true)
            .default_missing_value("true");
    }
    argument
}

impl<S: Scope> FromArgMatches for Given<S> {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut values = Vec::new();
        for (place, key) in KEYS.iter().enumerate() {
            let path = key.path();
            if !S::takes(&path) {
                continue;
            }
            let Some(text) = matches.get_one::<String>(&path) else {
                continue;
            };
            let origin = match matches.value_source(&path) {
                Some(ValueSource::EnvVariable) => Origin::Variable,
                Some(ValueSource::CommandLine) => Origin::Flag,
                // The file takes precedence over the default, which is here only for the help.
                _ => continue,
            };
            values.push((place, text.clone(), origin));
        }
        Ok(Self {
            file: matches.get_one::<PathBuf>(FILE).cloned(),
            values,
            scope: PhantomData,
        })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_shown_first_in_help_exists() {
        for path in FIRST {
            assert!(KEYS.iter().any(|key| key.path() == *path), "{path}");
        }
    }
}
