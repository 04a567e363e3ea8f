//! The check of linearizability: it accepts histories that can have happened, and no others.

#![expect(
    clippy::expect_used,
    reason = "in the helpers of tests a panic is the failed test"
)]

use widgets_conformance::{
    Model,
    commands::{add_widget, associate_widgets, remove_widget, serial_number},
    linearizability::{Answer, Call, Request, check, check_until},
};
use widgets_registry::{Command, Port, Refusal, SerialNumber};

fn submitted(command: Command, outcome: Option<Result<(), Refusal>>, from: u64, to: u64) -> Call {
    Call {
        request: Request::Submit(command),
        answer: outcome.map(Answer::Decided),
        invoked: from,
        returned: to,
    }
}

/// Returns a lookup that finds the widget without peers, or does not find it.
fn looked_up(serial_number: &SerialNumber, there: bool, from: u64, to: u64) -> Call {
    let mut model = Model::default();
    if there {
        model
            .apply(&add_widget(serial_number, "", "P"))
            .expect("a new widget");
    }
    Call {
        request: Request::Lookup(serial_number.clone()),
        answer: Some(Answer::Found(model.lookup(serial_number))),
        invoked: from,
        returned: to,
    }
}

fn explained(calls: &[Call]) -> bool {
    check(&Model::default(), calls).is_ok()
}

#[test]
fn a_lookup_may_see_an_overlapping_operation_or_not() {
    let a = serial_number("a");
    let add = submitted(add_widget(&a, "", "P"), Some(Ok(())), 0, 10);
    for there in [false, true] {
        assert!(explained(&[add.clone(), looked_up(&a, there, 5, 15)]));
        // After the addition the widget exists, before it does not.
        assert_eq!(
            explained(&[add.clone(), looked_up(&a, there, 11, 12)]),
            there
        );
    }
    assert!(!explained(&[
        looked_up(&a, true, 0, 1),
        submitted(add_widget(&a, "", "P"), Some(Ok(())), 2, 3)
    ]));
    // Of two lookups one after the other, the second cannot miss what the first found.
    let back = [
        add.clone(),
        looked_up(&a, true, 1, 2),
        looked_up(&a, false, 3, 4),
    ];
    assert!(!explained(&back));
    let forth = [add, looked_up(&a, false, 1, 2), looked_up(&a, true, 3, 4)];
    assert!(explained(&forth));
}

#[test]
fn exactly_one_of_two_concurrent_adds_is_accepted() {
    let a = serial_number("a");
    let add = |outcome| submitted(add_widget(&a, "", "P"), Some(outcome), 0, 10);
    let taken = Err(Refusal::SerialNumberTaken {
        serial_number: a.clone(),
    });
    assert!(explained(&[add(Ok(())), add(taken.clone())]));
    assert!(!explained(&[add(Ok(())), add(Ok(()))]));
    assert!(!explained(&[add(taken.clone()), add(taken)]));
}

#[test]
fn refusals_are_compared_in_full() {
    let (a, b) = (serial_number("a"), serial_number("b"));
    let missing = |serial_number: &SerialNumber| {
        let refusal = Refusal::WidgetMissing {
            serial_number: serial_number.clone(),
        };
        [submitted(
            associate_widgets(&a, &b, Port::P),
            Some(Err(refusal)),
            0,
            1,
        )]
    };
    assert!(explained(&missing(&a)));
    assert!(!explained(&missing(&b)));
}

#[test]
fn an_operation_of_unknown_fate_may_happen_once_later_or_never() {
    let a = serial_number("a");
    let lost = submitted(add_widget(&a, "", "P"), None, 0, 0);
    assert!(explained(&[lost.clone(), looked_up(&a, false, 5, 6)]));
    assert!(explained(&[lost.clone(), looked_up(&a, true, 5, 6)]));
    assert!(explained(&[
        lost.clone(),
        looked_up(&a, false, 5, 6),
        looked_up(&a, true, 7, 8)
    ]));
    assert!(!explained(&[
        lost.clone(),
        looked_up(&a, true, 5, 6),
        looked_up(&a, false, 7, 8)
    ]));
    // But not before it was requested, and not twice.
    assert!(!explained(&[
        looked_up(&a, true, 0, 1),
        submitted(add_widget(&a, "", "P"), None, 2, 0)
    ]));
    let removed = submitted(remove_widget(&a), Some(Ok(())), 7, 8);
    let twice = [
        lost,
        looked_up(&a, true, 5, 6),
        removed,
        looked_up(&a, true, 9, 10),
    ];
    assert!(!explained(&twice));
}

#[test]
fn a_history_must_lead_to_the_known_final_state() {
    let (a, b) = (serial_number("a"), serial_number("b"));
    let lost = |name| submitted(add_widget(&a, name, "P"), None, 0, 0);
    let mut with_a = Model::default();
    with_a
        .apply(&add_widget(&a, "kept", "P"))
        .expect("a new widget");
    let reached = |calls: &[Call], end: &Model| check_until(&Model::default(), calls, Some(end));
    // An operation of unknown fate may have happened or not. A state to which no requested
    // operation leads is rejected.
    for calls in [&[lost("kept")][..], &[lost("lost"), lost("kept")]] {
        assert_eq!(reached(calls, &with_a), Ok(()));
        assert_eq!(reached(calls, &Model::default()), Ok(()));
    }
    assert!(reached(&[lost("lost")], &with_a).is_err());
    assert!(reached(&[], &with_a).is_err());
    // An operation that was answered as accepted must be in the final state.
    let kept = submitted(add_widget(&a, "kept", "P"), Some(Ok(())), 0, 1);
    assert!(reached(std::slice::from_ref(&kept), &Model::default()).is_err());
    // This also holds if other calls have nothing to do with it.
    let other = submitted(add_widget(&b, "", "Q"), Some(Ok(())), 2, 3);
    assert!(reached(&[kept, other], &with_a).is_err());
}

#[test]
fn widgets_linked_by_calls_or_earlier_associations_are_checked_together() {
    let (a, b, c) = (serial_number("a"), serial_number("b"), serial_number("c"));
    let mut initial = Model::default();
    for each in [&a, &b, &c] {
        initial
            .apply(&add_widget(each, "", "PQ"))
            .expect("a new widget");
    }
    let ab = associate_widgets(&a, &b, Port::P);
    initial.apply(&ab).expect("free slots");
    // The removal of a frees the slot of b, although no call names both.
    let looked_up = |model: &Model| Call {
        request: Request::Lookup(b.clone()),
        answer: Some(Answer::Found(model.lookup(&b))),
        invoked: 2,
        returned: 3,
    };
    let removal = submitted(remove_widget(&a), Some(Ok(())), 0, 1);
    let mut after = initial.clone();
    after.apply(&remove_widget(&a)).expect("it is there");
    let seen = |model: &Model| check(&initial, &[removal.clone(), looked_up(model)]).is_ok();
    assert!(seen(&after));
    assert!(!seen(&initial));
    // A call that names b and c connects them to a.
    let bc = submitted(associate_widgets(&b, &c, Port::P), Some(Ok(())), 4, 5);
    assert!(
        check(&initial, std::slice::from_ref(&bc)).is_err(),
        "b is not free"
    );
    assert_eq!(check(&initial, &[removal, bc]), Ok(()));
}
