//! `widgets generate`: generates any number of widgets from a seed.

use crate::{
    Misuse, Outcome,
    stores::{Given, file_sink},
};
use std::{
    io::{self, Write as _},
    path::PathBuf,
    process::ExitCode,
};
use widgets_load::{
    dataset::{self, Dataset},
    mix::share,
    quantity::count,
    transfer::{Progress, generate},
};

/// Generates any number of widgets from a seed, in an empty store or in a file.
///
/// The widgets have two slots on average, and the same seed gives the same widgets. All of them become
/// durable together at the end. After an interruption there are none, so run the same command again.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// How many widgets to generate.
    #[arg(long, value_parser = widgets)]
    widgets: u32,
    /// The seed of the random choices.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The share of slots that are associated.
    #[arg(long, default_value = "50%", value_parser = share)]
    associated: f64,
    /// Write a file of JSON Lines (docs/data-format.md) instead of filling a store; `-` is standard
    /// output.
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Replace an existing file of that name, once the new one is complete.
    #[arg(long, requires = "output")]
    force: bool,
    #[command(flatten)]
    store: Given,
}

fn widgets(text: &str) -> Result<u32, String> {
    let number = count(text);
    dataset::widgets(number.ok_or_else(|| {
        format!("must be a whole number, as in `5000` or `10M`, `{text}` was given")
    })?)
}

pub(crate) fn run(arguments: Arguments) -> Outcome {
    let dataset = Dataset {
        widgets: arguments.widgets,
        seed: arguments.seed,
        associated: arguments.associated,
    };
    if arguments.output.is_some() && arguments.store.is_flag() {
        let why = "--output names a file, and --store and --data-dir name a store: give one of \
        them";
        return Err(Misuse(why.into()).into());
    }
    let sink = match arguments.output {
        Some(path) => file_sink(&path, arguments.force)?,
        None => arguments.store.resolve()?.sink()?,
    };
    let mut progress = Progress::new(Some(dataset.widgets.into()));
    let moved = generate(&dataset, sink, &mut progress)?;
    // Everything is durable, and standard error may be closed.
    drop(writeln!(
        io::stderr(),
        "{moved} in {:.1} s. For `widgets load`: --dataset {dataset}",
        progress.elapsed().as_secs_f64()
    ));
    Ok(ExitCode::SUCCESS)
}
