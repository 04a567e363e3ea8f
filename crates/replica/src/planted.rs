//! Bugs that the tests plant in [`Member`](crate::Member), each of which breaks one promise.

/// What can be planted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Bug {
    /// An operation is answered once the primary has it.
    AcknowledgedAlone,
    /// Any standby's copy counts, not the holder's alone.
    AnyStandbyCounts,
    /// Any standby may be promoted, whoever is the holder.
    AnyoneIsPromoted,
    /// A new holder is named before the one before it knows.
    HolderNamedAtOnce,
    /// Two members that are promoted at once get the same epoch.
    SameEpoch,
    /// A standby takes groups that do not go on from its tip.
    GapTaken,
    /// A hand-over is taken again when its message comes late.
    LateHandOverTaken,
    /// A primary that handed over goes on to write.
    WritesOn,
    /// A primary hands over to a standby that does not have everything.
    HandedOverBehind,
}

impl Bug {
    /// Every one.
    pub(crate) const ALL: [Self; 9] = [
        Self::AcknowledgedAlone,
        Self::AnyStandbyCounts,
        Self::AnyoneIsPromoted,
        Self::HolderNamedAtOnce,
        Self::SameEpoch,
        Self::GapTaken,
        Self::LateHandOverTaken,
        Self::WritesOn,
        Self::HandedOverBehind,
    ];
}
