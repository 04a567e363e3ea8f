//! What happened in how many worlds.

use std::fmt;

/// Counts, each added up over worlds.
macro_rules! tally {
    ($($(#[doc = $what:literal])+ $name:ident),+ $(,)?) => {
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub(super) struct Tally {
            $($(#[doc = $what])+ pub(super) $name: u64),+
        }

        impl Tally {
            pub(super) fn add(&mut self, other: &Self) {
                $(self.$name += other.$name;)+
            }
        }
    };
}

tally! {
    /// Worlds.
    worlds,
    /// Those of them in which answers wait for a standby.
    waiting_worlds,
    /// Steps.
    steps,
    /// Processes that died, and the power stayed.
    kills,
    /// Those with which the power went.
    power_cuts,
    /// Starts of a process.
    starts,
    /// Stores that were copied over the network.
    copies,
    /// Promotions that were done.
    promotions,
    /// Switchovers that an operator asked for.
    switchovers_begun,
    /// Those of them that were done.
    switchovers,
    /// Those after which everything was as before.
    switchovers_given_up,
    /// Those of which the standby did not know whether they were done.
    switchovers_unknown,
    /// Promotions that were refused, as another one is the holder.
    not_the_holder,
    /// Promotions by force.
    forced,
    /// Primaries that were told that they were replaced, or handed over.
    replaced,
    /// Times that a holder was named.
    holders,
    /// Times that an operator said that the holder is gone for good.
    alone,
    /// Faults of the network.
    network_faults,
    /// Faults of disks.
    disk_faults,
    /// Operations that were accepted.
    accepted,
    /// Those of them that waited for a standby.
    acknowledged,
    /// Operations that were refused by a rule.
    refused,
    /// Operations of which the caller was told that nobody knows.
    unknown,
    /// Lookups.
    lookups,
    /// Positions that were given up.
    gone,
    /// Requests without an answer, or with a fault.
    unanswered,
    /// Changes in all histories.
    changes,
    /// Directories that were emptied.
    wiped,
    /// Those of them that began with the archive.
    restored,
    /// Members that followed in the end without being emptied.
    followed_by_itself,
}

impl Tally {
    pub(super) fn crashes(&self) -> u64 {
        self.kills + self.power_cuts
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} worlds, in {} of which answers wait for a standby; {} steps",
            self.worlds, self.waiting_worlds, self.steps
        )?;
        writeln!(
            f,
            "{} crashes ({} with the power), {} starts, {} copies of a store, {} directories emptied, {} of them begun with the archive",
            self.crashes(),
            self.power_cuts,
            self.starts,
            self.copies,
            self.wiped,
            self.restored
        )?;
        writeln!(
            f,
            "{} promotions, {} by force, {} refused, as another one is the holder; {} primaries that knew that they were replaced",
            self.promotions, self.forced, self.not_the_holder, self.replaced
        )?;
        writeln!(
            f,
            "{} switchovers begun, {} done, {} given up, {} of which the standby did not know",
            self.switchovers_begun,
            self.switchovers,
            self.switchovers_given_up,
            self.switchovers_unknown
        )?;
        writeln!(
            f,
            "{} holders named, {} of them lost for good",
            self.holders, self.alone
        )?;
        writeln!(
            f,
            "{} faults of the network, {} of disks",
            self.network_faults, self.disk_faults
        )?;
        writeln!(
            f,
            "{} operations accepted, {} of them once a standby had them, {} refused, {} of unknown fate; {} lookups, {} positions \
             that were given up, {} without an answer",
            self.accepted,
            self.acknowledged,
            self.refused,
            self.unknown,
            self.lookups,
            self.gone,
            self.unanswered
        )?;
        write!(
            f,
            "{} changes; at the end {} members followed by themselves",
            self.changes, self.followed_by_itself
        )
    }
}
