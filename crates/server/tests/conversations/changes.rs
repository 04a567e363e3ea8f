//! The feed of changes: pages, streams, and invalid requests.

use crate::*;
use serde_json::Value;
use std::time::Duration;
use widgets_clock::Clock as _;

async fn get(api: &Api<Client>, uri: &str, headers: &[&str]) -> Answer {
    send(api, "GET", uri, headers, "").await
}

fn members(body: &str) -> Vec<Value> {
    serde_json::from_str(body).expect(body)
}

#[tokio::test]
async fn a_page_of_changes_has_every_change_with_its_position() {
    let (_engine, api) = service("changes");
    let empty = get(&api, "/changes", &[]).await;
    assert_eq!((empty.status.as_u16(), &*empty.body), (200, "[]"));
    let beginning = empty
        .header("next-position")
        .expect("a position")
        .to_owned();
    check(&api, "add_widget", E, (204, "")).await;
    check(&api, "add_widget", E, (409, r#"{"code":"23505","details":"Key (serial_number)=(E) already exists.","hint":null,"message":"duplicate key value violates unique constraint \"widgets_serial_number_key\""}"#)).await;
    check(&api, "add_widget", F, (204, "")).await;
    check(&api, "associate_widgets", E_F_P, (204, "")).await;
    check(&api, "remove_widget", r#"{"widget_sn":"E"}"#, (204, "")).await;
    let page = get(&api, &format!("/changes?after={beginning}"), &[]).await;
    let next = page.header("next-position").expect("a position").to_owned();
    assert_eq!(page.header("cache-control"), Some("no-store"));
    let mut changes = members(&page.body);
    let mut positions = Vec::new();
    for change in &mut changes {
        let change = change.as_object_mut().expect("an object");
        let position = change.remove("position").expect("a position");
        positions.push(position.as_str().expect("text").to_owned());
        let at = change.remove("at").expect("a time");
        assert!(
            at.as_str()
                .is_some_and(|at| at.len() == 27 && at.ends_with('Z')),
            "{at}"
        );
    }
    assert!(
        positions.is_sorted() && positions.last() == Some(&next),
        "{positions:?}"
    );
    let expected = serde_json::json!([
        {"by": null, "operation": "add_widget", "widget_sn": "E", "widget_name": "A", "slots": ["P", "R", "R"]},
        {"by": null, "operation": "add_widget", "widget_sn": "F", "widget_name": "", "slots": ["P"]},
        {"by": null, "operation": "associate_widgets", "widget1_sn": "E", "slot1": 1, "widget2_sn": "F", "slot2": 1, "port": "P"},
        {"by": null, "operation": "remove_widget", "widget_sn": "E", "freed": [{"widget_sn": "F", "slot": 1}]},
    ]);
    assert_eq!(Value::from(changes), expected);
    assert!(
        page.body.starts_with(r#"[{"position":""#),
        "the position comes first: {}",
        page.body
    );
    // Page by page, and only the selected changes.
    let first = get(&api, "/changes?limit=1", &[]).await;
    assert_eq!(first.header("next-position"), Some(&*positions[0]));
    let filtered = "/changes?widget_sn=eq.F&operation=in.(add_widget,remove_widget)";
    assert_eq!(members(&get(&api, filtered, &[]).await.body).len(), 2);
    let nothing = get(&api, "/changes?widget_sn=eq.nobody", &[]).await;
    assert_eq!(
        nothing.header("next-position"),
        Some(&*next),
        "even if no change matches"
    );
    assert_eq!(
        get(&api, &format!("/changes?after={next}"), &[]).await.body,
        "[]"
    );
    assert_eq!(get(&api, "/changes?after=now", &[]).await.body, "[]");
}

#[tokio::test]
async fn a_page_of_changes_waits_for_the_next_change() {
    let (_engine, api) = service("changes-wait");
    let empty = get(&api, "/changes?after=now", &[]).await;
    let newest = empty.header("next-position").expect("a position");
    let uri = format!("/changes?after={newest}&wait_ms=60000");
    let asked = api.clone();
    let waiting = tokio::spawn(async move { get(&asked, &uri, &[]).await });
    // The runtime has one thread: it runs the request until it waits, and then this test.
    tokio::task::yield_now().await;
    assert!(!waiting.is_finished(), "there is no change yet");
    check(&api, "add_widget", E, (204, "")).await;
    let page = waiting.await.expect("no panic");
    let changes = members(&page.body);
    assert_eq!(changes.len(), 1, "{}", page.body);
    assert_eq!(changes[0]["widget_sn"], "E");
}

#[tokio::test]
async fn a_page_of_changes_is_empty_only_after_its_wait() {
    let (_engine, api) = service("changes-no-change");
    let clock = SystemClock::new();
    let page = get(&api, "/changes?after=now&wait_ms=50", &[]).await;
    let waited = clock.now();
    assert_eq!((page.status.as_u16(), &*page.body), (200, "[]"));
    assert!(waited >= Duration::from_millis(50), "{waited:?}");
}

#[tokio::test]
async fn invalid_requests_for_changes_are_refused() {
    let (_engine, api) = service("changes-refused");
    for (uri, details) in [
        ("/changes?limit=0", "it must be an integer from 1 to 1000"),
        ("/changes?limit=1&limit=2", "it is given more than once"),
        (
            "/changes?wait_ms=60001",
            "it must be an integer from 0 to 60000",
        ),
        ("/changes?widget_sn=E", "it must be eq.SERIAL_NUMBER"),
        (
            "/changes?operation=in.(add)",
            "it must be eq.OPERATION or in.(OPERATION,…)",
        ),
        (
            "/changes?after=yesterday",
            "it must be a position that the service gave out, or now",
        ),
        (
            "/changes?since=1",
            "the parameters are after, limit, wait_ms, widget_sn and operation",
        ),
    ] {
        let refused = get(&api, uri, &[]).await;
        assert_eq!(refused.status.as_u16(), 400, "{uri}");
        assert!(
            refused.body.contains(r#""code":"PGRST100""#),
            "{}",
            refused.body
        );
        assert!(refused.body.contains(details), "{}", refused.body);
    }
    let other = "/changes?after=0000000000000000-00000001-0000000000000000";
    let gone = get(&api, other, &[]).await;
    assert_eq!(gone.status.as_u16(), 410);
    assert!(
        gone.body
            .contains(r#""code":"WG410","details":"the oldest position is "#),
        "{}",
        gone.body
    );
    for accept in ["text/event-stream", "application/x-ndjson"] {
        let gone = get(&api, other, &[&format!("accept: {accept}")]).await;
        assert_eq!(gone.status.as_u16(), 410, "before a stream begins");
    }
    assert_eq!(
        send(&api, "POST", "/changes", &[], "")
            .await
            .status
            .as_u16(),
        405
    );
}

/// Returns the pieces of a stream until one contains this.
async fn until(body: &mut widgets_server::AnswerBody, wanted: &str) -> String {
    let mut text = String::new();
    while !text.contains(wanted) {
        let frame = body.frame().await.expect("no end").expect("infallible");
        text.push_str(&String::from_utf8_lossy(&frame.into_data().expect("data")));
    }
    text
}

#[tokio::test]
async fn streams_of_changes_refuse_what_is_for_pages() {
    let (_engine, api) = service("changes-stream-refused");
    for accept in ["text/event-stream", "application/x-ndjson"] {
        for parameter in ["limit=2", "wait_ms=0"] {
            let request = Request::get(format!("/changes?{parameter}")).header("accept", accept);
            let request = request.body(Full::new(Bytes::new())).expect("a request");
            // Only this answer has an end.
            let answer = api.respond(request).await;
            assert_eq!(answer.status(), 400, "{accept} {parameter}");
            let body = answer.into_body().collect().await.expect("infallible");
            let body = String::from_utf8_lossy(&body.to_bytes()).into_owned();
            assert!(body.contains(r#""code":"PGRST100""#), "{body}");
            assert!(body.contains("it is for pages"), "{body}");
        }
    }
    let headers = ["accept: text/event-stream", "last-event-id: yesterday"];
    let answer = get(&api, "/changes", &headers).await;
    assert_eq!(answer.outcome(), (400, "PGRST100"));
    let details =
        r#""details":"header \"Last-Event-ID\": it must be a position that the service gave out""#;
    assert!(answer.body.contains(details), "{}", answer.body);
}

#[tokio::test]
async fn a_stream_of_changes_continues_and_can_be_resumed() {
    let (_engine, api) = service("changes-stream");
    check(&api, "add_widget", E, (204, "")).await;
    let open = async |headers: &[(&str, &str)]| {
        let mut request = Request::builder().uri("/changes");
        for &(name, value) in headers {
            request = request.header(name, value);
        }
        let request = request.body(Full::new(Bytes::new())).expect("a request");
        api.respond(request).await
    };
    let events = ("accept", "text/event-stream");
    let response = open(&[events]).await;
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    assert_eq!(response.headers()["x-accel-buffering"], "no");
    let mut body = response.into_body();
    let first = until(&mut body, "add_widget\",\"widget_sn\":\"E\"").await;
    assert!(first.starts_with("retry: 1000\n\nid: "), "{first}");
    assert!(
        first.contains("\nevent: add_widget\ndata: {\"position\":\""),
        "{first}"
    );
    let id = first
        .split("id: ")
        .nth(1)
        .and_then(|rest| rest.lines().next());
    let id = id.expect("an id").to_owned();
    check(&api, "add_widget", F, (204, "")).await;
    until(&mut body, "\"widget_sn\":\"F\"").await;
    drop(body);
    // A browser reconnects to the same URL, and sends the last position it received.
    let mut resumed = open(&[events, ("last-event-id", &id)]).await.into_body();
    let rest = until(&mut resumed, "\"widget_sn\":\"F\"").await;
    assert!(!rest.contains("\"widget_sn\":\"E\""), "{rest}");
    let lines = open(&[("accept", "application/x-ndjson")]).await;
    assert_eq!(lines.headers()["content-type"], "application/x-ndjson");
    let lines = until(&mut lines.into_body(), "\"widget_sn\":\"F\"").await;
    assert_eq!(lines.lines().count(), 2, "{lines}");
}

/// The position of an operation's answer is after its change. Answers that involve the store have a
/// position; others have none. Each answer has the request's own id, or a generated one that
/// differs each time.
#[tokio::test]
async fn responses_have_positions_and_request_ids() {
    let (_stored, api) = service("positions");
    let json = "content-type: application/json";
    let own = [json, "x-request-id: my/request-1"];
    let answer = send(&api, "POST", "/rpc/add_widget", &own, E).await;
    assert_eq!(answer.header("x-request-id"), Some("my/request-1"));
    let added = answer.header("position").expect("a position").to_owned();
    let page = send(&api, "GET", "/changes", &[], "").await;
    assert!(
        page.body.contains(&format!("\"position\":\"{added}\"")),
        "{}",
        page.body
    );
    let after = format!("/changes?after={added}");
    let nothing = send(&api, "GET", &after, &[], "").await;
    assert_eq!(nothing.body, "[]");

    let mut made = Vec::new();
    for (method, path, is_of_store) in [
        ("POST", "/rpc/add_widget", true),
        ("GET", "/widgets/E", true),
        ("GET", "/widgets/missing", true),
        ("GET", "/slots", true),
        ("GET", "/widgets/E/neighbourhood", true),
        ("GET", "/changes", true),
        ("GET", "/changes?limit=0", false),
        ("GET", "/nothing/there", false),
        ("GET", "/", false),
        ("GET", "/live", false),
    ] {
        let answer = send(&api, method, path, &[json, "x-request-id: not one"], E).await;
        let position = is_of_store.then_some(added.as_str());
        assert_eq!(answer.header("position"), position, "{method} {path}");
        made.push(answer.header("x-request-id").expect("an id").to_owned());
    }
    made.sort();
    made.dedup();
    assert_eq!(made.len(), 10, "{made:?}");
}

/// A primary has every position of its own history and no others, so it never waits.
#[tokio::test]
async fn read_after_is_accepted_only_for_positions_of_this_history() {
    let (_stored, api) = service("read-after");
    let added = post(&api, "add_widget", E).await;
    let added = added.header("position").expect("a position").to_owned();
    let newest = post(&api, "add_widget", F).await;
    let newest = newest.header("position").expect("a position").to_owned();
    let number = |text: &str| u64::from_str_radix(text, 16).expect("hexadecimal");
    let (store, epoch, sequence) = (
        number(&newest[..16]),
        number(&newest[17..25]),
        number(&newest[26..]),
    );
    let position =
        |store: u64, epoch: u64, sequence: u64| format!("{store:016x}-{epoch:08x}-{sequence:016x}");
    let known = [position(store, epoch, 0), added, newest];
    let unknown = [
        position(store ^ 1, epoch, 1),
        position(store, epoch + 1, sequence),
        position(store, epoch - 1, 1),
        // Beyond what the store may write meanwhile by itself.
        position(store, epoch, sequence + 1000),
        position(store, epoch, u64::MAX),
    ];
    for path in [
        "/widgets/E",
        "/widgets",
        "/slots",
        "/widgets/E/neighbourhood",
        "/changes",
    ] {
        for method in ["GET", "HEAD"] {
            let read = async |value: &str| {
                let header = format!("read-after: {value}");
                send(&api, method, path, &[&header], "").await
            };
            for known in &known {
                assert_eq!(read(known).await.status, 200, "{method} {path} {known}");
            }
            for unknown in &unknown {
                let answer = read(unknown).await;
                assert_eq!(answer.outcome(), (410, "WG410"), "{path} {unknown}");
                let newest = format!("the newest position here is {store:016x}-");
                assert!(answer.body.contains(&newest), "{}", answer.body);
                assert_eq!(answer.header("retry-after"), None);
            }
            for malformed in ["", "yesterday", "now", "1"] {
                let answer = read(malformed).await;
                assert_eq!(answer.outcome(), (400, "PGRST100"), "{path} {malformed}");
                assert!(answer.body.contains("Read-After"), "{}", answer.body);
            }
        }
        let twice = format!("read-after: {}", known[1]);
        let answer = send(&api, "GET", path, &[&twice, &twice], "").await;
        assert_eq!(answer.outcome(), (400, "PGRST100"), "{path}");
        // Errors of the request itself come first.
        let answer = send(
            &api,
            "GET",
            path,
            &["read-after: 1", "accept: image/png"],
            "",
        )
        .await;
        assert_eq!(answer.outcome(), (406, "PGRST107"), "{path}");
    }
    // Operations and probes ignore it.
    let unknown = format!("read-after: {}", unknown[0]);
    let headers = ["content-type: application/json", &unknown];
    let remove = r#"{"widget_sn":"E"}"#;
    let removed = send(&api, "POST", "/rpc/remove_widget", &headers, remove).await;
    assert_eq!(removed.status, 204);
    let probed = send(&api, "GET", "/ready", &["read-after: yesterday"], "").await;
    assert_eq!(probed.status, 200);
}

/// A store without a feed of changes has no positions.
#[tokio::test]
async fn read_after_is_not_supported_by_a_store_without_changes() {
    let api = api(Failing(busy()));
    let position = "read-after: 6f1c2d3e4f506172-00000001-0000000000000029";
    for path in ["/widgets/E", "/widgets", "/changes"] {
        let answer = send(&api, "GET", path, &[position], "").await;
        assert_eq!(answer.outcome(), (501, "WG501"), "{path}");
    }
}
