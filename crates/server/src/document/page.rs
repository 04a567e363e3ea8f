//! The interactive page: Swagger UI, out of the binary, so that it works without internet.

use crate::responses::NO_REFERRER;
use hyper::{
    body::Bytes,
    header::{self, HeaderMap, HeaderValue},
};
use std::{borrow::Cow, sync::Arc};

const HTML: &str = include_str!("page.html");
const START: &str = include_str!("start.js");
const OWN_STYLES: &str = include_str!("page.css");
const STYLES: &str = "swagger-ui.css";
const BUNDLE: &str = "swagger-ui-bundle.js";

/// The page loads nothing from elsewhere and talks to nobody else. Swagger UI sets styles by script
/// and has its pictures in its style sheet.
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

/// The page itself.
pub(crate) fn html() -> File {
    let mut file = File::new(
        Bytes::from_static(HTML.as_bytes()),
        "text/html; charset=utf-8",
    );
    file.headers.insert(header::CONTENT_SECURITY_POLICY, POLICY);
    file.headers.insert(header::REFERRER_POLICY, NO_REFERRER);
    file
}

impl File {
    fn new(body: Bytes, content_type: &'static str) -> Self {
        let content_type = HeaderValue::from_static(content_type);
        let headers = HeaderMap::from_iter([(header::CONTENT_TYPE, content_type)]);
        Self { body, headers }
    }

    /// The file of this name that the page loads, if it is one of them.
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
            STYLES => Self::bundled(STYLES, "text/css; charset=utf-8"),
            BUNDLE => Self::bundled(BUNDLE, "text/javascript; charset=utf-8"),
            _ => None,
        }
    }

    fn bundled(name: &str, content_type: &'static str) -> Option<Self> {
        let config: Arc<utoipa_swagger_ui::Config<'static>> = Arc::new("/".into());
        let file = utoipa_swagger_ui::serve(name, config).ok()??;
        let body = match file.bytes {
            Cow::Borrowed(bytes) => Bytes::from_static(bytes),
            Cow::Owned(bytes) => bytes.into(),
        };
        let mut found = Self::new(body, content_type);
        if file.gzpipped {
            // Every browser takes it, and nobody else asks.
            let gzip = HeaderValue::from_static("gzip");
            found.headers.insert(header::CONTENT_ENCODING, gzip);
        }
        Some(found)
    }

    pub(crate) fn into_parts(self) -> (Bytes, HeaderMap) {
        (self.body, self.headers)
    }
}
