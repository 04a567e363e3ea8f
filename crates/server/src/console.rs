//! The console over HTTP: its files, and what a browser may do with them.

use crate::responses::{ASK_AGAIN, NO_REFERRER, OPENER_POLICY, OWN_WINDOW};
use http_body_util::Full;
use hyper::{
    Response, StatusCode,
    body::Bytes,
    header::{self, HeaderValue},
};
use widgets_console::CONTENT_SECURITY_POLICY;

const POLICY: HeaderValue = HeaderValue::from_static(CONTENT_SECURITY_POLICY);
/// Relative, so that a proxy's path prefix is preserved.
const PAGE: HeaderValue = HeaderValue::from_static("console/");

/// Returns the file of this name, if the console has it.
pub(crate) fn file(name: &str) -> Option<Response<Full<Bytes>>> {
    let file = widgets_console::file(name)?;
    let content = Bytes::from_static(file.content.as_bytes());
    let mut response = Response::new(Full::new(content));
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static(file.media_type),
    );
    headers.insert(header::CONTENT_SECURITY_POLICY, POLICY);
    headers.insert(header::REFERRER_POLICY, NO_REFERRER);
    headers.insert(OPENER_POLICY, OWN_WINDOW);
    headers.insert(header::CACHE_CONTROL, ASK_AGAIN);
    Some(response)
}

/// Redirects from `/console` to the page.
pub(crate) fn redirect() -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = StatusCode::PERMANENT_REDIRECT;
    response.headers_mut().insert(header::LOCATION, PAGE);
    response
}
