//! Answers that wait until another machine has what they rest on (`replication.acknowledge = "standby"`).
//!
//! The owner decides and syncs as it does without; its answers go through the [`Gate`], which holds each one until
//! everything before it is acknowledged: accepted operations, refusals, replays and whatever reads, as all of them tell
//! of changes that a promotion could still take away. What tells of nothing, as that the service is too busy, goes at once. The feed of changes
//! sees what is acknowledged and no more. Whoever learns what the holder has says so by [`Acknowledging`], from any thread: held answers
//! do not wait for the owner, which may be syncing the next group.
//!
//! More than one group may be on its way at once, within [`GROUPS_MAX`] and [`GROUP_BYTES_MAX`]; then the owner rests. What was
//! not acknowledged within the timeout is [withdrawn](Answered::withdrawn), and until everything on its way is there nothing more is taken.
//! While no holder is connected, operations wait undecided, no longer than the timeout after it went.
//!
//! Without the setting there is no gate, and nothing of this costs anything.

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

/// So many groups may be on their way to the holder: one that it syncs, and one that this store syncs. With more, groups are
/// smaller and both stores sync more often: `tests/replica/cost.py` measured a fifth less with eight (docs/performance.md).
const GROUPS_MAX: usize = 2;

/// So many bytes of them, but for the last one.
const GROUP_BYTES_MAX: usize = 1 << 20;

/// What callers read where nothing can be acknowledged.
const NO_STANDBY: &str = "no standby has it on its disk within replication.standby_timeout_ms";

/// What callers read of a standby that does not know whether what it has is still the history.
const NOT_CONFIRMED: &str = "its primary has not been reached since this standby was started";

/// What a caller of the replication needs of the gate. Clones are of the same.
#[derive(Clone)]
pub struct Acknowledging(pub(crate) Arc<Gate>);

impl Acknowledging {
    /// Everything before this entry is where it must be. What waited for that is answered now.
    pub fn acknowledge(&self, next_sequence: u64) {
        self.0.acknowledge(next_sequence);
    }

    /// Whether the holder is connected, as it is now.
    pub fn connected(&self, is_connected: bool) {
        self.0.connected(is_connected);
    }

    /// Whether answers wait.
    #[must_use]
    pub fn is_waited_for(&self) -> bool {
        !self.0.lock().held.is_empty()
    }

    /// Everything before this entry is acknowledged, as far as is known; `None` where this store's own disk is enough.
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
    /// A holder may come.
    Wait,
    /// None has come in time.
    Refused(Reason),
}

/// Holds answers until they may be told.
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
    /// This store's own disk is enough: it is the holder itself, or a standby whose primary has what it has.
    is_open: bool,
    is_standby: bool,
    /// Everything before this entry may be told.
    acknowledged: u64,
    outbox: Outbox<Request>,
    held: VecDeque<Held>,
    on_their_way: VecDeque<OnItsWay>,
    bytes: usize,
    is_connected: bool,
    /// Until then operations wait for a holder to connect.
    waits_until: Duration,
    /// Something was not acknowledged in time, and not everything that was on its way is there since.
    is_overdue: bool,
    /// The owner waits for a change of this.
    owner_waits: bool,
}

/// An answer that waits.
struct Held {
    /// Everything before this entry must be acknowledged.
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

    /// What a start knows: who is the holder, and that the state rests on what stands before `rests_on`.
    pub(crate) fn begin(&self, holding: Holding, own: u64, is_standby: bool, rests_on: u64) {
        let mut inner = self.lock();
        inner.is_standby = is_standby;
        let is_holder = holding.holder.is_some_and(|it| it.member == own);
        // What was there before anybody was named was acknowledged without.
        let is_old = holding.is_unnamed();
        inner.is_open = is_holder || is_standby && is_old;
        if is_old || rests_on == 1 {
            inner.acknowledged = rests_on;
        }
        self.publish(&inner);
    }

    /// A record that names a holder, or nobody, is durable as this entry.
    pub(crate) fn named(&self, holding: Holding, own: u64, sequence: u64) {
        let mut inner = self.lock();
        if inner.is_standby {
            return;
        }
        let is_open = holding.holder.is_some_and(|it| it.member == own);
        self.set_open(&mut inner, is_open, sequence);
    }

    /// The store takes operations from here on, or follows. Its state rests on what stands before this entry.
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
        // What waits goes on to wait: the holder may have it yet, or the primary that is followed.
        if !is_standby {
            let is_open = holding.holder.is_some_and(|it| it.member == own);
            self.set_open(&mut inner, is_open, next_sequence);
        }
        self.publish(&inner);
    }

    /// A standby's primary has everything that it has.
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

    /// One more mailbox, under the next number.
    pub(crate) fn add(&self, mailbox: Arc<Mailbox<Request>>) {
        self.lock().outbox.add(mailbox);
    }

    /// Takes answers that rest on what stands before `rests_on`, and tells those that may be told.
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

    /// A group of operations is durable here, before this entry.
    pub(crate) fn committed(&self, next_sequence: u64, bytes: usize) {
        let since = self.clock.now();
        let mut inner = self.lock();
        // The holder may have been quicker than this.
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
            tracing::info!("the standby has everything again: operations are taken");
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

    /// Tells what may be told by now.
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

    /// Lets those who ask for changes see what may be told. Before the answers: whoever has one sees its change.
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

    /// Withdraws what has waited for too long.
    pub(crate) fn expire(&self, now: Duration) {
        let mut inner = self.lock();
        if inner.held.front().is_some_and(|first| first.until <= now) {
            if !inner.is_overdue {
                tracing::error!(
                    timeout_ms = self.timeout.as_millis(),
                    "what was written has not come to a standby's disk in time: no operations are taken until it has"
                );
            }
            inner.is_overdue = true;
            self.withdraw(&mut inner, now);
        }
    }

    /// The owner ends: whatever still waits is withdrawn.
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

    /// When something has to be looked at next, whatever happens until then.
    pub(crate) fn deadline(&self) -> Option<Duration> {
        let inner = self.lock();
        let of_held = inner.held.front().map(|first| first.until);
        let waits = !inner.is_open && !inner.is_connected && !inner.is_overdue;
        let now = self.clock.now();
        let of_holder = (waits && inner.waits_until > now).then_some(inner.waits_until);
        of_held.into_iter().chain(of_holder).min()
    }

    /// Whether so much is on its way that the owner has to rest. It is woken when that changes.
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

    /// Whether operations may be decided now.
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

    /// Why nothing that is not acknowledged yet is waited for.
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
                "replication.standby_timeout_ms = {timeout}, what stands before entry {acknowledged} is acknowledged"
            ),
        )
    }

    /// Why operations are refused, if they are.
    pub(crate) fn unwritable(&self, now: Duration) -> Option<Reason> {
        let inner = self.lock();
        if inner.is_standby {
            return None;
        }
        self.refused(&inner, now)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Nothing in here can panic halfway through a change.
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
