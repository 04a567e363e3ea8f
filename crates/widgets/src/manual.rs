//! `widgets manual`: the manual pages, made from the same source as `--help`.

use crate::{Misuse, Outcome, help};
use clap::{Command, CommandFactory as _};
use clap_mangen::Man;
use std::{
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
};

/// Prints the manual page of a command, or writes the pages of all commands into a directory.
///
/// To read a page, run `widgets manual config check | man --local-file -`.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The command. Without one, the page is that of the whole program.
    command: Vec<String>,
    /// Write the pages of all commands into this directory, which must exist.
    #[arg(long, value_name = "DIRECTORY", conflicts_with = "command")]
    output: Option<PathBuf>,
}

pub(crate) fn run(Arguments { command, output }: &Arguments) -> Outcome {
    let mut program = help::show_all(crate::Arguments::command()).disable_help_subcommand(true);
    // Gives the subcommands their full names.
    program.build();
    if let Some(directory) = output {
        write_all(&program, directory)?;
    } else {
        let found = find(&program, command).map_err(Misuse)?;
        io::stdout().write_all(&page(found)?)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn find<'a>(program: &'a Command, names: &[String]) -> Result<&'a Command, String> {
    names.iter().try_fold(program, |command, name| {
        let below = command.find_subcommand(name);
        below.ok_or_else(|| {
            let of = command.get_bin_name().unwrap_or("widgets");
            let names: Vec<_> = command.get_subcommands().map(Command::get_name).collect();
            match names[..] {
                [] => format!("{of} has no subcommands, `{name}` was given"),
                _ => format!(
                    "{of} has no command `{name}`; its commands are {}",
                    names.join(", ")
                ),
            }
        })
    })
}

/// Returns the title of a command's page: the words of the command, joined by dashes.
fn title(command: &Command) -> String {
    let name = command.get_bin_name().unwrap_or_else(|| command.get_name());
    name.replace(' ', "-")
}

fn page(command: &Command) -> io::Result<Vec<u8>> {
    let title = title(command);
    let mut page = Vec::new();
    Man::new(command.clone().name(title)).render(&mut page)?;
    Ok(page)
}

fn write_all(command: &Command, directory: &Path) -> Result<(), String> {
    let path = directory.join(title(command)).with_extension("1");
    let written = page(command).and_then(|page| fs::write(&path, page));
    written.map_err(|error| format!("cannot write {}: {error}", path.display()))?;
    command
        .get_subcommands()
        .try_for_each(|below| write_all(below, directory))
}
