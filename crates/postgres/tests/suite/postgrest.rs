//! The SQL that PostgREST (12 to 16) sends for a call, replayed: its role, its `search_path`, and a
//! JSON body that it reads with `json_to_record` and passes on by the names of the arguments.

use crate::{assert_sound, migrated, session};
use tokio_postgres::Client;

/// Sends the body of a call. Returns the code and message of an error, if there is one.
async fn call(client: &Client, function: &str, body: &str) -> Result<(), (String, String)> {
    // What PostgREST's schema cache knows about each function's arguments.
    let arguments: &[(&str, &str)] = match function {
        "add_widget" => &[
            ("slots", "text[]"),
            ("widget_name", "text"),
            ("widget_sn", "text"),
        ],
        "remove_widget" => &[("widget_sn", "text")],
        _ => &[
            ("port", "widgets.port_type"),
            ("widget1_sn", "text"),
            ("widget2_sn", "text"),
        ],
    };
    let list = |form: &dyn Fn(&str, &str) -> String| {
        let items: Vec<String> = arguments
            .iter()
            .map(|&(name, kind)| form(name, kind))
            .collect();
        items.join(", ")
    };
    let sql = format!(
        "WITH pgrst_source AS (
            SELECT pgrst_call.pgrst_scalar
            FROM (SELECT '{}'::json AS json_data) pgrst_payload,
            LATERAL (SELECT {} FROM json_to_record(pgrst_payload.json_data) AS _({}) LIMIT 1) pgrst_body,
            LATERAL (SELECT \"widgets\".\"{function}\"({}) AS pgrst_scalar) pgrst_call
        )
        SELECT null::bigint AS total_result_set, pg_catalog.count(_postgrest_t) AS page_total,
            (json_agg(_postgrest_t.pgrst_scalar)->0)::text AS body
        FROM (SELECT * FROM pgrst_source) _postgrest_t",
        body.replace('\'', "''"),
        list(&|name, _| format!("\"{name}\"")),
        list(&|name, kind| format!("\"{name}\" {kind}")),
        list(&|name, _| format!("\"{name}\" := pgrst_body.\"{name}\"")),
    );
    let setup = "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE;
        SELECT set_config('search_path', '\"widgets\", \"public\"', true),
            set_config('role', 'web_anon', true),
            set_config('request.jwt.claims', '{\"role\":\"web_anon\"}', true)";
    client.batch_execute(setup).await.expect("the role");
    match client.batch_execute(&sql).await {
        Ok(()) => {
            client.batch_execute("COMMIT").await.expect("committed");
            Ok(())
        }
        Err(error) => {
            client.batch_execute("ROLLBACK").await.expect("ended");
            let error = error.as_db_error().expect("an answer of the database");
            Err((error.code().code().into(), error.message().into()))
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn postgrest_calls_are_answered() {
    let (server, _) = migrated().await;
    let client = session(&server, "authenticator").await;
    let check = async |function, body, expected: Result<(), (&str, &str)>| {
        let expected = expected.map_err(|(code, message)| (code.to_owned(), message.to_owned()));
        assert_eq!(call(&client, function, body).await, expected, "{body}");
    };
    for body in [
        r#"{"widget_sn":"E","widget_name":"A","slots":["P","R"]}"#,
        r#"{"widget_sn":"F","widget_name":"A","slots":["P","R"]}"#,
        r#"{"widget_sn":"it's \"quoted\"","widget_name":"A","slots":["P","R"]}"#,
    ] {
        check("add_widget", body, Ok(())).await;
    }
    let pair = r#"{"widget1_sn":"E","widget2_sn":"F","port":"P"}"#;
    check("associate_widgets", pair, Ok(())).await;
    check(
        "associate_widgets",
        pair,
        Err((
            "WG003",
            "Widgets with serial numbers E and F are already associated on port P",
        )),
    )
    .await;
    check("remove_association", pair, Ok(())).await;
    check("associate_widgets", pair, Ok(())).await;
    check("remove_widget", r#"{"widget_sn":"E"}"#, Ok(())).await;
    check(
        "remove_widget",
        r#"{"widget_sn":"E"}"#,
        Err(("WG001", "Widget with serial number E does not exist")),
    )
    .await;
    check(
        "add_widget",
        r#"{"widget_sn":"F","widget_name":"A","slots":[]}"#,
        Err((
            "23505",
            "duplicate key value violates unique constraint \"widgets_serial_number_key\"",
        )),
    )
    .await;
    // The type's name depends on the search_path: the service says widgets.port_type.
    check(
        "associate_widgets",
        r#"{"widget1_sn":"E","widget2_sn":"F","port":"Z"}"#,
        Err(("22P02", "invalid input value for enum port_type: \"Z\"")),
    )
    .await;
    check(
        "add_widget",
        r#"{"widget_sn":null,"widget_name":"A","slots":[]}"#,
        Err((
            "23502",
            "null value in argument \"widget_sn\" violates not-null constraint",
        )),
    )
    .await;
    // A number in place of a text is read as its digits, because PostgREST has only the database's
    // types.
    let number = r#"{"widget_sn":5,"widget_name":"A","slots":["P"]}"#;
    check("add_widget", number, Ok(())).await;
    check("remove_widget", r#"{"widget_sn":"5"}"#, Ok(())).await;
    assert_sound(&server);
    let rest = "SELECT string_agg(serial_number, ',' ORDER BY serial_number) FROM widgets.widgets";
    assert_eq!(server.psql("registry", rest), "F,it's \"quoted\"");
}

/// Returns what PostgREST answers to a `GET` of a relation of lists, by the query that it sends.
async fn rows(client: &Client, table: &str, condition: &str, order: &str) -> String {
    let setup = "BEGIN ISOLATION LEVEL READ COMMITTED READ ONLY;
        SELECT set_config('search_path', '\"widgets_lists\", \"public\"', true),
            set_config('role', 'web_anon', true),
            set_config('request.jwt.claims', '{\"role\":\"web_anon\"}', true)";
    client.batch_execute(setup).await.expect("the role");
    let table = format!("\"widgets_lists\".\"{table}\"");
    let sql = format!(
        "WITH pgrst_source AS (
            SELECT {table}.* FROM {table} WHERE {table}.{condition} ORDER BY {table}.{order} LIMIT 10 OFFSET 0
        )
        SELECT null::bigint AS total_result_set, pg_catalog.count(_postgrest_t) AS page_total,
            coalesce(json_agg(_postgrest_t), '[]')::text AS body
        FROM (SELECT * FROM pgrst_source) _postgrest_t"
    );
    let answer = client.query_one(&sql, &[]).await;
    let answer = answer.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    client.batch_execute("COMMIT").await.expect("committed");
    answer.get("body")
}

#[tokio::test(flavor = "multi_thread")]
async fn postgrest_can_read_only_the_two_relations_for_lists() {
    let (server, _) = migrated().await;
    let client = session(&server, "authenticator").await;
    for (function, body) in [
        (
            "add_widget",
            r#"{"widget_sn":"E","widget_name":"A","slots":["P","R"]}"#,
        ),
        (
            "add_widget",
            r#"{"widget_sn":"F","widget_name":"A","slots":["P"]}"#,
        ),
        (
            "associate_widgets",
            r#"{"widget1_sn":"E","widget2_sn":"F","port":"P"}"#,
        ),
    ] {
        assert_eq!(call(&client, function, body).await, Ok(()));
    }
    let free = r#""slots" @> '[{"port":"R","peer":null}]'"#;
    let shown = rows(&client, "widgets", free, "\"serial_number\" ASC").await;
    let slots = r#"[{"peer": "F", "port": "P"}, {"peer": null, "port": "R"}]"#;
    let expected = format!(r#"[{{"serial_number":"E","name":"A","slots":{slots}}}]"#);
    assert_eq!(shown, expected);
    let shown = rows(&client, "slots", "\"peer_sn\" = 'E'", "\"widget_sn\" DESC").await;
    let expected = r#"[{"widget_sn":"F","ordinal":1,"port":"P","peer_sn":"E"}]"#;
    assert_eq!(shown, expected);
    // It may read these, but nothing else.
    let table = "SET ROLE web_anon; SELECT FROM widgets.widgets";
    let refused = client.batch_execute(table).await.expect_err("no right");
    assert_eq!(
        refused.code().map(tokio_postgres::error::SqlState::code),
        Some("42501")
    );
}
