//! The archiver beside a running service: a thread with its own runtime, which retries after any
//! failure and ends if another process takes over the archive.

use crate::{
    Archiver, Bucket, Error, Metrics, Settings, archiver::STRETCH_REST, object::STRETCH_BYTES,
};
use std::{
    io,
    sync::Arc,
    thread::{self, JoinHandle},
    time::Duration,
};
use tokio::sync::oneshot;
use widgets_clock::Clock;
use widgets_engine::Source;
use widgets_pacing::Pacing;

/// The pause after the first failure; it doubles with each further one.
const BACKOFF: Duration = Duration::from_millis(250);
const BACKOFF_MAX: Duration = Duration::from_secs(15);

/// How often new groups are packed; the interval grows while few arrive.
const PACK_EVERY: Duration = Duration::from_millis(20);
const LITTLE: usize = STRETCH_BYTES / 8;

/// The archiver of a running service.
pub struct Handle {
    stop: oneshot::Sender<()>,
    thread: JoinHandle<()>,
}

/// Starts to archive a store. `begin` is called first on the thread.
pub fn start(
    bucket: Bucket,
    source: Source,
    (clock, pacing): (Arc<dyn Clock>, Arc<Pacing>),
    settings: Settings,
    metrics: Metrics,
    begin: impl FnOnce() + Send + 'static,
) -> io::Result<Handle> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .thread_name("archive")
        .enable_all()
        .build()?;
    let (stop, stopped) = oneshot::channel();
    let work = move || {
        begin();
        let service = Service {
            bucket,
            source,
            clock,
            pacing,
            settings,
            metrics,
            stopped,
            failing: None,
            is_last: false,
        };
        runtime.block_on(service.run());
        // A checkpoint that was asked for may take long, so this does not wait for it.
        runtime.shutdown_background();
    };
    let thread = thread::Builder::new().name("archive".into()).spawn(work)?;
    Ok(Handle { stop, thread })
}

impl Handle {
    /// Copies the rest of a stopped store, and ends. Waits for at most `wait_max`, and returns whether
    /// that was enough.
    pub fn stop(self, clock: &dyn Clock, wait_max: Duration) -> bool {
        // The thread may have ended already.
        let _ = self.stop.send(());
        let until = clock.now() + wait_max;
        while !self.thread.is_finished() {
            if clock.now() >= until {
                return false;
            }
            clock.sleep(Duration::from_millis(5));
        }
        true
    }
}

struct Service {
    bucket: Bucket,
    source: Source,
    clock: Arc<dyn Clock>,
    pacing: Arc<Pacing>,
    settings: Settings,
    metrics: Metrics,
    /// Receives the request to copy the rest and end.
    stopped: oneshot::Receiver<()>,
    /// The present failure, since when it has lasted, and how often it occurred.
    failing: Option<(String, Duration, u32)>,
    /// Whether the store has stopped.
    is_last: bool,
}

impl Service {
    async fn run(mut self) {
        let ended = loop {
            match self.archive().await {
                Ok(()) => break Ok(()),
                Err(error) if error.is_final() => break Err(error),
                Err(error) => {
                    if !self.wait_after(&error).await {
                        break Ok(());
                    }
                }
            }
        };
        if let Err(error) = ended {
            self.metrics.stopped.set(1);
            tracing::error!(%error, url = self.bucket.url(), "nothing is archived any more");
            // The disk must not fill up for an archive that takes nothing.
            self.source.hold(None);
        }
    }

    /// Takes over the archive and copies until the store has stopped, or until the archive must be
    /// taken over again.
    async fn archive(&mut self) -> Result<(), Error> {
        let mut archiver = Archiver::open(
            self.bucket.clone(),
            self.source.clone(),
            (self.clock.clone(), Some(self.pacing.clone())),
            self.settings.clone(),
            self.metrics.clone(),
        )
        .await?;
        self.recovered();
        let mut cycle = Duration::ZERO;
        loop {
            let seen = self.source.end().next_sequence;
            let began = self.clock.now();
            match archiver.step(self.is_last).await {
                Ok(true) => self.recovered(),
                Ok(false) if self.is_last => return Ok(()),
                Ok(false) => {
                    self.recovered();
                    cycle = self.clock.now().saturating_sub(began);
                    self.wait_for(&mut archiver, seen, cycle).await;
                }
                Err(Error::Source(why)) => return Err(Error::Source(why)),
                Err(error) if error.is_final() => return Err(error),
                Err(error) => {
                    if !self.wait_after(&error).await {
                        return Ok(());
                    }
                }
            }
            if cycle > self.settings.interval {
                tracing::debug!(?cycle, "an object takes longer than archive.interval_ms");
            }
        }
    }

    /// Waits for something to copy, and then as long as the interval allows for more, which is
    /// packed meanwhile.
    async fn wait_for(&mut self, archiver: &mut Archiver, seen: u64, cycle: Duration) {
        tokio::select! {
            () = archiver.changed(seen) => {}
            _ = &mut self.stopped => {
                self.is_last = true;
                return;
            }
            // Wakes up for what is due by its age.
            () = self.clock.timer(Duration::from_mins(1)) => return,
        }
        // A group that arrives just after the next object is read is in the one after that, so two
        // cycles must fit the interval.
        let interval = self.settings.interval;
        let rest = (interval * 9 / 10).saturating_sub(cycle * 2);
        let until = self.clock.now() + rest.max(interval / 10);
        let mut pause = PACK_EVERY;
        while !self.is_last && !archiver.is_full() {
            // The next step tries again what failed, and reports it.
            let Ok(packed) = archiver.pack() else { return };
            pause = match packed {
                STRETCH_BYTES.. => STRETCH_REST,
                LITTLE.. => PACK_EVERY,
                _ => pause * 2,
            };
            let left = until.saturating_sub(self.clock.now());
            if left.is_zero() {
                return;
            }
            tokio::select! {
                () = self.clock.timer(left.min(pause)) => {}
                _ = &mut self.stopped => self.is_last = true,
            }
        }
    }

    /// Reports a failure and waits before the next attempt. Returns whether there should be one.
    async fn wait_after(&mut self, error: &Error) -> bool {
        self.metrics.failed(match error {
            Error::Bucket { failure, .. } => Some(*failure),
            _ => None,
        });
        let text = error.to_string();
        let now = self.clock.now();
        let (since, times) = match &self.failing {
            Some((_, since, times)) => (*since, *times + 1),
            None => (now, 0),
        };
        let is_new = self
            .failing
            .as_ref()
            .is_none_or(|(known, ..)| *known != text);
        if is_new {
            tracing::warn!(
                error = text,
                url = self.bucket.url(),
                "the archive is falling behind; trying again, and keeping the journal meanwhile"
            );
        }
        self.failing = Some((text, since, times));
        if self.is_last {
            // A stopping service waits only a little, in which another attempt may succeed.
            if times > 2 {
                return false;
            }
            self.clock.timer(BACKOFF).await;
            return true;
        }
        let pause = BACKOFF.saturating_mul(1 << times.min(10)).min(BACKOFF_MAX);
        // Random, so that many services with the same bucket do not retry at the same moments.
        let jitter = u32::try_from(crate::random() % 512).unwrap_or(0);
        let pause = pause.saturating_sub(pause / 2048 * jitter);
        let until = self.clock.now() + pause;
        loop {
            let left = until.saturating_sub(self.clock.now());
            if left.is_zero() || self.is_last {
                return true;
            }
            tokio::select! {
                () = self.clock.timer(left) => {}
                _ = &mut self.stopped => self.is_last = true,
            }
        }
    }

    fn recovered(&mut self) {
        if let Some((_, since, _)) = self.failing.take() {
            let seconds = self.clock.now().saturating_sub(since).as_secs();
            tracing::info!(seconds, url = self.bucket.url(), "archiving works again");
        }
    }
}
