//! The registry distributed by Citus, over a coordinator and two workers. Where PostgreSQL has no such extension it
//! is skipped, which is told; `WIDGETS_TEST_CITUS=required` makes that a failure.

use crate::{
    TIMEOUT,
    bulk::{all, send, widgets},
    functions::{call, web_anon},
    migrated, open,
    server::Server,
    session, until,
};
use proptest::{collection::vec, prelude::*};
use std::{
    io::{self, Write as _},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use widgets_conformance::{
    check_distributed,
    commands::{
        add_widget, associate_widgets, commands, few_serial_numbers, sample, serial_number,
    },
};
use widgets_postgres::{
    Client, Cluster, OpenError, Postgres, Settings, Target, cluster, distribute, keep_changes,
    migrate,
};
use widgets_registry::{
    Applied, Ask as _, Attempt, Command, IdempotencyKey, Kinds as _, Lookup, Pair, Port, Rejection,
    SerialNumber, Store as _,
};

const SHARDS: u32 = 4;

/// What a server of a cluster needs. Fewer prepared transactions than they should be are one of the faults below.
const SETTINGS: [&str; 7] = [
    "fsync=off",
    "shared_preload_libraries=citus",
    "max_prepared_transactions=100",
    "max_worker_processes=16",
    "citus.recover_2pc_interval=1s",
    "citus.node_conninfo=sslmode=disable",
    "citus.enable_statistics_collection=off",
];

/// The coordinator and its workers.
struct Nodes {
    coordinator: Server,
    workers: Vec<Server>,
}

/// Whether Citus is there; says so where it is not.
fn is_there() -> bool {
    static IS_THERE: OnceLock<bool> = OnceLock::new();
    if *IS_THERE.get_or_init(|| {
        let available = "SELECT count(*) FROM pg_available_extensions WHERE name = 'citus'";
        Server::start(&["fsync=off"]).psql("postgres", available) == "1"
    }) {
        return true;
    }
    let required = std::env::var("WIDGETS_TEST_CITUS").is_ok_and(|value| value == "required");
    assert!(
        !required,
        "Citus is missing, and WIDGETS_TEST_CITUS=required"
    );
    drop(writeln!(io::stderr(), "skipped: no Citus"));
    false
}

impl Nodes {
    /// A migrated registry that is not distributed yet.
    async fn migrated(coordinator: &[&str], workers: &[&str]) -> Self {
        let start = |more: &[&str]| {
            let server = Server::start(&[&SETTINGS, more].concat());
            server.database("registry", "postgres");
            server.psql("registry", "CREATE EXTENSION citus");
            server
        };
        let nodes = Self {
            coordinator: start(coordinator),
            workers: vec![start(workers), start(workers)],
        };
        let port = nodes.coordinator.port;
        let adding =
            |worker: &Server| format!("SELECT citus_add_node('127.0.0.1', {});", worker.port);
        let added: Vec<String> = nodes.workers.iter().map(adding).collect();
        let added = added.concat();
        let add = format!("SELECT citus_set_coordinator_host('127.0.0.1', {port}); {added}");
        nodes.coordinator.psql("registry", &add);
        let migrated = migrate(&nodes.owner(), TIMEOUT).await;
        migrated.expect("a migrated registry");
        nodes
    }

    /// A distributed registry without widgets.
    async fn distributed() -> Self {
        Self::distributed_with("fsync=off").await
    }

    async fn distributed_with(setting: &str) -> Self {
        let nodes = Self::migrated(&[setting], &[setting]).await;
        let distributed = distribute(&nodes.owner(), SHARDS, false, TIMEOUT).await;
        assert!(distributed.expect("a distributed registry"), "it was not");
        nodes
    }

    fn owner(&self) -> Target {
        Target::parse(&self.coordinator.url("registry", "postgres")).expect("a URL")
    }

    fn service(&self) -> String {
        self.coordinator.url("registry", "authenticator")
    }

    async fn cluster(&self) -> Option<Cluster> {
        let cluster = cluster(&self.owner(), TIMEOUT).await;
        cluster.expect("an answer")
    }

    /// So many serial numbers of a worker.
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

    /// Whether each half has its other one.
    fn assert_balanced(&self) {
        let balance = self
            .coordinator
            .psql("registry", "SELECT widgets.halves_balance()");
        assert_eq!(balance, "0", "halves of associations");
    }
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
    let nodes = Nodes::distributed().await;
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

/// Everything that a caller is told of the same histories, here and where the table is in one place.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_distributed_registry_answers_as_one_in_one_place() {
    if !is_there() {
        return;
    }
    let nodes = Nodes::distributed().await;
    let (server, url) = migrated().await;
    let distributed = open(&nodes.service(), Settings::default());
    let plain = open(&url, Settings::default());
    let mut callers = tokio::task::JoinSet::new();
    for caller in 0..8u64 {
        let names = few_serial_numbers(&format!("caller{caller}-"), 6);
        let history = sample(&vec(commands(names.clone()), 300).boxed(), caller);
        let (here, there) = (distributed.client(), plain.client());
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
    drop((distributed, plain, server));
    nodes.assert_balanced();
}

/// The functions of the API, as `psql` and `PostgREST` call them.
#[tokio::test(flavor = "multi_thread")]
async fn single_calls_answer_as_where_the_table_is_in_one_place() {
    if !is_there() {
        return;
    }
    let nodes = Nodes::distributed().await;
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
async fn what_is_not_fit_is_named_and_nothing_is_done() {
    if !is_there() {
        return;
    }
    let unfit = [
        "max_prepared_transactions=5",
        "citus.recover_2pc_interval=60s",
    ];
    let nodes = Nodes::migrated(&unfit, &[]).await;
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
async fn a_registry_that_holds_widgets_is_moved_only_where_that_is_said() {
    if !is_there() {
        return;
    }
    let nodes = Nodes::migrated(&[], &[]).await;
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
    // And it is migrated again, as each start may.
    migrate(&owner, TIMEOUT).await.expect("up to date");
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_filled_and_read_whole() {
    if !is_there() {
        return;
    }
    let nodes = Nodes::distributed().await;
    let owner = nodes.owner();
    let widgets = widgets();
    let half = refused(send(&owner, &widgets[1..], true).await);
    assert!(half.contains("half an association"), "{half}");
    send(&owner, &widgets[..100], false).await.expect("no word");
    assert_eq!(all(&owner).await, [], "nothing of what was not whole");
    send(&owner, &widgets, true).await.expect("filled");
    assert!(all(&owner).await == widgets, "other widgets");
    // The triggers are there again.
    let peer = "INSERT INTO widgets.widgets (serial_number, name, port1, peer1) VALUES ('z', '', 'P', 'y')";
    let session = session(&nodes.coordinator, "postgres").await;
    let refused = session.batch_execute(peer).await.expect_err("refused");
    let refused = refused.as_db_error().expect("by the database");
    assert_eq!(refused.code().code(), "23503");
}

/// What a store tells of its workers: each series and its value.
fn told(store: &Postgres, metric: &str) -> Vec<f64> {
    let registry = prometheus::Registry::new();
    store.metrics().register(&registry).expect("its metrics");
    let families = registry.gather();
    let family = families.iter().find(|family| family.name() == metric);
    let series = family.map_or(&[][..], |family| family.get_metric());
    let value = |series: &prometheus::proto::Metric| {
        series.get_counter().get_value() + series.get_gauge().get_value()
    };
    series.iter().map(value).collect()
}

/// Asks for widgets to be added until this is so, and says how many.
async fn add_until(store: &Postgres, prefix: &str, is_so: impl Fn() -> bool) -> usize {
    let client = store.client();
    let mut number = 0;
    while !is_so() {
        let name = serial_number(&format!("{prefix}{number}"));
        assert_eq!(client.submit(add_widget(&name, "", "P")).await, Ok(()));
        number += 1;
    }
    number
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_concerns_a_worker_is_sent_there() {
    if !is_there() {
        return;
    }
    let nodes = Nodes::distributed().await;
    let store = open(&nodes.service(), Settings::default());
    // Where the widgets are is read once the store is open.
    let both = || told(&store, "widgets_node_batches_total").len() == 2;
    let added = add_until(&store, "w", both).await;
    let connections = told(&store, "widgets_node_connections");
    assert_eq!(connections.len(), 2, "{connections:?}");
    assert!(
        connections.iter().all(|count| *count > 0.0),
        "{connections:?}"
    );
    let client = store.client();
    for number in 0..added {
        let found = client
            .ask(Lookup(serial_number(&format!("w{number}"))))
            .await;
        assert!(found.is_ok_and(|found| found.is_some()), "w{number}");
    }
    // A key goes by the coordinator, which has it.
    let keyed = || {
        let mut attempt = Attempt::from(add_widget(&serial_number("keyed"), "", "P"));
        attempt.key = IdempotencyKey::new("key");
        client.ask(attempt)
    };
    assert_eq!(keyed().await, Ok(Applied::Now));
    assert_eq!(keyed().await, Ok(Applied::Before));
    nodes.assert_balanced();
}

/// Workers that nobody reaches from here are reached by the coordinator.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn workers_that_are_out_of_reach_are_reached_by_the_coordinator() {
    if !is_there() {
        return;
    }
    let nodes = Nodes::distributed().await;
    let elsewhere = |worker: &Server| format!("127.0.0.1:{}=127.0.0.1:1", worker.port);
    let elsewhere: Vec<String> = nodes.workers.iter().map(elsewhere).collect();
    let settings = Settings {
        nodes: elsewhere.join(",").parse().expect("nodes"),
        ..Settings::default()
    };
    let store = open(&nodes.service(), settings);
    let failed = || told(&store, "widgets_node_failures_total").len() == 2;
    add_until(&store, "w", failed).await;
    let connections = told(&store, "widgets_node_connections");
    assert!(
        connections.iter().all(|count| *count == 0.0),
        "{connections:?}"
    );
    assert_eq!(store.client().ready().await, Ok(()));
    nodes.assert_balanced();
}

/// A worker that is away takes what is on it, and nothing else: the batch that met it is not answered as one.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn operations_go_on_whose_worker_is_there() {
    if !is_there() {
        return;
    }
    let mut nodes = Nodes::distributed().await;
    let store = open(&nodes.service(), Settings::default());
    let client = store.client();
    let (here, there) = (nodes.names_on(0, 12), nodes.names_on(1, 12));
    for name in here.iter().chain(&there).take(18) {
        assert_eq!(client.submit(add_widget(name, "", "PQ")).await, Ok(()));
    }
    nodes.workers[1].stop("immediate");
    // All at once, so that they are sent together.
    let mut asked = tokio::task::JoinSet::new();
    for number in 0..6 {
        let pairs = [
            (true, &here[2 * number], &here[2 * number + 1]),
            (false, &here[number], &there[number]),
        ];
        for (goes_on, one, two) in pairs {
            let port = if goes_on { Port::P } else { Port::Q };
            let command = associate_widgets(one, two, port);
            let (client, one) = (client.clone(), one.clone());
            asked.spawn(async move {
                let operation = client.submit(command).await;
                let lookup = client.ask(Lookup(one)).await;
                assert!(lookup.is_ok_and(|found| found.is_some()), "a lookup here");
                (goes_on, operation)
            });
        }
    }
    while let Some(answer) = asked.join_next().await {
        match answer.expect("no panic") {
            (true, answer) => assert_eq!(answer, Ok(())),
            (false, Err(Rejection::Fault(fault))) => {
                assert_eq!(fault.code(), "WG504");
                assert!(
                    fault.to_string().contains("a node of the database"),
                    "{fault}"
                );
            }
            (false, other) => panic!("{other:?} of a widget that is away"),
        }
    }
    let away = client.ask(Lookup(there[0].clone())).await;
    assert_eq!(away.map_err(|fault| fault.code()), Err("WG504"));
    assert_eq!(client.ready().await, Ok(()));
    let cluster = nodes.cluster().await.expect("distributed");
    assert!(!cluster.is_sound());
    assert_eq!(cluster.nodes[2].in_doubt, None);

    nodes.workers[1].resume();
    for number in 0..6 {
        let command = associate_widgets(&here[number], &there[number], Port::Q);
        until_known(&client, command, "WG003").await;
    }
    nodes.assert_balanced();
}

/// A worker that does not answer holds up what goes together with its widgets once, and then nothing else.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_worker_that_does_not_answer_holds_up_nothing_else() {
    if !is_there() {
        return;
    }
    let nodes = Nodes::distributed().await;
    let settings = Settings {
        statement_timeout_ms: 1000,
        connect_timeout_ms: 1000,
        ..Settings::default()
    };
    let store = open(&nodes.service(), settings);
    // Where the widgets are is known.
    let known = || !told(&store, "widgets_node_batches_total").is_empty();
    add_until(&store, "x", known).await;
    let client = store.client();
    let (here, there) = (nodes.names_on(0, 40), nodes.names_on(1, 60));
    let mut there = there.iter();
    let mut add_there = || add_widget(there.next().expect("enough names"), "", "P");
    nodes.workers[1].signal("-STOP");
    let mut is_known = false;
    for _ in 0..20 {
        let refused = client.submit(add_there()).await;
        // Refused without a try.
        if let Err(Rejection::Fault(fault)) = refused
            && fault.code() == "WG504"
        {
            is_known = true;
            break;
        }
    }
    assert!(is_known, "it is away, and nobody knows");
    for name in &here[..20] {
        let both = tokio::join!(
            client.submit(add_there()),
            client.submit(add_widget(name, "", "P"))
        );
        assert!(matches!(both.0, Err(Rejection::Fault(_))), "{:?}", both.0);
        assert_eq!(both.1, Ok(()));
        let found = client.ask(Lookup(name.clone())).await;
        assert!(found.is_ok_and(|found| found.is_some()), "{name:?}");
    }
    assert_eq!(client.ready().await, Ok(()));
    nodes.workers[1].signal("-CONT");
    until_known(&client, add_there(), "23505").await;
    nodes.assert_balanced();
}

/// What a caller knows of its own widgets.
#[derive(Default)]
struct Told {
    added: Vec<String>,
    associated: Vec<(String, String)>,
}

/// Adds pairs of widgets and associates them, until it is told to stop. Everything that is acknowledged is looked up at
/// once, and nothing may be refused that this caller has not perhaps done itself.
async fn add_and_associate(client: Client, caller: usize, stop: Arc<AtomicBool>) -> Told {
    let mut told = Told::default();
    let mut number = 0;
    while !stop.load(Ordering::Relaxed) {
        number += 1;
        let names = ["a", "b"].map(|which| format!("{which}{caller}-{number}"));
        let [one, two] = names.each_ref().map(|name| serial_number(name));
        let mut is_whole = true;
        for (name, widget) in names.iter().zip([&one, &two]) {
            if until_known(&client, add_widget(widget, "", "P"), "23505").await {
                told.added.push(name.clone());
                shown(&client, widget, |_| true).await;
            } else {
                is_whole = false;
            }
        }
        let pair = Pair::new(one.clone(), two.clone(), Port::P).expect("two");
        let associate = Command::AssociateWidgets(pair);
        if is_whole && until_known(&client, associate, "WG003").await {
            told.associated.push(names.into());
            for (widget, peer) in [(&one, &two), (&two, &one)] {
                shown(&client, widget, |slot| slot == Some(peer)).await;
            }
        }
    }
    told
}

/// Sends a command until its fate is known, and says whether it was acknowledged. What refuses it may be an attempt of
/// unknown fate, and nothing else.
async fn until_known(client: &Client, command: Command, done_before: &str) -> bool {
    let mut may_be_done = false;
    loop {
        match client.submit(command.clone()).await {
            Ok(()) => return true,
            Err(Rejection::Fault(fault)) => may_be_done |= fault.code() == "WG505",
            Err(Rejection::Refused(refusal) | Rejection::Replayed(refusal)) => {
                assert!(
                    may_be_done && refusal.code() == done_before,
                    "{command:?}: {refusal}"
                );
                return false;
            }
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Whoever asks after an acknowledgement sees what was acknowledged, or is told that the node is away.
async fn shown(
    client: &Client,
    widget: &SerialNumber,
    is_right: impl Fn(Option<&SerialNumber>) -> bool,
) {
    if let Ok(found) = client.ask(Lookup(widget.clone())).await {
        let found = found.unwrap_or_else(|| panic!("{widget:?} was added"));
        let peer = found.slots.first().and_then(|slot| slot.peer.as_ref());
        assert!(is_right(peer), "{widget:?} has the peer {peer:?}");
    }
}

/// Workers are killed under load, again and again: what was acknowledged is there, at once and at the end, both halves of
/// it, and what concerns the other worker goes on meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn workers_that_are_killed_lose_nothing() {
    const KILLS: usize = 20;
    if !is_there() {
        return;
    }
    let mut nodes = Nodes::distributed_with("fsync=on").await;
    let store = open(&nodes.service(), Settings::default());
    let stop = Arc::new(AtomicBool::new(false));
    let mut callers = tokio::task::JoinSet::new();
    for caller in 0..8 {
        callers.spawn(add_and_associate(store.client(), caller, stop.clone()));
    }
    for kill in 0..KILLS {
        // Long enough that something is always under way, and never at the same place of it.
        tokio::time::sleep(Duration::from_millis(100 + 37 * (kill as u64 % 7))).await;
        let worker = &mut nodes.workers[kill % 2];
        tokio::task::block_in_place(|| {
            worker.stop("kill");
            worker.resume();
        });
    }
    stop.store(true, Ordering::Relaxed);
    let mut all = Told::default();
    while let Some(told) = callers.join_next().await {
        let told = told.expect("a caller that nothing contradicted");
        all.added.extend(told.added);
        all.associated.extend(told.associated);
    }
    assert!(
        all.associated.len() > KILLS,
        "{} associations",
        all.associated.len()
    );
    // What was in doubt is ended by the coordinator.
    for worker in &nodes.workers {
        until(worker, "SELECT count(*) FROM pg_prepared_xacts", "0").await;
    }
    nodes.assert_balanced();
    let client = store.client();
    for name in &all.added {
        let found = client.ask(Lookup(serial_number(name))).await;
        assert!(
            found.expect("an answer").is_some(),
            "{name} was acknowledged"
        );
    }
    for (one, two) in &all.associated {
        let found = client
            .ask(Lookup(serial_number(one)))
            .await
            .expect("an answer");
        let peer = found.and_then(|widget| widget.slots[0].peer.clone());
        assert_eq!(peer, Some(serial_number(two)), "{one} was associated");
    }
    drop(writeln!(
        io::stderr(),
        "{KILLS} kills: {} additions and {} associations were acknowledged, none is lost",
        all.added.len(),
        all.associated.len()
    ));
}
