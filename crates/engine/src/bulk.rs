//! A store opened exclusively, to fill it or to read all of it without a service.
//!
//! Nothing is durable before [`Bulk::commit`], and then everything is: the state becomes a
//! checkpoint, which is many times faster than a journal of single operations. If there is no store
//! yet, none is created before the commit either, so an input that is wrong in its last line leaves
//! no store behind.

use crate::{
    Counts, DataDirectory, Disk, OpenError, Random, Settings,
    files::{self, Files},
    recovery::{self, Recovered},
    state::{Handle, State},
};
use widgets_clock::{Clock, SystemClock};
use widgets_registry::{Change, Command, Ordinal, Pair, Refusal, Widget, decide};

/// An opened, locked and recovered data directory that no service uses. What the service keeps for
/// its callers, changes and idempotency keys, stays for the service.
pub struct Bulk<D: Disk = DataDirectory> {
    disk: D,
    random: Random,
    settings: Settings,
    state: State,
    /// What the directory contains beside the state; `None` if there is no store yet.
    store: Option<Recovered<D::File>>,
    /// The sequence number of the next entry.
    next_sequence: u64,
}

impl Bulk {
    /// Opens a data directory of the operating system.
    pub fn open(disk: DataDirectory, settings: &Settings) -> Result<Self, OpenError> {
        Self::open_on(disk, &SystemClock::new(), crate::random(), settings)
    }
}

impl<D: Disk> Bulk<D> {
    /// Reports whether the store follows another one.
    #[must_use]
    pub fn is_standby(&self) -> bool {
        self.store
            .as_ref()
            .is_some_and(|store| store.store.is_standby())
    }

    /// Opens a store on any disk, clock and randomness.
    pub fn open_on(
        disk: D,
        clock: &impl Clock,
        mut random: Random,
        settings: &Settings,
    ) -> Result<Self, OpenError> {
        settings.check()?;
        let settings = settings.clone().keeping_everything();
        let threads = recovery::threads();
        let files = Files::list(&disk).map_err(OpenError::io("listing the data directory"))?;
        let mut store = files
            .is_store()
            .then(|| recovery::recover(&disk, clock, &mut random, &settings, threads))
            .transpose()?;
        let state = store.as_mut().map(|store| std::mem::take(&mut store.state));
        let mut state = state.unwrap_or_default();
        state.forget_order();
        let next_sequence = store.as_ref().map_or(1, |store| store.end.next_sequence);
        Ok(Self {
            disk,
            random,
            settings,
            state,
            store,
            next_sequence,
        })
    }

    /// Maintains the orders of lists from now on as a service does, or stops doing so, in order to
    /// measure their cost.
    pub fn keep_order(&mut self, is_kept: bool) {
        if is_kept {
            self.state.finish_replay(recovery::threads());
        } else {
            self.state.forget_order();
        }
    }

    /// Applies an operation in memory, or returns why it is refused.
    pub fn apply(&mut self, command: &Command) -> Result<(), Refusal> {
        let change = decide(&self.state, command)?;
        self.state.apply(command, change);
        self.next_sequence += 1;
        Ok(())
    }

    /// Associates two widgets over these slots, which need not be the lowest free ones. A store
    /// that has been in use has associations over any slots, and a copy of it must have the same.
    pub fn associate_slots(&mut self, pair: &Pair, ordinals: [Ordinal; 2]) -> Result<(), Refusal> {
        let command = Command::AssociateWidgets(pair.clone());
        let change = decide(&self.state, &command)?;
        let Change::AssociateWidgets(one, other) = change else {
            unreachable!("associate_widgets changes nothing else")
        };
        let mut ends = [one, other];
        let serial_numbers = [pair.widget1(), pair.widget2()];
        for ((end, ordinal), serial_number) in ends.iter_mut().zip(ordinals).zip(serial_numbers) {
            let record = self.state.record(end.widget);
            let port = pair.port();
            if record.ports().get(ordinal) != Some(port) || record.peer(ordinal).is_some() {
                let serial_number = serial_number.clone();
                return Err(Refusal::NoFreeSlot {
                    serial_number,
                    port,
                });
            }
            end.ordinal = ordinal;
        }
        let [one, other] = ends;
        self.state
            .apply(&command, Change::AssociateWidgets(one, other));
        self.next_sequence += 1;
        Ok(())
    }

    /// Iterates over all widgets. Their order stays the same until the next [`Self::apply`].
    pub fn widgets(&self) -> impl Iterator<Item = Widget> + '_ {
        (0..self.state.extent()).filter_map(|number| self.state.widget(Handle::new(number)))
    }

    /// Returns the widget with this serial number.
    #[must_use]
    pub fn lookup(&self, serial_number: &str) -> Option<Widget> {
        self.state.lookup(serial_number)
    }

    /// Returns how much the store contains.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.state.counts()
    }

    /// Makes everything that was applied durable, or nothing: after a crash or an error, the
    /// directory has either the old state or the new one. If there was no store, a crash can leave
    /// an empty one.
    pub fn commit(self) -> Result<(), OpenError> {
        let Self {
            disk,
            mut random,
            settings,
            state,
            store,
            next_sequence,
        } = self;
        let is_new = store.is_none();
        let commit = || {
            let mut store = match store {
                Some(store) => store,
                None => recovery::create(&disk, &mut random, &settings)?,
            };
            if next_sequence == store.end.next_sequence {
                return Ok(());
            }
            store.state = state;
            // What was applied is in no group, so the journal before it does not lead to it.
            store.end.skip_to(next_sequence);
            store.begin_anew(&disk, &mut random, &settings).map(drop)
        };
        let committed = commit();
        if is_new && committed.is_err() {
            abandon(&disk);
        }
        committed
    }
}

/// Removes a store that was only now created and got no checkpoint. The file `store` is removed
/// first, because without it no start misses the rest.
fn abandon(disk: &impl Disk) {
    let removed = Files::list(disk).and_then(|files| {
        if !files.checkpoints.is_empty() {
            return Ok(());
        }
        let segments = files.segments.iter().rev().copied();
        let store = files.has_store.then(|| files::STORE.to_owned());
        let mut names = store
            .into_iter()
            .chain(segments.map(files::segment_name))
            .chain(files.unfinished);
        names.try_for_each(|name| disk.remove(&name).and_then(|()| disk.sync_directory()))
    });
    if let Err(error) = removed {
        tracing::warn!(%error, "an empty store is left behind, because removing it failed");
    }
}
