//! Which headers a request has, among those that most requests lack.
//!
//! Looking for a header takes a hash and a search, and a dozen of these headers decide something
//! about each request. So the headers that are present are noted once, and absent ones are never
//! looked for.

use hyper::{HeaderMap, http::request::Parts};
use std::ops::Deref;

/// The set of these headers that a request has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Given(u16);

impl Given {
    /// `Origin`
    pub(crate) const ORIGIN: Self = Self(1);
    /// `Sec-Fetch-Site`
    pub(crate) const SEC_FETCH_SITE: Self = Self(1 << 1);
    /// `Transfer-Encoding`
    pub(crate) const TRANSFER_ENCODING: Self = Self(1 << 2);
    /// `Expect`
    pub(crate) const EXPECT: Self = Self(1 << 3);
    /// `Idempotency-Key`
    pub(crate) const IDEMPOTENCY_KEY: Self = Self(1 << 4);
    /// `X-Request-Id`
    pub(crate) const REQUEST_ID: Self = Self(1 << 5);
    /// `Content-Profile` or `Accept-Profile`
    pub(crate) const PROFILE: Self = Self(1 << 6);
    /// `Content-Encoding`
    pub(crate) const CONTENT_ENCODING: Self = Self(1 << 7);
    /// `Accept`
    pub(crate) const ACCEPT: Self = Self(1 << 8);
    /// `Prefer`
    pub(crate) const PREFER: Self = Self(1 << 9);

    /// Returns which of them are among these headers.
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        let each = headers.keys().map(|name| Self::named(name.as_str()).0);
        Self(each.fold(0, |all, each| all | each))
    }

    /// Returns the one with this name, if any. The names of headers are in lower case.
    fn named(name: &str) -> Self {
        match name {
            "origin" => Self::ORIGIN,
            "sec-fetch-site" => Self::SEC_FETCH_SITE,
            "transfer-encoding" => Self::TRANSFER_ENCODING,
            "expect" => Self::EXPECT,
            "idempotency-key" => Self::IDEMPOTENCY_KEY,
            "x-request-id" => Self::REQUEST_ID,
            "content-profile" | "accept-profile" => Self::PROFILE,
            "content-encoding" => Self::CONTENT_ENCODING,
            "accept" => Self::ACCEPT,
            "prefer" => Self::PREFER,
            _ => Self(0),
        }
    }

    /// Reports whether the set contains any of `those`.
    pub(crate) const fn has(self, those: Self) -> bool {
        self.0 & those.0 != 0
    }

    /// Returns the union of the two sets.
    pub(crate) const fn and(self, those: Self) -> Self {
        Self(self.0 | those.0)
    }
}

/// The head of a request, and which headers it has.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Head<'a> {
    parts: &'a Parts,
    given: Given,
}

impl<'a> Head<'a> {
    /// Wraps these parts; `given` must be the set of their headers.
    pub(crate) const fn new(parts: &'a Parts, given: Given) -> Self {
        Self { parts, given }
    }

    /// Reports whether the request has any of `those` headers.
    pub(crate) const fn has(&self, those: Given) -> bool {
        self.given.has(those)
    }

    /// Returns the parts, with the lifetime of the request.
    pub(crate) const fn parts(&self) -> &'a Parts {
        self.parts
    }
}

#[cfg(test)]
impl<'a> From<&'a Parts> for Head<'a> {
    fn from(parts: &'a Parts) -> Self {
        Self::new(parts, Given::of(&parts.headers))
    }
}

impl Deref for Head<'_> {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        self.parts
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{browsers, idempotency, negotiation, request_id};
    use hyper::header::{self, HeaderName, HeaderValue};

    /// A header that is not detected would never be examined.
    #[test]
    fn every_relevant_header_is_detected_by_its_name() {
        let all: [(&[HeaderName], Given); 10] = [
            (&[header::ORIGIN], Given::ORIGIN),
            (&[browsers::SEC_FETCH_SITE], Given::SEC_FETCH_SITE),
            (&[header::TRANSFER_ENCODING], Given::TRANSFER_ENCODING),
            (&[header::EXPECT], Given::EXPECT),
            (&[idempotency::KEY], Given::IDEMPOTENCY_KEY),
            (&[request_id::X_REQUEST_ID], Given::REQUEST_ID),
            (&negotiation::PROFILES, Given::PROFILE),
            (&[header::CONTENT_ENCODING], Given::CONTENT_ENCODING),
            (&[header::ACCEPT], Given::ACCEPT),
            (&[negotiation::PREFER], Given::PREFER),
        ];
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, HeaderValue::from_static("a"));
        assert_eq!(Given::of(&headers), Given::default());
        let mut before = Given::default();
        for (names, given) in all {
            for name in names {
                let mut one = headers.clone();
                one.insert(name, HeaderValue::from_static("x"));
                assert_eq!(Given::of(&one), given, "{name}");
            }
            assert!(!before.has(given), "each has its own flag: {names:?}");
            before = before.and(given);
        }
    }
}
