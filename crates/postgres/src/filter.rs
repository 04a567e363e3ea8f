//! Encodes a filter for `widgets.condition`: words and numbers as JSON, and all texts separately.
//!
//! The JSON never contains texts. They are passed as a parameter of the statement, and the JSON
//! refers to them by their places in it.

use std::fmt::Write as _;
use widgets_registry::query::{Comparison, Contained, Filter, Test};

/// A filter as the database receives it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Encoded {
    pub(crate) json: String,
    pub(crate) texts: Vec<String>,
}

impl Encoded {
    pub(crate) fn new(filter: &Filter) -> Self {
        let mut encoded = Self::default();
        encoded.filter(filter);
        encoded
    }

    fn filter(&mut self, filter: &Filter) {
        match filter {
            Filter::All(filters) => self.list("all", filters),
            Filter::Any(filters) => self.list("any", filters),
            Filter::Not(filter) => {
                self.json.push_str("{\"not\":");
                self.filter(filter);
                self.json.push('}');
            }
            Filter::Test(column, test) => {
                let column = column.as_str();
                self.push(format_args!("{{\"column\":\"{column}\",\"test\":"));
                self.test(test);
                self.json.push('}');
            }
        }
    }

    fn list(&mut self, name: &str, filters: &[Filter]) {
        self.push(format_args!("{{\"{name}\":["));
        for (number, filter) in filters.iter().enumerate() {
            if number > 0 {
                self.json.push(',');
            }
            self.filter(filter);
        }
        self.json.push_str("]}");
    }

    fn test(&mut self, asked: &Test) {
        match asked {
            Test::Text(comparison, text) => {
                let place = self.text(text);
                self.push(format_args!("\"{}\",\"text\":{place}", word(*comparison)));
            }
            Test::Number(comparison, number) => {
                self.push(format_args!(
                    "\"{}\",\"number\":{number}",
                    word(*comparison)
                ));
            }
            Test::TextIn(texts) => {
                let first = self.texts.len() + 1;
                let last = self.texts.len() + texts.len();
                self.texts.extend(texts.iter().map(ToString::to_string));
                self.push(format_args!("\"in\",\"first\":{first},\"last\":{last}"));
            }
            Test::NumberIn(numbers) => {
                let numbers: Vec<String> = numbers.iter().map(ToString::to_string).collect();
                self.push(format_args!("\"in\",\"numbers\":[{}]", numbers.join(",")));
            }
            Test::Like(pattern) => {
                let word = if pattern.ignores_case() {
                    "ilike"
                } else {
                    "like"
                };
                let place = self.text(pattern.as_str());
                self.push(format_args!("\"{word}\",\"text\":{place}"));
            }
            Test::Null => self.json.push_str("\"null\""),
            Test::Contains(Contained(patterns)) => {
                self.json.push_str("\"contains\",\"patterns\":[");
                for (number, pattern) in patterns.iter().enumerate() {
                    let mut members = Vec::new();
                    if let Some(port) = pattern.port {
                        members.push(format!("\"port\":\"{port}\""));
                    }
                    match &pattern.peer {
                        None => {}
                        Some(None) => members.push("\"peer\":null".into()),
                        Some(Some(peer)) => members.push(format!("\"text\":{}", self.text(peer))),
                    }
                    let comma = if number > 0 { "," } else { "" };
                    self.push(format_args!("{comma}{{{}}}", members.join(",")));
                }
                self.json.push(']');
            }
        }
    }

    /// Adds a text and returns its place, counted from 1.
    fn text(&mut self, text: &str) -> usize {
        self.texts.push(text.to_owned());
        self.texts.len()
    }

    fn push(&mut self, arguments: std::fmt::Arguments<'_>) {
        // Writing to a string cannot fail.
        let _ = self.json.write_fmt(arguments);
    }
}

fn word(comparison: Comparison) -> &'static str {
    match comparison {
        Comparison::Equal => "eq",
        Comparison::NotEqual => "neq",
        Comparison::Greater => "gt",
        Comparison::GreaterOrEqual => "gte",
        Comparison::Less => "lt",
        Comparison::LessOrEqual => "lte",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use widgets_registry::{
        Port,
        query::{Column, Pattern, SlotPattern},
    };

    #[test]
    fn filter_texts_are_encoded_as_separate_parameters() {
        let text = |text: &str| Test::Text(Comparison::NotEqual, text.into());
        let quote = "'\"; DROP";
        let pattern = SlotPattern {
            port: Some(Port::R),
            peer: Some(Some(quote.into())),
        };
        let free = SlotPattern {
            port: None,
            peer: Some(None),
        };
        let filter = Filter::All(vec![
            Filter::Test(Column::Name, text(quote)),
            Filter::Not(Box::new(Filter::Any(vec![
                Filter::Test(
                    Column::SerialNumber,
                    Test::TextIn(["b".into(), "c".into()].into()),
                ),
                Filter::Test(Column::SerialNumber, Test::TextIn([].into())),
            ]))),
            Filter::Test(
                Column::Slots,
                Test::Contains(Contained(vec![pattern, free])),
            ),
            Filter::Test(Column::Ordinal, Test::NumberIn(vec![1, -2])),
            Filter::Test(Column::PeerSn, Test::Null),
            Filter::Test(
                Column::Name,
                Test::Like(Pattern::new("a%", true).expect("a pattern")),
            ),
        ]);
        let encoded = Encoded::new(&filter);
        assert_eq!(
            encoded.json,
            concat!(
                r#"{"all":[{"column":"name","test":"neq","text":1},"#,
                r#"{"not":{"any":[{"column":"serial_number","test":"in","first":2,"last":3},"#,
                r#"{"column":"serial_number","test":"in","first":4,"last":3}]}},"#,
                r#"{"column":"slots","test":"contains","patterns":[{"port":"R","text":4},{"peer":null}]},"#,
                r#"{"column":"ordinal","test":"in","numbers":[1,-2]},{"column":"peer_sn","test":"null"},"#,
                r#"{"column":"name","test":"ilike","text":5}]}"#
            )
        );
        assert_eq!(encoded.texts, [quote, "b", "c", quote, "a%"]);
    }
}
