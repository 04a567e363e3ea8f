//! `widgets completions`: the commands and flags in the format of a shell, made from the same
//! source as `--help`.

use crate::{Outcome, help};
use clap::CommandFactory as _;
use clap_complete::Shell;
use std::{
    io::{self, Write as _},
    process::ExitCode,
};

/// Prints the script with which a shell completes commands and flags.
///
/// `docs/install.md` says where each shell looks for it.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The shell to print the script for.
    shell: Shell,
}

pub(crate) fn run(Arguments { shell }: &Arguments) -> Outcome {
    let mut command = help::show_all(crate::Arguments::command());
    // Generated into memory first, because the generator panics if writing fails, as it does when a
    // reader leaves.
    let mut script = Vec::new();
    clap_complete::generate(*shell, &mut command, "widgets", &mut script);
    io::stdout().write_all(&script)?;
    Ok(ExitCode::SUCCESS)
}
