//! Changes and answers in every order in which they can arrive.

use super::*;
use crate::feed::removal;
use serde_json::{Value, json};
use widgets_registry::{Ordinal, Port, Ports};

fn share() -> Share {
    Share {
        run: "run".into(),
        partition: 0,
        partitions: 2,
        dataset: None,
        part: (0, 1),
        own_max: 100,
    }
}

fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn id(lane: u32, number: u32) -> WidgetId {
    let (owner, id) =
        (share().owner(&format!("run-{lane}-{number}"))).expect("a widget of the run");
    assert_eq!(owner, lane);
    id
}

fn add(lane: u32, number: u32) -> Effect {
    let ports = Ports::new(&[Port::P, Port::P]).expect("few");
    let (id, name) = (id(lane, number), "x".into());
    Effect::Add { id, name, ports }
}

fn acknowledged(lane: u32, effect: Effect, sent: u64, answered: u64) -> Settled {
    Settled {
        lane,
        effect,
        sent: at(sent),
        answered: Some(at(answered)),
    }
}

fn in_doubt(lane: u32, effect: Effect, sent: u64) -> Settled {
    Settled {
        lane,
        effect,
        sent: at(sent),
        answered: None,
    }
}

fn change(position: u64, mut more: Value) -> Change {
    more["position"] = json!(format!("p-{position:04}"));
    more["at"] = json!(format!("T{position:04}"));
    serde_json::from_value(more).expect("a change")
}

fn added(position: u64, lane: u32, number: u32) -> Change {
    let sn = format!("run-{lane}-{number}");
    let (operation, name) = ("add_widget", "x");
    change(
        position,
        json!({"operation": operation, "widget_sn": sn, "widget_name": name, "slots": ["P", "P"]}),
    )
}

/// Returns the numbers of faults: never told, twice in the feed, unasked, out of order, altered.
fn faults(ledger: &mut Ledger) -> [u64; 5] {
    let found = ledger.finish();
    let faults = [
        found.never_told,
        found.told_twice,
        found.unasked,
        found.out_of_order,
        found.altered,
    ];
    assert_eq!(found.examples.len() as u64, found.faults(), "{found:?}");
    faults
}

const NONE: [u64; 5] = [0; 5];

#[test]
fn a_change_may_arrive_before_or_after_its_response() {
    let mut ledger = Ledger::new(share());
    ledger.tell(&added(1, 0, 0), at(2));
    ledger.settle(acknowledged(0, add(0, 0), 1, 3));
    ledger.settle(acknowledged(0, add(0, 1), 4, 5));
    ledger.settle(acknowledged(1, add(1, 0), 4, 6));
    ledger.tell(&added(2, 1, 0), at(9));
    ledger.tell(&added(3, 0, 1), at(9));
    assert_eq!(faults(&mut ledger), NONE);
    assert_eq!(ledger.findings.changes_checked, 3);
    assert!(ledger.window.is_empty(), "what agrees is forgotten");
}

#[test]
fn an_operation_of_unknown_outcome_may_appear_anywhere_or_nowhere() {
    let mut ledger = Ledger::new(share());
    ledger.settle(in_doubt(0, add(0, 0), 1));
    ledger.settle(in_doubt(0, add(0, 1), 2));
    ledger.settle(acknowledged(0, add(0, 2), 3, 4));
    ledger.tell(&added(1, 0, 2), at(5));
    assert_eq!(ledger.is_told(0, &add(0, 1)), None);
    ledger.tell(&added(2, 0, 1), at(6));
    ledger.was_read();
    assert_eq!(ledger.is_told(0, &add(0, 1)), Some(true));
    assert_eq!(ledger.is_told(0, &add(0, 0)), Some(false));
    assert_eq!(faults(&mut ledger), NONE);
    assert_eq!(ledger.findings.doubts_told, 1);
}

#[test]
fn a_missing_change_is_found_at_the_end_or_from_a_later_change() {
    let mut ledger = Ledger::new(share());
    for number in 0..3 {
        let sent = u64::from(number) * 10;
        ledger.settle(acknowledged(0, add(0, number), sent, sent + 1));
    }
    ledger.tell(&added(1, 0, 1), at(40));
    assert_eq!(faults(&mut ledger), [2, 0, 0, 0, 0]);
}

#[test]
fn a_repeated_or_decreasing_position_is_reported() {
    let mut ledger = Ledger::new(share());
    for number in 0..3 {
        ledger.settle(acknowledged(0, add(0, number), 1, 2));
    }
    ledger.tell(&added(5, 0, 0), at(3));
    ledger.tell(&added(5, 0, 0), at(3));
    ledger.tell(&added(7, 0, 1), at(3));
    let mut back = added(6, 0, 2);
    back.at = "T0007".into();
    ledger.tell(&back, at(3));
    assert_eq!(faults(&mut ledger), [0, 1, 0, 1, 0]);
}

#[test]
fn a_decreasing_time_is_reported() {
    let mut ledger = Ledger::new(share());
    ledger.settle(acknowledged(0, add(0, 0), 1, 2));
    ledger.settle(acknowledged(0, add(0, 1), 1, 2));
    ledger.tell(&added(1, 0, 0), at(3));
    let mut back = added(2, 0, 1);
    back.at = "T0000".into();
    ledger.tell(&back, at(3));
    assert_eq!(faults(&mut ledger), [0, 0, 0, 1, 0]);
}

#[test]
fn a_duplicate_change_is_reported_once_no_response_can_explain_it() {
    let mut ledger = Ledger::new(share());
    ledger.settle(acknowledged(0, add(0, 0), 1, 2));
    ledger.tell(&added(1, 0, 0), at(3));
    ledger.tell(&added(2, 0, 0), at(3));
    assert_eq!(ledger.findings.faults(), 0, "its answer may be to come");
    ledger.settle(acknowledged(0, add(0, 1), 4, 5));
    assert_eq!(ledger.findings.told_twice, 1);
    ledger.tell(&added(3, 0, 1), at(6));
    assert_eq!(faults(&mut ledger), [0, 1, 0, 0, 0]);
}

#[test]
fn changes_that_match_no_request_are_reported() {
    let mut ledger = Ledger::new(share());
    ledger.tell(&added(1, 1, 7), at(3));
    let of_two_lanes = json!({"operation": "associate_widgets", "widget1_sn": "run-0-0", "slot1": 1,
        "widget2_sn": "run-1-0", "slot2": 1, "port": "P"});
    ledger.tell(&change(2, of_two_lanes), at(3));
    let of_others = json!({"operation": "associate_widgets", "widget1_sn": "run-0-0", "slot1": 1,
        "widget2_sn": "else", "slot2": 1, "port": "P"});
    ledger.tell(&change(3, of_others), at(3));
    let no_slots = json!({"operation": "add_widget", "widget_sn": "run-0-0", "widget_name": "x"});
    ledger.tell(&change(4, no_slots), at(3));
    assert_eq!(faults(&mut ledger), [0, 0, 4, 0, 0]);
}

#[test]
fn changes_to_widgets_of_other_clients_are_not_checked() {
    let mut ledger = Ledger::new(share());
    for (position, sn) in (1..).zip(["else", "run-2-0", "run-00-1", "run-0-01", "W0000000000"]) {
        let other = json!({"operation": "remove_widget", "widget_sn": sn, "freed": []});
        ledger.tell(&change(position, other), at(3));
    }
    assert_eq!(faults(&mut ledger), NONE);
    assert_eq!(ledger.findings.of_others, 5);
}

#[test]
fn changes_of_a_lane_in_the_wrong_order_are_reported() {
    let mut ledger = Ledger::new(share());
    ledger.settle(acknowledged(0, add(0, 0), 1, 2));
    ledger.settle(acknowledged(0, add(0, 1), 3, 4));
    ledger.tell(&added(1, 0, 1), at(5));
    ledger.tell(&added(2, 0, 0), at(5));
    assert_eq!(faults(&mut ledger), [0, 0, 0, 1, 0]);
}

#[test]
fn changes_of_consecutive_requests_across_lanes_must_be_in_order() {
    // Answers arrive before the changes, and then after them.
    for answers_first in [true, false] {
        for (second_sent, out_of_order) in [(2, 0), (3, 1)] {
            let mut ledger = Ledger::new(share());
            let first = acknowledged(0, add(0, 0), 1, 2);
            let second = acknowledged(1, add(1, 0), second_sent, 4);
            if answers_first {
                ledger.settle(first.clone());
                ledger.settle(second.clone());
            }
            ledger.tell(&added(1, 1, 0), at(5));
            ledger.tell(&added(2, 0, 0), at(5));
            if !answers_first {
                ledger.settle(second);
                ledger.settle(first);
            }
            assert_eq!(faults(&mut ledger), [0, 0, 0, out_of_order, 0]);
        }
    }
}

#[test]
fn changes_with_wrong_slots_ports_or_freed_slots_are_reported() {
    let place = |number, slot| (id(0, number), Ordinal::new(slot).expect("a slot"));
    let told = |widgets: [&str; 2], slots: [u8; 2], port: &str| {
        json!({"operation": "associate_widgets", "widget1_sn": widgets[0], "slot1": slots[0],
            "widget2_sn": widgets[1], "slot2": slots[1], "port": port})
    };
    let associated = Effect::Associate(place(0, 0), place(1, 1), Port::P);
    let freed = vec![(id(0, 1), Ordinal::new(1)), (id(0, 2), None)];
    let removed = removal(id(0, 0), freed).expect("two slots");
    let gone = |slots: [u8; 2], second: &str| {
        json!({"operation": "remove_widget", "widget_sn": "run-0-0", "freed": [
            {"widget_sn": second, "slot": slots[1]}, {"widget_sn": "run-0-1", "slot": slots[0]}]})
    };
    let names = ["run-0-0", "run-0-1"];
    for (effect, told, altered) in [
        (&associated, told(names, [1, 2], "P"), 0),
        (&associated, told(names, [1, 1], "P"), 1),
        (&associated, told(names, [1, 2], "Q"), 1),
        (&removed, gone([2, 1], "run-0-2"), 0),
        (&removed, gone([2, 3], "run-0-2"), 0),
        (&removed, gone([1, 1], "run-0-2"), 1),
        (&removed, gone([2, 1], "run-0-3"), 1),
    ] {
        let mut ledger = Ledger::new(share());
        ledger.settle(acknowledged(0, effect.clone(), 1, 2));
        ledger.tell(&change(1, told.clone()), at(3));
        assert_eq!(faults(&mut ledger), [0, 0, 0, 0, altered], "{told}");
    }
}

#[test]
fn serial_numbers_identify_their_lane_and_widget() {
    let dataset = "widgets=1000".parse().ok();
    for parts in [1, 3] {
        for partition in 0..2 {
            let share = Share {
                partition,
                dataset,
                part: (parts - 1, parts),
                ..share()
            };
            let mut own = String::new();
            share.write_serial_number(id(partition, 41), &mut own);
            assert_eq!(share.owner(&own), Some((partition, id(partition, 41))));
        }
    }
    let share = Share {
        dataset,
        part: (1, 2),
        ..share()
    };
    // In blocks of 64, the dataset's second block is the first of this part and belongs to lane 0;
    // its fourth belongs to lane 1.
    for (sn, lane) in [
        ("W0000000064", Some(0)),
        ("W0000000192", Some(1)),
        ("W0000000000", None),
        ("W0000001000", None),
        ("W64", None),
    ] {
        assert_eq!(share.owner(sn).map(|(lane, _)| lane), lane, "{sn}");
    }
}
