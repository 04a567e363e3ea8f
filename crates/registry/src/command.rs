//! The commands: the four operations.

use crate::{Name, Port, Ports, Refusal, SerialNumber};
use std::fmt;

/// One operation with valid arguments: only the state can still refuse it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Registers a widget.
    AddWidget {
        /// Its serial number, which must not be taken.
        serial_number: SerialNumber,
        /// Its name.
        name: Name,
        /// Its slots, which never change.
        ports: Ports,
    },
    /// Removes a widget and its associations; its peers' slots become free.
    RemoveWidget {
        /// The widget.
        serial_number: SerialNumber,
    },
    /// Associates two widgets through one free slot of this port type on each.
    AssociateWidgets(Pair),
    /// Removes the association of two widgets over this port type.
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
    /// Returns the pair, or WG005 if both are the same widget.
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

    /// Returns the widget that the request names first.
    #[must_use]
    pub const fn widget1(&self) -> &SerialNumber {
        &self.widget1
    }

    /// Returns the widget that the request names second.
    #[must_use]
    pub const fn widget2(&self) -> &SerialNumber {
        &self.widget2
    }

    /// Returns the port type.
    #[must_use]
    pub const fn port(&self) -> Port {
        self.port
    }
}

impl Command {
    /// Returns which of the four operations it is.
    #[must_use]
    pub const fn operation(&self) -> Operation {
        match self {
            Self::AddWidget { .. } => Operation::AddWidget,
            Self::RemoveWidget { .. } => Operation::RemoveWidget,
            Self::AssociateWidgets(_) => Operation::AssociateWidgets,
            Self::RemoveAssociation(_) => Operation::RemoveAssociation,
        }
    }

    /// Returns how many bytes of text it carries, for queues that are bounded in bytes.
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

    /// Returns the operation's name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::AddWidget => "add_widget",
            Self::RemoveWidget => "remove_widget",
            Self::AssociateWidgets => "associate_widgets",
            Self::RemoveAssociation => "remove_association",
        }
    }

    /// Returns the operation of this name.
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
