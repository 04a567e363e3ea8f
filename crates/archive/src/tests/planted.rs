//! At least one check catches every planted bug.

use super::{
    bucket::{Fault, FaultyBucket},
    world::{World, check_newest, copy_all, held, restored, small},
};
use crate::{
    Archiver, Error, Target,
    planted::{Bug, plant},
    prune,
};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Goes through every situation for which the archive makes a promise.
#[expect(clippy::too_many_lines, reason = "the steps depend on each other")]
async fn scenario() {
    let (mut world, bucket) = (World::new(20), FaultyBucket::default());
    let mut archiver = world.archiver(&bucket).await.expect("opened");
    world.act(20).await;
    copy_all(&mut archiver).await.expect("copied");
    // A process dies around the write of an object.
    for request in 0..3 {
        for is_done in [false, true] {
            world.act(if request == 0 { 60 } else { 3 }).await;
            bucket.die_at(request, is_done);
            assert!(archiver.step(true).await.is_err() || request == 2);
            bucket.be_well();
            // Journal that was not copied must have been kept.
            world.engine().checkpoint().expect("written");
            drop(archiver);
            check_readable(&bucket, &world).await;
            archiver = world.archiver(&bucket).await.expect("opened");
            copy_all(&mut archiver).await.expect("copied");
            check_newest(&bucket, world.model()).await;
            let begins = crate::Manifest::runs(&manifest(&bucket).await).len();
            assert_eq!(begins, 1, "no gap");
        }
    }
    // Answers come late, and the same process continues.
    for request in 0..2 {
        world.act(3).await;
        bucket.fail(move |number| (number == request).then_some(Fault::AnswersLate));
        assert!(archiver.step(true).await.is_err());
        bucket.be_well();
        copy_all(&mut archiver).await.expect("it is recognised");
    }
    bucket.be_well();
    archiver = half_packed(&mut world, &bucket, archiver).await;
    // Packing a group fails: the second one's payload.
    world.act(6).await;
    crate::planted::fail_packing_after(3);
    let failed = archiver.step(true).await;
    assert!(matches!(failed, Err(Error::Source(_))), "{failed:?}");
    copy_all(&mut archiver).await.expect("copied");
    check_newest(&bucket, world.model()).await;
    // A checkpoint is copied while the journal lags.
    world.act(120).await;
    world.engine().checkpoint().expect("written");
    let (reply, _told) = tokio::sync::oneshot::channel();
    archiver.want_checkpoint(reply);
    for _ in 0..40 {
        archiver.step(true).await.expect("copied");
        archiver.finish_upload().await;
        check_readable(&bucket, &world).await;
        if archiver.reached().next_sequence == world.engine().source().end().next_sequence {
            break;
        }
    }
    copy_all(&mut archiver).await.expect("copied");
    let recent = world.states.len() - 125;
    for state in world.states[recent..].iter().step_by(3) {
        let (found, _) = restored(&bucket, Target::At(state.at))
            .await
            .expect("restored");
        assert_eq!(found, state.model);
    }
    // Two writers of the same history.
    let mut second = world.archiver(&bucket).await.expect("opened");
    world.act(5).await;
    copy_all(&mut second).await.expect("copied");
    world.act(5).await;
    let lost = archiver.step(true).await;
    assert!(matches!(lost, Err(Error::Lost { .. })), "{lost:?}");
    copy_all(&mut second).await.expect("copied");
    check_newest(&bucket, world.model()).await;
    // A prune that dies.
    for _ in 0..3 {
        world.act(30).await;
        let (reply, _told) = tokio::sync::oneshot::channel();
        second.want_checkpoint(reply);
        copy_all(&mut second).await.expect("copied");
    }
    let keep_from = world.states[world.states.len() - 20].at;
    for request in 0..8 {
        bucket.die_at(request, true);
        drop(prune(&bucket.bucket(), keep_from, false, |_, _| {}).await);
        bucket.be_well();
        check_newest(&bucket, world.model()).await;
        let (found, _) = restored(&bucket, Target::At(keep_from))
            .await
            .expect("kept");
        let state = world.states.iter().rev().find(|it| it.at <= keep_from);
        assert_eq!(found, state.expect("some").model);
    }
    // A restored store takes over; the old one returns.
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("data");
    crate::restore(&bucket.bucket(), &path, Target::Newest, &small(), |_| {})
        .await
        .expect("restored");
    let mut new = World::at(folder, 77, held(&path), &small());
    let mut archiver = new.archiver(&bucket).await.expect("opened");
    new.act(10).await;
    copy_all(&mut archiver).await.expect("copied");
    world.act(30).await;
    let behind = world.archiver(&bucket).await;
    assert!(behind.is_err(), "it was left behind");
    check_newest(&bucket, new.model()).await;
    // A copy of a directory that is still in use.
    drop((archiver, new.engine.take()));
    let folder = tempfile::tempdir().expect("a folder");
    let (from, to) = (
        new.directory.path().join("data"),
        folder.path().join("data"),
    );
    std::fs::create_dir_all(&to).expect("made");
    for entry in std::fs::read_dir(from).expect("read") {
        let entry = entry.expect("read");
        std::fs::copy(entry.path(), to.join(entry.file_name())).expect("copied");
    }
    let model = new.model().clone();
    let mut copy = World::at(folder, 88, model.clone(), &small());
    let mut new = World::at(new.directory, 99, model, &small());
    let mut archiver = new.archiver(&bucket).await.expect("opened");
    new.act(10).await;
    copy_all(&mut archiver).await.expect("copied");
    copy.act(60).await;
    if let Ok(mut other) = copy.archiver(&bucket).await {
        drop(copy_all(&mut other).await);
    }
    check_newest(&bucket, new.model()).await;
}

/// Lets the process die repeatedly after it has packed an object and before it writes it.
async fn half_packed(world: &mut World, bucket: &FaultyBucket, mut archiver: Archiver) -> Archiver {
    for _ in 0..20 {
        world.act(5).await;
        while archiver.pack().expect("packed") > 0 {}
        // The store now deletes the packed journal, unless it is held.
        world.engine().checkpoint().expect("written");
        drop(archiver);
        check_readable(bucket, world).await;
        archiver = world.archiver(bucket).await.expect("opened");
        copy_all(&mut archiver).await.expect("copied");
        assert_eq!(crate::Manifest::runs(&manifest(bucket).await).len(), 1);
    }
    check_newest(bucket, world.model()).await;
    archiver
}

async fn manifest(bucket: &FaultyBucket) -> crate::Manifest {
    let found = bucket.bucket().manifest().await.expect("read");
    found.expect("there").0
}

/// Checks that the newest moment can be restored, to a state that existed.
async fn check_readable(bucket: &FaultyBucket, world: &World) {
    let (found, told) = restored(bucket, Target::Newest).await.expect("restored");
    let states = world.states.iter().rev();
    let mut states = states.skip_while(|it| it.position.sequence > told.position.sequence);
    assert_eq!(found, states.next().expect("some").model);
}

fn run(bug: Option<Bug>) -> Result<(), ()> {
    plant(bug);
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        runtime.block_on(scenario());
    }));
    plant(None);
    outcome.map_err(drop)
}

#[test]
fn every_planted_bug_is_caught() {
    assert_eq!(run(None), Ok(()), "nothing is planted");
    let missed: Vec<_> = Bug::ALL
        .iter()
        .filter(|bug| run(Some(**bug)).is_ok())
        .collect();
    assert!(missed.is_empty(), "not caught: {missed:?}");
}
