//! The meter, with files as Linux has them.

use super::*;
use tempfile::TempDir;

/// Returns a directory with these files.
fn files(files: &[(&str, &str)]) -> TempDir {
    let directory = tempfile::tempdir().expect("a new directory");
    for (name, content) in files {
        let path = directory.path().join(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        fs::write(path, content).expect("a file");
    }
    directory
}

const STAT: &str = "cpu  30 0 30 900 60 0 0 0 0 0\n\
    cpu0 10 0 10 300 20 0 0 0 0 0\n\
    cpu1 10 0 10 300 20 0 0 7 0 0\n\
    cpu2 10 0 10 300 20 0 0 0 0 0\n\
    intr 12345 0\n";

#[track_caller]
fn check(cgroup: &str, allowed: &str, groups: &[(&str, &str)], expected: Option<Reading>) {
    let status = format!("Name:\twidgets\nCpus_allowed_list:\t{allowed}\nThreads:\t1\n");
    let proc = files(&[
        ("stat", STAT),
        ("self/status", &status),
        ("self/cgroup", cgroup),
        ("self/task/1/schedstat", "1400000000 500 7\n"),
        ("self/task/2/schedstat", "100000000 500 7\n"),
    ]);
    let groups = files(groups);
    let read = SystemMeter::of(proc.path(), groups.path()).read();
    assert_eq!(read, expected);
}

const UNLIMITED: Reading = Reading {
    processors: 3,
    idle: Duration::from_millis(9600),
    quota: None,
    used: Duration::ZERO,
    throttled_periods: 0,
};

#[test]
fn processors_that_the_process_may_not_use_do_not_count() {
    check("0::/\n", "0-2", &[], Some(UNLIMITED));
    let two = Reading {
        processors: 2,
        idle: Duration::from_millis(6400),
        ..UNLIMITED
    };
    check("0::/\n", "0,2-2,7", &[], Some(two));
    check("0::/\n", "7", &[], None);
    check("", "nonsense", &[], Some(UNLIMITED));
}

const STAT_TWO: &str = "usage_usec 1500000\nuser_usec 1000000\nsystem_usec 500000\n\
    nr_periods 90\nnr_throttled 4\nthrottled_usec 1234\n";

const LIMITED: Reading = Reading {
    quota: Some(0.4),
    used: Duration::from_millis(1500),
    throttled_periods: 4,
    ..UNLIMITED
};

#[test]
fn the_quota_of_a_container_is_read() {
    let own = [("cpu.max", "40000 100000\n"), ("cpu.stat", STAT_TWO)];
    check("0::/\n", "0-2", &own, Some(LIMITED));
    // Docker without a cgroup namespace shows the host's path and mounts the group itself.
    check("0::/docker/abc\n", "0-2", &own, Some(LIMITED));
    let unlimited = [("cpu.max", "max 100000\n"), ("cpu.stat", STAT_TWO)];
    check("0::/\n", "0-2", &unlimited, Some(UNLIMITED));
}

#[test]
fn a_quota_set_on_a_parent_cgroup_is_read() {
    let groups = [
        ("system.slice/cpu.max", "40000 100000\n"),
        ("system.slice/cpu.stat", STAT_TWO),
        ("system.slice/widgets.service/cpu.max", "max 100000\n"),
    ];
    let cgroup = "0::/system.slice/widgets.service\n";
    check(cgroup, "0-2", &groups, Some(LIMITED));
}

#[test]
fn quotas_of_cgroup_version_1_are_read() {
    let groups = [
        ("cpu/jobs/one/cpu.cfs_quota_us", "40000\n"),
        ("cpu/jobs/one/cpu.cfs_period_us", "100000\n"),
        (
            "cpu/jobs/one/cpu.stat",
            "nr_periods 90\nnr_throttled 4\nthrottled_time 1234000\n",
        ),
        ("cpu/cpu.cfs_quota_us", "-1\n"),
        ("cpu/cpu.cfs_period_us", "100000\n"),
    ];
    let cgroup = "3:cpuacct:/jobs/one\n2:cpu:/jobs/one\n0::/\n";
    check(cgroup, "0-2", &groups, Some(LIMITED));
    check("2:cpu,cpuacct:/\n", "0-2", &groups, Some(UNLIMITED));
}

/// The counters of any machine that runs this test can be read.
#[test]
fn the_counters_of_this_machine_can_be_read() {
    let reading = SystemMeter::default().read().expect("Linux");
    assert!(reading.processors > 0);
}
