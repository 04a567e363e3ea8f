//! Encodes a batch as one call of `widgets.apply_batch` and decodes its outcomes.

use crate::keys::{kept_with, key_digest};
use tokio_postgres::{
    Row,
    types::{ToSql, Type},
};
use widgets_registry::{Attempt, Command, Operation, Position, Refusal, SLOTS_MAX};

/// The call. It is sent as an unnamed statement with the types of its arguments, so that it needs
/// one round trip and leaves no state in the session.
pub(crate) const CALL: &str = "
    SELECT add_outcomes, remove_outcomes, pair_outcomes, store, epoch, newest
    FROM widgets.apply_batch($1, $2, $3::widgets.port_type[], $4::widgets.port_type[],
        $5::widgets.port_type[], $6, $7, $8, $9::widgets.port_type[], $10, $11, $12, $13, $14, $15, $16, $17)";

/// The arguments. The operations of one kind are parallel arrays, in the order of the batch.
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
    /// The author of each addition; `None` if no addition in the batch has an author. The same
    /// holds for the other kinds.
    add_by: Option<Vec<Option<&'a str>>>,
    remove_by: Option<Vec<Option<&'a str>>>,
    pair_by: Option<Vec<Option<&'a str>>>,
    /// For each operation with an idempotency key: the digest of the key, the digest of the
    /// request, and the operation's place in the batch. `None` if no operation has a key.
    keys: Option<Vec<Vec<u8>>>,
    requests: Option<Vec<Vec<u8>>>,
    places: Option<Vec<i32>>,
}

/// An outcome that no version of the function defines.
#[derive(Debug, thiserror::Error)]
#[error("widgets.apply_batch gave the outcome {outcome:?} to {operation}")]
pub(crate) struct UnknownOutcome {
    operation: Operation,
    outcome: Option<String>,
}

impl<'a> Call<'a> {
    /// Creates a call that applies these operations. With `lock_first`, it skips operations whose
    /// widgets others have locked, instead of waiting and failing.
    pub(crate) fn new(attempts: impl Iterator<Item = &'a Attempt>, lock_first: bool) -> Self {
        let mut call = Self {
            lock_first,
            ..Self::default()
        };
        let (mut add_by, mut remove_by, mut pair_by) = (Vec::new(), Vec::new(), Vec::new());
        let mut keyed = Vec::new();
        for attempt in attempts {
            let by = attempt.author.as_deref();
            let (kind, place) = match &attempt.command {
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
                    add_by.push(by);
                    (Kind::Add, add_by.len())
                }
                Command::RemoveWidget { serial_number } => {
                    call.remove_sns.push(serial_number);
                    remove_by.push(by);
                    (Kind::Remove, remove_by.len())
                }
                Command::AssociateWidgets(pair) | Command::RemoveAssociation(pair) => {
                    call.pair_sns1.push(pair.widget1());
                    call.pair_sns2.push(pair.widget2());
                    call.pair_ports.push(pair.port().as_str());
                    let operation = attempt.command.operation();
                    call.pair_associates
                        .push(operation == Operation::AssociateWidgets);
                    pair_by.push(by);
                    (Kind::Pair, pair_by.len())
                }
            };
            if let Some(key) = &attempt.key {
                let author = attempt.author.as_ref();
                keyed.push((
                    kind,
                    place,
                    key_digest(author, key),
                    kept_with(&attempt.command, attempt.asker),
                ));
            }
        }
        let said = |by: Vec<Option<&'a str>>| by.iter().any(Option::is_some).then_some(by);
        for (kind, place, key, request) in keyed {
            let before = match kind {
                Kind::Add => 0,
                Kind::Remove => add_by.len(),
                Kind::Pair => add_by.len() + remove_by.len(),
            };
            call.keys.get_or_insert_default().push(key);
            call.requests.get_or_insert_default().push(request);
            // A batch has at most a few thousand operations.
            let place = i32::try_from(before + place).unwrap_or(i32::MAX);
            call.places.get_or_insert_default().push(place);
        }
        call.add_by = said(add_by);
        call.remove_by = said(remove_by);
        call.pair_by = said(pair_by);
        call
    }

    pub(crate) fn parameters(&self) -> [(&(dyn ToSql + Sync), Type); 17] {
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
            (&self.add_by, Type::TEXT_ARRAY),
            (&self.remove_by, Type::TEXT_ARRAY),
            (&self.pair_by, Type::TEXT_ARRAY),
            (&self.keys, Type::BYTEA_ARRAY),
            (&self.requests, Type::BYTEA_ARRAY),
            (&self.places, Type::INT4_ARRAY),
        ]
    }
}

/// Which of the arrays an operation is in.
#[derive(Clone, Copy)]
enum Kind {
    Add,
    Remove,
    Pair,
}

/// The outcome of an operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Applied,
    /// An earlier attempt with the same key was applied.
    AppliedBefore,
    Refused(Refusal),
    /// An earlier attempt with the same key was refused.
    RefusedBefore(Refusal),
    /// Another transaction holds the operation's widgets. It was not applied.
    Locked,
}

/// The outcomes of a call, which must be requested in the order of its commands.
pub(crate) struct Outcomes {
    add: std::vec::IntoIter<String>,
    remove: std::vec::IntoIter<String>,
    pair: std::vec::IntoIter<String>,
    newest: Option<Position>,
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
            newest: position(row, 3)?,
        })
    }

    /// Returns the position after this batch in the feed, if the feed reports any of its
    /// operations.
    pub(crate) const fn newest(&self) -> Option<Position> {
        self.newest
    }

    /// Returns the next outcome for a command of this kind.
    pub(crate) fn next(&mut self, command: &Command) -> Result<Outcome, UnknownOutcome> {
        let outcome = match command {
            Command::AddWidget { .. } => self.add.next(),
            Command::RemoveWidget { .. } => self.remove.next(),
            Command::AssociateWidgets(_) | Command::RemoveAssociation(_) => self.pair.next(),
        };
        match outcome.as_deref() {
            Some("ok") => Ok(Outcome::Applied),
            Some("locked") => Ok(Outcome::Locked),
            Some("=ok") => Ok(Outcome::AppliedBefore),
            Some("WG422") => Ok(Outcome::Refused(Refusal::KeyReused)),
            Some("WG409") => Ok(Outcome::Refused(Refusal::KeyInUse)),
            Some(text)
                if let Some(code) = text.strip_prefix('=')
                    && let Some(refusal) = refusal(command, code) =>
            {
                Ok(Outcome::RefusedBefore(refusal))
            }
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

/// Reads a position from three columns beginning with `first`: store, epoch and sequence number.
/// All of them are null if there is no position.
pub(crate) fn position(row: &Row, first: usize) -> Result<Option<Position>, tokio_postgres::Error> {
    let store: Option<i64> = row.try_get(first)?;
    let epoch: Option<i32> = row.try_get(first + 1)?;
    let sequence: Option<i64> = row.try_get(first + 2)?;
    let numbers = store.zip(epoch).zip(sequence);
    Ok(numbers.map(|((store, epoch), sequence)| Position {
        store: store.cast_unsigned(),
        epoch: epoch.cast_unsigned(),
        sequence: sequence.cast_unsigned(),
    }))
}

/// Returns the refusal that `code` means for this command.
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
