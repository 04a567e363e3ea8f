//! The terms of the protocol.

use std::fmt;

/// Identifies one data directory. It is a random number, chosen when the directory is created: a
/// member that loses its disk comes back under another number, and nobody expects it to have what
/// its predecessor had.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MemberId(pub u64);

impl fmt::Display for MemberId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// The period from one promotion to the next, in which a single member writes. Two members never
/// write in the same epoch, so an epoch and a sequence number identify one change for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(u32);

impl Epoch {
    /// Creates an epoch from the number in a store's file.
    #[must_use]
    pub const fn new(number: u32) -> Self {
        Self(number)
    }

    /// Returns the number that is written to a store's file.
    #[must_use]
    pub const fn number(self) -> u32 {
        self.0
    }

    /// Returns the epoch of a member that is promoted while this epoch is the newest that it knows.
    /// `salt` is random: if two members are promoted by mistake at the same time and cannot know of
    /// each other, they get different epochs, except with a probability of 1 in 65,536. The counter
    /// has room for 65,535 promotions.
    #[must_use]
    pub const fn after(self, salt: u16) -> Self {
        Self(((self.0 >> 16) + 1) << 16 | salt as u32)
    }
}

/// Where a history ends, and which history it is: two members with the same tip and the same epoch
/// at that tip have the same history. The hash alone does not suffice: it covers only what was
/// written, and two members that were promoted at the same point may both write the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tip {
    /// The number of records in the history, which is the sequence number of the next one.
    pub sequence: u64,
    /// The running hash over all records, called `chain` in docs/file-format.md.
    pub chain: u64,
}

/// When a primary answers an operation (`replication.acknowledge`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Acknowledge {
    /// Once the operation is on the primary's disk.
    Local,
    /// Once the operation is on the holder's disk as well.
    Standby,
}

/// An entry in the history that is no operation, and that decides who may be promoted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Record {
    /// From here on, this member is the holder.
    Holder(MemberId),
    /// From here on, nobody is the holder until a later record names one. A previous holder that
    /// has this record knows that another member may be named without its knowledge.
    NoHolder,
}
