//! The signals that ask a command to end: SIGTERM, and SIGINT, which Ctrl-C sends.
//!
//! Every command hears them itself. The first process of a container has no default for them: without a
//! handler `docker stop` would wait for its limit, and kill.

use rustix::process::Signal as Kernel;
use std::{io, process::exit, thread};
use tokio::signal::unix::{Signal, SignalKind, signal};
use widgets_load::output::discard_unfinished;

/// Both signals.
pub(crate) struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Hears them from now on, on the runtime of the caller.
    pub(crate) fn new() -> io::Result<Self> {
        // Where a file may not become longer (`ulimit -f`) the system would end the process there and then. With a handler,
        // which stays, the write fails as it does on a full disk, and that is told.
        drop(signal(SignalKind::from_raw(Kernel::XFSZ.as_raw()))?);
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// Done when one comes, which it returns.
    pub(crate) async fn next(&mut self) -> SignalKind {
        tokio::select! {
            _ = self.terminate.recv() => SignalKind::terminate(),
            _ = self.interrupt.recv() => SignalKind::interrupt(),
        }
    }

    /// Done at the first signal. The second ends the process there and then: what was answered is
    /// durable, and the journal is made for that.
    pub(crate) async fn stop(mut self) {
        self.next().await;
        tracing::info!("stopping: answering what was accepted, a second signal stops at once");
        tokio::spawn(async move {
            self.next().await;
            tracing::warn!("stopped at once: requests under way were not answered");
            crate::log::wait_for_readers();
            exit(1);
        });
    }
}

/// From now on a signal ends the process as it would by default, but for the files that are not whole
/// yet: they go first. For commands that keep nothing else until they are done.
pub(crate) fn exit_on_signals() -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let mut signals = {
        let _entered = runtime.enter();
        Signals::new()?
    };
    let wait = move || {
        let signal = runtime.block_on(signals.next());
        discard_unfinished();
        // As shells tell it.
        exit(128 + signal.as_raw_value());
    };
    let waiting = thread::Builder::new().name("signals".into()).spawn(wait);
    waiting.map(drop)
}
