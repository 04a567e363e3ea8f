//! The metrics of an archive: how far it is behind, and what fails.

use crate::error::Failure;
use prometheus::{
    IntCounter, IntCounterVec, IntGauge, Opts, Registry,
    core::{Collector, Desc},
    proto::MetricFamily,
};
use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicU64, Ordering},
};
use widgets_clock::Clock;
use widgets_engine::Source;

/// The metrics of an archive. Clones share their state.
#[derive(Clone)]
pub struct Metrics {
    behind_seconds: IntGauge,
    behind_bytes: IntGauge,
    pub(crate) stopped: IntGauge,
    pub(crate) gaps: IntCounter,
    pub(crate) objects: IntCounter,
    pub(crate) bytes: IntCounter,
    pub(crate) checkpoint_timestamp: IntGauge,
    failures: IntCounterVec,
    behind: Arc<Behind>,
}

#[derive(Default)]
struct Behind {
    /// Everything before this entry is in the archive.
    next_sequence: AtomicU64,
    /// Since when something has been waiting to be archived, in microseconds since 1970; 0 if
    /// nothing is.
    since: AtomicU64,
    source: OnceLock<(Source, Arc<dyn Clock>)>,
}

impl Default for Metrics {
    fn default() -> Self {
        let gauge = |name: &str, help: &str| valid(IntGauge::new(name, help));
        let counter = |name: &str, help: &str| valid(IntCounter::new(name, help));
        let failures = valid(IntCounterVec::new(
            Opts::new(
                "widgets_archive_failures_total",
                "Requests that the archive's bucket failed, by reason. They are retried.",
            ),
            &["reason"],
        ));
        for failure in Failure::ALL {
            // The series exist from the start, because an alert only sees an increase from a value
            // that it knows.
            failures.with_label_values(&[failure.word()]);
        }
        failures.with_label_values(&["store"]);
        Self {
            behind_seconds: gauge(
                "widgets_archive_behind_seconds",
                "The age of the oldest operation that is not in the archive, 0 if all are; until \
                 the archive could be opened, how long that has been tried.",
            ),
            behind_bytes: gauge(
                "widgets_archive_behind_bytes",
                "About how much journal is not in the archive yet.",
            ),
            stopped: gauge(
                "widgets_archive_stopped",
                "1 if nothing is archived any more because the archive is another's.",
            ),
            gaps: counter(
                "widgets_archive_gaps_total",
                "How often the journal was deleted before it was archived: moments in the gap cannot be restored.",
            ),
            objects: counter("widgets_archive_objects_total", "Objects written."),
            bytes: counter("widgets_archive_bytes_total", "Bytes of objects written."),
            checkpoint_timestamp: gauge(
                "widgets_archive_checkpoint_timestamp_seconds",
                "When the newest checkpoint of the archive was complete, in Unix time.",
            ),
            failures,
            behind: Arc::default(),
        }
    }
}

impl Metrics {
    /// Adds the metrics to a registry.
    pub fn register(&self, registry: &Registry) -> prometheus::Result<()> {
        registry.register(Box::new(self.clone()))
    }

    /// Sets what is archived from now on. Until the archive is open, its content is unknown, so
    /// everything counts as behind from now on.
    pub(crate) fn watch(&self, source: Source, clock: Arc<dyn Clock>) {
        let now = crate::archiver::unix_microseconds(&*clock);
        // Set only once: an archive has one store.
        if self.behind.source.set((source, clock)).is_ok() {
            self.waiting_since(now);
        }
    }

    /// Sets that everything before this entry is archived.
    pub(crate) fn reached(&self, next_sequence: u64) {
        self.behind
            .next_sequence
            .store(next_sequence, Ordering::Relaxed);
    }

    /// Sets since when something has been waiting; 0 if nothing is.
    pub(crate) fn waiting_since(&self, microseconds: u64) {
        self.behind.since.store(microseconds, Ordering::Relaxed);
    }

    /// Counts a failed request; `None` means that the store to be copied failed.
    pub(crate) fn failed(&self, failure: Option<Failure>) {
        let reason = failure.map_or("store", Failure::word);
        self.failures.with_label_values(&[reason]).inc();
    }

    pub(crate) fn wrote(&self, bytes: usize) {
        self.objects.inc();
        self.bytes.inc_by(bytes as u64);
    }

    fn parts(&self) -> [Box<dyn Collector>; 8] {
        [
            Box::new(self.behind_seconds.clone()),
            Box::new(self.behind_bytes.clone()),
            Box::new(self.stopped.clone()),
            Box::new(self.gaps.clone()),
            Box::new(self.objects.clone()),
            Box::new(self.bytes.clone()),
            Box::new(self.checkpoint_timestamp.clone()),
            Box::new(self.failures.clone()),
        ]
    }

    fn refresh(&self) {
        let Some((source, clock)) = self.behind.source.get() else {
            return;
        };
        let next = self.behind.next_sequence.load(Ordering::Relaxed);
        let since = self.behind.since.load(Ordering::Relaxed);
        let now = u64::try_from(clock.unix_time().as_micros()).unwrap_or(u64::MAX);
        let seconds = match since {
            0 => 0,
            since => now.saturating_sub(since) / 1_000_000,
        };
        let set =
            |gauge: &IntGauge, value: u64| gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        set(&self.behind_seconds, seconds);
        set(&self.behind_bytes, source.bytes_from(next));
    }
}

impl Collector for Metrics {
    fn desc(&self) -> Vec<&Desc> {
        [
            self.behind_seconds.desc(),
            self.behind_bytes.desc(),
            self.stopped.desc(),
            self.gaps.desc(),
            self.objects.desc(),
            self.bytes.desc(),
            self.checkpoint_timestamp.desc(),
            self.failures.desc(),
        ]
        .concat()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        self.refresh();
        let parts = self.parts();
        parts.iter().flat_map(|part| part.collect()).collect()
    }
}

/// Unwraps a metric; the names are constants in this file.
fn valid<T>(metric: prometheus::Result<T>) -> T {
    match metric {
        Ok(metric) => metric,
        Err(error) => unreachable!("every metric here is well-formed: {error}"),
    }
}
