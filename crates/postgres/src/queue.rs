//! The queue between callers and connections: bounded in number and in bytes, and the place where
//! batches are formed.
//!
//! No widget is named twice among the operations that are in flight: such an operation waits for
//! the next batch. So a batch's operations cannot contradict each other, and the batches of one
//! process do not wait for each other's locks. Order is kept among operations that name the same
//! widget.

use crate::{Clock, Settings};
use std::{
    collections::{HashSet, VecDeque},
    hash::{BuildHasher as _, RandomState},
    mem,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::sync::{Notify, oneshot};
use widgets_mailbox::Address;
use widgets_registry::{Command, Fault, Reason, Rejection, SerialNumber, Widget};

/// An operation, when it came, and where its caller waits.
pub(crate) struct Operation {
    pub(crate) command: Command,
    pub(crate) arrived: Duration,
    pub(crate) reply: oneshot::Sender<Result<(), Rejection>>,
    pub(crate) reply_to: Address,
}

/// A lookup, when it came, and where its caller waits.
pub(crate) struct Lookup {
    pub(crate) serial_number: SerialNumber,
    pub(crate) arrived: Duration,
    pub(crate) reply: oneshot::Sender<Result<Option<Widget>, Fault>>,
    pub(crate) reply_to: Address,
}

/// What callers ask.
pub(crate) enum Request {
    Operation(Operation),
    Lookup(Lookup),
}

impl Request {
    fn lane(&self) -> Lane {
        match self {
            Self::Operation(_) => Lane::Operations,
            Self::Lookup(_) => Lane::Lookups,
        }
    }

    fn text_bytes(&self) -> usize {
        match self {
            Self::Operation(operation) => operation.command.text_bytes(),
            Self::Lookup(lookup) => lookup.serial_number.len(),
        }
    }

    /// Answers that it cannot be taken. The caller may have gone; that changes nothing.
    fn refuse(self, fault: Fault) {
        match self {
            Self::Operation(operation) => drop(operation.reply.send(Err(fault.into()))),
            Self::Lookup(lookup) => drop(lookup.reply.send(Err(fault))),
        }
    }
}

/// Requests that wait for a connection.
pub(crate) struct Queue {
    waiting: Mutex<Waiting>,
    operations_arrived: Notify,
    lookups_arrived: Notify,
    /// Serial numbers in flight are kept as hashes: two with the same one only wait for each other.
    hasher: RandomState,
    requests_max: usize,
    bytes_max: usize,
    connections: usize,
    /// With so many waiting operations a batch starts beside others.
    enough: usize,
}

#[derive(Default)]
struct Waiting {
    operations: VecDeque<Operation>,
    lookups: VecDeque<Lookup>,
    bytes: usize,
    in_flight: HashSet<u64>,
    /// How many connections wait for more operations, but for a bounded time.
    gathering: usize,
    closed: bool,
    /// Why there is no connection for this lane, while there is none.
    unreachable: [Option<Reason>; 2],
    rate: Rate,
}

/// Operations and lookups have connections of their own, so that neither waits for the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lane {
    Operations,
    Lookups,
}

/// How fast requests are answered, to say when trying again makes sense.
#[derive(Default)]
struct Rate {
    /// An average in which older batches count for less and less.
    per_second: f64,
}

/// How much waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Depth {
    pub(crate) requests: usize,
    pub(crate) bytes: usize,
}

/// While a batch is in flight, a further one starts only when this part of it is full or its oldest
/// operation has waited for [`GATHERING`]: larger commits cost the database less for each operation,
/// but it has more than one core. What has waited longer is behind a batch that is slow, and so may
/// gain by another connection.
const FULL_ENOUGH: usize = 4;
const GATHERING: Duration = Duration::from_millis(20);

/// At most so long does `Retry-After` tell a client to wait: the rate may rise again at any time.
const RETRY_AFTER_SECONDS_MAX: u32 = 30;

/// The widgets that an operation names, as hashes.
struct Named([Option<u64>; 2]);

impl Named {
    fn iter(&self) -> impl Iterator<Item = u64> {
        self.0.into_iter().flatten()
    }
}

impl Queue {
    pub(crate) fn new(settings: &Settings) -> Self {
        Self {
            waiting: Mutex::default(),
            operations_arrived: Notify::new(),
            lookups_arrived: Notify::new(),
            hasher: RandomState::new(),
            requests_max: settings.queue_operations_max,
            bytes_max: settings.queue_bytes_max,
            connections: settings.connections,
            enough: enough(settings.batch_operations_max),
        }
    }

    /// Adds a request, or answers it at once why it cannot be done.
    pub(crate) fn push(&self, request: Request) {
        self.push_all(&mut vec![request]);
    }

    /// Adds requests and leaves `requests` empty: connections are woken once for them all, and only
    /// where they could start something. Those that cannot be done are answered at once why.
    pub(crate) fn push_all(&self, requests: &mut Vec<Request>) {
        let mut waiting = self.lock();
        // All of them fit but for overload, so that nothing is set aside for those that don't.
        let mut refused = Vec::new();
        let (operations, lookups) = (waiting.operations.len(), waiting.lookups.len());
        for request in requests.drain(..) {
            let bytes = request.text_bytes();
            if let Some(fault) = self.no_room(&waiting, request.lane(), bytes) {
                refused.push((request, fault));
                continue;
            }
            waiting.bytes += bytes;
            match request {
                Request::Operation(operation) => waiting.operations.push_back(operation),
                Request::Lookup(lookup) => waiting.lookups.push_back(lookup),
            }
        }
        // While a batch is in flight and a connection lets operations gather, nothing is to be done
        // before there are enough of them.
        let starts = waiting.operations.len() > operations
            && (waiting.gathering == 0
                || waiting.operations.len() >= self.enough
                || waiting.in_flight.is_empty());
        let looks_up = waiting.lookups.len() > lookups;
        drop(waiting);
        if starts {
            self.operations_arrived.notify_one();
        }
        if looks_up {
            self.lookups_arrived.notify_one();
        }
        for (request, fault) in refused {
            request.refuse(fault);
        }
    }

    /// Why a request with so many bytes of text cannot wait.
    fn no_room(&self, waiting: &Waiting, lane: Lane, bytes: usize) -> Option<Fault> {
        if waiting.closed {
            let reason = "it is shutting down".into();
            return Some(Fault::Unavailable { reason });
        }
        if let Some(reason) = waiting.unreachable[lane as usize].clone() {
            return Some(Fault::Unavailable { reason });
        }
        let requests = waiting.operations.len() + waiting.lookups.len();
        let (limit, value) = if requests >= self.requests_max {
            ("queue_operations_max", self.requests_max)
        } else if waiting.bytes + bytes > self.bytes_max {
            ("queue_bytes_max", self.bytes_max)
        } else {
            return None;
        };
        Some(Fault::Busy {
            limit: format!("{limit} = {value}"),
            retry_after_seconds: waiting.rate.seconds_for(requests),
        })
    }

    /// Takes the oldest operations that can go together, `most` of them, into `batch`, which is
    /// empty, and waits while there are too few. False once the queue is closed and empty. Whoever
    /// takes a batch must [release](Self::release) it.
    pub(crate) async fn take<C: Clock>(
        &self,
        batch: &mut Vec<Operation>,
        most: usize,
        clock: &C,
    ) -> bool {
        loop {
            // Before the look, so that what arrives after it is not missed.
            let arrival = self.operations_arrived.notified();
            let gathering = {
                let mut waiting = self.lock();
                let gathering = waiting.gathering(most, clock.now());
                if gathering.is_none() {
                    self.form(&mut waiting, batch, most);
                }
                if !batch.is_empty() {
                    // There may be enough for another connection.
                    let more = !waiting.operations.is_empty();
                    drop(waiting);
                    if more {
                        self.operations_arrived.notify_one();
                    }
                    return true;
                }
                if waiting.closed && waiting.operations.is_empty() {
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
                        () = clock.sleep(rest) => {}
                    }
                }
            }
        }
    }

    fn form(&self, waiting: &mut Waiting, batch: &mut Vec<Operation>, most: usize) {
        let mut passed_over: Vec<Operation> = Vec::new();
        // What one that was passed over names, so that nothing overtakes it for ever.
        let mut claimed = HashSet::new();
        while batch.len() < most
            && let Some(operation) = waiting.operations.pop_front()
        {
            let named = self.named(&operation.command);
            let free = |name| !waiting.in_flight.contains(&name) && !claimed.contains(&name);
            if named.iter().all(free) {
                waiting.in_flight.extend(named.iter());
                waiting.bytes -= operation.command.text_bytes();
                batch.push(operation);
            } else {
                claimed.extend(named.iter());
                passed_over.push(operation);
            }
        }
        for operation in passed_over.into_iter().rev() {
            waiting.operations.push_front(operation);
        }
    }

    /// Lets the widgets of a batch be named again. `commands` are the batch's.
    pub(crate) fn release<'a>(
        &self,
        commands: impl Iterator<Item = &'a Command>,
        elapsed: Duration,
    ) {
        let mut waiting = self.lock();
        let mut count = 0;
        for command in commands {
            count += 1;
            for name in self.named(command).iter() {
                waiting.in_flight.remove(&name);
            }
        }
        waiting.rate.count(count * self.connections, elapsed);
        let more = !waiting.operations.is_empty();
        drop(waiting);
        if more {
            self.operations_arrived.notify_one();
        }
    }

    /// Takes the oldest lookups, `most` of them, into `batch`, which is empty, and waits while there
    /// are none. False once the queue is closed and empty.
    pub(crate) async fn take_lookups(&self, batch: &mut Vec<Lookup>, most: usize) -> bool {
        loop {
            let arrival = self.lookups_arrived.notified();
            {
                let mut waiting = self.lock();
                let count = waiting.lookups.len().min(most);
                batch.extend(waiting.lookups.drain(..count));
                let bytes: usize = batch.iter().map(|lookup| lookup.serial_number.len()).sum();
                waiting.bytes -= bytes;
                let more = !waiting.lookups.is_empty();
                let done = waiting.closed && batch.is_empty();
                drop(waiting);
                if more || done {
                    self.lookups_arrived.notify_one();
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

    /// Says that there is no connection for this lane, and why: everything that waits is answered
    /// so, and what comes is refused at once, until [`Self::set_reachable`].
    pub(crate) fn set_unreachable(&self, lane: Lane, reason: &Reason) {
        let mut waiting = self.lock();
        waiting.unreachable[lane as usize] = Some(reason.clone());
        let (mut operations, mut lookups) = (VecDeque::new(), VecDeque::new());
        match lane {
            Lane::Operations => operations = mem::take(&mut waiting.operations),
            Lane::Lookups => lookups = mem::take(&mut waiting.lookups),
        }
        let bytes = |operation: &Operation| operation.command.text_bytes();
        waiting.bytes -= operations.iter().map(bytes).sum::<usize>();
        let bytes = |lookup: &Lookup| lookup.serial_number.len();
        waiting.bytes -= lookups.iter().map(bytes).sum::<usize>();
        drop(waiting);
        let fault = || Fault::Unavailable {
            reason: reason.clone(),
        };
        for operation in operations {
            Request::Operation(operation).refuse(fault());
        }
        for lookup in lookups {
            Request::Lookup(lookup).refuse(fault());
        }
    }

    /// Says that there is a connection for this lane.
    pub(crate) fn set_reachable(&self, lane: Lane) {
        self.lock().unreachable[lane as usize] = None;
    }

    /// Why there is no connection for this lane, while there is none.
    pub(crate) fn unreachable(&self, lane: Lane) -> Option<Reason> {
        self.lock().unreachable[lane as usize].clone()
    }

    /// How much waits.
    pub(crate) fn depth(&self) -> Depth {
        let waiting = self.lock();
        Depth {
            requests: waiting.operations.len() + waiting.lookups.len(),
            bytes: waiting.bytes,
        }
    }

    /// Refuses further requests; those that wait are still taken.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.operations_arrived.notify_one();
        self.lookups_arrived.notify_one();
    }

    /// Whether it is closed.
    pub(crate) fn is_closed(&self) -> bool {
        self.lock().closed
    }

    fn named(&self, command: &Command) -> Named {
        let hash = |serial_number: &SerialNumber| Some(self.hasher.hash_one(serial_number));
        match command {
            Command::AddWidget { serial_number, .. } | Command::RemoveWidget { serial_number } => {
                Named([hash(serial_number), None])
            }
            Command::AssociateWidgets(pair) | Command::RemoveAssociation(pair) => {
                Named([hash(pair.widget1()), hash(pair.widget2())])
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // Nothing in here can panic halfway through a change.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
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
    /// How long to wait for more operations before a batch is formed; `None` for not at all.
    fn gathering(&self, most: usize, now: Duration) -> Option<Duration> {
        if self.in_flight.is_empty() || self.operations.len() >= enough(most) {
            return None;
        }
        let waited = now.saturating_sub(self.operations.front()?.arrived);
        GATHERING.checked_sub(waited).filter(|rest| !rest.is_zero())
    }
}

impl Rate {
    #[expect(clippy::cast_precision_loss, reason = "an estimate")]
    fn count(&mut self, operations: usize, elapsed: Duration) {
        let now = operations as f64 / elapsed.as_secs_f64().max(1e-6);
        self.per_second += (now - self.per_second) / 8.0;
    }

    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "an estimate, kept within its bounds"
    )]
    fn seconds_for(&self, requests: usize) -> u32 {
        let seconds = requests as f64 / self.per_second.max(1.0);
        (seconds.ceil() as u32).clamp(1, RETRY_AFTER_SECONDS_MAX)
    }
}

#[cfg(test)]
mod tests;
