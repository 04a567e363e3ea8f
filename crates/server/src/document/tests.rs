//! Compares the document with the running service.

use super::examples::{Answered, Example, PRIMARY, SECRET, Sent, State, all};
use crate::{
    Api, Authentication, AuthenticationSettings, BrowserSettings, Code, KeySet, RateLimit,
    RateLimitSettings, Replication, Roles, Settings, error::Error,
};
use http_body_util::BodyExt as _;
use hyper::{
    HeaderMap, Request,
    body::{Body, Bytes, Frame},
    header::HeaderName,
};
use prometheus::Registry;
use serde_json::Value;
use std::{
    any::Any,
    collections::BTreeSet,
    convert::Infallible,
    num::NonZero,
    path::PathBuf,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};
use tokio::sync::{mpsc, watch};
use widgets_clock::{Clock, SystemClock, Timer};
use widgets_engine::{Client, Engine};
use widgets_registry::{
    Ask, Attempt, ChangeFilter, Changes, Fault, Feed, FeedError, Lookup, Name, Position, Promised,
    Reason, Refusal, Rejection, SerialNumber, Store, Widget,
    query::{List, NeighbourhoodQuery, Page, Rows},
};

/// A store that answers everything with this fault.
#[derive(Clone)]
struct Failing(Rejection, Option<Position>);

impl<R: widgets_registry::Request> Ask<R> for Failing {
    async fn ask(&self, _: R) -> Result<R::Answer, R::Error> {
        let rejection: Box<dyn Any> = Box::new(self.0.clone());
        Err(match rejection.downcast::<R::Error>() {
            Ok(rejection) => *rejection,
            Err(_) => self.fault().into(),
        })
    }
}

/// A standby that follows.
struct Following;

impl Replication for Following {
    fn taker(&self) -> crate::Taker {
        crate::Taker::Primary(PRIMARY.into())
    }

    fn settled(&self) -> crate::Settled {
        unreachable!("nobody waits for it")
    }

    fn ready(&self) -> Result<(), Reason> {
        Ok(())
    }

    fn media_type(&self) -> &'static str {
        unreachable!("nobody asks it for a copy")
    }

    fn tell(&self, _: crate::Tell, _: &str) -> crate::Told {
        unreachable!("nobody tells it of its role")
    }

    fn send(&self, _: &str, _: mpsc::Receiver<Bytes>, _: watch::Receiver<bool>) -> crate::Sending {
        unreachable!("nobody asks it for a copy")
    }
}

impl Failing {
    /// Returns its answer for requests that cannot be refused.
    fn fault(&self) -> Fault {
        match &self.0 {
            Rejection::Fault(fault) => fault.clone(),
            Rejection::Refused(refusal) | Rejection::Replayed(refusal) => Fault::Unavailable {
                reason: Reason::new("it only refuses", refusal.to_string()),
            },
        }
    }
}

impl Store for Failing {
    async fn ready(&self) -> Result<(), Fault> {
        Err(self.fault())
    }

    fn feed(&self) -> Option<Arc<dyn Feed>> {
        Some(Arc::new(Forgetful(self.1?)))
    }
}

/// A feed that keeps nothing before this position.
struct Forgetful(Position);

impl Feed for Forgetful {
    fn newest(&self) -> Promised<Result<Position, FeedError>> {
        self.oldest()
    }

    fn oldest(&self) -> Promised<Result<Position, FeedError>> {
        Box::pin(std::future::ready(Ok(self.0)))
    }

    fn read(
        &self,
        _: Position,
        _: Arc<ChangeFilter>,
        _: usize,
    ) -> Promised<Result<Changes, FeedError>> {
        let gone = FeedError::Gone { oldest: self.0 };
        Box::pin(std::future::ready(Err(gone)))
    }

    /// A later position may still be reached, but never is.
    fn reached(&self, position: Position) -> Promised<Result<(), FeedError>> {
        if position > self.0 {
            return Box::pin(std::future::pending());
        }
        let gone = FeedError::Gone { oldest: self.0 };
        Box::pin(std::future::ready(Err(gone)))
    }

    fn changed(&self, _: Position) -> Promised<()> {
        Box::pin(std::future::pending())
    }

    fn known_newest(&self) -> Option<Position> {
        Some(self.0)
    }
}

/// A store that never answers.
#[derive(Clone)]
struct Silent;

impl<R: widgets_registry::Request> Ask<R> for Silent {
    async fn ask(&self, _: R) -> Result<R::Answer, R::Error> {
        std::future::pending().await
    }
}

impl Store for Silent {
    async fn ready(&self) -> Result<(), Fault> {
        std::future::pending().await
    }
}

/// A store whose widgets have the longest names, all of them control characters. It answers only
/// lists.
#[derive(Clone)]
struct Long;

impl Ask<List> for Long {
    async fn ask(&self, list: List) -> Result<Page, Fault> {
        let widget = Widget {
            serial_number: SerialNumber::new("serial_number", "E").expect("within the limits"),
            name: Name::new("name", "\u{1}".repeat(1024)).expect("within the limits"),
            slots: Vec::new(),
        };
        let rows = vec![widget; list.limit as usize];
        let scanned = rows.len() as u64;
        Ok(Page {
            rows: Rows::Widgets(rows),
            total: None,
            scanned,
        })
    }
}

macro_rules! not_asked {
    ($($request:ty),+) => {
        $(impl Ask<$request> for Long {
            async fn ask(
                &self,
                _: $request,
            ) -> Result<
                <$request as widgets_registry::Request>::Answer,
                <$request as widgets_registry::Request>::Error,
            > {
                std::future::pending().await
            }
        })+
    };
}

not_asked!(Attempt, Lookup, NeighbourhoodQuery);

impl Store for Long {
    async fn ready(&self) -> Result<(), Fault> {
        Ok(())
    }
}

/// A body in one piece, perhaps followed by nothing, not even its end.
struct Sending {
    piece: Option<String>,
    stalled: bool,
}

impl Body for Sending {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.piece.take() {
            Some(piece) => Poll::Ready(Some(Ok(Frame::data(piece.into())))),
            // The timer wakes the task.
            None if self.stalled => Poll::Pending,
            None => Poll::Ready(None),
        }
    }
}

/// A data directory that is deleted when the test ends.
struct Directory(PathBuf);

impl Directory {
    fn new() -> Self {
        let name = format!("widgets-document-{}", std::process::id());
        Self(std::env::temp_dir().join(name))
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}

fn api<S: Store>(store: S) -> Api<S> {
    on_clock(store, SystemClock::new())
}

fn on_clock<S: Store>(store: S, clock: impl Clock) -> Api<S> {
    let registry = Registry::new();
    Api::new(store, Settings::default(), registry, clock).expect("an empty registry")
}

/// A clock that advances by a millisecond whenever it is read, however long the machine takes, and
/// whose timers never complete. It is needed because a store with threads does not follow the
/// paused time of a runtime.
#[derive(Default)]
struct Untimed {
    system: SystemClock,
    looks: AtomicU64,
}

impl Clock for Untimed {
    fn now(&self) -> Duration {
        Duration::from_millis(self.looks.fetch_add(1, Ordering::Relaxed))
    }

    fn unix_time(&self) -> Duration {
        self.system.unix_time()
    }

    fn sleep(&self, duration: Duration) {
        self.system.sleep(duration);
    }

    fn timer(&self, _: Duration) -> Timer {
        Box::pin(std::future::pending())
    }
}

async fn send<S: Store>(
    api: &Api<S>,
    method: &str,
    uri: &str,
    headers: &[(&str, &str)],
    body: Sending,
) -> (u16, HeaderMap, String) {
    let mut request = Request::builder().method(method).uri(uri);
    for &(name, value) in headers {
        request = request.header(name, value);
    }
    let request = request.body(body).expect("a request");
    let (head, body) = api.respond(request).await.into_parts();
    let body = body.collect().await.expect("infallible").to_bytes();
    let body = String::from_utf8(body.to_vec()).expect("text");
    (head.status.as_u16(), head.headers, body)
}

/// Returns the headers of an answer that the document of this response omits but should name.
fn undocumented(headers: &HeaderMap, response: &Value) -> Vec<String> {
    let known = response["headers"].as_object();
    let names = headers.keys().map(HeaderName::as_str).filter(|name| {
        let is_named = |each: &String| each.eq_ignore_ascii_case(name);
        // Headers of every server, and those that describe the body.
        let is_everyones = matches!(
            *name,
            "server" | "connection" | "content-type" | "x-content-type-options" | "content-length"
        );
        // Browsers know these from their own standard.
        let is_of_browsers = name.starts_with("access-control-");
        !is_everyones && !is_of_browsers && !known.is_some_and(|known| known.keys().any(is_named))
    });
    names.map(str::to_owned).collect()
}

/// Collects the names of all headers in the document, in lower case.
fn documented(value: &Value, names: &mut BTreeSet<String>) {
    let members: Vec<&Value> = match value {
        Value::Object(members) => {
            if let Some(Value::Object(headers)) = members.get("headers") {
                names.extend(headers.keys().map(|name| name.to_ascii_lowercase()));
            }
            members.values().collect()
        }
        Value::Array(items) => items.iter().collect(),
        _ => Vec::new(),
    };
    for member in members {
        documented(member, names);
    }
}

/// Returns an authentication with two roles: readers may read, writers may also write.
fn guarded(anonymous_role: Option<String>) -> AuthenticationSettings {
    AuthenticationSettings {
        role_claim: "role".into(),
        roles: Roles {
            read: vec!["reader".into(), "writer".into()],
            write: vec!["writer".into()],
            admin: Vec::new(),
        },
        anonymous_role,
        ..AuthenticationSettings::default()
    }
}

fn whole(body: impl Into<String>) -> Sending {
    Sending {
        piece: Some(body.into()),
        stalled: false,
    }
}

/// Sends the example's request in its state.
async fn play(example: &Example, real: &Api<Client>) -> (u16, HeaderMap, String) {
    let (method, uri, headers) = (example.method, &example.uri, example.headers);
    let body = match example.body {
        Sent::Nothing => String::new(),
        Sent::Text(text) | Sent::Stalled(text) => text.to_owned(),
        Sent::TooLarge(text) => {
            let more = Settings::default().body_bytes_max + 1 - text.len();
            text.to_owned() + &" ".repeat(more)
        }
    };
    let stalled = matches!(example.body, Sent::Stalled(_));
    let body = || Sending {
        piece: Some(body.clone()),
        stalled,
    };
    match &example.given {
        State::Failing => {
            let api = match &example.answer {
                Answered::Refused(Error::Rejected(rejection)) => {
                    api(Failing(rejection.clone(), None))
                }
                Answered::Refused(Error::ChangesGone(oldest)) => {
                    api(Failing(Refusal::KeyInUse.into(), Some(*oldest)))
                }
                Answered::Refused(
                    Error::PositionUnknown(newest) | Error::PositionAwaited { newest, .. },
                ) => api(Failing(Refusal::KeyInUse.into(), *newest)),
                Answered::Refused(Error::NoChanges) => api(Failing(Refusal::KeyInUse.into(), None)),
                _ => {
                    panic!("{}: a failing store has nothing but that", example.name)
                }
            };
            send(&api, method, uri, headers, body()).await
        }
        State::Guarded { anonymous } => {
            let settings = guarded(anonymous.then(|| "reader".into()));
            let keys = KeySet::parse(SECRET).expect("a secret");
            let authentication = Authentication::new(settings, Some(keys));
            let api = real.clone().with_authentication(Arc::new(authentication));
            send(&api, method, uri, headers, body()).await
        }
        State::Slow => send(&api(Silent), method, uri, headers, body()).await,
        State::Following => {
            let api = real.clone().with_replication(Arc::new(Following));
            send(&api, method, uri, headers, body()).await
        }
        State::Long => send(&api(Long), method, uri, headers, body()).await,
        State::Unfetched => {
            // Nobody fetches any keys.
            let (authentication, _) = Authentication::with_fetched_keys(guarded(None));
            let api = real.clone().with_authentication(Arc::new(authentication));
            send(&api, method, uri, headers, body()).await
        }
        State::Local => {
            let settings = BrowserSettings {
                loopback_names_only: true,
                ..BrowserSettings::default()
            };
            let api = real.clone().with_browsers(settings);
            send(&api, method, uri, headers, body()).await
        }
        State::Sent(before) => {
            send(real, method, uri, headers, whole(*before)).await;
            send(real, method, uri, headers, body()).await
        }
        State::Asked => {
            let one = NonZero::<u32>::MIN;
            let api = real
                .clone()
                .with_rate_limit(Arc::new(RateLimit::new(RateLimitSettings {
                    requests_per_second: one,
                    burst_requests: one,
                })));
            send(&api, method, uri, headers, body()).await;
            send(&api, method, uri, headers, body()).await
        }
        State::After(operations) => {
            for serial_number in ["E", "F"] {
                let body = format!(r#"{{"widget_sn":"{serial_number}"}}"#);
                let (status, ..) = send(real, "POST", "/rpc/remove_widget", &[], whole(body)).await;
                assert!(status == 204 || status == 404);
            }
            for (operation, body) in *operations {
                let uri = format!("/rpc/{operation}");
                let (status, _, answer) = send(real, "POST", &uri, &[], whole(*body)).await;
                assert_eq!((status, &*answer), (204, ""), "{operation} {body}");
            }
            send(real, method, uri, headers, body()).await
        }
    }
}

/// Returns the object of the document that holds the responses to the example's request.
fn responses<'a>(document: &'a Value, example: &Example) -> &'a Value {
    match &example.path {
        Some(path) => &document["paths"][path][example.method.to_ascii_lowercase()]["responses"],
        None => &document["components"]["responses"],
    }
}

#[tokio::test(start_paused = true)]
async fn the_service_answers_every_example_as_documented() {
    let directory = Directory::new();
    // Small files, because the examples write little.
    let settings = widgets_engine::Settings {
        queue_operations_max: 16,
        // However slow the machine is, nothing times out.
        queue_wait_ms_max: 600_000,
        segment_bytes: 1 << 20,
        ..widgets_engine::Settings::default()
    };
    let engine = Engine::open(&directory.0, &settings).expect("a new store");
    let api = on_clock(engine.client(), Untimed::default());
    let (status, _, document) = send(&api, "GET", "/", &[], whole("")).await;
    assert_eq!(status, 200);
    let document: Value = serde_json::from_str(&document).expect("JSON");
    assert_eq!(document["openapi"], "3.1.0");
    let (mut seen, mut unnamed) = (BTreeSet::new(), Vec::new());

    for example in all(&Settings::default()) {
        let what = format!("{:?} {}", example.path, example.name);
        let (status, headers, body) = play(&example, &api).await;
        let expected = match &example.answer {
            Answered::Applied => (204, String::new()),
            Answered::Widget(widget) => (200, (*widget).to_owned()),
            Answered::Rows { status, body, .. } => (*status, (*body).to_owned()),
            Answered::Refused(error) => {
                if let Error::Rejected(Rejection::Refused(refusal)) = error {
                    assert_eq!(refusal.code(), error.code().as_str());
                }
                let body = serde_json::to_string(&error.body(false)).expect("JSON");
                (error.code().status().as_u16(), body)
            }
        };
        assert_eq!((status, &body), (expected.0, &expected.1), "{what}");

        let key = match example.path {
            Some(_) => status.to_string(),
            None => format!("Elsewhere{status}"),
        };
        let response = &responses(&document, &example)[key];
        assert!(response.is_object(), "{what}: the status is documented");
        let strange = undocumented(&headers, response).into_iter();
        unnamed.extend(strange.map(|name| format!("{what} {status}: {name}")));
        assert!(headers.contains_key("x-request-id"), "{what}: {headers:?}");
        seen.extend(headers.keys().map(ToString::to_string));
        if !body.is_empty() {
            let media_type = match example.answer {
                Answered::Rows { media_type, .. } => media_type,
                _ => "application/json",
            };
            // Anything that is not JSON is shown as it is.
            let body = serde_json::from_str(&body).unwrap_or(Value::String(body));
            let shown = &response["content"][media_type]["examples"][example.name];
            assert_eq!(shown["value"], body, "{what}");
        }
        if let Some(plain) = example.plain_body() {
            let path = example.path.as_deref().expect("a body has a path");
            let request = &document["paths"][path]["post"]["requestBody"];
            let shown = &request["content"]["application/json"]["examples"][example.name];
            assert_eq!(shown["value"], plain, "{what}");
        }
    }
    // A repeated answer has the headers of the first one, and is marked.
    let (keyed, add) = (
        &[("Idempotency-Key", "again")],
        r#"{"widget_sn":"again","name":"","slots":[]}"#,
    );
    let taken = &[("Idempotency-Key", "taken")];
    for (headers, status) in [(keyed, 204), (keyed, 204), (taken, 409), (taken, 409)] {
        let sent = send(&api, "POST", "/rpc/add_widget", headers, whole(add)).await;
        assert_eq!(sent.0, status, "{}", sent.2);
        let response =
            &document["paths"]["/rpc/add_widget"]["post"]["responses"][status.to_string()];
        let strange = undocumented(&sent.1, response).into_iter();
        unnamed.extend(strange.map(|name| format!("again {status}: {name}")));
        seen.extend(sent.1.keys().map(ToString::to_string));
    }
    // These are not examples: a stream has no end, and the others have no fixed body.
    for (path, accept) in [
        ("/changes", "application/json"),
        ("/changes", "text/event-stream"),
        ("/", "application/json"),
        ("/", "text/html"),
        ("/live", "*/*"),
        ("/ready", "*/*"),
        ("/metrics", "*/*"),
    ] {
        let request = Request::get(path).header("accept", accept);
        let request = request.body(whole("")).expect("a request");
        let answer = api.respond(request).await;
        let response = &document["paths"][path]["get"]["responses"][answer.status().as_str()];
        let strange = undocumented(answer.headers(), response).into_iter();
        unnamed.extend(strange.map(|name| format!("{path} {accept}: {name}")));
        seen.extend(answer.headers().keys().map(ToString::to_string));
    }
    assert!(unnamed.is_empty(), "not documented: {unnamed:#?}");
    let mut named = BTreeSet::new();
    documented(&document, &mut named);
    let unseen: Vec<_> = named.difference(&seen).collect();
    assert!(
        unseen.is_empty(),
        "{unseen:?} are documented, and no answer has them"
    );
}

#[test]
fn every_error_code_has_an_example() {
    let examples = all(&Settings::default());
    for code in Code::ALL {
        let shows = |example: &Example| match &example.answer {
            Answered::Refused(error) => error.code() == code,
            _ => false,
        };
        assert!(examples.iter().any(shows), "{code:?}");
    }
}

/// Collects the places of all examples of responses in this part of the document.
fn collect_places(value: &Value, place: &str, places: &mut BTreeSet<String>) {
    match value {
        Value::Object(members) => {
            for (name, value) in members {
                let place = format!("{place}/{name}");
                match (name.as_str(), value) {
                    ("requestBody", _) => {}
                    ("examples", Value::Object(examples)) => {
                        places.extend(examples.keys().map(|name| format!("{place}/{name}")));
                    }
                    _ => collect_places(value, &place, places),
                }
            }
        }
        Value::Array(items) => {
            for item in items {
                collect_places(item, place, places);
            }
        }
        _ => {}
    }
}

/// Returns the place of the example's response in the document. `None` if it has no body.
fn place_of(example: &Example) -> Option<String> {
    let (status, media_type) = match &example.answer {
        Answered::Applied => return None,
        Answered::Widget(_) => (200, "application/json"),
        Answered::Rows {
            status, media_type, ..
        } => (*status, *media_type),
        Answered::Refused(error) => (error.code().status().as_u16(), "application/json"),
    };
    let (method, name) = (example.method.to_ascii_lowercase(), example.name);
    let response = match &example.path {
        Some(path) => format!("/paths/{path}/{method}/responses/{status}"),
        None => format!("/components/responses/Elsewhere{status}"),
    };
    Some(format!("{response}/content/{media_type}/examples/{name}"))
}

#[test]
fn every_response_example_in_the_document_is_tested() {
    let settings = Settings::default();
    let security = super::Security {
        proofs: Authentication::off().proofs(),
        client_certificates: None,
    };
    let document = serde_json::from_slice(&super::json(&settings, security)).expect("JSON");
    let (mut shown, mut tested) = (BTreeSet::new(), BTreeSet::new());
    collect_places(&document, "", &mut shown);
    for example in all(&settings) {
        if let Some(place) = place_of(&example) {
            assert!(!tested.contains(&place), "two examples have {place}");
            tested.insert(place);
        }
    }
    let untested: Vec<_> = shown.difference(&tested).collect();
    assert!(untested.is_empty(), "not tested: {untested:#?}");
    let missing: Vec<_> = tested.difference(&shown).collect();
    assert!(missing.is_empty(), "not in the document: {missing:#?}");
}

/// A request that waits for a position has no timeout here: the shutdown ends it.
#[tokio::test]
async fn a_shutdown_ends_requests_that_wait_for_a_position() {
    let newest = Position {
        store: 1,
        epoch: 1,
        sequence: 1,
    };
    let store = Failing(Refusal::KeyInUse.into(), Some(newest));
    let api = on_clock(store, Untimed::default());
    let next = "0000000000000001-00000001-0000000000000002";
    let headers = [("Read-After", next)];
    let asked = send(&api, "GET", "/widgets/E", &headers, whole(""));
    let mut asked = std::pin::pin!(asked);
    let mut context = Context::from_waker(std::task::Waker::noop());
    assert!(asked.as_mut().poll(&mut context).is_pending());
    api.end_streams();
    let (status, headers, body) = asked.await;
    assert_eq!(status, 503);
    assert!(headers.contains_key("retry-after"));
    assert!(body.contains("WG503"), "{body}");
}
