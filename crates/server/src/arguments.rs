//! From a body to a command: names, types, ports, limits, in the specification's order.

use crate::error::{Error, Malformed};
use serde_json::{Map, Value};
use widgets_registry::{Command, Name, Operation, Pair, Port, Ports, Refusal, SerialNumber};

/// The command that `body` asks of the operation named `function`.
pub(crate) fn command(function: &str, body: &[u8]) -> Result<Command, Error> {
    let arguments = parse(body)?;
    let operation = Operation::ALL
        .into_iter()
        .find(|each| each.as_str() == function);
    let given: Vec<&str> = arguments.keys().map(String::as_str).collect();
    let Some(operation) = operation.filter(|&each| wanted(each, &arguments) == given) else {
        let arguments = given.into_iter().map(str::to_owned).collect();
        return Err(Malformed::NoFunction {
            function: function.to_owned(),
            arguments,
        }
        .into());
    };
    match operation {
        Operation::AddWidget => add_widget(&arguments),
        Operation::RemoveWidget => {
            let serial_number = text(&arguments, "widget_sn")?;
            Ok(Command::RemoveWidget {
                serial_number: SerialNumber::new("widget_sn", serial_number)?,
            })
        }
        Operation::AssociateWidgets => pair(&arguments).map(Command::AssociateWidgets),
        Operation::RemoveAssociation => pair(&arguments).map(Command::RemoveAssociation),
    }
}

fn parse(body: &[u8]) -> Result<Map<String, Value>, Error> {
    if body.is_empty() {
        return Ok(Map::new());
    }
    match serde_json::from_slice(body) {
        Ok(Value::Object(arguments)) => Ok(arguments),
        Ok(Value::Array(_)) => {
            let message =
                "a request is one operation: the body must be a JSON object, not an array";
            Err(Malformed::Body(message.into()).into())
        }
        // No object, so no arguments, as PostgREST has it.
        Ok(_) => Ok(Map::new()),
        Err(_) => Err(Malformed::Body("Empty or invalid json".into()).into()),
    }
}

/// The names of an operation's arguments, sorted.
fn wanted(operation: Operation, given: &Map<String, Value>) -> Vec<&'static str> {
    match operation {
        // `name` is another spelling. Both at once match neither list.
        Operation::AddWidget if given.contains_key("name") => vec!["name", "slots", "widget_sn"],
        Operation::AddWidget => vec!["slots", "widget_name", "widget_sn"],
        Operation::RemoveWidget => vec!["widget_sn"],
        Operation::AssociateWidgets | Operation::RemoveAssociation => {
            vec!["port", "widget1_sn", "widget2_sn"]
        }
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
            let ports = slots.iter().map(|slot| port_value(slot, "slots"));
            Ports::new(&ports.collect::<Result<Vec<_>, _>>()?)?
        }
        Some(Value::Null) | None => return Err(Refusal::Null { field: "slots" }.into()),
        Some(_) => {
            let expected = "an array of port types";
            return Err(Malformed::WrongType {
                field: "slots",
                expected,
            }
            .into());
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
    let port = port_value(arguments.get("port").unwrap_or(&Value::Null), "port")?;
    let widget1 = SerialNumber::new("widget1_sn", widget1)?;
    let widget2 = SerialNumber::new("widget2_sn", widget2)?;
    Ok(Pair::new(widget1, widget2, port)?)
}

fn text<'a>(arguments: &'a Map<String, Value>, field: &'static str) -> Result<&'a str, Error> {
    match arguments.get(field) {
        Some(Value::String(text)) => Ok(text),
        Some(Value::Null) | None => Err(Refusal::Null { field }.into()),
        Some(_) => Err(Malformed::WrongType {
            field,
            expected: "a string",
        }
        .into()),
    }
}

fn port_value(value: &Value, field: &'static str) -> Result<Port, Error> {
    match value {
        Value::String(text) => Ok(Port::parse(text)?),
        Value::Null => Err(Refusal::Null { field }.into()),
        _ => Err(Malformed::WrongType {
            field,
            expected: "a port type, as a string",
        }
        .into()),
    }
}
