//! Scripted scenarios, which do not depend on the random choices of a seed.

use super::{
    around::address,
    client,
    member::{Engine, poll},
    world::World,
};
use crate::{
    Doing, MemberId, Roles, Taker, Unsendable,
    wire::{self, From},
};
use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
    task::Poll,
};
use tokio::sync::{
    mpsc::{self, error::TryRecvError},
    watch,
};
use widgets_engine::{FollowError, Role, simulation::Chance};
use widgets_registry::{
    Applied, Ask as _, Attempt, Command, Lookup, Name, Ports, Rejection, SerialNumber,
};

/// How many turns every member gets until nothing is left to do.
const TURNS: usize = 60;

impl World {
    /// Runs all members until nothing is left to do. No time passes.
    fn rest(&mut self) -> Result<(), String> {
        for _ in 0..TURNS {
            for number in 0..self.members.len() {
                self.turn(number)?;
                self.own(number)?;
                self.arrive()?;
                self.network.carry();
            }
            self.after()?;
        }
        Ok(())
    }

    /// Asks a member's roles something and returns the answer.
    fn told(
        &mut self,
        number: usize,
        ask: impl FnOnce(Roles) -> Doing<'static, Result<String, Unsendable>>,
    ) -> Result<Result<String, Unsendable>, String> {
        let process = self.members[number].process.as_mut();
        let process = process.ok_or("it runs")?;
        let roles = process.roles.clone().ok_or("it has a store")?;
        let answer = Arc::new(Mutex::new(None));
        let (heard, asking) = (answer.clone(), ask(roles));
        process.begin(Box::pin(async move {
            let told = asking.await;
            *heard.lock().unwrap_or_else(PoisonError::into_inner) = Some(told);
        }));
        self.rest()?;
        let told = answer.lock().unwrap_or_else(PoisonError::into_inner).take();
        told.ok_or_else(|| "it does not answer".into())
    }

    /// Polls an answer until it is there. Meanwhile all members run, and time passes.
    fn answer<T>(&mut self, answer: &mut Doing<'static, T>) -> Result<T, String> {
        for _ in 0..TURNS {
            if let Poll::Ready(answer) = poll(answer) {
                return Ok(answer);
            }
            self.rest()?;
            self.pass(100_000);
        }
        Err("it does not answer".into())
    }

    /// Asks a primary to hand over.
    fn hand_over(&self, number: usize, asker: &str) -> Doing<'static, Result<String, Unsendable>> {
        let roles = self.members[number].roles().expect("it has a store");
        let (roles, query) = (roles.clone(), format!("{asker}&within_ms=60000"));
        Box::pin(async move { roles.hand_over(&query).await })
    }

    /// Tells a primary that the asker has everything up to this end.
    fn handed_over(&mut self, number: usize, asker: &str, end: &str) -> Result<String, Unsendable> {
        let query = format!("{asker}&{end}");
        let ask = move |roles: Roles| -> Doing<'static, _> {
            Box::pin(async move { roles.handed_over(&query).await })
        };
        self.told(number, ask).expect("it goes on")
    }

    /// Returns how a member identifies itself in a hand-over, and its end.
    fn asker(&self, number: usize) -> Result<(String, String), String> {
        let source = self.members[number].engine().map(Engine::source);
        let source = source.ok_or("it has a store")?;
        let (store, end) = (source.store(), source.end());
        let asker = format!(
            "store={:016x}&epoch={:08x}&member={:016x}&address={}",
            store.identity,
            store.epoch(),
            store.member,
            address(number)
        );
        let end = format!(
            "next_sequence={}&chain={:016x}",
            end.next_sequence, end.chain
        );
        Ok((asker, end))
    }

    /// Starts the first member as the primary, and the second as its standby.
    fn begin_two(&mut self) -> Result<(), String> {
        self.is_calm = true;
        for number in 0..2 {
            self.members[number].follows = number.checked_sub(1);
            self.start(number)?;
            for _ in 0..20 {
                self.rest()?;
                self.pass(100_000);
            }
        }
        Ok(())
    }

    /// Starts the first member as the primary, and all others as its standbys.
    fn begin_around_one(&mut self) -> Result<(), String> {
        self.is_calm = true;
        for number in 0..self.members.len() {
            self.members[number].follows = (number > 0).then_some(0);
            self.start(number)?;
            for _ in 0..20 {
                self.rest()?;
                self.pass(100_000);
            }
        }
        Ok(())
    }

    /// Asks the first member for the addition of a widget.
    fn write(&self, number: usize) -> Doing<'static, Result<Applied, Rejection>> {
        let client = self.members[0].engine().expect("it runs").client();
        let serial_number = SerialNumber::new("widget_sn", format!("load{number}"));
        let command = Command::AddWidget {
            serial_number: serial_number.expect("within the limits"),
            name: Name::new("name", "n").expect("within the limits"),
            ports: Ports::NONE,
        };
        let mut asking: Doing<'static, _> =
            Box::pin(async move { client.ask(Attempt::from(command)).await });
        assert!(poll(&mut asking).is_pending());
        asking
    }

    /// Starts a chain of members, each a standby of the one before, and promotes the last two at
    /// the same point of the history, where each writes a seal at the same moment. Returns true if
    /// the last one has the higher epoch: then it notifies the one before it, which follows.
    fn same_seals(&mut self) -> Result<bool, String> {
        self.is_calm = true;
        for number in 0..self.members.len() {
            self.members[number].follows = number.checked_sub(1);
            self.start(number)?;
            for _ in 0..20 {
                self.rest()?;
                self.pass(100_000);
            }
        }
        let [.., one, other] = (0..self.members.len()).collect::<Vec<_>>()[..] else {
            return Err("there are two at least".into());
        };
        self.network.part(one, other);
        for number in [one, other] {
            self.promote(number);
            self.rest()?;
        }
        self.pass(2_000_000);
        self.rest()?;
        let ends = [one, other].map(|number| {
            let source = self.members[number].engine().map(Engine::source)?;
            Some((source.end().chain, source.store().epoch()))
        });
        let [Some((chain, epoch)), Some((other_chain, other_epoch))] = ends else {
            return Err("both have a store".into());
        };
        let is_promoted = |number: usize| {
            let engine = self.members[number].engine();
            engine.is_some_and(|it| matches!(it.source().store().role, Role::Promoted { .. }))
        };
        if chain != other_chain || epoch == other_epoch || !is_promoted(other) {
            return Err("they have not written the same in two epochs".into());
        }
        self.end()?;
        Ok(other_epoch > epoch)
    }
}

#[test]
fn a_replaced_primary_with_the_same_seal_follows_its_successor() {
    // In these worlds, any member may be promoted.
    let worlds = (0..24).step_by(2);
    let worlds = worlds.map(|seed| (seed, World::new(seed, false, false)));
    let worlds = worlds.filter(|(_, world)| world.members.len() == 3);
    let told = worlds.map(|(seed, mut world)| {
        // All calendars must be equal.
        for member in &mut world.members {
            member.set_on_time();
        }
        world
            .same_seals()
            .unwrap_or_else(|why| panic!("seed {seed}: {why}"))
    });
    let told = told.filter(|is_told| *is_told).count();
    assert!(told > 0, "no seed has the second epoch as the higher one");
}

/// A request may arrive just before a promotion, and its answer begin just after it. The reports on
/// that stream would count for the previous epoch, so the standby could be named the holder and
/// acknowledge nothing.
#[test]
fn a_request_from_before_a_promotion_is_not_answered_after_it() {
    let mut world = World::new(0, false, false);
    world.begin_two().expect("both run");
    let process = world.members[1].process.as_mut().expect("it runs");
    let roles = process.roles.clone().expect("it has a store");
    let source = world.members[1].engine().map(Engine::source);
    let (store, end) = source.map(|it| (it.store(), it.end())).expect("a store");
    let from = From {
        store: store.identity,
        epoch: store.epoch(),
        next_sequence: end.next_sequence,
        chain: end.chain,
    };
    let query = wire::query(Some(from), Some(MemberId(7)));
    let (_reporting, reports) = mpsc::channel(1);
    let (_stop, stopping) = watch::channel(false);
    let accepted = Arc::new(Mutex::new(None));
    let accepting = accepted.clone();
    let process = world.members[1].process.as_mut().expect("it runs");
    process.begin(Box::pin(async move {
        let sent = roles.standbys().send(query, reports, stopping).await;
        *accepting.lock().unwrap_or_else(PoisonError::into_inner) = Some(sent);
    }));
    world.rest().expect("it goes on");
    let sent = accepted
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .take();
    let (mut body, sending) = sent.expect("an answer").expect("it is accepted");

    world.promote(1);
    world.rest().expect("it goes on");
    let promoted = world.members[1].engine().map(Engine::source);
    let epoch = promoted.expect("a store").store().epoch();
    assert!(epoch > store.epoch(), "it was not promoted");
    let process = world.members[1].process.as_mut().expect("it runs");
    process.begin(sending);
    world.rest().expect("it goes on");
    let sent_bytes = body.try_recv().map(|piece| piece.len());
    assert_eq!(sent_bytes, Err(TryRecvError::Disconnected));
}

/// The answer to the last request of a switchover may get lost, and is then requested again.
#[test]
fn only_the_primary_that_handed_over_confirms_it() {
    let mut world = World::new(0, false, false);
    world.begin_two().expect("both run");
    let (asker, end) = world.asker(1).expect("it has a store");
    // The primary asks a standby that has everything but was never a primary, as if its disk had
    // been emptied meanwhile.
    let (primary, primary_end) = world.asker(0).expect("it has a store");
    assert_eq!(end, primary_end);
    let said = world.handed_over(1, &primary, &primary_end);
    assert!(matches!(said, Err(Unsendable::Unknown(_))), "{said:?}");

    let begun = world.answer(&mut world.hand_over(0, &asker));
    begun.expect("it answers").expect("it hands over");
    for _ in 0..2 {
        let said = world.handed_over(0, &asker, &end);
        let said = said.expect("it handed over");
        assert!(said.contains("true"), "{said}");
    }
    // A request from another member, or about another end of the history, is not confirmed.
    let (other, _) = world.asker(0).expect("it has a store");
    let other_end = "next_sequence=1&chain=0000000000000001";
    for (asker, end) in [(&other, end.as_str()), (&asker, other_end)] {
        let said = world.handed_over(0, asker, end);
        let is_no = matches!(said, Err(Unsendable::Elsewhere(_) | Unsendable::Unknown(_)));
        assert!(is_no, "{said:?}");
    }
}

/// A standby repeats its request to hand over, and the primary cannot stop taking operations again.
/// It then takes them, so a late message of the first request must not make it a standby.
#[test]
fn a_failed_request_to_hand_over_ends_the_hand_over_before_it() {
    let mut world = World::new(0, false, false);
    world.begin_two().expect("both run");
    let (asker, _) = world.asker(1).expect("it has a store");
    let mut asking = world.hand_over(0, &asker);
    let begun = world.answer(&mut asking).expect("it answers");
    begun.expect("it hands over");
    let client = world.members[0].engine().expect("it runs").client();
    let lookups = client::serial_numbers().into_iter().map(|wanted| {
        let client = client.clone();
        let mut lookup: Doing<'static, _> =
            Box::pin(async move { client.ask(Lookup(wanted)).await });
        let is_waiting = poll(&mut lookup).is_pending();
        is_waiting.then_some(lookup)
    });
    let waiting: Vec<_> = lookups.flatten().collect();
    assert_eq!(waiting.len(), world.settings.queue_operations_max);

    let mut asking = world.hand_over(0, &asker);
    let said = world.answer(&mut asking).expect("it answers");
    assert!(matches!(said, Err(Unsendable::NotChanged(_))), "{said:?}");
    let (asker, end) = world.asker(1).expect("it has a store");
    let said = world.handed_over(0, &asker, &end);
    assert!(matches!(said, Err(Unsendable::Elsewhere(_))), "{said:?}");
    assert!(world.members[0].leads(), "it takes operations");
}

/// A crash at this point would make the store the primary at its next start, so a failure there
/// must not leave the roles as they were.
#[test]
fn a_promotion_that_fails_after_it_is_durable_replaces_the_primary() {
    // In this world, answers wait for a standby, so a promotion writes a record.
    let mut world = World::new(1, false, false);
    world.begin_two().expect("both run");
    let roles = world.members[1].roles().expect("it has a store").clone();
    let (asked, query) = (roles.clone(), format!("address={}", address(1)));
    let mut promoting: Doing<'static, _> = Box::pin(async move { asked.promote(&query).await });
    for _ in 0..TURNS {
        if world.members[1].leads() {
            break;
        }
        assert!(poll(&mut promoting).is_pending(), "it was not promoted");
        world.own(1).expect("it goes on");
    }
    assert!(world.members[1].leads(), "it was not promoted");
    world.members[1].disk.arm(1024, None);

    let said = world.answer(&mut promoting).expect("it answers");
    assert!(matches!(said, Err(Unsendable::Unknown(_))), "{said:?}");
    assert_eq!(roles.taker(), Taker::This);
    for _ in 0..20 {
        world.rest().expect("it goes on");
        world.pass(100_000);
    }
    assert!(!world.members[0].leads(), "it was not told");
    // The promoted store goes on after a restart.
    world.end().expect("one history");
}

#[test]
fn the_writer_of_a_record_learns_that_its_fate_is_unknown() {
    let mut world = World::new(1, false, false);
    world.begin_two().expect("both run");
    let follower = world.members[0].engine().expect("it runs").follower();
    let mut recording: Doing<'static, _> = Box::pin(async move { follower.record(None).await });
    assert!(poll(&mut recording).is_pending());
    world.members[0].disk.arm(1024, None);
    world.own(0).expect("it goes on");
    let written = poll(&mut recording);
    assert!(
        matches!(written, Poll::Ready(Err(FollowError::FateUnknown(_)))),
        "{written:?}"
    );
}

/// As much is on its way to the holder as may be, and callers go on writing, while an operator
/// names another holder. No time passes, so everybody is answered without a timeout.
#[test]
fn an_operator_changes_the_holder_while_callers_write() {
    let mut worlds = (1..).step_by(2).map(|seed| World::new(seed, false, false));
    let mut world = worlds
        .find(|world| world.members.len() == 3)
        .expect("there is one");
    world.settings.standby_timeout_ms = Some(60_000);
    world.begin_around_one().expect("all run");
    let holder = world.members[0].holder().expect("there is one");
    let other = (1..3).find(|it| world.members[*it].id() != Some(holder));
    let other = other.expect("the holder is one of two");
    let wanted = world.members[other].id();

    let mut waiting = Vec::new();
    for number in 0..2 {
        waiting.push(world.write(number));
        world.own(0).expect("it goes on");
    }
    world.name_holder(0, other);
    for _ in 0..20 {
        world.turn(0).expect("it goes on");
    }
    let mut written = waiting.len();
    for round in 0..400 {
        waiting.retain_mut(|answer| match poll(answer) {
            Poll::Pending => true,
            Poll::Ready(answer) => {
                assert_eq!(answer, Ok(Applied::Now));
                false
            }
        });
        if round < 200 && waiting.len() < world.settings.queue_operations_max {
            waiting.push(world.write(written));
            written += 1;
        }
        for number in 0..3 {
            world.turn(number).expect("it goes on");
            world.own(number).expect("it goes on");
            world.arrive().expect("it goes on");
            world.network.carry();
        }
    }
    assert_eq!(world.members[0].holder(), wanted);
    assert!(waiting.is_empty(), "{} are not answered", waiting.len());
    assert!(written > 20, "only {written} were written");
}

#[test]
fn epoch_salts_are_unique_in_a_simulated_world() {
    let world = World::new(0, false, false);
    let mut chances = [Chance(1), Chance(2)];
    let salts: BTreeSet<_> = (0..4000)
        .map(|number| world.network.draw(&mut chances[number % 2]) % (1 << 16))
        .collect();
    assert_eq!(salts.len(), 4000);
}
