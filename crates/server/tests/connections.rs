//! Real sockets: limits on connections, and a shutdown that answers what has begun.

#![expect(
    clippy::expect_used,
    reason = "in the helpers of tests a panic is the failed test"
)]

use prometheus::Registry;
use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    sync::Arc,
    thread,
    time::Duration,
};
use tokio::sync::{Semaphore, oneshot};
use widgets_registry::{Command, Fault, Rejection, SerialNumber, Store, Widget};
use widgets_server::{Api, Limits, Settings, SystemClock};

/// Answers a command only when the test lets it.
#[derive(Clone)]
struct SlowStore {
    arrived: Arc<Semaphore>,
    released: Arc<Semaphore>,
}

impl SlowStore {
    fn new() -> Self {
        Self {
            arrived: Arc::new(Semaphore::new(0)),
            released: Arc::new(Semaphore::new(0)),
        }
    }
}

impl Store for SlowStore {
    async fn submit(&self, _: Command) -> Result<(), Rejection> {
        self.arrived.add_permits(1);
        self.released
            .acquire()
            .await
            .expect("never closed")
            .forget();
        Ok(())
    }

    async fn lookup(&self, _: SerialNumber) -> Result<Option<Widget>, Fault> {
        Ok(None)
    }

    async fn ready(&self) -> Result<(), Fault> {
        Ok(())
    }
}

/// A server on a thread of its own, until it is told to stop.
struct Server {
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    thread: thread::JoinHandle<()>,
}

impl Server {
    fn start(store: SlowStore, limits: Limits) -> Self {
        let (stop, stopped) = oneshot::channel();
        let (started, address) = std::sync::mpsc::channel();
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime");
            runtime.block_on(async move {
                let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
                    .await
                    .expect("a free port");
                started
                    .send(listener.local_addr().expect("an address"))
                    .expect("the test waits");
                let api = Api::new(
                    store,
                    Settings::default(),
                    Registry::new(),
                    SystemClock::new(),
                )
                .expect("an empty registry");
                let api = move || api.clone();
                let stopped = async {
                    stopped.await.expect("told to stop");
                };
                widgets_server::serve(listener, &limits, api, stopped)
                    .await
                    .expect("served");
            });
        });
        Self {
            address: address.recv().expect("started"),
            stop,
            thread,
        }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).expect("connected");
        stream
            .set_read_timeout(Some(Duration::from_secs(20)))
            .expect("set");
        stream
    }
}

const REMOVE: &str = "POST /rpc/remove_widget HTTP/1.1\r\nHost: test\r\n\
    Content-Type: application/json\r\nContent-Length: 17\r\n\r\n{\"widget_sn\":\"E\"}";

fn answer(mut stream: TcpStream) -> String {
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("closed in order");
    answer
}

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
    server.stop.send(()).expect("it runs");
    server.thread.join().expect("stopped");
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
    server.stop.send(()).expect("it runs");
    server.thread.join().expect("stopped although one is stuck");
}
