//! The store's metrics, under the names that all stores share.

use crate::{locked::Locked, queue::Queue};
use prometheus::{
    Gauge, GaugeVec, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec,
    Opts, PullingGauge, Registry,
};
use std::sync::Arc;
use widgets_queue::DepthMetrics;
use widgets_registry::Port;

/// The SQLSTATEs after which a batch is sent again. Each counter exists from the start, because
/// alerts only see an increase over an earlier value.
const CONFLICTS: [&str; 5] = ["40001", "40P01", "55P03", "23503", "23505"];

/// The store's metrics. Clones share them.
#[derive(Clone)]
pub struct Metrics {
    pub(crate) batch_operations: Histogram,
    pub(crate) commit_duration_seconds: Histogram,
    pub(crate) batch_retries: IntCounterVec,
    pub(crate) connections: IntGauge,
    pub(crate) node_connections: IntGaugeVec,
    pub(crate) node_batches: IntCounterVec,
    pub(crate) node_failures: IntCounterVec,
    pub(crate) widgets: Gauge,
    free_slots: GaugeVec,
    /// In the order of [`Port::ALL`].
    pub(crate) free_slots_of: [Gauge; Port::ALL.len()],
    pub(crate) associations: Gauge,
    pub(crate) changes_bytes: IntGauge,
    pub(crate) idempotency_keys: IntGauge,
    pub(crate) idempotency_keys_early: IntCounter,
    pub(crate) idempotency_replayed: IntCounter,
    pub(crate) idempotency_reused: IntCounter,
    queue: Arc<Queue>,
    locked: PullingGauge,
}

impl Metrics {
    pub(crate) fn new(queue: Arc<Queue>, locked: Arc<Locked>) -> prometheus::Result<Self> {
        let histogram = |name, help, buckets| {
            Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets))
        };
        let estimate = |name, what| {
            let help = format!("{what}, as the statistics of the last ANALYZE estimate them.");
            Opts::new(name, help)
        };
        let free_slots = estimate(
            "widgets_free_slots",
            "Slots without a peer by their port type",
        );
        let free_slots = GaugeVec::new(free_slots, &["port"])?;
        let batch_retries = IntCounterVec::new(
            Opts::new(
                "widgets_batch_retries_total",
                "Batches sent again, by the SQLSTATE of the conflict.",
            ),
            &["code"],
        )?;
        for code in CONFLICTS {
            batch_retries.with_label_values(&[code]);
        }
        Ok(Self {
            batch_operations: histogram(
                "widgets_batch_operations",
                "Operations applied by one commit.",
                prometheus::exponential_buckets(1.0, 2.0, 13)?,
            )?,
            commit_duration_seconds: histogram(
                "widgets_commit_duration_seconds",
                "From sending a batch until its commit was answered.",
                prometheus::exponential_buckets(0.000_25, 2.0, 16)?,
            )?,
            batch_retries,
            connections: IntGauge::new(
                "widgets_database_connections",
                "Connections to the database that are up.",
            )?,
            node_connections: IntGaugeVec::new(
                Opts::new(
                    "widgets_node_connections",
                    "Connections to a worker of a distributed registry that are up.",
                ),
                &["node"],
            )?,
            node_batches: IntCounterVec::new(
                Opts::new(
                    "widgets_node_batches_total",
                    "Batches that concerned this worker alone, or this one and another one.",
                ),
                &["node"],
            )?,
            node_failures: IntCounterVec::new(
                Opts::new(
                    "widgets_node_failures_total",
                    "Connections to a worker that failed or were lost, and batches that failed \
                     because it, or the other worker of a pair, was away.",
                ),
                &["node"],
            )?,
            widgets: Gauge::with_opts(estimate("widgets_widgets", "Widgets"))?,
            free_slots_of: Port::ALL.map(|port| free_slots.with_label_values(&[port.as_str()])),
            free_slots,
            associations: Gauge::with_opts(estimate("widgets_associations", "Associations"))?,
            changes_bytes: IntGauge::new(
                "widgets_changes_bytes",
                "The size of the changes that are kept in the database, with their indexes.",
            )?,
            idempotency_keys: IntGauge::new(
                "widgets_idempotency_keys",
                "Idempotency keys that are kept.",
            )?,
            idempotency_keys_early: IntCounter::new(
                "widgets_idempotency_keys_early_total",
                "Idempotency keys that were dropped early because there were more than \
                 idempotency.keys_max.",
            )?,
            idempotency_replayed: IntCounter::new(
                "widgets_idempotency_replayed_total",
                "Operations that were answered with the outcome of their first request.",
            )?,
            idempotency_reused: IntCounter::new(
                "widgets_idempotency_reused_total",
                "Operations that were refused because their key was used for another request.",
            )?,
            queue,
            locked: PullingGauge::new(
                "widgets_locked_operations",
                "Operations that wait for widgets which another transaction holds.",
                #[expect(clippy::cast_precision_loss, reason = "a count for people")]
                Box::new(move || locked.len() as f64),
            )?,
        })
    }

    /// Creates each worker's counters from the start, because alerts only see an increase over an
    /// earlier value, and its gauge of connections if workers are connected to directly.
    pub(crate) fn know(&self, workers: &[String], are_connected: bool) {
        for worker in workers {
            self.node_batches.with_label_values(&[worker]);
            self.node_failures.with_label_values(&[worker]);
            if are_connected {
                self.node_connections.with_label_values(&[worker]);
            }
        }
    }

    /// Counts a failure at a worker, or at the other worker of its pair.
    pub(crate) fn failed_at(&self, worker: &str) {
        self.node_failures.with_label_values(&[worker]).inc();
    }

    /// Registers all metrics with the service's registry.
    pub fn register(&self, registry: &Registry) -> prometheus::Result<()> {
        registry.register(Box::new(self.batch_operations.clone()))?;
        registry.register(Box::new(self.commit_duration_seconds.clone()))?;
        registry.register(Box::new(self.batch_retries.clone()))?;
        registry.register(Box::new(self.connections.clone()))?;
        registry.register(Box::new(self.node_connections.clone()))?;
        registry.register(Box::new(self.node_batches.clone()))?;
        registry.register(Box::new(self.node_failures.clone()))?;
        registry.register(Box::new(self.widgets.clone()))?;
        registry.register(Box::new(self.free_slots.clone()))?;
        registry.register(Box::new(self.associations.clone()))?;
        registry.register(Box::new(self.changes_bytes.clone()))?;
        registry.register(Box::new(self.idempotency_keys.clone()))?;
        registry.register(Box::new(self.idempotency_keys_early.clone()))?;
        registry.register(Box::new(self.idempotency_replayed.clone()))?;
        registry.register(Box::new(self.idempotency_reused.clone()))?;
        registry.register(Box::new(self.locked.clone()))?;
        registry.register(Box::new(DepthMetrics::new(self.queue.clone())?))
    }
}
