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

/// What a member is at present.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// It takes operations.
    Primary,
    /// It takes no operations any more, and waits until this member has everything, which then takes over.
    HandingOver(MemberId),
    /// It follows a primary, or looks for one.
    Standby,
}

/// Who has every acknowledged operation on its disk beside the primary, as the member's own history says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Holder {
    /// Nobody: nothing is acknowledged meanwhile.
    Nobody,
    /// This member, which must have what stands before `from` before its copy counts. The primary itself, if it
    /// was promoted and no standby has followed it yet: then its own disk is enough.
    Is {
        /// Whose disk counts.
        member: MemberId,
        /// The sequence number after the record that named it.
        from: u64,
    },
}

/// Why something is not done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It is a standby's to do, and this member is the primary.
    IsPrimary,
    /// It is a primary's to do, and this member is none.
    IsNotPrimary,
    /// The primary is handing over, and writes nothing any more.
    IsHandingOver,
    /// The primary does not hand over to that standby, or does not wait for it any more.
    IsNotHandingOver,
    /// Operations may have been acknowledged that this member lacks: another one is the holder, or nobody is.
    IsNotHolder(Holder),
    /// What is offered comes from a lower epoch: from a primary that another one has replaced.
    OldEpoch {
        /// What was offered.
        offered: Epoch,
        /// What this member has.
        own: Epoch,
    },
    /// What is offered does not go on where this member's history ends.
    DoesNotFollow {
        /// Where the offer begins.
        offered: Tip,
        /// Where this member's history ends.
        own: Tip,
    },
    /// A member was to be named the holder that does not have everything yet.
    IsBehind {
        /// How much of the history it has.
        sequence: u64,
    },
    /// The holder before has not been told yet that it is none any more.
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
                f.write_str("the holder before has not been told yet that it is none any more")
            }
        }
    }
}

impl std::error::Error for Refusal {}

/// What one member knows. All but [what was reported](Member::report) stands on its disk.
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
    /// A member with nothing in its history.
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

    /// A member whose history says so: who is the holder and from where on, and who was it until a record that there is none.
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

    /// Which data directory it is.
    #[must_use]
    pub const fn id(&self) -> MemberId {
        self.id
    }

    /// What it is at present.
    #[must_use]
    pub const fn role(&self) -> Role {
        self.role
    }

    /// The newest epoch in its history.
    #[must_use]
    pub const fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// How far its history goes.
    #[must_use]
    pub const fn tip(&self) -> Tip {
        self.tip
    }

    /// Who is the holder, as its history says.
    #[must_use]
    pub const fn holder(&self) -> Holder {
        self.holder
    }

    /// May it take an operation?
    ///
    /// # Errors
    ///
    /// It is no primary, or hands over.
    pub fn may_write(&self) -> Result<(), Refusal> {
        match self.role {
            Role::Primary => Ok(()),
            Role::HandingOver(_) => Err(Refusal::IsHandingOver),
            Role::Standby => Err(Refusal::IsNotPrimary),
        }
    }

    /// Its history became longer, durably: by operations, or by the `record` that a method of this type asked for or
    /// that a primary sent.
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

    /// The sequence number before which every operation may be answered.
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

    /// A standby reported, in answer to groups of `epoch`, that its history goes to `sequence`, durably.
    pub fn report(&mut self, standby: MemberId, epoch: Epoch, sequence: u64) {
        if self.role == Role::Standby || epoch != self.epoch {
            return;
        }
        let has = self.copies.entry(standby).or_default();
        *has = sequence.min(self.tip.sequence).max(*has);
    }

    /// How much of the history a standby has said to have, in this epoch.
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

    /// Would its disk take operations along that were acknowledged? Such a primary is the holder itself, or the
    /// standby that it named is not known to have everything yet.
    #[must_use]
    pub fn is_alone(&self) -> bool {
        self.role != Role::Standby
            && match self.holder {
                Holder::Nobody => false,
                Holder::Is { member, from } => member == self.id || self.has(member) < from,
            }
    }

    /// Who may be promoted, as far as a primary knows: the holder, or the one before until it has said that it is none any more.
    #[must_use]
    pub fn promotable(&self) -> Option<MemberId> {
        match self.holder {
            Holder::Is { member, .. } => Some(member),
            Holder::Nobody => self.leaving().filter(|_| !slipped!(LeavingForgotten)),
        }
    }

    /// Who was the holder, and is not known to have heard that it is none any more.
    #[must_use]
    pub fn leaving(&self) -> Option<MemberId> {
        let (before, since) = self.leaving?;
        (self.has(before) < since).then_some(before)
    }

    /// Makes `standby` the holder: the record to write for it now. Where another standby is the holder, that is
    /// [`Record::NoHolder`] first; once that one has it, the next call gives [`Record::Holder`]. It may lack so many records:
    /// until it has them nothing is acknowledged.
    ///
    /// # Errors
    ///
    /// This member is no primary; the standby lacks more, and callers would wait for it for long; the holder
    /// before has not been told.
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

    /// The operator vouches that the holder is gone for good, and will never be promoted: the record by which the primary's
    /// own disk is enough, until a standby is named.
    ///
    /// # Errors
    ///
    /// This member is no primary.
    pub fn go_alone(&self) -> Result<Record, Refusal> {
        self.may_write().map(|()| Record::Holder(self.id))
    }

    /// May a standby take groups that a primary of `epoch` wrote after `before`? Afterwards each is reported by
    /// [`lengthened`](Self::lengthened).
    ///
    /// # Errors
    ///
    /// It is a primary itself; the sender was replaced; the groups do not go on from here: then only a
    /// [copy](Self::take_copy) helps, if the sender's history does not have this member's tip.
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

    /// Gives up its history for that of a primary of a higher epoch, which does not have this member's tip: what it has
    /// beyond the common part was never acknowledged, or was given up by the promotion.
    ///
    /// # Errors
    ///
    /// It is a primary itself; or the epoch is not higher, and then nothing may be given up.
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

    /// A primary heard of a higher epoch: another one has replaced it, and it stops.
    pub fn heard_of(&mut self, epoch: Epoch) {
        if epoch > self.epoch && self.role != Role::Standby {
            self.role = Role::Standby;
            self.copies.clear();
        }
    }

    /// Makes a standby the primary of a new epoch. `force` is the operator's word that acknowledged operations may be
    /// lost. The record, if there is one, is to be written before any operation.
    ///
    /// # Errors
    ///
    /// It is the primary already; or it may lack acknowledged operations, and `force` is not given.
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

    /// Begins a switchover to `standby`: no operation is taken from here on.
    ///
    /// # Errors
    ///
    /// This member is no primary; or another standby is the holder.
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

    /// Ends it, where the standby says that its own history is this: this member is a standby from here on, and the
    /// other [takes over](Self::take_over).
    ///
    /// # Errors
    ///
    /// This member does not hand over to that one, or not any more; or that one does not have everything yet.
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

    /// The standby has not caught up in time: the primary takes operations again.
    pub fn cancel_hand_over(&mut self) {
        if matches!(self.role, Role::HandingOver(_)) {
            self.role = Role::Primary;
        }
    }

    /// Takes over from a primary that handed over in `epoch` with `tip`.
    ///
    /// # Errors
    ///
    /// It is the primary already; or it has another history by now, as with an answer that was late.
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

    /// The process ended and began again: what was reported is forgotten, and a hand-over that had not ended is off.
    pub fn restart(&mut self) {
        self.copies.clear();
        self.cancel_hand_over();
    }
}

#[cfg(test)]
mod tests;
