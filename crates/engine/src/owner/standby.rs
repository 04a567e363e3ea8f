//! What the owner does if answers wait for another machine: it rests while too much is
//! unacknowledged, sets operations aside while no holder is connected, and withdraws what was not
//! acknowledged in time.

use super::Owner;
use crate::{
    acknowledge::Admission,
    disk::DiskFile,
    queue::{Queue, Request, Submission},
};
use std::{collections::VecDeque, mem, time::Duration};
use widgets_clock::Clock;
use widgets_queue::Waits as _;
use widgets_registry::{Fault, Reason};

impl<F: DiskFile, C: Clock> Owner<F, C> {
    /// Withdraws what is overdue. Returns true if the gate is full, so that no more operations may
    /// be decided; if `may_wait`, it rests first. What changes the role or the holder is taken even
    /// then: until a record is written nothing is acknowledged, so the gate would remain full.
    /// `batch` is empty before and afterwards.
    pub(super) fn rests_for_standby(
        &mut self,
        queue: &Queue,
        batch: &mut VecDeque<Submission>,
        may_wait: bool,
    ) -> bool {
        let Some(gate) = self.replies.gate() else {
            return false;
        };
        gate.expire(self.clock.now());
        if !gate.is_full() {
            return false;
        }
        if may_wait && let Some(deadline) = gate.deadline() {
            queue.rest(deadline.saturating_sub(self.clock.now()));
        }
        queue.take_urgent(batch, &mut self.replies);
        if !batch.is_empty() {
            self.answer_all(queue, batch, self.clock.now());
        }
        true
    }

    /// Returns how long the owner may wait for requests: `wait`, or until the gate's next deadline
    /// if that is sooner.
    pub(super) fn wait_with_standby(&self, wait: Duration) -> Duration {
        let deadline = self.replies.gate().and_then(|gate| gate.deadline());
        deadline.map_or(wait, |deadline| {
            wait.min(deadline.saturating_sub(self.clock.now()))
        })
    }

    /// Reports whether operations that were set aside can now be decided or refused.
    pub(super) fn may_go_on(&self, now: Duration) -> bool {
        let gate = self.replies.gate().filter(|_| !self.aside.is_empty());
        gate.is_some_and(|gate| gate.admission(now) != Admission::Wait)
    }

    /// Sets the batch's operations aside while no holder is connected. Once one is and the gate has
    /// room, or once they must be refused, brings back those that were set aside.
    pub(super) fn set_aside(&mut self, batch: &mut VecDeque<Submission>, now: Duration) {
        self.unacknowledged = None;
        let Some(gate) = self.replies.gate() else {
            return;
        };
        if self.follows || self.stopped.is_some() {
            batch.append(&mut self.aside);
            return;
        }
        match gate.admission(now) {
            Admission::Wait => {
                let (operations, others) = mem::take(batch)
                    .into_iter()
                    .partition(|each| each.request.is_operation());
                *batch = others;
                self.put_aside(operations, now);
            }
            // Only what changes the role or the holder is decided now.
            Admission::Now if gate.is_full() => {}
            admission => {
                if let Admission::Refused(reason) = admission {
                    self.unacknowledged = Some(reason);
                }
                self.bring_back(batch, now);
            }
        }
    }

    /// Puts the operations that were set aside at the front of the batch, and sets aside again what
    /// is too much: a batch must not be more than the queue can hold, because a segment need not
    /// take more.
    fn bring_back(&mut self, batch: &mut VecDeque<Submission>, now: Duration) {
        if self.aside.is_empty() {
            return;
        }
        let mut waiting = mem::take(&mut self.aside);
        // They waited for the holder, not for their turn.
        for each in &mut waiting {
            each.arrived = now;
        }
        waiting.append(batch);
        let is_record = |each: &&Submission| matches!(each.request, Request::Record(..));
        let mut entries = waiting.iter().filter(is_record).count();
        let (mut bytes, mut rest) = (0, VecDeque::new());
        for each in waiting {
            let text_bytes = each.request.text_bytes();
            let fits = entries < self.queue_operations_max
                && (bytes == 0 || bytes + text_bytes <= self.queue_bytes_max);
            if !each.request.is_operation() {
                batch.push_back(each);
            } else if fits && rest.is_empty() {
                entries += 1;
                bytes += text_bytes;
                batch.push_back(each);
            } else {
                rest.push_back(each);
            }
        }
        self.put_aside(rest, now);
    }

    fn put_aside(&mut self, operations: VecDeque<Submission>, now: Duration) {
        let mut bytes: usize = self.aside.iter().map(|it| it.request.text_bytes()).sum();
        for operation in operations {
            let late = now.saturating_sub(operation.arrived) > self.queue_wait_max;
            let text_bytes = operation.request.text_bytes();
            if late {
                operation.request.refuse(self.late());
            } else if self.aside.len() >= self.queue_operations_max {
                let limit = format!("queue_operations_max = {}", self.queue_operations_max);
                operation.request.refuse(busy(limit));
            } else if bytes + text_bytes > self.queue_bytes_max {
                let limit = format!("queue_bytes_max = {}", self.queue_bytes_max);
                operation.request.refuse(busy(limit));
            } else {
                bytes += text_bytes;
                self.aside.push_back(operation);
            }
        }
    }

    /// Tells the gate that a group is durable here, and settles the group's records.
    pub(super) fn committed(&mut self) {
        if let Some(gate) = self.replies.gate()
            && !self.follows
        {
            let next_sequence = self.journal.position().next_sequence;
            gate.committed(next_sequence, self.group.bytes());
        }
        self.settle_records();
    }

    /// Tells the gate that the store now takes operations, or a primary's groups.
    pub(super) fn change_role(&mut self) {
        let next_sequence = self.journal.before_seals().next_sequence;
        if let Some(gate) = self.replies.gate() {
            gate.set_standby(
                self.follows,
                self.state.holding(),
                self.member,
                next_sequence,
            );
        }
    }

    /// Returns why operations are refused for lack of an acknowledgement, for readiness.
    pub(super) fn unacknowledged_by_now(&self) -> Option<Reason> {
        self.replies.gate()?.unwritable(self.clock.now())
    }

    /// Ends all waiting, because the owner ends.
    pub(super) fn end_waiting(&mut self) {
        for operation in mem::take(&mut self.aside) {
            operation.request.refuse(Fault::Unavailable {
                reason: "the store stopped".into(),
            });
        }
        if let Some(gate) = self.replies.gate() {
            gate.end();
        }
    }
}

fn busy(limit: String) -> Fault {
    Fault::Busy {
        limit,
        retry_after_seconds: 1,
    }
}
