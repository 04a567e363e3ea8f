//! The bulk API: either everything that was applied becomes durable, or nothing.

use super::{
    disk::{Chance, Faults, Kept, TestDisk},
    rig::{Rig, TestClock, command, model, random, settings, widgets},
};
use crate::{Bulk, OpenError, Settings};
use std::{collections::BTreeMap, time::Duration};
use widgets_clock::Clock as _;
use widgets_registry::{
    Applied, Attempt, Command, IdempotencyKey, Name, Ordinal, Pair, Port, Ports, Refusal,
    SerialNumber,
};

fn open(disk: &TestDisk) -> Result<Bulk<TestDisk>, OpenError> {
    Bulk::open_on(disk.clone(), &TestClock::default(), random(), &settings())
}

fn apply(bulk: &mut Bulk<TestDisk>, chance: &mut Chance, accepted: &mut Vec<Command>) {
    for _ in 0..100 {
        let command = command(chance);
        if bulk.apply(&command).is_ok() {
            accepted.push(command);
        }
    }
}

#[test]
fn a_bulk_commit_is_durable_and_a_service_continues_from_it() {
    let (disk, mut chance, mut accepted) = (TestDisk::default(), Chance(1), Vec::new());
    for _ in 0..3 {
        let mut bulk = open(&disk).expect("opened");
        apply(&mut bulk, &mut chance, &mut accepted);
        let expected = model(&accepted);
        let all: BTreeMap<_, _> = bulk
            .widgets()
            .map(|widget| (widget.serial_number.clone(), widget))
            .collect();
        assert_eq!(all.len() as u64, bulk.counts().widgets);
        assert_eq!(bulk.counts(), expected.counts());
        for widget in widgets(&expected).into_iter().flatten() {
            assert_eq!(all.get(&widget.serial_number), Some(&widget));
            assert_eq!(bulk.lookup(&widget.serial_number), Some(widget));
        }
        bulk.commit().expect("committed");
        // A service adds to it.
        let mut rig = Rig::open(&disk).expect("opened");
        assert!(widgets(rig.state()) == widgets(&expected));
        for _ in 0..20 {
            let command = command(&mut chance);
            if rig.submit(std::slice::from_ref(&command))[0].is_ok() {
                accepted.push(command);
            }
        }
        drop(rig);
        let after = disk.after_power_cut(Kept::Nothing);
        let rig = Rig::open(&after).expect("recovered");
        assert!(widgets(rig.state()) == widgets(&model(&accepted)));
    }
}

#[test]
fn an_uncommitted_bulk_load_stores_nothing() {
    let disk = TestDisk::default();
    let mut bulk = open(&disk).expect("opened");
    apply(&mut bulk, &mut Chance(1), &mut Vec::new());
    drop(bulk);
    assert_eq!(disk.names(), [""; 0], "no store is made");
    let bulk = open(&disk).expect("opened");
    assert_eq!(bulk.counts().widgets, 0);
    // An empty store is a store too.
    bulk.commit().expect("made");
    let bulk = open(&disk).expect("opened");
    assert_eq!(bulk.counts().widgets, 0);
    // Then there is nothing to commit.
    let steps = disk.steps();
    bulk.commit().expect("nothing to do");
    assert_eq!(disk.steps(), steps);
}

#[test]
fn a_failed_bulk_commit_leaves_an_empty_directory_or_a_whole_store() {
    let (mut nothing, mut whole) = (0, 0);
    for fail_at in 0.. {
        let (disk, mut accepted) = (TestDisk::default(), Vec::new());
        let mut bulk = open(&disk).expect("opened");
        apply(&mut bulk, &mut Chance(4), &mut accepted);
        disk.set_faults(Faults {
            fail_at: Some(disk.steps() + fail_at),
            ..Faults::default()
        });
        let outcome = bulk.commit();
        disk.set_faults(Faults::default());
        if disk.names().is_empty() {
            outcome.expect_err("it says so");
            nothing += 1;
            continue;
        }
        let rig = Rig::open(&disk).expect("a store");
        assert!(
            widgets(rig.state()) == widgets(&model(&accepted)),
            "step {fail_at} left {:?}",
            disk.names()
        );
        whole += 1;
        if outcome.is_ok() && whole > 3 {
            break;
        }
    }
    assert!(nothing > 10, "{nothing} left nothing, {whole} are whole");
}

#[test]
fn a_power_cut_during_a_bulk_commit_leaves_the_old_or_new_state() {
    let (disk, mut chance, mut accepted) = (TestDisk::default(), Chance(2), Vec::new());
    let mut bulk = open(&disk).expect("opened");
    apply(&mut bulk, &mut chance, &mut accepted);
    bulk.commit().expect("committed");
    cut_power(&disk, &accepted);
    // The same if there is no store yet.
    cut_power(&TestDisk::default(), &[]);
}

/// Cuts the power at every step of a commit to this disk, which has the accepted operations.
fn cut_power(disk: &TestDisk, accepted: &[Command]) {
    let before = widgets(&model(accepted));
    for kept in [
        Kept::Nothing,
        Kept::Everything,
        Kept::Some(1),
        Kept::Some(2),
    ] {
        let (mut olds, mut news) = (0, 0);
        for crash_at in 0.. {
            let disk = disk.after_power_cut(Kept::Nothing);
            let mut bulk = open(&disk).expect("opened");
            disk.set_faults(Faults {
                crash_at: Some(disk.steps() + crash_at),
                ..Faults::default()
            });
            let mut accepted = accepted.to_vec();
            apply(&mut bulk, &mut Chance(3), &mut accepted);
            let outcome = bulk.commit();
            let after_cut = disk.after_power_cut(kept);
            let rig = Rig::open(&after_cut).expect("recovered");
            let found = widgets(rig.state());
            if outcome.is_err() && found == before {
                olds += 1;
            } else {
                assert!(found == widgets(&model(&accepted)), "step {crash_at}");
                news += 1;
            }
            if outcome.is_ok() {
                break;
            }
        }
        assert!(olds > 0 && news > 0, "{olds} old, {news} new");
    }
}

#[test]
fn bulk_associations_use_exactly_the_given_slots() {
    let text = |text: &str| SerialNumber::new("widget_sn", text).expect("within the limits");
    let ordinal = |index| Ordinal::new(index).expect("within the limits");
    let pair = |port| Pair::new(text("a"), text("b"), port).expect("two widgets");
    let disk = TestDisk::default();
    let mut bulk = open(&disk).expect("opened");
    for serial_number in ["a", "b"] {
        let command = Command::AddWidget {
            serial_number: text(serial_number),
            name: Name::new("widget_name", "").expect("within the limits"),
            ports: Ports::new(&[Port::P, Port::Q, Port::Q]).expect("three"),
        };
        bulk.apply(&command).expect("added");
    }
    let refused = |serial_number: &str, port| {
        let serial_number = text(serial_number);
        Err(Refusal::NoFreeSlot {
            serial_number,
            port,
        })
    };
    let slots = [ordinal(0), ordinal(1)];
    let other_port = bulk.associate_slots(&pair(Port::Q), slots);
    assert_eq!(other_port, refused("a", Port::Q), "slot 0 is of port P");
    bulk.associate_slots(&pair(Port::Q), [ordinal(2), ordinal(1)])
        .expect("associated");
    let twice = bulk.associate_slots(&pair(Port::Q), [ordinal(1), ordinal(2)]);
    assert!(
        matches!(twice, Err(Refusal::AlreadyAssociated { .. })),
        "{twice:?}"
    );
    bulk.commit().expect("committed");
    let bulk = open(&disk).expect("opened");
    let peers = |serial_number: &str| {
        let widget = bulk.lookup(serial_number).expect("it is there");
        widget
            .slots
            .into_iter()
            .map(|slot| slot.peer)
            .collect::<Vec<_>>()
    };
    assert_eq!(peers("a"), [None, None, Some(text("b"))]);
    assert_eq!(peers("b"), [None, Some(text("a")), None]);
}

/// Only a service knows how long its changes and keys are kept. `export`, `import` and `generate`
/// open a store in bulk, often without its configuration, and `backup` runs an engine on it.
#[test]
fn commands_on_a_stopped_store_drop_neither_changes_nor_keys() {
    let of_service = Settings {
        changes_retention_hours: u32::MAX,
        changes_retention_bytes: u64::MAX,
        idempotency_retention_hours: 168,
        ..settings()
    };
    let disk = TestDisk::default();
    let attempt = Attempt {
        key: Some(IdempotencyKey::new("k").expect("a key")),
        ..Attempt::from(Command::AddWidget {
            serial_number: SerialNumber::new("widget_sn", "other").expect("within the limits"),
            name: Name::new("widget_name", "").expect("within the limits"),
            ports: Ports::NONE,
        })
    };
    let mut rig = Rig::open_with(&disk, &of_service).expect("a new store");
    assert_eq!(rig.ask(std::slice::from_ref(&attempt)), [Ok(Applied::Now)]);
    rig.clock.sleep(Duration::from_hours(100));
    let mut chance = Chance(6);
    for _ in 0..300 {
        rig.submit(&[command(&mut chance), command(&mut chance)]);
    }
    rig.checkpoint().expect("written");
    let oldest = rig.log().oldest();
    drop(rig);
    let segments = || {
        let names = disk.names().into_iter();
        let names = names.filter(|name| name.starts_with("journal-"));
        names
            .map(|name| (name.clone(), disk.content(&name)))
            .collect::<Vec<_>>()
    };
    let mut before = segments();
    // The last ones are still written, or not used yet.
    before.truncate(before.len() - 2);
    assert!(before.len() > 2, "there are old segments");
    // With other settings, which keep less.
    drop(open(&disk).expect("opened"));
    assert!(segments().starts_with(&before), "after a bulk open");
    let mut rig = Rig::open_with(&disk, &settings().keeping_everything()).expect("opened");
    rig.submit(&[command(&mut chance), command(&mut chance)]);
    rig.checkpoint().expect("written");
    drop(rig);
    assert!(segments().starts_with(&before), "after a checkpoint");
    let mut rig = Rig::open_with(&disk, &of_service).expect("opened");
    assert_eq!(rig.log().oldest(), oldest);
    assert_eq!(rig.ask(&[attempt]), [Ok(Applied::Before)]);
}
