//! The signals that ask a run to end: Ctrl-C (SIGINT) and SIGTERM, which `docker stop`, `kill` and the
//! time limits of CI send.
//!
//! Heard from the start of a run to its end. Without a handler the first process of a container would
//! not hear them at all.

use crate::Error;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Both signals.
pub(crate) struct Interrupts {
    interrupt: Signal,
    terminate: Signal,
}

impl Interrupts {
    /// Hears them from now on.
    pub(crate) fn new() -> Result<Self, Error> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt()).map_err(Error::Thread)?,
            terminate: signal(SignalKind::terminate()).map_err(Error::Thread)?,
        })
    }

    /// Done when one of them comes.
    pub(crate) async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
