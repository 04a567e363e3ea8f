//! Events: accepted operations as the feed of changes reports them. There is one type and one
//! serialisation for all uses.

use crate::{Author, Name, Operation, Ordinal, Port, Ports, SerialNumber, digits::hex};
use serde::{
    Serialize, Serializer,
    ser::{SerializeSeq as _, SerializeStruct as _},
};
use std::{fmt, str::FromStr};

/// A place in a store's history: immediately after one change. As text it is opaque, and the texts
/// of one store sort by age.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// The store.
    pub store: u64,
    /// The store's epoch: a new one begins with each restore and each promotion.
    pub epoch: u32,
    /// The sequence number of the change; 0 is before the first.
    pub sequence: u64,
}

impl Position {
    /// The length of its text.
    pub const TEXT_BYTES: usize = 42;

    /// Returns its text, which is ASCII.
    #[must_use]
    pub fn text(self) -> [u8; Self::TEXT_BYTES] {
        let mut text = [b'-'; Self::TEXT_BYTES];
        text[..16].copy_from_slice(&hex::<16>(self.store));
        text[17..25].copy_from_slice(&hex::<8>(self.epoch.into()));
        text[26..].copy_from_slice(&hex::<16>(self.sequence));
        text
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(std::str::from_utf8(&self.text()).map_err(|_| fmt::Error)?)
    }
}

/// The text is not a position of any store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it is no position that a service gave out")]
pub struct NoPosition;

impl FromStr for Position {
    type Err = NoPosition;

    fn from_str(text: &str) -> Result<Self, NoPosition> {
        let mut parts = text.split('-');
        let mut number = |digits: usize| {
            let part = parts.next().filter(|part| part.len() == digits)?;
            let is_hex = part
                .bytes()
                .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
            is_hex.then(|| u64::from_str_radix(part, 16).ok())?
        };
        let (store, epoch, sequence) = (number(16), number(8), number(16));
        match (store, epoch, sequence, parts.next()) {
            (Some(store), Some(epoch), Some(sequence), None) => Ok(Self {
                store,
                epoch: u32::try_from(epoch).map_err(|_| NoPosition)?,
                sequence,
            }),
            _ => Err(NoPosition),
        }
    }
}

impl Serialize for Position {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A time in microseconds since 1970 (UTC). As text: `2026-11-27T11:02:03.000123Z`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Moment(pub u64);

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seconds, microseconds) = (self.0 / 1_000_000, self.0 % 1_000_000);
        let (days, second) = (seconds / 86_400, seconds % 86_400);
        let (year, month, day) = civil(days);
        let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
        write!(
            f,
            "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{microseconds:06}Z"
        )
    }
}

/// Returns year, month and day of a number of days after 1970-01-01, by eras of 400 years that
/// begin in March.
const fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let leap = day_of_era / 1460 + day_of_era / 146_096;
    let year_of_era = (day_of_era + day_of_era / 36_524 - leap) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = era * 400 + year_of_era + if month <= 2 { 1 } else { 0 };
    (year, month, day)
}

/// A slot of a widget.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The widget.
    pub serial_number: SerialNumber,
    /// Its slot. In text, slots are counted from 1.
    pub ordinal: Ordinal,
}

/// The effect of an accepted operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Happened {
    /// A widget was added, with its slots free.
    AddWidget {
        /// Its serial number.
        serial_number: SerialNumber,
        /// Its name.
        name: Name,
        /// Its slots.
        ports: Ports,
    },
    /// A widget was removed, and its peers' slots became free.
    RemoveWidget {
        /// Its serial number.
        serial_number: SerialNumber,
        /// The slots that became free.
        freed: Vec<Place>,
    },
    /// Two slots became each other's peers.
    AssociateWidgets(Place, Place, Port),
    /// Two slots that were each other's peers became free.
    RemoveAssociation(Place, Place, Port),
}

impl Happened {
    /// Returns which operation it was.
    #[must_use]
    pub const fn operation(&self) -> Operation {
        match self {
            Self::AddWidget { .. } => Operation::AddWidget,
            Self::RemoveWidget { .. } => Operation::RemoveWidget,
            Self::AssociateWidgets(..) => Operation::AssociateWidgets,
            Self::RemoveAssociation(..) => Operation::RemoveAssociation,
        }
    }

    /// Reports whether it changed this widget or one of its slots.
    #[must_use]
    pub fn touches(&self, serial_number: &str) -> bool {
        let is = |place: &Place| &*place.serial_number == serial_number;
        match self {
            Self::AddWidget {
                serial_number: added,
                ..
            } => &**added == serial_number,
            Self::RemoveWidget {
                serial_number: removed,
                freed,
            } => &**removed == serial_number || freed.iter().any(is),
            Self::AssociateWidgets(one, other, _) | Self::RemoveAssociation(one, other, _) => {
                is(one) || is(other)
            }
        }
    }
}

/// One accepted operation: what, when and by whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The position immediately after it.
    pub position: Position,
    /// When it was committed.
    pub at: Moment,
    /// The author, if known.
    pub by: Option<Author>,
    /// Its effect.
    pub happened: Happened,
}

impl Serialize for Event {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut event = serializer.serialize_struct("Event", 9)?;
        event.serialize_field("position", &self.position)?;
        event.serialize_field("at", &Text(&self.at))?;
        event.serialize_field("by", &self.by.as_deref())?;
        event.serialize_field("operation", self.happened.operation().as_str())?;
        match &self.happened {
            Happened::AddWidget {
                serial_number,
                name,
                ports,
            } => {
                event.serialize_field("widget_sn", &**serial_number)?;
                event.serialize_field("widget_name", &**name)?;
                event.serialize_field("slots", &Slots(*ports))?;
            }
            Happened::RemoveWidget {
                serial_number,
                freed,
            } => {
                event.serialize_field("widget_sn", &**serial_number)?;
                event.serialize_field("freed", freed)?;
            }
            Happened::AssociateWidgets(one, other, port)
            | Happened::RemoveAssociation(one, other, port) => {
                event.serialize_field("widget1_sn", &*one.serial_number)?;
                event.serialize_field("slot1", &(one.ordinal.get() + 1))?;
                event.serialize_field("widget2_sn", &*other.serial_number)?;
                event.serialize_field("slot2", &(other.ordinal.get() + 1))?;
                event.serialize_field("port", port.as_str())?;
            }
        }
        event.end()
    }
}

impl Serialize for Place {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut place = serializer.serialize_struct("Place", 2)?;
        place.serialize_field("widget_sn", &*self.serial_number)?;
        place.serialize_field("slot", &(self.ordinal.get() + 1))?;
        place.end()
    }
}

/// Serialises a value as its text.
struct Text<'a, T>(&'a T);

impl<T: fmt::Display> Serialize for Text<'_, T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self.0)
    }
}

struct Slots(Ports);

impl Serialize for Slots {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut slots = serializer.serialize_seq(Some(self.0.len()))?;
        for (_, port) in self.0.iter() {
            slots.serialize_element(port.as_str())?;
        }
        slots.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_round_trip_as_text_and_sort_by_age() {
        let position = |epoch, sequence| Position {
            store: 0x6f1c,
            epoch,
            sequence,
        };
        let ascending = [
            position(1, 9),
            position(1, 10),
            position(1, 300),
            position(2, 10),
        ];
        let texts = ascending.map(|it| it.to_string());
        assert!(texts.is_sorted());
        for (position, text) in ascending.iter().zip(&texts) {
            assert_eq!(text.parse(), Ok(*position));
        }
        assert_eq!(texts[0], "0000000000006f1c-00000001-0000000000000009");
        for text in [
            "",
            "now",
            "6f1c-1-9",
            "0000000000006F1C-00000001-0000000000000009",
            "0000000000006f1c-00000001-0000000000000009-",
            "+000000000006f1c-00000001-0000000000000009",
        ] {
            assert_eq!(text.parse::<Position>(), Err(NoPosition), "{text}");
        }
    }

    #[test]
    fn moments_are_formatted_as_utc_timestamps() {
        for (microseconds, text) in [
            (0, "1970-01-01T00:00:00.000000Z"),
            (951_782_399_999_999, "2000-02-28T23:59:59.999999Z"),
            (951_782_400_000_000, "2000-02-29T00:00:00.000000Z"),
            (1_795_777_323_000_123, "2026-11-27T11:02:03.000123Z"),
            (4_107_542_400_000_000, "2100-03-01T00:00:00.000000Z"),
        ] {
            assert_eq!(Moment(microseconds).to_string(), text);
        }
    }
}
