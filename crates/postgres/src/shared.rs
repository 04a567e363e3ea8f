//! What all connections of a store share: the database's address, the queue of waiting requests,
//! and the timeouts of statements.

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

/// The state that all connections of a store share.
pub(crate) struct Shared<C> {
    pub(crate) target: Target,
    pub(crate) settings: Settings,
    pub(crate) queue: Arc<Queue>,
    pub(crate) locked: Arc<Locked>,
    pub(crate) clock: Arc<C>,
    pub(crate) random: Random,
    pub(crate) metrics: Metrics,
    /// Indexed by [`Lane`].
    pub(crate) links: [Links; LANES],
    pub(crate) failing: Failing,
    pub(crate) nodes: Known,
    pub(crate) feed: Arc<Tail>,
    /// When a batch last failed for a reason that concerns the whole database, so that the next
    /// batch is expected to fail as well. `None` if operations succeed.
    pub(crate) failing_since: Mutex<Option<Duration>>,
}

/// How long, at least, such a failure is expected to persist if no operation is attempted.
const FAILING: Duration = Duration::from_secs(5);

/// If a statement takes longer than this, the server may never answer it.
const SUSPECT_AFTER: Duration = Duration::from_millis(500);

impl<C: Clock> Shared<C> {
    /// Refuses the requests of a lane that has no connection: both the waiting ones and new ones.
    pub(crate) fn refuse(&self, lane: Lane, reason: &Reason) {
        self.queue.set_unreachable(lane, reason);
        if lane == Lane::Operations {
            self.queue.answer(self.locked.take_all().map(|operation| {
                let reason = reason.clone();
                operation.answered(Err(Fault::Unavailable { reason }.into()))
            }));
        }
    }

    /// Returns the addresses of a home's workers.
    pub(crate) fn workers(&self, Home(one, two): Home) -> Vec<String> {
        let placement = self.queue.placement();
        let workers = placement.as_ref().map(|placement| &placement.workers);
        let address = |number| workers?.get(number).cloned();
        let numbers = [one, two].into_iter().take(if one == two { 1 } else { 2 });
        numbers.filter_map(address).collect()
    }

    /// Records that a node of this home could not be reached. Operations that concern the home are
    /// refused for `pause`.
    pub(crate) fn lose(&self, home: Home, now: Duration, pause: Duration) {
        for worker in self.workers(home) {
            self.metrics.failed_at(&worker);
        }
        self.queue.lose(home, now, pause);
    }

    /// Calls [`Self::set_failing`] with the result of a batch that was sent on `connected`, unless
    /// that is a connection to a worker, because a worker's failure concerns only the widgets on
    /// it.
    pub(crate) fn set_failing_by(&self, connected: &Connected, reason: Option<Reason>) {
        if connected.beside.is_none() {
            self.set_failing(reason);
        }
    }

    /// Records why operations fail although connections are up, or, with `None`, that they succeed
    /// again.
    pub(crate) fn set_failing(&self, reason: Option<Reason>) {
        let mut since = self.failing_since();
        if reason.is_some() || since.is_some() {
            *since = reason.is_some().then(|| self.clock.now());
            self.queue.set_failing(reason);
        }
    }

    /// Forgets the recorded failure once it is old enough. Otherwise returns how long that will
    /// take, or `None` if no failure is recorded.
    pub(crate) fn forget_failing(&self) -> Option<Duration> {
        let mut since = self.failing_since();
        // An operation in flight may take its whole timeout before it meets the same failure.
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
        // A panic cannot leave the value half written.
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

    /// Returns the fault for an operation whose widgets stayed locked for the whole wait.
    pub(crate) fn held(&self) -> Fault {
        let most = self.settings.queue_wait_ms_max;
        too_long(format!("{HELD}, for queue_wait_ms_max = {most}"), most)
    }

    /// Returns the fault for a statement that was cancelled, by us or by the database.
    pub(crate) fn cancelled(&self, by_us: bool) -> Fault {
        if by_us {
            let most = self.settings.statement_timeout_ms;
            too_long(format!("statement_timeout_ms = {most}"), most)
        } else {
            self.busy("the database cancelled the statement".into())
        }
    }

    /// Returns a temporary fault that names the limit that was exceeded.
    pub(crate) fn busy(&self, limit: String) -> Fault {
        Fault::Busy {
            limit,
            retry_after_seconds: self.queue.retry_after_seconds(self.clock.now()),
        }
    }

    /// Runs `work`, which sends a statement on `connected`, and cancels it after the statement
    /// timeout. If the server has been replaced, sends nothing and does not wait for an answer.
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
        match self.cancel(connected, work).await {
            Some(done) => Bounded::Cancelled(done),
            None => Bounded::Silent(self.silent()),
        }
    }

    /// Asks the server to cancel the statement of `connected`, and returns the result of `work`,
    /// which sent it. Returns `None` if both together take longer than the connect timeout: a
    /// server that does not answer may never accept the request either.
    ///
    /// The connection must not be used again: the request may arrive late and cancel the next
    /// statement.
    pub(crate) async fn cancel<T>(
        &self,
        connected: &Connected,
        work: impl Future<Output = T>,
    ) -> Option<T> {
        let cancelled = async {
            if let Err(error) = self.target.cancel(&connected.client).await {
                tracing::warn!(error = reason(&error), "cancelling failed");
            }
            work.await
        };
        tokio::select! {
            done = cancelled => Some(done),
            () = self.clock.timer(self.settings.connect_timeout()) => None,
        }
    }

    /// Like `bounded`, but gives up earlier if the statement takes long and its server does not
    /// answer a new connection either, so that callers and `/ready` learn of it sooner.
    pub(crate) async fn heard<T>(
        &self,
        connected: &Connected,
        work: impl Future<Output = T>,
    ) -> Bounded<T> {
        let silent = async {
            self.clock.timer(SUSPECT_AFTER).await;
            let target = connected.beside.as_ref().unwrap_or(&self.target);
            if target.is_answered(self.settings.connect_timeout()).await {
                // The server answers, so only the statement is slow.
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

    /// Says why a connection that fell silent is dropped.
    fn silent(&self) -> String {
        format!(
            "no answer within statement_timeout_ms = {} and connect_timeout_ms = {}",
            self.settings.statement_timeout_ms, self.settings.connect_timeout_ms
        )
    }
}

/// The result of a statement with a timeout.
pub(crate) enum Bounded<T> {
    Done(T),
    /// The statement ended after its [cancellation](Shared::cancel) was requested. The connection
    /// must not be used again.
    Cancelled(T),
    /// No answer arrived, or an answer no longer matters because the server has been replaced.
    /// Holds the reason.
    Silent(String),
}

/// The reason for dropping a connection whose statement was cancelled.
pub(crate) const CANCELLED: &str = "a statement took too long and was cancelled";

/// Whether a connection can be used again. `Drop` holds the reason why not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Connection {
    Keep,
    Drop(String),
}
