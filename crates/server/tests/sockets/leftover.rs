//! Unwanted bodies over HTTP/2.

use crate::{unread::frame, *};
use std::io::{Read as _, Write as _};

const HEADERS: u8 = 1;
const RESET: u8 = 3;
const PING: u8 = 6;
const END_STREAM: u8 = 1;

/// Returns a `POST` to this path, whose body is still to come.
fn post(stream: u32, path: &str) -> Vec<u8> {
    let length = u8::try_from(path.len()).expect("a short path");
    let mut block = vec![0x83, 0x86, 0x04, length];
    block.extend_from_slice(path.as_bytes());
    block.extend_from_slice(b"\x01\x04test");
    // END_HEADERS
    frame(HEADERS, 4, stream, &block)
}

/// Reads frames until one of this kind, and returns the kind, stream and flags of all of them.
fn read_until(stream: &mut TcpStream, kind: u8) -> Vec<(u8, u32, u8)> {
    let mut frames = Vec::new();
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head).expect("a frame");
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; usize::try_from(length).expect("short")];
        stream.read_exact(&mut payload).expect("its payload");
        let number = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        frames.push((head[3], number, head[4]));
        if head[3] == kind && !(kind == PING && head[4] == 0) {
            return frames;
        }
    }
}

/// Some clients treat a reset after the answer as an error and do not show the answer.
#[test]
fn a_request_refused_before_its_body_arrives_is_not_reset() {
    let server = Server::start(Counting::default(), Limits::default());
    let mut stream = server.connect();
    let mut begin = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    begin.extend_from_slice(&frame(4, 0, 0, &[]));
    begin.extend_from_slice(&post(1, "/nope"));
    begin.extend_from_slice(&frame(0, 0, 1, b"{\"widget_sn\":"));
    stream.write_all(&begin).expect("sent");
    let answered = read_until(&mut stream, HEADERS);
    assert!(
        answered.iter().all(|&(kind, ..)| kind != RESET),
        "{answered:?}"
    );
    // The rest of the body, then pings, which are answered after everything that belongs to the
    // stream.
    stream
        .write_all(&frame(0, END_STREAM, 1, b"\"E\"}"))
        .expect("sent");
    for _ in 0..2 {
        stream
            .write_all(&frame(PING, 0, 0, b"8 bytes."))
            .expect("sent");
        let after = read_until(&mut stream, PING);
        let reset = after
            .iter()
            .any(|&(kind, number, _)| kind == RESET && number == 1);
        assert!(!reset, "{after:?}");
    }
    drop(stream);
    server.stop();
}

/// The server need not read more than a client may reasonably have sent before it saw the answer.
#[test]
fn a_request_whose_body_never_ends_is_reset_after_the_response() {
    let server = Server::start(Counting::default(), Limits::default());
    let mut stream = server.connect();
    let mut begin = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    begin.extend_from_slice(&frame(4, 0, 0, &[]));
    begin.extend_from_slice(&post(1, "/nope"));
    stream.write_all(&begin).expect("sent");
    let frames = read_until(&mut stream, RESET);
    let answer = frames.iter().position(|&(kind, ..)| kind == HEADERS);
    assert!(
        answer.is_some_and(|place| place + 1 < frames.len()),
        "{frames:?}"
    );
    drop(stream);
    server.stop();
}
