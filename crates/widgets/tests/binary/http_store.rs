//! The service as a [`Store`], used over HTTP as any client would.

use crate::{
    service::{Directory, Service},
    spelling,
};
use http_body_util::{BodyExt as _, Full};
use hyper::{HeaderMap, Method, Request, StatusCode, body::Bytes};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde_json::{Value, json};
use std::{collections::BTreeSet, fmt::Write as _, net::SocketAddr};
use widgets_conformance::{Model, check_store};
use widgets_registry::{
    Applied, Ask, Attempt, Command, Fault, Lookup, Name, Ordinal, Port, Refusal, Rejection,
    SerialNumber, Slot, Store, Widget,
    query::{Association, List, Neighbourhood, NeighbourhoodQuery, Page, Rows, SlotRow, Table},
};

/// A client with its own connections.
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

    /// Sends a request and returns the answer's status and body. Without an answer, the fate of the
    /// request is unknown.
    async fn send(
        &self,
        method: Method,
        path: &str,
        body: String,
    ) -> Result<(StatusCode, Value), Fault> {
        let (status, _, body) = self.answer(method, path, "prefer", "", body).await?;
        Ok((status, body))
    }

    /// Like `send`, with a further header, and also returns the answer's headers.
    async fn answer(
        &self,
        method: Method,
        path: &str,
        name: &str,
        value: &str,
        body: String,
    ) -> Result<(StatusCode, HeaderMap, Value), Fault> {
        let unknown = |reason: String| Fault::FateUnknown {
            reason: reason.into(),
        };
        let request = Request::builder()
            .method(method)
            .uri(format!("http://{}{path}", self.address))
            .header("content-type", "application/json")
            .header(name, value)
            .body(Full::from(body))
            .expect("a request");
        let answer = self.client.request(request).await;
        let answer = answer.map_err(|error| unknown(format!("{error:?}")))?;
        let status = answer.status();
        let headers = answer.headers().clone();
        let body = answer.into_body().collect().await;
        let body = body.map_err(|error| unknown(error.to_string()))?.to_bytes();
        if body.is_empty() {
            return Ok((status, headers, Value::Null));
        }
        let body = serde_json::from_slice(&body).expect("JSON");
        Ok((status, headers, body))
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

/// Returns every refusal that the state can cause for this command.
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

/// Returns the fault or refusal that this body describes.
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
    let of_keys = [Refusal::KeyReused, Refusal::KeyInUse];
    let refusal = refusals.into_iter().chain(of_keys).find(told);
    refusal
        .unwrap_or_else(|| panic!("no refusal of {command:?}: {status} {body}"))
        .into()
}

/// Encodes a serial number as one path segment, with every byte escaped that could have a meaning
/// there.
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
    async fn ask(&self, Attempt { command, key, .. }: Attempt) -> Result<Applied, Rejection> {
        let path = format!("/rpc/{}", command.operation());
        let body = body(&command).to_string();
        let (name, value) = match key.as_deref() {
            Some(key) => ("idempotency-key", format!("\"{key}\"")),
            None => ("prefer", String::new()),
        };
        let answer = self.answer(Method::POST, &path, name, &value, body).await?;
        let (status, headers, body) = answer;
        let replayed = headers.contains_key("idempotency-replayed");
        match (status, &body) {
            (StatusCode::NO_CONTENT, Value::Null) if replayed => Ok(Applied::Before),
            (StatusCode::NO_CONTENT, Value::Null) => Ok(Applied::Now),
            _ => Err(match rejection(Some(&command), status, &body) {
                Rejection::Refused(refusal) if replayed => Rejection::Replayed(refusal),
                other => other,
            }),
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
        Ok(Some(widget(&body)))
    }
}

fn text(value: &Value) -> String {
    value.as_str().expect("text").to_owned()
}

fn sn(value: &Value) -> SerialNumber {
    SerialNumber::new("serial_number", text(value)).expect("a serial number")
}

fn peer(value: &Value) -> Option<SerialNumber> {
    (!value.is_null()).then(|| sn(value))
}

fn port(value: &Value) -> Port {
    Port::parse(&text(value)).expect("a port")
}

fn widget(body: &Value) -> Widget {
    let slots = body["slots"].as_array().expect("slots").iter();
    Widget {
        serial_number: sn(&body["serial_number"]),
        name: Name::new("name", text(&body["name"])).expect("a name"),
        slots: slots
            .map(|slot| Slot {
                port: port(&slot["port"]),
                peer: peer(&slot["peer"]),
            })
            .collect(),
    }
}

fn slot_row(row: &Value) -> SlotRow {
    let ordinal = row["ordinal"]
        .as_u64()
        .and_then(|ordinal| u8::try_from(ordinal).ok());
    SlotRow {
        widget_sn: sn(&row["widget_sn"]),
        ordinal: ordinal
            .and_then(|ordinal| Ordinal::new(ordinal - 1))
            .expect("1 to 3"),
        port: port(&row["port"]),
        peer_sn: peer(&row["peer_sn"]),
    }
}

impl Ask<List> for HttpStore {
    async fn ask(&self, list: List) -> Result<Page, Fault> {
        let path = format!("/{}?{}", list.table.as_str(), spelling::query(&list));
        let prefer = if list.count { "count=exact" } else { "" };
        let answer = self
            .answer(Method::GET, &path, "prefer", prefer, String::new())
            .await?;
        let (status, headers, body) = answer;
        let range = headers.get("content-range");
        let range = range.map(|range| range.to_str().expect("text"));
        let total = range.and_then(|range| range.split_once('/'));
        let total = total.and_then(|(_, total)| total.parse().ok());
        let rows: Vec<&Value> = match status {
            StatusCode::OK | StatusCode::PARTIAL_CONTENT => {
                body.as_array().expect("rows").iter().collect()
            }
            // Beyond the last row.
            StatusCode::RANGE_NOT_SATISFIABLE => Vec::new(),
            _ => match rejection(None, status, &body) {
                Rejection::Fault(fault) => return Err(fault),
                Rejection::Refused(refusal) | Rejection::Replayed(refusal) => {
                    panic!("a list is not refused: {refusal}")
                }
            },
        };
        let rows = rows.into_iter();
        Ok(Page {
            rows: match list.table {
                Table::Widgets => Rows::Widgets(rows.map(widget).collect()),
                Table::Slots => Rows::Slots(rows.map(slot_row).collect()),
            },
            total,
            scanned: 0,
        })
    }
}

impl Ask<NeighbourhoodQuery> for HttpStore {
    async fn ask(&self, query: NeighbourhoodQuery) -> Result<Option<Neighbourhood>, Fault> {
        let path = format!(
            "/widgets/{}/neighbourhood?depth={}&widgets_max={}",
            segment(&query.serial_number),
            query.depth,
            query.widgets_max
        );
        let (status, body) = self.send(Method::GET, &path, String::new()).await?;
        if status == StatusCode::NOT_FOUND && body["code"] == "WG001" {
            return Ok(None);
        }
        assert_eq!(status, StatusCode::OK, "{body}");
        let list = |name: &str| body[name].as_array().expect("a list").iter();
        Ok(Some(Neighbourhood {
            widgets: list("widgets").map(widget).collect(),
            associations: list("associations")
                .map(|each| Association {
                    widget1_sn: sn(&each["widget1_sn"]),
                    widget2_sn: sn(&each["widget2_sn"]),
                    port: port(&each["port"]),
                })
                .collect(),
            truncated: body["truncated"].as_bool().expect("true or false"),
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
async fn the_service_passes_the_conformance_suite_over_http() {
    let directory = Directory::new("conformance");
    let service = Service::start(directory.path(), &[]);
    let clients = [
        HttpStore::new(service.address),
        HttpStore::new(service.address),
    ];
    check_store(&clients, "").await;
}

/// Returns the present state of these widgets.
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

/// Checks that what was found is what was answered, with or without the operation that was not
/// answered.
pub(crate) fn settle(model: &mut Model, unanswered: Option<Command>, found: &Model, writer: usize) {
    if let Some(unanswered) = unanswered {
        let mut applied = model.clone();
        // Refused or applied: both leave it consistent.
        drop(applied.apply(&unanswered));
        if *found == applied {
            *model = applied;
            return;
        }
    }
    assert_eq!(found, model, "writer {writer}");
}
