//! `Idempotency-Key`: makes it safe to repeat an operation
//! (draft-ietf-httpapi-idempotency-key-header). The value is a quoted string or, as many clients
//! send it, the text without quotes.

use crate::error::Malformed;
use hyper::{
    HeaderMap,
    header::{HeaderName, HeaderValue},
};
use std::borrow::Cow;
use widgets_registry::IdempotencyKey;

/// The header with the key.
pub(crate) const KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// Marks an answer that repeats the first one.
pub(crate) const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");
pub(crate) const TRUE: HeaderValue = HeaderValue::from_static("true");

/// Returns the request's key, if it has one.
pub(crate) fn key(headers: &HeaderMap) -> Result<Option<IdempotencyKey>, Malformed> {
    let mut values = headers.get_all(KEY).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    if values.next().is_some() {
        return Err(malformed("is given more than once"));
    }
    // Visible characters and spaces (RFC 9651, 3.3.3).
    let Ok(text) = value.to_str() else {
        return Err(malformed("has characters outside of ASCII"));
    };
    let text = text.trim_matches([' ', '\t']);
    let key = match text.strip_prefix('"') {
        Some(quoted) => unquoted(quoted).ok_or_else(|| malformed("is not one quoted string"))?,
        None => text.to_owned(),
    };
    let bytes = key.len();
    IdempotencyKey::new(&key)
        .map(Some)
        .ok_or_else(|| malformed(format!("must be 1 to 255 bytes long, {bytes} were given")))
}

fn malformed(defect: impl Into<Cow<'static, str>>) -> Malformed {
    Malformed::IdempotencyKey(defect.into())
}

/// Returns the text between an opening quote, already removed, and the closing one, which must end
/// it.
fn unquoted(text: &str) -> Option<String> {
    let (mut key, mut characters) = (String::new(), text.chars());
    loop {
        match characters.next()? {
            '"' => return characters.as_str().is_empty().then_some(key),
            '\\' => match characters.next()? {
                escaped @ ('"' | '\\') => key.push(escaped),
                _ => return None,
            },
            other => key.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(values: &[&str]) -> Result<Option<String>, Malformed> {
        let mut headers = HeaderMap::new();
        for value in values {
            let value = HeaderValue::from_bytes(value.as_bytes()).expect("a value");
            headers.append(KEY, value);
        }
        key(&headers).map(|key| key.map(|key| key.to_string()))
    }

    #[test]
    fn idempotency_keys_may_be_quoted_or_bare() {
        let longest = "k".repeat(255);
        for (value, expected) in [
            ("abc", "abc"),
            (
                "  8e03978e-40d5-43dd-bc93-6894a57f9324 ",
                "8e03978e-40d5-43dd-bc93-6894a57f9324",
            ),
            ("\"abc\"", "abc"),
            ("\" a \\\" \\\\ \"", " a \" \\ "),
            ("a\"b", "a\"b"),
            (&longest, &longest),
        ] {
            assert_eq!(read(&[value]), Ok(Some(expected.to_owned())), "{value}");
        }
        assert_eq!(read(&[]), Ok(None));
    }

    #[test]
    fn invalid_idempotency_keys_are_refused() {
        let too_long = "k".repeat(256);
        for value in [
            "", "\"\"", "\"abc", "\"", "\"a\" b", "\"a\\b\"", "\"a\\", "é", &too_long,
        ] {
            let refused = read(&[value]);
            assert!(
                matches!(refused, Err(Malformed::IdempotencyKey(_))),
                "{value}: {refused:?}"
            );
        }
        assert!(read(&["a", "a"]).is_err());
        let given = "must be 1 to 255 bytes long, 256 were given";
        let expected = Malformed::IdempotencyKey(given.into());
        assert_eq!(read(&[&too_long]), Err(expected));
    }
}
