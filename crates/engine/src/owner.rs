//! The owner of the state: answers reads, decides the operations of a batch in order, makes them
//! durable, and answers them.
//!
//! Between batches everything in the state is durable, and the state contains every operation that
//! was answered. Reads are therefore answered before anything in their batch is decided, and wait
//! at most for the sync that was under way when they arrived. Every other answer, including a
//! refusal, waits for the batch's sync, because it may depend on a change that is not durable until
//! then. If the group cannot be written, its changes are rolled back in memory.
//!
//! If answers must wait for another machine, they pass through the gate of `acknowledge`
//! ([`standby`](self::standby)).
//!
//! If the store follows another one, it takes that store's groups instead of operations
//! ([`follow`](self::follow)).

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

/// How long after the last commit the journal gets a seal.
const SEAL_PAUSE: Duration = Duration::from_secs(1);

/// The exclusive owner of the state and the journal.
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
    /// The number of idempotency keys in the group.
    keys: usize,
    /// The key with which idempotency keys are hashed.
    secret: [u8; 16],
    /// The commit time of the current group, in microseconds since 1970.
    at: u64,
    /// Whether the journal ends with a seal, or is empty.
    is_sealed: bool,
    /// When the journal gets a seal if nothing is committed before.
    seal_at: Duration,
    undo: Vec<Undo>,
    answers: Vec<Answer>,
    /// Callers that changed whether the store follows, and wait until everything decided before is
    /// in the journal, and everything changed before is in the file `store`.
    turned: Vec<oneshot::Sender<()>>,
    /// Changes to the file `store`, to be made after the commit.
    changing: Vec<Changing>,
    keep_store: KeepStore,
    reads: Reads,
    /// When the last operation was decided.
    operated_at: Duration,
    /// Scans do not continue before this time.
    scans_due: Duration,
    replies: Replies,
    /// Operations that wait for a holder to connect, and then for room in a batch.
    aside: VecDeque<Submission>,
    /// Why operations are refused, if nothing was acknowledged or no holder connected in time.
    unacknowledged: Option<Reason>,
    /// The records in the group, whose writers wait.
    records: Vec<Recorded>,
    /// The holder before the group.
    holding_before: Holding,
    /// The member number of this directory.
    member: u64,
    queue_operations_max: usize,
    queue_bytes_max: usize,
    /// Whether the store takes no operations, only the groups of a primary.
    follows: bool,
    /// Why nothing may be written any more, if so.
    stopped: Option<Reason>,
    /// Whether the journal accepts what operations write.
    room: Room,
    /// The reason that was last reported to readiness.
    unwritable: Option<Reason>,
}

/// What the owner starts with in memory.
pub(crate) struct Known {
    pub(crate) state: State,
    pub(crate) retries: Retries,
    /// The key with which idempotency keys are hashed.
    pub(crate) secret: [u8; 16],
    /// Where each group is published.
    pub(crate) log: Arc<Log>,
    /// The member number of this directory.
    pub(crate) member: u64,
    /// What holds answers back, if they wait for another machine.
    pub(crate) gate: Option<Arc<Gate>>,
    /// Writes the file `store`.
    pub(crate) keep_store: KeepStore,
}

/// An answer to an operation, which waits for the sync.
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

    /// Answers all requests until the queue is closed and empty.
    pub(crate) fn run(mut self, queue: &Queue) {
        self.room.look(&mut self.journal);
        self.publish_unwritable(queue);
        let mut batch = VecDeque::new();
        while self.turn(queue, &mut batch, true) {}
        self.end_waiting();
    }

    /// Copies a slice of a checkpoint if one is under way or due, lets lists continue, and answers
    /// what waits. `batch` is empty before and afterwards. Returns false once the queue is closed
    /// and empty.
    pub(crate) fn turn(
        &mut self,
        queue: &Queue,
        batch: &mut VecDeque<Submission>,
        may_wait: bool,
    ) -> bool {
        self.advance_checkpoint();
        if self.rests_for_standby(queue, batch, may_wait) {
            return true;
        }
        let wait = if may_wait {
            self.longest_wait()
        } else {
            Duration::ZERO
        };
        let is_open = queue.take(batch, &mut self.replies, wait);
        if !is_open && !self.may_go_on(self.clock.now()) {
            // Reads that already arrived are still answered.
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
            self.answer_all(queue, batch, began);
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

    /// Answers every submission in the batch and drains it. The work began at `began`.
    fn answer_all(&mut self, queue: &Queue, batch: &mut VecDeque<Submission>, began: Duration) {
        let decided = self.step(batch);
        let now = self.clock.now();
        self.operated_at = now;
        queue.applied(decided, now.saturating_sub(began), now);
        self.publish_unwritable(queue);
    }

    /// Returns how long the owner may wait for requests before it has something else to do.
    pub(crate) fn longest_wait(&self) -> Duration {
        let now = self.clock.now();
        let wait = if self.checkpoints.has_work() || self.may_go_on(now) {
            Duration::ZERO
        } else if self.reads.has_work() {
            self.reads_rest()
        } else if self.is_sealed || self.follows || self.stopped.is_some() {
            Duration::MAX
        } else {
            self.seal_at.saturating_sub(now)
        };
        self.wait_with_standby(wait)
    }

    /// Waits for operations to accumulate until the next commit may begin, and meanwhile copies
    /// slices of a checkpoint and continues reads.
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

    /// Copies a slice of the state if a checkpoint is under way or due. At this moment everything
    /// that was decided is either durable or rolled back, so a checkpoint never contains anything
    /// else.
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

    /// Answers every submission in the batch and drains it. Returns how many operations were
    /// decided without a fault.
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
                // Only a planted bug leaves queries and reads in the batch.
                Request::Query(question) => self.answer_query(reply_to, question, late),
                Request::Group(group, reply) => {
                    // The caller may be gone; the group is followed anyway.
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
        // Answers that need no sync do not wait for it.
        self.flush();
        let failure = self.commit();
        self.change_header();
        // The caller reads next where the journal ends, and in which epoch. It may be gone; the
        // change applies anyway.
        for turned in self.turned.drain(..) {
            _ = turned.send(());
        }
        let decided = self.answers.len();
        self.answer(failure.as_ref());
        self.flush();
        // Work that nobody waits for comes after the answers.
        self.state.keep_up();
        self.advance_reads();
        if failure.is_none() { decided } else { 0 }
    }

    /// Switches to taking a primary's groups (`true`) or operations (`false`).
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

    /// Returns why commands cannot be decided now: an earlier failure, the store's role, or too
    /// little room for what they might write.
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
        // Commands find out by writing.
        if !has_commands {
            self.room.rehearse(&self.journal);
        }
        None
    }

    /// Reports to readiness why nothing can be written, if so.
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

    /// Hands over the collected answers. They depend only on what is durable now.
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
                // The refusal may depend on a change that was rolled back, so it must not be given.
                // In either case the operation was not applied.
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
