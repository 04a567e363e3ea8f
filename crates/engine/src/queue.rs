//! The queue between callers and the owner of the state: what wakes the owner, and when.

use crate::{
    FollowError, JournalEnd, LoggedGroup, Settings,
    lists::Read,
    log::{EngineFeed, Log},
    owner::{Change, Replies},
    query::{Query, Question},
};
use std::{
    collections::VecDeque,
    mem,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::Thread,
    time::Duration,
};
use tokio::sync::oneshot;
use widgets_mailbox::{Address, Deliver as _};
use widgets_pacing::ENOUGH;
use widgets_queue::{Asked, Bounded, Depth, Limits, Mailbox, Reply, Takes, Waits};
use widgets_registry::{
    Attempt, Fault, Feed, Reason, Request as _,
    query::{List, NeighbourhoodQuery},
};

/// A caller's request, and where the caller waits for the answer.
pub enum Request {
    /// An operation.
    Operation(Attempt, Reply<Attempt>),
    /// A request that only reads.
    #[expect(private_interfaces, reason = "nobody else makes one")]
    Query(Box<dyn Question>),
    /// A read of many widgets, which may take several turns.
    #[expect(private_interfaces, reason = "nobody else makes one")]
    Read(Read),
    /// The next group of the primary that the store follows.
    Group(Arc<LoggedGroup>, oneshot::Sender<Result<(), FollowError>>),
    /// Makes the store take groups (`true`) or operations (`false`).
    Follow(bool, oneshot::Sender<()>),
    /// Changes the role or the epochs in the file `store`.
    Change(Change, oneshot::Sender<Result<(), FollowError>>),
    /// Writes a record to the journal that names a member, or nobody, as the holder.
    Record(Naming, oneshot::Sender<Result<JournalEnd, FollowError>>),
    /// Ends the journal here, without the seals after this position.
    CutSeals(JournalEnd, oneshot::Sender<Result<(), FollowError>>),
}

/// What a record says.
#[derive(Clone, Copy, Debug)]
pub struct Naming {
    /// The holder, if any.
    pub(crate) member: Option<u64>,
    /// Whether this is the record that a promoted store writes before it takes operations.
    pub(crate) is_first: bool,
}

/// A request and when it arrived.
pub(crate) type Submission = widgets_queue::Submission<Request>;

/// Requests that wait for the owner.
pub struct Queue {
    waiting: Mutex<Waiting>,
    arrival: Condvar,
    log: Arc<Log>,
}

struct Waiting {
    requests: Bounded<Request>,
    /// How the owner sleeps, if it does. Only then must it be woken.
    owner: Option<Sleep>,
    /// The owner's thread while it lets requests accumulate. It is unparked when there are enough.
    gathers: Option<Thread>,
    /// Whether the owner has something to do that is not a request.
    woken: bool,
    /// Whether a request waits that changes the role or the holder.
    is_urgent: bool,
    /// How many mailboxes were registered.
    mailboxes: usize,
    /// The mailboxes that the owner does not know yet.
    new_mailboxes: Vec<Arc<Mailbox<Request>>>,
    /// Why the owner cannot write anything, if so.
    unwritable: Option<Reason>,
}

/// What ends a sleep of the owner early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sleep {
    /// Any arrival, and [`Queue::wake`].
    UntilArrival,
    /// Only [`Queue::wake`], and the arrival of a request that changes the role or the holder.
    UntilWoken,
}

/// The queue has one lane: everything is taken together, in order.
const ALL: usize = 0;

impl Queue {
    pub(crate) fn new(settings: &Settings, log: Arc<Log>) -> Self {
        let limits = Limits {
            operations_max: settings.queue_operations_max,
            bytes_max: settings.queue_bytes_max,
        };
        Self {
            waiting: Mutex::new(Waiting {
                requests: Bounded::new(limits),
                owner: None,
                gathers: None,
                woken: false,
                is_urgent: false,
                mailboxes: 0,
                new_mailboxes: Vec::new(),
                unwritable: None,
            }),
            arrival: Condvar::new(),
            log,
        }
    }

    /// Unparks `owner` once [`ENOUGH`] requests wait, unless it takes them before. Returns false if
    /// there are that many already, or none will come.
    pub(crate) fn unpark_when_enough(&self, owner: Thread) -> bool {
        let mut waiting = self.lock();
        let gathers = waiting.count() < ENOUGH && !waiting.requests.is_closed();
        waiting.gathers = gathers.then_some(owner);
        gathers
    }

    /// Takes all waiting requests into `batch`, which must be empty. If there are none, waits until
    /// one arrives or [`Self::wake`] is called, but no longer than `wait`. New mailboxes go to
    /// `replies`. Returns false once the queue is closed and empty.
    pub(crate) fn take(
        &self,
        batch: &mut VecDeque<Submission>,
        replies: &mut Replies,
        wait: Duration,
    ) -> bool {
        let mut waiting = self.sleep(wait, Sleep::UntilArrival, |waiting| {
            let has_work = !waiting.requests.is_empty() || waiting.requests.is_closed();
            has_work || mem::take(&mut waiting.woken) || wait.is_zero()
        });
        if waiting.requests.is_empty() && waiting.requests.is_closed() {
            return false;
        }
        waiting.gathers = None;
        waiting.is_urgent = false;
        waiting.requests.take_all(ALL, batch);
        introduce(waiting, replies);
        true
    }

    /// Takes only the requests that change the role or the holder into `batch`, which must be
    /// empty, and what must be decided before them. Everything else keeps its place. Does not wait.
    pub(crate) fn take_urgent(&self, batch: &mut VecDeque<Submission>, replies: &mut Replies) {
        let mut waiting = self.lock();
        if !mem::take(&mut waiting.is_urgent) {
            return;
        }
        // Whoever makes the store follow relies on everything that arrived before.
        let follows = |it: &Submission| matches!(it.request, Request::Follow(..));
        let last = waiting.requests.lane(ALL).iter().rposition(follows);
        let mut before = last.map_or(0, |at| at + 1);
        waiting.requests.take(ALL, usize::MAX, |submission| {
            let is_taken = before > 0 || submission.request.is_urgent();
            before = before.saturating_sub(1);
            if !is_taken {
                return Some(submission);
            }
            batch.push_back(submission);
            None
        });
        introduce(waiting, replies);
    }

    /// Records how many operations were applied in how much time, for `Retry-After`.
    pub(crate) fn applied(&self, operations: usize, elapsed: Duration, now: Duration) {
        if operations == 0 {
            return;
        }
        self.lock().requests.applied(operations, elapsed, now);
    }

    /// Wakes the owner for something that is not a request.
    pub(crate) fn wake(&self) {
        let mut waiting = self.lock();
        waiting.woken = true;
        let wake = waiting.owner.take().is_some();
        drop(waiting);
        if wake {
            self.arrival.notify_one();
        }
    }

    /// Waits until [`Self::wake`] is called or a request changes the role or the holder, whatever
    /// else arrives, but no longer than `wait`.
    pub(crate) fn rest(&self, wait: Duration) {
        drop(self.sleep(wait, Sleep::UntilWoken, |waiting| {
            mem::take(&mut waiting.woken) || waiting.is_urgent
        }));
    }

    /// Reports whether the owner [rests](Self::rest) and was not woken.
    #[cfg(test)]
    pub(crate) fn is_rested_on(&self) -> bool {
        self.lock().owner == Some(Sleep::UntilWoken)
    }

    /// Sleeps until `is_so` returns true, but no longer than `wait`.
    fn sleep(
        &self,
        wait: Duration,
        sleep: Sleep,
        mut is_so: impl FnMut(&mut Waiting) -> bool,
    ) -> MutexGuard<'_, Waiting> {
        let mut waiting = self.lock();
        while !is_so(&mut waiting) {
            waiting.owner = Some(sleep);
            let (woken, timeout) = self
                .arrival
                .wait_timeout(waiting, wait)
                .unwrap_or_else(PoisonError::into_inner);
            waiting = woken;
            if timeout.timed_out() {
                break;
            }
        }
        waiting.owner = None;
        waiting
    }

    /// Records why the owner cannot write anything, or that it can again, for readiness.
    pub(crate) fn set_unwritable(&self, reason: Option<Reason>) {
        self.lock().unwritable = reason;
    }

    /// Refuses further requests. Those that already wait are still taken.
    pub(crate) fn close(&self) {
        self.lock().requests.close();
        self.arrival.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // No code that holds the lock can panic halfway through a change.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    fn count(&self) -> usize {
        self.requests.lane(ALL).len()
    }
}

/// Adds the new mailboxes to `replies`, before anything that was taken can be answered. The lock is
/// released first: the gate, which gets them as well, wakes the owner under its own lock.
fn introduce(mut waiting: MutexGuard<'_, Waiting>, replies: &mut Replies) {
    let new = mem::take(&mut waiting.new_mailboxes);
    drop(waiting);
    for mailbox in new {
        replies.add(mailbox);
    }
}

impl widgets_queue::Queue for Queue {
    type Request = Request;

    /// Wakes the owner once for all of them.
    fn push_all(&self, submissions: &mut Vec<Submission>) {
        let mut waiting = self.lock();
        // Except under overload all of them fit, so nothing is allocated in advance for those that
        // do not.
        let mut refused = Vec::new();
        for submission in submissions.drain(..) {
            let is_urgent = submission.request.is_urgent();
            match waiting.requests.push(ALL, submission) {
                Ok(()) => waiting.is_urgent |= is_urgent,
                Err(error) => refused.push(error),
            }
        }
        let wake = match waiting.owner {
            Some(Sleep::UntilArrival) => waiting.count() > 0,
            Some(Sleep::UntilWoken) => waiting.is_urgent,
            None => false,
        };
        if wake {
            waiting.owner = None;
        }
        let gathered = if waiting.count() >= ENOUGH {
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
            submission.request.refuse(fault);
        }
    }

    fn register(&self, mailbox: Arc<Mailbox<Request>>) -> Address {
        let mut waiting = self.lock();
        waiting.new_mailboxes.push(mailbox);
        waiting.mailboxes += 1;
        Address::Mailbox(waiting.mailboxes - 1)
    }

    fn unavailable(&self) -> Option<Reason> {
        self.lock().unwritable.clone()
    }

    fn depth(&self) -> Depth {
        self.lock().requests.depth()
    }

    fn feed(&self) -> Option<Arc<dyn Feed>> {
        Some(Arc::new(EngineFeed(self.log.clone())))
    }
}

impl Takes<Attempt> for Queue {
    fn request(attempt: Attempt, reply: Reply<Attempt>) -> Request {
        Request::Operation(attempt, reply)
    }
}

impl<Q: Query> Takes<Q> for Queue {
    fn request(query: Q, reply: Reply<Q>) -> Request {
        Request::Query(Box::new(Asked::new(query, reply)))
    }
}

impl Takes<List> for Queue {
    fn request(list: List, reply: Reply<List>) -> Request {
        Request::Read(Read::List(Box::new(Asked::new(list, reply))))
    }
}

impl Takes<NeighbourhoodQuery> for Queue {
    fn request(query: NeighbourhoodQuery, reply: Reply<NeighbourhoodQuery>) -> Request {
        Request::Read(Read::Neighbourhood(Box::new(Asked::new(query, reply))))
    }
}

impl Request {
    /// Reports whether this changes the role or the holder. It is then taken even if operations
    /// must wait for a holder, because what they wait for may depend on it.
    fn is_urgent(&self) -> bool {
        match self {
            Self::Follow(..) | Self::Change(..) | Self::Record(..) | Self::CutSeals(..) => true,
            Self::Operation(..) | Self::Query(_) | Self::Read(_) | Self::Group(..) => false,
        }
    }
}

impl Waits for Request {
    fn text_bytes(&self) -> usize {
        match self {
            Self::Operation(attempt, _) => attempt.text_bytes(),
            Self::Query(question) => question.text_bytes(),
            Self::Read(read) => read.text_bytes(),
            // Only one of these waits at a time.
            Self::Group(..)
            | Self::Follow(..)
            | Self::Change(..)
            | Self::Record(..)
            | Self::CutSeals(..) => 0,
        }
    }

    fn is_operation(&self) -> bool {
        matches!(self, Self::Operation(..))
    }

    fn refuse(self, fault: Fault) {
        match self {
            Self::Operation(_, reply) => drop(reply.send(Err(fault.into()))),
            Self::Query(mut question) => {
                question.refuse(fault);
                question.deliver();
            }
            Self::Read(read) => read.refused(fault).deliver(),
            // The caller sees that the reply channel was closed.
            Self::Follow(..) => {}
            Self::Record(_, reply) => {
                drop(reply.send(Err(FollowError::NotNow(fault.to_string()))));
            }
            Self::Group(_, reply) | Self::CutSeals(_, reply) | Self::Change(_, reply) => {
                drop(reply.send(Err(FollowError::NotNow(fault.to_string()))));
            }
        }
    }
}
