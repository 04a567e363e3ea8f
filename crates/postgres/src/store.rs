//! The store: opens the connections, hands out clients.

use crate::{
    Clock, Metrics, OpenError, Random, Settings, SystemClock, Target, lookups,
    queue::{Lane, Lookup, Operation, Queue},
    system_random,
    worker::{self, Shared},
};
use std::{
    sync::{Arc, mpsc},
    thread::{self, JoinHandle},
};
use tokio::{runtime, sync::oneshot, task::JoinSet};
use widgets_registry::{Command, Fault, Rejection, SerialNumber, Store, Widget};

/// Widgets in a PostgreSQL database, over a few connections in a thread of their own. Dropping it
/// answers everything that waits.
pub struct Postgres<C = SystemClock> {
    shared: Arc<Shared<C>>,
    connections: Option<JoinHandle<()>>,
}

/// A way to ask the store. Clones share it.
pub struct Client<C = SystemClock> {
    queue: Arc<Queue>,
    clock: Arc<C>,
}

impl Postgres {
    /// Opens the store. A database whose schema is another one is an error; one that cannot be
    /// reached is tried again and again, and meanwhile operations are refused (WG504).
    pub fn open(target: Target, settings: Settings) -> Result<Self, OpenError> {
        Self::open_with(target, settings, SystemClock::new(), system_random)
    }
}

impl<C: Clock> Postgres<C> {
    /// The same, with any clock and randomness.
    pub fn open_with(
        target: Target,
        settings: Settings,
        clock: C,
        random: Random,
    ) -> Result<Self, OpenError> {
        settings.check()?;
        let io = |what| move |source| OpenError::Io { what, source };
        let queue = Arc::new(Queue::new(&settings));
        let metrics = Metrics::new(queue.clone())
            .map_err(|error| io("making the metrics")(std::io::Error::other(error.to_string())))?;
        let shared = Arc::new(Shared {
            target,
            settings,
            queue,
            clock: Arc::new(clock),
            random,
            metrics,
            up: Default::default(),
        });
        let runtime = runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(io("making the runtime of the connections"))?;
        let (first, connected) = mpsc::channel();
        let connections = shared.clone();
        let connections = thread::Builder::new()
            .name("database".into())
            .spawn(move || runtime.block_on(run(connections, first)))
            .map_err(io("starting the thread of the connections"))?;
        let store = Self {
            shared,
            connections: Some(connections),
        };
        match connected.recv() {
            Ok(Err(error @ OpenError::Schema(_))) => Err(error),
            _ => Ok(store),
        }
    }

    /// A way to ask it.
    #[must_use]
    pub fn client(&self) -> Client<C> {
        Client {
            queue: self.shared.queue.clone(),
            clock: self.shared.clock.clone(),
        }
    }

    /// What it counts.
    #[must_use]
    pub fn metrics(&self) -> &Metrics {
        &self.shared.metrics
    }
}

async fn run<C: Clock>(shared: Arc<Shared<C>>, first: mpsc::Sender<Result<(), OpenError>>) {
    let mut connections = JoinSet::new();
    for _ in 0..shared.settings.connections {
        let first = first.clone();
        // Only the first word is heard.
        let first = move |outcome| drop(first.send(outcome));
        connections.spawn(worker::run(shared.clone(), first));
    }
    for number in 0..shared.settings.lookup_connections {
        connections.spawn(lookups::run(shared.clone(), number == 0));
    }
    drop(first);
    while let Some(ended) = connections.join_next().await {
        if let Err(error) = ended {
            tracing::error!(%error, "a connection's task failed");
        }
    }
}

impl<C> Drop for Postgres<C> {
    fn drop(&mut self) {
        self.shared.queue.close();
        if let Some(connections) = self.connections.take() {
            // A panic has been reported by its thread.
            drop(connections.join());
        }
    }
}

impl<C> Clone for Client<C> {
    fn clone(&self) -> Self {
        Self {
            queue: self.queue.clone(),
            clock: self.clock.clone(),
        }
    }
}

impl<C: Clock> Store for Client<C> {
    async fn submit(&self, command: Command) -> Result<(), Rejection> {
        let (reply, answer) = oneshot::channel();
        self.queue.push(Operation {
            command,
            arrived: self.clock.now(),
            reply,
        })?;
        answer.await.unwrap_or_else(|_| Err(stopped().into()))
    }

    async fn lookup(&self, serial_number: SerialNumber) -> Result<Option<Widget>, Fault> {
        let (reply, answer) = oneshot::channel();
        self.queue.push_lookup(Lookup {
            serial_number,
            arrived: self.clock.now(),
            reply,
        })?;
        answer.await.unwrap_or_else(|_| Err(stopped()))
    }

    async fn ready(&self) -> Result<(), Fault> {
        if let Some(reason) = self.queue.unreachable(Lane::Operations) {
            return Err(Fault::Unavailable { reason });
        }
        // Whether there is such a widget does not matter: what counts is that the database answers.
        match SerialNumber::new("probe", "ready") {
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
