//! Seals that another history does not have: they are removed, whatever happens to the disk
//! meanwhile, and nothing else is.

use super::{
    disk::{Chance, Faults, Kept, TestDisk},
    rig::{Rig, WIDGETS, command, random, serial_number, settings, widgets},
};
use crate::{
    Epoch, FollowError, JournalEnd, LoggedGroup, Restoration, Role, Settings, StoreHeader,
};
use std::{sync::Arc, time::Duration};
use widgets_clock::Clock as _;
use widgets_registry::Command;

/// Settings that keep the whole journal.
fn keeping() -> Settings {
    Settings {
        changes_retention_bytes: 1 << 30,
        ..settings()
    }
}

fn open(disk: &TestDisk) -> Rig {
    Rig::open_with(disk, &keeping()).expect("opened")
}

/// Gives the store on this disk another role, as a promotion and its announcement do.
fn set_role(disk: &TestDisk, role: Role, epoch: Option<Epoch>) {
    let mut store = StoreHeader::read(&disk.content("store")).expect("whole");
    store.role = role;
    store.epochs.extend(epoch);
    disk.put("store", store.encode().to_vec());
}

fn standby() -> Role {
    Role::Standby {
        primary: "http://other:3000".into(),
    }
}

fn write(rig: &mut Rig, chance: &mut Chance, batches: usize) {
    for _ in 0..batches {
        let batch: Vec<_> = (0..=chance.below(3)).map(|_| command(chance)).collect();
        rig.submit(&batch);
    }
}

/// A primary that ended with a seal, and the journal of the standby that was promoted without that
/// seal.
struct Parted {
    /// The disk of the former primary, which is now a standby.
    disk: TestDisk,
    /// Where the two histories part.
    before: JournalEnd,
    /// The whole journal of the promoted store.
    groups: Vec<Arc<LoggedGroup>>,
    epoch: Epoch,
    /// The disk of the promoted store.
    promoted: TestDisk,
}

/// Returns two stores that part after this many batches, all of which the standby has.
fn parted(batches: usize) -> Parted {
    let (disk, promoted, mut chance) = (TestDisk::default(), TestDisk::default(), Chance(7));
    let mut rig = open(&disk);
    write(&mut rig, &mut chance, batches);
    // The refused operation may need a new segment, but writes nothing.
    let refused = Command::RemoveWidget {
        serial_number: serial_number(WIDGETS),
    };
    assert!(rig.submit(&[refused])[0].is_err());
    let (groups, store) = (
        rig.log().all_groups().expect("kept"),
        (*rig.log().store_header()).clone(),
    );
    let last = groups.last().expect("groups");
    let before = JournalEnd {
        next_sequence: last.next_sequence(),
        at: last.at,
        chain: last.next_chain(),
    };
    rig.seal();
    drop(rig);
    set_role(&disk, standby(), None);

    let Role::Standby { primary } = standby() else {
        unreachable!("it is one")
    };
    let mut restoration =
        Restoration::begin_standby_on(promoted.clone(), random(), &keeping(), store, primary)
            .expect("begun");
    restoration.begin_empty();
    restoration.finish().expect("empty");
    let mut rig = open(&promoted);
    for group in &groups {
        rig.follow(group).expect("followed");
    }
    drop(rig);
    let epoch = Epoch {
        number: 9,
        first_sequence: before.next_sequence,
    };
    set_role(&promoted, Role::Primary, Some(epoch));
    let mut rig = open(&promoted);
    write(&mut rig, &mut chance, 6);
    let groups = rig.log().all_groups().expect("kept");
    drop(rig);
    Parted {
        disk,
        before,
        groups,
        epoch,
        promoted,
    }
}

impl Parted {
    /// Lets the former primary continue as a standby.
    fn rejoin(&self, rig: &mut Rig) -> Result<(), FollowError> {
        if rig.log().newest().sequence + 1 == self.before.next_sequence + 1
            && rig.log().before_seals().expect("read") == Some(self.before)
        {
            rig.cut_seals(self.before)?;
        }
        let from = rig.log().newest().sequence + 1;
        for group in self.groups.iter().filter(|it| it.first_sequence >= from) {
            rig.follow(group)?;
        }
        Ok(())
    }

    fn check(&self, rig: &Rig, story: &str) {
        let promoted = open(&self.promoted);
        assert_eq!(widgets(rig.state()), widgets(promoted.state()), "{story}");
        let chain = |rig: &Rig| {
            let groups = rig.log().all_groups().expect("kept");
            groups.last().map(|last| last.next_chain())
        };
        assert_eq!(chain(rig), chain(&promoted), "{story}");
    }
}

#[test]
fn a_former_primary_cuts_a_seal_the_promoted_store_lacks_and_follows_it() {
    let parted = parted(8);
    let mut rig = open(&parted.disk);
    assert_eq!(rig.log().newest().sequence, parted.before.next_sequence);
    let next = parted
        .groups
        .iter()
        .find(|it| it.first_sequence == parted.before.next_sequence);
    let next = next.expect("it went on");
    let refused = rig.follow(next);
    assert!(
        matches!(refused, Err(FollowError::DoesNotFollow { .. })),
        "{refused:?}"
    );
    rig.cut_seals(parted.before).expect("cut");
    assert_eq!(rig.log().newest().sequence + 1, parted.before.next_sequence);
    assert_eq!(rig.log().before_seals().expect("read"), None);
    parted.rejoin(&mut rig).expect("followed");
    parted.check(&rig, "followed");
    drop(rig);
    let disk = parted.disk.after_power_cut(Kept::Nothing);
    parted.check(&open(&disk), "after a power cut");
    // The sequence number of the seal belongs to a change of the new epoch.
    assert_eq!(parted.epoch.first_sequence, next.first_sequence);
}

#[test]
fn a_crash_while_cutting_a_seal_loses_at_most_that_seal() {
    let template = parted(8);
    let begun = parted(8).disk.steps();
    let whole = parted(8);
    whole.rejoin(&mut open(&whole.disk)).expect("followed");
    let steps = whole.disk.steps();
    assert!(steps > begun + 10, "{begun} to {steps}");
    let (mut with, mut without) = (0, 0);
    for step in begun..steps {
        for kept in [Kept::Nothing, Kept::Everything, Kept::Some(step as u64)] {
            let parted = parted(8);
            parted.disk.set_faults(Faults {
                crash_at: Some(step),
                ..Faults::default()
            });
            if let Ok(mut rig) = Rig::open_with(&parted.disk, &keeping()) {
                drop(parted.rejoin(&mut rig));
            }
            let disk = parted.disk.after_power_cut(kept);
            let mut rig = open(&disk);
            let story = format!("a crash at step {step}");
            let end = rig.log().newest().sequence + 1;
            assert!(end >= parted.before.next_sequence, "{story}");
            match rig.log().before_seals().expect("read") {
                Some(before) => {
                    assert_eq!(before, template.before, "{story}");
                    with += 1;
                }
                None => without += 1,
            }
            parted.rejoin(&mut rig).expect("it goes on");
            parted.check(&rig, &story);
        }
    }
    assert!(with > 0 && without > 0, "{with} and {without}");
}

#[test]
fn several_trailing_seals_are_cut_despite_a_crash_at_any_step() {
    let parted = parted(8);
    // A restart that becomes a primary again writes another seal.
    set_role(&parted.disk, Role::Primary, None);
    let mut rig = open(&parted.disk);
    rig.lead();
    rig.seal();
    drop(rig);
    set_role(&parted.disk, standby(), None);
    let begun = parted.disk.steps();
    for step in begun.. {
        let disk = parted.disk.after_power_cut(Kept::Everything);
        let crashes = disk.steps() + (step - begun);
        disk.set_faults(Faults {
            crash_at: Some(crashes),
            ..Faults::default()
        });
        let cut = Rig::open_with(&disk, &keeping()).map(|mut rig| {
            assert_eq!(
                rig.log().newest().sequence,
                parted.before.next_sequence + 1,
                "two of them"
            );
            rig.cut_seals(parted.before)
        });
        let disk = disk.after_power_cut(Kept::Some(step as u64));
        let mut rig = open(&disk);
        if let Some(before) = rig.log().before_seals().expect("read") {
            assert_eq!(before, parted.before, "step {step}");
            rig.cut_seals(before).expect("cut");
        }
        let from = parted.before.next_sequence;
        for group in parted.groups.iter().filter(|it| it.first_sequence >= from) {
            rig.follow(group).expect("followed");
        }
        parted.check(&rig, &format!("step {step}"));
        if matches!(cut, Ok(Ok(()))) {
            assert!(step > begun + 3, "it has steps");
            return;
        }
    }
}

#[test]
fn only_trailing_seals_of_a_standby_can_be_cut() {
    let parted = parted(8);
    let mut rig = open(&parted.disk);
    let wrong = |rig: &mut Rig, before: JournalEnd| {
        let newest = rig.log().newest();
        let error = rig
            .cut_seals(before)
            .expect_err("it is no end before seals");
        assert_eq!(rig.log().newest(), newest);
        error
    };
    for sequence in 1..parted.before.next_sequence {
        let before = JournalEnd {
            next_sequence: sequence,
            ..parted.before
        };
        let error = wrong(&mut rig, before);
        assert!(
            matches!(error, FollowError::DoesNotFollow { .. }),
            "{error}"
        );
    }
    let other = JournalEnd {
        chain: parted.before.chain ^ 1,
        ..parted.before
    };
    let error = wrong(&mut rig, other);
    assert!(
        matches!(error, FollowError::DoesNotFollow { .. }),
        "{error}"
    );
    drop(rig);
    // A primary removes nothing.
    set_role(&parted.disk, Role::Primary, None);
    let mut rig = open(&parted.disk);
    let error = wrong(&mut rig, parted.before);
    assert_eq!(error, FollowError::NotStandby);
}

/// Returns the last segment that has groups, from where they begin.
fn last_segment(disk: &TestDisk) -> Vec<u8> {
    let names = disk.names().into_iter();
    let mut segments: Vec<_> = names.filter(|name| name.starts_with("journal-")).collect();
    segments.sort();
    let contents = segments.iter().rev().map(|name| disk.content(name));
    let mut groups = contents.map(|content| content.get(4096..).unwrap_or_default().to_vec());
    let last = groups.find(|groups| groups.iter().any(|&byte| byte != 0));
    last.expect("a segment with groups")
}

/// The seal may be the only group of a segment.
#[test]
fn a_seal_that_is_the_only_group_of_a_segment_is_cut() {
    let mut first = 0;
    for batches in 1..60 {
        let parted = parted(batches);
        let groups = last_segment(&parted.disk);
        first += usize::from(groups[56..].iter().all(|&byte| byte == 0));
        let mut rig = open(&parted.disk);
        parted.rejoin(&mut rig).expect("followed");
        let story = format!("{batches} batches");
        parted.check(&rig, &story);
        drop(rig);
        let disk = parted.disk.after_power_cut(Kept::Nothing);
        parted.check(&open(&disk), &story);
    }
    assert!(first > 0, "a segment that has a seal alone");
}

/// Nothing depends on a seal, not even a checkpoint that was written after it or while it was being
/// removed.
#[test]
fn checkpoints_remain_valid_after_trailing_seals_are_cut() {
    for (kind, batches) in (0..3).flat_map(|kind| (1..12).map(move |batches| (kind, batches))) {
        let parted = parted(batches);
        let story = format!("{batches} batches, {kind}");
        let mut rig = open(&parted.disk);
        match kind {
            // Written, and a start has only its files.
            0 => rig.checkpoint().expect("written"),
            // Written before the start that sees the seal.
            1 => {
                rig.checkpoint().expect("written");
                drop(rig);
                rig = open(&parted.disk);
            }
            // Under way.
            _ => {
                rig.begin_checkpoint();
            }
        }
        parted.rejoin(&mut rig).expect("followed");
        for _ in 0..500 {
            rig.copy();
            rig.write();
        }
        parted.check(&rig, &story);
        drop(rig);
        let disk = parted.disk.after_power_cut(Kept::Nothing);
        parted.check(&open(&disk), &story);
        // A checkpoint after a crash that came directly after the removal.
        let parted = self::parted(batches);
        let mut rig = open(&parted.disk);
        rig.checkpoint().expect("written");
        rig.cut_seals(parted.before).expect("cut");
        drop(rig);
        let disk = parted.disk.after_power_cut(Kept::Nothing);
        let mut rig = open(&disk);
        parted.rejoin(&mut rig).expect("followed");
        parted.check(&rig, &story);
    }
}

/// A full disk may have no room for the seal, and nothing else to do comes.
#[test]
fn the_owner_rests_if_a_seal_cannot_be_written() {
    let disk = TestDisk::default();
    let mut rig = open(&disk);
    disk.set_faults(Faults {
        is_full: true,
        ..Faults::default()
    });
    // Seals fill the segment and the one that was prepared, up to the last byte that they can.
    let last = loop {
        let last = rig.log().newest().sequence;
        rig.lead();
        rig.seal();
        rig.prepare();
        if rig.log().newest().sequence == last {
            break last;
        }
    };
    assert!(last > 200, "two segments are full, not {last} seals");
    rig.clock.sleep(Duration::from_secs(2));
    assert_eq!(rig.longest_wait(), Duration::ZERO, "a seal is due");
    rig.turn();
    assert_eq!(rig.log().newest().sequence, last, "there is no room for it");
    assert!(rig.longest_wait() > Duration::ZERO);
    // Once there is room, it is written.
    disk.set_faults(Faults::default());
    rig.prepare();
    rig.clock.sleep(Duration::from_secs(2));
    rig.turn();
    assert_eq!(rig.log().newest().sequence, last + 1);
    assert_eq!(rig.longest_wait(), Duration::MAX);
}
