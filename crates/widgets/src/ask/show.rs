//! `widgets get`: shows one widget.

use super::{EXIT_CODES, Failure, Service, exit, table, table::shown};
use crate::Outcome;
use std::io::{self, Write as _};

#[derive(clap::Args)]
#[command(after_help = EXIT_CODES)]
pub(crate) struct Get {
    /// The serial number of the widget.
    serial_number: String,
    /// Print the response of the service, as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    service: Service,
}

impl Get {
    pub(crate) fn run(self) -> Outcome {
        exit(self.print())
    }

    fn print(self) -> Result<(), Failure> {
        let (widget, json) = self.service.client()?.get(&self.serial_number)?;
        let mut out = io::stdout().lock();
        if self.json {
            return Ok(writeln!(out, "{json}")?);
        }
        let mut rows = vec![
            ["serial number".into(), shown(&widget.serial_number).into()],
            ["name".into(), shown(&widget.name).into()],
        ];
        for (slot, number) in widget.slots.iter().zip(1..) {
            let peer = slot
                .peer
                .as_deref()
                .map_or("free".into(), |peer| format!("= {}", shown(peer)));
            rows.push([
                format!("slot {number}"),
                format!("{} {peer}", shown(&slot.port)),
            ]);
        }
        Ok(table::write(&mut out, None, &rows)?)
    }
}
