//! The archive, as far as it is a reader: what some member had durably, and a standby that is begun with that.
//!
//! Which objects are written in which order is looked at by the archive's own tests (`crates/archive`). Here is what comes of it: a copy that is old, or
//! has what the history that goes on does not have, as its writer died or was replaced.

use super::world::World;
use std::sync::Arc;
use widgets_engine::{
    Disk, LoggedGroup, OpenError, Restoration, Settings, Source, SourceError, StoreHeader,
    simulation::Chance,
};

/// So many bytes are read at a time.
const READ_BYTES: usize = 64 << 10;

#[derive(Default)]
pub(super) struct Archive {
    /// Whose groups these are.
    store: Option<Arc<StoreHeader>>,
    /// From the first one on.
    groups: Vec<Arc<LoggedGroup>>,
}

impl Archive {
    /// Takes what a member has after what is here. Where its history is another one, that one is archived from here on.
    fn take(&mut self, source: &Source) -> Result<(), SourceError> {
        let store = source.store();
        let mut next = self.groups.last().map_or(1, |last| last.next_sequence());
        let goes_on = match (&self.store, self.groups.last()) {
            (Some(known), Some(last)) => {
                let is_of = |store: &StoreHeader| store.epoch_of(next - 1);
                let has = next <= source.end().next_sequence
                    && source.chain_before(next)? == Some(last.next_chain());
                has && is_of(known) == is_of(&store)
            }
            _ => false,
        };
        if !goes_on {
            if source.oldest() > 1 {
                return Ok(());
            }
            self.groups.clear();
            next = 1;
        }
        while next < source.end().next_sequence {
            let read = source.read(next, READ_BYTES)?;
            next = read.last().map_or(next, |last| last.next_sequence());
            self.groups.extend(read);
        }
        self.store = Some(store);
        Ok(())
    }

    /// Makes a standby of what is here, as `widgets restore --follow` does. False where nothing is.
    fn restore(
        &self,
        disk: impl Disk,
        seed: u64,
        settings: &Settings,
        primary: String,
    ) -> Result<bool, OpenError> {
        let Some(store) = &self.store else {
            return Ok(false);
        };
        let mut chance = Chance(seed);
        let random = Box::new(move || chance.number());
        let store = (**store).clone();
        let mut restoration =
            Restoration::begin_standby_on(disk, random, settings, store, primary)?;
        restoration.begin_empty();
        for group in &self.groups {
            restoration.group(group)?;
        }
        restoration.finish()?;
        Ok(true)
    }
}

impl World {
    /// A member archives what it has.
    pub(super) fn archive(&mut self, number: usize) -> Result<(), String> {
        let mut archive = std::mem::take(&mut self.archive);
        // What cannot be read now is read another time.
        self.do_step(number, |engine| drop(archive.take(&engine.source())))?;
        self.archive = archive;
        Ok(())
    }

    /// Has an empty machine begin with what is in the archive, as a standby of this member, if there is something.
    pub(super) fn restore(&mut self, number: usize, primary: usize) -> Result<(), String> {
        let (disk, seed) = (self.members[number].disk.clone(), self.chance.number());
        let primary = super::around::address(primary);
        let restored = self.archive.restore(disk, seed, &self.settings, primary);
        let restored = restored.map_err(|error| format!("the archive: {error}"))?;
        if restored {
            self.tally.restored += 1;
            self.note(|| format!("{number} is made of the archive"));
        }
        Ok(())
    }
}
