//! Replay: writing journaled changes to a state that may already contain some of them.
//!
//! A checkpoint is fuzzy: its parts were copied at different moments, and the journal is replayed
//! from the moment it began. So a change may meet a state from before it, from after it, or from
//! after a later removal. That is harmless because every change assigns, whatever was there before:
//! a widget exists with free slots, a widget does not exist, a slot has this peer, a slot is free.
//! A place that the journal touches after the checkpoint began ends with what the last change
//! assigned; a place that it does not touch was right in the checkpoint. `docs/file-format.md` has
//! the whole argument.

use super::{Handle, Order, Record, State};
use crate::format::JournaledChange;
use widgets_registry::{Ordinal, Ports};

/// One end of an association, by serial number: handles do not outlive a process.
type Place<'a> = (&'a str, Ordinal);

impl State {
    /// Assigns what one journaled change says. Counts are wrong until [`Self::finish_replay`].
    pub(crate) fn replay(&mut self, change: &JournaledChange<'_>) {
        match change {
            JournaledChange::AddWidget {
                serial_number,
                name,
                ports,
            } => {
                self.replay_add(serial_number, name, *ports);
            }
            JournaledChange::RemoveWidget {
                serial_number,
                freed,
            } => {
                self.replay_remove(serial_number);
                for &place in freed {
                    self.replay_free(place);
                }
            }
            JournaledChange::AssociateWidgets(pair) => self.replay_join(pair.one, pair.other),
            JournaledChange::RemoveAssociation(pair) => {
                self.replay_free(pair.one);
                self.replay_free(pair.other);
            }
        }
    }

    /// Makes the widget exist, with free slots.
    fn replay_add(&mut self, serial_number: &str, name: &str, ports: Ports) {
        let record = Record::new(serial_number, name, ports);
        if let Some(handle) = self.index.find(serial_number, &self.records) {
            *self.records.get_mut(handle) = record;
        } else {
            let handle = self.records.insert(record);
            self.index.insert(serial_number, handle);
        }
    }

    /// Makes the widget not exist. [`Self::replay_free`] frees its peers' slots.
    fn replay_remove(&mut self, serial_number: &str) {
        if let Some(handle) = self.index.find(serial_number, &self.records) {
            self.index.remove(serial_number, handle);
            self.records.remove(handle);
        }
    }

    /// Makes the two slots each other's peers.
    fn replay_join(&mut self, one: Place<'_>, other: Place<'_>) {
        let one_handle = self.index.find(one.0, &self.records);
        let other_handle = self.index.find(other.0, &self.records);
        // A missing widget was removed later, and the change that removed it will free its peer's
        // slot.
        self.assign(one_handle, one.1, other_handle);
        self.assign(other_handle, other.1, one_handle);
    }

    /// Frees the slot.
    fn replay_free(&mut self, place: Place<'_>) {
        let handle = self.index.find(place.0, &self.records);
        self.assign(handle, place.1, None);
    }

    /// Counts the widgets and sorts them on `threads` threads, once the last change is replayed.
    pub(crate) fn finish_replay(&mut self, threads: usize) {
        (self.order, self.counts) = Order::of(&self.records, threads);
    }

    fn assign(&mut self, widget: Option<Handle>, ordinal: Ordinal, peer: Option<Handle>) {
        let Some(widget) = widget else { return };
        let record = self.records.get_mut(widget);
        // Another life of the same serial number may have fewer slots.
        if record.ports().get(ordinal).is_some() {
            record.set_peer(ordinal, peer);
        }
    }
}
