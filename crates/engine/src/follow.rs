//! Following another store: its groups are written here as they stand in its journal.
//!
//! [`Follower`] is the one way in. What it hands over, the owner of the state appends, syncs and applies
//! as it does with its own; so the directory of a standby is a store like any other, and is recovered as one.

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

/// Why a group was not followed. It is as if it had not been tried, but for [`Self::FateUnknown`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FollowError {
    /// The store takes operations, and follows nobody.
    #[error("this store is no standby")]
    NotStandby,
    /// It does not go on where this store ends: it is another history.
    #[error(
        "the group of entry {offered} does not go on where this store ends, which is before entry {own}"
    )]
    DoesNotFollow {
        /// The sequence number of its first entry.
        offered: u64,
        /// The sequence number of the next entry here.
        own: u64,
    },
    /// It cannot be what it says to be.
    #[error("the group of entry {first_sequence} cannot be read: {defect}")]
    Unreadable {
        /// The sequence number of its first entry.
        first_sequence: u64,
        /// What is wrong with it.
        defect: String,
    },
    /// No segment of this store has room for it.
    #[error(
        "a group of the primary takes {bytes} bytes, and engine.segment_bytes leaves room for {room} here: \
         set it as on the primary"
    )]
    TooLong {
        /// What it takes.
        bytes: u64,
        /// What there is.
        room: u64,
    },
    /// The seals at the end of the journal cannot be taken back.
    #[error(
        "what is newest in its directory rests on the seals at the end of its journal: they cannot be cut back"
    )]
    SealsNeeded,
    /// It can be tried again.
    #[error("it cannot be written now: {0}")]
    NotNow(String),
    /// Whether it is durable is not known before a restart.
    #[error("it may or may not have been written: {0}")]
    FateUnknown(String),
}

fn stopped() -> FollowError {
    FollowError::FateUnknown("the store stopped".into())
}

/// Writes what a primary sends to a standby's store.
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

    /// Writes the next group. It is durable and shown when this is answered.
    pub async fn follow(&self, group: Arc<LoggedGroup>) -> Result<(), FollowError> {
        let (reply, outcome) = oneshot::channel();
        self.ask(Request::Group(group, reply));
        outcome.await.unwrap_or_else(|_| Err(stopped()))
    }

    /// Takes back the seals at the end of the journal, so that it ends at `before`, which [`Source::before_seals`]
    /// gave. They say nothing, and nobody was answered by them. It is durable when this is answered; after a crash on the way some of
    /// them are there.
    ///
    /// [`Source::before_seals`]: crate::Source::before_seals
    pub async fn cut_seals(&self, before: JournalEnd) -> Result<(), FollowError> {
        let (reply, outcome) = oneshot::channel();
        self.ask(Request::CutSeals(before, reply));
        outcome.await.unwrap_or_else(|_| Err(stopped()))
    }

    /// The primary's history has everything that this standby has: what reads may tell of it.
    pub fn confirmed(&self) {
        if let Some(gate) = &self.gate {
            gate.confirmed();
        }
    }

    /// Has the journal of a primary name this member as the holder, or nobody. It is durable when this is answered, with where
    /// the journal ended then. While it takes no operations nothing is written.
    pub async fn record(&self, member: Option<u64>) -> Result<JournalEnd, FollowError> {
        self.name(member, false).await
    }

    /// The same of a store that was [promoted](Self::promote), before it [leads](Self::lead).
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

    /// Makes the store the primary of an epoch of this number, durably. `from` is where the primary was, `address` where
    /// this store is. What was handed over before belongs to the epoch before; operations are taken after [`Self::lead`].
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

    /// Takes operations from here on, after a promotion.
    pub async fn lead(&self) -> Result<(), FollowError> {
        if self.log.store().is_standby() {
            return Err(FollowError::NotNow("it was not promoted".into()));
        }
        self.set_follows(false).await
    }

    /// Takes no operations from here on, until it [leads](Self::lead) again: what was taken, from callers or of a primary, is in the
    /// journal when this is answered, or will never be. On its disk it is what it was.
    pub async fn pause(&self) -> Result<(), FollowError> {
        self.set_follows(true).await
    }

    /// Makes the store a standby of the primary at this address: first it takes no operation any more, then it is so
    /// durably.
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

    /// Takes over the epochs of a primary, durably: what follows is written in its last one. `asked` is what this store was when the
    /// primary was asked; where it is another one by now, as it was promoted or follows somebody else, nothing is taken over.
    pub async fn adopt(
        &self,
        asked: Arc<StoreHeader>,
        primary: &StoreHeader,
    ) -> Result<(), FollowError> {
        self.change(Change::Adopt(asked, primary.epochs.clone()))
            .await
    }
}
