//! Answers that wait until another machine has the data they depend on
//! (`replication.acknowledge = "standby"`).
//!
//! The owner decides and syncs as usual, but its answers pass through the [`Gate`], which holds
//! each one until everything before it is acknowledged: accepted operations, refusals, replays and
//! reads, because all of them reveal changes that a promotion could still undo. Answers that reveal
//! nothing, for example that the service is too busy, leave at once. The feed of changes shows only
//! what is acknowledged. The code that learns what the holder has reports it through
//! [`Acknowledging`], from any thread, so that held answers do not wait for the owner, which may be
//! syncing the next group.
//!
//! More than one group may be on its way to the holder at once, within [`GROUPS_MAX`] and
//! [`GROUP_BYTES_MAX`]; beyond that, the owner rests, except for requests that change the role or
//! the holder. Answers that were not acknowledged within the timeout are
//! [withdrawn](Answered::withdrawn), and no operations are taken until everything on its way has
//! been acknowledged. While no holder is connected, operations wait undecided, at most for the
//! timeout after it disconnected.
//!
//! Without the setting there is no gate, and none of this costs anything.

use crate::{
    log::Log,
    metrics::Metrics,
    queue::{Queue, Request},
    state::Holding,
};
use std::{
    collections::VecDeque,
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use widgets_clock::Clock;
use widgets_mailbox::Address;
use widgets_queue::{Answered, Mailbox, Outbox};
use widgets_registry::Reason;

/// How many groups may be on their way to the holder: one that it syncs, and one that this store
/// syncs. With more, groups are smaller and both stores sync more often: `tests/replica/cost.py`
/// measured a fifth less throughput with eight (docs/performance.md).
const GROUPS_MAX: usize = 2;

/// How many bytes of groups may be on their way before the owner adds no further group.
const GROUP_BYTES_MAX: usize = 1 << 20;

/// What callers read if nothing can be acknowledged.
const NO_STANDBY: &str = "no standby has it on its disk within replication.standby_timeout_ms";

/// What callers read from a standby that does not know whether its data is still the history.
const NOT_CONFIRMED: &str = "its primary has not been reached since this standby was started";

/// The replication's access to the gate. Clones share the gate.
#[derive(Clone)]
pub struct Acknowledging(pub(crate) Arc<Gate>);

impl Acknowledging {
    /// Records that everything before this entry is acknowledged, and sends the answers that waited
    /// for it.
    pub fn acknowledge(&self, next_sequence: u64) {
        self.0.acknowledge(next_sequence);
    }

    /// Records whether the holder is connected now.
    pub fn connected(&self, is_connected: bool) {
        self.0.connected(is_connected);
    }

    /// Reports whether answers wait.
    #[must_use]
    pub fn is_waited_for(&self) -> bool {
        !self.0.lock().held.is_empty()
    }

    /// Returns the first entry not known to be acknowledged; `None` if this store's own disk is
    /// enough.
    #[must_use]
    pub fn acknowledged(&self) -> Option<u64> {
        let inner = self.0.lock();
        (!inner.is_open).then_some(inner.acknowledged)
    }
}

/// Whether operations may be decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Admission {
    Now,
    /// A holder may still connect.
    Wait,
    /// No holder connected, or acknowledged everything, in time.
    Refused(Reason),
}

/// Holds answers until they may be sent.
pub(crate) struct Gate {
    log: Arc<Log>,
    queue: Arc<Queue>,
    clock: Arc<dyn Clock>,
    metrics: Metrics,
    timeout: Duration,
    held_max: usize,
    inner: Mutex<Inner>,
}

#[expect(
    clippy::struct_excessive_bools,
    reason = "each answers a question of its own, and any of them may be with any"
)]
struct Inner {
    /// Whether this store's own disk is enough: it is the holder itself, or a standby whose primary
    /// has everything that it has.
    is_open: bool,
    is_standby: bool,
    /// Answers that depend on entries before this one may be sent.
    acknowledged: u64,
    outbox: Outbox<Request>,
    held: VecDeque<Held>,
    on_their_way: VecDeque<OnItsWay>,
    bytes: usize,
    is_connected: bool,
    /// Operations wait for a holder to connect until this time.
    waits_until: Duration,
    /// Whether something was not acknowledged in time, and some of what was on its way then still
    /// is.
    is_overdue: bool,
    /// Whether the owner waits for a change to the gate.
    owner_waits: bool,
}

/// A held answer.
struct Held {
    /// Everything before this entry must be acknowledged first.
    rests_on: u64,
    until: Duration,
    reply_to: Address,
    answer: Answered,
}

/// A group that this store has, and the holder may not have yet.
struct OnItsWay {
    next_sequence: u64,
    bytes: usize,
    since: Duration,
}

impl Gate {
    pub(crate) fn new(
        log: Arc<Log>,
        queue: Arc<Queue>,
        clock: Arc<dyn Clock>,
        metrics: Metrics,
        timeout: Duration,
        held_max: usize,
    ) -> Self {
        let now = clock.now();
        let inner = Inner {
            is_open: false,
            is_standby: false,
            acknowledged: 0,
            outbox: Outbox::default(),
            held: VecDeque::new(),
            on_their_way: VecDeque::new(),
            bytes: 0,
            is_connected: false,
            waits_until: now + timeout,
            is_overdue: false,
            owner_waits: false,
        };
        Self {
            log,
            queue,
            clock,
            metrics,
            timeout,
            held_max,
            inner: Mutex::new(inner),
        }
    }

    /// Sets the gate at a start: who is the holder, and that the state depends on the entries
    /// before `rests_on`.
    pub(crate) fn begin(&self, holding: Holding, own: u64, is_standby: bool, rests_on: u64) {
        let mut inner = self.lock();
        inner.is_standby = is_standby;
        let is_holder = holding.holder.is_some_and(|it| it.member == own);
        // What existed before any member was named was acknowledged without a holder.
        let is_old = holding.is_unnamed();
        inner.is_open = is_holder || is_standby && is_old;
        if is_old || rests_on == 1 {
            inner.acknowledged = rests_on;
        }
        self.publish(&inner);
    }

    /// Takes note that a record that names a holder, or nobody, is durable as this entry.
    pub(crate) fn named(&self, holding: Holding, own: u64, sequence: u64) {
        let mut inner = self.lock();
        if inner.is_standby {
            return;
        }
        let is_open = holding.holder.is_some_and(|it| it.member == own);
        self.set_open(&mut inner, is_open, sequence);
    }

    /// Takes note that the store now takes operations, or follows. Its state depends on the entries
    /// before `next_sequence`.
    pub(crate) fn set_standby(
        &self,
        is_standby: bool,
        holding: Holding,
        own: u64,
        next_sequence: u64,
    ) {
        let mut inner = self.lock();
        inner.is_standby = is_standby;
        inner.is_overdue = false;
        // Held answers keep waiting: the holder, or the primary that is followed, may still get
        // their data.
        if !is_standby {
            let is_open = holding.holder.is_some_and(|it| it.member == own);
            self.set_open(&mut inner, is_open, next_sequence);
        }
        self.publish(&inner);
    }

    /// Opens a standby's gate, because its primary has everything that it has.
    pub(crate) fn confirmed(&self) {
        let mut inner = self.lock();
        if inner.is_standby {
            self.set_open(&mut inner, true, 0);
        }
    }

    fn set_open(&self, inner: &mut Inner, is_open: bool, next_sequence: u64) {
        if is_open {
            inner.is_open = true;
            inner.on_their_way.clear();
            inner.bytes = 0;
            inner.is_overdue = false;
        } else if mem::take(&mut inner.is_open) {
            inner.acknowledged = next_sequence;
        }
        self.release(inner);
    }

    /// Adds a mailbox, under the next number.
    pub(crate) fn add(&self, mailbox: Arc<Mailbox<Request>>) {
        self.lock().outbox.add(mailbox);
    }

    /// Takes answers that depend on the entries before `rests_on`, and sends those that may be
    /// sent.
    pub(crate) fn send(&self, answers: &mut Vec<(Address, Answered)>, rests_on: u64) {
        let now = self.clock.now();
        let mut inner = self.lock();
        let may_be_told = inner.may_be_told(rests_on);
        let refused = if may_be_told {
            None
        } else {
            self.refused(&inner, now)
        };
        for (reply_to, answer) in answers.drain(..) {
            if may_be_told || is_planted(&answer) {
                inner.outbox.send(reply_to, answer);
            } else if let Some(reason) = &refused {
                inner.outbox.send(reply_to, answer.withdrawn(reason));
            } else {
                inner.held.push_back(Held {
                    rests_on,
                    until: now + self.timeout,
                    reply_to,
                    answer,
                });
            }
        }
        inner.outbox.flush();
    }

    /// Takes note that a group of operations, which ends before this entry, is durable here.
    pub(crate) fn committed(&self, next_sequence: u64, bytes: usize) {
        let since = self.clock.now();
        let mut inner = self.lock();
        // The holder may have acknowledged the group already.
        if inner.is_open || next_sequence <= inner.acknowledged {
            return;
        }
        inner.bytes += bytes;
        inner.on_their_way.push_back(OnItsWay {
            next_sequence,
            bytes,
            since,
        });
        self.metrics.waiting_groups(inner.on_their_way.len());
    }

    fn acknowledge(&self, next_sequence: u64) {
        let now = self.clock.now();
        let mut inner = self.lock();
        if inner.is_open || next_sequence <= inner.acknowledged {
            return;
        }
        inner.acknowledged = next_sequence;
        while let Some(first) = inner.on_their_way.front()
            && first.next_sequence <= next_sequence
        {
            self.metrics.waited(now.saturating_sub(first.since));
            inner.bytes -= first.bytes;
            inner.on_their_way.pop_front();
        }
        if inner.on_their_way.is_empty() && mem::take(&mut inner.is_overdue) {
            tracing::info!("the standby has everything again: operations are accepted");
            inner.owner_waits = true;
        }
        self.release(&mut inner);
    }

    fn connected(&self, is_connected: bool) {
        let mut inner = self.lock();
        if inner.is_connected == is_connected {
            return;
        }
        inner.is_connected = is_connected;
        if !is_connected {
            inner.waits_until = self.clock.now() + self.timeout;
        }
        inner.owner_waits = true;
        self.wake(&mut inner);
    }

    /// Sends the answers that may be sent now.
    fn release(&self, inner: &mut Inner) {
        self.publish(inner);
        while let Some(first) = inner.held.front()
            && inner.may_be_told(first.rests_on)
        {
            if let Some(Held {
                reply_to, answer, ..
            }) = inner.held.pop_front()
            {
                inner.outbox.send(reply_to, answer);
            }
        }
        inner.outbox.flush();
        self.metrics.waiting_groups(inner.on_their_way.len());
        self.wake(inner);
    }

    /// Shows readers of changes what may be shown. This comes before the answers, so that a caller
    /// with an answer sees its change.
    fn publish(&self, inner: &Inner) {
        let shown = if inner.is_open {
            u64::MAX
        } else {
            inner.acknowledged
        };
        self.log.show(shown);
    }

    fn wake(&self, inner: &mut Inner) {
        if mem::take(&mut inner.owner_waits) {
            self.queue.wake();
        }
    }

    /// Withdraws answers that have waited too long.
    pub(crate) fn expire(&self, now: Duration) {
        let mut inner = self.lock();
        if inner.held.front().is_some_and(|first| first.until <= now) {
            if !inner.is_overdue {
                tracing::error!(
                    timeout_ms = self.timeout.as_millis(),
                    "changes did not reach a standby's disk in time: no operations are accepted \
                     until they do"
                );
            }
            inner.is_overdue = true;
            self.withdraw(&mut inner, now);
        }
    }

    /// Withdraws all held answers, because the owner ends.
    pub(crate) fn end(&self) {
        self.withdraw(&mut self.lock(), Duration::MAX);
    }

    fn withdraw(&self, inner: &mut Inner, until: Duration) {
        let reason = self.reason(inner);
        while let Some(first) = inner.held.front()
            && first.until <= until
        {
            if let Some(Held {
                reply_to, answer, ..
            }) = inner.held.pop_front()
            {
                if matches!(answer, Answered::Operation(_, Ok(_))) {
                    self.metrics.standby_timeout();
                }
                inner.outbox.send(reply_to, answer.withdrawn(&reason));
            }
        }
        inner.outbox.flush();
    }

    /// Returns when the gate must be looked at next, even if nothing happens until then.
    pub(crate) fn deadline(&self) -> Option<Duration> {
        let inner = self.lock();
        let of_held = inner.held.front().map(|first| first.until);
        let waits = !inner.is_open && !inner.is_connected && !inner.is_overdue;
        let now = self.clock.now();
        let of_holder = (waits && inner.waits_until > now).then_some(inner.waits_until);
        of_held.into_iter().chain(of_holder).min()
    }

    /// Reports whether so much is on its way that the owner must rest. The owner is woken when that
    /// changes.
    pub(crate) fn is_full(&self) -> bool {
        let mut inner = self.lock();
        let is_full = !inner.is_open
            && !inner.is_standby
            && !inner.is_overdue
            && !inner.held.is_empty()
            && (inner.on_their_way.len() >= GROUPS_MAX
                || inner.bytes >= GROUP_BYTES_MAX
                || inner.held.len() >= self.held_max);
        inner.owner_waits |= is_full;
        is_full
    }

    /// Returns whether operations may be decided now.
    pub(crate) fn admission(&self, now: Duration) -> Admission {
        let mut inner = self.lock();
        if inner.is_open || inner.is_connected && !inner.is_overdue {
            return Admission::Now;
        }
        if let Some(reason) = self.refused(&inner, now) {
            return Admission::Refused(reason);
        }
        inner.owner_waits = true;
        Admission::Wait
    }

    /// Returns why everything is refused that would have to wait for an acknowledgement, if so.
    fn refused(&self, inner: &Inner, now: Duration) -> Option<Reason> {
        let gone = !inner.is_connected && inner.waits_until <= now;
        (!inner.is_open && (inner.is_overdue || gone)).then(|| self.reason(inner))
    }

    fn reason(&self, inner: &Inner) -> Reason {
        if inner.is_standby {
            return NOT_CONFIRMED.into();
        }
        let timeout = self.timeout.as_millis();
        let acknowledged = inner.acknowledged;
        Reason::new(
            NO_STANDBY,
            format!(
                "replication.standby_timeout_ms = {timeout}, everything before entry \
                 {acknowledged} is acknowledged"
            ),
        )
    }

    /// Returns why operations are refused, if they are.
    pub(crate) fn unwritable(&self, now: Duration) -> Option<Reason> {
        let inner = self.lock();
        if inner.is_standby {
            return None;
        }
        self.refused(&inner, now)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // No code that holds the lock can panic halfway through a change.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn may_be_told(&self, rests_on: u64) -> bool {
        self.is_open || rests_on <= self.acknowledged
    }
}

fn is_planted(answer: &Answered) -> bool {
    let (accepted, refused, read) = match answer {
        Answered::Operation(_, Ok(_)) => (true, false, false),
        Answered::Operation(_, Err(_)) => (false, true, false),
        Answered::Other(_) => (false, false, true),
    };
    [
        accepted && planted!(AnsweredBeforeAcknowledged),
        refused && planted!(RefusedBeforeAcknowledged),
        read && planted!(ReadBeforeAcknowledged),
    ]
    .contains(&true)
}
