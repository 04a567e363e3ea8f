//! What a list shows, and the query that asks for it.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::json;
use std::fmt::Write as _;

/// What URLs need not escape (RFC 3986, "unreserved").
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

pub(crate) fn escape(text: &str) -> impl std::fmt::Display {
    utf8_percent_encode(text, ESCAPED)
}

/// One condition on a widget. If there are several, all must hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Filter {
    /// The serial number begins with this.
    Prefix(String),
    /// The name is this.
    Name(String),
    /// A slot of this port type is free.
    Free(String),
    /// The peer of a slot is the widget with this serial number.
    Peer(String),
    /// A parameter in `PostgREST`'s syntax: a column, `and` or `or`, and its condition.
    Parameter(String, String),
}

/// Which widgets to list, and in which direction.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query {
    /// The conditions that must hold for each of them.
    pub filters: Vec<Filter>,
    /// Whether to list from the greatest serial number to the least.
    pub descending: bool,
}

impl Query {
    pub(crate) const fn direction(&self) -> &'static str {
        if self.descending { "desc" } else { "asc" }
    }

    /// Returns whether this serial number comes after that one in the order of the list, which
    /// compares bytes.
    pub(crate) fn is_beyond(&self, serial_number: &str, after: &str) -> bool {
        if self.descending {
            serial_number < after
        } else {
            serial_number > after
        }
    }

    /// Returns the path and query that ask for at most `limit` widgets beyond the serial number
    /// `after`.
    pub(crate) fn target(&self, after: Option<&str>, limit: u64) -> String {
        let direction = self.direction();
        let mut target = format!("/widgets?order=serial_number.{direction}&limit={limit}");
        for filter in &self.filters {
            filter.write(&mut target);
        }
        if let Some(after) = after {
            let beyond = if self.descending { "lt." } else { "gt." };
            parameter(&mut target, "serial_number", &format!("{beyond}{after}"));
        }
        target
    }
}

impl Filter {
    fn write(&self, target: &mut String) {
        match self {
            Self::Prefix(prefix) => {
                parameter(target, "serial_number", &format!("gte.{prefix}"));
                if let Some(end) = after_prefix(prefix) {
                    parameter(target, "serial_number", &format!("lt.{end}"));
                }
            }
            Self::Name(name) => parameter(target, "name", &format!("eq.{name}")),
            Self::Free(port) => {
                let slot = json!([{"port": port, "peer": null}]);
                parameter(target, "slots", &format!("cs.{slot}"));
            }
            Self::Peer(peer) => {
                let slot = json!([{"peer": peer}]);
                parameter(target, "slots", &format!("cs.{slot}"));
            }
            Self::Parameter(name, value) => parameter(target, name, value),
        }
    }
}

fn parameter(target: &mut String, name: &str, value: &str) {
    // Writing to a string does not fail.
    let _ = write!(target, "&{}={}", escape(name), escape(value));
}

/// Returns the least text that is greater than every text with this prefix, if there is one.
fn after_prefix(prefix: &str) -> Option<String> {
    let mut end = prefix.to_owned();
    while let Some(last) = end.pop() {
        // The order of bytes in UTF-8 is the order of the characters; the range skips the
        // surrogates.
        if let Some(next) = (last..=char::MAX).nth(1) {
            end.push(next);
            return Some(end);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::{Filter, Query, after_prefix};
    use percent_encoding::percent_decode_str;

    #[test]
    fn a_prefix_has_the_next_text_as_its_upper_bound() {
        assert_eq!(after_prefix("AB-"), Some("AB.".into()));
        assert_eq!(after_prefix("\u{d7ff}"), Some("\u{e000}".into()));
        assert_eq!(after_prefix("a\u{10ffff}"), Some("b".into()));
        assert_eq!(after_prefix("\u{10ffff}"), None);
        assert_eq!(after_prefix(""), None);
    }

    /// Reports whether this text satisfies every condition on the serial number that the query
    /// asks for.
    fn is_within(conditions: &[String], text: &str) -> bool {
        conditions
            .iter()
            .all(|condition| match condition.split_once('.') {
                Some(("gte", least)) => text >= least,
                Some(("lt", end)) => text < end,
                _ => panic!("{condition}"),
            })
    }

    #[test]
    fn a_text_is_within_the_bounds_exactly_if_it_has_the_prefix() {
        // Neighbours, and the ends of the ranges of characters.
        const CHARACTERS: [char; 7] = [
            'a',
            'b',
            '\u{7f}',
            '\u{80}',
            '\u{d7ff}',
            '\u{e000}',
            '\u{10ffff}',
        ];
        let mut texts = vec![String::new()];
        let mut longest = texts.clone();
        for _ in 0..3 {
            longest = longest
                .iter()
                .flat_map(|text| CHARACTERS.map(|last| format!("{text}{last}")))
                .collect();
            texts.extend_from_slice(&longest);
        }
        for prefix in &texts {
            let query = Query {
                filters: vec![Filter::Prefix(prefix.clone())],
                descending: false,
            };
            let target = query.target(None, 1);
            let conditions: Vec<String> = target
                .split('&')
                .filter_map(|parameter| parameter.strip_prefix("serial_number="))
                .map(|value| percent_decode_str(value).decode_utf8_lossy().into_owned())
                .collect();
            for text in &texts {
                assert_eq!(
                    is_within(&conditions, text),
                    text.starts_with(prefix),
                    "{text:?} and the prefix {prefix:?}: {conditions:?}"
                );
            }
        }
    }

    #[test]
    fn every_filter_is_encoded_as_an_escaped_query_parameter() {
        let query = Query {
            filters: vec![
                Filter::Prefix("A&".into()),
                Filter::Name("x=y".into()),
                Filter::Free("R".into()),
                Filter::Peer("\"q\"".into()),
                Filter::Parameter("or".into(), "(name.eq.a,name.eq.b)".into()),
            ],
            descending: true,
        };
        assert_eq!(
            query.target(Some("Z#"), 5),
            "/widgets?order=serial_number.desc&limit=5\
             &serial_number=gte.A%26&serial_number=lt.A%27&name=eq.x%3Dy\
             &slots=cs.%5B%7B%22peer%22%3Anull%2C%22port%22%3A%22R%22%7D%5D\
             &slots=cs.%5B%7B%22peer%22%3A%22%5C%22q%5C%22%22%7D%5D\
             &or=%28name.eq.a%2Cname.eq.b%29&serial_number=lt.Z%23"
        );
    }
}
