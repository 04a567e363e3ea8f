//! Manual backups: a running service sends a checkpoint of the present and the journal after it as
//! one stream, and the receiver builds a data directory from it.
//!
//! A backup needs no archive. The service reads the same files as the archiver, holds them
//! meanwhile and pauses between reads; the owner of the state knows nothing about it. The receiver
//! writes as a restore does: into an empty directory that no start accepts until everything has
//! been verified. `docs/archive-format.md` describes the frames.

mod frame;
mod give;
mod take;

pub use give::Backups;
pub use take::{Arrival, Arrived};
