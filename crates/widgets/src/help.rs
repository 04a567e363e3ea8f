//! `--help`, which shows the flags that people use first; `--help --all`; and `--help SECTION`.

use crate::config::{SECTIONS, heading};
use clap::{
    Command,
    error::{ContextKind, ContextValue, ErrorKind},
};
use std::ffi::OsString;

/// What a help shows.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Shown {
    /// What people use first.
    First,
    All,
    /// The flags of one section of the configuration.
    Section(&'static str),
    /// The flags of a section that does not exist.
    Unknown(String),
}

/// Makes a negative number an invalid value of the flag before it, rather than an unknown flag.
pub(crate) fn hearing_negative_numbers(command: Command) -> Command {
    let command = command.mut_args(|arg| {
        let takes = !arg.is_positional() && arg.get_action().takes_values();
        arg.allow_negative_numbers(takes)
    });
    command.mut_subcommands(hearing_negative_numbers)
}

/// If the command line asks for help, removes `--all` and the section from it and makes the command
/// show what they ask for. Any other command line stays unchanged.
pub(crate) fn prepare(
    mut command: Command,
    arguments: Vec<OsString>,
) -> Result<(Command, Vec<OsString>), clap::Error> {
    let (shown, arguments) = wanted(arguments);
    let command = match shown {
        Shown::Unknown(section) => {
            let why = format!(
                "there is no section '{section}' of the configuration; {}",
                sections()
            );
            // Gives the command its full name in the usage line.
            command.build();
            let serve = command.find_subcommand_mut(SERVE);
            let error = serve.map(|serve| serve.error(ErrorKind::InvalidValue, &why));
            return Err(error.unwrap_or_else(|| command.error(ErrorKind::InvalidValue, why)));
        }
        Shown::First => command,
        Shown::All => show_all(command),
        Shown::Section(section) => {
            let about = SECTIONS.iter().find(|(name, _)| *name == section);
            let heading = heading(section, about.map_or("", |(_, about)| about));
            show(command, &move |of| of == Some(&heading))
        }
    };
    Ok((command, arguments))
}

/// The command that has flags for the whole configuration, and takes nothing else.
const SERVE: &str = "serve";

/// Lists the sections, for a help that does not show all flags.
pub(crate) fn sections() -> String {
    let names: Vec<&str> = SECTIONS.iter().map(|(name, _)| *name).collect();
    format!("the sections are {}", names.join(", "))
}

/// Returns an error with the usage of its command as the help shows it. Clap's own usage includes
/// what was given, also through variables, so the same mistake would give different messages on
/// different machines.
pub(crate) fn with_own_usage(
    mut error: clap::Error,
    mut command: Command,
    arguments: &[OsString],
) -> clap::Error {
    if error.get(ContextKind::Usage).is_none() {
        return error;
    }
    // After this, every command knows its full name.
    command.build();
    let mut of = &command;
    for word in arguments.iter().skip(1) {
        let Some(below) = of.find_subcommand(word) else {
            break;
        };
        of = below;
    }
    let usage = of.clone().render_usage();
    error.insert(ContextKind::Usage, ContextValue::StyledStr(usage));
    error
}

/// Shows every flag, as `--help --all` does.
pub(crate) fn show_all(command: Command) -> Command {
    show(command, &|_| true)
}

fn wanted(mut arguments: Vec<OsString>) -> (Shown, Vec<OsString>) {
    // What follows `--` is not a flag.
    let end = arguments.iter().position(|argument| argument == "--");
    let flags = &arguments[..end.unwrap_or(arguments.len())];
    let Some(help) = flags
        .iter()
        .position(|argument| argument == "--help" || argument == "-h")
    else {
        return (Shown::First, arguments);
    };
    if let Some(all) = flags.iter().position(|argument| argument == "--all") {
        arguments.remove(all);
        return (Shown::All, arguments);
    }
    let next = flags.get(help + 1);
    let section = SECTIONS
        .iter()
        .find(|(name, _)| next.is_some_and(|next| next == name));
    if let Some((section, _)) = section {
        arguments.remove(help + 1);
        return (Shown::Section(section), arguments);
    }
    let is_serve = flags.get(1).is_some_and(|command| command == SERVE);
    let word = next.and_then(|next| next.to_str());
    let shown = match word.filter(|word| is_serve && !word.starts_with('-')) {
        Some(word) => Shown::Unknown(word.to_owned()),
        None => Shown::First,
    };
    (shown, arguments)
}

/// Shows the arguments under the headings that `wanted` accepts, in the command and its
/// subcommands.
fn show(command: Command, wanted: &dyn Fn(Option<&str>) -> bool) -> Command {
    let below: Vec<String> = command
        .get_subcommands()
        .map(|command| command.get_name().to_owned())
        .collect();
    let command = command.mut_args(|argument| {
        let heading = argument.get_help_heading();
        // A hidden argument without a heading exists only for its error message.
        let hidden = !wanted(heading) || heading.is_none() && argument.is_hide_set();
        argument.hide(hidden)
    });
    below.into_iter().fold(command, |command, name| {
        command.mut_subcommand(name, |command| show(command, wanted))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_rewritten_only_if_help_is_requested() {
        let check = |line: &str, shown: Shown, left: &str| {
            let words = |line: &str| line.split(' ').map(OsString::from).collect::<Vec<_>>();
            let words = |line| words(&format!("widgets {line}"));
            assert_eq!(wanted(words(line)), (shown, words(left)), "{line}");
        };
        check("serve --all", Shown::First, "serve --all");
        check("serve http", Shown::First, "serve http");
        check("serve --help", Shown::First, "serve --help");
        check("serve --help --all", Shown::All, "serve --help");
        check("serve --all -h", Shown::All, "serve -h");
        check("serve --help auth", Shown::Section("auth"), "serve --help");
        let unknown = Shown::Unknown("other".into());
        check("serve --help other", unknown, "serve --help other");
        check(
            "serve --help --listen",
            Shown::First,
            "serve --help --listen",
        );
        check("export --help other", Shown::First, "export --help other");
        check(
            "export -- --help --all",
            Shown::First,
            "export -- --help --all",
        );
    }
}
