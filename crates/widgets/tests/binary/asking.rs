//! Sends hand-written requests to a running service, and waits for conditions.

use crate::service::Service;
use std::{
    io::{Read, Write},
    net::TcpStream,
    path::Path,
    process::Command,
    thread,
    time::Duration,
};

/// Sends a request on a stream, and returns the status and the body of the answer.
pub(crate) fn ask(
    stream: &mut (impl Read + Write),
    line: &str,
    headers: &str,
    body: &str,
) -> (u16, String) {
    let length = body.len();
    let request = format!(
        "{line} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n{headers}\r\n{body}"
    );
    stream.write_all(request.as_bytes()).expect("sent");
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).expect("an answer");
        head.extend_from_slice(&byte);
    }
    let head = String::from_utf8(head).expect("text").to_lowercase();
    let length = head.split("content-length: ").nth(1);
    let length = length.and_then(|rest| rest.lines().next()?.parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    stream.read_exact(&mut body).expect("a body");
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok());
    let body = String::from_utf8(body).expect("text");
    (status.expect("a status"), body)
}

pub(crate) fn connect(service: &Service) -> TcpStream {
    let stream = TcpStream::connect(service.address).expect("connected");
    let timeout = Some(Duration::from_mins(1));
    stream.set_read_timeout(timeout).expect("set");
    stream
}

/// Sends a request with this token over a new connection, and returns the status and the body of
/// the answer. If the token is empty, none is sent.
pub(crate) fn answer(service: &Service, token: &str, line: &str, body: &str) -> (u16, String) {
    let headers = match token {
        "" => String::new(),
        token => format!("Authorization: Bearer {token}\r\n"),
    };
    ask(&mut connect(service), line, &headers, body)
}

/// Sends a request with this token over a new connection, and returns the status of the answer. If
/// the token is empty, none is sent.
pub(crate) fn status(service: &Service, token: &str, line: &str, body: &str) -> u16 {
    answer(service, token, line, body).0
}

/// Waits until this holds.
pub(crate) fn wait_until(what: &str, holds: impl Fn() -> bool) {
    for _ in 0..12_000 {
        if holds() {
            return;
        }
        thread::sleep(Duration::from_millis(10));
    }
    panic!("{what}: not within two minutes");
}

/// Waits until the service's log contains this.
pub(crate) fn wait_for_log(directory: &Path, text: &str) {
    wait_until(text, || Service::log(directory).contains(text));
}

/// Returns the exit code and everything that was printed.
pub(crate) fn outcome(command: &mut Command) -> (Option<i32>, String) {
    let output = command.output().expect("the binary runs");
    let printed = [output.stdout, output.stderr].concat();
    let printed = String::from_utf8(printed).expect("text");
    (output.status.code(), printed)
}
