//! `widgets import`: fills an empty store from a file.

use crate::{Outcome, stores::Given};
use std::{
    fs::File,
    io::{self, BufReader, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
};
use widgets_load::{
    os_error::explain,
    transfer::{Lines, Progress, import},
};

/// Fills an empty store from a file of JSON Lines (docs/data-format.md), as written by `widgets export`
/// and `widgets generate --output`.
///
/// Checks every line, and that both ends of each association agree. All widgets become durable
/// together at the end. After an error or an interruption the store is as empty as before.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The file to read; `-` is standard input.
    file: PathBuf,
    #[command(flatten)]
    store: Given,
}

pub(crate) fn run(Arguments { file, store }: Arguments) -> Outcome {
    let named = |error: &dyn std::fmt::Display| format!("{}: {error}", file.display());
    let standard_input = file == Path::new("-");
    let input = if standard_input {
        None
    } else {
        let opened = File::open(&file);
        Some(opened.map_err(|error| explain(&format!("reading {}", file.display()), &error))?)
    };
    // Before the file is read, so that an unusable store is reported at once.
    let sink = store.resolve()?.sink()?;
    let mut progress = Progress::new(None);
    let moved = match input {
        Some(input) => {
            let mut input = BufReader::with_capacity(1 << 20, input);
            import(&mut Lines::new(&mut input), sink, &mut progress)
        }
        None => import(
            &mut Lines::new(&mut io::stdin().lock()),
            sink,
            &mut progress,
        ),
    };
    let moved = moved.map_err(|error| named(&error))?;
    // Everything is durable, and standard error may be closed.
    drop(writeln!(
        io::stderr(),
        "{moved} in {:.1} s",
        progress.elapsed().as_secs_f64()
    ));
    Ok(ExitCode::SUCCESS)
}
