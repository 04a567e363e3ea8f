//! The end of a world: nothing fails any more, and the operators see to it that all members have one history.

use super::{around::member_at, world::World};
use widgets_engine::Role;

/// So many turns of everybody, a tenth of a second each.
const ROUNDS: usize = 400;

impl World {
    /// Nothing fails any more.
    pub(super) fn end(&mut self) -> Result<(), String> {
        self.note(|| "from here on nothing fails".into());
        self.is_calm = true;
        self.network.heal();
        for number in 0..self.members.len() {
            self.members[number].disk.arm(0, None);
            self.start(number)?;
        }
        // A process that cannot write any more is started anew.
        for number in 0..self.members.len() {
            if self.members[number].engine().is_some() {
                self.restart(number)?;
            }
        }
        let first = self.winner();
        let Some(winner) = first else {
            return Err("nobody has a store any more".into());
        };
        if !self.members[winner].leads() {
            self.promote(winner);
        }
        self.calm(winner)?;
        if !self.members[winner].leads() {
            return Err(format!("member {winner} was not promoted"));
        }
        self.check_lost(winner)?;
        self.count_replaced();
        for number in (0..self.members.len()).filter(|it| *it != winner) {
            self.bring_along(number, winner)?;
        }
        for number in 0..self.members.len() {
            self.audit(number)?;
            self.check_state(number)?;
            if !self.is_level(number, winner) {
                return Err(format!(
                    "member {number} does not come to what {winner} has"
                ));
            }
        }
        Ok(())
    }

    fn restart(&mut self, number: usize) -> Result<(), String> {
        let member = &mut self.members[number];
        member.process = None;
        member.disk.end_process(true);
        self.start(number)
    }

    /// The primary of the highest epoch; where there is none, the standby that has most.
    fn winner(&self) -> Option<usize> {
        let known = |number: &usize| {
            let engine = self.members[*number].engine()?;
            let store = engine.source().store();
            let (epoch, newest) = (store.epoch(), engine.newest());
            Some((!store.is_standby(), epoch, newest.sequence))
        };
        let members = (0..self.members.len()).filter(|it| known(it).is_some());
        members.max_by_key(known)
    }

    fn calm(&mut self, winner: usize) -> Result<(), String> {
        for _ in 0..ROUNDS {
            self.network.heal();
            for number in 0..self.members.len() {
                for _ in 0..6 {
                    self.turn(number)?;
                }
                self.own(number)?;
                self.arrive()?;
                for _ in 0..3 {
                    self.network.carry();
                }
            }
            self.pass(100_000);
            self.after()?;
            let level = (0..self.members.len()).all(|it| self.is_level(it, winner));
            if level && self.members[winner].leads() {
                break;
            }
        }
        Ok(())
    }

    fn is_level(&self, number: usize, winner: usize) -> bool {
        let end = |number: usize| {
            let engine = self.members[number].engine()?;
            Some((engine.source().end(), engine.source().store().epoch()))
        };
        end(number).is_some()
            && end(number) == end(winner)
            && (number == winner) == self.members[number].leads()
    }

    /// A member that has nothing but what the primary has follows, by itself or once it is told whom. Any other one is emptied.
    fn bring_along(&mut self, number: usize, winner: usize) -> Result<(), String> {
        if self.is_level(number, winner) {
            self.count_follower();
            return Ok(());
        }
        let can_follow = self.keeps_all() && self.is_part_of(number, winner);
        let is_told = self.is_before(number, winner);
        self.note(|| {
            format!("{number} has not come along: it can {can_follow}, is told {is_told}")
        });
        if can_follow && is_told {
            return Err(format!(
                "member {number} has nothing but what {winner} has, which was promoted in its place, and does not follow it"
            ));
        }
        if !self.members[number].leads() && self.members[number].engine().is_some() {
            self.repoint(number, winner)?;
            self.calm(winner)?;
            if self.is_level(number, winner) {
                self.count_follower();
                return Ok(());
            }
            if can_follow {
                let why = self.members[number].why_not();
                return Err(format!(
                    "member {number} has nothing but what {winner} has, and does not follow it: {why}"
                ));
            }
        }
        self.empty(number, winner)?;
        self.calm(winner)
    }

    /// Whether all changes of a member are in the winner's history, which goes back far enough.
    fn is_part_of(&self, number: usize, winner: usize) -> bool {
        let (Some(one), Some(other)) =
            (self.members[number].engine(), self.members[winner].engine())
        else {
            return false;
        };
        let store = other.source().store();
        let has = |(epoch, sequence): (u32, u64)| {
            sequence <= other.newest().sequence && store.epoch_of(sequence) == epoch
        };
        let durable = self.members[number].durable;
        let end = durable.map_or(0, |(_, sequence)| sequence);
        durable.is_none_or(has)
            && one.source().store().identity == store.identity
            && one.source().store().epoch() <= store.epoch()
            && other.oldest().sequence <= end
            && one.oldest().sequence < end
    }

    /// Whether a primary was replaced by the winner, and is told so.
    fn is_before(&self, number: usize, winner: usize) -> bool {
        let (Some(one), Some(other)) =
            (self.members[number].engine(), self.members[winner].engine())
        else {
            return false;
        };
        let is_named = match &other.source().store().role {
            Role::Promoted { from, .. } => member_at(from) == Some(number),
            Role::Primary | Role::Standby { .. } => false,
        };
        is_named && !one.source().store().is_standby()
    }
}
