//! The words of the protocol.

use std::fmt;

/// One data directory. It is made at random with the directory: a member whose disk is lost comes back as another, of which
/// nobody expects what the first one had.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MemberId(pub u64);

impl fmt::Display for MemberId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// A reign: everything that one member wrote as the primary from one promotion on. Two members never write in the same
/// one, so an epoch and a sequence number name one change for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(u32);

impl Epoch {
    /// The epoch that stands in a store's file.
    #[must_use]
    pub const fn new(number: u32) -> Self {
        Self(number)
    }

    /// The number that stands in a store's file.
    #[must_use]
    pub const fn number(self) -> u32 {
        self.0
    }

    /// The epoch of a member that is promoted while this one is the newest that it knows. `salt` is random: two members
    /// promoted by mistake at the same time, neither of which can know of the other, get different epochs, but for one chance in 65,536.
    /// There is room for 65,535 promotions.
    #[must_use]
    pub const fn after(self, salt: u16) -> Self {
        Self(((self.0 >> 16) + 1) << 16 | salt as u32)
    }
}

/// How far a history goes, and which it is: two members with the same tip and the same epoch there have the same history. The hash
/// alone is of what was written, and two that were promoted at the same place may both write the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tip {
    /// How many records it has: the sequence number of the next one.
    pub sequence: u64,
    /// The running hash over all of them, `chain` in docs/file-format.md.
    pub chain: u64,
}

/// When a primary answers an operation (`replication.acknowledge`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Acknowledge {
    /// Once it is on the primary's disk.
    Local,
    /// Once it is on the holder's disk as well.
    Standby,
}

/// What stands in the history beside operations, and decides who may be promoted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Record {
    /// From here on this member is the holder.
    Holder(MemberId),
    /// From here on nobody is, until a later record names one: whoever was the holder and has this record knows that
    /// another may be named without it.
    NoHolder,
}
