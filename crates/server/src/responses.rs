//! Answers that are complete before they are sent.

use crate::{connections::Resident, document::File, idempotency, negotiation::Preferences};
use http_body_util::Full;
use hyper::{
    HeaderMap, Response, StatusCode,
    body::Bytes,
    header::{self, HeaderName, HeaderValue},
};
use serde::Serialize;
use widgets_registry::{Applied, Distributed, Widget};

/// What an operation's answer can depend on, in PostgREST's words.
pub(crate) const VARY: HeaderValue = HeaderValue::from_static("Accept, Prefer, Range");
pub(crate) const VARY_ACCEPT: HeaderValue = HeaderValue::from_static("Accept");
const JSON: HeaderValue = HeaderValue::from_static("application/json; charset=utf-8");
pub(crate) const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");
const AS_DECLARED: HeaderValue = HeaderValue::from_static("nosniff");
/// For data: what is stored, and what a sender may see of it, can change at any time.
const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");
/// For pages and their files, which keep their names when the binary changes.
pub(crate) const ASK_AGAIN: HeaderValue = HeaderValue::from_static("no-cache");
/// For pages: no other site needs to see a serial number in an address.
pub(crate) const NO_REFERRER: HeaderValue = HeaderValue::from_static("no-referrer");

/// For pages: a window that opened the page, or was opened by it, has access to it only from the
/// same origin.
pub(crate) const OPENER_POLICY: HeaderName = HeaderName::from_static("cross-origin-opener-policy");
pub(crate) const OWN_WINDOW: HeaderValue = HeaderValue::from_static("same-origin");

/// Makes browsers use the declared media type instead of guessing from the content, which may be
/// written by others, and keeps content out of caches, unless the answer says otherwise: a cache would
/// not know who may see it, and could answer with it after a change.
pub(crate) fn declare(headers: &mut HeaderMap) {
    if headers.contains_key(header::CONTENT_TYPE) {
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, AS_DECLARED);
        headers.entry(header::CACHE_CONTROL).or_insert(NO_STORE);
    }
}

pub(crate) fn of_type(content_type: HeaderValue, body: Bytes) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, content_type);
    response
}

pub(crate) fn page(file: File) -> Response<Full<Bytes>> {
    let (body, headers) = file.into_parts();
    let mut response = Response::new(Full::new(body));
    *response.headers_mut() = headers;
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, ASK_AGAIN);
    response.extensions_mut().insert(Resident);
    response
}

/// Returns the answer to an operation that was applied.
pub(crate) fn answer_applied(applied: Applied, preferences: &Preferences) -> Response<Full<Bytes>> {
    let mut response = empty(StatusCode::NO_CONTENT);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_RANGE, preferences.content_range());
    headers.insert(header::VARY, VARY);
    if let Some(applied) = preferences.applied() {
        headers.insert(PREFERENCE_APPLIED, applied);
    }
    if applied == Applied::Before {
        headers.insert(idempotency::REPLAYED, idempotency::TRUE);
    }
    response
}

/// Returns the answer to a probe, which holds for the moment.
pub(crate) fn alive() -> Response<Full<Bytes>> {
    let mut response = empty(StatusCode::OK);
    response
        .headers_mut()
        .insert(header::CACHE_CONTROL, NO_STORE);
    response
}

pub(crate) fn empty(status: StatusCode) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = status;
    response
}

pub(crate) fn options(allowed: &'static str) -> Response<Full<Bytes>> {
    let mut response = empty(StatusCode::OK);
    let headers = response.headers_mut();
    let any = HeaderValue::from_static("*");
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, any);
    headers.insert(header::ALLOW, HeaderValue::from_static(allowed));
    response
}

/// A widget in an answer: these members in this order.
#[derive(Serialize)]
pub(crate) struct WidgetBody<'a> {
    serial_number: &'a str,
    name: &'a str,
    slots: Vec<SlotBody<'a>>,
}

#[derive(Serialize)]
struct SlotBody<'a> {
    port: &'static str,
    peer: Option<&'a str>,
}

impl<'a> From<&'a Widget> for WidgetBody<'a> {
    fn from(widget: &'a Widget) -> Self {
        let slots = widget.slots.iter().map(|slot| SlotBody {
            port: slot.port.as_str(),
            peer: slot.peer.as_deref(),
        });
        Self {
            serial_number: &widget.serial_number,
            name: &widget.name,
            slots: slots.collect(),
        }
    }
}

pub(crate) fn json(body: &WidgetBody<'_>) -> Response<Full<Bytes>> {
    let mut response = of_type(JSON, encoded(body));
    response.headers_mut().insert(header::VARY, VARY_ACCEPT);
    response
}

fn encoded(body: &impl Serialize) -> Bytes {
    match serde_json::to_vec(body) {
        Ok(body) => body.into(),
        Err(error) => unreachable!("texts are always JSON: {error}"),
    }
}

/// What a store that spans several machines promises less than others, and which of the machines
/// are unreachable.
#[derive(Serialize)]
struct DistributedBody<'a> {
    distributed: bool,
    lists: &'static str,
    neighbourhoods: &'static str,
    changes: &'static str,
    nodes: usize,
    nodes_away: usize,
    away: Option<&'a [String]>,
}

/// Returns the answer to a probe of a service that is ready. Only administrators see the names of
/// machines.
pub(crate) fn ready(distributed: Option<&Distributed>, administers: bool) -> Response<Full<Bytes>> {
    let Some(distributed) = distributed else {
        return alive();
    };
    let body = DistributedBody {
        distributed: true,
        lists: "of one moment for each shard",
        neighbourhoods: "of one moment for each shard",
        changes: "none",
        nodes: distributed.nodes,
        nodes_away: distributed.away.len(),
        away: administers.then_some(&distributed.away),
    };
    of_type(JSON, encoded(&body))
}
