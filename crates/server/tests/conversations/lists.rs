//! Lists and neighbourhoods as clients request them.

use super::{Answer, E, E_F_P, F, Failing, busy, post, send, service, service_with};
use widgets_registry::Store;
use widgets_server::{Api, Settings};

/// Sends a request, written as `METHOD URI` and then one header per line, and returns the answer.
async fn ask<S: Store>(api: &Api<S>, request: &str) -> Answer {
    let mut lines = request.lines();
    let (method, uri) = lines
        .next()
        .and_then(|line| line.split_once(' '))
        .expect("METHOD URI");
    let headers: Vec<&str> = lines.collect();
    send(api, method, uri, &headers, "").await
}

async fn three<S: Store>(api: &Api<S>) {
    for (function, body) in [
        ("add_widget", E),
        ("add_widget", F),
        (
            "add_widget",
            r#"{"widget_sn":"G","name":"A","slots":["R"]}"#,
        ),
        ("associate_widgets", E_F_P),
    ] {
        assert_eq!(post(api, function, body).await.status.as_u16(), 204);
    }
}

#[tokio::test]
async fn lists_report_their_status_and_content_range() {
    let (_stored, api) = service("lists-pages");
    let exact = "prefer: count=exact";
    let cases = [
        ("/widgets?limit=2", "", 200, "0-1/*"),
        ("/widgets?limit=2", exact, 206, "0-1/3"),
        ("/widgets", exact, 200, "0-2/3"),
        ("/widgets?offset=2", exact, 206, "2-2/3"),
        ("/widgets?offset=3", exact, 206, "*/3"),
        ("/widgets?offset=4", exact, 416, "*/3"),
        ("/widgets?offset=4", "", 200, "*/*"),
        ("/widgets?limit=0", exact, 206, "*/3"),
        ("/widgets?name=eq.none", exact, 200, "*/0"),
        ("/widgets?name=eq.A", exact, 200, "0-1/2"),
        ("/widgets?limit=1", "prefer: count=planned", 206, "0-0/3"),
        ("/widgets", "prefer: count=estimated", 200, "0-2/3"),
        ("/widgets", "range: 1-1", 200, "1-1/*"),
        ("/slots", exact, 200, "0-4/5"),
        ("/slots?peer_sn=is.null&port=eq.R", exact, 200, "0-2/3"),
    ];
    three(&api).await;
    for (uri, header, status, range) in cases {
        for method in ["GET", "HEAD"] {
            let answer = ask(&api, &format!("{method} {uri}\n{header}")).await;
            let shown = (answer.status.as_u16(), answer.header("content-range"));
            assert_eq!(shown, (status, Some(range)), "{method} {uri} {header}");
            if status < 300 {
                assert_eq!(answer.header("vary"), Some("Accept, Prefer, Range"));
            }
        }
    }
}

#[tokio::test]
async fn a_lookup_refuses_query_parameters() {
    let (_stored, api) = service("lists-lookup");
    three(&api).await;
    for uri in [
        "/widgets/E?select=name",
        "/widgets/E?x",
        "/widgets/none?name=eq.A",
    ] {
        let answer = ask(&api, &format!("GET {uri}")).await;
        assert_eq!(answer.outcome(), (400, "PGRST100"), "{uri}");
    }
    assert_eq!(ask(&api, "GET /widgets/E?").await.status, 200);
}

#[tokio::test]
async fn the_accept_header_selects_the_response_format() {
    let (_stored, api) = service("lists-forms");
    three(&api).await;
    let json = "application/json; charset=utf-8";
    let cases = [
        ("", json, r#"[{"name":"A"},{"name":""},{"name":"A"}]"#),
        (
            "accept: */*",
            json,
            r#"[{"name":"A"},{"name":""},{"name":"A"}]"#,
        ),
        (
            "accept: text/csv",
            "text/csv; charset=utf-8",
            "name\nA\n\"\"\nA",
        ),
    ];
    for (header, content_type, body) in cases {
        let answer = ask(&api, &format!("GET /widgets?select=name\n{header}")).await;
        assert_eq!(answer.status.as_u16(), 200, "{}", answer.body);
        assert_eq!(answer.header("content-type"), Some(content_type));
        assert_eq!(answer.body, body);
    }
    let single = "accept: application/vnd.pgrst.object+json";
    let one = ask(&api, &format!("GET /slots?widget_sn=eq.G\n{single}")).await;
    let expected = r#"{"widget_sn":"G","ordinal":1,"port":"R","peer_sn":null}"#;
    assert_eq!(one.body, expected);
    let content_type = "application/vnd.pgrst.object+json; charset=utf-8";
    assert_eq!(one.header("content-type"), Some(content_type));
    let many = ask(&api, &format!("GET /widgets\n{single}")).await;
    assert_eq!(many.outcome(), (406, "PGRST116"));
}

#[tokio::test]
async fn completed_operations_are_visible_in_lists() {
    let (_stored, api) = service("lists-fresh");
    three(&api).await;
    let free =
        "GET /widgets?select=serial_number&slots=cs.%5B%7B%22port%22:%22P%22,%22peer%22:null%7D%5D";
    assert_eq!(ask(&api, free).await.body, "[]");
    assert_eq!(
        post(&api, "remove_association", E_F_P)
            .await
            .status
            .as_u16(),
        204
    );
    let both = r#"[{"serial_number":"E"},{"serial_number":"F"}]"#;
    assert_eq!(ask(&api, free).await.body, both);
    assert_eq!(
        post(&api, "remove_widget", r#"{"widget_sn":"E"}"#)
            .await
            .status
            .as_u16(),
        204
    );
    assert_eq!(ask(&api, free).await.body, r#"[{"serial_number":"F"}]"#);
}

#[tokio::test]
async fn methods_that_write_to_tables_are_refused() {
    let (_stored, api) = service("lists-methods");
    for method in ["POST", "PUT", "PATCH", "DELETE"] {
        for path in ["/widgets", "/slots", "/widgets/E/neighbourhood"] {
            let answer = ask(&api, &format!("{method} {path}\nhost: localhost")).await;
            assert_eq!(answer.outcome(), (405, "PGRST117"), "{method} {path}");
            assert_eq!(answer.header("allow"), Some("OPTIONS,GET,HEAD"));
        }
    }
    let options = ask(&api, "OPTIONS /widgets").await;
    assert_eq!(options.status.as_u16(), 200);
    assert_eq!(options.header("allow"), Some("OPTIONS,GET,HEAD"));
}

#[tokio::test]
async fn a_neighbourhood_is_truncated_at_widgets_max_or_not_found() {
    let (_stored, api) = service("lists-near");
    three(&api).await;
    let near = ask(&api, "GET /widgets/E/neighbourhood?depth=3&widgets_max=1").await;
    let expected = concat!(
        r#"{"widgets":[{"serial_number":"E","name":"A","slots":[{"port":"P","peer":"F"},"#,
        r#"{"port":"R","peer":null},{"port":"R","peer":null}]}],"associations":[],"truncated":true}"#
    );
    assert_eq!(near.body, expected);
    let missing = ask(&api, "GET /widgets/X/neighbourhood").await;
    assert_eq!(missing.outcome(), (404, "WG001"));
}

#[tokio::test]
async fn metrics_count_scanned_and_returned_rows() {
    let (_stored, api) = service("lists-metrics");
    three(&api).await;
    ask(&api, "GET /widgets?name=not.like.*A*").await;
    ask(&api, "GET /slots?widget_sn=eq.E").await;
    ask(&api, "GET /widgets/E/neighbourhood").await;
    let metrics = ask(&api, "GET /metrics").await.body;
    for line in [
        "widgets_rows_scanned_total{operation=\"list_widgets\"} 3",
        "widgets_rows_returned_total{operation=\"list_widgets\"} 1",
        "widgets_rows_scanned_total{operation=\"list_slots\"} 1",
        "widgets_rows_returned_total{operation=\"list_slots\"} 3",
        "widgets_rows_returned_total{operation=\"neighbourhood\"} 2",
        "widgets_requests_total{operation=\"list_widgets\",outcome=\"ok\"} 1",
    ] {
        assert!(
            metrics.lines().any(|each| each == line),
            "{line}\n{metrics}"
        );
    }
}

#[tokio::test]
async fn a_list_from_a_busy_store_gets_503_with_retry_after() {
    let api = super::api(Failing(busy()));
    let answer = ask(&api, "GET /widgets").await;
    assert_eq!(answer.outcome(), (503, "WG503"));
    assert_eq!(answer.header("retry-after"), Some("7"));
}

/// In JSON, each control character takes six bytes.
#[tokio::test]
async fn lists_over_the_size_limit_are_refused_and_change_pages_shortened() {
    let settings = Settings {
        answer_bytes_max: 20_000,
        ..Settings::default()
    };
    let (_stored, api) = service_with("lists-long", settings);
    let long = r"\u0001".repeat(1024);
    for serial_number in ["A", "B", "C", "D"] {
        let add = format!(r#"{{"widget_sn":"{serial_number}","name":"{long}","slots":["P"]}}"#);
        assert_eq!(post(&api, "add_widget", &add).await.status.as_u16(), 204);
    }
    for (one, other) in [("A", "B"), ("C", "D")] {
        let joined = format!(r#"{{"widget1_sn":"{one}","widget2_sn":"{other}","port":"P"}}"#);
        let answer = post(&api, "associate_widgets", &joined).await;
        assert_eq!(answer.status.as_u16(), 204);
    }
    let refused = ask(&api, "GET /widgets").await;
    assert_eq!(refused.outcome(), (400, "WG011"));
    assert!(
        refused.body.contains("at most 20000 bytes"),
        "{}",
        refused.body
    );
    assert_eq!(refused.header("retry-after"), None);
    let fits = ask(&api, "GET /widgets?limit=3").await;
    assert_eq!(
        (fits.status.as_u16(), fits.header("content-range")),
        (200, Some("0-2/*"))
    );
    // CSV escapes nothing.
    let csv = ask(&api, "GET /widgets\naccept: text/csv").await;
    assert_eq!(csv.status.as_u16(), 200);
    let near = ask(&api, "GET /widgets/A/neighbourhood").await;
    assert_eq!(near.status.as_u16(), 200);
    // One row whose column is selected many times.
    let names: Vec<String> = (0..20).map(|each| format!("n{each}:name")).collect();
    let select = format!("/widgets?serial_number=eq.A&select={}", names.join(","));
    for format in [
        "application/json",
        "text/csv",
        "application/vnd.pgrst.object+json",
    ] {
        let asked = ask(&api, &format!("GET {select}\naccept: {format}")).await;
        assert_eq!(asked.outcome(), (400, "WG011"), "{format}");
    }
    // One page has two of the four changes with names; the next page continues from there, so that
    // none is left out.
    let (mut after, mut told) = (String::new(), Vec::new());
    while told.len() < 6 {
        let page = ask(&api, &format!("GET /changes?limit=1000{after}")).await;
        assert_eq!(page.status.as_u16(), 200);
        assert!(page.body.len() <= 20_000, "{}", page.body.len());
        let changes: Vec<serde_json::Value> = serde_json::from_str(&page.body).expect("an array");
        assert!(!changes.is_empty(), "{told:?}");
        told.extend(changes.iter().map(|each| each["operation"].to_string()));
        let next = page.header("next-position").expect("a position");
        after = format!("&after={next}");
    }
    assert_eq!(told[3], "\"add_widget\"");
    assert_eq!(told[4..], ["\"associate_widgets\""; 2]);
}

#[tokio::test]
async fn errors_about_long_queries_are_bounded_in_length() {
    let (_stored, api) = service("lists-echo");
    let long = "%00".repeat(2000);
    for query in [
        format!("or=({}", "or(".repeat(2000)),
        format!("slots=cs.{}", "[".repeat(6000)),
        format!("select={}", ",".repeat(6000)),
        format!("name={}eq.x", "not.".repeat(2000)),
        format!("order={long}"),
        format!("{long}=eq.x"),
        format!("limit={}", "9".repeat(6000)),
    ] {
        let answer = ask(&api, &format!("GET /widgets?{query}")).await;
        assert_eq!(answer.status.as_u16(), 400, "{}", answer.body);
        assert!(answer.body.len() < 2500, "{}", answer.body);
    }
}
