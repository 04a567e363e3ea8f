//! The client's side of HTTP: turns a request of the model into a request of the API, and its
//! answer back.

use http_body_util::{BodyExt as _, Full};
use hyper::{Request as HttpRequest, Response, body::Bytes};
use serde_json::{Value, json};
use std::pin::Pin;
use widgets_conformance::linearizability::{Answer, Request};
use widgets_registry::{Command, Name, Operation, Pair, Port, Refusal, SerialNumber, Slot, Widget};
use widgets_server::AnswerBody;

/// A pending response.
pub(super) type Responding = Pin<Box<dyn Future<Output = Response<AnswerBody>> + Send>>;

/// What an answer says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Said {
    Answer(Answer),
    /// WG503 or WG504: nothing was applied.
    NotApplied,
    /// WG505.
    FateUnknown,
}

/// The prefix of the keys of the caller that uses many.
pub(super) const OF_MANY: &str = "many";

/// Returns the HTTP request, with this key if there is one.
pub(super) fn http(request: &Request, key: Option<&str>) -> HttpRequest<Full<Bytes>> {
    let (method, path, body) = match request {
        Request::Lookup(serial_number) => {
            ("GET", format!("/widgets/{serial_number}"), Bytes::new())
        }
        Request::Submit(command) => {
            let path = format!("/rpc/{}", command.operation());
            ("POST", path, arguments(command).to_string().into())
        }
    };
    let request = HttpRequest::builder().method(method).uri(path);
    let request = request.header("content-type", "application/json");
    let request = match key {
        Some(key) => request.header("idempotency-key", format!("\"{key}\"")),
        None => request,
    };
    let request = match key {
        Some(key) if key.starts_with(OF_MANY) => request.header("x-forwarded-for", "192.0.2.1"),
        _ => request,
    };
    request.body(Full::new(body)).expect("a valid request")
}

/// Returns a GET request for this path. If `is_counted`, it asks for the number of rows.
pub(super) fn get(path: &str, is_counted: bool) -> HttpRequest<Full<Bytes>> {
    let mut request = HttpRequest::builder().method("GET").uri(path);
    if is_counted {
        request = request.header("prefer", "count=exact");
    }
    request.body(Full::default()).expect("a valid request")
}

fn arguments(command: &Command) -> Value {
    match command {
        Command::AddWidget {
            serial_number,
            name,
            ports,
        } => {
            let slots: Vec<_> = ports.iter().map(|(_, port)| port.as_str()).collect();
            json!({"widget_sn": **serial_number, "widget_name": **name, "slots": slots})
        }
        Command::RemoveWidget { serial_number } => json!({"widget_sn": **serial_number}),
        Command::AssociateWidgets(pair) | Command::RemoveAssociation(pair) => json!({
            "widget1_sn": **pair.widget1(),
            "widget2_sn": **pair.widget2(),
            "port": pair.port().as_str(),
        }),
    }
}

/// Reports whether an answer is that of an earlier attempt.
pub(super) fn is_replayed(response: &Response<AnswerBody>) -> bool {
    response.headers().contains_key("idempotency-replayed")
}

/// Reads an answer. Returns what is wrong with it if it is impossible for this request.
pub(super) fn read(request: &Request, response: Response<AnswerBody>) -> Result<Said, String> {
    let status = response.status().as_u16();
    let body = collect(response);
    let answer = match (request, status) {
        (Request::Submit(_), 204) => Some(Answer::Decided(Ok(()))),
        (Request::Lookup(_), 200) => serde_json::from_slice(&body)
            .ok()
            .and_then(|value| widget(&value))
            .map(|widget| Answer::Found(Some(widget))),
        _ => {
            let error: Value = serde_json::from_slice(&body).unwrap_or_default();
            match (status, error["code"].as_str()) {
                (503, Some("WG503" | "WG504")) => return Ok(Said::NotApplied),
                (503, Some("WG505")) => return Ok(Said::FateUnknown),
                _ => refusal(request, &error),
            }
        }
    };
    let body = String::from_utf8_lossy(&body);
    answer
        .map(Said::Answer)
        .ok_or_else(|| format!("{request:?} was answered {status} {body}"))
}

pub(super) fn collect(response: Response<AnswerBody>) -> Bytes {
    let mut body = response.into_body();
    let frame = std::pin::pin!(body.frame());
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    match frame.poll(&mut context) {
        std::task::Poll::Ready(Some(Ok(frame))) => frame.into_data().unwrap_or_default(),
        _ => Bytes::new(),
    }
}

pub(super) fn widget(value: &Value) -> Option<Widget> {
    let slot = |slot: &Value| {
        let port = Port::parse(slot["port"].as_str()?).ok()?;
        let peer = match &slot["peer"] {
            Value::Null => None,
            peer => Some(SerialNumber::new("peer", peer.as_str()?).ok()?),
        };
        Some(Slot { port, peer })
    };
    Some(Widget {
        serial_number: SerialNumber::new("serial_number", value["serial_number"].as_str()?).ok()?,
        name: Name::new("name", value["name"].as_str()?).ok()?,
        slots: value["slots"]
            .as_array()?
            .iter()
            .map(slot)
            .collect::<Option<_>>()?,
    })
}

/// Returns the refusal of this request that reads like this error.
fn refusal(request: &Request, error: &Value) -> Option<Answer> {
    let candidates = match request {
        Request::Lookup(serial_number) => {
            let missing = Refusal::WidgetMissing {
                serial_number: serial_number.clone(),
            };
            return reads(&missing, error).then_some(Answer::Found(None));
        }
        Request::Submit(Command::AddWidget { serial_number, .. }) => {
            vec![Refusal::SerialNumberTaken {
                serial_number: serial_number.clone(),
            }]
        }
        Request::Submit(Command::RemoveWidget { serial_number }) => {
            vec![Refusal::WidgetMissing {
                serial_number: serial_number.clone(),
            }]
        }
        Request::Submit(
            command @ (Command::AssociateWidgets(pair) | Command::RemoveAssociation(pair)),
        ) => of_pair(command.operation(), pair),
    };
    let refusal = candidates.into_iter().find(|each| reads(each, error))?;
    Some(Answer::Decided(Err(refusal)))
}

fn of_pair(operation: Operation, pair: &Pair) -> Vec<Refusal> {
    let (widget1, widget2, port) = (pair.widget1().clone(), pair.widget2().clone(), pair.port());
    let mut refusals = Vec::new();
    for serial_number in [&widget1, &widget2] {
        let serial_number = serial_number.clone();
        refusals.push(Refusal::WidgetMissing {
            serial_number: serial_number.clone(),
        });
        if operation == Operation::AssociateWidgets {
            refusals.push(Refusal::NoFreeSlot {
                serial_number,
                port,
            });
        }
    }
    refusals.push(match operation {
        Operation::AssociateWidgets => Refusal::AlreadyAssociated {
            widget1,
            widget2,
            port,
        },
        _ => Refusal::NotAssociated {
            widget1,
            widget2,
            port,
        },
    });
    refusals
}

fn reads(refusal: &Refusal, error: &Value) -> bool {
    error["code"] == refusal.code()
        && error["message"] == refusal.to_string()
        && error["details"].as_str() == refusal.details().as_deref()
}
