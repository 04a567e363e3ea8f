//! One world: clients, the service, its disk and its clock, in one thread, as a seed tells.
//!
//! Everything between a client's request and the disk is the service's own: the router, the queue, the
//! owner of the state, the journal, the preparer of segments, the writer of checkpoints, recovery. The
//! world decides whose turn it is, what fails and when the process crashes.
//!
//! Nothing here knows how the engine keeps anything. What clients saw, and what they read after the
//! next start, must be explained by the model of `widgets-conformance`; see [`World::read_back`].

use super::{
    client::{self, OF_MANY, Responding, Said},
    damage::Damage,
    disk::{Crash, Plan, Rates, SimulatedDisk},
    lists::Readers,
    process::{Nobody, Process, SimulatedClock},
    profile::{Action, Profile},
    tally::Tally,
    trace::{Event, Trace},
};
use crate::{OpenError, tests::disk::Chance};
use prometheus::Registry;
use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, mpsc},
    task::{Context, Poll, Waker},
    time::Duration,
};
use widgets_conformance::{
    Model,
    linearizability::{Answer, Call, Request, check_until},
};
use widgets_queue::Queue as _;
use widgets_registry::{
    ChangeFilter, Command, Event as Told, FeedError, Happened, Moment, Pair, Place, Port, Position,
    SerialNumber, Widget,
};
use widgets_server::Api;

/// What a seed led to.
pub(super) struct Outcome {
    pub(super) trace: u64,
    pub(super) tally: Tally,
}

/// A broken promise.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) what: String,
    /// What happened before, if it was to be told.
    pub(super) story: Vec<String>,
}

/// So many starts in a row may fail because of a fault.
const STARTS_FAILED_MAX: usize = 4;

/// Lives through a seed. Everything that happens is in the story where `is_told`.
pub(super) fn simulate(seed: u64, is_told: bool) -> Result<Outcome, Failure> {
    let mut world = World::new(seed, is_told);
    let lived = world.live();
    let plan = &mut *world.disk.plan();
    plan.tally.seeds = 1;
    match lived {
        Ok(()) => Ok(Outcome {
            trace: plan.trace.hash(),
            tally: plan.tally,
        }),
        Err(what) => Err(Failure {
            what,
            story: plan.trace.take_story(),
        }),
    }
}

struct World {
    chance: Chance,
    profile: Profile,
    clock: Arc<SimulatedClock>,
    api: Api<Nobody>,
    disk: SimulatedDisk,
    clients: Vec<Client>,
    readers: Readers,
    known: Vec<Known>,
    /// What the changes that were told led to, and the last of them; `None` where they must be followed
    /// anew.
    followed: Option<Followed>,
    /// Keys that were given.
    keys: u64,
    /// One caller uses many keys, and few are kept.
    is_crowded: bool,
    /// So many callers have keys, as the engine tells them apart: two that meet in one number have one share.
    callers: usize,
    /// What was there when the calls of the history began.
    model: Model,
    /// Calls since then, but those that were told that nothing was applied.
    history: Vec<Option<Call>>,
    ticks: u64,
    /// The sequence number after the last change that was answered.
    next_sequence: u64,
    /// When the last change was committed.
    at: u64,
    damage: Damage,
    is_starting: bool,
}

#[derive(Default)]
struct Client {
    pending: Option<Pending>,
    /// What it will ask for again.
    again: Option<Again>,
}

/// What is asked again.
#[derive(Clone)]
struct Again {
    request: Request,
    key: Option<String>,
    /// The first attempt's place in the history, if it is of this process.
    call: Option<usize>,
    /// Another attempt was made before this process began: it may be what a replayed answer tells of.
    is_older: bool,
}

struct Pending {
    responding: Responding,
    /// Its place in the history.
    call: usize,
    key: Option<String>,
    /// The place of an earlier attempt with this key, which may have been applied.
    first: Option<usize>,
    /// Another attempt was made before this process began.
    is_older: bool,
    /// What was answered when the key came first.
    known: Option<Answer>,
}

/// A request with a key, and how it was answered.
struct Known {
    request: Request,
    key: String,
    answer: Answer,
}

/// Somebody who follows the changes.
#[derive(Default)]
struct Followed {
    model: Model,
    /// `None` at the very beginning.
    after: Option<Position>,
    at: Moment,
}

impl Followed {
    /// One more change happened.
    fn apply(&mut self, event: &Told) -> Result<(), String> {
        if self.after >= Some(event.position) || event.at < self.at {
            return Err(format!("{event:?} is told after {:?}", self.after));
        }
        (self.after, self.at) = (Some(event.position), event.at);
        let command = match &event.happened {
            Happened::AddWidget {
                serial_number,
                name,
                ports,
            } => Command::AddWidget {
                serial_number: serial_number.clone(),
                name: name.clone(),
                ports: *ports,
            },
            Happened::RemoveWidget {
                serial_number,
                freed,
            } => {
                self.check_freed(serial_number, freed)?;
                Command::RemoveWidget {
                    serial_number: serial_number.clone(),
                }
            }
            Happened::AssociateWidgets(one, other, port) => {
                Command::AssociateWidgets(pair(one, other, *port)?)
            }
            Happened::RemoveAssociation(one, other, port) => {
                Command::RemoveAssociation(pair(one, other, *port)?)
            }
        };
        let applied = self.model.apply(&command);
        applied.map_err(|refusal| format!("{event:?} cannot have happened: {refusal}"))?;
        if let Happened::AssociateWidgets(one, other, _) = &event.happened {
            for (place, peer) in [(one, other), (other, one)] {
                if self.peer(place) != Some(peer.serial_number.clone()) {
                    return Err(format!("{event:?} names another slot"));
                }
            }
        }
        Ok(())
    }

    fn peer(&self, place: &Place) -> Option<SerialNumber> {
        let widget = self.model.lookup(&place.serial_number)?;
        widget.slots.get(place.ordinal.index())?.peer.clone()
    }

    fn check_freed(&self, removed: &SerialNumber, freed: &[Place]) -> Result<(), String> {
        let widget = self.model.lookup(removed);
        let peers = widget.iter().flat_map(|widget| &widget.slots);
        let peers = peers.filter(|slot| slot.peer.is_some()).count();
        let were_peers = freed
            .iter()
            .all(|place| self.peer(place).as_ref() == Some(removed));
        if peers == freed.len() && were_peers {
            return Ok(());
        }
        Err(format!("the removal of {removed} frees {freed:?}"))
    }
}

fn pair(one: &Place, other: &Place, port: Port) -> Result<Pair, String> {
    let pair = Pair::new(one.serial_number.clone(), other.serial_number.clone(), port);
    pair.map_err(|refusal| refusal.to_string())
}

/// So many answers are remembered, to be asked for again.
const KNOWN_MAX: usize = 32;

/// In a crowded world one caller uses many more keys than are kept, which are so many.
const CROWDED_KEYS_MAX: u64 = 24;

/// Another one has used so few there since a key of its own that it knows it still: with what its clients have under way
/// it is less than its even share.
const CROWDED_KEYS_KNOWN: u64 = 4;

/// How a process ends that does not crash at a step of the disk.
enum End {
    Crash,
    Shutdown,
}

impl World {
    fn new(seed: u64, is_told: bool) -> Self {
        thread_local! {
            /// Making an API takes longer than simulating a crash, and it keeps nothing but metrics.
            static SERVICE: (Api<Nobody>, Arc<SimulatedClock>) = {
                let clock = Arc::<SimulatedClock>::default();
                let api = Api::new(
                    Nobody,
                    widgets_server::Settings::default(),
                    Registry::new(),
                    clock.clone(),
                );
                let proxy = "127.0.0.1/32".parse().expect("a network");
                let api = api.expect("an empty registry");
                (api.with_trusted_proxies(vec![proxy]), clock)
            };
        }
        let (api, clock) = SERVICE.with(Clone::clone);
        clock.restart();
        let mut chance = Chance(seed);
        let mut profile = Profile::new(&mut chance);
        let is_crowded = seed % 3 == 1;
        if is_crowded {
            profile.settings.idempotency_keys_max = CROWDED_KEYS_MAX;
        }
        let plan = Plan {
            chance: Chance(chance.number()),
            rates: Rates::default(),
            crash_after: None,
            is_full: false,
            failures: 0,
            trace: Trace::new(is_told),
            tally: Tally::default(),
        };
        Self {
            clients: (0..profile.clients).map(|_| Client::default()).collect(),
            readers: Readers::new(seed),
            chance,
            profile,
            clock,
            api,
            disk: SimulatedDisk::new(plan),
            known: Vec::new(),
            followed: Some(Followed::default()),
            keys: 0,
            is_crowded,
            callers: 0,
            model: Model::default(),
            history: Vec::new(),
            ticks: 0,
            next_sequence: 1,
            at: 0,
            damage: Damage::default(),
            is_starting: true,
        }
    }

    fn live(&mut self) -> Result<(), String> {
        for _ in 0..self.profile.lives {
            self.live_once(Self::serve)?;
        }
        // Now everything works, and the service must.
        self.calm();
        self.profile.rates = Rates::default();
        self.profile.is_damaged = false;
        self.profile.crash_within = usize::MAX;
        self.live_once(Self::work_well)?;
        self.live_once(|_, _| Ok(End::Shutdown))
    }

    /// One process, from its start to its end, and what its end does to the disk.
    fn live_once(
        &mut self,
        serve: impl FnOnce(&mut Self, &mut Process) -> Result<End, String>,
    ) -> Result<(), String> {
        let disk = self.disk.clone();
        let mut process = None;
        self.is_starting = true;
        let ended = catch_unwind(AssertUnwindSafe(|| {
            let started = self.start(&disk)?;
            let process = process.insert(started);
            self.read_back(process)?;
            self.is_starting = false;
            self.readers.moment(process, self.profile.serial_numbers());
            self.arm();
            serve(self, process)
        }));
        self.disk.plan().crash_after = None;
        let end = match ended {
            Ok(end) => end?,
            Err(cause) if cause.is::<Crash>() => End::Crash,
            Err(cause) => return Err(format!("a panic: {}", panic_text(&*cause))),
        };
        if let Some(process) = &mut process {
            // What was answered before the crash was sent.
            process.deliver();
            self.take_answers()?;
            self.take_lists()?;
        }
        drop(process);
        self.readers.begin(&mut self.disk.plan().tally);
        for client in &mut self.clients {
            if let Some(pending) = client.pending.take() {
                self.disk.plan().tally.fate_unknown += 1;
                let call = self.history[pending.call].as_ref();
                if let Some(call) =
                    call.filter(|_| pending.key.is_some() && pending.known.is_none())
                {
                    client.again = Some(Again {
                        request: call.request.clone(),
                        key: pending.key,
                        call: None,
                        is_older: true,
                    });
                }
            }
            // The history begins anew with the next process.
            if let Some(again) = &mut client.again {
                again.call = None;
                again.is_older = true;
            }
        }
        self.end(&end);
        Ok(())
    }

    fn end(&mut self, end: &End) {
        let has_power = self.chance.below(3) == 0;
        self.disk = match end {
            End::Crash if !has_power => self.disk.after_power_cut(),
            _ => self.disk.after_kill(),
        };
        let mut plan = self.disk.plan();
        let what = match end {
            End::Shutdown => {
                plan.tally.shutdowns += 1;
                "shutdown"
            }
            End::Crash if has_power => {
                plan.tally.kills += 1;
                "kill"
            }
            End::Crash => {
                plan.tally.power_cuts += 1;
                "power cut"
            }
        };
        if matches!(end, End::Crash) && self.is_starting {
            plan.tally.crashes_during_start += 1;
        }
        plan.trace.note(&Event::World(what));
        drop(plan);
        if what == "power cut" && self.profile.is_damaged && self.chance.below(2) == 0 {
            let done = self.damage.inflict(self.disk.inside(), &mut self.chance);
            let mut plan = self.disk.plan();
            for each in done {
                plan.tally.damage += 1;
                plan.trace.note(&Event::World(&each));
            }
        }
    }

    /// Nothing fails.
    fn calm(&self) {
        let mut plan = self.disk.plan();
        plan.rates = Rates::default();
        plan.crash_after = None;
        plan.is_full = false;
        plan.failures = 0;
    }

    /// From now on things may fail.
    fn arm(&mut self) {
        let crashes = self.profile.crash_within < usize::MAX && self.chance.below(4) > 0;
        let crash_after = crashes.then(|| self.chance.below(self.profile.crash_within));
        let mut plan = self.disk.plan();
        plan.rates = self.profile.rates;
        plan.crash_after = crash_after;
    }

    /// Starts a process, again and again where that fails for a reason.
    fn start(&mut self, disk: &SimulatedDisk) -> Result<Process, String> {
        let mut failed = 0;
        loop {
            self.calm();
            if failed < STARTS_FAILED_MAX && self.chance.below(2) == 0 {
                self.arm();
            }
            let salts = Chance(self.chance.number());
            let started = Process::start(
                disk,
                &self.clock,
                &self.api,
                &self.profile.settings,
                salts,
                self.profile.has_mailbox,
            );
            match started {
                Ok(process) => {
                    self.disk.plan().tally.starts += 1;
                    // What nobody needed may be as it is.
                    self.damage.forget();
                    return Ok(process);
                }
                Err(error) => self.judge(&error)?,
            }
            failed += 1;
        }
    }

    /// Whether a start may fail like this.
    fn judge(&mut self, error: &OpenError) -> Result<(), String> {
        let mut plan = self.disk.plan();
        plan.trace.note(&Event::World(&error.to_string()));
        let is_right = match error {
            OpenError::Io { .. } => plan.failures > 0,
            OpenError::Damaged { file, .. }
            | OpenError::Missing { file }
            | OpenError::NoBeginning { file } => self.damage.explains(file),
            OpenError::Version { .. }
            | OpenError::UnknownKind { .. }
            | OpenError::Locked
            | OpenError::Foreign { .. }
            | OpenError::NoStore { .. }
            | OpenError::NotEmpty { .. }
            | OpenError::Restoring { .. }
            | OpenError::Setting { .. } => false,
        };
        if !is_right {
            return Err(format!("the start fails for no reason: {error}"));
        }
        if !matches!(error, OpenError::Io { .. }) {
            plan.tally.damage_named += 1;
            // Somebody puts back a copy.
            self.damage.repair(self.disk.inside());
        }
        Ok(())
    }

    /// Reads all that is there: with what clients saw before, it must be one history. From now on it
    /// is the beginning of the next.
    fn read_back(&mut self, process: &mut Process) -> Result<(), String> {
        self.calm();
        if process.engine.owner.journal().position().next_sequence < self.next_sequence {
            return Err(format!(
                "the next change gets number {}, and {} was given before",
                process.engine.owner.journal().position().next_sequence,
                self.next_sequence - 1
            ));
        }
        let mut found = Vec::new();
        for serial_number in self.profile.serial_numbers() {
            let request = Request::Lookup(serial_number);
            match self.ask_alone(process, &request)? {
                Said::Answer(Answer::Found(widget)) => found.extend(widget),
                said => return Err(format!("{request:?} was answered {said:?} in calm")),
            }
        }
        process.engine.owner.state().check()?;
        let state = Model::from_lookups(found.clone())?;
        self.follow(process, true)?;
        self.check_followed(process, state)?;
        self.check_history(found)
    }

    fn check_history(&mut self, found: Vec<Widget>) -> Result<(), String> {
        let found = Model::from_lookups(found)?;
        let calls: Vec<Call> = self.history.drain(..).flatten().collect();
        check_until(&self.model, &calls, Some(&found))?;
        self.model = found;
        Ok(())
    }

    /// What is answered to a request while no other one waits.
    fn ask_alone(&mut self, process: &mut Process, request: &Request) -> Result<Said, String> {
        let mut responding = process.respond(request, None);
        for _ in 0..2 {
            if let Poll::Ready(response) = poll(&mut responding) {
                return client::read(request, response);
            }
            self.own(process)?;
        }
        Err(format!("{request:?} got no answer"))
    }

    fn serve(&mut self, process: &mut Process) -> Result<End, String> {
        for _ in 0..self.chance.below(self.profile.actions_max) {
            self.act(process)?;
            // Nothing more is written then.
            if process.engine.queue.unavailable().is_some() && self.chance.below(8) == 0 {
                break;
            }
        }
        process.engine.owner.state().check()?;
        if self.chance.below(3) > 0 {
            return Ok(End::Crash);
        }
        process.engine.queue.close();
        while self.own(process)? {}
        Ok(End::Shutdown)
    }

    /// In a world without faults everything is accepted that the rules allow.
    fn work_well(&mut self, process: &mut Process) -> Result<End, String> {
        let (reply, outcome) = mpsc::channel();
        drop(process.engine.checkpoint_requests.send(reply));
        // A block of keys takes a turn, and so does each record.
        for _ in 0..1000 {
            let request = self.profile.request(&mut self.chance);
            let said = self.ask_alone(process, &request)?;
            let answer = match &request {
                Request::Submit(command) => Answer::Decided(self.model.apply(command)),
                Request::Lookup(serial_number) => Answer::Found(self.model.lookup(serial_number)),
            };
            if said != Said::Answer(answer) {
                return Err(format!(
                    "without a fault, {request:?} was answered {said:?}"
                ));
            }
            process.engine.writer.step();
            if let Ok(outcome) = outcome.try_recv() {
                outcome.map_err(|error| format!("without a fault: {error}"))?;
                return Ok(End::Crash);
            }
        }
        Err("a checkpoint does not end".into())
    }

    fn act(&mut self, process: &mut Process) -> Result<(), String> {
        if self.readers.is_due() {
            let now = self.tick();
            let plan = &mut *self.disk.plan();
            (self.readers).ask(process, self.profile.widgets, now, &mut plan.tally);
        }
        if self.readers.is_waiting() {
            // It arrives when its answer is polled first.
            self.take_lists()?;
        }
        match self.profile.action(&mut self.chance) {
            Action::Ask => self.ask(process)?,
            Action::Own => {
                self.own(process)?;
            }
            Action::Prepare => drop(process.engine.preparer.step()),
            Action::Write => {
                process.engine.writer.step();
            }
            Action::HangUp => {
                let number = self.chance.below(self.clients.len());
                self.hang_up(number);
            }
            Action::Follow => self.follow(process, false)?,
            Action::Checkpoint => {
                let (reply, _) = mpsc::channel();
                drop(process.engine.checkpoint_requests.send(reply));
            }
            Action::Tick => {
                let microseconds = self.chance.below(10_000) as u64;
                self.clock.advance(Duration::from_micros(microseconds));
            }
            Action::Jump => {
                self.disk.plan().tally.clock_jumps += 1;
                let seconds = self.chance.below(60) as u64;
                self.clock.advance(Duration::from_secs(seconds));
                if self.chance.below(2) == 0 {
                    self.clock.set_back(self.chance.below(7200) as u64);
                }
            }
            Action::Fill => {
                let mut plan = self.disk.plan();
                plan.is_full = !plan.is_full;
            }
        }
        Ok(())
    }

    fn ask(&mut self, process: &mut Process) -> Result<(), String> {
        let number = self.chance.below(self.clients.len());
        if self.clients[number].pending.is_some() {
            return Ok(());
        }
        self.ask_as(number, process)?;
        // Some lose patience at once, and the second attempt is in the first one's batch.
        let pending = self.clients[number].pending.as_ref();
        let has_key = pending.is_some_and(|pending| pending.key.is_some());
        if has_key && self.chance.below(8) == 0 {
            self.hang_up(number);
            self.ask_as(number, process)?;
        }
        Ok(())
    }

    fn ask_as(&mut self, number: usize, process: &mut Process) -> Result<(), String> {
        let (again, known) = self.next_request(number);
        let Again {
            request,
            key,
            call: first,
            is_older,
        } = again;
        let mut plan = self.disk.plan();
        plan.tally.requests += 1;
        plan.trace.note(&Event::Asked {
            client: number,
            request: &format!("{request:?}"),
        });
        drop(plan);
        let call = self.history.len();
        let invoked = self.tick();
        let responding = process.respond(&request, key.as_deref());
        self.history.push(Some(Call {
            request,
            answer: None,
            invoked,
            returned: 0,
        }));
        self.clients[number].pending = Some(Pending {
            responding,
            call,
            key,
            first,
            is_older,
            known,
        });
        self.take_answer(number)
    }

    /// What a client asks next: again what it has no answer to, or what somebody has one to, or
    /// something new. With the answer, if it is known.
    fn next_request(&mut self, number: usize) -> (Again, Option<Answer>) {
        if let Some(again) = self.clients[number].again.take() {
            self.disk.plan().tally.retries += 1;
            return (again, None);
        }
        if !self.known.is_empty() && self.chance.below(6) == 0 {
            let known = &self.known[self.chance.below(self.known.len())];
            let again = Again {
                request: known.request.clone(),
                key: Some(known.key.clone()),
                call: None,
                is_older: false,
            };
            self.disk.plan().tally.retries += 1;
            return (again, Some(known.answer.clone()));
        }
        let request = self.profile.request(&mut self.chance);
        let is_operation = matches!(request, Request::Submit(_));
        let has_key = is_operation && self.chance.below(8) < self.profile.keyed;
        let key = has_key.then(|| {
            self.keys += 1;
            if self.is_crowded && !self.keys.is_multiple_of(8) {
                format!("{OF_MANY}{}", self.keys)
            } else {
                format!("k{}", self.keys)
            }
        });
        let again = Again {
            request,
            key,
            call: None,
            is_older: false,
        };
        (again, None)
    }

    /// A request with a key was answered: whether that fits what was answered before.
    fn answered_with_key(
        &mut self,
        key: &str,
        request: &Request,
        answer: &Answer,
        is_replayed: bool,
        known: Option<&Answer>,
    ) -> Result<(), String> {
        if let Some(known) = known {
            if known == answer && is_replayed || self.is_crowded && self.callers < 2 {
                return Ok(());
            }
            return Err(format!(
                "{request:?} with the key {key} was answered {known:?}, and then {answer:?}{}",
                if is_replayed { "" } else { ", decided again" }
            ));
        }
        if self.is_crowded {
            let number = |key: &str| key.strip_prefix('k').and_then(|text| text.parse().ok());
            let (keys, recent) = (self.keys, 8 * CROWDED_KEYS_KNOWN);
            let is_known = |key: &str| number(key).is_some_and(|it: u64| it + recent > keys);
            self.known.retain(|known| is_known(&known.key));
            if !is_known(key) {
                return Ok(());
            }
        }
        if self.known.len() == KNOWN_MAX {
            let forgotten = self.chance.below(KNOWN_MAX);
            self.known.swap_remove(forgotten);
        }
        self.known.push(Known {
            request: request.clone(),
            key: key.to_owned(),
            answer: answer.clone(),
        });
        Ok(())
    }

    /// Reads changes: all that there are, or one answer's.
    fn follow(&mut self, process: &Process, to_the_end: bool) -> Result<(), String> {
        let Some(followed) = &mut self.followed else {
            return Ok(());
        };
        loop {
            let after = followed
                .after
                .unwrap_or_else(|| process.engine.log.oldest());
            let read =
                process
                    .engine
                    .log
                    .read(after, &ChangeFilter::default(), 1 + self.chance.below(4));
            let changes = match read {
                Ok(changes) => changes,
                // It lagged, or a bit of what only it needs was flipped.
                Err(FeedError::Gone { oldest }) if after.sequence < oldest.sequence => {
                    self.disk.plan().tally.lagged += 1;
                    self.followed = None;
                    return Ok(());
                }
                Err(FeedError::Fault(_)) if !to_the_end => return Ok(()),
                Err(FeedError::Fault(_)) if self.profile.is_damaged => {
                    self.followed = None;
                    return Ok(());
                }
                Err(error) => return Err(format!("the changes after {after}: {error}")),
            };
            self.disk.plan().tally.changes += changes.events.len() as u64;
            for event in &changes.events {
                followed.apply(event)?;
            }
            if changes.next < after {
                return Err(format!("after {after} it goes on at {}", changes.next));
            }
            followed.after = Some(changes.next);
            if changes.is_end || !to_the_end {
                return Ok(());
            }
        }
    }

    /// What was told leads to what is there.
    fn check_followed(&mut self, process: &Process, state: Model) -> Result<(), String> {
        match &self.followed {
            Some(followed) if followed.model == state => {}
            Some(followed) => {
                return Err(format!(
                    "the changes up to {:?} lead to {:?}, and there is {state:?}",
                    followed.after, followed.model
                ));
            }
            None => {
                self.followed = Some(Followed {
                    model: state,
                    after: Some(process.engine.log.newest()),
                    at: Moment(0),
                });
            }
        }
        Ok(())
    }

    fn hang_up(&mut self, number: usize) {
        let client = &mut self.clients[number];
        let Some(pending) = client.pending.take() else {
            return;
        };
        // Where somebody has the answer already, nothing is to be found out.
        if pending.known.is_none() && self.chance.below(2) == 0 {
            let call = self.history[pending.call].as_ref();
            client.again = call.map(|call| Again {
                request: call.request.clone(),
                key: pending.key,
                call: Some(pending.first.unwrap_or(pending.call)),
                is_older: pending.is_older,
            });
        }
        let mut plan = self.disk.plan();
        plan.tally.hang_ups += 1;
        plan.tally.fate_unknown += 1;
        plan.trace.note(&Event::HungUp { client: number });
    }

    /// The owner's turn, after which nobody waits. False once the queue is closed and empty.
    fn own(&mut self, process: &mut Process) -> Result<bool, String> {
        let goes_on = process.own(&mut self.chance);
        self.callers = process.engine.owner.key_callers();
        let position = process.engine.owner.journal().position();
        self.next_sequence = position.next_sequence;
        if position.at < self.at {
            return Err(format!(
                "time goes back from {} to {}",
                self.at, position.at
            ));
        }
        self.at = position.at;
        process.deliver();
        self.take_answers()?;
        self.readers.moment(process, self.profile.serial_numbers());
        self.take_lists()?;
        match self.clients.iter().position(|each| each.pending.is_some()) {
            Some(client) => Err(format!("client {client} got no answer")),
            None => Ok(goes_on),
        }
    }

    /// What lists showed is part of the history: each of their widgets as if it had been looked up.
    fn take_lists(&mut self) -> Result<(), String> {
        let all: Vec<SerialNumber> = self.profile.serial_numbers().collect();
        let shown = self.readers.take(&all, &mut self.disk.plan().tally)?;
        for list in shown {
            let returned = self.tick();
            for (serial_number, widget) in list.widgets {
                self.history.push(Some(Call {
                    request: Request::Lookup(serial_number),
                    answer: Some(Answer::Found(widget)),
                    invoked: list.invoked,
                    returned,
                }));
            }
        }
        Ok(())
    }

    fn take_answers(&mut self) -> Result<(), String> {
        (0..self.clients.len()).try_for_each(|number| self.take_answer(number))
    }

    fn take_answer(&mut self, number: usize) -> Result<(), String> {
        let client = &mut self.clients[number];
        let Some(pending) = &mut client.pending else {
            return Ok(());
        };
        let Poll::Ready(response) = poll(&mut pending.responding) else {
            return Ok(());
        };
        let is_replayed = client::is_replayed(&response);
        let Some(Pending {
            call: place,
            key,
            first,
            is_older,
            known,
            ..
        }) = client.pending.take()
        else {
            return Ok(());
        };
        let returned = self.tick();
        let Some(request) = self.history[place]
            .as_ref()
            .map(|call| call.request.clone())
        else {
            return Ok(());
        };
        let said = client::read(&request, response)?;
        let mut plan = self.disk.plan();
        plan.trace.note(&Event::Answered {
            client: number,
            answer: &format!("{said:?}"),
        });
        let tally = &mut plan.tally;
        tally.replayed += u64::from(is_replayed);
        match &said {
            Said::Answer(Answer::Decided(Ok(()))) => tally.accepted += 1,
            Said::Answer(Answer::Decided(Err(_))) => tally.refused += 1,
            Said::Answer(Answer::Found(_)) => tally.lookups += 1,
            Said::FateUnknown => tally.fate_unknown += 1,
            Said::NotApplied => tally.not_applied += 1,
        }
        drop(plan);
        if let (Said::Answer(answer), Some(key)) = (&said, &key) {
            self.answered_with_key(key, &request, answer, is_replayed, known.as_ref())?;
        }
        // Somebody has the answer to that: it is nothing to try again.
        if known.is_none() && !matches!(said, Said::Answer(_)) && self.chance.below(2) == 0 {
            let call = match said {
                // The first attempt may have been applied all the same.
                Said::NotApplied => first,
                _ => Some(first.unwrap_or(place)),
            };
            self.clients[number].again = Some(Again {
                request,
                key,
                call,
                is_older,
            });
        }
        match said {
            Said::Answer(answer) if is_replayed => {
                // Nothing happened but that the fate of the first attempt is known: of this process, unless there was
                // one before.
                self.history[place] = None;
                let first = first.filter(|_| !is_older);
                let first = first.and_then(|first| self.history[first].as_mut());
                if let Some(call) = first.filter(|call| call.answer.is_none()) {
                    call.answer = Some(answer);
                    call.returned = returned;
                }
            }
            Said::Answer(answer) => {
                if let Some(call) = &mut self.history[place] {
                    call.answer = Some(answer);
                    call.returned = returned;
                }
            }
            Said::FateUnknown => {}
            Said::NotApplied => self.history[place] = None,
        }
        Ok(())
    }

    fn tick(&mut self) -> u64 {
        self.ticks += 1;
        self.ticks
    }
}

/// Whether the answer is there.
pub(super) fn poll<T>(future: &mut (impl Future<Output = T> + Unpin + ?Sized)) -> Poll<T> {
    let mut context = Context::from_waker(Waker::noop());
    std::pin::Pin::new(future).poll(&mut context)
}

fn panic_text(cause: &(dyn std::any::Any + Send)) -> &str {
    let text = cause.downcast_ref::<&str>().copied();
    text.or_else(|| cause.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("of another kind")
}
