//! How much waits, for the metrics.

use crate::Queue;
use prometheus::{
    IntGauge,
    core::{Collector, Desc},
    proto::MetricFamily,
};
use std::sync::Arc;

/// How much waits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Depth {
    /// How many requests.
    pub requests: usize,
    /// How many bytes of text they have.
    pub bytes: usize,
}

/// Reads the queue's depth when metrics are requested, so that requests need not count anything.
pub struct DepthMetrics<Q> {
    queue: Arc<Q>,
    operations: IntGauge,
    bytes: IntGauge,
}

impl<Q: Queue> DepthMetrics<Q> {
    /// Makes the metrics of this queue.
    pub fn new(queue: Arc<Q>) -> prometheus::Result<Self> {
        Ok(Self {
            queue,
            operations: IntGauge::new("widgets_queue_operations", "Requests that wait.")?,
            bytes: IntGauge::new(
                "widgets_queue_bytes",
                "Bytes of text in requests that wait.",
            )?,
        })
    }
}

impl<Q: Queue> Collector for DepthMetrics<Q> {
    fn desc(&self) -> Vec<&Desc> {
        [self.operations.desc(), self.bytes.desc()].concat()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let Depth { requests, bytes } = self.queue.depth();
        self.operations
            .set(i64::try_from(requests).unwrap_or(i64::MAX));
        self.bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
        [self.operations.collect(), self.bytes.collect()].concat()
    }
}
