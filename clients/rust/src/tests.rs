//! Tests the client against peers that give prepared answers.

use crate::{ChangesAfter, Client, Error, Filter, Operation, Query, Settings};
use std::{
    io::{Read as _, Write as _},
    net::{Ipv4Addr, TcpListener},
    thread::{self, JoinHandle},
    time::Duration,
};

/// A peer that gives these answers, one per connection, and records the requests.
struct Peer {
    url: String,
    thread: JoinHandle<Vec<String>>,
}

fn peer(answers: &'static [&'static str]) -> Peer {
    peer_that(|_| answers.to_vec())
}

/// Starts a peer whose answers may contain its own URL.
fn peer_that(answers: impl FnOnce(&str) -> Vec<&'static str>) -> Peer {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let url = format!(
        "http://{}/prefix/",
        listener.local_addr().expect("its address")
    );
    let answers = answers(&url);
    let thread = thread::spawn(move || {
        let mut asked = Vec::new();
        for answer in answers {
            let (mut stream, _) = listener.accept().expect("a connection");
            let (mut request, mut buffer) = (String::new(), [0; 4096]);
            while !whole(&request) {
                let length = stream.read(&mut buffer).expect("a request");
                request += std::str::from_utf8(&buffer[..length]).expect("text");
            }
            asked.push(request);
            stream.write_all(answer.as_bytes()).expect("sent");
        }
        asked
    });
    Peer { url, thread }
}

/// Returns whether a request has arrived with its whole body.
fn whole(request: &str) -> bool {
    let Some((head, body)) = request.split_once("\r\n\r\n") else {
        return false;
    };
    let length = head.lines().find_map(|line| {
        line.to_ascii_lowercase()
            .strip_prefix("content-length: ")?
            .parse()
            .ok()
    });
    body.len() >= length.unwrap_or(0)
}

impl Peer {
    fn client(&self) -> Client {
        Client::new(&Settings {
            url: self.url.clone(),
            token: Some("secret".into()),
            ca: None,
            insecure: false,
            timeout: Duration::from_secs(10),
        })
        .expect("right settings")
    }

    /// Returns the first lines of the requests.
    fn asked(self) -> Vec<String> {
        let asked = self.thread.join().expect("the peer ends");
        let line = |request: &String| request.lines().next().unwrap_or_default().to_owned();
        asked.iter().map(line).collect()
    }
}

const NO_CONTENT: &str = "HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n";

#[test]
fn an_operation_carries_its_arguments_and_the_token() {
    let peer = peer(&[NO_CONTENT]);
    let added = peer
        .client()
        .add_widget("E\"", "A", &["P".into(), "R".into()]);
    added.expect("added");
    let asked = peer.thread.join().expect("the peer ends");
    assert!(asked[0].starts_with("POST /prefix/rpc/add_widget HTTP/1.1\r\n"));
    let lower = asked[0].to_ascii_lowercase();
    assert!(
        lower.contains("\r\nauthorization: bearer secret\r\n"),
        "{lower}"
    );
    assert!(lower.contains("\r\ncontent-type: application/json\r\n"));
    let body = asked[0].split("\r\n\r\n").nth(1).expect("a body");
    let body: serde_json::Value = serde_json::from_str(body).expect("JSON");
    assert_eq!(
        body,
        serde_json::json!({"widget_sn": "E\"", "widget_name": "A", "slots": ["P", "R"]})
    );
}

#[test]
fn a_refusal_shows_the_message_of_the_service() {
    let peer = peer(&["HTTP/1.1 404 Not Found\r\nConnection: close\r\n\r\n\
        {\"code\":\"WG001\",\"details\":null,\"hint\":\"look\",\"message\":\"no such widget\"}"]);
    let error = peer.client().remove_widget("E").expect_err("refused");
    assert!(matches!(&error, Error::Refused(refusal) if refusal.status == 404));
    assert_eq!(error.to_string(), "WG001: no such widget; look");
    peer.asked();
}

#[test]
fn an_operation_with_a_lost_response_has_unknown_fate_and_is_not_resent() {
    // Only one answer: a second request would fail to connect, and the error would say so.
    let peer = peer(&[""]);
    let error = peer.client().remove_widget("E").expect_err("no answer");
    assert!(matches!(error, Error::FateUnknown(_)), "{error:?}");
    assert_eq!(peer.asked(), ["POST /prefix/rpc/remove_widget HTTP/1.1"]);
}

/// Returns a standby's answer to an operation.
fn standby_of(primary: &str) -> &'static str {
    let body = format!(
        "HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\n\r\n\
         {{\"code\":\"WG507\",\"details\":\"{primary}\",\"hint\":null,\"message\":\"this is a standby\"}}"
    );
    Box::leak(body.into_boxed_str())
}

#[test]
fn the_client_follows_and_remembers_the_primary_named_by_a_standby() {
    let primary = peer(&[NO_CONTENT, NO_CONTENT]);
    let standby = peer_that(|_| vec![standby_of(&primary.url)]);
    let client = standby.client();
    assert_eq!(client.primary(), None);
    client.remove_widget("E").expect("removed");
    let known = client.clone();
    known.remove_widget("F").expect("removed");
    assert_eq!(client.primary().as_deref(), primary.url.strip_suffix('/'));
    assert_eq!(standby.asked(), ["POST /prefix/rpc/remove_widget HTTP/1.1"]);
    assert_eq!(
        primary.asked(),
        ["POST /prefix/rpc/remove_widget HTTP/1.1"; 2]
    );
}

#[test]
fn the_standby_is_tried_again_if_the_primary_is_unreachable() {
    let gone = peer(&[NO_CONTENT]);
    let standby = peer_that(|_| vec![standby_of(&gone.url), NO_CONTENT]);
    let client = standby.client();
    client.remove_widget("E").expect("removed");
    gone.asked();
    // It was promoted meanwhile.
    client.remove_widget("F").expect("removed");
    assert_eq!(client.primary(), None);
    assert_eq!(standby.asked().len(), 2);
}

#[test]
fn a_loop_of_standbys_ends_in_an_error_that_lists_them() {
    let standby = peer_that(|own| vec![standby_of(own); 5]);
    let error = standby.client().remove_widget("E").expect_err("nobody");
    assert!(matches!(error, Error::Unavailable(_)), "{error:?}");
    let all = [standby.url.trim_end_matches('/'); 5].join(", ");
    let told = format!("asked in turn: {all}; none of them is the primary");
    assert!(error.to_string().ends_with(&told), "{error}");
    standby.asked();
}

#[test]
fn a_primary_with_an_invalid_url_or_another_scheme_is_not_contacted() {
    for named in ["nowhere at all", "ftp://h", "https://h", "http://h:99999"] {
        let standby = peer_that(|_| vec![standby_of(named)]);
        let error = standby.client().remove_widget("E").expect_err("not asked");
        let told = error.to_string();
        assert!(told.starts_with("WG507: this is a standby"), "{told}");
        standby.asked();
    }
}

#[test]
fn wg505_and_a_gateway_timeout_are_reported_as_unknown_fate() {
    for answer in [
        "HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\n\r\n\
         {\"code\":\"WG505\",\"details\":null,\"hint\":null,\"message\":\"who knows\"}",
        "HTTP/1.1 504 Gateway Timeout\r\nConnection: close\r\n\r\n<html>",
    ] {
        let answers: &'static [&'static str] = Box::leak(Box::new([answer]));
        let peer = peer(answers);
        let error = peer.client().remove_widget("E").expect_err("unknown");
        assert!(matches!(error, Error::FateUnknown(_)), "{error:?}");
        peer.asked();
    }
}

/// Any other server answers 200 to what it does not understand.
#[test]
fn an_answer_that_is_not_the_services_leaves_the_fate_of_a_change_unknown() {
    const PAGE: &str = "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n<html>";
    for (answer, why) in [
        (PAGE, "the status must be 204, it is 200"),
        (
            "HTTP/1.1 202 Accepted\r\nConnection: close\r\n\r\n",
            "the status must be 204, it is 202",
        ),
        (
            "HTTP/1.1 500 Internal Server Error\r\nConnection: close\r\n\r\n<html>",
            "the answer is 500 without an error object",
        ),
        // A proxy whose connection to the service ended.
        (
            "HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\n\r\n<html>",
            "the answer is 503 without an error object",
        ),
    ] {
        let answers: &'static [&'static str] = Box::leak(Box::new([answer; 2]));
        let peer = peer(answers);
        let client = peer.client();
        // Enough for one attempt, because the first pause is longer.
        let patience = Duration::from_millis(50);
        let safely = client.safely(&Operation::remove_widget("E"), patience);
        for error in [client.remove_widget("E"), safely] {
            let error = error.expect_err("not applied");
            assert!(matches!(error, Error::FateUnknown(_)), "{error:?}");
            assert!(error.to_string().contains(why), "{error}");
        }
        peer.asked();
    }
    let peer = peer(&[PAGE; 3]);
    let client = peer.client();
    let promoted = client.promote().expect_err("not promoted");
    assert!(matches!(promoted, Error::FateUnknown(_)), "{promoted:?}");
    let named = client.holder(Some("alone")).expect_err("not named");
    assert!(matches!(named, Error::FateUnknown(_)), "{named:?}");
    // This only asks.
    let asked = client.holder(None).expect_err("not shown");
    assert!(matches!(asked, Error::Odd { .. }), "{asked:?}");
    peer.asked();
}

#[test]
fn a_timeout_that_allows_no_answer_is_refused() {
    let settings = Settings {
        url: "localhost:1".into(),
        token: None,
        ca: None,
        insecure: false,
        timeout: Duration::ZERO,
    };
    let refused = Client::new(&settings).expect_err("no time");
    assert_eq!(
        refused.to_string(),
        "the timeout must be at least 1ms, 0ns was given"
    );
}

#[test]
fn an_operation_to_an_unreachable_service_is_reported_as_not_sent() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let url = listener.local_addr().expect("its address").to_string();
    drop(listener);
    let settings = Settings {
        url,
        token: None,
        ca: None,
        insecure: false,
        timeout: Duration::from_secs(10),
    };
    let client = Client::new(&settings).expect("right settings");
    let error = client.remove_widget("E").expect_err("nobody listens");
    assert!(
        matches!(error, Error::Unreachable { sent: false, .. }),
        "{error:?}"
    );
    assert!(
        error.to_string().contains("nobody listens there"),
        "{error}"
    );
}

/// The system of a stopped process accepts connections, and TLS gets no answer. Nothing is sent before
/// that.
#[test]
fn an_operation_is_reported_as_not_sent_if_tls_gets_no_answer() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let settings = Settings {
        url: format!("https://{}", listener.local_addr().expect("its address")),
        token: None,
        ca: None,
        insecure: true,
        timeout: Duration::from_millis(300),
    };
    let client = Client::new(&settings).expect("right settings");
    let error = client.remove_widget("E").expect_err("nobody answers");
    assert!(
        matches!(error, Error::Unreachable { sent: false, .. }),
        "{error:?}"
    );
}

#[test]
fn a_read_is_retried_if_the_service_is_busy() {
    let peer = peer(&[
        "HTTP/1.1 503 Service Unavailable\r\nRetry-After: 0\r\nConnection: close\r\n\r\n\
         {\"code\":\"WG503\",\"details\":null,\"hint\":null,\"message\":\"busy\"}",
        "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n\
         {\"serial_number\":\"a/b\",\"name\":\"\",\"slots\":[{\"port\":\"P\",\"peer\":null}]}",
    ]);
    let (widget, _) = peer.client().get("a/b").expect("at last");
    assert_eq!((&*widget.serial_number, widget.slots.len()), ("a/b", 1));
    assert_eq!(peer.asked(), ["GET /prefix/widgets/a%2Fb HTTP/1.1"; 2]);
}

#[test]
fn a_list_continues_after_the_last_serial_number_until_an_empty_page() {
    let peer = peer(&[
        "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n\
         [{\"serial_number\":\"A\",\"name\":\"\",\"slots\":[]},{\"serial_number\":\"B\",\"name\":\"\",\"slots\":[]}]",
        "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n[]",
    ]);
    let client = peer.client();
    let mut pages = client.list(Query::default(), None, 5);
    assert_eq!(pages.next_page().expect("a page").len(), 2);
    assert_eq!(pages.after(), Some("B"));
    assert!(pages.next_page().expect("a page").is_empty());
    assert!(pages.next_page().expect("nothing more is asked").is_empty());
    assert_eq!(
        peer.asked(),
        [
            "GET /prefix/widgets?order=serial_number.asc&limit=5 HTTP/1.1",
            "GET /prefix/widgets?order=serial_number.asc&limit=3&serial_number=gt.B HTTP/1.1"
        ]
    );
}

#[test]
fn a_count_is_read_from_the_content_range_header() {
    let peer = peer(&[
        "HTTP/1.1 206 Partial Content\r\nContent-Range: 0-0/12345\r\nConnection: close\r\n\r\n",
    ]);
    let query = Query {
        filters: vec![Filter::Free("R".into())],
        ..Query::default()
    };
    assert_eq!(peer.client().count(&query).expect("a count"), 12_345);
    assert!(peer.asked()[0].starts_with("HEAD /prefix/widgets?"));
}

#[test]
fn changes_continue_after_the_next_position_of_the_response() {
    let peer = peer(&[
        "HTTP/1.1 200 OK\r\nNext-Position: p-2\r\nConnection: close\r\n\r\n\
         [{\"position\":\"p-1\",\"at\":\"2026-11-27T11:02:03.000123Z\",\"by\":null,\
           \"operation\":\"remove_widget\",\"widget_sn\":\"E\",\"freed\":[]}]",
        "HTTP/1.1 200 OK\r\nNext-Position: p-2\r\nConnection: close\r\n\r\n[]",
    ]);
    let client = peer.client();
    let operations = ["remove_widget".to_owned(), "add_widget".to_owned()];
    let mut changes = client.changes(ChangesAfter::Now, Some("E"), &operations);
    let page = changes.next_page(Duration::ZERO).expect("a page");
    assert_eq!(page[0].0.widget_sn.as_deref(), Some("E"));
    assert!(
        changes
            .next_page(Duration::from_secs(1))
            .expect("a page")
            .is_empty()
    );
    assert_eq!(*changes.after(), ChangesAfter::Position("p-2".into()));
    let filters = "&widget_sn=eq.E&operation=in.(remove_widget%2Cadd_widget) HTTP/1.1";
    assert_eq!(
        peer.asked(),
        [
            format!("GET /prefix/changes?limit=1000&wait_ms=0&after=now{filters}"),
            format!("GET /prefix/changes?limit=1000&wait_ms=1000&after=p-2{filters}")
        ]
    );
}

const STAYS: &str = "HTTP/1.1 200 OK\r\nNext-Position: p-1\r\nConnection: close\r\n\r\n\
     [{\"position\":\"p-1\",\"at\":\"2026-11-27T11:02:03.000123Z\",\"by\":null,\
       \"operation\":\"remove_widget\",\"widget_sn\":\"E\",\"freed\":[]}]";
const ON_TO_2: &str = "HTTP/1.1 200 OK\r\nNext-Position: p-2\r\nConnection: close\r\n\r\n[]";
const ON_TO_3: &str = "HTTP/1.1 200 OK\r\nNext-Position: p-3\r\nConnection: close\r\n\r\n[]";
const ON_TO_4: &str = "HTTP/1.1 200 OK\r\nNext-Position: p-4\r\nConnection: close\r\n\r\n[]";

/// If the positions did not advance, a client that reads until there is nothing more would never
/// stop.
#[test]
fn change_positions_that_do_not_advance_are_an_error() {
    let stays: &[&str] = &[STAYS, STAYS];
    let circle: &[&str] = &[
        ON_TO_2, ON_TO_3, ON_TO_4, ON_TO_2, ON_TO_3, ON_TO_4, ON_TO_2, ON_TO_3,
    ];
    for (answers, good, why) in [
        (stays, 1, "changes came, and Next-Position stays at \"p-1\""),
        (circle, 0, "Next-Position leads back to \"p-"),
    ] {
        let peer = peer(answers);
        let client = peer.client();
        let mut changes = client.changes(ChangesAfter::Oldest, None, &[]);
        let read = std::iter::repeat_with(|| changes.next_page(Duration::ZERO));
        let outcomes: Vec<_> = read.take(answers.len()).collect();
        let failed = outcomes.iter().position(Result::is_err);
        let failed = failed.expect("it leads nowhere");
        assert!(failed >= good, "{outcomes:?}");
        let error = outcomes[failed].as_ref().expect_err("the first");
        assert!(matches!(error, Error::Odd { .. }), "{error:?}");
        assert!(error.to_string().contains(why), "{error}");
    }
}

/// A position that is repeated on pages without changes is not a cycle: it stays while nothing
/// happens.
#[test]
fn an_unchanged_position_without_changes_is_not_an_error() {
    let peer = peer(&[ON_TO_2, ON_TO_2, ON_TO_2, ON_TO_3, ON_TO_3, ON_TO_4]);
    let client = peer.client();
    let mut changes = client.changes(ChangesAfter::Oldest, None, &[]);
    for _ in 0..6 {
        let page = changes.next_page(Duration::ZERO).expect("a page");
        assert!(page.is_empty());
    }
    peer.asked();
}

#[test]
fn a_list_page_out_of_order_is_an_error() {
    const B: &str = "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n\
        [{\"serial_number\":\"B\",\"name\":\"\",\"slots\":[]}]";
    const A: &str = "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n\
        [{\"serial_number\":\"A\",\"name\":\"\",\"slots\":[]}]";
    const A_A: &str = "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n\
        [{\"serial_number\":\"A\",\"name\":\"\",\"slots\":[]},{\"serial_number\":\"A\",\"name\":\"\",\"slots\":[]}]";
    let same: &[&str] = &[B, B];
    for (answers, descending, why) in [
        (same, false, "\"B\" comes after \"B\", in the order asc"),
        (&[B, A], false, "\"A\" comes after \"B\", in the order asc"),
        (&[A, B], true, "\"B\" comes after \"A\", in the order desc"),
        (
            &[B, A_A],
            true,
            "\"A\" comes after \"A\", in the order desc",
        ),
    ] {
        let peer = peer(answers);
        let client = peer.client();
        let query = Query {
            filters: Vec::new(),
            descending,
        };
        let mut pages = client.list(query, None, u64::MAX);
        assert_eq!(pages.next_page().expect("a page").len(), 1);
        let error = pages.next_page().expect_err("it does not go on");
        assert!(error.to_string().contains(why), "{error}");
    }
}

/// Returns the keys that a peer received.
fn keys(asked: &[String]) -> Vec<String> {
    let key = |request: &String| {
        let lower = request.to_ascii_lowercase();
        let value = lower.split("\r\nidempotency-key: ").nth(1);
        value.and_then(|rest| Some(rest.lines().next()?.to_owned()))
    };
    asked.iter().filter_map(key).collect()
}

const BUSY: &str = "HTTP/1.1 503 Service Unavailable\r\nRetry-After: 0\r\nConnection: close\r\n\r\n\
    {\"code\":\"WG503\",\"details\":null,\"hint\":null,\"message\":\"busy\"}";

#[test]
fn a_safe_operation_is_retried_with_one_key_until_its_fate_is_known() {
    let peer = peer(&[
        "",
        BUSY,
        "HTTP/1.1 409 Conflict\r\nRetry-After: 0\r\nConnection: close\r\n\r\n\
         {\"code\":\"WG409\",\"details\":null,\"hint\":null,\"message\":\"under way\"}",
        NO_CONTENT,
        NO_CONTENT,
    ]);
    let (client, remove) = (peer.client(), Operation::remove_widget("E"));
    let patience = Duration::from_mins(1);
    client.safely(&remove, patience).expect("at last");
    client.safely(&remove, patience).expect("at once");
    let asked = peer.thread.join().expect("the peer ends");
    let keys = keys(&asked);
    assert_eq!(keys.len(), 5, "{asked:?}");
    assert!(keys[..4].iter().all(|key| *key == keys[0]), "{keys:?}");
    assert_ne!(keys[4], keys[0], "another operation");
    // In quotes, as the draft requires.
    assert_eq!((keys[0].len(), &keys[0][..1]), (34, "\""), "{keys:?}");
}

#[test]
fn a_possibly_applied_operation_has_unknown_fate_after_the_last_retry() {
    let peer = peer(&["", BUSY]);
    let remove = Operation::remove_widget("E");
    // Enough for one pause.
    let patience = Duration::from_millis(100);
    let error = peer.client().safely(&remove, patience);
    // The second answer asks for a longer pause than is left.
    assert!(matches!(error, Err(Error::FateUnknown(_))), "{error:?}");
}

/// The service looks at the token before it looks for the key.
#[test]
fn a_refusal_that_does_not_depend_on_the_key_leaves_the_fate_of_an_earlier_attempt_unknown() {
    const EXPIRED: &str = "HTTP/1.1 401 Unauthorized\r\nConnection: close\r\n\r\n\
        {\"code\":\"PGRST303\",\"details\":null,\"hint\":null,\"message\":\"JWT expired\"}";
    const NOT_THE_SERVICE: &str = "HTTP/1.1 404 Not Found\r\nConnection: close\r\n\r\n<html>";
    const REFUSED: &str = "HTTP/1.1 404 Not Found\r\nConnection: close\r\n\r\n\
        {\"code\":\"WG001\",\"details\":null,\"hint\":null,\"message\":\"no such widget\"}";
    let remove = Operation::remove_widget("E");
    // Enough for one pause.
    let one_pause = Duration::from_millis(100);
    for answers in [&["", EXPIRED], &["", NOT_THE_SERVICE]] {
        let peer = peer(answers);
        let error = peer.client().safely(&remove, one_pause);
        assert!(matches!(error, Err(Error::FateUnknown(_))), "{error:?}");
        peer.asked();
    }
    let admitted_again = peer(&["", EXPIRED, NO_CONTENT]);
    let patience = Duration::from_mins(1);
    let done = admitted_again.client().safely(&remove, patience);
    done.expect("applied once");
    for answers in [&["", REFUSED][..], &[EXPIRED][..]] {
        let peer = peer(answers);
        let error = peer.client().safely(&remove, patience);
        assert!(matches!(error, Err(Error::Refused(_))), "{error:?}");
        peer.asked();
    }
}

#[test]
fn a_retry_after_of_zero_does_not_cause_endless_retries() {
    let peer = peer(&[BUSY, BUSY]);
    let remove = Operation::remove_widget("E");
    // Each pause is one second, so this patience allows no third attempt, which nobody would
    // answer.
    let error = peer.client().safely(&remove, Duration::from_secs(1));
    assert!(
        matches!(&error, Err(Error::Unavailable(refusal)) if refusal.code == "WG503"),
        "{error:?}"
    );
    assert_eq!(peer.asked().len(), 2);
}

#[test]
fn a_refused_safe_operation_is_not_retried() {
    let peer = peer(
        &["HTTP/1.1 501 Not Implemented\r\nConnection: close\r\n\r\n\
        {\"code\":\"WG501\",\"details\":null,\"hint\":null,\"message\":\"no keys\"}"],
    );
    let remove = Operation::remove_widget("E");
    let error = peer.client().safely(&remove, Duration::from_mins(1));
    assert!(
        matches!(&error, Err(Error::Refused(refusal)) if refusal.code == "WG501"),
        "{error:?}"
    );
    peer.asked();
}

#[test]
fn an_idempotency_key_invalid_in_a_header_is_refused_before_sending() {
    let settings = Settings {
        url: "localhost:1".into(),
        token: None,
        ca: None,
        insecure: false,
        timeout: Duration::from_secs(1),
    };
    let client = Client::new(&settings).expect("right settings");
    let long = "k".repeat(256);
    for key in ["", "a\"b", "a b", "ä", &long] {
        let outcome = client.safely_as(key, &Operation::remove_widget("E"), Duration::ZERO);
        assert!(matches!(outcome, Err(Error::Settings(_))), "{outcome:?}");
    }
}

#[test]
fn changes_are_read_once_the_service_is_no_longer_busy() {
    const PAGE: &str = "HTTP/1.1 200 OK\r\nNext-Position: p-9\r\nConnection: close\r\n\r\n[]";
    // More attempts than a read makes without patience.
    let peer = peer(&[BUSY, BUSY, BUSY, BUSY, PAGE]);
    let client = peer.client();
    let mut changes = client.changes(ChangesAfter::Position("p-8".into()), None, &[]);
    let page = changes.next_page_patiently(Duration::ZERO, Duration::from_mins(1));
    assert!(page.expect("at last").is_empty());
    assert_eq!(*changes.after(), ChangesAfter::Position("p-9".into()));
    assert_eq!(
        peer.asked(),
        ["GET /prefix/changes?limit=1000&wait_ms=0&after=p-8 HTTP/1.1"; 5]
    );
}

#[test]
fn a_ca_file_that_is_not_a_regular_file_is_refused() {
    let settings = Settings {
        url: "https://localhost:1".into(),
        token: None,
        ca: Some("/dev/zero".into()),
        insecure: false,
        timeout: Duration::from_secs(1),
    };
    let refused = Client::new(&settings).expect_err("it has no end");
    assert!(
        refused.to_string().contains("not a regular file"),
        "{refused}"
    );
}
