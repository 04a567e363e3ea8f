//! `widgets export`: writes all widgets of a store to a file.

use crate::{
    Outcome,
    stores::{Given, file_sink},
};
use std::{
    io::{self, Write as _},
    path::PathBuf,
    process::ExitCode,
};

/// Writes all widgets of a store to a file of JSON Lines (docs/data-format.md). The file has its name
/// only once it is whole.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The file; `-` is the standard output.
    file: PathBuf,
    /// Replace a file that has the name already, once the new one is whole.
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    store: Given,
}

pub(crate) fn run(Arguments { file, force, store }: Arguments) -> Outcome {
    let store = store.resolve()?;
    let (moved, time) = store.export(file_sink(&file, force)?)?;
    writeln!(io::stderr(), "{moved} in {:.1} s", time.as_secs_f64())?;
    Ok(ExitCode::SUCCESS)
}
