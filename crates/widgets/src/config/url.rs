//! A URL from which something is fetched.

use super::values::{Anything, Kind, Value};
use hyper::{Uri, http::uri::Authority};
use std::fmt;
use widgets_load::redacted;
use widgets_replica::{Address, AddressError};

/// An HTTP or HTTPS URL. It is displayed without its query, which may contain a secret.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct HttpUrl(Uri);

impl HttpUrl {
    fn new(text: &str) -> Option<Self> {
        let uri: Uri = text.parse().ok()?;
        let of_http = matches!(uri.scheme_str(), Some("http" | "https"));
        let authority = uri.authority()?;
        let named = !authority.host().is_empty() && !authority.as_str().contains('@');
        let port = widgets_client::port(&uri).is_ok();
        (of_http && named && port).then_some(Self(uri))
    }

    /// Returns the URL as the base address of a service's routes.
    pub(crate) fn address(&self) -> Result<Address, AddressError> {
        Address::new(self.0.clone())
    }

    /// Returns whether it uses TLS.
    pub(crate) fn is_secure(&self) -> bool {
        self.0.scheme_str() == Some("https")
    }

    /// Returns the host; an IPv6 address without its brackets.
    pub(crate) fn host(&self) -> &str {
        let host = self.0.host().unwrap_or_default();
        host.trim_matches(['[', ']'])
    }

    /// Returns the port in the URL, or its scheme's default.
    pub(crate) fn port(&self) -> u16 {
        let own = if self.is_secure() { 443 } else { 80 };
        self.0.port_u16().unwrap_or(own)
    }

    /// Returns the host and the port as they appear in a request.
    pub(crate) fn authority(&self) -> &str {
        self.0.authority().map_or("", Authority::as_str)
    }

    /// Returns the path with the query.
    pub(crate) fn path_and_query(&self) -> &str {
        self.0.path_and_query().map_or("/", |path| path.as_str())
    }
}

impl fmt::Display for HttpUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&redacted(&self.0.to_string()))
    }
}

impl fmt::Debug for HttpUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Value for Option<HttpUrl> {
    type Limit = Anything;
    const KIND: Kind = Kind::String;

    fn parse(text: &str, _: &Anything) -> Option<Self> {
        if text.is_empty() {
            return Some(None);
        }
        HttpUrl::new(text).map(Some)
    }

    fn describe(_: &Anything) -> String {
        "a URL that begins with http:// or https:// and has no user name, or empty for none".into()
    }

    fn toml(&self) -> String {
        let shown = self.as_ref().map(ToString::to_string);
        toml::Value::String(shown.unwrap_or_default()).to_string()
    }

    fn quote(text: &str) -> String {
        format!("{:?}", redacted(text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_must_have_a_host_and_no_user() {
        for (text, host, port, path) in [
            ("http://id.example", "id.example", 80, "/"),
            (
                "https://id.example/keys?a=b",
                "id.example",
                443,
                "/keys?a=b",
            ),
            ("https://id.example:8443/k", "id.example", 8443, "/k"),
            ("http://[::1]:81/", "::1", 81, "/"),
        ] {
            let url = HttpUrl::new(text).expect(text);
            let found = (url.host(), url.port(), url.path_and_query());
            assert_eq!(found, (host, port, path), "{text}");
        }
        for text in [
            "id.example/keys",
            "/keys",
            "ftp://id.example/",
            "http://",
            "http:///keys",
            "https://me:secret@id.example/",
            "https://id.example:0/",
            "https://id.example:99999/",
            "https://id.example:/",
            "https://id.example:+80/",
            "https://id example/",
        ] {
            assert_eq!(HttpUrl::new(text), None, "{text}");
        }
    }

    #[test]
    fn the_query_of_a_url_is_masked() {
        let url = HttpUrl::new("https://id.example/keys?key=secret").expect("a URL");
        assert_eq!(url.to_string(), "https://id.example/keys?***");
        assert_eq!(format!("{url:?}"), "https://id.example/keys?***");
    }
}
