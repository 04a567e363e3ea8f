//! What the service takes of its machine and what is left of it, so that an alert comes before the end:
//! memory, open files, the disk of the data directory, certificates that expire.
//!
//! Files and the kernel are asked when somebody asks for metrics; requests count nothing here. What
//! cannot be found out has no value in the answer, and nothing fails for it.

mod certificates;
mod disk;
mod process;

pub(crate) use certificates::Certificates;
pub(crate) use disk::Disk;
pub(crate) use process::Process;

use prometheus::{core::Collector, proto::MetricFamily};

/// The answer's part of a metric that may have no value now.
fn collected(metric: &impl Collector, known: bool) -> Vec<MetricFamily> {
    if known { metric.collect() } else { Vec::new() }
}

/// A count of bytes or of things as a gauge has it.
fn gauge_value(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
