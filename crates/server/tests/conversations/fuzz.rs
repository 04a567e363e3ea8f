//! Random bodies, tokens and paths: each gets an answer of the documented shape.

use crate::*;
use proptest::prelude::*;
use serde_json::Value;
use std::sync::LazyLock;

/// Made once, because making it takes longer than a request: it writes its document.
static API: LazyLock<Api<Willing>> = LazyLock::new(|| api(Willing));

/// Bodies that are nearly valid: fragments of real ones in any order, with arbitrary bytes between
/// them.
fn body() -> impl Strategy<Value = Vec<u8>> {
    let pieces = [
        "{",
        "}",
        "[",
        "]",
        ":",
        ",",
        "\"",
        "\\",
        "null",
        "true",
        "1e999",
        "-0",
        "\\u0000",
        "\\ud800",
        "\"widget_sn\"",
        "\"widget_name\"",
        "\"name\"",
        "\"slots\"",
        "\"widget1_sn\"",
        "\"widget2_sn\"",
        "\"port\"",
        "\"E\"",
        "\"P\"",
        "[\"P\",\"R\"]",
        " ",
        "\n",
        r#"{"widget_sn":"E","widget_name":"A","slots":["P"]}"#,
        r#"{"widget1_sn":"E","widget2_sn":"F","port":"P"}"#,
    ];
    let piece = prop_oneof![
        8 => prop::sample::select(pieces.to_vec()).prop_map(|piece| piece.as_bytes().to_vec()),
        1 => prop::collection::vec(any::<u8>(), 0..8),
    ];
    prop::collection::vec(piece, 0..24).prop_map(|pieces| pieces.concat())
}

/// Sends a request, and checks that the answer is either a success or an error of the documented
/// shape.
fn answered(request: Request<Full<Bytes>>) -> u16 {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime");
    let (head, body) = runtime.block_on(API.respond(request)).into_parts();
    let body = runtime
        .block_on(body.collect())
        .expect("infallible")
        .to_bytes();
    if head.status.as_u16() >= 400 {
        let error: Value = serde_json::from_slice(&body).expect("errors are JSON");
        let members = error.as_object().expect("an object").keys();
        let members: Vec<&str> = members.map(String::as_str).collect();
        assert_eq!(members, ["code", "details", "hint", "message"]);
    }
    head.status.as_u16()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, ..ProptestConfig::default() })]

    #[test]
    fn any_body_is_applied_or_refused(
        body in body(),
        function in prop::sample::select(
            vec!["add_widget", "remove_widget", "associate_widgets", "remove_association", "other"],
        ),
    ) {
        let request = Request::post(format!("/rpc/{function}"))
            .body(Full::from(body))
            .expect("a request");
        prop_assert!([204, 400, 404].contains(&answered(request)));
    }

    #[test]
    fn any_token_is_refused_if_the_service_has_no_secret(token in "[A-Za-z0-9_.=-]{0,80}") {
        let request = Request::get("/widgets/E")
            .header("authorization", format!("Bearer {token}"))
            .body(Full::default())
            .expect("a request");
        prop_assert_eq!(answered(request), 500, "there is no secret");
    }

    #[test]
    fn any_path_and_query_is_answered(path in "[!-~&&[^#]]{0,60}") {
        if let Ok(request) = Request::get(format!("/{path}")).body(Full::default()) {
            prop_assert!([200, 400, 401, 404, 405].contains(&answered(request)));
        }
    }
}
