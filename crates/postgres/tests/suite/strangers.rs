//! Sessions that may only connect or call the functions cannot delay anybody else.

use crate::{
    TIMEOUT, faults::add, functions::web_anon, locks::holder, migrated, open, server::Server,
    session, turn_on_changes, until,
};
use std::{sync::Arc, time::Duration};
use widgets_clock::{Clock as _, SystemClock};
use widgets_postgres::{Postgres, Settings, Target, migrate};
use widgets_registry::{
    Ask as _, Feed, Kinds as _, Position, Store as _,
    query::{Asker, Direction, Filter, List, Table},
};

/// Takes the lock that migrators use while there is no table yet.
const MIGRATORS: &str = "SELECT pg_advisory_lock(x'0077696467657473'::bigint)";

#[tokio::test(flavor = "multi_thread")]
async fn an_advisory_lock_does_not_block_later_migrations() {
    let (server, _) = migrated().await;
    let stranger = web_anon(&server).await;
    stranger.batch_execute(MIGRATORS).await.expect("locked");
    let target = Target::parse(&server.url("registry", "postgres")).expect("a URL");
    let migrated = migrate(&target, TIMEOUT).await;
    assert!(migrated.expect("migrated").is_complete());
}

/// Before the very first migration there is no table to lock, so migrators take an advisory lock.
/// The error names the lock that it waited for.
#[tokio::test(flavor = "multi_thread")]
async fn the_first_migration_names_the_lock_that_it_waits_for() {
    let server = Server::start(&["fsync=off"]);
    let url = server.database("registry", "postgres");
    let stranger = session(&server, "postgres").await;
    stranger.batch_execute(MIGRATORS).await.expect("locked");
    let target = Target::parse(&url).expect("a URL");
    let waiting = {
        let target = target.clone();
        tokio::spawn(async move { migrate(&target, TIMEOUT).await })
    };
    // This is the timeout of its wait. The test does not wait for it.
    let waits = "FROM pg_stat_activity WHERE wait_event = 'advisory' AND query LIKE '%lock_timeout = 300000;%'";
    until(&server, &format!("SELECT count(*) {waits}"), "1").await;
    server.psql(
        "registry",
        &format!("SELECT pg_cancel_backend(pid) {waits}"),
    );
    let error = waiting.await.expect("no panic").expect_err("it is held");
    let error = error.to_string();
    assert!(
        error.contains("the advisory lock 33611402180916339"),
        "{error}"
    );
    drop(stranger);
    until(
        &server,
        "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'",
        "0",
    )
    .await;
    let migrated = migrate(&target, TIMEOUT).await;
    assert_eq!(migrated.expect("migrated").found, 0);
}

/// Makes the database count how often it is asked for the newest change.
fn count_rounds(server: &Server) {
    server.psql(
        "registry",
        "CREATE SEQUENCE public.rounds;
        ALTER FUNCTION widgets.changes_state() RENAME TO changes_state_;
        CREATE FUNCTION widgets.changes_state(OUT store bigint, OUT epochs integer[], OUT afters bigint[],
            OUT newest bigint, OUT oldest bigint) LANGUAGE sql SECURITY DEFINER
            AS 'SELECT nextval(''public.rounds''); SELECT * FROM widgets.changes_state_()';
        GRANT EXECUTE ON FUNCTION widgets.changes_state TO authenticator",
    );
}

async fn rounds(server: &Server) -> i64 {
    let psql = session(server, "postgres").await;
    let row = psql.query_one("SELECT last_value FROM public.rounds", &[]);
    row.await.expect("a number").get(0)
}

/// A store with a feed of one change. Its database counts how often it is asked for the newest
/// change.
struct Counted {
    server: Server,
    store: Postgres,
    feed: Arc<dyn Feed>,
    newest: Position,
}

impl Counted {
    async fn start() -> Self {
        let (server, url) = migrated().await;
        turn_on_changes(&server).await;
        count_rounds(&server);
        let store = open(&url, Settings::default());
        let client = store.client();
        client.submit(add("A")).await.expect("added");
        let feed = client.feed().expect("a feed");
        let newest = feed.newest().await.expect("a position");
        Self {
            server,
            store,
            feed,
            newest,
        }
    }
}

/// Another session sends notifications without a change. The database is not queried for each of
/// them, and changes are still reported.
#[tokio::test(flavor = "multi_thread")]
async fn notifications_from_other_sessions_cause_few_queries() {
    /// How often the end of the feed is read without a notification, with some tolerance.
    const POLL: Duration = Duration::from_millis(200);
    let Counted {
        server,
        store,
        feed,
        newest,
    } = Counted::start().await;
    let (followed, stranger) = (feed.changed(newest), web_anon(&server).await);
    let waiting = tokio::spawn(followed);
    until(
        &server,
        "SELECT count(*) FROM pg_stat_activity WHERE query = 'LISTEN widgets_changes' OR query LIKE '%read_changes%'
            AND pid <> pg_backend_pid()",
        "1",
    )
    .await;
    let (before, clock) = (rounds(&server).await, SystemClock::new());
    for _ in 0..3000 {
        let notified = stranger.batch_execute("NOTIFY widgets_changes").await;
        notified.expect("whoever may connect may do that");
    }
    let asked = rounds(&server).await - before;
    let polls = clock.now().as_millis() / POLL.as_millis();
    assert!(
        i128::from(asked) < 40 + polls.cast_signed(),
        "{asked} rounds, {polls} polls"
    );
    store.client().submit(add("B")).await.expect("added");
    waiting.await.expect("it is told");
}

/// `Read-After` asks the database for its newest change. Many such requests at a time are answered
/// together.
#[tokio::test(flavor = "multi_thread")]
async fn concurrent_requests_for_the_newest_change_share_queries() {
    const ASKED: usize = 150;
    let Counted {
        server,
        store: _store,
        feed,
        newest,
    } = Counted::start().await;
    let held = holder(
        &server,
        "LOCK TABLE widgets.changes_store IN ACCESS EXCLUSIVE MODE",
    )
    .await;
    let before = rounds(&server).await;
    let asked: Vec<_> = (0..ASKED)
        .map(|_| tokio::spawn(feed.reached(newest)))
        .collect();
    let waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'
        AND query LIKE '%changes_state%' AND pid <> pg_backend_pid()";
    until(&server, waiting, "1").await;
    held.batch_execute("COMMIT").await.expect("ended");
    for each in asked {
        each.await.expect("no panic").expect("it is reached");
    }
    let asked = rounds(&server).await - before;
    assert!(asked < 50, "{asked} times for {ASKED}");
}

/// If a transaction listens and stays open, notifications accumulate. Before PostgreSQL's queue of
/// notifications is full, operations stop sending them.
#[tokio::test(flavor = "multi_thread")]
async fn operations_send_no_notification_if_the_queue_is_nearly_full() {
    let (server, url) = migrated().await;
    turn_on_changes(&server).await;
    let store = open(&url, Settings::default());
    let client = store.client();
    // Lowers the threshold, so that a hardly used queue counts as full, and makes each notification
    // an error.
    let fill = "DO $do$ BEGIN EXECUTE replace(replace(pg_get_functiondef('widgets.number_change'::regproc),
        '0.5', '0.0001'), 'pg_notify(', 'no_room_for('); END $do$";
    server.psql("registry", fill);
    let refused = client.submit(add("A")).await;
    refused.expect_err("there is room, and so it notifies");
    let (listening, stranger) = (web_anon(&server).await, web_anon(&server).await);
    for statement in ["LISTEN anything", "BEGIN", "SELECT 1"] {
        let left_open = listening.batch_execute(statement).await;
        left_open.expect("whoever may connect may do that");
    }
    for number in 0..200 {
        let notify = format!("NOTIFY anything, '{number:07990}'");
        let notified = stranger.batch_execute(&notify).await;
        notified.expect("whoever may connect may do that");
    }
    client.submit(add("A")).await.expect("added");
}

/// If one caller's lists take long, some connections for lists are left for other callers.
#[tokio::test(flavor = "multi_thread")]
async fn one_caller_gets_at_most_three_quarters_of_the_list_connections() {
    const SLOW: u32 = 999;
    let (server, url) = migrated().await;
    let slowed = format!(
        "DO $do$ BEGIN EXECUTE replace(
            pg_get_functiondef('widgets.list_rows'::regproc),
            E'\\nBEGIN\\n', E'\\nBEGIN\\nIF most = {SLOW} THEN PERFORM pg_advisory_xact_lock(1); END IF;\\n'
        ); END $do$"
    );
    server.psql("registry", &slowed);
    let store = open(&url, Settings::default());
    let client = store.client();
    let held = holder(&server, "SELECT pg_advisory_xact_lock(1)").await;
    let list = |asker, limit| List {
        table: Table::Widgets,
        filter: Filter::EVERYTHING,
        direction: Direction::Ascending,
        offset: 0,
        limit,
        count: false,
        asker: Asker(asker),
    };
    let slow: Vec<_> = (0..6)
        .map(|_| {
            let (client, list) = (client.clone(), list(1, SLOW));
            tokio::spawn(async move { client.ask(list).await })
        })
        .collect();
    let waiting = "SELECT count(*) FROM pg_stat_activity
        WHERE wait_event = 'advisory' AND query LIKE '%list_rows%' AND pid <> pg_backend_pid()";
    until(&server, waiting, "3").await;
    for _ in 0..3 {
        client.ask(list(2, 10)).await.expect("a page, at once");
    }
    until(&server, waiting, "3").await;
    held.batch_execute("COMMIT").await.expect("ended");
    for each in slow {
        each.await.expect("no panic").expect("a page");
    }
}
