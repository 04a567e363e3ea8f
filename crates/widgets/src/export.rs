//! `widgets export`: writes all widgets of a store to a file.

use crate::{
    Outcome,
    stores::{Store, file_sink},
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
    #[command(flatten)]
    store: Store,
}

pub(crate) fn run(Arguments { file, store }: &Arguments) -> Outcome {
    let (moved, time) = store.export(file_sink(file)?)?;
    writeln!(io::stderr(), "{moved} in {:.1} s", time.as_secs_f64())?;
    Ok(ExitCode::SUCCESS)
}
