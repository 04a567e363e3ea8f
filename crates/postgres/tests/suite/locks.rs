//! Widgets that another transaction has locked: no operation changes rows that it has not locked,
//! and none waits because another operation waits.

use crate::{
    TIMEOUT, assert_sound,
    faults::{add, fault, until_gauge},
    functions::web_anon,
    migrated, open,
    server::Server,
    session, until,
};
use tokio::task::JoinHandle;
use tokio_postgres::{Client as Session, error::SqlState};
use widgets_conformance::commands::{associate_widgets, remove_widget, serial_number};
use widgets_postgres::{Client, Settings, Target, migrate};
use widgets_registry::{
    Ask as _, Command, Fault, Kinds as _, Lookup, Port, Refusal, Rejection, Store as _,
};

/// Opens a second session that holds locks until its transaction ends.
pub(crate) async fn holder(server: &Server, sql: &str) -> Session {
    let holder = session(server, "postgres").await;
    let held = holder.batch_execute(&format!("BEGIN; {sql}")).await;
    held.expect("locks");
    holder
}

/// Removes the time limit of batches that wait for locks.
fn wait_for_locks(server: &Server) {
    server.psql(
        "registry",
        "ALTER FUNCTION widgets.apply_operations SET lock_timeout = 0;
        ALTER FUNCTION widgets.apply_batch SET lock_timeout = 0;
        ALTER FUNCTION widgets.decide_batch SET lock_timeout = 0",
    );
}

/// Waits until this many sessions wait for a lock.
async fn until_locked(server: &Server, sessions: usize) {
    let sql = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'";
    until(server, sql, &sessions.to_string()).await;
}

/// The answer to an operation.
pub(crate) type Answer = JoinHandle<Result<(), Rejection>>;

/// Submits an operation without waiting for its answer.
pub(crate) fn submit(client: &Client, command: Command) -> Answer {
    let client = client.clone();
    tokio::spawn(async move { client.submit(command).await })
}

/// Waits until the store has set this many operations aside.
pub(crate) async fn until_set_aside(store: &widgets_postgres::Postgres, count: u32) {
    until_gauge(store, "widgets_locked_operations", count).await;
}

/// A peer that was removed and added again while the removal waited has the same serial number, but
/// it is not the row that was locked.
#[tokio::test(flavor = "multi_thread")]
async fn a_removal_changes_only_rows_that_it_has_locked() {
    let (server, _) = migrated().await;
    server.psql(
        "registry",
        "SELECT widgets.add_widget(n, '', '{P,Q,R}') FROM unnest('{a,b,c}'::text[]) n;
        SELECT widgets.associate_widgets('b', 'a', 'P'), widgets.associate_widgets('b', 'c', 'Q')",
    );
    let holder = holder(
        &server,
        "SELECT widgets.remove_widget('a'); SELECT widgets.add_widget('a', 'new', '{P}')",
    )
    .await;
    let caller = web_anon(&server).await;
    let removal = tokio::spawn(async move {
        caller
            .batch_execute("SELECT widgets.remove_widget('b')")
            .await
    });
    until_locked(&server, 1).await;
    let writer = "SELECT pg_current_xact_id()::xid::text";
    let writer = holder.query_one(writer, &[]).await.expect("a number");
    let writer: String = writer.get(0);
    holder.batch_execute("COMMIT").await.expect("committed");
    removal.await.expect("no panic").expect("removed");
    let rest = "SELECT string_agg(serial_number || name, ' ' ORDER BY serial_number) FROM \
                widgets.widgets";
    assert_eq!(server.psql("registry", rest), "anew c");
    let version = "SELECT xmin FROM widgets.widgets WHERE serial_number = 'a'";
    assert_eq!(server.psql("registry", version), writer);
    assert_sound(&server);
}

/// Calls for one operation lock in byte order. So do batches, whatever the collation of the
/// database.
#[tokio::test(flavor = "multi_thread")]
async fn batches_lock_widgets_in_byte_order() {
    let server = Server::start(&["fsync=off"]);
    server.psql(
        "postgres",
        "CREATE DATABASE registry TEMPLATE template0 LOCALE_PROVIDER icu ICU_LOCALE 'en'",
    );
    let url = server.url("registry", "postgres");
    let target = Target::parse(&url).expect("a URL");
    migrate(&target, TIMEOUT)
        .await
        .expect("a migrated database");
    wait_for_locks(&server);
    assert_eq!(server.psql("registry", "SELECT 'a' < 'B'"), "t");
    server.psql(
        "registry",
        "SELECT widgets.add_widget(n, '', '{P}') FROM unnest('{a,B}'::text[]) n",
    );
    let holder = holder(
        &server,
        "SELECT FROM widgets.widgets WHERE serial_number = 'B' FOR UPDATE",
    )
    .await;
    let batch = session(&server, "postgres").await;
    let call = "SELECT pair_outcomes::text FROM widgets.apply_operations('{}', '{}', '{}', '{}',
        '{}', '{}', '{a}', '{B}', '{P}', '{true}', false)";
    let call = tokio::spawn(async move { batch.query_one(call, &[]).await });
    until_locked(&server, 1).await;
    // It waits for B, the first one, and has locked nothing yet.
    let free = "SELECT FROM widgets.widgets WHERE serial_number = 'a' FOR UPDATE NOWAIT";
    holder.batch_execute(free).await.expect("a free row");
    holder.batch_execute("COMMIT").await.expect("no locks");
    let outcomes: String = call.await.expect("no panic").expect("applied").get(0);
    assert_eq!(outcomes, "{ok}");
}

/// Before a batch writes, another transaction changes the rows that the batch was decided on.
#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_conflicts_with_a_concurrent_change_fails_as_a_whole() {
    let (server, _) = migrated().await;
    wait_for_locks(&server);
    server.psql(
        "registry",
        "SELECT widgets.add_widget(n, '', '{P}') FROM unnest('{a,b,c,d}'::text[]) n",
    );
    let other = holder(&server, "SELECT widgets.associate_widgets('c', 'd', 'P')").await;
    let batch = session(&server, "postgres").await;
    let call = "SELECT pair_outcomes::text FROM widgets.apply_operations('{}', '{}', '{}', '{}',
        '{}', '{}', '{a,c}', '{b,d}', '{P,P}', '{true,true}', false)";
    let call = tokio::spawn(async move { batch.query(call, &[]).await });
    until_locked(&server, 1).await;
    other.batch_execute("COMMIT").await.expect("a commit");
    let error = call.await.expect("no panic").expect_err("a conflict");
    assert_eq!(error.code(), Some(&SqlState::T_R_SERIALIZATION_FAILURE));
    assert_sound(&server);
}

/// For each kind, the batch has an operation whose widgets are free. In others, another session has
/// locked the widget itself or its peer, or is adding a widget with the same serial number.
#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_locks_first_skips_rows_locked_by_others() {
    let (server, _) = migrated().await;
    server.psql(
        "registry",
        "SELECT widgets.add_widget(n, '', '{P,Q,R}')
            FROM unnest('{a,b,c,d,free,held,peer,taken}'::text[]) n;
        SELECT widgets.associate_widgets('peer', 'held', 'P'), widgets.associate_widgets('d', 'free', 'P')",
    );
    let holder = holder(
        &server,
        "SELECT FROM widgets.widgets WHERE serial_number = 'held' FOR UPDATE;
        SELECT widgets.add_widget('coming', '', '{}')",
    )
    .await;
    let outcomes = server.psql(
        "registry",
        "SELECT * FROM widgets.apply_operations(
            '{x,coming,taken,y}', '{\"\",\"\",\"\",\"\"}', '{P,P,P,P}', '{Q,Q,Q,Q}', '{R,R,R,R}',
            '{missing,peer,d}',
            '{a,held,c,nobody}', '{b,nobody,x,c}', '{Q,Q,Q,Q}', '{true,true,true,false}', true)",
    );
    assert_eq!(
        outcomes,
        "{ok,locked,23505,ok}|{WG001,locked,ok}|{ok,locked,ok,WG001/1}"
    );
    // A batch with a removal always locks first.
    let removal = "SELECT remove_outcomes FROM widgets.apply_operations(
        '{}', '{}', '{}', '{}', '{}', '{held,c,x}', '{}', '{}', '{}', '{}', false)";
    assert_eq!(server.psql("registry", removal), "{locked,ok,ok}");
    holder.batch_execute("ROLLBACK").await.expect("no locks");
    let rest = "SELECT string_agg(widget_sn || port || peer_sn, ' ' ORDER BY widget_sn, ordinal)
        FROM widgets.slots WHERE peer_sn IS NOT NULL";
    assert_eq!(server.psql("registry", rest), "aQb bQa heldPpeer peerPheld");
    assert_sound(&server);
}

/// A session has locked widgets and peers of widgets, and has added widgets without committing.
/// Operations on other widgets continue. Those on the locked widgets are applied as soon as the
/// locks are released.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn locked_widgets_do_not_delay_operations_on_others() {
    const HELD: u32 = 120;
    let (server, url) = migrated().await;
    server.psql(
        "registry",
        "SELECT widgets.add_widget(kind || n, '', '{P,Q,R}')
            FROM unnest('{held,peer,free}'::text[]) kind, generate_series(0, 119) n;
        SELECT widgets.associate_widgets('held' || n, 'peer' || n, 'P') FROM generate_series(0, 119) n",
    );
    let holder = holder(
        &server,
        "SELECT FROM widgets.widgets WHERE serial_number LIKE 'held%' FOR UPDATE;
        SELECT widgets.add_widget('coming' || n, '', '{}') FROM generate_series(0, 119) n",
    )
    .await;
    let settings = Settings {
        queue_wait_ms_max: 600_000,
        ..Settings::default()
    };
    let store = open(&url, settings);
    let client = store.client();
    let name = |kind: &str, number: u32| serial_number(&format!("{kind}{number}"));
    let mut held = Vec::new();
    for number in 0..HELD {
        let (one, two) = (name("held", number), name("free", number));
        let operation = match number % 4 {
            0 => add(&name("coming", number)),
            1 => remove_widget(&name("peer", number)),
            2 => associate_widgets(&one, &two, Port::Q),
            _ => remove_widget(&one),
        };
        held.push(submit(&client, operation));
    }
    until_set_aside(&store, HELD).await;
    let mut free = Vec::new();
    for number in 0..HELD {
        let (one, two) = (name("free", number), name("free", (number + 1) % HELD));
        free.push(submit(&client, associate_widgets(&one, &two, Port::P)));
        free.push(submit(&client, add(&name("new", number))));
    }
    for (number, free) in free.into_iter().enumerate() {
        let outcome = free.await.expect("no panic");
        // In a ring of associations, every second one may find a slot taken.
        assert!(
            !matches!(outcome, Err(Rejection::Fault(_))),
            "{number}: {outcome:?}"
        );
    }
    for number in 0..HELD {
        let added = client
            .ask(Lookup(name("new", number)))
            .await
            .expect("a lookup");
        assert!(added.is_some(), "{number}");
    }
    assert!(held.iter().all(|held| !held.is_finished()));
    assert_eq!(client.ready().await, Ok(()));
    holder.batch_execute("ROLLBACK").await.expect("no locks");
    for (number, held) in held.into_iter().enumerate() {
        assert_eq!(held.await.expect("no panic"), Ok(()), "{number}");
    }
    assert_sound(&server);
}

/// Waiting for locks is bounded in number and in time.
#[tokio::test(flavor = "multi_thread")]
async fn waits_for_locked_widgets_are_limited_in_number_and_time() {
    let (server, url) = migrated().await;
    server.psql(
        "registry",
        "SELECT widgets.add_widget('W' || n, '', '{P}') FROM generate_series(0, 9) n",
    );
    let holder = holder(&server, "SELECT FROM widgets.widgets FOR UPDATE").await;
    let store = open(
        &url,
        Settings {
            queue_operations_max: 8,
            queue_wait_ms_max: 4000,
            ..Settings::default()
        },
    );
    let client = store.client();
    let remove = |number: usize| remove_widget(&serial_number(&format!("W{number}")));
    let waiting = [submit(&client, remove(0)), submit(&client, remove(1))];
    until_set_aside(&store, 2).await;
    let busy = |outcome| match fault(outcome) {
        Fault::Busy {
            limit,
            retry_after_seconds,
        } => (limit, retry_after_seconds),
        other => panic!("{other:?}"),
    };
    assert_eq!(
        busy(client.submit(remove(2)).await).0,
        "another transaction of the database holds these widgets, and those that wait for such \
         already are queue_operations_max / 4 = 2"
    );
    for waiting in waiting {
        // They may have to wait as long again.
        let held =
            "another transaction of the database holds these widgets, for queue_wait_ms_max = 4000";
        let expected = (held.to_owned(), 4);
        assert_eq!(busy(waiting.await.expect("no panic")), expected);
    }
    holder.batch_execute("ROLLBACK").await.expect("no locks");
    // Nothing was applied.
    assert_eq!(client.submit(remove(0)).await, Ok(()));
}

/// A lock on the whole table delays all operations, but none of them fails.
#[tokio::test(flavor = "multi_thread")]
async fn operations_wait_for_a_locked_table() {
    let (server, url) = migrated().await;
    let store = open(&url, Settings::default());
    let client = store.client();
    client.submit(add("A")).await.expect("added");
    let holder = holder(&server, "LOCK TABLE widgets.widgets IN SHARE MODE").await;
    let waiting = [
        submit(&client, add("B")),
        submit(&client, remove_widget(&serial_number("A"))),
    ];
    until_locked(&server, 1).await;
    holder.batch_execute("COMMIT").await.expect("no locks");
    for waiting in waiting {
        assert_eq!(waiting.await.expect("no panic"), Ok(()));
    }
}

/// Another session adds the same widget and commits first, so the second addition is refused.
#[tokio::test(flavor = "multi_thread")]
async fn a_serial_number_added_concurrently_is_reported_as_taken() {
    let (server, url) = migrated().await;
    let store = open(&url, Settings::default());
    let client = store.client();
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
    let registry = prometheus::Registry::new();
    store.metrics().register(&registry).expect("metrics");
    let families = registry.gather();
    let retries = families
        .iter()
        .find(|family| family.name() == "widgets_batch_retries_total")
        .expect("the count of retries");
    let mut retries = retries.get_metric().iter();
    let retry = retries.find(|retry| retry.get_label()[0].value() == "55P03");
    let retry = retry.expect("the count of lock timeouts").get_counter();
    assert!(retry.get_value() >= 1.0);
}
