//! Connections to the workers of a distributed registry. A batch that concerns one or two of them
//! is sent to one of them, without the coordinator.
//!
//! Any node can answer for any widget, so this affects only speed. If a worker cannot be reached or
//! does not accept a batch, the coordinator gets the batch, and decides whether a node is lost.
//! Operations with idempotency keys always go to the coordinator, because the keys are there.

use crate::{Target, connected::Connected, error::reason, placement::Home, shared::Shared};
use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    str::FromStr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use widgets_clock::Clock;

/// How long a worker that could not be reached is not tried again.
const LEFT_ALONE: Duration = Duration::from_secs(10);

/// Checks that the worker has the functions and the metadata. The functions come there with the
/// table.
const CHECK: &str = "
    SELECT to_regproc('widgets.apply_batch') IS NOT NULL
        AND EXISTS (SELECT FROM pg_catalog.pg_dist_shard WHERE logicalrelid = to_regclass('widgets.widgets'))";

/// How the workers of a distributed registry are reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Nodes {
    /// Only through the coordinator.
    Off,
    /// At the addresses in the catalogs, or at those that replace them here.
    Direct(BTreeMap<String, (String, u16)>),
}

impl Default for Nodes {
    fn default() -> Self {
        Self::Direct(BTreeMap::new())
    }
}

impl Nodes {
    /// Returns the host and port at which to reach a worker, given its address in the catalogs.
    fn address(&self, worker: &str) -> Option<(String, u16)> {
        let Self::Direct(others) = self else {
            return None;
        };
        others
            .get(worker)
            .cloned()
            .or_else(|| host_and_port(worker))
    }
}

/// Parses `off`, `catalog`, or a list of `NAME:PORT=HOST:PORT`.
impl FromStr for Nodes {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text {
            "off" => return Ok(Self::Off),
            "catalog" => return Ok(Self::default()),
            _ => {}
        }
        let mut others = BTreeMap::new();
        for part in text.split(',') {
            let (worker, other) = part.trim().split_once('=').ok_or(())?;
            let known = host_and_port(worker).ok_or(())?;
            let other = host_and_port(other).ok_or(())?;
            if others
                .insert(format!("{}:{}", known.0, known.1), other)
                .is_some()
            {
                return Err(());
            }
        }
        Ok(Self::Direct(others))
    }
}

impl fmt::Display for Nodes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => f.write_str("off"),
            Self::Direct(others) if others.is_empty() => f.write_str("catalog"),
            Self::Direct(others) => {
                let pair = |(worker, (host, port)): (&String, &(String, u16))| {
                    format!("{worker}={host}:{port}")
                };
                let pairs: Vec<String> = others.iter().map(pair).collect();
                f.write_str(&pairs.join(","))
            }
        }
    }
}

fn host_and_port(text: &str) -> Option<(String, u16)> {
    let (host, port) = text.rsplit_once(':')?;
    let port = port.parse().ok().filter(|port| *port > 0)?;
    (!host.is_empty()).then(|| (host.to_owned(), port))
}

/// What all connections of a store know about the workers, by their addresses in the catalogs.
#[derive(Default)]
pub(crate) struct Known(Mutex<HashMap<String, Node>>);

struct Node {
    target: Target,
    /// When it may be tried again.
    not_before: Duration,
    /// Whether the last attempt to connect failed.
    is_failing: bool,
}

impl Known {
    /// Returns where to reach a worker, unless it must not be tried yet.
    fn target<C: Clock>(&self, shared: &Shared<C>, worker: &str) -> Option<Target> {
        let (host, port) = shared.settings.nodes.address(worker)?;
        let mut nodes = self.lock();
        let node = nodes.entry(worker.to_owned()).or_insert_with(|| Node {
            target: shared.target.at(&host, port),
            not_before: Duration::ZERO,
            is_failing: false,
        });
        let now = shared.clock.now();
        if node.not_before > now {
            return None;
        }
        // Prevents other connections from trying it at the same time.
        node.not_before = now + LEFT_ALONE;
        Some(node.target.clone())
    }

    /// Records the outcome of an attempt to connect, and logs it if it differs from the previous
    /// one.
    fn tried(&self, worker: &str, outcome: Result<(), String>) {
        let mut nodes = self.lock();
        let Some(node) = nodes.get_mut(worker) else {
            return;
        };
        match outcome {
            Ok(()) => {
                node.not_before = Duration::ZERO;
                if node.is_failing {
                    tracing::info!(worker, "connected to the worker again");
                }
                node.is_failing = false;
            }
            Err(reason) => {
                if !node.is_failing {
                    tracing::warn!(
                        worker,
                        reason,
                        "no connection to a worker: its operations go through the coordinator"
                    );
                }
                node.is_failing = true;
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Node>> {
        // A panic cannot leave an entry half written.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The connections to workers that accompany one connection to the coordinator.
pub(crate) struct Beside<C: Clock> {
    shared: Arc<Shared<C>>,
    connections: HashMap<String, Connected>,
    /// Which worker of a pair is next.
    turn: bool,
}

impl<C: Clock> Beside<C> {
    pub(crate) fn new(shared: Arc<Shared<C>>) -> Self {
        Self {
            shared,
            connections: HashMap::new(),
            turn: false,
        }
    }

    /// Returns a connection to one of the workers of this home, and that worker's address. Returns
    /// `None` if there is no such connection; the batch then goes to the coordinator.
    pub(crate) async fn connected(&mut self, Home(one, two): Home) -> Option<(&Connected, String)> {
        let placement = self.shared.queue.placement()?;
        self.turn = !self.turn;
        let worker = placement.workers.get(if self.turn { one } else { two })?;
        let known = self.connections.get(worker);
        if known.is_none_or(Connected::is_broken) {
            self.lose(worker);
            let target = self.shared.nodes.target(&self.shared, worker)?;
            let made = connect(&self.shared, &target).await;
            let outcome = match made {
                Ok(connected) => {
                    self.shared
                        .metrics
                        .node_connections
                        .with_label_values(&[worker])
                        .inc();
                    self.connections.insert(worker.clone(), connected);
                    Ok(())
                }
                Err(reason) => {
                    self.shared.metrics.failed_at(worker);
                    Err(reason)
                }
            };
            self.shared.nodes.tried(worker, outcome);
        }
        let connected = self.connections.get(worker)?;
        Some((connected, worker.clone()))
    }

    /// Drops the connection to a worker.
    pub(crate) fn lose(&mut self, worker: &str) {
        if self.connections.remove(worker).is_some() {
            let metrics = &self.shared.metrics;
            metrics.node_connections.with_label_values(&[worker]).dec();
        }
    }
}

impl<C: Clock> Drop for Beside<C> {
    fn drop(&mut self) {
        for worker in self.connections.keys() {
            let metrics = &self.shared.metrics;
            metrics.node_connections.with_label_values(&[worker]).dec();
        }
    }
}

async fn connect<C: Clock>(shared: &Shared<C>, target: &Target) -> Result<Connected, String> {
    let timeout = shared.settings.connect_timeout();
    let connected = target.connect_to_write(timeout).await;
    let mut connected = connected.map_err(|error| error.to_string())?;
    let rows = tokio::time::timeout(timeout, connected.client.query_typed(CHECK, &[])).await;
    let rows = rows.map_err(|_| format!("no answer within {} ms", timeout.as_millis()))?;
    let rows = rows.map_err(|error| reason(&error))?;
    if !rows
        .first()
        .is_some_and(|row| row.try_get(0).unwrap_or(false))
    {
        return Err("it does not have the functions and metadata of the registry".into());
    }
    connected.beside = Some(target.clone());
    Ok(connected)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn worker_addresses_follow_the_nodes_setting() {
        let address = |nodes: &str| {
            let nodes: Nodes = nodes.parse().expect("nodes");
            nodes.address("worker1:5432")
        };
        let at = |host: &str, port| Some((host.to_owned(), port));
        assert_eq!(address("catalog"), at("worker1", 5432));
        assert_eq!(address("off"), None);
        let others = "worker1:5432=10.0.0.7:6432, worker2:5432=10.0.0.8:6432";
        assert_eq!(address(others), at("10.0.0.7", 6432));
        assert_eq!(address("worker2:5432=10.0.0.8:6432"), at("worker1", 5432));
    }

    #[test]
    fn the_nodes_setting_round_trips_and_invalid_texts_are_refused() {
        for text in ["catalog", "off", "a:1=b:2", "a:1=b:2,c:3=d:4"] {
            let nodes: Nodes = text.parse().expect("nodes");
            assert_eq!(nodes.to_string(), text);
        }
        for text in [
            "",
            "on",
            "a:1",
            "a:1=b",
            "a=b:2",
            "a:1=b:0",
            "a:1=b:2,",
            "a:1=b:2,a:1=c:3",
            ":1=b:2",
        ] {
            assert_eq!(text.parse::<Nodes>(), Err(()), "{text:?}");
        }
    }
}
