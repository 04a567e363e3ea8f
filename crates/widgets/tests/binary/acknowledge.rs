//! `replication.acknowledge = "standby"` with real processes, one of which must have what the other
//! answers.

use crate::{
    asking::{answer, ask, connect, outcome, wait_for_log, wait_until},
    service::{Directory, Service, Signal, widgets},
};
use std::path::Path;

const SETTINGS: &[&str] = &[
    "--queue-operations-max",
    "16",
    "--segment-bytes",
    "65536",
    "--acknowledge",
    "standby",
];

/// So short that what must be refused is refused soon.
const SOON: &[&str] = &["--standby-timeout-ms", "200"];

/// So long that nothing is refused only because a loaded machine is slow.
const LATE: &[&str] = &["--standby-timeout-ms", "60000"];

fn start(directory: &Path, more: &[&[&str]]) -> Service {
    let more = more.concat();
    Service::start(directory, &[SETTINGS, &more].concat())
}

fn url(service: &Service) -> String {
    format!("http://{}", service.address)
}

fn try_add(service: &Service, serial_number: &str) -> (u16, String) {
    let body = format!(r#"{{"widget_sn":"{serial_number}","widget_name":"","slots":["P"]}}"#);
    let json = "Content-Type: application/json\r\n";
    ask(&mut connect(service), "POST /rpc/add_widget", json, &body)
}

fn add(service: &Service, serial_number: &str) {
    assert_eq!(try_add(service, serial_number), (204, String::new()));
}

fn get(service: &Service, path: &str) -> (u16, String) {
    answer(service, "", &format!("GET {path}"), "")
}

fn acknowledged_by(service: &Service, by: &str) -> bool {
    let metrics = get(service, "/metrics").1;
    metrics.contains(&format!("widgets_acknowledged_by{{by=\"{by}\"}} 1"))
}

fn holder(directory: &Path, primary: &Service, more: &[&str]) -> (Option<i32>, String) {
    let address = url(primary);
    outcome(widgets(directory).args([&["holder", &address], more].concat()))
}

fn promote(directory: &Path, standby: &Service) -> (Option<i32>, String) {
    outcome(widgets(directory).args(["promote", &url(standby)]))
}

/// Returns the member number of the only listed standby.
fn listed(told: &str) -> String {
    let line = told.lines().find(|line| line.starts_with("standby"));
    let word = line.and_then(|line| line.split_whitespace().nth(1));
    word.expect("one is listed").trim_matches(',').to_owned()
}

#[test]
fn operations_need_an_acknowledging_standby_unless_set_to_alone() {
    let (first, second) = (Directory::new("waits"), Directory::new("holds"));
    let primary = start(first.path(), &[SOON]);
    let (status, told) = try_add(&primary, "early");
    assert!(status == 503 && told.contains("WG504"), "{status} {told}");
    assert!(told.contains("replication.standby_timeout_ms"), "{told}");
    wait_until("it is not ready", || {
        let (status, told) = get(&primary, "/ready");
        status == 503 && told.contains("WG504")
    });
    assert!(acknowledged_by(&primary, "nobody"));
    assert_eq!(
        get(&primary, "/widgets").1,
        "[]",
        "what is there can be read"
    );

    let standby = start(second.path(), &[SOON, &["--follow", &url(&primary)]]);
    wait_until("the standby is the holder", || {
        acknowledged_by(&primary, "standby")
    });
    wait_until("an operation is accepted", || {
        try_add(&primary, "w0").0 == 204
    });
    assert_eq!(get(&standby, "/widgets/w0").0, 200);
    wait_until("it is ready", || get(&primary, "/ready").0 == 200);
    let (code, told) = holder(first.path(), &primary, &[]);
    assert_eq!(code, Some(0), "{told}");
    let member = listed(&told);
    assert!(
        told.contains(&format!("holder           {member}")),
        "{told}"
    );

    // The standby stops but stays connected: what was sent to it may have arrived.
    standby.signal(Signal::STOP);
    let (status, told) = try_add(&primary, "unknown");
    assert!(status == 503 && told.contains("WG505"), "{status} {told}");
    let (status, told) = try_add(&primary, "refused");
    assert!(status == 503 && told.contains("WG504"), "{status} {told}");
    let (status, told) = get(&primary, "/widgets/unknown");
    assert!(status == 503 && told.contains("WG504"), "{status} {told}");
    let (status, told) = get(&primary, "/changes");
    assert!(status == 200 && !told.contains("unknown"), "{told}");
    standby.signal(Signal::CONT);
    wait_until("the primary continues", || {
        try_add(&primary, "later").0 != 503
    });
    assert_eq!(get(&primary, "/widgets/unknown").0, 200, "it was applied");
    assert_eq!(get(&primary, "/widgets/refused").0, 404);

    // If the standby is lost for good, an operator allows the primary to acknowledge alone.
    standby.kill();
    wait_until("the primary notices the loss", || {
        acknowledged_by(&primary, "nobody")
    });
    assert_eq!(holder(first.path(), &primary, &["--alone"]).0, Some(0));
    wait_until("the primary acknowledges alone", || {
        acknowledged_by(&primary, "alone")
    });
    add(&primary, "alone");
}

#[test]
fn only_the_holder_is_promoted_and_the_old_primary_acknowledges_nothing() {
    let [first, second, third, copy] = ["held", "holder", "other", "copy"].map(Directory::new);
    let primary = start(first.path(), &[LATE]);
    let address = url(&primary);
    let standby = start(second.path(), &[LATE, &["--follow", &address]]);
    wait_until("the standby is the holder", || {
        acknowledged_by(&primary, "standby")
    });
    let other = start(third.path(), &[LATE, &["--follow", &address]]);
    for number in 0..50 {
        add(&primary, &format!("w{number}"));
    }
    wait_until("the other standby has the last widget", || {
        get(&other, "/widgets/w49").0 == 200
    });
    let (code, told) = promote(third.path(), &other);
    assert!(
        code != Some(0) && told.contains("is not the holder"),
        "{told}"
    );

    primary.kill();
    let copied = std::process::Command::new("cp")
        .arg("-r")
        .args([
            first.path().join("widgets-data"),
            copy.path().join("widgets-data"),
        ])
        .status();
    assert!(copied.expect("cp runs").success());
    std::fs::remove_dir_all(first.path().join("widgets-data")).expect("gone");
    let (code, told) = promote(second.path(), &standby);
    assert_eq!(code, Some(0), "{told}");
    add(&standby, "promoted");
    assert!(acknowledged_by(&standby, "alone"));
    for number in 0..50 {
        assert_eq!(get(&standby, &format!("/widgets/w{number}")).0, 200);
    }
    // It listens at another address, so the new primary cannot notify it.
    let old = start(copy.path(), &[SOON]);
    let (status, told) = try_add(&old, "second history");
    assert!(status == 503 && told.contains("WG504"), "{status} {told}");
    let (status, told) = get(&old, "/widgets/w0");
    assert!(status == 503 && told.contains("WG504"), "{status} {told}");
}

/// Switches roles and back: every answered operation is always on two disks, and only the holder
/// takes over.
#[test]
fn a_switchover_is_allowed_only_to_the_holder_and_loses_nothing() {
    let [first, second, third] = ["switched", "switch_holder", "switch_other"].map(Directory::new);
    let one = start(first.path(), &[LATE]);
    let other = start(second.path(), &[LATE, &["--follow", &url(&one)]]);
    wait_until("the standby is the holder", || {
        acknowledged_by(&one, "standby")
    });
    let third = start(third.path(), &[LATE, &["--follow", &url(&one)]]);
    add(&one, "w0");
    wait_until("the widget is copied", || {
        get(&third, "/widgets/w0").0 == 200
    });
    let switch_over = |standby: &Service| {
        let to = url(standby);
        let arguments = ["promote", "--switchover", "--within", "60s", &to];
        outcome(widgets(first.path()).args(arguments))
    };
    // Otherwise the holder could be promoted as well, and both would acknowledge operations.
    let (code, told) = switch_over(&third);
    assert!(
        code == Some(1) && told.contains("is the holder, and could be promoted beside"),
        "{code:?} {told}"
    );
    add(&one, "w1");
    assert!(acknowledged_by(&one, "standby"));
    for (number, (before, next)) in [(&one, &other), (&other, &one)].into_iter().enumerate() {
        let (code, told) = switch_over(next);
        assert_eq!(code, Some(0), "{told}");
        // The new primary's own disk is enough until the previous primary has everything and is
        // named the holder.
        wait_until("the other one is the holder", || {
            acknowledged_by(next, "standby")
        });
        add(next, &format!("switched{number}"));
        let (status, told) = try_add(before, "nowhere");
        assert!(status == 503 && told.contains("WG507"), "{status} {told}");
    }
    for serial_number in ["w0", "w1", "switched0", "switched1"] {
        let path = format!("/widgets/{serial_number}");
        assert_eq!(get(&one, &path).0, 200, "{serial_number}");
        wait_until("copied", || get(&other, &path).0 == 200);
    }
}

/// The primary and the holder are gone: an operator's confirmation is needed, and is enough.
#[test]
fn a_standby_that_is_not_the_holder_is_promoted_only_with_force() {
    let [first, second, third] = ["gone", "gone_holder", "forced"].map(Directory::new);
    let primary = start(first.path(), &[LATE]);
    let address = url(&primary);
    let holder = start(second.path(), &[LATE, &["--follow", &address]]);
    wait_until("the standby is the holder", || {
        acknowledged_by(&primary, "standby")
    });
    let other = start(third.path(), &[LATE, &["--follow", &address]]);
    add(&primary, "w0");
    wait_until("the widget is copied", || {
        get(&other, "/widgets/w0").0 == 200
    });
    primary.kill();
    holder.kill();
    let (code, told) = promote(third.path(), &other);
    assert!(
        code == Some(1)
            && told.contains("is not the holder")
            && told.contains("widgets promote --force"),
        "{code:?} {told}"
    );
    let (status, told) = try_add(&other, "w1");
    assert!(status == 503 && told.contains("WG507"), "{status} {told}");
    let to = url(&other);
    let (code, told) = outcome(widgets(third.path()).args(["promote", "--force", &to]));
    assert_eq!(code, Some(0), "{told}");
    add(&other, "w1");
    assert_eq!(get(&other, "/widgets/w0").0, 200);
    let both = ["promote", "--force", "--switchover", &to];
    assert_eq!(outcome(widgets(third.path()).args(both)).0, Some(2));
}

/// This is a planned change: the previous holder is informed first, and no operation is refused
/// meanwhile.
#[test]
fn a_holder_set_by_an_operator_acknowledges_and_can_be_promoted() {
    let [first, second, third] = ["changes", "before", "after"].map(Directory::new);
    let primary = start(first.path(), &[LATE]);
    let address = url(&primary);
    let before = start(second.path(), &[LATE, &["--follow", &address]]);
    wait_until("the standby is the holder", || {
        acknowledged_by(&primary, "standby")
    });
    let named = listed(&holder(first.path(), &primary, &[]).1);
    let after = start(third.path(), &[LATE, &["--follow", &address]]);
    add(&primary, "w0");
    wait_until("both are listed", || {
        holder(first.path(), &primary, &[])
            .1
            .matches("standby  ")
            .count()
            == 2
    });
    let told = holder(first.path(), &primary, &[]).1;
    let members = told.lines().filter(|line| line.starts_with("standby"));
    let mut members = members.map(listed);
    let wanted = members.find(|member| *member != named).expect("the other");
    let (code, told) = holder(first.path(), &primary, &["--member", &wanted]);
    assert_eq!(code, Some(0), "{told}");
    let is_wanted = format!("holder           {wanted}");
    wait_until("the standby is the holder", || {
        holder(first.path(), &primary, &[]).1.contains(&is_wanted)
    });
    before.kill();
    add(&primary, "w1");
    assert_eq!(get(&after, "/widgets/w1").0, 200);
    // The record that names the new holder must have reached it, or its promotion would be refused.
    primary.signal(Signal::TERM);
    assert!(primary.wait().success());
    wait_for_log(third.path(), "the primary cannot be followed");
    let (code, told) = promote(third.path(), &after);
    assert_eq!(code, Some(0), "{told}");
    add(&after, "w2");
}
