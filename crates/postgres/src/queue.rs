//! The queue between callers and connections. It bounds waiting requests in number and in bytes,
//! and forms batches.
//!
//! No widget is named twice among the operations in flight: an operation that names such a widget
//! waits for a later batch. Therefore a batch's operations cannot contradict each other, and the
//! batches of one process do not wait for each other's locks. Operations that name the same widget
//! keep their order. The same holds for idempotency keys: a retry waits for the first attempt and
//! gets the same answer.

pub(crate) mod homes;

use crate::{
    Settings,
    locked::Place,
    query::{Query, Question, Reading as _},
    send::NODE_LOST,
};
use homes::Homes;
use std::{
    collections::{HashSet, VecDeque},
    hash::{BuildHasher as _, RandomState},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::sync::Notify;
use widgets_clock::Clock;
use widgets_mailbox::{Address, Deliver as _};
use widgets_queue::{
    Answered, Asked, Bounded, Depth, Limits, Mailbox, Outbox, Reply, Submission, Takes, Waits,
};
use widgets_registry::{
    Applied, Attempt, Command, Distributed, Fault, Feed, Lookup, Reason, Rejection, Request as _,
    SerialNumber, query::Asker,
};

/// An operation, its arrival time, and the address of its caller.
pub(crate) struct Operation {
    pub(crate) attempt: Attempt,
    pub(crate) arrived: Duration,
    pub(crate) reply: Reply<Attempt>,
    pub(crate) reply_to: Address,
    /// Its place among the operations whose widgets another transaction holds. `None` if it has not
    /// waited there.
    pub(crate) place: Option<Place>,
}

impl Operation {
    /// Pairs the operation's answer with its caller's address.
    pub(crate) fn answered(self, answer: Result<Applied, Rejection>) -> (Address, Answered) {
        (self.reply_to, Answered::Operation(self.reply, answer))
    }
}

/// A request that reads, its arrival time, and the address of its caller.
pub(crate) struct Read<A> {
    pub(crate) asked: A,
    pub(crate) arrived: Duration,
    pub(crate) reply_to: Address,
}

/// Reads that one connection takes together.
#[derive(Default)]
pub(crate) struct Reads {
    /// One statement answers all of them.
    pub(crate) lookups: Vec<Read<Box<Asked<Lookup>>>>,
    /// Each needs its own statement.
    pub(crate) queries: Vec<Read<Box<dyn Question>>>,
}

impl Reads {
    pub(crate) fn is_empty(&self) -> bool {
        self.lookups.is_empty() && self.queries.is_empty()
    }
}

/// A request to the store.
pub enum Request {
    /// An operation.
    Operation(Attempt, Reply<Attempt>),
    /// A lookup. One statement answers many lookups.
    Lookup(Box<Asked<Lookup>>),
    /// Any other request that reads. Each needs its own statement.
    #[expect(private_interfaces, reason = "nobody else makes one")]
    Query(Box<dyn Question>),
    /// A read that may take long.
    #[expect(private_interfaces, reason = "nobody else makes one")]
    List(Box<dyn Question>),
}

/// The requests that wait for a connection.
pub struct Queue {
    waiting: Mutex<Waiting>,
    operations_arrived: Notify,
    reads_arrived: Notify,
    lists_arrived: Notify,
    /// Notified when the placement may have changed.
    moved: Notify,
    /// Answers that are being delivered.
    outbox: Mutex<Outbox<Request>>,
    /// Serial numbers in flight are kept as hashes. If two hashes collide, their operations only
    /// wait for each other.
    hasher: RandomState,
    connections: usize,
    list_connections: usize,
    /// The number of waiting operations at which a batch starts although others are in flight.
    enough: usize,
    feed: Arc<dyn Feed>,
}

struct Waiting {
    requests: Bounded<Request, LANES>,
    in_flight: HashSet<u64>,
    /// How many connections are waiting, for a bounded time, for more operations.
    gathering: usize,
    /// Why operations fail at present although connections are up.
    failing: Option<Reason>,
    /// The askers of the lists that have connections, once for each list.
    listing: Vec<Asker>,
    homes: Homes,
}

/// A list that has a connection until this is dropped.
pub(crate) struct Listing {
    queue: Arc<Queue>,
    asker: Asker,
}

impl Drop for Listing {
    fn drop(&mut self) {
        let mut waiting = self.queue.lock();
        let place = waiting.listing.iter().position(|&each| each == self.asker);
        if let Some(place) = place {
            waiting.listing.swap_remove(place);
        }
        drop(waiting);
        self.queue.lists_arrived.notify_one();
    }
}

/// The number of lanes.
pub(crate) const LANES: usize = 4;

/// Operations, short reads and long reads have separate connections, so that none of them waits for
/// another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lane {
    Operations,
    Reads,
    Lists,
    /// The feed, which puts nothing in the queue.
    Changes,
}

impl Lane {
    /// Returns the lane's name in the log.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Operations => "operations",
            Self::Reads => "reads",
            Self::Lists => "lists",
            Self::Changes => "changes",
        }
    }
}

/// While more than [`FEW`] names are in flight, a further batch starts only when this fraction of
/// it is full or its oldest operation has waited for [`GATHERING`]. Larger commits cost the
/// database less per operation, but the database has more than one core. An operation that has
/// waited longer than that is behind a slow batch, so another connection may help.
const FULL_ENOUGH: usize = 4;
/// With few callers, the service must never be slower than one call of the database per request.
/// Their operations start as soon as a connection is free.
const FEW: usize = 8;
const GATHERING: Duration = Duration::from_millis(20);

/// The hashes of the widgets that an operation names and of its idempotency key.
struct Named([Option<u64>; 3]);

impl Named {
    fn iter(&self) -> impl Iterator<Item = u64> {
        self.0.into_iter().flatten()
    }
}

impl Queue {
    pub(crate) fn new(settings: &Settings, feed: Arc<dyn Feed>) -> Self {
        let limits = Limits {
            operations_max: settings.queue_operations_max,
            bytes_max: settings.queue_bytes_max,
        };
        Self {
            waiting: Mutex::new(Waiting {
                requests: Bounded::new(limits),
                in_flight: HashSet::new(),
                gathering: 0,
                failing: None,
                listing: Vec::new(),
                homes: Homes::default(),
            }),
            operations_arrived: Notify::new(),
            reads_arrived: Notify::new(),
            lists_arrived: Notify::new(),
            moved: Notify::new(),
            outbox: Mutex::default(),
            hasher: RandomState::new(),
            connections: settings.connections,
            list_connections: settings.list_connections,
            enough: enough(settings.batch_operations_max),
            feed,
        }
    }

    /// Moves the oldest operations that can go together, `most` at most, into the empty `batch`,
    /// and waits while there are too few. Returns false once the queue is closed and empty. The
    /// caller must [release](Self::release) the batch.
    pub(crate) async fn take(
        &self,
        batch: &mut Vec<Operation>,
        most: usize,
        clock: &impl Clock,
    ) -> bool {
        loop {
            // Created before checking the queue, so that no later arrival is missed.
            let arrival = self.operations_arrived.notified();
            let gathering = {
                let mut waiting = self.lock();
                let now = clock.now();
                let gathering = waiting.gathering(most, now);
                if gathering.is_none() {
                    self.form(&mut waiting, batch, most, now);
                }
                if !batch.is_empty() {
                    // The rest may be enough for another connection.
                    let more = waiting.count(Lane::Operations) > 0;
                    drop(waiting);
                    if more {
                        self.operations_arrived.notify_one();
                    }
                    return true;
                }
                if waiting.requests.is_closed() && waiting.count(Lane::Operations) == 0 {
                    drop(waiting);
                    // The next waiting task must see this as well.
                    self.operations_arrived.notify_one();
                    return false;
                }
                waiting.gathering += usize::from(gathering.is_some());
                gathering
            };
            match gathering {
                None => arrival.await,
                Some(rest) => {
                    let _ends = Gathering(self);
                    tokio::select! {
                        () = arrival => {}
                        () = clock.timer(rest) => {}
                    }
                }
            }
        }
    }

    fn form(&self, waiting: &mut Waiting, batch: &mut Vec<Operation>, most: usize, now: Duration) {
        let Waiting {
            requests,
            in_flight,
            gathering: _,
            failing: _,
            listing: _,
            homes,
        } = waiting;
        let mut group = homes.group(
            requests.lane(Lane::Operations as usize),
            most,
            self.connections,
            now,
        );
        // The names in operations that were skipped, so that they are not overtaken for ever.
        let mut claimed = HashSet::new();
        requests.take(Lane::Operations as usize, most, |submission| {
            let Request::Operation(attempt, _) = &submission.request else {
                return Some(submission);
            };
            let named = self.named(attempt);
            let free = |name| !in_flight.contains(&name) && !claimed.contains(&name);
            if !named.iter().all(free) || !group.takes(&attempt.command) {
                claimed.extend(named.iter());
                return Some(submission);
            }
            in_flight.extend(named.iter());
            if let Request::Operation(attempt, reply) = submission.request {
                batch.push(Operation {
                    attempt,
                    arrived: submission.arrived,
                    reply,
                    reply_to: submission.reply_to,
                    place: None,
                });
            }
            None
        });
        if let Some(home) = group.home() {
            homes.is_tried(home);
        }
    }

    /// Allows the widgets that these attempts name to be named again. `attempts` are those of a
    /// batch.
    pub(crate) fn release<'a>(&self, attempts: impl Iterator<Item = &'a Attempt>) {
        let mut waiting = self.lock();
        for attempt in attempts {
            for name in self.named(attempt).iter() {
                waiting.in_flight.remove(&name);
            }
        }
        let more = waiting.count(Lane::Operations) > 0;
        drop(waiting);
        if more {
            self.operations_arrived.notify_one();
        }
    }

    /// Allows an operation that is not in the queue to join a batch, unless a batch in flight names
    /// the same widgets. If this returns true, the operation must be [released](Self::release)
    /// later.
    pub(crate) fn claim(&self, attempt: &Attempt) -> bool {
        let mut waiting = self.lock();
        let named = self.named(attempt);
        let free = named.iter().all(|name| !waiting.in_flight.contains(&name));
        if free {
            waiting.in_flight.extend(named.iter());
        }
        free
    }

    /// Records how many operations a connection applied in how much time, for `Retry-After`.
    pub(crate) fn applied(&self, operations: usize, elapsed: Duration, now: Duration) {
        let operations = operations * self.connections;
        self.lock().requests.applied(operations, elapsed, now);
    }

    /// Returns after how many whole seconds another attempt makes sense.
    pub(crate) fn retry_after_seconds(&self, now: Duration) -> u32 {
        self.lock().requests.retry_after_seconds(now)
    }

    /// Records why operations fail although connections are up, or, with `None`, that they succeed.
    pub(crate) fn set_failing(&self, reason: Option<Reason>) {
        self.lock().failing = reason;
    }

    /// Moves the oldest reads, `most` at most, into the empty `batch`, and waits while there are
    /// none. Returns false once the queue is closed and empty.
    pub(crate) async fn take_reads(&self, batch: &mut Reads, most: usize) -> bool {
        loop {
            let arrival = self.reads_arrived.notified();
            {
                let mut waiting = self.lock();
                let lane = Lane::Reads as usize;
                waiting.requests.take(lane, most, |submission| {
                    let (arrived, reply_to) = (submission.arrived, submission.reply_to);
                    match submission.request {
                        Request::Lookup(asked) => batch.lookups.push(Read {
                            asked,
                            arrived,
                            reply_to,
                        }),
                        Request::Query(asked) => batch.queries.push(Read {
                            asked,
                            arrived,
                            reply_to,
                        }),
                        Request::Operation(..) | Request::List(_) => return Some(submission),
                    }
                    None
                });
                let more = waiting.count(Lane::Reads) > 0;
                let done = waiting.requests.is_closed() && batch.is_empty();
                drop(waiting);
                if more || done {
                    self.reads_arrived.notify_one();
                }
                if done {
                    return false;
                }
                if !batch.is_empty() {
                    return true;
                }
            }
            arrival.await;
        }
    }

    /// Takes the oldest list whose asker does not have its full share of the connections yet, and
    /// waits while there is none. Returns `None` once the queue is closed and empty.
    pub(crate) async fn take_list(self: &Arc<Self>) -> Option<(Read<Box<dyn Question>>, Listing)> {
        loop {
            let arrival = self.lists_arrived.notified();
            let taken = {
                let mut taken = None;
                let mut waiting = self.lock();
                let waiting = &mut *waiting;
                let is_closed = waiting.requests.is_closed();
                let (lane, share) = (Lane::Lists as usize, Asker::share(self.list_connections));
                let listing = &mut waiting.listing;
                let mut has_place = |asker: Asker| {
                    let mine = listing.iter().filter(|&&each| each == asker).count();
                    let has_place = mine < share || is_closed;
                    if has_place {
                        listing.push(asker);
                    }
                    has_place
                };
                waiting.requests.take(lane, 1, |submission| {
                    let (arrived, reply_to) = (submission.arrived, submission.reply_to);
                    let asked = match submission.request {
                        Request::List(asked) if has_place(asked.asker()) => asked,
                        request => {
                            return Some(Submission {
                                request,
                                arrived,
                                reply_to,
                            });
                        }
                    };
                    taken = Some(Read {
                        asked,
                        arrived,
                        reply_to,
                    });
                    None
                });
                let more = waiting.count(Lane::Lists) > 0;
                let done = is_closed && taken.is_none();
                // If nothing could be taken, the next list that ends notifies a waiting task.
                if taken.is_some() && more || done {
                    self.lists_arrived.notify_one();
                }
                if done {
                    return None;
                }
                taken
            };
            if let Some(taken) = taken {
                let asker = taken.asked.asker();
                let queue = self.clone();
                return Some((taken, Listing { queue, asker }));
            }
            arrival.await;
        }
    }

    /// Records that this lane has no connection, and why. All waiting requests are refused with
    /// this reason, and new ones at once, until [`Self::set_reachable`] is called.
    pub(crate) fn set_unreachable(&self, lane: Lane, reason: &Reason) {
        let mut refused = VecDeque::new();
        let mut waiting = self.lock();
        let (requests, lane) = (&mut waiting.requests, lane as usize);
        requests.set_unavailable(lane, Some(reason.clone()));
        requests.take_all(lane, &mut refused);
        drop(waiting);
        for submission in refused {
            submission.request.refuse(Fault::Unavailable {
                reason: reason.clone(),
            });
        }
    }

    /// Records that this lane has a connection.
    pub(crate) fn set_reachable(&self, lane: Lane) {
        self.lock().requests.set_unavailable(lane as usize, None);
    }

    /// Delivers answers, with one wake-up for each runtime that receives any.
    pub(crate) fn answer(&self, answers: impl Iterator<Item = (Address, Answered)>) {
        let mut outbox = self.outbox();
        for (address, answer) in answers {
            outbox.send(address, answer);
        }
        outbox.flush();
    }

    /// Refuses further requests. Connections still take those that are waiting.
    pub(crate) fn close(&self) {
        self.lock().requests.close();
        self.operations_arrived.notify_one();
        self.reads_arrived.notify_one();
        self.lists_arrived.notify_one();
    }

    /// Reports whether the queue is closed.
    pub(crate) fn is_closed(&self) -> bool {
        self.lock().requests.is_closed()
    }

    fn named(&self, attempt: &Attempt) -> Named {
        let hash = |serial_number: &SerialNumber| Some(self.hasher.hash_one(serial_number));
        let key = attempt.key.as_ref();
        let key = key.map(|key| self.hasher.hash_one((&attempt.author, key)));
        match &attempt.command {
            Command::AddWidget { serial_number, .. } | Command::RemoveWidget { serial_number } => {
                Named([hash(serial_number), None, key])
            }
            Command::AssociateWidgets(pair) | Command::RemoveAssociation(pair) => {
                Named([hash(pair.widget1()), hash(pair.widget2()), key])
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // No code under this lock can panic halfway through a change.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn outbox(&self) -> MutexGuard<'_, Outbox<Request>> {
        // A panic would leave answers behind, which the next call delivers.
        self.outbox.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl widgets_queue::Queue for Queue {
    type Request = Request;

    /// Wakes connections once for all submissions, and only if they could start something.
    fn push_all(&self, submissions: &mut Vec<Submission<Request>>) {
        let mut waiting = self.lock();
        // Everything fits unless the service is overloaded, so nothing is allocated for refusals in
        // advance.
        let mut refused = Vec::new();
        let [operations, reads, lists] =
            [Lane::Operations, Lane::Reads, Lane::Lists].map(|lane| waiting.count(lane));
        for submission in submissions.drain(..) {
            if let Some(fault) = waiting.homes.refuse(&submission) {
                refused.push((submission, fault));
                continue;
            }
            let lane = submission.request.lane() as usize;
            refused.extend(waiting.requests.push(lane, submission).err());
        }
        // While more than a few names are in flight and a connection is gathering operations, it
        // need not wake until there are enough of them.
        let waits = waiting.count(Lane::Operations);
        let starts = waits > operations
            && (waiting.gathering == 0 || waits >= self.enough || waiting.in_flight.len() <= FEW);
        let reads = waiting.count(Lane::Reads) > reads;
        let lists = waiting.count(Lane::Lists) > lists;
        drop(waiting);
        if starts {
            self.operations_arrived.notify_one();
        }
        if reads {
            self.reads_arrived.notify_one();
        }
        if lists {
            self.lists_arrived.notify_one();
        }
        for (submission, fault) in refused {
            submission.request.refuse(fault);
        }
    }

    fn register(&self, mailbox: Arc<Mailbox<Request>>) -> Address {
        self.outbox().add(mailbox)
    }

    fn unavailable(&self) -> Option<Reason> {
        let waiting = self.lock();
        let reason = waiting.requests.unavailable(Lane::Operations as usize);
        reason.or(waiting.failing.as_ref()).cloned()
    }

    fn is_of_a_part(&self, fault: &Fault) -> bool {
        matches!(fault, Fault::Unavailable { reason } if reason.public() == NODE_LOST)
    }

    fn depth(&self) -> Depth {
        self.lock().requests.depth()
    }

    fn feed(&self) -> Option<Arc<dyn Feed>> {
        Some(self.feed.clone())
    }

    fn distributed(&self) -> Option<Distributed> {
        self.lock().homes.distributed()
    }
}

impl Takes<Attempt> for Queue {
    fn request(attempt: Attempt, reply: Reply<Attempt>) -> Request {
        Request::Operation(attempt, reply)
    }
}

impl Takes<Lookup> for Queue {
    fn request(lookup: Lookup, reply: Reply<Lookup>) -> Request {
        Request::Lookup(Box::new(Asked::new(lookup, reply)))
    }
}

impl<Q: Query> Takes<Q> for Queue {
    fn request(query: Q, reply: Reply<Q>) -> Request {
        let question = Box::new(Asked::new(query, reply));
        if Q::READS_MANY {
            Request::List(question)
        } else {
            Request::Query(question)
        }
    }
}

impl Request {
    fn lane(&self) -> Lane {
        match self {
            Self::Operation(..) => Lane::Operations,
            Self::Lookup(_) | Self::Query(_) => Lane::Reads,
            Self::List(_) => Lane::Lists,
        }
    }
}

impl Waits for Request {
    fn text_bytes(&self) -> usize {
        match self {
            Self::Operation(attempt, _) => attempt.text_bytes(),
            Self::Lookup(asked) => asked.text_bytes(),
            Self::Query(question) | Self::List(question) => question.text_bytes(),
        }
    }

    fn is_operation(&self) -> bool {
        matches!(self, Self::Operation(..))
    }

    fn refuse(self, fault: Fault) {
        match self {
            Self::Operation(_, reply) => drop(reply.send(Err(fault.into()))),
            Self::Lookup(asked) => asked.refused(fault).deliver(),
            Self::Query(question) | Self::List(question) => question.refused(fault).deliver(),
        }
    }
}

/// A connection that is gathering operations, until this is dropped.
struct Gathering<'a>(&'a Queue);

impl Drop for Gathering<'_> {
    fn drop(&mut self) {
        self.0.lock().gathering -= 1;
    }
}

/// Returns how many waiting operations start a batch of at most `operations_max` while others are
/// in flight.
fn enough(operations_max: usize) -> usize {
    operations_max.div_ceil(FULL_ENOUGH)
}

impl Waiting {
    fn count(&self, lane: Lane) -> usize {
        self.requests.lane(lane as usize).len()
    }

    /// Returns how long to wait for more operations before forming a batch, or `None` to form it at
    /// once.
    fn gathering(&self, most: usize, now: Duration) -> Option<Duration> {
        let operations = self.requests.lane(Lane::Operations as usize);
        if self.in_flight.len() <= FEW || operations.len() >= enough(most) {
            return None;
        }
        let waited = now.saturating_sub(operations.front()?.arrived);
        GATHERING.checked_sub(waited).filter(|rest| !rest.is_zero())
    }
}

#[cfg(test)]
mod tests;
