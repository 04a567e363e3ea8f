//! Planted bugs, every one of which the simulation must catch.
//!
//! `planted!(Name)` is one line in the engine. It is `false` at compile time except in this crate's
//! own tests and in those that enable the feature `simulation`, so no released program can switch a
//! bug on. In tests it is true while the bug is [planted](plant) in the calling thread. A bug that
//! omits a sync or a write needs no such line, because the simulated disk ignores the call.

#[cfg(not(any(test, feature = "simulation")))]
macro_rules! planted {
    ($bug:ident) => {
        false
    };
}

#[cfg(any(test, feature = "simulation"))]
macro_rules! planted {
    ($bug:ident) => {
        $crate::planted::is_planted($crate::planted::Bug::$bug)
    };
}

#[cfg(any(test, feature = "simulation"))]
macro_rules! bugs {
    ($($(#[doc = $what:literal])+ $bug:ident,)+) => {
        /// The bugs that can be planted.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Bug {
            $($(#[doc = $what])+ $bug,)+
        }

        impl Bug {
            /// All bugs.
            pub const ALL: &[Self] = &[$(Self::$bug),+];

            /// The bugs of a store that follows. `replica`'s simulation, which has primaries and
            /// standbys, plants them.
            pub const OF_STANDBYS: [Self; 14] = [
                Self::ReadAfterIgnored,
                Self::EpochOfPositionIgnored,
                Self::PromotionNotKept,
                Self::EpochKept,
                Self::EpochsAheadKept,
                Self::EpochsNotAdopted,
                Self::WritesOnWhenReplaced,
                Self::ReplacementNotKept,
                Self::CutTooFar,
                Self::AnsweredBeforeAcknowledged,
                Self::RefusedBeforeAcknowledged,
                Self::ReadBeforeAcknowledged,
                Self::ToldBeforeAcknowledged,
                Self::HolderForgotten,
            ];

            /// Says what goes wrong with the bug.
            #[must_use]
            pub fn meaning(self) -> &'static str {
                match self {
                    $(Self::$bug => concat!($($what),+).trim_ascii(),)+
                }
            }
        }
    };
}

#[cfg(any(test, feature = "simulation"))]
bugs! {
    /// The journal is not synced. (At the disk.)
    SyncSkipped,
    /// After a failed sync, the journal is synced again, and the second result is believed. (At the
    /// disk.)
    SyncRetried,
    /// A checkpoint is renamed before it is synced. (At the disk.)
    CheckpointUnsynced,
    /// The directory is not synced after a creation or a rename. (At the disk.)
    DirectoryUnsynced,
    /// The header of a group whose write failed is not erased. (At the disk.)
    FailedGroupKept,
    /// What a torn group left is not erased from the end of the journal. (At the disk.)
    TornTailKept,
    /// The last group, which may not be durable, is not written again at a start. (At the disk.)
    LastGroupTrusted,
    /// Answers are sent before the sync.
    AnsweredBeforeSync,
    /// A refusal is sent before the data it depends on is synced.
    RefusedBeforeSync,
    /// A lookup is answered before the data it shows is synced.
    LookedUpBeforeSync,
    /// After a failed commit, one change is not undone.
    UndoIncomplete,
    /// A request that waited too long is refused, but applied anyway.
    LateApplied,
    /// The checksum of a group is not checked.
    GroupUnchecked,
    /// The checksum of a checkpoint's block is not checked.
    BlockUnchecked,
    /// An unreadable group is taken for the end of the journal, whatever follows it.
    DamageTakenForTornTail,
    /// A store whose journal is gone begins anew.
    JournalForgotten,
    /// After a start, the first change gets the number of the last one.
    SequenceReused,
    /// Older files are removed before the checkpoint that makes them obsolete is durable.
    RemovedTooEarly,
    /// The journal is replayed from where the copying of a checkpoint ended.
    ReplayedFromEnd,
    /// A slot that becomes free does so on one side only.
    FreedOnOneSide,
    /// The journal does not say which slot a removal freed.
    FreedNotJournaled,
    /// A removed widget's serial number stays taken.
    RemovedNotForgotten,
    /// A widget that is in a checkpoint twice stays twice.
    DuplicateKept,
    /// The time of a group is always the clock's, even after the clock was set back.
    TimeGoesBack,
    /// A checkpoint leaves out the keys.
    KeysForgotten,
    /// If there are too many keys, the oldest is dropped, whoever's it is.
    OldestKeyGoes,
    /// A change is shown before it is synced.
    ToldBeforeSync,
    /// After a restart, a change is left out.
    ToldWithGap,
    /// All changes of a batch are shown with one position.
    ToldWithOnePosition,
    /// An operation whose key is known is decided again.
    RetryApplied,
    /// A retry is answered before the first attempt is synced.
    ReplayedBeforeSync,
    /// A list does not keep the old version of a widget that changes before the list reaches it.
    ChangeAheadMissed,
    /// A list looks at a widget as it is now, although it kept the old version.
    KeptForgotten,
    /// A list does not move past the old versions that it has looked at.
    KeptLookedAtTwice,
    /// A list begins before the changes of its batch are synced.
    ListedBeforeSync,
    /// A list does not add the pending widgets to the orders.
    PendingForgotten,
    /// A list does not sort what was added to a run since the last list.
    TailForgotten,
    /// A run is split without being sorted first.
    TailSplit,
    /// A standby answers a read that must come after a position it has not reached yet.
    ReadAfterIgnored,
    /// A position of an abandoned history is taken for one of the current history.
    EpochOfPositionIgnored,
    /// A promotion is not made durable.
    PromotionNotKept,
    /// A promotion does not begin an epoch.
    EpochKept,
    /// A promoted standby keeps epochs whose beginning it has not reached.
    EpochsAheadKept,
    /// A standby does not adopt its primary's epochs.
    EpochsNotAdopted,
    /// A replaced primary continues to take operations.
    WritesOnWhenReplaced,
    /// The replacement of a primary is not made durable.
    ReplacementNotKept,
    /// A replaced primary removes more than seals.
    CutTooFar,
    /// An operation is answered before the holder has it.
    AnsweredBeforeAcknowledged,
    /// A refusal is sent before the holder has the data it reveals.
    RefusedBeforeAcknowledged,
    /// A read is answered before the holder has the data it reveals.
    ReadBeforeAcknowledged,
    /// A change is shown before the holder has it.
    ToldBeforeAcknowledged,
    /// A start forgets who is the holder.
    HolderForgotten,
}

#[cfg(any(test, feature = "simulation"))]
thread_local! {
    static PLANTED: std::cell::Cell<Option<Bug>> = const { std::cell::Cell::new(None) };
}

/// Plants a bug in this thread, or removes it.
#[cfg(any(test, feature = "simulation"))]
pub fn plant(bug: Option<Bug>) {
    PLANTED.set(bug);
}

#[cfg(any(test, feature = "simulation"))]
pub(crate) fn is_planted(bug: Bug) -> bool {
    PLANTED.get() == Some(bug)
}
