//! The functions as they run on a distributed table, on a server without Citus: with a simulated
//! `shard_of` that has several groups, of which the local table knows nothing.

use crate::{
    conformance::two_stores, functions::call, functions::web_anon, migrated, open, server::Server,
    session,
};
use proptest::{collection::vec, prelude::*};
use tokio::task::JoinSet;
use tokio_postgres::error::SqlState;
use widgets_conformance::{
    check_store,
    commands::{commands, few_serial_numbers, sample},
};
use widgets_postgres::{Postgres, Settings};
use widgets_registry::{Kinds as _, Rejection, SerialNumber};

/// Does what distributing does, except for the distribution. The trigger compares the halves in one
/// statement, but here one statement writes only those of one group.
pub(crate) const MADE_UP: &str = "
    DROP TRIGGER widgets_both_halves ON widgets.widgets;
    CREATE OR REPLACE FUNCTION widgets.is_distributed() RETURNS boolean LANGUAGE sql STABLE AS 'SELECT true';
    CREATE OR REPLACE FUNCTION widgets.shard_of(serial_number text) RETURNS bigint LANGUAGE sql STABLE AS
        'SELECT abs(hashtext(serial_number)::bigint) % 3'";

/// Returns a server whose table is treated as distributed, and the URL of the service's role.
async fn made_up() -> (Server, String) {
    let (server, url) = migrated().await;
    server.psql("registry", MADE_UP);
    (server, url)
}

fn assert_balanced(server: &Server) {
    let balance = "SELECT widgets.halves_balance()";
    assert_eq!(server.psql("registry", balance), "0");
    crate::assert_sound(server);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_simulated_distributed_table_conforms() {
    let (server, url) = made_up().await;
    let (stores, clients) = two_stores(&url);
    check_store(&clients, "").await;
    drop(stores);
    assert_balanced(&server);
}

/// Runs three processes with this many callers each, on these few widgets, and with this many
/// operations for each caller. None of them may meet a fault.
pub(crate) async fn hammer(
    url: &str,
    settings: &Settings,
    names: &[SerialNumber],
    callers: u64,
    operations: usize,
) -> Vec<Postgres> {
    let mut running = JoinSet::new();
    let mut stores = Vec::new();
    for process in 0..3 {
        let store = open(url, settings.clone());
        for caller in 0..callers {
            let client = store.client();
            let seed = process * callers + caller;
            let history = sample(&vec(commands(names.to_vec()), operations).boxed(), seed);
            running.spawn(async move {
                for command in history {
                    if let Err(Rejection::Fault(fault)) = client.submit(command).await {
                        panic!("{fault}");
                    }
                }
            });
        }
        stores.push(store);
    }
    while let Some(caller) = running.join_next().await {
        caller.expect("a caller without a fault");
    }
    stores
}

/// Several processes use the same few widgets: when their first attempts conflict, they fall back
/// to locks.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn contended_widgets_keep_both_halves_of_associations() {
    let (server, url) = made_up().await;
    let names = few_serial_numbers("", 12);
    drop(hammer(&url, &Settings::default(), &names, 8, 200).await);
    assert_balanced(&server);
}

/// Only the operations on widgets that another transaction has locked are skipped. The others in
/// the batch are applied.
#[tokio::test(flavor = "multi_thread")]
async fn distributed_batches_report_widgets_locked_by_others() {
    let (server, _) = made_up().await;
    server.psql(
        "registry",
        "SELECT widgets.add_widget(n, '', '{P,Q}') FROM unnest('{a,b,c,d,e,f,g}'::text[]) n;
        SELECT widgets.associate_widgets('e', 'f', 'P')",
    );
    let holder = session(&server, "postgres").await;
    let hold = "BEGIN; SELECT FROM widgets.widgets WHERE serial_number IN ('a', 'f') FOR UPDATE;
        INSERT INTO widgets.widgets (serial_number, name) VALUES ('new', '')";
    holder.batch_execute(hold).await.expect("held");
    let call = "SELECT add_outcomes, remove_outcomes, pair_outcomes FROM widgets.apply_operations(
        '{new,h,b}', '{n,h,b}', '{P,P,P}', '{NULL,NULL,NULL}', '{NULL,NULL,NULL}', '{e,g,x}',
        '{a,c,y}', '{z,d,a}', '{P,P,P}', '{t,t,t}', true)";
    assert_eq!(
        server.psql("registry", call),
        "{locked,ok,23505}|{locked,ok,WG001}|{locked,ok,locked}"
    );
    // Without lock_first, the call soon gives up waiting, and reports the conflict for the whole
    // batch.
    let waiting = "SELECT widgets.apply_operations('{}', '{}', '{}', '{}', '{}', '{}', '{a}', '{b}', '{P}', '{t}', false)";
    let refused = session(&server, "postgres")
        .await
        .batch_execute(waiting)
        .await;
    let refused = refused.expect_err("locked");
    assert_eq!(refused.code().map(SqlState::code), Some("55P03"));
    drop(holder);
    crate::until(
        &server,
        "SELECT count(*) FROM pg_locks WHERE mode = 'RowExclusiveLock'",
        "0",
    )
    .await;
    assert_balanced(&server);
}

/// Calls for one operation get the same answers as from a table that is not distributed.
#[tokio::test(flavor = "multi_thread")]
async fn sql_calls_get_the_same_answers_from_a_simulated_distributed_table() {
    let ((here, _), (there, _)) = tokio::join!(made_up(), migrated());
    let clients = (web_anon(&here).await, web_anon(&there).await);
    let names = few_serial_numbers("n", 6);
    let history = sample(&vec(commands(names), 500).boxed(), 1);
    for (number, command) in history.into_iter().enumerate() {
        let answers = (
            call(&clients.0, &command).await,
            call(&clients.1, &command).await,
        );
        assert_eq!(answers.0, answers.1, "operation {number}: {command:?}");
    }
    assert_balanced(&here);
}
