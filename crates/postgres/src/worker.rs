//! A connection that applies operations: takes a batch, sends it, answers it, and comes back when
//! the connection breaks.
//!
//! Every failure is one of three. *Nothing was applied*: the server said that it rolled back, or
//! the batch was never sent; a conflict is sent again until its time is over. *The fate is unknown*:
//! the connection broke, or fell silent, after the batch was sent; nothing is sent again. Or one
//! operation of the batch is at fault: then each is sent alone, so that none suffers for another.

use crate::{
    Metrics, OpenError, Random, Settings, Target,
    backoff::backoff,
    batch::{CALL, Call, Outcomes},
    connect::Connected,
    error::reason,
    migrations,
    queue::{Lane, Operation, Queue},
};
use futures_util::TryStreamExt as _;
use std::{
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio_postgres::{Row, error::SqlState};
use widgets_clock::Clock;
use widgets_queue::Answered;
use widgets_registry::{Fault, Reason, Rejection};

/// What all connections of a store share.
pub(crate) struct Shared<C> {
    pub(crate) target: Target,
    pub(crate) settings: Settings,
    pub(crate) queue: Arc<Queue>,
    pub(crate) clock: Arc<C>,
    pub(crate) random: Random,
    pub(crate) metrics: Metrics,
    /// How many connections are up, by lane.
    pub(crate) up: [AtomicUsize; 2],
}

/// The pauses between attempts to connect.
const RECONNECT_LEAST: Duration = Duration::from_millis(50);
const RECONNECT_MOST: Duration = Duration::from_secs(1);
/// The pauses before a batch is sent again after a conflict.
const CONFLICT_LEAST: Duration = Duration::from_millis(2);
const CONFLICT_MOST: Duration = Duration::from_millis(100);

/// A connection that counts as up for as long as it lives.
pub(crate) struct Up<C> {
    pub(crate) connected: Connected,
    shared: Arc<Shared<C>>,
    lane: Lane,
}

impl<C> Drop for Up<C> {
    fn drop(&mut self) {
        self.shared.up[self.lane as usize].fetch_sub(1, Ordering::Relaxed);
        self.shared.metrics.connections.dec();
    }
}

impl<C: Clock> Shared<C> {
    /// Makes a connection and checks the schema behind it. Where that fails and the lane has no
    /// other, its requests are refused from now on.
    pub(crate) async fn connect(self: &Arc<Self>, lane: Lane) -> Result<Up<C>, OpenError> {
        match self.connect_and_check().await {
            Ok(connected) => {
                self.up[lane as usize].fetch_add(1, Ordering::Relaxed);
                self.metrics.connections.inc();
                self.queue.set_reachable(lane);
                Ok(Up {
                    connected,
                    shared: self.clone(),
                    lane,
                })
            }
            Err(error) => {
                if self.up[lane as usize].load(Ordering::Relaxed) == 0 {
                    self.queue.set_unreachable(lane, &error.reason());
                }
                Err(error)
            }
        }
    }

    async fn connect_and_check(&self) -> Result<Connected, OpenError> {
        let timeout = self.settings.connect_timeout();
        let connected = self.target.connect(timeout).await?;
        let check = migrations::check_served(&connected.client);
        match tokio::time::timeout(timeout, check).await {
            Ok(checked) => checked.map(|()| connected),
            Err(_) => Err(OpenError::Connect {
                target: self.target.to_string(),
                reason: format!("no answer within {} ms", timeout.as_millis()),
            }),
        }
    }

    /// Waits before the next attempt to connect.
    pub(crate) async fn pause(&self, attempt: u32) {
        let pause = backoff(RECONNECT_LEAST, RECONNECT_MOST, attempt, self.random);
        self.clock.timer(pause).await;
    }

    pub(crate) fn is_late(&self, arrived: Duration) -> bool {
        self.clock.now().saturating_sub(arrived) > self.settings.queue_wait_max()
    }

    pub(crate) fn late(&self) -> Fault {
        busy("queue_wait_ms_max", self.settings.queue_wait_ms_max)
    }

    /// Runs `work`, which is a statement under way on `connected`. When it takes too long it is
    /// cancelled, and what it then says is its answer; `None` if it says nothing.
    pub(crate) async fn bounded<T>(
        &self,
        connected: &Connected,
        work: impl Future<Output = T>,
    ) -> Option<T> {
        let mut work = pin!(work);
        tokio::select! {
            done = &mut work => return Some(done),
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
            done = answer => Some(done),
            () = self.clock.timer(self.settings.connect_timeout()) => None,
        }
    }
}

pub(crate) fn busy(setting: &str, value: u64) -> Fault {
    Fault::Busy {
        limit: format!("{setting} = {value}"),
        retry_after_seconds: 1,
    }
}

/// What came of sending a batch.
enum Failure {
    /// Nothing was applied: another transaction was in the way.
    Conflict(String),
    /// Nothing was applied, and this is the answer to each operation.
    Rejected(Fault),
    /// The same, and the connection is of no use any more.
    Disconnected(Fault),
    /// Nothing was applied, and one operation may be the cause.
    Culprit(String),
    /// The connection broke or fell silent.
    Lost(String),
}

/// Whether a connection can be used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Connection {
    Keep,
    Drop,
}

/// Applies operations until the queue is closed and empty. `first` hears what came of the first
/// attempt to connect.
pub(crate) async fn run<C: Clock>(
    shared: Arc<Shared<C>>,
    first: impl FnOnce(Result<(), OpenError>) + Send,
) {
    let mut first = Some(first);
    let mut up: Option<Up<C>> = None;
    let mut batch = Vec::new();
    let mut attempt = 0;
    loop {
        let open = match up.take() {
            Some(open) => open,
            None => match shared.connect(Lane::Operations).await {
                Ok(open) => open,
                Err(error) => {
                    let reason = error.reason();
                    if let Some(first) = first.take() {
                        first(Err(error));
                    }
                    if attempt == 0 {
                        tracing::warn!(%reason, "no connection to the database: trying on");
                    }
                    let fault = Fault::Unavailable { reason };
                    answer_all(&shared, &mut batch, &fault);
                    if shared.queue.is_closed() {
                        return;
                    }
                    shared.pause(attempt).await;
                    attempt += 1;
                    continue;
                }
            },
        };
        if attempt > 0 {
            tracing::info!(attempt, "connected to the database again");
            attempt = 0;
        }
        if let Some(first) = first.take() {
            first(Ok(()));
        }
        if batch.is_empty() {
            let most = shared.settings.batch_operations_max;
            tokio::select! {
                taken = shared.queue.take(&mut batch, most, &*shared.clock) => {
                    if !taken {
                        return;
                    }
                }
                () = open.connected.broken() => continue,
            }
        }
        if apply(&shared, &open.connected, &mut batch).await == Connection::Keep {
            up = Some(open);
        }
    }
}

/// Applies a batch and answers it. It is left empty, or untouched where it could not be sent.
async fn apply<C: Clock>(
    shared: &Shared<C>,
    connected: &Connected,
    batch: &mut Vec<Operation>,
) -> Connection {
    let mut attempt = 0;
    loop {
        answer_late(shared, batch);
        if batch.is_empty() {
            return Connection::Keep;
        }
        if connected.client.is_closed() {
            return Connection::Drop;
        }
        let started = shared.clock.now();
        let sent = send(shared, connected, batch, attempt > 0).await;
        let elapsed = shared.clock.now().saturating_sub(started);
        match sent {
            Ok(outcomes) => {
                answer(shared, batch, outcomes, elapsed);
                return Connection::Keep;
            }
            Err(Failure::Conflict(code)) => {
                shared
                    .metrics
                    .batch_retries
                    .with_label_values(&[&code])
                    .inc();
                let pause = backoff(CONFLICT_LEAST, CONFLICT_MOST, attempt, shared.random);
                shared.clock.timer(pause).await;
                attempt += 1;
            }
            Err(Failure::Rejected(fault)) => {
                answer_all(shared, batch, &fault);
                return Connection::Keep;
            }
            Err(Failure::Disconnected(fault)) => {
                answer_all(shared, batch, &fault);
                return Connection::Drop;
            }
            Err(Failure::Culprit(reason)) if batch.len() > 1 => {
                tracing::error!(reason, "a batch failed: each operation is sent alone");
                for operation in batch.drain(..) {
                    let mut alone = vec![operation];
                    let connection = Box::pin(apply(shared, connected, &mut alone)).await;
                    if connection == Connection::Drop {
                        // What comes after it was not sent, and may be sent elsewhere.
                        let reason = "the connection broke before it was sent".into();
                        answer_all(shared, &mut alone, &Fault::Unavailable { reason });
                    }
                }
                return Connection::Keep;
            }
            Err(Failure::Culprit(reason)) => {
                tracing::error!(reason, "the database refused an operation");
                let reason = Reason::new("the database refused an operation", reason);
                answer_all(shared, batch, &Fault::Unavailable { reason });
                return Connection::Keep;
            }
            Err(Failure::Lost(reason)) => {
                tracing::warn!(reason, "the fate of a batch is unknown");
                let reason = Reason::new("the database did not say what became of it", reason);
                answer_all(shared, batch, &Fault::FateUnknown { reason });
                return Connection::Drop;
            }
        }
    }
}

async fn send<C: Clock>(
    shared: &Shared<C>,
    connected: &Connected,
    batch: &[Operation],
    lock_first: bool,
) -> Result<Outcomes, Failure> {
    let commands = batch.iter().map(|operation| &operation.command);
    let call = Call::new(commands, lock_first);
    let mut row: Option<Row> = None;
    let work = async {
        let rows = connected.client.query_typed_raw(CALL, call.parameters());
        let mut rows = pin!(rows.await?);
        while let Some(next) = rows.try_next().await? {
            row = Some(next);
        }
        // The stream ends with the server's word that the transaction has ended.
        Ok(())
    };
    let done = shared.bounded(connected, work).await;
    match (done, row) {
        (None, _) => Err(Failure::Lost(format!(
            "no answer within statement_timeout_ms = {} and connect_timeout_ms = {}",
            shared.settings.statement_timeout_ms, shared.settings.connect_timeout_ms
        ))),
        (Some(Err(error)), row) => {
            Err(failure(&error, row.is_some(), lock_first, &shared.settings))
        }
        (Some(Ok(())), Some(row)) => {
            Outcomes::read(&row).map_err(|error| Failure::Lost(reason(&error)))
        }
        (Some(Ok(())), None) => Err(Failure::Lost("the database gave no outcomes".into())),
    }
}

/// What an error says of a batch that was sent, when its row was seen or not.
fn failure(
    error: &tokio_postgres::Error,
    row_seen: bool,
    lock_first: bool,
    settings: &Settings,
) -> Failure {
    let reason = reason(error);
    let Some(database) = error.as_db_error() else {
        return Failure::Lost(reason);
    };
    let code = database.code();
    if database.severity() != "ERROR" {
        // The server ends the connection. A row comes before its transaction's commit, so without
        // one there was none; but a pooler says the same of a server that it has lost, under other
        // codes.
        let rolled_back = !row_seen
            && [
                SqlState::ADMIN_SHUTDOWN,
                SqlState::CANNOT_CONNECT_NOW,
                SqlState::TOO_MANY_CONNECTIONS,
            ]
            .contains(code);
        return if rolled_back {
            let reason = Reason::new("the database ended the connection", reason);
            Failure::Disconnected(Fault::Unavailable { reason })
        } else {
            Failure::Lost(reason)
        };
    }
    match code.code() {
        // 23505: a serial number was taken while the batch looked.
        "40001" | "40P01" | "55P03" | "23505" => Failure::Conflict(code.code().to_owned()),
        // Of two halves one was as the batch had read it, and the other had changed.
        "23503" if !lock_first => Failure::Conflict(code.code().to_owned()),
        "57014" => Failure::Rejected(busy("statement_timeout_ms", settings.statement_timeout_ms)),
        // A standby after a failover: another host may be the primary by now.
        "25006" => {
            let reason = Reason::new("the database is read-only", reason);
            Failure::Disconnected(Fault::Unavailable { reason })
        }
        other => match other.get(..2) {
            // Data, constraints, and whatever is unheard of.
            Some("22" | "23" | "XX") | None => Failure::Culprit(reason),
            // Rights, resources, an administrator: it has nothing to do with one operation.
            Some(_) => {
                tracing::error!(reason, "the database applies no operations");
                let reason = Reason::new("the database applies no operations", reason);
                Failure::Rejected(Fault::Unavailable { reason })
            }
        },
    }
}

fn answer_late<C: Clock>(shared: &Shared<C>, batch: &mut Vec<Operation>) {
    if !batch
        .iter()
        .any(|operation| shared.is_late(operation.arrived))
    {
        return;
    }
    let (mut late, in_time) = batch
        .drain(..)
        .partition(|operation| shared.is_late(operation.arrived));
    *batch = in_time;
    answer_all(shared, &mut late, &shared.late());
}

/// Answers a batch that was applied, and lets its widgets go.
fn answer<C: Clock>(
    shared: &Shared<C>,
    batch: &mut Vec<Operation>,
    mut outcomes: Outcomes,
    elapsed: Duration,
) {
    let commands = batch.iter().map(|operation| &operation.command);
    shared.queue.release(commands);
    shared.queue.applied(batch.len(), elapsed);
    #[expect(clippy::cast_precision_loss, reason = "a batch has few operations")]
    shared.metrics.batch_operations.observe(batch.len() as f64);
    let seconds = elapsed.as_secs_f64();
    shared.metrics.commit_duration_seconds.observe(seconds);
    shared.queue.answer(batch.drain(..).map(|operation| {
        let answer = match outcomes.next(&operation.command) {
            Ok(outcome) => outcome.map_err(Rejection::Refused),
            Err(unknown) => {
                tracing::error!(error = %unknown, "the database gave an answer that has no meaning");
                let what = "the database gave an answer that has no meaning";
                let reason = Reason::new(what, unknown.to_string());
                Err(Fault::FateUnknown { reason }.into())
            }
        };
        let answer = Answered::Operation(operation.reply, answer);
        (operation.reply_to, answer)
    }));
}

/// Gives every operation the same answer, and lets its widgets go.
fn answer_all<C: Clock>(shared: &Shared<C>, batch: &mut Vec<Operation>, fault: &Fault) {
    if batch.is_empty() {
        return;
    }
    let commands = batch.iter().map(|operation| &operation.command);
    shared.queue.release(commands);
    shared.queue.answer(batch.drain(..).map(|operation| {
        let answer = Answered::Operation(operation.reply, Err(fault.clone().into()));
        (operation.reply_to, answer)
    }));
}
