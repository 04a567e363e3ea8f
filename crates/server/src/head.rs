//! Checks of a request's head that HTTP requires beyond hyper's. An intermediary between a client
//! and the service may interpret an ambiguous head differently.

use crate::{
    authority::Authority,
    browsers::SEC_FETCH_SITE,
    error::Malformed,
    given::{Given, Head},
};
use hyper::{
    HeaderMap, Version,
    header::{self, HeaderValue},
    http::request::Parts,
};

/// Checks which host the request is for, how its body is framed, and what it expects. Returns the
/// host, like [`host`].
pub(crate) fn check<'a>(head: &Head<'a>) -> Result<Option<Authority<'a>>, Malformed> {
    let host = check_host(head.parts())?;
    check_given_once(&head.headers)?;
    if head.has(Given::TRANSFER_ENCODING) {
        check_transfer_encoding(&head.headers)?;
    }
    if head.has(Given::EXPECT) {
        check_expectation(head)?;
    }
    Ok(host)
}

/// Checks that the request names exactly one valid host (RFC 9112, 3.2; RFC 9113, 8.3.1).
fn check_host(head: &Parts) -> Result<Option<Authority<'_>>, Malformed> {
    let target = head
        .uri
        .authority()
        .map(hyper::http::uri::Authority::as_str);
    // Neither a user nor a port out of range is allowed (RFC 9110, 4.2.4; RFC 9113, 8.3.1).
    if target.is_some_and(|target| Authority::parse(target.as_bytes()).is_none()) {
        return Err(Malformed::Head(
            "its target is not at a host and perhaps a port",
        ));
    }
    let mut hosts = head.headers.get_all(header::HOST).iter();
    let (host, another) = (hosts.next(), hosts.next());
    if another.is_some() {
        return Err(Malformed::Head("it has more than one Host"));
    }
    let Some(host) = host else {
        // HTTP/1.0 need not have one, and HTTP/2 has it in `:authority`.
        let needed = head.version >= Version::HTTP_11;
        let named = head.version >= Version::HTTP_2 && target.is_some();
        if needed && !named {
            return Err(Malformed::Head("it has no Host"));
        }
        return Ok(target.and_then(|target| Authority::parse(target.as_bytes())));
    };
    let Some(host) = Authority::parse(host.as_bytes()) else {
        return Err(Malformed::Head("its Host is not a host and perhaps a port"));
    };
    let Some(target) = target else {
        return Ok(Some(host));
    };
    let target = Authority::parse(target.as_bytes());
    if head.version >= Version::HTTP_2 && target != Some(host) {
        return Err(Malformed::Head("its Host is not its :authority"));
    }
    Ok(target)
}

/// Checks that headers which decide the sender or the framing of the body occur once. An
/// intermediary might use another occurrence (RFC 9110, 5.3).
fn check_given_once(headers: &HeaderMap) -> Result<(), Malformed> {
    if headers.len() == headers.keys_len() {
        return Ok(());
    }
    for (name, what) in [
        (header::AUTHORIZATION, "it has more than one Authorization"),
        (header::CONTENT_TYPE, "it has more than one Content-Type"),
        (header::ORIGIN, "it has more than one Origin"),
        (SEC_FETCH_SITE, "it has more than one Sec-Fetch-Site"),
    ] {
        if headers.get_all(name).iter().nth(1).is_some() {
            return Err(Malformed::Head(what));
        }
    }
    Ok(())
}

/// Checks the transfer encoding: only `chunked` is understood, and only once (RFC 9112, 6.1, 7).
fn check_transfer_encoding(headers: &HeaderMap) -> Result<(), Malformed> {
    let mut encodings = headers.get_all(header::TRANSFER_ENCODING).iter();
    let (Some(encoding), another) = (encodings.next(), encodings.next()) else {
        return Ok(());
    };
    if another.is_none() && encoding.as_bytes().eq_ignore_ascii_case(b"chunked") {
        return Ok(());
    }
    Err(Malformed::Head("its Transfer-Encoding is not just chunked"))
}

/// Refuses expectations that cannot be met (RFC 9110, 10.1.1).
fn check_expectation(head: &Parts) -> Result<(), Malformed> {
    // HTTP/1.0 has no expectations.
    if head.version < Version::HTTP_11 {
        return Ok(());
    }
    let met = |each: &[u8]| {
        let each = each.trim_ascii();
        each.is_empty() || each.eq_ignore_ascii_case(b"100-continue")
    };
    let all_met = |value: &HeaderValue| value.as_bytes().split(|&byte| byte == b',').all(met);
    if head.headers.get_all(header::EXPECT).iter().all(all_met) {
        return Ok(());
    }
    Err(Malformed::Expectation)
}

/// Returns the host that the request is for: the one in its target if there is one, as proxies and
/// HTTP/2 send it.
pub(crate) fn host(head: &Parts) -> Option<Authority<'_>> {
    let bytes = match head.uri.authority() {
        Some(authority) => authority.as_str().as_bytes(),
        None => head.headers.get(header::HOST)?.as_bytes(),
    };
    Authority::parse(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::Request;

    #[test]
    fn duplicates_of_single_valued_headers_are_refused() {
        for name in ["authorization", "content-type", "origin", "sec-fetch-site"] {
            let once = || Request::get("/live").header("host", "a").header(name, "x");
            for (request, right) in [(once(), true), (once().header(name, "x"), false)] {
                let (head, ()) = request.body(()).expect("a request").into_parts();
                assert_eq!(check(&(&head).into()).is_ok(), right, "{name}");
            }
        }
    }

    /// HTTP/2 can name the host twice, and both must agree (RFC 9113, 8.3.1). The tests over
    /// sockets cover the rest.
    #[test]
    fn an_http_2_request_must_name_one_consistent_host() {
        for (target, host, right) in [
            ("http://a.example/live", None, true),
            ("http://a.example:80/live", Some("A.example:80"), true),
            ("http://a.example/live", Some("b.example"), false),
            ("http://a.example/live", Some("a.example:81"), false),
            ("/live", Some("a.example"), true),
            ("/live", None, false),
            ("http://user@a.example/live", None, false),
            ("http://user@a.example/live", Some("a.example"), false),
            ("http://a.example:99999/live", None, false),
        ] {
            let mut request = Request::get(target).version(Version::HTTP_2);
            if let Some(host) = host {
                request = request.header(header::HOST, host);
            }
            let (head, ()) = request.body(()).expect("a request").into_parts();
            assert_eq!(check(&(&head).into()).is_ok(), right, "{target} {host:?}");
        }
    }
}
