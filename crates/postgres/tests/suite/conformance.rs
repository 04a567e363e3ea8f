//! The suite of every store, and a comparison of the embedded store with this one.

use crate::{assert_sound, migrated, open, server::Directory, session, turn_on_changes};
use proptest::{collection::vec, prelude::*};
use widgets_conformance::{
    check_changes, check_free_slots, check_key_shares, check_store,
    commands::{commands, few_serial_numbers, sample},
};
use widgets_engine::Engine;
use widgets_postgres::{Client, Postgres, Settings};
use widgets_registry::{Ask as _, Command, Lookup, Port, PortCounts, Store};

/// Opens two processes on one database, with batches in flight at the same time, and a client of
/// each. One client gets its answers as a worker does, the other directly.
pub(crate) fn two_stores(url: &str) -> ([Postgres; 2], [Client; 2]) {
    let settings = Settings {
        connections: 3,
        batch_operations_max: 8,
        ..Settings::default()
    };
    let stores = [open(url, settings.clone()), open(url, settings)];
    let clients = [stores[0].client().on_current_runtime(), stores[1].client()];
    (stores, clients)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_postgresql_store_conforms() {
    let (server, url) = migrated().await;
    turn_on_changes(&server).await;
    let (stores, clients) = two_stores(&url);
    check_store(&clients, "").await;
    check_changes(&clients, "").await;
    drop(stores);
    assert_sound(&server);
}

/// The feed is off, which is the default. Each batch has one operation, so that another operation
/// in the batch cannot hide a fault.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_store_conforms_without_a_feed_in_batches_of_one() {
    let (server, url) = migrated().await;
    let settings = Settings {
        batch_operations_max: 1,
        ..Settings::default()
    };
    let store = open(&url, settings);
    check_store(&[store.client().on_current_runtime()], "").await;
    drop(store);
    assert_sound(&server);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_caller_keeps_a_share_of_the_idempotency_keys() {
    let (server, url) = migrated().await;
    let settings = Settings::default();
    let stores = [open(&url, settings.clone()), open(&url, settings)];
    let clients = stores.each_ref().map(Postgres::client);
    let service = session(&server, "authenticator").await;
    let let_go = async || {
        let kept = service.query_one("SELECT keys FROM widgets.keep_keys(24, 60)", &[]);
        let keys: i64 = kept.await.expect("the right").get(0);
        assert!(keys <= 60 + 3, "{keys} keys");
    };
    check_key_shares(&clients, "", 60, let_go).await;
}

/// An estimate is exact if ANALYZE has examined every row.
#[tokio::test(flavor = "multi_thread")]
async fn free_slots_are_estimated_by_port_type() {
    let (server, url) = migrated().await;
    let store = open(&url, Settings::default());
    let service = session(&server, "authenticator").await;
    let counted = async || {
        server.psql("registry", "ANALYZE widgets.widgets");
        let asked = "SELECT p, q, r FROM widgets.estimated_free_slots()";
        let row = service.query_one(asked, &[]).await.expect("the right");
        let mut counts = PortCounts::default();
        for (place, port) in [Port::P, Port::Q, Port::R].into_iter().enumerate() {
            let slots: f64 = row.get(place);
            counts.add(port, format!("{slots:.0}").parse().expect("a whole number"));
        }
        counts
    };
    check_free_slots(&store.client(), "", counted).await;
}

/// Several callers, each with its own widgets, send the same histories to both stores at once. Each
/// caller must get byte for byte the same answers.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn both_stores_give_the_same_answers_to_the_same_history() {
    let (server, url) = migrated().await;
    let postgres = open(&url, Settings::default());
    let directory = Directory::new();
    let settings = widgets_engine::Settings::default();
    let engine = Engine::open(&directory.0.join("data"), &settings).expect("a new store");
    let mut callers = tokio::task::JoinSet::new();
    for caller in 0..16u64 {
        let names = few_serial_numbers(&format!("caller{caller}-"), 6);
        let history = sample(&vec(commands(names.clone()), 300).boxed(), caller);
        let (postgres, engine) = (postgres.client(), engine.client());
        callers.spawn(async move {
            for (number, command) in history.into_iter().enumerate() {
                let (here, there) = tokio::join!(
                    answer(&postgres, command.clone()),
                    answer(&engine, command.clone())
                );
                assert_eq!(
                    here, there,
                    "caller {caller}, operation {number}: {command:?}"
                );
            }
            for name in names {
                let here = postgres.ask(Lookup(name.clone())).await;
                assert_eq!(here, engine.ask(Lookup(name)).await, "caller {caller}");
            }
        });
    }
    while let Some(caller) = callers.join_next().await {
        caller.expect("a caller without a difference");
    }
    drop(postgres);
    assert_sound(&server);
}

/// Returns everything from which the server makes an answer.
async fn answer(store: &impl Store, command: Command) -> (String, String, Option<String>) {
    use widgets_registry::Rejection::{Fault, Refused, Replayed};
    match store.submit(command).await {
        Ok(()) => ("ok".into(), String::new(), None),
        Err(Refused(refusal) | Replayed(refusal)) => (
            refusal.code().into(),
            refusal.to_string(),
            refusal.details(),
        ),
        Err(Fault(fault)) => panic!("{fault}"),
    }
}
