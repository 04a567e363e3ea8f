//! The service as a [`Store`], asked over HTTP as any client would.

use crate::service::{Directory, Service};
use http_body_util::{BodyExt as _, Full};
use hyper::{Method, Request, StatusCode, body::Bytes};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde_json::{Value, json};
use std::{collections::BTreeSet, fmt::Write as _, net::SocketAddr};
use widgets_conformance::{Model, check_store};
use widgets_registry::{
    Applied, Ask, Attempt, Command, Fault, Lookup, Name, Port, Refusal, Rejection, SerialNumber,
    Slot, Store, Widget,
};

/// A client with connections of its own.
#[derive(Clone)]
pub(crate) struct HttpStore {
    client: Client<HttpConnector, Full<Bytes>>,
    address: SocketAddr,
}

impl HttpStore {
    pub(crate) fn new(address: SocketAddr) -> Self {
        let client = Client::builder(TokioExecutor::new()).build_http();
        Self { client, address }
    }

    /// The answer's status and body. Without an answer nobody knows what became of the request.
    async fn send(
        &self,
        method: Method,
        path: &str,
        body: String,
    ) -> Result<(StatusCode, Value), Fault> {
        let unknown = |reason: String| Fault::FateUnknown {
            reason: reason.into(),
        };
        let request = Request::builder()
            .method(method)
            .uri(format!("http://{}{path}", self.address))
            .header("content-type", "application/json")
            .body(Full::from(body))
            .expect("a request");
        let answer = self.client.request(request).await;
        let answer = answer.map_err(|error| unknown(format!("{error:?}")))?;
        let status = answer.status();
        let body = answer.into_body().collect().await;
        let body = body.map_err(|error| unknown(error.to_string()))?.to_bytes();
        if body.is_empty() {
            return Ok((status, Value::Null));
        }
        Ok((status, serde_json::from_slice(&body).expect("JSON")))
    }
}

fn body(command: &Command) -> Value {
    match command {
        Command::AddWidget {
            serial_number,
            name,
            ports,
        } => {
            let slots: Vec<&str> = ports.iter().map(|(_, port)| port.as_str()).collect();
            json!({ "widget_sn": &**serial_number, "widget_name": &**name, "slots": slots })
        }
        Command::RemoveWidget { serial_number } => json!({ "widget_sn": &**serial_number }),
        Command::AssociateWidgets(pair) | Command::RemoveAssociation(pair) => json!({
            "widget1_sn": &**pair.widget1(),
            "widget2_sn": &**pair.widget2(),
            "port": pair.port().as_str(),
        }),
    }
}

/// Every refusal that the state can have for this command.
fn refusals(command: &Command) -> Vec<Refusal> {
    match command {
        Command::AddWidget { serial_number, .. } => {
            let serial_number = serial_number.clone();
            vec![Refusal::SerialNumberTaken { serial_number }]
        }
        Command::RemoveWidget { serial_number } => {
            let serial_number = serial_number.clone();
            vec![Refusal::WidgetMissing { serial_number }]
        }
        Command::AssociateWidgets(pair) | Command::RemoveAssociation(pair) => {
            let (widget1, widget2, port) =
                (pair.widget1().clone(), pair.widget2().clone(), pair.port());
            let mut refusals = Vec::new();
            for serial_number in [&widget1, &widget2] {
                let serial_number = serial_number.clone();
                refusals.push(Refusal::NoFreeSlot {
                    serial_number: serial_number.clone(),
                    port,
                });
                refusals.push(Refusal::WidgetMissing { serial_number });
            }
            refusals.push(Refusal::AlreadyAssociated {
                widget1: widget1.clone(),
                widget2: widget2.clone(),
                port,
            });
            refusals.push(Refusal::NotAssociated {
                widget1,
                widget2,
                port,
            });
            refusals
        }
    }
}

/// The fault or refusal that this body tells of.
fn rejection(command: Option<&Command>, status: StatusCode, body: &Value) -> Rejection {
    let message = body["message"].as_str().expect("a message").to_owned();
    let code = body["code"].as_str().expect("a code");
    if status == StatusCode::SERVICE_UNAVAILABLE {
        let fault = match code {
            "WG503" => Fault::Busy {
                limit: message,
                retry_after_seconds: 1,
            },
            "WG504" => Fault::Unavailable {
                reason: message.into(),
            },
            "WG505" => Fault::FateUnknown {
                reason: message.into(),
            },
            _ => panic!("no code of a fault: {body}"),
        };
        return fault.into();
    }
    let told = |refusal: &Refusal| {
        refusal.code() == code
            && refusal.to_string() == message
            && refusal.details().as_deref() == body["details"].as_str()
    };
    let refusals = command.map(refusals).unwrap_or_default();
    let refusal = refusals.into_iter().find(told);
    refusal
        .unwrap_or_else(|| panic!("no refusal of {command:?}: {status} {body}"))
        .into()
}

/// A serial number as one segment of a path, every byte encoded that may mean something there.
fn segment(serial_number: &SerialNumber) -> String {
    let mut segment = String::new();
    for byte in serial_number.bytes() {
        if byte.is_ascii_alphanumeric() || byte == b'-' {
            segment.push(byte.into());
        } else {
            write!(segment, "%{byte:02X}").expect("a string takes everything");
        }
    }
    segment
}

impl Ask<Attempt> for HttpStore {
    async fn ask(&self, Attempt { command, .. }: Attempt) -> Result<Applied, Rejection> {
        let path = format!("/rpc/{}", command.operation());
        match self
            .send(Method::POST, &path, body(&command).to_string())
            .await?
        {
            (StatusCode::NO_CONTENT, Value::Null) => Ok(Applied::Now),
            (status, body) => Err(rejection(Some(&command), status, &body)),
        }
    }
}

impl Ask<Lookup> for HttpStore {
    async fn ask(&self, Lookup(serial_number): Lookup) -> Result<Option<Widget>, Fault> {
        let path = format!("/widgets/{}", segment(&serial_number));
        let (status, body) = self.send(Method::GET, &path, String::new()).await?;
        if status == StatusCode::NOT_FOUND && body["code"] == "WG001" {
            return Ok(None);
        }
        if status != StatusCode::OK {
            match rejection(None, status, &body) {
                Rejection::Fault(fault) => return Err(fault),
                Rejection::Refused(refusal) | Rejection::Replayed(refusal) => {
                    panic!("a lookup is not refused: {refusal}")
                }
            }
        }
        let text = |value: &Value| value.as_str().expect("text").to_owned();
        let slots = body["slots"]
            .as_array()
            .expect("slots")
            .iter()
            .map(|slot| Slot {
                port: Port::parse(&text(&slot["port"])).expect("a port"),
                peer: slot["peer"]
                    .as_str()
                    .map(|peer| SerialNumber::new("peer", peer).expect("a serial number")),
            });
        Ok(Some(Widget {
            serial_number: SerialNumber::new("serial_number", text(&body["serial_number"]))
                .expect("a serial number"),
            name: Name::new("name", text(&body["name"])).expect("a name"),
            slots: slots.collect(),
        }))
    }
}

impl Store for HttpStore {
    async fn ready(&self) -> Result<(), Fault> {
        match self.send(Method::GET, "/ready", String::new()).await? {
            (StatusCode::OK, _) => Ok(()),
            (status, body) => Err(Fault::Unavailable {
                reason: format!("{status} {body}").into(),
            }),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_service_conforms_over_http() {
    let directory = Directory::new("conformance");
    let service = Service::start(directory.path(), &[]);
    let clients = [
        HttpStore::new(service.address),
        HttpStore::new(service.address),
    ];
    check_store(&clients, "").await;
}

/// What these widgets are now.
pub(crate) async fn found(store: &HttpStore, serial_numbers: &BTreeSet<SerialNumber>) -> Model {
    let mut widgets: Vec<Widget> = Vec::new();
    for serial_number in serial_numbers {
        widgets.extend(
            store
                .ask(Lookup(serial_number.clone()))
                .await
                .expect("the store works"),
        );
    }
    Model::from_lookups(widgets).expect("associations that both widgets know")
}

/// What was found must be what was answered, with or without the operation that was not.
pub(crate) fn settle(model: &mut Model, unanswered: Option<Command>, found: &Model, writer: usize) {
    if let Some(unanswered) = unanswered {
        let mut applied = model.clone();
        // Refused or applied: either way it is whole.
        drop(applied.apply(&unanswered));
        if *found == applied {
            *model = applied;
            return;
        }
    }
    assert_eq!(found, model, "writer {writer}");
}
