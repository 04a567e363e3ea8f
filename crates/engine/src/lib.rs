//! How it is kept: the embedded store, its memory, its journal and its checkpoints.
//!
//! One thread owns the state. It takes everything that waits as one batch, decides in order, appends
//! one group of changes to the journal, syncs once, and answers. A checkpoint is written bit by bit
//! beside that, and bounds what a restart has to replay.
//!
//! Only this crate knows bytes on disk. It does not know HTTP.

#![cfg_attr(
    not(test),
    expect(
        dead_code,
        reason = "the journal and the owner thread that call these come next"
    )
)]

mod clock;
mod disk;
mod format;
mod state;

pub use clock::{Clock, SystemClock};
pub use disk::{DataDirectory, Disk, DiskFile};
pub use format::{JournaledChange, JournaledPair};
pub use state::{Counts, State};
