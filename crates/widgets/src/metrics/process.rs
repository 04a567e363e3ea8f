//! Memory, CPU time and open files, under the names that every Prometheus client uses.

use super::{collected, gauge_value};
use prometheus::{
    Counter, IntGauge,
    core::{Collector, Desc},
    proto::MetricFamily,
};
use rustix::{
    param::page_size,
    process::{Resource, getrlimit},
    system::sysinfo,
    time::{ClockId, clock_gettime},
};
use std::{
    fs,
    path::{Path, PathBuf},
};

/// Queries the kernel about this process at each collection.
pub(crate) struct Process {
    resident: IntGauge,
    memory_limit: IntGauge,
    open_files: IntGauge,
    open_files_max: IntGauge,
    processor: Counter,
}

impl Process {
    pub(crate) fn new() -> prometheus::Result<Self> {
        Ok(Self {
            resident: IntGauge::new(
                "process_resident_memory_bytes",
                "The resident memory of the process.",
            )?,
            memory_limit: IntGauge::new(
                "widgets_memory_limit_bytes",
                "How much memory the process may have: its container's limit, or the machine's \
                 memory if that is less.",
            )?,
            open_files: IntGauge::new(
                "process_open_fds",
                "Open files, of which each connection is one.",
            )?,
            open_files_max: IntGauge::new(
                "process_max_fds",
                "How many files may be open at once.",
            )?,
            processor: Counter::new("process_cpu_seconds_total", "The CPU time of the process.")?,
        })
    }
}

impl Collector for Process {
    fn desc(&self) -> Vec<&Desc> {
        let mut all = self.processor.desc();
        for each in [
            &self.resident,
            &self.memory_limit,
            &self.open_files,
            &self.open_files_max,
        ] {
            all.extend(each.desc());
        }
        all
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let spent = clock_gettime(ClockId::ProcessCPUTime);
        let spent = std::time::Duration::try_from(spent).unwrap_or_default();
        // A counter can only be increased. Two collections at the same time may differ by the CPU
        // time used in between.
        self.processor
            .inc_by((spent.as_secs_f64() - self.processor.get()).max(0.0));
        let mut all = self.processor.collect();
        for (gauge, value) in [
            (&self.resident, resident_bytes()),
            (&self.memory_limit, memory_limit_bytes()),
            (&self.open_files, open_files()),
            (&self.open_files_max, getrlimit(Resource::Nofile).current),
        ] {
            gauge.set(gauge_value(value.unwrap_or_default()));
            all.extend(collected(gauge, value.is_some()));
        }
        all
    }
}

fn resident_bytes() -> Option<u64> {
    let pages = fs::read_to_string("/proc/self/statm").ok()?;
    let resident: u64 = pages.split(' ').nth(1)?.parse().ok()?;
    Some(resident * page_size() as u64)
}

fn open_files() -> Option<u64> {
    let files = fs::read_dir("/proc/self/fd").ok()?.count();
    // One of them is the directory that was just read.
    Some(files.saturating_sub(1) as u64)
}

fn memory_limit_bytes() -> Option<u64> {
    let machine = sysinfo();
    let bytes = machine.totalram.saturating_mul(u64::from(machine.mem_unit));
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let limits = limit_files(Path::new("/sys/fs/cgroup"), &groups).into_iter();
    // A group without a limit contains `max`, or a number larger than any machine's memory.
    let limits = limits.filter_map(|file| fs::read_to_string(file).ok()?.trim().parse().ok());
    limits.chain([bytes]).min()
}

/// Returns the files with the limits on this process's memory, from its `/proc/self/cgroup`: those
/// of its group and of every group around it. In a container, its own group may be mounted as the
/// root.
fn limit_files(mounted: &Path, groups: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for line in groups.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(group)) = (fields.next(), fields.next()) else {
            continue;
        };
        let (mounted, file) = if controllers.is_empty() {
            (mounted.to_owned(), "memory.max")
        } else if controllers.split(',').any(|each| each == "memory") {
            (mounted.join("memory"), "memory.limit_in_bytes")
        } else {
            continue;
        };
        let group = Path::new(group.trim_start_matches('/'));
        files.extend(
            group
                .ancestors()
                .map(|group| mounted.join(group).join(file)),
        );
    }
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_limit_files_include_those_of_parent_cgroups() {
        let files = |groups| {
            let files = limit_files(Path::new("/c"), groups).into_iter();
            files
                .map(|file| file.display().to_string())
                .collect::<Vec<_>>()
        };
        assert_eq!(files("0::/\n"), ["/c/memory.max"]);
        assert_eq!(
            files("0::/system.slice/widgets.service\n"),
            [
                "/c/system.slice/widgets.service/memory.max",
                "/c/system.slice/memory.max",
                "/c/memory.max"
            ]
        );
        assert_eq!(
            files("5:cpu,cpuacct:/a\n4:memory:/b\n"),
            [
                "/c/memory/b/memory.limit_in_bytes",
                "/c/memory/memory.limit_in_bytes"
            ]
        );
        assert_eq!(files("nonsense"), [""; 0]);
    }

    #[test]
    fn memory_and_open_files_of_this_process_are_measured() {
        let resident = resident_bytes().expect("Linux tells");
        let limit = memory_limit_bytes().expect("Linux tells");
        assert!(resident > 100_000, "{resident}");
        assert!(limit > resident, "{limit}");
        let before = open_files().expect("Linux tells");
        // More files than were open, because other tests may close theirs meanwhile.
        let files = (0..=before).map(|_| fs::File::open("/proc/self/statm"));
        let files: Vec<_> = files.map(|file| file.expect("it is there")).collect();
        let now = open_files().expect("Linux tells");
        assert!(now > before, "{now} after {before}");
        drop(files);
    }
}
