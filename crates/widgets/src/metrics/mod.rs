//! What the service uses of its machine and what is left, so that an alert fires before something
//! runs out: memory, open files, the disk of the data directory, expiring certificates.
//!
//! Files and the kernel are read at each collection of metrics; requests count nothing here. A
//! value that cannot be determined is missing from the response, and nothing fails because of it.

mod certificates;
mod disk;
mod process;

pub(crate) use certificates::Certificates;
pub(crate) use disk::Disk;
pub(crate) use process::Process;

use prometheus::{core::Collector, proto::MetricFamily};

/// Collects a metric that may have no value at present.
fn collected(metric: &impl Collector, known: bool) -> Vec<MetricFamily> {
    if known { metric.collect() } else { Vec::new() }
}

/// Converts a count to a gauge's value.
fn gauge_value(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
