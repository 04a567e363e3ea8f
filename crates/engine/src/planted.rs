//! Bugs to be found: the simulation must catch every one.
//!
//! `planted!(Name)` is one line in the engine. It is `false` at compile time outside of this crate's own tests and of
//! those that take the feature `simulation`: no program has a switch for it. In tests it is true while the bug is [planted](plant)
//! in the thread that asks. A bug that leaves a sync or a write out needs no line there: the simulated
//! disk does not hear it.

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
        /// What can be planted.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Bug {
            $($(#[doc = $what])+ $bug,)+
        }

        impl Bug {
            /// Every one.
            pub const ALL: &[Self] = &[$(Self::$bug),+];

            /// Those of a store that follows: `replica`'s simulation has primaries and standbys.
            pub const OF_STANDBYS: [Self; 13] = [
                Self::ReadAfterIgnored,
                Self::EpochOfPositionIgnored,
                Self::PromotionNotKept,
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

            /// What is wrong then.
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
    /// After a failed sync of the journal it is synced once more, and that is believed. (At the disk.)
    SyncRetried,
    /// A checkpoint is named before it is synced. (At the disk.)
    CheckpointUnsynced,
    /// The directory is not synced after a creation or a rename. (At the disk.)
    DirectoryUnsynced,
    /// The header of a group whose write failed is left. (At the disk.)
    FailedGroupKept,
    /// What a torn group left stays behind the end of the journal. (At the disk.)
    TornTailKept,
    /// The last group, perhaps not durable, is not written again at a start. (At the disk.)
    LastGroupTrusted,
    /// Answers are sent before the sync.
    AnsweredBeforeSync,
    /// A refusal is sent before what it rests on is synced.
    RefusedBeforeSync,
    /// A lookup is answered before what it shows is synced.
    LookedUpBeforeSync,
    /// After a failed commit one change is not taken back.
    UndoIncomplete,
    /// A request that waited too long is refused, and applied all the same.
    LateApplied,
    /// Nobody looks at the checksum of a group.
    GroupUnchecked,
    /// Nobody looks at the checksum of a checkpoint's block.
    BlockUnchecked,
    /// An unreadable group is the end of the journal, whatever follows it.
    DamageTakenForTornTail,
    /// A store whose journal is gone is begun anew.
    JournalForgotten,
    /// After a start the first change gets the number of the last one.
    SequenceReused,
    /// Older files go before the checkpoint that makes them needless is durable.
    RemovedTooEarly,
    /// The journal is replayed from where the copying of a checkpoint ended.
    ReplayedFromEnd,
    /// A slot that becomes free does so on one side only.
    FreedOnOneSide,
    /// The journal does not say which slot a removal freed.
    FreedNotJournaled,
    /// A removed widget's serial number stays taken.
    RemovedNotForgotten,
    /// A widget that a checkpoint has twice stays twice.
    DuplicateKept,
    /// The time of a group is the clock's, also where that went back.
    TimeGoesBack,
    /// A checkpoint leaves out the keys.
    KeysForgotten,
    /// Where there are too many keys the oldest goes, whosever it is.
    OldestKeyGoes,
    /// A change is told before it is synced.
    ToldBeforeSync,
    /// After a restart a change is left out.
    ToldWithGap,
    /// The changes of a batch are told with one position.
    ToldWithOnePosition,
    /// A key that is known is decided again.
    RetryApplied,
    /// A retry is answered before the first attempt is synced.
    ReplayedBeforeSync,
    /// A list does not keep how a widget was that changes before it was looked at.
    ChangeAheadMissed,
    /// A list looks at a widget as it is now, although it kept how it was.
    KeptForgotten,
    /// A list that has looked at what it kept does not go on behind that.
    KeptLookedAtTwice,
    /// A list begins before what its batch has changed is synced.
    ListedBeforeSync,
    /// A list does not add to the orders what has come and waits for that.
    PendingForgotten,
    /// A list does not put in order what came since the last one.
    TailForgotten,
    /// A run is split as it lies, and not by its order.
    TailSplit,
    /// A standby answers what is to be read after a position that it does not have yet.
    ReadAfterIgnored,
    /// A position of a history that was given up is taken for one of the history that goes on.
    EpochOfPositionIgnored,
    /// A promotion is not made durable.
    PromotionNotKept,
    /// A standby that is promoted keeps the epochs to whose beginning it has not come.
    EpochsAheadKept,
    /// A standby does not take over its primary's epochs.
    EpochsNotAdopted,
    /// A primary that was replaced goes on to take operations.
    WritesOnWhenReplaced,
    /// That a primary was replaced is not made durable.
    ReplacementNotKept,
    /// A primary that was replaced takes back more than seals.
    CutTooFar,
    /// An operation is answered before the holder has it.
    AnsweredBeforeAcknowledged,
    /// A refusal is sent before the holder has what it tells of.
    RefusedBeforeAcknowledged,
    /// Whatever reads is answered before the holder has what it tells of.
    ReadBeforeAcknowledged,
    /// A change is told before the holder has it.
    ToldBeforeAcknowledged,
    /// A start forgets who is the holder.
    HolderForgotten,
}

#[cfg(any(test, feature = "simulation"))]
thread_local! {
    static PLANTED: std::cell::Cell<Option<Bug>> = const { std::cell::Cell::new(None) };
}

/// Plants a bug in this thread, or takes it away.
#[cfg(any(test, feature = "simulation"))]
pub fn plant(bug: Option<Bug>) {
    PLANTED.set(bug);
}

#[cfg(any(test, feature = "simulation"))]
pub(crate) fn is_planted(bug: Bug) -> bool {
    PLANTED.get() == Some(bug)
}
