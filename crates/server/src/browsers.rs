//! Which web pages may send requests, and which names of the service they may use.
//!
//! A browser adds its user's credentials to a request: the client certificate, and the fact that it
//! runs on this machine or in this network. A page of another site must not profit from that. If no
//! token authorises its request, such a page is refused unless its origin is configured. Programs
//! send neither `Origin` nor `Sec-Fetch-Site` and are not affected.
//!
//! With DNS rebinding, a name server tells the browser that a page's host is this machine, and the
//! browser treats the page as the service's own. Its requests still name that host. Therefore a
//! service on loopback that admits callers without a token answers only to names of this machine.

use crate::{
    authority::{Authority, Host},
    error::Malformed,
    given::{Given, Head},
    head,
};
use hyper::{
    HeaderMap, Method,
    header::{self, HeaderName, HeaderValue},
    http::request::Parts,
};
use std::fmt;

pub(crate) const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
const SEC_FETCH_MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");
const SEC_FETCH_DEST: HeaderName = HeaderName::from_static("sec-fetch-dest");

/// Which web pages may send requests without a token.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BrowserSettings {
    /// The origins of other sites that may, which are also further names for the service itself.
    pub origins: Origins,
    /// Whether the service answers only to names of this machine. True if it listens on loopback
    /// and admits callers without a token.
    pub loopback_names_only: bool,
}

/// Origins of web pages: each a scheme, a host and perhaps a port.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origins {
    any: bool,
    named: Vec<Origin>,
}

/// An origin as browsers write it: in lower case, and without the scheme's default port.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Origin(String);

impl Origins {
    /// Parses these texts as origins; `*` stands for every origin. `None` if one of them is
    /// malformed.
    #[must_use]
    pub fn parse<'a>(texts: impl IntoIterator<Item = &'a str>) -> Option<Self> {
        let mut origins = Self::default();
        for text in texts {
            if text == "*" {
                origins.any = true;
            } else {
                origins.named.push(Origin::parse(text)?);
            }
        }
        Some(origins)
    }

    fn names(&self, origin: &HeaderValue) -> bool {
        let same = |named: &Origin| origin.as_bytes().eq_ignore_ascii_case(named.0.as_bytes());
        self.named.iter().any(same)
    }
}

/// Writes them as [`Origins::parse`] accepts them.
impl fmt::Display for Origins {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let any = self.any.then_some("*").into_iter();
        let texts: Vec<&str> = any.chain(self.named.iter().map(|each| &*each.0)).collect();
        f.write_str(&texts.join(", "))
    }
}

impl Origin {
    fn parse(text: &str) -> Option<Self> {
        let (scheme, authority) = text.split_once("://")?;
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte);
        if !scheme.starts_with(|first: char| first.is_ascii_alphabetic())
            || !scheme.bytes().all(allowed)
        {
            return None;
        }
        let scheme = scheme.to_ascii_lowercase();
        let parsed = Authority::parse(authority.as_bytes())?;
        let host = match parsed.host {
            Host::Name(name) => name.to_ascii_lowercase(),
            Host::Address(address) if address.is_ipv6() => format!("[{address}]"),
            Host::Address(address) => address.to_string(),
        };
        let port = parsed
            .port
            .filter(|&port| Some(port) != default_port(&scheme));
        let port = port.map_or(String::new(), |port| format!(":{port}"));
        Some(Self(format!("{scheme}://{host}{port}")))
    }

    /// Reports whether a service that serves this origin's pages would be addressed by this name.
    fn is_at(&self, host: Authority<'_>) -> bool {
        self.0.split_once("://").is_some_and(|(scheme, authority)| {
            let port = |authority: Authority<'_>| authority.port.or(default_port(scheme));
            let own = Authority::parse(authority.as_bytes());
            own.is_some_and(|own| own.host == host.host && port(own) == port(host))
        })
    }
}

fn default_port(scheme: &str) -> Option<u16> {
    match scheme {
        "http" => Some(80),
        "https" => Some(443),
        _ => None,
    }
}

impl BrowserSettings {
    /// Refuses a request for a host that is not this machine, if the settings say so. Browsers
    /// always name the host they ask for.
    pub(crate) fn check_host(&self, host: Option<Authority<'_>>) -> Result<(), Malformed> {
        let Some(host) = host.filter(|_| self.loopback_names_only && !self.origins.any) else {
            return Ok(());
        };
        let named = || self.origins.named.iter().any(|origin| origin.is_at(host));
        if host.host.is_loopback() || named() {
            return Ok(());
        }
        Err(Malformed::Misdirected)
    }

    /// Reports whether a web page of another site sent the request and is not allowed to.
    pub(crate) fn is_foreign(&self, head: &Head<'_>) -> bool {
        if !head.has(Given::ORIGIN.and(Given::SEC_FETCH_SITE)) {
            return false;
        }
        let headers = &head.headers;
        let origin = headers.get(header::ORIGIN);
        let foreign = match (headers.get(SEC_FETCH_SITE), origin) {
            (None, None) => return false,
            // Pages of one site trust each other: the browser's user has chosen to visit the site.
            (Some(site), _)
                if ["same-origin", "same-site", "none"]
                    .iter()
                    .any(|own| site == own) =>
            {
                false
            }
            // A link may lead to the service: the page with the link sees nothing of the answer.
            (Some(_), _) if is_visit(head) => false,
            (Some(_), _) => true,
            // Browsers that do not send `Sec-Fetch-Site` to a service without TLS.
            (None, Some(origin)) => !is_same_site(origin, head),
        };
        foreign && !self.origins.any && !origin.is_some_and(|origin| self.origins.names(origin))
    }

    /// Returns the value of `Access-Control-Allow-Origin` for this page, and whether the browser
    /// may send its user's certificate.
    pub(crate) fn allowed_origin(&self, headers: &HeaderMap) -> (HeaderValue, bool) {
        let origin = headers.get(header::ORIGIN);
        match origin.filter(|origin| self.origins.names(origin)) {
            Some(origin) => (origin.clone(), true),
            None => (HeaderValue::from_static("*"), false),
        }
    }
}

/// Reports whether a web page sent the request.
pub(crate) fn is_page(headers: &HeaderMap) -> bool {
    headers.contains_key(header::ORIGIN) || headers.contains_key(SEC_FETCH_SITE)
}

/// Reports whether the user navigates to the service as a page of its own.
fn is_visit(head: &Parts) -> bool {
    let says = |name: HeaderName, value: &str| {
        let given = head.headers.get(name);
        given.is_some_and(|given| given == value)
    };
    [Method::GET, Method::HEAD].contains(&head.method)
        && says(SEC_FETCH_MODE, "navigate")
        && says(SEC_FETCH_DEST, "document")
}

/// Reports whether a page comes from the host that it asks. As in browsers, the port does not
/// matter. A page without an origin sends `null`.
fn is_same_site(origin: &HeaderValue, head: &Parts) -> bool {
    let authority = origin
        .to_str()
        .ok()
        .and_then(|origin| origin.split_once("://"));
    let origin = authority.and_then(|(_, authority)| Authority::parse(authority.as_bytes()));
    match (origin, head::host(head)) {
        (Some(origin), Some(host)) => origin.host == host.host,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::Request;

    fn head(method: &str, headers: &[(&str, &str)]) -> Parts {
        let mut request = Request::builder().method(method).uri("/widgets/E");
        for &(name, value) in headers {
            request = request.header(name, value);
        }
        request.body(()).expect("a request").into_parts().0
    }

    fn origins(texts: &[&str]) -> Origins {
        Origins::parse(texts.iter().copied()).expect("origins")
    }

    #[test]
    fn origins_are_parsed_and_normalised_as_by_browsers() {
        for (text, written) in [
            ("https://App.Example", Some("https://app.example")),
            ("https://app.example:443", Some("https://app.example")),
            ("http://app.example:443", Some("http://app.example:443")),
            ("HTTP://127.0.0.1:80", Some("http://127.0.0.1")),
            ("http://[::1]:8080", Some("http://[::1]:8080")),
            ("capacitor://localhost", Some("capacitor://localhost")),
            ("*", Some("*")),
            ("https://app.example/", None),
            ("https://app.example/path", None),
            ("https://me@app.example", None),
            ("https://*.example", Some("https://*.example")),
            ("https://", None),
            ("app.example", None),
            ("null", None),
            ("", None),
        ] {
            let origins = Origins::parse([text]).map(|origins| origins.to_string());
            assert_eq!(origins.as_deref(), written, "{text}");
        }
    }

    /// A method, headers, and whether the page is foreign.
    type Case<'a> = (&'a str, &'a [(&'a str, &'a str)], bool);

    #[test]
    fn cross_site_requests_are_foreign_unless_their_origin_is_allowed() {
        const HOST: (&str, &str) = ("host", "127.0.0.1:3000");
        let site = |value| ("sec-fetch-site", value);
        let origin = |value| ("origin", value);
        let visit = [
            ("sec-fetch-mode", "navigate"),
            ("sec-fetch-dest", "document"),
        ];
        let cases: [Case<'_>; 21] = [
            ("POST", &[], false),
            // Programs may send this header, but it means nothing.
            ("POST", &[("sec-fetch-mode", "cors")], false),
            ("POST", &[site("same-origin")], false),
            (
                "POST",
                &[site("same-site"), origin("http://127.0.0.1:8080")],
                false,
            ),
            ("GET", &[site("none")], false),
            ("GET", &[site("cross-site")], true),
            ("GET", &[site("something new")], true),
            (
                "POST",
                &[site("cross-site"), origin("https://evil.example")],
                true,
            ),
            (
                "POST",
                &[site("cross-site"), origin("https://named.example")],
                false,
            ),
            (
                "POST",
                &[site("cross-site"), origin("HTTPS://Named.example")],
                false,
            ),
            (
                "POST",
                &[site("cross-site"), origin("http://named.example")],
                true,
            ),
            ("GET", &[site("cross-site"), visit[0], visit[1]], false),
            ("POST", &[site("cross-site"), visit[0], visit[1]], true),
            (
                "GET",
                &[site("cross-site"), visit[0], ("sec-fetch-dest", "iframe")],
                true,
            ),
            ("GET", &[site("cross-site"), visit[1]], true),
            ("POST", &[origin("http://127.0.0.1:3000")], false),
            ("POST", &[origin("http://127.0.0.1:8080")], false),
            ("POST", &[origin("http://localhost:3000")], true),
            ("POST", &[origin("https://evil.example")], true),
            ("POST", &[origin("null")], true),
            ("POST", &[origin("https://named.example")], false),
        ];
        let named = BrowserSettings {
            origins: origins(&["https://named.example"]),
            ..BrowserSettings::default()
        };
        let any = BrowserSettings {
            origins: origins(&["*"]),
            ..BrowserSettings::default()
        };
        for (method, headers, foreign) in cases {
            let head = head(method, &[&[HOST], headers].concat());
            assert_eq!(
                named.is_foreign(&(&head).into()),
                foreign,
                "{method} {headers:?}"
            );
            assert!(!any.is_foreign(&(&head).into()), "{method} {headers:?}");
        }
    }

    #[test]
    fn loopback_names_only_accepts_local_and_configured_hosts() {
        let only = BrowserSettings {
            origins: origins(&["https://widgets.example", "http://[2001:db8::1]:8080"]),
            loopback_names_only: true,
        };
        for (host, answered) in [
            ("localhost:3000", true),
            ("127.0.0.1", true),
            ("[::1]:3000", true),
            ("widgets.example", true),
            ("widgets.example:443", true),
            ("widgets.example:80", false),
            ("[2001:db8::1]:8080", true),
            ("[2001:db8::1]", false),
            ("evil.example:3000", false),
            ("localhost.evil.example", false),
            ("192.0.2.1", false),
        ] {
            let head = head("GET", &[("host", host)]);
            assert_eq!(
                only.check_host(head::host(&head)).is_ok(),
                answered,
                "{host}"
            );
            let anywhere = BrowserSettings::default();
            assert_eq!(anywhere.check_host(head::host(&head)), Ok(()), "{host}");
        }
        let asked = Request::get("http://evil.example/").header("host", "localhost");
        let (head, ()) = asked.body(()).expect("a request").into_parts();
        assert_eq!(
            only.check_host(head::host(&head)),
            Err(Malformed::Misdirected)
        );
    }
}
