//! A store that follows another one: it has the same journal and the same state, whatever happens
//! to its disk, and accepts nothing that does not continue where it ends.

use super::{
    disk::{Chance, Faults, Kept, TestDisk},
    rig::{Rig, TestClock, command, random, serial_number, settings, widgets},
};
use crate::{
    Epoch, FollowError, LoggedGroup, Restoration, Role, Settings, StoreHeader, simulation::Steps,
};
use std::{
    sync::Arc,
    task::{Context, Poll, Waker},
};
use widgets_registry::{
    Applied, Ask as _, Attempt, Author, Command, Fault, FeedError, IdempotencyKey, Name, Ports,
    Position, Rejection, query::Asker,
};

const PRIMARY: &str = "http://primary:3000";

/// Settings that keep the primary's whole journal.
fn keeping() -> Settings {
    Settings {
        changes_retention_bytes: 1 << 30,
        ..settings()
    }
}

struct Primary {
    disk: TestDisk,
    groups: Vec<Arc<LoggedGroup>>,
    store: StoreHeader,
    attempts: Vec<Attempt>,
}

fn keyed(command: Command, number: usize) -> Attempt {
    Attempt {
        command,
        author: Author::new(["alice", "bob"][number % 2]),
        key: IdempotencyKey::new(&number.to_string()),
        asker: Asker(number as u64 % 2),
    }
}

/// Returns a history with keys, refusals and seals.
fn primary(batches: usize) -> Primary {
    let (disk, mut chance) = (TestDisk::default(), Chance(77));
    let mut rig = Rig::open_with(&disk, &keeping()).expect("a new store");
    let mut attempts = Vec::new();
    for _ in 0..batches {
        let batch: Vec<_> = (0..=chance.below(3))
            .map(|more| keyed(command(&mut chance), attempts.len() + more))
            .collect();
        rig.ask(&batch);
        attempts.extend(batch);
        if chance.below(5) == 0 {
            rig.seal();
        }
    }
    let groups = rig.log().all_groups().expect("kept");
    let store = (*rig.log().store_header()).clone();
    drop(rig);
    Primary {
        disk,
        groups,
        store,
        attempts,
    }
}

/// Begins an empty standby on this disk.
fn begin(disk: &TestDisk, primary: &Primary) {
    let store = primary.store.clone();
    let mut restoration =
        Restoration::begin_standby_on(disk.clone(), random(), &settings(), store, PRIMARY.into())
            .expect("begun");
    restoration.begin_empty();
    let begun = restoration.finish().expect("it has nothing yet");
    assert_eq!(begun.epoch, primary.store.epoch(), "no epoch of its own");
}

/// Follows from where the standby ends. Stops if the disk fails.
fn follow(rig: &mut Rig, primary: &Primary) -> Result<(), FollowError> {
    let from = rig.log().newest().sequence + 1;
    let rest = primary
        .groups
        .iter()
        .filter(|group| group.first_sequence >= from);
    for (at, group) in rest.enumerate() {
        rig.follow(group)?;
        if at % 3 == 0 {
            rig.copy();
            rig.write();
        }
    }
    Ok(())
}

fn check(rig: &Rig, primary: &Primary, story: &str) {
    let original = Rig::open_with(&primary.disk, &keeping()).expect("opened");
    assert_eq!(widgets(rig.state()), widgets(original.state()), "{story}");
    assert_eq!(rig.log().newest(), original.log().newest(), "{story}");
    let chain = |rig: &Rig| {
        rig.log()
            .all_groups()
            .expect("kept")
            .last()
            .map(|last| last.next_chain())
    };
    assert_eq!(chain(rig), chain(&original), "{story}");
}

/// A handover reads where the journal ends at that moment, so the operations of the same batch
/// must be in it. A standby that has everything up to there has everything that was acknowledged.
#[test]
fn following_is_confirmed_only_after_the_batch_is_journalled() {
    let disk = TestDisk::default();
    let mut rig = Rig::open(&disk).expect("a new store");
    let add = |number| Command::AddWidget {
        serial_number: serial_number(number),
        name: Name::new("name", "n").expect("within the limits"),
        ports: Ports::new(&[]).expect("none"),
    };
    let (said, newest) = rig.turn_between([add(1), add(2)]);
    assert_eq!((said, newest), (2, 2));
}

#[test]
fn a_standby_has_the_journal_the_state_and_the_keys_of_its_primary() {
    let primary = primary(120);
    let disk = TestDisk::default();
    begin(&disk, &primary);
    let mut rig = Rig::open(&disk).expect("opened");
    follow(&mut rig, &primary).expect("followed");
    check(&rig, &primary, "followed");
    // It is durable, including its checkpoints.
    drop(rig);
    let names = disk.names();
    assert!(
        names.iter().any(|name| name.starts_with("checkpoint-")),
        "{names:?}"
    );
    let disk = disk.after_power_cut(Kept::Nothing);
    let rig = Rig::open(&disk).expect("recovered");
    check(&rig, &primary, "after a power cut");
    assert!(rig.log().store_header().is_standby());
    drop(rig);
    // A retry at the store that continues gets the first answer.
    let first = disk.content("store");
    let store = StoreHeader {
        role: Role::Primary,
        ..StoreHeader::read(&first).expect("whole")
    };
    disk.put("store", store.encode().to_vec());
    let mut promoted = Rig::open(&disk).expect("opened");
    let mut original = Rig::open_with(&primary.disk, &keeping()).expect("opened");
    let mut replayed = 0;
    for attempt in &primary.attempts {
        let again = promoted.ask(std::slice::from_ref(attempt));
        assert_eq!(again, original.ask(std::slice::from_ref(attempt)));
        replayed += usize::from(again == [Ok(Applied::Before)]);
    }
    assert!(replayed > 20, "{replayed}");
}

#[test]
fn a_standby_refuses_operations_and_writes_no_seal() {
    let primary = primary(5);
    let disk = TestDisk::default();
    begin(&disk, &primary);
    let mut rig = Rig::open(&disk).expect("opened");
    follow(&mut rig, &primary).expect("followed");
    let remove = Command::RemoveWidget {
        serial_number: serial_number(0),
    };
    let answers = rig.submit(&[remove]);
    assert!(
        matches!(
            &answers[..],
            [Err(Rejection::Fault(Fault::Unavailable { .. }))]
        ),
        "{answers:?}"
    );
    rig.seal();
    check(&rig, &primary, "nothing was added");
}

#[test]
fn a_standby_refuses_discontinuous_unreadable_or_oversized_groups() {
    let primary = primary(12);
    let disk = TestDisk::default();
    begin(&disk, &primary);
    let mut rig = Rig::open(&disk).expect("opened");
    rig.follow(&primary.groups[0]).expect("the first");
    let next = &primary.groups[1];
    let changed = |change: fn(&mut LoggedGroup)| {
        let mut group = (**next).clone();
        change(&mut group);
        group
    };
    let before = widgets(rig.state());
    for wrong in [
        (*primary.groups[0]).clone(),
        (*primary.groups[2]).clone(),
        changed(|group| group.chain ^= 1),
        changed(|group| group.at = 0),
    ] {
        let error = rig.follow(&wrong).expect_err("it does not follow");
        assert!(
            matches!(error, FollowError::DoesNotFollow { .. }),
            "{error}"
        );
    }
    for wrong in [
        changed(|group| group.payload = Box::new([31])),
        changed(|group| group.entries += 1),
        changed(|group| group.payload = group.payload.repeat(2).into()),
        // The first half can be applied and the second cannot, so the first is rolled back.
        changed(|group| {
            group.payload = group.payload.repeat(2).into();
            group.entries *= 2;
        }),
    ] {
        let error = rig.follow(&wrong).expect_err("it cannot be read");
        assert!(matches!(error, FollowError::Unreadable { .. }), "{error}");
        assert_eq!(widgets(rig.state()), before);
    }
    let long = changed(|group| group.payload = vec![0; 20 << 10].into());
    let error = rig.follow(&long).expect_err("no segment has room for it");
    assert!(matches!(error, FollowError::TooLong { .. }), "{error}");
    follow(&mut rig, &primary).expect("the rest");
    check(&rig, &primary, "after what was refused");
}

#[test]
fn a_primary_refuses_to_follow_a_group() {
    let primary = primary(3);
    let disk = TestDisk::default();
    let mut rig = Rig::open(&disk).expect("a new store");
    assert_eq!(rig.follow(&primary.groups[0]), Err(FollowError::NotStandby));
}

#[test]
fn a_standby_survives_a_crash_at_any_step_and_continues_to_follow() {
    let primary = primary(25);
    let whole = TestDisk::default();
    begin(&whole, &primary);
    let begun = whole.steps();
    let mut rig = Rig::open(&whole).expect("opened");
    follow(&mut rig, &primary).expect("followed");
    drop(rig);
    let steps = whole.steps();
    assert!(steps > begun + 40, "{begun} to {steps}");
    for step in begun..steps {
        for kept in [Kept::Nothing, Kept::Everything, Kept::Some(step as u64)] {
            let disk = TestDisk::default();
            begin(&disk, &primary);
            disk.set_faults(Faults {
                crash_at: Some(step),
                ..Faults::default()
            });
            let mut followed = 0;
            if let Ok(mut rig) = Rig::open(&disk) {
                drop(follow(&mut rig, &primary));
                followed = rig.log().newest().sequence;
            }
            let disk = disk.after_power_cut(kept);
            let mut rig = Rig::open(&disk).expect("recovered");
            let found = rig.log().newest().sequence;
            assert!(
                found >= followed,
                "step {step}: {followed} were followed, {found} are there"
            );
            follow(&mut rig, &primary).expect("it goes on");
            check(&rig, &primary, &format!("a crash at step {step}"));
        }
    }
}

/// Reports for positions whether a read after them may be answered by this store, must wait, or can
/// never be answered.
#[test]
fn a_standby_reports_positions_as_reached_pending_or_gone() {
    let primary = primary(12);
    let disk = TestDisk::default();
    begin(&disk, &primary);
    let mut rig = Rig::open(&disk).expect("opened");
    let store = primary.store.identity;
    let at = |store, epoch, sequence| Position {
        store,
        epoch,
        sequence,
    };
    let epoch = primary.store.epoch();
    let gone = |rig: &Rig, position| {
        let has = rig.log().has(position);
        assert!(matches!(has, Err(FeedError::Gone { .. })), "{has:?}");
    };
    let newest = primary.groups.last().expect("groups").next_sequence() - 1;
    for group in &primary.groups {
        let last = group.next_sequence() - 1;
        assert_eq!(rig.log().has(at(store, epoch, last)), Ok(false), "{last}");
        rig.follow(group).expect("followed");
        assert_eq!(rig.log().has(at(store, epoch, last)), Ok(true), "{last}");
    }
    assert_eq!(rig.log().has(at(store, epoch, 0)), Ok(true));
    assert_eq!(rig.log().has(at(store, epoch, newest + 1)), Ok(false));
    // A new primary was promoted, and this standby does not know it yet.
    assert_eq!(rig.log().has(at(store, epoch + 9, newest + 1)), Ok(false));
    gone(&rig, at(store, epoch + 9, newest));
    gone(&rig, at(store ^ 1, epoch, newest + 1));
    gone(&rig, at(store ^ 1, epoch, newest));
    gone(&rig, at(store, epoch - 1, newest));
    gone(&rig, at(store, epoch - 1, newest + 1));

    // The epoch begins after three more entries. Later entries of the epoch before it are in no
    // history.
    let mut header = (*rig.log().store_header()).clone();
    header.epochs.push(Epoch {
        number: epoch + 9,
        first_sequence: newest + 4,
    });
    rig.log().set_store(header.clone());
    assert_eq!(rig.log().has(at(store, epoch, newest + 3)), Ok(false));
    gone(&rig, at(store, epoch, newest + 4));
    assert_eq!(rig.log().has(at(store, epoch + 9, newest + 4)), Ok(false));
    gone(&rig, at(store, epoch + 9, newest + 3));
    // A primary receives no groups, so it never reaches a later position.
    header.role = Role::Primary;
    rig.log().set_store(header);
    gone(&rig, at(store, epoch + 9, newest + 4));
    assert_eq!(rig.log().has(at(store, epoch, newest)), Ok(true));
}

/// The standby knows an epoch that begins after the end of its journal, and is promoted before it
/// reaches that epoch. It used to write a file `store` that a start refuses.
#[test]
fn promotion_discards_an_epoch_that_the_standby_has_not_reached() {
    let primary = primary(12);
    let disk = TestDisk::default();
    begin(&disk, &primary);
    let clock = Arc::<TestClock>::default();
    let open = || Steps::open(&disk, &clock, random(), &settings());
    let mut standby = open().expect("opened");
    let known = primary.store.epoch();
    let mut theirs = primary.store.clone();
    theirs.epochs.push(Epoch {
        number: known + 1,
        first_sequence: 40,
    });
    let follower = standby.follower();
    let own = standby.source().store();
    done(&mut standby, follower.adopt(own, &theirs)).expect("kept");
    let (from, address) = (PRIMARY.to_owned(), "http://standby:3000".to_owned());
    let promoting = follower.promote(known + 2, from, address);
    done(&mut standby, promoting).expect("promoted");
    drop((standby, follower));
    let store = open().expect("opened again").source().store();
    let epochs: Vec<_> = store
        .epochs
        .iter()
        .map(|epoch| (epoch.number, epoch.first_sequence))
        .collect();
    assert_eq!(epochs, [(known, 1), (known + 2, 1)]);
}

/// A group submitted before a promotion belongs to the earlier epoch, even if the owner has not
/// taken it yet. Otherwise one change would have two positions.
#[test]
fn a_pending_group_is_written_before_a_pause_completes() {
    let primary = primary(3);
    let disk = TestDisk::default();
    begin(&disk, &primary);
    let clock = Arc::<TestClock>::default();
    let mut standby = Steps::open(&disk, &clock, random(), &settings()).expect("opened");
    let follower = standby.follower();
    let mut context = Context::from_waker(Waker::noop());
    let mut following = Box::pin(follower.follow(primary.groups[0].clone()));
    assert!(following.as_mut().poll(&mut context).is_pending());
    // The follower has ended.
    drop(following);
    let mut pausing = Box::pin(follower.pause());
    assert!(pausing.as_mut().poll(&mut context).is_pending());
    assert_eq!(standby.newest().sequence, 0);
    standby.own();
    assert_eq!(pausing.as_mut().poll(&mut context), Poll::Ready(Ok(())));
    assert_eq!(
        standby.newest().sequence + 1,
        primary.groups[0].next_sequence()
    );
}

/// A promotion reads the epoch once the store has paused. Epochs that were to be adopted by then
/// must be in it: the epoch that begins must be above them.
#[test]
fn a_pause_is_confirmed_only_after_earlier_epochs_are_adopted() {
    let primary = primary(3);
    let disk = TestDisk::default();
    begin(&disk, &primary);
    let mut rig = Rig::open(&disk).expect("opened");
    let mut epochs = primary.store.epochs.clone();
    let number = primary.store.epoch() + 9;
    epochs.push(Epoch {
        number,
        first_sequence: 1,
    });
    assert_eq!(rig.adopt_and_follow(epochs), number);
}

/// The file `store` could not be read again if its epochs did not ascend.
#[test]
fn a_promotion_to_an_epoch_that_is_not_new_is_refused() {
    let primary = primary(3);
    let disk = TestDisk::default();
    begin(&disk, &primary);
    let clock = Arc::<TestClock>::default();
    let mut store = Steps::open(&disk, &clock, random(), &settings()).expect("opened");
    let follower = store.follower();
    done(&mut store, follower.pause()).expect("paused");
    let known = primary.store.epoch();
    for number in [known, known.saturating_sub(1)] {
        let promoting = follower.promote(number, PRIMARY.into(), PRIMARY.into());
        let refused = done(&mut store, promoting);
        assert!(
            matches!(refused, Err(FollowError::NotNow(_))),
            "{refused:?}"
        );
        let kept = StoreHeader::read(&disk.content("store"));
        assert_eq!(kept.as_ref(), Some(&*store.source().store()));
    }
    let promoting = follower.promote(known + 1, PRIMARY.into(), PRIMARY.into());
    done(&mut store, promoting).expect("the epoch is new");
}

/// The member that takes over has everything, so no record may be written after a handover, except
/// the one with which a promoted store begins.
#[test]
fn a_store_that_accepts_no_operations_records_only_its_first_holder() {
    let primary = primary(3);
    let disk = TestDisk::default();
    begin(&disk, &primary);
    let clock = Arc::<TestClock>::default();
    let mut store = Steps::open(&disk, &clock, random(), &settings()).expect("opened");
    let follower = store.follower();
    let promoting = follower.promote(primary.store.epoch() + 2, PRIMARY.into(), PRIMARY.into());
    done(&mut store, promoting).expect("promoted");
    done(&mut store, follower.record_first(Some(7))).expect("recorded");
    done(&mut store, follower.lead()).expect("it leads");
    done(&mut store, follower.record(None)).expect("recorded");
    done(&mut store, follower.pause()).expect("paused");
    let newest = store.newest();
    let refused = done(&mut store, follower.record(Some(8)));
    assert!(
        matches!(refused, Err(FollowError::NotNow(_))),
        "{refused:?}"
    );
    assert_eq!(store.newest(), newest);
}

/// A promotion, a demotion or the adoption of epochs fails at any step of the disk, and the store
/// continues. Its next start finds the role and the epochs that were reported, and no others.
#[test]
fn a_failed_change_of_roles_has_no_effect_after_a_restart() {
    let primary = primary(3);
    let known = primary.store.epoch();
    for (step, change) in (0..12).flat_map(|step| [(step, 0), (step, 1), (step, 2)]) {
        let disk = TestDisk::default();
        begin(&disk, &primary);
        let clock = Arc::<TestClock>::default();
        let open = || Steps::open(&disk, &clock, random(), &settings());
        let mut standby = open().expect("opened");
        let (follower, own) = (standby.follower(), standby.source().store());
        disk.set_faults(Faults {
            fail_at: Some(disk.steps() + step),
            ..Faults::default()
        });
        let mut theirs = primary.store.clone();
        theirs.epochs.push(Epoch {
            number: known + 1,
            first_sequence: primary.groups[0].next_sequence(),
        });
        let changed = match change {
            0 => {
                done(&mut standby, follower.pause()).expect("paused");
                let (from, address) = (PRIMARY.to_owned(), "http://standby:3000".to_owned());
                done(&mut standby, follower.promote(known + 2, from, address))
            }
            1 => done(
                &mut standby,
                follower.demote("http://other:3000".to_owned()),
            ),
            _ => done(&mut standby, follower.adopt(own.clone(), &theirs)),
        };
        disk.set_faults(Faults::default());
        let outcome = done(&mut standby, follower.follow(primary.groups[0].clone()));
        let store = standby.source().store();
        let newest = standby.newest();
        drop((standby, follower));
        let again = open().expect("opened again");
        assert_eq!(
            again.newest(),
            newest,
            "step {step} of {change}: {changed:?}"
        );
        assert_eq!(
            again.source().store(),
            store,
            "step {step} of {change}: {changed:?}"
        );
        match changed {
            Ok(()) => assert_ne!(store, own, "step {step} of {change}"),
            Err(FollowError::NotNow(_)) => {
                assert_eq!(store, own, "step {step} of {change}");
                assert_eq!(outcome, Ok(()), "step {step} of {change}");
            }
            Err(error) => panic!("step {step} of {change}: {error}"),
        }
    }
}

/// If a change of roles fails and the old file cannot be written again either, nothing is written
/// until a restart.
#[test]
fn nothing_is_written_after_a_change_of_roles_of_unknown_fate() {
    let primary = primary(3);
    let disk = TestDisk::default();
    begin(&disk, &primary);
    let clock = Arc::<TestClock>::default();
    let open = || Steps::open(&disk, &clock, random(), &settings());
    let mut refused = 0;
    for step in 0..8 {
        let mut standby = open().expect("opened");
        let follower = standby.follower();
        disk.set_faults(Faults {
            crash_at: Some(disk.steps() + step),
            ..Faults::default()
        });
        let changed = done(
            &mut standby,
            follower.demote("http://other:3000".to_owned()),
        );
        disk.set_faults(Faults::default());
        if let Err(FollowError::FateUnknown(_)) = changed {
            refused += 1;
            let outcome = done(&mut standby, follower.follow(primary.groups[0].clone()));
            assert!(
                matches!(outcome, Err(FollowError::FateUnknown(_))),
                "{outcome:?}"
            );
            assert!(standby.newest().sequence < primary.groups[0].first_sequence);
        }
    }
    assert!(refused > 0);
}

/// Runs the store's turns until the future is ready, and returns its output.
fn done<T>(store: &mut Steps<TestDisk, TestClock>, doing: impl Future<Output = T>) -> T {
    let mut doing = Box::pin(doing);
    let mut context = Context::from_waker(Waker::noop());
    for _ in 0..3 {
        if let Poll::Ready(outcome) = doing.as_mut().poll(&mut context) {
            return outcome;
        }
        store.own();
    }
    panic!("it does not end");
}

/// A primary wrote a group whose sync failed, and was replaced. At its next start the group
/// existed, and had become part of the new primary's epoch, so that one position named two changes.
#[test]
fn no_epoch_begins_after_a_group_of_unknown_fate() {
    let disk = TestDisk::default();
    let clock = Arc::<TestClock>::default();
    let open = || Steps::open(&disk, &clock, random(), &settings());
    let mut store = open().expect("a new store");
    let first = store.source().store().epoch();
    disk.set_faults(Faults {
        fail_sync: true,
        ..Faults::default()
    });
    let client = store.client();
    let add = Command::AddWidget {
        serial_number: serial_number(0),
        name: Name::new("name", "n").expect("within the limits"),
        ports: Ports::default(),
    };
    let asked = done(&mut store, client.ask(Attempt::from(add)));
    let is_unknown = matches!(&asked, Err(Rejection::Fault(Fault::FateUnknown { .. })));
    assert!(is_unknown, "{asked:?}");
    disk.set_faults(Faults::default());

    let follower = store.follower();
    done(&mut store, follower.demote(PRIMARY.into())).expect("a standby");
    let own = store.source().store();
    let mut theirs = (*own).clone();
    theirs.epochs.push(Epoch {
        number: first + 1,
        first_sequence: 1,
    });
    let adopted = done(&mut store, follower.adopt(own, &theirs));
    assert!(
        matches!(adopted, Err(FollowError::NotNow(_))),
        "{adopted:?}"
    );
    let promoted = follower.promote(first + 2, PRIMARY.into(), PRIMARY.into());
    let promoted = done(&mut store, promoted);
    assert!(
        matches!(promoted, Err(FollowError::NotNow(_))),
        "{promoted:?}"
    );
    drop((store, client, follower));
    let store = open().expect("opened again");
    assert!(store.lookup(&serial_number(0)).is_some(), "it was written");
    assert_eq!(store.newest().epoch, first);
    assert!(store.source().store().is_standby());
}

/// A standby asks its primary for the epochs, and is told to follow another primary before it
/// adopts them.
#[test]
fn epochs_of_a_primary_no_longer_followed_are_not_adopted() {
    let primary = primary(3);
    let disk = TestDisk::default();
    begin(&disk, &primary);
    let clock = Arc::<TestClock>::default();
    let mut standby = Steps::open(&disk, &clock, random(), &settings()).expect("opened");
    let follower = standby.follower();
    let mut theirs = primary.store.clone();
    theirs.epochs.push(Epoch {
        number: theirs.epoch() + 1,
        first_sequence: 1,
    });
    let other = "http://other:3000";
    let asked = standby.source().store();
    // Both wait at once. Whichever comes first, neither undoes the other.
    let mut context = Context::from_waker(Waker::noop());
    let mut demoting = Box::pin(follower.demote(other.into()));
    assert!(demoting.as_mut().poll(&mut context).is_pending());
    let adopted = done(&mut standby, follower.adopt(asked.clone(), &theirs));
    assert_eq!(demoting.as_mut().poll(&mut context), Poll::Ready(Ok(())));
    assert!(
        matches!(adopted, Err(FollowError::NotNow(_))),
        "{adopted:?}"
    );
    let now = standby.source().store();
    assert_eq!(now.epochs, asked.epochs);
    assert!(matches!(&now.role, Role::Standby { primary } if primary == other));

    let mut adopting = Box::pin(follower.adopt(now.clone(), &theirs));
    assert!(adopting.as_mut().poll(&mut context).is_pending());
    done(&mut standby, follower.demote(PRIMARY.into())).expect("a standby of the first");
    assert_eq!(adopting.as_mut().poll(&mut context), Poll::Ready(Ok(())));
    let both = standby.source().store();
    assert_eq!(both.epochs, theirs.epochs);
    assert!(matches!(&both.role, Role::Standby { primary } if primary == PRIMARY));
}
