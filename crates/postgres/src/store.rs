//! The store: opens the connections and hands out clients.

use crate::{
    Metrics, OpenError, Random, Settings, Target,
    changes::{PostgresFeed, Reads, Tail},
    follow,
    link::{Failing, Link},
    lists,
    locked::Locked,
    lookups,
    nodes::Known,
    queue::{Lane, Queue},
    shared::Shared,
    system_random, worker,
};
use std::{
    sync::{Arc, Mutex, mpsc},
    thread::{self, JoinHandle},
};
use tokio::{runtime, task::JoinSet};
use widgets_clock::{Clock, SystemClock};

/// Widgets in a PostgreSQL database. One thread drives all connections. Dropping the store answers
/// everything that is waiting.
pub struct Postgres<C = SystemClock> {
    shared: Arc<Shared<C>>,
    connections: Option<JoinHandle<()>>,
}

/// A handle for asking the store. Clones share the store.
pub type Client = widgets_queue::Client<Queue>;

impl Postgres {
    /// Opens the store. Returns an error if this program cannot work with the database's schema. If
    /// the database cannot be reached, the store keeps trying to connect and meanwhile refuses
    /// operations (WG504).
    pub fn open(target: Target, settings: Settings) -> Result<Self, OpenError> {
        Self::open_with(target, settings, SystemClock::new(), system_random)
    }
}

impl<C: Clock> Postgres<C> {
    /// Opens the store with the given clock and source of randomness.
    pub fn open_with(
        target: Target,
        settings: Settings,
        clock: C,
        random: Random,
    ) -> Result<Self, OpenError> {
        settings.check()?;
        let io = |what| move |source| OpenError::Io { what, source };
        let (feed, reads) = Tail::new();
        let feed = Arc::new(feed);
        let told = Arc::new(PostgresFeed(feed.clone()));
        let queue = Arc::new(Queue::new(&settings, told));
        let locked = Arc::new(Locked::new(&settings));
        let metrics = Metrics::new(queue.clone(), locked.clone())
            .map_err(|error| io("making the metrics")(std::io::Error::other(error.to_string())))?;
        let shared = Arc::new(Shared {
            target,
            settings,
            queue,
            locked,
            clock: Arc::new(clock),
            random,
            metrics,
            links: Default::default(),
            failing: Failing::default(),
            nodes: Known::default(),
            feed,
            failing_since: Mutex::default(),
        });
        let runtime = runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(io("making the runtime of the connections"))?;
        let (first, connected) = mpsc::channel();
        let connections = shared.clone();
        let connections = thread::Builder::new()
            .name("database".into())
            .spawn(move || runtime.block_on(run(connections, first, reads)))
            .map_err(io("starting the thread of the connections"))?;
        let store = Self {
            shared,
            connections: Some(connections),
        };
        // If the channel closes without a message, the thread has ended and has logged why.
        connected.recv().unwrap_or(Ok(())).map(|()| store)
    }

    /// Returns a client of this store.
    #[must_use]
    pub fn client(&self) -> Client {
        Client::new(self.shared.queue.clone(), self.shared.clock.clone())
    }

    /// Returns the store's metrics.
    #[must_use]
    pub fn metrics(&self) -> &Metrics {
        &self.shared.metrics
    }
}

async fn run<C: Clock>(
    shared: Arc<Shared<C>>,
    first: mpsc::Sender<Result<(), OpenError>>,
    reads: Reads,
) {
    let mut link = Link::new(shared.clone(), Lane::Operations);
    // This connection is opened before the others, because each of them would report the same wrong
    // schema.
    let opened = link.open().await;
    let is_open = opened.is_ok();
    drop(first.send(opened));
    if !is_open {
        return;
    }
    let mut connections = JoinSet::new();
    connections.spawn(worker::run(shared.clone(), link));
    for _ in 1..shared.settings.connections {
        let link = Link::new(shared.clone(), Lane::Operations);
        connections.spawn(worker::run(shared.clone(), link));
    }
    for number in 0..shared.settings.lookup_connections {
        connections.spawn(lookups::run(shared.clone(), number == 0));
    }
    for _ in 0..shared.settings.list_connections {
        connections.spawn(lists::run(shared.clone()));
    }
    connections.spawn(follow::read(shared.clone(), reads));
    connections.spawn(follow::follow(shared.clone()));
    while let Some(ended) = connections.join_next().await {
        if let Err(error) = ended {
            tracing::error!(%error, "a connection's task failed");
        }
    }
}

impl<C> Drop for Postgres<C> {
    fn drop(&mut self) {
        self.shared.queue.close();
        self.shared.feed.close();
        if let Some(connections) = self.connections.take() {
            // The thread has already reported its panic.
            drop(connections.join());
        }
    }
}
