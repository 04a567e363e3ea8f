//! The embedded store: state in memory, a journal and checkpoints on disk.
//!
//! One thread owns the state. It takes all waiting requests as one batch, decides them in order,
//! appends one group of changes to the journal, syncs once, and answers. Meanwhile it copies the
//! state into a checkpoint slice by slice, which bounds what a restart has to replay.
//!
//! Only this crate knows the bytes on disk. It does not know HTTP.

// First, because it defines a macro.
#[macro_use]
mod planted;

mod acknowledge;
mod bulk;
mod checkpoint;
mod disk;
mod engine;
mod error;
mod files;
mod follow;
mod format;
mod journal;
mod lists;
mod log;
mod metrics;
mod owner;
mod query;
mod queue;
mod recovery;
mod restore;
mod retries;
mod settings;
#[cfg(any(test, feature = "simulation"))]
pub mod simulation;
mod state;
#[cfg(test)]
mod tests;
mod throttle;
mod verify;

pub use acknowledge::Acknowledging;
pub use bulk::Bulk;
pub use checkpoint::CheckpointError;
pub use disk::{DataDirectory, Disk, DiskFile, NoStore};
pub use engine::{Client, Engine};
pub use error::OpenError;
pub use follow::{FollowError, Follower};
pub use format::{
    ADDRESS_BYTES_MAX, Epoch, FORMAT_VERSION, JournaledChange, JournaledPair, NO_MEMBER, Role,
    StoreHeader,
};
pub use journal::Random;
pub use log::{HeldCheckpoint, JournalEnd, JournalHold, LoggedGroup, Source, SourceError};
pub use query::Query;
pub use restore::{Restoration, Restored};
pub use settings::Settings;
pub use state::{Counts, Handle, Holding, Named, State};
pub use verify::{Verified, verify};

/// Returns a source of random numbers that the operating system seeds anew on every call.
fn random() -> Random {
    use std::hash::{BuildHasher, RandomState};
    Box::new(|| RandomState::new().hash_one(0u8))
}
