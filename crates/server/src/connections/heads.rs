//! Heads of requests: limited in bytes, on each connection and in total.
//!
//! An HTTP/2 client can have dozens of requests under way on one connection, and can repeat an
//! earlier header with a single byte. So the memory that a head takes counts from the moment it is
//! decoded until its request was read to the end, or answered without reading it, and its stream
//! has ended. On each connection the first request under way gets [`FREE_BYTES`] that do not count.
//! `connections_max` limits their total, and a client that sends one request after another is not
//! refused because of what others hold.
//!
//! The length of a single head is checked here as well: over HTTP/1.1 hyper limits only the
//! received part of an incomplete head. The buffer of a used connection may be twice as long, so a
//! longer head that arrives at once would pass.
//!
//! A decoded head shares memory with everything else that arrived in the same read, such as a body.
//! So it is copied; otherwise a head of a few bytes would keep kilobytes in memory.

use super::{HEADER_BYTES_MAX, answers::STREAM_BYTES, metrics::ConnectionMetrics};
use crate::budget::{NoRoom, Share, Taken};
use hyper::{
    HeaderMap, Request, StatusCode, Uri, Version,
    body::Bytes,
    header::{HeaderName, HeaderValue},
    http::uri::{Authority, PathAndQuery},
};
use std::{ops::Range, sync::Arc};

/// As many as hyper accepts over HTTP/1.1, where it answers 431 to more.
const LINES_MAX: usize = 100;

/// The free bytes for the head of one request on each connection. Ordinary heads stay far below it.
const FREE_BYTES: usize = STREAM_BYTES + (8 << 10);

/// Over HTTP/1.1, where there is one request at a time, heads with at most this many lines fit into
/// the free bytes.
const FREE_LINES: usize = 16;

/// What a line takes at most besides its name and its value: the map of them may be half empty.
const LINE_BYTES: usize = 256;

/// The bytes around a header over HTTP/1.1: a colon, a space and the end of the line.
const AROUND_HEADER_BYTES: usize = 4;

/// The bytes around the target: spaces, the version and the end of the line.
const AROUND_TARGET_BYTES: usize = 12;

/// The heads of one connection.
pub(super) struct Heads {
    share: Arc<Share>,
    metrics: ConnectionMetrics,
}

/// Why a request is not examined at all.
#[derive(Clone, Copy, Debug)]
pub(super) enum Unheld {
    /// The request is answered with only this status, as hyper does over HTTP/1.1.
    Status(StatusCode),
    /// There is no room for its head.
    NoRoom(NoRoom),
}

impl Heads {
    pub(super) fn new(share: Arc<Share>, metrics: ConnectionMetrics) -> Self {
        Self { share, metrics }
    }

    /// Takes room for a head, and makes the head take no more than that. The result holds the room.
    pub(super) fn hold<B>(&self, request: &mut Request<B>) -> Result<Option<Taken>, Unheld> {
        self.take(request).inspect_err(|unheld| {
            self.metrics.head_refused(*unheld);
        })
    }

    fn take<B>(&self, request: &mut Request<B>) -> Result<Option<Taken>, Unheld> {
        let is_http2 = request.version() >= Version::HTTP_2;
        if !is_http2 && wire_size(request) > HEADER_BYTES_MAX as usize {
            return Err(Unheld::Status(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE));
        }
        if !is_http2 && request.headers().len() <= FREE_LINES {
            return Ok(None);
        }
        if request.headers().len() > LINES_MAX {
            return Err(Unheld::Status(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE));
        }
        let mut taken = self.share.begin();
        let bytes = STREAM_BYTES + size(request.uri(), request.headers());
        let free = if taken.is_first() { FREE_BYTES } else { 0 };
        taken
            .add(bytes.saturating_sub(free))
            .map_err(Unheld::NoRoom)?;
        let (uri, headers) = copied(request.uri(), request.headers());
        *request.uri_mut() = uri;
        *request.headers_mut() = headers;
        Ok(Some(taken))
    }
}

/// Returns the number of bytes that the head has over HTTP/1.1, without optional spaces.
fn wire_size<B>(request: &Request<B>) -> usize {
    let header = |(name, value): (&HeaderName, &HeaderValue)| {
        AROUND_HEADER_BYTES + name.as_str().len() + value.len()
    };
    let uri = request.uri();
    let authority = uri.authority().map_or(0, |it| it.as_str().len());
    let target = authority + uri.path_and_query().map_or(0, |it| it.as_str().len());
    let headers: usize = request.headers().iter().map(header).sum();
    AROUND_TARGET_BYTES + request.method().as_str().len() + target + headers + 2
}

/// Returns approximately how much memory a head takes.
fn size(uri: &Uri, headers: &HeaderMap) -> usize {
    let line =
        |(name, value): (&HeaderName, &HeaderValue)| LINE_BYTES + name.as_str().len() + value.len();
    let lines: usize = headers.iter().map(line).sum();
    let authority = uri.authority().map_or(0, |it| it.as_str().len());
    lines + authority + uri.path_and_query().map_or(0, |it| it.as_str().len())
}

/// Returns the same head in memory of its own.
fn copied(uri: &Uri, headers: &HeaderMap) -> (Uri, HeaderMap) {
    let (authority, path) = (uri.authority(), uri.path_and_query());
    let mut text = Vec::with_capacity(size(uri, headers) - headers.len() * LINE_BYTES);
    let mut add = |part: &[u8]| -> Range<usize> {
        let start = text.len();
        text.extend_from_slice(part);
        start..text.len()
    };
    let authority = authority.map(|it| add(it.as_str().as_bytes()));
    let path = path.map(|it| add(it.as_str().as_bytes()));
    let values: Vec<_> = headers.values().map(|it| add(it.as_bytes())).collect();
    let text = Bytes::from(text);

    let mut parts = uri.clone().into_parts();
    // What was parsed once can be parsed again; if that fails, the original is kept.
    let authority = authority.and_then(|at| Authority::from_maybe_shared(text.slice(at)).ok());
    parts.authority = authority.or(parts.authority);
    let path = path.and_then(|at| PathAndQuery::from_maybe_shared(text.slice(at)).ok());
    parts.path_and_query = path.or(parts.path_and_query);
    let uri = Uri::from_parts(parts).unwrap_or_else(|_| uri.clone());

    let mut own = HeaderMap::with_capacity(headers.keys_len());
    for ((name, value), at) in headers.iter().zip(values) {
        let own_name = HeaderName::from_bytes(name.as_str().as_bytes());
        let own_value = HeaderValue::from_maybe_shared(text.slice(at));
        let mut own_value = own_value.unwrap_or_else(|_| value.clone());
        own_value.set_sensitive(value.is_sensitive());
        own.append(own_name.unwrap_or_else(|_| name.clone()), own_value);
    }
    (uri, own)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::budget::Budget;

    fn connection(budget: &Arc<Budget>) -> Heads {
        Heads::new(Share::new(budget.clone()), ConnectionMetrics::default())
    }

    fn request(lines: usize) -> Request<()> {
        let mut request = Request::get("http://test.example:80/widgets?select=*&name=eq.%41");
        for each in 0..lines {
            let name = format!("x-{}", each / 2);
            request = request.header(name, format!("värde {each}"));
        }
        let request = request.version(Version::HTTP_2);
        let mut secret = HeaderValue::from_static("Bearer x");
        secret.set_sensitive(true);
        let request = request.header("authorization", secret);
        request.body(()).expect("a request")
    }

    #[test]
    fn a_copied_request_head_equals_the_original() {
        let given = request(9);
        let mut held = request(9);
        let heads = connection(&Budget::new(0));
        let taken = heads.hold(&mut held).expect("the first is free");
        assert_eq!(held.uri(), given.uri());
        assert_eq!(held.headers(), given.headers());
        assert!(held.headers()["authorization"].is_sensitive());
        drop(taken);
    }

    #[test]
    fn concurrent_request_heads_beyond_the_first_are_limited() {
        let budget = Budget::new(1 << 20);
        let heads = connection(&budget);
        let first = heads.hold(&mut request(10)).expect("the first");
        assert_eq!(budget.taken(), 0);
        let mut held = Vec::new();
        let limit = loop {
            match heads.hold(&mut request(90)) {
                Ok(taken) => held.push(taken),
                Err(Unheld::NoRoom(NoRoom(limit))) => break limit,
                Err(Unheld::Status(status)) => panic!("{status}"),
            }
        };
        assert_eq!(limit, 1 << 20);
        assert_eq!(held.len(), 2, "of 28 KiB, in a sixteenth of a MiB");
        assert!(budget.taken() <= 1 << 16);
        let other = connection(&budget);
        assert!(
            other.hold(&mut request(90)).is_ok(),
            "a head of another connection"
        );
        drop((first, held));
        assert_eq!(budget.taken(), 0);
    }

    #[test]
    fn a_head_with_many_headers_counts_over_http_1_too() {
        let budget = Budget::new(1 << 20);
        let heads = connection(&budget);
        let over_http1 = |lines| {
            let mut request = request(lines);
            *request.version_mut() = Version::HTTP_11;
            request
        };
        assert!(matches!(heads.hold(&mut over_http1(8)), Ok(None)));
        let held = heads.hold(&mut over_http1(90)).expect("there is room");
        assert!(budget.taken() > 10 << 10, "{}", budget.taken());
        drop(held);
        assert_eq!(budget.taken(), 0);
    }

    #[test]
    fn an_http_1_head_over_the_size_limit_is_refused_with_431() {
        let heads = connection(&Budget::new(1 << 20));
        let head = |bytes: usize| {
            let request = Request::post("/rpc/add_widget").header("host", "t");
            let empty = request.header("x", "").body(()).expect("a request");
            let length = bytes - wire_size(&empty);
            let mut request = empty;
            let value = HeaderValue::try_from("x".repeat(length)).expect("a value");
            request.headers_mut().insert("x", value);
            request
        };
        let text = b"POST /rpc/add_widget HTTP/1.1\r\nhost: t\r\nx: xxx\r\n\r\n";
        assert_eq!(wire_size(&head(text.len())), text.len());
        let most = HEADER_BYTES_MAX as usize;
        assert!(matches!(heads.hold(&mut head(most)), Ok(None)));
        let refused = heads.hold(&mut head(most + 1));
        assert!(matches!(refused, Err(Unheld::Status(status)) if status == 431));
    }

    #[test]
    fn an_http_2_head_with_too_many_headers_is_refused_with_431() {
        let heads = connection(&Budget::new(1 << 20));
        assert!(heads.hold(&mut request(LINES_MAX - 1)).is_ok());
        let refused = heads.hold(&mut request(LINES_MAX));
        assert!(matches!(refused, Err(Unheld::Status(status)) if status == 431));
    }
}
