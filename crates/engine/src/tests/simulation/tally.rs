//! Counts of what happened in simulations.

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
    /// Power cuts, at a step of the disk or between two.
    power_cuts,
    /// Crashes of the process alone.
    kills,
    /// Power cuts and crashes during a start.
    crashes_during_start,
    /// Graceful shutdowns.
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
    /// Lists that were requested.
    lists,
    /// Lists that were answered.
    lists_answered,
    /// Answered lists during which something changed.
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
    /// Retries that got the answer of the first attempt.
    replayed,
    /// Changes that were read from the feed.
    changes,
    /// Followers of the changes that lagged behind what is kept.
    lagged,
    /// Writes that failed after a part was written.
    failed_writes,
    /// Syncs that failed after some sectors were synced.
    failed_syncs,
    /// Creations, renames, removals and syncs of the directory that failed.
    failed_names,
    /// Reads that failed.
    failed_reads,
    /// Reads that returned less than was asked for, or were interrupted.
    short_reads,
    /// Steps that failed because the disk was full.
    full,
    /// Jumps of the clock.
    clock_jumps,
    /// Damage to files: flipped bits, lost and misdirected writes, lost files.
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
