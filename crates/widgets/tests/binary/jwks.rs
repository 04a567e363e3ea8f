//! Keys from a URL, with the real binary: the provider rotates its keys, fails in every way, or is
//! down.

use crate::{
    asking::{answer, outcome, status, wait_for_log, wait_until},
    security::{Authority, hs256},
    service::{Directory, Service, Signal, widgets},
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use rustls::{
    ServerConfig, ServerConnection, StreamOwned,
    pki_types::{PrivateKeyDer, pem::PemObject as _},
};
use serde_json::{Value, json};
use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};
use tokio::time::Instant;

/// A key of the provider.
struct Key {
    id: &'static str,
    pair: Ed25519KeyPair,
}

impl Key {
    fn new(id: &'static str, seed: u8) -> Self {
        let pair = Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).expect("a seed");
        Self { id, pair }
    }

    /// Returns a token for this role that is valid until 2286.
    fn token(&self, role: &str) -> String {
        self.claiming(&json!({ "role": role, "exp": 9_999_999_999_u64 }))
    }

    fn claiming(&self, claims: &Value) -> String {
        let header = json!({ "alg": "EdDSA", "kid": self.id }).to_string();
        let message = [header, claims.to_string()].map(|part| URL_SAFE_NO_PAD.encode(part));
        let message = message.join(".");
        let signature = self.pair.sign(message.as_bytes());
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

/// Returns what the provider publishes with these keys.
fn set(keys: &[&Key]) -> String {
    let keys = keys.iter().map(|key| {
        let x = URL_SAFE_NO_PAD.encode(key.pair.public_key());
        json!({ "kty": "OKP", "crv": "Ed25519", "kid": key.id, "use": "sig", "x": x })
    });
    json!({ "keys": keys.collect::<Vec<_>>() }).to_string()
}

/// How the provider answers.
#[derive(Clone)]
enum Manner {
    /// With these bytes.
    Bytes(Vec<u8>),
    /// Without end.
    Endless,
    /// A byte from time to time.
    Slow,
    /// It hangs up.
    Down,
}

/// Returns a 200 answer with this body.
fn ok(body: &str) -> Manner {
    let length = body.len();
    Manner::Bytes(format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{body}").into())
}

/// An identity provider. It ends with the test's process.
struct Provider {
    address: SocketAddr,
    manner: Arc<Mutex<Manner>>,
    asked: Arc<AtomicUsize>,
}

impl Provider {
    fn start(manner: Manner, tls: Option<Arc<ServerConfig>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let provider = Self {
            address: listener.local_addr().expect("an address"),
            manner: Arc::new(Mutex::new(manner)),
            asked: Arc::default(),
        };
        let (manner, asked) = (provider.manner.clone(), provider.asked.clone());
        thread::spawn(move || {
            for stream in listener.incoming() {
                let stream = stream.expect("a connection");
                asked.fetch_add(1, Ordering::Relaxed);
                let (manner, tls) = (manner.lock().expect("no panic").clone(), tls.clone());
                thread::spawn(move || match tls {
                    None => manner.answer(stream),
                    Some(config) => {
                        let session = ServerConnection::new(config).expect("a session");
                        manner.answer(StreamOwned::new(session, stream));
                    }
                });
            }
        });
        provider
    }

    fn set(&self, manner: Manner) {
        *self.manner.lock().expect("no panic") = manner;
    }

    fn url(&self, scheme: &str) -> String {
        format!("{scheme}://localhost:{}/keys", self.address.port())
    }
}

impl Manner {
    /// Answers until the service stops reading.
    fn answer(self, mut stream: impl Read + Write) {
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            if stream.read_exact(&mut byte).is_err() {
                return;
            }
            request.push(byte[0]);
        }
        assert!(request.starts_with(b"GET /keys HTTP/1.1\r\n"));
        let endless = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        match self {
            Self::Bytes(bytes) => {
                drop(stream.write_all(&bytes));
                drop(stream.flush());
            }
            Self::Endless => {
                drop(stream.write_all(endless));
                let chunk = format!("10000\r\n{}\r\n", " ".repeat(1 << 16));
                while stream.write_all(chunk.as_bytes()).is_ok() {}
            }
            Self::Slow => {
                drop(stream.write_all(endless));
                while stream.write_all(b"1\r\n \r\n").is_ok() {
                    thread::sleep(Duration::from_millis(20));
                }
            }
            Self::Down => {}
        }
    }
}

const ADD: &str = "POST /rpc/add_widget";
const E: &str = r#"{"widget_sn":"E","widget_name":"","slots":["P"]}"#;

/// Returns how many fetches had this outcome.
fn fetches(service: &Service, admin: &str, outcome: &str) -> usize {
    let (_, metrics) = answer(service, admin, "GET /metrics", "");
    let series = format!("widgets_jwks_fetches_total{{outcome=\"{outcome}\"}} ");
    let line = metrics.lines().find_map(|line| line.strip_prefix(&series));
    line.and_then(|count| count.parse().ok()).expect("a count")
}

/// Makes the service fetch the keys, and waits for this outcome.
fn refetch(service: &Service, admin: &str, outcome: &str) {
    let before = fetches(service, admin, outcome);
    service.signal(Signal::HUP);
    wait_until(outcome, || fetches(service, admin, outcome) > before);
}

/// A provider signs the tokens of all its clients with the same keys, so the service must check the
/// claims.
#[test]
fn a_token_must_have_the_required_claims_audience_and_issuer() {
    let key = Key::new("key", 1);
    let provider = Provider::start(ok(&set(&[&key])), None);
    let directory = Directory::new("jwks_claims");
    let url = provider.url("http");
    let endless = key.claiming(&json!({ "role": "writer" }));
    let bare = key.token("writer");
    let issuer = "https://id.example";
    let whole = json!({ "role": "writer", "aud": "us", "iss": issuer, "exp": 9_999_999_999_u64 });
    let whole = key.claiming(&whole);
    let ours = ["--jwt-audience", "us", "--jwt-issuer", issuer];
    for (arguments, token, expected) in [
        (&[][..], &endless, 401),
        (&[], &bare, 404),
        (&["--jwt-require", ""], &endless, 404),
        (&["--jwt-require", "sub"], &bare, 401),
        (&["--jwt-audience", "us"], &bare, 401),
        (&["--jwt-issuer", issuer], &bare, 401),
        (&ours, &whole, 404),
    ] {
        let arguments = [&["--jwks-url", &url], arguments].concat();
        let service = Service::start(directory.path(), &arguments);
        let got = status(&service, token, "GET /widgets/E", "");
        assert_eq!(got, expected, "{arguments:?}");
    }
}

#[test]
fn keys_are_rotated_without_a_restart() {
    let (old, new) = (Key::new("old", 1), Key::new("new", 2));
    let provider = Provider::start(ok(&set(&[&old])), None);
    let directory = Directory::new("jwks_rotation");
    let url = provider.url("http");
    let service = Service::start(directory.path(), &["--jwks-url", &url]);
    assert_eq!(status(&service, &old.token("writer"), ADD, E), 204);
    assert_eq!(status(&service, &old.token("reader"), ADD, E), 403);
    assert_eq!(status(&service, "", ADD, E), 401);
    assert_eq!(provider.asked.load(Ordering::Relaxed), 1);

    provider.set(ok(&set(&[&old, &new])));
    let added = status(&service, &new.token("writer"), ADD, E);
    assert_eq!(added, 409, "the new key is known at once");
    assert_eq!(status(&service, &old.token("writer"), ADD, E), 409);
    assert_eq!(provider.asked.load(Ordering::Relaxed), 2);

    provider.set(ok(&set(&[&new])));
    let admin = new.token("admin");
    refetch(&service, &admin, "ok");
    assert_eq!(status(&service, &old.token("writer"), ADD, E), 401);
    assert_eq!(status(&service, &new.token("writer"), ADD, E), 409);

    // Made-up keys do not make the service fetch each time.
    let (before, start) = (provider.asked.load(Ordering::Relaxed), Instant::now());
    for _ in 0..100 {
        let made_up = Key::new("made up", 3).token("writer");
        assert_eq!(status(&service, &made_up, ADD, E), 401);
    }
    let asked = provider.asked.load(Ordering::Relaxed) - before;
    let allowed = 1 + start.elapsed().as_secs() / 10;
    assert!(asked as u64 <= allowed, "{asked} times, {allowed} allowed");
}

#[test]
fn the_last_fetched_keys_stay_in_use_when_fetching_fails() {
    let key = Key::new("key", 1);
    let provider = Provider::start(ok(&set(&[&key])), None);
    let directory = Directory::new("jwks_failures");
    let url = provider.url("http");
    let arguments = ["--jwks-url", &url, "--jwks-timeout-ms", "1000"];
    let service = Service::start(directory.path(), &arguments);
    let (writer, admin) = (key.token("writer"), key.token("admin"));
    assert_eq!(status(&service, &writer, ADD, E), 204);

    let page = "<html>A page, long enough to be taken for a secret.</html>";
    let secret = URL_SAFE_NO_PAD.encode(page);
    let secret = json!({ "keys": [{ "kty": "oct", "k": secret }] }).to_string();
    let redirect =
        "HTTP/1.1 302 Found\r\nLocation: http://localhost:1/\r\nContent-Length: 0\r\n\r\n";
    let cut = format!(
        "HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n{}",
        set(&[&key])
    );
    for (manner, told) in [
        (ok(page), "neither a JWK"),
        (ok(&secret), "a secret that anyone may read is not a secret"),
        (ok("{\"keys\":[]}"), "none of its 0 keys can be used"),
        (ok("{"), "not JSON"),
        (
            Manner::Bytes(b"HTTP/1.1 500 Oops\r\n\r\n".into()),
            "the answer was 500",
        ),
        (Manner::Bytes(redirect.into()), "a redirect"),
        (Manner::Bytes(cut.into()), "the answer broke off"),
        (Manner::Bytes(b"\0\0\r\n\r\n".into()), "there was no answer"),
        (Manner::Bytes(vec![b'x'; 1 << 20]), "there was no answer"),
        (Manner::Endless, "more than 1048576 bytes"),
        (Manner::Slow, "longer than auth.jwks_timeout_ms = 1000"),
        (Manner::Down, "there was no answer"),
    ] {
        provider.set(manner);
        refetch(&service, &admin, "failed");
        wait_for_log(directory.path(), told);
        assert_eq!(status(&service, &writer, ADD, E), 409, "{told}");
        assert_eq!(status(&service, "", "GET /ready", ""), 200, "{told}");
        assert_eq!(status(&service, &hs256(page, "writer"), ADD, E), 401);
    }
    let other = Key::new("other", 2);
    provider.set(ok(&set(&[&key, &other])));
    refetch(&service, &admin, "ok");
    wait_for_log(directory.path(), "works again");
    assert_eq!(status(&service, &other.token("writer"), ADD, E), 409);
}

#[test]
fn a_service_starts_while_its_key_provider_is_down_and_retries() {
    let key = Key::new("key", 1);
    let provider = Provider::start(Manner::Down, None);
    let directory = Directory::new("jwks_down");
    let url = provider.url("http");
    let arguments = [
        "--jwks-url",
        &url,
        "--jwks-refresh-ms",
        "1000",
        "--anonymous-role",
        "reader",
    ];
    let service = Service::start(directory.path(), &arguments);
    let writer = key.token("writer");
    let (refused, told) = answer(&service, &writer, ADD, E);
    assert_eq!(refused, 503);
    assert!(told.contains("WG506"), "{told}");
    assert_eq!(status(&service, "", "GET /widgets/E", ""), 404);
    assert_eq!(status(&service, "", "GET /live", ""), 200);
    assert_eq!(status(&service, "", "GET /ready", ""), 503);

    provider.set(ok(&set(&[&key])));
    wait_until("ready", || status(&service, "", "GET /ready", "") == 200);
    assert_eq!(status(&service, &writer, ADD, E), 204);
}

#[test]
fn a_key_provider_with_an_untrusted_certificate_is_refused() {
    let key = Key::new("key", 1);
    let directory = Directory::new("jwks_tls");
    let authority = Authority::new(directory.path());
    let certificate = authority.issue();
    let private = PrivateKeyDer::from_pem_file(directory.path().join("key.pem")).expect("a key");
    let config =
        ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(vec![certificate], private)
            .expect("a pair");
    let provider = Provider::start(ok(&set(&[&key])), Some(Arc::new(config)));
    let url = provider.url("https");
    let trusting = ["--jwks-url", &url, "--jwks-ca", "ca.pem"];
    let service = Service::start(directory.path(), &trusting);
    assert_eq!(status(&service, &key.token("writer"), ADD, E), 204);
    drop(service);

    // Nor is the provider trusted under another name than its own.
    let address = format!("https://{}/keys", provider.address);
    let another = ["--jwks-url", &address, "--jwks-ca", "ca.pem"];
    for distrusting in [&["--jwks-url", &url][..], &another] {
        let log = directory.path().join("log");
        std::fs::remove_file(log).expect("a log");
        let service = Service::start(directory.path(), distrusting);
        assert_eq!(status(&service, &key.token("writer"), ADD, E), 503);
        wait_for_log(directory.path(), "invalid peer certificate");
    }
}

#[test]
fn config_check_reports_invalid_jwks_settings_without_secrets() {
    let directory = Directory::new("jwks_check");
    let check = |arguments: &[&str]| {
        let mut widgets = widgets(directory.path());
        outcome(widgets.args(["config", "check"]).args(arguments))
    };
    let (code, told) = check(&["--jwks-url", "https://id.example/keys?key=hunter2"]);
    assert_eq!(code, Some(0), "{told}");
    let url = "https://me:hunter2@id.example/keys";
    for (arguments, problem) in [
        (
            &["--jwks-url", url][..],
            "auth.jwks_url must be a URL that begins with http:// or https:// and has no user name, or \
             empty for none, \"https://me:***@id.example/keys\" was given",
        ),
        (
            &[
                "--jwks-url",
                "http://id.example",
                "--jwt-secret-file",
                "keys",
            ],
            "auth.jwt_secret_file and auth.jwks_url must not be given together",
        ),
        (
            &["--jwks-url", "http://id.example", "--jwks-ca", "ca.pem"],
            "auth.jwks_ca needs an auth.jwks_url that begins with https://",
        ),
        (
            &["--jwks-url", "https://id.example", "--jwks-ca", "none.pem"],
            "auth.jwks_ca: the certificates in none.pem: ",
        ),
        (
            &["--jwks-refresh-ms", "999"],
            "auth.jwks_refresh_ms must be an integer from 1000 to 86400000, 999 was given",
        ),
    ] {
        let (code, told) = check(arguments);
        assert_eq!(code, Some(1), "{told}");
        assert!(told.contains(problem), "{told}");
        assert!(!told.contains("hunter2"), "{told}");
    }
    let mut widgets = widgets(directory.path());
    widgets.args([
        "config",
        "show",
        "--jwks-url",
        "https://id.example/keys?key=hunter2",
    ]);
    let (_, shown) = outcome(&mut widgets);
    assert!(shown.contains("https://id.example/keys?***"), "{shown}");
    assert!(!shown.contains("hunter2"), "{shown}");
}
