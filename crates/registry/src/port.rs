//! Port types, and the ordered list of them that a widget has.

use crate::{Refusal, SLOTS_MAX};
use std::{fmt, ops};

/// The type of a slot. Two widgets are associated through slots of the same type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Port {
    /// Port type `P`. Persisted as 1: never renumber.
    P = 1,
    /// Port type `Q`. Persisted as 2: never renumber.
    Q = 2,
    /// Port type `R`. Persisted as 3: never renumber.
    R = 3,
}

impl Port {
    /// Every port type.
    pub const ALL: [Self; 3] = [Self::P, Self::Q, Self::R];

    /// Returns the port type of this name. Case matters: `p` is refused (22P02).
    pub fn parse(text: &str) -> Result<Self, Refusal> {
        match text {
            "P" => Ok(Self::P),
            "Q" => Ok(Self::Q),
            "R" => Ok(Self::R),
            _ => Err(Refusal::PortUnknown { given: text.into() }),
        }
    }

    /// Returns the name, as in requests and answers.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::P => "P",
            Self::Q => "Q",
            Self::R => "R",
        }
    }

    const fn from_bits(bits: u8) -> Option<Self> {
        match bits {
            1 => Some(Self::P),
            2 => Some(Self::Q),
            3 => Some(Self::R),
            _ => None,
        }
    }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The place of a slot in its widget, counted from 0 in the order given when the widget was added.
///
/// If a widget has several free slots of a type, an association takes the one with the lowest
/// ordinal, in every store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ordinal(u8);

impl Ordinal {
    /// Returns the ordinal, if a widget can have such a slot.
    #[must_use]
    pub const fn new(index: u8) -> Option<Self> {
        if (index as usize) < SLOTS_MAX {
            Some(Self(index))
        } else {
            None
        }
    }

    /// Returns the position, for indexing.
    #[must_use]
    pub const fn index(self) -> usize {
        self.0 as usize
    }

    /// Returns the position as a byte, for formats.
    #[must_use]
    pub const fn get(self) -> u8 {
        self.0
    }
}

/// The port types of a widget's slots in order: none to [`SLOTS_MAX`] of them in one byte.
///
/// Slot `i` is in bits `2i` and `2i + 1`, which are 0 if there is no such slot. This byte is
/// persisted.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Ports(u8);

impl Ports {
    /// No slots.
    pub const NONE: Self = Self(0);

    /// Returns these slots in this order, or WG006 if there are too many.
    pub fn new(ports: &[Port]) -> Result<Self, Refusal> {
        if ports.len() > SLOTS_MAX {
            return Err(Refusal::TooManySlots { given: ports.len() });
        }
        let bits = ports
            .iter()
            .rev()
            .fold(0, |bits, &port| bits << 2 | port as u8);
        Ok(Self(bits))
    }

    /// Returns the packed byte.
    #[must_use]
    pub const fn to_byte(self) -> u8 {
        self.0
    }

    /// Unpacks a byte that [`Self::to_byte`] returned; `None` if it never returns this one.
    #[must_use]
    pub fn from_byte(byte: u8) -> Option<Self> {
        let ports = Self(byte);
        let packed = byte >> (2 * ports.len()) == 0;
        packed.then_some(ports)
    }

    /// Returns the number of slots.
    #[must_use]
    pub fn len(self) -> usize {
        (0..SLOTS_MAX)
            .take_while(|&index| self.at(index).is_some())
            .count()
    }

    /// Reports whether there are none.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Returns the port type of a slot, if the widget has that slot.
    #[must_use]
    pub fn get(self, ordinal: Ordinal) -> Option<Port> {
        self.at(ordinal.index())
    }

    /// Iterates over the slots with their ordinals, lowest first.
    pub fn iter(self) -> impl Iterator<Item = (Ordinal, Port)> {
        (0u8..).map_while(move |index| Some((Ordinal::new(index)?, self.at(index.into())?)))
    }

    fn at(self, index: usize) -> Option<Port> {
        if index >= SLOTS_MAX {
            return None;
        }
        Port::from_bits(self.0 >> (2 * index) & 0b11)
    }
}

impl fmt::Debug for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries(self.iter().map(|(_, port)| port))
            .finish()
    }
}

/// The number of slots of each port type.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortCounts([u64; Port::ALL.len()]);

impl PortCounts {
    /// Returns the number of this type.
    #[must_use]
    pub const fn of(self, port: Port) -> u64 {
        self.0[port as usize - 1]
    }

    /// Returns the number of all types together.
    #[must_use]
    pub fn total(self) -> u64 {
        self.0.iter().sum()
    }

    /// Adds this many slots of this type.
    pub const fn add(&mut self, port: Port, slots: u64) {
        self.0[port as usize - 1] += slots;
    }

    /// Subtracts this many slots of this type; there must be at least as many.
    pub const fn remove(&mut self, port: Port, slots: u64) {
        self.0[port as usize - 1] -= slots;
    }
}

impl ops::AddAssign for PortCounts {
    fn add_assign(&mut self, other: Self) {
        for port in Port::ALL {
            self.add(port, other.of(port));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_round_trip_through_their_byte_in_order() {
        let mut seen = 0;
        for byte in 0..=u8::MAX {
            let Some(ports) = Ports::from_byte(byte) else {
                continue;
            };
            seen += 1;
            let list: Vec<Port> = ports.iter().map(|(_, port)| port).collect();
            assert_eq!(list.len(), ports.len());
            assert_eq!(Ports::new(&list), Ok(ports));
            assert_eq!(ports.to_byte(), byte);
        }
        // 1 empty list, 3 of one, 9 of two, 27 of three.
        assert_eq!(seen, 40);
    }

    #[test]
    fn a_fourth_slot_is_refused() {
        assert_eq!(
            Ports::new(&[Port::P; 4]),
            Err(Refusal::TooManySlots { given: 4 })
        );
    }

    #[test]
    fn a_lower_case_port_is_refused() {
        assert_eq!(
            Port::parse("p"),
            Err(Refusal::PortUnknown { given: "p".into() })
        );
        for port in Port::ALL {
            assert_eq!(Port::parse(port.as_str()), Ok(port));
        }
    }
}
