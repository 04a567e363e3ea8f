//! Which member must have an operation on its disk before its caller is answered, as the journal
//! says.
//!
//! The engine keeps this with the state and knows only which directory is meant. What follows from
//! it is decided by `Member` of `crates/replica`
//! (`docs/decisions/0017-one-holder-beside-the-primary.md`).

use super::State;

/// A member, and the sequence number after the record about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Named {
    /// The [member](crate::StoreHeader::member).
    pub member: u64,
    /// The sequence number after the record.
    pub from: u64,
}

/// The holder, or the last holder if there is none now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Holding {
    /// The holder, and since when it is the holder.
    pub holder: Option<Named>,
    /// The last holder, and where the record stands that ended its role. `None` if there is a
    /// holder, or never was one.
    pub leaving: Option<Named>,
}

impl Holding {
    /// Reports whether no member was ever named.
    #[must_use]
    pub const fn is_unnamed(&self) -> bool {
        self.holder.is_none() && self.leaving.is_none()
    }

    /// Applies a record that names this member, or nobody. The next entry has this sequence number.
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

    /// Applies a record of the journal. The next entry has this sequence number.
    pub(crate) fn replay_record(&mut self, member: Option<u64>, next_sequence: u64) {
        self.holding.record(member, next_sequence);
    }
}
