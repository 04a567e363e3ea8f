//! Following another store: its groups are written here exactly as they are in its journal.
//!
//! Everything enters through [`Follower`]. The owner of the state appends, syncs and applies these
//! groups like its own, so the directory of a standby is a store like any other, and is recovered
//! like one.

use crate::{
    JournalEnd, LoggedGroup, StoreHeader,
    acknowledge::Gate,
    log::Log,
    owner::Change,
    queue::{Naming, Queue, Request},
};
use std::{fmt, sync::Arc};
use tokio::sync::oneshot;
use widgets_clock::Clock;
use widgets_mailbox::Address;
use widgets_queue::{Queue as _, Submission};

/// Why a group was not followed. Except after [`Self::FateUnknown`], it is as if it had not been
/// tried.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FollowError {
    /// The store takes operations, and follows no other store.
    #[error("this store is not a standby")]
    NotStandby,
    /// The group does not continue where this store ends: it belongs to another history.
    #[error(
        "the group of entry {offered} does not continue where this store ends, which is before \
         entry {own}"
    )]
    DoesNotFollow {
        /// The sequence number of its first entry.
        offered: u64,
        /// The sequence number of the next entry here.
        own: u64,
    },
    /// The group's contents are not valid.
    #[error("the group of entry {first_sequence} cannot be read: {defect}")]
    Unreadable {
        /// The sequence number of its first entry.
        first_sequence: u64,
        /// What is wrong with it.
        defect: String,
    },
    /// No segment of this store has room for the group.
    #[error(
        "a group of the primary takes {bytes} bytes, and engine.segment_bytes leaves room for {room} here: \
         set it as on the primary"
    )]
    TooLong {
        /// The bytes that it needs.
        bytes: u64,
        /// The bytes that a segment has.
        room: u64,
    },
    /// The seals at the end of the journal cannot be removed.
    #[error(
        "what is newest in its directory rests on the seals at the end of its journal: they cannot be cut back"
    )]
    SealsNeeded,
    /// It can be tried again.
    #[error("it cannot be written now: {0}")]
    NotNow(String),
    /// Whether it is durable is unknown until a restart.
    #[error("it may or may not have been written: {0}")]
    FateUnknown(String),
}

fn stopped() -> FollowError {
    FollowError::FateUnknown("the store stopped".into())
}

/// Writes to a standby's store what its primary sends, and changes the role of a store.
#[derive(Clone)]
pub struct Follower {
    queue: Arc<Queue>,
    log: Arc<Log>,
    clock: Arc<dyn Clock>,
    gate: Option<Arc<Gate>>,
}

impl fmt::Debug for Follower {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Follower")
            .field("store", &self.log.store())
            .finish_non_exhaustive()
    }
}

impl Follower {
    pub(crate) fn new(
        queue: Arc<Queue>,
        log: Arc<Log>,
        clock: Arc<dyn Clock>,
        gate: Option<Arc<Gate>>,
    ) -> Self {
        Self {
            queue,
            log,
            clock,
            gate,
        }
    }

    /// Writes the next group. When this returns, the group is durable and part of the state.
    pub async fn follow(&self, group: Arc<LoggedGroup>) -> Result<(), FollowError> {
        let (reply, outcome) = oneshot::channel();
        self.ask(Request::Group(group, reply));
        outcome.await.unwrap_or_else(|_| Err(stopped()))
    }

    /// Removes the seals at the end of the journal durably, so that it ends at `before`, which
    /// [`Source::before_seals`] returned. Seals change nothing, and no answer depended on them. A
    /// crash on the way can leave some of them.
    ///
    /// [`Source::before_seals`]: crate::Source::before_seals
    pub async fn cut_seals(&self, before: JournalEnd) -> Result<(), FollowError> {
        let (reply, outcome) = oneshot::channel();
        self.ask(Request::CutSeals(before, reply));
        outcome.await.unwrap_or_else(|_| Err(stopped()))
    }

    /// Records that the primary's history has everything that this standby has, so that reads may
    /// be answered.
    pub fn confirmed(&self) {
        if let Some(gate) = &self.gate {
            gate.confirmed();
        }
    }

    /// Writes a record to the journal of a primary that names this member, or nobody, as the
    /// holder. When this returns, the record is durable. Returns where the journal ended then.
    /// Fails while the store takes no operations.
    pub async fn record(&self, member: Option<u64>) -> Result<JournalEnd, FollowError> {
        self.name(member, false).await
    }

    /// Writes the first record of a store that was [promoted](Self::promote), before it
    /// [leads](Self::lead).
    pub async fn record_first(&self, member: Option<u64>) -> Result<JournalEnd, FollowError> {
        self.name(member, true).await
    }

    async fn name(&self, member: Option<u64>, is_first: bool) -> Result<JournalEnd, FollowError> {
        let (reply, outcome) = oneshot::channel();
        self.ask(Request::Record(Naming { member, is_first }, reply));
        outcome.await.unwrap_or_else(|_| Err(stopped()))
    }

    fn ask(&self, request: Request) {
        self.queue.push_all(&mut vec![Submission {
            request,
            arrived: self.clock.now(),
            reply_to: Address::Task,
        }]);
    }

    /// Makes the store the primary of the epoch with this number, durably. Fails unless the number
    /// is above the store's epoch. `from` is the address of the former primary, and `address` is
    /// that of this store. Everything submitted before belongs to the earlier epoch. Operations are
    /// taken only after [`Self::lead`].
    pub async fn promote(
        &self,
        number: u32,
        from: String,
        address: String,
    ) -> Result<(), FollowError> {
        let promote = Change::Promote {
            number,
            from,
            address,
        };
        self.change(promote).await
    }

    /// Makes the store take operations, after a promotion.
    pub async fn lead(&self) -> Result<(), FollowError> {
        if self.log.store().is_standby() {
            return Err(FollowError::NotNow("it was not promoted".into()));
        }
        self.set_follows(false).await
    }

    /// Makes the store take no operations until it [leads](Self::lead) again. When this returns,
    /// everything that was taken from callers or from a primary is in the journal, or never will
    /// be. The role on the disk does not change.
    pub async fn pause(&self) -> Result<(), FollowError> {
        self.set_follows(true).await
    }

    /// Makes the store a standby of the primary at this address. It first stops taking operations,
    /// and then makes its role durable.
    pub async fn demote(&self, primary: String) -> Result<(), FollowError> {
        self.change(Change::Demote(primary)).await
    }

    async fn change(&self, change: Change) -> Result<(), FollowError> {
        let (reply, changed) = oneshot::channel();
        self.ask(Request::Change(change, reply));
        let busy = |_| {
            Err(FollowError::NotNow(
                "the store is too busy, or stopped".into(),
            ))
        };
        changed.await.unwrap_or_else(busy)
    }

    async fn set_follows(&self, follows: bool) -> Result<(), FollowError> {
        let (reply, done) = oneshot::channel();
        self.ask(Request::Follow(follows, reply));
        let busy = |_| FollowError::NotNow("the store is too busy, or stopped".into());
        done.await.map_err(busy)
    }

    /// Adopts the epochs of a primary, durably; what follows is written in the last of them.
    /// `asked` is what this store was when the primary was asked. If it has since been promoted, or
    /// follows another store, nothing is adopted.
    pub async fn adopt(
        &self,
        asked: Arc<StoreHeader>,
        primary: &StoreHeader,
    ) -> Result<(), FollowError> {
        self.change(Change::Adopt(asked, primary.epochs.clone()))
            .await
    }
}
