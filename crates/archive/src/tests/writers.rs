//! Two writers of one archive, by mistake, after a restart, or after a restore: one stops, and the
//! archive stays intact.

use super::{
    bucket::{Fault, FaultyBucket},
    world::{World, check_newest, copy_all, held, restored, small},
};
use crate::{Checkpoint, Error, Target, manifest::Manifest};
use std::{
    fs::{self, File, TryLockError},
    path::Path,
    sync::Arc,
    time::Duration,
};
use widgets_clock::SystemClock;

#[tokio::test]
async fn an_earlier_writer_stops_when_a_second_one_takes_over() {
    let (mut world, bucket) = (World::new(6), FaultyBucket::default());
    let mut first = world.archiver(&bucket).await.expect("opened");
    world.act(10).await;
    copy_all(&mut first).await.expect("copied");
    let mut second = world.archiver(&bucket).await.expect("opened");
    world.act(10).await;
    copy_all(&mut second).await.expect("copied");
    world.act(10).await;
    let error = first.step(true).await.expect_err("it was taken over");
    assert!(
        matches!(error, Error::Lost { writer: 2, ours: 1 }),
        "{error}"
    );
    assert!(error.is_final());
    copy_all(&mut second).await.expect("copied");
    check_newest(&bucket, world.model()).await;
}

/// The library writes a file in a thread of its own, which nothing stops.
#[tokio::test]
async fn a_folder_stays_locked_until_a_write_that_was_given_up_has_ended() {
    let (world, objects) = (World::new(6), FaultyBucket::default());
    let folder = tempfile::tempdir().expect("a folder");
    let bucket = objects.bucket().in_folder(folder.path());
    let manifest = Manifest::new(&world.engine().source().store());
    // The first request looks for a manifest, the second one writes it.
    objects.fail(|request| (request == 1).then_some(Fault::Waits));
    let mut replacing = Box::pin(bucket.replace(&manifest, None));
    while objects.requests() < 2 {
        let ended = tokio::time::timeout(Duration::from_millis(1), &mut replacing).await;
        assert!(ended.is_err(), "the write waits");
    }
    drop(replacing);
    let lock = File::open(folder.path().join("manifest.lock")).expect("there");
    assert!(matches!(lock.try_lock(), Err(TryLockError::WouldBlock)));
    objects.let_go();
    while lock.try_lock().is_err() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert!(bucket.manifest().await.expect("read").is_some());
}

fn copy_directory(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("made");
    for entry in fs::read_dir(from).expect("read") {
        let entry = entry.expect("read");
        fs::copy(entry.path(), to.join(entry.file_name())).expect("copied");
    }
}

#[tokio::test]
async fn a_diverged_copy_of_the_directory_is_kept_out_of_the_archive() {
    let (mut world, bucket) = (World::new(7), FaultyBucket::default());
    let mut archiver = world.archiver(&bucket).await.expect("opened");
    world.act(10).await;
    copy_all(&mut archiver).await.expect("copied");
    let model = world.model().clone();
    drop((archiver, world.engine.take()));
    let folder = tempfile::tempdir().expect("a folder");
    copy_directory(
        &world.directory.path().join("data"),
        &folder.path().join("data"),
    );
    let mut copy = World::at(folder, 900, model.clone(), &small());
    let mut world = World::at(world.directory, 800, model, &small());
    let mut archiver = world.archiver(&bucket).await.expect("opened");
    world.act(10).await;
    copy_all(&mut archiver).await.expect("copied");
    // First fewer entries than the archive has, then more.
    let error = copy.archiver(&bucket).await.err().expect("it is behind");
    assert!(matches!(error, Error::Ahead { .. }), "{error}");
    while copy.engine().source().end().next_sequence
        < world.engine().source().end().next_sequence + 5
    {
        copy.act(10).await;
    }
    let error = copy.archiver(&bucket).await.err().expect("another history");
    assert!(matches!(error, Error::OtherHistory { .. }), "{error}");
    assert!(error.is_final());
    world.act(10).await;
    copy_all(&mut archiver).await.expect("it still has it");
    check_newest(&bucket, world.model()).await;
}

#[tokio::test]
async fn a_restored_store_continues_the_archive_and_the_old_one_is_rejected() {
    let (mut old, bucket) = (World::new(8), FaultyBucket::default());
    let mut archiver = old.archiver(&bucket).await.expect("opened");
    old.act(40).await;
    copy_all(&mut archiver).await.expect("copied");
    for (target, is_end) in [
        (Target::Newest, true),
        (Target::Position(old.states[10].position), false),
    ] {
        let bucket = bucket.copy();
        let mut new = copy_of(&bucket, target).await;
        let mut archiver = new.archiver(&bucket).await.expect("it goes on");
        new.act(20).await;
        copy_all(&mut archiver).await.expect("copied");
        check_newest(&bucket, new.model()).await;
        let error = old.archiver(&bucket).await.err().expect("left behind");
        assert!(matches!(error, Error::LeftBehind { .. }), "{error}");
        // Positions of the old store can still be restored.
        let state = old.states.last().expect("some");
        let (found, told) = restored(&bucket, Target::Position(state.position))
            .await
            .expect("restored");
        assert_eq!(found, state.model);
        assert_eq!(told.later_runs, usize::from(!is_end));
        for state in &new.states[1..] {
            let (found, _) = restored(&bucket, Target::Position(state.position))
                .await
                .expect("restored");
            assert_eq!(found, state.model);
            let (found, _) = restored(&bucket, Target::At(state.at))
                .await
                .expect("restored");
            assert_eq!(found, state.model);
        }
    }
}

/// Restores a moment, and opens the restored store.
async fn copy_of(bucket: &FaultyBucket, target: Target) -> World {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("data");
    crate::restore(&bucket.bucket(), &path, target, &small(), |_| {})
        .await
        .expect("restored");
    let model = held(&path);
    World::at(folder, 600, model, &small())
}

async fn back_up(world: &World, bucket: &FaultyBucket) -> Result<Checkpoint, Error> {
    let clock = Arc::new(SystemClock::new());
    crate::back_up(bucket.bucket(), world.engine().source(), clock).await
}

#[tokio::test]
async fn a_backup_of_a_restored_copy_does_not_take_the_archive_from_the_service() {
    let (mut world, bucket) = (World::new(11), FaultyBucket::default());
    let mut archiver = world.archiver(&bucket).await.expect("opened");
    world.act(20).await;
    copy_all(&mut archiver).await.expect("copied");
    for target in [Target::Newest, Target::Position(world.states[10].position)] {
        let copy = copy_of(&bucket, target).await;
        let error = back_up(&copy, &bucket).await.expect_err("a copy");
        assert!(
            matches!(error, Error::OtherCopy { writer: 1, .. }),
            "{error}"
        );
        world.act(10).await;
        copy_all(&mut archiver).await.expect("it still has it");
        check_newest(&bucket, world.model()).await;
    }
}

#[tokio::test]
async fn a_backup_of_an_older_copy_does_not_replace_that_of_a_newer_one() {
    let (mut world, bucket) = (World::new(12), FaultyBucket::default());
    let mut archiver = world.archiver(&bucket).await.expect("opened");
    world.act(30).await;
    copy_all(&mut archiver).await.expect("copied");
    let mut newer = copy_of(&bucket, Target::Newest).await;
    let middle = Target::Position(world.states[15].position);
    let older = copy_of(&bucket, middle).await;
    let own = FaultyBucket::default();
    back_up(&newer, &own).await.expect("an archive of its own");
    // The numbers of their epochs are random, so either may be the higher one.
    let error = back_up(&older, &own).await.expect_err("another copy");
    assert!(matches!(error, Error::OtherCopy { .. }), "{error}");
    check_newest(&own, newer.model()).await;
    newer.act(10).await;
    back_up(&newer, &own).await.expect("it goes on");
    check_newest(&own, newer.model()).await;
}

#[tokio::test]
async fn a_backup_of_a_stopped_store_goes_on_in_its_own_archive() {
    let (mut world, bucket) = (World::new(13), FaultyBucket::default());
    let mut archiver = world.archiver(&bucket).await.expect("opened");
    world.act(20).await;
    copy_all(&mut archiver).await.expect("copied");
    drop(archiver);
    back_up(&world, &bucket).await.expect("nothing new");
    world.act(10).await;
    back_up(&world, &bucket).await.expect("more than there was");
    check_newest(&bucket, world.model()).await;
    let manifest = crate::list(&bucket.bucket()).await.expect("listed");
    assert_eq!(manifest.runs().len(), 1);
}

#[tokio::test]
async fn a_store_cannot_write_to_the_archive_of_another_store() {
    let (mut world, bucket) = (World::new(9), FaultyBucket::default());
    let mut archiver = world.archiver(&bucket).await.expect("opened");
    world.act(5).await;
    copy_all(&mut archiver).await.expect("copied");
    let other = World::new(10);
    let error = other.archiver(&bucket).await.err().expect("another store");
    assert!(matches!(error, Error::OtherStore { .. }), "{error}");
    check_newest(&bucket, world.model()).await;
}
