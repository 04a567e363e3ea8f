//! HTTP as conversations with the API, over a real store and over stores that fail.
//!
//! This file has what the tests share: sending a request and checking a whole answer.

#![expect(
    clippy::expect_used,
    reason = "in the helpers of tests a panic is the failed test"
)]

mod askers;
mod auth;
mod backup;
mod browsers;
mod changes;
mod fuzz;
mod lists;
mod operations;
mod requests;
mod service;

use http_body_util::{BodyExt as _, Full};
use hyper::{HeaderMap, Request, StatusCode, body::Bytes};
use prometheus::Registry;
use tempfile::TempDir;
use widgets_clock::SystemClock;
use widgets_engine::{Client, Engine};
use widgets_registry::{
    Applied, Ask, Attempt, Distributed, Fault, Lookup, Reason, Rejection, Store, Widget,
    query::{List, Neighbourhood, NeighbourhoodQuery, Page},
};
use widgets_server::{Api, Settings};

pub(crate) const E: &str = r#"{"widget_sn":"E","widget_name":"A","slots":["P","R","R"]}"#;
pub(crate) const F: &str = r#"{"widget_sn":"F","name":"","slots":["P"]}"#;
pub(crate) const E_F_P: &str = r#"{"widget1_sn":"E","widget2_sn":"F","port":"P"}"#;

pub(crate) fn api<S: Store>(store: S) -> Api<S> {
    api_with(store, Settings::default())
}

fn api_with<S: Store>(store: S, settings: Settings) -> Api<S> {
    let api = Api::new(store, settings, Registry::new(), SystemClock::new());
    api.expect("an empty registry")
}

/// A store that is deleted when the test ends.
pub(crate) struct Stored {
    _engine: Engine,
    _directory: TempDir,
}

/// Returns a real, empty store and its API.
pub(crate) fn service(name: &str) -> (Stored, Api<Client>) {
    service_with(name, Settings::default())
}

/// Returns the same with these settings.
pub(crate) fn service_with(name: &str, api_settings: Settings) -> (Stored, Api<Client>) {
    let mut builder = tempfile::Builder::new();
    let directory = builder.prefix(name).tempdir_in(env!("CARGO_TARGET_TMPDIR"));
    let directory = directory.expect("a new directory");
    // Small files, because a test writes little.
    let settings = widgets_engine::Settings {
        queue_operations_max: 16,
        segment_bytes: 1 << 20,
        ..widgets_engine::Settings::default()
    };
    let engine = Engine::open(directory.path(), &settings).expect("a new store");
    let api = api_with(engine.client(), api_settings);
    let stored = Stored {
        _engine: engine,
        _directory: directory,
    };
    (stored, api)
}

pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| {
            value
                .to_str()
                .expect("the headers of these answers are text")
        })
    }

    /// Returns the status and the code of an error, or an empty code.
    pub(crate) fn outcome(&self) -> (u16, &str) {
        let code = self.body.strip_prefix("{\"code\":\"");
        let code = code.and_then(|rest| rest.split('"').next());
        (self.status.as_u16(), code.unwrap_or_default())
    }
}

/// Sends a request whose headers are written as `name: value`.
pub(crate) async fn send<S: Store>(
    api: &Api<S>,
    method: &str,
    uri: &str,
    headers: &[&str],
    body: &str,
) -> Answer {
    let mut request = Request::builder().method(method).uri(uri);
    for header in headers {
        let (name, value) = header.split_once(':').expect("name: value");
        request = request.header(name, value.trim_start());
    }
    let body = Full::new(Bytes::copy_from_slice(body.as_bytes()));
    let request = request.body(body).expect("a request");
    let (head, body) = api.respond(request).await.into_parts();
    let body = body.collect().await.expect("infallible").to_bytes();
    Answer {
        status: head.status,
        headers: head.headers,
        body: String::from_utf8(body.to_vec()).expect("text"),
    }
}

pub(crate) async fn post<S: Store>(api: &Api<S>, function: &str, body: &str) -> Answer {
    let json = ["content-type: application/json"];
    send(api, "POST", &format!("/rpc/{function}"), &json, body).await
}

/// Checks an operation's whole answer: 204, or the error with this status and body.
pub(crate) async fn check<S: Store>(
    api: &Api<S>,
    function: &str,
    body: &str,
    expected: (u16, &str),
) {
    let answer = post(api, function, body).await;
    let got = (answer.status.as_u16(), answer.body.as_str());
    assert_eq!(got, expected, "{function} {body}");
    assert_eq!(
        answer.header("server"),
        Some(concat!("widgets/", env!("CARGO_PKG_VERSION")))
    );
    if expected.0 == 204 {
        assert_eq!(answer.header("content-range"), Some("0-0/*"));
        assert_eq!(answer.header("vary"), Some("Accept, Prefer, Range"));
        assert_eq!(answer.header("content-type"), None);
        assert_eq!(answer.header("preference-applied"), None);
    } else {
        let json = Some("application/json; charset=utf-8");
        assert_eq!(answer.header("content-type"), json);
        let status = format!("PostgREST; error={}", answer.outcome().1);
        assert_eq!(answer.header("proxy-status"), Some(status.as_str()));
        assert_eq!(answer.header("content-range"), None);
        assert_eq!(answer.header("vary"), None);
    }
}

/// A store that answers everything with this fault.
#[derive(Clone)]
pub(crate) struct Failing(pub(crate) Fault);

impl<R: widgets_registry::Request> Ask<R> for Failing {
    async fn ask(&self, _: R) -> Result<R::Answer, R::Error> {
        Err(self.0.clone().into())
    }
}

impl Store for Failing {
    async fn ready(&self) -> Result<(), Fault> {
        Err(self.0.clone())
    }
}

/// A store that accepts everything.
#[derive(Clone)]
pub(crate) struct Willing;

impl Ask<Attempt> for Willing {
    async fn ask(&self, _: Attempt) -> Result<Applied, Rejection> {
        Ok(Applied::Now)
    }
}

impl Ask<Lookup> for Willing {
    async fn ask(&self, _: Lookup) -> Result<Option<Widget>, Fault> {
        Ok(None)
    }
}

impl Ask<List> for Willing {
    async fn ask(&self, list: List) -> Result<Page, Fault> {
        Ok(Page::empty(&list))
    }
}

impl Ask<NeighbourhoodQuery> for Willing {
    async fn ask(&self, _: NeighbourhoodQuery) -> Result<Option<Neighbourhood>, Fault> {
        Ok(None)
    }
}

impl Store for Willing {
    async fn ready(&self) -> Result<(), Fault> {
        Ok(())
    }
}

/// A store that is spread over three machines, of which one is unreachable.
#[derive(Clone)]
pub(crate) struct Spread;

impl<R: widgets_registry::Request> Ask<R> for Spread
where
    Willing: Ask<R>,
{
    async fn ask(&self, request: R) -> Result<R::Answer, R::Error> {
        Willing.ask(request).await
    }
}

impl Store for Spread {
    async fn ready(&self) -> Result<(), Fault> {
        Ok(())
    }

    fn distributed(&self) -> Option<Distributed> {
        Some(Distributed {
            nodes: 3,
            away: vec!["worker2.internal:5432".into()],
        })
    }
}

pub(crate) fn busy() -> Fault {
    Fault::Busy {
        limit: "queue_operations_max = 2048".into(),
        retry_after_seconds: 7,
    }
}
