//! How the owner decides an operation: first by what is remembered of its key, then by what
//! prevents deciding anything, then by the state.

use super::Owner;
use crate::{
    disk::DiskFile,
    format::Keyed,
    journal::replay::seconds,
    retries::{self, Kept, Outcome},
};
use widgets_clock::Clock;
use widgets_queue::too_long;
use widgets_registry::{Applied, Attempt, Command, Fault, Reason, Refusal, Rejection, decide};

/// A decided operation and when its answer may be sent.
pub(super) enum Decided {
    /// An answer that depends on nothing in the state.
    Fault(Fault),
    /// An answer that depends only on durable data.
    Durable(Result<Applied, Rejection>),
    /// An answer that may depend on what this batch changes.
    Pending(Result<Applied, Rejection>),
}

impl<F: DiskFile, C: Clock> Owner<F, C> {
    /// Decides an operation, and determines when its answer may be sent.
    pub(super) fn operation(
        &mut self,
        attempt: &Attempt,
        late: bool,
        unavailable: Option<&Reason>,
    ) -> Decided {
        let key = attempt.key.as_ref();
        let keyed = key.map(|key| retries::digest(&self.secret, key, attempt));
        if let Some(keyed) = &keyed
            && let Some(remembered) = self.remembered(keyed, &attempt.command)
        {
            return remembered;
        }
        let fault = if late {
            if planted!(LateApplied) {
                drop(self.decide(attempt, keyed));
            }
            Some(self.late())
        } else {
            self.undecidable(&attempt.command, unavailable)
        };
        if let Some(fault) = fault {
            return Decided::Fault(fault);
        }
        match self.decide(attempt, keyed) {
            Err(refusal) if planted!(RefusedBeforeSync) => Decided::Durable(Err(refusal.into())),
            Ok(()) => Decided::Pending(Ok(Applied::Now)),
            Err(refusal) => Decided::Pending(Err(refusal.into())),
        }
    }

    /// Returns the answer that this key's first use got, if the key is known.
    fn remembered(&mut self, keyed: &Keyed, command: &Command) -> Option<Decided> {
        let found = self.retries.find(keyed, seconds(self.at))?;
        if planted!(RetryApplied) {
            return None;
        }
        let before = found.outcome.and_then(|outcome| outcome.answer(command));
        self.metrics.replayed(before.is_some());
        let answer = match before {
            Some(Ok(())) => Ok(Applied::Before),
            Some(Err(refusal)) => Err(Rejection::Replayed(refusal)),
            // The key was used for another request.
            None => Err(Refusal::KeyReused.into()),
        };
        Some(if found.is_settled || planted!(ReplayedBeforeSync) {
            Decided::Durable(answer)
        } else {
            Decided::Pending(answer)
        })
    }

    fn decide(&mut self, attempt: &Attempt, keyed: Option<Keyed>) -> Result<(), Refusal> {
        let Attempt {
            command, author, ..
        } = attempt;
        let decided = decide(&self.state, command);
        if let Some(keyed) = keyed
            && let Some(outcome) = Outcome::of(command, &decided)
        {
            self.retries.insert(Kept {
                keyed,
                at_seconds: seconds(self.at),
                outcome,
            });
            self.keys += 1;
            if decided.is_err() {
                self.group.refusal(outcome, author.as_ref(), &keyed);
            }
        }
        let change = decided?;
        let (author, keyed) = (author.as_ref(), keyed.as_ref());
        self.group
            .change(&self.state, command, change, author, keyed);
        self.reads.before_change(&self.state, command, change);
        self.undo.push(self.state.apply(command, change));
        Ok(())
    }

    pub(super) fn late(&self) -> Fault {
        let limit = format!("queue_wait_ms_max = {}", self.queue_wait_ms_max);
        too_long(limit, self.queue_wait_ms_max)
    }

    /// Returns why this command cannot be decided now, if so.
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
}
