//! What the owner does for those who read: lookups and the like are answered before anything of their batch is decided,
//! lists begin there, and scans go on behind its answers.
//!
//! Beside operations a scan has a share of the time, and comes in slices: whoever waits for an answer waits for no more
//! than one of them, and processors have time for the others who make the answer.

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

/// Beside operations, scans rest so many times as long as they have gone on: processor time is for what
/// changes something, and a scan has seconds.
const SCANS_REST: u32 = 2;

/// So long after an operation there are probably more.
const OPERATIONS_PAUSE: Duration = Duration::from_millis(10);

impl<F: DiskFile, C: Clock> Owner<F, C> {
    /// Answers what reads, and leaves the operations in the batch. Everything in the state must be durable.
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

    /// Lets what reads many widgets begin, and scans go on if their rest is over. What was decided is durable or
    /// taken back at this moment: only such a moment can be shown.
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

    /// Lets what reads many widgets begin, and nothing go on.
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

    /// How long what reads waits for operations before it goes on.
    pub(super) fn reads_rest(&self) -> Duration {
        if self.reads.is_waiting() {
            Duration::ZERO
        } else {
            self.scans_due.saturating_sub(self.clock.now())
        }
    }
}
