//! Bugs that the tests plant, each of which breaks one promise: in [`Member`](crate::Member) for
//! the model, and elsewhere for the simulation. Outside this crate's own tests, `slipped!(Name)` is
//! `false` at compile time.

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

/// A bug to plant in the rules.
#[cfg(test)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Bug {
    /// An operation is answered once the primary has it.
    AcknowledgedAlone,
    /// Any standby's copy counts, not only the holder's.
    AnyStandbyCounts,
    /// Any standby may be promoted, whoever is the holder.
    AnyoneIsPromoted,
    /// A new holder is named before the previous one knows.
    HolderNamedAtOnce,
    /// Two members that are promoted at the same time get the same epoch.
    SameEpoch,
    /// A standby takes groups that do not continue its history.
    GapTaken,
    /// A member takes over again when the message about a hand-over arrives late.
    LateHandOverTaken,
    /// A primary that handed over continues to write.
    WritesOn,
    /// A primary hands over to a standby that does not have everything.
    HandedOverBehind,
}

#[cfg(test)]
impl Bug {
    /// All bugs.
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

/// A bug to plant where the rules are carried out.
#[cfg(test)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Slip {
    /// The number of an epoch has no random part.
    SaltForgotten,
    /// A promoted standby continues to send to its own standbys as if it had not been promoted.
    SentAcrossEpochs,
    /// A primary that hands over continues to take operations.
    TakesWhileHandingOver,
    /// A primary hands over to a standby that lacks its last groups.
    HandedOverBehind,
    /// Standbys other than the holder are sent what the holder lacks.
    SentBeyondHolder,
    /// As above, while the previous holder does not know yet that it is no longer the holder.
    LeavingForgotten,
    /// A standby sends on what its primary has not confirmed.
    SentUnconfirmed,
    /// Any member is promoted, whoever is the holder.
    HolderPassedOver,
    /// A standby shows its state before its primary has confirmed that it has the same history.
    ShownUnconfirmed,
}

#[cfg(test)]
impl Slip {
    /// All slips.
    pub(crate) const ALL: [Self; 9] = [
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

/// Plants a slip in this thread, or removes it.
#[cfg(test)]
pub(crate) fn plant(slip: Option<Slip>) {
    PLANTED.set(slip);
}

#[cfg(test)]
pub(crate) fn is_planted(slip: Slip) -> bool {
    PLANTED.get() == Some(slip)
}
