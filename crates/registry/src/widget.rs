//! A widget as a lookup returns it.

use crate::{Name, Port, SerialNumber};

/// A widget with its slots and their peers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Widget {
    /// Its serial number.
    pub serial_number: SerialNumber,
    /// Its name.
    pub name: Name,
    /// Its slots, in the order given when it was added.
    pub slots: Vec<Slot>,
}

/// One port of a widget.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slot {
    /// Its type.
    pub port: Port,
    /// The widget at the other end, or `None` while the slot is free.
    pub peer: Option<SerialNumber>,
}
