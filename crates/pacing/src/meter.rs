//! What Linux says of processor time: the quota of this process's control group, and the processors
//! that it may run on.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

/// What was counted until one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Reading {
    /// How many processors this process may run on.
    pub processors: u32,
    /// How long they were idle, together. What a hypervisor gave to others is not.
    pub idle: Duration,
    /// How many processors' time the process may use, where that is limited.
    pub quota: Option<f64>,
    /// What was used of it.
    pub used: Duration,
    /// In so many periods all of it was used, and more was wanted.
    pub throttled_periods: u64,
}

/// Reads what is counted.
pub trait Meter: Send + 'static {
    /// What is counted now; `None` where that cannot be told.
    fn read(&mut self) -> Option<Reading>;
}

/// No meter: nothing is ever short.
impl Meter for () {
    fn read(&mut self) -> Option<Reading> {
        None
    }
}

/// The kernel's own counts.
#[derive(Debug)]
pub struct SystemMeter {
    proc: PathBuf,
    /// The processors that this process may run on; `None` for all.
    processors: Option<Vec<u32>>,
    limit: Option<Limit>,
}

/// A control group with a quota.
#[derive(Debug)]
enum Limit {
    /// Of the unified hierarchy.
    Two(PathBuf),
    /// Of the older one. What it counts is in another directory, if it is counted at all: what this
    /// process itself has used stands for it.
    One(PathBuf),
}

/// The unit of `/proc/stat`, on every architecture that Linux has (`USER_HZ`).
const TICKS_PER_SECOND: u32 = 100;

impl Default for SystemMeter {
    fn default() -> Self {
        Self::of(Path::new("/proc"), Path::new("/sys/fs/cgroup"))
    }
}

impl SystemMeter {
    /// Reads what is mounted there.
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
        // A quota may come and go while the service runs.
        Some(
            self.limit
                .as_ref()
                .and_then(|limit| limit.read(&self.proc, reading))
                .unwrap_or(reading),
        )
    }
}

/// How many of these processors there are, and how long they were idle together.
fn idle(stat: &str, processors: Option<&[u32]>) -> Option<(u32, Duration)> {
    let (mut count, mut ticks) = (0, 0);
    for line in stat.lines() {
        let mut words = line.split_ascii_whitespace();
        let Some(number) = words.next().and_then(|name| name.strip_prefix("cpu")) else {
            continue;
        };
        let Ok(number) = number.parse::<u32>() else {
            // The sum of all of them.
            continue;
        };
        if processors.is_none_or(|processors| processors.contains(&number)) {
            // user, nice, system, idle, iowait: one that waits for a disk has time to spare.
            let mut waits = words.skip(3).map(str::parse::<u64>);
            ticks += waits.next()?.ok()? + waits.next()?.ok()?;
            count += 1;
        }
    }
    let seconds = Duration::from_secs(1) / TICKS_PER_SECOND;
    let idle = seconds.checked_mul(u32::try_from(ticks % u64::from(u32::MAX)).ok()?)?;
    (count > 0).then_some((count, idle))
}

/// `0-2,5`
fn numbers(list: &str) -> Option<Vec<u32>> {
    let mut numbers = Vec::new();
    for range in list.split(',') {
        let (from, to) = range.split_once('-').unwrap_or((range, range));
        numbers.extend(from.parse::<u32>().ok()?..=to.parse().ok()?);
    }
    Some(numbers)
}

/// The control group whose quota holds for this process: its own, or the nearest above that has one.
/// In a container what is mounted is often the group itself, whatever the path says.
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

/// The processor time of all threads of this process.
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
    /// How many processors' time it allows.
    fn quota(&self) -> Option<f64> {
        let read = |path: &Path| fs::read_to_string(path).ok();
        let (quota, period) = match self {
            Self::Two(group) => {
                let max = read(&group.join("cpu.max"))?;
                let mut words = max.split_ascii_whitespace();
                // `max` is no number: there is no quota.
                (words.next()?.parse().ok()?, words.next()?.parse().ok()?)
            }
            Self::One(group) => {
                let number = |name| read(&group.join(name))?.trim().parse::<f64>().ok();
                (number("cpu.cfs_quota_us")?, number("cpu.cfs_period_us")?)
            }
        };
        (quota > 0.0 && period > 0.0).then(|| quota / period)
    }

    /// Adds what the group says.
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
