//! What callers are told while the database is away, slow, crowded or at odds with one operation.

use crate::{assert_sound, migrated, open, server::Server, session};
use std::time::{Duration, Instant};
use widgets_conformance::commands::{add_widget, associate_widgets, remove_widget, serial_number};
use widgets_postgres::{Client, Settings};
use widgets_registry::{Ask as _, Command, Fault, Lookup, Port, Refusal, Rejection, Store as _};

fn fault(outcome: Result<(), Rejection>) -> Fault {
    match outcome {
        Err(Rejection::Fault(fault)) => fault,
        other => panic!("must be a fault: {other:?}"),
    }
}

fn add(name: &str) -> Command {
    add_widget(&serial_number(name), "", "P")
}

/// A second session that holds what the first wants, until it ends its transaction.
async fn holder(server: &Server, sql: &str) -> tokio_postgres::Client {
    let holder = session(server, "postgres").await;
    let held = holder.batch_execute(&format!("BEGIN; {sql}")).await;
    held.expect("locks");
    holder
}

const LOCK_ALL: &str = "SELECT FROM widgets.widgets FOR UPDATE";

async fn until_ready(client: &Client) -> Duration {
    #[expect(clippy::disallowed_methods, reason = "a test waits for a real server")]
    let start = Instant::now();
    while client.ready().await.is_err() {
        assert!(
            start.elapsed() < Duration::from_secs(30),
            "it does not come back"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    start.elapsed()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_away_is_found_when_it_comes() {
    let (mut server, url) = migrated().await;
    server.stop("fast");
    let store = open(&url, Settings::default());
    let client = store.client();
    let refused = fault(client.ask(add("A")).await);
    assert_eq!(refused.code(), "WG504");
    assert!(
        refused.to_string().contains("connecting to postgres://"),
        "{refused}"
    );
    assert!(client.ready().await.is_err());
    assert_eq!(
        client
            .ask(Lookup(serial_number("A")))
            .await
            .map_err(|fault| fault.code()),
        Err("WG504")
    );
    server.resume();
    until_ready(&client).await;
    assert_eq!(client.ask(add("A")).await, Ok(()));

    // Connections that break while nothing is under way cost no caller anything.
    server.psql(
        "postgres",
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'authenticator'",
    );
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(client.ask(add("B")).await, Ok(()));
    assert!(
        client
            .ask(Lookup(serial_number("B")))
            .await
            .expect("a lookup")
            .is_some()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_fate_of_what_a_crash_interrupts_is_unknown() {
    let (mut server, url) = migrated().await;
    let store = open(&url, Settings::default());
    let client = store.client();
    client.ask(add("A")).await.expect("added");
    client.ask(add("B")).await.expect("added");
    let _holder = holder(&server, LOCK_ALL).await;
    let (one, two) = (serial_number("A"), serial_number("B"));
    let caller = client.clone();
    let waiting =
        tokio::spawn(async move { caller.ask(associate_widgets(&one, &two, Port::P)).await });
    tokio::time::sleep(Duration::from_millis(300)).await;
    server.stop("immediate");
    assert_eq!(fault(waiting.await.expect("no panic")).code(), "WG505");
    server.resume();
    until_ready(&client).await;
    assert_eq!(client.ask(add("C")).await, Ok(()));
    assert_sound(&server);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_administrator_who_ends_a_statement_is_told_apart_from_a_crash() {
    let (server, url) = migrated().await;
    let store = open(&url, Settings::default());
    let client = store.client();
    client.ask(add("A")).await.expect("added");
    let holder = holder(&server, LOCK_ALL).await;
    let caller = client.clone();
    let waiting = tokio::spawn(async move { caller.ask(remove_widget(&serial_number("A"))).await });
    tokio::time::sleep(Duration::from_millis(300)).await;
    server.psql(
        "postgres",
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'authenticator'",
    );
    // The server said that it rolled back, so nothing was applied.
    assert_eq!(fault(waiting.await.expect("no panic")).code(), "WG504");
    holder.batch_execute("ROLLBACK").await.expect("no locks");
    until_ready(&client).await;
    assert!(
        client
            .ask(Lookup(serial_number("A")))
            .await
            .expect("a lookup")
            .is_some()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn waiting_has_its_limits() {
    let (server, url) = migrated().await;
    let store = open(
        &url,
        Settings {
            connections: 1,
            queue_operations_max: 2,
            queue_bytes_max: 4096,
            queue_wait_ms_max: 500,
            statement_timeout_ms: 1500,
            ..Settings::default()
        },
    );
    let client = store.client();
    client.ask(add("A")).await.expect("added");
    let holder = holder(&server, LOCK_ALL).await;
    let submit = |command| {
        let client = client.clone();
        tokio::spawn(async move { client.ask(command).await })
    };
    let blocked = submit(remove_widget(&serial_number("A")));
    tokio::time::sleep(Duration::from_millis(200)).await;
    // Behind it two may wait, and no third.
    let (second, third) = (submit(add("B")), submit(add("C")));
    tokio::time::sleep(Duration::from_millis(100)).await;
    let full = fault(client.ask(add("D")).await);
    assert!(
        matches!(&full, Fault::Busy { limit, retry_after_seconds: 1.. }
            if limit == "queue_operations_max = 2"),
        "{full:?}"
    );
    let cancelled = fault(blocked.await.expect("no panic"));
    assert!(
        matches!(&cancelled, Fault::Busy { limit, .. } if limit == "statement_timeout_ms = 1500"),
        "{cancelled:?}"
    );
    for waiting in [second, third] {
        let late = fault(waiting.await.expect("no panic"));
        assert!(
            matches!(&late, Fault::Busy { limit, .. } if limit == "queue_wait_ms_max = 500"),
            "{late:?}"
        );
    }
    holder.batch_execute("ROLLBACK").await.expect("no locks");
    // Nothing of it was applied, and the connection is still good.
    assert_eq!(client.ask(add("B")).await, Ok(()));
    assert_eq!(client.ask(remove_widget(&serial_number("A"))).await, Ok(()));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_operation_that_the_database_cannot_take_harms_no_other() {
    let (server, url) = migrated().await;
    server.psql(
        "registry",
        "ALTER TABLE widgets.widgets ADD CONSTRAINT no_poison CHECK (name <> 'poison')",
    );
    let store = open(
        &url,
        Settings {
            connections: 1,
            ..Settings::default()
        },
    );
    let client = store.client();
    let mut callers = tokio::task::JoinSet::new();
    for number in 0..20 {
        let client = client.clone();
        let name = if number == 13 { "poison" } else { "" };
        let command = add_widget(&serial_number(&format!("W{number}")), name, "P");
        callers.spawn(async move { (number, client.ask(command).await) });
    }
    while let Some(caller) = callers.join_next().await {
        let (number, outcome) = caller.expect("no panic");
        if number == 13 {
            let refused = fault(outcome);
            assert!(refused.to_string().contains("no_poison"), "{refused}");
            assert_eq!(refused.code(), "WG504");
        } else {
            assert_eq!(outcome, Ok(()), "{number}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn conflicts_with_others_are_tried_again() {
    let (server, url) = migrated().await;
    let store = open(&url, Settings::default());
    let client = store.client();
    // Another session takes the serial number between the look and the insertion.
    let holder = holder(&server, "SELECT widgets.add_widget('A', '', '{P}')").await;
    let caller = client.clone();
    let waiting = tokio::spawn(async move { caller.ask(add("A")).await });
    tokio::time::sleep(Duration::from_millis(300)).await;
    holder.batch_execute("COMMIT").await.expect("a widget");
    let serial_number = serial_number("A");
    let taken = Refusal::SerialNumberTaken { serial_number };
    assert_eq!(
        waiting.await.expect("no panic"),
        Err(Rejection::Refused(taken))
    );
    let registry = prometheus::Registry::new();
    store.metrics().register(&registry).expect("metrics");
    let families = registry.gather();
    let retries = families
        .iter()
        .find(|family| family.name() == "widgets_batch_retries_total")
        .expect("the count of retries");
    let taken = |retry: &&prometheus::proto::Metric| retry.get_label()[0].value() == "23505";
    let retry = retries.get_metric().iter().find(taken);
    assert!(retry.expect("a count of its own").get_counter().get_value() >= 1.0);
}
