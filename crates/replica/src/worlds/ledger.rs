//! What happened, according to all members: each position has one change, and each change leads to
//! the model's next state.

use std::{collections::BTreeMap, sync::Arc};
use widgets_conformance::{Model, commands::cause};
use widgets_engine::StoreHeader;
use widgets_registry::{Command, Event, Happened};

/// An epoch and a sequence number.
pub(super) type Place = (u32, u64);

/// One change.
#[derive(Clone)]
pub(super) struct Entry {
    pub(super) happened: Happened,
    pub(super) command: Command,
    /// The state after it.
    pub(super) model: Arc<Model>,
}

/// The changes in all histories.
#[derive(Default)]
pub(super) struct Ledger {
    entries: BTreeMap<Place, Entry>,
    /// Which member wrote in each epoch.
    writers: BTreeMap<u32, usize>,
}

impl Ledger {
    /// Records that a member has this change after that state. `may_write` means that it is a
    /// primary, and may be the first member that has it.
    pub(super) fn note(
        &mut self,
        member: usize,
        event: &Event,
        before: &Arc<Model>,
        may_write: bool,
    ) -> Result<Arc<Model>, String> {
        let place = (event.position.epoch, event.position.sequence);
        if let Some(known) = self.entries.get(&place) {
            if known.happened != event.happened {
                return Err(format!(
                    "position {place:x?} names two changes: {:?}, and at member {member} {:?}",
                    known.happened, event.happened
                ));
            }
            let mut model = (**before).clone();
            let applied = model.apply(&known.command).is_ok();
            if !applied || model != *known.model {
                return Err(format!(
                    "position {place:x?} is in two histories: member {member} has another before it"
                ));
            }
            return Ok(known.model.clone());
        }
        if !may_write {
            return Err(format!(
                "member {member} follows, and has {:?} at {place:x?}, which nobody wrote",
                event.happened
            ));
        }
        let writer = *self.writers.entry(place.0).or_insert(member);
        if writer != member {
            return Err(format!(
                "members {writer} and {member} both write in epoch {:x}",
                place.0
            ));
        }
        let command = cause(&event.happened).map_err(|refusal| refusal.to_string())?;
        if before.foretell(&command) != Some(event.happened.clone()) {
            return Err(format!(
                "at {place:x?} {:?} cannot have happened",
                event.happened
            ));
        }
        let mut model = (**before).clone();
        model.apply(&command).map_err(|error| error.to_string())?;
        let model = Arc::new(model);
        self.entries.insert(
            place,
            Entry {
                happened: event.happened.clone(),
                command,
                model: model.clone(),
            },
        );
        Ok(model)
    }

    /// Returns the change at this place in a store's history, if there is one.
    pub(super) fn at(&self, store: &StoreHeader, sequence: u64) -> Option<&Entry> {
        self.entries.get(&(store.epoch_of(sequence), sequence))
    }

    /// Returns the state after this entry in a store's history.
    pub(super) fn state(&self, store: &StoreHeader, sequence: u64) -> Arc<Model> {
        let entry = (1..=sequence).rev().find_map(|it| self.at(store, it));
        entry.map(|entry| entry.model.clone()).unwrap_or_default()
    }

    /// Returns the states of a store's history from one entry to another, both included.
    pub(super) fn states<'a>(
        &'a self,
        store: &'a StoreHeader,
        from: u64,
        to: u64,
    ) -> impl Iterator<Item = Arc<Model>> + 'a {
        let first = self.state(store, from);
        let later = (from + 1..=to).filter_map(|it| self.at(store, it));
        std::iter::once(first).chain(later.map(|entry| entry.model.clone()))
    }

    /// Returns the number of changes.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }
}
