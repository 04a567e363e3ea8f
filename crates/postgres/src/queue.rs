//! The queue between callers and connections: bounded in number and in bytes, and the place where
//! batches are formed.
//!
//! No widget is named twice among the operations that are in flight: such an operation waits for
//! the next batch. So a batch's operations cannot contradict each other, and the batches of one
//! process do not wait for each other's locks. Order is kept among operations that name the same
//! widget. The same holds for idempotency keys: a retry waits for the first attempt, and is answered as
//! that was.

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

/// An operation, when it came, and where its caller waits.
pub(crate) struct Operation {
    pub(crate) attempt: Attempt,
    pub(crate) arrived: Duration,
    pub(crate) reply: Reply<Attempt>,
    pub(crate) reply_to: Address,
    /// Its place among those whose widgets another transaction holds.
    pub(crate) place: Option<Place>,
}

impl Operation {
    /// Its answer on the way back.
    pub(crate) fn answered(self, answer: Result<Applied, Rejection>) -> (Address, Answered) {
        (self.reply_to, Answered::Operation(self.reply, answer))
    }
}

/// Something that reads, when it came, and where its caller waits.
pub(crate) struct Read<A> {
    pub(crate) asked: A,
    pub(crate) arrived: Duration,
    pub(crate) reply_to: Address,
}

/// What reads and goes together.
#[derive(Default)]
pub(crate) struct Reads {
    /// All of them go in one statement.
    pub(crate) lookups: Vec<Read<Box<Asked<Lookup>>>>,
    /// Each one is a statement of its own.
    pub(crate) queries: Vec<Read<Box<dyn Question>>>,
}

impl Reads {
    pub(crate) fn is_empty(&self) -> bool {
        self.lookups.is_empty() && self.queries.is_empty()
    }
}

/// What callers ask.
pub enum Request {
    /// An operation.
    Operation(Attempt, Reply<Attempt>),
    /// A lookup: many of them go in one statement.
    Lookup(Box<Asked<Lookup>>),
    /// Anything else that reads: each one is a statement of its own.
    #[expect(private_interfaces, reason = "nobody else makes one")]
    Query(Box<dyn Question>),
    /// The same, where it can take long.
    #[expect(private_interfaces, reason = "nobody else makes one")]
    List(Box<dyn Question>),
}

/// Requests that wait for a connection.
pub struct Queue {
    waiting: Mutex<Waiting>,
    operations_arrived: Notify,
    reads_arrived: Notify,
    lists_arrived: Notify,
    /// Rings when the placement may be another one.
    moved: Notify,
    /// Answers on their way back.
    outbox: Mutex<Outbox<Request>>,
    /// Serial numbers in flight are kept as hashes: two with the same one only wait for each other.
    hasher: RandomState,
    connections: usize,
    list_connections: usize,
    /// With so many waiting operations a batch starts beside others.
    enough: usize,
    feed: Arc<dyn Feed>,
}

struct Waiting {
    requests: Bounded<Request, LANES>,
    in_flight: HashSet<u64>,
    /// How many connections wait for more operations, but for a bounded time.
    gathering: usize,
    /// What operations meet at present though there are connections.
    failing: Option<Reason>,
    /// Whose lists have connections.
    listing: Vec<Asker>,
    homes: Homes,
}

/// One list has a connection, until this is dropped.
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

/// How many lanes there are.
pub(crate) const LANES: usize = 4;

/// Operations, what reads, and what reads much have connections of their own, so that none waits for
/// another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lane {
    Operations,
    Reads,
    Lists,
    /// The feed. Nothing of it waits in the queue.
    Changes,
}

impl Lane {
    /// Its name in the log.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Operations => "operations",
            Self::Reads => "reads",
            Self::Lists => "lists",
            Self::Changes => "changes",
        }
    }
}

/// While more widgets than [`FEW`] are in flight, a further batch starts only when this part of it is
/// full or its oldest operation has waited for [`GATHERING`]: larger commits cost the database less for
/// each operation, but it has more than one core. What has waited longer is behind a batch that is
/// slow, and so may gain by another connection.
const FULL_ENOUGH: usize = 4;
/// Few callers are never slower than by a call of the database for each: what they ask starts as soon
/// as a connection is free.
const FEW: usize = 8;
const GATHERING: Duration = Duration::from_millis(20);

/// The widgets that an operation names, and its idempotency key, as hashes.
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

    /// Takes the oldest operations that can go together, `most` of them, into `batch`, which is
    /// empty, and waits while there are too few. False once the queue is closed and empty. Whoever
    /// takes a batch must [release](Self::release) it.
    pub(crate) async fn take(
        &self,
        batch: &mut Vec<Operation>,
        most: usize,
        clock: &impl Clock,
    ) -> bool {
        loop {
            // Before the look, so that what arrives after it is not missed.
            let arrival = self.operations_arrived.notified();
            let gathering = {
                let mut waiting = self.lock();
                let now = clock.now();
                let gathering = waiting.gathering(most, now);
                if gathering.is_none() {
                    self.form(&mut waiting, batch, most, now);
                }
                if !batch.is_empty() {
                    // There may be enough for another connection.
                    let more = waiting.count(Lane::Operations) > 0;
                    drop(waiting);
                    if more {
                        self.operations_arrived.notify_one();
                    }
                    return true;
                }
                if waiting.requests.is_closed() && waiting.count(Lane::Operations) == 0 {
                    drop(waiting);
                    // The next one who waits must see it as well.
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
        // What one that was passed over names, so that nothing overtakes it for ever.
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

    /// Lets the widgets of a batch be named again. `attempts` are the batch's.
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

    /// Lets an operation that is not in the queue go into a batch, unless a batch in flight names the
    /// same widgets. Where it says true, it must be [released](Self::release) as well.
    pub(crate) fn claim(&self, attempt: &Attempt) -> bool {
        let mut waiting = self.lock();
        let named = self.named(attempt);
        let free = named.iter().all(|name| !waiting.in_flight.contains(&name));
        if free {
            waiting.in_flight.extend(named.iter());
        }
        free
    }

    /// Says how many operations a connection applied in which time, for `Retry-After`.
    pub(crate) fn applied(&self, operations: usize, elapsed: Duration, now: Duration) {
        let operations = operations * self.connections;
        self.lock().requests.applied(operations, elapsed, now);
    }

    /// When it makes sense to try an operation again, in whole seconds.
    pub(crate) fn retry_after_seconds(&self, now: Duration) -> u32 {
        self.lock().requests.retry_after_seconds(now)
    }

    /// Says what operations meet at present though there are connections, or that they meet nothing.
    pub(crate) fn set_failing(&self, reason: Option<Reason>) {
        self.lock().failing = reason;
    }

    /// Takes the oldest requests that read, `most` of them, into `batch`, which is empty, and waits
    /// while there are none. False once the queue is closed and empty.
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

    /// Takes the oldest list of those whose askers have not had their share of the connections, and waits while
    /// there is none. `None` once the queue is closed and empty.
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
                // Where nothing could be taken, whoever ends a list says so.
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

    /// Says that there is no connection for this lane, and why: everything that waits is answered
    /// so, and what comes is refused at once, until [`Self::set_reachable`].
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

    /// Says that there is a connection for this lane.
    pub(crate) fn set_reachable(&self, lane: Lane) {
        self.lock().requests.set_unavailable(lane as usize, None);
    }

    /// Hands answers over, one wake-up for each runtime that gets some.
    pub(crate) fn answer(&self, answers: impl Iterator<Item = (Address, Answered)>) {
        let mut outbox = self.outbox();
        for (address, answer) in answers {
            outbox.send(address, answer);
        }
        outbox.flush();
    }

    /// Refuses further requests; those that wait are still taken.
    pub(crate) fn close(&self) {
        self.lock().requests.close();
        self.operations_arrived.notify_one();
        self.reads_arrived.notify_one();
        self.lists_arrived.notify_one();
    }

    /// Whether it is closed.
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
        // Nothing in here can panic halfway through a change.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn outbox(&self) -> MutexGuard<'_, Outbox<Request>> {
        // A panic would leave answers behind, and those are delivered the next time.
        self.outbox.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl widgets_queue::Queue for Queue {
    type Request = Request;

    /// Connections are woken once for them all, and only where they could start something.
    fn push_all(&self, submissions: &mut Vec<Submission<Request>>) {
        let mut waiting = self.lock();
        // All of them fit but for overload, so that nothing is set aside for those that don't.
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
        // While more than a few are in flight and a connection lets operations gather, nothing is to be
        // done before there are enough of them.
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

/// A connection lets operations gather, until this is dropped.
struct Gathering<'a>(&'a Queue);

impl Drop for Gathering<'_> {
    fn drop(&mut self) {
        self.0.lock().gathering -= 1;
    }
}

/// How many waiting operations start a batch of at most so many beside others.
fn enough(operations_max: usize) -> usize {
    operations_max.div_ceil(FULL_ENOUGH)
}

impl Waiting {
    fn count(&self, lane: Lane) -> usize {
        self.requests.lane(lane as usize).len()
    }

    /// How long to wait for more operations before a batch is formed; `None` for not at all.
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
