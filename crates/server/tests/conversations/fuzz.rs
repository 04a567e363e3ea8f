//! Random bodies, tokens and paths: each gets an answer of the documented shape.

use crate::{auth::SECRET, *};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use proptest::prelude::*;
use serde_json::Value;
use std::sync::{Arc, LazyLock};
use widgets_server::{Authentication, AuthenticationSettings, KeySet, Roles};

/// Made once, because making it takes longer than a request: it writes its document.
static API: LazyLock<Api<Willing>> = LazyLock::new(|| api(Willing));

/// The same, but only a token of a reader that is signed with [`SECRET`] is accepted.
static GUARDED: LazyLock<Api<Willing>> = LazyLock::new(|| {
    let settings = AuthenticationSettings {
        role_claim: "role".into(),
        roles: Roles {
            read: vec!["reader".into()],
            ..Roles::default()
        },
        ..AuthenticationSettings::default()
    };
    let keys = KeySet::parse(SECRET).expect("a secret");
    let authentication = Authentication::new(settings, Some(keys));
    api(Willing).with_authentication(Arc::new(authentication))
});

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

/// Arbitrary tokens, and tokens of a reader with arbitrary signatures.
fn unsigned_token() -> impl Strategy<Value = String> {
    let algorithms = ["HS256", "HS384", "HS512", "RS256", "ES256", "EdDSA", "none"];
    let algorithm = prop::sample::select(algorithms.to_vec());
    let signature = prop::collection::vec(any::<u8>(), 0..72);
    let of_reader = (algorithm, signature).prop_map(|(algorithm, signature)| {
        let header = URL_SAFE_NO_PAD.encode(format!(r#"{{"alg":"{algorithm}"}}"#));
        let claims = URL_SAFE_NO_PAD.encode(r#"{"role":"reader"}"#);
        let signature = URL_SAFE_NO_PAD.encode(signature);
        format!("{header}.{claims}.{signature}")
    });
    prop_oneof!["[A-Za-z0-9_.=-]{0,80}", of_reader]
}

/// Returns a lookup with this token.
fn lookup_with(token: &str) -> Request<Full<Bytes>> {
    Request::get("/widgets/E")
        .header("authorization", format!("Bearer {token}"))
        .body(Full::default())
        .expect("a request")
}

/// Sends a request, and checks that the answer is either a success or an error of the documented
/// shape.
fn answered(api: &Api<Willing>, request: Request<Full<Bytes>>) -> u16 {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime");
    let (head, body) = runtime.block_on(api.respond(request)).into_parts();
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
        prop_assert!([204, 400, 404].contains(&answered(&API, request)));
    }

    #[test]
    fn any_token_is_refused_if_the_service_has_no_secret(token in "[A-Za-z0-9_.=-]{0,80}") {
        let request = lookup_with(&token);
        prop_assert_eq!(answered(&API, request), 500, "there is no secret");
    }

    #[test]
    fn any_token_that_was_not_signed_with_the_secret_is_refused(token in unsigned_token()) {
        prop_assert_eq!(answered(&GUARDED, lookup_with(&token)), 401);
    }

    #[test]
    fn any_path_and_query_is_answered(path in "[!-~&&[^#]]{0,60}") {
        if let Ok(request) = Request::get(format!("/{path}")).body(Full::default()) {
            prop_assert!([200, 400, 401, 404, 405].contains(&answered(&API, request)));
        }
    }
}
