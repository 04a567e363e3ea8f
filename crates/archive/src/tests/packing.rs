//! Groups are packed as they arrive. Whatever happens to an object that grows, nothing is lost and
//! nothing is duplicated.

use super::{
    bucket::FaultyBucket,
    world::{World, check_newest, copy_all, restored, settings},
};
use crate::{
    Archiver, Error, Metrics, Target,
    archiver::OBJECT_BYTES_MAX,
    checkpoints::{Parts, Step},
    object::{self, STRETCH_BYTES},
    planted::{fail_packing_after, will_packing_fail},
};
use std::sync::Arc;
use widgets_clock::SystemClock;
use widgets_pacing::{Mode, Pacing};

async fn journal(bucket: &FaultyBucket) -> Vec<(String, u64)> {
    bucket.bucket().list("journal", None).await.expect("listed")
}

#[tokio::test]
async fn groups_packed_early_and_later_groups_share_one_object() {
    let (mut world, bucket) = (World::new(71), FaultyBucket::default());
    let mut archiver = world.archiver(&bucket).await.expect("opened");
    let before = world.engine().source().end().next_sequence;
    for operations in [1, 2, 1] {
        world.act(operations).await;
        while archiver.pack().expect("packed") > 0 {}
        assert_eq!(
            archiver.reached().next_sequence,
            before,
            "nothing is archived yet"
        );
    }
    world.act(1).await;
    assert!(!archiver.step(false).await.expect("copied"));
    assert_eq!(journal(&bucket).await.len(), 1);
    assert_eq!(archiver.reached(), world.engine().source().end());
    check_newest(&bucket, world.model()).await;
}

#[tokio::test]
async fn a_packing_step_exceeds_its_limit_by_less_than_one_group() {
    let (mut world, bucket) = (World::new(72), FaultyBucket::default());
    let mut archiver = world.archiver(&bucket).await.expect("opened");
    let (source, first) = (world.engine().source(), archiver.reached().next_sequence);
    world.act(60).await;
    let groups = source.read(first, usize::MAX).expect("read");
    let longest = groups.iter().map(|group| group.payload.len()).max();
    let longest = longest.expect("some groups");
    let (mut packed, mut stretches) = (0, 0);
    loop {
        let bytes = archiver.pack().expect("packed");
        assert!(bytes < STRETCH_BYTES + longest, "{bytes}");
        if bytes == 0 {
            break;
        }
        (packed, stretches) = (packed + bytes, stretches + 1);
    }
    assert!(stretches > 1 && archiver.is_full(), "{stretches}");
    assert!(packed >= OBJECT_BYTES_MAX && packed < OBJECT_BYTES_MAX + STRETCH_BYTES + longest);
    // The same for the parts of a checkpoint.
    world.engine().checkpoint().expect("written");
    let held = source
        .hold_checkpoint()
        .expect("held")
        .expect("there is one");
    let (store, first) = (source.store().identity, held.begin.next_sequence);
    let (bytes, mut raw) = (held.bytes, Vec::new());
    let mut parts = Parts::new(held, store, 7).expect("a packer");
    let (mut grown, mut count) = (0_u64, 0);
    loop {
        match parts.step().expect("packed") {
            Step::Grown => grown += 1,
            Step::Part(number, part) => {
                assert_eq!(number, count);
                count += 1;
                let name = object::part_name(7, first, number);
                let part = object::decode_part(&name, &part, store, 7, first, number);
                raw.extend_from_slice(&part.expect("whole"));
            }
            Step::End => break,
        }
    }
    assert_eq!(raw.len() as u64, bytes);
    assert!(grown >= bytes / STRETCH_BYTES as u64, "{grown} stretches");
}

#[tokio::test]
async fn no_group_is_lost_when_packing_fails_at_any_call() {
    let (mut world, bucket) = (World::new(73), FaultyBucket::default());
    let mut archiver = world.archiver(&bucket).await.expect("opened");
    let mut failed = 0;
    for call in 0..30 {
        world.act(3).await;
        fail_packing_after(call);
        let before = archiver.reached();
        // Some groups are packed before the object is due.
        let packed = archiver.pack().map(drop);
        let outcome = match packed {
            Ok(()) => archiver.step(true).await.map(drop),
            Err(error) => Err(error),
        };
        if will_packing_fail() {
            outcome.expect("there were fewer calls");
        } else {
            let error = outcome.expect_err("the encoder failed");
            assert!(matches!(error, Error::Source(_)), "{error}");
            assert!(error.to_string().contains("packing: no memory"), "{error}");
            assert_eq!(archiver.reached(), before);
            failed += 1;
        }
        copy_all(&mut archiver).await.expect("copied");
        check_newest(&bucket, world.model()).await;
    }
    assert!(failed > 4, "{failed}");
    let state = &world.states[world.states.len() / 2];
    let (found, _) = restored(&bucket, Target::At(state.at)).await.expect("kept");
    assert_eq!(found, state.model);
}

#[tokio::test]
async fn a_checkpoint_is_copied_again_after_its_packing_fails() {
    let (mut world, bucket) = (World::new(74), FaultyBucket::default());
    world.act(40).await;
    world.engine().checkpoint().expect("written");
    let mut archiver = world.archiver(&bucket).await.expect("opened");
    archiver.step(false).await.expect("copied");
    assert!(archiver.is_copying());
    fail_packing_after(2);
    archiver.finish_upload().await;
    assert!(!will_packing_fail(), "it was packed");
    let error = archiver
        .step(false)
        .await
        .expect_err("it failed")
        .to_string();
    assert!(error.contains("packing: no memory"), "{error}");
    copy_all(&mut archiver).await.expect("copied");
    let (manifest, _) = bucket
        .bucket()
        .manifest()
        .await
        .expect("read")
        .expect("there");
    assert_eq!(manifest.checkpoints.len(), 1);
    check_newest(&bucket, world.model()).await;
}

/// An archiver that must leave CPU time to others pauses between packing steps, and still copies
/// everything.
#[tokio::test]
async fn an_archiver_that_pauses_between_packing_steps_copies_everything() {
    let (mut world, bucket) = (World::new(75), FaultyBucket::default());
    let clock = Arc::new(SystemClock::new());
    let pacing = Arc::new(Pacing::new(Mode::Always, clock.clone(), ()));
    let source = world.engine().source();
    let opened = Archiver::open(
        bucket.bucket(),
        source,
        (clock, Some(pacing)),
        settings(),
        Metrics::default(),
    );
    let mut archiver = opened.await.expect("opened");
    world.act(80).await;
    world.engine().checkpoint().expect("written");
    copy_all(&mut archiver).await.expect("copied");
    check_newest(&bucket, world.model()).await;
}
