//! Lists that wait for a lock, and lists with and without optional indexes.

use crate::{
    TIMEOUT, faults::patient, in_time, locks::holder, migrated, open, server::Server, until,
};
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio_postgres::Client as Session;
use widgets_conformance::check_store;
use widgets_postgres::{Index, Postgres, Settings, Target, keep_index};
use widgets_registry::{
    Ask as _,
    query::{Asker, Direction, Filter, List, Table},
};

fn everything() -> List {
    List {
        table: Table::Widgets,
        filter: Filter::EVERYTHING,
        direction: Direction::Ascending,
        offset: 0,
        limit: 10,
        count: true,
        asker: Asker::default(),
    }
}

/// Waits until this many lists wait for a lock.
async fn until_waiting(server: &Server, lists: usize) {
    let sql = "SELECT count(*) FROM pg_stat_activity
        WHERE wait_event_type = 'Lock' AND query LIKE '%list_rows%' AND pid <> pg_backend_pid()";
    until(server, sql, &lists.to_string()).await;
}

/// Asks for a list that waits for a lock. Returns the session that holds the lock, and the caller.
async fn waiting_list(server: &Server, store: &Postgres) -> (Session, JoinHandle<()>) {
    let lock = "LOCK TABLE widgets.widgets IN ACCESS EXCLUSIVE MODE";
    let holder = holder(server, lock).await;
    let client = store.client();
    let asked = tokio::spawn(async move { drop(client.ask(everything()).await) });
    until_waiting(server, 1).await;
    (holder, asked)
}

#[tokio::test(flavor = "multi_thread")]
async fn abandoning_a_list_cancels_its_statement() {
    let (server, url) = migrated().await;
    let store = open(&url, Settings::default());
    let client = store.client();
    let (holder, asked) = waiting_list(&server, &store).await;
    asked.abort();
    // The lock is still held, so the statement ends because nobody waits for it.
    until_waiting(&server, 0).await;
    holder.batch_execute("ROLLBACK").await.expect("let go");
    let page = client.ask(everything()).await.expect("a page");
    assert_eq!(page.total, Some(0));
}

/// The operating system of a stopped server accepts the connection that cancels the statement, but
/// the server does not answer it.
#[tokio::test(flavor = "multi_thread")]
async fn a_list_abandoned_at_an_unresponsive_server_leaves_its_connection_to_others() {
    let (server, url) = migrated().await;
    let settings = Settings {
        list_connections: 1,
        ..patient(1000)
    };
    let store = open(&url, settings);
    let client = store.client();
    let (holder, asked) = waiting_list(&server, &store).await;
    server.signal("-STOP");
    asked.abort();
    // The only connection is made again, which fails.
    let next = tokio::time::timeout(Duration::from_mins(2), client.ask(everything())).await;
    server.signal("-CONT");
    let next = next.expect("an answer while the server gives none");
    assert_eq!(next.map_err(|fault| fault.code()), Err("WG504"));
    holder.batch_execute("ROLLBACK").await.expect("let go");
    let answered = async {
        while client.ask(everything()).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    in_time("a list is answered", answered).await;
}

/// Indexes are used, change no answer, and can be created and dropped while a service runs.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn optional_indexes_are_created_and_dropped_on_request() {
    let (server, url) = migrated().await;
    let owner = Target::parse(&server.url("registry", "postgres")).expect("a URL");
    let store = open(&url, Settings::default());
    let keep = async |index, on| {
        let kept = keep_index(&owner, index, on, TIMEOUT).await;
        kept.expect("made or dropped")
    };
    // One widget in a thousand has a free R slot, and each has a different name.
    let fill = "INSERT INTO widgets.widgets (serial_number, name, port1)
        SELECT 'w' || n, 'n' || n, CASE WHEN n % 1000 = 0 THEN 'R' ELSE 'P' END::widgets.port_type
        FROM generate_series(1, 20000) n";
    server.psql("registry", fill);
    server.psql("registry", "ANALYZE widgets.widgets");
    let filters = [
        (
            Index::Names,
            "widgets_by_name",
            r#"{"column": "name", "test": "eq", "text": 1}"#,
        ),
        (
            Index::FreeSlots,
            "widgets_free_r",
            r#"{"column": "slots", "test": "contains", "patterns": [{"port": "R", "peer": null}]}"#,
        ),
    ];
    let plan = |filter: &str| {
        let condition = format!("SELECT widgets.condition('{filter}', false)");
        let condition = server.psql("registry", &condition);
        let condition = condition.replace("$1[1]", "'n7'");
        let explain = format!(
            "EXPLAIN SELECT serial_number FROM widgets.widgets widget WHERE {condition}
             ORDER BY serial_number LIMIT 100"
        );
        server.psql("registry", &explain)
    };
    for (index, name, filter) in filters {
        assert!(!plan(filter).contains(name));
        assert!(keep(index, true).await, "it was not there");
        assert!(!keep(index, true).await, "it is there");
        assert!(plan(filter).contains(name), "{}", plan(filter));
        // The same state as after an interrupted creation.
        let broken = format!(
            "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'widgets.{name}'::regclass"
        );
        server.psql("registry", &broken);
        assert!(keep(index, true).await, "an invalid index is created again");
    }
    check_store(&[store.client()], "").await;
    for (index, name, filter) in filters {
        assert!(keep(index, false).await);
        assert!(!keep(index, false).await);
        assert!(!plan(filter).contains(name));
    }
}
