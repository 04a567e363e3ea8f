//! A store opened for itself alone: to fill it, or to read all of it, without a service.
//!
//! Nothing is durable before [`Bulk::commit`], and then all of it is: the state becomes a checkpoint,
//! which is many times faster than a journal of single operations.

use crate::{
    Counts, DataDirectory, Disk, OpenError, Random, Settings,
    recovery::{self, Recovered},
    state::Handle,
};
use widgets_clock::{Clock, SystemClock};
use widgets_registry::{Change, Command, Ordinal, Pair, Refusal, Widget, decide};

/// An opened, locked and recovered data directory that no service runs on.
pub struct Bulk<D: Disk = DataDirectory> {
    disk: D,
    random: Random,
    settings: Settings,
    store: Recovered<D::File>,
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
    /// Opens a store on any disk, clock and randomness.
    pub fn open_on(
        disk: D,
        clock: &impl Clock,
        mut random: Random,
        settings: &Settings,
    ) -> Result<Self, OpenError> {
        settings.check()?;
        let threads = recovery::threads();
        let store = recovery::recover(&disk, clock, &mut random, settings, threads)?;
        Ok(Self {
            disk,
            random,
            settings: settings.clone(),
            next_sequence: store.end.next_sequence,
            store,
        })
    }

    /// Applies one operation in memory, or says why not.
    pub fn apply(&mut self, command: &Command) -> Result<(), Refusal> {
        let change = decide(&self.store.state, command)?;
        self.store.state.apply(command, change);
        self.next_sequence += 1;
        Ok(())
    }

    /// Associates two widgets over these of their slots, which need not be the lowest free ones: a
    /// store that has lived has associations over any, and a copy of it is to have the same.
    pub fn associate_slots(&mut self, pair: &Pair, ordinals: [Ordinal; 2]) -> Result<(), Refusal> {
        let command = Command::AssociateWidgets(pair.clone());
        let change = decide(&self.store.state, &command)?;
        let Change::AssociateWidgets(one, other) = change else {
            unreachable!("associate_widgets changes nothing else")
        };
        let mut ends = [one, other];
        let serial_numbers = [pair.widget1(), pair.widget2()];
        for ((end, ordinal), serial_number) in ends.iter_mut().zip(ordinals).zip(serial_numbers) {
            let record = self.store.state.record(end.widget);
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
        self.store
            .state
            .apply(&command, Change::AssociateWidgets(one, other));
        self.next_sequence += 1;
        Ok(())
    }

    /// All widgets. Their order stays the same until the next [`Self::apply`].
    pub fn widgets(&self) -> impl Iterator<Item = Widget> + '_ {
        (0..self.store.state.extent())
            .filter_map(|number| self.store.state.widget(Handle::new(number)))
    }

    /// The widget of this serial number.
    #[must_use]
    pub fn lookup(&self, serial_number: &str) -> Option<Widget> {
        self.store.state.lookup(serial_number)
    }

    /// How much there is.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.store.state.counts()
    }

    /// Makes everything that was applied durable, or nothing of it: after a crash or an error the
    /// directory has the state from before or the one from after.
    pub fn commit(mut self) -> Result<(), OpenError> {
        if self.next_sequence == self.store.end.next_sequence {
            return Ok(());
        }
        // What was applied is in no group: what the journal has before it does not lead there.
        self.store.end.skip_to(self.next_sequence);
        let Self {
            disk,
            mut random,
            settings,
            store,
            ..
        } = self;
        store.begin_anew(&disk, &mut random, &settings)?;
        Ok(())
    }
}
