//! Migrations: several at once, without a superuser, and what is refused.

use crate::{TIMEOUT, server::Server};
use widgets_postgres::{MigrationStatus, OpenError, Postgres, Settings, Target, check, migrate};
use widgets_registry::Store as _;

const WANTED: i32 = 3;

fn target(url: &str) -> Target {
    Target::parse(url).expect("a URL")
}

fn refused<T>(outcome: Result<T, OpenError>) -> String {
    let Err(error) = outcome else {
        panic!("must be refused");
    };
    error.to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn several_migrators_at_once_migrate_once() {
    let server = Server::start(&["fsync=off"]);
    server.psql("postgres", "CREATE ROLE ann LOGIN CREATEROLE");
    server.database("registry", "postgres");
    server.psql("postgres", "ALTER DATABASE registry OWNER TO ann");
    let target = target(&server.url("registry", "ann"));
    let missing = MigrationStatus {
        found: 0,
        wanted: WANTED,
    };
    let done = MigrationStatus {
        found: WANTED,
        wanted: WANTED,
    };
    let status = check(&target, TIMEOUT).await.expect("a status");
    assert_eq!(status, missing);
    let mut migrators = tokio::task::JoinSet::new();
    for _ in 0..6 {
        let target = target.clone();
        migrators.spawn(async move { migrate(&target, TIMEOUT).await });
    }
    let mut found = Vec::new();
    while let Some(status) = migrators.join_next().await {
        found.push(status.expect("no panic").expect("a migrated database"));
    }
    found.sort_by_key(|status| status.found);
    assert_eq!(found, [[missing].as_slice(), &[done; 5]].concat());
    let status = check(&target, TIMEOUT).await.expect("a status");
    assert_eq!(status, done);
    // No role of the service may pass for its owner, or has a password.
    let roles =
        "SELECT string_agg(rolname || rolsuper || rolinherit || rolcanlogin, ' ' ORDER BY rolname)
        FROM pg_authid WHERE rolname IN ('web_anon', 'authenticator') AND rolpassword IS NULL";
    assert_eq!(
        server.psql("postgres", roles),
        "authenticatorfalsefalsetrue web_anonfalsetruefalse"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn roles_that_cannot_be_made_may_come_later() {
    let server = Server::start(&["fsync=off"]);
    server.psql("postgres", "CREATE ROLE ann LOGIN");
    server.database("registry", "postgres");
    server.psql("postgres", "GRANT CREATE ON DATABASE registry TO ann");
    let ann = server.url("registry", "ann");
    migrate(&target(&ann), TIMEOUT).await.expect("a schema");
    // The owner may serve.
    let store = Postgres::open(target(&ann), Settings::default()).expect("a store");
    assert_eq!(store.client().ready().await, Ok(()));
    drop(store);
    server.psql(
        "postgres",
        "CREATE ROLE web_anon; CREATE ROLE authenticator LOGIN NOINHERIT; GRANT web_anon TO \
         authenticator",
    );
    let service = server.url("registry", "authenticator");
    let without = refused(Postgres::open(target(&service), Settings::default()));
    assert!(
        without.contains("has `widgets migrate` been run"),
        "{without}"
    );
    migrate(&target(&ann), TIMEOUT).await.expect("the rights");
    let store = Postgres::open(target(&service), Settings::default()).expect("a store");
    assert_eq!(store.client().ready().await, Ok(()));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_this_program_does_not_know_is_refused() {
    let server = Server::start(&["fsync=off"]);
    let url = server.database("registry", "postgres");
    let unmigrated = refused(Postgres::open(target(&url), Settings::default()));
    assert!(
        unmigrated.contains("has `widgets migrate` been run"),
        "{unmigrated}"
    );
    migrate(&target(&url), TIMEOUT).await.expect("a schema");

    server.psql(
        "registry",
        "INSERT INTO widgets.migrations VALUES (99, 'later', '')",
    );
    let newer = "the schema has version 99, newer than 3, which this program works with: use a newer \
                 program";
    assert_eq!(refused(migrate(&target(&url), TIMEOUT).await), newer);
    assert_eq!(refused(check(&target(&url), TIMEOUT).await), newer);
    assert_eq!(
        refused(Postgres::open(target(&url), Settings::default())),
        newer
    );

    server.psql(
        "registry",
        "DELETE FROM widgets.migrations WHERE version > 2",
    );
    assert_eq!(
        refused(Postgres::open(target(&url), Settings::default())),
        "the schema has version 2, and this program works with 3: run `widgets migrate`"
    );

    server.psql(
        "registry",
        "UPDATE widgets.migrations SET checksum = 'x' WHERE version = 2",
    );
    let edited = refused(migrate(&target(&url), TIMEOUT).await);
    assert!(
        edited.starts_with("migration 2 (functions) was applied with another text"),
        "{edited}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_migration_leaves_nothing_behind() {
    let server = Server::start(&["fsync=off"]);
    server.psql(
        "postgres",
        "CREATE DATABASE latin ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0",
    );
    let url = server.url("latin", "postgres");
    let wrong = refused(migrate(&target(&url), TIMEOUT).await);
    assert!(
        wrong.starts_with(
            "applying migration 1 (tables): the database must be encoded in UTF8, not in LATIN1"
        ),
        "{wrong}"
    );
    let schemas = "SELECT count(*) FROM pg_namespace WHERE nspname = 'widgets'";
    assert_eq!(server.psql("latin", schemas), "0");
}
