//! A crash at every step of the disk, and a failure of every step, in histories that cross segments
//! and write checkpoints. Afterwards everything that was accepted is there, and nothing that was
//! refused.

use super::{
    disk::{Chance, Faults, Kept, TestDisk},
    rig::{Rig, command, model, settings, widgets},
};
use crate::{files::STORE, state::State, verify::verify_on};
use widgets_registry::{Command, Fault, Rejection, decide};

const BATCHES: usize = 100;

/// What the answers of a history promise.
#[derive(Default)]
struct Promise {
    /// Operations that were answered as accepted.
    accepted: Vec<Command>,
    /// Operations that were accepted, but may not be durable: either all or none of them are.
    unknown: Vec<Command>,
}

impl Promise {
    fn check(&self, state: &State, story: &str) {
        let found = widgets(state);
        let mut with_unknown = self.accepted.clone();
        with_unknown.extend(self.unknown.iter().cloned());
        assert!(
            found == widgets(&model(&self.accepted)) || found == widgets(&model(&with_unknown)),
            "{story}: what was answered is not what is there"
        );
    }
}

/// Runs the history of this seed until its end, or until the disk has crashed.
fn run(disk: &TestDisk, seed: u64) -> Promise {
    let mut chance = Chance(seed);
    let mut promise = Promise::default();
    let Ok(mut rig) = Rig::open(disk) else {
        return promise;
    };
    let mut state = State::default();
    for _ in 0..BATCHES {
        let batch: Vec<_> = (0..=chance.below(4))
            .map(|_| command(&mut chance))
            .collect();
        let answers = rig.submit(&batch);
        let mut accepted = Vec::new();
        let mut is_unknown = false;
        for (command, answer) in batch.iter().zip(answers) {
            let expected = decide(&state, command);
            match (&expected, answer) {
                (
                    Ok(decided),
                    given @ (Ok(()) | Err(Rejection::Fault(Fault::FateUnknown { .. }))),
                ) => {
                    is_unknown |= given.is_err();
                    state.apply(command, *decided);
                    accepted.push(command.clone());
                }
                (Err(refusal), Err(Rejection::Refused(given))) => assert_eq!(*refusal, given),
                (_, Err(Rejection::Fault(Fault::Unavailable { .. }))) => {}
                (expected, given) => panic!("expected {expected:?}, answered {given:?}"),
            }
        }
        if is_unknown {
            promise.unknown = accepted;
            // The store is read-only from now on.
            assert!(rig.submit(&batch).iter().all(Result::is_err));
            break;
        }
        promise.accepted.extend(accepted);
        for _ in 0..chance.below(4) {
            rig.copy();
        }
        if chance.below(3) > 0 {
            rig.write();
        }
    }
    promise.check(rig.state(), "before the end");
    promise
}

/// Returns the number of steps of a history, and checks that the history is worth testing.
fn steps(seed: u64) -> usize {
    let disk = TestDisk::default();
    run(&disk, seed);
    let names = disk.names();
    assert!(
        names.iter().any(|name| name.starts_with("checkpoint-")),
        "the history must have a checkpoint, not only {names:?}"
    );
    let last = names
        .iter()
        .filter(|name| name.starts_with("journal-"))
        .max();
    assert!(
        last.is_some_and(|last| last.as_str() > "journal-0000000000000004"),
        "the history must cross segments: {names:?}"
    );
    disk.steps()
}

/// Opens what a crash left, compares it with the promise, and continues to work with it.
fn recover(disk: &TestDisk, promise: &Promise, story: &str) {
    // Before the first start is over, there is no store to verify.
    if disk.names().iter().any(|name| name == STORE)
        && let Err(error) = verify_on(disk.clone(), &settings(), 1)
    {
        panic!("{story}: not intact: {error}; there are {:?}", disk.names());
    }
    let mut rig = match Rig::open(disk) {
        Ok(rig) => rig,
        Err(error) => panic!("{story}: {error}; there are {:?}", disk.names()),
    };
    promise.check(rig.state(), story);
    let mut chance = Chance(7);
    for _ in 0..8 {
        rig.submit(&[command(&mut chance)]);
    }
    rig.checkpoint().expect("the disk is well again");
    let kept = widgets(rig.state());
    drop(rig);
    let after = disk.after_power_cut(Kept::Nothing);
    let rig = Rig::open(&after).expect("recovered once more");
    assert!(
        widgets(rig.state()) == kept,
        "{story}, then a second power cut"
    );
}

/// The process ends without a power cut, the next one serves what it finds, and then the power
/// fails.
fn restart_and_cut(disk: &TestDisk, promise: &Promise, story: &str) {
    let disk = disk.after_kill();
    let rig = Rig::open(&disk).expect("a process that ends leaves no damage");
    let served = widgets(rig.state());
    drop(rig);
    let disk = disk.after_power_cut(Kept::Nothing);
    let rig = Rig::open(&disk).expect("recovered");
    assert!(
        widgets(rig.state()) == served,
        "{story}: what was served is gone"
    );
    drop(rig);
    recover(&disk, promise, story);
}

#[test]
fn answered_operations_survive_a_power_cut_at_any_step() {
    let seed = 1;
    for crash_at in 0..steps(seed) {
        let disk = TestDisk::default();
        disk.set_faults(Faults {
            crash_at: Some(crash_at),
            ..Faults::default()
        });
        let promise = run(&disk, seed);
        for kept in [
            Kept::Nothing,
            Kept::Everything,
            Kept::Some(3),
            Kept::Some(4),
        ] {
            let story = format!("seed {seed}, power cut at step {crash_at}, kept {kept:?}");
            recover(&disk.after_power_cut(kept), &promise, &story);
        }
        // The process is killed, and later the power fails.
        let story = format!("seed {seed}, killed at step {crash_at}");
        restart_and_cut(&disk, &promise, &story);
    }
}

#[test]
fn a_power_cut_during_recovery_changes_nothing() {
    let seed = 3;
    for crash_at in (0..steps(seed)).step_by(3) {
        let disk = TestDisk::default();
        disk.set_faults(Faults {
            crash_at: Some(crash_at),
            ..Faults::default()
        });
        let promise = run(&disk, seed);
        for kept in [Kept::Everything, Kept::Some(5)] {
            for second_crash_at in 0.. {
                let disk = disk.after_power_cut(kept);
                disk.set_faults(Faults {
                    crash_at: Some(second_crash_at),
                    ..Faults::default()
                });
                drop(Rig::open(&disk));
                let is_over = disk.steps() <= second_crash_at;
                let story = format!("power cuts at {crash_at}, then at {second_crash_at}");
                recover(&disk.after_power_cut(Kept::Some(6)), &promise, &story);
                if is_over {
                    break;
                }
            }
        }
    }
}

#[test]
fn a_failure_of_any_disk_step_loses_no_answered_operation() {
    let seed = 4;
    for fail_at in 0..steps(seed) {
        let disk = TestDisk::default();
        disk.set_faults(Faults {
            fail_at: Some(fail_at),
            ..Faults::default()
        });
        let promise = run(&disk, seed);
        let story = format!("step {fail_at} failed");
        recover(&disk.after_power_cut(Kept::Nothing), &promise, &story);
        restart_and_cut(&disk, &promise, &story);
    }
}
