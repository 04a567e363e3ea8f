//! A batch as one call of `widgets.apply_operations`: its arguments, and its outcomes as answers.

use tokio_postgres::{
    Row,
    types::{ToSql, Type},
};
use widgets_registry::{Command, Operation, Refusal, SLOTS_MAX};

/// The call. It is sent unnamed, with the types of its arguments, so that it needs one round trip
/// and nothing that the session would have to remember.
pub(crate) const CALL: &str = "
    SELECT add_outcomes, remove_outcomes, pair_outcomes
    FROM widgets.apply_operations($1, $2, $3::widgets.port_type[], $4::widgets.port_type[],
        $5::widgets.port_type[], $6, $7, $8, $9::widgets.port_type[], $10, $11)";

/// The arguments: the operations of one kind are parallel arrays, in the order of the batch.
#[derive(Debug, Default)]
pub(crate) struct Call<'a> {
    add_sns: Vec<&'a str>,
    add_names: Vec<&'a str>,
    add_ports: [Vec<Option<&'static str>>; SLOTS_MAX],
    remove_sns: Vec<&'a str>,
    pair_sns1: Vec<&'a str>,
    pair_sns2: Vec<&'a str>,
    pair_ports: Vec<&'static str>,
    pair_associates: Vec<bool>,
    lock_first: bool,
}

/// An answer of the database that no version of the function gives.
#[derive(Debug, thiserror::Error)]
#[error("widgets.apply_operations gave the outcome {outcome:?} to {operation}")]
pub(crate) struct UnknownOutcome {
    operation: Operation,
    outcome: Option<String>,
}

impl<'a> Call<'a> {
    /// A call that applies these commands. With `lock_first` it passes over those whose widgets others
    /// have locked, rather than wait and fail.
    pub(crate) fn new(commands: impl Iterator<Item = &'a Command>, lock_first: bool) -> Self {
        let mut call = Self {
            lock_first,
            ..Self::default()
        };
        for command in commands {
            match command {
                Command::AddWidget {
                    serial_number,
                    name,
                    ports,
                } => {
                    call.add_sns.push(serial_number);
                    call.add_names.push(name);
                    let mut given = ports.iter().map(|(_, port)| port.as_str());
                    for ports in &mut call.add_ports {
                        ports.push(given.next());
                    }
                }
                Command::RemoveWidget { serial_number } => call.remove_sns.push(serial_number),
                Command::AssociateWidgets(pair) | Command::RemoveAssociation(pair) => {
                    call.pair_sns1.push(pair.widget1());
                    call.pair_sns2.push(pair.widget2());
                    call.pair_ports.push(pair.port().as_str());
                    call.pair_associates
                        .push(command.operation() == Operation::AssociateWidgets);
                }
            }
        }
        call
    }

    pub(crate) fn parameters(&self) -> [(&(dyn ToSql + Sync), Type); 11] {
        let [ports1, ports2, ports3] = &self.add_ports;
        [
            (&self.add_sns, Type::TEXT_ARRAY),
            (&self.add_names, Type::TEXT_ARRAY),
            (ports1, Type::TEXT_ARRAY),
            (ports2, Type::TEXT_ARRAY),
            (ports3, Type::TEXT_ARRAY),
            (&self.remove_sns, Type::TEXT_ARRAY),
            (&self.pair_sns1, Type::TEXT_ARRAY),
            (&self.pair_sns2, Type::TEXT_ARRAY),
            (&self.pair_ports, Type::TEXT_ARRAY),
            (&self.pair_associates, Type::BOOL_ARRAY),
            (&self.lock_first, Type::BOOL),
        ]
    }
}

/// What became of an operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Applied,
    Refused(Refusal),
    /// Another transaction holds its widgets: it was not applied.
    Locked,
}

/// The outcomes of a call, to be asked for in the order of its commands.
pub(crate) struct Outcomes {
    add: std::vec::IntoIter<String>,
    remove: std::vec::IntoIter<String>,
    pair: std::vec::IntoIter<String>,
}

impl Outcomes {
    pub(crate) fn read(row: &Row) -> Result<Self, tokio_postgres::Error> {
        let column = |index| {
            let outcomes: Option<Vec<String>> = row.try_get(index)?;
            Ok(outcomes.unwrap_or_default().into_iter())
        };
        Ok(Self {
            add: column(0)?,
            remove: column(1)?,
            pair: column(2)?,
        })
    }

    /// The next outcome of a command of this kind.
    pub(crate) fn next(&mut self, command: &Command) -> Result<Outcome, UnknownOutcome> {
        let outcome = match command {
            Command::AddWidget { .. } => self.add.next(),
            Command::RemoveWidget { .. } => self.remove.next(),
            Command::AssociateWidgets(_) | Command::RemoveAssociation(_) => self.pair.next(),
        };
        match outcome.as_deref() {
            Some("ok") => Ok(Outcome::Applied),
            Some("locked") => Ok(Outcome::Locked),
            Some(code) if let Some(refusal) = refusal(command, code) => {
                Ok(Outcome::Refused(refusal))
            }
            _ => Err(UnknownOutcome {
                operation: command.operation(),
                outcome,
            }),
        }
    }
}

/// What this code says of this command.
fn refusal(command: &Command, code: &str) -> Option<Refusal> {
    let (widget1, widget2, port) = match command {
        Command::AddWidget { serial_number, .. } => {
            let serial_number = serial_number.clone();
            return (code == "23505").then_some(Refusal::SerialNumberTaken { serial_number });
        }
        Command::RemoveWidget { serial_number } => {
            let serial_number = serial_number.clone();
            return (code == "WG001").then_some(Refusal::WidgetMissing { serial_number });
        }
        Command::AssociateWidgets(pair) | Command::RemoveAssociation(pair) => {
            (pair.widget1().clone(), pair.widget2().clone(), pair.port())
        }
    };
    let associates = command.operation() == Operation::AssociateWidgets;
    Some(match code {
        "WG001/1" => Refusal::WidgetMissing {
            serial_number: widget1,
        },
        "WG001/2" => Refusal::WidgetMissing {
            serial_number: widget2,
        },
        "WG002/1" if associates => Refusal::NoFreeSlot {
            serial_number: widget1,
            port,
        },
        "WG002/2" if associates => Refusal::NoFreeSlot {
            serial_number: widget2,
            port,
        },
        "WG003" if associates => Refusal::AlreadyAssociated {
            widget1,
            widget2,
            port,
        },
        "WG004" if !associates => Refusal::NotAssociated {
            widget1,
            widget2,
            port,
        },
        _ => return None,
    })
}
