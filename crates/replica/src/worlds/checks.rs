//! The continuous checks: each member's history, its state, and every answer.

use super::{
    around::member_at,
    client::{self, Answer, Asked},
    ledger::Place,
    member::{Engine, Member, poll},
    world::World,
};
use std::task::Poll;
use widgets_engine::Role;
use widgets_registry::{Fault, FeedError, Position, Rejection};

impl World {
    /// Reads and checks what is new in a member's history.
    pub(super) fn audit(&mut self, number: usize) -> Result<(), String> {
        let member = &mut self.members[number];
        let Some(process) = &mut member.process else {
            return Ok(());
        };
        let Some(engine) = &process.engine else {
            return Ok(());
        };
        let store = engine.source().store();
        member
            .reigns
            .extend((!store.is_standby()).then(|| store.epoch()));
        loop {
            let after = Position {
                store: store.identity,
                epoch: store.epoch_of(process.read),
                sequence: process.read,
            };
            let changes = match engine.durable_changes(after, 64) {
                Ok(changes) => changes,
                Err(FeedError::Gone { oldest }) if oldest.sequence > process.read => {
                    process.read = oldest.sequence;
                    process.model = self.ledger.state(&store, oldest.sequence);
                    continue;
                }
                Err(FeedError::Gone { .. }) if engine.newest().sequence < process.read => {
                    // Seals were cut back. Whether anything else was is checked below.
                    process.read = engine.newest().sequence;
                    process.model = self.ledger.state(&store, process.read);
                    break;
                }
                Err(error) => return Err(format!("member {number} after {after}: {error}")),
            };
            for event in &changes.events {
                let may_write = member.reigns.contains(&event.position.epoch);
                let model = self.ledger.note(number, event, &process.model, may_write)?;
                process.model = model;
                member.durable = Some((event.position.epoch, event.position.sequence));
            }
            process.read = changes.next.sequence;
            if changes.is_end {
                break;
            }
        }
        if self.settings.standby_timeout_ms.is_some()
            && let Some(position) = engine.newest_shown()
        {
            let shown = self.shown.entry(position.epoch).or_default();
            *shown = (*shown).max((position.sequence, number));
        }
        let newest = engine.newest().sequence;
        if let Some((epoch, sequence)) = member.durable
            && (newest < sequence || store.epoch_of(sequence) != epoch)
        {
            return Err(format!(
                "member {number} had entry {sequence} of epoch {epoch:x} durably, and now has up to {newest}, where that is of epoch {:x}",
                store.epoch_of(sequence)
            ));
        }
        Ok(())
    }

    pub(super) fn check_state(&self, number: usize) -> Result<(), String> {
        let Some(process) = &self.members[number].process else {
            return Ok(());
        };
        let checked = process.check_state(&self.serial_numbers);
        checked.map_err(|error| format!("member {number}: {error}"))
    }

    /// Checks a switchover to a member that was asked for at `asked`: the member has everything
    /// that was accepted in the epoch before its own, and the previous primary has nothing beyond
    /// that.
    pub(super) fn check_switched(&self, number: usize, asked: u64) -> Result<(), String> {
        let Some(engine) = self.members[number].engine() else {
            return Ok(());
        };
        let store = engine.source().store();
        let [.., before, own] = store.epochs.as_slice() else {
            return Ok(());
        };
        let is_lost = |it: &&Place| it.0 == before.number && it.1 >= own.first_sequence;
        if let Some(lost) = self.accepted.iter().find(is_lost) {
            return Err(format!(
                "roles were switched to member {number}, and {lost:x?} was accepted and is lost"
            ));
        }
        let Role::Promoted { from, .. } = &store.role else {
            return Ok(());
        };
        // A later start may find a group whose sync had failed, and writes a seal.
        let old = member_at(from).map(|it| &self.members[it]);
        let old = old.filter(|it| it.started < asked);
        let Some(source) = old.and_then(Member::engine).map(Engine::source) else {
            return Ok(());
        };
        let (theirs, end) = (source.store(), source.end().next_sequence);
        if theirs.is_standby() && theirs.epoch() == before.number && end > own.first_sequence {
            return Err(format!(
                "who handed over to member {number} has entries up to {}, which has them before {} alone",
                end - 1,
                own.first_sequence
            ));
        }
        Ok(())
    }

    /// Takes and checks the answers of all members, or of one.
    pub(super) fn answers(&mut self, of: Option<usize>) -> Result<(), String> {
        for chosen in 0..self.clients.len() {
            let Some(pending) = &mut self.clients[chosen].pending else {
                continue;
            };
            if of.is_some_and(|of| pending.member != of) {
                continue;
            }
            let Poll::Ready(answer) = poll(&mut pending.answer) else {
                continue;
            };
            let Some(pending) = self.clients[chosen].pending.take() else {
                continue;
            };
            self.check(chosen, &pending, &answer)
                .map_err(|error| format!("member {}: {error}", pending.member))?;
        }
        Ok(())
    }

    fn check(
        &mut self,
        chosen: usize,
        pending: &client::Pending,
        answer: &Answer,
    ) -> Result<(), String> {
        self.audit(pending.member)?;
        let member = &self.members[pending.member];
        let Some(engine) = member.engine() else {
            self.tally.unanswered += 1;
            return Ok(());
        };
        let (store, newest, shown) = (
            engine.source().store(),
            engine.newest(),
            engine.newest_shown(),
        );
        let told_up_to = shown.map_or(0, |shown| shown.sequence);
        let applied = client::check(
            pending,
            answer,
            &self.ledger,
            &store,
            newest.sequence,
            told_up_to,
        )?;
        if let Some(sequence) = applied {
            let epoch = store.epoch_of(sequence);
            if member.led < pending.at {
                return Err("it follows, and accepts an operation".into());
            }
            // An answer that waited may be given by then, if the surviving history contains it.
            let over = member.over.lock().expect("nobody panics with it");
            if over.contains(&epoch) && !self.waits() {
                return Err(format!(
                    "it accepts an operation in epoch {epoch:x}, of which it knows that it has ended"
                ));
            }
            drop(over);
            let own = member.id();
            self.tally.acknowledged +=
                u64::from(self.waits() && member.holder().is_some_and(|it| Some(it) != own));
            self.accepted.push((epoch, sequence));
        }
        let told = match answer {
            Answer::Operation(Ok(_)) => {
                self.tally.accepted += 1;
                true
            }
            Answer::Operation(Err(Rejection::Refused(_))) => {
                self.tally.refused += 1;
                true
            }
            Answer::Lookup(Ok(_)) => {
                self.tally.lookups += 1;
                true
            }
            Answer::Gone => {
                self.tally.gone += 1;
                false
            }
            Answer::Operation(Err(Rejection::Fault(Fault::FateUnknown { .. }))) => {
                self.tally.unknown += 1;
                return Ok(());
            }
            Answer::Operation(Err(_)) | Answer::Lookup(Err(_)) => {
                self.tally.unanswered += 1;
                return Ok(());
            }
        };
        let after = match pending.asked {
            Asked::Lookup(_, after) => after,
            Asked::Operation(_) => None,
        };
        if told && shown.is_none() {
            return Err("it tells of what it does not know to be acknowledged".into());
        }
        let number = pending.member;
        let name = if told { "answers" } else { "does not have" };
        self.note(|| format!("{number} {name}, at {newest}, shown {shown:?}, after {after:?}"));
        self.clients[chosen].seen = shown.filter(|_| told);
        Ok(())
    }

    /// Checks that every accepted operation that this member's history lacks was at the end of its
    /// epoch. If answers wait, nothing may be lacking.
    pub(super) fn check_lost(&self, number: usize) -> Result<(), String> {
        if self.waits() {
            return self.check_whole(number);
        }
        let Some(has) = self.has(number) else {
            return Ok(());
        };
        for &lost in self.accepted.iter().filter(|it| !has(**it)) {
            let kept = |it: &&Place| it.0 == lost.0 && it.1 > lost.1 && has(**it);
            if let Some(later) = self.accepted.iter().find(kept) {
                return Err(format!(
                    "{lost:x?} was accepted and is lost, {later:x?} is not"
                ));
            }
        }
        Ok(())
    }

    /// Checks that a member has everything that any member accepted or showed.
    pub(super) fn check_whole(&self, number: usize) -> Result<(), String> {
        let Some(has) = self.has(number) else {
            return Ok(());
        };
        if let Some(lost) = self.accepted.iter().find(|it| !has(**it)) {
            return Err(format!(
                "{lost:x?} was acknowledged, and is not in the history of member {number}, which goes on"
            ));
        }
        for (&epoch, &(sequence, by)) in &self.shown {
            if sequence > 0 && !has((epoch, sequence)) {
                return Err(format!(
                    "entry {sequence} of epoch {epoch:x} was shown by member {by}, and is not in the history of member {number}, which goes on"
                ));
            }
        }
        Ok(())
    }

    /// Returns a function that says whether a member's history contains a place, if the member has
    /// a store.
    fn has(&self, number: usize) -> Option<impl Fn(Place) -> bool> {
        let engine = self.members[number].engine()?;
        let (store, newest) = (engine.source().store(), engine.newest().sequence);
        Some(move |(epoch, sequence): Place| {
            sequence <= newest && store.epoch_of(sequence) == epoch
        })
    }
}
