//! Idempotency keys: each operation is applied once, whatever breaks.

use crate::{
    faults::{add, add_slowly, make_slow, until_ready, until_waiting},
    locks::holder,
    migrated, open, session,
};
use widgets_postgres::{Client, Postgres, Settings};
use widgets_registry::{
    Applied, Ask as _, Attempt, Command, Fault, IdempotencyKey, Kinds as _, Lookup, Refusal,
    Rejection,
};

fn keyed(key: &str, command: Command) -> Attempt {
    Attempt {
        key: IdempotencyKey::new(key),
        ..Attempt::from(command)
    }
}

async fn attempt(client: &Client, key: &str, command: Command) -> Result<Applied, Rejection> {
    client.ask(keyed(key, command)).await
}

/// The server crashes during the first attempt of one operation, and after the commit of another.
/// The retries come from another process.
#[tokio::test(flavor = "multi_thread")]
async fn a_retry_after_a_crash_is_applied_once() {
    let (mut server, url) = migrated().await;
    make_slow(&server);
    let store = open(&url, Settings::default());
    let client = store.client();
    let first = attempt(&client, "before", add("A")).await;
    assert_eq!(first, Ok(Applied::Now));
    let caller = client.clone();
    let under_way = keyed("under way", add_slowly("B"));
    let waiting = tokio::spawn({
        let under_way = under_way.clone();
        async move { caller.ask(under_way).await }
    });
    until_waiting(&server, "PgSleep").await;
    server.stop("immediate");
    let unknown = waiting.await.expect("no panic");
    assert!(
        matches!(unknown, Err(Rejection::Fault(Fault::FateUnknown { .. }))),
        "{unknown:?}"
    );
    drop((client, store));
    server.resume();
    server.psql("registry", "DROP TRIGGER slow ON widgets.widgets");
    let store: Postgres = open(&url, Settings::default());
    let client = store.client();
    until_ready(&client).await;
    assert_eq!(
        attempt(&client, "before", add("A")).await,
        Ok(Applied::Before)
    );
    assert_eq!(client.ask(under_way.clone()).await, Ok(Applied::Now));
    assert_eq!(client.ask(under_way).await, Ok(Applied::Before));
}

/// A key that another transaction is using, or has just used, delays no other operation.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_used_by_another_transaction_is_reported_as_in_use() {
    let (server, url) = migrated().await;
    let store = open(&url, Settings::default());
    let client = store.client();
    // The digests of the next request, as another process would write them.
    let used = attempt(&client, "key", add("A")).await;
    assert_eq!(used, Ok(Applied::Now));
    let row = "SELECT segment, key, request FROM widgets.idempotency_keys";
    server.psql("registry", &format!("CREATE TABLE taken AS {row}"));
    server.psql(
        "registry",
        "DELETE FROM widgets.idempotency_keys; DELETE FROM widgets.widgets",
    );
    let other = holder(
        &server,
        "INSERT INTO widgets.idempotency_keys SELECT segment, key, request, 'ok' FROM taken",
    )
    .await;
    let in_use = Err(Rejection::Refused(Refusal::KeyInUse));
    let neighbours: Vec<_> = (0..20)
        .map(|number| {
            let client = client.clone();
            let name = format!("N{number}");
            tokio::spawn(async move { attempt(&client, &name, add(&name)).await })
        })
        .collect();
    assert_eq!(attempt(&client, "key", add("A")).await, in_use);
    for neighbour in neighbours {
        assert_eq!(neighbour.await.expect("no panic"), Ok(Applied::Now));
    }
    let found = client.ask(Lookup(widgets_conformance::commands::serial_number("A")));
    assert_eq!(found.await, Ok(None), "nothing was applied");
    other.batch_execute("COMMIT").await.expect("committed");
    let replayed = attempt(&client, "key", add("A")).await;
    assert_eq!(replayed, Ok(Applied::Before));
}

/// A wait for any other lock while a key is claimed does not mean that the key is in use.
#[tokio::test(flavor = "multi_thread")]
async fn a_locked_key_table_is_not_reported_as_a_key_in_use() {
    let (server, url) = migrated().await;
    let store = open(&url, Settings::default());
    let client = store.client();
    // Each lock is held for longer than a claim waits, but shorter than the statement after the
    // claim waits. The first is held until an attempt that does not lock first gives up, so that
    // later attempts lock first.
    let locker = session(&server, "postgres").await;
    let locks = "DO $$ BEGIN
        LOCK TABLE widgets.idempotency_keys IN SHARE MODE;
        PERFORM pg_sleep(0.2);
        COMMIT;
        FOR i IN 1..100 LOOP
            PERFORM pg_sleep(0.002);
            LOCK TABLE widgets.idempotency_keys IN SHARE MODE;
            PERFORM pg_sleep(0.015);
            COMMIT;
        END LOOP;
    END $$";
    let locking = tokio::spawn(async move { locker.batch_execute(locks).await });
    let mut number = 0;
    while !locking.is_finished() {
        number += 1;
        let name = format!("A{number}");
        assert_eq!(attempt(&client, &name, add(&name)).await, Ok(Applied::Now));
    }
    locking.await.expect("no panic").expect("locked and freed");
}

/// An operation that gives up because another transaction has locked its widgets has not used its
/// key.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_stays_unused_if_its_operation_times_out_on_a_lock() {
    let (server, url) = migrated().await;
    let settings = Settings {
        queue_wait_ms_max: 300,
        ..Settings::default()
    };
    let store = open(&url, settings);
    let client = store.client();
    client.submit(add("A")).await.expect("added");
    let held = holder(&server, "SELECT FROM widgets.widgets FOR UPDATE").await;
    let remove = || {
        widgets_conformance::commands::remove_widget(&widgets_conformance::commands::serial_number(
            "A",
        ))
    };
    let busy = attempt(&client, "key", remove()).await;
    assert!(
        matches!(busy, Err(Rejection::Fault(Fault::Busy { .. }))),
        "{busy:?}"
    );
    assert_eq!(
        server.psql("registry", "SELECT count(*) FROM widgets.idempotency_keys"),
        "0"
    );
    held.batch_execute("COMMIT").await.expect("ended");
    assert_eq!(attempt(&client, "key", remove()).await, Ok(Applied::Now));
    assert_eq!(attempt(&client, "key", remove()).await, Ok(Applied::Before));
}

/// Keys are removed by age, and earlier if there are too many. The newest keys remain.
#[tokio::test(flavor = "multi_thread")]
async fn keys_are_kept_up_to_a_maximum_age_and_number() {
    let (server, url) = migrated().await;
    let store = open(&url, Settings::default());
    let client = store.client();
    let psql = session(&server, "postgres").await;
    let keep = async |keys_max: i64| {
        let sql = "SELECT keys, early FROM widgets.keep_keys(24, $1)";
        let row = psql.query_one(sql, &[&keys_max]).await;
        let row = row.expect("an answer");
        (row.get::<_, i64>(0), row.get::<_, i64>(1))
    };
    let mut early = 0;
    for number in 0..40 {
        let name = format!("{number}");
        attempt(&client, &name, add(&name)).await.expect("added");
        let (keys, gone) = keep(12).await;
        early += gone;
        assert!(keys <= 12, "{keys} keys");
        assert!(keys >= (number + 1).min(9), "{keys} keys after {number}");
    }
    assert!(early >= 40 - 12, "{early}");
    for number in 31..40 {
        let name = format!("{number}");
        assert_eq!(
            attempt(&client, &name, add(&name)).await,
            Ok(Applied::Before)
        );
    }
    let taken = attempt(&client, "0", add("0")).await;
    assert!(
        matches!(
            taken,
            Err(Rejection::Refused(Refusal::SerialNumberTaken { .. }))
        ),
        "a removed key can be used again: {taken:?}"
    );
    // Days later, with one key a day.
    for number in [50, 51, 52, 53, 54] {
        psql.batch_execute(
            "UPDATE widgets.keys_segments SET began = began - interval '1 day', ended = ended - interval '1 day'",
        )
        .await
        .expect("a day");
        let name = format!("{number}");
        attempt(&client, &name, add(&name)).await.expect("added");
        assert_eq!(keep(1_000_000).await.1, 0, "no key is removed early");
    }
    let (keys, _) = keep(1_000_000).await;
    assert!((1..=3).contains(&keys), "{keys} keys");
}

/// A transaction that has begun to use keys, but has not read one yet, writes them to the partition
/// that it was assigned. No new partition begins until the transaction ends.
#[tokio::test(flavor = "multi_thread")]
async fn a_new_key_partition_waits_for_transactions_that_use_keys() {
    let (server, url) = migrated().await;
    let store = open(&url, Settings::default());
    attempt(&store.client(), "key", add("A"))
        .await
        .expect("added");
    let user = holder(&server, "LOCK TABLE widgets.keys_turn IN ACCESS SHARE MODE").await;
    let psql = session(&server, "postgres").await;
    let next = async || {
        let kept = psql.batch_execute("SELECT widgets.keep_keys(24, 1)").await;
        kept.expect("an answer");
        let row = psql.query_one("SELECT last_value FROM widgets.keys_segment", &[]);
        row.await.expect("a number").get::<_, i64>(0)
    };
    assert_eq!(next().await, 1);
    user.batch_execute("COMMIT").await.expect("ended");
    assert_eq!(next().await, 2);
}

/// A program from before the introduction of shares does not store the caller of a key.
#[tokio::test(flavor = "multi_thread")]
async fn keys_written_by_older_programs_are_recognised() {
    let (server, url) = migrated().await;
    let store = open(&url, Settings::default());
    let client = store.client();
    let first = attempt(&client, "key", add("A")).await;
    assert_eq!(first, Ok(Applied::Now));
    server.psql(
        "registry",
        "UPDATE widgets.idempotency_keys SET request = substr(request, 1, 16)",
    );
    assert_eq!(attempt(&client, "key", add("A")).await, Ok(Applied::Before));
    let reused = Err(Rejection::Refused(Refusal::KeyReused));
    assert_eq!(attempt(&client, "key", add("B")).await, reused);
    let other = Attempt {
        asker: widgets_registry::query::Asker(7),
        ..keyed("key", add("A"))
    };
    assert_eq!(
        client.ask(other).await,
        Ok(Applied::Before),
        "the asker makes no difference"
    );
}
