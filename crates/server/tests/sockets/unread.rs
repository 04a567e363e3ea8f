//! Unread answers.

use crate::*;
use std::io::{Read as _, Write as _};

pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a short frame");
    let mut frame = length.to_be_bytes()[1..].to_vec();
    frame.extend_from_slice(&[kind, flags]);
    frame.extend_from_slice(&stream.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

/// Returns a `GET` of this path; the literal and the index are HPACK (RFC 7541).
fn get(stream: u32, path: &str) -> Vec<u8> {
    let length = u8::try_from(path.len()).expect("a short path");
    let mut block = vec![0x82, 0x86, 0x04, length];
    block.extend_from_slice(path.as_bytes());
    block.extend_from_slice(b"\x01\x04test");
    // END_STREAM, END_HEADERS
    frame(1, 5, stream, &block)
}

/// Connects an HTTP/2 client whose flow-control window allows no byte of an answer.
fn without_window(server: &Server) -> TcpStream {
    let mut stream = server.connect();
    let mut begin = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    begin.extend_from_slice(&frame(4, 0, 0, &[0, 4, 0, 0, 0, 0]));
    stream.write_all(&begin).expect("sent");
    stream
}

/// Reports whether the server ends the connection although it keeps pinging.
fn is_cut(mut stream: TcpStream) -> bool {
    let short = Some(Duration::from_millis(5));
    stream.set_read_timeout(short).expect("set");
    for _ in 0..3000 {
        thread::sleep(Duration::from_millis(5));
        if stream.write_all(&frame(6, 0, 0, b"8 bytes.")).is_err() {
            return true;
        }
        match stream.read(&mut [0; 4096]) {
            Ok(0) => return true,
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return true,
            _ => {}
        }
    }
    false
}

#[test]
fn a_client_that_leaves_a_response_unread_is_cut_off_despite_pings() {
    let limits = Limits {
        answer_timeout: Duration::from_millis(200),
        ..Limits::default()
    };
    let server = Server::start(Counting::default(), limits);
    let mut waits = without_window(&server);
    waits.write_all(&get(1, "/nope")).expect("sent");
    assert!(is_cut(waits));
    server.stop();
}

#[test]
fn a_client_with_too_many_unread_bytes_is_cut_off_and_others_served() {
    let limits = Limits {
        unread_bytes_max: 64 << 10,
        answer_timeout: Duration::from_hours(1),
        ..Limits::default()
    };
    let server = Server::start(Counting::default(), limits);
    let mut greedy = without_window(&server);
    let requests = (0..200).map(|each| get(2 * each + 1, "/nope/nope"));
    greedy
        .write_all(&requests.collect::<Vec<_>>().concat())
        .expect("sent");
    assert!(is_cut(greedy));
    let mut good = server.connect();
    let asks = b"GET /nope HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n";
    good.write_all(asks).expect("sent");
    let answer = answer(good);
    assert!(answer.starts_with("HTTP/1.1 404 "), "{answer}");
    server.stop();
}
