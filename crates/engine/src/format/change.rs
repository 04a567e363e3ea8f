//! Changes: what the journal says about each accepted operation, after the kind.

use super::Reader;
use crate::state::{Handle, Peers, State};
use widgets_registry::{
    Change, Command, NAME_BYTES_MAX, Ordinal, Port, Ports, SERIAL_NUMBER_BYTES_MAX, SLOTS_MAX,
};

// Kinds of changes. Persisted: never renumber.
const KIND_ADD_WIDGET: u8 = 1;
const KIND_REMOVE_WIDGET: u8 = 2;
const KIND_ASSOCIATE_WIDGETS: u8 = 3;
const KIND_REMOVE_ASSOCIATION: u8 = 4;

/// A removal is the longest change: a serial number, and three peers with a slot each.
pub(super) const CHANGE_BYTES_MAX: usize = {
    let text = 256;
    let removal = 1 + text + 1 + SLOTS_MAX * (1 + text);
    let addition = 1 + 1 + 2 + 1 + text + NAME_BYTES_MAX;
    if removal > addition {
        removal
    } else {
        addition
    }
};

/// Returns how many bytes the change of this command takes in the journal at most.
pub(super) fn change_bytes_max(command: &Command) -> usize {
    let fixed = match command {
        // Kind, ports, and the two lengths.
        Command::AddWidget { .. } => 1 + 1 + 1 + 2,
        // Kind, length and count, and three peers' slots.
        Command::RemoveWidget { .. } => 1 + 1 + 1 + SLOTS_MAX * (1 + 1 + SERIAL_NUMBER_BYTES_MAX),
        // Kind, slots and the two lengths.
        Command::AssociateWidgets(_) | Command::RemoveAssociation(_) => 1 + 1 + 1 + 1,
    };
    fixed + command.text_bytes()
}

/// A change as the journal has it: every widget by its serial number, every slot by its ordinal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JournaledChange<'a> {
    /// A widget was added. Its slots are free.
    AddWidget {
        /// Its serial number.
        serial_number: &'a str,
        /// Its name.
        name: &'a str,
        /// Its slots.
        ports: Ports,
    },
    /// A widget was removed, and with it the association of each of these slots.
    RemoveWidget {
        /// Its serial number.
        serial_number: &'a str,
        /// The slots of its peers that became free.
        freed: Vec<(&'a str, Ordinal)>,
    },
    /// Two slots became each other's peers.
    AssociateWidgets(JournaledPair<'a>),
    /// Two slots that were each other's peers became free.
    RemoveAssociation(JournaledPair<'a>),
}

/// Two slots of the same port type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JournaledPair<'a> {
    /// The widget that the command named first, and its slot.
    pub one: (&'a str, Ordinal),
    /// The widget that the command named second, and its slot.
    pub other: (&'a str, Ordinal),
    /// The port type of both slots.
    pub port: Port,
}

/// Returns the kind of this command's change.
pub(super) fn kind(command: &Command) -> u8 {
    match command {
        Command::AddWidget { .. } => KIND_ADD_WIDGET,
        Command::RemoveWidget { .. } => KIND_REMOVE_WIDGET,
        Command::AssociateWidgets(_) => KIND_ASSOCIATE_WIDGETS,
        Command::RemoveAssociation(_) => KIND_REMOVE_ASSOCIATION,
    }
}

/// Reports whether this is the kind of a change.
pub(super) fn is_kind(kind: u8) -> bool {
    (KIND_ADD_WIDGET..=KIND_REMOVE_ASSOCIATION).contains(&kind)
}

/// Returns a change as an entry without author and key.
#[cfg(test)]
pub(crate) fn encode_change(
    out: &mut Vec<u8>,
    state: &State,
    command: &Command,
    change: Change<Handle>,
) {
    out.push(kind(command));
    encode(out, state, command, change);
}

/// Appends what follows the kind: the change that `command` makes to `state`, to which it must not
/// have been applied yet.
pub(super) fn encode(out: &mut Vec<u8>, state: &State, command: &Command, change: Change<Handle>) {
    match command {
        Command::AddWidget {
            serial_number,
            name,
            ports,
        } => {
            out.push(ports.to_byte());
            put_short(out, serial_number);
            let Ok(name_bytes) = u16::try_from(name.len()) else {
                unreachable!("a name has at most 1,024 bytes")
            };
            out.extend_from_slice(&name_bytes.to_le_bytes());
            out.extend_from_slice(name.as_bytes());
        }
        Command::RemoveWidget { serial_number } => {
            let Change::RemoveWidget(handle) = change else {
                unreachable!("remove_widget removes a widget")
            };
            put_short(out, serial_number);
            put_freed(out, state, &state.peers(handle));
        }
        Command::AssociateWidgets(pair) | Command::RemoveAssociation(pair) => {
            let (Change::AssociateWidgets(one, other) | Change::RemoveAssociation(one, other)) =
                change
            else {
                unreachable!("an operation on a pair changes a pair")
            };
            out.push(one.ordinal.get() | other.ordinal.get() << 2 | (pair.port() as u8) << 4);
            put_short(out, pair.widget1());
            put_short(out, pair.widget2());
        }
    }
}

fn put_freed(out: &mut Vec<u8>, state: &State, peers: &Peers) {
    let count_at = out.len();
    out.push(0);
    for peer in peers
        .iter()
        .flatten()
        .skip(usize::from(planted!(FreedNotJournaled)))
    {
        out[count_at] += 1;
        out.push(peer.ordinal.get());
        put_short(out, state.record(peer.widget).serial_number());
    }
}

pub(super) fn put_short(out: &mut Vec<u8>, text: &str) {
    let Ok(bytes) = u8::try_from(text.len()) else {
        unreachable!("a serial number and an author have at most 255 bytes")
    };
    out.push(bytes);
    out.extend_from_slice(text.as_bytes());
}

impl<'a> Reader<'a> {
    /// Reads the change of this kind that follows. Returns `None` if the bytes are not what
    /// [`encode`] writes.
    pub(super) fn change(&mut self, kind: u8) -> Option<JournaledChange<'a>> {
        match kind {
            KIND_ADD_WIDGET => {
                let ports = Ports::from_byte(self.byte()?)?;
                let serial_number = self.serial_number()?;
                let name_bytes = usize::from(self.u16()?);
                let name = (name_bytes <= NAME_BYTES_MAX).then(|| self.text(name_bytes))??;
                Some(JournaledChange::AddWidget {
                    serial_number,
                    name,
                    ports,
                })
            }
            KIND_REMOVE_WIDGET => {
                let serial_number = self.serial_number()?;
                let count = usize::from(self.byte()?);
                let freed = (count <= SLOTS_MAX).then(|| (0..count).map(|_| self.place()))?;
                let freed = freed.collect::<Option<Vec<_>>>()?;
                Some(JournaledChange::RemoveWidget {
                    serial_number,
                    freed,
                })
            }
            KIND_ASSOCIATE_WIDGETS => self.pair().map(JournaledChange::AssociateWidgets),
            KIND_REMOVE_ASSOCIATION => self.pair().map(JournaledChange::RemoveAssociation),
            _ => None,
        }
    }

    fn pair(&mut self) -> Option<JournaledPair<'a>> {
        let slots = self.byte()?;
        let ordinal1 = Ordinal::new(slots & 0b11)?;
        let ordinal2 = Ordinal::new(slots >> 2 & 0b11)?;
        let port = Port::ALL
            .into_iter()
            .find(|&port| port as u8 == slots >> 4)?;
        let one = (self.serial_number()?, ordinal1);
        let other = (self.serial_number()?, ordinal2);
        Some(JournaledPair { one, other, port })
    }

    fn place(&mut self) -> Option<(&'a str, Ordinal)> {
        let ordinal = Ordinal::new(self.byte()?)?;
        Some((self.serial_number()?, ordinal))
    }

    fn serial_number(&mut self) -> Option<&'a str> {
        let bytes = usize::from(self.byte()?);
        self.text(bytes).filter(|text| !text.is_empty())
    }
}
