//! Who gets in, with the real binary: addresses, tokens, certificates, and what it never shows.

use crate::{
    asking::{ask, connect, outcome, status, wait_for_log},
    service::{Directory, Service, Signal, widgets},
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use expect_test::expect;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use ring::hmac;
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned,
    pki_types::{CertificateDer, ServerName},
};
use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    path::Path,
    sync::Arc,
};

const SECRET: &str = "a secret of the tests, longer than 32 bytes";
const OTHER_SECRET: &str = "another secret of the tests, also longer";

/// Returns a token for this role, signed with HS256.
pub(crate) fn hs256(secret: &str, role: &str) -> String {
    hs256_of(secret, &format!(r#"{{"role":"{role}"}}"#))
}

/// Returns a token with these claims.
pub(crate) fn hs256_of(secret: &str, claims: &str) -> String {
    let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"HS256"}"#);
    let claims = URL_SAFE_NO_PAD.encode(claims);
    let message = format!("{header}.{claims}");
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    let signature = URL_SAFE_NO_PAD.encode(hmac::sign(&key, message.as_bytes()));
    format!("{message}.{signature}")
}

#[test]
fn a_public_address_requires_access_control() {
    let directory = Directory::new("public");
    for listen in ["0.0.0.0:3000", "[::]:3000", "[::ffff:192.0.2.1]:3000"] {
        for command in [&["serve"][..], &["config", "check"]] {
            let mut widgets = widgets(directory.path());
            let (code, told) = outcome(widgets.args(command).args(["--listen", listen]));
            // For `config check` a wrong configuration is a result, and no misuse.
            let expected = if command == ["serve"] { 2 } else { 1 };
            assert_eq!(code, Some(expected), "{command:?} {listen}: {told}");
            let told = told.replace(listen, "ADDRESS");
            expect![[r#"
                error: http.listen = ADDRESS can be reached from other machines, and anyone may do everything: set auth.jwt_secret_file (or another key of [auth]) or http.tls_client_ca, or listen on 127.0.0.1; if something in front of the service controls access, give --allow-public-without-auth
            "#]]
            .assert_eq(&told);
        }
    }
    assert!(
        !directory.path().join("widgets-data").exists(),
        "nothing was opened"
    );
    for allowed in [
        &["--listen", "127.0.0.1:3000"][..],
        &["--listen", "[::1]:3000"],
        &["--listen", "0.0.0.0:3000", "--allow-public-without-auth"],
        &["--listen", "0.0.0.0:3000", "--jwt-secret", SECRET],
        &["--listen", "0.0.0.0:3000", "--anonymous-role", "reader"],
    ] {
        let mut widgets = widgets(directory.path());
        let (code, told) = outcome(widgets.args(["config", "check"]).args(allowed));
        assert_eq!(code, Some(0), "{allowed:?}: {told}");
    }
    // Commands that do not listen accept such an address. This one fails only because no service
    // listens there.
    let mut widgets = widgets(directory.path());
    let (code, told) = outcome(widgets.args(["health", "--listen", "0.0.0.0:1"]));
    assert_eq!(code, Some(1));
    assert!(told.contains("refused"), "{told}");
}

/// A primary uses the files of `[replication]` only once it becomes a standby: at a switchover it
/// would be too late to notice.
#[test]
fn the_files_of_replication_are_checked_before_every_start() {
    let directory = Directory::new("replication-files");
    std::fs::write(directory.path().join("token"), "two words").expect("written");
    for (arguments, problem) in [
        (&["--replication-token-file", "nowhere"][..], "nowhere"),
        (&["--replication-token-file", "token"], "without spaces"),
        (&["--replication-ca", "nowhere"], "nowhere"),
        (
            &[
                "--replication-certificate",
                "nowhere",
                "--replication-key",
                "token",
            ],
            "nowhere",
        ),
    ] {
        for command in [
            &["config", "check"][..],
            &["serve", "--listen", "127.0.0.1:0"],
        ] {
            let mut widgets = widgets(directory.path());
            let (code, told) = outcome(widgets.args(command).args(arguments));
            assert_eq!(code, Some(1), "{command:?} {arguments:?}: {told}");
            let named = told.contains("[replication]: ");
            assert!(named && told.contains(problem), "{told}");
        }
    }
    let data = directory.path().join("widgets-data");
    assert!(!data.exists(), "a store was created");
}

#[test]
fn config_check_prints_the_problems_of_every_section() {
    let directory = Directory::new("problems");
    let mut widgets = widgets(directory.path());
    widgets.args(["config", "check", "--listen", "0.0.0.0:3000"]);
    widgets.args(["--tls-certificate", "no-certificate", "--tls-key", "no-key"]);
    let (code, told) = outcome(widgets.args(["--replication-token-file", "no-token"]));
    assert_eq!(code, Some(1), "{told}");
    for part in ["http.listen = 0.0.0.0:3000", "no-certificate", "no-token"] {
        assert!(told.contains(part), "{told}");
    }
}

/// A secret that everybody has, or can guess, would give everybody access.
#[test]
fn unsuitable_token_secrets_are_refused_with_the_reason() {
    let directory = Directory::new("no_secret");
    let pem = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAJuN/9pgG63ZziDpaN38VS03CB6q8LQF2Id0RZD6CDqg=\n-----END PUBLIC KEY-----\n";
    let jwk = r#"{"kty":"OKP","crv":"Ed25519","x":"JuN_9pgG63ZziDpaN38VS03CB6q8LQF2Id0RZD6CDqg"}"#;
    let array = format!("[{jwk}]");
    let marked = format!("\u{feff}{jwk}");
    for (text, problem) in [
        (pem, "looks like a key or a certificate in PEM"),
        (&array, "looks like JSON, but not a JWK"),
        (&marked, "begins with a byte order mark"),
        ("\"quoted as if it were a text of JSON\"", "looks like JSON"),
        (
            "https://id.example/keys/of/the/provider",
            "looks like a URL",
        ),
        (
            "                                 ",
            "carries 0 bits where 64 are needed",
        ),
    ] {
        std::fs::write(directory.path().join("keys"), text).expect("written");
        for (key, variable, value) in [
            ("jwt_secret_file: keys", "WIDGETS_JWT_SECRET_FILE", "keys"),
            ("jwt_secret", "WIDGETS_JWT_SECRET", text),
        ] {
            for command in [&["config", "check"][..], &["serve", "--data-dir", "data"]] {
                let mut widgets = widgets(directory.path());
                let (code, told) = outcome(widgets.args(command).env(variable, value));
                // The value itself is wrong, rather than the content of a file.
                let is_misuse = command[0] == "serve" && value == text;
                let expected = if is_misuse { 2 } else { 1 };
                assert_eq!(code, Some(expected), "{command:?} {value:?}: {told}");
                let named = told.contains(&format!("auth.{key}: "));
                assert!(named && told.contains(problem), "{told}");
            }
        }
    }
    std::fs::write(directory.path().join("keys"), b"\x30\x81\xff\xfe").expect("written");
    for (argument, problem) in [
        ("--jwt-secret-file", "it is not text"),
        (
            "--jwt-secret",
            "is the path of a file: give it as auth.jwt_secret_file",
        ),
    ] {
        let mut widgets = widgets(directory.path());
        let (code, told) = outcome(widgets.args(["config", "check", argument, "keys"]));
        assert_eq!(code, Some(1), "{told}");
        assert!(told.contains(problem), "{told}");
    }
    assert!(
        !directory.path().join("data").exists(),
        "nothing was opened"
    );
}

#[test]
fn secrets_are_never_shown_or_logged() {
    let directory = Directory::new("secrets");
    let short = "hunter2";
    let file = directory.path().join("keys");
    std::fs::write(&file, short).expect("written");
    for (arguments, code) in [
        (&["config", "show", "--jwt-secret", SECRET][..], 0),
        (&["config", "check", "--jwt-secret", SECRET], 0),
        (&["config", "check", "--jwt-secret", short], 1),
        (&["config", "check", "--jwt-secret-file", "keys"], 1),
        (&["config", "check", "--jwt-secret", "{\"k\":\"hunter2"], 1),
        (
            &["config", "show", "--store", "postgres://me:hunter2@host/db"],
            0,
        ),
        (
            &[
                "config",
                "check",
                "--store",
                "postgres://me:hunter2@host:x/db",
            ],
            1,
        ),
        (
            &[
                "config",
                "show",
                "--store",
                "postgres://me@host/db",
                "--store-password",
                "hunter2",
            ],
            0,
        ),
        (&["config", "check", "--store-password", "hunter2"], 1),
    ] {
        let (got, shown) = outcome(widgets(directory.path()).args(arguments));
        assert_eq!(got, Some(code), "{arguments:?}: {shown}");
        assert!(!shown.contains(SECRET), "{arguments:?}: {shown}");
        assert!(!shown.contains(short), "{arguments:?}: {shown}");
    }
    let mut widgets = widgets(directory.path());
    widgets.env("WIDGETS_JWT_SECRET", SECRET);
    let (_, shown) = outcome(widgets.args(["config", "show"]));
    let line = shown.lines().find(|line| line.starts_with("jwt_secret ="));
    let line = line.expect("the key");
    assert!(line.starts_with("jwt_secret = \"***\""), "{line}");
    assert!(line.ends_with("# WIDGETS_JWT_SECRET"), "{line}");

    // With the most verbose log, and with tokens that are accepted, refused and malformed.
    let arguments = ["--log-filter", "trace", "--jwt-secret", SECRET];
    let service = Service::start(directory.path(), &arguments);
    let good = hs256(SECRET, "writer");
    let bad = hs256(OTHER_SECRET, "writer");
    for (token, expected) in [(&good, 404), (&bad, 401), (&short.to_owned(), 401)] {
        assert_eq!(status(&service, token, "GET /widgets/E", ""), expected);
    }
    service.signal(Signal::TERM);
    assert!(service.wait().success());
    let log = Service::log(directory.path());
    assert!(log.contains("stopped"), "{log}");
    for secret in [SECRET, short, &good, &bad] {
        assert!(!log.contains(secret), "{secret} was logged: {log}");
    }
}

/// Else a web page whose name is made to point at 127.0.0.1 could do what the role may.
#[test]
fn a_loopback_service_with_an_anonymous_role_refuses_foreign_host_names() {
    let directory = Directory::new("rebound");
    for arguments in [
        &["--anonymous-role", "writer"][..],
        &["--anonymous-role", "writer", "--jwt-secret", SECRET],
    ] {
        let service = Service::start(directory.path(), arguments);
        let post = |host: &str| {
            let body = r#"{"widget_sn":"E"}"#;
            let request = format!(
                "POST /rpc/remove_widget HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\
                 Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            );
            let mut stream = connect(&service);
            stream.write_all(request.as_bytes()).expect("sent");
            let mut answer = String::new();
            stream.read_to_string(&mut answer).expect("an answer");
            answer
        };
        let refused = post("evil.example");
        assert!(refused.starts_with("HTTP/1.1 421 "), "{refused}");
        assert!(refused.contains("WG421"), "{refused}");
        let answered = post("localhost");
        assert!(answered.contains("WG001"), "{answered}");
        service.signal(Signal::TERM);
        assert!(service.wait().success());
    }
}

#[test]
fn roles_in_tokens_are_enforced_and_sighup_reloads_the_keys() {
    let directory = Directory::new("tokens");
    let keys = directory.path().join("keys");
    std::fs::write(&keys, format!("{SECRET}\n")).expect("written");
    let roles = [
        "--anonymous-role",
        "guest",
        "--read-roles",
        "guest, reader, writer",
    ];
    let arguments = [&["--jwt-secret-file", "keys"][..], &roles].concat();
    let service = Service::start(directory.path(), &arguments);
    let add = "POST /rpc/add_widget";
    let body = r#"{"widget_sn":"E","widget_name":"","slots":["P"]}"#;
    let (reader, writer, admin, nobody) = (
        &hs256(SECRET, "reader"),
        &hs256(SECRET, "writer"),
        &hs256(SECRET, "admin"),
        &hs256(SECRET, "nobody"),
    );
    for (token, line, body, expected) in [
        ("", add, body, 401),
        (reader, add, body, 403),
        (nobody, add, body, 401),
        (writer, add, body, 204),
        (writer, add, body, 409),
        ("", "GET /widgets/E", "", 200),
        (reader, "GET /widgets/E", "", 200),
        (writer, "GET /metrics", "", 403),
        (admin, "GET /metrics", "", 200),
        ("", "GET /live", "", 200),
        (nobody, "GET /ready", "", 200),
    ] {
        assert_eq!(status(&service, token, line, body), expected, "{line}");
    }

    // The load generator, with a token that may write and with one that may not.
    let address = service.address;
    let load = |token: &str| {
        let mut widgets = widgets(directory.path());
        let url = format!("http://{address}");
        widgets.args(["load", &url, "--rate", "200", "--duration", "1s"]);
        outcome(widgets.env("WIDGETS_TOKEN", token))
    };
    let (code, report) = load(writer);
    assert_eq!(code, Some(0), "{report}");
    let (code, report) = load(reader);
    assert_eq!(code, Some(1), "{report}");

    // An invalid key leaves the old ones in use.
    std::fs::write(&keys, "short").expect("written");
    service.signal(Signal::HUP);
    wait_for_log(directory.path(), "the new keys cannot be used");
    assert_eq!(status(&service, writer, add, body), 409);
    std::fs::write(&keys, OTHER_SECRET).expect("written");
    service.signal(Signal::HUP);
    wait_for_log(directory.path(), "new keys for tokens are in use");
    assert_eq!(status(&service, writer, add, body), 401);
    let new = hs256(OTHER_SECRET, "writer");
    assert_eq!(status(&service, &new, add, body), 409);
}

/// A certificate authority in a directory.
pub(crate) struct Authority<'a> {
    directory: &'a Path,
    issuer: Issuer<'static, KeyPair>,
    root: CertificateDer<'static>,
}

impl<'a> Authority<'a> {
    pub(crate) fn new(directory: &'a Path) -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).expect("signed");
        std::fs::write(directory.join("ca.pem"), certificate.pem()).expect("written");
        let root = certificate.der().clone();
        let issuer = Issuer::new(params, key);
        Self {
            directory,
            issuer,
            root,
        }
    }

    /// Writes a certificate for `localhost` and its key, in the way in which tools renew them.
    pub(crate) fn issue(&self) -> CertificateDer<'static> {
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(vec!["localhost".into()]).expect("a name");
        let certificate = params.signed_by(&key, &self.issuer).expect("signed");
        let (directory, key) = (self.directory, key.serialize_pem());
        std::fs::write(directory.join("key.pem"), key).expect("written");
        std::fs::write(directory.join("certificate.pem"), certificate.pem()).expect("written");
        certificate.der().clone()
    }

    fn connect(&self, service: &Service) -> StreamOwned<ClientConnection, TcpStream> {
        let mut roots = RootCertStore::empty();
        roots.add(self.root.clone()).expect("a certificate");
        let config =
            ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
                .with_safe_default_protocol_versions()
                .expect("versions")
                .with_root_certificates(roots)
                .with_no_client_auth();
        let name = ServerName::try_from("localhost").expect("a name");
        let session = ClientConnection::new(Arc::new(config), name).expect("a session");
        StreamOwned::new(session, connect(service))
    }
}

pub(crate) const TLS: [&str; 4] = [
    "--tls-certificate",
    "certificate.pem",
    "--tls-key",
    "key.pem",
];

fn health(directory: &Path, service: &Service, more: &[&str]) -> (Option<i32>, String) {
    let mut widgets = widgets(directory);
    let listen = service.address.to_string();
    outcome(widgets.args(["health", "--listen", &listen]).args(more))
}

#[test]
fn certificates_are_reloaded_without_closing_open_connections() {
    let directory = Directory::new("certificates");
    let authority = Authority::new(directory.path());
    let first = authority.issue();
    let service = Service::start(directory.path(), &TLS);
    assert!(service.printed.contains("listens on https://"));
    let live = |stream: &mut StreamOwned<_, _>| {
        assert_eq!(ask(stream, "GET /live", "", "").0, 200);
        let shown: &ClientConnection = &stream.conn;
        shown.peer_certificates().map(|chain| chain[0].clone())
    };
    let mut old = authority.connect(&service);
    assert_eq!(live(&mut old).as_ref(), Some(&first));
    let (code, told) = health(directory.path(), &service, &TLS);
    assert_eq!((code, told.as_str()), (Some(0), "ok\n"));
    let (code, told) = health(directory.path(), &service, &[]);
    assert_eq!(code, Some(1), "it is not asked without TLS: {told}");

    std::fs::write(directory.path().join("certificate.pem"), "nonsense").expect("written");
    service.signal(Signal::HUP);
    wait_for_log(directory.path(), "the new certificates cannot be used");
    assert_eq!(live(&mut authority.connect(&service)), Some(first.clone()));

    let second = authority.issue();
    service.signal(Signal::HUP);
    wait_for_log(directory.path(), "new certificates are in use");
    assert_eq!(live(&mut authority.connect(&service)), Some(second));
    assert_eq!(live(&mut old), Some(first), "an open connection goes on");
}

#[test]
fn health_presents_a_client_certificate_where_one_is_required() {
    let directory = Directory::new("client_certificates");
    let authority = Authority::new(directory.path());
    authority.issue();
    let arguments = [&TLS[..], &["--tls-client-ca", "ca.pem"]].concat();
    let service = Service::start(directory.path(), &arguments);
    let (code, told) = health(directory.path(), &service, &arguments);
    assert_eq!((code, told.as_str()), (Some(0), "ok\n"));
    let (code, told) = health(directory.path(), &service, &TLS);
    assert_eq!(code, Some(1), "without one nobody is answered: {told}");
    // A service that requires client certificates may listen on a public address.
    let mut widgets = widgets(directory.path());
    widgets.args(["config", "check", "--listen", "0.0.0.0:3000"]);
    let (code, told) = outcome(widgets.args(arguments));
    assert_eq!(code, Some(0), "{told}");
}
