//! What Linux reports about CPU time: the quota of this process's control group, and the CPUs that
//! it may run on.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

/// The counters at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Reading {
    /// The number of CPUs that this process may run on.
    pub processors: u32,
    /// The idle time of these CPUs together. Time that a hypervisor gave to others does not count.
    pub idle: Duration,
    /// The CPU time per second that the process may use, in CPUs, if it is limited.
    pub quota: Option<f64>,
    /// The part of the quota that was used.
    pub used: Duration,
    /// The number of periods in which the whole quota was used and more was needed.
    pub throttled_periods: u64,
}

/// A source of readings.
pub trait Meter: Send + 'static {
    /// Returns the current counters; `None` if they are unavailable.
    fn read(&mut self) -> Option<Reading>;
}

/// Without a meter, CPU time is never short.
impl Meter for () {
    fn read(&mut self) -> Option<Reading> {
        None
    }
}

/// The kernel's own counters.
#[derive(Debug)]
pub struct SystemMeter {
    proc: PathBuf,
    /// The CPUs that this process may run on; `None` means all.
    processors: Option<Vec<u32>>,
    limit: Option<Limit>,
}

/// A control group with a quota.
#[derive(Debug)]
enum Limit {
    /// In cgroup version 2.
    Two(PathBuf),
    /// In cgroup version 1. Its usage counter is in another directory, if there is one at all, so
    /// the usage of this process alone is taken instead.
    One(PathBuf),
}

/// The unit of `/proc/stat`, on every architecture of Linux (`USER_HZ`).
const TICKS_PER_SECOND: u32 = 100;

impl Default for SystemMeter {
    fn default() -> Self {
        Self::of(Path::new("/proc"), Path::new("/sys/fs/cgroup"))
    }
}

impl SystemMeter {
    /// Reads the files in these mounts.
    fn of(proc: &Path, cgroups: &Path) -> Self {
        let read = |name| fs::read_to_string(proc.join(name)).unwrap_or_default();
        let status = read("self/status");
        let list = status
            .lines()
            .find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
        Self {
            proc: proc.into(),
            processors: list.and_then(|list| numbers(list.trim())),
            limit: limit(&read("self/cgroup"), cgroups),
        }
    }
}

impl Meter for SystemMeter {
    fn read(&mut self) -> Option<Reading> {
        let stat = fs::read_to_string(self.proc.join("stat")).ok()?;
        let (processors, idle) = idle(&stat, self.processors.as_deref())?;
        let reading = Reading {
            processors,
            idle,
            ..Reading::default()
        };
        // A quota may be added or removed while the service runs.
        Some(
            self.limit
                .as_ref()
                .and_then(|limit| limit.read(&self.proc, reading))
                .unwrap_or(reading),
        )
    }
}

/// Returns the number of these CPUs, and their idle time together.
fn idle(stat: &str, processors: Option<&[u32]>) -> Option<(u32, Duration)> {
    let (mut count, mut ticks) = (0, 0);
    for line in stat.lines() {
        let mut words = line.split_ascii_whitespace();
        let Some(number) = words.next().and_then(|name| name.strip_prefix("cpu")) else {
            continue;
        };
        let Ok(number) = number.parse::<u32>() else {
            // This is the sum over all CPUs.
            continue;
        };
        if processors.is_none_or(|processors| processors.contains(&number)) {
            // user, nice, system, idle, iowait: a CPU that waits for a disk has time to spare.
            let mut waits = words.skip(3).map(str::parse::<u64>);
            ticks += waits.next()?.ok()? + waits.next()?.ok()?;
            count += 1;
        }
    }
    let seconds = Duration::from_secs(1) / TICKS_PER_SECOND;
    let idle = seconds.checked_mul(u32::try_from(ticks % u64::from(u32::MAX)).ok()?)?;
    (count > 0).then_some((count, idle))
}

/// Parses a list such as `0-2,5`.
fn numbers(list: &str) -> Option<Vec<u32>> {
    let mut numbers = Vec::new();
    for range in list.split(',') {
        let (from, to) = range.split_once('-').unwrap_or((range, range));
        numbers.extend(from.parse::<u32>().ok()?..=to.parse().ok()?);
    }
    Some(numbers)
}

/// Returns the control group whose quota applies to this process: its own, or the nearest ancestor
/// that has one. In a container the group itself is often what is mounted, whatever the path says.
fn limit(groups: &str, mounted: &Path) -> Option<Limit> {
    let of = |controllers: &[&str]| {
        groups.lines().find_map(|line| {
            let (_, rest) = line.split_once(':')?;
            let (names, path) = rest.split_once(':')?;
            let is_it = |name| controllers.contains(&name);
            let found = names.split(',').any(is_it);
            found.then(|| path.trim_start_matches('/').to_owned())
        })
    };
    let upwards = |root: PathBuf, path: String| {
        let own = root.join(&path);
        let above: Vec<PathBuf> = own
            .ancestors()
            .take_while(|each| each.starts_with(&root))
            .map(Path::to_path_buf)
            .collect();
        above
    };
    if let Some(path) = of(&[""]) {
        let mut groups = upwards(mounted.into(), path).into_iter();
        let limited = groups.find(|each| Limit::Two(each.clone()).quota().is_some());
        if let Some(group) = limited {
            return Some(Limit::Two(group));
        }
    }
    let path = of(&["cpu"])?;
    let mut groups = upwards(mounted.join("cpu"), path)
        .into_iter()
        .map(Limit::One);
    groups.find(|limit| limit.quota().is_some())
}

/// Returns the CPU time of all threads of this process.
fn used(proc: &Path) -> Option<Duration> {
    let threads = fs::read_dir(proc.join("self/task")).ok()?;
    let nanos = threads.filter_map(|thread| {
        // A thread may end meanwhile.
        let stat = fs::read_to_string(thread.ok()?.path().join("schedstat")).ok()?;
        stat.split_ascii_whitespace().next()?.parse::<u64>().ok()
    });
    Some(Duration::from_nanos(nanos.sum()))
}

impl Limit {
    /// Returns the quota in CPUs.
    fn quota(&self) -> Option<f64> {
        let read = |path: &Path| fs::read_to_string(path).ok();
        let (quota, period) = match self {
            Self::Two(group) => {
                let max = read(&group.join("cpu.max"))?;
                let mut words = max.split_ascii_whitespace();
                // `max` is not a number: there is no quota.
                (words.next()?.parse().ok()?, words.next()?.parse().ok()?)
            }
            Self::One(group) => {
                let number = |name| read(&group.join(name))?.trim().parse::<f64>().ok();
                (number("cpu.cfs_quota_us")?, number("cpu.cfs_period_us")?)
            }
        };
        (quota > 0.0 && period > 0.0).then(|| quota / period)
    }

    /// Adds the group's counters to a reading.
    fn read(&self, proc: &Path, reading: Reading) -> Option<Reading> {
        let number = |text: &str, name: &str| {
            let line = text
                .lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            line?.trim().parse::<u64>().ok()
        };
        let (Self::Two(group) | Self::One(group)) = self;
        let stat = fs::read_to_string(group.join("cpu.stat")).ok()?;
        Some(Reading {
            quota: Some(self.quota()?),
            used: match self {
                Self::Two(_) => Duration::from_micros(number(&stat, "usage_usec")?),
                Self::One(_) => used(proc)?,
            },
            throttled_periods: number(&stat, "nr_throttled")?,
            ..reading
        })
    }
}

#[cfg(test)]
mod tests;
