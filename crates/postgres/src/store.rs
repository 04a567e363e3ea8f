//! The store: opens the connections, hands out clients.

use crate::{
    Clock, Metrics, OpenError, Random, Settings, SystemClock, Target, lookups,
    queue::{Lane, Lookup, Operation, Queue, Request},
    system_random,
    worker::{self, Shared},
};
use std::{
    sync::{Arc, Mutex, mpsc},
    thread::{self, JoinHandle},
    time::Duration,
};
use tokio::{runtime, sync::oneshot, task::JoinSet};
use widgets_mailbox::{Address, Mailbox};
use widgets_registry::{Command, Fault, Rejection, SerialNumber, Store, Widget};

/// Widgets in a PostgreSQL database, over a few connections in a thread of their own. Dropping it
/// answers everything that waits.
pub struct Postgres<C = SystemClock> {
    shared: Arc<Shared<C>>,
    connections: Option<JoinHandle<()>>,
}

/// A way to ask the store. Clones share it.
pub struct Client<C = SystemClock> {
    shared: Arc<Shared<C>>,
    /// Its runtime's, and the address by which the store knows it.
    mailbox: Option<(Arc<Mailbox<Request>>, Address)>,
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
            post_office: Mutex::default(),
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
            shared: self.shared.clone(),
            mailbox: None,
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
            shared: self.shared.clone(),
            mailbox: self.mailbox.clone(),
        }
    }
}

impl<C: Clock> Client<C> {
    /// A client for tasks of the current tokio runtime, whose requests and answers travel in bulk:
    /// the connections' thread is woken once for all that the runtime read in one go, and the runtime
    /// once for a batch, whose thread is also unparked, should it rest. It asks and is answered as
    /// long as that runtime runs.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    #[must_use]
    pub fn on_current_runtime(&self) -> Self {
        let queue = self.shared.queue.clone();
        let mailbox = Mailbox::on_current_runtime(move |requests| queue.push_all(requests));
        let address = self.shared.post_office().add(mailbox.clone());
        Self {
            shared: self.shared.clone(),
            mailbox: Some((mailbox, address)),
        }
    }

    /// Leads a request to the queue. It is made of when it came and where its answer is to go.
    fn push(&self, request: impl FnOnce(Duration, Address) -> Request) {
        let now = self.shared.clock.now();
        match &self.mailbox {
            None => self.shared.queue.push(request(now, Address::Task)),
            Some((mailbox, address)) => mailbox.submit(request(now, *address)),
        }
    }
}

impl<C: Clock> Store for Client<C> {
    async fn submit(&self, command: Command) -> Result<(), Rejection> {
        let (reply, answer) = oneshot::channel();
        self.push(|arrived, reply_to| {
            Request::Operation(Operation {
                command,
                arrived,
                reply,
                reply_to,
            })
        });
        answer.await.unwrap_or_else(|_| Err(stopped().into()))
    }

    async fn lookup(&self, serial_number: SerialNumber) -> Result<Option<Widget>, Fault> {
        let (reply, answer) = oneshot::channel();
        self.push(|arrived, reply_to| {
            Request::Lookup(Lookup {
                serial_number,
                arrived,
                reply,
                reply_to,
            })
        });
        answer.await.unwrap_or_else(|_| Err(stopped()))
    }

    async fn ready(&self) -> Result<(), Fault> {
        if let Some(reason) = self.shared.queue.unreachable(Lane::Operations) {
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
