//! `widgets generate`: makes any number of widgets from a seed.

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

/// Makes widgets with two slots on average, the same ones for the same seed, in an empty store or in
/// a file. All of them become durable together at the end: after an interruption there are none, and
/// the same command starts anew.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// How many widgets.
    #[arg(long, value_parser = widgets)]
    widgets: u32,
    /// What the choices are made from.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The share of slots that are associated.
    #[arg(long, default_value = "50%", value_parser = share)]
    associated: f64,
    /// Write a file of JSON Lines instead of filling a store (docs/data-format.md); `-` is the standard
    /// output.
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Replace a file that has the name already, once the new one is whole.
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
        let why = "--output is for a file, --store and --data-dir are for a store: give one";
        return Err(Misuse(why.into()).into());
    }
    let sink = match arguments.output {
        Some(path) => file_sink(&path, arguments.force)?,
        None => arguments.store.resolve()?.sink()?,
    };
    let mut progress = Progress::new(Some(dataset.widgets.into()));
    let moved = generate(&dataset, sink, &mut progress)?;
    writeln!(
        io::stderr(),
        "{moved} in {:.1} s. For `widgets load`: --dataset {dataset}",
        progress.elapsed().as_secs_f64()
    )?;
    Ok(ExitCode::SUCCESS)
}
