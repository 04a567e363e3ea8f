//! `widgets plan`: which machines a registry of a given size needs.

mod figures;
mod model;
#[cfg(test)]
mod tests;

use crate::Outcome;
use figures::Figure;
use model::{Machine, Plan, Store, Wanted, plan};
use serde::Serialize;
use std::{
    io::{self, Write},
    process::ExitCode,
};
use widgets_load::{
    quantity::{bytes, count, rate},
    report::count_text,
};

const EXAMPLES: &str = "\
Examples:
  widgets plan --widgets 10M --rate 5k
  widgets plan --widgets 1e9 --rate 200000 --store citus
  widgets plan --widgets 1e9 --rate 200000 --json";

#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// How many widgets there are: `5000`, `10M` or `1e9`.
    #[arg(long, value_parser = widgets)]
    widgets: u64,
    /// How many operations per second there are at peak: `2500`, `5k` or `2e5`.
    #[arg(long, value_parser = operations)]
    rate: f64,
    /// Plan only for this store. The default is all stores.
    #[arg(long, value_name = "STORE")]
    store: Option<Store>,
    /// How many CPU cores a machine has.
    #[arg(long, value_name = "CORES", default_value_t = 16, value_parser = clap::value_parser!(u64).range(1..=1024))]
    machine_cores: u64,
    /// How much memory a machine has: `64GiB`.
    #[arg(long, value_name = "BYTES", default_value = "64GiB", value_parser = memory)]
    machine_memory: u64,
    /// Print the plan as JSON, for programs.
    #[arg(long)]
    json: bool,
}

/// The maximum number of widgets that the model was made for.
const WIDGETS_MOST: u64 = 100_000_000_000;
const RATE_MOST: f64 = 1e8;
const MEMORY_LEAST: u64 = 1 << 30;
const MEMORY_MOST: u64 = 64 << 40;

fn widgets(text: &str) -> Result<u64, String> {
    let most = count_text(WIDGETS_MOST);
    count(text)
        .filter(|widgets| (1..=WIDGETS_MOST).contains(widgets))
        .ok_or_else(|| {
            format!("must be a whole number from 1 to {most}, as in `5000`, `10M` or `1e9`, `{text}` was given")
        })
}

fn operations(text: &str) -> Result<f64, String> {
    rate(text)
        .filter(|rate| (0.001..=RATE_MOST).contains(rate))
        .ok_or_else(|| {
            format!(
                "must be from 0.001 to {RATE_MOST} a second, as in `2500`, `5k` or `2e5`, `{text}` was given"
            )
        })
}

fn memory(text: &str) -> Result<u64, String> {
    bytes(text)
        .filter(|bytes| (MEMORY_LEAST..=MEMORY_MOST).contains(bytes))
        .ok_or_else(|| {
            format!("must be from 1GiB to 64TiB (65536GiB), as in `64GiB`, `{text}` was given")
        })
}

/// The plan that is printed.
#[derive(Serialize)]
struct Told {
    #[serde(flatten)]
    wanted: Wanted,
    /// The first store that fits, in order of the effort that they demand.
    advice: Option<Store>,
    plans: Vec<Plan>,
    /// The figures that the plan was calculated from.
    figures: [&'static Figure; 13],
}

impl Told {
    fn new(wanted: Wanted, store: Option<Store>) -> Self {
        let all = [Store::Embedded, Store::Postgres, Store::Citus];
        let stores = store.map_or(all.to_vec(), |store| vec![store]);
        let plans: Vec<_> = stores.iter().map(|&store| plan(store, &wanted)).collect();
        Self {
            wanted,
            advice: plans.iter().find(|plan| plan.fits).map(|plan| plan.store),
            plans,
            figures: figures::ALL,
        }
    }
}

pub(crate) fn run(arguments: &Arguments) -> Outcome {
    let wanted = Wanted {
        widgets: arguments.widgets,
        rate: arguments.rate,
        machine: Machine {
            cores: arguments.machine_cores,
            memory_bytes: arguments.machine_memory,
        },
    };
    let told = Told::new(wanted, arguments.store);
    let mut out = io::stdout().lock();
    if arguments.json {
        serde_json::to_writer(&mut out, &told)?;
        writeln!(out)?;
    } else {
        write(&mut out, &told)?;
    }
    Ok(ExitCode::SUCCESS)
}

const fn name(store: Store) -> &'static str {
    match store {
        Store::Embedded => "embedded",
        Store::Postgres => "postgres",
        Store::Citus => "citus",
    }
}

#[expect(clippy::cast_precision_loss, reason = "for people")]
fn gibibytes(bytes: u64) -> String {
    let gibibytes = bytes as f64 / f64::from(1 << 30);
    if gibibytes < 10.0 {
        format!("{gibibytes:.1} GiB")
    } else {
        format!("{} GiB", count_text(bytes.div_ceil(1 << 30)))
    }
}

fn write(out: &mut impl Write, told: &Told) -> io::Result<()> {
    let Wanted {
        widgets,
        rate,
        machine,
    } = told.wanted;
    writeln!(
        out,
        "{} widgets, {rate} operations a second, machines of {} cores and {}",
        count_text(widgets),
        machine.cores,
        gibibytes(machine.memory_bytes)
    )?;
    for plan in &told.plans {
        let verdict = if plan.fits { "" } else { ": does not fit" };
        writeln!(out, "\n{}{verdict}", name(plan.store))?;
        for machines in &plan.machines {
            writeln!(
                out,
                "  {:>4} × {}: each {:.1} cores, {} memory, {} disk",
                machines.count,
                machines.role,
                machines.cores,
                gibibytes(machines.memory_bytes),
                gibibytes(machines.disk_bytes)
            )?;
        }
        writeln!(
            out,
            "  machines: {}; shards: {}; {:.1} µs of CPU time per operation",
            plan.machines_total, plan.shards, plan.microseconds_an_operation
        )?;
        writeln!(
            out,
            "  limited by: {}; {:.0} % of it used",
            plan.limit,
            plan.limit_used * 100.0
        )?;
        for note in &plan.notes {
            writeln!(out, "  note: {note}")?;
        }
    }
    match told.advice {
        Some(store) if told.plans.len() > 1 => {
            writeln!(out, "\nadvice: {}, the simplest that fits", name(store))?;
        }
        None => writeln!(
            out,
            "\nnothing fits: try larger machines (--machine-cores, --machine-memory), or fewer \
             widgets in each registry"
        )?,
        Some(_) => {}
    }
    writeln!(
        out,
        "an estimate, extrapolated from what was measured on two processors: docs/scale.md"
    )
}
