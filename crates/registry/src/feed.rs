//! The feed: the changes of a store in the order of their commits, each exactly once and only when
//! durable.

use crate::{Event, Fault, Happened, Operation, Position, SerialNumber};
use std::{pin::Pin, sync::Arc};

/// A result of a feed that may not be available yet.
pub type Promised<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Selects changes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChangeFilter {
    /// Only changes of this widget or one of its slots.
    pub widget: Option<SerialNumber>,
    /// Only changes by these operations.
    pub operations: Option<Vec<Operation>>,
}

impl ChangeFilter {
    /// Reports whether a change is selected.
    #[must_use]
    pub fn matches(&self, happened: &Happened) -> bool {
        let operations = self.operations.as_ref();
        operations.is_none_or(|operations| operations.contains(&happened.operation()))
            && self
                .widget
                .as_ref()
                .is_none_or(|widget| happened.touches(widget))
    }
}

/// Some consecutive changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changes {
    /// The selected changes.
    pub events: Vec<Event>,
    /// The position after the last change that was examined, selected or not.
    pub next: Position,
    /// There were no more changes at that time.
    pub is_end: bool,
}

/// Why changes cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FeedError {
    /// WG410: the changes after the position are no longer kept, or this store never returned that
    /// position.
    #[error("the changes after this position are not kept, those after {oldest} are")]
    Gone {
        /// The oldest position that can be read from.
        oldest: Position,
    },
    /// WG501: the store keeps no changes, because the feed is not enabled.
    #[error("this store keeps no changes")]
    Off,
    /// The store could not do its work.
    #[error(transparent)]
    Fault(#[from] Fault),
}

/// A store's changes.
pub trait Feed: Send + Sync + 'static {
    /// Returns the position after the newest durable change.
    fn newest(&self) -> Promised<Result<Position, FeedError>>;

    /// Returns the position before the oldest change that is kept.
    fn oldest(&self) -> Promised<Result<Position, FeedError>>;

    /// Returns up to `limit` selected changes after a position. It may return fewer, or none,
    /// before the end.
    fn read(
        &self,
        after: Position,
        filter: Arc<ChangeFilter>,
        limit: usize,
    ) -> Promised<Result<Changes, FeedError>>;

    /// Waits until all reads see everything up to this position, however old it is. Returns `Gone`
    /// if the store's history does not contain the position and never will.
    fn reached(&self, position: Position) -> Promised<Result<(), FeedError>>;

    /// Waits until there may be a change after this position.
    fn changed(&self, after: Position) -> Promised<()>;

    /// Returns the position after the newest durable change, if it is known without waiting.
    fn known_newest(&self) -> Option<Position> {
        None
    }
}
