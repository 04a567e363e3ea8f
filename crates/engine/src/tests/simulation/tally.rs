//! How much of what happened in simulations.

use std::fmt;

macro_rules! tally {
    ($($(#[doc = $meaning:literal])+ $name:ident,)+) => {
        /// Counts of what happened.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub(super) struct Tally {
            $($(#[doc = $meaning])+ pub(super) $name: u64,)+
        }

        impl Tally {
            pub(super) fn add(&mut self, other: &Self) {
                $(self.$name += other.$name;)+
            }

            fn lines(&self) -> impl Iterator<Item = (&'static str, u64, &'static str)> {
                [$((stringify!($name), self.$name, concat!($($meaning),+)),)+].into_iter()
            }
        }
    };
}

tally! {
    /// Seeds.
    seeds,
    /// Crashes of the process with the power, at a step of the disk or between two.
    power_cuts,
    /// Crashes of the process alone.
    kills,
    /// Of both, those during a start.
    crashes_during_start,
    /// Ends in good order.
    shutdowns,
    /// Starts that were completed.
    starts,
    /// Requests that were sent.
    requests,
    /// Operations that were accepted.
    accepted,
    /// Operations that were refused by a rule.
    refused,
    /// Lookups that were answered.
    lookups,
    /// Lists that were asked for.
    lists,
    /// Lists that were answered.
    lists_answered,
    /// Of these, those during which something changed.
    lists_beside_changes,
    /// Lists that were answered WG503 or WG504.
    lists_refused,
    /// Lists that got no answer: a crash, or a reader that hung up.
    lists_unanswered,
    /// Requests that were answered WG503 or WG504.
    not_applied,
    /// Requests whose fate is unknown: WG505, a crash, or a client that hung up.
    fate_unknown,
    /// Clients that hung up.
    hang_ups,
    /// Requests that were sent again.
    retries,
    /// Of these, those that were answered as the first time.
    replayed,
    /// Changes that were told.
    changes,
    /// Those who follow the changes lagged behind what is kept.
    lagged,
    /// Writes that failed, with a part of them written.
    failed_writes,
    /// Syncs that failed, with some sectors synced.
    failed_syncs,
    /// Creations, renames, removals and syncs of the directory that failed.
    failed_names,
    /// Reads that failed.
    failed_reads,
    /// Reads that gave less than was asked for, or were interrupted.
    short_reads,
    /// Steps that failed because the disk was full.
    full,
    /// Jumps of the clock.
    clock_jumps,
    /// Damage that was done to files: flipped bits, lost and misdirected writes, lost files.
    damage,
    /// Starts that refused damage and named the file.
    damage_named,
    /// Checkpoints that got their name.
    checkpoints,
}

impl Tally {
    pub(super) fn crashes(&self) -> u64 {
        self.power_cuts + self.kills
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, count, meaning) in self.lines() {
            writeln!(
                f,
                "{count:>12} {:<21}{}",
                name.replace('_', " "),
                meaning.trim()
            )?;
        }
        Ok(())
    }
}
