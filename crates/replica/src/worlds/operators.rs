//! What operators do: they promote, have roles change, name holders, have standbys follow others, and lose machines.
//!
//! Where answers wait for a standby they keep to what `docs/operations.md` asks of them: nobody is promoted by force, and a machine
//! is lost only while another one is sure to have everything. Then nothing may be missing.

use super::{around::address, world::World};
use crate::{Roles, Unsendable};
use std::sync::{Arc, Mutex, PoisonError};

/// While roles are to be switched time passes in small steps for so many ticks.
const HURRY: u64 = 600;

/// A promotion that has ended.
pub(super) struct Attempt {
    pub(super) number: usize,
    /// When it was asked for.
    pub(super) at: u64,
    pub(super) is_switchover: bool,
    pub(super) told: Result<String, Unsendable>,
}

/// Promotions, each of which is one of a process, and may end with that.
#[derive(Default)]
pub(super) struct Attempts {
    ended: Arc<Mutex<Vec<Attempt>>>,
    /// Each that is under way has one of these.
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
    /// An operator wants another primary. Mostly one that can be, and then mostly without loss; sometimes two at once.
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

    /// Who may take over, if somebody is known that follows: where answers wait, the holder alone.
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

    /// An operator sees to a primary that waits for a holder whose disk is gone, and to a standby that does not follow the primary: it is
    /// told whom to follow, or begins anew.
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

    /// Which member has this number.
    fn named(&self, id: Option<u64>) -> Option<usize> {
        (0..self.members.len()).find(|it| id.is_some() && self.members[*it].id() == id)
    }

    /// Who takes operations in the highest epoch that anybody knows of. `None` where that one, or somebody who could know more, is down.
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

    /// What became of promotions.
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

    /// An operator has a primary name this member the holder, or itself, where the holder's disk is gone for good.
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

    /// Whether nobody is what this primary says is the holder, or was it and has to hear that it is none any more.
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

    /// The same where the operators see to it that everything goes on.
    pub(super) fn replace_lost_holder(&mut self, primary: usize) {
        if self.waits() && self.has_lost_its_holder(primary) {
            self.go_alone(primary);
        }
    }

    /// Whether a machine may be lost with its disk and nothing be missing: the primary has everything, or its holder, as that one
    /// itself knows. Without waiting what is lost is the end of the history.
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

    /// An operator has a standby follow somebody else, by a restart.
    pub(super) fn repoint(&mut self, number: usize, to: usize) -> Result<(), String> {
        if number == to || self.members[number].leads() || self.members[number].process.is_none() {
            return Ok(());
        }
        self.crash(number)?;
        self.members[number].follows = Some(to);
        self.start(number)
    }

    /// A machine is lost with its disk, and comes back as an empty standby of another one.
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
        // In the end everybody is to have one history, and the archive may have another one.
        if !self.is_calm && self.chance.below(2) == 0 {
            self.restore(number, to)?;
        }
        self.start(number)
    }
}
