//! A store in use, its state at every position, and restores that are compared with these.

use super::bucket::FaultyBucket;
use crate::{Archiver, Error, Metrics, Settings, Target, restore, verify};
use std::{path::Path, sync::Arc, time::Duration};
use tempfile::TempDir;
use widgets_clock::SystemClock;
use widgets_conformance::{
    Model,
    commands::{add_widget, associate_widgets, remove_association, remove_widget, serial_number},
};
use widgets_engine::{Bulk, Client, DataDirectory, Engine, NoStore};
use widgets_registry::{Command, Kinds as _, Port, Position};

/// The state of the store after an operation.
pub(super) struct State {
    pub(super) position: Position,
    pub(super) at: u64,
    pub(super) model: Model,
}

/// A store in use.
pub(super) struct World {
    pub(super) directory: TempDir,
    pub(super) engine: Option<Engine>,
    pub(super) states: Vec<State>,
    seed: u64,
}

/// Small segments, many checkpoints, and nothing kept except for the archiver.
pub(super) fn small() -> widgets_engine::Settings {
    widgets_engine::Settings {
        queue_operations_max: 2,
        segment_bytes: 8 << 10,
        checkpoint_journal_bytes: 6 << 10,
        changes_retention_bytes: 0,
        held_bytes_max: 1 << 20,
        ..widgets_engine::Settings::default()
    }
}

pub(super) fn settings() -> Settings {
    Settings {
        interval: Duration::from_millis(10),
        checkpoint_age: Duration::from_hours(1),
        checkpoint_journal_bytes: 4 << 10,
    }
}

impl World {
    pub(super) fn new(seed: u64) -> Self {
        let directory = tempfile::tempdir().expect("a folder");
        Self::at(directory, seed, Model::default(), &small())
    }

    pub(super) fn with(seed: u64, settings: &widgets_engine::Settings) -> Self {
        let directory = tempfile::tempdir().expect("a folder");
        Self::at(directory, seed, Model::default(), settings)
    }

    /// Opens an existing store.
    pub(super) fn at(
        directory: TempDir,
        seed: u64,
        model: Model,
        settings: &widgets_engine::Settings,
    ) -> Self {
        let engine = Engine::open(&directory.path().join("data"), settings).expect("opened");
        let mut world = Self {
            directory,
            engine: Some(engine),
            states: Vec::new(),
            seed,
        };
        world.note(model);
        world
    }

    pub(super) fn engine(&self) -> &Engine {
        self.engine.as_ref().expect("it runs")
    }

    pub(super) fn client(&self) -> Client {
        self.engine().client()
    }

    pub(super) fn model(&self) -> &Model {
        &self.states.last().expect("at least the beginning").model
    }

    fn note(&mut self, model: Model) {
        let source = self.engine().source();
        let end = source.end();
        let sequence = end.next_sequence - 1;
        let epochs = &source.store().epochs;
        let began = epochs.iter().rev().find(|it| it.first_sequence <= sequence);
        let position = Position {
            store: source.store().identity,
            epoch: began.map_or(1, |epoch| epoch.number),
            sequence,
        };
        self.states.push(State {
            position,
            at: end.at,
            model,
        });
    }

    /// Runs operations until this many are accepted.
    pub(super) async fn act(&mut self, operations: usize) {
        let client = self.client();
        let until = self.states.len() + operations;
        while self.states.len() < until {
            let command = self.command();
            let mut model = self.model().clone();
            let expected = model.apply(&command).is_ok();
            let answer = client.submit(command).await;
            assert_eq!(answer.is_ok(), expected, "{answer:?}");
            if expected {
                self.note(model);
            }
        }
    }

    fn below(&mut self, end: usize) -> usize {
        self.seed = self.seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.seed ^ (self.seed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        usize::try_from((mixed ^ (mixed >> 27)) % end as u64).expect("below a usize")
    }

    /// Returns a random operation on few widgets, so that they often meet.
    fn command(&mut self) -> Command {
        let (one, step) = (self.below(12), 1 + self.below(11));
        let name = "n".repeat(self.below(400));
        let port = [Port::P, Port::Q][self.below(2)];
        let slots = ["", "P", "QP", "PPQ"][self.below(4)];
        let sn = |number: usize| serial_number(&format!("w{number}"));
        let (one, other) = (sn(one), sn((one + step) % 12));
        match self.below(10) {
            0..4 => add_widget(&one, &name, slots),
            4..6 => remove_widget(&one),
            6..9 => associate_widgets(&one, &other, port),
            _ => remove_association(&one, &other, port),
        }
    }

    pub(super) async fn archiver(&self, bucket: &FaultyBucket) -> Result<Archiver, Error> {
        let source = self.engine().source();
        let clock = Arc::new(SystemClock::new());
        Archiver::open(
            bucket.bucket(),
            source,
            (clock, None),
            settings(),
            Metrics::default(),
        )
        .await
    }
}

/// Copies everything there is, including a checkpoint that is due.
pub(super) async fn copy_all(archiver: &mut Archiver) -> Result<(), Error> {
    loop {
        archiver.step(true).await?;
        archiver.finish_upload().await;
        let is_more = archiver.step(false).await?;
        if !is_more && !archiver.is_copying() {
            return Ok(());
        }
        archiver.finish_upload().await;
    }
}

/// Returns what a directory contains.
pub(super) fn held(path: &Path) -> Model {
    let directory = DataDirectory::open(path, NoStore::Refuse).expect("a store");
    let bulk = Bulk::open(directory, &small()).expect("opened");
    Model::from_lookups(bulk.widgets()).expect("both sides of each association")
}

/// Restores a moment and returns the state and the report.
pub(super) async fn restored(
    bucket: &FaultyBucket,
    target: Target,
) -> Result<(Model, crate::Restore), Error> {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("data");
    let told = restore(&bucket.bucket(), &path, target, &small(), |_| {}).await?;
    Ok((held(&path), told))
}

/// Checks that the archive is intact, and that its newest moment is this state.
pub(super) async fn check_newest(bucket: &FaultyBucket, expected: &Model) {
    let (_, report) = verify(&bucket.bucket(), |_, _| {}).await.expect("verified");
    assert_eq!(report.problems, []);
    let (found, _) = restored(bucket, Target::Newest).await.expect("restored");
    assert_eq!(&found, expected);
}
