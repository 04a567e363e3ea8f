//! One world: members, clients, operators and a network, driven by a seed.

use super::{
    archive::Archive,
    client::{self, Client},
    ledger::{Ledger, Place},
    member::{Ended, Engine, Member, poll},
    network::Network,
    operators::Attempts,
    tally::Tally,
};
use std::{
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::Poll,
};
use widgets_engine::{Settings, simulation::Chance};
use widgets_registry::SerialNumber;

/// A broken promise.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) what: String,
    /// What happened before, if it was recorded.
    pub(super) story: Vec<String>,
}

/// Runs a seed. `is_deaf` plants disks whose syncs of the journal have no effect.
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

/// How often each event happens, as weights.
struct Profile {
    steps: usize,
    crashes: usize,
    promotions: usize,
    disk_failing: usize,
    network: usize,
    wipes: usize,
    repoints: usize,
    /// An operator names the holder.
    namings: usize,
    archiving: usize,
}

pub(super) struct World {
    pub(super) chance: Chance,
    profile: Profile,
    pub(super) settings: Settings,
    now: Arc<AtomicU64>,
    pub(super) ticks: u64,
    pub(super) network: Network,
    pub(super) members: Vec<Member>,
    pub(super) clients: Vec<Client>,
    pub(super) ledger: Ledger,
    pub(super) archive: Archive,
    pub(super) serial_numbers: Vec<SerialNumber>,
    /// The accepted operations.
    pub(super) accepted: Vec<Place>,
    /// How far each epoch was shown, and by which member, if answers wait for a standby.
    pub(super) shown: BTreeMap<u32, (u64, usize)>,
    /// Promotions that have ended and were not checked yet.
    pub(super) attempts: Attempts,
    /// The tick until which time passes in small steps, because a switchover is in progress.
    pub(super) hurries_until: u64,
    /// Whether failures have ended.
    pub(super) is_calm: bool,
    pub(super) tally: Tally,
    story: Option<Vec<String>>,
}

fn one_of<T: Copy>(chance: &mut Chance, choices: &[T]) -> T {
    choices[chance.below(choices.len())]
}

impl World {
    /// Creates a world. In every second one, answers wait for a standby.
    pub(super) fn new(seed: u64, is_told: bool, is_deaf: bool) -> Self {
        let waits = seed % 2 == 1;
        let mut chance = Chance(seed);
        let now: Arc<AtomicU64> = Arc::default();
        let count = one_of(&mut chance, &[2, 3, 3]);
        let members = (0..count).map(|number| {
            let behind = one_of(&mut chance, &[0, 0, 60]);
            Member::new(number, chance.number(), &now, is_deaf, behind)
        });
        let mut members: Vec<Member> = members.collect();
        for member in members.iter_mut().skip(1) {
            // A standby may have standbys itself.
            member.follows = Some(chance.below(member.number));
        }
        // Every seed leaves something out.
        let profile = Profile {
            steps: 2000 + chance.below(4000),
            crashes: one_of(&mut chance, &[0, 2, 6]),
            promotions: one_of(&mut chance, &[0, 2, 2, 4]),
            disk_failing: one_of(&mut chance, &[0, 0, 20, 100]),
            network: one_of(&mut chance, &[0, 2, 6]),
            wipes: one_of(&mut chance, &[0, 0, 1]),
            repoints: one_of(&mut chance, &[0, 1, 6]),
            namings: if waits {
                one_of(&mut chance, &[2, 6, 20])
            } else {
                0
            },
            archiving: one_of(&mut chance, &[0, 4, 20]),
        };
        let settings = Settings {
            queue_operations_max: 4,
            segment_bytes: 12 << 10,
            checkpoint_journal_bytes: one_of(&mut chance, &[5 << 10, 1 << 20]),
            changes_retention_bytes: one_of(&mut chance, &[0, 1 << 30, 1 << 30]),
            standby_timeout_ms: waits.then(|| one_of(&mut chance, &[300, 5000, 60_000])),
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
            archive: Archive::default(),
            serial_numbers: client::serial_numbers(),
            accepted: Vec::new(),
            shown: BTreeMap::new(),
            attempts: Attempts::default(),
            hurries_until: 0,
            is_calm: false,
            tally: Tally::default(),
            story: is_told.then(Vec::new),
        }
    }

    fn tally(&self) -> Tally {
        Tally {
            worlds: 1,
            waiting_worlds: u64::from(self.waits()),
            steps: self.ticks,
            network_faults: self.network.faults(),
            disk_faults: self.members.iter().map(|it| it.disk.failures()).sum(),
            changes: self.ledger.len() as u64,
            ..self.tally
        }
    }

    /// Returns whether answers wait for a standby.
    pub(super) fn waits(&self) -> bool {
        self.settings.standby_timeout_ms.is_some()
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
            namings,
            archiving,
            ..
        } = self.profile;
        let weights = [
            240, 300, 40, 20, 30, 90, 180, 160, 40, 80, 4, crashes, 40, network, network, network,
            promotions, 4, repoints, wipes, namings, archiving, 6, 60,
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
            6 => {
                for _ in 0..=self.chance.below(3) {
                    self.network.carry();
                }
            }
            7 => self.ask(member),
            8 => self.answers(None)?,
            9 => {
                let passed = self.chance.below(40_000);
                self.pass(1 + passed as u64);
            }
            10 if self.ticks >= self.hurries_until => {
                let passed = self.chance.below(4_000_000);
                self.pass(100_000 + passed as u64);
            }
            10 => {}
            11 => self.arm(member),
            12 => self.start(member)?,
            13 => {
                let other = self.chance.below(self.members.len());
                if other != member {
                    self.note(|| format!("{member} and {other} are parted, or joined"));
                    self.network.join_or_part(member, other);
                }
            }
            14 => self.network.cut(),
            15 => self.network.lose(),
            16 => self.change_roles(member),
            17 => self.do_step(member, |engine| engine.want_checkpoint())?,
            18 => {
                let other = self.chance.below(self.members.len());
                self.repoint(member, other)?;
            }
            19 => {
                let other = self.chance.below(self.members.len());
                let holder = self.successor().filter(|_| self.waits());
                let lost = holder.unwrap_or(member);
                if self.may_lose(lost) {
                    self.empty(lost, other)?;
                }
            }
            20 => {
                let other = self.chance.below(self.members.len());
                self.name_holder(member, other);
            }
            21 => self.archive(member)?,
            22 => self.tend(member)?,
            _ => self.go_on()?,
        }
        self.after()
    }

    /// Runs all members for a moment, the most frequent event.
    fn go_on(&mut self) -> Result<(), String> {
        for member in 0..self.members.len() {
            self.turn(member)?;
            self.own(member)?;
            self.arrive()?;
            self.network.carry();
        }
        Ok(())
    }

    /// Runs the checks that follow every step.
    pub(super) fn after(&mut self) -> Result<(), String> {
        self.ticks += 1;
        self.look_at_attempts()?;
        for number in 0..self.members.len() {
            let member = &mut self.members[number];
            if let Some(epoch) = member.reign() {
                member.led = self.ticks;
                member.reigns.insert(epoch);
                self.tally.holders += u64::from(member.holder_is_new());
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

    pub(super) fn pass(&self, microseconds: u64) {
        self.now.fetch_add(microseconds, Ordering::Relaxed);
    }

    /// Makes a member's disk fail from time to time, and its process crash at some step, or now.
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
        member.started = self.ticks;
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

    /// Ends a member's process as a crash does.
    pub(super) fn crash(&mut self, number: usize) -> Result<(), String> {
        self.members[number].disk.arm(0, None);
        self.audit(number)?;
        // What was answered before the crash is in flight.
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

    pub(super) fn do_step(
        &mut self,
        number: usize,
        step: impl FnOnce(&mut Engine),
    ) -> Result<(), String> {
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
        // An answer may be in flight for long, so it counts from when it was sent.
        self.answers(Some(number))?;
        if self.chance.below(8) == 0 {
            self.check_state(number)?;
        }
        Ok(())
    }

    pub(super) fn turn(&mut self, number: usize) -> Result<(), String> {
        let mut chance = Chance(self.chance.number());
        let ended = self.members[number].step(|process| process.turn(&mut chance));
        self.ended(number, &ended)?;
        if self.waits() {
            // A report from the standby may have released answers.
            self.answers(Some(number))?;
        }
        Ok(())
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

    fn ask(&mut self, number: usize) {
        let chosen = self.chance.below(self.clients.len());
        // Half of the requests go to a member that takes operations.
        let leading = (0..self.members.len()).find(|it| self.members[*it].leads());
        let number = leading
            .filter(|_| self.chance.below(2) == 0)
            .unwrap_or(number);
        let Some(engine) = self.members[number].engine() else {
            return;
        };
        let client = &mut self.clients[chosen];
        if client.pending.is_some() {
            // Some clients give up waiting.
            if self.chance.below(20) == 0 {
                client.pending = None;
                self.tally.unanswered += 1;
            }
            return;
        }
        client.ask(number, engine, self.ticks, &mut self.chance);
        if let Some(pending) = &mut client.pending {
            // Let the request arrive. An immediate answer is kept until the next check.
            if let Poll::Ready(answer) = poll(&mut pending.answer) {
                pending.answer = Box::pin(std::future::ready(answer));
            }
        }
    }

    pub(super) fn count_follower(&mut self) {
        self.tally.followed_by_itself += 1;
    }

    /// Counts at the end how many members know that they were replaced.
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
