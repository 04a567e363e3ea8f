//! What operators do: they promote members, switch roles, name holders, make standbys follow
//! others, and lose machines.
//!
//! If answers wait for a standby, the operators follow `docs/operations.md`: they do not promote by
//! force, and a machine is lost only while another one is sure to have everything. Then nothing may
//! be missing.

use super::{around::address, world::World};
use crate::{Roles, Unsendable};
use std::sync::{Arc, Mutex, PoisonError};

/// For how many ticks time passes in small steps during a switchover.
const HURRY: u64 = 600;

/// A promotion that has ended.
pub(super) struct Attempt {
    pub(super) number: usize,
    /// When it was requested.
    pub(super) at: u64,
    pub(super) is_switchover: bool,
    pub(super) told: Result<String, Unsendable>,
}

/// The promotions. Each belongs to a process and may end with it.
#[derive(Default)]
pub(super) struct Attempts {
    ended: Arc<Mutex<Vec<Attempt>>>,
    /// Each promotion in progress has a clone.
    under_way: Arc<()>,
}

impl Attempts {
    fn are_under_way(&self) -> bool {
        Arc::strong_count(&self.under_way) > 1
    }

    pub(super) fn take(&self) -> Vec<Attempt> {
        let mut ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut ended)
    }
}

impl World {
    /// Asks for another primary: mostly a member that may become one, and then mostly without loss;
    /// sometimes for two at once.
    pub(super) fn change_roles(&mut self, member: usize) {
        let able = match self.chance.below(6) {
            0 => None,
            _ => self.successor(),
        };
        let is_switchover = self.chance.below(6) < if able.is_some() { 4 } else { 1 };
        if is_switchover {
            self.switch_over(able.unwrap_or(member));
        } else {
            self.promote(able.unwrap_or(member));
        }
        if self.chance.below(4) == 0 {
            let other = self.chance.below(self.members.len());
            self.promote(other);
        }
    }

    /// Returns a member that may take over, if one is known to follow: if answers wait, only the
    /// holder.
    pub(super) fn successor(&mut self) -> Option<usize> {
        let primary = self.primary()?;
        let holder = self.members[primary].holder();
        let can = |number: &usize| {
            let member = &self.members[*number];
            let follows = member.roles().is_some_and(|it| it.failure().is_none());
            let may = !self.waits() || holder.is_some() && member.id() == holder;
            *number != primary && follows && may
        };
        let able: Vec<_> = (0..self.members.len()).filter(can).collect();
        let chosen = self.chance.below(able.len().max(1));
        able.get(chosen).copied()
    }

    /// Looks after a primary that waits for a holder whose disk is gone, and after a standby that
    /// does not follow the primary: that one is told whom to follow, or begins again.
    pub(super) fn tend(&mut self, number: usize) -> Result<(), String> {
        let Some(primary) = self.primary() else {
            return Ok(());
        };
        self.replace_lost_holder(primary);
        if number == primary {
            return Ok(());
        }
        let why = self.members[number].roles().and_then(Roles::failure);
        if why.is_none() || self.members[number].leads() {
            return Ok(());
        }
        if self.members[number].follows != Some(primary) {
            return self.repoint(number, primary);
        }
        let has_parted = why.is_some_and(|why| why.contains("answers 410"));
        if has_parted && self.may_lose(number) {
            self.empty(number, primary)?;
        }
        Ok(())
    }

    /// Returns the member with this number.
    fn named(&self, id: Option<u64>) -> Option<usize> {
        (0..self.members.len()).find(|it| id.is_some() && self.members[*it].id() == id)
    }

    /// Returns the member that takes operations in the highest known epoch. Returns `None` if it is
    /// down, or if a member that could know a higher epoch is.
    fn primary(&self) -> Option<usize> {
        let epochs = self.members.iter().map(|member| {
            let store = member.engine()?.source().store();
            Some(store.epoch())
        });
        let epochs: Vec<u32> = epochs.collect::<Option<_>>()?;
        let highest = epochs.iter().max()?;
        (0..epochs.len()).find(|it| epochs[*it] == *highest && self.members[*it].leads())
    }

    pub(super) fn promote(&mut self, number: usize) {
        self.ask_for_promotion(number, false, "");
    }

    fn switch_over(&mut self, number: usize) {
        self.hurries_until = self.ticks + HURRY;
        self.tally.switchovers_begun += 1;
        let within = [200, 5000, 20_000][self.chance.below(3)];
        self.ask_for_promotion(number, true, &format!("&within_ms={within}"));
    }

    pub(super) fn promote_by_force(&mut self, number: usize) {
        self.tally.forced += 1;
        self.ask_for_promotion(number, false, "&force=true");
    }

    fn ask_for_promotion(&mut self, number: usize, is_switchover: bool, more: &str) {
        let Some(process) = &mut self.members[number].process else {
            return;
        };
        let Some(roles) = process.roles.clone() else {
            return;
        };
        let query = format!("address={}{more}", address(number));
        let (ended, under_way) = (self.attempts.ended.clone(), self.attempts.under_way.clone());
        let at = self.ticks;
        process.begin(Box::pin(async move {
            let told = roles.promote(&query).await;
            let mut ended = ended.lock().unwrap_or_else(PoisonError::into_inner);
            ended.push(Attempt {
                number,
                at,
                is_switchover,
                told,
            });
            drop(under_way);
        }));
        self.note(|| format!("{number} is to be promoted{more}"));
    }

    /// Checks and counts the outcomes of promotions.
    pub(super) fn look_at_attempts(&mut self) -> Result<(), String> {
        for Attempt {
            number,
            at,
            is_switchover,
            told,
        } in self.attempts.take()
        {
            self.note(|| format!("{number} was to be promoted: {told:?}"));
            match told {
                Ok(told) if told.contains("\"promoted\":true") => {
                    self.tally.promotions += 1;
                    if is_switchover {
                        self.tally.switchovers += 1;
                        self.check_switched(number, at)?;
                    }
                    if self.waits() {
                        self.check_whole(number)?;
                    }
                }
                Ok(_) => {}
                Err(Unsendable::Refused(..)) => self.tally.not_the_holder += 1,
                Err(Unsendable::Unknown(_)) => self.tally.switchovers_unknown += 1,
                Err(_) => self.tally.switchovers_given_up += u64::from(is_switchover),
            }
        }
        Ok(())
    }

    /// Asks a primary to name this member the holder, or itself if the holder's disk is gone for
    /// good.
    pub(super) fn name_holder(&mut self, primary: usize, member: usize) {
        let known = self.primary();
        if let Some(primary) = known
            && self.has_lost_its_holder(primary)
        {
            self.go_alone(primary);
            return;
        }
        let primary = known.unwrap_or(primary);
        let Some(id) = self.members[member].id() else {
            return;
        };
        let roles = self.members[primary].roles();
        let told = roles.map(|roles| roles.holder(&format!("member={id:016x}")));
        if let Some(told) = told {
            self.note(|| format!("{primary} is to name {member} the holder: {told:?}"));
        }
    }

    /// Returns whether the holder that this primary waits for, or the previous one that does not
    /// know yet that it is no longer the holder, exists no more.
    fn has_lost_its_holder(&self, primary: usize) -> bool {
        let member = &self.members[primary];
        let holder = member.holder().or(member.leaving());
        let are_known = self.members.iter().all(|member| member.id().is_some());
        are_known && holder.is_some() && self.named(holder).is_none()
    }

    fn go_alone(&mut self, primary: usize) {
        let roles = self.members[primary].roles();
        if roles.is_some_and(|roles| roles.holder("member=alone").is_ok()) {
            self.tally.alone += 1;
            self.note(|| format!("the holder of {primary} is gone for good"));
        }
    }

    /// Lets the primary go on alone if its holder is gone, so that operations continue.
    pub(super) fn replace_lost_holder(&mut self, primary: usize) {
        if self.waits() && self.has_lost_its_holder(primary) {
            self.go_alone(primary);
        }
    }

    /// Returns whether a machine may lose its disk without anything missing: the primary has
    /// everything, or its holder does, and knows that it is the holder. If answers do not wait, the
    /// end of the history may be lost.
    pub(super) fn may_lose(&self, number: usize) -> bool {
        if !self.waits() {
            return true;
        }
        let Some(primary) = self.primary() else {
            return false;
        };
        if self.attempts.are_under_way() {
            return false;
        }
        let holder = self.members[primary].holder();
        let holds = |other: usize| other != number && self.members[other].holder() == holder;
        number != primary || self.named(holder).is_some_and(holds)
    }

    /// Makes a standby follow another member, by a restart.
    pub(super) fn repoint(&mut self, number: usize, to: usize) -> Result<(), String> {
        if number == to || self.members[number].leads() || self.members[number].process.is_none() {
            return Ok(());
        }
        self.crash(number)?;
        self.members[number].follows = Some(to);
        self.start(number)
    }

    /// Loses a machine with its disk, which returns as an empty standby of another member.
    pub(super) fn empty(&mut self, number: usize, to: usize) -> Result<(), String> {
        if number == to || self.members[to].engine().is_none() {
            return Ok(());
        }
        self.crash(number)?;
        self.tally.wiped += 1;
        self.note(|| format!("{number} is emptied, to follow {to}"));
        let member = &mut self.members[number];
        member.disk.wipe();
        member.follows = Some(to);
        member.durable = None;
        member.reigns.clear();
        // In the end all members must have one history, and the archive may contain another one.
        if !self.is_calm && self.chance.below(2) == 0 {
            self.restore(number, to)?;
        }
        self.start(number)
    }
}
