//! Manual backups: what arrives is what the store contained, whatever happens meanwhile, or else it
//! is unusable.

use super::{
    bucket::FaultyBucket,
    world::{World, check_newest, copy_all, held, small},
};
use crate::{Arrival, Arrived, Backups, Error};
use bytes::Bytes;
use std::{path::Path, sync::Arc};
use tokio::sync::mpsc::Receiver;
use widgets_clock::SystemClock;
use widgets_conformance::commands::{add_widget, serial_number};
use widgets_engine::{Engine, OpenError};
use widgets_pacing::{Mode, Pacing};
use widgets_registry::Kinds as _;

/// A store that keeps only what a restart needs and what is held.
fn forgetful(seed: u64) -> World {
    let settings = widgets_engine::Settings {
        held_bytes_max: 0,
        ..small()
    };
    World::with(seed, &settings)
}

fn backups(world: &World) -> Backups {
    let clock = Arc::new(SystemClock::new());
    let pacing = Arc::new(Pacing::new(Mode::Never, clock.clone(), ()));
    Backups::new(world.engine().source(), clock, pacing, || {})
}

fn give(backups: &Backups) -> Receiver<Bytes> {
    let given = backups.give().expect("a thread");
    given.expect("no other is being given")
}

async fn rest(mut given: Receiver<Bytes>, stream: &mut Vec<u8>) {
    while let Some(piece) = given.recv().await {
        stream.extend_from_slice(&piece);
    }
}

async fn whole(backups: &Backups) -> Vec<u8> {
    let mut stream = Vec::new();
    rest(give(backups), &mut stream).await;
    stream
}

fn take(path: &Path, stream: &[u8]) -> Result<Arrived, Error> {
    Arrival::open(path)?.take(stream, &small(), |_| {})
}

/// Checks that what arrived is what the store contained at that position.
fn check(world: &World, path: &Path, arrived: &Arrived) {
    let state = world.states.iter().rev();
    let mut state = state.filter(|it| it.position.sequence <= arrived.position.sequence);
    let state = state.next().expect("at least the beginning");
    assert_eq!(held(path), state.model, "{}", arrived.position);
    assert_eq!(arrived.position.store, state.position.store);
}

#[tokio::test]
async fn a_backup_restores_the_whole_store_in_a_new_epoch() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut world = World::new(40);
    for round in 0..6 {
        let stream = whole(&backups(&world)).await;
        let path = folder.path().join(format!("{round}"));
        let arrived = take(&path, &stream).expect("taken");
        assert_eq!(held(&path), *world.model(), "round {round}");
        assert_eq!(arrived.bytes, stream.len() as u64);
        // The restored store continues separately, in a new epoch.
        let engine = Engine::open(&path, &small()).expect("opened");
        let source = engine.source();
        let epochs = &source.store().epochs;
        assert_eq!(
            epochs.last().map(|it| it.number),
            Some(arrived.restored.epoch)
        );
        world.act(30).await;
    }
}

#[tokio::test]
async fn a_running_backup_and_the_archive_hold_the_journal_they_need() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut world = World::new(41);
    let bucket = FaultyBucket::default();
    let mut archiver = world.archiver(&bucket).await.expect("opened");
    world.act(120).await;
    let backups = backups(&world);
    let (mut given, mut stream, mut before) = (give(&backups), Vec::new(), 0);
    while let Some(piece) = given.recv().await {
        stream.extend_from_slice(&piece);
        // Only the backup still needs its checkpoint and the journal after it.
        world.act(8).await;
        world.engine().checkpoint().expect("written");
        copy_all(&mut archiver).await.expect("copied");
        before += 1;
    }
    assert!(before > 4, "{before} pieces");
    let path = folder.path().join("data");
    let arrived = take(&path, &stream).expect("taken");
    check(&world, &path, &arrived);
    check_newest(&bucket, world.model()).await;
    // Afterwards nothing is held any more.
    let source = world.engine().source();
    let oldest = source.oldest();
    world.act(60).await;
    copy_all(&mut archiver).await.expect("copied");
    world.engine().checkpoint().expect("written");
    assert!(source.oldest() > oldest, "{oldest}");
}

#[tokio::test]
async fn a_backup_whose_journal_was_deleted_too_early_fails_with_the_reason() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut world = forgetful(42);
    // Several parts, so that the journal is read long after the head was sent.
    for number in 0..100 {
        let serial_number = serial_number(&format!("long{number}"));
        let add = add_widget(&serial_number, &"n".repeat(500), "P");
        world.client().submit(add).await.expect("added");
    }
    let backups = backups(&world).holding(0);
    let (mut given, mut stream) = (give(&backups), Vec::new());
    // The beginning of the stream, then its head.
    for _ in 0..2 {
        stream.extend_from_slice(&given.recv().await.expect("a piece"));
    }
    for _ in 0..3 {
        world.act(60).await;
        world.engine().checkpoint().expect("written");
    }
    rest(given, &mut stream).await;
    let path = folder.path().join("data");
    let error = take(&path, &stream).expect_err("it is gone").to_string();
    assert!(error.contains("held for a backup up to 0 bytes"), "{error}");
    refused_by_a_start(&path);
    let arrived = take(&path, &whole(&backups).await).expect("anew");
    let newest = world.states.last().expect("some").position;
    assert_eq!(arrived.position.sequence, newest.sequence);
}

fn refused_by_a_start(path: &Path) {
    match Engine::open(path, &small()) {
        Err(OpenError::Restoring { .. }) => {}
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("it starts"),
    }
}

#[tokio::test]
async fn a_truncated_or_altered_backup_is_rejected_and_never_served() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut world = World::new(43);
    world.act(60).await;
    let stream = whole(&backups(&world)).await;
    let path = folder.path().join("data");
    let step = stream.len() / 90 + 1;
    for at in (0..stream.len()).step_by(step) {
        let error = take(&path, &stream[..at]).expect_err("it is cut");
        assert!(error.to_string().contains("cut off"), "byte {at}: {error}");
        let mut changed = stream.clone();
        changed[at] ^= 0x40;
        take(&path, &changed).expect_err("it is changed");
        refused_by_a_start(&path);
    }
    // The remains of earlier attempts do no harm.
    let arrived = take(&path, &stream).expect("whole");
    check(&world, &path, &arrived);
    let error = Arrival::open(&path).err().expect("there is a store in it");
    let is_refused = matches!(error, Error::Store(OpenError::NotEmpty { .. }));
    assert!(is_refused, "{error}");
    check(&world, &path, &arrived);
}

#[test]
fn a_backup_that_is_given_up_leaves_no_directory_for_an_empty_store() {
    let folder = tempfile::tempdir().expect("a folder");
    let made = folder.path().join("above/data");
    let arrival = Arrival::open(&made).expect("an empty directory");
    refused_by_a_start(&made);
    arrival.give_up();
    assert!(!folder.path().join("above").exists());
    // Somebody else made this directory, so it stays.
    let there = folder.path().join("there");
    std::fs::create_dir(&there).expect("made");
    Arrival::open(&there).expect("empty").give_up();
    refused_by_a_start(&there);
    Arrival::open(&there).expect("it still counts as empty");
}

#[tokio::test]
async fn only_one_backup_runs_at_a_time_and_a_dropped_one_holds_nothing() {
    let mut world = forgetful(44);
    world.act(60).await;
    let backups = backups(&world);
    let mut first = give(&backups);
    first.recv().await.expect("it begins");
    assert!(backups.give().expect("a thread").is_none());
    drop(first);
    let source = world.engine().source();
    // The thread of the dropped backup notices when it sends the next piece.
    let stream = loop {
        if let Some(given) = backups.give().expect("a thread") {
            let mut stream = Vec::new();
            rest(given, &mut stream).await;
            break stream;
        }
        tokio::task::yield_now().await;
    };
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("data");
    let arrived = take(&path, &stream).expect("taken");
    check(&world, &path, &arrived);
    let oldest = source.oldest();
    world.act(60).await;
    world.engine().checkpoint().expect("written");
    assert!(source.oldest() > oldest, "{oldest}");
}
