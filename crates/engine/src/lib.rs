//! How it is kept: the embedded store, its memory, its journal and its checkpoints.
//!
//! One thread owns the state. It takes everything that waits as one batch, decides in order, appends
//! one group of changes to the journal, syncs once, and answers. A checkpoint is written bit by bit
//! beside that, and bounds what a restart has to replay.
//!
//! Only this crate knows bytes on disk. It does not know HTTP.

mod clock;
mod disk;
mod engine;
mod error;
mod format;
mod journal;
mod mailbox;
mod owner;
mod queue;
mod state;

pub use clock::{Clock, SystemClock};
pub use disk::{DataDirectory, Disk, DiskFile};
pub use engine::{Client, Engine, Settings};
pub use error::OpenError;
pub use format::{JournaledChange, JournaledPair};
pub use journal::Random;
pub use state::{Counts, Handle, State};
