//! The owner of the state: decides a batch in order, makes it durable, answers.
//!
//! Every answer of a batch, refusals and lookups included, waits for the batch's sync: it may rest
//! on a change that is not durable before it. Where the group cannot be written, its changes are
//! taken back from memory, so that lookups go on to show only what is durable.

use crate::{
    Settings,
    checkpoint::{Checkpoints, Position},
    disk::DiskFile,
    format::{self, GROUP_HEADER_BYTES},
    journal::{Append, Journal},
    metrics::Metrics,
    query::Question,
    queue::{Queue, Request, Submission},
    state::{State, Undo},
};
use std::{collections::VecDeque, mem, sync::Arc, thread, time::Duration};
use widgets_clock::Clock;
use widgets_mailbox::Address;
use widgets_pacing::Pacing;
use widgets_queue::{Answered, Outbox, RETRY_AFTER_SECONDS_MAX, Reply};
use widgets_registry::{Command, Fault, Reason, Refusal, Rejection, decide};

/// What callers read while the disk is full.
const NO_ROOM: &str = "no room in the journal";

/// Has the state to itself.
pub(crate) struct Owner<F, C> {
    state: State,
    journal: Journal<F>,
    checkpoints: Checkpoints,
    metrics: Metrics,
    clock: Arc<C>,
    pacing: Arc<Pacing>,
    queue_wait_max: Duration,
    queue_wait_ms_max: u64,
    group: Vec<u8>,
    undo: Vec<Undo>,
    answers: Vec<Answer>,
    outbox: Outbox<Request>,
    /// Why nothing may be written any more.
    stopped: Option<Reason>,
    /// So many bytes the journal had no room for; 0 where it has.
    room_missed: u64,
    /// Why the last group could not be written, and how many bytes it had.
    write_failed: Option<(Reason, usize)>,
    /// What readiness was told last.
    unwritable: Option<Reason>,
}

/// An answer that waits for the sync.
enum Answer {
    Operation(Address, Reply<Command>, Result<(), Refusal>),
    Query(Address, Box<dyn Question>),
}

impl<F: DiskFile, C: Clock> Owner<F, C> {
    pub(crate) fn new(
        state: State,
        journal: Journal<F>,
        checkpoints: Checkpoints,
        metrics: Metrics,
        clock: Arc<C>,
        pacing: Arc<Pacing>,
        settings: &Settings,
    ) -> Self {
        metrics.state(state.counts(), checkpoints.journal_bytes());
        Self {
            state,
            journal,
            checkpoints,
            metrics,
            clock,
            pacing,
            queue_wait_max: Duration::from_millis(settings.queue_wait_ms_max),
            queue_wait_ms_max: settings.queue_wait_ms_max,
            group: Vec::new(),
            undo: Vec::new(),
            answers: Vec::new(),
            outbox: Outbox::default(),
            stopped: None,
            room_missed: 0,
            write_failed: None,
            unwritable: None,
        }
    }

    /// Answers everything that comes, until the queue is closed and empty.
    pub(crate) fn run(mut self, queue: &Queue) {
        let mut batch = VecDeque::new();
        while self.turn(queue, &mut batch, true) {}
    }

    /// Copies a slice for a checkpoint where one is under way or due, and answers what waits. `batch`
    /// is empty before and afterwards. False once the queue is closed and empty.
    pub(crate) fn turn(
        &mut self,
        queue: &Queue,
        batch: &mut VecDeque<Submission>,
        may_wait: bool,
    ) -> bool {
        self.advance_checkpoint();
        let may_wait = may_wait && !self.checkpoints.has_work();
        if !queue.take(batch, &mut self.outbox, may_wait) {
            return false;
        }
        let (operations, began) = (batch.len(), self.clock.now());
        if operations > 0 {
            let decided = self.step(batch);
            let now = self.clock.now();
            queue.applied(decided, now.saturating_sub(began), now);
            self.publish_unwritable(queue);
        }
        if let Some(interval) = self.pacing.commit_interval(operations) {
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
            } else {
                self.clock.park(rest);
                break;
            }
        }
    }

    #[cfg(test)]
    pub(crate) fn state(&self) -> &State {
        &self.state
    }

    #[cfg(test)]
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
        let position = Position {
            segment: self.journal.segment_number(),
            next_sequence: self.journal.next_sequence(),
        };
        self.checkpoints
            .advance(&self.state, position, now, &self.metrics);
    }

    /// Answers every submission of the batch and leaves it empty. How many operations were decided,
    /// and not met by a fault.
    pub(crate) fn step(&mut self, batch: &mut VecDeque<Submission>) -> usize {
        let now = self.clock.now();
        self.metrics.batch(batch.len());
        let unavailable = self.unavailable(batch);
        self.group.clear();
        self.group.resize(GROUP_HEADER_BYTES, 0);
        for submission in batch.drain(..) {
            let late = now.saturating_sub(submission.arrived) > self.queue_wait_max;
            let reply_to = submission.reply_to;
            match submission.request {
                Request::Operation(command, reply) => {
                    let fault = if late {
                        if planted!(LateApplied) {
                            drop(self.decide(&command));
                        }
                        Some(self.late())
                    } else {
                        self.undecidable(&command, unavailable.as_ref())
                    };
                    if let Some(fault) = fault {
                        self.send(reply_to, reply, Err(fault.into()));
                    } else {
                        match self.decide(&command) {
                            Err(refusal) if planted!(RefusedBeforeSync) => {
                                self.send(reply_to, reply, Err(refusal.into()));
                            }
                            outcome => {
                                self.answers
                                    .push(Answer::Operation(reply_to, reply, outcome));
                            }
                        }
                    }
                }
                Request::Query(mut question) if late => {
                    question.refuse(self.late());
                    self.outbox.send(reply_to, Answered::Other(question));
                }
                Request::Query(question)
                    if self.undo.is_empty() || planted!(LookedUpBeforeSync) =>
                {
                    self.answer_query(reply_to, question);
                }
                Request::Query(question) => {
                    self.answers.push(Answer::Query(reply_to, question));
                }
            }
        }
        if planted!(AnsweredBeforeSync) {
            self.answer(None);
        }
        // What needs no sync does not wait for it.
        self.outbox.flush();
        let failure = self.commit();
        let is_operation = |answer: &&Answer| matches!(answer, Answer::Operation(..));
        let decided = self.answers.iter().filter(is_operation).count();
        self.answer(failure.as_ref());
        self.outbox.flush();
        if failure.is_none() { decided } else { 0 }
    }

    fn send(&mut self, reply_to: Address, reply: Reply<Command>, answer: Result<(), Rejection>) {
        self.outbox
            .send(reply_to, Answered::Operation(reply, answer));
    }

    fn answer_query(&mut self, reply_to: Address, mut question: Box<dyn Question>) {
        question.answer(&self.state);
        self.outbox.send(reply_to, Answered::Other(question));
    }

    /// Why this command cannot be decided now.
    fn undecidable(&self, command: &Command, unavailable: Option<&Reason>) -> Option<Fault> {
        let reason = match unavailable {
            Some(reason) => reason.clone(),
            None if self.state.is_full() && matches!(command, Command::AddWidget { .. }) => {
                "no further widget can be numbered".into()
            }
            None => return None,
        };
        Some(Fault::Unavailable { reason })
    }

    /// Why commands cannot be decided now: an earlier failure, or no room for what they could take.
    fn unavailable(&mut self, batch: &VecDeque<Submission>) -> Option<Reason> {
        if self.stopped.is_some() {
            return self.stopped.clone();
        }
        let payload_bytes = batch.iter().map(|each| match &each.request {
            Request::Operation(command, _) => format::change_bytes_max(command),
            Request::Query(_) => 0,
        });
        // What could not be had is asked for again, also where lookups alone come: so readiness tells
        // when there is room again.
        let room = format::group_bytes(payload_bytes.sum()).max(self.room_missed);
        match self.journal.reserve(room) {
            Ok(()) => {
                self.room_missed = 0;
                let has_commands = batch
                    .iter()
                    .any(|each| matches!(each.request, Request::Operation(..)));
                if !has_commands {
                    self.rehearse_write();
                }
                None
            }
            // Whoever failed to make room has logged why.
            Err(error) => {
                self.room_missed = room;
                Some(Reason::new(NO_ROOM, error.to_string()))
            }
        }
    }

    /// Where the last group could not be written, sees whether one could be now. Commands find out by
    /// themselves.
    fn rehearse_write(&mut self) {
        if let Some((reason, bytes)) = self.write_failed.take()
            && self.journal.rehearse(bytes).is_err()
        {
            self.write_failed = Some((reason, bytes));
        }
    }

    /// Lets readiness know why nothing can be written, if so.
    fn publish_unwritable(&mut self, queue: &Queue) {
        let reason = match &self.stopped {
            Some(reason) => Some(reason.clone()),
            None if self.room_missed > 0 => Some(NO_ROOM.into()),
            None => self.write_failed.as_ref().map(|(reason, _)| reason.clone()),
        };
        if reason != self.unwritable {
            queue.set_unwritable(reason.clone());
            self.unwritable = reason;
        }
    }

    fn decide(&mut self, command: &Command) -> Result<(), Refusal> {
        let change = decide(&self.state, command)?;
        format::encode_change(&mut self.group, &self.state, command, change);
        self.undo.push(self.state.apply(command, change));
        Ok(())
    }

    fn late(&self) -> Fault {
        let limit = format!("queue_wait_ms_max = {}", self.queue_wait_ms_max);
        // Whoever came sooner would wait in vain again.
        let seconds = self.queue_wait_ms_max.div_ceil(1000);
        let seconds = u32::try_from(seconds).unwrap_or(u32::MAX);
        Fault::Busy {
            limit,
            retry_after_seconds: seconds.clamp(1, RETRY_AFTER_SECONDS_MAX),
        }
    }

    /// Makes the changes durable, or takes them back and says what to answer.
    fn commit(&mut self) -> Option<Fault> {
        if self.undo.is_empty() {
            return None;
        }
        let Ok(changes) = u32::try_from(self.undo.len()) else {
            unreachable!("a batch is bounded by queue_operations_max")
        };
        let began = self.clock.now();
        let Err(failure) = self.journal.append(&mut self.group, changes) else {
            self.undo.clear();
            self.write_failed = None;
            self.checkpoints.appended(self.group.len() as u64);
            let duration = self.clock.now().saturating_sub(began);
            let journal_bytes = self.checkpoints.journal_bytes();
            self.metrics
                .commit(duration, self.state.counts(), journal_bytes);
            return None;
        };
        if planted!(UndoIncomplete) {
            self.undo.remove(0);
        }
        while let Some(last) = self.undo.pop() {
            self.state.undo(last);
        }
        Some(match failure {
            Append::NotWritten(error) => {
                tracing::error!(%error, "writing the journal failed: nothing was applied");
                let reason = Reason::new("writing the journal failed", error.to_string());
                self.write_failed = Some((reason.clone(), self.group.len()));
                Fault::Unavailable { reason }
            }
            Append::FateUnknown(error) => {
                tracing::error!(%error, "syncing the journal failed: read-only until restart");
                let reason = Reason::new("syncing the journal failed", error.to_string());
                self.metrics.read_only();
                self.stopped = Some(Reason::new(
                    "syncing the journal failed, it is read-only until it is restarted",
                    error.to_string(),
                ));
                Fault::FateUnknown { reason }
            }
        })
    }

    fn answer(&mut self, failure: Option<&Fault>) {
        let mut answers = mem::take(&mut self.answers);
        for answer in answers.drain(..) {
            match answer {
                Answer::Query(reply_to, question) => self.answer_query(reply_to, question),
                Answer::Operation(reply_to, reply, outcome) => {
                    let outcome = match (outcome, failure) {
                        (outcome, None) => outcome.map_err(Into::into),
                        (Ok(()), Some(fault)) => Err(fault.clone().into()),
                        // It may rest on a change that was taken back, so it is no refusal; what was
                        // asked was not applied in any case.
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
                    self.send(reply_to, reply, outcome);
                }
            }
        }
        self.answers = answers;
    }
}
