//! The answers to callers while the database is unavailable, slow or overloaded, or refuses one
//! operation.

use crate::{assert_sound, in_time, migrated, open, server::Server, turn_on_changes, until};
use std::time::Duration;
use widgets_conformance::commands::{add_widget, serial_number};
use widgets_postgres::{Client, Postgres, Settings};
use widgets_registry::{
    Ask as _, Command, Fault, Kinds as _, Lookup, Reason, Rejection, Store as _,
};

/// Returns the fault that an operation met.
pub(crate) fn fault(outcome: Result<(), Rejection>) -> Fault {
    match outcome {
        Err(Rejection::Fault(fault)) => fault,
        other => panic!("must be a fault: {other:?}"),
    }
}

/// Returns why the store could not do its work.
pub(crate) fn reason(fault: &Fault) -> &Reason {
    match fault {
        Fault::Unavailable { reason } | Fault::FateUnknown { reason } => reason,
        Fault::Busy { .. } => panic!("has no reason: {fault}"),
    }
}

/// Returns a command that adds a widget.
pub(crate) fn add(name: &str) -> Command {
    add_widget(&serial_number(name), "", "P")
}

/// Makes the database take a minute to add a widget named `slow`.
pub(crate) fn make_slow(server: &Server) {
    server.psql(
        "registry",
        "CREATE FUNCTION sleep() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN PERFORM pg_catalog.pg_sleep(60); RETURN NEW; END $$;
        CREATE TRIGGER slow BEFORE INSERT ON widgets.widgets FOR EACH ROW
            WHEN (NEW.name = 'slow') EXECUTE FUNCTION sleep()",
    );
}

/// Returns a command that takes the database a minute.
pub(crate) fn add_slowly(name: &str) -> Command {
    add_widget(&serial_number(name), "slow", "P")
}

/// Waits until a backend is waiting for this event.
pub(crate) async fn until_waiting(server: &Server, wait_event: &str) {
    let sql =
        format!("SELECT count(*) > 0 FROM pg_stat_activity WHERE wait_event = '{wait_event}'");
    until(server, &sql, "t").await;
}

/// Waits until this many requests are in the store's queue.
async fn until_queued(store: &Postgres, count: u32) {
    until_gauge(store, "widgets_queue_operations", count).await;
}

/// Waits until a gauge of the store has this value.
pub(crate) async fn until_gauge(store: &Postgres, name: &str, value: u32) {
    let registry = prometheus::Registry::new();
    store.metrics().register(&registry).expect("metrics");
    let shown = || {
        let families = registry.gather();
        let family = families.iter().find(|family| family.name() == name);
        family.expect("the gauge").get_metric()[0]
            .get_gauge()
            .get_value()
    };
    let comes = async {
        #[expect(clippy::float_cmp, reason = "a count")]
        while shown() != f64::from(value) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    in_time(name, comes).await;
}

/// Waits until operations can be applied.
pub(crate) async fn until_ready(client: &Client) {
    let ready = async {
        while client.ready().await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    in_time("the store is ready", ready).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_store_connects_when_an_unreachable_database_comes_up() {
    let (mut server, url) = migrated().await;
    server.stop("fast");
    let store = open(&url, Settings::default());
    let client = store.client();
    let refused = fault(client.submit(add("A")).await);
    assert_eq!(refused.code(), "WG504");
    assert_eq!(reason(&refused).public(), "the database cannot be reached");
    let details = reason(&refused).details().expect("for the operator");
    assert!(
        details.starts_with("connecting to postgres://"),
        "{details}"
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
    assert_eq!(client.submit(add("A")).await, Ok(()));

    // Connections that break while idle have no effect on callers.
    let of_store = "FROM pg_stat_activity WHERE usename = 'authenticator'";
    let newest = server.psql("postgres", &format!("SELECT max(backend_start) {of_store}"));
    server.psql(
        "postgres",
        &format!("SELECT pg_terminate_backend(pid) {of_store}"),
    );
    let back = format!("SELECT count(*) >= 7 {of_store} AND backend_start > '{newest}'");
    until(&server, &back, "t").await;
    assert_eq!(client.submit(add("B")).await, Ok(()));
    assert!(
        client
            .ask(Lookup(serial_number("B")))
            .await
            .expect("a lookup")
            .is_some()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operation_interrupted_by_a_crash_has_an_unknown_fate() {
    let (mut server, url) = migrated().await;
    make_slow(&server);
    let store = open(&url, Settings::default());
    let client = store.client();
    let caller = client.clone();
    let waiting = tokio::spawn(async move { caller.submit(add_slowly("A")).await });
    until_waiting(&server, "PgSleep").await;
    server.stop("immediate");
    let unknown = fault(waiting.await.expect("no panic"));
    assert_eq!(unknown.code(), "WG505");
    assert_eq!(
        reason(&unknown).public(),
        "the connection to the database broke before it answered"
    );
    server.resume();
    until_ready(&client).await;
    assert_eq!(client.submit(add("C")).await, Ok(()));
    assert_sound(&server);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_ended_by_an_administrator_is_reported_as_not_applied() {
    let (server, url) = migrated().await;
    make_slow(&server);
    let store = open(&url, Settings::default());
    let client = store.client();
    for (function, code) in [
        ("pg_terminate_backend", "WG504"),
        ("pg_cancel_backend", "WG503"),
    ] {
        let caller = client.clone();
        let waiting = tokio::spawn(async move { caller.submit(add_slowly("A")).await });
        until_waiting(&server, "PgSleep").await;
        let sql =
            format!("SELECT {function}(pid) FROM pg_stat_activity WHERE wait_event = 'PgSleep'");
        server.psql("postgres", &sql);
        // The server reported a rollback, so nothing was applied.
        assert_eq!(fault(waiting.await.expect("no panic")).code(), code);
        until_ready(&client).await;
        let found = client.ask(Lookup(serial_number("A"))).await;
        assert_eq!(found, Ok(None), "{function}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn queued_operations_are_limited_in_number_and_waiting_time() {
    let (server, url) = migrated().await;
    make_slow(&server);
    let store = open(
        &url,
        Settings {
            connections: 1,
            queue_operations_max: 2,
            queue_wait_ms_max: 500,
            statement_timeout_ms: 3000,
            ..Settings::default()
        },
    );
    let client = store.client();
    let submit = |command| {
        let client = client.clone();
        tokio::spawn(async move { client.submit(command).await })
    };
    let blocked = submit(add_slowly("A"));
    until_waiting(&server, "PgSleep").await;
    // Two more may wait, but no third.
    let (second, third) = (submit(add("B")), submit(add("C")));
    until_queued(&store, 2).await;
    let full = fault(client.submit(add("D")).await);
    assert!(
        matches!(&full, Fault::Busy { limit, retry_after_seconds: 1.. }
            if limit == "queue_operations_max = 2"),
        "{full:?}"
    );
    let cancelled = fault(blocked.await.expect("no panic"));
    assert!(
        matches!(&cancelled, Fault::Busy { limit, retry_after_seconds: 3 }
            if limit == "statement_timeout_ms = 3000"),
        "{cancelled:?}"
    );
    for waiting in [second, third] {
        let late = fault(waiting.await.expect("no panic"));
        assert!(
            matches!(&late, Fault::Busy { limit, .. } if limit == "queue_wait_ms_max = 500"),
            "{late:?}"
        );
    }
    // Nothing was applied.
    assert_eq!(client.submit(add("A")).await, Ok(()));
    assert_eq!(client.submit(add("B")).await, Ok(()));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operation_that_the_database_refuses_does_not_fail_its_batch() {
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
        callers.spawn(async move { (number, client.submit(command).await) });
    }
    while let Some(caller) = callers.join_next().await {
        let (number, outcome) = caller.expect("no panic");
        if number == 13 {
            let refused = fault(outcome);
            assert_eq!(refused.code(), "WG504");
            let reason = reason(&refused);
            assert_eq!(reason.public(), "the database refused it");
            let details = reason.details().expect("for the operator");
            assert!(details.contains("no_poison"), "{details}");
        } else {
            assert_eq!(outcome, Ok(()), "{number}");
        }
    }
}

/// A load balancer must not send operations to a service that applies none.
#[tokio::test(flavor = "multi_thread")]
async fn readiness_reports_the_fault_that_operations_get() {
    let (server, url) = migrated().await;
    let store = open(&url, Settings::default());
    let client = store.client();
    client.submit(add("A")).await.expect("added");
    assert_eq!(client.ready().await, Ok(()));
    server.psql(
        "registry",
        "REVOKE EXECUTE ON FUNCTION widgets.apply_batch FROM authenticator",
    );
    let refused = fault(client.submit(add("B")).await);
    assert_eq!(refused.code(), "WG504");
    assert_eq!(
        reason(&refused).public(),
        "the database refuses the service's role"
    );
    assert_eq!(client.ready().await, Err(refused));
    // Lookups continue.
    let found = client
        .ask(Lookup(serial_number("A")))
        .await
        .expect("a lookup");
    assert!(found.is_some());
    server.psql(
        "registry",
        "GRANT EXECUTE ON FUNCTION widgets.apply_batch TO authenticator",
    );
    assert_eq!(client.submit(add("B")).await, Ok(()));
    assert_eq!(client.ready().await, Ok(()));
}

/// Returns settings with a statement timeout that is longer than any test.
pub(crate) fn patient(connect_timeout_ms: u64) -> Settings {
    Settings {
        statement_timeout_ms: 10 * 60 * 1000,
        connect_timeout_ms,
        ..Settings::default()
    }
}

/// The operating system of a stopped server accepts connections, but the server does not answer.
/// `/ready` does not wait for the statement timeout, which is longer than any test.
#[tokio::test(flavor = "multi_thread")]
async fn readiness_does_not_wait_for_an_unresponsive_server() {
    let (server, url) = migrated().await;
    let store = open(&url, patient(1000));
    let client = store.client();
    until_ready(&client).await;
    server.signal("-STOP");
    let unready = client.ready().await;
    server.signal("-CONT");
    let unready = unready.expect_err("it says nothing");
    assert_eq!(unready.code(), "WG504");
    assert_eq!(reason(&unready).public(), "the database cannot be reached");
    until_ready(&client).await;
    assert_eq!(client.submit(add("A")).await, Ok(()));
}

/// An operation does not wait for the statement timeout either. Its fate is unknown.
#[tokio::test(flavor = "multi_thread")]
async fn operations_do_not_wait_for_an_unresponsive_server() {
    let (server, url) = migrated().await;
    let store = open(&url, patient(1000));
    let client = store.client();
    assert_eq!(client.submit(add("A")).await, Ok(()));
    server.signal("-STOP");
    let unknown = client.submit(add("B")).await;
    server.signal("-CONT");
    let unknown = fault(unknown);
    assert_eq!(unknown.code(), "WG505");
    assert_eq!(reason(&unknown).public(), "the database did not answer");
    let applied = async {
        while client.submit(add("C")).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    in_time("an operation is applied", applied).await;
    // Lookups have a connection of their own, which may come back later.
    until_ready(&client).await;
    assert_sound(&server);
}

/// A reader of the feed does not wait for the statement timeout either.
#[tokio::test(flavor = "multi_thread")]
async fn reading_the_feed_does_not_wait_for_an_unresponsive_server() {
    let (server, url) = migrated().await;
    turn_on_changes(&server).await;
    let store = open(&url, patient(1000));
    let feed = store.client().feed().expect("a feed");
    feed.newest().await.expect("a position");
    server.signal("-STOP");
    let unheard = feed.newest().await;
    server.signal("-CONT");
    let unheard = unheard.expect_err("it says nothing").to_string();
    assert!(unheard.contains("the database did not answer"), "{unheard}");
}

/// A server that answers new connections is only slow, so `/ready` waits for it.
#[tokio::test(flavor = "multi_thread")]
async fn readiness_waits_for_a_slow_server() {
    let (server, url) = migrated().await;
    let store = open(&url, patient(60 * 1000));
    let client = store.client();
    until_ready(&client).await;
    let holder = crate::locks::holder(&server, "LOCK TABLE widgets.widgets").await;
    let looking = {
        let client = client.clone();
        tokio::spawn(async move { client.ready().await })
    };
    let waits = "SELECT count(*) FROM pg_stat_activity
        WHERE wait_event = 'relation' AND clock_timestamp() - query_start > interval '1s'";
    until(&server, waits, "1").await;
    holder.batch_execute("COMMIT").await.expect("ended");
    assert_eq!(looking.await.expect("no panic"), Ok(()));
}
