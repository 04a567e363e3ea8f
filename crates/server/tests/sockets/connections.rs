//! Limits on connections, and a shutdown that answers what has begun.

use crate::*;
use std::{io::Read as _, io::Write as _, net::TcpStream, thread, time::Duration};
use widgets_server::Limits;

#[test]
fn one_connection_too_many_is_told_so_and_the_others_go_on() {
    let store = SlowStore::new();
    let limits = Limits {
        connections_max: 2,
        ..Limits::default()
    };
    let server = Server::start(store.clone(), limits);
    let mut first = server.connect();
    first.write_all(REMOVE.as_bytes()).expect("sent");
    let second = server.connect();
    let refused = answer(server.connect());
    assert!(refused.starts_with("HTTP/1.1 503 "), "{refused}");
    assert!(refused.contains("\r\nRetry-After: 1\r\n"), "{refused}");
    assert!(
        refused.ends_with(
            "\r\n\r\n{\"code\":\"WG503\",\"details\":null,\"hint\":null,\
             \"message\":\"the service is too busy: connections_max = 2\"}"
        ),
        "{refused}"
    );
    // A place becomes free once the server has seen that a client left.
    drop(second);
    let mut third = None;
    for _ in 0..500 {
        let mut stream = server.connect();
        let sent = stream.write_all(b"GET /live HTTP/1.1\r\nHost: test\r\n\r\n");
        let mut status = [0; 12];
        if sent.is_ok() && stream.read_exact(&mut status).is_ok() && status.ends_with(b"200") {
            third = Some(stream);
            break;
        }
        thread::sleep(Duration::from_millis(10));
    }
    assert!(third.is_some(), "the place must become free");
    store.released.add_permits(1);
    let mut status = [0; 12];
    first.read_exact(&mut status).expect("answered");
    assert_eq!(&status, b"HTTP/1.1 204");
    server.stop();
}

#[test]
fn a_shutdown_answers_what_has_begun_and_closes_what_is_idle() {
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
    assert_eq!(answer(idle), "", "nothing was asked on it");
    assert!(
        TcpStream::connect(server.address).is_err(),
        "nothing new is accepted"
    );
    store.released.add_permits(8);
    for stream in busy {
        let answer = answer(stream);
        assert!(answer.starts_with("HTTP/1.1 204 "), "{answer}");
    }
    server.thread.join().expect("stopped");
}

/// What a proxy meets whose request crosses the shutdown: it is answered, and told that it was the
/// last.
#[test]
fn a_shutdown_says_farewell_on_connections_that_are_open() {
    /// Whether a further request may follow.
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
    assert_eq!(answer(stream), "", "it was the last");
    server.thread.join().expect("stopped");
}

#[test]
fn a_shutdown_does_not_wait_for_ever() {
    let store = SlowStore::new();
    let limits = Limits {
        shutdown_timeout: Duration::from_millis(50),
        ..Limits::default()
    };
    let server = Server::start(store.clone(), limits);
    let mut stuck = server.connect();
    stuck.write_all(REMOVE.as_bytes()).expect("sent");
    while store.arrived.available_permits() < 1 {
        thread::sleep(Duration::from_millis(1));
    }
    server.stop();
}
