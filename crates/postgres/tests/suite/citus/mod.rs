//! The registry distributed by Citus, if it is installed ([`crate::nodes`]): its answers, and what
//! distributing it requires.

mod lost;
mod sent;

use self::sent::{reached, until_placed};
use crate::{
    TIMEOUT,
    bulk::{all, send, widgets},
    functions::{call, web_anon},
    migrated,
    nodes::{Nodes, SHARDS, is_there},
    open, session,
};
use proptest::{collection::vec, prelude::*};
use widgets_conformance::{
    check_distributed,
    commands::{commands, few_serial_numbers, sample, serial_number},
};
use widgets_postgres::{
    Cluster, OpenError, Postgres, Settings, cluster, distribute, keep_changes, migrate,
};
use widgets_registry::{Ask as _, Kinds as _, Lookup, SerialNumber};

impl Nodes {
    async fn cluster(&self) -> Option<Cluster> {
        let cluster = cluster(&self.owner(), TIMEOUT).await;
        cluster.expect("an answer")
    }

    /// Returns this many serial numbers of a worker.
    fn names_on(&self, worker: usize, count: usize) -> Vec<SerialNumber> {
        let port = self.workers[worker].port;
        let names = format!(
            "SELECT name FROM (
                SELECT 'w' || n AS name,
                    get_shard_id_for_distribution_column('widgets.widgets', 'w' || n) AS shardid
                FROM generate_series(1, 400) n
            ) made JOIN citus_shards USING (shardid) WHERE nodeport = {port} LIMIT {count}"
        );
        let names = self.coordinator.psql("registry", &names);
        names.lines().map(serial_number).collect()
    }
}

/// Opens a store that sends everything to the coordinator, and one that sends each operation to a
/// worker: the worker of a single operation is always known.
async fn on_different_nodes(nodes: &Nodes) -> [Postgres; 2] {
    let coordinator = Settings {
        nodes: "off".parse().expect("nodes"),
        ..Settings::default()
    };
    let workers = Settings {
        batch_operations_max: 1,
        connections: 3,
        ..Settings::default()
    };
    let stores = [coordinator, workers].map(|settings| open(&nodes.service(), settings));
    until_placed(&stores[1], nodes.workers.len()).await;
    stores
}

/// Checks that the second store did send operations to the workers.
fn assert_sent(stores: &[Postgres; 2], workers: usize) {
    let connections = |store| reached(store, "widgets_node_connections");
    assert_eq!(stores.each_ref().map(connections), [0, workers]);
}

fn refused<T>(outcome: Result<T, OpenError>) -> String {
    let Err(error) = outcome else {
        panic!("must be refused");
    };
    error.to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_distributed_registry_conforms() {
    if !is_there() {
        return;
    }
    let nodes = Nodes::distributed(2).await;
    let settings = Settings {
        connections: 3,
        batch_operations_max: 8,
        ..Settings::default()
    };
    let (one, other) = (
        open(&nodes.service(), settings.clone()),
        open(&nodes.service(), settings),
    );
    let clients = [one.client().on_current_runtime(), other.client()];
    check_distributed(&clients, "").await;
    drop((one, other));
    nodes.assert_balanced();
    let cluster = nodes.cluster().await.expect("distributed");
    assert!(cluster.is_sound(), "{cluster:?}");
    let shards: Vec<i64> = cluster.nodes.iter().map(|node| node.shards).collect();
    assert_eq!(shards, [0, 2, 2]);
}

/// Each node shows the operations that another node has acknowledged.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn stores_on_different_nodes_conform() {
    if !is_there() {
        return;
    }
    let nodes = Nodes::distributed(2).await;
    let stores = on_different_nodes(&nodes).await;
    check_distributed(&stores.each_ref().map(Postgres::client), "").await;
    assert_sent(&stores, 2);
    drop(stores);
    nodes.assert_balanced();
}

/// Callers get the same answers to the same histories from every node, and from a table that is not
/// distributed.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_distributed_registry_gives_the_same_answers_as_a_local_one() {
    if !is_there() {
        return;
    }
    let nodes = Nodes::distributed(2).await;
    let (server, url) = migrated().await;
    let stores = on_different_nodes(&nodes).await;
    let mut distributed = stores.iter().cycle();
    let plain = open(&url, Settings::default());
    let mut callers = tokio::task::JoinSet::new();
    for caller in 0..8u64 {
        let names = few_serial_numbers(&format!("caller{caller}-"), 6);
        let history = sample(&vec(commands(names.clone()), 300).boxed(), caller);
        let here = distributed.next().expect("a store").client();
        let there = plain.client();
        callers.spawn(async move {
            for (number, command) in history.into_iter().enumerate() {
                let answers =
                    tokio::join!(here.submit(command.clone()), there.submit(command.clone()));
                assert_eq!(
                    answers.0, answers.1,
                    "caller {caller}, {number}: {command:?}"
                );
            }
            for name in names {
                let found = here.ask(Lookup(name.clone())).await;
                assert_eq!(found, there.ask(Lookup(name)).await, "caller {caller}");
            }
        });
    }
    while let Some(caller) = callers.join_next().await {
        caller.expect("a caller without a difference");
    }
    assert_sent(&stores, 2);
    drop((stores, plain, server));
    nodes.assert_balanced();
}

/// The functions of the API, as `psql` and `PostgREST` call them.
#[tokio::test(flavor = "multi_thread")]
async fn sql_calls_get_the_same_answers_from_distributed_and_local_tables() {
    if !is_there() {
        return;
    }
    let nodes = Nodes::distributed(2).await;
    let (server, _) = migrated().await;
    let clients = [web_anon(&nodes.coordinator).await, web_anon(&server).await];
    let names = few_serial_numbers("n", 6);
    for (number, command) in sample(&vec(commands(names), 400).boxed(), 1)
        .into_iter()
        .enumerate()
    {
        let [here, there] = &clients;
        let (here, there) = (call(here, &command).await, call(there, &command).await);
        assert_eq!(here, there, "operation {number}: {command:?}");
    }
    nodes.assert_balanced();
}

#[tokio::test(flavor = "multi_thread")]
async fn distributing_is_refused_naming_each_unsuitable_setting() {
    if !is_there() {
        return;
    }
    let unfit = [
        "max_prepared_transactions=5",
        "citus.recover_2pc_interval=60s",
    ];
    let nodes = Nodes::migrated(&unfit, &[&[], &[]]).await;
    let owner = nodes.owner();
    assert_eq!(nodes.cluster().await, None);
    let unfit = refused(distribute(&owner, SHARDS, false, TIMEOUT).await);
    let address = format!("127.0.0.1:{}", nodes.coordinator.port);
    for defect in [
        format!("{address}: max_prepared_transactions must be at least 32, it is 5"),
        format!("{address}: citus.recover_2pc_interval must be 0 to 5000 ms, it is 60000"),
    ] {
        assert!(unfit.contains(&defect), "{unfit}");
    }
    assert_eq!(unfit.lines().count(), 3, "{unfit}");
    assert_eq!(nodes.cluster().await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn existing_widgets_are_distributed_only_if_requested() {
    if !is_there() {
        return;
    }
    let nodes = Nodes::migrated(&[], &[&[], &[]]).await;
    let owner = nodes.owner();
    nodes.coordinator.psql(
        "registry",
        "SELECT widgets.add_widget('w' || n, '', '{P,Q}') FROM generate_series(1, 50) n;
        SELECT widgets.associate_widgets('w' || n, 'w' || n + 1, 'P') FROM generate_series(1, 49, 2) n",
    );
    keep_changes(&owner, true, TIMEOUT).await.expect("a feed");
    let feed = refused(distribute(&owner, SHARDS, true, TIMEOUT).await);
    assert!(feed.contains("the feed of changes is on"), "{feed}");
    keep_changes(&owner, false, TIMEOUT).await.expect("no feed");
    let filled = refused(distribute(&owner, SHARDS, false, TIMEOUT).await);
    assert!(filled.contains("--move-widgets"), "{filled}");
    assert_eq!(nodes.cluster().await, None);

    let moved = distribute(&owner, SHARDS, true, TIMEOUT).await;
    assert!(moved.expect("distributed"), "it was not");
    let again = distribute(&owner, SHARDS, false, TIMEOUT).await;
    assert!(!again.expect("as it is"), "it was");
    let other = refused(distribute(&owner, SHARDS + 1, false, TIMEOUT).await);
    assert!(other.contains("over 4 shards already"), "{other}");
    let feed = refused(keep_changes(&owner, true, TIMEOUT).await);
    assert!(
        feed.contains("a distributed registry has no feed of changes"),
        "{feed}"
    );
    let count = "SELECT count(*), count(peer1) FROM widgets.widgets";
    assert_eq!(nodes.coordinator.psql("registry", count), "50|50");
    let left = "SELECT pg_relation_size('widgets.widgets')";
    assert_eq!(nodes.coordinator.psql("registry", left), "0");
    nodes.assert_balanced();
    // It can be migrated again, as each start may do.
    migrate(&owner, TIMEOUT).await.expect("up to date");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_distributed_registry_can_be_filled_and_read_back() {
    if !is_there() {
        return;
    }
    let nodes = Nodes::distributed(2).await;
    let owner = nodes.owner();
    let widgets = widgets();
    let half = refused(send(&owner, &widgets[1..], true).await);
    assert!(half.contains("half an association"), "{half}");
    send(&owner, &widgets[..100], false).await.expect("no word");
    assert_eq!(all(&owner).await, [], "an incomplete fill stores nothing");
    send(&owner, &widgets, true).await.expect("filled");
    assert!(all(&owner).await == widgets, "other widgets");
    // The triggers are enabled again.
    let peer = "INSERT INTO widgets.widgets (serial_number, name, port1, peer1) VALUES ('z', '', 'P', 'y')";
    let session = session(&nodes.coordinator, "postgres").await;
    let refused = session.batch_execute(peer).await.expect_err("refused");
    let refused = refused.as_db_error().expect("by the database");
    assert_eq!(refused.code().code(), "23503");
}
