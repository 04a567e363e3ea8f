//! What happened in how many worlds.

use std::fmt;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) worlds: u64,
    pub(super) steps: u64,
    pub(super) kills: u64,
    pub(super) power_cuts: u64,
    pub(super) starts: u64,
    pub(super) copies: u64,
    pub(super) promotions: u64,
    pub(super) switchovers: u64,
    pub(super) replaced: u64,
    pub(super) network_faults: u64,
    pub(super) disk_faults: u64,
    pub(super) accepted: u64,
    pub(super) refused: u64,
    pub(super) lookups: u64,
    pub(super) gone: u64,
    pub(super) unanswered: u64,
    pub(super) changes: u64,
    pub(super) wiped: u64,
    pub(super) followed_by_itself: u64,
}

impl Tally {
    pub(super) fn crashes(&self) -> u64 {
        self.kills + self.power_cuts
    }

    pub(super) fn add(&mut self, other: &Self) {
        let Self {
            worlds,
            steps,
            kills,
            power_cuts,
            starts,
            copies,
            promotions,
            switchovers,
            replaced,
            network_faults,
            disk_faults,
            accepted,
            refused,
            lookups,
            gone,
            unanswered,
            changes,
            wiped,
            followed_by_itself,
        } = other;
        self.worlds += worlds;
        self.steps += steps;
        self.kills += kills;
        self.power_cuts += power_cuts;
        self.starts += starts;
        self.copies += copies;
        self.promotions += promotions;
        self.switchovers += switchovers;
        self.replaced += replaced;
        self.network_faults += network_faults;
        self.disk_faults += disk_faults;
        self.accepted += accepted;
        self.refused += refused;
        self.lookups += lookups;
        self.gone += gone;
        self.unanswered += unanswered;
        self.changes += changes;
        self.wiped += wiped;
        self.followed_by_itself += followed_by_itself;
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} worlds, {} steps", self.worlds, self.steps)?;
        writeln!(
            f,
            "{} crashes ({} with the power), {} starts, {} copies of a store",
            self.crashes(),
            self.power_cuts,
            self.starts,
            self.copies
        )?;
        writeln!(
            f,
            "{} promotions, {} of them switchovers, {} primaries that knew that they were replaced",
            self.promotions, self.switchovers, self.replaced
        )?;
        writeln!(
            f,
            "{} faults of the network, {} of disks",
            self.network_faults, self.disk_faults
        )?;
        writeln!(
            f,
            "{} operations accepted, {} refused, {} lookups, {} positions that were given up, {} without an answer",
            self.accepted, self.refused, self.lookups, self.gone, self.unanswered
        )?;
        write!(
            f,
            "{} changes; at the end {} members followed by themselves, {} directories were emptied",
            self.changes, self.followed_by_itself, self.wiped
        )
    }
}
