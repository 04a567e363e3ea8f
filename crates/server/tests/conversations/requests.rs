//! What is checked before the store is asked, and in which order.

use crate::*;

const JSON: &str = " or with a single unnamed json/jsonb parameter";
const ADD_WIDGET: Option<&str> = Some("add_widget(slots, widget_name, widget_sn)");

/// Returns PGRST202 for `function`, with the call as given in `call`, and the searched parameters
/// `with` and `or`.
fn missing(function: &str, call: &str, with: &str, or: &str, hint: Option<&str>) -> String {
    let hint = hint.map_or("null".into(), |hint| {
        format!(r#""Perhaps you meant to call the function widgets.{hint}""#)
    });
    format!(
        r#"{{"code":"PGRST202","details":"Searched for the function widgets.{function} {with}{or}, but no matches were found in the schema cache.","hint":{hint},"message":"Could not find the function widgets.{function}{call} in the schema cache"}}"#
    )
}

/// Returns PGRST102 with this message.
fn bad_body(message: &str) -> String {
    format!(r#"{{"code":"PGRST102","details":null,"hint":null,"message":"{message}"}}"#)
}

#[tokio::test]
async fn invalid_calls_are_refused_as_by_postgrest() {
    let (_engine, api) = service("calls");
    let array =
        bad_body("a request is one operation: the body must be a JSON object, not an array");
    let invalid = bad_body("Empty or invalid json");
    let none = missing(
        "add_widget",
        " without parameters",
        "without parameters",
        JSON,
        None,
    );
    let cases = [
        ("add_widget", "", 404, none.clone()),
        ("add_widget", "{}", 404, none.clone()),
        ("add_widget", "null", 404, none.clone()),
        ("add_widget", "5", 404, none),
        ("add_widget", "{", 400, invalid.clone()),
        ("add_widget", "{} {}", 400, invalid.clone()),
        ("add_widget", "\u{feff}{}", 400, invalid.clone()),
        ("drop_widget", "{", 400, invalid),
        ("add_widget", "[]", 400, array.clone()),
        ("add_widget", &format!("[{E}]"), 400, array.clone()),
        ("drop_widget", "[]", 400, array),
        (
            "add_widget",
            r#"{"widget_sn":"E","widget_name":"A"}"#,
            404,
            missing(
                "add_widget",
                "(widget_name, widget_sn)",
                "with parameters widget_name, widget_sn",
                JSON,
                ADD_WIDGET,
            ),
        ),
        (
            "add_widget",
            r#"{"slots":[]}"#,
            404,
            missing("add_widget", "(slots)", "with parameter slots", JSON, None),
        ),
        (
            "add_widget",
            r#"{"widget_sn":"E","widget_name":"A","name":"A","slots":[]}"#,
            404,
            missing(
                "add_widget",
                "(name, slots, widget_name, widget_sn)",
                "with parameters name, slots, widget_name, widget_sn",
                JSON,
                ADD_WIDGET,
            ),
        ),
        (
            "associate_widgets",
            r#"{"widget2_sn":"E","widget1_sn":"A","port":"P","x":null}"#,
            404,
            missing(
                "associate_widgets",
                "(port, widget1_sn, widget2_sn, x)",
                "with parameters port, widget1_sn, widget2_sn, x",
                JSON,
                Some("associate_widgets(port, widget1_sn, widget2_sn)"),
            ),
        ),
        (
            "addWidget",
            E,
            404,
            missing(
                "addWidget",
                "(slots, widget_name, widget_sn)",
                "with parameters slots, widget_name, widget_sn",
                JSON,
                Some("add_widget"),
            ),
        ),
        (
            "drop%20it",
            "{}",
            404,
            missing(
                "drop it",
                " without parameters",
                "without parameters",
                JSON,
                None,
            ),
        ),
    ];
    for (function, body, status, expected) in cases {
        check(&api, function, body, (status, &expected)).await;
    }
}

#[tokio::test]
async fn a_body_with_a_duplicate_member_is_refused() {
    let (_engine, api) = service("twice");
    for (function, body, name) in [
        (
            "remove_widget",
            r#"{"widget_sn":"E","widget_sn":"F"}"#,
            "widget_sn",
        ),
        // Before the names are checked, and at any depth.
        ("add_widget", r#"{"x":{"y":1,"\u0079":1}}"#, "y"),
        ("drop_widget", r#"{"":1,"":2}"#, ""),
    ] {
        let twice = format!(r#"the body names the member \"{name}\" twice"#);
        check(&api, function, body, (400, &bad_body(&twice))).await;
    }
}

#[tokio::test]
async fn an_unknown_call_by_query_string_mentions_no_json_parameter() {
    let (_engine, api) = service("query");
    let answer = send(&api, "GET", "/rpc/add_widget?slots=x&widget_sn=E", &[], "").await;
    let expected = missing(
        "add_widget",
        "(slots, widget_sn)",
        "with parameters slots, widget_sn",
        "",
        ADD_WIDGET,
    );
    assert_eq!((answer.status.as_u16(), answer.body), (404, expected));
}

#[tokio::test]
async fn a_body_that_is_not_json_is_refused() {
    let (_engine, api) = service("media_types");
    // A body that is one value of another type, or of an unknown one.
    for (media_type, kind) in [
        ("text/plain", "text"),
        ("Text/XML; charset=utf-8", "xml"),
        ("application/octet-stream", "bytea"),
    ] {
        let content_type = format!("content-type: {media_type}");
        let answer = send(&api, "POST", "/rpc/add_widget", &[&content_type], E).await;
        let with = format!("with a single unnamed {kind} parameter");
        let expected = missing("add_widget", "", &with, "", None);
        assert_eq!((answer.status.as_u16(), answer.body), (404, expected));
    }
    for media_type in [
        "application/xml",
        "text/csv",
        "application/x-www-form-urlencoded",
    ] {
        let content_type = format!("content-type: {media_type}");
        let answer = send(&api, "POST", "/rpc/add_widget", &[&content_type], E).await;
        let expected = format!(
            r#"{{"code":"PGRST102","details":null,"hint":"Send the header Content-Type: application/json","message":"Content-Type not acceptable: {media_type}"}}"#
        );
        assert_eq!((answer.status.as_u16(), answer.body), (400, expected));
    }
    let answer = send(&api, "POST", "/rpc/add_widget", &[], E).await;
    assert_eq!(answer.outcome(), (204, ""), "no media type means JSON");
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused() {
    let settings = Settings {
        body_bytes_max: 8192,
        ..Settings::default()
    };
    let api = api_with(Failing(busy()), settings);
    let padded = |bytes: usize| format!(r#"{{"widget_sn":"E"{}}}"#, " ".repeat(bytes - 17));
    check(&api, "remove_widget", &padded(8193), (413, r#"{"code":"PGRST102","details":null,"hint":null,"message":"the body must be at most 8192 bytes long, 8193 were given"}"#)).await;
    let answer = post(&api, "remove_widget", &padded(8192)).await;
    assert_eq!(answer.outcome(), (503, "WG503"), "it reached the store");
}

/// One request per line: `method URI | header & header | body | status code`. `E` is a valid body.
const ORDER: &str = r#"
# HTTP itself, then paths.
GET /a/b | host: a & host: b | | 400 WG400
GET /widgets/E | host: | | 400 WG400
GET /widgets/E | host: a b | | 400 WG400
GET /widgets/E | host: user@a | | 400 WG400
GET /widgets/E | host: a:port | | 400 WG400
PUT /a/b | expect: a-miracle | | 417 WG417
PUT /a/b | expect: 100-continue, a-miracle | | 417 WG417
PUT /a/b | expect: 100-Continue | | 404 PGRST125
POST /rpc/add_widget | transfer-encoding: gzip, chunked | E | 400 WG400
POST /rpc/add_widget | transfer-encoding: chunked & transfer-encoding: chunked | E | 400 WG400
GET /widgets/%zz | accept-profile: api | | 400 PGRST125
GET /widgets/%4 | | | 400 PGRST125
POST /rpc/add_widget% | | E | 400 PGRST125
PUT /a/%/b | | | 400 PGRST125
GET /% | | | 400 PGRST125
POST /rpc/add_widget/ | content-profile: api | E | 404 PGRST125
GET /a/b | | | 404 PGRST125
GET /widgets/%FF | | | 404 PGRST125
POST /widgets/a/b | | | 404 PGRST125

# Then profiles.
PUT /rpc/add_widget | content-profile: api | { | 406 PGRST106
POST /rpc/add_widget?x=1 | content-profile: api | { | 406 PGRST106
GET /rpc | accept-profile: api | | 406 PGRST106
GET /widgets/E | accept-profile: api | | 406 PGRST106
POST /rpc/add_widget | accept-profile: api & content-profile: public | E | 204
POST /rpc/add_widget | content-profile: widgets | E | 409 23505

# Then methods, and tables, of which there are none.
PUT /rpc/add_widget?x=1 | | { | 405 PGRST101
PATCH /rpc/drop_widget | | | 405 PGRST101
DELETE /rpc/add_widget | | | 405 PGRST101
POST / | | | 405 PGRST117
PUT /widgets/E | | | 405 PGRST117
TRACE /table | | | 405 PGRST117
POST /live | | | 405 PGRST117
DELETE /metrics | | | 405 PGRST117
PUT /ready | | | 405 PGRST117
PUT /table | | | 404 PGRST205
GET /rpc | | | 404 PGRST205
GET /associations | | | 404 PGRST205

# Then the query string.
POST /rpc/add_widget?x=1 | | { | 400 PGRST100
POST /rpc/add_widget?select=* | | E | 409 23505
POST /rpc/add_widget?select=id | | E | 400 PGRST100

# Then the body and the names in it.
POST /rpc/add_widget | content-type: text/csv | { | 400 PGRST102
POST /rpc/add_widget | content-type: text/csv & content-encoding: gzip | E | 400 PGRST102
POST /rpc/add_widget | content-encoding: gzip | { | 415 PGRST102
POST /rpc/drop_widget | content-encoding: br | {} | 415 PGRST102
POST /rpc/add_widget | content-encoding: identity & content-encoding: deflate, gzip | E | 415 PGRST102
POST /rpc/add_widget | content-encoding: identity | { | 400 PGRST102
POST /rpc/add_widget | accept: image/png | { | 400 PGRST102
POST /rpc/add_widget | accept: image/png | {} | 404 PGRST202

# Then media types, preferences, values.
POST /rpc/add_widget | accept: image/png & prefer: handling=strict, a | E | 406 PGRST107
POST /rpc/add_widget | accept: text/csv, image/png | E | 409 23505
POST /rpc/add_widget | accept: application/vnd.pgrst.object | E | 409 23505
POST /rpc/add_widget | accept: application/vnd.pgrst.array;nulls=stripped | E | 409 23505
POST /rpc/add_widget | accept: | E | 409 23505
GET /widgets/E | accept: | | 200
GET /widgets/E | accept: image/png | | 406 PGRST107
POST /rpc/remove_widget | prefer: handling=strict, a, max-affected=1 | {"widget_sn":5} | 400 PGRST122
POST /rpc/remove_widget | prefer: handling=strict, max-affected=1 | {"widget_sn":5} | 400 PGRST128
POST /rpc/remove_widget | prefer: max-affected=1 | {"widget_sn":5} | 400 22P02

# Methods that only read.
GET /rpc/add_widget | | | 404 PGRST202
GET /rpc/add_widget?slots=%7BP%7D&widget_name=A&widget_sn=E | | | 405 25006
HEAD /rpc/add_widget?slots=&name=A&widget_sn=E | accept-profile: public | | 405 25006
GET /rpc/remove_widget?widget_sn=E | accept: image/png | | 406 PGRST107
GET /rpc/remove_widget?widget_sn=E | prefer: handling=strict, a | | 400 PGRST122
GET /rpc/drop_widget | | | 404 PGRST202
OPTIONS /rpc/remove_widget | | | 200
OPTIONS /rpc/remove_widget?widget_sn=E | | | 200
OPTIONS /rpc/remove_widget?x=E | | | 404 PGRST202
OPTIONS /rpc/drop_widget | | | 404 PGRST202
OPTIONS /widgets/E | | | 200
OPTIONS / | | | 200
OPTIONS * | | | 200
OPTIONS /a/b | | | 404 PGRST125
GET * | | | 404 PGRST125

# Lookups.
GET /widgets/ | | | 400 WG007
GET /widgets/E | accept: application/json | | 200
GET /widgets/e | accept: */* | | 404 WG001
"#;

#[tokio::test]
async fn request_errors_are_checked_in_a_fixed_order() {
    let (_engine, api) = service("order");
    for line in ORDER.lines().filter(|line| line.contains('|')) {
        let parts: Vec<&str> = line.split('|').map(str::trim).collect();
        let [request, headers, body, expected] = parts[..] else {
            panic!("four columns: {line}")
        };
        let (method, uri) = request.split_once(' ').expect("method and URI");
        let headers: Vec<&str> = headers
            .split(" & ")
            .filter(|each| !each.is_empty())
            .collect();
        let body = if body == "E" { E } else { body };
        let answer = send(&api, method, uri, &headers, body).await;
        let (status, code) = answer.outcome();
        assert_eq!(format!("{status} {code}").trim(), expected, "{line}");
        let proxy_status = answer.header("proxy-status").is_some();
        assert_eq!(proxy_status, status >= 400, "{line}");
        let options = method == "OPTIONS" && status == 200;
        let allow = answer.header("allow").is_some();
        assert_eq!(allow, options || status == 405, "{line}");
    }
}

#[tokio::test]
async fn error_bodies_match_those_of_postgrest() {
    let (_engine, api) = service("texts_of_errors");
    let all = "widget1_sn=E&port=P&widget2_sn=F";
    let cases: &[(&str, &str, &[&str], &str)] = &[
        (
            "POST",
            "/rpc/add_widget?x=0",
            &[],
            r#"{"code":"PGRST100","details":"query parameter \"x\" is unknown: arguments belong in the body","hint":null,"message":"\"failed to parse filter (0)\" (line 1, column 1)"}"#,
        ),
        (
            "PUT",
            "/rpc/add_widget",
            &[],
            r#"{"code":"PGRST101","details":null,"hint":null,"message":"Cannot use the PUT method on RPC"}"#,
        ),
        (
            "POST",
            "/rpc/x",
            &["content-profile: api"],
            r#"{"code":"PGRST106","details":null,"hint":"Only the following schemas are exposed: widgets, public","message":"Invalid schema: api"}"#,
        ),
        (
            "GET",
            "/widgets/E",
            &["accept: text/html, image/png;q=0.5"],
            r#"{"code":"PGRST107","details":null,"hint":null,"message":"None of these media types are available: text/html, image/png"}"#,
        ),
        (
            "PATCH",
            "/",
            &[],
            r#"{"code":"PGRST117","details":null,"hint":null,"message":"Unsupported HTTP method: PATCH"}"#,
        ),
        (
            "GET",
            "/a/b",
            &[],
            r#"{"code":"PGRST125","details":null,"hint":null,"message":"Invalid path specified in request URL"}"#,
        ),
        (
            "GET",
            "/widgets/%FF",
            &[],
            r#"{"code":"PGRST125","details":"a serial number is UTF-8, percent-encoded","hint":null,"message":"Invalid path specified in request URL"}"#,
        ),
        (
            "GET",
            "/things",
            &[],
            r#"{"code":"PGRST205","details":null,"hint":null,"message":"Could not find the table 'widgets.things' in the schema cache"}"#,
        ),
        (
            "GET",
            "/rpc/remove_widget?widget_sn=E",
            &[],
            r#"{"code":"25006","details":null,"hint":null,"message":"cannot execute DELETE in a read-only transaction"}"#,
        ),
        (
            "GET",
            &format!("/rpc/remove_association?{all}"),
            &[],
            r#"{"code":"25006","details":null,"hint":null,"message":"cannot execute UPDATE in a read-only transaction"}"#,
        ),
        (
            "GET",
            "/rpc/add_widget?widget_sn=E&name=A&slots=P",
            &[],
            r#"{"code":"25006","details":null,"hint":null,"message":"cannot execute INSERT in a read-only transaction"}"#,
        ),
    ];
    for &(method, uri, headers, expected) in cases {
        let answer = send(&api, method, uri, headers, "").await;
        assert_eq!(answer.body, expected, "{method} {uri} {headers:?}");
    }
    let strict = ["prefer: handling=strict, a", "prefer: b=1"];
    let answer = send(&api, "POST", "/rpc/add_widget", &strict, E).await;
    assert_eq!(
        answer.body,
        r#"{"code":"PGRST122","details":"Invalid preferences: a, b=1","hint":null,"message":"Invalid preferences given with handling=strict"}"#
    );
    let strict = ["prefer: handling=strict, max-affected=2"];
    let answer = send(&api, "POST", "/rpc/add_widget", &strict, E).await;
    assert_eq!(
        answer.body,
        r#"{"code":"PGRST128","details":null,"hint":null,"message":"Function must return SETOF or TABLE when max-affected preference is used with handling=strict"}"#
    );
}
