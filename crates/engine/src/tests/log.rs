//! The feed of the journal: every change once and in order, across segments, checkpoints and
//! restarts; and the answer to a position that is not kept.

use super::{
    disk::{Chance, Kept, TestDisk},
    rig::{Rig, TestClock, command, random, serial_number, settings},
};
use crate::{Bulk, Settings, log::Log, verify::verify_on};
use widgets_registry::{
    Attempt, Author, ChangeFilter, Command, Event, FeedError, Happened, IdempotencyKey, Name,
    Operation, Ports, Position, query::Asker,
};

/// Settings that keep all segments.
fn keeping() -> Settings {
    Settings {
        changes_retention_bytes: 1 << 30,
        ..settings()
    }
}

fn add(number: usize) -> Command {
    Command::AddWidget {
        serial_number: serial_number(number),
        name: Name::new("widget_name", "a name").expect("within the limits"),
        ports: Ports::NONE,
    }
}

/// Returns all changes after a position, read a few at a time.
fn all(log: &Log, mut after: Position, filter: &ChangeFilter) -> Result<Vec<Event>, FeedError> {
    let mut events: Vec<Event> = Vec::new();
    loop {
        let changes = log.read(after, filter, 3)?;
        assert!(changes.events.len() <= 3);
        for event in changes.events {
            assert!(
                events
                    .last()
                    .is_none_or(|last| last.position < event.position)
            );
            assert!(events.last().is_none_or(|last| last.at <= event.at));
            assert!(after < event.position && event.position <= changes.next);
            events.push(event);
        }
        assert!(after <= changes.next);
        after = changes.next;
        assert_ne!(log.knows_where(after), Some(false), "no walk to {after}");
        if changes.is_end {
            assert_eq!(after, log.newest());
            return Ok(events);
        }
    }
}

/// Returns the operation that a change says was accepted.
fn asked(event: &Event) -> (Operation, String) {
    let names = match &event.happened {
        Happened::AddWidget { serial_number, .. }
        | Happened::RemoveWidget { serial_number, .. } => serial_number.to_string(),
        Happened::AssociateWidgets(one, other, port)
        | Happened::RemoveAssociation(one, other, port) => {
            format!("{} {} {port}", one.serial_number, other.serial_number)
        }
    };
    (event.happened.operation(), names)
}

fn as_asked(command: &Command) -> (Operation, String) {
    let names = match command {
        Command::AddWidget { serial_number, .. } | Command::RemoveWidget { serial_number } => {
            serial_number.to_string()
        }
        Command::AssociateWidgets(pair) | Command::RemoveAssociation(pair) => {
            format!("{} {} {}", pair.widget1(), pair.widget2(), pair.port())
        }
    };
    (command.operation(), names)
}

#[test]
fn the_feed_returns_every_change_once_in_order_across_restarts() {
    let (mut disk, mut chance) = (TestDisk::default(), Chance(3));
    let (mut accepted, mut seen): (Vec<_>, Vec<Event>) = (Vec::new(), Vec::new());
    let mut after = None;
    for life in 0..5 {
        let mut rig = Rig::open_with(&disk, &keeping()).expect("opened");
        for _ in 0..40 {
            let batch: Vec<_> = (0..=chance.below(3))
                .map(|_| command(&mut chance))
                .collect();
            let answers = rig.submit(&batch);
            let applied = batch
                .iter()
                .zip(answers)
                .filter(|(_, answer)| answer.is_ok());
            accepted.extend(applied.map(|(command, _)| as_asked(command)));
            rig.copy();
            rig.write();
            // Only sometimes, so that it lags behind what is in memory.
            if chance.below(12) == 0 {
                let from = after.unwrap_or_else(|| rig.log().oldest());
                seen.extend(all(rig.log(), from, &ChangeFilter::default()).expect("kept"));
                after = Some(rig.log().newest());
            }
        }
        if life == 2 {
            rig.checkpoint().expect("written");
        }
        let from = after.unwrap_or_else(|| rig.log().oldest());
        seen.extend(all(rig.log(), from, &ChangeFilter::default()).expect("kept"));
        after = Some(rig.log().newest());
        let told: Vec<_> = seen.iter().map(asked).collect();
        assert_eq!(told, accepted, "life {life}");
        let again = all(rig.log(), rig.log().oldest(), &ChangeFilter::default());
        assert_eq!(again.as_ref(), Ok(&seen), "from the oldest one on");
        drop(rig);
        disk = disk.after_power_cut(Kept::Nothing);
    }
    assert!(disk.names().contains(&"journal-0000000000000001".into()));
    // The changes of one widget only.
    let rig = Rig::open_with(&disk, &keeping()).expect("opened");
    let filter = ChangeFilter {
        widget: Some(serial_number(3)),
        operations: Some(vec![Operation::RemoveWidget, Operation::AssociateWidgets]),
    };
    let some = all(rig.log(), rig.log().oldest(), &filter).expect("kept");
    let wanted = |event: &&Event| filter.matches(&event.happened);
    assert!(some.iter().eq(seen.iter().filter(wanted)) && !some.is_empty());
}

#[test]
fn the_feed_reports_removed_or_unknown_positions_as_gone() {
    let disk = TestDisk::default();
    let mut rig = Rig::open(&disk).expect("a new store");
    let (beginning, mut chance) = (rig.log().oldest(), Chance(8));
    for _ in 0..60 {
        rig.submit(&[command(&mut chance), command(&mut chance)]);
    }
    rig.checkpoint().expect("written");
    let oldest = rig.log().oldest();
    assert!(oldest > beginning, "older segments went");
    let gone = Err(FeedError::Gone { oldest });
    assert_eq!(rig.log().read(beginning, &ChangeFilter::default(), 9), gone);
    let from_there = all(rig.log(), oldest, &ChangeFilter::default()).expect("kept");
    let newest = rig.log().newest();
    for wrong in [
        Position {
            store: newest.store + 1,
            ..newest
        },
        Position {
            epoch: newest.epoch + 1,
            ..newest
        },
        Position {
            sequence: newest.sequence + 1,
            ..newest
        },
    ] {
        assert_eq!(
            rig.log().read(wrong, &ChangeFilter::default(), 9),
            gone,
            "{wrong}"
        );
    }
    drop(rig);
    // The same after a restart.
    let rig = Rig::open(&disk).expect("opened");
    assert_eq!(rig.log().read(beginning, &ChangeFilter::default(), 9), gone);
    assert_eq!(
        all(rig.log(), oldest, &ChangeFilter::default()),
        Ok(from_there)
    );
    drop(rig);
    // The changes of a bulk load are in no group, so no reader may continue across it.
    let mut bulk = Bulk::open_on(disk.clone(), &TestClock::default(), random(), &keeping());
    let bulk_store = bulk.as_mut().expect("opened");
    bulk_store.apply(&add(99)).expect("a new widget");
    bulk.expect("opened").commit().expect("committed");
    let rig = Rig::open_with(&disk, &keeping()).expect("opened");
    let oldest = rig.log().oldest();
    let gone = Err(FeedError::Gone { oldest });
    assert_eq!(rig.log().read(newest, &ChangeFilter::default(), 9), gone);
    assert_eq!(
        all(rig.log(), oldest, &ChangeFilter::default()),
        Ok(Vec::new())
    );
}

/// The process may end while it removes files piece by piece. What is left of a segment is neither
/// damage nor a segment with changes.
#[test]
fn a_segment_whose_removal_was_interrupted_is_not_read() {
    let disk = TestDisk::default();
    let mut rig = Rig::open(&disk).expect("a new store");
    let mut chance = Chance(9);
    for _ in 0..60 {
        rig.submit(&[command(&mut chance), command(&mut chance)]);
    }
    rig.begin_checkpoint();
    let whole = usize::try_from(settings().segment_bytes).expect("small");
    let is_shorter = || {
        let mut names = disk.names().into_iter();
        names.any(|name| name.starts_with("journal-") && disk.content(&name).len() < whole)
    };
    for _ in 0..10_000 {
        rig.copy();
        rig.write_step();
        if is_shorter() {
            break;
        }
    }
    assert!(is_shorter(), "a removal has begun: {:?}", disk.names());
    drop(rig);
    for disk in [disk.after_kill(), disk.after_power_cut(Kept::Nothing)] {
        verify_on(disk.clone(), &settings(), 1).expect("intact");
        let rig = Rig::open_with(&disk, &keeping()).expect("opened");
        let told = all(rig.log(), rig.log().oldest(), &ChangeFilter::default());
        told.expect("what is promised can be read");
    }
}

#[test]
fn the_feed_names_the_author_of_each_change_and_omits_refusals() {
    let disk = TestDisk::default();
    let mut rig = Rig::open(&disk).expect("a new store");
    let attempt = |number, author: Option<&str>, key: Option<&str>| Attempt {
        command: add(number),
        author: author.map(|author| Author::new(author).expect("a name")),
        key: key.map(|key| IdempotencyKey::new(key).expect("a key")),
        asker: Asker::default(),
    };
    let attempts = [
        attempt(1, Some("alice"), None),
        attempt(1, Some("bob"), Some("k")),
        attempt(2, None, Some("k")),
        attempt(3, Some("bob"), Some("l")),
    ];
    rig.ask(&attempts);
    rig.ask(&attempts);
    let told = |log: &Log| {
        let events = all(log, log.oldest(), &ChangeFilter::default()).expect("kept");
        let by = |event: Event| event.by.map(|by| by.to_string());
        events.into_iter().map(by).collect::<Vec<_>>()
    };
    let expected = [Some("alice".into()), None, Some("bob".into())];
    assert_eq!(told(rig.log()), expected);
    drop(rig);
    let rig = Rig::open(&disk).expect("opened");
    assert_eq!(told(rig.log()), expected, "from the disk");
}
