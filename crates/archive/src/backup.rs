//! A backup by hand: a running service gives a checkpoint of now and the journal after it as one stream, and
//! whoever takes it has a data directory of its own at the end.
//!
//! It needs no archive. What is given is read as the archiver reads it, from files that are held meanwhile, with
//! rests: the owner of the state knows nothing of it. What is taken goes where a restore goes: into an empty
//! directory that no start accepts before everything has been verified. `docs/archive-format.md` has the frames.

mod frame;
mod give;
mod take;

pub use give::Backups;
pub use take::{Arrival, Arrived};
