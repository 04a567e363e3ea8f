//! What survives: the engine on a disk that fails, loses and forgets.
//!
//! Most tests run the owner, the preparer of segments and the writer of checkpoints step by step,
//! without threads, so that a seed determines everything that happens.

use crate::simulation as disk;
pub(crate) use crate::simulation::Chance;

mod acknowledge;
mod bulk;
mod checkpoint;
mod crash;
mod directory;
mod follow;
mod format_1;
mod hostile;
mod log;
mod missing;
mod queue;
mod recovery;
mod restore;
mod retries;
mod rig;
mod seals;
mod simulation;
