//! The feed of changes: its order, its completeness, and which changes are kept.

use crate::{
    TIMEOUT,
    faults::{add, patient},
    functions::web_anon,
    in_time,
    locks::holder,
    migrated, open,
    replication::set,
    server::Server,
    session, turn_on_changes, until,
};
use std::{collections::BTreeSet, sync::Arc};
use tokio::net::{TcpListener, TcpStream};
use widgets_postgres::{Postgres, Settings, Target, keep_changes};
use widgets_registry::{
    Ask as _, Attempt, Author, Event, Feed, FeedError, Happened, Kinds as _, Position, Store as _,
};

fn feed(store: &Postgres) -> Arc<dyn Feed> {
    store.client().feed().expect("a feed")
}

/// Returns all changes after a position.
async fn read(feed: &dyn Feed, mut after: Position) -> Result<Vec<Event>, FeedError> {
    let mut events = Vec::new();
    loop {
        let changes = feed.read(after, Arc::default(), 1000).await?;
        events.extend(changes.events);
        after = changes.next;
        if changes.is_end {
            return Ok(events);
        }
    }
}

/// Returns what was done to which widget, in the order of the feed.
fn told(events: &[Event]) -> Vec<String> {
    let short = |event: &Event| match &event.happened {
        Happened::AddWidget { serial_number, .. } => format!("+{serial_number}"),
        Happened::RemoveWidget { serial_number, .. } => format!("-{serial_number}"),
        Happened::AssociateWidgets(one, other, _) => {
            format!("{}={}", one.serial_number, other.serial_number)
        }
        Happened::RemoveAssociation(one, other, _) => {
            format!("{}/{}", one.serial_number, other.serial_number)
        }
    };
    events.iter().map(short).collect()
}

async fn turn(server: &Server, on: bool) -> bool {
    let target = Target::parse(&server.url("registry", "postgres")).expect("a URL");
    let changed = keep_changes(&target, on, TIMEOUT).await;
    changed.expect("the feed is turned")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_feed_is_off_by_default_and_restarts_when_turned_on_again() {
    let (server, url) = migrated().await;
    let store = open(&url, Settings::default());
    let (client, feed) = (store.client(), feed(&store));
    client.submit(add("A")).await.expect("added");
    assert_eq!(feed.newest().await, Err(FeedError::Off));
    assert_eq!(feed.known_newest(), None);
    let any = Position {
        store: 1,
        epoch: 1,
        sequence: 1,
    };
    assert_eq!(feed.reached(any).await, Err(FeedError::Off));

    // A running service has the feed from then on.
    assert!(turn(&server, true).await);
    assert!(!turn(&server, true).await, "it was on");
    let first = feed.newest().await.expect("a feed");
    client.submit(add("B")).await.expect("added");
    let known = feed.known_newest().expect("it has committed a change");
    let events = read(&*feed, first).await.expect("changes");
    assert_eq!(told(&events), ["+B"]);
    assert_eq!(events[0].position, known);

    assert!(turn(&server, false).await);
    assert!(!turn(&server, false).await, "it was off");
    client.submit(add("C")).await.expect("added");
    assert_eq!(read(&*feed, first).await, Err(FeedError::Off));
    assert!(turn(&server, true).await);
    client.submit(add("D")).await.expect("added");
    let oldest = feed.oldest().await.expect("a feed");
    assert_eq!(read(&*feed, first).await, Err(FeedError::Gone { oldest }));
    let events = read(&*feed, oldest).await.expect("changes");
    assert_eq!(told(&events), ["+D"]);
}

/// A transaction that writes first and commits last is reported last. One that is rolled back is
/// not reported. An open transaction delays no other.
#[tokio::test(flavor = "multi_thread")]
async fn changes_made_in_psql_are_reported_in_commit_order() {
    let (server, url) = migrated().await;
    turn_on_changes(&server).await;
    let store = open(&url, Settings::default());
    let (client, feed) = (store.client(), feed(&store));
    let start = feed.newest().await.expect("a feed");
    let open = holder(
        &server,
        "SELECT widgets.add_widget('A', '', '{P}'), widgets.add_widget('B', '', '{P}')",
    )
    .await;
    let rolled_back = holder(&server, "SELECT widgets.add_widget('X', '', '{P}')").await;
    client.submit(add("C")).await.expect("not held up");
    assert_eq!(told(&read(&*feed, start).await.expect("changes")), ["+C"]);
    open.batch_execute("SELECT widgets.associate_widgets('A', 'B', 'P'); COMMIT")
        .await
        .expect("committed");
    rolled_back.batch_execute("ROLLBACK").await.expect("ended");
    client.submit(add("D")).await.expect("added");
    let events = read(&*feed, start).await.expect("changes");
    assert_eq!(told(&events), ["+C", "+A", "+B", "A=B", "+D"]);
    assert!(events.windows(2).all(|two| two[0].at <= two[1].at));

    // Operations from programs of an earlier version are reported as well.
    server.psql(
        "registry",
        "SELECT widgets.apply_operations('{E}', '{e}', '{P}', '{NULL}', '{NULL}', '{A}',
            '{C}', '{D}', '{P}', '{t}', false)",
    );
    let events = read(&*feed, events[4].position).await.expect("changes");
    assert_eq!(told(&events), ["+E", "C=D", "-A"]);
}

/// A transaction gets an unused change number even if others have committed changes since its
/// snapshot was taken.
#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_with_an_old_snapshot_reuses_no_change_number() {
    let (server, url) = migrated().await;
    turn_on_changes(&server).await;
    let store = open(&url, Settings::default());
    let (client, feed) = (store.client(), feed(&store));
    let start = feed.newest().await.expect("a feed");
    let old = session(&server, "postgres").await;
    old.batch_execute("BEGIN ISOLATION LEVEL SERIALIZABLE; SELECT count(*) FROM widgets.widgets")
        .await
        .expect("a snapshot");
    for name in ["A", "B"] {
        client.submit(add(name)).await.expect("added");
    }
    old.batch_execute("SELECT widgets.add_widget('C', '', '{P}'); COMMIT")
        .await
        .expect("committed");
    client.submit(add("D")).await.expect("added");
    let events = read(&*feed, start).await.expect("changes");
    assert_eq!(told(&events), ["+A", "+B", "+C", "+D"]);
    assert!(
        events
            .windows(2)
            .all(|two| two[0].position < two[1].position)
    );
}

/// The author of a change is the token's subject, as the service and PostgREST pass it on. Without
/// a subject, the change has no author.
#[tokio::test(flavor = "multi_thread")]
async fn changes_report_the_subject_of_the_token_as_author() {
    let (server, url) = migrated().await;
    turn_on_changes(&server).await;
    let store = open(&url, Settings::default());
    let (client, feed) = (store.client(), feed(&store));
    let start = feed.newest().await.expect("a feed");
    let ann = Attempt {
        author: Author::new("ann"),
        ..Attempt::from(add("A"))
    };
    client.ask(ann).await.expect("added");
    let postgrest = web_anon(&server).await;
    for (name, claims) in [
        ("B", r#"{"sub":"bob"}"#),
        ("C", r#"{"role":"x"}"#),
        ("D", ""),
    ] {
        let call = format!(
            "BEGIN; SELECT set_config('request.jwt.claims', '{claims}', true);
            SELECT widgets.add_widget('{name}', '', '{{P}}'); COMMIT"
        );
        postgrest.batch_execute(&call).await.expect("added");
    }
    client.submit(add("E")).await.expect("added");
    let events = read(&*feed, start).await.expect("changes");
    let by: Vec<_> = events.iter().map(|event| event.by.as_deref()).collect();
    assert_eq!(by, [Some("ann"), Some("bob"), None, None, None]);
}

/// Sessions commit at any time and two services send batches, while a reader follows the feed.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_reader_misses_no_change_during_concurrent_commits() {
    const SESSIONS: usize = 4;
    const EACH: usize = 40;
    let (server, url) = migrated().await;
    turn_on_changes(&server).await;
    let (one, other) = (
        open(&url, Settings::default()),
        open(&url, Settings::default()),
    );
    let feed = feed(&other);
    let start = feed.newest().await.expect("a feed");
    let mut writers = tokio::task::JoinSet::new();
    for number in 0..SESSIONS {
        let psql = web_anon(&server).await;
        writers.spawn(async move {
            for each in 0..EACH {
                let pause = (each * 7 + number * 3) % 11;
                let call = format!(
                    "BEGIN; SELECT widgets.add_widget('psql{number}-{each}', '', '{{}}');
                    SELECT pg_sleep({pause} / 1000.0); COMMIT"
                );
                psql.batch_execute(&call).await.expect("added");
            }
        });
        for (name, store) in [("one", &one), ("other", &other)] {
            let client = store.client();
            writers.spawn(async move {
                for each in 0..EACH {
                    let name = format!("{name}{number}-{each}");
                    client.submit(add(&name)).await.expect("added");
                }
            });
        }
    }
    let (mut after, mut events): (Position, Vec<Event>) = (start, Vec::new());
    let all = SESSIONS * EACH * 3;
    while events.len() < all {
        feed.changed(after).await;
        let changes = feed.read(after, Arc::default(), 7).await;
        let changes = changes.expect("changes");
        events.extend(changes.events);
        after = changes.next;
    }
    while let Some(writer) = writers.join_next().await {
        writer.expect("a writer without a fault");
    }
    let seen: BTreeSet<String> = told(&events).into_iter().collect();
    assert_eq!(seen.len(), all, "each change is reported once");
    assert_eq!(read(&*feed, start).await.expect("changes"), events);
}

/// From the moment at which the feed is on, every accepted operation is reported.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_feed_turned_on_during_writes_has_no_gap() {
    let (server, url) = migrated().await;
    let store = open(&url, Settings::default());
    let (client, feed) = (store.client(), feed(&store));
    let writers: Vec<_> = (0..4)
        .map(|writer| {
            let client = client.clone();
            tokio::spawn(async move {
                for each in 0..100 {
                    let name = format!("{writer}-{each}");
                    client.submit(add(&name)).await.expect("added");
                }
            })
        })
        .collect();
    // It waits for a transaction that has written but not committed.
    let open = holder(&server, "SELECT widgets.add_widget('open', '', '{}')").await;
    let turning = tokio::spawn({
        let url = server.url("registry", "postgres");
        async move {
            let target = Target::parse(&url).expect("a URL");
            keep_changes(&target, true, TIMEOUT).await
        }
    });
    let waits = "SELECT count(*) > 0 FROM pg_stat_activity
        WHERE wait_event_type = 'Lock' AND query LIKE '%turn_on_changes%'";
    until(&server, waits, "t").await;
    open.batch_execute("COMMIT").await.expect("committed");
    assert!(turning.await.expect("no panic").expect("a feed"));
    for writer in writers {
        writer.await.expect("a writer without a fault");
    }
    client.submit(add("last")).await.expect("added");
    let oldest = feed.oldest().await.expect("a feed");
    let seen = told(&read(&*feed, oldest).await.expect("changes"));
    // For each writer, all operations from some number on are reported.
    for writer in 0..4 {
        let prefix = format!("+{writer}-");
        let of_writer: Vec<usize> = seen
            .iter()
            .filter_map(|text| text.strip_prefix(&prefix)?.parse().ok())
            .collect();
        let first = of_writer.first().copied().unwrap_or(100);
        assert_eq!(of_writer, (first..100).collect::<Vec<_>>());
    }
    assert_eq!(seen.last().map(String::as_str), Some("+last"));
}

/// Whether a registry is distributed may change while the feed waits to be turned on.
#[tokio::test(flavor = "multi_thread")]
async fn the_feed_cannot_be_turned_on_while_a_registry_is_being_distributed() {
    let (server, _) = migrated().await;
    let distributing = "LOCK TABLE widgets.widgets IN ACCESS EXCLUSIVE MODE;
        CREATE OR REPLACE FUNCTION widgets.is_distributed() RETURNS boolean LANGUAGE sql STABLE AS 'SELECT true'";
    let distributing = holder(&server, distributing).await;
    let url = server.url("registry", "postgres");
    let turning = tokio::spawn(async move {
        let target = Target::parse(&url).expect("a URL");
        keep_changes(&target, true, TIMEOUT).await
    });
    let waits = "SELECT count(*) > 0 FROM pg_stat_activity
        WHERE wait_event_type = 'Lock' AND query LIKE '%turn_on_changes%'";
    until(&server, waits, "t").await;
    distributing.batch_execute("COMMIT").await.expect("done");
    let refused = turning.await.expect("no panic").expect_err("refused");
    let told = refused.to_string();
    assert!(
        told.contains("a distributed registry has no feed of changes"),
        "{told}"
    );
}

/// Two services look for old changes at the same time, and one of them is late: the partition that it
/// takes for the oldest is the one in use.
#[tokio::test(flavor = "multi_thread")]
async fn the_newest_changes_stay_when_two_services_remove_old_ones() {
    let (server, url) = migrated().await;
    turn_on_changes(&server).await;
    let begun = "ALTER FUNCTION widgets.keep_changes SET lock_timeout = 0;
        SELECT widgets.add_widget('first', '', '{}')";
    server.psql("registry", begun);
    let other = holder(
        &server,
        "LOCK TABLE widgets.changes_8 IN ACCESS EXCLUSIVE MODE",
    )
    .await;
    let late = session(&server, "postgres").await;
    let late = tokio::spawn(async move {
        let kept = late
            .batch_execute("SELECT widgets.keep_changes(72, 0)")
            .await;
        kept.expect("kept");
    });
    let waits = "SELECT count(*) > 0 FROM pg_stat_activity
        WHERE wait_event_type = 'Lock' AND query LIKE '%keep_changes%'";
    until(&server, waits, "t").await;
    let meanwhile = "SELECT widgets.keep_changes(72, 0);
        SELECT widgets.add_widget('new', '', '{}'); COMMIT";
    other.batch_execute(meanwhile).await.expect("kept");
    late.await.expect("no panic");
    let store = open(&url, Settings::default());
    let feed = feed(&store);
    let oldest = feed.oldest().await.expect("a feed");
    let seen = told(&read(&*feed, oldest).await.expect("changes"));
    assert_eq!(seen.last().map(String::as_str), Some("+new"));
}

/// A server that was promoted may lack changes that its predecessor reported.
#[tokio::test(flavor = "multi_thread")]
async fn a_position_lost_in_a_promotion_is_refused() {
    let (server, url) = migrated().await;
    turn_on_changes(&server).await;
    let store = open(&url, Settings::default());
    let (client, feed) = (store.client(), feed(&store));
    client.submit(add("A")).await.expect("added");
    let kept = feed.newest().await.expect("a feed");
    let lost = Position {
        sequence: kept.sequence + 1,
        ..kept
    };
    // This simulates a promotion, which changes the timeline. The number was written to the log
    // before its commit.
    server.psql(
        "registry",
        "UPDATE widgets.changes_epochs SET life = 'before';
        SELECT setval('widgets.changes_number', last_value + 1) FROM widgets.changes_number",
    );
    client.submit(add("B")).await.expect("added");
    let newest = feed.newest().await.expect("a feed");
    assert_eq!(newest.epoch, kept.epoch + 1);
    assert!(newest.sequence > lost.sequence);
    let oldest = feed.oldest().await.expect("a feed");
    assert_eq!(read(&*feed, lost).await, Err(FeedError::Gone { oldest }));
    assert_eq!(told(&read(&*feed, kept).await.expect("changes")), ["+B"]);
    // The same holds for reading the state after a position.
    assert_eq!(feed.reached(kept).await, Ok(()));
    assert_eq!(feed.reached(newest).await, Ok(()));
    assert_eq!(feed.reached(lost).await, Err(FeedError::Gone { oldest }));
}

/// The oldest changes are removed once all of them exceed the limit of their size. A subscriber who
/// is too late gets an error, not a history with a gap.
#[tokio::test(flavor = "multi_thread")]
async fn excess_changes_are_removed_and_late_readers_get_an_error() {
    let (server, url) = migrated().await;
    turn_on_changes(&server).await;
    let store = open(&url, Settings::default());
    let (client, feed) = (store.client(), feed(&store));
    let start = feed.newest().await.expect("a feed");
    let mut positions = Vec::new();
    // Each round closes the partition that was written to.
    for round in 0..20 {
        client
            .submit(add(&format!("{round}")))
            .await
            .expect("added");
        positions.push(feed.newest().await.expect("a feed"));
        server.psql("registry", "SELECT widgets.keep_changes(72, 400000)");
    }
    let oldest = feed.oldest().await.expect("a feed");
    assert!(oldest > start && oldest < positions[18], "{oldest}");
    assert_eq!(read(&*feed, start).await, Err(FeedError::Gone { oldest }));
    // A position remains reached after its changes were removed. Positions of another store, and
    // later ones, are refused and not waited for.
    assert_eq!(feed.reached(start).await, Ok(()));
    let newest = positions[19];
    assert_eq!(feed.reached(newest).await, Ok(()));
    let unknown = [
        (newest.store ^ 1, newest.epoch, newest.sequence),
        (newest.store, newest.epoch + 1, newest.sequence),
        (newest.store, newest.epoch, newest.sequence + 1),
    ];
    for (store, epoch, sequence) in unknown {
        let position = Position {
            store,
            epoch,
            sequence,
        };
        let reached = feed.reached(position).await;
        assert_eq!(reached, Err(FeedError::Gone { oldest }), "{position}");
    }
    for (round, position) in positions.iter().enumerate() {
        let expected: Vec<String> = (round + 1..20).map(|it| format!("+{it}")).collect();
        match read(&*feed, *position).await {
            Ok(events) => assert_eq!(told(&events), expected),
            Err(error) => {
                assert_eq!(error, FeedError::Gone { oldest });
                assert!(*position < oldest);
            }
        }
    }
    // A reader prevents their removal, and no writer waits for that.
    let reader = holder(
        &server,
        "SELECT FROM widgets.changes, widgets.changes_order",
    )
    .await;
    server.psql("registry", "SELECT widgets.keep_changes(0, 0)");
    client.submit(add("beside")).await.expect("added");
    reader.batch_execute("COMMIT").await.expect("ended");
    for _ in 0..2 {
        server.psql("registry", "SELECT widgets.keep_changes(0, 0)");
    }
    let oldest = feed.oldest().await.expect("a feed");
    assert!(oldest >= positions[19], "{oldest}");
    assert_eq!(
        server.psql("registry", "SELECT count(*) < 3 FROM widgets.changes"),
        "t"
    );
}

/// A partition is written to for a sixth of the retention, and is removed once its newest change is
/// older than the retention.
#[tokio::test(flavor = "multi_thread")]
async fn changes_older_than_the_retention_are_removed_and_younger_ones_kept() {
    let (server, url) = migrated().await;
    turn_on_changes(&server).await;
    let psql = |sql: &str| server.psql("registry", sql);
    // The limit of their size is never reached.
    let keep = || psql("SELECT widgets.keep_changes(72, 1000000000000)");
    for (name, partition, next) in [("A", "1", "2"), ("B", "2", "3"), ("C", "3", "4")] {
        psql(&format!("SELECT widgets.add_widget('{name}', '', '{{}}')"));
        let written_to = [11, 13].map(|hours| {
            psql(&format!(
                "UPDATE widgets.changes_segments SET began = now() - interval '{hours} hours'"
            ));
            keep();
            psql("SELECT last_value FROM widgets.changes_segment")
        });
        assert_eq!(written_to, [partition, next]);
    }
    let oldest = psql("SELECT oldest FROM widgets.changes_state()");
    assert_eq!(oldest, "0", "all of them are young");
    for (partition, hours) in [(1, 73), (2, 71)] {
        psql(&format!(
            "UPDATE widgets.changes_order SET at = at - {hours} * 3600000000
            WHERE segment = {partition}"
        ));
    }
    keep();
    let store = open(&url, Settings::default());
    let feed = feed(&store);
    let oldest = feed.oldest().await.expect("a feed");
    let beginning = Position {
        sequence: 0,
        ..oldest
    };
    let gone = Err(FeedError::Gone { oldest });
    assert_eq!(read(&*feed, beginning).await, gone);
    let kept = read(&*feed, oldest).await.expect("changes");
    assert_eq!(told(&kept), ["+B", "+C"]);
}

/// Nobody learns of a change that a crash could undo, whatever the session's settings.
#[tokio::test(flavor = "multi_thread")]
async fn a_reported_change_survives_a_crash_despite_synchronous_commit_off() {
    let (mut server, url) = migrated().await;
    turn_on_changes(&server).await;
    let store = open(&url, Settings::default());
    let reader = feed(&store);
    let start = reader.newest().await.expect("a feed");
    // For so long, the server may keep in memory what no commit waits for.
    set(&server, "wal_writer_delay = '10s'");
    let psql = session(&server, "postgres").await;
    psql.batch_execute("SET synchronous_commit = off; SELECT widgets.add_widget('A', '', '{}')")
        .await
        .expect("added");
    let reported = read(&*reader, start).await.expect("changes");
    assert_eq!(told(&reported), ["+A"]);
    // As if it crashed: it writes nothing more.
    server.stop("immediate");
    server.resume();
    let store = open(&url, Settings::default());
    let reader = feed(&store);
    assert_eq!(read(&*reader, start).await, Ok(reported));
}

/// A removal looks up which slots it frees before it writes. The feed must not be turned on in
/// between.
#[tokio::test(flavor = "multi_thread")]
async fn turning_the_feed_on_waits_for_removals_in_progress() {
    let (server, url) = migrated().await;
    server.psql(
        "registry",
        "SELECT widgets.add_widget(n, '', '{P}') FROM unnest('{A,B}'::text[]) n;
        SELECT widgets.associate_widgets('A', 'B', 'P');
        CREATE OR REPLACE FUNCTION widgets.keeps_changes() RETURNS boolean LANGUAGE plpgsql AS $$
        DECLARE
            known boolean := (SELECT last_value > 0 FROM widgets.changes_segment);
        BEGIN
            PERFORM pg_advisory_xact_lock(1);
            RETURN known;
        END $$;
        ALTER FUNCTION widgets.decide_batch SET lock_timeout = 0",
    );
    let held = holder(&server, "SELECT pg_advisory_xact_lock(1)").await;
    let removing = session(&server, "postgres").await;
    let removal = tokio::spawn(async move {
        let call = "SELECT widgets.apply_operations('{}', '{}', '{}', '{}', '{}', '{A}', '{}', '{}', '{}', '{}', false)";
        removing.batch_execute(call).await
    });
    let waits = |what| {
        format!(
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event = '{what}' AND state = 'active'"
        )
    };
    until(&server, &waits("advisory"), "1").await;
    let (relation, turned) = (waits("relation"), turn(&server, true));
    tokio::pin!(turned);
    tokio::select! {
        () = until(&server, &relation, "1") => {}
        _ = &mut turned => panic!("it was turned on beside the removal"),
    }
    held.batch_execute("COMMIT").await.expect("ended");
    removal.await.expect("no panic").expect("removed");
    assert!(turned.await, "it was off");
    let store = open(&url, Settings::default());
    store.client().submit(add("C")).await.expect("added");
    let feed = feed(&store);
    let newest = feed.newest().await.expect("a position");
    let beginning = Position {
        sequence: 0,
        ..newest
    };
    let events = read(&*feed, beginning).await.expect("all of it");
    assert_eq!(told(&events), ["+C"]);
}

/// Accepts this many connections and says nothing on them.
async fn accept(listener: &TcpListener, count: usize) -> Vec<TcpStream> {
    let mut accepted = Vec::new();
    while accepted.len() < count {
        accepted.push(listener.accept().await.expect("a connection").0);
    }
    accepted
}

/// Each attempt to connect would otherwise take its whole timeout, one after the other.
#[tokio::test(flavor = "multi_thread")]
async fn reads_of_the_feed_that_meet_a_failing_connection_are_refused_together() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("its address");
    let url = format!("postgres://ann@{address}/registry");
    let settings = Settings {
        connections: 1,
        list_connections: 1,
        ..patient(10 * 60 * 1000)
    };
    // The store is open once the first attempt has failed.
    let opening = tokio::task::spawn_blocking(move || open(&url, settings));
    drop(accept(&listener, 1).await);
    let store = opening.await.expect("an open store");
    // Dropped before the store, which waits for its attempts.
    let listener = listener;
    let others = accept(&listener, 3).await;
    let feed = feed(&store);
    let all = async {
        tokio::join!(
            feed.newest(),
            feed.oldest(),
            feed.newest(),
            feed.oldest(),
            feed.newest(),
            // Nobody accepts a later attempt, which would therefore take ten minutes.
            async { drop((accept(&listener, 1).await, others)) },
        )
    };
    let (one, two, three, four, five, ()) = in_time("five refusals", all).await;
    for refused in [one, two, three, four, five] {
        let refused = refused.expect_err("there is no database").to_string();
        assert!(refused.contains("cannot be reached"), "{refused}");
    }
}
