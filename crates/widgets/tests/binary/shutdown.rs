//! How the service shuts down.

use crate::{
    asking::{wait_for_log, wait_until},
    service::{Directory, Service, Signal, shim},
};
use std::fs::File;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

/// A request whose headers have arrived, and its body except for the last byte.
struct Begun(TcpStream);

const LAST_BYTE: &[u8] = b"}";

impl Begun {
    async fn new(service: &Service, serial_number: &str) -> Self {
        let mut stream = TcpStream::connect(service.address)
            .await
            .expect("a connection");
        let body = format!(r#"{{"widget_sn":"{serial_number}","widget_name":"","slots":[]}}"#);
        let head = format!(
            "POST /rpc/add_widget HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\nExpect: 100-continue\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).await.expect("sent");
        // The service asks for the body, so it has begun the request.
        let mut asks = [0; 25];
        stream
            .read_exact(&mut asks)
            .await
            .expect("an interim answer");
        assert_eq!(asks.as_slice(), b"HTTP/1.1 100 Continue\r\n\r\n");
        let body = &body.as_bytes()[..body.len() - LAST_BYTE.len()];
        stream.write_all(body).await.expect("sent");
        Self(stream)
    }

    /// Sends the last byte, and returns the answer up to the end of the connection.
    async fn finish(mut self) -> String {
        self.0.write_all(LAST_BYTE).await.expect("sent");
        let mut answer = String::new();
        self.0.read_to_string(&mut answer).await.expect("an answer");
        answer
    }
}

async fn lookup(service: &Service, serial_number: &str) -> String {
    let mut stream = TcpStream::connect(service.address)
        .await
        .expect("a connection");
    let request = format!(
        "GET /widgets/{serial_number} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("an answer");
    answer
}

#[tokio::test]
async fn requests_in_progress_at_shutdown_are_answered_and_durable() {
    let directory = Directory::new("shutdown");
    for signal in [Signal::TERM, Signal::INT] {
        let service = Service::start(directory.path(), &[]);
        let name = |number| format!("signal{}-{number}", signal.as_raw());
        let mut begun = Vec::new();
        for number in 0..16 {
            begun.push(Begun::new(&service, &name(number)).await);
        }
        // An idle connection does not delay the service.
        let idle = TcpStream::connect(service.address)
            .await
            .expect("a connection");
        drop(std::fs::remove_file(directory.path().join("log")));
        service.signal(signal);
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        while TcpStream::connect(service.address).await.is_ok() {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        for request in begun {
            let answer = request.finish().await;
            assert!(
                answer.starts_with("HTTP/1.1 204 No Content\r\n"),
                "{answer}"
            );
        }
        assert_eq!(service.wait().code(), Some(0));
        drop(idle);

        let service = Service::start(directory.path(), &[]);
        for number in 0..16 {
            let answer = lookup(&service, &name(number)).await;
            assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        }
    }
}

#[tokio::test]
async fn a_second_signal_ends_the_service_immediately() {
    let directory = Directory::new("second_signal");
    let service = Service::start(directory.path(), &["--shutdown-timeout-ms", "3600000"]);
    let begun = Begun::new(&service, "E").await;
    service.signal(Signal::TERM);
    // The signal arrived.
    wait_for_log(directory.path(), "stopping");
    service.signal(Signal::INT);
    assert_eq!(service.wait().code(), Some(1));
    drop(begun);
}

/// The end of the service waits for the threads of its store, and those for the disk.
#[tokio::test]
async fn a_second_signal_ends_a_service_whose_disk_hangs() {
    let directory = Directory::new("second_signal_disk");
    let path = directory.path();
    let (shim, held, reached) = (shim(path), path.join("held"), path.join("reached"));
    let variables = [
        ("LD_PRELOAD", shim.as_path()),
        ("HELD_SYNC", &held),
        ("HELD_SYNC_REACHED", &reached),
    ];
    let service = Service::start_with(path, &["--shutdown-timeout-ms", "50"], &variables);
    let unfinished = Begun::new(&service, "E").await;
    let mut finished = Begun::new(&service, "F").await;
    File::create(&held).expect("a file");
    finished.0.write_all(LAST_BYTE).await.expect("sent");
    wait_until("the sync is reached", || reached.exists());
    service.signal(Signal::TERM);
    // From here on only the store is left to be closed.
    wait_for_log(path, "shutdown_timeout");
    service.signal(Signal::INT);
    assert_eq!(service.wait().code(), Some(1));
    drop((unfinished, finished));
}

#[tokio::test]
async fn an_unfinished_request_is_aborted_at_the_shutdown_timeout() {
    let directory = Directory::new("shutdown_timeout");
    let service = Service::start(directory.path(), &["--shutdown-timeout-ms", "50"]);
    let begun = Begun::new(&service, "E").await;
    service.signal(Signal::TERM);
    assert_eq!(service.wait().code(), Some(0));
    drop(begun);
    assert!(Service::log(directory.path()).contains("shutdown_timeout"));
}
