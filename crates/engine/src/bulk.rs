//! A store opened for itself alone: to fill it, or to read all of it, without a service.
//!
//! Nothing is durable before [`Bulk::commit`], and then all of it is: the state becomes a checkpoint,
//! which is many times faster than a journal of single operations. Where there is no store yet, none is
//! made before that either: a file that turns out to be wrong in its last line leaves none behind.

use crate::{
    Counts, DataDirectory, Disk, OpenError, Random, Settings,
    files::{self, Files},
    recovery::{self, Recovered},
    state::{Handle, State},
};
use widgets_clock::{Clock, SystemClock};
use widgets_registry::{Change, Command, Ordinal, Pair, Refusal, Widget, decide};

/// An opened, locked and recovered data directory that no service runs on.
pub struct Bulk<D: Disk = DataDirectory> {
    disk: D,
    random: Random,
    settings: Settings,
    state: State,
    /// What the directory holds beside that; `None` where there is no store yet.
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
    /// Whether the store follows another one.
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
        let threads = recovery::threads();
        let files = Files::list(&disk).map_err(OpenError::io("listing the data directory"))?;
        let mut store = files
            .is_store()
            .then(|| recovery::recover(&disk, clock, &mut random, settings, threads))
            .transpose()?;
        let state = store.as_mut().map(|store| std::mem::take(&mut store.state));
        let mut state = state.unwrap_or_default();
        state.forget_order();
        let next_sequence = store.as_ref().map_or(1, |store| store.end.next_sequence);
        Ok(Self {
            disk,
            random,
            settings: settings.clone(),
            state,
            next_sequence,
            store,
        })
    }

    /// Keeps the orders of lists from now on as a service does, or none as before: for whoever measures what
    /// they cost.
    pub fn keep_order(&mut self, is_kept: bool) {
        if is_kept {
            self.state.finish_replay(recovery::threads());
        } else {
            self.state.forget_order();
        }
    }

    /// Applies one operation in memory, or says why not.
    pub fn apply(&mut self, command: &Command) -> Result<(), Refusal> {
        let change = decide(&self.state, command)?;
        self.state.apply(command, change);
        self.next_sequence += 1;
        Ok(())
    }

    /// Associates two widgets over these of their slots, which need not be the lowest free ones: a
    /// store that has lived has associations over any, and a copy of it is to have the same.
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

    /// All widgets. Their order stays the same until the next [`Self::apply`].
    pub fn widgets(&self) -> impl Iterator<Item = Widget> + '_ {
        (0..self.state.extent()).filter_map(|number| self.state.widget(Handle::new(number)))
    }

    /// The widget of this serial number.
    #[must_use]
    pub fn lookup(&self, serial_number: &str) -> Option<Widget> {
        self.state.lookup(serial_number)
    }

    /// How much there is.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.state.counts()
    }

    /// Makes everything that was applied durable, or nothing of it: after a crash or an error the
    /// directory has the state from before or the one from after. Where there was no store, a crash can
    /// leave one that is empty.
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
            // What was applied is in no group: what the journal has before it does not lead there.
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

/// Takes back a store that was made a moment ago and got no checkpoint. The file that says which store it is
/// goes first: what is left without it is not missed by any start.
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
        tracing::warn!(%error, "an empty store is left, as removing it failed");
    }
}
