//! Refusals: answers that are values, with a stable code and the message that every store gives.

use crate::{NAME_BYTES_MAX, Port, SERIAL_NUMBER_BYTES_MAX, SLOTS_MAX, SerialNumber};

// Named here so that the documentation of `FieldLimit` cannot drift from the limits.
const _: () = assert!(SERIAL_NUMBER_BYTES_MAX == 255 && NAME_BYTES_MAX == 1024);

/// Why an operation was not applied. It changed nothing.
///
/// The text is the `message` that clients read, the same from every store.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// 23505: the serial number is taken.
    #[error("duplicate key value violates unique constraint \"widgets_serial_number_key\"")]
    SerialNumberTaken {
        /// The serial number in question.
        serial_number: SerialNumber,
    },
    /// 22P02: there is no such port type. Case matters.
    #[error("invalid input value for enum widgets.port_type: \"{given}\"")]
    PortUnknown {
        /// The text in place of the port type.
        given: Box<str>,
    },
    /// WG006: more slots than a widget can have.
    #[error("a widget has at most {SLOTS_MAX} slots, {given} were given")]
    TooManySlots {
        /// The number of slots requested.
        given: usize,
    },
    /// WG007: a serial number (1 to 255 bytes) or a name (at most 1,024) is outside its limits.
    #[error("{field} {defect}")]
    FieldLimit {
        /// The field, as the caller spelled it.
        field: &'static str,
        /// The limit and what was given.
        defect: Defect,
    },
    /// WG001: a named widget does not exist.
    #[error("Widget with serial number {serial_number} does not exist")]
    WidgetMissing {
        /// The missing widget.
        serial_number: SerialNumber,
    },
    /// WG002: every slot of that port type is in use, or the widget has none.
    #[error("Widget with serial number {serial_number} has no free slot of port {port}")]
    NoFreeSlot {
        /// The widget without a free slot.
        serial_number: SerialNumber,
        /// The port type.
        port: Port,
    },
    /// WG003: the two are associated over that port type already.
    #[error(
        "Widgets with serial numbers {widget1} and {widget2} are already associated on port {port}"
    )]
    AlreadyAssociated {
        /// The widget named first.
        widget1: SerialNumber,
        /// The widget named second.
        widget2: SerialNumber,
        /// The port type.
        port: Port,
    },
    /// WG004: the two are not associated over that port type.
    #[error(
        "Widgets with serial numbers {widget1} and {widget2} are not associated on port {port}"
    )]
    NotAssociated {
        /// The widget named first.
        widget1: SerialNumber,
        /// The widget named second.
        widget2: SerialNumber,
        /// The port type.
        port: Port,
    },
    /// WG005: a widget cannot be associated with itself.
    #[error("Widget with serial number {serial_number} cannot be associated with itself")]
    SelfAssociation {
        /// The widget.
        serial_number: SerialNumber,
    },
    /// WG422: the key was used for a different request.
    #[error("Idempotency-Key was used before, for another request")]
    KeyReused,
    /// WG409: a request with the same key is in progress.
    #[error("a request with the same Idempotency-Key is under way")]
    KeyInUse,
    /// 23502: a required value is null.
    #[error("null value in argument \"{field}\" violates not-null constraint")]
    Null {
        /// The argument.
        field: &'static str,
    },
}

/// What is wrong with a text, with the limit and the given value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Defect {
    /// It is empty.
    #[error("must be at least {limit} byte long, 0 were given")]
    Empty {
        /// The minimum number of bytes.
        limit: usize,
    },
    /// It is too long.
    #[error("must be at most {limit} bytes long, {given} were given")]
    TooLong {
        /// The maximum number of bytes.
        limit: usize,
        /// The number of bytes given.
        given: usize,
    },
    /// It contains U+0000, which PostgreSQL cannot store.
    #[error("must not contain the character NUL, one was given at byte {position}")]
    Nul {
        /// The position of the first one, counted in bytes from 0.
        position: usize,
    },
}

impl Refusal {
    /// Returns the stable, SQLSTATE-shaped code on which clients branch.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::SerialNumberTaken { .. } => "23505",
            Self::PortUnknown { .. } => "22P02",
            Self::TooManySlots { .. } => "WG006",
            Self::FieldLimit { .. } => "WG007",
            Self::WidgetMissing { .. } => "WG001",
            Self::NoFreeSlot { .. } => "WG002",
            Self::AlreadyAssociated { .. } => "WG003",
            Self::NotAssociated { .. } => "WG004",
            Self::SelfAssociation { .. } => "WG005",
            Self::KeyReused => "WG422",
            Self::KeyInUse => "WG409",
            Self::Null { .. } => "23502",
        }
    }

    /// Returns what PostgreSQL would put into DETAIL, if anything.
    #[must_use]
    pub fn details(&self) -> Option<String> {
        match self {
            Self::SerialNumberTaken { serial_number } => Some(format!(
                "Key (serial_number)=({serial_number}) already exists."
            )),
            _ => None,
        }
    }
}
