//! The archiver of `widgets serve`, and the backups that it gives.

use crate::config::Archive;
use bytes::Bytes;
use prometheus::Registry;
use std::{error::Error, io, sync::Arc};
use tokio::sync::mpsc;
use widgets_archive::{Backups, Bucket, Handle, Metrics, Retries};
use widgets_clock::Clock;
use widgets_engine::Engine;
use widgets_pacing::Pacing;

/// How much less than others a thread that copies gets where processor time is short.
const NICENESS: i32 = 10;

/// Starts to archive what the engine has, where an archive is set.
pub(crate) fn start(
    archive: &Archive,
    engine: &Engine,
    times: (Arc<dyn Clock>, Arc<Pacing>),
    metrics: &Registry,
) -> Result<Option<Handle>, Box<dyn Error>> {
    let Some(url) = &archive.url else {
        return Ok(None);
    };
    let bucket = Bucket::open(url, Retries::Asker)?;
    let told = Metrics::default();
    told.register(metrics)?;
    let settings = archive.settings();
    let source = engine.source();
    let handle = widgets_archive::start(bucket, source, times, settings, told, step_back)?;
    Ok(Some(handle))
}

/// Leaves processor time to others.
fn step_back() {
    // On Linux a thread is a process to this call. Where it is not allowed all is as without it.
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

/// The backups of what the engine has.
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
