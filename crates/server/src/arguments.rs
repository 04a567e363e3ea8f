//! Turns a body into a command: names, types, ports, limits, in the specification's order.
//!
//! A valid body is read directly into its command. An invalid one is read again by a slower path
//! that finds out what is wrong, so that refusals are worded in one place only.

use crate::{
    error::{Error, Given, Malformed, NoFunction},
    json::{self, Defect},
    signature::names,
};
use serde::{
    Deserialize, Deserializer,
    de::{SeqAccess, Unexpected, Visitor},
};
use serde_json::{Map, Value};
use std::{borrow::Cow, fmt};
use widgets_registry::{
    Command, Name, Operation, Pair, Port, Ports, Refusal, SLOTS_MAX, SerialNumber,
};

/// `add_widget` with the other spelling of `widget_name`. A call with both spellings matches
/// neither list.
const ADD_WIDGET_NAMES_OTHER: [&str; 3] = ["name", "slots", "widget_sn"];

/// Reports whether the operation takes exactly the arguments with these names, which must be
/// sorted.
pub(crate) fn accepts(operation: Operation, given: &[impl AsRef<str>]) -> bool {
    let equal = |names: &[&str]| names.iter().copied().eq(given.iter().map(AsRef::as_ref));
    equal(names(operation))
        || operation == Operation::AddWidget && equal(ADD_WIDGET_NAMES_OTHER.as_slice())
}

/// Returns the command that `body` asks of the operation.
///
/// The outer error means that the body is not a call of the operation at all; the inner one refuses
/// the values of a call. Other checks come between the two.
pub(crate) fn command(
    operation: Operation,
    body: &[u8],
) -> Result<Result<Command, Error>, Malformed> {
    if let Some(command) = read(operation, body) {
        return Ok(Ok(command));
    }
    let arguments = parse(body)?;
    let given = sorted_names(&arguments);
    if !accepts(operation, &given) {
        let function = operation.as_str().to_owned();
        let given = Given::Json(given);
        return Err(Malformed::Function(NoFunction { function, given }));
    }
    Ok(explain(operation, &arguments))
}

/// Returns the error for a call of a function that does not exist.
pub(crate) fn unknown(function: &str, body: &[u8]) -> Malformed {
    match parse(body) {
        Ok(arguments) => Malformed::Function(NoFunction {
            function: function.to_owned(),
            given: Given::Json(sorted_names(&arguments)),
        }),
        Err(malformed) => malformed,
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AddWidget<'a> {
    #[serde(borrow)]
    widget_sn: Cow<'a, str>,
    #[serde(borrow, alias = "name")]
    widget_name: Cow<'a, str>,
    slots: Slots,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RemoveWidget<'a> {
    #[serde(borrow)]
    widget_sn: Cow<'a, str>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TwoWidgets<'a> {
    #[serde(borrow)]
    widget1_sn: Cow<'a, str>,
    #[serde(borrow)]
    widget2_sn: Cow<'a, str>,
    port: PortName,
}

struct PortName(Port);

impl<'de> Deserialize<'de> for PortName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ThisVisitor;

        impl Visitor<'_> for ThisVisitor {
            type Value = PortName;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a port type")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<PortName, E> {
                match Port::parse(text) {
                    Ok(port) => Ok(PortName(port)),
                    Err(_) => Err(E::invalid_value(Unexpected::Str(text), &self)),
                }
            }
        }

        deserializer.deserialize_str(ThisVisitor)
    }
}

struct Slots(Ports);

impl<'de> Deserialize<'de> for Slots {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ThisVisitor;

        impl<'de> Visitor<'de> for ThisVisitor {
            type Value = Slots;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "at most {SLOTS_MAX} port types")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Slots, A::Error> {
                use serde::de::Error as _;
                let mut ports = [Port::P; SLOTS_MAX];
                let mut len = 0;
                while let Some(PortName(port)) = sequence.next_element()? {
                    let place = ports.get_mut(len);
                    *place.ok_or_else(|| A::Error::invalid_length(len + 1, &self))? = port;
                    len += 1;
                }
                Ports::new(&ports[..len])
                    .map(Slots)
                    .map_err(A::Error::custom)
            }
        }

        deserializer.deserialize_seq(ThisVisitor)
    }
}

/// Reads a valid call directly. Returns `None`, without a reason, if anything is wrong.
fn read(operation: Operation, body: &[u8]) -> Option<Command> {
    // Checked once for the whole body instead of for each of its strings.
    let body = std::str::from_utf8(body).ok()?;
    match operation {
        Operation::AddWidget => {
            let arguments: AddWidget<'_> = serde_json::from_str(body).ok()?;
            Some(Command::AddWidget {
                serial_number: SerialNumber::new("widget_sn", arguments.widget_sn).ok()?,
                name: Name::new("widget_name", arguments.widget_name).ok()?,
                ports: arguments.slots.0,
            })
        }
        Operation::RemoveWidget => {
            let arguments: RemoveWidget<'_> = serde_json::from_str(body).ok()?;
            let serial_number = SerialNumber::new("widget_sn", arguments.widget_sn).ok()?;
            Some(Command::RemoveWidget { serial_number })
        }
        Operation::AssociateWidgets => Some(Command::AssociateWidgets(read_pair(body)?)),
        Operation::RemoveAssociation => Some(Command::RemoveAssociation(read_pair(body)?)),
    }
}

fn read_pair(body: &str) -> Option<Pair> {
    let arguments: TwoWidgets<'_> = serde_json::from_str(body).ok()?;
    let widget1 = SerialNumber::new("widget1_sn", arguments.widget1_sn).ok()?;
    let widget2 = SerialNumber::new("widget2_sn", arguments.widget2_sn).ok()?;
    Pair::new(widget1, widget2, arguments.port.0).ok()
}

/// Returns the members of a body.
fn parse(body: &[u8]) -> Result<Map<String, Value>, Malformed> {
    if body.is_empty() {
        return Ok(Map::new());
    }
    match json::parse(body) {
        Ok(Value::Object(arguments)) => Ok(arguments),
        Ok(Value::Array(_)) => Err(Malformed::Body(
            "a request is one operation: the body must be a JSON object, not an array".into(),
        )),
        // Like PostgREST, treats anything but an object as a call without arguments.
        Ok(_) => Ok(Map::new()),
        Err(Defect::Repeated(name)) => Err(Malformed::Body(
            format!("the body names the member {name:?} twice").into(),
        )),
        Err(Defect::Syntax { .. }) => Err(Malformed::Body("Empty or invalid json".into())),
    }
}

/// Sorts explicitly, because the order of the map depends on a feature that any crate in the build
/// can enable.
fn sorted_names(arguments: &Map<String, Value>) -> Vec<String> {
    let mut names: Vec<String> = arguments.keys().cloned().collect();
    names.sort_unstable();
    names
}

/// Returns the command that these arguments make, or what is wrong. Their names must be the
/// operation's.
fn explain(operation: Operation, arguments: &Map<String, Value>) -> Result<Command, Error> {
    match operation {
        Operation::AddWidget => add_widget(arguments),
        Operation::RemoveWidget => {
            let serial_number = text(arguments, "widget_sn")?;
            Ok(Command::RemoveWidget {
                serial_number: SerialNumber::new("widget_sn", serial_number)?,
            })
        }
        Operation::AssociateWidgets => pair(arguments).map(Command::AssociateWidgets),
        Operation::RemoveAssociation => pair(arguments).map(Command::RemoveAssociation),
    }
}

fn add_widget(arguments: &Map<String, Value>) -> Result<Command, Error> {
    let name_field = if arguments.contains_key("name") {
        "name"
    } else {
        "widget_name"
    };
    let serial_number = text(arguments, "widget_sn")?;
    let name = text(arguments, name_field)?;
    let ports = match arguments.get("slots") {
        Some(Value::Array(slots)) => {
            let ports = slots.iter().map(|slot| port(slot, "slots"));
            Ports::new(&ports.collect::<Result<Vec<_>, _>>()?)?
        }
        Some(Value::Null) | None => return Err(Refusal::Null { field: "slots" }.into()),
        Some(_) => {
            let (field, expected) = ("slots", "an array of port types");
            return Err(Malformed::WrongType { field, expected }.into());
        }
    };
    Ok(Command::AddWidget {
        serial_number: SerialNumber::new("widget_sn", serial_number)?,
        name: Name::new(name_field, name)?,
        ports,
    })
}

fn pair(arguments: &Map<String, Value>) -> Result<Pair, Error> {
    let widget1 = text(arguments, "widget1_sn")?;
    let widget2 = text(arguments, "widget2_sn")?;
    let port = port(arguments.get("port").unwrap_or(&Value::Null), "port")?;
    let widget1 = SerialNumber::new("widget1_sn", widget1)?;
    let widget2 = SerialNumber::new("widget2_sn", widget2)?;
    Ok(Pair::new(widget1, widget2, port)?)
}

fn text<'a>(arguments: &'a Map<String, Value>, field: &'static str) -> Result<&'a str, Error> {
    match arguments.get(field) {
        Some(Value::String(text)) => Ok(text),
        Some(Value::Null) | None => Err(Refusal::Null { field }.into()),
        Some(_) => {
            let expected = "a string";
            Err(Malformed::WrongType { field, expected }.into())
        }
    }
}

fn port(value: &Value, field: &'static str) -> Result<Port, Error> {
    match value {
        Value::String(text) => Port::parse(text).map_err(|_| {
            let given = text.clone();
            Malformed::Port { field, given }.into()
        }),
        Value::Null => Err(Refusal::Null { field }.into()),
        _ => {
            let expected = "a port type, as a string";
            Err(Malformed::WrongType { field, expected }.into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::{collection::vec, prelude::*, sample::select};
    use serde_json::json;
    use std::{fs, path::Path};

    /// Values around every rule.
    fn value() -> impl Strategy<Value = Value> {
        let text = select(vec![
            json!("E"),
            json!("F"),
            json!(""),
            json!("a\u{0}"),
            json!("é\n\""),
            json!("s".repeat(255)),
            json!("s".repeat(256)),
            json!("n".repeat(1024)),
            json!("n".repeat(1025)),
        ]);
        let port = select(vec![json!("P"), json!("Q"), json!("R"), json!("p")]);
        let other = select(vec![json!(null), json!(5), json!(true), json!({})]);
        let single = prop_oneof![4 => text, 4 => port, 1 => other];
        let list = vec(single.clone(), 0..5).prop_map(Value::Array);
        prop_oneof![3 => single, 1 => list]
    }

    /// Returns the text of an object that has mostly the operation's members, some perhaps twice.
    fn body(operation: Operation) -> impl Strategy<Value = String> {
        let mut known = names(operation).to_vec();
        known.extend(["name", "x"]);
        let all = names(operation).iter().map(|&name| (Just(name), value()));
        let all: Vec<_> = all.collect();
        (all, vec((select(known), value()), 0..2), any::<bool>()).prop_map(
            |(mut members, further, complete)| {
                if !complete {
                    members.pop();
                }
                members.extend(further);
                let members = members
                    .iter()
                    .map(|(name, value)| format!("\"{name}\":{value}"));
                format!("{{{}}}", members.collect::<Vec<_>>().join(","))
            },
        )
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4096))]

        /// The direct path accepts exactly what the slow path accepts, and neither accepts a
        /// repeated member.
        #[test]
        fn the_direct_and_the_slow_parser_agree_on_any_body(
            (operation, body) in select(Operation::ALL.to_vec())
                .prop_flat_map(|operation| (Just(operation), body(operation)))
        ) {
            let called = |arguments: &Map<String, Value>| {
                accepts(operation, &sorted_names(arguments))
            };
            let long = parse(body.as_bytes()).ok().filter(called);
            let long = long.and_then(|arguments| explain(operation, &arguments).ok());
            prop_assert_eq!(read(operation, body.as_bytes()), long, "{}", body);
        }
    }

    /// Calls outside of `console` blocks are not run: their hosts may not exist.
    #[test]
    fn every_request_body_in_the_documents_is_valid() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let mut paths = ["README.md", "docs", "deployments"]
            .map(|path| root.join(path))
            .to_vec();
        let mut checked = 0;
        while let Some(path) = paths.pop() {
            if path.is_dir() {
                let entries = fs::read_dir(&path).expect("a folder");
                paths.extend(entries.map(|entry| entry.expect("an entry").path()));
                continue;
            }
            if path.extension().is_none_or(|extension| extension != "md") {
                continue;
            }
            // A command may go on in the next line.
            let text = fs::read_to_string(&path)
                .expect("text")
                .replace("\\\n", " ");
            for line in text.lines().filter(|line| !line.starts_with("$ ")) {
                let Some((_, call)) = line.split_once("/rpc/") else {
                    continue;
                };
                let Some((_, body)) = call.split_once(" -d '") else {
                    continue;
                };
                let name = call.split_whitespace().next().unwrap_or_default();
                let body = body.split('\'').next().unwrap_or_default();
                let operation = Operation::parse(name).expect(line);
                let command = command(operation, body.as_bytes());
                assert!(
                    matches!(command, Ok(Ok(_))),
                    "{}: {line}: {command:?}",
                    path.display()
                );
                checked += 1;
            }
        }
        assert!(checked >= 6, "{checked}");
    }

    /// Both paths give the same command, and a valid body takes the direct one.
    #[test]
    fn valid_bodies_take_the_direct_path_and_give_the_same_command() {
        let cases = [
            (
                Operation::AddWidget,
                r#"{"widget_sn":"E","widget_name":"\u0041\n","slots":["P","Q","R"]}"#,
            ),
            (
                Operation::AddWidget,
                r#"{"slots":[],"name":"","widget_sn":"é"}"#,
            ),
            (Operation::RemoveWidget, r#"{"widget_sn":"E"}"#),
            (
                Operation::AssociateWidgets,
                r#"{"widget1_sn":"E","widget2_sn":"F","port":"P"}"#,
            ),
            (
                Operation::RemoveAssociation,
                r#" { "port" : "R", "widget2_sn" : "F", "widget1_sn" : "E" } "#,
            ),
        ];
        for (operation, body) in cases {
            let short = read(operation, body.as_bytes()).expect(body);
            let long = parse(body.as_bytes()).expect(body);
            assert_eq!(explain(operation, &long), Ok(short), "{body}");
        }
    }
}
