//! The errors of a server whose messages are not in English.

use crate::{
    faults::{add, add_slowly, fault, make_slow, until_ready, until_waiting},
    locks::{holder, submit, until_set_aside},
    migrated, open,
    translator::translated,
};
use widgets_conformance::commands::serial_number;
use widgets_postgres::Settings;
use widgets_registry::{Kinds as _, Refusal, Rejection};

#[tokio::test(flavor = "multi_thread")]
async fn errors_are_recognised_in_any_message_language() {
    let (server, _) = migrated().await;
    make_slow(&server);
    let port = translated(server.port);
    let url = format!("postgres://authenticator@127.0.0.1:{port}/registry?sslmode=disable");
    let store = open(&url, Settings::default());
    let client = store.client();
    // ERROR: a conflict, which is tried again.
    let holder = holder(&server, "SELECT widgets.add_widget('A', '', '{P}')").await;
    let waiting = submit(&client, add("A"));
    until_set_aside(&store, 1).await;
    holder.batch_execute("COMMIT").await.expect("a widget");
    let serial_number = serial_number("A");
    let taken = Refusal::SerialNumberTaken { serial_number };
    assert_eq!(
        waiting.await.expect("no panic"),
        Err(Rejection::Refused(taken))
    );
    // FATAL: the server has rolled back and closes the connection.
    let waiting = submit(&client, add_slowly("B"));
    until_waiting(&server, "PgSleep").await;
    let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event = 'PgSleep'";
    server.psql("postgres", end);
    assert_eq!(fault(waiting.await.expect("no panic")).code(), "WG504");
    until_ready(&client).await;
    assert_eq!(client.submit(add("B")).await, Ok(()));
}
