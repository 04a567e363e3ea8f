//! Why a standby does not follow.

use crate::Refusal;
use std::io;
use widgets_engine::{FollowError, OpenError};

/// Why a standby does not follow, or why making a copy failed. The attempt is repeated whatever the
/// reason.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The token or a certificate is unusable.
    #[error("{0}")]
    Credentials(String),
    /// Nothing answers at the primary's address.
    #[error("the primary cannot be reached: {0}")]
    Unreachable(String),
    /// The answer is not a stream.
    #[error("the primary answers {status}: {why}")]
    Answered {
        /// The answer's status.
        status: u16,
        /// What the answer says.
        why: String,
    },
    /// The stream ended or broke.
    #[error("the connection to the primary ended: {0}")]
    Ended(String),
    /// The stream contains bytes that are no frame, or a frame in the wrong place.
    #[error("the primary sent something unreadable: {0}")]
    Wire(String),
    /// There is no room for a copy of the primary.
    #[error(
        "a copy of the primary takes {needed} bytes more, with room for the next checkpoint and two segments of the journal, \
         and the disk has room for {room}"
    )]
    Room {
        /// The bytes that the copy and the store need.
        needed: u64,
        /// The free space, in bytes.
        room: u64,
    },
    /// The primary has a different store.
    #[error("the primary has store {theirs:016x}, this standby is a copy of store {own:016x}")]
    OtherStore {
        /// The primary's store.
        theirs: u64,
        /// The standby's store.
        own: u64,
    },
    /// The rules do not allow it.
    #[error("{0}")]
    Rules(#[from] Refusal),
    /// The two histories have diverged.
    #[error(
        "the primary's history has parted from this standby's: entry {sequence} is of epoch {theirs} there and {own} here"
    )]
    Parted {
        /// The last entry that this standby has.
        sequence: u64,
        /// The entry's epoch as the primary reports it.
        theirs: u32,
        /// The entry's epoch in this store.
        own: u32,
    },
    /// A group does not match its running hash.
    #[error("the group of entry {0} was not sent as it was written: its running hash is another")]
    Hash(u64),
    /// This store rejects the group.
    #[error(transparent)]
    Follow(#[from] FollowError),
    /// The directory cannot be written to or read.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// A thread or a runtime could not be started.
    #[error("starting to follow: {0}")]
    Start(io::Error),
}
