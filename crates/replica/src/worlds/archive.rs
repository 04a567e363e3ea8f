//! The archive as a source of copies: what some member had durably, and a standby that begins with
//! it.
//!
//! The archive's own tests (`crates/archive`) cover which objects are written in which order. This
//! covers the result: a copy that is old, or that contains what the surviving history does not,
//! because its writer died or was replaced.

use super::world::World;
use std::sync::Arc;
use widgets_engine::{
    Disk, LoggedGroup, OpenError, Restoration, Settings, Source, SourceError, StoreHeader,
    simulation::Chance,
};

/// How many bytes are read at a time.
const READ_BYTES: usize = 64 << 10;

#[derive(Default)]
pub(super) struct Archive {
    /// The store whose groups these are.
    store: Option<Arc<StoreHeader>>,
    /// All groups from the first one on.
    groups: Vec<Arc<LoggedGroup>>,
}

impl Archive {
    /// Adds what a member has after the archived groups. If the member's history is another one,
    /// archives that history from here on.
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

    /// Builds a standby from the archive, as `widgets restore --follow` does. Returns false if the
    /// archive is empty.
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
    /// Archives what a member has.
    pub(super) fn archive(&mut self, number: usize) -> Result<(), String> {
        let mut archive = std::mem::take(&mut self.archive);
        // What cannot be read now is read the next time.
        self.do_step(number, |engine| drop(archive.take(&engine.source())))?;
        self.archive = archive;
        Ok(())
    }

    /// Restores the archive's content to an empty machine, as a standby of this member. Does
    /// nothing if the archive is empty.
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
