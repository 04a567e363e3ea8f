//! The engine without its threads: every part makes its step when the test says so.

use super::disk::{Chance, TestDisk, TestFile};
use crate::{
    Acknowledging, Epoch, FollowError, LoggedGroup, OpenError, Random, Settings,
    acknowledge::Gate,
    checkpoint::{Reply, Writer},
    engine::Parts,
    format::{Role, StoreHeader},
    journal::prepare::Preparer,
    log::{JournalEnd, Log},
    owner::{Change, Owner},
    queue::{Naming, Queue, Request, Submission},
    state::State,
};
use std::{
    collections::VecDeque,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering},
        mpsc,
    },
    task::{Context, Wake, Waker},
    time::Duration,
};
use tokio::sync::oneshot;
use widgets_clock::{Clock, Timer};
use widgets_mailbox::Address;
use widgets_pacing::{Mode, Pacing};
use widgets_queue::{Asked, Queue as _};
use widgets_registry::{
    Applied, Attempt, Command, Fault, Lookup, Name, Pair, Port, Ports, Rejection, SerialNumber,
    Widget, decide,
};

/// A clock that moves a millisecond whenever it is read, and otherwise only by sleeping.
#[derive(Default)]
pub(super) struct TestClock(AtomicU64);

impl Clock for TestClock {
    fn now(&self) -> Duration {
        Duration::from_millis(self.0.fetch_add(1, Ordering::Relaxed))
    }

    fn unix_time(&self) -> Duration {
        Duration::from_secs(1_000_000_000) + self.now()
    }

    fn sleep(&self, duration: Duration) {
        let milliseconds = u64::try_from(duration.as_millis()).expect("not for ages");
        self.0.fetch_add(milliseconds, Ordering::Relaxed);
    }

    fn timer(&self, _: Duration) -> Timer {
        unreachable!("the engine waits in threads");
    }
}

/// The answer to a lookup.
pub(super) type Looked = Result<Option<Widget>, Fault>;

/// Settings with small segments and many checkpoints.
pub(super) fn settings() -> Settings {
    Settings {
        queue_operations_max: 4,
        segment_bytes: 12 << 10,
        checkpoint_journal_bytes: 5 << 10,
        changes_retention_bytes: 0,
        ..Settings::default()
    }
}

/// Returns the log of an empty store.
pub(super) fn log(settings: &Settings) -> Arc<Log> {
    let store = StoreHeader {
        identity: 1,
        secret: [0; 16],
        epochs: Vec::new(),
        role: Role::Primary,
        member: 1,
    };
    let segments = VecDeque::new();
    Arc::new(Log::new(
        store,
        TestDisk::default(),
        segments,
        JournalEnd {
            next_sequence: 1,
            at: 0,
            chain: 0,
        },
        None,
        settings,
    ))
}

pub(super) fn random() -> Random {
    let mut chance = Chance(0x5eed);
    Box::new(move || chance.number())
}

pub(super) struct Rig {
    pub(super) clock: Arc<TestClock>,
    queue: Arc<Queue>,
    gate: Option<Arc<Gate>>,
    owner: Owner<TestFile, TestClock>,
    preparer: Preparer<TestDisk, TestClock>,
    writer: Writer<TestDisk, TestClock>,
    requests: mpsc::Sender<Reply>,
    log: Arc<Log>,
}

/// Records the newest entry and the store's epoch at the moment when it is woken.
struct Seen {
    log: Arc<Log>,
    newest: AtomicU64,
    epoch: AtomicU32,
}

impl Wake for Seen {
    fn wake(self: Arc<Self>) {
        let newest = self.log.newest().sequence;
        self.newest.store(newest, Ordering::Relaxed);
        let epoch = self.log.store().epoch();
        self.epoch.store(epoch, Ordering::Relaxed);
    }
}

impl Rig {
    pub(super) fn open(disk: &TestDisk) -> Result<Self, OpenError> {
        Self::open_with(disk, &settings())
    }

    pub(super) fn open_with(disk: &TestDisk, settings: &Settings) -> Result<Self, OpenError> {
        let clock = Arc::<TestClock>::default();
        let pacing = Arc::new(Pacing::new(Mode::Never, clock.clone(), ()));
        let parts = Parts::open(disk, &clock, random(), settings, pacing, 1)?;
        let mut rig = Self {
            clock: clock.clone(),
            queue: parts.queue,
            gate: parts.gate,
            owner: parts.owner,
            preparer: parts.preparer,
            writer: Writer::new(disk.clone(), clock, parts.writer_ends, parts.log.clone()),
            requests: parts.checkpoint_requests,
            log: parts.log,
        };
        rig.prepare();
        Ok(rig)
    }

    /// Answers these commands as one batch.
    pub(super) fn submit(&mut self, commands: &[Command]) -> Vec<Result<(), Rejection>> {
        let attempts: Vec<_> = commands.iter().cloned().map(Attempt::from).collect();
        let answers = self.ask(&attempts).into_iter();
        answers.map(|answer| answer.map(|_| ())).collect()
    }

    /// Answers these attempts as one batch.
    pub(super) fn ask(&mut self, attempts: &[Attempt]) -> Vec<Result<Applied, Rejection>> {
        let mut answers = self.ask_held(attempts);
        let answered = answers
            .iter_mut()
            .map(|each| each.try_recv().expect("answered"));
        answered.collect()
    }

    /// Submits these attempts as one batch, whose answers may wait.
    pub(super) fn ask_held(
        &mut self,
        attempts: &[Attempt],
    ) -> Vec<oneshot::Receiver<Result<Applied, Rejection>>> {
        let (mut batch, mut answers) = (VecDeque::new(), Vec::new());
        for attempt in attempts {
            let (reply, answer) = oneshot::channel();
            batch.push_back(Submission {
                request: Request::Operation(attempt.clone(), reply),
                reply_to: Address::Task,
                // The clock of a test never gets there.
                arrived: Duration::MAX,
            });
            answers.push(answer);
        }
        self.owner.step(&mut batch);
        self.prepare();
        answers
    }

    /// Looks a widget up. The answer may wait.
    pub(super) fn look_up(&mut self, serial_number: SerialNumber) -> oneshot::Receiver<Looked> {
        let (reply, answer) = oneshot::channel();
        let mut batch = VecDeque::from([Submission {
            request: Request::Query(Box::new(Asked::new(Lookup(serial_number), reply))),
            reply_to: Address::Task,
            arrived: Duration::MAX,
        }]);
        self.owner.step(&mut batch);
        answer
    }

    /// Writes a record to the journal that names this member, or nobody, as the holder.
    pub(super) fn record(&mut self, member: Option<u64>) -> Result<JournalEnd, FollowError> {
        let (reply, mut outcome) = oneshot::channel();
        let is_first = false;
        let naming = Naming { member, is_first };
        let mut batch = VecDeque::from([Submission {
            request: Request::Record(naming, reply),
            reply_to: Address::Task,
            arrived: Duration::MAX,
        }]);
        self.owner.step(&mut batch);
        self.prepare();
        outcome.try_recv().expect("answered")
    }

    /// Lets this request wait in the queue.
    pub(super) fn push(&self, request: Request) {
        self.queue.push_all(&mut vec![Submission {
            request,
            reply_to: Address::Task,
            arrived: self.clock.now(),
        }]);
    }

    /// Lets a record wait in the queue that names this member, or nobody, as the holder.
    pub(super) fn push_record(
        &self,
        member: Option<u64>,
    ) -> oneshot::Receiver<Result<JournalEnd, FollowError>> {
        let (reply, outcome) = oneshot::channel();
        let is_first = false;
        self.push(Request::Record(Naming { member, is_first }, reply));
        outcome
    }

    /// Lets an operation wait in the queue.
    pub(super) fn push_operation(
        &self,
        attempt: Attempt,
    ) -> oneshot::Receiver<Result<Applied, Rejection>> {
        let (reply, outcome) = oneshot::channel();
        self.push(Request::Operation(attempt, reply));
        outcome
    }

    /// Runs the owner's turn with what waits in the queue.
    pub(super) fn turn(&mut self) {
        self.owner.turn(&self.queue, &mut VecDeque::new(), false);
    }

    /// Returns how long the owner would wait for requests.
    pub(super) fn longest_wait(&self) -> Duration {
        self.owner.longest_wait()
    }

    pub(super) fn acknowledging(&self) -> Acknowledging {
        Acknowledging(self.gate.clone().expect("answers wait"))
    }

    /// Follows the next group of a primary.
    pub(super) fn follow(&mut self, group: &LoggedGroup) -> Result<(), FollowError> {
        let (reply, mut outcome) = oneshot::channel();
        let mut batch = VecDeque::from([Submission {
            request: Request::Group(Arc::new(group.clone()), reply),
            reply_to: Address::Task,
            arrived: Duration::MAX,
        }]);
        self.owner.step(&mut batch);
        self.prepare();
        outcome.try_recv().expect("answered")
    }

    /// Removes the seals after this end.
    pub(super) fn cut_seals(&mut self, before: JournalEnd) -> Result<(), FollowError> {
        let (reply, mut outcome) = oneshot::channel();
        let mut batch = VecDeque::from([Submission {
            request: Request::CutSeals(before, reply),
            reply_to: Address::Task,
            arrived: Duration::MAX,
        }]);
        self.owner.step(&mut batch);
        outcome.try_recv().expect("answered")
    }

    /// Makes the owner take operations, as after a promotion. Its journal may then get a seal after
    /// a seal.
    pub(super) fn lead(&mut self) {
        let (reply, mut told) = oneshot::channel();
        let mut batch = VecDeque::from([Submission {
            request: Request::Follow(false, reply),
            reply_to: Address::Task,
            arrived: Duration::MAX,
        }]);
        self.owner.step(&mut batch);
        told.try_recv().expect("told");
    }

    /// Makes the owner follow between two operations of one batch. Returns the newest entry when
    /// the owner reported that it follows, and the newest entry after the batch.
    pub(super) fn turn_between(&mut self, commands: [Command; 2]) -> (u64, u64) {
        let (reply, told) = oneshot::channel();
        let follow = Request::Follow(true, reply);
        let operations = commands.map(|command| {
            let (reply, _) = oneshot::channel();
            Request::Operation(command.into(), reply)
        });
        let [first, last] = operations;
        let seen = self.seen_when_told(vec![first, follow, last], told);
        let newest = self.log.newest().sequence;
        (seen.newest.load(Ordering::Relaxed), newest)
    }

    /// Makes the owner adopt epochs and then follow, in one batch. Returns the store's epoch when
    /// the owner reported that it follows.
    pub(super) fn adopt_and_follow(&mut self, epochs: Vec<Epoch>) -> u32 {
        let (reply, told) = oneshot::channel();
        let (adopted, _) = oneshot::channel();
        let adopt = Request::Change(Change::Adopt(self.log.store(), epochs), adopted);
        let seen = self.seen_when_told(vec![adopt, Request::Follow(true, reply)], told);
        seen.epoch.load(Ordering::Relaxed)
    }

    /// Answers these requests as one batch. Returns what is there when `told` is told.
    fn seen_when_told(&mut self, requests: Vec<Request>, told: oneshot::Receiver<()>) -> Arc<Seen> {
        let submissions = requests.into_iter().map(|request| Submission {
            request,
            reply_to: Address::Task,
            arrived: Duration::MAX,
        });
        let mut batch: VecDeque<_> = submissions.collect();
        let seen = Arc::new(Seen {
            log: self.log.clone(),
            newest: AtomicU64::new(0),
            epoch: AtomicU32::new(0),
        });
        let waker = Waker::from(seen.clone());
        let mut told = pin!(told);
        let mut context = Context::from_waker(&waker);
        assert!(told.as_mut().poll(&mut context).is_pending());
        self.owner.step(&mut batch);
        assert!(told.as_mut().poll(&mut context).is_ready());
        seen
    }

    /// Writes a seal, if one is due, as the owner does at its end.
    pub(super) fn seal(&mut self) {
        self.owner.seal();
    }

    /// Lets the preparer prepare the next segment, or fail to.
    pub(super) fn prepare(&mut self) {
        drop(self.preparer.step());
    }

    /// Lets the owner copy a slice, if a checkpoint is under way or due.
    pub(super) fn copy(&mut self) {
        self.owner.advance_checkpoint();
    }

    /// Lets the writer write what the owner copied, and remove obsolete files.
    pub(super) fn write(&mut self) {
        while self.write_step() {}
    }

    /// Lets the writer do one piece of this. Returns whether there was one.
    pub(super) fn write_step(&mut self) -> bool {
        self.writer.step()
    }

    /// Requests a checkpoint and copies its first slice.
    pub(super) fn begin_checkpoint(&mut self) {
        let (reply, _) = mpsc::channel();
        self.requests.send(reply).expect("the owner is there");
        self.copy();
    }

    /// Requests a checkpoint and lets it be written.
    pub(super) fn checkpoint(&mut self) -> Result<(), crate::CheckpointError> {
        let (reply, outcome) = mpsc::channel();
        self.requests.send(reply).expect("the owner is there");
        for _ in 0..100_000 {
            self.copy();
            self.write();
            if let Ok(outcome) = outcome.try_recv() {
                return outcome;
            }
        }
        panic!("the checkpoint does not end");
    }

    pub(super) fn log(&self) -> &Log {
        &self.log
    }

    pub(super) fn state(&self) -> &State {
        self.owner.state()
    }
}

/// Returns what a correct store contains after these commands, none of which is refused.
pub(super) fn model(accepted: &[Command]) -> State {
    let mut state = State::default();
    for command in accepted {
        let change = decide(&state, command).expect("it was accepted before");
        state.apply(command, change);
    }
    state
}

/// How many serial numbers tests use: few, so that operations often meet.
pub(super) const WIDGETS: usize = 12;

pub(super) fn serial_number(number: usize) -> SerialNumber {
    SerialNumber::new("widget_sn", format!("s{number}")).expect("within the limits")
}

/// Returns every widget that a test can have added.
pub(super) fn widgets(state: &State) -> Vec<Option<Widget>> {
    assert_eq!(state.check(), Ok(()));
    (0..WIDGETS)
        .map(|number| state.lookup(&serial_number(number)))
        .collect()
}

/// Returns any operation. Names are long, so that segments fill up.
pub(super) fn command(chance: &mut Chance) -> Command {
    let one = chance.below(WIDGETS);
    let other = (one + 1 + chance.below(WIDGETS - 1)) % WIDGETS;
    let mut port = || Port::ALL[chance.below(2)];
    let pair = Pair::new(serial_number(one), serial_number(other), port());
    let pair = pair.expect("two different widgets");
    let ports = [port(), port(), port()];
    match chance.below(10) {
        0..4 => Command::AddWidget {
            serial_number: serial_number(one),
            name: Name::new("name", "n".repeat(chance.below(1000))).expect("within the limits"),
            ports: Ports::new(&ports[..chance.below(4)]).expect("at most three"),
        },
        4..6 => Command::RemoveWidget {
            serial_number: serial_number(one),
        },
        6..9 => Command::AssociateWidgets(pair),
        _ => Command::RemoveAssociation(pair),
    }
}
