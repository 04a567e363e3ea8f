//! The state in memory: every widget, compact, with constant-time lookups.
//!
//! Owns the records and the index of serial numbers, and knows how to apply and to take back a
//! decided change. A widget costs a 32-byte record, its text in one allocation, and about 8 bytes of
//! index. Nothing here stalls as it grows: records lie in chunks that never move, and the index
//! grows one small shard at a time.
//!
//! It deliberately knows nothing of files. [`replay`](self::replay) is how recovery writes to it.

mod index;
mod record;
pub(crate) mod replay;

use index::Index;
pub(crate) use index::{SHARDS, ShardBuilder};
pub(crate) use record::{CHUNK_RECORDS, Chunk, Handle, Record};
use record::Records;
use widgets_registry::{
    Change, Command, Endpoint, Name, Ordinal, Port, Ports, SerialNumber, Slot, Widget,
};

/// Every widget and association that this process knows.
#[derive(Default)]
pub struct State {
    records: Records,
    index: Index,
    counts: Counts,
}

/// How much the state holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Widgets.
    pub widgets: u64,
    /// Slots without a peer.
    pub free_slots: u64,
    /// Associations, each of two slots.
    pub associations: u64,
}

/// How to take one applied change back. Good only in the reverse order of application.
pub(crate) enum Undo {
    Add(Handle),
    Remove { handle: Handle, record: Record, peers: Peers },
    Associate(Endpoint<Handle>, Endpoint<Handle>),
    Dissociate(Endpoint<Handle>, Endpoint<Handle>),
}

/// The other ends of a widget's associations, at most one for each of its slots.
pub(crate) type Peers = [Option<Endpoint<Handle>>; widgets_registry::SLOTS_MAX];

impl State {
    /// How much it holds.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Whether no further widget can be numbered.
    pub(crate) fn is_full(&self) -> bool {
        self.records.is_full()
    }

    /// How many records there are, vacant ones included: what a checkpoint walks over.
    pub(crate) fn extent(&self) -> u32 {
        self.records.extent()
    }

    pub(crate) fn record(&self, handle: Handle) -> &Record {
        self.records.get(handle)
    }

    /// A widget as a lookup answers it.
    #[must_use]
    pub fn lookup(&self, serial_number: &str) -> Option<Widget> {
        let record = self.records.get(self.index.find(serial_number, &self.records)?);
        let slots = record.ports().iter().map(|(ordinal, port)| Slot {
            port,
            peer: record.peer(ordinal).map(|peer| self.serial_number(peer)),
        });
        Some(Widget {
            serial_number: text(SerialNumber::new("serial_number", record.serial_number())),
            name: text(Name::new("name", record.name())),
            slots: slots.collect(),
        })
    }

    /// The other ends of this widget's associations, by its own ordinals.
    pub(crate) fn peers(&self, handle: Handle) -> Peers {
        let record = self.records.get(handle);
        let mut peers = Peers::default();
        for (place, (ordinal, port)) in peers.iter_mut().zip(record.ports().iter()) {
            *place = record.peer(ordinal).map(|peer| Endpoint {
                widget: peer,
                ordinal: self.back(peer, port, handle),
            });
        }
        peers
    }

    /// Applies what [`widgets_registry::decide`] decided on this very state for this very command.
    pub(crate) fn apply(&mut self, command: &Command, change: Change<Handle>) -> Undo {
        match change {
            Change::AddWidget => {
                let Command::AddWidget { serial_number, name, ports } = command else {
                    unreachable!("only add_widget adds a widget")
                };
                Undo::Add(self.add(serial_number, name, *ports))
            }
            Change::RemoveWidget(handle) => {
                let peers = self.peers(handle);
                Undo::Remove { handle, record: self.remove(handle, &peers), peers }
            }
            Change::AssociateWidgets(one, other) => {
                self.join(one, other);
                Undo::Associate(one, other)
            }
            Change::RemoveAssociation(one, other) => {
                self.part(one, other);
                Undo::Dissociate(one, other)
            }
        }
    }

    /// Takes back the last change that was applied and not yet taken back.
    pub(crate) fn undo(&mut self, undo: Undo) {
        match undo {
            Undo::Add(handle) => {
                self.remove(handle, &Peers::default());
            }
            Undo::Remove { handle, record, peers } => {
                let ports = record.ports();
                self.counts.widgets += 1;
                self.counts.free_slots += ports.len() as u64;
                self.index.insert(record.serial_number(), handle, &self.records);
                self.records.restore(handle, record);
                for ((ordinal, _), peer) in ports.iter().zip(peers) {
                    if let Some(peer) = peer {
                        self.join(Endpoint { widget: handle, ordinal }, peer);
                    }
                }
            }
            Undo::Associate(one, other) => self.part(one, other),
            Undo::Dissociate(one, other) => self.join(one, other),
        }
    }

    fn add(&mut self, serial_number: &str, name: &str, ports: Ports) -> Handle {
        self.counts.widgets += 1;
        self.counts.free_slots += ports.len() as u64;
        let handle = self.records.insert(Record::new(serial_number, name, ports));
        self.index.insert(serial_number, handle, &self.records);
        handle
    }

    fn remove(&mut self, handle: Handle, peers: &Peers) -> Record {
        let ports = self.records.get(handle).ports();
        for ((ordinal, _), peer) in ports.iter().zip(peers) {
            if let Some(peer) = peer {
                self.part(Endpoint { widget: handle, ordinal }, *peer);
            }
        }
        self.counts.widgets -= 1;
        self.counts.free_slots -= ports.len() as u64;
        self.index.remove(self.records.get(handle).serial_number(), handle);
        self.records.remove(handle)
    }

    fn join(&mut self, one: Endpoint<Handle>, other: Endpoint<Handle>) {
        self.records.get_mut(one.widget).set_peer(one.ordinal, Some(other.widget));
        self.records.get_mut(other.widget).set_peer(other.ordinal, Some(one.widget));
        self.counts.associations += 1;
        self.counts.free_slots -= 2;
    }

    fn part(&mut self, one: Endpoint<Handle>, other: Endpoint<Handle>) {
        self.records.get_mut(one.widget).set_peer(one.ordinal, None);
        self.records.get_mut(other.widget).set_peer(other.ordinal, None);
        self.counts.associations -= 1;
        self.counts.free_slots += 2;
    }

    pub(crate) fn serial_number(&self, handle: Handle) -> SerialNumber {
        text(SerialNumber::new("serial_number", self.records.get(handle).serial_number()))
    }

    /// The peer's slot that leads back to `handle`.
    fn back(&self, peer: Handle, port: Port, handle: Handle) -> Ordinal {
        match self.records.get(peer).slot_to(port, handle) {
            Some(ordinal) => ordinal,
            // A bug or broken memory: stop before it spreads to the journal.
            None => unreachable!("the association of two widgets is known to one of them only"),
        }
    }

    /// Whether every association is known to both its widgets, every record is found under its
    /// serial number, and the counts are right. Walks over everything; names the first defect.
    pub fn check(&self) -> Result<(), String> {
        let mut counted = Counts::default();
        for handle in (0..self.extent()).map(Handle::new) {
            let record = self.record(handle);
            if record.is_vacant() {
                continue;
            }
            let serial_number = record.serial_number();
            if self.index.find(serial_number, &self.records) != Some(handle) {
                return Err(format!("widget {serial_number} is not found under its serial number"));
            }
            counted.widgets += 1;
            for (ordinal, port) in record.ports().iter() {
                let Some(peer) = record.peer(ordinal) else {
                    counted.free_slots += 1;
                    continue;
                };
                counted.associations += 1;
                let other = self.records.checked(peer).filter(|other| !other.is_vacant());
                let Some(other) = other else {
                    return Err(format!("widget {serial_number} is associated with none"));
                };
                if peer == handle || other.slots_to(port, handle) != 1 {
                    return Err(format!(
                        "widget {serial_number} is associated with {} on port {port}, which does \
                         not have it once",
                        other.serial_number(),
                    ));
                }
            }
        }
        counted.associations /= 2;
        if counted == self.counts && self.index.len() as u64 == counted.widgets {
            Ok(())
        } else {
            Err(format!("counted {counted:?}, kept {:?}", self.counts))
        }
    }
}

impl widgets_registry::State for State {
    type Handle = Handle;

    fn find(&self, serial_number: &SerialNumber) -> Option<Handle> {
        self.index.find(serial_number, &self.records)
    }

    fn free_slot(&self, widget: Handle, port: Port) -> Option<Ordinal> {
        self.records.get(widget).free_slot(port)
    }

    fn slot_to(&self, widget: Handle, port: Port, peer: Handle) -> Option<Ordinal> {
        self.records.get(widget).slot_to(port, peer)
    }
}

/// Text that was valid when it was stored.
fn text<T>(stored: Result<T, widgets_registry::Refusal>) -> T {
    match stored {
        Ok(text) => text,
        Err(refusal) => unreachable!("stored text is within its limits: {refusal}"),
    }
}
