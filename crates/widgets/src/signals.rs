//! The signals that ask a command to end: SIGTERM, and SIGINT, which Ctrl-C sends. SIGHUP, which a
//! terminal sends when it is closed, ends every command except `serve`, which reloads files at it.
//!
//! Every command handles them itself. The first process of a container has no default action for
//! them: without a handler, `docker stop` would wait for its timeout and then kill the process.

use rustix::process::Signal as Kernel;
use std::{fs, io, process::exit, thread};
use tokio::signal::unix::{Signal, SignalKind, signal};
use widgets_load::output::discard_unfinished;

/// Both signals.
pub(crate) struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Handles the signals from now on, on the caller's runtime.
    pub(crate) fn new() -> io::Result<Self> {
        // If a file exceeds its size limit (`ulimit -f`), the default action would end the process.
        // With this handler, which stays installed, the write fails as on a full disk, and the
        // failure is reported.
        drop(signal(SignalKind::from_raw(Kernel::XFSZ.as_raw()))?);
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// Waits for the next signal and returns it.
    pub(crate) async fn next(&mut self) -> SignalKind {
        tokio::select! {
            _ = self.terminate.recv() => SignalKind::terminate(),
            _ = self.interrupt.recv() => SignalKind::interrupt(),
        }
    }

    /// Waits for the first signal. The second ends the process immediately: what was answered is
    /// durable, and the journal is made for crashes.
    pub(crate) async fn stop(mut self) {
        self.next().await;
        tracing::info!(
            "stopping: requests in progress are still answered; a second signal stops \
        at once"
        );
        tokio::spawn(async move {
            self.next().await;
            tracing::warn!("stopped at once: requests in progress were not answered");
            crate::log::wait_for_readers();
            exit(1);
        });
    }
}

/// Reports whether the process was started to ignore this signal, as `nohup` does with SIGHUP.
fn is_ignored(signal: SignalKind) -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| (mask >> (signal.as_raw_value() - 1)) & 1 == 1)
}

/// Makes a signal end the process as it would by default, after deleting unfinished files. For
/// commands that keep nothing else until they are done.
pub(crate) fn exit_on_signals() -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let (mut signals, mut hang_up) = {
        let _entered = runtime.enter();
        let kind = SignalKind::hangup();
        let hang_up = (!is_ignored(kind)).then(|| signal(kind)).transpose()?;
        (Signals::new()?, hang_up)
    };
    let wait = move || {
        let signal = runtime.block_on(async {
            let closed = async {
                match &mut hang_up {
                    Some(hang_up) => hang_up.recv().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                signal = signals.next() => signal,
                _ = closed => SignalKind::hangup(),
            }
        });
        discard_unfinished();
        // The exit code that shells use.
        exit(128 + signal.as_raw_value());
    };
    let waiting = thread::Builder::new().name("signals".into()).spawn(wait);
    waiting.map(drop)
}
