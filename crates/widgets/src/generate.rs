//! `widgets generate`: makes any number of widgets from a seed.

use crate::{
    Outcome,
    stores::{Store, file_sink},
};
use std::{
    io::{self, Write as _},
    path::PathBuf,
    process::ExitCode,
};
use widgets_load::{
    dataset::{self, Dataset},
    mix::share,
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
    #[command(flatten)]
    to: To,
}

#[derive(clap::Args, Clone)]
#[group(required = true, multiple = false)]
struct To {
    /// Fill the data directory of an embedded store that no service runs on.
    #[arg(long, value_name = "DIRECTORY")]
    data_dir: Option<PathBuf>,
    /// Fill a migrated PostgreSQL database, as in `postgres://owner@host/database`; the role must own
    /// the tables.
    #[arg(long, value_name = "URL")]
    store: Option<String>,
    /// Write a file of JSON Lines instead (docs/data-format.md); `-` is the standard output.
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
}

fn widgets(text: &str) -> Result<u32, String> {
    let number = text.replace('_', "").parse();
    dataset::widgets(number.map_err(|_| format!("must be a whole number, `{text}` was given"))?)
}

pub(crate) fn run(arguments: &Arguments) -> Outcome {
    let dataset = Dataset {
        widgets: arguments.widgets,
        seed: arguments.seed,
        associated: arguments.associated,
    };
    let To {
        data_dir,
        store,
        output,
    } = arguments.to.clone();
    let sink = match output {
        Some(path) => file_sink(&path)?,
        None => Store { data_dir, store }.sink()?,
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
