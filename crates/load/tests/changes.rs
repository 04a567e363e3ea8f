//! `--follow-changes`: a feed that contradicts the answers is found, and a correct feed is never
//! reported as faulty.

#![expect(
    clippy::expect_used,
    reason = "in the helpers of tests a panic is the failed test"
)]

mod support;

use std::sync::mpsc::RecvTimeoutError;
use support::{Double, Lie, Server, load, plan};
use widgets_load::{
    FeedFindings, Protocol,
    dataset::Dataset,
    report::Report,
    run::{Plan, run},
};
use widgets_registry::{Command, Kinds as _, Name, Ports, SerialNumber};

fn follow(lie: Lie, adjust: impl FnOnce(&mut Plan)) -> Report {
    load(lie, |plan| {
        plan.session.follow_changes = true;
        adjust(plan);
    })
}

#[track_caller]
fn findings(report: &Report) -> &FeedFindings {
    let found = report.changes.as_ref();
    found.expect("the feed was followed to its end")
}

#[track_caller]
fn assert_passed(report: &Report) {
    assert_eq!(report.failures, Vec::<String>::new(), "{report}");
    assert_eq!(findings(report).faults(), 0, "{report}");
}

#[track_caller]
fn assert_caught(report: &Report) {
    let faults = findings(report).faults();
    let failure = format!("The feed of changes has {faults} faults.");
    assert!(faults > 0, "{report}");
    assert!(report.failures.contains(&failure), "{report}");
    assert!(!findings(report).examples.is_empty(), "{report}");
}

/// Returns the number of acknowledged operations in the load.
fn acknowledged(report: &Report) -> u64 {
    let kinds = report.stretches[0].kinds.iter();
    let operations = kinds.filter(|(name, _)| !matches!(name.as_str(), "lookup" | "list"));
    operations
        .filter_map(|(_, kind)| kind.outcomes.get("ok"))
        .sum()
}

#[test]
fn a_correct_feed_passes() {
    for seed in 1..=3 {
        let report = follow(Lie::None, |plan| {
            plan.session.seed = seed;
            plan.session.conflicts = 0.3;
        });
        assert_passed(&report);
        let told = findings(&report);
        assert_eq!(told.changes_checked, acknowledged(&report), "{report}");
        assert_eq!((told.doubts_told, told.of_others), (0, 0), "{report}");
    }
    let report = follow(Lie::None, |plan| {
        plan.session.target.protocol = Protocol::Http2;
        plan.session.workers = 2;
        plan.session.streams = 4;
        plan.session.audit_widgets_max = 400;
    });
    assert_passed(&report);
    assert_eq!(
        findings(&report).changes_checked,
        acknowledged(&report),
        "{report}"
    );
}

#[test]
fn dataset_changes_are_checked_and_those_of_other_clients_are_not() {
    let dataset = Dataset {
        widgets: 3000,
        seed: 9,
        associated: 0.5,
    };
    let double = Double::with_dataset(&dataset);
    let server = Server::start(double.clone());
    let (done, is_done) = std::sync::mpsc::channel::<()>();
    let other = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        let runtime = runtime.expect("a runtime");
        for number in 0.. {
            let command = Command::AddWidget {
                serial_number: SerialNumber::new("", format!("other-{number}")).expect("short"),
                name: Name::new("", "").expect("short"),
                ports: Ports::NONE,
            };
            runtime.block_on(double.submit(command)).expect("a new one");
            let wait = std::time::Duration::from_millis(5);
            if is_done.recv_timeout(wait) != Err(RecvTimeoutError::Timeout) {
                break;
            }
        }
    });
    for part in 0..2 {
        let mut plan = plan(&server.url());
        plan.session.run = format!("part{part}");
        plan.session.dataset = Some((dataset, (part, 2)));
        plan.session.follow_changes = true;
        plan.session.mix = "remove=1,associate=2,dissociate=2".parse().unwrap();
        plan.requests = Some(1500);
        let report = run(plan).unwrap();
        assert_passed(&report);
        let told = findings(&report);
        assert_eq!(told.changes_checked, acknowledged(&report), "{report}");
        assert!(told.of_others > 0, "{report}");
    }
    drop(done);
    other.join().unwrap();
}

#[test]
fn the_feed_settles_operations_of_unknown_outcome() {
    let report = follow(Lie::FateUnknown(50), |_| {});
    assert_passed(&report);
    assert!(findings(&report).doubts_told > 30, "{report}");
    let report = follow(Lie::SilentAndApply(100), |plan| {
        plan.session.timeout = std::time::Duration::from_millis(500);
    });
    assert_passed(&report);
    assert!(findings(&report).doubts_told > 10, "{report}");
}

#[test]
fn a_change_missing_from_the_feed_is_caught() {
    let report = follow(Lie::Untold(1000), |plan| {
        plan.session.mix = "add=1".parse().unwrap();
        plan.session.conflicts = 0.0;
    });
    assert_caught(&report);
    assert_eq!(findings(&report).never_told, 4, "{report}");
    assert_eq!(findings(&report).faults(), 4, "{report}");
    let report = follow(Lie::Untold(100), |_| {});
    assert_caught(&report);
    assert!(findings(&report).never_told > 10, "{report}");
}

#[test]
fn a_duplicate_change_in_the_feed_is_caught() {
    let report = follow(Lie::ToldTwice(1000), |plan| {
        plan.session.mix = "add=1".parse().unwrap();
        plan.session.conflicts = 0.0;
    });
    assert_caught(&report);
    // The last one is held back for longer than the load lasts.
    assert_eq!(findings(&report).told_twice, 3, "{report}");
    assert_eq!(findings(&report).faults(), 3, "{report}");
}

#[test]
fn a_delayed_change_in_the_feed_is_caught() {
    let report = follow(Lie::ToldLate(1000), |plan| {
        plan.session.mix = "add=1".parse().unwrap();
        plan.session.conflicts = 0.0;
        // With one lane, the thirty later changes belong to the same lane.
        plan.session.connections = 1;
    });
    assert_caught(&report);
    assert_eq!(findings(&report).out_of_order, 3, "{report}");
    // The change that was held back until after the load was never reported.
    assert_eq!(findings(&report).never_told, 1, "{report}");
    let report = follow(Lie::ToldLate(100), |_| {});
    assert_caught(&report);
    assert!(findings(&report).out_of_order > 5, "{report}");
}

#[test]
fn an_altered_change_in_the_feed_is_caught() {
    let report = follow(Lie::ToldOtherwise(1000), |plan| {
        plan.session.mix = "add=1".parse().unwrap();
        plan.session.conflicts = 0.0;
    });
    assert_caught(&report);
    assert_eq!(findings(&report).altered, 4, "{report}");
    assert_eq!(findings(&report).faults(), 4, "{report}");
    let report = follow(Lie::ToldOtherwise(7), |plan| {
        plan.session.mix = "add=1,associate=1".parse().unwrap();
    });
    assert_caught(&report);
    assert!(findings(&report).altered > 100, "{report}");
}

#[test]
fn a_change_in_the_feed_for_a_refused_request_is_caught() {
    let report = follow(Lie::BusyAndApply(20), |plan| {
        plan.session.mix = "add=1".parse().unwrap();
        plan.session.conflicts = 0.0;
    });
    assert_caught(&report);
    assert!(findings(&report).unasked > 50, "{report}");
    let report = follow(Lie::ToldRefused(3), |plan| plan.session.conflicts = 0.3);
    assert_caught(&report);
    let told = findings(&report);
    assert!(told.unasked + told.told_twice > 20, "{report}");
}

#[test]
fn an_unconfirmed_change_missing_from_the_feed_is_caught_by_the_audit() {
    let report = follow(Lie::FateUntold(1000), |_| {});
    let audit = report.audit.as_ref().expect("an audit");
    assert!(audit.told_otherwise >= 1, "{report}");
    assert!(!report.failures.is_empty(), "{report}");
}

#[test]
fn the_feed_is_not_followed_without_the_flag() {
    let report = load(Lie::Untold(100), |_| {});
    assert_eq!(report.changes, None);
    assert_eq!(report.failures, Vec::<String>::new(), "{report}");
}
