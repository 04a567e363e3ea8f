//! Streams of changes over real connections: beside operations over HTTP/2, to subscribers that do
//! not read, and at a shutdown.

use crate::{
    asking::{answer, connect, wait_until},
    service::{Directory, Service, Signal},
};
use bytes::Bytes;
use h2::{RecvStream, client::SendRequest};
use serde_json::Value;
use std::{
    cell::Cell,
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{Shutdown, TcpStream},
    thread,
    time::Duration,
};

/// Opens an HTTP/2 connection by prior knowledge. The client never makes room for what it does not
/// read.
async fn http2(service: &Service) -> SendRequest<Bytes> {
    let stream = tokio::net::TcpStream::connect(service.address).await;
    let stream = stream.expect("connected");
    let (sender, connection) = h2::client::handshake(stream).await.expect("HTTP/2");
    // It ends with the service, gracefully or not: the streams show which.
    tokio::spawn(async move { drop(connection.await) });
    sender.ready().await.expect("ready")
}

fn request(service: &Service, method: &str, path: &str, accept: &str) -> http::Request<()> {
    let uri = format!("http://{}{path}", service.address);
    let request = http::Request::builder().method(method).uri(uri);
    let request = request.header("accept", accept);
    let request = request.header("content-type", "application/json");
    request.body(()).expect("a request")
}

/// Opens a stream of changes and returns its body.
async fn follow(
    service: &Service,
    sender: &SendRequest<Bytes>,
    path: &str,
    accept: &str,
) -> RecvStream {
    let mut sender = sender.clone().ready().await.expect("ready");
    let request = request(service, "GET", path, accept);
    let (response, _) = sender.send_request(request, true).expect("sent");
    let response = response.await.expect("an answer");
    assert_eq!(response.status(), 200);
    response.into_body()
}

async fn add(service: &Service, sender: &SendRequest<Bytes>, serial_number: String, name: &str) {
    let mut sender = sender.clone().ready().await.expect("ready");
    let request = request(service, "POST", "/rpc/add_widget", "*/*");
    let (response, mut sending) = sender.send_request(request, false).expect("sent");
    let body = format!(r#"{{"widget_sn":"{serial_number}","widget_name":"{name}","slots":[]}}"#);
    sending.send_data(body.into(), true).expect("sent");
    assert_eq!(response.await.expect("an answer").status(), 204);
}

/// Returns the next piece of a stream, and makes room for more. `None` at a proper end.
async fn piece(body: &mut RecvStream) -> Option<String> {
    let data = body.data().await?.expect("an end in order");
    let released = body.flow_control().release_capacity(data.len());
    released.expect("it was given");
    Some(String::from_utf8(data.to_vec()).expect("text"))
}

async fn until(body: &mut RecvStream, wanted: &str) -> String {
    let mut text = String::new();
    while !text.contains(wanted) {
        text += &piece(body).await.expect("no end before that");
    }
    text
}

#[tokio::test]
async fn http2_streams_share_a_connection_with_operations_and_end_at_shutdown() {
    let directory = Directory::new("streams_http2");
    let service = Service::start(directory.path(), &[]);
    let sender = http2(&service).await;
    let mut events = follow(&service, &sender, "/changes", "text/event-stream").await;
    let path = "/changes?widget_sn=eq.99";
    let mut lines = follow(&service, &sender, path, "application/x-ndjson").await;
    for number in 0..100 {
        add(&service, &sender, number.to_string(), "x").await;
    }
    let told = until(&mut events, r#""widget_sn":"99""#).await;
    assert_eq!(told.matches("event: add_widget\n").count(), 100, "{told}");
    let told = until(&mut lines, "\n").await;
    assert!(told.contains(r#""widget_sn":"99""#), "{told}");
    service.signal(Signal::TERM);
    for body in [&mut events, &mut lines] {
        let mut rest = String::new();
        while let Some(piece) = piece(body).await {
            rest += &piece;
        }
        assert_eq!(rest, "");
    }
    assert_eq!(service.wait().code(), Some(0));
}

/// Opens a stream and reads only the head of its answer.
fn subscribe(service: &Service, path: &str) -> BufReader<TcpStream> {
    let mut stream = connect(service);
    let request =
        format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nAccept: application/x-ndjson\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("sent");
    let mut stream = BufReader::with_capacity(512, stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        assert!(stream.read_line(&mut head).expect("a head") > 0, "{head}");
    }
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    stream
}

#[test]
fn a_shutdown_ends_http1_streams_only_between_changes() {
    let directory = Directory::new("streams_shutdown");
    let service = Service::start(directory.path(), &[]);
    let body = r#"{"widget_sn":"E","widget_name":"","slots":[]}"#;
    let (status, _) = answer(&service, "", "POST /rpc/add_widget", body);
    assert_eq!(status, 204);
    let mut streams: Vec<_> = (0..20).map(|_| subscribe(&service, "/changes")).collect();
    service.signal(Signal::TERM);
    for stream in &mut streams {
        let mut rest = String::new();
        stream.read_to_string(&mut rest).expect("an end");
        // It may end before it has sent anything: a client that resumes misses nothing.
        assert!(rest.ends_with("0\r\n\r\n"), "the last chunk: {rest:?}");
        let told = rest.contains(r#""widget_sn":"E""#);
        assert_eq!(rest.contains("}\n\r\n0\r\n\r\n"), told, "{rest:?}");
    }
    assert_eq!(service.wait().code(), Some(0));
}

/// With long names, so many changes exceed what the system buffers when nobody reads.
const CHANGES: usize = 10_000;
const NAME_BYTES: usize = 1_000;

fn resident_kib(service: &Service) -> u64 {
    let status = format!("/proc/{}/status", service.id());
    let status = fs::read_to_string(status).expect("a process");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse().ok());
    kib.expect("what is resident")
}

fn subscribers(service: &Service) -> u64 {
    let (_, metrics) = answer(service, "", "GET /metrics", "");
    let count = (metrics.lines()).find_map(|line| {
        line.strip_prefix("widgets_changes_subscribers ")?
            .parse()
            .ok()
    });
    count.expect("the metric")
}

/// Returns the content of a chunked HTTP/1.1 body that may be cut off anywhere.
fn content(mut bytes: &[u8]) -> String {
    let mut content = Vec::new();
    while let Some(end) = bytes.windows(2).position(|end| end == b"\r\n") {
        let size = str::from_utf8(&bytes[..end]).expect("text");
        let size = usize::from_str_radix(size, 16).expect("a size");
        let rest = &bytes[end + 2..];
        content.extend_from_slice(&rest[..size.min(rest.len())]);
        bytes = rest.get(size + 2..).unwrap_or_default();
    }
    String::from_utf8(content).expect("text, as names here are ASCII")
}

#[tokio::test]
async fn slow_subscribers_are_disconnected_use_little_memory_and_can_resume() {
    let directory = Directory::new("streams_unread");
    let timeouts = ["--answer-timeout-ms=1000", "--idle-timeout-ms=2000"];
    let service = Service::start(directory.path(), &timeouts);
    let name = "n".repeat(NAME_BYTES);
    let sender = http2(&service).await;
    // Fewer than a connection may have in flight at a time.
    for forty in 0..CHANGES / 40 {
        let adds = (0..40).map(|each| add(&service, &sender, format!("{forty}-{each}"), &name));
        futures_util::future::join_all(adds).await;
    }
    let before = resident_kib(&service);
    let mut slow: Vec<_> = (0..20).map(|_| subscribe(&service, "/changes")).collect();
    let mut unread = Vec::new();
    for _ in 0..20 {
        // A connection each, whose window is never replenished.
        let sender = http2(&service).await;
        let body = follow(&service, &sender, "/changes", "application/x-ndjson").await;
        unread.push((sender, body));
    }
    let most = Cell::new(0);
    wait_until("all are disconnected", || {
        most.set(most.get().max(resident_kib(&service)));
        subscribers(&service) == 0
    });
    // Forty times all changes would be half a gigabyte.
    let grown = most.get().saturating_sub(before);
    assert!(grown < 64 << 10, "{grown} KiB for 40 subscribers");
    drop(unread);
    let mut bytes = Vec::new();
    // What was in flight up to the cut, however that appears.
    drop(slow.swap_remove(0).read_to_end(&mut bytes));
    let text = content(&bytes);
    // The last line may be incomplete.
    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    let lines = whole.lines().filter(|line| !line.is_empty());
    let mut told: Vec<Value> =
        (lines.map(serde_json::from_str).collect::<Result<_, _>>()).expect("changes");
    assert!(!told.is_empty() && told.len() < CHANGES, "{}", told.len());
    while told.len() < CHANGES {
        let last = told[told.len() - 1]["position"].as_str().expect("text");
        let (status, page) = answer(&service, "", &format!("GET /changes?after={last}"), "");
        assert_eq!(status, 200, "{page}");
        let page: Vec<Value> = serde_json::from_str(&page).expect("changes");
        assert!(!page.is_empty(), "{} of {CHANGES}", told.len());
        told.extend(page);
    }
    let mut names: Vec<&str> = (told.iter())
        .map(|change| change["widget_sn"].as_str().expect("text"))
        .collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!((told.len(), names.len()), (CHANGES, CHANGES));
}

#[test]
fn a_stream_without_changes_is_not_closed_by_the_idle_timeout() {
    let directory = Directory::new("streams_idle");
    let service = Service::start(directory.path(), &["--idle-timeout-ms=400"]);
    let mut stream = subscribe(&service, "/changes?after=now");
    // Several times the idle timeout of a connection.
    thread::sleep(Duration::from_secs(2));
    let body = r#"{"widget_sn":"E","widget_name":"","slots":[]}"#;
    let (status, _) = answer(&service, "", "POST /rpc/add_widget", body);
    assert_eq!(status, 204);
    let mut line = String::new();
    while !line.contains(r#""widget_sn":"E""#) {
        line.clear();
        assert!(stream.read_line(&mut line).expect("no end") > 0);
    }
}

/// The client closes its side of the connection while there are no changes to send. The service
/// notices that without writing to the connection.
#[test]
fn a_disconnected_subscriber_is_removed_before_the_next_heartbeat() {
    let directory = Directory::new("streams_left");
    let service = Service::start(directory.path(), &[]);
    let mut stream = subscribe(&service, "/changes?after=now");
    let shut = stream.get_ref().shutdown(Shutdown::Write);
    shut.expect("it is open");
    let mut rest = [0; 64];
    assert_eq!(stream.read(&mut rest).expect("an end"), 0);
    wait_until("the subscriber is removed", || subscribers(&service) == 0);
}

#[test]
fn a_subscriber_above_the_limit_is_refused_until_another_one_leaves() {
    let directory = Directory::new("streams_many");
    let service = Service::start(directory.path(), &["--changes-subscribers-max=1"]);
    let one = subscribe(&service, "/changes");
    let mut stream = connect(&service);
    let events = "Accept: text/event-stream\r\n";
    let (status, body) = crate::asking::ask(&mut stream, "GET /changes", events, "");
    assert_eq!(status, 503, "{body}");
    assert!(body.contains("changes.subscribers_max = 1"), "{body}");
    // Pages do not count as subscribers.
    assert_eq!(answer(&service, "", "GET /changes", "").0, 200);
    drop(one);
    wait_until("the subscriber is removed", || subscribers(&service) == 0);
    drop(subscribe(&service, "/changes"));
}
