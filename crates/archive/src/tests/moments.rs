//! Restores every moment, by its position and by its time, and checks what a restored store says
//! about positions.

use super::{
    bucket::{Fault, FaultyBucket},
    world::{World, check_newest, copy_all, restored, small},
};
use crate::{Error, Target};
use widgets_engine::Engine;
use widgets_registry::{FeedError, Kinds as _, Position, Store as _};

#[tokio::test]
async fn every_position_and_time_is_restored_to_the_state_of_the_model() {
    let (mut world, bucket) = (World::new(1), FaultyBucket::default());
    let mut archiver = world.archiver(&bucket).await.expect("opened");
    for round in 0..8 {
        world.act(12).await;
        archiver.step(false).await.expect("copied");
        archiver.finish_upload().await;
        if round == 4 {
            world.engine().checkpoint().expect("written");
        }
    }
    copy_all(&mut archiver).await.expect("copied");
    check_newest(&bucket, world.model()).await;
    for state in &world.states[1..] {
        let by_position = Target::Position(state.position);
        let (found, told) = restored(&bucket, by_position).await.expect("restored");
        assert_eq!(found, state.model, "{}", state.position);
        assert_eq!(told.position, state.position);
        let by_time = Target::At(state.at);
        let (found, told) = restored(&bucket, by_time).await.expect("restored");
        assert_eq!(found, state.model, "at {}", state.at);
        let is_last = state.position == world.states.last().expect("some").position;
        assert_eq!(told.entries_after == 0, is_last);
    }
    let manifest = crate::list(&bucket.bucket()).await.expect("listed");
    let began = Target::At(manifest.stretches[0].began);
    let (found, _) = restored(&bucket, began).await.expect("the beginning");
    assert_eq!(found, world.states[0].model, "nothing");
    let later = Position {
        sequence: 1 << 40,
        ..world.states[1].position
    };
    let error = restored(&bucket, Target::Position(later)).await;
    assert!(matches!(error, Err(Error::Unreachable(_))), "{error:?}");
}

#[tokio::test]
async fn a_moment_before_the_first_one_of_the_archive_is_refused() {
    for is_older in [false, true] {
        let (mut world, bucket) = (World::new(5), FaultyBucket::default());
        // The archive also has what a store did before it was archived.
        world.act(if is_older { 3 } else { 0 }).await;
        let mut archiver = world.archiver(&bucket).await.expect("opened");
        world.act(3).await;
        copy_all(&mut archiver).await.expect("copied");
        let manifest = crate::list(&bucket.bucket()).await.expect("listed");
        let (oldest, state) = if is_older {
            (world.states[1].at, &world.states[1])
        } else {
            (manifest.stretches[0].began, &world.states[0])
        };
        let (found, _) = restored(&bucket, Target::At(oldest))
            .await
            .expect("its first moment");
        assert_eq!(found, state.model);
        for before in [1, oldest - 1] {
            let error = restored(&bucket, Target::At(before)).await;
            let error = error.expect_err("there was no store").to_string();
            let named = crate::time_text(oldest);
            assert!(error.ends_with(&named), "{error}, not {named}");
        }
    }
}

#[tokio::test]
async fn a_restore_can_end_inside_a_group_of_operations() {
    let (world, bucket) = (World::new(2), FaultyBucket::default());
    let mut archiver = world.archiver(&bucket).await.expect("opened");
    let client = world.client();
    let add = |number: usize| {
        let serial_number = widgets_conformance::commands::serial_number(&format!("w{number}"));
        widgets_conformance::commands::add_widget(&serial_number, "n", "P")
    };
    // Repeats this until two operations are committed in one group.
    for round in 0..1000 {
        let [one, other] = [add(2 * round), add(2 * round + 1)];
        let (one, other) = tokio::join!(client.submit(one), client.submit(other));
        one.and(other).expect("added");
        let source = world.engine().source();
        let groups = source
            .read(source.end().next_sequence - 1, 1)
            .expect("kept");
        if groups.first().is_some_and(|group| group.entries == 2) {
            break;
        }
    }
    copy_all(&mut archiver).await.expect("copied");
    let source = world.engine().source();
    let last = source.end().next_sequence - 1;
    let (mut cut, mut counts) = (false, Vec::new());
    for sequence in 1..=last {
        let position = Position {
            store: source.store().identity,
            epoch: 1,
            sequence,
        };
        let (_, told) = restored(&bucket, Target::Position(position))
            .await
            .expect("restored");
        assert_eq!(told.position, position);
        counts.push(told.restored.counts.widgets);
        cut |= source.read(sequence, 1).expect("kept")[0].first_sequence != sequence;
    }
    assert!(cut, "no group has two");
    let expected: Vec<u64> = (1..=last).collect();
    let is_seal = |sequence: u64| source.read(sequence, 1).expect("kept")[0].is_seal();
    let seals = (1..=last).scan(0, |seals, sequence| {
        *seals += u64::from(is_seal(sequence));
        Some(*seals)
    });
    let expected: Vec<u64> = expected
        .iter()
        .zip(seals)
        .map(|(all, seals)| all - seals)
        .collect();
    assert_eq!(counts, expected);
}

#[tokio::test]
async fn a_restored_store_has_a_new_epoch_and_rejects_discarded_positions() {
    let (mut world, bucket) = (World::new(3), FaultyBucket::default());
    let mut archiver = world.archiver(&bucket).await.expect("opened");
    world.act(60).await;
    copy_all(&mut archiver).await.expect("copied");
    let middle = &world.states[world.states.len() / 2];
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("data");
    let target = Target::Position(middle.position);
    let told = crate::restore(&bucket.bucket(), &path, target, &small(), |_| {})
        .await
        .expect("restored");
    let engine = Engine::open(&path, &small()).expect("opened");
    let client = engine.client();
    let feed = client.feed().expect("it has a feed");
    let read = async |position| {
        let filter = std::sync::Arc::default();
        feed.read(position, filter, 10).await
    };
    read(middle.position).await.expect("it goes on from there");
    for cut in world
        .states
        .iter()
        .filter(|it| it.position > middle.position)
    {
        let gone = read(cut.position).await;
        assert!(matches!(gone, Err(FeedError::Gone { .. })), "{gone:?}");
    }
    let serial_number = widgets_conformance::commands::serial_number("new");
    let add = widgets_conformance::commands::add_widget(&serial_number, "n", "P");
    client.submit(add).await.expect("added");
    let newest = feed.newest().await.expect("there");
    assert_eq!(newest.epoch, told.restored.epoch);
    assert!(newest.epoch > middle.position.epoch);
    // In the old epoch, the same number identified another operation.
    let old = Position { epoch: 1, ..newest };
    assert!(matches!(read(old).await, Err(FeedError::Gone { .. })));
}

#[tokio::test]
async fn failed_bucket_requests_lose_no_data() {
    for seed in 0..12_u64 {
        let (mut world, bucket) = (World::new(seed * 1000), FaultyBucket::default());
        let mut chance = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        bucket.fail(move |_| {
            chance ^= chance << 13;
            chance ^= chance >> 7;
            chance ^= chance << 17;
            match chance % 10 {
                0 | 1 => Some(Fault::Fails),
                2 => Some(Fault::AnswersLate),
                3 => Some(Fault::Refused),
                _ => None,
            }
        });
        let mut archiver = None;
        for _ in 0..200 {
            world.act(1).await;
            let opened = match archiver.take() {
                Some(archiver) => Ok(archiver),
                None => world.archiver(&bucket).await,
            };
            if let Ok(mut opened) = opened {
                match opened.step(false).await {
                    Err(error) if error.is_final() => panic!("seed {seed}: {error}"),
                    _ => opened.finish_upload().await,
                }
                archiver = Some(opened);
            }
        }
        bucket.be_well();
        let mut archiver = archiver.expect("opened at last");
        copy_all(&mut archiver).await.expect("copied");
        check_newest(&bucket, world.model()).await;
        for state in world.states.iter().skip(1).step_by(17) {
            match restored(&bucket, Target::Position(state.position)).await {
                Ok((found, _)) => assert_eq!(found, state.model, "seed {seed}"),
                // Archiving began later, with a checkpoint.
                Err(Error::Unreachable(_)) => {}
                Err(error) => panic!("seed {seed}: {error}"),
            }
        }
    }
}

#[tokio::test]
async fn both_sides_of_a_gap_can_be_restored_and_the_gap_cannot() {
    let few = widgets_engine::Settings {
        held_bytes_max: 20 << 10,
        ..small()
    };
    let (mut world, bucket) = (World::with(4, &few), FaultyBucket::default());
    let mut archiver = world.archiver(&bucket).await.expect("opened");
    world.act(20).await;
    copy_all(&mut archiver).await.expect("copied");
    let before = world.states.len() - 1;
    bucket.fail(|_| Some(Fault::Fails));
    let held = archiver.reached().next_sequence;
    while world.engine().source().oldest() <= held {
        world.act(20).await;
        world.engine().checkpoint().expect("written");
    }
    bucket.be_well();
    let error = archiver.step(true).await.expect_err("it is gone");
    assert!(matches!(error, Error::Source(_)), "{error}");
    drop(archiver);
    let mut archiver = world.archiver(&bucket).await.expect("opened");
    world.act(20).await;
    copy_all(&mut archiver).await.expect("copied");
    check_newest(&bucket, world.model()).await;
    let state = &world.states[before];
    let (found, told) = restored(&bucket, Target::Position(state.position))
        .await
        .expect("restored");
    assert_eq!(found, state.model);
    assert_eq!(told.later_runs, 1);
    // In the gap.
    let state = &world.states[before + 10];
    let error = restored(&bucket, Target::Position(state.position)).await;
    assert!(matches!(error, Err(Error::Unreachable(_))), "{error:?}");
}
