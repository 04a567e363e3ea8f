//! Counts what happened, over all worlds.

use std::fmt;

/// Defines counters that can be added up over worlds.
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
    /// Worlds in which answers wait for a standby.
    waiting_worlds,
    /// Steps.
    steps,
    /// Processes that died while the power stayed on.
    kills,
    /// Processes that died in a power cut.
    power_cuts,
    /// Starts of a process.
    starts,
    /// Stores that were copied over the network.
    copies,
    /// Promotions that succeeded.
    promotions,
    /// Switchovers that an operator asked for.
    switchovers_begun,
    /// Switchovers that succeeded.
    switchovers,
    /// Switchovers that changed nothing.
    switchovers_given_up,
    /// Switchovers whose outcome the standby did not know.
    switchovers_unknown,
    /// Promotions that were refused because another member is the holder.
    not_the_holder,
    /// Promotions by force.
    forced,
    /// Primaries that were replaced, or handed over, and know it.
    replaced,
    /// Times that a holder was named.
    holders,
    /// Times that an operator declared the holder gone for good.
    alone,
    /// Faults of the network.
    network_faults,
    /// Faults of disks.
    disk_faults,
    /// Accepted operations.
    accepted,
    /// Accepted operations that waited for a standby.
    acknowledged,
    /// Operations that a rule refused.
    refused,
    /// Operations that were answered as of unknown fate.
    unknown,
    /// Lookups.
    lookups,
    /// Positions that were gone.
    gone,
    /// Requests without an answer, or answered with a fault.
    unanswered,
    /// Changes in all histories.
    changes,
    /// Directories that were emptied.
    wiped,
    /// Emptied directories that began with the archive.
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
