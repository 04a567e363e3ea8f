//! The engine for simulations: a disk in memory, and parts that make a step when they are told to,
//! all in one thread.
//!
//! Only for tests: those of this crate and, through the feature `simulation`, those of crates that
//! build on it.
#![expect(
    clippy::expect_used,
    clippy::missing_panics_doc,
    reason = "only tests use it"
)]

mod disk;

pub use crate::planted::{Bug, plant};
pub use disk::{Chance, Faults, Kept, TestDisk, TestFile};

use crate::{
    Acknowledging, Client, Counts, Disk, Follower, OpenError, Random, Settings, Source,
    acknowledge::Gate,
    checkpoint::{Reply, Writer},
    engine::Parts,
    format::{self, ENTRY_BYTES_MAX},
    journal::prepare::Preparer,
    log::Log,
    owner::Owner,
    queue::{Queue, Submission},
};
use std::{
    collections::VecDeque,
    sync::{Arc, mpsc},
};
use widgets_clock::Clock;
use widgets_pacing::{Mode, Pacing};
use widgets_registry::{ChangeFilter, Changes, FeedError, Position, Widget};

/// A running engine without threads.
pub struct Steps<D: Disk, C: Clock> {
    clock: Arc<C>,
    pub(crate) queue: Arc<Queue>,
    pub(crate) owner: Owner<D::File, C>,
    pub(crate) preparer: Preparer<D, C>,
    pub(crate) writer: Writer<D, C>,
    pub(crate) log: Arc<Log>,
    pub(crate) checkpoint_requests: mpsc::Sender<Reply>,
    gate: Option<Arc<Gate>>,
    batch: VecDeque<Submission>,
    batch_bytes_max: u64,
}

impl<D: Disk, C: Clock> Steps<D, C> {
    /// Recovers the contents of the disk.
    pub fn open(
        disk: &D,
        clock: &Arc<C>,
        random: Random,
        settings: &Settings,
    ) -> Result<Self, OpenError> {
        Self::paced(disk, clock, random, settings, Mode::Never)
    }

    /// Recovers the contents of the disk. `mode` says whether operations accumulate between
    /// commits.
    pub(crate) fn paced(
        disk: &D,
        clock: &Arc<C>,
        random: Random,
        settings: &Settings,
        mode: Mode,
    ) -> Result<Self, OpenError> {
        let pacing = Arc::new(Pacing::new(mode, clock.clone(), ()));
        let parts = Parts::open(disk, clock, random, settings, pacing, 1)?;
        Ok(Self {
            clock: clock.clone(),
            queue: parts.queue,
            owner: parts.owner,
            preparer: parts.preparer,
            writer: Writer::new(
                disk.clone(),
                clock.clone(),
                parts.writer_ends,
                parts.log.clone(),
            ),
            log: parts.log,
            checkpoint_requests: parts.checkpoint_requests,
            gate: parts.gate,
            batch: VecDeque::new(),
            batch_bytes_max: format::group_bytes(settings.queue_operations_max * ENTRY_BYTES_MAX),
        })
    }

    /// Runs the owner's turn. If the owner would wait for the next segment, that is prepared first.
    /// Returns false once the queue is closed and empty.
    pub fn own(&mut self) -> bool {
        if self.would_wait() {
            self.prepare();
        }
        self.owner.turn(&self.queue, &mut self.batch, false)
    }

    /// Reports whether the owner would wait for the next segment of the journal.
    pub(crate) fn would_wait(&self) -> bool {
        self.owner.journal().room() < self.batch_bytes_max
    }

    /// Prepares the next segment of the journal, if it is wanted.
    pub fn prepare(&mut self) {
        if self.preparer.must_step() {
            drop(self.preparer.step());
        }
    }

    /// Runs the next step of the writer of checkpoints.
    pub fn write(&mut self) {
        self.writer.step();
    }

    /// Notifies those that wait for changes.
    pub fn tell(&self) {
        self.log.tell();
    }

    /// Requests a checkpoint, which is then written step by step.
    pub fn want_checkpoint(&self) {
        let (reply, _) = mpsc::channel();
        drop(self.checkpoint_requests.send(reply));
        self.queue.wake();
    }

    /// Returns a widget, if it exists.
    #[must_use]
    pub fn lookup(&self, serial_number: &str) -> Option<Widget> {
        self.owner.state().lookup(serial_number)
    }

    /// Returns how much the store contains.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.owner.state().counts()
    }

    /// Returns up to `limit` changes after a position, as far as they may be shown.
    pub fn changes(&self, after: Position, limit: usize) -> Result<Changes, FeedError> {
        self.log.read(after, &ChangeFilter::default(), limit)
    }

    /// Returns up to `limit` durable changes after a position, whether or not they may be shown.
    pub fn durable_changes(&self, after: Position, limit: usize) -> Result<Changes, FeedError> {
        self.log.read_durable(after, limit)
    }

    /// Returns the position after the newest entry that may be shown. Returns `None` if that is not
    /// known yet.
    #[must_use]
    pub fn newest_shown(&self) -> Option<Position> {
        self.log.newest_shown()
    }

    /// Returns the position after the newest durable entry.
    #[must_use]
    pub fn newest(&self) -> Position {
        self.log.newest()
    }

    /// Returns the position before the oldest entry that is kept.
    #[must_use]
    pub fn oldest(&self) -> Position {
        self.log.oldest()
    }

    /// Returns what copies of the store are made from.
    #[must_use]
    pub fn source(&self) -> Source {
        Source::new(
            self.log.clone(),
            self.checkpoint_requests.clone(),
            self.queue.clone(),
        )
    }

    /// Returns a handle for following a primary and for changing the store's role.
    #[must_use]
    pub fn follower(&self) -> Follower {
        Follower::new(
            self.queue.clone(),
            self.log.clone(),
            self.clock.clone(),
            self.gate.clone(),
        )
    }

    /// Returns the access to the answers that wait for another machine, if answers do.
    #[must_use]
    pub fn acknowledging(&self) -> Option<Acknowledging> {
        self.gate.clone().map(Acknowledging)
    }

    /// Returns a client of the engine.
    #[must_use]
    pub fn client(&self) -> Client {
        Client::new(self.queue.clone(), self.clock.clone())
    }
}
