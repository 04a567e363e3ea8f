//! The disk of the data directory.

use super::{collected, gauge_value};
use prometheus::{
    IntGauge,
    core::{Collector, Desc},
    proto::MetricFamily,
};
use std::path::{Path, PathBuf};

/// Queries the file system of a directory at each collection.
pub(crate) struct Disk {
    directory: PathBuf,
    free: IntGauge,
    size: IntGauge,
}

impl Disk {
    pub(crate) fn new(directory: &Path) -> prometheus::Result<Self> {
        Ok(Self {
            directory: directory.to_owned(),
            free: IntGauge::new(
                "widgets_disk_free_bytes",
                "How many bytes the service can still write to the disk of its data directory.",
            )?,
            size: IntGauge::new(
                "widgets_disk_size_bytes",
                "The size of the disk of the data directory.",
            )?,
        })
    }
}

impl Collector for Disk {
    fn desc(&self) -> Vec<&Desc> {
        [self.free.desc(), self.size.desc()].concat()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let Ok(disk) = rustix::fs::statvfs(&self.directory) else {
            return Vec::new();
        };
        self.free
            .set(gauge_value(disk.f_bavail.saturating_mul(disk.f_frsize)));
        self.size
            .set(gauge_value(disk.f_blocks.saturating_mul(disk.f_frsize)));
        [collected(&self.free, true), collected(&self.size, true)].concat()
    }
}
