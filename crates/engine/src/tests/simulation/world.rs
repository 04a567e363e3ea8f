//! One world: clients, the service, its disk and its clock, in one thread, determined by a seed.
//!
//! Everything between a client's request and the disk is the real code of the service: the router,
//! the queue, the owner of the state, the journal, the preparer of segments, the writer of
//! checkpoints, recovery. The world decides whose turn it is, what fails and when the process
//! crashes.
//!
//! Nothing here knows how the engine stores anything. What clients saw, and what they read after
//! the next start, must be explained by the model of `widgets-conformance`; see
//! [`World::read_back`].

mod asking;
mod following;

use super::{
    client::{self, Said},
    damage::Damage,
    disk::{Crash, Plan, Rates, SimulatedDisk},
    lists::Readers,
    process::{Nobody, Process, SimulatedClock},
    profile::{Action, Profile},
    tally::Tally,
    trace::{Event, Trace},
};
use crate::{OpenError, tests::disk::Chance};
use asking::{Again, Client, Known};
use following::Followed;
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
use widgets_registry::{SerialNumber, Widget};
use widgets_server::Api;

/// The result of a seed.
pub(super) struct Outcome {
    pub(super) trace: u64,
    pub(super) tally: Tally,
}

/// A broken promise.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) what: String,
    /// What happened before, if it was recorded.
    pub(super) story: Vec<String>,
}

/// How many starts in a row may fail because of a fault.
const STARTS_FAILED_MAX: usize = 4;

/// Runs the world of a seed. If `is_told`, records everything that happens.
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
    /// What the changes read so far led to, and the last of them. `None` if they must be followed
    /// from the start.
    followed: Option<Followed>,
    /// How many keys were used.
    keys: u64,
    /// Whether one caller uses many keys, and few are kept.
    is_crowded: bool,
    /// How many callers have keys, as the engine distinguishes them: two whose numbers collide have
    /// one share.
    callers: usize,
    /// The state when the calls of the history began.
    model: Model,
    /// The calls since then, except those that were answered that nothing was applied.
    history: Vec<Option<Call>>,
    ticks: u64,
    /// The sequence number after the last change that was answered.
    next_sequence: u64,
    /// When the last change was committed.
    at: u64,
    damage: Damage,
    is_starting: bool,
}

/// How many keys are kept in a crowded world, where one caller uses many more.
const CROWDED_KEYS_MAX: u64 = 24;

/// How a process ends that does not crash at a step of the disk.
enum End {
    Crash,
    Shutdown,
}

impl World {
    fn new(seed: u64, is_told: bool) -> Self {
        thread_local! {
            /// Kept, because making an API takes longer than simulating a crash, and it has no
            /// state but metrics.
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
        // From now on nothing fails, so the service must work.
        self.calm();
        self.profile.rates = Rates::default();
        self.profile.is_damaged = false;
        self.profile.crash_within = usize::MAX;
        self.live_once(Self::work_well)?;
        self.live_once(|_, _| Ok(End::Shutdown))
    }

    /// Runs one process from its start to its end, and does to the disk what its end does.
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
            // What was answered before the crash was also sent.
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

    /// Turns all faults off.
    fn calm(&self) {
        let mut plan = self.disk.plan();
        plan.rates = Rates::default();
        plan.crash_after = None;
        plan.is_full = false;
        plan.failures = 0;
    }

    /// Turns the faults on.
    fn arm(&mut self) {
        let crashes = self.profile.crash_within < usize::MAX && self.chance.below(4) > 0;
        let crash_after = crashes.then(|| self.chance.below(self.profile.crash_within));
        let mut plan = self.disk.plan();
        plan.rates = self.profile.rates;
        plan.crash_after = crash_after;
    }

    /// Starts a process, and repeats that while it fails for a good reason.
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
                    // What the start did not need may stay damaged.
                    self.damage.forget();
                    return Ok(process);
                }
                Err(error) => self.judge(&error)?,
            }
            failed += 1;
        }
    }

    /// Checks whether a start may fail like this.
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
            // An operator restores a copy.
            self.damage.repair(self.disk.inside());
        }
        Ok(())
    }

    /// Reads everything that exists: together with what clients saw before, it must be one history.
    /// It is then the beginning of the next one.
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

    /// Sends a request while no other one waits, and returns the answer.
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
            // Nothing more is written in that state.
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

    /// Checks that in a world without faults everything is accepted that the rules allow.
    fn work_well(&mut self, process: &mut Process) -> Result<End, String> {
        let (reply, outcome) = mpsc::channel();
        drop(process.engine.checkpoint_requests.send(reply));
        // Each block of keys takes a turn, and so does each record.
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
            // The request arrives when its answer is first polled.
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

    /// Runs the owner's turn, after which no operation waits. Returns false once the queue is
    /// closed and empty.
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

    /// Adds what lists showed to the history, each of their widgets as if it had been looked up.
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

    fn tick(&mut self) -> u64 {
        self.ticks += 1;
        self.ticks
    }
}

/// Polls a future once.
pub(super) fn poll<T>(future: &mut (impl Future<Output = T> + Unpin + ?Sized)) -> Poll<T> {
    let mut context = Context::from_waker(Waker::noop());
    std::pin::Pin::new(future).poll(&mut context)
}

fn panic_text(cause: &(dyn std::any::Any + Send)) -> &str {
    let text = cause.downcast_ref::<&str>().copied();
    text.or_else(|| cause.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("of another kind")
}
