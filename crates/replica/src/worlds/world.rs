//! One world: members, clients, operators and a network, as a seed tells.

use super::{
    client::{self, Answer, Asked, Client},
    ledger::Ledger,
    member::{Ended, Engine, Member, poll},
    network::Network,
    tally::Tally,
};
use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::Poll,
};
use widgets_engine::{Settings, simulation::Chance};
use widgets_registry::{FeedError, Position, SerialNumber};

/// A broken promise.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) what: String,
    /// What happened before, if it was to be told.
    pub(super) story: Vec<String>,
}

/// Lives through a seed. `is_deaf` plants disks that do not hear a sync of the journal.
pub(super) fn simulate(seed: u64, is_told: bool, is_deaf: bool) -> Result<Tally, Failure> {
    let mut world = World::new(seed, is_told, is_deaf);
    let lived = catch_unwind(AssertUnwindSafe(|| world.live()));
    let what = match lived {
        Ok(Ok(())) => return Ok(world.tally()),
        Ok(Err(what)) => what,
        Err(cause) => {
            let text = cause.downcast_ref::<String>().cloned();
            let text = text.or_else(|| cause.downcast_ref::<&str>().map(|it| (*it).to_owned()));
            format!("a panic: {}", text.unwrap_or_default())
        }
    };
    Err(Failure {
        what,
        story: world.story.unwrap_or_default(),
    })
}

/// What happens how often: so many of all weights.
struct Profile {
    steps: usize,
    crashes: usize,
    promotions: usize,
    disk_failing: usize,
    network: usize,
    wipes: usize,
    repoints: usize,
}

pub(super) struct World {
    pub(super) chance: Chance,
    profile: Profile,
    settings: Settings,
    now: Arc<AtomicU64>,
    ticks: u64,
    pub(super) network: Network,
    pub(super) members: Vec<Member>,
    clients: Vec<Client>,
    pub(super) ledger: Ledger,
    serial_numbers: Vec<SerialNumber>,
    /// Operations that were accepted: their epochs and sequence numbers.
    accepted: Vec<(u32, u64)>,
    promoted: Arc<AtomicU64>,
    /// A bit for each member to which roles were switched just now.
    switched: Arc<AtomicU64>,
    /// Nothing fails any more.
    pub(super) is_calm: bool,
    tally: Tally,
    story: Option<Vec<String>>,
}

fn one_of<T: Copy>(chance: &mut Chance, choices: &[T]) -> T {
    choices[chance.below(choices.len())]
}

impl World {
    pub(super) fn new(seed: u64, is_told: bool, is_deaf: bool) -> Self {
        let mut chance = Chance(seed);
        let now: Arc<AtomicU64> = Arc::default();
        let count = one_of(&mut chance, &[2, 3, 3]);
        let members = (0..count).map(|number| {
            let behind = one_of(&mut chance, &[0, 0, 60]);
            Member::new(number, chance.number(), &now, is_deaf, behind)
        });
        let mut members: Vec<Member> = members.collect();
        for member in members.iter_mut().skip(1) {
            // A standby may feed others.
            member.follows = Some(chance.below(member.number));
        }
        // Every seed leaves something out.
        let profile = Profile {
            steps: 1500 + chance.below(2500),
            crashes: one_of(&mut chance, &[0, 2, 6]),
            promotions: one_of(&mut chance, &[0, 2, 2, 4]),
            disk_failing: one_of(&mut chance, &[0, 0, 2, 10]),
            network: one_of(&mut chance, &[0, 2, 6]),
            wipes: one_of(&mut chance, &[0, 0, 1]),
            repoints: one_of(&mut chance, &[0, 1, 6]),
        };
        let settings = Settings {
            queue_operations_max: 4,
            segment_bytes: 12 << 10,
            checkpoint_journal_bytes: one_of(&mut chance, &[5 << 10, 1 << 20]),
            changes_retention_bytes: one_of(&mut chance, &[0, 1 << 30, 1 << 30]),
            ..Settings::default()
        };
        Self {
            network: Network::new(chance.number()),
            chance,
            profile,
            settings,
            now,
            ticks: 0,
            members,
            clients: (0..3).map(|_| Client::default()).collect(),
            ledger: Ledger::default(),
            serial_numbers: client::serial_numbers(),
            accepted: Vec::new(),
            promoted: Arc::default(),
            switched: Arc::default(),
            is_calm: false,
            tally: Tally::default(),
            story: is_told.then(Vec::new),
        }
    }

    fn tally(&self) -> Tally {
        Tally {
            worlds: 1,
            steps: self.ticks,
            promotions: self.promoted.load(Ordering::Relaxed),
            network_faults: self.network.faults(),
            disk_faults: self.members.iter().map(|it| it.disk.failures()).sum(),
            changes: self.ledger.len() as u64,
            ..self.tally
        }
    }

    pub(super) fn note(&mut self, what: impl FnOnce() -> String) {
        if let Some(story) = &mut self.story {
            story.push(what());
        }
    }

    fn live(&mut self) -> Result<(), String> {
        for member in 0..self.members.len() {
            self.start(member)?;
        }
        for _ in 0..self.profile.steps {
            self.step()?;
        }
        self.end()
    }

    fn step(&mut self) -> Result<(), String> {
        let member = self.chance.below(self.members.len());
        let Profile {
            crashes,
            promotions,
            network,
            wipes,
            repoints,
            ..
        } = self.profile;
        let weights = [
            240, 300, 40, 20, 30, 90, 180, 160, 40, 80, 8, crashes, 40, network, network, network,
            promotions, 4, repoints, wipes,
        ];
        let mut chosen = self.chance.below(weights.iter().sum());
        let action = weights.iter().position(|&weight| {
            let here = chosen < weight;
            chosen = chosen.saturating_sub(weight);
            here
        });
        match action.unwrap_or_default() {
            0 => self.own(member)?,
            1 => self.turn(member)?,
            2 => self.do_step(member, |engine| engine.tell())?,
            3 => self.do_step(member, Engine::prepare)?,
            4 => self.do_step(member, Engine::write)?,
            5 => self.arrive()?,
            6 => self.network.carry(),
            7 => self.ask(member),
            8 => self.answers(None)?,
            9 => {
                let passed = self.chance.below(20_000);
                self.pass(1 + passed as u64);
            }
            10 => {
                let passed = self.chance.below(4_000_000);
                self.pass(100_000 + passed as u64);
            }
            11 => self.arm(member),
            12 => self.start(member)?,
            13 => {
                let other = self.chance.below(self.members.len());
                if other != member {
                    self.note(|| format!("{member} and {other} are parted, or joined"));
                    self.network.part(member, other);
                }
            }
            14 => self.network.cut(),
            15 => self.network.lose(),
            16 => {
                self.promote(member);
                if self.chance.below(4) == 0 {
                    let other = self.chance.below(self.members.len());
                    self.promote(other);
                }
            }
            17 => self.do_step(member, |engine| engine.want_checkpoint())?,
            18 => {
                let other = self.chance.below(self.members.len());
                self.repoint(member, other)?;
            }
            _ => {
                let other = self.chance.below(self.members.len());
                self.empty(member, other)?;
            }
        }
        self.after()
    }

    /// What is looked at after every step.
    pub(super) fn after(&mut self) -> Result<(), String> {
        self.ticks += 1;
        let switched = self.switched.swap(0, Ordering::Relaxed);
        for number in (0..self.members.len()).filter(|it| switched & 1 << it > 0) {
            self.check_switched(number)?;
        }
        for number in 0..self.members.len() {
            let member = &mut self.members[number];
            if let Some(epoch) = member.reign() {
                member.led = self.ticks;
                member.reigns.insert(epoch);
            }
            if member.has_copied() {
                self.tally.copies += 1;
                member.process = None;
                member.disk.end_process(true);
                self.note(|| format!("{number} has its copy"));
                self.start(number)?;
            }
        }
        Ok(())
    }

    /// Roles were switched to a member: it has everything that was accepted in the epoch before its own.
    fn check_switched(&mut self, number: usize) -> Result<(), String> {
        self.tally.switchovers += 1;
        let Some(engine) = self.members[number].engine() else {
            return Ok(());
        };
        let store = engine.source().store();
        let [.., before, own] = store.epochs.as_slice() else {
            return Ok(());
        };
        let is_lost = |it: &&(u32, u64)| it.0 == before.number && it.1 >= own.first_sequence;
        match self.accepted.iter().find(is_lost) {
            Some(lost) => Err(format!(
                "roles were switched to member {number}, and {lost:x?} was accepted and is lost"
            )),
            None => Ok(()),
        }
    }

    pub(super) fn pass(&self, microseconds: u64) {
        self.now.fetch_add(microseconds, Ordering::Relaxed);
    }

    /// From now on the disk of a member fails from time to time, and its process crashes at some step, or now.
    fn arm(&mut self, member: usize) {
        if self.members[member].process.is_none() {
            return;
        }
        let after = match self.chance.below(4) {
            0 => 0,
            _ => self.chance.below(60),
        };
        let failing = self.profile.disk_failing;
        self.members[member].disk.arm(failing, Some(after));
    }

    pub(super) fn start(&mut self, number: usize) -> Result<(), String> {
        if self.members[number].process.is_some() {
            return Ok(());
        }
        let seed = self.chance.number();
        // A start may crash as well.
        let crashes = self.profile.crashes > 0 && !self.is_calm && self.chance.below(6) == 0;
        let crash_after = crashes.then(|| self.chance.below(30));
        let member = &mut self.members[number];
        member.disk.arm(0, crash_after);
        self.tally.starts += 1;
        let started = member.start(&self.network, &self.settings, &self.ledger, seed);
        match started.map_err(|error| format!("member {number} does not start: {error}"))? {
            Ended::Well => {
                let follows = member.follows;
                let store = member.engine().map(|it| (it.source().store(), it.newest()));
                self.note(|| format!("{number} starts, to follow {follows:?}: {store:x?}"));
                self.audit(number)?;
                self.check_state(number)
            }
            Ended::Crashed => self.crash(number),
        }
    }

    /// The process of a member has crashed.
    fn crash(&mut self, number: usize) -> Result<(), String> {
        self.members[number].disk.arm(0, None);
        self.audit(number)?;
        // What was answered before is on its way.
        self.answers(Some(number))?;
        let has_power = self.chance.below(2) == 0;
        self.note(|| format!("{number} crashes, with power: {has_power}"));
        let member = &mut self.members[number];
        member.process = None;
        member.disk.end_process(has_power);
        self.network.crashed(number);
        if has_power {
            self.tally.kills += 1;
        } else {
            self.tally.power_cuts += 1;
        }
        self.answers(Some(number))
    }

    fn ended(&mut self, number: usize, ended: &Ended) -> Result<(), String> {
        match ended {
            Ended::Well => Ok(()),
            Ended::Crashed => self.crash(number),
        }
    }

    fn do_step(&mut self, number: usize, step: impl FnOnce(&mut Engine)) -> Result<(), String> {
        let ended = self.members[number].step(|process| {
            if let Some(engine) = &mut process.engine {
                step(engine);
            }
        });
        self.ended(number, &ended)
    }

    pub(super) fn own(&mut self, number: usize) -> Result<(), String> {
        self.do_step(number, |engine| {
            engine.own();
        })?;
        self.audit(number)?;
        // What was answered may be under way for long: it counts when it was sent.
        self.answers(Some(number))?;
        if self.chance.below(8) == 0 {
            self.check_state(number)?;
        }
        Ok(())
    }

    pub(super) fn turn(&mut self, number: usize) -> Result<(), String> {
        let mut chance = Chance(self.chance.number());
        let ended = self.members[number].step(|process| process.turn(&mut chance));
        self.ended(number, &ended)
    }

    pub(super) fn arrive(&mut self) -> Result<(), String> {
        let Some(calling) = self.network.arrives() else {
            return Ok(());
        };
        let to = calling.to;
        let Some(member) = self.members.get_mut(to) else {
            return Ok(());
        };
        let over = member.over.clone();
        let ended = member.step(|process| process.hear(calling, to, over));
        self.ended(to, &ended)
    }

    pub(super) fn promote(&mut self, number: usize) {
        let promoted = self.promoted.clone();
        let Some(process) = &mut self.members[number].process else {
            return;
        };
        let Some(roles) = process.roles.clone() else {
            return;
        };
        let mut query = format!("address={}", super::around::address(number));
        let is_switchover = !self.is_calm && self.chance.below(3) == 0;
        if is_switchover {
            query.push_str("&within_ms=2000");
        }
        let switched = self.switched.clone();
        process.begin(Box::pin(async move {
            let told = roles.promote(&query).await;
            if told.is_ok_and(|told| told.contains("\"promoted\":true")) {
                promoted.fetch_add(1, Ordering::Relaxed);
                if is_switchover {
                    switched.fetch_or(1 << number, Ordering::Relaxed);
                }
            }
        }));
        self.note(|| format!("{number} is to be promoted"));
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
        self.start(number)
    }

    /// Reads what is new in a member's history.
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
            let changes = match engine.changes(after, 64) {
                Ok(changes) => changes,
                Err(FeedError::Gone { oldest }) if oldest.sequence > process.read => {
                    process.read = oldest.sequence;
                    process.model = self.ledger.state(&store, oldest.sequence);
                    continue;
                }
                Err(FeedError::Gone { .. }) if engine.newest().sequence < process.read => {
                    // Seals were cut back: whether nothing else was is seen below.
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

    fn ask(&mut self, number: usize) {
        let chosen = self.chance.below(self.clients.len());
        // Most know who takes operations.
        let leading = (0..self.members.len()).find(|it| self.members[*it].leads());
        let number = leading
            .filter(|_| self.chance.below(2) == 0)
            .unwrap_or(number);
        let Some(engine) = self.members[number].engine() else {
            return;
        };
        let client = &mut self.clients[chosen];
        if client.pending.is_some() {
            // Some go without their answer.
            if self.chance.below(20) == 0 {
                client.pending = None;
                self.tally.unanswered += 1;
            }
            return;
        }
        client.ask(number, engine, self.ticks, &mut self.chance);
        if let Some(pending) = &mut client.pending {
            // It arrives. What is answered at once is kept for the next look.
            if let Poll::Ready(answer) = poll(&mut pending.answer) {
                pending.answer = Box::pin(std::future::ready(answer));
            }
        }
    }

    /// Takes answers, of all members or of one.
    fn answers(&mut self, of: Option<usize>) -> Result<(), String> {
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
        let (store, newest) = (engine.source().store(), engine.newest());
        let applied = client::check(pending, answer, &self.ledger, &store, newest.sequence)?;
        if let Some(sequence) = applied {
            let epoch = store.epoch_of(sequence);
            if member.led < pending.at {
                return Err("it follows, and accepts an operation".into());
            }
            let over = member.over.lock().expect("nobody panics with it");
            if over.contains(&epoch) {
                return Err(format!(
                    "it accepts an operation in epoch {epoch:x}, of which it knows that it has ended"
                ));
            }
            drop(over);
            self.accepted.push((epoch, sequence));
        }
        let told = match answer {
            Answer::Operation(Ok(_)) => {
                self.tally.accepted += 1;
                true
            }
            Answer::Operation(Err(widgets_registry::Rejection::Refused(_))) => {
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
            Answer::Operation(Err(_)) | Answer::Lookup(Err(_)) => {
                self.tally.unanswered += 1;
                return Ok(());
            }
        };
        let after = match pending.asked {
            Asked::Lookup(_, after) => after,
            Asked::Operation(_) => None,
        };
        let number = pending.member;
        let name = if told { "answers" } else { "does not have" };
        self.note(|| format!("{number} {name}, at {newest}, after {after:?}"));
        self.clients[chosen].seen = told.then_some(newest);
        Ok(())
    }

    /// That what was accepted and is lost is the end of its epoch, by this member's history.
    pub(super) fn check_lost(&self, number: usize) -> Result<(), String> {
        let Some(engine) = self.members[number].engine() else {
            return Ok(());
        };
        let (store, newest) = (engine.source().store(), engine.newest().sequence);
        let has =
            |(epoch, sequence): (u32, u64)| sequence <= newest && store.epoch_of(sequence) == epoch;
        for &lost in self.accepted.iter().filter(|it| !has(**it)) {
            let kept = |it: &&(u32, u64)| it.0 == lost.0 && it.1 > lost.1 && has(**it);
            if let Some(later) = self.accepted.iter().find(kept) {
                return Err(format!(
                    "{lost:x?} was accepted and is lost, {later:x?} is not"
                ));
            }
        }
        Ok(())
    }

    pub(super) fn count_follower(&mut self) {
        self.tally.followed_by_itself += 1;
    }

    /// Whether somebody was told that it was replaced is counted at the end.
    pub(super) fn count_replaced(&mut self) {
        for member in &self.members {
            let over = member.over.lock().expect("nobody panics with it");
            self.tally.replaced += over.len() as u64;
        }
    }

    pub(super) fn keeps_all(&self) -> bool {
        self.settings.changes_retention_bytes > 0
    }
}
