//! A server that speaks another language: what stands between it and the store puts other words in the
//! place of each severity, as `lc_messages` does, whatever languages this machine has.

use std::{
    io::{self, Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    thread,
};

/// Listens on a port of its own, for as long as the test's process lives, and passes everything on to
/// the server on this one.
pub(crate) fn translated(server: u16) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = listener.local_addr().expect("its address").port();
    thread::spawn(move || {
        for client in listener.incoming() {
            let client = client.expect("a client");
            // A server that is away is one that hangs up.
            let Ok(server) = TcpStream::connect(("127.0.0.1", server)) else {
                continue;
            };
            let (mut from, mut to) = clones(&client, &server);
            thread::spawn(move || {
                drop(io::copy(&mut from, &mut to));
                drop(to.shutdown(Shutdown::Write));
            });
            let (mut to, mut from) = clones(&client, &server);
            thread::spawn(move || {
                drop(translate(&mut from, &mut to));
                drop(to.shutdown(Shutdown::Both));
            });
        }
    });
    port
}

fn clones(one: &TcpStream, two: &TcpStream) -> (TcpStream, TcpStream) {
    let clone = |stream: &TcpStream| stream.try_clone().expect("a clone");
    (clone(one), clone(two))
}

/// Messages of the server: a letter, a length that counts itself, and so many bytes.
fn translate(from: &mut impl Read, to: &mut impl Write) -> io::Result<()> {
    loop {
        let mut head = [0; 5];
        from.read_exact(&mut head)?;
        let [kind, length @ ..] = head;
        let mut body = vec![0; u32::from_be_bytes(length) as usize - 4];
        from.read_exact(&mut body)?;
        if matches!(kind, b'E' | b'N') {
            body = in_german(&body);
        }
        let length = u32::try_from(body.len() + 4).expect("a short message");
        to.write_all(&[kind])?;
        to.write_all(&length.to_be_bytes())?;
        to.write_all(&body)?;
    }
}

/// The fields of an error or a notice: a letter and a text each, which a NUL ends.
fn in_german(fields: &[u8]) -> Vec<u8> {
    let mut translated = Vec::new();
    for field in fields.split_inclusive(|&byte| byte == 0) {
        let word: &[u8] = match field {
            b"SERROR\0" => b"SFEHLER\0",
            b"SFATAL\0" => b"SFATALER FEHLER\0",
            b"SPANIC\0" => b"SPANIK\0",
            b"SWARNING\0" => b"SWARNUNG\0",
            b"SNOTICE\0" => b"SHINWEIS\0",
            other => other,
        };
        translated.extend_from_slice(word);
    }
    translated
}
