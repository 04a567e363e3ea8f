//! The engine: opens the data directory, runs the owner's thread, hands out clients.

use crate::{
    Clock, DataDirectory, Disk, OpenError, Random, SystemClock,
    journal::Journal,
    mailbox::{Address, Mailbox},
    owner::Owner,
    queue::{Queue, Request, Submission},
    state::State,
};
use std::{
    hash::{BuildHasher, RandomState},
    path::Path,
    sync::Arc,
    thread::{self, JoinHandle},
};
use tokio::sync::oneshot;
use widgets_registry::{Command, Fault, Rejection, SerialNumber, Store, Widget};

/// How the engine is set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// How many requests may wait, and so how many a batch can have. Default 2,048.
    pub queue_operations_max: usize,
    /// How many bytes of text the waiting requests may have together. Default 4 MiB.
    pub queue_bytes_max: usize,
    /// How long a request may wait before it is refused, in milliseconds. Default 5,000.
    pub queue_wait_ms_max: u64,
    /// The size of a segment of the journal, in bytes. Default 64 MiB.
    pub segment_bytes: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            queue_operations_max: 2048,
            queue_bytes_max: 4 << 20,
            queue_wait_ms_max: 5000,
            segment_bytes: 64 << 20,
        }
    }
}

impl Settings {
    /// Checks each setting and how they hang together.
    pub fn check(&self) -> Result<(), OpenError> {
        let batch = crate::format::group_bytes_max(self.queue_operations_max);
        let least = batch + crate::format::SEGMENT_DATA_OFFSET;
        let refuse = |setting, limit, given| {
            Err(OpenError::Setting {
                setting,
                limit,
                given,
            })
        };
        if !(1..=65_536).contains(&self.queue_operations_max) {
            let given = self.queue_operations_max as u64;
            return refuse("queue_operations_max", "1 to 65536".into(), given);
        }
        if self.queue_bytes_max < 4096 {
            return refuse(
                "queue_bytes_max",
                "at least 4096".into(),
                self.queue_bytes_max as u64,
            );
        }
        if !(least..1 << 32).contains(&self.segment_bytes) {
            let limit = format!("at least {least} (a whole batch) and less than 4294967296");
            return refuse("segment_bytes", limit, self.segment_bytes);
        }
        Ok(())
    }
}

/// The embedded store. Closing it answers everything that waits.
pub struct Engine<C = SystemClock> {
    queue: Arc<Queue>,
    clock: Arc<C>,
    owner: Option<JoinHandle<()>>,
}

/// A way to ask the engine. Clones share it.
pub struct Client<C = SystemClock> {
    queue: Arc<Queue>,
    clock: Arc<C>,
    reply_to: Address,
}

impl Engine {
    /// Opens a data directory of the operating system, making it where it is missing.
    pub fn open(path: &Path, settings: &Settings) -> Result<Self, OpenError> {
        settings.check()?;
        let what = format!("opening the data directory {}", path.display());
        let disk = DataDirectory::open(path).map_err(OpenError::io(what))?;
        let disk = disk.ok_or(OpenError::Locked)?;
        // Keyed by the operating system's randomness, in every process and every call.
        let random = Box::new(|| RandomState::new().hash_one(0u8));
        Self::open_on(disk, SystemClock::new(), random, settings)
    }
}

impl<C: Clock> Engine<C> {
    /// Opens a store on any disk, clock and randomness.
    pub fn open_on<D: Disk>(
        disk: D,
        clock: C,
        random: Random,
        settings: &Settings,
    ) -> Result<Self, OpenError> {
        settings.check()?;
        let mut state = State::default();
        let journal = Journal::open(disk, random, settings.segment_bytes, &mut state)?;
        state.finish_replay();
        let counts = state.counts();
        tracing::info!(
            widgets = counts.widgets,
            associations = counts.associations,
            next_sequence = journal.next_sequence(),
            "store opened"
        );
        let (queue, clock) = (Arc::new(Queue::new(settings)), Arc::new(clock));
        let mut owner = Owner::new(state, journal, clock.clone(), settings);
        let owner_queue = queue.clone();
        let owner = thread::Builder::new()
            .name("owner".into())
            .spawn(move || {
                let mut batch = Vec::new();
                while owner_queue.take(&mut batch, owner.post_office()) {
                    owner.step(&mut batch);
                    if let Some(reason) = owner.stopped() {
                        owner_queue.set_read_only(reason);
                    }
                }
            })
            .map_err(OpenError::io("starting the owner's thread"))?;
        Ok(Self {
            queue,
            clock,
            owner: Some(owner),
        })
    }

    /// A way to ask it.
    #[must_use]
    pub fn client(&self) -> Client<C> {
        Client {
            queue: self.queue.clone(),
            clock: self.clock.clone(),
            reply_to: Address::Task,
        }
    }
}

impl<C> Drop for Engine<C> {
    fn drop(&mut self) {
        self.queue.close();
        if let Some(owner) = self.owner.take() {
            // A panic of the owner has been reported by its thread.
            drop(owner.join());
        }
    }
}

impl<C> Clone for Client<C> {
    fn clone(&self) -> Self {
        Self {
            queue: self.queue.clone(),
            clock: self.clock.clone(),
            reply_to: self.reply_to,
        }
    }
}

impl<C: Clock> Client<C> {
    /// A client for tasks of the current tokio runtime, which gets its answers in bulk: the runtime
    /// is woken once for a batch, and not once for each answer. Answers are delivered as long as
    /// that runtime runs.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    #[must_use]
    pub fn on_current_runtime(&self) -> Self {
        Self {
            reply_to: self.queue.register(Mailbox::on_current_runtime()),
            ..self.clone()
        }
    }

    fn push(&self, request: Request) -> Result<(), Fault> {
        self.queue.push(Submission {
            request,
            reply_to: self.reply_to,
            arrived: self.clock.now(),
        })
    }
}

impl<C: Clock> Store for Client<C> {
    async fn submit(&self, command: Command) -> Result<(), Rejection> {
        let (reply, answer) = oneshot::channel();
        self.push(Request::Command(command, reply))?;
        answer.await.unwrap_or_else(|_| Err(stopped().into()))
    }

    async fn lookup(&self, serial_number: SerialNumber) -> Result<Option<Widget>, Fault> {
        let (reply, answer) = oneshot::channel();
        self.push(Request::Lookup(serial_number, reply))?;
        answer.await.unwrap_or_else(|_| Err(stopped()))
    }

    async fn ready(&self) -> Result<(), Fault> {
        if let Some(reason) = self.queue.read_only() {
            return Err(Fault::Unavailable { reason });
        }
        // Whether there is such a widget does not matter: what counts is that the owner answers.
        let probe = SerialNumber::new("probe", "ready");
        match probe {
            Ok(serial_number) => self.lookup(serial_number).await.map(drop),
            Err(refusal) => unreachable!("the probe is within its limits: {refusal}"),
        }
    }
}

fn stopped() -> Fault {
    Fault::FateUnknown {
        reason: "the store stopped before it answered".into(),
    }
}
