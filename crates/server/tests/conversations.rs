//! HTTP as conversations with the router over a real store.

#![expect(
    clippy::expect_used,
    reason = "in the helpers of tests a panic is the failed test"
)]

use axum::{
    Router,
    body::{Body, to_bytes},
    http::{Method, Request, StatusCode},
};
use std::path::Path;
use tower::ServiceExt as _;
use widgets_engine::{Engine, Settings};

struct Service {
    router: Router,
    _engine: Engine,
}

impl Service {
    fn new(name: &str) -> Self {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        drop(std::fs::remove_dir_all(&path));
        let engine = Engine::open(&path, &Settings::default()).expect("a new store");
        Self {
            router: widgets_server::router(engine.client()),
            _engine: engine,
        }
    }

    async fn send(&self, method: Method, uri: &str, body: &str) -> (StatusCode, String) {
        let request = Request::builder()
            .method(method)
            .uri(uri)
            .header("content-type", "application/json")
            .body(Body::from(body.to_owned()))
            .expect("a request");
        let response = self
            .router
            .clone()
            .oneshot(request)
            .await
            .expect("infallible");
        if response.status() == StatusCode::NO_CONTENT {
            assert_eq!(response.headers()["content-range"], "0-0/*");
            assert!(!response.headers().contains_key("content-type"));
        }
        let status = response.status();
        let body = to_bytes(response.into_body(), 1 << 20)
            .await
            .expect("a body");
        (status, String::from_utf8(body.to_vec()).expect("text"))
    }

    async fn check(&self, function: &str, body: &str, status: u16, answer: &str) {
        let got = self
            .send(Method::POST, &format!("/rpc/{function}"), body)
            .await;
        assert_eq!(
            (got.0.as_u16(), got.1.as_str()),
            (status, answer),
            "{function} {body}"
        );
    }

    async fn code(&self, function: &str, body: &str, status: u16, code: &str) {
        let got = self
            .send(Method::POST, &format!("/rpc/{function}"), body)
            .await;
        let start = format!("{{\"code\":\"{code}\",\"details\":");
        assert!(
            got.0.as_u16() == status && got.1.starts_with(&start),
            "{function} {body}: {got:?}"
        );
    }
}

#[tokio::test]
async fn every_refusal_has_its_status_and_code() {
    let service = Service::new("refusals");
    let e = r#"{"widget_sn":"E","widget_name":"A","slots":["P","R","R"]}"#;
    service.check("add_widget", e, 204, "").await;
    let taken = concat!(
        r#"{"code":"23505","details":"Key (serial_number)=(E) already exists.","hint":null,"#,
        r#""message":"duplicate key value violates unique constraint "#,
        r#"\"widgets_serial_number_key\""}"#
    );
    service.check("add_widget", e, 409, taken).await;
    let f = r#"{"widget_sn":"F","name":"","slots":["P"]}"#;
    service.check("add_widget", f, 204, "").await;

    let pair = r#"{"widget1_sn":"E","widget2_sn":"F","port":"P"}"#;
    service.code("remove_association", pair, 404, "WG004").await;
    service.check("associate_widgets", pair, 204, "").await;
    service.code("associate_widgets", pair, 409, "WG003").await;
    let r = r#"{"widget1_sn":"E","widget2_sn":"F","port":"R"}"#;
    service.code("associate_widgets", r, 409, "WG002").await;
    let itself = r#"{"widget1_sn":"E","widget2_sn":"E","port":"P"}"#;
    service
        .code("associate_widgets", itself, 400, "WG005")
        .await;
    let missing = r#"{"widget1_sn":"E","widget2_sn":"X","port":"P"}"#;
    let answer = concat!(
        r#"{"code":"WG001","details":null,"hint":null,"#,
        r#""message":"Widget with serial number X does not exist"}"#
    );
    service
        .check("associate_widgets", missing, 404, answer)
        .await;

    let lookup = service.send(Method::GET, "/widgets/E", "").await;
    let widget = concat!(
        r#"{"name":"A","serial_number":"E","slots":[{"peer":"F","port":"P"},"#,
        r#"{"peer":null,"port":"R"},{"peer":null,"port":"R"}]}"#
    );
    assert_eq!(lookup, (StatusCode::OK, widget.into()));
    service
        .check("remove_widget", r#"{"widget_sn":"E"}"#, 204, "")
        .await;
    service
        .code("remove_widget", r#"{"widget_sn":"E"}"#, 404, "WG001")
        .await;
}

#[tokio::test]
async fn what_is_no_command_is_refused_before_the_store() {
    let service = Service::new("malformed");
    let cases = [
        (
            r#"{"widget_sn":"E","widget_name":"A","slots":["p"]}"#,
            400,
            "22P02",
        ),
        (
            r#"{"widget_sn":"E","widget_name":"A","slots":"P"}"#,
            400,
            "22P02",
        ),
        (
            r#"{"widget_sn":5,"widget_name":"A","slots":[]}"#,
            400,
            "22P02",
        ),
        (
            r#"{"widget_sn":"E","widget_name":"A","slots":["P","P","P","P"]}"#,
            400,
            "WG006",
        ),
        (
            r#"{"widget_sn":"","widget_name":"A","slots":[]}"#,
            400,
            "WG007",
        ),
        (
            r#"{"widget_sn":"a\u0000b","widget_name":"A","slots":[]}"#,
            400,
            "WG007",
        ),
        (
            r#"{"widget_sn":null,"widget_name":"A","slots":[]}"#,
            400,
            "23502",
        ),
        (r#"{"widget_sn":"E","widget_name":"A"}"#, 404, "PGRST202"),
        (
            r#"{"widget_sn":"E","widget_name":"A","name":"A","slots":[]}"#,
            404,
            "PGRST202",
        ),
        ("", 404, "PGRST202"),
        ("{", 400, "PGRST102"),
        ("[]", 400, "PGRST102"),
    ];
    for (body, status, code) in cases {
        service.code("add_widget", body, status, code).await;
    }
    service.code("drop_widget", "{}", 404, "PGRST202").await;
    let long = format!(r#"{{"widget_sn":"{}"}}"#, "x".repeat(70_000));
    service.code("remove_widget", &long, 413, "PGRST102").await;
    let put = service.send(Method::PUT, "/rpc/add_widget", "{}").await;
    assert_eq!(put.0, StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(
        service.send(Method::GET, "/a/b", "").await.0,
        StatusCode::NOT_FOUND
    );
    assert_eq!(
        service.send(Method::GET, "/ready", "").await.0,
        StatusCode::OK
    );
}
