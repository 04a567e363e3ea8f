//! Who is admitted: tokens, keys, roles, and anonymous callers.

use crate::*;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::hmac;
use serde_json::{Value, json};
use std::{
    net::{IpAddr, Ipv4Addr},
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};
use widgets_clock::{Clock, SystemClock, Timer};
use widgets_server::{
    Authentication, AuthenticationSettings, Caller, ClientCertificates, KeyRequests, KeySet, Roles,
};

pub(crate) const SECRET: &str = "a secret of more than thirty-two bytes";
const NOW: i64 = 1_800_000_000;

/// Stands still until it is set.
#[derive(Clone, Default)]
struct TestClock(Arc<AtomicI64>);

impl Clock for TestClock {
    fn now(&self) -> Duration {
        Duration::ZERO
    }

    fn unix_time(&self) -> Duration {
        let seconds = NOW + self.0.load(Ordering::Relaxed);
        Duration::from_secs(seconds.try_into().expect("after 1970"))
    }

    fn sleep(&self, _: Duration) {
        unreachable!("a request waits for its store only");
    }

    fn timer(&self, _: Duration) -> Timer {
        unreachable!("a request waits for its store only");
    }
}

fn settings() -> AuthenticationSettings {
    let names = |names: &[&str]| names.iter().map(ToString::to_string).collect();
    AuthenticationSettings {
        audience: None,
        issuer: None,
        required_claims: Vec::new(),
        role_claim: "role".into(),
        roles: Roles {
            read: names(&["reader", "writer", "anon"]),
            write: names(&["writer"]),
            admin: names(&["watcher"]),
        },
        anonymous_role: None,
        certificate_role: None,
    }
}

fn guarded(
    settings: AuthenticationSettings,
    keys: Option<&str>,
) -> (Api<Willing>, Arc<Authentication>, TestClock) {
    let keys = keys.map(|keys| KeySet::parse(keys).expect("keys"));
    let authentication = Arc::new(Authentication::new(settings, keys));
    let clock = TestClock::default();
    let api = Api::new(Willing, Settings::default(), Registry::new(), clock.clone());
    let api = api
        .expect("an empty registry")
        .with_authentication(authentication.clone());
    (api, authentication, clock)
}

/// Returns a token with these claims, signed with HS256.
pub(crate) fn token(secret: &str, header: &str, claims: &str) -> String {
    let encode = |part: &str| URL_SAFE_NO_PAD.encode(part);
    let message = format!("{}.{}", encode(header), encode(claims));
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    let signature = hmac::sign(&key, message.as_bytes());
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
}

fn claiming(claims: &str) -> String {
    token(SECRET, r#"{"alg":"HS256","typ":"JWT"}"#, claims)
}

async fn remove(api: &Api<Willing>, authorization: &str) -> Answer {
    let authorization = format!("authorization: {authorization}");
    let headers = ["content-type: application/json", authorization.as_str()];
    send(
        api,
        "POST",
        "/rpc/remove_widget",
        &headers,
        r#"{"widget_sn":"E"}"#,
    )
    .await
}

/// Checks a refusal and its challenge.
fn check_refused(answer: &Answer, expected: (u16, &str), message: &str, challenge: Option<&str>) {
    assert_eq!(answer.outcome(), expected, "{}", answer.body);
    let body: Value = serde_json::from_str(&answer.body).expect("JSON");
    assert_eq!(body["message"], message);
    assert_eq!(answer.header("www-authenticate"), challenge, "{message}");
}

#[tokio::test]
async fn token_claims_are_checked_in_order_with_postgrest_messages() {
    let settings = AuthenticationSettings {
        audience: Some("widgets".into()),
        issuer: Some("https://issuer".into()),
        required_claims: vec!["exp".into(), "a \"claim\\".into()],
        ..settings()
    };
    let (api, ..) = guarded(settings, Some(SECRET));
    let complete = |claims: &str| {
        let others = r#""aud":"widgets","iss":"https://issuer","exp":1800000000,"a \"claim\\":1"#;
        claims.replace("ETC", others)
    };
    for claims in [
        r#"{"role":"writer",ETC}"#,
        r#"{"role":"writer","aud":["others","widgets"],"iss":"https://issuer","exp":9e9,"a \"claim\\":[]}"#,
    ] {
        let answer = remove(&api, &format!("Bearer {}", claiming(&complete(claims)))).await;
        assert_eq!(answer.outcome(), (204, ""), "{claims}: {}", answer.body);
    }
    let message = r#"The JWT 'a "claim\' claim must be there"#;
    let challenge = "Bearer error=\"invalid_token\", error_description=\"The JWT 'a ?claim?' claim must be there\"";
    let claims = r#"{"aud":"widgets","iss":"https://issuer","exp":1800000000}"#;
    let answer = remove(&api, &format!("Bearer {}", claiming(claims))).await;
    check_refused(&answer, (401, "PGRST303"), message, Some(challenge));
    let (open, ..) = guarded(self::settings(), Some(SECRET));
    for claims in [
        r#"{"role":"writer"}"#,
        r#"{"role":"writer","exp":1800000000,"nbf":1800000030,"iat":1800000030,"aud":"widgets"}"#,
        r#"{"role":"writer","aud":["others","widgets"],"iss":"anybody"}"#,
        r#"{"role":"writer","iss":null,"sub":5}"#,
    ] {
        let answer = remove(&open, &format!("Bearer {}", claiming(claims))).await;
        assert_eq!(answer.outcome(), (204, ""), "{claims}: {}", answer.body);
        assert_eq!(answer.header("www-authenticate"), None);
    }
    for (claims, message) in [
        (r#"{"exp":1799999969}"#, "JWT expired"),
        (r#"{"nbf":1800000031}"#, "JWT not yet valid"),
        (r#"{"iat":1800000031}"#, "JWT issued at future"),
        (r#"{"aud":"others"}"#, "JWT not in audience"),
        (r#"{"iss":"https://issuer"}"#, "JWT not in audience"),
        (r#"{"aud":[]}"#, "JWT not in audience"),
        (r#"{"aud":"widgets"}"#, "JWT not from the trusted issuer"),
        (
            r#"{"aud":"widgets","iss":["https://issuer"]}"#,
            "The JWT 'iss' claim must be a string",
        ),
        (
            r#"{"aud":"widgets","iss":"https://other"}"#,
            "JWT not from the trusted issuer",
        ),
        (
            r#"{"aud":"widgets","iss":"https://issuer"}"#,
            "The JWT 'exp' claim must be there",
        ),
        (
            r#"{"aud":"widgets","iss":"https://issuer","exp":null}"#,
            "The JWT 'exp' claim must be there",
        ),
        // Parsers differ in which of the two counts.
        (
            r#"{"role":"reader",ETC,"role":"writer"}"#,
            "Parsing claims failed",
        ),
        (
            r#"{"role":"writer",ETC,"app":{"role":"a","role":"b"}}"#,
            "Parsing claims failed",
        ),
        (r#"{"exp":"soon"}"#, "The JWT 'exp' claim must be a number"),
        (r#"{"nbf":"soon"}"#, "The JWT 'nbf' claim must be a number"),
        (r#"{"iat":"soon"}"#, "The JWT 'iat' claim must be a number"),
        (
            r#"{"aud":1}"#,
            "The JWT 'aud' claim must be a string or an array of strings",
        ),
        ("[]", "Parsing claims failed"),
        ("no JSON", "Parsing claims failed"),
    ] {
        let answer = remove(&api, &format!("Bearer {}", claiming(&complete(claims)))).await;
        let challenge = format!("Bearer error=\"invalid_token\", error_description=\"{message}\"");
        check_refused(&answer, (401, "PGRST303"), message, Some(&challenge));
    }
}

#[tokio::test]
async fn malformed_and_wrongly_signed_tokens_are_refused() {
    let (api, ..) = guarded(settings(), Some(SECRET));
    let writer = r#"{"role":"writer"}"#;
    let good = claiming(writer);
    let (message, _) = good.rsplit_once('.').expect("three parts");
    let cut = &good[..good.len() - 3];
    let encode = |part: &str| URL_SAFE_NO_PAD.encode(part);
    let unsecured = format!("{}.{}.", encode(r#"{"alg":"none"}"#), encode(writer));
    let wrong_key = "No suitable key or wrong key type";
    let unreadable = "JWT cryptographic operation failed";
    let algorithm = "Wrong or unsupported encoding algorithm";
    for (token, message) in [
        ("", "Empty JWT is sent in Authorization header"),
        ("abc", "Expected 3 parts in JWT; got 1"),
        ("a.b", "Expected 3 parts in JWT; got 2"),
        ("a.b.c.d.e", "Expected 3 parts in JWT; got 5"),
        ("..", unreadable),
        ("!.!.!", unreadable),
        (&format!("{}.e30.", encode("no JSON")), unreadable),
        (&format!("{message}."), wrong_key),
        (cut, wrong_key),
        (&unsecured, algorithm),
        (&token(SECRET, r#"{"alg":"hs256"}"#, writer), algorithm),
        (&token(SECRET, r#"{"alg":"HS384"}"#, writer), wrong_key),
        (&token(SECRET, r#"{"alg":"RS256"}"#, writer), wrong_key),
        (
            &token(SECRET, r#"{"alg":"HS256","crit":["exp"]}"#, writer),
            unreadable,
        ),
        (
            &token(SECRET, r#"{"alg":"HS256","crit":null}"#, writer),
            unreadable,
        ),
        (
            &token(SECRET, r#"{"alg":"HS256","crit":[]}"#, writer),
            unreadable,
        ),
        (
            &token(SECRET, r#"{"alg":"none","alg":"HS256"}"#, writer),
            unreadable,
        ),
        (
            &token(SECRET, r#"{"alg":"HS256","kid":5}"#, writer),
            unreadable,
        ),
        (&token(SECRET, r#"{"kid":"a"}"#, writer), unreadable),
        (
            &token(
                "another secret of thirty-two bytes",
                r#"{"alg":"HS256"}"#,
                writer,
            ),
            wrong_key,
        ),
    ] {
        let answer = remove(&api, &format!("Bearer {token}")).await;
        let challenge = format!("Bearer error=\"invalid_token\", error_description=\"{message}\"");
        check_refused(&answer, (401, "PGRST301"), message, Some(&challenge));
    }
    let details = [
        (
            unsecured,
            "JWT is unsecured but expected 'alg' was not 'none'",
        ),
        (
            cut.to_owned(),
            "None of the keys was able to decode the JWT",
        ),
        (
            token(SECRET, r#"{"alg":"RS256"}"#, writer),
            "No suitable key was found to decode the JWT",
        ),
    ];
    for (token, details) in details {
        let answer = remove(&api, &format!("Bearer {token}")).await;
        let body: Value = serde_json::from_str(&answer.body).expect("JSON");
        assert_eq!(body["details"], details);
    }
    for scheme in ["bearer", "BEARER", "Bearer "] {
        let answer = remove(&api, &format!("{scheme} {good}")).await;
        assert_eq!(answer.outcome(), (204, ""), "{scheme}");
    }
}

#[tokio::test]
async fn a_token_with_any_changed_character_is_refused() {
    let (api, ..) = guarded(settings(), Some(SECRET));
    let good = claiming(r#"{"role":"writer"}"#);
    let answer = remove(&api, &format!("Bearer {good}")).await;
    assert_eq!(answer.outcome(), (204, ""));
    for place in 0..good.len() {
        for character in ' '..='~' {
            let mut token = good.clone();
            token.replace_range(place..=place, &character.to_string());
            if token == good {
                continue;
            }
            let answer = remove(&api, &format!("Bearer {token}")).await;
            assert_eq!(answer.outcome(), (401, "PGRST301"), "{token}");
        }
    }
}

/// A `kid` is a hint (RFC 7515, 4.1.4): it chooses only among keys that have one.
#[tokio::test]
async fn a_key_without_an_id_verifies_tokens_that_name_no_known_key() {
    const OTHER: &str = "another secret of thirty-two bytes";
    let jwk = |secret: &str, id: Option<&str>| json!({"kty": "oct", "k": URL_SAFE_NO_PAD.encode(secret), "kid": id});
    let mixed = json!({"keys": [jwk(SECRET, None), jwk(OTHER, Some("other"))]}).to_string();
    for (keys, secret, header, expected) in [
        (SECRET, SECRET, r#"{"alg":"HS256","kid":"x"}"#, 204),
        (SECRET, SECRET, r#"{"alg":"HS256","kid":null}"#, 204),
        (SECRET, OTHER, r#"{"alg":"HS256","kid":"x"}"#, 401),
        (&mixed, SECRET, r#"{"alg":"HS256"}"#, 204),
        (&mixed, SECRET, r#"{"alg":"HS256","kid":"x"}"#, 204),
        (&mixed, OTHER, r#"{"alg":"HS256","kid":"other"}"#, 204),
        (&mixed, OTHER, r#"{"alg":"HS256"}"#, 204),
        // One key has that id, so no other key is tried.
        (&mixed, SECRET, r#"{"alg":"HS256","kid":"other"}"#, 401),
        (&mixed, OTHER, r#"{"alg":"HS256","kid":"x"}"#, 401),
    ] {
        let (api, ..) = guarded(settings(), Some(keys));
        let token = token(secret, header, r#"{"role":"writer"}"#);
        let answer = remove(&api, &format!("Bearer {token}")).await;
        assert_eq!(answer.outcome().0, expected, "{keys} {header}");
    }
}

/// Keys and tokens made by another implementation: see `tokens.py`.
#[tokio::test]
async fn tokens_of_another_implementation_are_verified() {
    let file: Value = serde_json::from_str(include_str!("tokens.json")).expect("JSON");
    let jwks = file["jwks"].to_string();
    let tokens = file["tokens"].as_object().expect("an object");
    let (api, ..) = guarded(settings(), Some(&jwks));
    let mut accepted = Vec::new();
    for (algorithm, token) in tokens {
        let token = token.as_str().expect("text");
        let answer = remove(&api, &format!("Bearer {token}")).await;
        match answer.outcome() {
            (204, "") => accepted.push(algorithm.as_str()),
            outcome => assert_eq!(outcome, (401, "PGRST301"), "{algorithm}"),
        }
        // A signature with a changed bit is refused.
        let (message, signature) = token.rsplit_once('.').expect("three parts");
        if let Ok(mut signature) = URL_SAFE_NO_PAD.decode(signature)
            && let Some(byte) = signature.last_mut()
        {
            *byte ^= 1;
            let token = format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature));
            let answer = remove(&api, &format!("Bearer {token}")).await;
            assert_eq!(answer.outcome(), (401, "PGRST301"), "{algorithm}");
        }
    }
    let expected = [
        "HS256", "HS384", "HS512", "RS256", "RS384", "RS512", "ES256", "ES384", "EdDSA",
    ];
    accepted.sort_unstable();
    let mut expected = expected.to_vec();
    expected.sort_unstable();
    assert_eq!(accepted, expected);
    // A public key is public: a token signed with it as if it were a secret proves nothing.
    let rsa = file["jwks"]["keys"][1]["n"].as_str().expect("a modulus");
    let forged = token(
        rsa,
        r#"{"alg":"HS256","kid":"rsa"}"#,
        r#"{"role":"writer"}"#,
    );
    let answer = remove(&api, &format!("Bearer {forged}")).await;
    assert_eq!(answer.outcome(), (401, "PGRST301"));
}

#[tokio::test]
async fn each_role_has_exactly_its_configured_permissions() {
    let settings = AuthenticationSettings {
        anonymous_role: Some("anon".into()),
        ..settings()
    };
    let (api, ..) = guarded(settings, Some(SECRET));
    let function = "permission denied for function remove_widget";
    let table = "permission denied for table widgets";
    let view = "permission denied for view metrics";
    let whole = "permission denied for view backup";
    let bearer = Some("Bearer");
    let ask = async |role: &str, method: &str, uri: &str| {
        let token = claiming(&format!(r#"{{"role":"{role}"}}"#));
        let authorization = match role {
            "" => "x-nothing: x".into(),
            _ => format!("authorization: Bearer {token}"),
        };
        send(&api, method, uri, &[&authorization], r#"{"widget_sn":"E"}"#).await
    };
    let (post, lookup, metrics, backup) = (
        ("POST", "/rpc/remove_widget"),
        ("GET", "/widgets/E"),
        ("GET", "/metrics"),
        ("GET", "/backup"),
    );
    for (role, (method, uri), expected) in [
        ("writer", post, (204, "")),
        ("writer", lookup, (404, "WG001")),
        ("reader", lookup, (404, "WG001")),
        ("anon", lookup, (404, "WG001")),
        ("", lookup, (404, "WG001")),
        ("watcher", metrics, (200, "")),
        // The caller is admitted, but this service gives no backups.
        ("watcher", backup, (501, "WG501")),
        // Probes and questions about methods need no credentials.
        ("", ("GET", "/live"), (200, "")),
        ("", ("GET", "/ready"), (200, "")),
        ("watcher", ("OPTIONS", "/widgets/E"), (200, "")),
        ("", ("OPTIONS", "/rpc/remove_widget?widget_sn=E"), (200, "")),
        // Unknown paths are reported only after authentication, and to any role.
        ("watcher", ("GET", "/a/b"), (404, "PGRST125")),
    ] {
        let answer = ask(role, method, uri).await;
        assert_eq!(answer.outcome(), expected, "{role} {method} {uri}");
    }
    for (role, (method, uri), expected, message, challenge) in [
        ("reader", post, (403, "42501"), function, None),
        ("watcher", post, (403, "42501"), function, None),
        ("anon", post, (401, "42501"), function, bearer),
        ("", post, (401, "42501"), function, bearer),
        (
            "",
            ("GET", "/rpc/remove_widget?widget_sn=E"),
            (401, "42501"),
            function,
            bearer,
        ),
        ("watcher", lookup, (403, "42501"), table, None),
        ("writer", metrics, (403, "42501"), view, None),
        ("", metrics, (401, "42501"), view, bearer),
        ("writer", backup, (403, "42501"), whole, None),
        ("reader", backup, (403, "42501"), whole, None),
        ("", backup, (401, "42501"), whole, bearer),
        (
            "nobody",
            lookup,
            (401, "22023"),
            "role \"nobody\" does not exist",
            bearer,
        ),
        (
            "nobody",
            ("GET", "/a/b"),
            (401, "22023"),
            "role \"nobody\" does not exist",
            bearer,
        ),
    ] {
        let answer = ask(role, method, uri).await;
        check_refused(&answer, expected, message, challenge);
    }
    // A token without a role claim counts as no token.
    let answer = remove(&api, &format!("Bearer {}", claiming("{}"))).await;
    check_refused(&answer, (401, "42501"), function, bearer);
}

#[tokio::test]
async fn anonymous_requests_are_refused_if_anonymous_access_is_disabled() {
    let (api, ..) = guarded(settings(), Some(SECRET));
    let disabled = "Anonymous access is disabled";
    for uri in [
        "/widgets/E",
        "/metrics",
        "/backup",
        "/",
        "/a/b",
        "/rpc/unknown",
    ] {
        let answer = send(&api, "GET", uri, &[], "").await;
        check_refused(&answer, (401, "PGRST302"), disabled, Some("Bearer"));
    }
    // A browser loads the console without a token; the data that it shows needs one.
    for uri in ["/console", "/console/", "/console/console.js"] {
        let answer = send(&api, "GET", uri, &[], "").await;
        assert!(answer.outcome().0 < 400, "{uri}: {:?}", answer.outcome());
    }
    // Other schemes are ignored, and a token without a role counts as anonymous.
    let no_role = format!("Bearer {}", claiming("{}"));
    for authorization in ["Basic dTpw", "Bearertoken", "Digest x", &no_role] {
        let answer = remove(&api, authorization).await;
        check_refused(&answer, (401, "PGRST302"), disabled, Some("Bearer"));
    }
    for uri in ["/live", "/ready"] {
        let answer = send(&api, "GET", uri, &["authorization: Bearer x"], "").await;
        assert_eq!(answer.outcome(), (200, ""), "{uri}");
    }
}

#[tokio::test]
async fn a_token_is_refused_if_the_server_has_no_jwt_secret() {
    let api = api(Willing);
    let answer = remove(&api, "Bearer a.b.c").await;
    let message = "Server lacks JWT secret";
    check_refused(&answer, (500, "PGRST300"), message, None);
    assert_eq!(remove(&api, "Basic dTpw").await.outcome(), (204, ""));
}

#[tokio::test]
async fn an_accepted_token_is_rechecked_for_expiry_and_replaced_keys() {
    let (api, authentication, clock) = guarded(settings(), Some(SECRET));
    let bearer = format!(
        "Bearer {}",
        claiming(r#"{"role":"writer","exp":1800000000}"#)
    );
    assert_eq!(remove(&api, &bearer).await.outcome(), (204, ""));
    clock.0.store(30, Ordering::Relaxed);
    assert_eq!(remove(&api, &bearer).await.outcome(), (204, ""));
    clock.0.store(31, Ordering::Relaxed);
    let answer = remove(&api, &bearer).await;
    assert_eq!(answer.outcome(), (401, "PGRST303"), "{}", answer.body);
    clock.0.store(0, Ordering::Relaxed);
    assert_eq!(remove(&api, &bearer).await.outcome(), (204, ""));
    let others = KeySet::parse("another secret of thirty-two bytes").expect("keys");
    authentication.replace_keys(others);
    let answer = remove(&api, &bearer).await;
    assert_eq!(answer.outcome(), (401, "PGRST301"), "{}", answer.body);
}

#[tokio::test]
async fn a_stream_ends_when_its_token_expires() {
    let (_engine, api) = service("stream-of-a-token");
    let keys = KeySet::parse(SECRET).expect("keys");
    let authentication = Authentication::new(settings(), Some(keys));
    let api = api.with_authentication(Arc::new(authentication));
    // Clocks may differ by half a minute, and the token has used up nearly all of that.
    let expires = SystemClock::new().unix_seconds() - 28;
    let token = claiming(&format!(r#"{{"role":"reader","exp":{expires}}}"#));
    let request = Request::builder()
        .uri("/changes")
        .header("accept", "text/event-stream")
        .header("authorization", format!("Bearer {token}"))
        .body(Full::new(Bytes::new()))
        .expect("a request");
    let response = api.respond(request).await;
    assert_eq!(response.status(), 200);
    let mut stream = response.into_body();
    let until_end = async { while stream.frame().await.is_some() {} };
    let ended = tokio::time::timeout(Duration::from_mins(1), until_end).await;
    assert!(
        ended.is_ok(),
        "the stream continues although its token has expired"
    );
}

/// Returns a public key in a JWKS of another implementation, with its `kid`, and a token signed
/// with it.
fn published(id: &str, algorithm: &str) -> (String, String) {
    let given: Value = serde_json::from_str(include_str!("tokens.json")).expect("JSON");
    let keys = given["jwks"]["keys"].as_array().expect("keys");
    let key = keys.iter().find(|key| key["kid"] == id).expect("the key");
    let token = given["tokens"][algorithm].as_str().expect("a token");
    (
        json!({ "keys": [key] }).to_string(),
        format!("Bearer {token}"),
    )
}

/// Answers a request for keys with these, if any.
async fn fetch(authentication: &Authentication, requests: &mut KeyRequests, set: Option<&str>) {
    let request = requests.next().await;
    if let Some(set) = set {
        authentication.replace_keys(KeySet::parse_public(set).expect("keys"));
    }
    drop(request);
}

#[tokio::test]
async fn keys_are_fetched_again_when_a_token_names_an_unknown_key() {
    let settings = AuthenticationSettings {
        audience: None,
        ..settings()
    };
    let (authentication, mut requests) = Authentication::with_fetched_keys(settings);
    let authentication = Arc::new(authentication);
    let api = api(Willing).with_authentication(authentication.clone());
    let (first_set, first) = published("p256", "ES256");
    let (second_set, second) = published("ed25519", "EdDSA");
    // The keys that arrive while a request waits, and the answer to the request.
    for (token, set, expected) in [
        (&first, None, (503, "WG506")),
        (&first, Some(&first_set), (204, "")),
        (&second, None, (401, "PGRST301")),
        (&second, Some(&second_set), (204, "")),
        // The token was verified before, with a key that has been removed.
        (&first, None, (401, "PGRST301")),
    ] {
        let set = set.map(String::as_str);
        let (answer, ()) = tokio::join!(
            remove(&api, token),
            fetch(&authentication, &mut requests, set)
        );
        assert_eq!(answer.outcome(), expected, "{}", answer.body);
        let retry_after = (expected.0 == 503).then_some("1");
        assert_eq!(answer.header("retry-after"), retry_after);
        let ready = send(&api, "GET", "/ready", &[], "").await.outcome().0;
        assert_eq!(ready, if expected.0 == 503 { 503 } else { 200 });
    }
    // No keys are requested for these, because newer ones would not help.
    for token in [claiming(r#"{"role":"writer"}"#), "a.b.c".into()] {
        let answer = remove(&api, &format!("Bearer {token}")).await;
        assert_eq!(answer.outcome(), (401, "PGRST301"), "{}", answer.body);
    }
    // The fetcher may be gone, too.
    drop(requests);
    assert_eq!(remove(&api, &first).await.outcome(), (401, "PGRST301"));
    assert_eq!(remove(&api, &second).await.outcome(), (204, ""));
}

#[tokio::test]
async fn a_client_certificate_grants_its_role_unless_a_token_is_sent() {
    let settings = AuthenticationSettings {
        certificate_role: Some("reader".into()),
        ..settings()
    };
    let (api, ..) = guarded(settings, Some(SECRET));
    let lookup = async |certified: bool, authorization: &str| {
        let request = Request::builder()
            .uri("/widgets/E")
            .header("host", "localhost")
            .header("authorization", authorization)
            .body(Full::<Bytes>::default())
            .expect("a request");
        let address = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let caller = Caller {
            certified,
            ..Caller::without_certificate(address)
        };
        api.respond_to(caller, Box::new(request.into_parts()))
            .await
            .status()
            .as_u16()
    };
    assert_eq!(lookup(true, "").await, 404, "may read, there is no widget");
    assert_eq!(lookup(false, "").await, 401);
    let watcher = format!("Bearer {}", claiming(r#"{"role":"watcher"}"#));
    assert_eq!(
        lookup(true, &watcher).await,
        403,
        "a token takes precedence"
    );
    assert_eq!(
        lookup(true, "Bearer a.b.c").await,
        401,
        "even if it is invalid"
    );
}

#[tokio::test]
async fn the_openapi_document_states_the_required_credentials() {
    let anonymous = AuthenticationSettings {
        anonymous_role: Some("anon".into()),
        ..settings()
    };
    let (required, ..) = guarded(settings(), Some(SECRET));
    let (optional, ..) = guarded(anonymous.clone(), Some(SECRET));
    let (unknown, ..) = guarded(anonymous.clone(), None);
    let certified = AuthenticationSettings {
        certificate_role: Some("reader".into()),
        ..anonymous
    };
    let of_certificates = |settings: &AuthenticationSettings, keys, wanted| {
        let (api, ..) = guarded(settings.clone(), keys);
        api.with_client_certificates(wanted)
    };
    let bearer = format!("authorization: Bearer {}", claiming(r#"{"role":"reader"}"#));
    let scheme = json!({"type": "http", "scheme": "bearer", "bearerFormat": "JWT"});
    for (api, headers, scheme, security) in [
        (
            &required,
            &[bearer.as_str()][..],
            &scheme,
            json!([{"bearer": []}]),
        ),
        (&optional, &[], &scheme, json!([{"bearer": []}, {}])),
        (&unknown, &[], &Value::Null, Value::Null),
        (
            &of_certificates(&settings(), Some(SECRET), ClientCertificates::Optional),
            &[bearer.as_str()],
            &scheme,
            json!([{"bearer": []}]),
        ),
        (
            &of_certificates(&settings(), Some(SECRET), ClientCertificates::Required),
            &[bearer.as_str()],
            &scheme,
            json!([{"bearer": [], "mutualTLS": []}]),
        ),
        (
            &of_certificates(&certified, Some(SECRET), ClientCertificates::Optional),
            &[],
            &scheme,
            json!([{"bearer": []}, {"mutualTLS": []}, {}]),
        ),
        (
            &of_certificates(&certified, None, ClientCertificates::Required),
            &[],
            &Value::Null,
            json!([{"mutualTLS": []}]),
        ),
    ] {
        let answer = send(api, "GET", "/", headers, "").await;
        let document: Value = serde_json::from_str(&answer.body).expect("JSON");
        let mut described = document["components"]["securitySchemes"]["bearer"].clone();
        if let Some(described) = described.as_object_mut() {
            described.remove("description").expect("it is described");
        }
        assert_eq!(&described, scheme);
        assert_eq!(document["security"], security);
        let named = security.to_string().contains("mutualTLS");
        let described = &document["components"]["securitySchemes"]["mutualTLS"]["type"];
        assert_eq!(described == "mutualTLS", named);
        // Probes need no credentials, but if every connection has a certificate, so do theirs.
        let ways = security.as_array().into_iter().flatten();
        let required = named && ways.into_iter().all(|way| way.get("mutualTLS").is_some());
        let of_probes = if required {
            json!([{"mutualTLS": []}])
        } else {
            json!([])
        };
        for probe in ["/live", "/ready"] {
            let found = &document["paths"][probe]["get"]["security"];
            assert_eq!(found, &of_probes, "{probe}");
        }
    }
}

/// Only the admin role sees which machines are unreachable; everyone sees how many.
#[tokio::test]
async fn names_of_unreachable_nodes_are_shown_only_to_administrators() {
    let settings = AuthenticationSettings {
        roles: Roles {
            admin: vec!["watcher".into()],
            ..settings().roles
        },
        ..settings()
    };
    let keys = KeySet::parse(SECRET).expect("keys");
    let authentication = Authentication::new(settings, Some(keys));
    let api = api(Spread).with_authentication(Arc::new(authentication));
    let token = claiming(r#"{"role":"watcher"}"#);
    let admin = format!("authorization: Bearer {token}");
    for (who, away) in [
        ("x-nobody: known", Value::Null),
        (&*admin, json!(["worker2.internal:5432"])),
    ] {
        let answer = send(&api, "GET", "/ready", &[who], "").await;
        let body: Value = serde_json::from_str(&answer.body).expect("JSON");
        assert_eq!(
            (&body["nodes_away"], &body["away"]),
            (&json!(1), &away),
            "{who}"
        );
    }
}

/// Details that callers cannot act on and should not know are only for the log and the admin role.
#[tokio::test]
async fn fault_details_are_shown_only_to_administrators() {
    let details = "connecting to postgres://user@db.internal:5432/registry: refused";
    let reason = Reason::new("the database cannot be reached", details);
    let settings = AuthenticationSettings {
        anonymous_role: Some("writer".into()),
        roles: Roles {
            write: vec!["w".into(), "watcher".into(), "writer".into()],
            admin: vec!["watcher".into(), "writer".into()],
            ..settings().roles
        },
        ..settings()
    };
    for fault in [
        Fault::Unavailable {
            reason: reason.clone(),
        },
        Fault::FateUnknown { reason },
    ] {
        let keys = KeySet::parse(SECRET).expect("keys");
        let authentication = Authentication::new(settings.clone(), Some(keys));
        let guarded = api(Failing(fault.clone())).with_authentication(Arc::new(authentication));
        let open = api(Failing(fault));
        let role = |role: &str| {
            let token = claiming(&format!(r#"{{"role":"{role}"}}"#));
            format!("authorization: Bearer {token}")
        };
        let (admin, writer) = (role("watcher"), role("w"));
        for (api, who, shown) in [
            (&open, "x-nobody: asked", false),
            // The caller is unknown, whatever the role may do.
            (&guarded, "x-nobody: known", false),
            (&guarded, "authorization: Bearer a.b.c", false),
            (&guarded, &writer, false),
            (&guarded, &admin, true),
        ] {
            for (method, uri) in [("GET", "/ready"), ("POST", "/rpc/remove_widget")] {
                let body = r#"{"widget_sn":"E"}"#;
                let answer = send(api, method, uri, &[who], body).await;
                if answer.status != StatusCode::SERVICE_UNAVAILABLE {
                    assert_ne!(uri, "/ready", "{who}: everyone is told whether it is ready");
                    assert!(!answer.body.contains("db.internal"), "{who}");
                    continue;
                }
                let body: Value = serde_json::from_str(&answer.body).expect("JSON");
                let message = body["message"].as_str().expect("a message");
                assert!(message.ends_with(": the database cannot be reached"));
                let expected = if shown { json!(details) } else { Value::Null };
                assert_eq!(body["details"], expected, "{who} {uri}");
            }
        }
    }
}
