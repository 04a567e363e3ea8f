//! The signals that end a run: Ctrl-C (SIGINT), and SIGTERM, which `docker stop`, `kill` and the
//! time limits of CI send.
//!
//! They are handled from the start of a run to its end. Without a handler, the first process of a
//! container would not receive them at all.

use crate::Error;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Both signals.
pub(crate) struct Interrupts {
    interrupt: Signal,
    terminate: Signal,
}

impl Interrupts {
    /// Begins to listen for them.
    pub(crate) fn new() -> Result<Self, Error> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt()).map_err(Error::Thread)?,
            terminate: signal(SignalKind::terminate()).map_err(Error::Thread)?,
        })
    }

    /// Waits until one of them arrives.
    pub(crate) async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
