//! The decision: the effect of one command on one state. A pure, total function, and the only place
//! where the rules are written.

use crate::{Command, Ordinal, Pair, Port, Refusal, SerialNumber};

/// What a decision must know about the state. Reading it changes nothing.
pub trait State {
    /// How this state refers to a widget that it holds.
    type Handle: Copy + Eq;

    /// Returns the widget with this serial number.
    fn find(&self, serial_number: &SerialNumber) -> Option<Self::Handle>;

    /// Returns the free slot of this port type with the lowest ordinal.
    fn free_slot(&self, widget: Self::Handle, port: Port) -> Option<Ordinal>;

    /// Returns the slot of this port type whose peer is `peer`. There is at most one.
    fn slot_to(&self, widget: Self::Handle, port: Port, peer: Self::Handle) -> Option<Ordinal>;
}

/// The change that an accepted command makes. Applying it needs no further rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change<H> {
    /// The command's widget is added, with all its slots free.
    AddWidget,
    /// This widget is removed, and the slot at the other end of each of its associations becomes
    /// free.
    RemoveWidget(H),
    /// These two slots become each other's peers. Both are free.
    AssociateWidgets(Endpoint<H>, Endpoint<H>),
    /// These two slots become free. They are each other's peers.
    RemoveAssociation(Endpoint<H>, Endpoint<H>),
}

/// One end of an association: a slot of a widget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Endpoint<H> {
    /// The widget.
    pub widget: H,
    /// Its slot.
    pub ordinal: Ordinal,
}

/// Decides `command` against `state`.
///
/// If several refusals apply, returns the first in the specification's order: widget 1 missing,
/// widget 2 missing, already (or not) associated, no free slot on widget 1, none on widget 2.
/// Everything that comes before these was checked when the [`Command`] was made.
pub fn decide<S: State>(state: &S, command: &Command) -> Result<Change<S::Handle>, Refusal> {
    match command {
        Command::AddWidget { serial_number, .. } => match state.find(serial_number) {
            Some(_) => Err(Refusal::SerialNumberTaken {
                serial_number: serial_number.clone(),
            }),
            None => Ok(Change::AddWidget),
        },
        Command::RemoveWidget { serial_number } => {
            Ok(Change::RemoveWidget(existing(state, serial_number)?))
        }
        Command::AssociateWidgets(pair) => associate(state, pair),
        Command::RemoveAssociation(pair) => dissociate(state, pair),
    }
}

fn associate<S: State>(state: &S, pair: &Pair) -> Result<Change<S::Handle>, Refusal> {
    let widget1 = existing(state, pair.widget1())?;
    let widget2 = existing(state, pair.widget2())?;
    let port = pair.port();
    if state.slot_to(widget1, port, widget2).is_some() {
        return Err(Refusal::AlreadyAssociated {
            widget1: pair.widget1().clone(),
            widget2: pair.widget2().clone(),
            port,
        });
    }
    let free = |widget, serial_number: &SerialNumber| match state.free_slot(widget, port) {
        Some(ordinal) => Ok(Endpoint { widget, ordinal }),
        None => Err(Refusal::NoFreeSlot {
            serial_number: serial_number.clone(),
            port,
        }),
    };
    Ok(Change::AssociateWidgets(
        free(widget1, pair.widget1())?,
        free(widget2, pair.widget2())?,
    ))
}

fn dissociate<S: State>(state: &S, pair: &Pair) -> Result<Change<S::Handle>, Refusal> {
    let widget1 = existing(state, pair.widget1())?;
    let widget2 = existing(state, pair.widget2())?;
    let port = pair.port();
    match (
        state.slot_to(widget1, port, widget2),
        state.slot_to(widget2, port, widget1),
    ) {
        (Some(ordinal1), Some(ordinal2)) => Ok(Change::RemoveAssociation(
            Endpoint {
                widget: widget1,
                ordinal: ordinal1,
            },
            Endpoint {
                widget: widget2,
                ordinal: ordinal2,
            },
        )),
        (None, None) => Err(Refusal::NotAssociated {
            widget1: pair.widget1().clone(),
            widget2: pair.widget2().clone(),
            port,
        }),
        // Every change sets or clears both ends, so this is a bug or faulty memory: stop before it
        // reaches the journal.
        _ => unreachable!("the association of two widgets is known to one of them only"),
    }
}

fn existing<S: State>(state: &S, serial_number: &SerialNumber) -> Result<S::Handle, Refusal> {
    state
        .find(serial_number)
        .ok_or_else(|| Refusal::WidgetMissing {
            serial_number: serial_number.clone(),
        })
}
