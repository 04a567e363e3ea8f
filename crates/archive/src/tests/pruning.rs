//! Pruning never removes what a kept moment needs, even if it crashes, and even while the archive
//! is being written.

use super::{
    bucket::FaultyBucket,
    world::{World, check_newest, copy_all, restored},
};
use crate::{Error, Target, prune, verify};
use std::sync::Arc;
use widgets_clock::SystemClock;

async fn lived(bucket: &FaultyBucket, seed: u64) -> (World, crate::Archiver) {
    let mut world = World::new(seed);
    let mut archiver = world.archiver(bucket).await.expect("opened");
    for round in 0..5 {
        world.act(25).await;
        world.engine().checkpoint().expect("written");
        copy_all(&mut archiver).await.expect("copied");
        if round == 2 {
            // Another process continues.
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
async fn pruning_keeps_later_moments_and_removes_older_ones() {
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
        // The writer is not disturbed.
        world.act(3).await;
        copy_all(&mut archiver).await.expect("copied");
    }
    assert!(was_gone, "nothing was pruned");
    // A second prune has nothing to remove.
    let again = prune(&bucket.bucket(), 0, false, |_, _| {})
        .await
        .expect("pruned");
    assert_eq!((again.checkpoints, again.objects), (0, 0));
}

#[tokio::test]
async fn pruning_survives_a_crash_at_any_request() {
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
            // The next prune removes what was left.
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

/// Repeats a restore, and at each of its requests in turn replaces the archive with another one.
async fn restore_while(
    before: &FaultyBucket,
    after: &FaultyBucket,
    target: Target,
    mut check: impl FnMut(usize, Result<(widgets_conformance::Model, crate::Restore), Error>),
) {
    let bucket = before.copy();
    bucket.be_well();
    restored(&bucket, target)
        .await
        .expect("nothing happens meanwhile");
    for request in 1..bucket.requests() {
        let bucket = before.copy();
        bucket.turn_into(after, request);
        check(request, restored(&bucket, target).await);
    }
}

#[tokio::test]
async fn a_restore_during_pruning_restarts_or_reports_what_was_removed() {
    let before = FaultyBucket::default();
    let (mut world, mut archiver) = lived(&before, 14).await;
    let middle = world.states[world.states.len() / 2].at;
    // The service continued with a newer checkpoint, and what came before that was pruned.
    let live = before.copy();
    world.act(40).await;
    world.engine().checkpoint().expect("written");
    copy_all(&mut archiver).await.expect("copied");
    let pruned = before.copy();
    let now = world.states.last().expect("some").at;
    prune(&pruned.bucket(), now, false, |_, _| {})
        .await
        .expect("pruned");

    // The newest moment exists before and after. The position says which of the two was restored.
    let mut begun_anew = 0;
    restore_while(&live, &pruned, Target::Newest, |request, outcome| {
        let (found, told) = outcome.unwrap_or_else(|error| panic!("request {request}: {error}"));
        let mut states = world.states.iter().rev();
        let state = states.find(|it| it.position.sequence <= told.position.sequence);
        assert_eq!(found, state.expect("some").model, "request {request}");
        begun_anew += usize::from(!told.pruned.is_empty());
        assert_eq!(told.damaged, [""; 0], "request {request}");
    })
    .await;
    assert!(begun_anew > 1, "{begun_anew}");

    // A moment that is pruned is either restored as it was, or the error says what is gone.
    let (mut done, mut gone) = (0, 0);
    restore_while(
        &live,
        &pruned,
        Target::At(middle),
        |request, outcome| match outcome {
            Ok((found, _)) => {
                let mut states = world.states.iter().rev();
                let state = states.find(|it| it.at <= middle).expect("some");
                assert_eq!(found, state.model, "request {request}");
                done += 1;
            }
            Err(Error::Unreachable(why)) => {
                assert!(why.contains("pruned while it was read"), "{why}");
                assert!(
                    why.contains("checkpoint/") || why.contains("journal/"),
                    "{why}"
                );
                gone += 1;
            }
            Err(error) => panic!("request {request}: {error}"),
        },
    )
    .await;
    assert!(gone > 1, "{done} were restored, {gone} not");
}

#[tokio::test]
async fn verifying_an_archive_during_pruning_reports_no_problem() {
    let before = FaultyBucket::default();
    let (world, archiver) = lived(&before, 15).await;
    drop(archiver);
    let pruned = before.copy();
    let now = world.states.last().expect("some").at;
    prune(&pruned.bucket(), now, false, |_, _| {})
        .await
        .expect("pruned");
    let bucket = before.copy();
    bucket.be_well();
    verify(&bucket.bucket(), |_, _| {}).await.expect("verified");
    for request in 1..bucket.requests() {
        let bucket = before.copy();
        bucket.turn_into(&pruned, request);
        let (_, report) = verify(&bucket.bucket(), |_, _| {}).await.expect("verified");
        assert_eq!(report.problems, [], "request {request}");
    }
    // An object that is gone for another reason is a problem.
    let bucket = before.copy();
    let empty = FaultyBucket::default();
    bucket.turn_into(&empty, 2);
    let outcome = verify(&bucket.bucket(), |_, _| {}).await;
    assert!(outcome.is_ok_and(|(_, report)| !report.problems.is_empty()));
}

#[tokio::test]
async fn pruning_accepts_a_checkpoint_of_a_writer_without_journal_as_base() {
    let bucket = FaultyBucket::default();
    let (mut world, archiver) = lived(&bucket, 16).await;
    drop(archiver);
    // As `widgets backup` does with a stopped store that is already archived completely.
    let (source, clock) = (world.engine().source(), Arc::new(SystemClock::new()));
    crate::back_up(bucket.bucket(), source, clock)
        .await
        .expect("copied");
    let mut archiver = world.archiver(&bucket).await.expect("opened");
    world.act(2).await;
    archiver.step(true).await.expect("copied");
    let now = world.states.last().expect("some").at;
    let pruned = prune(&bucket.bucket(), now, false, |_, _| {})
        .await
        .expect("pruned");
    assert!(pruned.checkpoints > 0 && pruned.objects > 3, "{pruned:?}");
    check_kept(&bucket, &world, now, 1).await;
}
