//! The queue between callers and the owner of the state: bounded in number and in bytes.

use crate::Settings;
use std::{
    mem,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::Thread,
    time::Duration,
};
use tokio::sync::oneshot;
use widgets_mailbox::{Address, Mailbox, PostOffice};
use widgets_registry::{Command, Fault, Reason, Rejection, SerialNumber, Widget};

/// What a caller wants, and where it waits for the answer.
pub(crate) enum Request {
    Command(Command, oneshot::Sender<Result<(), Rejection>>),
    Lookup(SerialNumber, oneshot::Sender<Result<Option<Widget>, Fault>>),
}

/// A request and when it came.
pub(crate) struct Submission {
    pub(crate) request: Request,
    pub(crate) reply_to: Address,
    pub(crate) arrived: Duration,
}

/// Requests that wait for the owner.
pub(crate) struct Queue {
    waiting: Mutex<Waiting>,
    arrival: Condvar,
    operations_max: usize,
    bytes_max: usize,
}

#[derive(Default)]
struct Waiting {
    submissions: Vec<Submission>,
    bytes: usize,
    /// The owner sleeps: only then an arrival needs to wake it.
    owner_sleeps: bool,
    /// The owner lets requests gather: it is unparked when there are enough of them.
    gathers: Option<Thread>,
    /// The owner has something to do that is no request.
    woken: bool,
    closed: bool,
    /// How many mailboxes were registered.
    mailboxes: usize,
    /// Those that the owner does not know yet.
    new_mailboxes: Vec<Arc<Mailbox<Submission>>>,
    /// Why the owner can write nothing.
    unwritable: Option<Reason>,
}

/// So many waiting requests are worth a commit at any time: what it costs for each of them is then
/// little beside what a request costs in HTTP.
pub(crate) const ENOUGH: usize = 16;

/// A batch takes milliseconds, and seconds are the least that `Retry-After` can say.
const RETRY_AFTER_SECONDS: u32 = 1;

impl Queue {
    pub(crate) fn new(settings: &Settings) -> Self {
        Self {
            waiting: Mutex::default(),
            arrival: Condvar::new(),
            operations_max: settings.queue_operations_max,
            bytes_max: settings.queue_bytes_max,
        }
    }

    /// Adds a request, or answers at once which limit it would pass.
    pub(crate) fn push(&self, submission: Submission) {
        self.push_all(&mut vec![submission]);
    }

    /// Adds requests and leaves `submissions` empty: the owner is woken once for them all. Those
    /// that would pass a limit are answered at once which one it is.
    pub(crate) fn push_all(&self, submissions: &mut Vec<Submission>) {
        let mut waiting = self.lock();
        // All of them fit but for overload, so that nothing is set aside for those that don't.
        let mut refused = Vec::new();
        for submission in submissions.drain(..) {
            let bytes = submission.text_bytes();
            if let Some(fault) = self.no_room(&waiting, bytes) {
                refused.push((submission, fault));
            } else {
                waiting.bytes += bytes;
                waiting.submissions.push(submission);
            }
        }
        let wake = !waiting.submissions.is_empty() && mem::take(&mut waiting.owner_sleeps);
        let gathered = if waiting.submissions.len() >= ENOUGH {
            waiting.gathers.take()
        } else {
            None
        };
        drop(waiting);
        if wake {
            self.arrival.notify_one();
        }
        if let Some(owner) = gathered {
            owner.unpark();
        }
        for (submission, fault) in refused {
            submission.refuse(fault);
        }
    }

    /// Why a request with so many bytes of text cannot wait.
    fn no_room(&self, waiting: &Waiting, bytes: usize) -> Option<Fault> {
        let (limit, value) = if waiting.closed {
            return Some(Fault::Unavailable {
                reason: "it is shutting down".into(),
            });
        } else if waiting.submissions.len() >= self.operations_max {
            ("queue_operations_max", self.operations_max)
        } else if waiting.bytes + bytes > self.bytes_max {
            ("queue_bytes_max", self.bytes_max)
        } else {
            return None;
        };
        Some(Fault::Busy {
            limit: format!("{limit} = {value}"),
            retry_after_seconds: RETRY_AFTER_SECONDS,
        })
    }

    /// Has `owner` unparked once [`ENOUGH`] requests wait, unless it takes them before. False where
    /// there are as many already, or none will come.
    pub(crate) fn unpark_when_enough(&self, owner: Thread) -> bool {
        let mut waiting = self.lock();
        let gathers = waiting.submissions.len() < ENOUGH && !waiting.closed;
        waiting.gathers = gathers.then_some(owner);
        gathers
    }

    /// Makes a mailbox known; what is pushed with its address comes after it.
    pub(crate) fn register(&self, mailbox: Arc<Mailbox<Submission>>) -> Address {
        let mut waiting = self.lock();
        waiting.new_mailboxes.push(mailbox);
        waiting.mailboxes += 1;
        Address::Mailbox(waiting.mailboxes - 1)
    }

    /// Takes everything that waits. Where that is nothing, it waits until something comes or
    /// [`Self::wake`] is called, if it may. New mailboxes go to `post_office`. False once the queue
    /// is closed and empty.
    pub(crate) fn take(
        &self,
        batch: &mut Vec<Submission>,
        post_office: &mut PostOffice<Submission>,
        may_wait: bool,
    ) -> bool {
        let mut waiting = self.lock();
        while waiting.submissions.is_empty() {
            if waiting.closed {
                return false;
            }
            if mem::take(&mut waiting.woken) || !may_wait {
                break;
            }
            waiting.owner_sleeps = true;
            waiting = self
                .arrival
                .wait(waiting)
                .unwrap_or_else(PoisonError::into_inner);
        }
        waiting.owner_sleeps = false;
        waiting.gathers = None;
        waiting.bytes = 0;
        for mailbox in waiting.new_mailboxes.drain(..) {
            post_office.add(mailbox);
        }
        mem::swap(batch, &mut waiting.submissions);
        true
    }

    /// Lets the owner look for something to do that is no request.
    pub(crate) fn wake(&self) {
        let mut waiting = self.lock();
        waiting.woken = true;
        let wake = mem::take(&mut waiting.owner_sleeps);
        drop(waiting);
        if wake {
            self.arrival.notify_one();
        }
    }

    /// How many requests wait, and how many bytes of text they have.
    pub(crate) fn depth(&self) -> (usize, usize) {
        let waiting = self.lock();
        (waiting.submissions.len(), waiting.bytes)
    }

    /// Says why the owner can write nothing, or that it can again, for readiness.
    pub(crate) fn set_unwritable(&self, reason: Option<Reason>) {
        self.lock().unwritable = reason;
    }

    /// Why the owner can write nothing, if so.
    pub(crate) fn unwritable(&self) -> Option<Reason> {
        self.lock().unwritable.clone()
    }

    /// Refuses further requests; those that wait are still taken.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.arrival.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // Nothing in here can panic halfway through a change.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Submission {
    /// Answers that it cannot be taken. The caller may have gone; that changes nothing.
    fn refuse(self, fault: Fault) {
        match self.request {
            Request::Command(_, reply) => drop(reply.send(Err(fault.into()))),
            Request::Lookup(_, reply) => drop(reply.send(Err(fault))),
        }
    }

    fn text_bytes(&self) -> usize {
        match &self.request {
            Request::Command(command, _) => command.text_bytes(),
            Request::Lookup(serial_number, _) => serial_number.len(),
        }
    }
}
