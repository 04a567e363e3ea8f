//! One member's side of the protocol.

use crate::terms::{Acknowledge, Epoch, MemberId, Record, Tip};
use std::{collections::BTreeMap, fmt};

#[cfg(not(test))]
macro_rules! planted {
    ($member:expr, $bug:ident) => {
        false
    };
}
#[cfg(test)]
macro_rules! planted {
    ($member:expr, $bug:ident) => {
        $member.planted == Some(crate::planted::Bug::$bug)
    };
}

/// The present role of a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// It takes operations.
    Primary,
    /// It takes no more operations and waits until this member has everything and takes over.
    HandingOver(MemberId),
    /// It follows a primary, or is looking for one.
    Standby,
}

/// Which member has every acknowledged operation on its disk beside the primary, according to the
/// member's own history.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Holder {
    /// Nobody. Nothing is acknowledged meanwhile.
    Nobody,
    /// This member. Its copy counts once it has everything before `from`. After a promotion this is
    /// the primary itself until a standby has followed: until then, its own disk is enough.
    Is {
        /// The member whose disk counts.
        member: MemberId,
        /// The sequence number after the record that named this member.
        from: u64,
    },
}

/// Why the rules refuse a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Only a standby may do it, and this member is the primary.
    IsPrimary,
    /// Only a primary may do it, and this member is not the primary.
    IsNotPrimary,
    /// The primary is handing over and no longer writes.
    IsHandingOver,
    /// The primary is not handing over to that standby, or no longer waits for it.
    IsNotHandingOver,
    /// This member may lack acknowledged operations, because another member is the holder, or
    /// nobody is.
    IsNotHolder(Holder),
    /// The offer comes from a lower epoch: its primary has been replaced.
    OldEpoch {
        /// The epoch of the offer.
        offered: Epoch,
        /// This member's epoch.
        own: Epoch,
    },
    /// The offer does not continue where this member's history ends.
    DoesNotFollow {
        /// Where the offer begins.
        offered: Tip,
        /// Where this member's history ends.
        own: Tip,
    },
    /// The member to be named as the holder does not have everything yet.
    IsBehind {
        /// How much of the history it has.
        sequence: u64,
    },
    /// The previous holder does not know yet that it is no longer the holder.
    HolderIsLeaving,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::IsPrimary => f.write_str("this member is the primary already"),
            Self::IsNotPrimary => f.write_str("this member is not the primary"),
            Self::IsHandingOver => f.write_str("this primary is handing over"),
            Self::IsNotHandingOver => {
                f.write_str("this store does not hand over to that standby, or does not wait for it any more")
            }
            Self::IsNotHolder(Holder::Nobody) => {
                f.write_str("no standby was sure to have every acknowledged operation when this one was last told")
            }
            Self::IsNotHolder(Holder::Is { member, .. }) => {
                write!(f, "{member} has every acknowledged operation, this standby may lack some")
            }
            Self::OldEpoch { offered, own } => write!(
                f,
                "the primary is of epoch {}, which epoch {} has replaced",
                offered.number(),
                own.number()
            ),
            Self::DoesNotFollow { offered, own } => write!(
                f,
                "what is offered begins after {} records, this standby has {}, or others",
                offered.sequence, own.sequence
            ),
            Self::IsBehind { sequence } => write!(f, "the standby has {sequence} records, not all of them"),
            Self::HolderIsLeaving => {
                f.write_str("the previous holder has not been told yet that it is no longer the \
                holder")
            }
        }
    }
}

impl std::error::Error for Refusal {}

/// What one member knows. All of it is on its disk, except [what was reported](Member::report).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Member {
    id: MemberId,
    acknowledge: bool,
    role: Role,
    epoch: Epoch,
    tip: Tip,
    holder: Holder,
    leaving: Option<(MemberId, u64)>,
    copies: BTreeMap<MemberId, u64>,
    #[cfg(test)]
    pub(crate) planted: Option<crate::planted::Bug>,
}

impl Member {
    /// Creates a member with an empty history.
    #[must_use]
    pub const fn new(id: MemberId, acknowledge: Acknowledge, role: Role, epoch: Epoch) -> Self {
        Self {
            id,
            acknowledge: matches!(acknowledge, Acknowledge::Standby),
            role,
            epoch,
            tip: Tip {
                sequence: 0,
                chain: 0,
            },
            holder: Holder::Nobody,
            leaving: None,
            copies: BTreeMap::new(),
            #[cfg(test)]
            planted: None,
        }
    }

    /// Creates a member from what its history says: the holder and since when, and the previous
    /// holder if a record says that nobody is the holder now.
    #[must_use]
    pub fn recovered(
        id: MemberId,
        acknowledge: Acknowledge,
        role: Role,
        epoch: Epoch,
        holder: Option<(MemberId, u64)>,
        leaving: Option<(MemberId, u64)>,
    ) -> Self {
        Self {
            holder: holder.map_or(Holder::Nobody, |(member, from)| Holder::Is { member, from }),
            leaving,
            ..Self::new(id, acknowledge, role, epoch)
        }
    }

    /// Returns the number of the member's data directory.
    #[must_use]
    pub const fn id(&self) -> MemberId {
        self.id
    }

    /// Returns the member's present role.
    #[must_use]
    pub const fn role(&self) -> Role {
        self.role
    }

    /// Returns the newest epoch in the member's history.
    #[must_use]
    pub const fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Returns where the member's history ends.
    #[must_use]
    pub const fn tip(&self) -> Tip {
        self.tip
    }

    /// Returns the holder, according to the member's history.
    #[must_use]
    pub const fn holder(&self) -> Holder {
        self.holder
    }

    /// Checks whether the member may take an operation.
    ///
    /// # Errors
    ///
    /// The member is not the primary, or is handing over.
    pub fn may_write(&self) -> Result<(), Refusal> {
        match self.role {
            Role::Primary => Ok(()),
            Role::HandingOver(_) => Err(Refusal::IsHandingOver),
            Role::Standby => Err(Refusal::IsNotPrimary),
        }
    }

    /// Records that the member's history became longer, durably: by operations, or by a `record`
    /// that a method of this type asked for or that a primary sent.
    pub fn lengthened(&mut self, tip: Tip, record: Option<Record>) {
        self.tip = tip;
        match record {
            None => {}
            Some(Record::Holder(member)) => {
                self.holder = Holder::Is {
                    member,
                    from: tip.sequence,
                };
                self.leaving = None;
            }
            Some(Record::NoHolder) => {
                if let Holder::Is { member, .. } = self.holder {
                    self.leaving = Some((member, tip.sequence));
                }
                self.holder = Holder::Nobody;
            }
        }
    }

    /// Returns the sequence number before which every operation may be answered.
    #[must_use]
    pub fn acknowledged(&self) -> u64 {
        if self.role == Role::Standby {
            return 0;
        }
        if !self.acknowledge || planted!(self, AcknowledgedAlone) {
            return self.tip.sequence;
        }
        match self.holder {
            Holder::Nobody => 0,
            Holder::Is { member, from } => {
                let mut has = self.has(member);
                if planted!(self, AnyStandbyCounts) {
                    has = self.copies.values().copied().fold(has, u64::max);
                }
                if has >= from { has } else { 0 }
            }
        }
    }

    /// Records a standby's report, in response to groups of `epoch`, that it has the history up to
    /// `sequence` durably.
    pub fn report(&mut self, standby: MemberId, epoch: Epoch, sequence: u64) {
        if self.role == Role::Standby || epoch != self.epoch {
            return;
        }
        let has = self.copies.entry(standby).or_default();
        *has = sequence.min(self.tip.sequence).max(*has);
    }

    /// Returns how much of the history a standby has reported in this epoch.
    #[must_use]
    pub fn reported(&self, standby: MemberId) -> u64 {
        self.has(standby)
    }

    fn has(&self, member: MemberId) -> u64 {
        if member == self.id {
            return self.tip.sequence;
        }
        self.copies.get(&member).copied().unwrap_or_default()
    }

    /// Reports whether acknowledged operations could be lost with this member's disk. That is so if
    /// the primary itself is the holder, or if the standby that it named is not yet known to have
    /// everything.
    #[must_use]
    pub fn is_alone(&self) -> bool {
        self.role != Role::Standby
            && match self.holder {
                Holder::Nobody => false,
                Holder::Is { member, from } => member == self.id || self.has(member) < from,
            }
    }

    /// Returns the member that may be promoted, as far as a primary knows: the holder, or the
    /// previous holder until it has confirmed that it is no longer the holder.
    #[must_use]
    pub fn promotable(&self) -> Option<MemberId> {
        match self.holder {
            Holder::Is { member, .. } => Some(member),
            Holder::Nobody => self.leaving().filter(|_| !slipped!(LeavingForgotten)),
        }
    }

    /// Returns the previous holder, unless it is known to have the record that it is no longer the
    /// holder.
    #[must_use]
    pub fn leaving(&self) -> Option<MemberId> {
        let (before, since) = self.leaving?;
        (self.has(before) < since).then_some(before)
    }

    /// Returns the record to write now so that `standby` becomes the holder. If another standby is
    /// the holder, this is [`Record::NoHolder`] first; once that standby has it, the next call
    /// returns [`Record::Holder`]. `standby` may lack up to `behind_max` records; nothing is
    /// acknowledged until it has them.
    ///
    /// # Errors
    ///
    /// This member is not the primary; the standby lacks more records, so callers would wait for a
    /// long time; or the previous holder does not know yet that it is no longer the holder.
    pub fn name_holder(&self, standby: MemberId, behind_max: u64) -> Result<Record, Refusal> {
        self.may_write()?;
        let sequence = self.has(standby);
        let caught_up = self
            .leaving
            .map_or(self.tip.sequence, |(_, since)| since - 1);
        if sequence.saturating_add(behind_max) < caught_up {
            return Err(Refusal::IsBehind { sequence });
        }
        if planted!(self, HolderNamedAtOnce) {
            return Ok(Record::Holder(standby));
        }
        match (self.holder, self.leaving) {
            (Holder::Is { member, .. }, _) if member != self.id => Ok(Record::NoHolder),
            (Holder::Nobody, Some(_)) if self.leaving().is_some() => Err(Refusal::HolderIsLeaving),
            _ => Ok(Record::Holder(standby)),
        }
    }

    /// Returns the record that makes the primary's own disk enough until a standby is named. By
    /// calling this, the operator vouches that the holder is gone for good and will never be
    /// promoted.
    ///
    /// # Errors
    ///
    /// This member is not the primary.
    pub fn go_alone(&self) -> Result<Record, Refusal> {
        self.may_write().map(|()| Record::Holder(self.id))
    }

    /// Checks whether a standby may take groups that a primary of `epoch` wrote after `before`. The
    /// caller then reports each group with [`lengthened`](Self::lengthened).
    ///
    /// # Errors
    ///
    /// This member is itself a primary; the sender was replaced; or the groups do not continue this
    /// history. In the last case only a [copy](Self::take_copy) helps, provided that the sender's
    /// history does not contain this member's tip.
    pub fn take_groups(&mut self, epoch: Epoch, before: Tip) -> Result<(), Refusal> {
        if self.role != Role::Standby {
            return Err(Refusal::IsPrimary);
        }
        if epoch < self.epoch {
            return Err(Refusal::OldEpoch {
                offered: epoch,
                own: self.epoch,
            });
        }
        if before != self.tip && !planted!(self, GapTaken) {
            return Err(Refusal::DoesNotFollow {
                offered: before,
                own: self.tip,
            });
        }
        self.epoch = epoch;
        Ok(())
    }

    /// Gives up the member's history for that of a primary of a higher epoch that does not contain
    /// this member's tip. Whatever the member has beyond the common part was never acknowledged, or
    /// was given up by the promotion.
    ///
    /// # Errors
    ///
    /// This member is itself a primary; or the epoch is not higher, in which case nothing may be
    /// given up.
    pub fn take_copy(&mut self, epoch: Epoch, tip: Tip, holder: Holder) -> Result<(), Refusal> {
        if self.role != Role::Standby {
            return Err(Refusal::IsPrimary);
        }
        if epoch <= self.epoch {
            return Err(Refusal::OldEpoch {
                offered: epoch,
                own: self.epoch,
            });
        }
        self.epoch = epoch;
        self.tip = tip;
        self.holder = holder;
        self.leaving = None;
        Ok(())
    }

    /// Steps down if this member is a primary and `epoch` is higher than its own, because another
    /// primary has replaced it.
    pub fn heard_of(&mut self, epoch: Epoch) {
        if epoch > self.epoch && self.role != Role::Standby {
            self.role = Role::Standby;
            self.copies.clear();
        }
    }

    /// Makes a standby the primary of a new epoch. With `force`, the operator accepts that
    /// acknowledged operations may be lost. If a record is returned, it must be written before any
    /// operation.
    ///
    /// # Errors
    ///
    /// The member is already the primary; or it may lack acknowledged operations, and `force` is
    /// not given.
    pub fn promote(&mut self, salt: u16, force: bool) -> Result<Option<Record>, Refusal> {
        if self.role != Role::Standby {
            return Err(Refusal::IsPrimary);
        }
        let holds = matches!(self.holder, Holder::Is { member, .. } if member == self.id);
        if self.acknowledge && !holds && !force && !planted!(self, AnyoneIsPromoted) {
            return Err(Refusal::IsNotHolder(self.holder));
        }
        let salt = if planted!(self, SameEpoch) { 0 } else { salt };
        self.epoch = self.epoch.after(salt);
        self.role = Role::Primary;
        self.copies.clear();
        Ok(self.acknowledge.then_some(Record::Holder(self.id)))
    }

    /// Begins a switchover to `standby`: from here on, the primary takes no operations.
    ///
    /// # Errors
    ///
    /// This member is not the primary; or `standby` is not the holder.
    pub fn begin_hand_over(&mut self, standby: MemberId) -> Result<(), Refusal> {
        self.may_write()?;
        if self.acknowledge
            && !matches!(self.holder, Holder::Is { member, .. } if member == standby)
        {
            return Err(Refusal::IsNotHolder(self.holder));
        }
        self.role = Role::HandingOver(standby);
        Ok(())
    }

    /// Completes the switchover if the standby reports exactly this member's history: this member
    /// becomes a standby, and the other one [takes over](Self::take_over).
    ///
    /// # Errors
    ///
    /// This member is not handing over to that standby, or no longer; or that standby does not have
    /// everything yet.
    pub fn end_hand_over(
        &mut self,
        standby: MemberId,
        epoch: Epoch,
        tip: Tip,
    ) -> Result<(), Refusal> {
        if self.role != Role::HandingOver(standby) {
            return Err(Refusal::IsNotHandingOver);
        }
        let is_behind = (epoch, tip) != (self.epoch, self.tip);
        if is_behind && !planted!(self, HandedOverBehind) {
            return Err(Refusal::IsBehind {
                sequence: tip.sequence,
            });
        }
        self.role = if planted!(self, WritesOn) {
            Role::Primary
        } else {
            Role::Standby
        };
        self.copies.clear();
        Ok(())
    }

    /// Cancels the switchover, because the standby has not caught up in time: the primary takes
    /// operations again.
    pub fn cancel_hand_over(&mut self) {
        if matches!(self.role, Role::HandingOver(_)) {
            self.role = Role::Primary;
        }
    }

    /// Takes over from a primary that handed over in `epoch` with `tip`.
    ///
    /// # Errors
    ///
    /// The member is already the primary; or its history has changed in the meantime, as when the
    /// answer was late.
    pub fn take_over(
        &mut self,
        epoch: Epoch,
        tip: Tip,
        salt: u16,
    ) -> Result<Option<Record>, Refusal> {
        if (epoch != self.epoch || tip != self.tip) && !planted!(self, LateHandOverTaken) {
            return Err(Refusal::DoesNotFollow {
                offered: tip,
                own: self.tip,
            });
        }
        self.promote(salt, true)
    }

    /// Models a restart of the process: reports are forgotten, and an unfinished hand-over is
    /// cancelled.
    pub fn restart(&mut self) {
        self.copies.clear();
        self.cancel_hand_over();
    }
}

#[cfg(test)]
mod tests;
