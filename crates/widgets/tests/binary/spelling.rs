//! Writes a list in PostgREST's query language, the reverse of what the service reads.

use std::fmt::Write as _;
use widgets_registry::query::{
    Column, Comparison, Contained, Direction, Filter, List, SlotPattern, Table, Test,
};

/// Returns the query string of a list. The count is requested by a header.
pub(crate) fn query(list: &List) -> String {
    let direction = match list.direction {
        Direction::Ascending => "asc",
        Direction::Descending => "desc",
    };
    let columns = list.table.order().iter();
    let order: Vec<String> = columns
        .map(|column| format!("{}.{direction}", column.as_str()))
        .collect();
    let filter = format!("({})", filter(&list.filter, list.table));
    format!(
        "order={}&offset={}&limit={}&and={}",
        order.join(","),
        list.offset,
        list.limit,
        encoded(&filter)
    )
}

fn filter(filter: &Filter, table: Table) -> String {
    match filter {
        // A tree needs at least one branch.
        Filter::All(filters) if filters.is_empty() => always(table),
        Filter::Any(filters) if filters.is_empty() => never(table),
        Filter::All(filters) => format!("and({})", branches(filters, table)),
        Filter::Any(filters) => format!("or({})", branches(filters, table)),
        Filter::Not(inner) => match &**inner {
            Filter::Test(..) => {
                let test = self::filter(inner, table);
                let (column, rest) = test.split_once('.').expect("a column and its test");
                if rest.starts_with("not.") {
                    format!("not.and({test})")
                } else {
                    format!("{column}.not.{rest}")
                }
            }
            inner => format!("not.and({})", self::filter(inner, table)),
        },
        Filter::Test(column, test) => format!("{}.{}", column.as_str(), self::test(test, *column)),
    }
}

fn branches(filters: &[Filter], table: Table) -> String {
    let filters: Vec<String> = filters.iter().map(|each| filter(each, table)).collect();
    filters.join(",")
}

fn always(table: Table) -> String {
    format!("{}.not.is.null", table.order()[0].as_str())
}

fn never(table: Table) -> String {
    format!("{}.is.null", table.order()[0].as_str())
}

fn test(asked: &Test, column: Column) -> String {
    match asked {
        Test::Text(comparison, text) => format!("{}.{}", word(*comparison), quoted(text)),
        Test::Number(comparison, number) => format!("{}.{number}", word(*comparison)),
        Test::TextIn(texts) => {
            let texts: Vec<String> = texts.iter().map(|text| quoted(text)).collect();
            format!("in.({})", texts.join(","))
        }
        Test::NumberIn(numbers) => {
            let numbers: Vec<String> = numbers.iter().map(ToString::to_string).collect();
            format!("in.({})", numbers.join(","))
        }
        Test::Like(pattern) => {
            let word = if pattern.ignores_case() {
                "ilike"
            } else {
                "like"
            };
            assert!(!pattern.as_str().contains('*'), "no spelling means a star");
            format!("{word}.{}", quoted(pattern.as_str()))
        }
        Test::Null => "is.null".into(),
        Test::Contains(contained) => {
            assert_eq!(column, Column::Slots);
            format!("cs.{}", quoted(&json(contained)))
        }
    }
}

fn json(contained: &Contained) -> String {
    let Contained(patterns) = contained;
    let object = |pattern: &SlotPattern| {
        let mut object = serde_json::Map::new();
        if let Some(port) = pattern.port {
            object.insert("port".into(), port.as_str().into());
        }
        if let Some(peer) = &pattern.peer {
            object.insert("peer".into(), peer.as_deref().into());
        }
        serde_json::Value::Object(object)
    };
    serde_json::Value::Array(patterns.iter().map(object).collect()).to_string()
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

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

fn encoded(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() {
            encoded.push(byte.into());
        } else {
            write!(encoded, "%{byte:02X}").expect("a string takes everything");
        }
    }
    encoded
}
