//! What a run with idempotency keys makes of answers that leave the fate of an operation open.

#![expect(
    clippy::unwrap_used,
    reason = "in the helpers of tests a panic is the failed test"
)]

mod support;

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    thread,
};
use support::{Double, Lie, Server, plan};
use widgets_load::run::{Plan, run};

const NO_CONTENT: &str = "HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n";

/// Returns an error of the service.
fn error(status: &str, code: &str, details: &str) -> String {
    let body =
        format!(r#"{{"code":"{code}","details":"{details}","hint":null,"message":"a test"}}"#);
    let length = body.len();
    format!("HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}")
}

/// Reads a request. Returns `None` if the client sends none.
fn request(stream: &TcpStream) -> Option<String> {
    let mut reader = BufReader::new(stream);
    let mut request = String::new();
    while !request.ends_with("\r\n\r\n") {
        if reader.read_line(&mut request).ok()? == 0 {
            return None;
        }
    }
    let length = request.lines().find_map(|line| {
        let lower = line.to_ascii_lowercase();
        lower.strip_prefix("content-length: ")?.parse().ok()
    });
    let mut body = vec![0; length.unwrap_or(0)];
    reader.read_exact(&mut body).ok()?;
    Some(request + str::from_utf8(&body).unwrap())
}

/// Serves requests, each over its own connection, for ever. A request whose answer is `None` gets
/// none.
fn serve(
    listener: TcpListener,
    answer: impl Fn(&str) -> Option<String> + Send + Sync + 'static,
) -> SocketAddr {
    let address = listener.local_addr().unwrap();
    let answer = Arc::new(answer);
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, answer) = (stream.unwrap(), answer.clone());
            thread::spawn(move || {
                if let Some(answer) = request(&stream).and_then(|request| answer(&request)) {
                    // A client that has hung up needs no answer.
                    drop(stream.write_all(answer.as_bytes()));
                }
            });
        }
    });
    address
}

fn free_listener() -> TcpListener {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap()
}

/// Passes a request on, and returns the answer.
fn forward(server: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(server).unwrap();
    let request = request.replacen("\r\n", "\r\nConnection: close\r\n", 1);
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// Returns a plan for this many additions, one after the other, with keys.
fn additions(server: SocketAddr, requests: u64) -> Plan {
    let mut plan = plan(&format!("http://{server}"));
    plan.session.connections = 1;
    plan.session.mix = "add=1".parse().unwrap();
    plan.session.conflicts = 0.0;
    plan.session.idempotency_keys = true;
    plan.requests = Some(requests);
    plan
}

#[test]
fn refusals_that_say_nothing_about_an_earlier_attempt_do_not_decide_its_fate() {
    let server = Server::start(Double::new(Lie::None));
    let store = server.address;
    let operations = AtomicUsize::new(0);
    let address = serve(free_listener(), move |request| {
        let number = if request.starts_with("POST ") {
            operations.fetch_add(1, Ordering::Relaxed)
        } else {
            usize::MAX
        };
        match number {
            // It is applied, and the answer is lost.
            0 => {
                forward(store, request);
                None
            }
            1 | 9 => Some(error("429 Too Many Requests", "WG429", "")),
            2 | 10 => Some(error("408 Request Timeout", "WG408", "")),
            3 | 11 => Some(error("503 Service Unavailable", "WG506", "")),
            4 => Some(error("401 Unauthorized", "PGRST301", "")),
            5 => Some(error("403 Forbidden", "42501", "")),
            6 => Some(error("409 Conflict", "WG409", "")),
            // The service knows the key.
            7 => Some(NO_CONTENT.into()),
            _ => Some(forward(store, request)),
        }
    });
    let mut plan = additions(address, 20);
    plan.session.follow_changes = true;
    let report = run(plan).unwrap();
    assert_eq!(report.failures, Vec::<String>::new(), "{report}");
    let stretch = &report.stretches[0];
    assert_eq!((stretch.retries, stretch.wrong), (7, 0), "{report}");
    let outcomes = &stretch.kinds["add_widget"].outcomes;
    assert_eq!(outcomes["ok"], 17, "{report}");
    // Those that no earlier attempt preceded were not applied.
    for code in ["WG429", "WG408", "WG506"] {
        assert_eq!(outcomes[code], 1, "{report}");
    }
    assert_eq!(stretch.turned_away.count, 3, "{report}");
    // The widget of the lost answer is read back as one that was acknowledged.
    let audit = report.audit.as_ref().unwrap();
    assert_eq!(audit.unknown_fates_checked, 0, "{report}");
    assert_eq!(
        report.changes.as_ref().unwrap().changes_checked,
        17,
        "{report}"
    );
}

/// While the primary is away, the standby keeps naming it.
#[test]
fn a_lane_goes_back_to_a_primary_that_was_away_for_longer_than_its_redirects_take() {
    let listener = free_listener();
    let primary = listener.local_addr().unwrap();
    let (call, called) = mpsc::channel();
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        request(&stream).unwrap();
        stream.write_all(NO_CONTENT.as_bytes()).unwrap();
        let (stream, _) = listener.accept().unwrap();
        request(&stream).unwrap();
        // It dies with this request.
        drop(listener);
        drop(stream);
        called.recv().unwrap();
        let listener = TcpListener::bind(primary).unwrap();
        serve(listener, |_| Some(NO_CONTENT.into()));
    });
    let asked = AtomicUsize::new(0);
    let standby = serve(free_listener(), move |request| {
        if request.starts_with("GET ") {
            return Some(error("404 Not Found", "WG001", ""));
        }
        // More often than one attempt is redirected.
        if asked.fetch_add(1, Ordering::Relaxed) == 10 {
            call.send(()).unwrap();
        }
        let named = format!("http://{primary}");
        Some(error("503 Service Unavailable", "WG507", &named))
    });
    let mut plan = additions(standby, 2);
    plan.session.during_crash = true;
    plan.audit = None;
    let report = run(plan).unwrap();
    let stretch = &report.stretches[0];
    let outcomes = &stretch.kinds["add_widget"].outcomes;
    assert_eq!(outcomes.get("ok"), Some(&2), "{report}");
    assert!(stretch.retries > 0 && stretch.moves > 5, "{report}");
}
