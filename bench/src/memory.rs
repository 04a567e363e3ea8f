//! `widgets-bench memory`: how much memory a widget takes, and how long a start takes.

use crate::{
    load::median,
    peer::{Peer, generate, now},
    report::{Output, Table, number, say},
};
use std::{error::Error, path::Path};
use widgets_load::dataset::Dataset;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// How many widgets the store holds, with half as many associations.
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "1000000,5000000,10000000"
    )]
    sizes: Vec<u64>,
    /// How often the service is started at each size.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    #[command(flatten)]
    output: Output,
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    let directory = arguments.output.directory()?;
    let mut table = Table::new(&[
        "widgets",
        "on disk MiB",
        "generate s",
        "start s",
        "resident MiB",
        "bytes a widget",
        "of them text",
    ]);
    for &widgets in &arguments.sizes {
        let data_dir = directory.join("memory");
        let start = now();
        generate(&data_dir, widgets)?;
        let generated_in = start.elapsed().as_secs_f64();
        let (mut starts, mut resident) = (Vec::new(), Vec::new());
        for _ in 0..arguments.rounds {
            let peer = Peer::embedded(&data_dir, None)?;
            let asked = now();
            peer.get("/ready")?;
            starts.push((peer.started_in + asked.elapsed()).as_secs_f64());
            resident.push(peer.resident_mib()?);
            peer.end()?;
        }
        let (start, mib) = (median(starts), median(resident));
        say(&format!(
            "{widgets} widgets: start {start:.2} s, {mib:.0} MiB"
        ))?;
        table.row([
            number(widgets as f64),
            number(disk_bytes(&data_dir)? / 1_048_576.0),
            number(generated_in),
            number(start),
            number(mib),
            number(mib * 1_048_576.0 / widgets as f64),
            number(text_bytes(widgets)?),
        ]);
        std::fs::remove_dir_all(&data_dir)?;
    }
    let method = format!(
        "Embedded store, half as many associations as widgets, two slots a widget. A start is from the \
         process's to its answer that it is ready, with the files in the system's cache; medians of {}. \
         Text: serial number and name.",
        arguments.rounds
    );
    table.write(&directory, "memory", &method, &[])
}

fn disk_bytes(directory: &Path) -> Result<f64, Box<dyn Error>> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(directory)? {
        bytes += entry?.metadata()?.len();
    }
    Ok(bytes as f64)
}

/// Returns the mean length of serial number and name together over a dataset, in bytes.
fn text_bytes(widgets: u64) -> Result<f64, Box<dyn Error>> {
    let dataset: Dataset = format!("widgets={widgets}").parse()?;
    let mut serial_number = String::new();
    let mut bytes = 0;
    for index in 0..dataset.widgets {
        serial_number.clear();
        Dataset::write_serial_number(index, &mut serial_number);
        bytes += serial_number.len() + dataset.name(index).len();
    }
    Ok(bytes as f64 / f64::from(dataset.widgets.max(1)))
}
