//! `widgets near`: shows what a widget is connected with.

use super::{EXIT_CODES, Failure, Service, exit, table, table::shown};
use crate::Outcome;
use std::io::{self, Write as _};

#[derive(clap::Args)]
#[command(after_help = EXIT_CODES)]
pub(crate) struct Near {
    /// The serial number of the widget to start from.
    serial_number: String,
    /// How many associations away from it to go.
    #[arg(long, default_value_t = 2)]
    depth: u8,
    /// How many widgets to show at most, the nearest first.
    #[arg(long, default_value_t = 500)]
    widgets_max: u32,
    /// Print the response of the service, as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    service: Service,
}

impl Near {
    pub(crate) fn run(self) -> Outcome {
        exit(self.print())
    }

    fn print(self) -> Result<(), Failure> {
        let client = self.service.client()?;
        let (near, json) =
            client.neighbourhood(&self.serial_number, self.depth, self.widgets_max)?;
        let mut out = io::stdout().lock();
        if self.json {
            return Ok(writeln!(out, "{json}")?);
        }
        // The widgets that no association below names: the one in the middle, if it has no
        // association or if its neighbours are too many to be shown.
        let alone: Vec<_> = near
            .widgets
            .iter()
            .filter(|widget| {
                let serial_number = &widget.serial_number;
                let mut ends = near.associations.iter();
                !ends.any(|one| [&one.widget1_sn, &one.widget2_sn].contains(&serial_number))
            })
            .map(table::widget)
            .collect();
        if !alone.is_empty() {
            table::write(&mut out, Some(table::WIDGET_TITLES), &alone)?;
            writeln!(out)?;
        }
        let rows: Vec<_> = near
            .associations
            .iter()
            .map(|one| [&one.widget1_sn, &one.port, &one.widget2_sn].map(|text| shown(text).into()))
            .collect();
        if !rows.is_empty() {
            table::write(&mut out, Some(["WIDGET 1", "PORT", "WIDGET 2"]), &rows)?;
            writeln!(out)?;
        }
        writeln!(
            out,
            "widgets within {} of {}: {}; associations: {}",
            self.depth,
            shown(&self.serial_number),
            near.widgets.len(),
            near.associations.len()
        )?;
        if near.truncated {
            writeln!(
                out,
                "there are more: these are the first --widgets-max {}",
                self.widgets_max
            )?;
        }
        Ok(())
    }
}
