//! Describes what is wrong with a line: which member, what it must be, and what it is.

use serde_json::{Map, Value};

const MEMBERS: [&str; 3] = ["serial_number", "name", "slots"];
const SLOT_MEMBERS: [&str; 2] = ["port", "peer"];

/// Describes why a line could not be read as a widget.
pub(super) fn describe(line: &[u8], error: &serde_json::Error) -> String {
    let Ok(value) = serde_json::from_slice::<Value>(line) else {
        let why = syntax(error);
        return if error.is_eof() {
            why
        } else {
            format!("it is not JSON: {why}")
        };
    };
    // If the walk finds no fault, the line has what JSON allows and this format does not: a name
    // that occurs twice.
    widget(&value).err().unwrap_or_else(|| syntax(error))
}

/// Returns the parser's message, with the place in this line.
fn syntax(error: &serde_json::Error) -> String {
    let column = error.column();
    let place = format!(" at line {} column {column}", error.line());
    let text = error.to_string();
    let cause = text.strip_suffix(&place).unwrap_or(&text);
    if error.is_eof() {
        return format!("it ends at column {column} in the middle of a widget: {cause}");
    }
    format!("{cause} at column {column}")
}

fn widget(value: &Value) -> Result<(), String> {
    let members = object("a widget", value, &MEMBERS)?;
    for name in ["serial_number", "name"] {
        if let Some(value) = members.get(name)
            && !value.is_string()
        {
            return Err(format!(
                "{name} must be a string, {} was given",
                given(value)
            ));
        }
    }
    let Some(slots) = members.get("slots") else {
        return Ok(());
    };
    let Value::Array(slots) = slots else {
        return Err(format!("slots must be a list, {} was given", given(slots)));
    };
    for (number, value) in slots.iter().enumerate() {
        let place = format!("slots[{number}]");
        let members = object(&place, value, &SLOT_MEMBERS)?;
        for (name, value) in members {
            let is_right = value.is_string() || name == "peer" && value.is_null();
            if !is_right {
                let wanted = if name == "peer" {
                    "the serial number of a widget, or null"
                } else {
                    "\"P\", \"Q\" or \"R\""
                };
                let given = given(value);
                return Err(format!(
                    "{place}.{name} must be {wanted}, {given} was given"
                ));
            }
        }
    }
    Ok(())
}

/// Returns the members of an object that must have these and no others.
fn object<'a>(
    what: &str,
    value: &'a Value,
    names: &[&str],
) -> Result<&'a Map<String, Value>, String> {
    let list = names.join(", ");
    let Value::Object(members) = value else {
        let given = given(value);
        return Err(format!(
            "{what} must be an object with {list}, {given} was given"
        ));
    };
    if let Some(strange) = members.keys().find(|name| !names.contains(&name.as_str())) {
        return Err(format!(
            "{what} has a member {strange:?}, it may have {list}"
        ));
    }
    match names.iter().find(|name| !members.contains_key(**name)) {
        Some(missing) => Err(format!("{what} must have {list}, {missing} is missing")),
        None => Ok(members),
    }
}

fn given(value: &Value) -> String {
    match value {
        Value::Null => "null".into(),
        Value::Bool(value) => value.to_string(),
        Value::Number(number) => format!("the number {number}"),
        Value::String(_) => "a text".into(),
        Value::Array(_) => "a list".into(),
        Value::Object(_) => "an object".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::format::parse;

    #[test]
    fn parse_errors_name_the_json_member() {
        for (line, words) in [
            (
                r#"{"serial_number":"A","name":"","slots":[3]}"#,
                "slots[0] must be an object with port, peer, the number 3 was given",
            ),
            (
                r#"{"serial_number":"A","name":"","slots":[{"port":"P","peer":null},{"port":1,"peer":null}]}"#,
                r#"slots[1].port must be "P", "Q" or "R", the number 1 was given"#,
            ),
            (
                r#"{"serial_number":"A","name":"","slots":[{"port":"P","peer":7}]}"#,
                "slots[0].peer must be the serial number of a widget, or null, the number 7 was given",
            ),
            (
                r#"{"serial_number":"A","name":"","slots":[{"peer":null}]}"#,
                "slots[0] must have port, peer, port is missing",
            ),
            (
                r#"{"serial_number":"A","name":"","slots":[{"port":"P"}]}"#,
                "slots[0] must have port, peer, peer is missing",
            ),
            (
                r#"{"serial_number":"A","name":"","slots":[["P","F"]]}"#,
                "slots[0] must be an object with port, peer, a list was given",
            ),
            (
                r#"["A","",[]]"#,
                "a widget must be an object with serial_number, name, slots, a list was given",
            ),
            (
                r#"{"serial_number":"A","name":"","slots":[{"port":"p","peer":null}]}"#,
                r#"slots[0].port must be "P", "Q" or "R", "p" was given"#,
            ),
            (
                r#"{"serial_number":"A","name":"","slots":{}}"#,
                "slots must be a list, an object was given",
            ),
            (
                r#"{"serial_number":5,"name":"","slots":[]}"#,
                "serial_number must be a string, the number 5 was given",
            ),
            (
                r#"{"serial_number":"A","slots":[]}"#,
                "a widget must have serial_number, name, slots, name is missing",
            ),
            (
                r#"{"serial_number":"A","nmae":"","slots":[]}"#,
                r#"a widget has a member "nmae", it may have serial_number, name, slots"#,
            ),
            (
                "[]",
                "a widget must be an object with serial_number, name, slots, a list was given",
            ),
            (
                r#"{"serial_number":"A","name":"","name":"","slots":[]}"#,
                "duplicate field `name` at column 37",
            ),
            (
                r#"{"serial_number":"A","#,
                "it ends at column 21 in the middle of a widget: EOF while parsing a value",
            ),
            (
                r#"{"serial_number" "A"}"#,
                "it is not JSON: expected `:` at column 18",
            ),
            ("hello", "it is not JSON: expected value at column 1"),
        ] {
            assert_eq!(parse(line.as_bytes()).unwrap_err(), words, "{line}");
        }
    }
}
