//! Answers to operations and lookups.

use crate::*;

#[tokio::test]
async fn operations_are_applied_and_refused() {
    let (_engine, api) = service("operations");
    let pair = |widget1: &str, widget2: &str, port: &str| {
        format!(r#"{{"widget1_sn":"{widget1}","widget2_sn":"{widget2}","port":"{port}"}}"#)
    };
    check(&api, "add_widget", E, (204, "")).await;
    check(&api, "add_widget", E, (409, r#"{"code":"23505","details":"Key (serial_number)=(E) already exists.","hint":null,"message":"duplicate key value violates unique constraint \"widgets_serial_number_key\""}"#)).await;
    check(&api, "add_widget", F, (204, "")).await;
    check(&api, "remove_association", E_F_P, (404, r#"{"code":"WG004","details":null,"hint":null,"message":"Widgets with serial numbers E and F are not associated on port P"}"#)).await;
    check(&api, "associate_widgets", E_F_P, (204, "")).await;
    check(&api, "associate_widgets", E_F_P, (409, r#"{"code":"WG003","details":null,"hint":null,"message":"Widgets with serial numbers E and F are already associated on port P"}"#)).await;
    check(&api, "associate_widgets", &pair("E", "F", "R"), (409, r#"{"code":"WG002","details":null,"hint":null,"message":"Widget with serial number F has no free slot of port R"}"#)).await;
    check(&api, "associate_widgets", &pair("E", "E", "P"), (400, r#"{"code":"WG005","details":null,"hint":null,"message":"Widget with serial number E cannot be associated with itself"}"#)).await;
    check(&api, "associate_widgets", &pair("E", "X", "P"), (404, r#"{"code":"WG001","details":null,"hint":null,"message":"Widget with serial number X does not exist"}"#)).await;

    let answer = send(&api, "GET", "/widgets/E", &[], "").await;
    assert_eq!(answer.outcome(), (200, ""));
    assert_eq!(
        answer.body,
        r#"{"serial_number":"E","name":"A","slots":[{"port":"P","peer":"F"},{"port":"R","peer":null},{"port":"R","peer":null}]}"#
    );
    let json = Some("application/json; charset=utf-8");
    assert_eq!(answer.header("content-type"), json);

    check(&api, "remove_widget", r#"{"widget_sn":"E"}"#, (204, "")).await;
    check(&api, "remove_widget", r#"{"widget_sn":"E"}"#, (404, r#"{"code":"WG001","details":null,"hint":null,"message":"Widget with serial number E does not exist"}"#)).await;
    let answer = send(&api, "GET", "/widgets/F", &[], "").await;
    assert_eq!(
        answer.body,
        r#"{"serial_number":"F","name":"","slots":[{"port":"P","peer":null}]}"#
    );
}

#[tokio::test]
async fn a_repeated_request_with_its_idempotency_key_gets_the_first_response() {
    let (_engine, api) = service("keys");
    let post = async |operation: &str, key: &str, body: &str| {
        let key = format!("idempotency-key: {key}");
        let answer = send(&api, "POST", &format!("/rpc/{operation}"), &[&key], body).await;
        let replayed = answer.header("idempotency-replayed").map(str::to_owned);
        (answer.status.as_u16(), answer.body, replayed)
    };
    let replayed = Some("true".to_owned());
    assert_eq!(
        post("add_widget", "\"a\"", E).await,
        (204, String::new(), None)
    );
    // The formatting of the body does not matter.
    let spaced = r#" {"slots": ["P","R","R"], "name": "A", "widget_sn": "E"}"#;
    let again = post("add_widget", "a", spaced).await;
    assert_eq!(again, (204, String::new(), replayed.clone()));
    let taken = post("add_widget", "b", E).await;
    assert_eq!((taken.0, &taken.2), (409, &None));
    check(&api, "remove_widget", r#"{"widget_sn":"E"}"#, (204, "")).await;
    assert_eq!(post("add_widget", "b", E).await, (409, taken.1, replayed));
    let other = r#"{"code":"WG422","details":null,"hint":null,"message":"Idempotency-Key was used before, for another request"}"#;
    for (operation, body) in [("add_widget", F), ("remove_widget", r#"{"widget_sn":"E"}"#)] {
        assert_eq!(post(operation, "a", body).await, (422, other.into(), None));
    }
    // A request that is refused for its arguments alone does not use up its key.
    let itself = r#"{"widget1_sn":"E","widget2_sn":"E","port":"P"}"#;
    for _ in 0..2 {
        let refused = post("associate_widgets", "c", itself).await;
        assert_eq!((refused.0, refused.2), (400, None));
    }
    assert_eq!(post("add_widget", "c", F).await, (204, String::new(), None));
    let malformed = post("add_widget", "\"c", F).await;
    assert_eq!(malformed.0, 400);
    assert!(
        malformed
            .1
            .contains("Idempotency-Key is not one quoted string"),
        "{}",
        malformed.1
    );
}

#[tokio::test]
async fn an_invalid_value_is_refused_for_the_first_rule_it_breaks() {
    let (_engine, api) = service("values");
    let cases = [
        // Types and nulls.
        (
            r#"{"widget_sn":5,"widget_name":"A","slots":[]}"#,
            "22P02",
            r#"argument \"widget_sn\" must be a string"#,
        ),
        (
            r#"{"widget_sn":"E","widget_name":["A"],"slots":[]}"#,
            "22P02",
            r#"argument \"widget_name\" must be a string"#,
        ),
        (
            r#"{"widget_sn":"E","widget_name":"A","slots":"P"}"#,
            "22P02",
            r#"argument \"slots\" must be an array of port types"#,
        ),
        (
            r#"{"widget_sn":"E","widget_name":"A","slots":"{P}"}"#,
            "22P02",
            r#"argument \"slots\" must be an array of port types"#,
        ),
        (
            r#"{"widget_sn":"E","widget_name":"A","slots":[["P"]]}"#,
            "22P02",
            r#"argument \"slots\" must be a port type, as a string"#,
        ),
        (
            r#"{"widget_sn":null,"widget_name":"A","slots":[]}"#,
            "23502",
            r#"null value in argument \"widget_sn\" violates not-null constraint"#,
        ),
        (
            r#"{"widget_sn":"E","name":null,"slots":[]}"#,
            "23502",
            r#"null value in argument \"name\" violates not-null constraint"#,
        ),
        (
            r#"{"widget_sn":"E","widget_name":"A","slots":null}"#,
            "23502",
            r#"null value in argument \"slots\" violates not-null constraint"#,
        ),
        (
            r#"{"widget_sn":"E","widget_name":"A","slots":["P",null]}"#,
            "23502",
            r#"null value in argument \"slots\" violates not-null constraint"#,
        ),
        // The number of slots is checked after the port types.
        (
            r#"{"widget_sn":"","widget_name":"A","slots":["P","P","P","P"]}"#,
            "WG006",
            "a widget has at most 3 slots, 4 were given",
        ),
        // Limits of texts.
        (
            r#"{"widget_sn":"","widget_name":"a\u0000","slots":[]}"#,
            "WG007",
            "widget_sn must be at least 1 byte long, 0 were given",
        ),
        (
            r#"{"widget_sn":"a\u0000b","widget_name":"A","slots":[]}"#,
            "WG007",
            "widget_sn must not contain the character NUL, one was given at byte 1",
        ),
        (
            r#"{"widget_sn":"E","name":"a\u0000","slots":[]}"#,
            "WG007",
            "name must not contain the character NUL, one was given at byte 1",
        ),
    ];
    for (body, code, message) in cases {
        let expected =
            format!(r#"{{"code":"{code}","details":null,"hint":null,"message":"{message}"}}"#);
        check(&api, "add_widget", body, (400, &expected)).await;
    }
    let long = format!(r#"{{"widget_sn":"{}"}}"#, "é".repeat(128));
    check(&api, "remove_widget", &long, (400, r#"{"code":"WG007","details":null,"hint":null,"message":"widget_sn must be at most 255 bytes long, 256 were given"}"#)).await;
    let itself = r#"{"widget1_sn":"","widget2_sn":"","port":"P"}"#;
    check(&api, "associate_widgets", itself, (400, r#"{"code":"WG007","details":null,"hint":null,"message":"widget1_sn must be at least 1 byte long, 0 were given"}"#)).await;
    let answer = send(&api, "GET", "/widgets/E", &[], "").await;
    assert_eq!(answer.outcome(), (404, "WG001"), "nothing was applied");
}

/// PostgreSQL's message does not say which argument it was, or what the types are.
#[tokio::test]
async fn an_unknown_port_type_is_refused_with_its_argument_and_the_known_ones() {
    let (_engine, api) = service("ports");
    let cases = [
        (
            "add_widget",
            r#"{"widget_sn":"E","widget_name":"A","slots":["p"]}"#,
            "slots",
            "p",
        ),
        (
            "add_widget",
            r#"{"widget_sn":"","widget_name":"A","slots":["P","P","P","Z"]}"#,
            "slots",
            "Z",
        ),
        (
            "associate_widgets",
            r#"{"widget1_sn":"","widget2_sn":"","port":"PQ"}"#,
            "port",
            "PQ",
        ),
    ];
    for (function, body, argument, given) in cases {
        let expected = format!(
            r#"{{"code":"22P02","details":"argument \"{argument}\": the port types are P, Q, R","hint":null,"message":"invalid input value for enum widgets.port_type: \"{given}\""}}"#
        );
        check(&api, function, body, (400, &expected)).await;
    }
}

#[tokio::test]
async fn texts_are_stored_unchanged() {
    let (_engine, api) = service("texts");
    // Escapes, white space, maximum lengths.
    let body = format!(
        " {{ \"slots\" : [ \"Q\" ],\n\
         \"widget_name\":\"\\u0041\\n\\\"\u{1F9E9}e\u{301}{}\", \"widget_sn\":\"{}\"}} ",
        "n".repeat(1014),
        "s".repeat(255)
    );
    check(&api, "add_widget", &body, (204, "")).await;
    let answer = send(
        &api,
        "GET",
        &format!("/widgets/{}", "s".repeat(255)),
        &[],
        "",
    )
    .await;
    let name = format!("A\\n\\\"\u{1F9E9}e\u{301}{}", "n".repeat(1014));
    let expected = format!(
        r#"{{"serial_number":"{}","name":"{name}","slots":[{{"port":"Q","peer":null}}]}}"#,
        "s".repeat(255)
    );
    assert_eq!(answer.body, expected);

    let odd = r#"{"widget_sn":"a/b +é%","widget_name":"","slots":[]}"#;
    check(&api, "add_widget", odd, (204, "")).await;
    let answer = send(&api, "GET", "/widgets/a%2Fb%20+%C3%A9%25", &[], "").await;
    let expected = r#"{"serial_number":"a/b +é%","name":"","slots":[]}"#;
    assert_eq!(answer.body, expected);
}
