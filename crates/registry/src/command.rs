//! What can be asked for: the four operations.

use crate::{Name, Port, Ports, Refusal, SerialNumber};
use std::fmt;

/// One operation with its arguments, valid in itself: only the state can still refuse it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Registers a widget.
    AddWidget {
        /// Its serial number, which must not be taken.
        serial_number: SerialNumber,
        /// Its name.
        name: Name,
        /// Its slots, fixed for its life.
        ports: Ports,
    },
    /// Removes a widget and its associations; its peers' slots become free.
    RemoveWidget {
        /// Which widget.
        serial_number: SerialNumber,
    },
    /// Joins two widgets over one free slot of this port type on each.
    AssociateWidgets(Pair),
    /// Parts two widgets that are associated over this port type.
    RemoveAssociation(Pair),
}

/// Two different widgets and the port type between them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    widget1: SerialNumber,
    widget2: SerialNumber,
    port: Port,
}

impl Pair {
    /// Two widgets, or WG005 if they are one.
    pub fn new(widget1: SerialNumber, widget2: SerialNumber, port: Port) -> Result<Self, Refusal> {
        if widget1 == widget2 {
            return Err(Refusal::SelfAssociation {
                serial_number: widget1,
            });
        }
        Ok(Self {
            widget1,
            widget2,
            port,
        })
    }

    /// The widget that the request names first.
    #[must_use]
    pub const fn widget1(&self) -> &SerialNumber {
        &self.widget1
    }

    /// The widget that the request names second.
    #[must_use]
    pub const fn widget2(&self) -> &SerialNumber {
        &self.widget2
    }

    /// The port type.
    #[must_use]
    pub const fn port(&self) -> Port {
        self.port
    }
}

impl Command {
    /// Which of the four it is.
    #[must_use]
    pub const fn operation(&self) -> Operation {
        match self {
            Self::AddWidget { .. } => Operation::AddWidget,
            Self::RemoveWidget { .. } => Operation::RemoveWidget,
            Self::AssociateWidgets(_) => Operation::AssociateWidgets,
            Self::RemoveAssociation(_) => Operation::RemoveAssociation,
        }
    }

    /// How many bytes of text it carries: what a queue that is bounded in bytes counts.
    #[must_use]
    pub fn text_bytes(&self) -> usize {
        match self {
            Self::AddWidget {
                serial_number,
                name,
                ..
            } => serial_number.len() + name.len(),
            Self::RemoveWidget { serial_number } => serial_number.len(),
            Self::AssociateWidgets(pair) | Self::RemoveAssociation(pair) => {
                pair.widget1.len() + pair.widget2.len()
            }
        }
    }
}

/// The four operations. Their names are the same in routes, metrics, logs, SQL and documents.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Operation {
    /// `add_widget`
    AddWidget,
    /// `remove_widget`
    RemoveWidget,
    /// `associate_widgets`
    AssociateWidgets,
    /// `remove_association`
    RemoveAssociation,
}

impl Operation {
    /// Every operation.
    pub const ALL: [Self; 4] = [
        Self::AddWidget,
        Self::RemoveWidget,
        Self::AssociateWidgets,
        Self::RemoveAssociation,
    ];

    /// The operation's name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::AddWidget => "add_widget",
            Self::RemoveWidget => "remove_widget",
            Self::AssociateWidgets => "associate_widgets",
            Self::RemoveAssociation => "remove_association",
        }
    }

    /// The operation of this name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|each| each.as_str() == name)
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
