//! The interactive page: Swagger UI from the binary, so that it works without internet access.

use crate::responses::{NO_REFERRER, OPENER_POLICY, OWN_WINDOW};
use hyper::{
    body::Bytes,
    header::{self, HeaderMap, HeaderValue},
};

const HTML: &str = include_str!("page.html");
const START: &str = include_str!("start.js");
const OWN_STYLES: &str = include_str!("page.css");
/// Extracted from Swagger UI's archive by `build.rs`.
const STYLES: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/swagger-ui.css.gz"));
const BUNDLE: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/swagger-ui-bundle.js.gz"));

/// The page loads nothing from elsewhere and sends nothing elsewhere. Swagger UI sets styles by
/// script, and its images are in its style sheet.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; \
     img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; \
     frame-ancestors 'none'",
);

/// A file that a browser loads.
pub(crate) struct File {
    body: Bytes,
    headers: HeaderMap,
}

/// Returns the page itself.
pub(crate) fn html() -> File {
    let mut file = File::new(
        Bytes::from_static(HTML.as_bytes()),
        "text/html; charset=utf-8",
    );
    file.headers.insert(header::CONTENT_SECURITY_POLICY, POLICY);
    file.headers.insert(header::REFERRER_POLICY, NO_REFERRER);
    file.headers.insert(OPENER_POLICY, OWN_WINDOW);
    file
}

impl File {
    fn new(body: Bytes, content_type: &'static str) -> Self {
        let content_type = HeaderValue::from_static(content_type);
        let headers = HeaderMap::from_iter([(header::CONTENT_TYPE, content_type)]);
        Self { body, headers }
    }

    /// Returns the file of this name, if the page loads it.
    pub(crate) fn find(name: &str) -> Option<Self> {
        match name {
            "start.js" => Some(Self::new(
                Bytes::from_static(START.as_bytes()),
                "text/javascript; charset=utf-8",
            )),
            "page.css" => Some(Self::new(
                Bytes::from_static(OWN_STYLES.as_bytes()),
                "text/css; charset=utf-8",
            )),
            "swagger-ui.css" => Some(Self::bundled(STYLES, "text/css; charset=utf-8")),
            "swagger-ui-bundle.js" => Some(Self::bundled(BUNDLE, "text/javascript; charset=utf-8")),
            _ => None,
        }
    }

    /// Returns one of Swagger UI's own files, compressed. Every browser accepts that, and nobody
    /// else asks.
    fn bundled(gzip: &'static [u8], content_type: &'static str) -> Self {
        let mut file = Self::new(Bytes::from_static(gzip), content_type);
        let encoding = HeaderValue::from_static("gzip");
        file.headers.insert(header::CONTENT_ENCODING, encoding);
        file
    }

    pub(crate) fn into_parts(self) -> (Bytes, HeaderMap) {
        (self.body, self.headers)
    }
}
