//! The archiving process dies at every request, before it or after it. The next process continues,
//! and nothing is lost, duplicated or unreadable.

use super::{
    bucket::FaultyBucket,
    world::{World, check_newest, copy_all},
};

async fn live(world: &mut World, bucket: &FaultyBucket) {
    let Ok(mut archiver) = world.archiver(bucket).await else {
        return;
    };
    for _ in 0..3 {
        world.act(4).await;
        if archiver.step(true).await.is_err() {
            return;
        }
        archiver.finish_upload().await;
    }
    drop(copy_all(&mut archiver).await);
}

#[tokio::test]
async fn archiving_survives_a_crash_at_any_request() {
    let mut world = World::new(5);
    // A checkpoint, so that one is copied as well.
    world.act(30).await;
    world.engine().checkpoint().expect("written");
    let bucket = FaultyBucket::default();
    bucket.be_well();
    live(&mut world, &bucket).await;
    let requests = bucket.requests();
    assert!(requests > 9, "{requests}");
    for request in 0..requests {
        for is_done in [false, true] {
            let bucket = FaultyBucket::default();
            bucket.die_at(request, is_done);
            live(&mut world, &bucket).await;
            // If anything can be restored now, it is a state that existed.
            bucket.be_well();
            if let Ok((found, told)) = super::world::restored(&bucket, crate::Target::Newest).await
            {
                let state = world
                    .states
                    .iter()
                    .rev()
                    .find(|it| it.position.sequence <= told.position.sequence);
                assert_eq!(found, state.expect("some").model, "request {request}");
            }
            let mut archiver = world.archiver(&bucket).await.expect("opened");
            world.act(2).await;
            copy_all(&mut archiver).await.expect("copied");
            check_newest(&bucket, world.model()).await;
        }
    }
}
