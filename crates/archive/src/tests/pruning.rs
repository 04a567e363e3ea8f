//! Pruning never takes what a kept moment needs, wherever it dies, and while the archive is written.

use super::{
    bucket::FaultyBucket,
    world::{World, check_newest, copy_all, restored},
};
use crate::{Error, Target, prune, verify};

async fn lived(bucket: &FaultyBucket, seed: u64) -> (World, crate::Archiver) {
    let mut world = World::new(seed);
    let mut archiver = world.archiver(bucket).await.expect("opened");
    for round in 0..5 {
        world.act(25).await;
        world.engine().checkpoint().expect("written");
        copy_all(&mut archiver).await.expect("copied");
        if round == 2 {
            // Another process goes on.
            drop(archiver);
            archiver = world.archiver(bucket).await.expect("opened");
        }
    }
    (world, archiver)
}

async fn check_kept(bucket: &FaultyBucket, world: &World, keep_from: u64, every: usize) {
    let (_, report) = verify(&bucket.bucket(), |_, _| {}).await.expect("verified");
    assert_eq!(report.problems, []);
    check_newest(bucket, world.model()).await;
    for state in world
        .states
        .iter()
        .filter(|it| it.at >= keep_from)
        .step_by(every)
    {
        let (found, _) = restored(bucket, Target::At(state.at)).await.expect("kept");
        assert_eq!(found, state.model);
    }
    // The moment itself.
    let state = world.states.iter().rev().find(|it| it.at <= keep_from);
    let (found, _) = restored(bucket, Target::At(keep_from)).await.expect("kept");
    assert_eq!(found, state.expect("some").model);
}

#[tokio::test]
async fn every_kept_moment_stays_and_older_ones_go() {
    let bucket = FaultyBucket::default();
    let (mut world, mut archiver) = lived(&bucket, 12).await;
    let cuts: Vec<u64> = world
        .states
        .iter()
        .step_by(9)
        .map(|state| state.at)
        .collect();
    let mut was_gone = false;
    for keep_from in cuts {
        prune(&bucket.bucket(), keep_from, false, |_, _| {})
            .await
            .expect("pruned");
        check_kept(&bucket, &world, keep_from, 3).await;
        let first = &world.states[1];
        match restored(&bucket, Target::At(first.at)).await {
            Ok((found, _)) => assert_eq!(found, first.model),
            Err(Error::Unreachable(_)) => was_gone = true,
            Err(error) => panic!("{error}"),
        }
        // The writer does not mind.
        world.act(3).await;
        copy_all(&mut archiver).await.expect("copied");
    }
    assert!(was_gone, "nothing was pruned");
    // A second time there is nothing to do.
    let again = prune(&bucket.bucket(), 0, false, |_, _| {})
        .await
        .expect("pruned");
    assert_eq!((again.checkpoints, again.objects), (0, 0));
}

#[tokio::test]
async fn a_crash_at_every_request_of_pruning() {
    let whole = FaultyBucket::default();
    let (world, archiver) = lived(&whole, 13).await;
    drop(archiver);
    let keep_from = world.states[world.states.len() * 9 / 10].at;
    let bucket = whole.copy();
    bucket.be_well();
    let pruned = prune(&bucket.bucket(), keep_from, false, |_, _| {})
        .await
        .expect("pruned");
    assert!(pruned.checkpoints > 0 && pruned.objects > 3, "{pruned:?}");
    for request in 0..bucket.requests() {
        for is_done in [false, true] {
            let bucket = whole.copy();
            bucket.die_at(request, is_done);
            let outcome = prune(&bucket.bucket(), keep_from, false, |_, _| {}).await;
            assert!(outcome.is_err(), "request {request}");
            bucket.be_well();
            check_kept(&bucket, &world, keep_from, 12).await;
            // The next one takes what was left.
            prune(&bucket.bucket(), keep_from, false, |_, _| {})
                .await
                .expect("pruned");
            let again = prune(&bucket.bucket(), keep_from, true, |_, _| {})
                .await
                .expect("pruned");
            assert_eq!((again.checkpoints, again.objects), (0, 0));
        }
    }
    // A rehearsal changes nothing.
    let bucket = whole.copy();
    let rehearsed = prune(&bucket.bucket(), keep_from, true, |_, _| {})
        .await
        .expect("rehearsed");
    assert_eq!(rehearsed.checkpoints, pruned.checkpoints);
    check_kept(&bucket, &world, 0, 20).await;
}
