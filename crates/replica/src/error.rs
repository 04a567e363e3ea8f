//! Why a standby does not follow.

use crate::Refusal;
use std::io;
use widgets_engine::{FollowError, OpenError};

/// Why a standby does not follow, or why a copy was not made. It is tried again, whatever it is.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The token or a certificate cannot be used.
    #[error("{0}")]
    Credentials(String),
    /// Nobody answers there.
    #[error("the primary cannot be reached: {0}")]
    Unreachable(String),
    /// Something else than a stream was answered.
    #[error("the primary answers {status}: {why}")]
    Answered {
        /// The answer's status.
        status: u16,
        /// What it says.
        why: String,
    },
    /// The stream ended or broke.
    #[error("the connection to the primary ended: {0}")]
    Ended(String),
    /// Something came that is no frame, or not in its place.
    #[error("the primary sends what cannot be read: {0}")]
    Wire(String),
    /// Its checkpoint does not fit.
    #[error("the primary's checkpoint has {bytes} bytes, and the disk has room for {room}")]
    Room {
        /// As it says.
        bytes: u64,
        /// What is free.
        room: u64,
    },
    /// It is another store.
    #[error("the primary has store {theirs:016x}, this standby is a copy of store {own:016x}")]
    OtherStore {
        /// The primary's.
        theirs: u64,
        /// The standby's.
        own: u64,
    },
    /// The rules do not allow it.
    #[error("{0}")]
    Rules(#[from] Refusal),
    /// The two histories have parted.
    #[error(
        "the primary's history has parted from this standby's: entry {sequence} is of epoch {theirs} there and {own} here"
    )]
    Parted {
        /// The last entry that this standby has.
        sequence: u64,
        /// Its epoch as the primary says.
        theirs: u32,
        /// Its epoch here.
        own: u32,
    },
    /// A group is not what its running hash says.
    #[error("the group of entry {0} was not sent as it was written: its running hash is another")]
    Hash(u64),
    /// This store does not take it.
    #[error(transparent)]
    Follow(#[from] FollowError),
    /// The directory cannot be written to or read.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// A thread or a runtime could not be had.
    #[error("starting to follow: {0}")]
    Start(io::Error),
}
