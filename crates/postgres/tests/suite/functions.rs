//! The functions alone: pgTAP, and a comparison of their answers with those of the embedded store.

use crate::{
    assert_sound, migrated,
    server::{Directory, Server, run},
    session,
};
use proptest::{collection::vec, strategy::Strategy as _};
use std::path::Path;
use tokio_postgres::Client;
use widgets_conformance::commands::{commands, few_serial_numbers, sample};
use widgets_engine::Engine;
use widgets_registry::{Command, Kinds as _, Refusal, Rejection};

/// Runs `tests/pgtap/*.sql`, as `pg_prove` would.
#[tokio::test(flavor = "multi_thread")]
async fn the_pgtap_tests_pass() {
    let (server, _) = migrated().await;
    server.psql("registry", "CREATE EXTENSION pgtap SCHEMA public");
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/pgtap");
    let mut count = 0;
    for file in std::fs::read_dir(folder).expect("the folder") {
        let file = file.expect("a file").path();
        let output = run(server.psql_command("registry").arg("-f").arg(&file));
        let output = String::from_utf8(output.stdout).expect("UTF-8");
        let passed = output
            .lines()
            .filter(|line| line.starts_with("ok "))
            .count();
        assert!(
            output.starts_with(&format!("1..{passed}\n")) && !output.contains("# Looks like"),
            "{}:\n{output}",
            file.display()
        );
        count += passed;
    }
    assert!(count > 0, "no pgTAP test was run");
}

/// Opens a session with the rights of PostgREST's anonymous callers.
pub(crate) async fn web_anon(server: &Server) -> Client {
    let client = session(server, "authenticator").await;
    let role = client.execute("SET ROLE web_anon", &[]).await;
    role.expect("the role");
    client
}

/// Makes one call for an operation, as `web_anon` does.
pub(crate) async fn call(
    client: &Client,
    command: &Command,
) -> Result<(), (String, String, Option<String>)> {
    let called = match command {
        Command::AddWidget {
            serial_number,
            name,
            ports,
        } => {
            let ports: Vec<&str> = ports.iter().map(|(_, port)| port.as_str()).collect();
            let sql = "SELECT widgets.add_widget($1, $2, $3)";
            client
                .execute(sql, &[&&**serial_number, &&**name, &ports])
                .await
        }
        Command::RemoveWidget { serial_number } => {
            let sql = "SELECT widgets.remove_widget($1)";
            client.execute(sql, &[&&**serial_number]).await
        }
        Command::AssociateWidgets(pair) | Command::RemoveAssociation(pair) => {
            let operation = command.operation();
            let sql = format!("SELECT widgets.{operation}($1, $2, $3::text::widgets.port_type)");
            let (one, two, port) = (&**pair.widget1(), &**pair.widget2(), pair.port().as_str());
            client.execute(&sql, &[&one, &two, &port]).await
        }
    };
    called.map(drop).map_err(|error| {
        let error = error.as_db_error().expect("an answer of the database");
        (
            error.code().code().into(),
            error.message().into(),
            error.detail().map(Into::into),
        )
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn sql_calls_give_the_same_answers_as_the_embedded_store() {
    let (server, _) = migrated().await;
    let directory = Directory::new();
    let settings = widgets_engine::Settings::default();
    let engine = Engine::open(&directory.0.join("data"), &settings).expect("a new store");
    let mut callers = tokio::task::JoinSet::new();
    for caller in 0..4u64 {
        let client = web_anon(&server).await;
        let engine = engine.client();
        callers.spawn(async move {
            let names = few_serial_numbers(&format!("c{caller}-"), 5);
            let history = sample(&vec(commands(names), 400).boxed(), caller);
            for (number, command) in history.into_iter().enumerate() {
                let here = call(&client, &command).await;
                let there = engine.submit(command.clone()).await.map_err(|rejection| {
                    let Rejection::Refused(refusal) = rejection else {
                        panic!("{rejection}");
                    };
                    let details = Refusal::details(&refusal);
                    (refusal.code().to_owned(), refusal.to_string(), details)
                });
                assert_eq!(
                    here, there,
                    "caller {caller}, operation {number}: {command:?}"
                );
            }
        });
    }
    while let Some(caller) = callers.join_next().await {
        caller.expect("a caller without a difference");
    }
    assert_sound(&server);
}

/// Calls for the same few widgets wait for each other without deadlocks, whatever is added and
/// removed while others wait.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn calls_for_the_same_widgets_do_not_deadlock() {
    const SEEDS: u64 = 12;
    const CALLERS: u64 = 6;
    let (server, _) = migrated().await;
    for seed in 0..SEEDS {
        let mut callers = tokio::task::JoinSet::new();
        for caller in 0..CALLERS {
            let client = web_anon(&server).await;
            let names = few_serial_numbers("", 3);
            let history = sample(&vec(commands(names), 250).boxed(), seed * CALLERS + caller);
            callers.spawn(async move {
                let mut unexpected = Vec::new();
                for command in history {
                    let Err((code, message, _)) = call(&client, &command).await else {
                        continue;
                    };
                    // 40001: a widget was removed and added again in the meantime; the caller may
                    // try again.
                    if !code.starts_with("WG00") && !["23505", "40001"].contains(&&*code) {
                        unexpected.push(format!("{command:?}: {code}: {message}"));
                    }
                }
                unexpected
            });
        }
        while let Some(unexpected) = callers.join_next().await {
            let unexpected = unexpected.expect("no panic");
            assert_eq!(unexpected, Vec::<String>::new(), "seed {seed}");
        }
        assert_sound(&server);
    }
}

/// One batch removes both ends of associations, and leaves another peer.
#[tokio::test(flavor = "multi_thread")]
async fn one_batch_removes_both_widgets_of_an_association() {
    let (server, _) = migrated().await;
    server.psql(
        "registry",
        "SELECT widgets.add_widget(n, '', '{P,Q,R}') FROM unnest('{a,b,c,d}'::text[]) n;
        SELECT widgets.associate_widgets('a', 'b', 'P'), widgets.associate_widgets('a', 'b', 'R'),
            widgets.associate_widgets('b', 'c', 'Q')",
    );
    let outcomes = server.psql(
        "registry",
        "SELECT remove_outcomes FROM widgets.apply_operations(
            '{}', '{}', '{}', '{}', '{}', '{b,x,a}', '{}', '{}', '{}', '{}', false)",
    );
    assert_eq!(outcomes, "{ok,WG001,ok}");
    let rest = "SELECT string_agg(widget_sn || port || coalesce(peer_sn, '-'), ' '
        ORDER BY widget_sn, ordinal) FROM widgets.slots";
    assert_eq!(server.psql("registry", rest), "cP- cQ- cR- dP- dQ- dR-");
    assert_sound(&server);
}

/// Batches of thousands on a table with statistics, where the planner has a choice. Widget n is
/// associated with n + 1, so that some of the removed widgets are peers of each other, and some
/// share a peer.
#[tokio::test(flavor = "multi_thread")]
async fn large_batches_apply_every_operation() {
    let (server, _) = migrated().await;
    server.psql(
        "registry",
        "SELECT widgets.apply_operations(array_agg('w' || n), array_agg(''::text),
            array_agg('P'::widgets.port_type), array_agg('P'::widgets.port_type),
            array_agg('Q'::widgets.port_type), '{}', '{}', '{}', '{}', '{}', false) IS NULL
        FROM generate_series(0, 19999) n;
        ANALYZE widgets.widgets;
        SELECT widgets.apply_operations('{}', '{}', '{}', '{}', '{}', '{}',
            array_agg('w' || n), array_agg('w' || n + 1), array_agg('P'::widgets.port_type),
            array_agg(true), step = 1) IS NULL
        FROM generate_series(0, 19998) n CROSS JOIN generate_series(0, 1) step
        WHERE n % 2 = step GROUP BY step ORDER BY step",
    );
    let halves = "SELECT count(peer_sn) FROM widgets.slots";
    assert_eq!(server.psql("registry", halves), "39998");
    let outcomes = server.psql(
        "registry",
        "SELECT cardinality(array_positions(remove_outcomes, 'ok')) FROM (
            SELECT (widgets.apply_operations('{}', '{}', '{}', '{}', '{}', array_agg('w' || n),
                '{}', '{}', '{}', '{}', false)).remove_outcomes
            FROM generate_series(0, 19999) n WHERE n % 5 IN (0, 1, 3)) removed",
    );
    assert_eq!(outcomes, "12000");
    // Of every five widgets two remain, whose neighbours are gone.
    assert_eq!(server.psql("registry", halves), "0");
    let rest = "SELECT count(*) FROM widgets.widgets";
    assert_eq!(server.psql("registry", rest), "8000");
    assert_sound(&server);
}
