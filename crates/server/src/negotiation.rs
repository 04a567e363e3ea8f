//! What the headers negotiate: profile, media type, preferences.

use crate::{SCHEMAS, error::Malformed};
use hyper::{
    HeaderMap, Method,
    header::{self, HeaderName, HeaderValue},
};

/// The media types that an operation accepts to answer with. Its answer has no body, so all are
/// equal.
pub(crate) const OPERATION_MEDIA_TYPES: [&str; 7] = [
    "application/json",
    "text/csv",
    "application/geo+json",
    "application/vnd.pgrst.object+json",
    "application/vnd.pgrst.array+json",
    "application/vnd.pgrst.object",
    "application/vnd.pgrst.array",
];

/// The headers with the profile for writing and for reading. The method decides which one counts.
pub(crate) const PROFILES: [HeaderName; 2] = [
    HeaderName::from_static("content-profile"),
    HeaderName::from_static("accept-profile"),
];
pub(crate) const PREFER: HeaderName = HeaderName::from_static("prefer");

/// Checks that the profile header, if present, names an exposed schema. The method decides which
/// header that is.
pub(crate) fn check_profile(method: &Method, headers: &HeaderMap) -> Result<(), Malformed> {
    let writes = [Method::POST, Method::PUT, Method::PATCH, Method::DELETE];
    let [of_content, of_answer] = PROFILES;
    let name = if writes.contains(method) {
        of_content
    } else {
        of_answer
    };
    let Some(given) = headers.get(name) else {
        return Ok(());
    };
    if SCHEMAS.iter().any(|schema| given == schema) {
        return Ok(());
    }
    Err(Malformed::Schema(text(given)))
}

/// Returns the best of `offers` according to `Accept`, or the first if the client has no
/// preference. Parameters of media types are ignored, except `q`.
pub(crate) fn media_type<'a>(
    headers: &HeaderMap,
    offers: &[&'a str],
) -> Result<&'a str, Malformed> {
    let mut accepted = Vec::new();
    for value in headers.get_all(header::ACCEPT) {
        // Nearly every client sends this; no list is needed.
        if value == "*/*" && accepted.is_empty() {
            return Ok(offers[0]);
        }
        let ranges = value.as_bytes().split(|&byte| byte == b',');
        // Empty elements of a list do not count (RFC 9110, 5.6.1), so an empty header accepts
        // anything.
        let ranges = ranges.filter(|range| !range.trim_ascii().is_empty());
        accepted.extend(ranges.map(range));
    }
    if accepted.is_empty() {
        return Ok(offers[0]);
    }
    // A stable sort: equal ranges keep their order.
    accepted.sort_by(|one, other| other.quality.total_cmp(&one.quality));
    let wanted = accepted.iter().filter(|range| range.quality > 0.0);
    // A type that is named with q=0 is unwanted, whatever a wildcard beside it says.
    let unwanted = |offer: &str| {
        let mut ranges = accepted.iter().filter(|range| range.quality <= 0.0);
        ranges.any(|range| range.name.eq_ignore_ascii_case(offer))
    };
    let mut found = wanted.filter_map(|range| {
        let matches = |offer: &&&str| range.matches(offer) && !unwanted(offer);
        offers.iter().find(matches).copied()
    });
    found.next().ok_or_else(|| {
        let names: Vec<&str> = accepted.iter().map(|range| &*range.name).collect();
        Malformed::MediaType(names.join(", "))
    })
}

/// One media range of an `Accept` header.
struct Range {
    name: String,
    quality: f32,
}

fn range(bytes: &[u8]) -> Range {
    let text = String::from_utf8_lossy(bytes);
    let mut parts = text.split(';').map(str::trim);
    let name = parts.next().unwrap_or_default().to_owned();
    let quality = parts.find_map(|part| {
        let (name, value) = part.split_once('=')?;
        let is_quality = name.trim_end().eq_ignore_ascii_case("q");
        is_quality.then(|| value.trim_start().parse().ok())?
    });
    Range {
        name,
        quality: quality.unwrap_or(1.0),
    }
}

impl Range {
    fn matches(&self, offer: &str) -> bool {
        match self.name.strip_suffix("/*") {
            Some("*") => true,
            Some(kind) => offer
                .split_once('/')
                .is_some_and(|(offered, _)| offered.eq_ignore_ascii_case(kind)),
            None => self.name.eq_ignore_ascii_case(offer),
        }
    }
}

/// The preferences in `Prefer` that an operation knows (RFC 7240).
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Preferences {
    count: Option<&'static str>,
    handling: Option<&'static str>,
    max_affected: bool,
    unknown: Vec<String>,
}

const COUNT: [&str; 3] = ["count=exact", "count=planned", "count=estimated"];
const STRICT: &str = "handling=strict";
const HANDLING: [&str; 2] = [STRICT, "handling=lenient"];
/// Preferences that PostgREST knows but that mean nothing for an operation without a result.
const IGNORED: [&str; 9] = [
    "return=representation",
    "return=minimal",
    "return=headers-only",
    "resolution=merge-duplicates",
    "resolution=ignore-duplicates",
    "missing=default",
    "missing=null",
    "tx=commit",
    "tx=rollback",
];

impl Preferences {
    pub(crate) fn from_headers(headers: &HeaderMap) -> Self {
        let mut preferences = Self::default();
        for value in headers.get_all(PREFER) {
            for given in text(value).split(',').map(str::trim) {
                preferences.add(given);
            }
        }
        preferences
    }

    fn add(&mut self, given: &str) {
        let among = |known: &[&'static str]| known.iter().copied().find(|&each| each == given);
        // If one preference has several values, the first counts.
        if let Some(count) = among(&COUNT) {
            self.count.get_or_insert(count);
        } else if let Some(handling) = among(&HANDLING) {
            self.handling.get_or_insert(handling);
        } else if given.starts_with("max-affected=") {
            self.max_affected = true;
        } else if among(&IGNORED).is_none() && !given.starts_with("timezone=") {
            self.unknown.push(given.to_owned());
        }
    }

    /// Refuses preferences that cannot be followed, if strict handling is requested.
    pub(crate) fn check(&self) -> Result<(), Malformed> {
        if self.handling != Some(STRICT) {
            Ok(())
        } else if !self.unknown.is_empty() {
            Err(Malformed::Preferences(self.unknown.clone()))
        } else if self.max_affected {
            Err(Malformed::MaxAffected)
        } else {
            Ok(())
        }
    }

    /// Reports whether all rows are to be counted. This service never estimates: the exact number
    /// also serves as `planned` and `estimated`.
    pub(crate) fn counts(&self) -> bool {
        self.count.is_some()
    }

    /// Like [`Self::check`], for requests that read and therefore affect no rows.
    pub(crate) fn check_reading(&self) -> Result<(), Malformed> {
        if self.handling == Some(STRICT) && !self.unknown.is_empty() {
            return Err(Malformed::Preferences(self.unknown.clone()));
        }
        Ok(())
    }

    /// Returns the `Content-Range` of an answer: one row without content, counted if the client
    /// asked for a count.
    pub(crate) fn content_range(&self) -> HeaderValue {
        HeaderValue::from_static(match self.count {
            Some("count=exact" | "count=estimated") => "0-0/1",
            _ => "0-0/*",
        })
    }

    /// Returns the preferences that were followed, for `Preference-Applied`.
    pub(crate) fn applied(&self) -> Option<HeaderValue> {
        let applied = match (self.count, self.handling) {
            (None, None) => return None,
            (Some(one), None) | (None, Some(one)) => return Some(HeaderValue::from_static(one)),
            (Some(count), Some(handling)) => format!("{count}, {handling}"),
        };
        HeaderValue::try_from(applied).ok()
    }
}

/// Returns the text of a header. Invalid UTF-8 becomes replacement characters.
pub(crate) fn text(value: &HeaderValue) -> String {
    String::from_utf8_lossy(value.as_bytes()).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: &HeaderName, values: &[&'static str]) -> HeaderMap {
        let values = values.iter().map(|value| HeaderValue::from_static(value));
        values.map(|value| (name.clone(), value)).collect()
    }

    #[test]
    fn accept_selects_the_best_offered_media_type() {
        let offers = ["application/openapi+json", "application/json", "text/html"];
        let cases: [(&[&str], Result<&str, &str>); 17] = [
            (&[], Ok(offers[0])),
            (&[""], Ok(offers[0])),
            (&[" , ,"], Ok(offers[0])),
            (&["", "text/html,"], Ok(offers[2])),
            (&["text/html; Q=0.1, application/json;q=0.2"], Ok(offers[1])),
            (&["*/*, application/openapi+json;q=0"], Ok(offers[1])),
            (&["*/*;q=0.5, text/html;q=0"], Ok(offers[0])),
            (&["*/*"], Ok(offers[0])),
            (&["application/json"], Ok(offers[1])),
            (&["Application/JSON; charset=utf-8"], Ok(offers[1])),
            (
                &["text/html,application/xml;q=0.9,*/*;q=0.8"],
                Ok(offers[2]),
            ),
            (&["text/html;q=0.5, application/json"], Ok(offers[1])),
            (&["text/*"], Ok(offers[2])),
            (&["text/plain", "*/*;q=0.1"], Ok(offers[0])),
            (&["text/plain", "*/*"], Ok(offers[0])),
            (&["text/html;q=0"], Err("text/html")),
            (
                &["text/plain, image/png;q=0.5"],
                Err("text/plain, image/png"),
            ),
        ];
        for (accept, expected) in cases {
            let expected = expected.map_err(|given| Malformed::MediaType(given.into()));
            let given = headers(&header::ACCEPT, accept);
            assert_eq!(media_type(&given, &offers), expected, "{accept:?}");
        }
    }

    #[test]
    fn preferences_are_applied_ignored_or_refused_when_strict() {
        let unknown = |given: &[&str]| {
            let given = given.iter().map(|&each| each.to_owned());
            Err(Malformed::Preferences(given.collect()))
        };
        let cases: [(&[&str], _, _, _); 10] = [
            (&[], "0-0/*", None, Ok(())),
            (&["count=exact"], "0-0/1", Some("count=exact"), Ok(())),
            (&["count=planned"], "0-0/*", Some("count=planned"), Ok(())),
            (&["return=minimal, tx=rollback"], "0-0/*", None, Ok(())),
            (&["params=single-object"], "0-0/*", None, Ok(())),
            (
                &["handling=strict", "count=exact, count=planned"],
                "0-0/1",
                Some("count=exact, handling=strict"),
                Ok(()),
            ),
            (
                &["handling=lenient,max-affected=1"],
                "0-0/*",
                Some("handling=lenient"),
                Ok(()),
            ),
            (
                &["handling=strict, tx=rollback, timezone=Mars"],
                "0-0/*",
                Some("handling=strict"),
                Ok(()),
            ),
            (
                &["a, handling=strict,max-affected=1", "b=2"],
                "0-0/*",
                Some("handling=strict"),
                unknown(&["a", "b=2"]),
            ),
            (
                &["handling=strict, max-affected=1"],
                "0-0/*",
                Some("handling=strict"),
                Err(Malformed::MaxAffected),
            ),
        ];
        for (prefer, range, applied, checked) in cases {
            let preferences = Preferences::from_headers(&headers(&PREFER, prefer));
            assert_eq!(preferences.content_range(), range, "{prefer:?}");
            let applied = applied.map(HeaderValue::from_static);
            assert_eq!(preferences.applied(), applied, "{prefer:?}");
            assert_eq!(preferences.check(), checked, "{prefer:?}");
        }
    }
}
