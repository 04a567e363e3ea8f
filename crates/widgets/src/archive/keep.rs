//! The archiver of `widgets serve`, and the backups that the service gives.

use crate::config::Archive;
use bytes::Bytes;
use prometheus::Registry;
use std::{error::Error, io, sync::Arc};
use tokio::sync::mpsc;
use widgets_archive::{Backups, Bucket, Handle, Metrics, Retries};
use widgets_clock::Clock;
use widgets_engine::Engine;
use widgets_pacing::Pacing;

/// The nice value of copying threads: when CPU time is short, they get less of it than others.
const NICENESS: i32 = 10;

/// Starts to archive the engine's data if an archive is configured.
pub(crate) fn start(
    archive: &Archive,
    engine: &Engine,
    times: (Arc<dyn Clock>, Arc<Pacing>),
    metrics: &Registry,
) -> Result<Option<Handle>, Box<dyn Error>> {
    let Some(url) = &archive.url else {
        return Ok(None);
    };
    let bucket = Bucket::open_to_write(url, Retries::Asker)?;
    let told = Metrics::default();
    told.register(metrics)?;
    let settings = archive.settings();
    let source = engine.source();
    let handle = widgets_archive::start(bucket, source, times, settings, told, step_back)?;
    Ok(Some(handle))
}

/// Lowers the priority of the calling thread.
fn step_back() {
    // For this call, a thread on Linux counts as a process. If it is not allowed, the priority
    // stays as it was.
    let thread = Some(rustix::thread::gettid());
    let _ = rustix::process::setpriority_process(thread, NICENESS);
}

/// The backups of a service.
struct Given(Backups);

impl widgets_server::Backup for Given {
    fn give(&self) -> io::Result<Option<mpsc::Receiver<Bytes>>> {
        self.0.give()
    }
}

/// Gives backups of the engine's data.
pub(crate) fn backups(
    engine: &Engine,
    clock: Arc<dyn Clock>,
    pacing: Arc<Pacing>,
) -> Arc<dyn widgets_server::Backup> {
    Arc::new(Given(Backups::new(
        engine.source(),
        clock,
        pacing,
        step_back,
    )))
}
