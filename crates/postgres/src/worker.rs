//! A connection that applies operations: it takes a batch, sends it, answers it, and reconnects if
//! the connection breaks.
//!
//! A failure is one of four kinds:
//! - *Nothing was applied*: the server rolled back, or the batch was never sent. After a conflict
//!   the batch is sent again until its time is over.
//! - *The fate is unknown*: the connection broke or fell silent after the batch was sent, or the
//!   server committed the batch and gave up the wait for its standbys. Nothing is sent again.
//! - *Another transaction holds the widgets* of some operations. These operations are [set
//!   aside](crate::locked), and the others are answered.
//! - *One operation is at fault*: the batch is sent in [parts], and finally each operation alone,
//!   so that no operation suffers because of another.

use crate::{
    backoff::backoff,
    batch::{Outcome, Outcomes},
    connected::Connected,
    error::unavailable,
    link::Link,
    nodes::Beside,
    placement::Home,
    queue::{Lane, Operation, homes::parts},
    send::{Culprit, Failed, Failure, LOCK_NOT_AVAILABLE, NO_MEANING, NODE_LOST, send},
    shared::{CANCELLED, Connection, Shared},
};
use std::{mem, sync::Arc, time::Duration};
use widgets_clock::Clock;
use widgets_queue::too_long;
use widgets_registry::{Applied, Command, Fault, Reason, Refusal, Rejection};

/// The pauses before a batch is sent again after a conflict.
const CONFLICT_LEAST: Duration = Duration::from_millis(2);
const CONFLICT_MOST: Duration = Duration::from_millis(100);

/// How long operations that concern a node are refused after the node could not be reached
/// (`LOST`), or did not answer in time (`HELD_UP`).
pub(crate) const LOST: Duration = Duration::from_millis(250);
pub(crate) const HELD_UP: Duration = Duration::from_secs(1);

/// Applies operations over this connection until the queue is closed and empty.
pub(crate) async fn run<C: Clock>(shared: Arc<Shared<C>>, mut link: Link<C>) {
    let mut batch = Vec::new();
    let mut retried = false;
    let mut beside = Beside::new(shared.clone());
    let mut left = shared.links[Lane::Operations as usize].left();
    loop {
        if !link.is_up() {
            left.mark_unchanged();
        }
        let connected = match link.connected().await {
            Ok(connected) => connected,
            Err(error) => {
                let reason = error.reason();
                answer_all(&shared, &mut batch, &Fault::Unavailable { reason });
                if shared.queue.is_closed() {
                    return;
                }
                link.pause().await;
                continue;
            }
        };
        if batch.is_empty() {
            let next = tokio::select! {
                next = next(&shared, connected, &mut batch, &mut retried) => next,
                // An error would mean that the sender is gone, which cannot happen: all connections
                // share it.
                _ = left.changed() => Next::Broken("the server accepts no writes".into()),
            };
            match next {
                Next::Batch => {}
                Next::Nothing => continue,
                Next::Broken(reason) => {
                    link.lose(&reason);
                    continue;
                }
                Next::Closed => return,
            }
        }
        let home = shared.queue.began(&batch);
        let there = match home {
            Some(home) if goes_beside(&shared, &batch, home) => beside.connected(home).await,
            _ => None,
        };
        if let Some((there, worker)) = there
            && let Connection::Drop(reason) = apply(&shared, there, &mut batch).await
        {
            tracing::warn!(reason, worker, "a connection to a worker was lost");
            shared.metrics.failed_at(&worker);
            beside.lose(&worker);
        }
        // This also applies the operations that a worker did not take.
        if let Connection::Drop(reason) = apply(&shared, connected, &mut batch).await {
            link.lose(&reason);
        }
        if let Some(home) = home {
            shared.queue.ended(home);
            for worker in shared.workers(home) {
                shared
                    .metrics
                    .node_batches
                    .with_label_values(&[&worker])
                    .inc();
            }
        }
    }
}

/// Reports whether a batch is sent to a worker. The coordinator keeps the idempotency keys, and it
/// is the one that decides whether a node is lost.
fn goes_beside<C: Clock>(shared: &Shared<C>, batch: &[Operation], home: Home) -> bool {
    let has_key = |operation: &Operation| operation.attempt.key.is_some();
    !batch.iter().any(has_key) && !shared.queue.may_be_lost(home)
}

/// What a connection does next.
enum Next {
    Batch,
    /// Check again.
    Nothing,
    Broken(String),
    Closed,
}

/// Waits for the next batch. After a batch of locked operations (`retried`), takes one from the
/// queue.
async fn next<C: Clock>(
    shared: &Shared<C>,
    connected: &Connected,
    batch: &mut Vec<Operation>,
    retried: &mut bool,
) -> Next {
    let now = shared.clock.now();
    if !mem::replace(retried, false) {
        let claim = |attempt: &_| shared.queue.claim(attempt);
        shared.locked.take(batch, now, claim);
        answer_late(shared, batch, &shared.held());
        if !batch.is_empty() {
            *retried = true;
            return Next::Batch;
        }
    }
    let until_retry = shared.locked.next_due().map(|due| due.saturating_sub(now));
    let again = [until_retry, shared.forget_failing()];
    let again = again.into_iter().flatten().min().unwrap_or(Duration::MAX);
    let most = shared.settings.batch_operations_max;
    tokio::select! {
        biased;
        reason = connected.broken() => return Next::Broken(reason),
        taken = shared.queue.take(batch, most, &*shared.clock) => {
            if taken {
                return Next::Batch;
            }
            if shared.locked.is_empty() {
                return Next::Closed;
            }
        }
        () = shared.clock.timer(again) => return Next::Nothing,
    }
    // The queue is closed, and only locked operations are left.
    shared.clock.timer(again).await;
    Next::Nothing
}

/// Applies a batch and answers it. Operations that could not be sent remain in `batch`.
async fn apply<C: Clock>(
    shared: &Shared<C>,
    connected: &Connected,
    batch: &mut Vec<Operation>,
) -> Connection {
    let mut attempt = 0;
    let mut lock_first = shared.locked.is_near(shared.clock.now());
    loop {
        answer_late(shared, batch, &shared.late());
        if batch.is_empty() {
            return Connection::Keep;
        }
        if connected.is_broken() {
            return Connection::Drop(connected.broken().await);
        }
        let started = shared.clock.now();
        let sent = send(shared, connected, batch, lock_first).await;
        let now = shared.clock.now();
        let Failed {
            failure,
            connection,
        } = match sent {
            Ok(outcomes) => {
                shared.set_failing_by(connected, None);
                reached(shared, batch);
                answer(shared, batch, outcomes, now.saturating_sub(started));
                return Connection::Keep;
            }
            Err(failed) => failed,
        };
        match failure {
            Failure::Conflict(code) => {
                let retries = &shared.metrics.batch_retries;
                retries.with_label_values(&[&code]).inc();
                if connection != Connection::Keep {
                    return connection;
                }
                if code == LOCK_NOT_AVAILABLE {
                    shared.locked.met(now);
                }
                // After a lock conflict, the batch is sent again at once, and skips locked widgets.
                if lock_first || code != LOCK_NOT_AVAILABLE {
                    let pause = backoff(CONFLICT_LEAST, CONFLICT_MOST, attempt, shared.random);
                    shared.clock.timer(pause).await;
                    attempt += 1;
                }
                lock_first = true;
            }
            Failure::Rejected(fault) => {
                if connection == Connection::Drop(CANCELLED.into()) {
                    held_up(shared, batch, now);
                }
                if let Fault::Unavailable { reason } = &fault {
                    if connected.beside.is_some() {
                        // Nothing was applied, and the coordinator may accept the batch.
                        return Connection::Drop(reason.to_string());
                    }
                    if connection == Connection::Keep {
                        shared.set_failing(Some(reason.clone()));
                    }
                }
                answer_all(shared, batch, &fault);
                return connection;
            }
            Failure::Culprit(Culprit { public, reason }) => {
                if public == NODE_LOST && lose(shared, batch, now) || batch.len() == 1 {
                    tracing::error!(reason, "the database refused an operation");
                    answer_all(shared, batch, &unavailable(public, reason));
                    return connection;
                }
                tracing::error!(reason, "a batch failed: it is sent in parts");
                if connection != Connection::Keep {
                    return connection;
                }
                return apply_parts(shared, connected, batch).await;
            }
            Failure::Lost(reason) => {
                tracing::warn!(%reason, "the fate of a batch is unknown");
                if connected.beside.is_some() {
                    lose(shared, batch, now);
                }
                answer_all(shared, batch, &Fault::FateUnknown { reason });
                return connection;
            }
        }
    }
}

/// Applies the batch in parts, because one operation in it caused a failure.
async fn apply_parts<C: Clock>(
    shared: &Shared<C>,
    connected: &Connected,
    batch: &mut Vec<Operation>,
) -> Connection {
    let placement = shared.queue.placement();
    let mut parts = parts(placement.as_deref(), mem::take(batch)).into_iter();
    while let Some(mut part) = parts.next() {
        let connection = Box::pin(apply(shared, connected, &mut part)).await;
        if connection != Connection::Keep {
            // The remaining parts were not sent, and may be sent elsewhere.
            batch.append(&mut part);
            batch.extend(parts.flatten());
            return connection;
        }
    }
    Connection::Keep
}

/// Handles a batch that met a node that cannot be reached. If the whole batch concerns the same
/// nodes, refuses operations that concern them for a while and returns true: the failure is then
/// the answer to the whole batch.
fn lose<C: Clock>(shared: &Shared<C>, batch: &[Operation], now: Duration) -> bool {
    let home = shared.queue.home_of(batch).filter(|_| {
        let goes = |each: &Operation| matches!(each.attempt.command, Command::RemoveWidget { .. });
        !batch.iter().any(goes)
    });
    if let Some(home) = home {
        shared.lose(home, now, LOST);
    }
    home.is_some()
}

/// Handles a batch that timed out, perhaps because a node of a distributed registry does not
/// answer.
fn held_up<C: Clock>(shared: &Shared<C>, batch: &[Operation], now: Duration) {
    if let Some(home) = shared.queue.home_of(batch) {
        shared.lose(home, now, HELD_UP);
    } else if let Some(placement) = shared.queue.placement() {
        let home = |operation: &Operation| placement.home(&operation.attempt.command);
        shared.queue.suspect(batch.iter().map(home), now);
    }
}

/// Records that the nodes of a batch's home can be reached, because the batch succeeded.
fn reached<C: Clock>(shared: &Shared<C>, batch: &[Operation]) {
    if shared.queue.apart().is_some()
        && let Some(home) = shared.queue.home_of(batch)
    {
        shared.queue.reached(home);
    }
}

/// Answers the operations that have waited too long with this fault.
fn answer_late<C: Clock>(shared: &Shared<C>, batch: &mut Vec<Operation>, fault: &Fault) {
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
    answer_all(shared, &mut late, fault);
}

/// Answers a batch that was applied and releases its widgets. Locked operations are set aside.
fn answer<C: Clock>(
    shared: &Shared<C>,
    batch: &mut Vec<Operation>,
    mut outcomes: Outcomes,
    elapsed: Duration,
) {
    let now = shared.clock.now();
    if let Some(newest) = outcomes.newest() {
        shared.feed.committed(newest);
    }
    shared.queue.release(batch.iter().map(|each| &each.attempt));
    let mut locked = Vec::new();
    let mut answers = Vec::with_capacity(batch.len());
    for operation in batch.drain(..) {
        let answer = match outcomes.next(&operation.attempt.command) {
            Ok(Outcome::Applied) => Ok(Applied::Now),
            Ok(Outcome::AppliedBefore) => {
                shared.metrics.idempotency_replayed.inc();
                Ok(Applied::Before)
            }
            Ok(Outcome::Refused(refusal)) => {
                if refusal == Refusal::KeyReused {
                    shared.metrics.idempotency_reused.inc();
                }
                Err(Rejection::Refused(refusal))
            }
            Ok(Outcome::RefusedBefore(refusal)) => {
                shared.metrics.idempotency_replayed.inc();
                Err(Rejection::Replayed(refusal))
            }
            Ok(Outcome::Locked) => {
                locked.push(operation);
                continue;
            }
            Err(unknown) => {
                tracing::error!(error = %unknown, "the database returned an invalid answer");
                let reason = Reason::new(NO_MEANING, unknown.to_string());
                Err(Fault::FateUnknown { reason }.into())
            }
        };
        answers.push(operation.answered(answer));
    }
    if !answers.is_empty() {
        shared.queue.applied(answers.len(), elapsed, now);
        #[expect(clippy::cast_precision_loss, reason = "a batch has few operations")]
        let operations = answers.len() as f64;
        shared.metrics.batch_operations.observe(operations);
        let seconds = elapsed.as_secs_f64();
        shared.metrics.commit_duration_seconds.observe(seconds);
    }
    if !locked.is_empty() {
        shared.locked.met(now);
    }
    let mut waited = None;
    for mut operation in locked {
        match shared.locked.admit(&mut operation) {
            Ok(()) => shared.locked.push(operation, now, shared.random),
            Err(limit) => {
                // The oldest waiting operation may wait as long again.
                let waited = *waited.get_or_insert_with(|| shared.locked.waited(now));
                let milliseconds = u64::try_from(waited.as_millis()).unwrap_or(u64::MAX);
                let fault = too_long(limit, milliseconds);
                answers.push(operation.answered(Err(fault.into())));
            }
        }
    }
    shared.queue.answer(answers.into_iter());
}

/// Answers every operation with the same fault and releases its widgets.
fn answer_all<C: Clock>(shared: &Shared<C>, batch: &mut Vec<Operation>, fault: &Fault) {
    if batch.is_empty() {
        return;
    }
    shared.queue.release(batch.iter().map(|each| &each.attempt));
    let answer = |operation: Operation| operation.answered(Err(fault.clone().into()));
    shared.queue.answer(batch.drain(..).map(answer));
}
