//! The archiver of `widgets serve`.

use crate::config::Archive;
use prometheus::Registry;
use std::{error::Error, sync::Arc};
use widgets_archive::{Bucket, Handle, Metrics};
use widgets_clock::Clock;
use widgets_engine::Engine;

/// How much less than others the archiver's thread gets where processor time is short.
const NICENESS: i32 = 10;

/// Starts to archive what the engine has, where an archive is set.
pub(crate) fn start(
    archive: &Archive,
    engine: &Engine,
    clock: Arc<dyn Clock>,
    metrics: &Registry,
) -> Result<Option<Handle>, Box<dyn Error>> {
    let Some(url) = &archive.url else {
        return Ok(None);
    };
    let bucket = Bucket::open(url)?;
    let told = Metrics::default();
    told.register(metrics)?;
    let begin = || {
        // On Linux a thread is a process to this call. Where it is not allowed all is as without it.
        let thread = Some(rustix::thread::gettid());
        let _ = rustix::process::setpriority_process(thread, NICENESS);
    };
    let settings = archive.settings();
    let handle = widgets_archive::start(bucket, engine.source(), clock, settings, told, begin)?;
    Ok(Some(handle))
}
