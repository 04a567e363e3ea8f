//! JSON in which no object has a repeated member.
//!
//! Parsers differ in which of two members with the same name counts. So an intermediary that
//! examined a body or a token may have seen the other one.

use serde::de::{self, DeserializeSeed, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use std::{cell::RefCell, fmt};

/// Why a text is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Defect {
    /// It is not JSON.
    Syntax {
        /// The line, from 1.
        line: usize,
        /// The column, from 1.
        column: usize,
    },
    /// An object has this member twice.
    Repeated(String),
}

/// Parses a text, and refuses it if an object has a repeated member.
pub(crate) fn parse(text: &[u8]) -> Result<Value, Defect> {
    let repeated = RefCell::new(None);
    let mut deserializer = serde_json::Deserializer::from_slice(text);
    let value = Unique(&repeated).deserialize(&mut deserializer);
    let whole = value.and_then(|value| deserializer.end().map(|()| value));
    whole.map_err(|error| match repeated.take() {
        Some(name) => Defect::Repeated(name),
        None => Defect::Syntax {
            line: error.line(),
            column: error.column(),
        },
    })
}

/// Parses a value, and records the first member that an object has twice.
#[derive(Clone, Copy)]
struct Unique<'a>(&'a RefCell<Option<String>>);

impl<'de> DeserializeSeed<'de> for Unique<'_> {
    type Value = Value;

    fn deserialize<D: de::Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Unique<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        // JSON has no numbers that are not finite.
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(Value::String(text.to_owned()))
    }

    fn visit_string<E>(self, text: String) -> Result<Value, E> {
        Ok(Value::String(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = sequence.next_element_seed(self)? {
            values.push(value);
        }
        Ok(Value::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut members = Map::new();
        while let Some(name) = map.next_key::<String>()? {
            if members.contains_key(&name) {
                self.0.replace(Some(name));
                return Err(de::Error::custom("a member is repeated"));
            }
            let value = map.next_value_seed(self)?;
            members.insert(name, value);
        }
        Ok(Value::Object(members))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn a_duplicate_member_is_detected_at_any_depth() {
        for (text, name) in [
            (r#"{"a":1,"a":1}"#, "a"),
            (r#"{"a":1,"\u0061":null}"#, "a"),
            (r#"[0,{"b":{"":1,"":2}}]"#, ""),
            // The text after it does not matter.
            (r#"{"a":1,"b":2,"a":"#, "a"),
        ] {
            let repeated = Defect::Repeated(name.into());
            assert_eq!(parse(text.as_bytes()), Err(repeated), "{text}");
        }
        let apart = r#" {"a":{"a":[{"a":1},{"a":1.5}]},"A":null} "#;
        let value = json!({"a": {"a": [{"a": 1}, {"a": 1.5}]}, "A": null});
        assert_eq!(parse(apart.as_bytes()), Ok(value));
    }

    #[test]
    fn invalid_json_is_reported_with_line_and_column() {
        for text in [
            "",
            "{",
            "{} {}",
            "\u{feff}{}",
            "{\"a\":\n,}",
            "nul",
            "1e999",
        ] {
            let error = serde_json::from_str::<Value>(text).expect_err(text);
            let (line, column) = (error.line(), error.column());
            let syntax = Defect::Syntax { line, column };
            assert_eq!(parse(text.as_bytes()), Err(syntax), "{text}");
        }
        let deep = "[".repeat(100_000);
        assert!(matches!(parse(deep.as_bytes()), Err(Defect::Syntax { .. })));
    }

    proptest! {
        /// The result is that of `serde_json`, unless a member is repeated.
        #[test]
        fn parsing_agrees_with_serde_json_except_for_duplicates(text in r#"[\[\]{}:,"a0-9.e\\ -]{0,24}"#) {
            match (parse(text.as_bytes()), serde_json::from_str::<Value>(&text)) {
                (Ok(value), Ok(other)) => prop_assert_eq!(value, other),
                (Err(Defect::Syntax { .. }), Err(_)) | (Err(Defect::Repeated(_)), _) => {}
                (ours, theirs) => prop_assert!(false, "{ours:?}, not {theirs:?}"),
            }
        }
    }
}
