//! The engine: opens the data directory, runs the owner's thread, and hands out clients.

use crate::{
    Acknowledging, CheckpointError, Counts, DataDirectory, Disk, Follower, NoStore, OpenError,
    Random, Settings,
    acknowledge::Gate,
    checkpoint::{Checkpoints, Reply, Writer, WriterEnds},
    journal::{
        Journal,
        prepare::{NextSegment, Preparer},
    },
    log::{JournalEnd, Log, Source},
    metrics::Metrics,
    owner::{Known, Owner},
    queue::Queue,
    recovery,
};
use prometheus::Registry;
use std::{
    path::Path,
    sync::{Arc, mpsc},
    thread::{self, JoinHandle},
    time::Duration,
};
use widgets_clock::{Clock, SystemClock};
use widgets_pacing::{Mode, Pacing};
use widgets_queue::DepthMetrics;

/// How many answers may wait for another machine, per request that may be in the queue.
const HELD_ANSWERS: usize = 8;

/// The embedded store. Dropping it answers everything that waits.
pub struct Engine<C = SystemClock> {
    queue: Arc<Queue>,
    log: Arc<Log>,
    gate: Option<Arc<Gate>>,
    clock: Arc<C>,
    metrics: Metrics,
    recovered: Counts,
    checkpoint_requests: mpsc::Sender<Reply>,
    threads: Vec<JoinHandle<()>>,
}

/// Sends requests to the engine. Clones share the engine.
pub type Client = widgets_queue::Client<Queue>;

impl Engine {
    /// Opens a data directory of the operating system, and creates it if it is missing.
    pub fn open(path: &Path, settings: &Settings) -> Result<Self, OpenError> {
        settings.check()?;
        let disk = DataDirectory::open(path, NoStore::Make)?;
        Self::open_on(disk, SystemClock::new(), crate::random(), settings)
    }

    /// Opens a data directory that is already locked. `pacing` decides how commits are spaced.
    pub fn open_in(
        disk: DataDirectory,
        settings: &Settings,
        pacing: Arc<Pacing>,
    ) -> Result<Self, OpenError> {
        let clock = Arc::new(SystemClock::new());
        Self::start(disk, clock, crate::random(), settings, pacing)
    }
}

/// The connected parts of an engine, none of which runs yet. [`Engine`] gives each one a thread; a
/// simulation runs each one step by step.
pub(crate) struct Parts<D: Disk, C> {
    pub(crate) recovered: Counts,
    pub(crate) queue: Arc<Queue>,
    pub(crate) log: Arc<Log>,
    pub(crate) gate: Option<Arc<Gate>>,
    pub(crate) metrics: Metrics,
    pub(crate) owner: Owner<D::File, C>,
    pub(crate) preparer: Preparer<D, C>,
    pub(crate) writer_ends: WriterEnds,
    pub(crate) checkpoint_requests: mpsc::Sender<Reply>,
}

impl<D: Disk, C: Clock> Parts<D, C> {
    /// Recovers the contents of the disk on `threads` threads, and connects the parts.
    pub(crate) fn open(
        disk: &D,
        clock: &Arc<C>,
        mut random: Random,
        settings: &Settings,
        pacing: Arc<Pacing>,
        threads: usize,
    ) -> Result<Self, OpenError> {
        settings.check()?;
        let segment_bytes = settings.segment_bytes;
        let recovered = recovery::recover(disk, &**clock, &mut random, settings, threads)?;
        let log = Arc::new(Log::new(
            recovered.store.clone(),
            disk.clone(),
            recovered.segments,
            JournalEnd {
                next_sequence: recovered.end.next_sequence,
                at: recovered.end.at,
                chain: recovered.end.chain,
            },
            recovered.checkpoint,
            settings,
        ));
        let (end, counts) = (recovered.end, recovered.state.counts());
        let next_segment = Arc::new(NextSegment::new(end.segment.header.number + 1));
        let preparer = Preparer::new(
            disk.clone(),
            clock.clone(),
            random,
            recovered.store.identity,
            segment_bytes,
            next_segment.clone(),
        );
        let (checkpoint_requests, requests) = mpsc::channel();
        let (checkpoints, writer_ends) =
            Checkpoints::new(settings, recovered.checkpoint, end.replayed_bytes, requests);
        let queue = Arc::new(Queue::new(settings, log.clone()));
        let metrics = Metrics::new();
        let gate = settings.standby_timeout_ms.map(|timeout_ms| {
            Arc::new(Gate::new(
                log.clone(),
                queue.clone(),
                clock.clone(),
                metrics.clone(),
                Duration::from_millis(timeout_ms),
                settings.queue_operations_max * HELD_ANSWERS,
            ))
        });
        let kept = disk.clone();
        let known = Known {
            state: recovered.state,
            retries: recovered.retries,
            secret: recovered.store.secret,
            log: log.clone(),
            member: recovered.store.member,
            gate: gate.clone(),
            keep_store: Box::new(move |store| recovery::replace_store(&kept, store)),
        };
        let owner = Owner::new(
            known,
            Journal::new(end, segment_bytes, next_segment),
            checkpoints,
            metrics.clone(),
            clock.clone(),
            pacing,
            settings,
        );
        Ok(Self {
            recovered: counts,
            queue,
            log,
            gate,
            metrics,
            owner,
            preparer,
            writer_ends,
            checkpoint_requests,
        })
    }
}

impl<C: Clock> Engine<C> {
    /// Opens a store on any disk, clock and randomness. Its commits are never delayed.
    pub fn open_on<D: Disk>(
        disk: D,
        clock: C,
        random: Random,
        settings: &Settings,
    ) -> Result<Self, OpenError> {
        let clock = Arc::new(clock);
        let pacing = Arc::new(Pacing::new(Mode::Never, clock.clone(), ()));
        Self::start(disk, clock, random, settings, pacing)
    }

    fn start<D: Disk>(
        disk: D,
        clock: Arc<C>,
        random: Random,
        settings: &Settings,
        pacing: Arc<Pacing>,
    ) -> Result<Self, OpenError> {
        let threads = recovery::threads();
        let Parts {
            recovered,
            queue,
            log,
            gate,
            metrics,
            owner,
            preparer,
            writer_ends,
            checkpoint_requests,
        } = Parts::open(&disk, &clock, random, settings, pacing, threads)?;
        // If a thread cannot be started, dropping the engine ends the others: each one ends when
        // the owner is gone.
        let mut engine = Self {
            queue: queue.clone(),
            log: log.clone(),
            gate,
            clock: clock.clone(),
            metrics,
            recovered,
            checkpoint_requests,
            threads: Vec::new(),
        };
        let (owner_queue, writer_queue) = (queue.clone(), queue);
        engine.spawn("owner", move || owner.run(&owner_queue))?;
        engine.spawn("preparer", move || preparer.run())?;
        let (herald, writer_log) = (log.clone(), log);
        engine.spawn("herald", move || herald.herald_changes())?;
        engine.spawn("checkpoint", move || {
            Writer::new(disk, clock, writer_ends, writer_log).run(|| writer_queue.wake());
        })?;
        Ok(engine)
    }

    fn spawn(&mut self, name: &str, work: impl FnOnce() + Send + 'static) -> Result<(), OpenError> {
        let thread = thread::Builder::new()
            .name(name.into())
            .spawn(work)
            .map_err(OpenError::io(format!("starting the thread {name}")))?;
        self.threads.push(thread);
        Ok(())
    }

    /// Returns how much the data directory contained when it was opened.
    #[must_use]
    pub fn recovered(&self) -> Counts {
        self.recovered
    }

    /// Adds the engine's metrics to a registry.
    pub fn register_metrics(&self, registry: &Registry) -> prometheus::Result<()> {
        self.metrics.register(registry)?;
        registry.register(Box::new(DepthMetrics::new(self.queue.clone())?))
    }

    /// Requests a checkpoint, which is written beside the normal work, and waits for it. That can
    /// take minutes.
    ///
    /// The checkpoint covers everything that was acknowledged before. An error means only that it
    /// was not written.
    pub fn checkpoint(&self) -> Result<(), CheckpointError> {
        self.source().checkpoint()
    }

    /// Returns what copies of the running store are made from.
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

impl<C> Drop for Engine<C> {
    fn drop(&mut self) {
        self.queue.close();
        self.log.close();
        for thread in self.threads.drain(..) {
            // A panic was reported by its thread.
            drop(thread.join());
        }
    }
}
