//! `--help`, which shows what people use first, `--help --all` and `--help SECTION`.

use crate::config::{SECTIONS, heading};
use clap::Command;
use std::ffi::OsString;

/// What a help is to show.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Shown {
    /// What people use first.
    First,
    All,
    /// The flags of one section of the configuration.
    Section(&'static str),
}

/// Takes `--all` and a section out of a command line that asks for help, and lets the command show what
/// they ask for. Any other command line stays as it is.
pub(crate) fn prepare(command: Command, arguments: Vec<OsString>) -> (Command, Vec<OsString>) {
    let (shown, arguments) = wanted(arguments);
    let command = match shown {
        Shown::First => command,
        Shown::All => show_all(command),
        Shown::Section(section) => {
            let about = SECTIONS.iter().find(|(name, _)| *name == section);
            let heading = heading(section, about.map_or("", |(_, about)| about));
            show(command, &move |of| of == Some(&heading))
        }
    };
    (command, arguments)
}

/// Shows every flag, as `--help --all` does.
pub(crate) fn show_all(command: Command) -> Command {
    show(command, &|_| true)
}

fn wanted(mut arguments: Vec<OsString>) -> (Shown, Vec<OsString>) {
    // What follows the lone dashes are no flags.
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
    match section {
        Some((section, _)) => {
            arguments.remove(help + 1);
            (Shown::Section(section), arguments)
        }
        None => (Shown::First, arguments),
    }
}

/// Shows the arguments under the headings that `wanted` takes, of the command and of those below it.
fn show(command: Command, wanted: &dyn Fn(Option<&str>) -> bool) -> Command {
    let below: Vec<String> = command
        .get_subcommands()
        .map(|command| command.get_name().to_owned())
        .collect();
    let command = command.mut_args(|argument| {
        let heading = argument.get_help_heading();
        // What is under no heading and hidden is there for its error message only.
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
    fn only_a_command_line_that_asks_for_help_is_changed() {
        let check = |line: &str, shown: Shown, left: &str| {
            let words = |line: &str| line.split(' ').map(OsString::from).collect::<Vec<_>>();
            assert_eq!(wanted(words(line)), (shown, words(left)), "{line}");
        };
        check("serve --all", Shown::First, "serve --all");
        check("serve http", Shown::First, "serve http");
        check("serve --help", Shown::First, "serve --help");
        check("serve --help --all", Shown::All, "serve --help");
        check("serve --all -h", Shown::All, "serve -h");
        check("serve --help auth", Shown::Section("auth"), "serve --help");
        check("serve --help other", Shown::First, "serve --help other");
        check(
            "export -- --help --all",
            Shown::First,
            "export -- --help --all",
        );
    }
}
