//! The primary hands over to a standby, under load and with obstacles.

use crate::{
    asking::{answer, outcome, wait_for_log, wait_until},
    replication::{add, answer_to_add, get, has, metric, position, promote, start, url},
    service::{Directory, Service, Signal, widgets},
};
use std::{
    path::Path,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::Duration,
};
use widgets_client::{Client, Settings};

fn client(service: &Service) -> Client {
    Client::new(&Settings {
        url: url(service),
        token: None,
        ca: None,
        insecure: false,
        timeout: Duration::from_mins(1),
    })
    .expect("right settings")
}

/// Runs `widgets promote --switchover`, with a limit that even a busy machine does not reach.
fn switch_over(directory: &Path, standby: &Service, within: &str) -> (Option<i32>, String) {
    let to = url(standby);
    let arguments = ["promote", "--switchover", "--within", within, &to];
    outcome(widgets(directory).args(arguments))
}

fn is_primary(service: &Service) -> bool {
    get(service, "/ready?role=primary").0 == 200
}

/// Sends a store a request about roles, as another store does.
fn tell(service: &Service, call: &str) -> (u16, String) {
    answer(service, "", &format!("POST /replication/{call}"), "")
}

/// Returns how a standby at this address identifies itself to its primary.
fn asker(primary: &Service, address: &str) -> String {
    let position = position(primary);
    let mut parts = position.split('-');
    let mut part = || parts.next().expect("a position has three parts");
    let (store, epoch) = (part(), part());
    format!("store={store}&epoch={epoch}&member=0000000000000001&address={address}")
}

/// Stops the writers, even if an assertion fails.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Switches roles and back: no operation fails, and every answered one is there.
#[test]
fn no_operation_fails_or_is_lost_in_switchovers_under_load() {
    let (first, second) = (Directory::new("switch_one"), Directory::new("switch_other"));
    let one = start(first.path(), &[]);
    let other = start(second.path(), &["--follow", &url(&one)]);
    wait_until("it follows", || get(&other, "/ready").0 == 200);
    let (stop, done) = (AtomicBool::new(false), AtomicU64::new(0));
    let written: Vec<(u64, u64)> = thread::scope(|scope| {
        let stopping = Stop(&stop);
        let write = |writer: u64| {
            let (stop, done, client) = (&stop, &done, client(&one));
            move || {
                let mut count = 0;
                while !stop.load(Ordering::Relaxed) {
                    let added = client.add_widget(&format!("w{writer}-{count}"), "n", &[]);
                    added.expect("no operation fails");
                    count += 1;
                    done.fetch_add(1, Ordering::Relaxed);
                }
                (writer, count)
            }
        };
        let writers: Vec<_> = (0..4).map(|writer| scope.spawn(write(writer))).collect();
        let more = || {
            let before = done.load(Ordering::Relaxed);
            wait_until("operations are taken", || {
                done.load(Ordering::Relaxed) > before + 20
            });
        };
        more();
        for (before, next) in [(&one, &other), (&other, &one)] {
            let (code, told) = switch_over(second.path(), next, "60s");
            assert_eq!(code, Some(0), "{told}");
            assert!(told.contains("is the primary now, in epoch"), "{told}");
            assert!(is_primary(next) && !is_primary(before));
            more();
            wait_until("it follows", || get(before, "/ready").0 == 200);
        }
        drop(stopping);
        writers
            .into_iter()
            .map(|writer| writer.join().expect("it wrote"))
            .collect()
    });
    let last = position(&one);
    wait_until("copied", || position(&other) >= last);
    for (writer, count) in written {
        for number in 0..count {
            let serial_number = format!("w{writer}-{number}");
            assert!(has(&one, &serial_number), "{serial_number} is lost");
            assert!(has(&other, &serial_number), "{serial_number} is not copied");
        }
    }
    let count = |service, outcome| {
        let name = format!("widgets_replication_hand_overs_total{{outcome=\"{outcome}\"}}");
        metric(service, &name)
    };
    for service in [&one, &other] {
        assert_eq!(count(service, "done"), Some(1));
        assert_eq!(count(service, "given_up"), Some(0));
        assert_eq!(metric(service, "widgets_replication_handing_over"), Some(0));
    }
    let (code, told) = switch_over(second.path(), &one, "60s");
    assert!(
        code == Some(0) && told.contains("was the primary already"),
        "{told}"
    );
}

/// The standby that requested the handover dies. Operations are not refused, but wait until the
/// primary accepts them again.
#[test]
fn a_primary_resumes_when_the_standby_does_not_take_over() {
    let directory = Directory::new("switch_nobody");
    let primary = start(directory.path(), &[]);
    add(&primary, "before");
    let asker_one = asker(&primary, "http%3A%2F%2F127.0.0.1%3A9");
    let (status, told) = tell(&primary, &format!("hand-over?{asker_one}&within_ms=700"));
    assert_eq!((status, told.as_str()), (200, r#"{"handing_over":true}"#));
    // During this handover it refuses another one.
    let asker_two = asker(&primary, "http%3A%2F%2F127.0.0.1%3A8");
    let (status, told) = tell(&primary, &format!("hand-over?{asker_two}&within_ms=700"));
    assert!(
        status == 503 && told.contains("is handing over to http://127.0.0.1:9"),
        "{status} {told}"
    );
    // A standby that lacks something is not accepted.
    let behind = format!("handed-over?{asker_one}&next_sequence=1&chain=0000000000000000");
    let (status, told) = tell(&primary, &behind);
    assert!(status == 503 && told.contains("WG503"), "{status} {told}");
    let (status, told) = get(&primary, "/ready?role=primary");
    assert!(
        status == 503 && told.contains("is handing over to a standby"),
        "{status} {told}"
    );
    add(&primary, "waited");
    assert!(is_primary(&primary));
    let given_up = "widgets_replication_hand_overs_total{outcome=\"given_up\"}";
    assert_eq!(metric(&primary, given_up), Some(1));
    // The handover has timed out, so the standby can no longer complete it.
    let (status, told) = tell(&primary, &behind);
    assert!(status == 410 && told.contains("WG410"), "{status} {told}");
    assert!(is_primary(&primary));
    wait_for_log(directory.path(), "this primary accepts operations again");
}

/// No standby took over, so the primary's data directory still says that it is the primary.
#[test]
fn a_primary_that_ends_during_a_handover_restarts_as_the_primary() {
    let directory = Directory::new("switch_dies");
    let primary = start(directory.path(), &[]);
    add(&primary, "before");
    let asker = asker(&primary, "http%3A%2F%2F127.0.0.1%3A9");
    let (status, told) = tell(&primary, &format!("hand-over?{asker}&within_ms=60000"));
    assert_eq!(status, 200, "{told}");
    primary.kill();
    let primary = start(directory.path(), &[]);
    assert!(is_primary(&primary));
    add(&primary, "after");
    // The same holds for a primary that is stopped during a handover. It does not wait for its end.
    let (status, told) = tell(&primary, &format!("hand-over?{asker}&within_ms=60000"));
    assert_eq!(status, 200, "{told}");
    primary.signal(Signal::TERM);
    assert!(primary.wait().success());
    let primary = start(directory.path(), &[]);
    assert!(has(&primary, "after") && is_primary(&primary));
}

/// If a standby cannot take over, no role changes, and the error message says why.
#[test]
fn a_failed_switchover_leaves_both_roles_unchanged() {
    let (first, second) = (
        Directory::new("switch_stay"),
        Directory::new("switch_stays"),
    );
    let primary = start(first.path(), &[]);
    add(&primary, "before");
    let standby = start(second.path(), &["--follow", &url(&primary)]);
    wait_until("it follows", || get(&standby, "/ready").0 == 200);
    // The primary receives the request only after the standby has given up.
    primary.signal(Signal::STOP);
    let (code, told) = switch_over(second.path(), &standby, "100ms");
    primary.signal(Signal::CONT);
    assert_eq!(code, Some(1), "{told}");
    assert!(
        told.contains("the roles of the two stores are as they were")
            && told.contains("takes operations again within 0.1 s"),
        "{told}"
    );
    // It hands over for as long as was requested.
    wait_until("it takes operations again", || {
        let (status, told) = answer_to_add(&primary, "between");
        assert!(
            status == 204 || status == 503 && told.contains("nothing was applied"),
            "{status} {told}"
        );
        status == 204
    });
    assert!(!is_primary(&standby));
    let listen = primary.address.to_string();
    primary.kill();
    wait_until("the loss of the primary is noticed", || {
        metric(&standby, "widgets_replication_connected") == Some(0)
    });
    let (code, told) = switch_over(second.path(), &standby, "1s");
    assert_eq!(code, Some(1), "{told}");
    assert!(told.contains("the primary cannot be reached"), "{told}");
    let (status, told) = tell(&standby, "promote?address=http%3A%2F%2Fh&within_ms=61000");
    assert!(
        status == 400 && told.contains("within_ms must be 100 to 60000, 61000 was given"),
        "{status} {told}"
    );
    let primary = start(first.path(), &["--listen", &listen]);
    add(&primary, "again");
    wait_until("it follows again", || has(&standby, "again"));
    // A standby does not hand over, and a primary does not hand over to a standby of another store.
    let asker = asker(&primary, "http%3A%2F%2F127.0.0.1%3A9");
    let (status, told) = tell(&standby, &format!("hand-over?{asker}&within_ms=700"));
    assert!(
        status == 503 && told.contains("is a standby itself"),
        "{status} {told}"
    );
    let (status, told) = tell(
        &primary,
        "hand-over?store=1&epoch=1&member=1&address=http%3A%2F%2Fh&within_ms=100",
    );
    assert!(
        status == 410 && told.contains("the standby has store 0000000000000001"),
        "{status} {told}"
    );
    let (status, told) = tell(&primary, "hand-over?store=x&epoch=1&address=h");
    assert!(
        status == 400 && told.contains("store must be a number in base 16"),
        "{status} {told}"
    );
}

/// After a switchover, the previous primary follows the standby that took over. That standby is
/// lost, and the other one is promoted. It notifies the previous primary, which then follows it.
#[test]
fn a_standby_follows_a_new_primary_that_it_is_notified_of() {
    let (first, second, third) = (
        Directory::new("told_first"),
        Directory::new("told_second"),
        Directory::new("told_third"),
    );
    let primary = start(first.path(), &[]);
    add(&primary, "before");
    let one = start(second.path(), &["--follow", &url(&primary)]);
    let other = start(third.path(), &["--follow", &url(&primary)]);
    wait_until("both follow", || {
        get(&one, "/ready").0 == 200 && get(&other, "/ready").0 == 200
    });
    let (code, told) = switch_over(second.path(), &one, "60s");
    assert_eq!(code, Some(0), "{told}");
    add(&one, "between");
    wait_until("the new epoch has come to both", || {
        has(&primary, "between") && has(&other, "between")
    });
    // The previous primary is a standby of this store, which is gone for good.
    one.kill();
    let (code, told) = promote(third.path(), &other);
    assert_eq!(code, Some(0), "{told}");
    add(&other, "after");
    wait_until("it follows the new one", || has(&primary, "after"));
    let (status, told) = get(&primary, "/ready?role=primary");
    assert!(
        status == 503 && told.contains(&url(&other)),
        "{status} {told}"
    );
}
