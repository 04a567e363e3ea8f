//! A logical dump, restored as docs/operations.md describes.

use crate::{
    TIMEOUT, assert_sound,
    faults::add,
    migrated, open,
    server::{Server, binary, run},
    turn_on_changes,
};
use std::process::Command;
use widgets_conformance::commands::{associate_widgets, serial_number};
use widgets_postgres::{Settings, Target, migrate};
use widgets_registry::{Ask as _, Kinds as _, Lookup, Port, Store as _};

/// Returns a command that runs a client program of PostgreSQL against this server with this role.
fn client(server: &Server, name: &str, role: &str) -> Command {
    let mut client = Command::new(binary(name));
    client
        .args(["-h", "127.0.0.1", "-p", &server.port.to_string()])
        .args(["-U", role]);
    client
}

/// The other server knows neither the service's roles nor the owner of the database.
#[tokio::test(flavor = "multi_thread")]
async fn a_dump_is_restored_on_another_server() {
    let (server, url) = migrated().await;
    turn_on_changes(&server).await;
    let store = open(&url, Settings::default());
    let (one, two) = (serial_number("A"), serial_number("B"));
    for command in [add("A"), add("B"), associate_widgets(&one, &two, Port::P)] {
        assert_eq!(store.client().submit(command).await, Ok(()));
    }
    let feed = store.client().feed().expect("a feed");
    let told = feed.newest().await.expect("a position");
    let file = server.directory.0.join("widgets.dump");
    run(client(&server, "pg_dump", "postgres")
        .args(["--format=custom", "--file"])
        .arg(&file)
        .arg("registry"));

    let other = Server::start(&["fsync=off"]);
    other.psql("postgres", "CREATE ROLE ann LOGIN CREATEROLE");
    run(client(&other, "createdb", "postgres").args(["--owner=ann", "registry"]));
    run(client(&other, "pg_restore", "ann")
        .args([
            "--dbname=registry",
            "--no-owner",
            "--no-privileges",
            "--exit-on-error",
        ])
        .arg(&file));
    let target = Target::parse(&other.url("registry", "ann")).expect("a URL");
    let status = migrate(&target, TIMEOUT).await.expect("the rights");
    assert!(status.is_complete());
    let store = open(&other.url("registry", "authenticator"), Settings::default());
    let client = store.client();
    let found = client.ask(Lookup(one)).await.expect("a lookup");
    let peer = found.expect("a widget").slots.remove(0).peer;
    assert_eq!(peer, Some(two));
    assert_eq!(client.submit(add("C")).await, Ok(()));
    assert_sound(&other);
    // It is still the same store, but in a new epoch, so its positions differ from those of the
    // other server.
    let newest = client.feed().expect("a feed").newest().await;
    let newest = newest.expect("a position");
    assert_eq!(newest.store, told.store);
    assert!(newest.epoch > told.epoch, "{newest:?} after {told:?}");
}
