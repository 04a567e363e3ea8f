//! The PostgreSQL store against real servers.

#![expect(
    clippy::expect_used,
    clippy::panic,
    reason = "in the helpers of tests a panic is the failed test"
)]

mod bulk;
mod changes;
mod citus;
mod conformance;
mod distributed;
mod dump;
mod faults;
mod functions;
mod languages;
mod lists;
mod locks;
mod migrations;
mod new_kind;
mod nodes;
mod passwords;
mod pooler;
mod postgrest;
mod replication;
mod retries;
mod server;
mod strangers;
mod tls;
mod translator;

use server::{Directory, Server};
use std::{
    sync::{Arc, Weak},
    time::Duration,
};
use tokio::sync::Mutex;
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};
use widgets_postgres::{Postgres, Settings, Target, keep_changes, migrate};

const TIMEOUT: Duration = Duration::from_secs(10);

/// Returns a server with one migrated database, and the URL of the service's role.
async fn migrated() -> (Server, String) {
    let server = Server::start_of(migrated_data().await, &["fsync=off"]);
    let url = server.url("registry", "authenticator");
    (server, url)
}

/// Returns the data directory of such a server, made once for all that run at the same time.
async fn migrated_data() -> Arc<Directory> {
    static LATEST: Mutex<Weak<Directory>> = Mutex::const_new(Weak::new());
    let mut latest = LATEST.lock().await;
    if let Some(data) = latest.upgrade() {
        return data;
    }
    let mut server = Server::start(&["fsync=off"]);
    let owner = server.database("registry", "postgres");
    let target = Target::parse(&owner).expect("a URL");
    let migrated = migrate(&target, TIMEOUT).await;
    migrated.expect("a migrated database");
    server.stop("fast");
    let data = server.directory.clone();
    *latest = Arc::downgrade(&data);
    data
}

/// Turns on the feed of a migrated database.
async fn turn_on_changes(server: &Server) {
    let target = Target::parse(&server.url("registry", "postgres")).expect("a URL");
    let changed = keep_changes(&target, true, TIMEOUT).await;
    assert!(changed.expect("a feed"), "it was off");
}

fn open(url: &str, settings: Settings) -> Postgres {
    let target = Target::parse(url).expect("a URL");
    Postgres::open(target, settings).expect("an open store")
}

/// Opens a separate session for a test.
async fn session(server: &Server, role: &str) -> Client {
    let url = server.url("registry", role);
    let (client, connection) = tokio_postgres::connect(&url, NoTls)
        .await
        .expect("a session");
    tokio::spawn(connection);
    client
}

/// Waits until a query by the administrator returns this value, for longer than any machine needs.
async fn until(server: &Server, sql: &str, expected: &str) {
    let session = session(server, "postgres").await;
    let mut found = None;
    for _ in 0..12_000 {
        let rows = session.simple_query(sql).await.expect("an answer");
        found = rows.iter().find_map(|message| match message {
            SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
            _ => None,
        });
        if found.as_deref() == Some(expected) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{sql}: {found:?} for two minutes, not {expected}");
}

/// Waits at most two minutes, which suffice on however busy a machine: a test that hangs explains
/// nothing.
async fn in_time<T>(what: &str, coming: impl Future<Output = T>) -> T {
    let come = tokio::time::timeout(Duration::from_mins(2), coming).await;
    come.unwrap_or_else(|_| panic!("{what}: not within two minutes"))
}

/// Checks that no association is broken and no slot lacks its widget, independently of the
/// constraints.
fn assert_sound(server: &Server) {
    let broken = "
        SELECT count(*) FROM widgets.slots slot
        WHERE NOT EXISTS (SELECT FROM widgets.widgets WHERE serial_number = slot.widget_sn)
            OR slot.peer_sn IS NOT NULL AND 1 <> (SELECT count(*) FROM widgets.slots peer
                WHERE peer.widget_sn = slot.peer_sn AND peer.port = slot.port
                    AND peer.peer_sn = slot.widget_sn)";
    assert_eq!(server.psql("registry", broken), "0", "broken slots");
}
