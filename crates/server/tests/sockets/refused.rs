//! Requests that are refused before they have arrived completely: their clients can read why, and
//! continue.

use crate::*;
use std::io::{Read as _, Write as _};

/// Returns the head of a request to an unknown path, with a body of this length.
fn for_nothing(bytes: usize, more: &str) -> Vec<u8> {
    let head =
        format!("POST /nope/nope HTTP/1.1\r\nHost: test\r\nContent-Length: {bytes}\r\n{more}\r\n");
    head.into_bytes()
}

/// Returns the head of the next answer, and reads its body as well.
fn head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).expect("answered");
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).expect("text").to_ascii_lowercase();
    let length = head.split("content-length: ").nth(1).expect("a length");
    let length = length.lines().next().expect("a line").parse();
    let mut body = vec![0; length.expect("a number")];
    stream.read_exact(&mut body).expect("the body");
    head
}

/// Most clients send the whole request before they look for the answer. If the connection were
/// reset, some of them would never see it.
#[test]
fn clients_that_are_still_sending_receive_the_error_response() {
    let server = Server::start(Counting::default(), Limits::default());
    let body = |bytes: usize| vec![b'x'; bytes];
    let too_large =
        b"POST /rpc/add_widget HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\n\
        Content-Length: 3000000\r\n\r\n";
    let long_head = [b"GET / HTTP/1.1\r\nX: ", &*body(200_000), b"\r\n\r\n"].concat();
    for (status, request) in [
        (
            "404",
            [for_nothing(3_000_000, ""), body(3_000_000)].concat(),
        ),
        ("413", [&too_large[..], &body(3_000_000)].concat()),
        ("431", long_head),
    ] {
        for _ in 0..20 {
            let mut stream = server.connect();
            stream.write_all(&request).expect("all of it is taken");
            let answer = answer(stream);
            let begins = format!("HTTP/1.1 {status} ");
            assert!(answer.starts_with(&begins), "{status}: {answer}");
        }
    }
    server.stop();
}

#[test]
fn a_short_unwanted_body_does_not_close_the_connection() {
    let server = Server::start(Counting::default(), Limits::default());
    let mut stream = server.connect();
    for _ in 0..20 {
        stream.write_all(&for_nothing(60_000, "")).expect("sent");
        // The body has not arrived when the head is read.
        thread::sleep(Duration::from_millis(5));
        stream.write_all(&vec![b'x'; 60_000]).expect("sent");
        let head = head(&mut stream);
        assert!(head.starts_with("http/1.1 404 "), "{head}");
        assert!(!head.contains("connection: close"), "{head}");
    }
    server.stop();
}

/// Without the header, a client could not know what became of a further request that it sent.
#[test]
fn the_last_response_on_a_connection_says_connection_close() {
    let server = Server::start(Counting::default(), Limits::default());
    for (bytes, more) in [(100_000, ""), (1000, "Expect: 100-continue\r\n")] {
        let mut stream = server.connect();
        stream.write_all(&for_nothing(bytes, more)).expect("sent");
        let head = head(&mut stream);
        assert!(head.starts_with("http/1.1 404 "), "{head}");
        assert!(head.contains("connection: close"), "{head}");
        assert_eq!(answer(stream), "");
    }
    server.stop();
}

/// The clients have sent their requests before they are refused.
#[test]
fn excess_connections_get_503_and_probes_are_still_answered() {
    let limits = Limits {
        connections_max: 1,
        ..Limits::default()
    };
    let store = SlowStore::new();
    let server = Server::start(store.clone(), limits);
    let mut first = server.connect();
    first.write_all(REMOVE.as_bytes()).expect("sent");
    store.wait_for_one();
    for _ in 0..50 {
        let mut stream = server.connect();
        stream.write_all(REMOVE.as_bytes()).expect("sent");
        let answer = answer(stream);
        assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
        assert!(answer.contains("\r\nretry-after: 1\r\n"), "{answer}");
        assert!(answer.contains("\r\nconnection: close\r\n"), "{answer}");
        assert!(
            answer.ends_with("\"message\":\"the service is too busy: connections_max = 1\"}"),
            "{answer}"
        );
    }
    for probe in ["live", "ready"] {
        let mut stream = server.connect();
        let asks = format!("GET /{probe} HTTP/1.1\r\nHost: test\r\n\r\n");
        stream.write_all(asks.as_bytes()).expect("sent");
        let answer = answer(stream);
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    }
    store.released.add_permits(1);
    server.stop();
}
