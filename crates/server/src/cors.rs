//! Requests of pages from other origins (CORS), answered like PostgREST. Whether a page may send
//! them is decided elsewhere; this module only informs its browser.

use crate::given::{Given, Head};
use http_body_util::Full;
use hyper::{
    HeaderMap, Method, Response,
    body::Bytes,
    header::{self, HeaderValue},
};

const METHODS: HeaderValue =
    HeaderValue::from_static("GET, POST, PATCH, PUT, DELETE, OPTIONS, HEAD");
/// The headers that PostgREST names, then all others in an answer that a page may want to read. The
/// last ones are added by proxies.
const EXPOSED: HeaderValue = HeaderValue::from_static(
    "Content-Encoding, Content-Location, Content-Range, Content-Type, Date, Location, Server, \
     Transfer-Encoding, Range-Unit, Allow, Preference-Applied, Proxy-Status, Retry-After, \
     WWW-Authenticate, Idempotency-Replayed, Next-Position, Position, X-Request-Id",
);
const TRUE: HeaderValue = HeaderValue::from_static("true");
const ORIGIN: HeaderValue = HeaderValue::from_static("Origin");
const MAX_AGE_SECONDS: HeaderValue = HeaderValue::from_static("86400");

/// How many bytes of the headers that a page wants to send are echoed. No real page sends as many,
/// and the echo is kept in memory until it is read.
const REQUESTED_BYTES_MAX: usize = 1024;

/// Reports whether a page of another origin may have sent the request.
pub(crate) fn is_cross_origin(head: &Head<'_>) -> bool {
    head.has(Given::ORIGIN)
}

/// Reports whether this is a preflight: a browser asks what it may send.
pub(crate) fn is_preflight(head: &Head<'_>) -> bool {
    head.method == Method::OPTIONS
        && is_cross_origin(head)
        && head
            .headers
            .contains_key(header::ACCESS_CONTROL_REQUEST_METHOD)
}

/// Returns the answer to a preflight.
pub(crate) fn preflight(headers: &HeaderMap) -> Response<Full<Bytes>> {
    let mut allowed = b"Authorization".to_vec();
    if let Some(requested) = headers.get(header::ACCESS_CONTROL_REQUEST_HEADERS) {
        for name in requested.as_bytes().split(|&byte| byte == b',') {
            let name = name.trim_ascii();
            if allowed.len() + name.len() > REQUESTED_BYTES_MAX {
                break;
            }
            allowed.extend_from_slice(b", ");
            allowed.extend_from_slice(name);
        }
    }
    allowed.extend_from_slice(b", Accept, Accept-Language, Content-Language");
    let mut response = Response::new(Full::default());
    let headers = response.headers_mut();
    headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, METHODS);
    if let Ok(allowed) = HeaderValue::from_bytes(&allowed) {
        headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, allowed);
    }
    headers.insert(header::ACCESS_CONTROL_MAX_AGE, MAX_AGE_SECONDS);
    response
}

/// Lets the page read the answer, also of a request with its user's certificate if `credentials`.
pub(crate) fn allow(headers: &mut HeaderMap, (origin, credentials): (HeaderValue, bool)) {
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    if credentials {
        headers.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, TRUE);
        headers.append(header::VARY, ORIGIN);
    }
}

/// Lets the page read the headers that matter.
pub(crate) fn expose(headers: &mut HeaderMap) {
    headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
}
