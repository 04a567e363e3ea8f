//! The feed's two connections, separate from those of operations, lookups and lists.
//!
//! One follows the end of the feed while anybody waits for changes. The server notifies it of each
//! commit; it also polls, because a pooler may not pass notifications on. The other answers
//! subscribers who are behind, and removes changes and keys that are no longer kept.

use crate::{
    changes::{Found, READ, Read, Reads, State},
    connected::Connected,
    error::unavailable,
    link::Link,
    queue::Lane,
    shared::{Bounded, CANCELLED, Shared},
};
use std::{collections::VecDeque, iter, mem, sync::Arc, time::Duration};
use tokio_postgres::types::Type;
use widgets_clock::Clock;
use widgets_registry::{Fault, FeedError};

/// How often the end of the feed is read without a notification.
const POLL: Duration = Duration::from_millis(250);

/// Any role that may connect may also send notifications. After this many in a row without a new
/// change, they are ignored until there is a change.
const FOR_NOTHING_MAX: u32 = 8;

/// How long the end is still followed after the last subscriber stopped waiting.
const LINGER: Duration = Duration::from_secs(10);

/// How often old changes and keys are removed.
const KEEPING: Duration = Duration::from_secs(10);

/// Why a read failed, and, if the connection is no longer usable, why not.
enum Failed {
    Feed(FeedError),
    Broken(FeedError, String),
}

/// Follows the end of the feed until the store is closed.
pub(crate) async fn follow<C: Clock>(shared: Arc<Shared<C>>) {
    let mut closing = shared.feed.closing();
    tokio::select! {
        _ = closing.wait_for(|&closed| closed) => {}
        () = follow_on(&shared) => {}
    }
}

async fn follow_on<C: Clock>(shared: &Arc<Shared<C>>) {
    let mut link = Link::new(shared.clone(), Lane::Changes);
    loop {
        shared.feed.awaited().await;
        let Ok(connected) = link.connected().await else {
            link.pause().await;
            continue;
        };
        let ended = follow_connected(shared, connected).await;
        shared.feed.end();
        match ended {
            // Nobody waits, so the connection is closed.
            Ok(()) => drop(link.close()),
            Err(Failed::Broken(_, reason)) => link.lose(&reason),
            Err(Failed::Feed(_)) => shared.clock.timer(KEEPING).await,
        }
    }
}

/// Follows the feed while the connection holds and somebody waits.
async fn follow_connected<C: Clock>(
    shared: &Shared<C>,
    connected: &Connected,
) -> Result<(), Failed> {
    let listen = connected.client.batch_execute("LISTEN widgets_changes");
    let listened = shared.heard(connected, listen).await;
    done(shared, connected, listened).await?;
    let mut idle_since = None;
    let (mut was_notified, mut notified_for_nothing) = (false, 0);
    loop {
        let is_end = match shared.feed.followed() {
            None => {
                let found = find(shared, connected, None).await?;
                shared.feed.begin(found.state);
                false
            }
            Some(after) => {
                shared.feed.begin_round();
                let found = find(shared, connected, Some(after)).await?;
                let is_end = found.is_end;
                if !found.batches.is_empty() {
                    notified_for_nothing = 0;
                } else if was_notified {
                    notified_for_nothing += 1;
                }
                if !shared.feed.extend(found) {
                    // It is another server, or the next changes are no longer kept.
                    shared.feed.end();
                }
                is_end
            }
        };
        if !is_end {
            continue;
        }
        if shared.feed.is_awaited() {
            idle_since = None;
        } else {
            let now = shared.clock.now();
            let since = *idle_since.get_or_insert(now);
            if now.saturating_sub(since) > LINGER {
                return Ok(());
            }
        }
        was_notified = false;
        tokio::select! {
            reason = connected.broken() => {
                let fault = unavailable("the connection to the database broke", reason.clone());
                return Err(Failed::Broken(fault.into(), reason));
            }
            () = connected.notified(), if notified_for_nothing < FOR_NOTHING_MAX => {
                was_notified = true;
            }
            () = shared.feed.nudged() => {}
            () = shared.clock.timer(POLL) => {}
        }
    }
}

/// Answers reads and removes old changes and keys until the store is closed.
pub(crate) async fn read<C: Clock>(shared: Arc<Shared<C>>, mut reads: Reads) {
    let mut closing = shared.feed.closing();
    let mut link = Link::new(shared.clone(), Lane::Changes);
    let mut keep_at = shared.clock.now() + KEEPING;
    // Reads that were taken from the channel before it was their turn.
    let mut waiting = VecDeque::new();
    loop {
        let rest = keep_at.saturating_sub(shared.clock.now());
        let next = async {
            match waiting.pop_front() {
                Some(read) => Some(read),
                None => reads.recv().await,
            }
        };
        let read = tokio::select! {
            _ = closing.wait_for(|&closed| closed) => return,
            read = next => match read {
                Some(read) => Some(read),
                None => return,
            },
            () = shared.clock.timer(rest) => None,
            reason = link.broken() => {
                link.lose(&reason);
                continue;
            }
        };
        if read.as_ref().is_some_and(|read| read.reply.is_closed()) {
            continue;
        }
        // Reads that arrive during an attempt to connect share its failure: otherwise each would
        // wait for an attempt of its own, after those of all reads before it.
        let connected = tokio::select! {
            biased;
            () = collect(&mut reads, &mut waiting), if !link.is_up() => return,
            connected = link.connected() => connected,
        };
        let connected = match connected {
            Ok(connected) => connected,
            Err(error) => {
                let reason = error.reason();
                let fault = FeedError::from(Fault::Unavailable { reason });
                for read in read.into_iter().chain(waiting.drain(..)) {
                    drop(read.reply.send(Err(fault.clone())));
                }
                keep_at = shared.clock.now() + KEEPING;
                continue;
            }
        };
        let broken = if let Some(read) = read {
            let mut asked = vec![read];
            if asked[0].after.is_none() {
                // One answer serves everybody who asks for the state alone. So a caller who asks
                // for it over and over, for example with `Read-After` in each lookup, holds up
                // nobody.
                waiting.extend(iter::from_fn(|| reads.try_recv().ok()));
                let same;
                (same, waiting) = mem::take(&mut waiting)
                    .into_iter()
                    .partition(|read| read.after.is_none());
                asked.extend::<VecDeque<_>>(same);
            }
            answer(&shared, connected, asked).await
        } else {
            keep_at = shared.clock.now() + KEEPING;
            keep(&shared, connected).await
        };
        if let Err(reason) = broken {
            link.lose(&reason);
        }
    }
}

/// Collects reads as they arrive. Returns when nobody can send any more.
async fn collect(reads: &mut Reads, waiting: &mut VecDeque<Read>) {
    while let Some(read) = reads.recv().await {
        waiting.push_back(read);
    }
}

/// Answers identical reads. Returns an error if the connection is no longer usable.
async fn answer<C: Clock>(
    shared: &Shared<C>,
    connected: &Connected,
    mut reads: Vec<Read>,
) -> Result<(), String> {
    reads.retain(|read| !read.reply.is_closed());
    let Some(after) = reads.first().map(|read| read.after) else {
        return Ok(());
    };
    let (answer, broken) = match find(shared, connected, after).await {
        Ok(found) => (Ok(found), Ok(())),
        Err(Failed::Feed(error)) => (Err(error), Ok(())),
        Err(Failed::Broken(error, reason)) => (Err(error), Err(reason)),
    };
    for read in reads {
        // If the receiver is gone, nobody waits for the answer any more.
        drop(read.reply.send(answer.clone()));
    }
    broken
}

/// Reads the rows after a number, and then the state, which therefore shows whether any were
/// removed in between.
async fn find<C: Clock>(
    shared: &Shared<C>,
    connected: &Connected,
    after: Option<u64>,
) -> Result<Found, Failed> {
    let client = &connected.client;
    let work = async {
        let rows = match after {
            None => Vec::new(),
            Some(after) => {
                // The database cannot have issued a number that is larger than it can represent.
                let after = i64::try_from(after).unwrap_or(i64::MAX);
                let parameters: [(&(dyn tokio_postgres::types::ToSql + Sync), Type); 2] =
                    [(&after, Type::INT8), (&Found::ROWS_MAX, Type::INT4)];
                client.query_typed(READ, &parameters).await?
            }
        };
        let state = client.query_typed(State::STATEMENT, &[]).await?;
        let state = state.first().map(State::read).transpose()?.flatten();
        Ok((state, rows))
    };
    let (state, rows) = done(shared, connected, shared.heard(connected, work).await).await?;
    let Some(state) = state else {
        return Err(Failed::Feed(FeedError::Off));
    };
    Found::new(state, &rows).map_err(|defect| {
        tracing::error!(defect, "the database holds an impossible change");
        let fault = unavailable("the database holds an impossible change", defect);
        Failed::Feed(fault.into())
    })
}

/// Removes changes and keys that are too old or too many.
async fn keep<C: Clock>(shared: &Shared<C>, connected: &Connected) -> Result<(), String> {
    let settings = &shared.settings;
    let hours = |hours: u32| i32::try_from(hours).unwrap_or(i32::MAX);
    let number = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    let changes: [(&(dyn tokio_postgres::types::ToSql + Sync), Type); 2] = [
        (&hours(settings.changes_retention_hours), Type::INT4),
        (&number(settings.changes_retention_bytes), Type::INT8),
    ];
    let keys: [(&(dyn tokio_postgres::types::ToSql + Sync), Type); 2] = [
        (&hours(settings.idempotency_retention_hours), Type::INT4),
        (&number(settings.idempotency_keys_max), Type::INT8),
    ];
    let work = async {
        let client = &connected.client;
        let changes = client
            .query_typed("SELECT widgets.keep_changes($1, $2)", &changes)
            .await?;
        let keys = client
            .query_typed("SELECT keys, early FROM widgets.keep_keys($1, $2)", &keys)
            .await?;
        let bytes: i64 = changes.first().map_or(Ok(0), |row| row.try_get(0))?;
        let kept: i64 = keys.first().map_or(Ok(0), |row| row.try_get(0))?;
        let early: i64 = keys.first().map_or(Ok(0), |row| row.try_get(1))?;
        Ok((bytes, kept, early))
    };
    match done(shared, connected, shared.heard(connected, work).await).await {
        Ok((bytes, kept, early)) => {
            let metrics = &shared.metrics;
            metrics.changes_bytes.set(bytes);
            metrics.idempotency_keys.set(kept);
            if early > 0 {
                metrics.idempotency_keys_early.inc_by(early.cast_unsigned());
                tracing::warn!(
                    idempotency_keys_max = settings.idempotency_keys_max,
                    early,
                    "there are more idempotency keys than are kept: the oldest are dropped early"
                );
            }
            Ok(())
        }
        Err(Failed::Broken(_, reason)) => Err(reason),
        Err(Failed::Feed(error)) => {
            tracing::warn!(%error, "deleting old changes and keys failed; trying again");
            Ok(())
        }
    }
}

/// Returns a statement's result, or how it failed.
async fn done<C: Clock, T>(
    shared: &Shared<C>,
    connected: &Connected,
    bounded: Bounded<Result<T, tokio_postgres::Error>>,
) -> Result<T, Failed> {
    match bounded {
        Bounded::Done(Ok(done)) => Ok(done),
        Bounded::Done(Err(error)) => {
            let reason = connected.why(&error).await;
            let fault = unavailable(
                "the changes cannot be read from the database",
                reason.clone(),
            );
            Err(if connected.is_ended_by(&error) {
                Failed::Broken(fault.into(), reason)
            } else {
                Failed::Feed(fault.into())
            })
        }
        Bounded::Cancelled(_) => Err(Failed::Broken(
            shared.cancelled(true).into(),
            CANCELLED.into(),
        )),
        Bounded::Silent(reason) => {
            let fault = unavailable("the database did not answer", reason.clone());
            Err(Failed::Broken(fault.into(), reason))
        }
    }
}
