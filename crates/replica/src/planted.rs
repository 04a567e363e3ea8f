//! Bugs that the tests plant, each of which breaks one promise: in [`Member`](crate::Member) for the model, and elsewhere for
//! the simulation. `slipped!(Name)` is `false` outside of this crate's own tests, at compile time.

#[cfg(not(test))]
macro_rules! slipped {
    ($slip:ident) => {
        false
    };
}

#[cfg(test)]
macro_rules! slipped {
    ($slip:ident) => {
        $crate::planted::is_planted($crate::planted::Slip::$slip)
    };
}

/// What can be planted in the rules.
#[cfg(test)]
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

#[cfg(test)]
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

/// What can be planted where the rules are followed.
#[cfg(test)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Slip {
    /// A promotion does not begin an epoch.
    EpochKept,
    /// The number of an epoch has nothing random.
    SaltForgotten,
    /// A standby that is promoted goes on to send to those that followed it, as if it had not been.
    SentAcrossEpochs,
    /// A primary that hands over goes on to take operations.
    TakesWhileHandingOver,
    /// A primary hands over to a standby that lacks its last groups.
    HandedOverBehind,
    /// Others than the holder are sent what that one lacks.
    SentBeyondHolder,
    /// The same while the holder has not heard that it is none any more.
    LeavingForgotten,
    /// A standby sends on what its primary has not said to have.
    SentUnconfirmed,
    /// Anybody is promoted, whoever is the holder.
    HolderPassedOver,
    /// A standby shows what it has before its primary has said that this is its history as well.
    ShownUnconfirmed,
}

#[cfg(test)]
impl Slip {
    /// Every one.
    pub(crate) const ALL: [Self; 10] = [
        Self::EpochKept,
        Self::SaltForgotten,
        Self::SentAcrossEpochs,
        Self::TakesWhileHandingOver,
        Self::HandedOverBehind,
        Self::SentBeyondHolder,
        Self::LeavingForgotten,
        Self::SentUnconfirmed,
        Self::HolderPassedOver,
        Self::ShownUnconfirmed,
    ];
}

#[cfg(test)]
thread_local! {
    static PLANTED: std::cell::Cell<Option<Slip>> = const { std::cell::Cell::new(None) };
}

/// Plants one in this thread, or takes it away.
#[cfg(test)]
pub(crate) fn plant(slip: Option<Slip>) {
    PLANTED.set(slip);
}

#[cfg(test)]
pub(crate) fn is_planted(slip: Slip) -> bool {
    PLANTED.get() == Some(slip)
}
