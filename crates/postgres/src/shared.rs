//! What all connections of a store share: where the database is, what waits for it, and how long
//! statements may take.

use crate::{
    Metrics, Random, Settings, Target,
    changes::Tail,
    connected::Connected,
    error::reason,
    link::{Failing, Links},
    locked::{HELD, Locked},
    nodes::Known,
    placement::Home,
    queue::{LANES, Lane, Queue},
};
use std::{
    future::pending,
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use widgets_clock::Clock;
use widgets_queue::too_long;
use widgets_registry::{Fault, Reason};

/// What all connections of a store share.
pub(crate) struct Shared<C> {
    pub(crate) target: Target,
    pub(crate) settings: Settings,
    pub(crate) queue: Arc<Queue>,
    pub(crate) locked: Arc<Locked>,
    pub(crate) clock: Arc<C>,
    pub(crate) random: Random,
    pub(crate) metrics: Metrics,
    /// By lane.
    pub(crate) links: [Links; LANES],
    pub(crate) failing: Failing,
    pub(crate) nodes: Known,
    pub(crate) feed: Arc<Tail>,
    /// When a batch met a fault that was none of its own, and that the next one is expected to meet.
    pub(crate) failing_since: Mutex<Option<Duration>>,
}

/// For so long it is expected at least, if no operation is tried.
const FAILING: Duration = Duration::from_secs(5);

/// A statement that takes longer may be one that the server will never answer.
const SUSPECT_AFTER: Duration = Duration::from_millis(500);

impl<C: Clock> Shared<C> {
    /// Refuses the requests of a lane that has no connection: those that wait, and those that come.
    pub(crate) fn refuse(&self, lane: Lane, reason: &Reason) {
        self.queue.set_unreachable(lane, reason);
        if lane == Lane::Operations {
            self.queue.answer(self.locked.take_all().map(|operation| {
                let reason = reason.clone();
                operation.answered(Err(Fault::Unavailable { reason }.into()))
            }));
        }
    }

    /// The workers of a home, by their addresses.
    pub(crate) fn workers(&self, Home(one, two): Home) -> Vec<String> {
        let placement = self.queue.placement();
        let workers = placement.as_ref().map(|placement| &placement.workers);
        let address = |number| workers?.get(number).cloned();
        let numbers = [one, two].into_iter().take(if one == two { 1 } else { 2 });
        numbers.filter_map(address).collect()
    }

    /// Something met a node of this home that is away: what names it is refused for so long.
    pub(crate) fn lose(&self, home: Home, now: Duration, pause: Duration) {
        for worker in self.workers(home) {
            self.metrics.failed_at(&worker);
        }
        self.queue.lose(home, now, pause);
    }

    /// The same of a batch that was sent there: what a worker says concerns nothing but what is on it.
    pub(crate) fn set_failing_by(&self, connected: &Connected, reason: Option<Reason>) {
        if connected.beside.is_none() {
            self.set_failing(reason);
        }
    }

    /// Remembers what operations meet though there are connections, or that they meet nothing.
    pub(crate) fn set_failing(&self, reason: Option<Reason>) {
        let mut since = self.failing_since();
        if reason.is_some() || since.is_some() {
            *since = reason.is_some().then(|| self.clock.now());
            self.queue.set_failing(reason);
        }
    }

    /// Forgets it, once that is long ago; otherwise, how long that takes.
    pub(crate) fn forget_failing(&self) -> Option<Duration> {
        let mut since = self.failing_since();
        // One that is under way may need its whole time to meet the same.
        let expected = FAILING.max(self.settings.statement_timeout() * 2);
        let rest = expected.saturating_sub(self.clock.now().saturating_sub((*since)?));
        if !rest.is_zero() {
            return Some(rest);
        }
        *since = None;
        self.queue.set_failing(None);
        None
    }

    fn failing_since(&self) -> MutexGuard<'_, Option<Duration>> {
        // A time is put in whole.
        let since = self.failing_since.lock();
        since.unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn is_late(&self, arrived: Duration) -> bool {
        self.clock.now().saturating_sub(arrived) > self.settings.queue_wait_max()
    }

    pub(crate) fn late(&self) -> Fault {
        let most = self.settings.queue_wait_ms_max;
        too_long(format!("queue_wait_ms_max = {most}"), most)
    }

    /// What callers are told whose widgets were locked all that time.
    pub(crate) fn held(&self) -> Fault {
        let most = self.settings.queue_wait_ms_max;
        too_long(format!("{HELD}, for queue_wait_ms_max = {most}"), most)
    }

    /// What callers are told of a statement that was cancelled.
    pub(crate) fn cancelled(&self, by_us: bool) -> Fault {
        if by_us {
            let most = self.settings.statement_timeout_ms;
            too_long(format!("statement_timeout_ms = {most}"), most)
        } else {
            self.busy("the database cancelled the statement".into())
        }
    }

    /// A fault for now, with the limit that was met.
    pub(crate) fn busy(&self, limit: String) -> Fault {
        Fault::Busy {
            limit,
            retry_after_seconds: self.queue.retry_after_seconds(self.clock.now()),
        }
    }

    /// Runs `work`, which is a statement to be sent on `connected`. When it takes too long it is
    /// cancelled. A server that was replaced is not asked, nor heard.
    async fn bounded<T>(&self, connected: &Connected, work: impl Future<Output = T>) -> Bounded<T> {
        let mut work = pin!(work);
        if let Some(reason) = connected.replaced() {
            return Bounded::Silent(reason);
        }
        tokio::select! {
            biased;
            reason = connected.until_replaced() => return Bounded::Silent(reason),
            done = &mut work => return Bounded::Done(done),
            () = self.clock.timer(self.settings.statement_timeout()) => {}
        }
        tracing::warn!(
            statement_timeout_ms = self.settings.statement_timeout_ms,
            "a statement takes too long and is cancelled"
        );
        let answer = async {
            if let Err(error) = self.target.cancel(&connected.client).await {
                tracing::warn!(error = reason(&error), "cancelling failed");
            }
            work.await
        };
        tokio::select! {
            done = answer => Bounded::Cancelled(done),
            () = self.clock.timer(self.settings.connect_timeout()) => Bounded::Silent(self.silent()),
        }
    }

    /// The same, but where it takes long and its server answers no new connection either, it is given up before its time: so
    /// much sooner callers and `/ready` know.
    pub(crate) async fn heard<T>(
        &self,
        connected: &Connected,
        work: impl Future<Output = T>,
    ) -> Bounded<T> {
        let silent = async {
            self.clock.timer(SUSPECT_AFTER).await;
            let target = connected.beside.as_ref().unwrap_or(&self.target);
            if target.is_answered(self.settings.connect_timeout()).await {
                // What takes long is the statement.
                pending::<()>().await;
            }
        };
        tokio::select! {
            biased;
            done = self.bounded(connected, work) => done,
            () = silent => Bounded::Silent(format!(
                "no answer within {} ms, and none to a new connection within connect_timeout_ms = {}",
                SUSPECT_AFTER.as_millis(), self.settings.connect_timeout_ms
            )),
        }
    }

    /// Why a connection is given up that fell silent.
    fn silent(&self) -> String {
        format!(
            "no answer within statement_timeout_ms = {} and connect_timeout_ms = {}",
            self.settings.statement_timeout_ms, self.settings.connect_timeout_ms
        )
    }
}

/// What came of a statement whose time is bounded.
pub(crate) enum Bounded<T> {
    Done(T),
    /// It ended after it was asked to be cancelled. The connection is not used again: the request may
    /// be late, and meet the next statement.
    Cancelled(T),
    /// Nothing was heard of it, for this reason, or nothing is worth hearing any more.
    Silent(String),
}

/// Why a connection is given up whose statement was cancelled.
pub(crate) const CANCELLED: &str = "a statement took too long and was cancelled";

/// Whether a connection can be used again, and if not, why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Connection {
    Keep,
    Drop(String),
}
