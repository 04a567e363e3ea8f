//! `widgets add`, `remove`, `associate` and `dissociate`: the four operations. Each has an
//! idempotency key and is sent again if its fate is unknown, so it is applied once.

use super::{EXIT_CODES, Service, exit, table};
use crate::Outcome;
use std::{
    io::{self, Write as _},
    time::Duration,
};
use widgets_client::Operation;

/// The limit on the sum of all pauses between attempts.
const PATIENCE: Duration = Duration::from_secs(5);

#[derive(clap::Args)]
#[command(after_help = EXIT_CODES)]
pub(crate) struct Add {
    /// The serial number, which must not be in use.
    serial_number: String,
    /// The name.
    name: String,
    /// The port types of the slots, at most three: P, R or Q, such as `P R R` or `PRR`.
    slots: Vec<String>,
    #[command(flatten)]
    service: Service,
}

#[derive(clap::Args)]
#[command(after_help = EXIT_CODES)]
pub(crate) struct Remove {
    /// The serial number of the widget.
    serial_number: String,
    #[command(flatten)]
    service: Service,
}

/// Two widgets and the port type between them.
#[derive(clap::Args)]
struct Pair {
    /// The serial number of one widget.
    widget1: String,
    /// The serial number of the other widget.
    widget2: String,
    /// The port type: P, R or Q.
    port: String,
}

#[derive(clap::Args)]
#[command(after_help = EXIT_CODES)]
pub(crate) struct Associate {
    #[command(flatten)]
    pair: Pair,
    #[command(flatten)]
    service: Service,
}

#[derive(clap::Args)]
#[command(after_help = EXIT_CODES)]
pub(crate) struct Dissociate {
    #[command(flatten)]
    pair: Pair,
    #[command(flatten)]
    service: Service,
}

impl Add {
    pub(crate) fn run(self) -> Outcome {
        let slots: Vec<String> = self.slots.iter().flat_map(|slots| ports(slots)).collect();
        let operation = Operation::add_widget(&self.serial_number, &self.name, &slots);
        apply(self.service, &operation)
    }
}

impl Remove {
    pub(crate) fn run(self) -> Outcome {
        let operation = Operation::remove_widget(&self.serial_number);
        apply(self.service, &operation)
    }
}

impl Associate {
    pub(crate) fn run(self) -> Outcome {
        let Pair {
            widget1,
            widget2,
            port,
        } = self.pair;
        let operation = Operation::associate_widgets(&widget1, &widget2, &port);
        apply(self.service, &operation)
    }
}

impl Dissociate {
    pub(crate) fn run(self) -> Outcome {
        let Pair {
            widget1,
            widget2,
            port,
        } = self.pair;
        let operation = Operation::remove_association(&widget1, &widget2, &port);
        apply(self.service, &operation)
    }
}

fn apply(service: Service, operation: &Operation) -> Outcome {
    let shown = table::shown(&service.url).into_owned();
    let done = service.client().and_then(|client| {
        let done = client.safely(operation, PATIENCE);
        if let Some(primary) = client.primary() {
            // If standard error cannot be written, nothing is lost.
            drop(writeln!(
                io::stderr(),
                "note: {shown} is a standby; the operation was sent to its primary, {}",
                table::shown(&primary)
            ));
        }
        done
    });
    exit(done.map_err(Into::into))
}

/// Splits `PRR` into three slots. The service decides whether a letter is a port type.
fn ports(slots: &str) -> impl Iterator<Item = String> {
    slots
        .chars()
        .filter(|letter| !matches!(letter, ',' | ' '))
        .map(String::from)
}
