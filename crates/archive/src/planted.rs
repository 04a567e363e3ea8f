//! Bugs to be found: the tests must catch every one. As in the engine, `planted!(Name)` is `false` outside
//! of this crate's own tests, at compile time.

#[cfg(not(test))]
macro_rules! planted {
    ($bug:ident) => {
        false
    };
}

#[cfg(test)]
macro_rules! planted {
    ($bug:ident) => {
        $crate::planted::is_planted($crate::planted::Bug::$bug)
    };
}

/// What can be planted.
#[cfg(test)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bug {
    /// The manifest says that an object is there before it is.
    ManifestBeforeObject,
    /// Nobody looks whose the manifest is.
    WriterIgnored,
    /// Nobody looks at the epoch of a store that was left behind.
    EpochIgnored,
    /// A group is left out between two objects.
    GroupLeftOut,
    /// Nobody looks whether a group follows from the one before it.
    ChainUnchecked,
    /// A restore goes one group too far.
    GroupTooFar,
    /// Pruning takes the checkpoint that the oldest kept moment needs.
    PrunedTooMuch,
    /// Pruning takes objects before the manifest says that they are not needed.
    PrunedBeforeManifest,
    /// What the journal is held for is let go before it is in the archive.
    LetGoTooEarly,
    /// A write whose answer was lost is taken for somebody else's.
    LateAnswerForgotten,
    /// A checkpoint is named before the journal reaches what it needs.
    CheckpointTooEarly,
    /// What was packed is let go before it is in the archive.
    PackedLetGo,
    /// An object goes on after a group in it could not be packed.
    FailedPackingGoesOn,
    /// An object is taken to end where the journal does, and not with its last group.
    EndOfJournalForObject,
    /// An object is written without what the encoder still has of it.
    EndOfObjectForgotten,
}

#[cfg(test)]
impl Bug {
    /// Every one.
    pub(crate) const ALL: &[Self] = &[
        Self::ManifestBeforeObject,
        Self::WriterIgnored,
        Self::EpochIgnored,
        Self::GroupLeftOut,
        Self::ChainUnchecked,
        Self::GroupTooFar,
        Self::PrunedTooMuch,
        Self::PrunedBeforeManifest,
        Self::LetGoTooEarly,
        Self::LateAnswerForgotten,
        Self::CheckpointTooEarly,
        Self::PackedLetGo,
        Self::FailedPackingGoesOn,
        Self::EndOfJournalForObject,
        Self::EndOfObjectForgotten,
    ];
}

#[cfg(test)]
thread_local! {
    static PLANTED: std::cell::Cell<Option<Bug>> = const { std::cell::Cell::new(None) };
    static PACKS: std::cell::Cell<Option<usize>> = const { std::cell::Cell::new(None) };
}

/// After so many calls of the encoder in this thread one fails.
#[cfg(test)]
pub(crate) fn fail_packing_after(calls: usize) {
    PACKS.set(Some(calls));
}

/// Whether the failure that was asked for is still to come.
#[cfg(test)]
pub(crate) fn will_packing_fail() -> bool {
    PACKS.take().is_some()
}

/// The encoder is called.
#[cfg(test)]
pub(crate) fn pack() -> std::io::Result<()> {
    match PACKS.take() {
        Some(0) => Err(std::io::Error::other("no memory")),
        left => {
            PACKS.set(left.map(|left| left - 1));
            Ok(())
        }
    }
}

/// Plants a bug in this thread, or takes it away.
#[cfg(test)]
pub(crate) fn plant(bug: Option<Bug>) {
    PLANTED.set(bug);
}

#[cfg(test)]
pub(crate) fn is_planted(bug: Bug) -> bool {
    PLANTED.get() == Some(bug)
}
