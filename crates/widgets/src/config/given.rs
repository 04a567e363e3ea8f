//! What the command line and the environment give.

use super::keys::{KEYS, Key, Kind, SECTIONS};
use clap::{Arg, ArgMatches, Args, Command, FromArgMatches, parser::ValueSource};
use std::path::PathBuf;

/// Values as text, each with where it comes from. Not yet checked.
#[derive(Clone, Debug, Default)]
pub(crate) struct Given {
    /// The configuration file.
    pub(super) file: Option<PathBuf>,
    /// By the keys' places in [`KEYS`].
    pub(super) values: Vec<(usize, String, Origin)>,
}

/// Which of the two gave it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    Variable,
    Flag,
}

/// The argument that names the file.
const FILE: &str = "config";

impl Args for Given {
    fn augment_args(command: Command) -> Command {
        let file = Arg::new(FILE)
            .long(FILE)
            .env("WIDGETS_CONFIG")
            .value_name("FILE")
            .value_parser(clap::value_parser!(PathBuf))
            .hide_env_values(true)
            .help("A configuration file, see `widgets config example`. Flags and variables win over it.");
        let mut command = command.arg(file);
        for (section, about) in SECTIONS {
            let heading = format!("[{section}] {}", about.trim().trim_end_matches('.'));
            for key in KEYS.iter().filter(|key| key.section == *section) {
                command = command.arg(argument(key).help_heading(heading.clone()));
            }
        }
        command
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

/// The flag of a key. Its value is checked later, together with the file's.
fn argument(key: &Key) -> Arg {
    let default = (key.get)(&super::Configuration::default());
    let argument = Arg::new(key.path())
        .long(key.flag())
        .env(key.variable())
        // Variables may hold passwords, and the help is shown to anyone.
        .hide_env_values(true)
        .value_name(key.name.to_uppercase())
        .default_value(default.trim_matches('"').to_owned())
        .help(key.help());
    if key.kind == Kind::Boolean {
        // The flag alone says yes.
        return argument
            .num_args(0..=1)
            .require_equals(true)
            .default_missing_value("true");
    }
    argument
}

impl FromArgMatches for Given {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut values = Vec::new();
        for (place, key) in KEYS.iter().enumerate() {
            let path = key.path();
            let Some(text) = matches.get_one::<String>(&path) else {
                continue;
            };
            let origin = match matches.value_source(&path) {
                Some(ValueSource::EnvVariable) => Origin::Variable,
                Some(ValueSource::CommandLine) => Origin::Flag,
                // The file wins over the default, which is here for the help only.
                _ => continue,
            };
            values.push((place, text.clone(), origin));
        }
        Ok(Self {
            file: matches.get_one::<PathBuf>(FILE).cloned(),
            values,
        })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}
