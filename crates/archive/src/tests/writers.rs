//! Two writers of one archive, by mistake, after a restart, or after a restore: one stops, and the
//! archive stays intact.

use super::{
    bucket::FaultyBucket,
    world::{World, check_newest, copy_all, held, restored, small},
};
use crate::{Error, Target};
use std::{fs, path::Path};

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
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("data");
        crate::restore(&bucket.bucket(), &path, target, &small(), |_| {})
            .await
            .expect("restored");
        let model = held(&path);
        let mut new = World::at(folder, 700, model, &small());
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
