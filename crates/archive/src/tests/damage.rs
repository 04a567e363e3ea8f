//! Every object in turn is damaged or missing: the error names it, and if it is not needed, a
//! restore succeeds.

use super::{
    bucket::FaultyBucket,
    world::{World, copy_all, restored},
};
use crate::{Target, bucket::Replaced, verify};
use futures_util::TryStreamExt as _;
use object_store::{ObjectStore as _, ObjectStoreExt as _, PutPayload};

#[tokio::test]
async fn a_damaged_object_is_named_and_never_restored_as_a_wrong_state() {
    let (mut world, bucket) = (World::new(11), FaultyBucket::default());
    let mut archiver = world.archiver(&bucket).await.expect("opened");
    for _ in 0..6 {
        world.act(15).await;
        world.engine().checkpoint().expect("written");
        copy_all(&mut archiver).await.expect("copied");
    }
    world.act(10).await;
    copy_all(&mut archiver).await.expect("copied");
    let listing = bucket.inside().list(None);
    let objects: Vec<_> = listing.try_collect().await.expect("listed");
    let (mut went_on, mut failed) = (0, 0);
    for object in &objects {
        for is_gone in [false, true] {
            let damaged = bucket.copy();
            let path = &object.location;
            if is_gone {
                damaged.inside().delete(path).await.expect("removed");
            } else {
                let bytes = damaged.inside().get(path).await.expect("there");
                let mut bytes = bytes.bytes().await.expect("read").to_vec();
                let middle = bytes.len() / 2;
                bytes[middle] ^= 4;
                let payload = PutPayload::from(bytes);
                damaged.inside().put(path, payload).await.expect("put");
            }
            let name = path.as_ref();
            match verify(&damaged.bucket(), |_, _| {}).await {
                Ok((_, report)) => {
                    let named = report.problems.iter().any(|it| it.object == name);
                    assert!(named, "{name}: {:?}", report.problems);
                }
                Err(error) => assert!(name == "manifest", "{name}: {error}"),
            }
            match restored(&damaged, Target::Newest).await {
                Ok((found, told)) => {
                    assert_eq!(&found, world.model(), "{name}");
                    went_on += 1;
                    let is_checkpoint = name.starts_with("checkpoint");
                    assert!(told.damaged.is_empty() || is_checkpoint);
                }
                Err(error) => {
                    failed += 1;
                    let text = error.to_string();
                    let is_manifest = name == "manifest" && text.contains("no archive");
                    assert!(text.contains(name) || is_manifest, "{name}: {text}");
                }
            }
        }
    }
    assert!(went_on > 5 && failed > 1, "{went_on} {failed}");
}

/// The checksum at the end of the journal in the manifest is changed. The report then names the
/// entry at which the journal ends, and no missing entries.
#[tokio::test]
async fn a_journal_that_contradicts_the_manifest_is_reported_with_its_end() {
    let (mut world, bucket) = (World::new(12), FaultyBucket::default());
    let mut archiver = world.archiver(&bucket).await.expect("opened");
    world.act(15).await;
    copy_all(&mut archiver).await.expect("copied");
    let (mut manifest, version) = bucket
        .bucket()
        .manifest()
        .await
        .expect("read")
        .expect("there");
    let last = manifest.stretches.last_mut().expect("one that wrote");
    last.end.chain.0 ^= 1;
    manifest.revision += 1;
    let replaced = bucket.bucket().replace(&manifest, Some(&version)).await;
    assert!(matches!(replaced, Ok(Replaced::Done(_))));
    let (manifest, report) = verify(&bucket.bucket(), |_, _| {}).await.expect("verified");
    let end = manifest.stretches.last().expect("it").end.next_sequence - 1;
    let defects: Vec<_> = report
        .problems
        .iter()
        .map(|it| it.defect.as_str())
        .collect();
    let expected = format!("its groups lead to entry {end}, and not to what the manifest says");
    assert!(defects.contains(&expected.as_str()), "{defects:?}");
}

/// A manifest may name 2^32 parts, and requesting each of them would take forever.
#[tokio::test]
async fn verify_does_not_request_every_missing_checkpoint_part() {
    let (mut world, bucket) = (World::new(13), FaultyBucket::default());
    let mut archiver = world.archiver(&bucket).await.expect("opened");
    for _ in 0..6 {
        world.act(15).await;
        world.engine().checkpoint().expect("written");
        copy_all(&mut archiver).await.expect("copied");
    }
    let read = bucket.bucket().manifest().await.expect("read");
    let (mut manifest, version) = read.expect("there");
    let checkpoint = manifest.checkpoints.last_mut().expect("one");
    let parts = checkpoint.parts as usize;
    checkpoint.parts = u32::MAX;
    manifest.revision += 1;
    let replaced = bucket.bucket().replace(&manifest, Some(&version)).await;
    assert!(matches!(replaced, Ok(Replaced::Done(_))));
    let (_, report) = verify(&bucket.bucket(), |_, _| {}).await.expect("verified");
    let last = &report.problems[report.problems.len() - 1];
    assert!(
        last.defect.contains("the manifest says 4294967295"),
        "{last:?}"
    );
    // At most `MISSING_MAX` missing parts are requested. The others are problems with the end.
    assert!(report.problems.len() <= 66 + parts, "{:?}", report.problems);
}
