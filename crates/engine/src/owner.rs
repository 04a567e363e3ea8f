//! The owner of the state: answers what only reads, decides the operations of a batch in order, makes them
//! durable, answers them.
//!
//! Between batches everything in the state is durable, and every operation that was answered is in it. So what
//! reads is answered before anything of its batch is decided, and waits for no sync but the one under way when
//! it came. Every other answer, refusals included, waits for the batch's sync: it may rest on a change that is
//! not durable before it. Where the group cannot be written, its changes are taken back from memory.
//!
//! Where answers wait for another machine, they go through the gate of `acknowledge` ([`standby`](self::standby)).
//!
//! Where the store follows another one, it takes that one's groups instead of operations ([`follow`](self::follow)).

mod commit;
mod decide;
mod follow;
mod header;
mod reads;
mod records;
mod replies;
mod room;
mod standby;

pub(crate) use header::{Change, KeepStore};
pub(crate) use replies::Replies;

use crate::{
    Settings,
    acknowledge::Gate,
    checkpoint::Checkpoints,
    disk::DiskFile,
    format::{self, GroupDraft, HOLDER_BYTES_MAX},
    journal::Journal,
    lists::Reads,
    log::Log,
    metrics::Metrics,
    queue::{Queue, Request, Submission},
    retries::Retries,
    state::{Holding, State, Undo},
};
use decide::Decided;
use header::Changing;
use records::Recorded;
use room::Room;
use std::{collections::VecDeque, mem, sync::Arc, thread, time::Duration};
use tokio::sync::oneshot;
use widgets_clock::Clock;
use widgets_mailbox::Address;
use widgets_pacing::Pacing;
use widgets_queue::{Answered, Reply};
use widgets_registry::{Applied, Attempt, Fault, Reason, Rejection};

/// The journal gets a seal after so long a time without a commit.
const SEAL_PAUSE: Duration = Duration::from_secs(1);

/// Has the state to itself.
pub(crate) struct Owner<F, C> {
    state: State,
    journal: Journal<F>,
    log: Arc<Log>,
    checkpoints: Checkpoints,
    metrics: Metrics,
    clock: Arc<C>,
    pacing: Arc<Pacing>,
    queue_wait_max: Duration,
    queue_wait_ms_max: u64,
    retries: Retries,
    group: GroupDraft,
    /// How many keys the group has.
    keys: usize,
    /// What keys are hashed with.
    secret: [u8; 16],
    /// When what is decided now is committed, in microseconds since 1970.
    at: u64,
    /// The journal ends with a seal, or has nothing.
    is_sealed: bool,
    /// When it gets one, unless it goes on.
    seal_at: Duration,
    undo: Vec<Undo>,
    answers: Vec<Answer>,
    /// Who waits until what was decided before the store followed, or took operations again, is in the journal.
    turned: Vec<oneshot::Sender<()>>,
    /// What is to become of the file `store` after the commit.
    changing: Vec<Changing>,
    keep_store: KeepStore,
    reads: Reads,
    /// When the last operation was decided.
    operated_at: Duration,
    /// Before that, scans do not go on.
    scans_due: Duration,
    replies: Replies,
    /// Operations that wait for a holder to connect.
    aside: VecDeque<Submission>,
    /// Why operations are refused, where none has come in time.
    unacknowledged: Option<Reason>,
    /// Records of the group, whose writers wait.
    records: Vec<Recorded>,
    /// Who was the holder before the group.
    holding_before: Holding,
    /// Which directory it is.
    member: u64,
    queue_operations_max: usize,
    queue_bytes_max: usize,
    /// It takes the groups of a primary, and nothing else.
    follows: bool,
    /// Why nothing may be written any more.
    stopped: Option<Reason>,
    /// Whether the journal takes what operations write.
    room: Room,
    /// What readiness was told last.
    unwritable: Option<Reason>,
}

/// What there is in memory.
pub(crate) struct Known {
    pub(crate) state: State,
    pub(crate) retries: Retries,
    /// What keys are hashed with.
    pub(crate) secret: [u8; 16],
    /// Where each group is published.
    pub(crate) log: Arc<Log>,
    /// Which directory it is.
    pub(crate) member: u64,
    /// What holds answers back.
    pub(crate) gate: Option<Arc<Gate>>,
    /// Makes the file that says which store it is.
    pub(crate) keep_store: KeepStore,
}

/// An answer to an operation that waits for the sync.
struct Answer {
    reply_to: Address,
    reply: Reply<Attempt>,
    outcome: Result<Applied, Rejection>,
}

impl<F: DiskFile, C: Clock> Owner<F, C> {
    pub(crate) fn new(
        known: Known,
        journal: Journal<F>,
        checkpoints: Checkpoints,
        metrics: Metrics,
        clock: Arc<C>,
        pacing: Arc<Pacing>,
        settings: &Settings,
    ) -> Self {
        let Known {
            state,
            retries,
            secret,
            log,
            member,
            gate,
            keep_store,
        } = known;
        let follows = log.store().is_standby();
        metrics.state(state.counts(), checkpoints.journal_bytes());
        metrics.keys(&retries);
        let holding = state.holding();
        log.set_holding(holding);
        if let Some(gate) = &gate {
            let rests_on = journal.before_seals().next_sequence;
            gate.begin(holding, member, follows, rests_on);
        }
        Self {
            is_sealed: journal.is_sealed(),
            seal_at: clock.now() + SEAL_PAUSE,
            at: journal.position().at,
            secret,
            log,
            keys: 0,
            state,
            journal,
            checkpoints,
            metrics,
            clock,
            pacing,
            queue_wait_max: Duration::from_millis(settings.queue_wait_ms_max),
            queue_wait_ms_max: settings.queue_wait_ms_max,
            retries,
            group: GroupDraft::default(),
            undo: Vec::new(),
            answers: Vec::new(),
            turned: Vec::new(),
            changing: Vec::new(),
            keep_store,
            reads: Reads::new(settings.queue_operations_max, settings.scans_max),
            operated_at: Duration::ZERO,
            scans_due: Duration::ZERO,
            replies: Replies::new(gate),
            aside: VecDeque::new(),
            unacknowledged: None,
            records: Vec::new(),
            holding_before: holding,
            member,
            queue_operations_max: settings.queue_operations_max,
            queue_bytes_max: settings.queue_bytes_max,
            follows,
            stopped: None,
            room: Room::default(),
            unwritable: None,
        }
    }

    /// Answers everything that comes, until the queue is closed and empty.
    pub(crate) fn run(mut self, queue: &Queue) {
        self.room.look(&mut self.journal);
        self.publish_unwritable(queue);
        let mut batch = VecDeque::new();
        while self.turn(queue, &mut batch, true) {}
        self.end_waiting();
    }

    /// Copies a slice for a checkpoint where one is under way or due, lets lists go on, and answers what
    /// waits. `batch` is empty before and afterwards. False once the queue is closed and empty.
    pub(crate) fn turn(
        &mut self,
        queue: &Queue,
        batch: &mut VecDeque<Submission>,
        may_wait: bool,
    ) -> bool {
        self.advance_checkpoint();
        if self.rests_for_standby(queue, may_wait) {
            return true;
        }
        let wait = if !may_wait || self.checkpoints.has_work() {
            Duration::ZERO
        } else if self.reads.has_work() {
            self.reads_rest()
        } else if self.is_sealed || self.follows || self.stopped.is_some() {
            Duration::MAX
        } else {
            self.seal_at.saturating_sub(self.clock.now())
        };
        let wait = self.wait_with_standby(wait);
        if !queue.take(batch, &mut self.replies, wait) {
            // Whoever has asked is answered.
            self.advance_reads();
            if self.reads.has_work() {
                return true;
            }
            self.seal();
            return false;
        }
        if batch.is_empty() && self.clock.now() >= self.seal_at {
            self.seal();
        }
        let (operations, began) = (batch.len(), self.clock.now());
        if operations > 0 || self.may_go_on(began) {
            let decided = self.step(batch);
            let now = self.clock.now();
            self.operated_at = now;
            queue.applied(decided, now.saturating_sub(began), now);
            self.publish_unwritable(queue);
        } else {
            self.advance_reads();
            if self.replies.gate().is_some() {
                self.publish_unwritable(queue);
            }
        }
        if !self.follows
            && let Some(interval) = self.pacing.commit_interval(operations)
        {
            self.gather(queue, began + interval);
        }
        true
    }

    /// Lets operations gather until the next commit may begin, and copies for a checkpoint meanwhile.
    fn gather(&mut self, queue: &Queue, until: Duration) {
        while queue.unpark_when_enough(thread::current()) {
            let rest = until.saturating_sub(self.clock.now());
            if rest.is_zero() {
                break;
            }
            if self.checkpoints.has_work() {
                self.advance_checkpoint();
                self.advance_reads();
            } else if self.reads.has_work() {
                self.advance_reads();
                self.clock.park(rest.min(self.reads_rest()));
            } else {
                self.clock.park(rest);
                break;
            }
        }
    }

    #[cfg(any(test, feature = "simulation"))]
    pub(crate) fn state(&self) -> &State {
        &self.state
    }

    #[cfg(test)]
    pub(crate) fn key_callers(&self) -> usize {
        self.retries.callers()
    }

    #[cfg(any(test, feature = "simulation"))]
    pub(crate) fn journal(&self) -> &Journal<F> {
        &self.journal
    }

    /// Copies a slice of the state where a checkpoint is under way or due. What was decided is
    /// durable or taken back at this moment, so nothing else can get into a checkpoint.
    pub(crate) fn advance_checkpoint(&mut self) {
        let now = self.clock.now();
        if let Some(reason) = &self.stopped {
            let reason = reason.to_string();
            return self.checkpoints.stop(&reason, now, &self.metrics);
        }
        let position = self.journal.before_seals();
        let (state, retries) = (&self.state, &mut self.retries);
        self.checkpoints
            .advance(state, retries, position, now, &self.metrics);
    }

    /// Answers every submission of the batch and leaves it empty. How many operations were decided,
    /// and not met by a fault.
    pub(crate) fn step(&mut self, batch: &mut VecDeque<Submission>) -> usize {
        let now = self.clock.now();
        self.metrics.batch(batch.len());
        self.set_aside(batch, now);
        self.read(batch, now);
        let unavailable = self.unavailable(batch);
        self.begin_group();
        for submission in batch.drain(..) {
            let late = now.saturating_sub(submission.arrived) > self.queue_wait_max;
            let reply_to = submission.reply_to;
            match submission.request {
                Request::Operation(attempt, reply) => {
                    let unavailable = unavailable.as_ref();
                    match self.operation(&attempt, late, unavailable) {
                        Decided::Fault(fault) => {
                            let answer = Answered::Operation(reply, Err(fault.into()));
                            self.replies.send_fault(reply_to, answer);
                        }
                        Decided::Durable(answer) => self.send(reply_to, reply, answer),
                        Decided::Pending(outcome) => self.answers.push(Answer {
                            reply_to,
                            reply,
                            outcome,
                        }),
                    }
                }
                // Only what was planted leaves them here.
                Request::Query(question) => self.answer_query(reply_to, question, late),
                Request::Group(group, reply) => {
                    // Nobody may wait for it any more; it is followed all the same.
                    drop(reply.send(self.follow(&group)));
                }
                Request::Follow(follows, reply) => {
                    self.set_follows(follows);
                    self.turned.push(reply);
                }
                Request::Change(change, reply) => self.changing.push(Changing { change, reply }),
                Request::Record(naming, reply) => self.write_record(naming, reply),
                Request::CutSeals(before, reply) => drop(reply.send(self.cut_seals(before))),
                Request::Read(read) => {
                    let arrived = submission.arrived;
                    self.reads.push(read, reply_to, arrived, &mut self.replies);
                    self.advance_reads();
                }
            }
        }
        if planted!(AnsweredBeforeSync) {
            self.answer(None);
        }
        // What needs no sync does not wait for it.
        self.flush();
        let failure = self.commit();
        // Whoever turned it looks at where the journal ends. Nobody may wait for it any more; it holds all the same.
        for turned in self.turned.drain(..) {
            _ = turned.send(());
        }
        self.change_header();
        let decided = self.answers.len();
        self.answer(failure.as_ref());
        self.flush();
        // What nobody waits for comes behind what somebody does.
        self.state.keep_up();
        self.advance_reads();
        if failure.is_none() { decided } else { 0 }
    }

    /// From here on it takes the groups of a primary, or operations.
    fn set_follows(&mut self, follows: bool) {
        self.follows = follows;
        self.change_role();
        self.is_sealed = false;
        self.seal_at = self.clock.now() + SEAL_PAUSE;
    }

    fn send(
        &mut self,
        reply_to: Address,
        reply: Reply<Attempt>,
        answer: Result<Applied, Rejection>,
    ) {
        self.replies
            .send(reply_to, Answered::Operation(reply, answer));
    }

    /// Why commands cannot be decided now: an earlier failure, or no room for what they could take.
    fn unavailable(&mut self, batch: &VecDeque<Submission>) -> Option<Reason> {
        if self.stopped.is_some() {
            return self.stopped.clone();
        }
        if self.follows {
            return Some("it follows another store".into());
        }
        if let Some(reason) = &self.unacknowledged {
            return Some(reason.clone());
        }
        let payload_bytes = batch.iter().map(|each| match &each.request {
            Request::Operation(attempt, _) => {
                format::entry_bytes_max(&attempt.command, attempt.author.as_ref())
            }
            Request::Record(..) => HOLDER_BYTES_MAX,
            Request::Group(..)
            | Request::Follow(..)
            | Request::Change(..)
            | Request::CutSeals(..)
            | Request::Query(_)
            | Request::Read(_) => 0,
        });
        let room = format::group_bytes(payload_bytes.sum());
        if let Err(reason) = self.room.reserve(&mut self.journal, room) {
            return Some(reason);
        }
        let has_commands = batch
            .iter()
            .any(|each| matches!(each.request, Request::Operation(..)));
        // Commands find out by themselves.
        if !has_commands {
            self.room.rehearse(&self.journal);
        }
        None
    }

    /// Lets readiness know why nothing can be written, if so.
    fn publish_unwritable(&mut self, queue: &Queue) {
        let reason = match &self.stopped {
            Some(reason) => Some(reason.clone()),
            None => self.room.missing().or_else(|| self.unacknowledged_by_now()),
        };
        if reason != self.unwritable {
            queue.set_unwritable(reason.clone());
            self.unwritable = reason;
        }
    }

    /// Hands over what was sent, which rests on no more than what is durable.
    fn flush(&mut self) {
        self.replies
            .flush(self.journal.before_seals().next_sequence);
    }

    fn answer(&mut self, failure: Option<&Fault>) {
        let mut answers = mem::take(&mut self.answers);
        for answer in answers.drain(..) {
            let outcome = match (answer.outcome, failure) {
                (outcome, None) => outcome,
                (Ok(_), Some(fault)) => Err(fault.clone().into()),
                // It may rest on a change that was taken back, so it is no refusal; what was asked was
                // not applied in any case.
                (Err(_), Some(fault)) => Err(Fault::Unavailable {
                    reason: match fault {
                        Fault::Unavailable { reason } | Fault::FateUnknown { reason } => {
                            reason.clone()
                        }
                        Fault::Busy { limit, .. } => limit.clone().into(),
                    },
                }
                .into()),
            };
            self.send(answer.reply_to, answer.reply, outcome);
        }
        self.answers = answers;
    }
}
