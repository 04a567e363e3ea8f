//! Building a directory from a copy: it equals the copied store, and after a crash at any step the
//! restore is either complete or can begin anew.

use super::{
    disk::{Chance, Faults, Kept, TestDisk},
    rig::{Rig, command, random, settings, widgets},
};
use crate::{
    Engine, LoggedGroup, OpenError, Restoration, Restored, Settings, StoreHeader, files::RESTORING,
};
use std::{fs, sync::Arc};

/// Settings that keep all segments and write a checkpoint only on request.
fn keeping() -> Settings {
    Settings {
        changes_retention_bytes: 1 << 30,
        checkpoint_journal_bytes: 1 << 30,
        ..settings()
    }
}

struct Original {
    disk: TestDisk,
    groups: Vec<Arc<LoggedGroup>>,
    store: StoreHeader,
}

fn original() -> Original {
    let (disk, mut chance) = (TestDisk::default(), Chance(21));
    let mut rig = Rig::open_with(&disk, &keeping()).expect("a new store");
    for _ in 0..40 {
        rig.submit(&[command(&mut chance), command(&mut chance)]);
    }
    let groups = rig.log().all_groups().expect("kept");
    let store = (*rig.log().store_header()).clone();
    Original {
        disk,
        groups,
        store,
    }
}

fn restore(disk: &TestDisk, original: &Original) -> Result<Restored, OpenError> {
    let store = original.store.clone();
    let mut restoration = Restoration::begin_on(disk.clone(), random(), &keeping(), store, 7)?;
    restoration.begin_empty();
    for group in &original.groups {
        restoration.group(group)?;
    }
    restoration.finish()
}

#[test]
fn a_restored_store_equals_the_original_in_a_new_epoch() {
    let original = original();
    let disk = TestDisk::default();
    let restored = restore(&disk, &original).expect("restored");
    assert!(restored.epoch > 7, "{}", restored.epoch);
    let rig = Rig::open_with(&disk, &keeping()).expect("opened");
    let old = Rig::open_with(&original.disk, &keeping()).expect("opened");
    assert_eq!(widgets(rig.state()), widgets(old.state()));
    assert_eq!(rig.log().newest().sequence, old.log().newest().sequence);
    assert!(disk.names().iter().all(|name| name != RESTORING));
}

#[test]
fn a_restore_refuses_a_group_that_does_not_continue_the_journal() {
    let original = original();
    let store = original.store.clone();
    let mut restoration =
        Restoration::begin_on(TestDisk::default(), random(), &keeping(), store, 0).expect("begun");
    restoration.begin_empty();
    restoration.group(&original.groups[0]).expect("the first");
    for wrong in [&original.groups[0], &original.groups[2]] {
        let error = restoration.group(wrong).expect_err("out of order");
        assert!(matches!(error, OpenError::Damaged { .. }), "{error}");
    }
    let other = LoggedGroup {
        chain: 1,
        ..(*original.groups[1]).clone()
    };
    restoration.group(&other).expect_err("another history");
    restoration.group(&original.groups[1]).expect("the next");
}

/// Checks that a start refuses a directory with these files.
fn check_refused(disk: &TestDisk) {
    let directory = tempfile::tempdir().expect("a new directory");
    for name in disk.names() {
        fs::write(directory.path().join(&name), disk.content(&name)).expect("a file");
    }
    match Engine::open(directory.path(), &keeping()) {
        Err(OpenError::Restoring { .. }) => {}
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("it starts"),
    }
}

/// Until the restore is complete, no start serves what is there.
#[test]
fn a_crash_at_any_step_of_a_restore_leaves_it_complete_or_repeatable() {
    let original = original();
    let whole = TestDisk::default();
    restore(&whole, &original).expect("restored");
    let steps = whole.steps();
    assert!(steps > 20, "{steps}");
    let old = Rig::open_with(&original.disk, &keeping()).expect("opened");
    let expected = widgets(old.state());
    let mut refused = 0;
    for step in 0..steps {
        for kept in [Kept::Nothing, Kept::Everything, Kept::Some(step as u64)] {
            let disk = TestDisk::default();
            disk.set_faults(Faults {
                crash_at: Some(step),
                ..Faults::default()
            });
            restore(&disk, &original).expect_err("it crashed");
            let disk = disk.after_power_cut(kept);
            let names = disk.names();
            let is_marked = names.iter().any(|name| name == RESTORING);
            let is_store = names.iter().any(|name| crate::files::is_store(name));
            if is_marked {
                check_refused(&disk);
                refused += 1;
            }
            if is_store && !is_marked {
                // Only the marker of an unfinished restore was left to remove.
                let rig = Rig::open_with(&disk, &keeping()).expect("whole");
                assert_eq!(widgets(rig.state()), expected, "step {step}");
                continue;
            }
            restore(&disk, &original).expect("it begins anew");
            let rig = Rig::open_with(&disk, &keeping()).expect("opened");
            assert_eq!(widgets(rig.state()), expected, "step {step}");
        }
    }
    assert!(refused > steps, "{refused} in {steps} steps");
}
