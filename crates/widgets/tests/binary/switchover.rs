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
fn roles_change_under_load_and_no_operation_fails() {
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

/// The standby that asked for it dies. Operations are not refused, but wait until the primary takes
/// them again.
#[test]
fn a_primary_that_hands_over_to_nobody_goes_on() {
    let directory = Directory::new("switch_nobody");
    let primary = start(directory.path(), &[]);
    add(&primary, "before");
    let asker_one = asker(&primary, "http%3A%2F%2F127.0.0.1%3A9");
    let (status, told) = tell(&primary, &format!("hand-over?{asker_one}&within_ms=700"));
    assert_eq!((status, told.as_str()), (200, r#"{"handing_over":true}"#));
    // Meanwhile it hands over to nobody else.
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
    // Now it is too late.
    let (status, told) = tell(&primary, &behind);
    assert!(status == 410 && told.contains("WG410"), "{status} {told}");
    assert!(is_primary(&primary));
    wait_for_log(directory.path(), "this primary accepts operations again");
}

/// It died while handing over. On its disk it is the primary, because nobody took over.
#[test]
fn a_primary_that_dies_while_it_hands_over_is_the_primary_when_it_comes_back() {
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
    // So is a primary that is stopped meanwhile, which waits for nobody.
    let (status, told) = tell(&primary, &format!("hand-over?{asker}&within_ms=60000"));
    assert_eq!(status, 200, "{told}");
    primary.signal(Signal::TERM);
    assert!(primary.wait().success());
    let primary = start(directory.path(), &[]);
    assert!(has(&primary, "after") && is_primary(&primary));
}

/// A standby that cannot take over changes nothing, and says what is in the way.
#[test]
fn a_switchover_that_cannot_be_leaves_everything_as_it_was() {
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
    wait_until("it sees that", || {
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

/// One standby was promoted. Nobody notifies the other one directly, but the previous primary
/// follows the new one and notifies its standby, even if that follows another store by then.
#[test]
fn a_standby_that_is_told_of_a_new_primary_follows_it() {
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
