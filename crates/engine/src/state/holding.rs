//! Who must have an operation on its disk before its caller is told, as the journal says.
//!
//! The engine keeps it with the state and knows no more of it than whose directory is meant: what follows from it is
//! decided by `Member` of `crates/replica` (`docs/decisions/0017-one-holder-beside-the-primary.md`).

use super::State;

/// A member, and the sequence number after the record that says something of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Named {
    /// The [member](crate::StoreHeader::member).
    pub member: u64,
    /// The sequence number after the record.
    pub from: u64,
}

/// Who is the holder, or was it before there was none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Holding {
    /// The holder, and from where on it is.
    pub holder: Option<Named>,
    /// Who was it until the record that there is none any more, and where that stands. `None` where there is a holder, or
    /// never was one.
    pub leaving: Option<Named>,
}

impl Holding {
    /// Whether no member was ever named.
    #[must_use]
    pub const fn is_unnamed(&self) -> bool {
        self.holder.is_none() && self.leaving.is_none()
    }

    /// A record names this member, or nobody; the next entry has this sequence number.
    pub(crate) fn record(&mut self, member: Option<u64>, next_sequence: u64) {
        match member {
            Some(member) => {
                let from = next_sequence;
                self.holder = Some(Named { member, from });
                self.leaving = None;
            }
            None => {
                if let Some(Named { member, .. }) = self.holder.take() {
                    let from = next_sequence;
                    self.leaving = Some(Named { member, from });
                }
            }
        }
    }
}

impl State {
    pub(crate) const fn holding(&self) -> Holding {
        self.holding
    }

    pub(crate) const fn set_holding(&mut self, holding: Holding) {
        self.holding = holding;
    }

    /// What a record of the journal says, after which the next entry has this sequence number.
    pub(crate) fn replay_record(&mut self, member: Option<u64>, next_sequence: u64) {
        self.holding.record(member, next_sequence);
    }
}
