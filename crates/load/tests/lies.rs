//! Wrong answers of a server are always found, and a correct server is never reported as faulty.

#![expect(
    clippy::panic,
    reason = "in the helpers of tests a panic is the failed test"
)]

mod support;

use support::{Double, Lie, Server, load, plan};
use widgets_load::{Findings, dataset::Dataset, report::Report, run::run};

#[track_caller]
fn findings(report: &Report) -> &Findings {
    match &report.audit {
        Some(findings) => findings,
        None => panic!("there was no audit:\n{report}"),
    }
}

#[track_caller]
fn assert_caught(report: &Report) {
    assert!(!report.failures.is_empty(), "not caught:\n{report}");
}

#[test]
fn a_correct_server_passes() {
    for seed in 1..=3 {
        let report = load(Lie::None, |plan| {
            plan.session.seed = seed;
            plan.session.conflicts = 0.3;
        });
        assert_eq!(report.failures, Vec::<String>::new(), "{report}");
        let stretch = &report.stretches[0];
        assert_eq!(
            (stretch.requests, stretch.wrong, stretch.errors),
            (4000, 0, 0),
            "{report}"
        );
        assert!(findings(&report).widgets_checked > 1000, "{report}");
        // Every refusal of the model occurred, and none was wrong: all were predicted.
        for code in [
            "23505", "22P02", "WG001", "WG002", "WG003", "WG004", "WG005", "WG006", "WG007",
        ] {
            let met = stretch
                .kinds
                .values()
                .any(|kind| kind.outcomes.contains_key(code));
            assert!(met, "{code} did not occur:\n{report}");
        }
        for kind in [
            "add_widget",
            "remove_widget",
            "associate_widgets",
            "remove_association",
            "lookup",
        ] {
            assert!(stretch.kinds[kind].outcomes["ok"] > 100, "{report}");
        }
    }
}

#[test]
fn a_dropped_write_in_a_thousand_is_caught_every_time() {
    for seed in 1..=5 {
        let report = load(Lie::Drop(1000), |plan| plan.session.seed = seed);
        assert_caught(&report);
        // Without lookups and conflicts during the load, only the audit can find it.
        let report = load(Lie::Drop(1000), |plan| {
            plan.session.seed = seed;
            plan.session.conflicts = 0.0;
            plan.session.mix = "add=1".parse().unwrap();
        });
        assert_eq!(report.stretches[0].wrong, 0, "{report}");
        assert_eq!(findings(&report).acknowledged_but_lost, 4, "{report}");
        assert_caught(&report);
    }
}

#[test]
fn dropped_writes_of_a_mixed_load_are_reported_by_the_audit() {
    let report = load(Lie::Drop(10), |plan| plan.session.conflicts = 0.0);
    assert!(findings(&report).acknowledged_but_lost > 100, "{report}");
    assert_caught(&report);
}

#[test]
fn writes_lost_in_a_restart_are_caught() {
    let report = load(Lie::Restart(2000), |_| {});
    assert!(findings(&report).acknowledged_but_lost > 100, "{report}");
    assert_caught(&report);
}

#[test]
fn asymmetric_associations_are_caught() {
    let report = load(Lie::Asymmetric(100), |plan| {
        plan.session.mix = "add=1,associate=1".parse().unwrap();
    });
    assert!(findings(&report).asymmetric > 5, "{report}");
    assert_caught(&report);
}

#[test]
fn wrong_refusals_are_caught() {
    let report = load(Lie::Refuse(1000), |_| {});
    assert!(report.stretches[0].wrong >= 2, "{report}");
    assert_caught(&report);
}

#[test]
fn requests_refused_but_applied_are_caught() {
    let report = load(Lie::RefuseAndApply(500), |_| {});
    assert!(report.stretches[0].wrong >= 4, "{report}");
    assert_caught(&report);
    let report = load(Lie::BusyAndApply(20), |plan| {
        plan.session.mix = "add=1".parse().unwrap();
        plan.session.conflicts = 0.0;
    });
    assert!(findings(&report).refused_but_applied > 50, "{report}");
    assert_caught(&report);
}

#[test]
fn correct_lists_pass_and_a_missing_row_is_caught() {
    let lists = |plan: &mut widgets_load::run::Plan| {
        plan.session.mix = "add=3,remove=1,associate=3,dissociate=1,list=4"
            .parse()
            .unwrap();
    };
    let report = load(Lie::None, lists);
    assert_eq!(report.failures, Vec::<String>::new(), "{report}");
    assert!(
        report.stretches[0].kinds["list"].outcomes["ok"] > 200,
        "{report}"
    );
    let report = load(Lie::FateUnknown(50), lists);
    assert_eq!(report.failures, Vec::<String>::new(), "{report}");
    let report = load(Lie::LoseRow(50), lists);
    assert!(report.stretches[0].wrong >= 1, "{report}");
    assert_caught(&report);
}

#[test]
fn a_changed_widget_name_is_caught() {
    let report = load(Lie::Rename(500), |plan| {
        plan.session.mix = "add=1".parse().unwrap();
    });
    assert!(findings(&report).altered >= 1, "{report}");
    assert_caught(&report);
}

/// An operation of unknown fate is checked even if its widgets were forgotten meanwhile. Nothing that
/// the run itself does may change them until then.
#[test]
fn operations_of_unknown_fate_are_judged_fairly_when_widgets_are_forgotten() {
    for seed in 1..=4 {
        let report = load(Lie::FateUnknown(10), |plan| {
            plan.session.seed = seed;
            plan.session.connections = 1;
            plan.session.audit_widgets_max = 40;
            plan.session.mix = "add=30,remove=25,associate=45".parse().unwrap();
        });
        let found = findings(&report);
        assert!(found.forgotten > 100, "{report}");
        assert!(found.unknown_fates_checked > 20, "{report}");
        assert_eq!(report.failures, Vec::<String>::new(), "{report}");
    }
}

/// Of a dataset, the audit reads what the run has touched, also with requests that had to be refused.
#[test]
fn a_refused_addition_that_renames_a_dataset_widget_is_found() {
    let dataset = Dataset {
        widgets: 1500,
        seed: 9,
        associated: 0.5,
    };
    let double = Double::with_dataset(&dataset).lying(Lie::RenameRefused);
    let server = Server::start(double);
    let mut plan = plan(&server.url());
    plan.session.dataset = Some((dataset, (0, 1)));
    plan.session.mix = "add=1".parse().unwrap();
    plan.session.conflicts = 0.3;
    let report = run(plan).unwrap();
    assert_eq!(report.stretches[0].wrong, 0, "{report}");
    assert!(findings(&report).altered >= 1, "{report}");
    assert_caught(&report);
}

#[test]
fn operations_of_unknown_outcome_are_audited_and_are_no_faults() {
    let report = load(Lie::SilentAndApply(100), |plan| {
        plan.session.timeout = std::time::Duration::from_millis(500);
    });
    assert_eq!(report.failures, Vec::<String>::new(), "{report}");
    assert!(findings(&report).unknown_fates_checked > 10, "{report}");
    let report = load(Lie::FateUnknown(50), |_| {});
    assert_eq!(report.failures, Vec::<String>::new(), "{report}");
    assert!(findings(&report).unknown_fates_checked > 30, "{report}");
}

#[test]
fn auditing_a_sample_of_widgets_catches_frequent_faults() {
    let report = load(Lie::Drop(20), |plan| {
        plan.session.conflicts = 0.0;
        plan.session.mix = "add=1".parse().unwrap();
        plan.audit = Some(Some(800));
    });
    let checked = findings(&report).widgets_checked;
    assert!((790..=810).contains(&checked), "{checked}");
    assert_caught(&report);
}

#[test]
fn a_run_that_cannot_remember_all_widgets_reports_it() {
    let report = load(Lie::None, |plan| plan.session.audit_widgets_max = 400);
    assert_eq!(report.failures, Vec::<String>::new(), "{report}");
    assert!(findings(&report).forgotten > 500, "{report}");
    assert!(
        report
            .remarks
            .iter()
            .any(|text| text.contains("no longer remembered")),
        "{report}"
    );
}

#[test]
fn a_run_name_whose_widgets_already_exist_is_refused() {
    let server = Server::start(Double::new(Lie::None));
    let mut first = plan(&server.url());
    first.session.run = "again".into();
    run(first).unwrap();
    let mut second = plan(&server.url());
    second.session.run = "again".into();
    let refused = run(second).unwrap_err().to_string();
    assert_eq!(
        refused,
        "widgets of run again exist already: choose another --run"
    );
}
