//! Keeps a store alive when its disk is lost: copies of the embedded store in an object store, and
//! restores from them.
//!
//! While the service runs, the archiver copies the journal's durable groups, and from time to time
//! a checkpoint, to a bucket or a folder. It reads what the feed of changes reads; the owner of the
//! state knows nothing about it and never waits for it. Only one object, the manifest, is ever
//! replaced, by a conditional write, and only the manifest says what counts. So a crash at any step
//! leaves the archive either as it was before the step or as it is after it, and of two writers,
//! one stops. `docs/archive-format.md` has the layout and the argument.
//!
//! This crate uses HTTP only through `object_store`, and knows no byte of a group or a checkpoint:
//! it only carries them.

// Must come first, because it defines a macro.
#[macro_use]
mod planted;

mod archiver;
mod backup;
mod bucket;
mod checkpoints;
mod error;
mod manifest;
mod metrics;
mod object;
mod plan;
mod prune;
mod restore;
mod service;
#[cfg(test)]
mod tests;
mod verify;

pub use archiver::{Archiver, Settings, back_up};
pub use backup::{Arrival, Arrived, Backups};
pub use bucket::{ArchiveUrl, Bucket, Retries, UrlError};
pub use error::Error;
pub use manifest::{Checkpoint, Hex64, Manifest, Moments, Place, Secret, Stretch, list};
pub use metrics::Metrics;
pub use plan::{Target, time_text};
pub use prune::{Pruned, prune};
pub use restore::{Progress, Restore, restore, restore_standby};
pub use service::{Handle, start};
pub use verify::{Problem, Report, verify};

/// Returns an unpredictable number, a new one in each call.
fn random() -> u64 {
    use std::hash::{BuildHasher as _, RandomState};
    RandomState::new().hash_one(0_u8)
}
