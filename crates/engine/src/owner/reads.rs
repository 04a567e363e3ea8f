//! What the owner does for reads: lookups and other queries are answered before anything in their
//! batch is decided, lists begin at the same point, and scans continue after the batch's answers.
//!
//! While operations arrive, a scan gets only a share of the time, in slices: a caller waits for at
//! most one slice, and the other threads that an answer needs get CPU time.

use super::Owner;
use crate::{
    disk::DiskFile,
    lists::Turn,
    query::Question,
    queue::{Request, Submission},
};
use std::{collections::VecDeque, time::Duration};
use widgets_clock::Clock;
use widgets_mailbox::Address;
use widgets_queue::{Answered, Waits as _};

/// While operations arrive, a scan rests this many times as long as it has run: CPU time is for
/// operations, and a scan may take seconds.
const SCANS_REST: u32 = 2;

/// For this long after an operation, more are probably coming.
const OPERATIONS_PAUSE: Duration = Duration::from_millis(10);

impl<F: DiskFile, C: Clock> Owner<F, C> {
    /// Answers the reads of the batch and leaves the operations in it. Everything in the state must
    /// be durable.
    pub(super) fn read(&mut self, batch: &mut VecDeque<Submission>, now: Duration) {
        if batch.iter().all(|each| each.request.is_operation()) {
            return self.begin_reads();
        }
        for _ in 0..batch.len() {
            let Some(submission) = batch.pop_front() else {
                break;
            };
            let (reply_to, arrived) = (submission.reply_to, submission.arrived);
            match submission.request {
                Request::Query(question) if !planted!(LookedUpBeforeSync) => {
                    let late = now.saturating_sub(arrived) > self.queue_wait_max;
                    self.answer_query(reply_to, question, late);
                }
                Request::Read(read) if !planted!(ListedBeforeSync) => {
                    self.reads.push(read, reply_to, arrived, &mut self.replies);
                }
                request => batch.push_back(Submission {
                    request,
                    reply_to,
                    arrived,
                }),
            }
        }
        self.begin_reads();
        self.flush();
    }

    pub(super) fn answer_query(
        &mut self,
        reply_to: Address,
        mut question: Box<dyn Question>,
        late: bool,
    ) {
        if late {
            question.refuse(self.late());
            let late = Answered::Other(question);
            return self.replies.send_fault(reply_to, late);
        }
        question.answer(&self.state);
        self.replies.send(reply_to, Answered::Other(question));
    }

    /// Lets lists and scans begin, and scans continue if their rest is over. Everything that was
    /// decided must be durable or rolled back: a read may show only such a moment.
    pub(super) fn advance_reads(&mut self) {
        let began = self.clock.now();
        let scans_go_on = began >= self.scans_due;
        self.take_turn(if scans_go_on { Turn::All } else { Turn::Begin });
        if scans_go_on {
            let ended = self.clock.now();
            let is_beside = ended.saturating_sub(self.operated_at) < OPERATIONS_PAUSE;
            let rests = if is_beside { SCANS_REST } else { 0 };
            self.scans_due = ended + ended.saturating_sub(began) * rests;
        }
    }

    /// Lets lists and scans begin, but none continue.
    fn begin_reads(&mut self) {
        self.take_turn(Turn::Begin);
    }

    fn take_turn(&mut self, turn: Turn) {
        if !self.reads.has_work() {
            return;
        }
        let (now, most) = (self.clock.now(), self.queue_wait_max);
        let fault = self.late();
        let late = |arrived| (now.saturating_sub(arrived) > most).then(|| fault.clone());
        (self.reads).advance(turn, &mut self.state, late, &mut self.replies);
        self.flush();
        self.metrics.scans(self.reads.scans());
    }

    /// Returns how long reads with work left must wait before they continue.
    pub(super) fn reads_rest(&self) -> Duration {
        if self.reads.is_waiting() {
            Duration::ZERO
        } else {
            self.scans_due.saturating_sub(self.clock.now())
        }
    }
}
