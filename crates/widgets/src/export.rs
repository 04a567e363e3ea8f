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

/// Writes all widgets of a store to a file of JSON Lines (docs/data-format.md).
///
/// The file gets its name only once it is complete.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The file to write; `-` is standard output.
    file: PathBuf,
    /// Replace an existing file of that name, once the new one is complete.
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    store: Given,
}

pub(crate) fn run(Arguments { file, force, store }: Arguments) -> Outcome {
    let store = store.resolve()?;
    let (moved, time) = store.export(file_sink(&file, force)?)?;
    // The file is complete, and standard error may be closed.
    drop(writeln!(
        io::stderr(),
        "{moved} in {:.1} s",
        time.as_secs_f64()
    ));
    Ok(ExitCode::SUCCESS)
}
