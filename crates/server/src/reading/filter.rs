//! Filters: `column=operator.value`, `and=(…)`, `or=(…)`.

use super::{Unreadable, column, port, text::Text};
use crate::json::{self, Defect};
use serde_json::Value;
use widgets_registry::{
    Port,
    query::{Column, Comparison, Contained, Filter, Pattern, SlotPattern, Table, Test},
};

/// The maximum depth of a tree. The code below recurses as deep as the caller's tree.
const DEPTH_MAX: usize = 32;

/// The operators that a value can be compared with.
pub(crate) const OPERATORS: &str =
    "\"not\" or operator (eq, neq, gt, gte, lt, lte, like, ilike, in, is; cs on slots)";

/// Where a value ends.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Within {
    /// At the end of the parameter: the whole rest is the value.
    Parameter,
    /// At `,` or `)`, unless it is quoted.
    Tree,
}

/// Parses the filter of one column.
pub(super) fn of_column(table: Table, name: &str, given: &str) -> Result<Filter, Unreadable> {
    let column = column(table, name)?;
    let mut text = Text::new("filter", given);
    let filter = condition(column, &mut text, Within::Parameter)?;
    text.end()?;
    Ok(filter)
}

/// Parses a tree below `and` or `or`, which may be negated.
pub(super) fn of_tree(
    table: Table,
    operator: Logic,
    is_negated: bool,
    given: &str,
) -> Result<Filter, Unreadable> {
    let mut text = Text::new("logic tree", given);
    let tree = branches(table, operator, &mut text, 1)?;
    text.skip_spaces();
    text.end()?;
    Ok(negated(is_negated, tree))
}

/// How the branches of a tree are combined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Logic {
    And,
    Or,
}

fn negated(is_negated: bool, filter: Filter) -> Filter {
    if is_negated {
        Filter::Not(Box::new(filter))
    } else {
        filter
    }
}

fn branches(
    table: Table,
    operator: Logic,
    text: &mut Text<'_>,
    depth: usize,
) -> Result<Filter, Unreadable> {
    if depth > DEPTH_MAX {
        return Err(text.error(&format!("a tree is at most {DEPTH_MAX} levels deep")));
    }
    text.skip_spaces();
    if !text.take("(") {
        return Err(text.unexpected("\"(\""));
    }
    let mut filters = Vec::new();
    loop {
        text.skip_spaces();
        filters.push(branch(table, text, depth)?);
        text.skip_spaces();
        if text.take(")") {
            break;
        }
        if !text.take(",") {
            return Err(text.unexpected("\",\" or \")\""));
        }
    }
    Ok(match operator {
        Logic::And => Filter::All(filters),
        Logic::Or => Filter::Any(filters),
    })
}

fn branch(table: Table, text: &mut Text<'_>, depth: usize) -> Result<Filter, Unreadable> {
    for (word, is_negated, operator) in [
        ("and", false, Logic::And),
        ("or", false, Logic::Or),
        ("not.and", true, Logic::And),
        ("not.or", true, Logic::Or),
    ] {
        let rest = text.rest().strip_prefix(word);
        if rest.is_some_and(|rest| rest.trim_start_matches(' ').starts_with('(')) {
            text.take(word);
            let tree = branches(table, operator, text, depth + 1)?;
            return Ok(negated(is_negated, tree));
        }
    }
    let name = text.name()?;
    if !text.take(".") {
        return Err(text.unexpected("\".\""));
    }
    condition(column(table, &name)?, text, Within::Tree)
}

fn condition(column: Column, text: &mut Text<'_>, within: Within) -> Result<Filter, Unreadable> {
    let is_negated = text.take("not.");
    let before = text.error(&format!(
        "unexpected {:?} expecting {OPERATORS}",
        text.until_dot()
    ));
    let Some((word, _)) = text.rest().split_once('.') else {
        return Err(before);
    };
    let comparison = match word {
        "eq" => Some(Comparison::Equal),
        "neq" => Some(Comparison::NotEqual),
        "gt" => Some(Comparison::Greater),
        "gte" => Some(Comparison::GreaterOrEqual),
        "lt" => Some(Comparison::Less),
        "lte" => Some(Comparison::LessOrEqual),
        _ => None,
    };
    if (column == Column::Slots) != (word == "cs") {
        let known = comparison.is_some() || ["like", "ilike", "in", "is", "cs"].contains(&word);
        return Err(match (known, column) {
            (false, _) => before,
            (true, Column::Slots) => text.error("slots can only be filtered by cs and not.cs"),
            (true, _) => text.error("cs can only be asked of slots"),
        });
    }
    text.take(word);
    text.take(".");
    let asked = match (comparison, word) {
        (Some(comparison), _) => {
            let value = value(text, within)?;
            compared(column, comparison, &value)?
        }
        (None, "like" | "ilike") => {
            let at = text.error("a pattern must not end with the escape character \\");
            let pattern = value(text, within)?.replace('*', "%");
            Test::Like(Pattern::new(&pattern, word == "ilike").ok_or(at)?)
        }
        (None, "in") => among(column, text)?,
        (None, "is") => return Ok(negated(is_negated, is(text, within)?(column))),
        (None, "cs") => Test::Contains(contained(&value(text, within)?)?),
        (None, _) => return Err(before),
    };
    Ok(negated(is_negated, Filter::Test(column, asked)))
}

impl Text<'_> {
    fn until_dot(&self) -> &str {
        let rest = self.rest();
        let end = rest.find(['.', ',', ')', '(']).unwrap_or(rest.len());
        &rest[..end]
    }
}

fn value(text: &mut Text<'_>, within: Within) -> Result<String, Unreadable> {
    match within {
        Within::Parameter => Ok(text.until(&[]).to_owned()),
        Within::Tree => element(text),
    }
}

/// Parses a value that ends at `,` or `)`, quoted or not.
fn element(text: &mut Text<'_>) -> Result<String, Unreadable> {
    match text.quoted()? {
        Some(_) if !matches!(text.peek(), Some(',' | ')')) => {
            Err(text.unexpected("\",\" or \")\" behind a quoted value"))
        }
        Some(quoted) => Ok(quoted),
        None => Ok(text.until(&[',', ')']).to_owned()),
    }
}

fn compared(column: Column, comparison: Comparison, value: &str) -> Result<Test, Unreadable> {
    Ok(match column {
        Column::Ordinal => Test::Number(comparison, integer(value)?),
        Column::Port => Test::Text(comparison, port(value)?.as_str().into()),
        _ => Test::Text(comparison, value.into()),
    })
}

pub(super) fn integer(value: &str) -> Result<i32, Unreadable> {
    value.trim().parse().map_err(|_| Unreadable::Value {
        kind: "integer",
        given: value.to_owned(),
        details: None,
    })
}

fn among(column: Column, text: &mut Text<'_>) -> Result<Test, Unreadable> {
    if !text.take("(") {
        return Err(text.unexpected("\"(\""));
    }
    let mut values = Vec::new();
    // An empty list, as opposed to a list of the empty text, which is quoted.
    if !text.take(")") {
        loop {
            values.push(element(text)?);
            if text.take(")") {
                break;
            }
            if !text.take(",") {
                return Err(text.unexpected("\",\" or \")\""));
            }
        }
    }
    let values = values.iter();
    Ok(match column {
        Column::Ordinal => {
            let numbers = values.map(|value| integer(value));
            Test::NumberIn(numbers.collect::<Result<_, _>>()?)
        }
        Column::Port => {
            let ports = values.map(|value| Ok(port(value)?.as_str().into()));
            Test::TextIn(ports.collect::<Result<_, Unreadable>>()?)
        }
        _ => Test::TextIn(values.map(|value| value.as_str().into()).collect()),
    })
}

/// Parses `is`: null or not. No column here is true or false.
fn is(text: &mut Text<'_>, within: Within) -> Result<fn(Column) -> Filter, Unreadable> {
    let at = text.error("unexpected value expecting null or not_null: no column is true or false");
    let word = value(text, within)?;
    match word.to_ascii_lowercase().as_str() {
        "null" => Ok(|column| Filter::Test(column, Test::Null)),
        "not_null" => Ok(|column| Filter::Not(Box::new(Filter::Test(column, Test::Null)))),
        _ => Err(at),
    }
}

/// Parses what `slots` has to contain, in the form that `jsonb @>` takes. A value that no slots can
/// contain is a mistake, and an empty result would not help the caller, so it is refused.
fn contained(given: &str) -> Result<Contained, Unreadable> {
    let invalid = |details: String| Unreadable::Value {
        kind: "json",
        given: given.to_owned(),
        details: Some(details),
    };
    let value = json::parse(given.as_bytes()).map_err(|defect| {
        invalid(match defect {
            Defect::Syntax { line, column } => {
                format!("it is no JSON from line {line}, column {column} on")
            }
            Defect::Repeated(name) => format!("an object names the member \"{name}\" twice"),
        })
    })?;
    if has_nul(&value) {
        return Err(invalid("a text must not contain the character NUL".into()));
    }
    let Value::Array(elements) = value else {
        return Err(invalid(SLOTS.into()));
    };
    let patterns = elements.iter().map(|element| {
        slot_pattern(element).map_err(|wrong| match wrong {
            Wrong::Port(port) => Unreadable::Port(port),
            Wrong::Shape => invalid(SLOTS.into()),
        })
    });
    Ok(Contained(patterns.collect::<Result<_, _>>()?))
}

const SLOTS: &str =
    "slots contain objects with port (P, Q or R) and peer (a serial number or null), in an array";

fn has_nul(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains('\0'),
        Value::Array(elements) => elements.iter().any(has_nul),
        Value::Object(members) => {
            let mut members = members.iter();
            members.any(|(name, value)| name.contains('\0') || has_nul(value))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

/// Why no slot contains the value.
enum Wrong {
    /// There is no such port type.
    Port(String),
    /// It is not an object, or has a member that slots do not have.
    Shape,
}

fn slot_pattern(value: &Value) -> Result<SlotPattern, Wrong> {
    let mut pattern = SlotPattern::default();
    for (name, value) in value.as_object().ok_or(Wrong::Shape)? {
        match (name.as_str(), value) {
            ("port", Value::String(port)) => {
                let known = Port::parse(port).map_err(|_| Wrong::Port(port.clone()))?;
                pattern.port = Some(known);
            }
            ("port", other) => return Err(Wrong::Port(other.to_string())),
            ("peer", Value::Null) => pattern.peer = Some(None),
            ("peer", Value::String(peer)) => pattern.peer = Some(Some(peer.as_str().into())),
            _ => return Err(Wrong::Shape),
        }
    }
    Ok(pattern)
}
