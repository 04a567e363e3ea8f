//! The log as a feed: a lagging reader waits for the disk on a thread that may block.

use super::{Log, not_known};
use std::sync::Arc;
use widgets_registry::{ChangeFilter, Changes, Fault, Feed, FeedError, Position, Promised};

/// The feed of an engine.
pub(crate) struct EngineFeed(pub(crate) Arc<Log>);

impl Feed for EngineFeed {
    fn newest(&self) -> Promised<Result<Position, FeedError>> {
        let newest = self.0.newest_shown().ok_or_else(not_known);
        Box::pin(async move { newest })
    }

    fn oldest(&self) -> Promised<Result<Position, FeedError>> {
        let oldest = self.0.oldest();
        Box::pin(async move { Ok(oldest) })
    }

    fn read(
        &self,
        after: Position,
        filter: Arc<ChangeFilter>,
        limit: usize,
    ) -> Promised<Result<Changes, FeedError>> {
        let log = self.0.clone();
        Box::pin(async move {
            if let Some(groups) = log.read_ring(after)? {
                return log.changes(&groups, after, &filter, limit);
            }
            // The semaphore is never closed.
            let turn = log.turns.clone().acquire_owned().await;
            let read = tokio::task::spawn_blocking(move || log.read(after, &filter, limit)).await;
            drop(turn);
            read.unwrap_or_else(|error| {
                let reason =
                    widgets_registry::Reason::new("the journal cannot be read", error.to_string());
                Err(Fault::Unavailable { reason }.into())
            })
        })
    }

    fn reached(&self, position: Position) -> Promised<Result<(), FeedError>> {
        let log = self.0.clone();
        Box::pin(async move {
            let mut told = log.told.subscribe();
            // The herald is asked before the wait, so what is published after the check is
            // notified.
            while !log.has(position)? {
                log.await_herald();
                // The channel is never closed.
                drop(told.changed().await);
            }
            Ok(())
        })
    }

    fn changed(&self, after: Position) -> Promised<()> {
        let log = self.0.clone();
        Box::pin(async move {
            let mut told = log.told.subscribe();
            log.await_herald();
            // An error means that the store is gone: there is nothing to wait for.
            drop(
                told.wait_for(|&next_sequence| next_sequence > after.sequence + 1)
                    .await,
            );
        })
    }

    fn known_newest(&self) -> Option<Position> {
        self.0.newest_shown()
    }
}
