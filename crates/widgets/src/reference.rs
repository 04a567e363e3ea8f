//! Generates `docs/command-line.md` from the commands. `UPDATE_EXPECT=1 cargo test -p widgets`
//! writes it.

use crate::Arguments;
use clap::{Arg, ArgAction, Command, CommandFactory as _};
use std::fmt::Write as _;

const INTRODUCTION: &str = "\
# The command line

This is what `widgets COMMAND --help` prints, for every command. Flags that are configuration keys (`--listen`, `--store`
and others) are in [configuration.md](configuration.md), with their variables, defaults and limits. `serve` and `config`
take all of them, and other commands take the ones that their `--help` shows.

A number may have a unit (`5k`, `10M`) or an exponent (`1e9`). A time must have a unit (`75s`, `1m 30s`, `250ms`).

| exit code | meaning |
|---|---|
| 0 | It did what it was asked to do. |
| 1 | It could not, and says why on standard error. |
| 2 | The command line or another input is wrong. |
| 3, 4 | Only commands that ask a running service: it refused the operation, or may have applied it ([commands.md](commands.md)). |
| 130, 143 | It was ended by Ctrl-C or SIGTERM. |
";

/// Returns whether an argument is common to every command, or belongs to a configuration key, and
/// is described elsewhere.
fn is_elsewhere(argument: &Arg) -> bool {
    let key = argument.get_id().as_str().contains('.');
    let of_all = ["help", "version", "config"].contains(&argument.get_id().as_str());
    key || of_all || argument.is_hide_set()
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ")
}

fn row(argument: &Arg) -> String {
    let mut name = match argument.get_long() {
        Some(long) => format!("--{long}"),
        None => match argument.get_value_names() {
            Some([name]) => name.to_string(),
            _ => argument.get_id().as_str().to_uppercase(),
        },
    };
    if let (Some(_), Some(values)) = (argument.get_long(), argument.get_value_names())
        && argument.get_action().takes_values()
    {
        _ = write!(name, " {}", values.join(" "));
    }
    let mut meaning = argument
        .get_help()
        .map(ToString::to_string)
        .unwrap_or_default();
    if !meaning.ends_with('.') {
        meaning.push('.');
    }
    if matches!(argument.get_action(), ArgAction::Append) && !meaning.contains("repeated") {
        meaning.push_str(" May be repeated.");
    }
    let defaults: Vec<_> = argument
        .get_default_values()
        .iter()
        .map(|value| format!("`{}`", value.to_string_lossy()))
        .collect();
    let default = match argument.get_action() {
        ArgAction::SetTrue => String::new(),
        _ => defaults.join(" "),
    };
    let variable = argument
        .get_env()
        .map(|name| format!("<br>`{}`", name.to_string_lossy()));
    format!(
        "| `{}`{} | {default} | {} |",
        cell(&name),
        variable.unwrap_or_default(),
        cell(&meaning)
    )
}

fn describe(document: &mut String, path: &str, command: &Command) {
    let below: Vec<&Command> = command
        .get_subcommands()
        .filter(|below| below.get_name() != "help" && !below.is_hide_set())
        .collect();
    let about = command.get_long_about().or_else(|| command.get_about());
    let about = about.map(ToString::to_string).unwrap_or_default();
    // Writing to a string cannot fail.
    _ = writeln!(document, "\n## `{path}`\n\n{}", about.trim());
    let arguments: Vec<&Arg> = command
        .get_arguments()
        .filter(|argument| !is_elsewhere(argument))
        .collect();
    let mut headings: Vec<Option<&str>> = Vec::new();
    for argument in &arguments {
        let heading = argument.get_help_heading();
        if !headings.contains(&heading) {
            headings.push(heading);
        }
    }
    for heading in headings {
        let title = heading.map_or(String::new(), |heading| format!("**{heading}**\n\n"));
        _ = writeln!(
            document,
            "\n{title}| argument | default | meaning |\n|---|---|---|"
        );
        for argument in arguments
            .iter()
            .filter(|each| each.get_help_heading() == heading)
        {
            _ = writeln!(document, "{}", row(argument));
        }
    }
    for below in below {
        describe(document, &format!("{path} {}", below.get_name()), below);
    }
}

fn document() -> String {
    let mut command = Arguments::command();
    command.build();
    let mut document = INTRODUCTION.to_owned();
    for below in command
        .get_subcommands()
        .filter(|below| below.get_name() != "help")
    {
        describe(
            &mut document,
            &format!("widgets {}", below.get_name()),
            below,
        );
    }
    document
}

#[test]
fn the_command_line_page_is_up_to_date() {
    expect_test::expect_file!["../../../docs/command-line.md"].assert_eq(&document());
}
