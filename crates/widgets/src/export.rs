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
use widgets_load::transfer::{Progress, export};

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
    store.export(&mut |widgets, count| {
        let mut progress = Progress::new(Some(count));
        let moved = export(widgets, file_sink(file)?, &mut progress)?;
        let seconds = progress.elapsed().as_secs_f64();
        // Whoever closed the standard error does not want to know.
        let _ = writeln!(io::stderr(), "{moved} in {seconds:.1} s");
        Ok(())
    })?;
    Ok(ExitCode::SUCCESS)
}
