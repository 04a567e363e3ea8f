//! Requests that no well-behaved client sends: what they smuggle is never applied, and others are
//! not affected.

use crate::*;
use std::io::Write as _;

const HEAD: &str = "POST /rpc/remove_widget HTTP/1.1\r\nHost: test\r\n";
const BODY: &str = "{\"widget_sn\":\"E\"}";

/// Sends all of it and returns the statuses of the answers in order.
fn statuses(server: &Server, request: &[u8]) -> Vec<u16> {
    let mut stream = server.connect();
    // The server may have answered and closed before everything was sent.
    drop(stream.write_all(request));
    drop(stream.shutdown(std::net::Shutdown::Write));
    let mut answers = Vec::new();
    let mut buffer = [0; 4096];
    while let Ok(read @ 1..) = std::io::Read::read(&mut stream, &mut buffer) {
        answers.extend_from_slice(&buffer[..read]);
    }
    String::from_utf8_lossy(&answers)
        .split("HTTP/1.")
        .skip(1)
        // The minor version, a space, the status.
        .filter_map(|answer| answer.get(2..5)?.parse().ok())
        .collect()
}

/// A request: its name, its bytes, the statuses it gets, and how many operations are applied.
type Shape = (&'static str, String, &'static [u16], usize);

fn check(shapes: Vec<Shape>) {
    let store = Counting::default();
    let server = Server::start(store.clone(), Limits::default());
    let mut good = server.connect();
    let mut wrong = Vec::new();
    for (name, request, expected, applied) in shapes {
        let before = store.count();
        let got = statuses(&server, request.as_bytes());
        let got_applied = store.count() - before;
        if (got.as_slice(), got_applied) != (expected, applied) {
            wrong.push(format!(
                "{name}: {got:?} and {got_applied} applied, not {expected:?} and {applied}"
            ));
        }
        good.write_all(REMOVE.as_bytes()).expect("sent");
        let mut status = [0; 12];
        std::io::Read::read_exact(&mut good, &mut status).expect("answered");
        assert_eq!(&status, b"HTTP/1.1 204", "{name}: the good client goes on");
        // The rest of the head; a 204 has no body.
        let mut last = [0; 4];
        while &last != b"\r\n\r\n" {
            last.rotate_left(1);
            std::io::Read::read_exact(&mut good, &mut last[3..]).expect("answered");
        }
    }
    server.stop();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Returns a request with these header lines and this body, followed by one that must not be taken
/// for a second request.
fn with(headers: &str, body: &str) -> String {
    format!("{HEAD}{headers}\r\n\r\n{body}")
}

#[test]
fn requests_with_invalid_framing_are_refused_and_smuggle_nothing() {
    let behind = format!("{BODY}{REMOVE}");
    let refused = |name, headers: &str| (name, with(headers, &behind), &[400][..], 0);
    check(vec![
        refused("lengths differ", "Content-Length: 17\r\nContent-Length: 0"),
        refused("a length in a list", "Content-Length: 17, 0"),
        refused("a length with a sign", "Content-Length: +17"),
        refused("a negative length", "Content-Length: -1"),
        refused("a length in hexadecimal", "Content-Length: 0x11"),
        refused("no length", "Content-Length: "),
        refused(
            "a length past 64 bits",
            "Content-Length: 18446744073709551633",
        ),
        refused("a space before the colon", "Content-Length : 17"),
        refused("a folded line", "X-Long: a\r\n Content-Length: 17"),
        refused("an unknown encoding", "Transfer-Encoding: xchunked"),
        refused(
            "chunked is not the last",
            "Transfer-Encoding: chunked, identity",
        ),
        refused(
            "identity",
            "Transfer-Encoding: identity\r\nContent-Length: 17",
        ),
        refused("NUL in a value", "X-Nul: a\0b\r\nContent-Length: 17"),
        refused("NUL in a name", "X-N\0l: a\r\nContent-Length: 17"),
        refused("a bare CR in a value", "X-Cr: a\rb\r\nContent-Length: 17"),
        refused("an encoding before it", "Transfer-Encoding: foo, chunked"),
        refused("another coding", "Transfer-Encoding: gzip, chunked"),
        refused("chunked twice", "Transfer-Encoding: chunked, chunked"),
        refused(
            "chunked in two lines",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        ),
        refused(
            "another coding in a line of its own",
            "Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked",
        ),
        refused("an empty element", "Transfer-Encoding: , chunked"),
        (
            "chunked in HTTP/1.0",
            format!(
                "POST /rpc/remove_widget HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n{behind}"
            ),
            &[400],
            0,
        ),
    ]);
}

/// If both lengths are given, `Transfer-Encoding` takes precedence (RFC 9112, 6.3), in either
/// order. Nothing inside a chunk or after the last one is ever taken for a request.
#[test]
fn chunked_encoding_overrides_content_length_and_hides_no_request() {
    let chunk = format!("{:x}\r\n{REMOVE}\r\n0\r\n\r\n", REMOVE.len());
    let good = format!("11\r\n{BODY}\r\n0\r\n\r\n{REMOVE}");
    let json = "Content-Type: application/json";
    check(vec![
        (
            "the length is shorter",
            with(
                &format!("{json}\r\nContent-Length: 4\r\nTransfer-Encoding: chunked"),
                &chunk,
            ),
            &[400],
            0,
        ),
        (
            "the length comes last",
            with(
                &format!("{json}\r\nTransfer-Encoding: chunked\r\nContent-Length: 4"),
                &chunk,
            ),
            &[400],
            0,
        ),
        (
            "the length is longer",
            with(
                &format!("{json}\r\nContent-Length: 999\r\nTransfer-Encoding: chunked"),
                &good,
            ),
            &[204],
            1,
        ),
        (
            "the length is that of the body and what is behind it",
            with(
                &format!(
                    "{json}\r\nTransfer-Encoding: chunked\r\nContent-Length: {}",
                    good.len()
                ),
                &good,
            ),
            &[204],
            1,
        ),
        (
            "there is no length",
            with(&format!("{json}\r\nTransfer-Encoding: chunked"), &good),
            &[204],
            1,
        ),
        (
            "equal lengths are one",
            with(
                &format!("{json}\r\nContent-Length: 17\r\nContent-Length: 17"),
                BODY,
            ),
            &[204],
            1,
        ),
        (
            "two requests in a row are two",
            format!("{REMOVE}{REMOVE}"),
            &[204, 204],
            2,
        ),
    ]);
    let broken = |name, body: &str| {
        let behind = format!("{body}{REMOVE}");
        (
            name,
            with(&format!("{json}\r\nTransfer-Encoding: chunked"), &behind),
            &[400][..],
            0,
        )
    };
    check(vec![
        broken("a size that is none", "zz\r\n"),
        broken("a negative size", "-1\r\n"),
        broken("a size past 64 bits", "11111111111111111\r\n"),
        broken("no line after the data", "2\r\n{}XX0\r\n\r\n"),
        broken("a bare LF after the size", "2\n{}\r\n0\r\n\r\n"),
        broken("an endless extension", &format!("2;{}", "x".repeat(40_000))),
    ]);
}

/// The host of a request must be unambiguous (RFC 9112, 3.2).
#[test]
fn an_http_1_1_request_must_name_exactly_one_host() {
    let head = |line: &str, hosts: &str| format!("{line}\r\n{hosts}\r\n");
    let get = |version: &str, hosts: &str| head(&format!("GET /widgets/E HTTP/{version}"), hosts);
    let of = |name, request, status: &'static [u16]| (name, request, status, 0);
    check(vec![
        of("no host", get("1.1", ""), &[400]),
        of("two hosts", get("1.1", "Host: a\r\nHost: b\r\n"), &[400]),
        of(
            "one host twice",
            get("1.1", "Host: a\r\nHost: a\r\n"),
            &[400],
        ),
        of("a host that is none", get("1.1", "Host: a/b\r\n"), &[400]),
        of("a user", get("1.1", "Host: me@a\r\n"), &[400]),
        of("an empty host", get("1.1", "Host:\r\n"), &[400]),
        of("a probe without", head("GET /live HTTP/1.1", ""), &[400]),
        of("HTTP/1.0 without", get("1.0", ""), &[404]),
        of(
            "HTTP/1.0 with two",
            get("1.0", "Host: a\r\nHost: b\r\n"),
            &[400],
        ),
        of("a host with a port", get("1.1", "Host: a:1\r\n"), &[404]),
        of(
            "a target with a host",
            head("GET http://b/widgets/E HTTP/1.1", "Host: a\r\n"),
            &[404],
        ),
        of(
            "a target with a host, and no other",
            head("GET http://b/widgets/E HTTP/1.1", ""),
            &[400],
        ),
    ]);
}

#[test]
fn unsupported_expect_headers_are_refused() {
    let json = "Content-Type: application/json\r\nContent-Length: 17";
    let expect = |what: &str| with(&format!("{json}\r\nExpect: {what}"), BODY);
    check(vec![
        ("something", expect("something"), &[417], 0),
        ("both", expect("100-continue, something"), &[417], 0),
        ("to go on", expect("100-continue"), &[100, 204], 1),
        (
            "HTTP/1.0 has no expectations",
            expect("something").replace("HTTP/1.1", "HTTP/1.0"),
            &[204],
            1,
        ),
    ]);
}

/// After requests of certain lengths, the buffer of a connection has room for more than a head may
/// have.
#[test]
fn the_head_size_limit_also_applies_on_a_reused_connection() {
    let server = Server::start(Counting::default(), Limits::default());
    let live = "GET /live HTTP/1.1\r\nHost: test\r\nAuthorization: \r\n\r\n";
    let head = |bytes: usize| {
        let token = "x".repeat(bytes - live.len());
        live.replace("Authorization: ", &format!("Authorization: {token}"))
    };
    for long in [17_000, 27_000] {
        let mut stream = server.connect();
        let mut ask = |bytes: usize| {
            stream.write_all(head(bytes).as_bytes()).expect("sent");
            let mut answer = Vec::new();
            while !answer.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                std::io::Read::read_exact(&mut stream, &mut byte).expect("answered");
                answer.extend_from_slice(&byte);
            }
            String::from_utf8_lossy(&answer[..12]).into_owned()
        };
        for bytes in [8_100, 16_300].repeat(4) {
            assert_eq!(ask(bytes), "HTTP/1.1 200", "{bytes}");
        }
        assert_eq!(ask(long), "HTTP/1.1 431", "{long}");
    }
    server.stop();
}

#[test]
fn oversized_heads_and_invalid_http_are_refused() {
    let many = (0..200).fold(String::new(), |lines, n| lines + &format!("X-{n}: x\r\n"));
    let get =
        |target: &str, lines: &str| format!("GET {target} HTTP/1.1\r\nHost: t\r\n{lines}\r\n");
    let long = "x".repeat(70_000);
    let closed: &[u16] = &[];
    check(vec![
        (
            "a header of 70,000 bytes",
            get("/live", &format!("X: {long}\r\n")),
            &[431],
            0,
        ),
        ("200 headers", get("/live", &many), &[431], 0),
        (
            "a target of 70,000 bytes",
            get(&format!("/{long}"), ""),
            &[431],
            0,
        ),
        ("no method", " / HTTP/1.1\r\n\r\n".into(), &[400], 0),
        ("no version", "GET /\r\n\r\n".into(), &[400], 0),
        (
            "another version",
            "GET / HTTP/3.0\r\n\r\n".into(),
            &[400],
            0,
        ),
        ("a space in the target", get("/live x", ""), &[400], 0),
        (
            "TLS",
            "\x16\x03\x01\x02\0\x01\0\x01\u{fc}\x03\x03".into(),
            &[400],
            0,
        ),
        (
            "half of HTTP/2",
            "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nxxxxxxxxxxxx".into(),
            closed,
            0,
        ),
        ("nothing", String::new(), closed, 0),
        (
            "a body of 1 GB is refused unread",
            with(
                "Content-Type: application/json\r\nContent-Length: 1000000000",
                "{",
            ),
            &[413],
            0,
        ),
        (
            "a body that ends early",
            with("Content-Type: application/json\r\nContent-Length: 17", "{"),
            &[400],
            0,
        ),
    ]);
}

/// Most of them are refused by hyper, so the service sees no request.
#[test]
fn refused_heads_are_counted_by_reason() {
    let server = Server::start(Counting::default(), Limits::default());
    let get =
        |target: &str, lines: &str| format!("GET {target} HTTP/1.1\r\nHost: t\r\n{lines}\r\n");
    let many = (0..101).fold(String::new(), |lines, n| lines + &format!("X-{n}: x\r\n"));
    for (request, status) in [
        (get("/live", &format!("X: {}\r\n", "x".repeat(20_000))), 431),
        (get("/live", &many), 431),
        (get("/widgets?name=eq.\"x\"", ""), 400),
        (get("/live", "X: a\r\n b\r\n"), 400),
        (get("/live", "X : a\r\n"), 400),
        (get("/live", "").replace("1.1", "1.2"), 400),
        // The service itself refuses this one, with a code.
        (get("/live", "Host: u\r\n"), 400),
        (get("/live", ""), 200),
    ] {
        assert_eq!(statuses(&server, request.as_bytes()), [status], "{request}");
    }
    let registry = Registry::new();
    server
        .metrics
        .register(&registry)
        .expect("an empty registry");
    // Each connection is counted before its task ends.
    server.stop();
    let families = registry.gather();
    let refused = families
        .iter()
        .filter(|family| family.name() == "widgets_request_heads_refused_total")
        .flat_map(prometheus::proto::MetricFamily::get_metric)
        .map(|metric| {
            let reason = metric.get_label()[0].value().to_owned();
            (reason, metric.get_counter().get_value().to_string())
        });
    let expected = [("lines", "2"), ("malformed", "4"), ("room", "0")];
    let expected = expected.map(|(reason, count)| (reason.to_owned(), count.to_owned()));
    assert_eq!(refused.collect::<Vec<_>>(), expected);
}
