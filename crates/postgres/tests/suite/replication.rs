//! A primary and its standbys: which of them is used, and what is answered if a commit may be on
//! only one of them.

use crate::{
    TIMEOUT,
    faults::{add, fault, reason, until_ready, until_waiting},
    in_time,
    locks::submit,
    migrated, open,
    server::{Server, binary, command, run},
    translator::translated,
    until,
};
use std::time::Duration;
use widgets_conformance::commands::serial_number;
use widgets_postgres::{Client, Postgres, Settings, Target, migrate};
use widgets_registry::{Ask as _, Kinds as _, Lookup, Store as _};

fn lines(server: &Server, sql: &str) -> String {
    server.psql("postgres", sql)
}

/// Changes a setting of a running server.
pub(crate) fn set(server: &Server, setting: &str) {
    // These are separate statements, because ALTER SYSTEM cannot run in a transaction.
    server.psql("postgres", &format!("ALTER SYSTEM SET {setting}"));
    server.psql("postgres", "SELECT pg_reload_conf()");
}

/// The configured synchronous standby does not exist, so each commit waits for it. If the wait is
/// cancelled, PostgreSQL reports success with a warning.
#[tokio::test(flavor = "multi_thread")]
async fn a_commit_not_confirmed_by_a_standby_has_an_unknown_fate() {
    let (server, _) = migrated().await;
    set(&server, "synchronous_standby_names = 'ghost'");
    // A server that reports this in its own language.
    let port = translated(server.port);
    let url = format!("postgres://authenticator@127.0.0.1:{port}/registry?sslmode=disable");
    let cancelled_by_us = open(
        &url,
        Settings {
            // By then, on any machine, the operation is applied and waits only for the standby.
            statement_timeout_ms: 2000,
            ..Settings::default()
        },
    );
    let outcome = cancelled_by_us.client().submit(add("A")).await;
    let unknown = fault(outcome);
    assert_eq!(unknown.code(), "WG505");
    assert_eq!(
        reason(&unknown).public(),
        "the database applied it, and perhaps not on its standbys: the wait for them was cancelled"
    );
    // An administrator, or a pooler, may also cancel it.
    let store = open(&url, Settings::default());
    let client = store.client();
    let waiting = submit(&client, add("B"));
    until_waiting(&server, "SyncRep").await;
    lines(
        &server,
        "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'",
    );
    assert_eq!(fault(waiting.await.expect("no panic")).code(), "WG505");
    set(&server, "synchronous_standby_names = ''");
    // Both operations were applied on this server, and later ones are acknowledged again.
    for name in ["A", "B"] {
        let found = client
            .ask(Lookup(serial_number(name)))
            .await
            .expect("a lookup");
        assert!(found.is_some(), "{name}");
    }
    assert_eq!(client.submit(add("C")).await, Ok(()));
}

/// A migration also fails if the wait for the standby is cancelled.
#[tokio::test(flavor = "multi_thread")]
async fn a_migration_not_confirmed_by_a_standby_is_reported_as_failed() {
    let server = Server::start(&["fsync=off"]);
    let url = server.database("registry", "postgres");
    set(&server, "synchronous_standby_names = 'ghost'");
    let target = Target::parse(&url).expect("a URL");
    let waiting = tokio::spawn(async move { migrate(&target, TIMEOUT).await });
    until_waiting(&server, "SyncRep").await;
    lines(
        &server,
        "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'",
    );
    let error = waiting.await.expect("no panic").expect_err("unsure");
    assert!(
        error.to_string().contains("perhaps on no standby"),
        "{error}"
    );
}

/// Starts a copy of the server that follows it.
fn standby(primary: &Server) -> Server {
    Server::start_on(&["fsync=off"], |data| {
        run(command(&binary("pg_basebackup"))
            .args(["-h", "127.0.0.1", "-U", "postgres", "-p"])
            .arg(primary.port.to_string())
            .args([
                "--wal-method=stream",
                "--checkpoint=fast",
                "--write-recovery-conf",
            ])
            .args(["--no-sync", "-D"])
            .arg(data));
    })
}

/// Waits until the standby has everything that the primary has committed.
async fn until_replayed(primary: &Server, standby: &Server) {
    let written = lines(primary, "SELECT pg_current_wal_flush_lsn()");
    let replayed = format!("SELECT pg_last_wal_replay_lsn() >= '{written}'");
    until(standby, &replayed, "t").await;
}

fn open_both(first: &Server, second: &Server, more: &str) -> Postgres {
    let url = format!(
        "postgres://authenticator@127.0.0.1:{},127.0.0.1:{}/registry?sslmode=disable{more}",
        first.port, second.port
    );
    open(&url, Settings::default())
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_go_to_the_primary_whatever_the_order_of_hosts() {
    let (mut primary, _) = migrated().await;
    let standby = standby(&primary);
    let stores = [
        open_both(&primary, &standby, ""),
        open_both(&standby, &primary, ""),
    ];
    let check = async |name: &str| {
        for (number, store) in stores.iter().enumerate() {
            let client = store.client();
            let name = format!("{name}{number}");
            assert_eq!(client.submit(add(&name)).await, Ok(()), "{name}");
            // A standby cannot have it yet, because its replay is paused.
            let found = client.ask(Lookup(serial_number(&name))).await;
            assert!(found.expect("a lookup").is_some(), "{name}");
            assert_eq!(client.ready().await, Ok(()));
        }
    };
    until_replayed(&primary, &standby).await;
    lines(&standby, "SELECT pg_wal_replay_pause()");
    check("before").await;
    primary.stop("fast");
    for store in &stores {
        let client = store.client();
        until_unready(&client).await;
        assert_eq!(fault(client.submit(add("A")).await).code(), "WG504");
        let lookup = client.ask(Lookup(serial_number("A"))).await;
        assert_eq!(lookup.map_err(|fault| fault.code()), Err("WG504"));
    }
    primary.resume();
    for store in &stores {
        until_ready(&store.client()).await;
    }
    check("after").await;

    // The standby takes over.
    lines(&standby, "SELECT pg_wal_replay_resume()");
    until_replayed(&primary, &standby).await;
    primary.stop("fast");
    assert_eq!(lines(&standby, "SELECT pg_promote()"), "t");
    for store in &stores {
        until_ready(&store.client()).await;
    }
    check("promoted").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lookups_read_from_a_standby_if_configured() {
    let (mut primary, _) = migrated().await;
    let standby = standby(&primary);
    let store = open_both(&standby, &primary, "&target_session_attrs=any");
    let client = store.client();
    assert_eq!(client.submit(add("A")).await, Ok(()));
    until_replayed(&primary, &standby).await;
    primary.stop("fast");
    let found = client
        .ask(Lookup(serial_number("A")))
        .await
        .expect("a lookup");
    assert!(found.is_some());
    assert_eq!(fault(client.submit(add("B")).await).code(), "WG504");
    assert_eq!(
        client.ready().await.map_err(|fault| fault.code()),
        Err("WG504")
    );
}

/// A primary that was suspended comes back after another one has taken over. It accepts writes
/// until somebody stops it.
#[tokio::test(flavor = "multi_thread")]
async fn a_replaced_primary_is_not_used_again() {
    let (old, _) = migrated().await;
    let mut new = standby(&old);
    let store = open_both(&new, &old, "");
    let client = store.client();
    assert_eq!(client.submit(add("A")).await, Ok(()));
    // All connections go to the old primary, including idle ones.
    let of_store = "FROM pg_stat_activity WHERE usename = 'authenticator'";
    let connections = format!("SELECT count(*) {of_store}");
    let adding = format!("{of_store} AND query LIKE '%apply_batch%'");
    assert_eq!(lines(&old, &format!("SELECT count(*) {adding}")), "1");
    until(&old, &format!("SELECT count(*) >= 7 {of_store}"), "t").await;
    until_replayed(&old, &new).await;
    assert_eq!(lines(&new, "SELECT pg_promote()"), "t");
    assert_eq!(lines(&old, "SELECT pg_is_in_recovery()"), "f");
    // One of them breaks and finds the new primary: the others follow it.
    lines(&old, &format!("SELECT pg_terminate_backend(pid) {adding}"));
    until(&old, &connections, "0").await;
    until(&new, &format!("SELECT count(*) >= 7 {of_store}"), "t").await;
    for number in 0..20 {
        let name = format!("B{number}");
        assert_eq!(client.submit(add(&name)).await, Ok(()), "{name}");
        let found = client.ask(Lookup(serial_number(&name))).await;
        assert!(found.expect("a lookup").is_some(), "{name}");
    }
    // The old primary is not used while the new one is down either, because it lacks what was
    // acknowledged.
    new.stop("fast");
    until_unready(&client).await;
    let refused = fault(client.submit(add("C")).await);
    assert_eq!(refused.code(), "WG504");
    let details = reason(&refused).details().expect("for the operator");
    assert!(details.contains("it was replaced"), "{details}");
    let there = old.psql("registry", "SELECT serial_number FROM widgets.widgets");
    assert_eq!(there, "A", "what it had before");
    new.resume();
    until_ready(&client).await;
    assert_eq!(client.submit(add("C")).await, Ok(()));
}

/// A standby that every commit must wait for is gone. No operation is acknowledged, but lookups
/// continue.
#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_acknowledges_nothing_is_not_ready() {
    let (server, url) = migrated().await;
    let settings = Settings {
        statement_timeout_ms: 2000,
        ..Settings::default()
    };
    let store = open(&url, settings);
    let client = store.client();
    assert_eq!(client.ready().await, Ok(()));
    set(&server, "synchronous_standby_names = 'ghost'");
    until(&server, "SHOW synchronous_standby_names", "ghost").await;
    assert_eq!(fault(client.submit(add("A")).await).code(), "WG505");
    let unready = client.ready().await.expect_err("nothing is acknowledged");
    assert!(
        unready.to_string().contains("perhaps not on its standbys"),
        "{unready}"
    );
    let found = client.ask(Lookup(serial_number("A"))).await;
    assert!(found.expect("a lookup").is_some());
    set(&server, "synchronous_standby_names = ''");
    // Operations find out that it works again.
    assert_eq!(client.submit(add("B")).await, Ok(()));
    assert_eq!(client.ready().await, Ok(()));
}

/// A server stops accepting writes, as after a failover behind one host name. Another connection
/// may find another server.
#[tokio::test(flavor = "multi_thread")]
async fn connections_for_operations_leave_a_server_that_becomes_read_only() {
    let (server, url) = migrated().await;
    let store = open(&url, Settings::default());
    let client = store.client();
    client.submit(add("A")).await.expect("added");
    let of_store = "FROM pg_stat_activity WHERE usename = 'authenticator'";
    until(&server, &format!("SELECT count(*) >= 7 {of_store}"), "t").await;
    let newest = lines(&server, &format!("SELECT max(backend_start) {of_store}"));
    let old = format!("{of_store} AND backend_start <= '{newest}'");
    let before = lines(&server, &format!("SELECT count(*) {old}"));
    set(&server, "default_transaction_read_only = on");
    let mut attempt = 0;
    let refused = async {
        loop {
            attempt += 1;
            match client.submit(add(&format!("B{attempt}"))).await {
                // The signal to reload the settings may arrive after the operation.
                Ok(()) => {}
                refused => break fault(refused),
            }
        }
    };
    let refused = in_time("an operation is refused", refused).await;
    assert_eq!(refused.code(), "WG504");
    until_unready(&client).await;
    // Both of them have left, also the one that was idle. Those that read have stayed.
    let left = format!("SELECT {before} - count(*) {old}");
    until(&server, &left, "2").await;
    set(&server, "default_transaction_read_only = off");
    until_ready(&client).await;
    assert_eq!(client.submit(add("C")).await, Ok(()));
}

/// Waits until the store has noticed the loss of its connections.
async fn until_unready(client: &Client) {
    let unready = async {
        while client.ready().await.is_ok() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    in_time("the loss is known", unready).await;
}
