//! How often an archiver writes while operations never stop.

use super::{
    bucket::{Fault, FaultyBucket},
    world::{World, check_newest, copy_all},
};
use futures_util::TryStreamExt as _;
use object_store::ObjectStore as _;
use widgets_conformance::commands::{add_widget, serial_number};
use widgets_registry::Kinds as _;

async fn pieces(bucket: &FaultyBucket) -> usize {
    let prefix = "journal".into();
    let listed = bucket.inside().list(Some(&prefix));
    let names: Vec<_> = listed.try_collect().await.expect("listed");
    names.len()
}

/// Every request to the bucket adds another widget, so there is always a group that is not
/// archived.
#[tokio::test]
async fn operations_during_an_upload_wait_for_the_next_object() {
    let (mut world, bucket) = (World::new(51), FaultyBucket::default());
    world.act(3).await;
    let mut archiver = world.archiver(&bucket).await.expect("opened");
    let client = world.client();
    bucket.fail(move |number| {
        let client = client.clone();
        let add = add_widget(&serial_number(&format!("meanwhile{number}")), "", "P");
        // On another thread, because this one is in the middle of a request.
        let adding = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().build();
            let added = runtime.expect("a runtime").block_on(client.submit(add));
            added.expect("added");
        });
        adding.join().expect("added");
        None
    });
    let mut written = 0;
    for _ in 0..5 {
        let is_more = archiver.step(false).await.expect("copied");
        assert!(
            !is_more,
            "another object is due for operations that arrived during the upload"
        );
        written += 1;
        assert_eq!(pieces(&bucket).await, written);
        assert!(archiver.reached().next_sequence < world.engine().source().end().next_sequence);
    }
    // An archiver that stops copies everything first.
    bucket.be_well();
    while archiver.step(true).await.expect("copied") {}
    let end = world.engine().source().end();
    assert_eq!(archiver.reached(), end);
}

/// Groups that do not fit into an object are copied at once, without a wait.
#[tokio::test]
async fn a_backlog_is_copied_in_several_objects_without_waiting() {
    let (mut world, bucket) = (World::new(52), FaultyBucket::default());
    let mut archiver = world.archiver(&bucket).await.expect("opened");
    world.act(60).await;
    let mut written = 1;
    while archiver.step(false).await.expect("copied") {
        written += 1;
    }
    assert!(written > 2, "{written} objects");
    assert_eq!(pieces(&bucket).await, written);
    copy_all(&mut archiver).await.expect("copied");
    check_newest(&bucket, world.model()).await;
}

/// After an outage, the archiver must not wait for a new operation before it copies those that were
/// written during the outage.
#[tokio::test]
async fn operations_during_a_failed_upload_are_copied_without_waiting() {
    let (mut world, bucket) = (World::new(53), FaultyBucket::default());
    let mut archiver = world.archiver(&bucket).await.expect("opened");
    world.act(1).await;
    bucket.fail(|_| Some(Fault::Fails));
    archiver.step(false).await.expect_err("the bucket is full");
    world.act(1).await;
    bucket.be_well();
    assert!(archiver.step(false).await.expect("copied"), "there is more");
    assert!(!archiver.step(false).await.expect("copied"), "that was all");
    assert_eq!(archiver.reached(), world.engine().source().end());
}
