//! Limits on connections, and a shutdown that answers every request that has begun.

use crate::*;
use std::{io::Read as _, io::Write as _, net::TcpStream, thread, time::Duration};
use widgets_clock::Clock as _;
use widgets_server::Limits;

/// Checks that the connection was closed without an answer. Unread data makes that a reset.
fn is_closed(mut stream: TcpStream) {
    let read = stream.read(&mut [0]);
    let reset = |error: &std::io::Error| error.kind() == std::io::ErrorKind::ConnectionReset;
    let closed = matches!(read, Ok(0)) || read.as_ref().is_err_and(reset);
    assert!(closed, "{read:?}");
}

#[test]
fn idle_connections_are_closed_for_new_ones_and_busy_ones_are_kept() {
    let store = SlowStore::new();
    let limits = Limits {
        connections_max: 2,
        ..Limits::default()
    };
    let server = Server::start(store.clone(), limits);
    let mut first = server.connect();
    first.write_all(REMOVE.as_bytes()).expect("sent");
    store.wait_for_one();
    // One client is silent, one has sent half a request, and one was answered.
    let silent = server.connect();
    let mut slow = server.connect();
    slow.write_all(b"GET /live HTTP/1.1\r\nHo").expect("sent");
    is_closed(silent);
    let mut answered = server.connect();
    is_closed(slow);
    let live = b"GET /live HTTP/1.1\r\nHost: test\r\n\r\n";
    answered.write_all(live).expect("sent");
    let mut status = [0; 12];
    answered.read_exact(&mut status).expect("answered");
    assert_eq!(&status, b"HTTP/1.1 200");
    let mut rest = [0; 4096];
    let rest = answered.read(&mut rest).expect("the rest of the head");
    assert!(rest > 0);
    let mut last = server.connect();
    last.write_all(live).expect("sent");
    last.read_exact(&mut status).expect("answered");
    assert_eq!(&status, b"HTTP/1.1 200");
    is_closed(answered);

    store.released.add_permits(1);
    first.read_exact(&mut status).expect("answered");
    assert_eq!(&status, b"HTTP/1.1 204");
    server.stop();
}

/// The server distinguishes the versions of HTTP by the first bytes, which may arrive one by one.
#[test]
fn the_http_version_is_detected_even_if_the_first_bytes_are_split() {
    let live = "GET /live HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n";
    let unusual = "PROPFIND /live HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n";
    // With the client's own settings frame, which is empty.
    let http2 = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    let server = Server::start(SlowStore::new(), Limits::default());
    for (begins, with, answered) in [
        (live, 0, "HTTP/1.1 200"),
        (live, 1, "HTTP/1.1 200"),
        (unusual, 0, "HTTP/1.1 405"),
        (unusual, 1, "HTTP/1.1 405"),
        (unusual, 2, "HTTP/1.1 405"),
        // The server's settings begin with their length and type.
        (http2, 0, "\0\0"),
        (http2, 2, "\0\0"),
        (http2, 3, "\0\0"),
        (http2, 20, "\0\0"),
    ] {
        let mut stream = server.connect();
        stream.set_nodelay(true).expect("set");
        let (first, rest) = begins.split_at(with);
        stream.write_all(first.as_bytes()).expect("sent");
        thread::sleep(Duration::from_millis(20));
        stream.write_all(rest.as_bytes()).expect("sent");
        let mut answer = vec![0; answered.len()];
        stream.read_exact(&mut answer).expect("answered");
        assert_eq!(
            String::from_utf8_lossy(&answer),
            answered,
            "{begins:?} after {with}"
        );
    }
    server.stop();
}

#[test]
fn a_client_that_sends_no_request_is_cut_off() {
    let limits = Limits {
        idle_timeout: Duration::from_millis(50),
        request_timeout: Duration::from_millis(100),
        ..Limits::default()
    };
    let server = Server::start(SlowStore::new(), limits);
    // The second one has not even shown whether it speaks HTTP/1.1.
    let (nothing, mut half) = (server.connect(), server.connect());
    half.write_all(b"PR").expect("sent");
    assert_eq!(answer(nothing), "");
    assert_eq!(answer(half), "");
    server.stop();
}

#[test]
fn a_shutdown_answers_open_requests_and_closes_idle_connections() {
    let store = SlowStore::new();
    let server = Server::start(store.clone(), Limits::default());
    let idle = server.connect();
    let mut busy = Vec::new();
    for _ in 0..8 {
        let mut stream = server.connect();
        stream.write_all(REMOVE.as_bytes()).expect("sent");
        busy.push(stream);
    }
    while store.arrived.available_permits() < 8 {
        thread::sleep(Duration::from_millis(1));
    }
    server.stop.send(()).expect("it runs");
    assert_eq!(answer(idle), "", "no request was sent on it");
    assert!(
        TcpStream::connect(server.address).is_err(),
        "no new connection is accepted"
    );
    store.released.add_permits(8);
    for stream in busy {
        let answer = answer(stream);
        assert!(answer.starts_with("HTTP/1.1 204 "), "{answer}");
    }
    server.thread.join().expect("stopped");
}

/// A proxy's request that crosses the shutdown is answered, and the answer says that it is the last
/// one.
#[test]
fn a_shutdown_announces_the_close_on_open_connections() {
    /// Reports whether a further request may follow.
    fn ask(stream: &mut TcpStream) -> bool {
        let sent = stream.write_all(b"GET /live HTTP/1.1\r\nHost: test\r\n\r\n");
        sent.expect("it must not be closed before it was told so");
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).expect("answered");
            head.push(byte[0]);
        }
        let head = String::from_utf8(head).expect("text");
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        let head = head.to_ascii_lowercase();
        let length = head.split("content-length: ").nth(1).expect("a length");
        let length = length.lines().next().expect("a line").parse();
        let mut body = vec![0; length.expect("a number")];
        stream.read_exact(&mut body).expect("the body");
        !head.contains("\r\nconnection: close\r\n")
    }
    let server = Server::start(SlowStore::new(), Limits::default());
    let mut stream = server.connect();
    assert!(ask(&mut stream));
    server.stop.send(()).expect("it runs");
    while ask(&mut stream) {}
    assert_eq!(answer(stream), "", "that answer was the last one");
    server.thread.join().expect("stopped");
}

#[test]
fn a_shutdown_ends_at_its_timeout_despite_a_stuck_request() {
    let store = SlowStore::new();
    let shutdown_timeout = Duration::from_millis(50);
    let limits = Limits {
        shutdown_timeout,
        ..Limits::default()
    };
    let server = Server::start(store.clone(), limits);
    let mut stuck = server.connect();
    stuck.write_all(REMOVE.as_bytes()).expect("sent");
    store.wait_for_one();
    let clock = SystemClock::new();
    server.stop();
    let took = clock.now();
    assert!(took >= shutdown_timeout, "it ended after {took:?}");
    is_closed(stuck);
}
