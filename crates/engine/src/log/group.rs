//! A group of the journal as it is read from outside.

use crate::format::{self, Entries, GroupStamp};

/// A durable group: the entries of one batch, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoggedGroup {
    /// The sequence number of its first entry.
    pub first_sequence: u64,
    /// The number of its entries.
    pub entries: u32,
    /// When it was committed, in microseconds since 1970.
    pub at: u64,
    /// The running hash over all groups before it.
    pub chain: u64,
    /// The entries, as encoded in the journal.
    pub payload: Box<[u8]>,
}

impl LoggedGroup {
    /// Returns the sequence number of the first entry after the group.
    #[must_use]
    pub fn next_sequence(&self) -> u64 {
        self.first_sequence + u64::from(self.entries)
    }

    /// Returns the running hash over this group and all before it.
    #[must_use]
    pub fn next_chain(&self) -> u64 {
        match format::chain_after(self.stamp(), self.entries, &self.payload) {
            Some(chain) => chain,
            None => unreachable!("a group has less than 4 GiB"),
        }
    }

    /// Reports whether the group is a seal, which changes nothing and proves that everything before
    /// it was durable.
    #[must_use]
    pub fn is_seal(&self) -> bool {
        format::is_seal(&self.payload)
    }

    /// Returns the group with only its entries before `next_sequence`. Returns `None` if there are
    /// none, or if they cannot be read.
    #[must_use]
    pub fn cut(&self, next_sequence: u64) -> Option<Self> {
        if next_sequence >= self.next_sequence() {
            return Some(self.clone());
        }
        let entries = u32::try_from(next_sequence.checked_sub(self.first_sequence)?).ok()?;
        if entries == 0 {
            return None;
        }
        let mut rest = Entries::new(&self.payload);
        for _ in 0..entries {
            rest.read().ok()?;
        }
        let kept = self.payload.len() - rest.len();
        Some(Self {
            entries,
            payload: self.payload[..kept].into(),
            ..*self
        })
    }

    pub(crate) fn stamp(&self) -> GroupStamp {
        GroupStamp {
            first_sequence: self.first_sequence,
            at: self.at,
            chain: self.chain,
        }
    }
}
