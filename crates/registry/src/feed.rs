//! The feed: the changes of a store in the order of their commits, each once, only when durable.

use crate::{Event, Fault, Happened, Operation, Position, SerialNumber};
use std::{pin::Pin, sync::Arc};

/// An answer of a feed that may have to be waited for.
pub type Promised<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Which changes are wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChangeFilter {
    /// Those that changed this widget or one of its slots.
    pub widget: Option<SerialNumber>,
    /// Those of one of these operations.
    pub operations: Option<Vec<Operation>>,
}

impl ChangeFilter {
    /// Whether a change is wanted.
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

/// Some changes, one after the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changes {
    /// Those that are wanted.
    pub events: Vec<Event>,
    /// After the last one that was looked at, wanted or not.
    pub next: Position,
    /// There were no more at that moment.
    pub is_end: bool,
}

/// Why changes cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FeedError {
    /// WG410: the position is older than what is kept, or was never given out by this store.
    #[error("the changes after this position are not kept, those after {oldest} are")]
    Gone {
        /// The oldest position that can be asked for.
        oldest: Position,
    },
    /// WG501: the store keeps no changes, as nobody has turned that on.
    #[error("this store keeps no changes")]
    Off,
    /// The store could not do its work.
    #[error(transparent)]
    Fault(#[from] Fault),
}

/// A store's changes.
pub trait Feed: Send + Sync + 'static {
    /// After the newest change that is durable.
    fn newest(&self) -> Promised<Result<Position, FeedError>>;

    /// Before the oldest change that is kept.
    fn oldest(&self) -> Promised<Result<Position, FeedError>>;

    /// Up to `limit` wanted changes after a position. It may give fewer, and none, before the end.
    fn read(
        &self,
        after: Position,
        filter: Arc<ChangeFilter>,
        limit: usize,
    ) -> Promised<Result<Changes, FeedError>>;

    /// Waits until all that reads rests on everything up to this position, however old. `Gone` where the
    /// store's history has no such position and will not come to it.
    fn reached(&self, position: Position) -> Promised<Result<(), FeedError>>;

    /// Waits until there may be a change after this position.
    fn changed(&self, after: Position) -> Promised<()>;

    /// After the newest change that is durable, where that is known without asking anybody.
    fn known_newest(&self) -> Option<Position> {
        None
    }
}
