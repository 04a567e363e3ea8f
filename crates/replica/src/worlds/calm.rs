//! The end of a world: nothing fails any more, and the operators bring all members to one history.

use super::{around::member_at, world::World};
use widgets_engine::Role;

/// The maximum number of turns for all members, each a tenth of a second.
const ROUNDS: usize = 400;

impl World {
    /// Ends all failures, brings all members to one history, and checks the result.
    pub(super) fn end(&mut self) -> Result<(), String> {
        self.note(|| "from here on nothing fails".into());
        self.is_calm = true;
        self.network.heal();
        for number in 0..self.members.len() {
            self.members[number].disk.arm(0, None);
            self.start(number)?;
        }
        // A process that can no longer write is restarted.
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
        if self.waits() && !self.members[winner].leads() {
            // The winner handed over to its holder, which was then lost. Both had everything, which
            // is checked below.
            self.promote_by_force(winner);
            self.calm(winner)?;
        }
        if !self.members[winner].leads() {
            return Err(format!("member {winner} was not promoted"));
        }
        self.check_lost(winner)?;
        self.count_replaced();
        self.replace_lost_holder(winner);
        let mut others: Vec<_> = (0..self.members.len()).filter(|it| *it != winner).collect();
        // Other standbys are sent only what the holder has, and no other holder is named before
        // this one knows. So it comes first, and must be connected.
        let holder = self.members[winner].holder();
        let holder = holder.or(self.members[winner].leaving());
        others.sort_by_key(|it| self.members[*it].id() != holder);
        let first = others.first().copied();
        if let Some(first) = first
            && self.waits()
            && self.members[first].follows != Some(winner)
        {
            self.repoint(first, winner)?;
            self.calm(winner)?;
        }
        for &number in &others {
            self.bring_along(number, winner)?;
        }
        for number in others {
            // Two standbys may follow each other and have everything.
            if !self.has_its_holder(winner) {
                self.repoint(number, winner)?;
                self.calm(winner)?;
            }
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
        self.calm(winner)?;
        if self.has_its_holder(winner) {
            Ok(())
        } else {
            Err(format!("member {winner} has no holder in the end"))
        }
    }

    /// Returns whether a standby has acknowledged everything, or answers do not wait.
    fn has_its_holder(&self, winner: usize) -> bool {
        if !self.waits() {
            return true;
        }
        let member = &self.members[winner];
        let told = member.roles().map(|it| it.holder(""));
        let (Some(Ok(told)), Some(engine)) = (told, member.engine()) else {
            return false;
        };
        let by = r#""acknowledged_by":"standby""#;
        let holder = member.holder().map(|it| format!("{it:016x}"));
        let end = engine.source().end().next_sequence;
        let has = holder.map(|it| format!(r#"{{"member":"{it}","next_sequence":{end}}}"#));
        told.contains(by) && has.is_some_and(|has| told.contains(&has))
    }

    fn restart(&mut self, number: usize) -> Result<(), String> {
        let member = &mut self.members[number];
        member.process = None;
        member.disk.end_process(true);
        self.start(number)
    }

    /// Returns the primary with the highest epoch, or if there is none, the standby that has most.
    /// If answers wait, the holder counts as having most, and a primary of a lower epoch never
    /// continues.
    fn winner(&self) -> Option<usize> {
        let waits = self.waits();
        let known = |number: &usize| {
            let member = &self.members[*number];
            let engine = member.engine()?;
            let store = engine.source().store();
            let (epoch, newest) = (store.epoch(), engine.newest().sequence);
            let leads = !store.is_standby();
            let holds = waits && member.holder() == Some(store.member);
            Some(if waits {
                (epoch, u32::from(leads), holds, newest)
            } else {
                (u32::from(leads), epoch, holds, newest)
            })
        };
        let members = (0..self.members.len()).filter(|it| known(it).is_some());
        members.max_by_key(known)
    }

    fn calm(&mut self, winner: usize) -> Result<(), String> {
        for round in 0..ROUNDS {
            self.network.heal();
            if round % 50 == 20 && self.members[winner].leads() {
                // A member that began again has a known number by now.
                self.replace_lost_holder(winner);
            }
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
            if level && self.members[winner].leads() && self.has_its_holder(winner) {
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

    /// Brings a member to the winner's history. If it has nothing beyond that, it must follow,
    /// either unaided or once it is told whom to follow. Any other member is emptied.
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
        self.replace_lost_holder(winner);
        self.calm(winner)
    }

    /// Returns whether all of a member's entries, except seals at the end, are in the winner's
    /// history, and that goes back far enough.
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
        let source = one.source();
        let before = source.before_seals().ok().flatten();
        let end = before.unwrap_or_else(|| source.end()).next_sequence - 1;
        (end == 0 || has((source.store().epoch_of(end), end)))
            && one.source().store().identity == store.identity
            && one.source().store().epoch() <= store.epoch()
            && other.oldest().sequence <= end
            && one.oldest().sequence < end
    }

    /// Returns whether a primary was replaced by the winner, which notifies it.
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
