//! What a change in a primary's journal does to a standby's state, which equals the state that it
//! was decided on.

use super::{Handle, State};
use crate::format::{JournaledChange, JournaledPair};
use widgets_registry::{Change, Command, Endpoint, Name, Ordinal, Pair, SerialNumber};

impl State {
    /// Returns the command and the decided change from which this journaled change was made.
    /// Returns `None` if it cannot have been decided on this state.
    pub(crate) fn followed(
        &self,
        change: &JournaledChange<'_>,
    ) -> Option<(Command, Change<Handle>)> {
        match change {
            JournaledChange::AddWidget {
                serial_number,
                name,
                ports,
            } => {
                if self.find(serial_number).is_some() || self.is_full() {
                    return None;
                }
                let command = Command::AddWidget {
                    serial_number: number(serial_number)?,
                    name: Name::new("widget_name", name).ok()?,
                    ports: *ports,
                };
                Some((command, Change::AddWidget))
            }
            JournaledChange::RemoveWidget {
                serial_number,
                freed,
            } => {
                let handle = self.find(serial_number)?;
                let peers = self.peers(handle);
                let mut known: Vec<(&str, Ordinal)> = peers
                    .iter()
                    .flatten()
                    .map(|peer| (self.record(peer.widget).serial_number(), peer.ordinal))
                    .collect();
                let mut freed = freed.clone();
                known.sort_unstable();
                freed.sort_unstable();
                let command = Command::RemoveWidget {
                    serial_number: number(serial_number)?,
                };
                (known == freed).then_some((command, Change::RemoveWidget(handle)))
            }
            JournaledChange::AssociateWidgets(pair) => {
                let (one, other) = self.slots(pair)?;
                let are_free = [one, other].iter().all(|end| self.peer(*end).is_none());
                let command = Command::AssociateWidgets(named(pair)?);
                are_free.then_some((command, Change::AssociateWidgets(one, other)))
            }
            JournaledChange::RemoveAssociation(pair) => {
                let (one, other) = self.slots(pair)?;
                let are_joined =
                    self.peer(one) == Some(other.widget) && self.peer(other) == Some(one.widget);
                let command = Command::RemoveAssociation(named(pair)?);
                are_joined.then_some((command, Change::RemoveAssociation(one, other)))
            }
        }
    }

    /// Returns the two slots, if they exist and have the port type.
    fn slots(&self, pair: &JournaledPair<'_>) -> Option<(Endpoint<Handle>, Endpoint<Handle>)> {
        let end = |(serial_number, ordinal): (&str, Ordinal)| {
            let widget = self.find(serial_number)?;
            let port = self.record(widget).ports().get(ordinal)?;
            (port == pair.port).then_some(Endpoint { widget, ordinal })
        };
        let (one, other) = (end(pair.one)?, end(pair.other)?);
        (one.widget != other.widget).then_some((one, other))
    }

    fn peer(&self, end: Endpoint<Handle>) -> Option<Handle> {
        self.record(end.widget).peer(end.ordinal)
    }
}

fn number(serial_number: &str) -> Option<SerialNumber> {
    SerialNumber::new("widget_sn", serial_number).ok()
}

fn named(pair: &JournaledPair<'_>) -> Option<Pair> {
    Pair::new(number(pair.one.0)?, number(pair.other.0)?, pair.port).ok()
}
