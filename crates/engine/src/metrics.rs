//! The engine's metrics. The owner updates them once per batch, never once per request.

use crate::{retries::Retries, state::Counts};
use prometheus::{
    Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
};
use std::time::Duration;
use widgets_registry::Port;

/// Buckets from a fast disk to one that is about to fail.
const COMMIT_SECONDS: [f64; 15] = [
    0.000_05, 0.000_1, 0.000_2, 0.000_5, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0,
    5.0,
];

const CHECKPOINT_SECONDS: [f64; 10] = [0.01, 0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0];

const BATCH_OPERATIONS: [f64; 13] = [
    1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 2048.0, 4096.0,
];

/// Every metric of the engine except those of the queue.
#[derive(Clone)]
pub(crate) struct Metrics {
    batch_operations: Histogram,
    commit_duration: Histogram,
    widgets: IntGauge,
    free_slots: IntGaugeVec,
    /// One gauge for each port type.
    free_slots_of: [IntGauge; Port::ALL.len()],
    associations: IntGauge,
    journal_bytes: IntGauge,
    read_only: IntGauge,
    idempotency_keys: IntGauge,
    idempotency_keys_most: IntGauge,
    idempotency_keys_early: IntCounter,
    idempotency_replayed: IntCounter,
    idempotency_reused: IntCounter,
    scans: IntGauge,
    checkpoints: IntCounterVec,
    checkpoints_ok: IntCounter,
    checkpoints_failed: IntCounter,
    checkpoint_duration: Histogram,
    standby_wait: Histogram,
    standby_groups: IntGauge,
    standby_timeouts: IntCounter,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let outcomes = Opts::new(
            "widgets_checkpoints_total",
            "Checkpoints by their outcome: ok or failed.",
        );
        let checkpoints = valid(IntCounterVec::new(outcomes, &["outcome"]));
        let free_slots = Opts::new(
            "widgets_free_slots",
            "Slots without a peer, by their port type.",
        );
        let free_slots = valid(IntGaugeVec::new(free_slots, &["port"]));
        Self {
            batch_operations: histogram(
                "widgets_batch_operations",
                "Requests that were answered together.",
                &BATCH_OPERATIONS,
            ),
            commit_duration: histogram(
                "widgets_commit_duration_seconds",
                "How long writing and syncing the changes of a batch took.",
                &COMMIT_SECONDS,
            ),
            widgets: gauge("widgets_widgets", "Widgets."),
            free_slots_of: Port::ALL.map(|port| free_slots.with_label_values(&[port.as_str()])),
            free_slots,
            associations: gauge("widgets_associations", "Associations."),
            journal_bytes: gauge(
                "widgets_journal_bytes",
                "The journal since the last checkpoint: what a restart replays.",
            ),
            read_only: gauge(
                "widgets_store_read_only",
                "1 after a failed sync: nothing is written until a restart.",
            ),
            idempotency_keys: gauge(
                "widgets_idempotency_keys",
                "Idempotency keys that are kept.",
            ),
            idempotency_keys_most: gauge(
                "widgets_idempotency_keys_of_one_caller",
                "Idempotency keys of the caller that has the most.",
            ),
            idempotency_keys_early: counter(
                "widgets_idempotency_keys_early_total",
                "Idempotency keys that were dropped early because there were more than \
                 idempotency.keys_max.",
            ),
            idempotency_replayed: counter(
                "widgets_idempotency_replayed_total",
                "Operations that were answered with the outcome of their first request.",
            ),
            idempotency_reused: counter(
                "widgets_idempotency_reused_total",
                "Operations that were refused because their key was used for another request.",
            ),
            scans: gauge("widgets_scans", "Lists in progress that no index serves."),
            // Both exist from the start, because an alert sees a counter grow only if it existed
            // before.
            checkpoints_ok: checkpoints.with_label_values(&["ok"]),
            checkpoints_failed: checkpoints.with_label_values(&["failed"]),
            checkpoints,
            checkpoint_duration: histogram(
                "widgets_checkpoint_duration_seconds",
                "How long a checkpoint took, which is written slowly on purpose.",
                &CHECKPOINT_SECONDS,
            ),
            standby_wait: histogram(
                "widgets_acknowledge_duration_seconds",
                "How long the changes of a batch, which are durable here, waited for the holder to \
                 have them.",
                &COMMIT_SECONDS,
            ),
            standby_groups: gauge(
                "widgets_acknowledge_waiting",
                "Batches whose changes wait for the holder to have them.",
            ),
            standby_timeouts: counter(
                "widgets_acknowledge_timeouts_total",
                "Accepted operations that were answered with WG505 because the holder did not have \
                 them in time.",
            ),
        }
    }

    pub(crate) fn batch(&self, operations: usize) {
        // A batch is far smaller than the largest integer that a float represents exactly.
        self.batch_operations
            .observe(u32::try_from(operations).unwrap_or(u32::MAX).into());
    }

    pub(crate) fn commit(&self, duration: Duration, counts: Counts, journal_bytes: u64) {
        self.commit_duration.observe(duration.as_secs_f64());
        self.state(counts, journal_bytes);
    }

    pub(crate) fn state(&self, counts: Counts, journal_bytes: u64) {
        let set = |gauge: &IntGauge, count| gauge.set(i64::try_from(count).unwrap_or(i64::MAX));
        set(&self.widgets, counts.widgets);
        for (gauge, port) in self.free_slots_of.iter().zip(Port::ALL) {
            set(gauge, counts.free_slots.of(port));
        }
        set(&self.associations, counts.associations);
        self.journal(journal_bytes);
    }

    pub(crate) fn journal(&self, bytes: u64) {
        self.journal_bytes
            .set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    /// Updates how many keys are kept.
    pub(crate) fn keys(&self, retries: &Retries) {
        self.idempotency_keys
            .set(i64::try_from(retries.len()).unwrap_or(i64::MAX));
        let most = retries.most_of_a_caller();
        self.idempotency_keys_most
            .set(i64::try_from(most).unwrap_or(i64::MAX));
        let told = self.idempotency_keys_early.get();
        self.idempotency_keys_early
            .inc_by(retries.early().saturating_sub(told));
    }

    /// Counts a repeated operation. `is_same` says whether it is the same as the first.
    pub(crate) fn replayed(&self, is_same: bool) {
        if is_same {
            self.idempotency_replayed.inc();
        } else {
            self.idempotency_reused.inc();
        }
    }

    pub(crate) fn read_only(&self) {
        self.read_only.set(1);
    }

    pub(crate) fn scans(&self, scans: usize) {
        self.scans.set(i64::try_from(scans).unwrap_or(i64::MAX));
    }

    pub(crate) fn checkpoint(&self, is_ok: bool, duration: Duration) {
        if is_ok {
            self.checkpoints_ok.inc();
        } else {
            self.checkpoints_failed.inc();
        }
        self.checkpoint_duration.observe(duration.as_secs_f64());
    }

    /// Observes how long a group waited until the holder had it.
    pub(crate) fn waited(&self, duration: Duration) {
        self.standby_wait.observe(duration.as_secs_f64());
    }

    pub(crate) fn waiting_groups(&self, groups: usize) {
        self.standby_groups
            .set(i64::try_from(groups).unwrap_or(i64::MAX));
    }

    pub(crate) fn standby_timeout(&self) {
        self.standby_timeouts.inc();
    }

    /// Adds these metrics to a registry.
    pub(crate) fn register(&self, registry: &Registry) -> prometheus::Result<()> {
        registry.register(Box::new(self.batch_operations.clone()))?;
        registry.register(Box::new(self.commit_duration.clone()))?;
        registry.register(Box::new(self.standby_wait.clone()))?;
        for each in [
            &self.widgets,
            &self.associations,
            &self.journal_bytes,
            &self.read_only,
            &self.scans,
            &self.idempotency_keys,
            &self.standby_groups,
        ] {
            registry.register(Box::new(each.clone()))?;
        }
        for each in [
            &self.idempotency_keys_early,
            &self.idempotency_replayed,
            &self.idempotency_reused,
            &self.standby_timeouts,
        ] {
            registry.register(Box::new(each.clone()))?;
        }
        registry.register(Box::new(self.free_slots.clone()))?;
        registry.register(Box::new(self.checkpoints.clone()))?;
        registry.register(Box::new(self.checkpoint_duration.clone()))
    }
}

fn gauge(name: &str, help: &str) -> IntGauge {
    valid(IntGauge::new(name, help))
}

fn counter(name: &str, help: &str) -> IntCounter {
    valid(IntCounter::new(name, help))
}

fn histogram(name: &str, help: &str, buckets: &[f64]) -> Histogram {
    let options = HistogramOpts::new(name, help).buckets(buckets.to_vec());
    valid(Histogram::with_opts(options))
}

/// Unwraps a metric. Names and buckets are constants of this file.
fn valid<T>(metric: prometheus::Result<T>) -> T {
    match metric {
        Ok(metric) => metric,
        Err(error) => unreachable!("every metric here is well-formed: {error}"),
    }
}
