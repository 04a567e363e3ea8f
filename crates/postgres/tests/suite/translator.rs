//! Simulates a server that speaks another language: a proxy between the server and the store
//! replaces each severity, as `lc_messages` does, independently of the languages that this machine
//! has.

use std::{
    io::{self, Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    thread,
};

/// Listens on a new port for the lifetime of the test's process, and passes everything on to the
/// server on this port.
pub(crate) fn translated(server: u16) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = listener.local_addr().expect("its address").port();
    thread::spawn(move || {
        for client in listener.incoming() {
            let client = client.expect("a client");
            // If the server is down, the proxy closes the connection.
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

/// Passes on the server's messages: a letter, a length that includes itself, and the body.
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

/// Translates the fields of an error or a notice: each is a letter and a text that ends with a NUL.
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
