//! The outcomes of keyed operations, as persisted bytes and as answers.

use widgets_registry::{Command, Refusal};

macro_rules! outcomes {
    ($($(#[doc = $meaning:literal])+ $outcome:ident = $byte:literal,)+) => {
        /// The outcome of a keyed operation. Together with the operation, it reproduces the answer.
        /// Persisted: never renumber.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Outcome {
            $($(#[doc = $meaning])+ $outcome = $byte,)+
        }

        impl Outcome {
            pub(crate) fn to_byte(self) -> u8 {
                self as u8
            }

            pub(crate) fn from_byte(byte: u8) -> Option<Self> {
                match byte {
                    $($byte => Some(Self::$outcome),)+
                    _ => None,
                }
            }
        }
    };
}

outcomes! {
    /// The operation was applied.
    Accepted = 0,
    /// 23505.
    SerialNumberTaken = 1,
    /// WG001: the widget is missing, or the one that is named first.
    FirstMissing = 2,
    /// WG001: the widget that is named second is missing.
    SecondMissing = 3,
    /// WG002: the widget that is named first has no free slot.
    FirstHasNoFreeSlot = 4,
    /// WG002: the widget that is named second has no free slot.
    SecondHasNoFreeSlot = 5,
    /// WG003.
    AlreadyAssociated = 6,
    /// WG004.
    NotAssociated = 7,
}

impl Outcome {
    /// Returns the outcome of this command. Returns `None` for a refusal that does not depend on
    /// the state, because such a refusal is given before anything is decided.
    pub(crate) fn of<T>(command: &Command, decided: &Result<T, Refusal>) -> Option<Self> {
        let Err(refusal) = decided else {
            return Some(Self::Accepted);
        };
        let is_second = |serial_number| match command {
            Command::AssociateWidgets(pair) | Command::RemoveAssociation(pair) => {
                pair.widget2() == serial_number
            }
            Command::AddWidget { .. } | Command::RemoveWidget { .. } => false,
        };
        Some(match refusal {
            Refusal::SerialNumberTaken { .. } => Self::SerialNumberTaken,
            Refusal::WidgetMissing { serial_number } if is_second(serial_number) => {
                Self::SecondMissing
            }
            Refusal::WidgetMissing { .. } => Self::FirstMissing,
            Refusal::NoFreeSlot { serial_number, .. } if is_second(serial_number) => {
                Self::SecondHasNoFreeSlot
            }
            Refusal::NoFreeSlot { .. } => Self::FirstHasNoFreeSlot,
            Refusal::AlreadyAssociated { .. } => Self::AlreadyAssociated,
            Refusal::NotAssociated { .. } => Self::NotAssociated,
            _ => return None,
        })
    }

    /// Returns the answer that this command got. Returns `None` if it cannot have had this outcome.
    pub(crate) fn answer(self, command: &Command) -> Option<Result<(), Refusal>> {
        let pair = match command {
            Command::AssociateWidgets(pair) | Command::RemoveAssociation(pair) => Some(pair),
            Command::AddWidget { .. } | Command::RemoveWidget { .. } => None,
        };
        Some(Err(match (self, command) {
            (Self::Accepted, _) => return Some(Ok(())),
            (Self::SerialNumberTaken, Command::AddWidget { serial_number, .. }) => {
                Refusal::SerialNumberTaken {
                    serial_number: serial_number.clone(),
                }
            }
            (Self::FirstMissing, Command::RemoveWidget { serial_number }) => {
                Refusal::WidgetMissing {
                    serial_number: serial_number.clone(),
                }
            }
            (Self::FirstMissing, _) => Refusal::WidgetMissing {
                serial_number: pair?.widget1().clone(),
            },
            (Self::SecondMissing, _) => Refusal::WidgetMissing {
                serial_number: pair?.widget2().clone(),
            },
            (Self::FirstHasNoFreeSlot, Command::AssociateWidgets(pair)) => Refusal::NoFreeSlot {
                serial_number: pair.widget1().clone(),
                port: pair.port(),
            },
            (Self::SecondHasNoFreeSlot, Command::AssociateWidgets(pair)) => Refusal::NoFreeSlot {
                serial_number: pair.widget2().clone(),
                port: pair.port(),
            },
            (Self::AlreadyAssociated, Command::AssociateWidgets(pair)) => {
                Refusal::AlreadyAssociated {
                    widget1: pair.widget1().clone(),
                    widget2: pair.widget2().clone(),
                    port: pair.port(),
                }
            }
            (Self::NotAssociated, Command::RemoveAssociation(pair)) => Refusal::NotAssociated {
                widget1: pair.widget1().clone(),
                widget2: pair.widget2().clone(),
                port: pair.port(),
            },
            _ => return None,
        }))
    }
}
