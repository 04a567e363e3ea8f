//! Batches by worker, sent to the worker: the same answers and the same promises.

use crate::{
    distributed::hammer,
    nodes::{Nodes, is_there},
    open,
    server::Server,
};
use proptest::{collection::vec, prelude::*, sample::select};
use std::{sync::Arc, time::Duration};
use tokio::{sync::Barrier, task::JoinSet};
use widgets_conformance::{
    Model,
    commands::{add_widget, commands, few_serial_numbers, sample, serial_number},
    linearizability::{Clock, Request, check},
};
use widgets_postgres::{Postgres, Settings};
use widgets_registry::{
    Applied, Ask as _, Attempt, IdempotencyKey, Kinds as _, Lookup, Store as _,
};

/// Returns the values of a metric of the store, one for each worker.
pub(super) fn told(store: &Postgres, metric: &str) -> Vec<f64> {
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

/// Returns for how many workers the metric is above zero.
pub(super) fn reached(store: &Postgres, metric: &str) -> usize {
    let told = told(store, metric).into_iter();
    told.filter(|value| *value > 0.0).count()
}

/// Waits until the store knows the placement of the widgets.
pub(super) async fn until_placed(store: &Postgres, workers: usize) {
    while told(store, "widgets_node_batches_total").len() < workers {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Settings for several batches at a time to each of four workers, and for batches so small that
/// many operations wait for each worker. Batches by worker and mixed ones then run at the same
/// time.
pub(super) fn by_worker() -> Settings {
    Settings {
        connections: 4,
        batch_operations_max: 16,
        ..Settings::default()
    }
}

/// Adds widgets until the condition is true, and returns how many.
pub(super) async fn add_until(store: &Postgres, prefix: &str, is_so: impl Fn() -> bool) -> usize {
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
async fn operations_are_sent_directly_to_the_workers_of_their_widgets() {
    if !is_there() {
        return;
    }
    let nodes = Nodes::distributed(2).await;
    let store = open(&nodes.service(), Settings::default());
    // The placement is read once the store is open.
    let both = || reached(&store, "widgets_node_batches_total") == 2;
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
    // An operation with a key goes to the coordinator, which keeps the keys.
    let keyed = || {
        let mut attempt = Attempt::from(add_widget(&serial_number("keyed"), "", "P"));
        attempt.key = IdempotencyKey::new("key");
        client.ask(attempt)
    };
    assert_eq!(keyed().await, Ok(Applied::Now));
    assert_eq!(keyed().await, Ok(Applied::Before));
    nodes.assert_balanced();
}

/// If this process cannot reach the workers, the coordinator does.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn operations_go_through_the_coordinator_if_workers_are_unreachable() {
    if !is_there() {
        return;
    }
    let nodes = Nodes::distributed(2).await;
    let elsewhere = |worker: &Server| format!("127.0.0.1:{}=127.0.0.1:1", worker.port);
    let elsewhere: Vec<String> = nodes.workers.iter().map(elsewhere).collect();
    let settings = Settings {
        nodes: elsewhere.join(",").parse().expect("nodes"),
        ..Settings::default()
    };
    let store = open(&nodes.service(), settings);
    let failed = || reached(&store, "widgets_node_failures_total") == 2;
    add_until(&store, "w", failed).await;
    let connections = told(&store, "widgets_node_connections");
    assert!(
        connections.iter().all(|count| *count == 0.0),
        "{connections:?}"
    );
    assert_eq!(store.client().ready().await, Ok(()));
    nodes.assert_balanced();
}

/// Two processes and many callers, of whom a few share a few widgets each. Some order of all calls,
/// including refusals and lookups, explains all answers, whichever nodes the batches went to.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn operations_sent_to_workers_are_linearizable() {
    const ROUNDS: u64 = 6;
    const GROUPS: usize = 30;
    const CALLERS: usize = 4;
    const REQUESTS: usize = 6;
    if !is_there() {
        return;
    }
    let nodes = Nodes::distributed(4).await;
    let stores = [
        open(&nodes.service(), by_worker()),
        open(&nodes.service(), by_worker()),
    ];
    for store in &stores {
        until_placed(store, 4).await;
    }
    for round in 0..ROUNDS {
        let start = Arc::new(Barrier::new(GROUPS * CALLERS));
        let mut groups = Vec::new();
        for group in 0..GROUPS {
            let serial_numbers = few_serial_numbers(&format!("{round}/{group}/"), 4);
            let request = prop_oneof![
                3 => commands(serial_numbers.clone()).prop_map(Request::Submit),
                1 => select(serial_numbers.clone()).prop_map(Request::Lookup),
            ];
            let clock = Arc::new(Clock::default());
            let mut callers = JoinSet::new();
            // The first callers find nothing, the others find what the first have left.
            let seed = round * 100 + group as u64;
            let histories = sample(&vec(vec(request, REQUESTS), CALLERS), seed);
            for (caller, requests) in histories.into_iter().enumerate() {
                let client = stores[caller % stores.len()].client();
                let (clock, start) = (clock.clone(), start.clone());
                callers.spawn(async move {
                    start.wait().await;
                    let mut calls = Vec::new();
                    for request in requests {
                        calls.extend(clock.call(&client, request).await);
                    }
                    calls
                });
            }
            groups.push((serial_numbers, clock, callers));
        }
        for (serial_numbers, clock, callers) in groups {
            let mut calls: Vec<_> = callers.join_all().await.into_iter().flatten().collect();
            assert_eq!(calls.len(), CALLERS * REQUESTS, "the store failed");
            for serial_number in serial_numbers {
                let lookup = Request::Lookup(serial_number);
                calls.extend(clock.call(&stores[0].client(), lookup).await);
            }
            if let Err(what) = check(&Model::default(), &calls) {
                panic!("round {round}: {what}");
            }
        }
    }
    for store in &stores {
        assert_eq!(reached(store, "widgets_node_batches_total"), 4);
        assert_eq!(reached(store, "widgets_node_connections"), 4);
    }
    drop(stores);
    nodes.assert_balanced();
}

/// Several processes use the same few widgets on all workers.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn contended_widgets_on_workers_keep_both_halves_of_associations() {
    if !is_there() {
        return;
    }
    let nodes = Nodes::distributed(4).await;
    let names = few_serial_numbers("by worker ", 24);
    let stores = hammer(&nodes.service(), &by_worker(), &names, 32, 40).await;
    for store in &stores {
        assert_eq!(reached(store, "widgets_node_batches_total"), 4);
    }
    drop(stores);
    nodes.assert_balanced();
}
