//! Planted bugs, each of which the tests must find. As in the engine, `planted!(Name)` is `false`
//! at compile time outside this crate's own tests.

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

/// A bug to plant.
#[cfg(test)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bug {
    /// The manifest names an object before it is written.
    ManifestBeforeObject,
    /// The writer ignores that the manifest belongs to another one.
    WriterIgnored,
    /// The epoch of a store that was left behind is ignored.
    EpochIgnored,
    /// A group between two objects is left out.
    GroupLeftOut,
    /// Nothing checks that a group follows from the one before it.
    ChainUnchecked,
    /// A restore goes one group too far.
    GroupTooFar,
    /// Pruning removes the checkpoint that the oldest kept moment needs.
    PrunedTooMuch,
    /// Pruning removes objects before the manifest stops naming them.
    PrunedBeforeManifest,
    /// Held journal is let go before it is in the archive.
    LetGoTooEarly,
    /// A write whose answer was lost is taken for someone else's.
    LateAnswerForgotten,
    /// The manifest names a checkpoint before the archived journal reaches what it needs.
    CheckpointTooEarly,
    /// What was packed is let go before it is in the archive.
    PackedLetGo,
    /// An object continues after a group in it could not be packed.
    FailedPackingGoesOn,
    /// An object is recorded as ending where the journal ends, not with its last group.
    EndOfJournalForObject,
    /// An object is written without what the encoder still holds.
    EndOfObjectForgotten,
}

#[cfg(test)]
impl Bug {
    /// All bugs.
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

/// Makes a call of the encoder in this thread fail, after this many successful ones.
#[cfg(test)]
pub(crate) fn fail_packing_after(calls: usize) {
    PACKS.set(Some(calls));
}

/// Returns whether the requested failure is still to come.
#[cfg(test)]
pub(crate) fn will_packing_fail() -> bool {
    PACKS.take().is_some()
}

/// Counts a call of the encoder, and fails if it is due.
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

/// Plants a bug in this thread, or removes it.
#[cfg(test)]
pub(crate) fn plant(bug: Option<Bug>) {
    PLANTED.set(bug);
}

#[cfg(test)]
pub(crate) fn is_planted(bug: Bug) -> bool {
    PLANTED.get() == Some(bug)
}
