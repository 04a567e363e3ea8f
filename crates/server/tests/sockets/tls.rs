//! Connections over TLS.

use crate::*;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::{
    ClientConfig, ClientConnection, HandshakeKind, RootCertStore, StreamOwned,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _},
};
use std::{
    fs::{self, FileTimes},
    io::{Read as _, Write as _},
    path::PathBuf,
    time::SystemTime,
};
use tempfile::TempDir;
use widgets_server::{AuthenticationSettings, ClientCertificates, KeySet, Roles, TlsFiles};

/// An authority with its own folder.
struct Authority {
    folder: TempDir,
    certificate: rcgen::Certificate,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).expect("signed");
        let issuer = Issuer::new(params, key);
        let authority = Self {
            folder,
            certificate,
            issuer,
        };
        authority.write("ca.pem", &authority.certificate.pem());
        authority
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, content: &str) {
        fs::write(self.path(name), content).expect("written");
    }

    /// Writes a certificate and a key for `localhost` to these two files.
    fn issue(&self, name: &str, key_name: &str) -> CertificateDer<'static> {
        let params = CertificateParams::new(vec!["localhost".into()]).expect("a name");
        self.issue_with(&params, name, key_name)
    }

    fn issue_with(
        &self,
        params: &CertificateParams,
        name: &str,
        key_name: &str,
    ) -> CertificateDer<'static> {
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("signed");
        self.write(name, &certificate.pem());
        self.write(key_name, &key.serialize_pem());
        certificate.der().clone()
    }

    fn files(&self, clients: Option<ClientCertificates>) -> TlsFiles {
        TlsFiles {
            certificate: self.path("server.pem"),
            key: self.path("server.key"),
            clients: clients.map(|wanted| (self.path("ca.pem"), wanted)),
        }
    }

    /// Connects a client that trusts this authority, and presents this certificate if there is one.
    fn client(&self, server: &Server, shows: Option<&str>, alpn: &[&str]) -> Stream {
        connect(server, &self.client_config(shows, alpn))
    }

    fn client_config(&self, shows: Option<&str>, alpn: &[&str]) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots
            .add(self.certificate.der().clone())
            .expect("a certificate");
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots);
        let mut config = match shows {
            None => builder.with_no_client_auth(),
            Some(name) => {
                let file = self.path(&format!("{name}.pem"));
                let chain = CertificateDer::pem_file_iter(file).expect("PEM");
                let chain = chain.collect::<Result<Vec<_>, _>>().expect("PEM");
                let file = self.path(&format!("{name}.key"));
                let key = PrivateKeyDer::from_pem_file(file).expect("PEM");
                builder.with_client_auth_cert(chain, key).expect("a pair")
            }
        };
        config.alpn_protocols = alpn.iter().map(|each| each.as_bytes().to_vec()).collect();
        Arc::new(config)
    }
}

fn connect(server: &Server, config: &Arc<ClientConfig>) -> Stream {
    let name = ServerName::try_from("localhost").expect("a name");
    let session = ClientConnection::new(config.clone(), name).expect("a session");
    StreamOwned::new(session, server.connect())
}

type Stream = StreamOwned<ClientConnection, TcpStream>;

/// Returns the status of an answer to `GET /widgets/E`, or why there is none.
fn status(stream: &mut Stream) -> Result<String, String> {
    let asked = stream.write_all(b"GET /widgets/E HTTP/1.1\r\nHost: localhost\r\n\r\n");
    asked.map_err(|error| error.to_string())?;
    // The body is an error, whose length is in the head.
    let mut answer = Vec::new();
    loop {
        let mut byte = [0];
        let read = stream.read_exact(&mut byte);
        read.map_err(|error| error.to_string())?;
        answer.extend_from_slice(&byte);
        if answer.ends_with(b"\"}") {
            let answer = String::from_utf8_lossy(&answer);
            return Ok(answer.chars().skip("HTTP/1.1 ".len()).take(3).collect());
        }
    }
}

fn start(tls: &Arc<Tls>) -> Server {
    let (tls, limits) = (Some(tls.clone()), Limits::default());
    Server::start_with(Counting::default(), limits, tls, Authentication::off())
}

#[test]
fn requests_are_answered_over_tls_and_alpn_chooses_http_2() {
    let authority = Authority::new();
    authority.issue("server.pem", "server.key");
    let tls = Arc::new(Tls::load(authority.files(None)).expect("loaded"));
    let server = start(&tls);
    let mut stream = authority.client(&server, None, &[]);
    assert_eq!(status(&mut stream), Ok("404".into()));
    assert_eq!(status(&mut stream), Ok("404".into()), "it stays open");
    assert_eq!(stream.conn.alpn_protocol(), None);
    let mut stream = authority.client(&server, None, &["http/1.1"]);
    assert_eq!(status(&mut stream), Ok("404".into()));
    // Of the two, the server chooses HTTP/2, and begins with its settings (RFC 9113, 3.4).
    let mut stream = authority.client(&server, None, &["http/1.1", "h2"]);
    stream
        .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0")
        .expect("sent");
    let mut frame = [0; 9];
    stream.read_exact(&mut frame).expect("a frame");
    assert_eq!(frame[3], 4, "SETTINGS");
    assert_eq!(stream.conn.alpn_protocol(), Some(&b"h2"[..]));
    // Otherwise the shutdown would wait for an answer to GOAWAY.
    drop(stream);
    server.stop();
}

#[test]
fn certificates_are_replaced_without_a_restart() {
    let authority = Authority::new();
    let first = authority.issue("server.pem", "server.key");
    let tls = Arc::new(Tls::load(authority.files(None)).expect("loaded"));
    let server = start(&tls);
    let shown = || {
        let mut stream = authority.client(&server, None, &[]);
        let answered = status(&mut stream);
        assert_eq!(answered, Ok("404".into()));
        let certificates = stream.conn.peer_certificates();
        (certificates.expect("shown")[0].clone(), stream)
    };
    let (shown_first, mut open) = shown();
    assert_eq!(shown_first, first);
    assert!(
        !tls.reload(false).expect("nothing to do"),
        "nothing changed"
    );
    // The new certificate is there but its key is not yet, so the old pair stays in use.
    let second = authority.issue("server.pem", "second.key");
    let error = tls.reload(false).expect_err("no pair").to_string();
    assert!(error.contains("server.pem with "), "{error}");
    assert_eq!(shown().0, first);
    fs::rename(authority.path("second.key"), authority.path("server.key")).expect("renamed");
    assert!(tls.reload(false).expect("a pair"), "it changed");
    assert_eq!(shown().0, second);
    assert_eq!(
        status(&mut open),
        Ok("404".into()),
        "an open connection continues"
    );
    fs::remove_file(authority.path("server.key")).expect("removed");
    let error = tls.reload(true).expect_err("gone").to_string();
    assert!(error.contains("server.key: "), "{error}");
    assert_eq!(shown().0, second);
    server.stop();
}

#[test]
fn unusable_certificate_and_key_files_are_named_in_the_error() {
    let authority = Authority::new();
    authority.issue("server.pem", "server.key");
    authority.issue("other.pem", "other.key");
    authority.write("empty.pem", "");
    authority.write("broken.pem", "-----BEGIN CERTIFICATE-----\n!\n");
    let load = |certificate: &str, key: &str, ca: Option<&str>| {
        let wanted = ClientCertificates::Required;
        let files = TlsFiles {
            certificate: authority.path(certificate),
            key: authority.path(key),
            clients: ca.map(|ca| (authority.path(ca), wanted)),
        };
        Tls::load(files).expect_err("refused").to_string()
    };
    let folder = authority.folder.path().display();
    for (certificate, key, ca, error) in [
        ("none.pem", "server.key", None, "none.pem: No such file"),
        (
            "empty.pem",
            "server.key",
            None,
            "empty.pem: there is no certificate in it, PEM is expected",
        ),
        (
            "server.pem",
            "server.pem",
            None,
            "server.pem: there is no private key in it, PEM is expected",
        ),
        ("broken.pem", "server.key", None, "broken.pem: not PEM"),
        (
            "server.pem",
            "server.key",
            Some("empty.pem"),
            "empty.pem: there is no certificate in it, PEM is expected",
        ),
    ] {
        let told = load(certificate, key, ca);
        assert!(told.starts_with(&format!("{folder}/{error}")), "{told}");
    }
    let told = load("server.pem", "other.key", None);
    assert!(told.contains("server.pem with "), "{told}");
}

#[test]
fn client_certificates_can_be_required_or_grant_a_role() {
    let authority = Authority::new();
    authority.issue("server.pem", "server.key");
    authority.issue("client.pem", "client.key");
    let stranger = Authority::new();
    stranger.issue("stranger.pem", "stranger.key");
    for name in ["stranger.pem", "stranger.key"] {
        fs::copy(stranger.path(name), authority.path(name)).expect("copied");
    }
    let required = authority.files(Some(ClientCertificates::Required));
    let tls = Arc::new(Tls::load(required).expect("loaded"));
    let server = start(&tls);
    let ask = |server: &Server, shows| status(&mut authority.client(server, shows, &[]));
    assert_eq!(ask(&server, Some("client")), Ok("404".into()));
    for shows in [None, Some("stranger")] {
        let refused = ask(&server, shows).expect_err("refused");
        assert!(!refused.is_empty(), "{shows:?}");
    }
    server.stop();

    let optional = authority.files(Some(ClientCertificates::Optional));
    let tls = Arc::new(Tls::load(optional).expect("loaded"));
    let settings = AuthenticationSettings {
        role_claim: "role".into(),
        roles: Roles {
            read: vec!["machine".into()],
            ..Roles::default()
        },
        certificate_role: Some("machine".into()),
        ..AuthenticationSettings::default()
    };
    let keys = KeySet::parse("a secret of more than thirty-two bytes").expect("keys");
    let authentication = Authentication::new(settings, Some(keys));
    let store = Counting::default();
    let server = Server::start_with(store, Limits::default(), Some(tls), authentication);
    assert_eq!(ask(&server, Some("client")), Ok("404".into()), "may read");
    assert_eq!(ask(&server, None), Ok("401".into()));
    ask(&server, Some("stranger")).expect_err("a wrong one is worse than none");
    server.stop();
}

/// Finding a path through many certificates that sign each other takes long, and anybody can send
/// them.
#[test]
fn an_overlong_client_certificate_chain_is_refused() {
    let authority = Authority::new();
    authority.issue("server.pem", "server.key");
    authority.issue("client.pem", "client.key");
    let tls = Tls::load(authority.files(Some(ClientCertificates::Required)));
    let server = start(&Arc::new(tls.expect("loaded")));
    let one = fs::read_to_string(authority.path("client.pem")).expect("PEM");
    let key = fs::read_to_string(authority.path("client.key")).expect("PEM");
    for (certificates, answered) in [(1, true), (6, true), (7, false)] {
        authority.write("many.pem", &one.repeat(certificates));
        authority.write("many.key", &key);
        let mut stream = authority.client(&server, Some("many"), &[]);
        let status = status(&mut stream);
        assert_eq!(status.is_ok(), answered, "{certificates}: {status:?}");
    }
    server.stop();
}

#[test]
fn failed_tls_handshakes_do_not_affect_other_clients() {
    let authority = Authority::new();
    authority.issue("server.pem", "server.key");
    let tls = Arc::new(Tls::load(authority.files(None)).expect("loaded"));
    let server = start(&tls);
    let silent: Vec<TcpStream> = (0..64).map(|_| server.connect()).collect();
    let mut half = server.connect();
    half.write_all(b"\x16\x03\x01\x02\x00\x01\x00")
        .expect("sent");
    let mut plain = server.connect();
    plain.write_all(REMOVE.as_bytes()).expect("sent");
    let mut told = Vec::new();
    // The server may send an alert, but closes the connection in any case.
    drop(plain.read_to_end(&mut told));
    assert!(told.len() < 16, "{told:?}");
    let mut stream = authority.client(&server, None, &[]);
    assert_eq!(status(&mut stream), Ok("404".into()));
    // A shutdown does not wait for clients that never sent anything.
    server.stop();
    drop((silent, half));
}

/// A client that resumes a session does not present its certificate again.
#[test]
fn tls_sessions_are_resumed_only_if_no_client_certificate_is_requested() {
    let authority = Authority::new();
    authority.issue("server.pem", "server.key");
    authority.issue("client.pem", "client.key");
    for (clients, kind) in [
        (None, HandshakeKind::Resumed),
        (Some(ClientCertificates::Optional), HandshakeKind::Full),
        (Some(ClientCertificates::Required), HandshakeKind::Full),
    ] {
        for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
            let tls = Arc::new(Tls::load(authority.files(clients)).expect("loaded"));
            let server = start(&tls);
            let mut config = ClientConfig::clone(&authority.client_config(Some("client"), &[]));
            config = of_version(&authority, config, version);
            let config = Arc::new(config);
            for expected in [HandshakeKind::Full, kind] {
                let mut stream = connect(&server, &config);
                assert_eq!(status(&mut stream), Ok("404".into()));
                let shaken = stream.conn.handshake_kind();
                assert_eq!(shaken, Some(expected), "{clients:?} {version:?}");
            }
            server.stop();
        }
    }
}

/// Restricts the client to one version of TLS.
fn of_version(
    authority: &Authority,
    config: ClientConfig,
    version: &'static rustls::SupportedProtocolVersion,
) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    let root = authority.certificate.der().clone();
    roots.add(root).expect("a certificate");
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[version])
        .expect("a version");
    let mut single = builder.with_root_certificates(roots).with_no_client_auth();
    single.client_auth_cert_resolver = config.client_auth_cert_resolver;
    single
}

fn often(tls: Tls) -> Arc<Tls> {
    Arc::new(tls.with_proofs_checked_every(Duration::from_millis(20)))
}

/// Reports whether an open connection is ended, without a request on it.
fn ends(mut stream: Stream) -> bool {
    let wait = Some(Duration::from_mins(1));
    stream.sock.set_read_timeout(wait).expect("set");
    // Gracefully or not, but not because of the timeout.
    match stream.read(&mut [0]) {
        Ok(read) => read == 0,
        Err(error) => error.kind() != std::io::ErrorKind::WouldBlock,
    }
}

#[test]
#[expect(
    clippy::disallowed_methods,
    reason = "rustls checks certificates by the system's clock"
)]
fn a_connection_ends_when_its_client_certificate_expires() {
    let authority = Authority::new();
    authority.issue("server.pem", "server.key");
    authority.issue("client.pem", "client.key");
    let mut params = CertificateParams::new(vec!["localhost".into()]).expect("a name");
    // The certificate has whole seconds, so it is valid for at least two.
    params.not_after = (SystemTime::now() + Duration::from_secs(3)).into();
    authority.issue_with(&params, "brief.pem", "brief.key");
    let required = authority.files(Some(ClientCertificates::Required));
    let tls = often(Tls::load(required).expect("loaded"));
    let server = start(&tls);
    let mut lasting = authority.client(&server, Some("client"), &[]);
    let mut brief = authority.client(&server, Some("brief"), &[]);
    assert_eq!(status(&mut lasting), Ok("404".into()));
    assert_eq!(status(&mut brief), Ok("404".into()));
    assert!(ends(brief));
    assert_eq!(status(&mut lasting), Ok("404".into()), "it stays open");
    server.stop();
}

/// As if its owner or its permissions had been wrong: its length and time stay the same.
#[test]
fn a_file_that_was_unusable_at_first_is_used_although_it_looks_the_same() {
    let authority = Authority::new();
    authority.issue("server.pem", "server.key");
    authority.issue("client.pem", "client.key");
    let required = authority.files(Some(ClientCertificates::Required));
    let tls = Arc::new(Tls::load(required).expect("loaded"));
    for name in ["server.pem", "server.key", "ca.pem"] {
        let path = authority.path(name);
        let good = fs::read_to_string(&path).expect("read");
        let write = |content: &str| {
            authority.write(name, content);
            let file = fs::File::options().write(true).open(&path).expect("open");
            let times = FileTimes::new().set_modified(SystemTime::UNIX_EPOCH);
            file.set_times(times).expect("the same time");
        };
        write(&good.replace('-', "#"));
        let error = tls.reload(false).expect_err("no PEM").to_string();
        assert!(error.contains(name), "{error}");
        // Reported once, and tried again.
        assert!(!tls.reload(false).expect("nothing new"), "{name}");
        write(&good);
        assert!(tls.reload(false).expect("usable"), "{name}");
        assert!(!tls.reload(false).expect("nothing to do"), "{name}");
    }
}

#[test]
fn connections_end_when_their_certificate_authority_is_removed() {
    let authority = Authority::new();
    authority.issue("server.pem", "server.key");
    authority.issue("client.pem", "client.key");
    let required = authority.files(Some(ClientCertificates::Required));
    let tls = Arc::new(Tls::load(required).expect("loaded"));
    let server = start(&tls);
    let mut open = authority.client(&server, Some("client"), &[]);
    assert_eq!(status(&mut open), Ok("404".into()));
    authority.issue("server.pem", "server.key");
    assert!(tls.reload(false).expect("loaded"));
    assert_eq!(status(&mut open), Ok("404".into()), "it is still trusted");
    let other = Authority::new();
    authority.write("ca.pem", &other.certificate.pem());
    assert!(tls.reload(false).expect("loaded"));
    assert!(ends(open));
    server.stop();
}
