//! Migrations: concurrent ones, ones without superuser rights, and schemas that are refused.

use crate::{
    TIMEOUT,
    faults::{add, reason, until_ready},
    in_time,
    locks::holder,
    migrated, open,
    server::Server,
    session, until,
};
use std::time::Duration;
use tokio_postgres::{Client, types::ToSql};
use widgets_conformance::commands::serial_number;
use widgets_postgres::{MigrationStatus, OpenError, Postgres, Settings, Target, check, migrate};
use widgets_registry::{Ask as _, Fault, Kinds as _, Lookup, Rejection, Store as _};

const WANTED: i32 = 13;

fn target(url: &str) -> Target {
    Target::parse(url).expect("a URL")
}

fn refused<T>(outcome: Result<T, OpenError>) -> String {
    let Err(error) = outcome else {
        panic!("must be refused");
    };
    error.to_string()
}

/// The texts of the migrations.
const TEXTS: [&str; WANTED as usize] = [
    include_str!("../../migrations/0001_tables.sql"),
    include_str!("../../migrations/0002_functions.sql"),
    include_str!("../../migrations/0003_batches.sql"),
    include_str!("../../migrations/0004_locks.sql"),
    include_str!("../../migrations/0005_lists.sql"),
    include_str!("../../migrations/0006_changes.sql"),
    include_str!("../../migrations/0007_free_slots.sql"),
    include_str!("../../migrations/0008_shares.sql"),
    include_str!("../../migrations/0009_rules.sql"),
    include_str!("../../migrations/0010_distributed.sql"),
    include_str!("../../migrations/0011_batches.sql"),
    include_str!("../../migrations/0012_calls.sql"),
    include_str!("../../migrations/0013_keys.sql"),
];

/// The version of the schema of 0.2.0.
const RELEASED: usize = 8;

/// Makes the schema of an earlier version, as its program did.
async fn migrate_before(session: &Client, version: usize) {
    let foundation = "CREATE SCHEMA widgets; CREATE TABLE widgets.migrations (version integer PRIMARY \
                      KEY, name text NOT NULL, checksum text NOT NULL, applied_at timestamptz NOT NULL \
                      DEFAULT now())";
    session.batch_execute(foundation).await.expect("made");
    for (version, sql) in (1..).zip(&TEXTS[..version]) {
        if version == 4 {
            let column = "ALTER TABLE widgets.migrations ADD COLUMN oldest_program integer;
                UPDATE widgets.migrations SET oldest_program = version";
            session.batch_execute(column).await.expect("added");
        }
        session.batch_execute(sql).await.expect("applied");
        let record = "INSERT INTO widgets.migrations (version, name, checksum)
            VALUES ($1, 'earlier', encode(sha256(convert_to($2, 'UTF8')), 'hex'))";
        let parameters: [&(dyn ToSql + Sync); 2] = [&version, sql];
        let recorded = session.execute(record, &parameters).await;
        recorded.expect("recorded");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_migrators_apply_each_migration_once() {
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
    // No role of the service can act as its owner, or has a password.
    let roles =
        "SELECT string_agg(rolname || rolsuper || rolinherit || rolcanlogin, ' ' ORDER BY rolname)
        FROM pg_authid WHERE rolname IN ('web_anon', 'authenticator') AND rolpassword IS NULL";
    assert_eq!(
        server.psql("postgres", roles),
        "authenticatorfalsefalsetrue web_anonfalsetruefalse"
    );
}

/// The owner of the database may not create roles. They are created after the migration, and the
/// next one grants their rights.
#[tokio::test(flavor = "multi_thread")]
async fn roles_may_be_created_after_the_migration() {
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
async fn missing_newer_older_and_edited_schemas_are_refused() {
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
    let newer = "the schema has version 99, which needs a program made for version 99 or newer, and \
                 this one was made for 13: use a newer program";
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
        "the schema has version 2, and this program works with 13: run `widgets migrate`"
    );

    server.psql(
        "registry",
        "UPDATE widgets.migrations SET checksum = 'x' WHERE version = 2",
    );
    let edited = refused(migrate(&target(&url), TIMEOUT).await);
    assert!(
        edited.starts_with("migration 2 (functions) was applied with a different text"),
        "{edited}"
    );
}

/// The schema has a migration that this program does not know but can work with. While replicas are
/// upgraded or downgraded one by one, two versions of the program run at the same time.
#[tokio::test(flavor = "multi_thread")]
async fn a_newer_schema_is_accepted_if_it_declares_compatibility() {
    const NEXT: i32 = WANTED + 1;
    let (server, service) = migrated().await;
    let url = server.url("registry", "postgres");
    let running = open(&service, Settings::default());
    assert_eq!(running.client().submit(add("A")).await, Ok(()));
    let next = |oldest_program: i32| {
        server.psql(
            "registry",
            &format!(
                "ALTER TABLE widgets.widgets ADD COLUMN IF NOT EXISTS made_up text;
                DROP FUNCTION IF EXISTS widgets.estimated_counts();
                INSERT INTO widgets.migrations (version, name, checksum, oldest_program)
                    VALUES ({NEXT}, 'made_up', 'unknown', {oldest_program})
                    ON CONFLICT (version) DO UPDATE SET oldest_program = {oldest_program}"
            ),
        );
        // The connections are cut only after the migration is committed. A connection made before
        // would find the earlier schema, and would not be cut.
        let of_service = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
            WHERE usename = 'authenticator'";
        server.psql("registry", of_service);
    };
    next(WANTED);
    // A running process whose connections were cut, and one that starts.
    let starting = open(&service, Settings::default());
    for (store, name) in [(&running, "B"), (&starting, "C")] {
        let client = store.client();
        until_ready(&client).await;
        assert_eq!(client.submit(add(name)).await, Ok(()));
    }
    // Migrating, as `serve --migrate` does, and filling or reading are not refused either.
    let newer = MigrationStatus {
        found: NEXT,
        wanted: WANTED,
    };
    assert!(newer.is_complete());
    let migrated = migrate(&target(&url), TIMEOUT).await;
    assert_eq!(migrated.expect("nothing to do"), newer);
    let checked = check(&target(&url), TIMEOUT).await;
    assert_eq!(checked.expect("a status"), newer);

    next(NEXT);
    let refusal = format!(
        "the schema has version {NEXT}, which needs a program made for version {NEXT} or newer, \
         and this one was made for {WANTED}: use a newer program"
    );
    let client = running.client();
    // Its connections notice it one after the other.
    let mut number = 0;
    let refused_by_schema = async {
        loop {
            number += 1;
            let outcome = client.submit(add(&format!("D{number}"))).await;
            if let Err(Rejection::Fault(told @ Fault::Unavailable { .. })) = outcome
                && reason(&told).details() == Some(&*refusal)
            {
                break told;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let told = in_time("the schema is refused", refused_by_schema).await;
    assert_eq!(
        reason(&told).public(),
        "the database has another schema than this version works with"
    );
    assert_eq!(
        refused(Postgres::open(target(&service), Settings::default())),
        refusal
    );
    assert_eq!(refused(migrate(&target(&url), TIMEOUT).await), refusal);
}

/// A database of an earlier build keeps its widgets, and the roles that were allowed to serve keep
/// their rights.
#[tokio::test(flavor = "multi_thread")]
async fn a_schema_of_an_earlier_build_is_migrated() {
    let server = Server::start(&["fsync=off"]);
    let url = server.database("registry", "postgres");
    let earlier = session(&server, "postgres").await;
    migrate_before(&earlier, 3).await;
    let used = "SELECT widgets.add_widget('A', '', '{P}');
        CREATE ROLE robin LOGIN;
        GRANT USAGE ON SCHEMA widgets TO robin;
        GRANT EXECUTE ON FUNCTION widgets.apply_operations, widgets.lookup_widgets,
            widgets.estimated_counts, widgets.schema_version TO robin";
    earlier.batch_execute(used).await.expect("used");

    let found = migrate(&target(&url), TIMEOUT).await.expect("migrated");
    assert_eq!(found.found, 3);
    let checked = check(&target(&url), TIMEOUT).await.expect("a status");
    assert_eq!(checked.found, WANTED);
    let store = open(&server.url("registry", "robin"), Settings::default());
    let client = store.client();
    let found = client
        .ask(Lookup(serial_number("A")))
        .await
        .expect("a lookup");
    assert!(found.is_some());
    assert_eq!(client.submit(add("B")).await, Ok(()));
    // Robin may call the functions that later programs need.
    let robin = session(&server, "robin").await;
    let asked = "SELECT widgets.oldest_program(), widgets.estimated_free_slots()";
    let asked = robin.batch_execute(asked).await;
    asked.expect("the right");
}

const WAITS: &str = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'";

/// A long dump reads the table. Whoever comes after a migrator that waits for it must not wait as long.
#[tokio::test(flavor = "multi_thread")]
async fn a_migration_that_waits_for_a_reader_holds_up_nobody_else() {
    let server = Server::start(&["fsync=off"]);
    let url = server.database("registry", "postgres");
    let other = session(&server, "postgres").await;
    migrate_before(&other, RELEASED).await;
    let reader = holder(&server, "SELECT FROM widgets.widgets LIMIT 0").await;
    let migrating = tokio::spawn(async move { migrate(&target(&url), TIMEOUT).await });
    until(&server, WAITS, "1").await;
    let looked_up = "SET statement_timeout = '10s'; SELECT widgets.lookup_widget('A')";
    other.batch_execute(looked_up).await.expect("a lookup");
    reader.batch_execute("COMMIT").await.expect("the end");
    let found = migrating.await.expect("no panic").expect("migrated");
    assert_eq!(found.found, 8);
}

/// What the functions of the release call must still be there when a call continues.
#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_waits_for_a_migration_succeeds_after_it() {
    let server = Server::start(&["fsync=off"]);
    server.database("registry", "postgres");
    let caller = session(&server, "postgres").await;
    migrate_before(&caller, RELEASED).await;
    let added = "SELECT widgets.add_widget('A', '', '{P}'), widgets.add_widget('B', '', '{P}')";
    caller.batch_execute(added).await.expect("added");
    let migrator = holder(&server, &TEXTS[RELEASED..].concat()).await;
    let calling = tokio::spawn(async move {
        let call = "SELECT widgets.associate_widgets('A', 'B', 'P');
            SELECT widgets.remove_association('A', 'B', 'P')";
        caller.batch_execute(call).await
    });
    until(&server, WAITS, "1").await;
    migrator.batch_execute("COMMIT").await.expect("migrated");
    calling.await.expect("no panic").expect("associated");
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
