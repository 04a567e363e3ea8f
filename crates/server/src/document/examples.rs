//! Every answer that the document shows: the request, the state before it, and the answer.
//!
//! The expected errors are values of [`Error`], rendered by the code that renders real ones; a test
//! sends every request here and compares.

use super::lists;
use crate::{
    auth::{Claim, Object, Refused, TokenFault},
    changes::ONLY_PAGES,
    error::{Error, Given, Malformed, NoFunction},
    reading::Unreadable,
    replication::unknown_parameter,
    settings::Settings,
    signature,
};
use widgets_registry::{
    Defect, Fault, Operation, Port, Position, Refusal, SERIAL_NUMBER_BYTES_MIN, SLOTS_MAX,
    SerialNumber,
};

/// A request and its answer.
pub(super) struct Example {
    /// Its name in the document, unique among those of its path: a status or a code. Successes sort
    /// first, so pages show them first.
    pub(super) name: &'static str,
    /// The path as in the document, or `None` if it belongs to no path.
    pub(super) path: Option<String>,
    pub(super) given: State,
    pub(super) method: &'static str,
    pub(super) uri: String,
    /// Headers other than `Content-Type: application/json`.
    pub(super) headers: &'static [(&'static str, &'static str)],
    pub(super) body: Sent,
    pub(super) answer: Answered,
}

/// The state before the request.
#[derive(Clone)]
pub(super) enum State {
    /// The state after these operations.
    After(&'static [(Operation, &'static str)]),
    /// A store that can only answer with the given answer.
    Failing,
    /// The state after the same request with this body.
    Sent(&'static str),
    /// An empty store. [`SECRET`] signs tokens, the role `reader` may read, `writer` may read and
    /// write, and anonymous callers have the role `reader` if `anonymous` is set.
    Guarded { anonymous: bool },
    /// An empty store in a service that answers only to names of this machine.
    Local,
    /// The same request came a moment ago, and one per second is allowed.
    Asked,
    /// A store that never answers reads.
    Slow,
    /// A standby of the primary at [`PRIMARY`].
    Following,
    /// A store whose widgets have the longest names, all of them control characters.
    Long,
    /// The keys for tokens are to be fetched, but could not be so far.
    Unfetched,
}

/// The address of the primary in the examples.
pub(super) const PRIMARY: &str = "http://10.0.0.1:3000";

/// The secret that signs the tokens of the examples.
#[cfg(test)]
pub(super) const SECRET: &str = "a secret of more than thirty-two bytes";

#[derive(Clone)]
pub(super) enum Sent {
    Nothing,
    Text(&'static str),
    /// This, followed by spaces up to one byte more than the limit.
    TooLarge(&'static str),
    /// This, and then nothing more.
    Stalled(&'static str),
}

#[derive(Clone)]
pub(super) enum Answered {
    /// 204
    Applied,
    /// 200 with this JSON.
    Widget(&'static str),
    /// Rows in this form.
    Rows {
        status: u16,
        media_type: &'static str,
        body: &'static str,
    },
    Refused(Error),
}

const ADD_E: &str = r#"{"widget_sn":"E","widget_name":"A","slots":["P","R","R"]}"#;
const ADD_F: &str = r#"{"widget_sn":"F","name":"B","slots":["P"]}"#;
const E_F_P: &str = r#"{"widget1_sn":"E","widget2_sn":"F","port":"P"}"#;

pub(super) const NOTHING: State = State::After(&[]);
const E_EXISTS: State = State::After(&[(Operation::AddWidget, ADD_E)]);
pub(super) const E_F_EXIST: State =
    State::After(&[(Operation::AddWidget, ADD_E), (Operation::AddWidget, ADD_F)]);
pub(super) const E_F_ASSOCIATED: State = State::After(&[
    (Operation::AddWidget, ADD_E),
    (Operation::AddWidget, ADD_F),
    (Operation::AssociateWidgets, E_F_P),
]);

/// Returns every example of the document.
pub(super) fn all(settings: &Settings) -> Vec<Example> {
    let mut examples = Vec::new();
    for operation in Operation::ALL {
        examples.push(call(
            "204",
            operation,
            applied_state(operation),
            valid(operation),
        ));
        examples.extend(values(operation));
        examples.extend(states(operation));
        examples.extend(malformed(operation, settings));
        examples.extend(keys(operation));
        examples.extend(faults().map(|(name, fault)| {
            let example = call(name, operation, State::Failing, valid(operation));
            example.refused(fault)
        }));
        let standby = call("WG507", operation, State::Following, valid(operation));
        examples.push(standby.refused(Error::Standby(PRIMARY.into())));
    }
    examples.extend(lookups());
    examples.extend(after_positions(settings, LOOKUP_PATH, "/widgets/E"));
    examples.extend(lists::examples(settings));
    examples.extend(changes());
    examples.extend(after_positions(settings, CHANGES_PATH, CHANGES_PATH));
    examples.extend(others());
    examples.extend(probes());
    examples.extend(refused());
    examples
}

/// Returns examples of the effects of an idempotency key.
fn keys(operation: Operation) -> Vec<Example> {
    const KEY: &[(&str, &str)] = &[("Idempotency-Key", "\"8e03978e\"")];
    const NO_KEY: &[(&str, &str)] = &[("Idempotency-Key", "\"\"")];
    let another = match operation {
        Operation::AddWidget => ADD_F,
        Operation::RemoveWidget => r#"{"widget_sn":"F"}"#,
        Operation::AssociateWidgets | Operation::RemoveAssociation => {
            r#"{"widget1_sn":"E","widget2_sn":"F","port":"Q"}"#
        }
    };
    let length = "must be 1 to 255 bytes long, 0 were given";
    let length = Malformed::IdempotencyKey(length.into());
    [
        ("WG400", NOTHING, NO_KEY, Error::from(length)),
        ("WG409", State::Failing, KEY, Refusal::KeyInUse.into()),
        (
            "WG422",
            State::Sent(another),
            KEY,
            Refusal::KeyReused.into(),
        ),
    ]
    .map(|(name, given, headers, error)| Example {
        headers,
        ..call(name, operation, given, valid(operation)).refused(error)
    })
    .into()
}

/// Returns a call of the operation with this body, which is applied.
fn call(name: &'static str, operation: Operation, given: State, body: &'static str) -> Example {
    let path = format!("/rpc/{operation}");
    Example {
        name,
        uri: path.clone(),
        path: Some(path),
        given,
        method: "POST",
        headers: &[],
        body: Sent::Text(body),
        answer: Answered::Applied,
    }
}

impl Example {
    fn refused(self, error: impl Into<Error>) -> Self {
        let answer = Answered::Refused(error.into());
        Self { answer, ..self }
    }
}

const fn valid(operation: Operation) -> &'static str {
    match operation {
        Operation::AddWidget => ADD_E,
        Operation::RemoveWidget => r#"{"widget_sn":"E"}"#,
        Operation::AssociateWidgets | Operation::RemoveAssociation => E_F_P,
    }
}

const fn applied_state(operation: Operation) -> State {
    match operation {
        Operation::AddWidget => NOTHING,
        Operation::RemoveWidget => E_EXISTS,
        Operation::AssociateWidgets => E_F_EXIST,
        Operation::RemoveAssociation => E_F_ASSOCIATED,
    }
}

/// Refusals because of the values of the arguments.
fn values(operation: Operation) -> Vec<Example> {
    let refused = |name, body, error: Error| call(name, operation, NOTHING, body).refused(error);
    let wrong_type = |field, expected| Malformed::WrongType { field, expected }.into();
    let null = |field| Refusal::Null { field }.into();
    let empty = |field| {
        let limit = SERIAL_NUMBER_BYTES_MIN;
        let defect = Defect::Empty { limit };
        Refusal::FieldLimit { field, defect }.into()
    };
    let port = |field| {
        let given = "p".into();
        Malformed::Port { field, given }.into()
    };
    match operation {
        Operation::AddWidget => vec![
            refused(
                "22P02",
                r#"{"widget_sn":"E","widget_name":"A","slots":["p"]}"#,
                port("slots"),
            ),
            refused(
                "22P02 type",
                r#"{"widget_sn":"E","widget_name":5,"slots":[]}"#,
                wrong_type("widget_name", "a string"),
            ),
            refused(
                "23502",
                r#"{"widget_sn":"E","widget_name":null,"slots":[]}"#,
                null("widget_name"),
            ),
            refused(
                "WG006",
                r#"{"widget_sn":"E","widget_name":"A","slots":["P","P","R","R"]}"#,
                Refusal::TooManySlots {
                    given: SLOTS_MAX + 1,
                }
                .into(),
            ),
            refused(
                "WG007",
                r#"{"widget_sn":"","widget_name":"A","slots":[]}"#,
                empty("widget_sn"),
            ),
        ],
        Operation::RemoveWidget => vec![
            refused(
                "22P02 type",
                r#"{"widget_sn":5}"#,
                wrong_type("widget_sn", "a string"),
            ),
            refused("23502", r#"{"widget_sn":null}"#, null("widget_sn")),
            refused("WG007", r#"{"widget_sn":""}"#, empty("widget_sn")),
        ],
        Operation::AssociateWidgets | Operation::RemoveAssociation => vec![
            refused(
                "22P02",
                r#"{"widget1_sn":"E","widget2_sn":"F","port":"p"}"#,
                port("port"),
            ),
            refused(
                "22P02 type",
                r#"{"widget1_sn":"E","widget2_sn":["F"],"port":"P"}"#,
                wrong_type("widget2_sn", "a string"),
            ),
            refused(
                "23502",
                r#"{"widget1_sn":"E","widget2_sn":"F","port":null}"#,
                null("port"),
            ),
            refused(
                "WG007",
                r#"{"widget1_sn":"","widget2_sn":"F","port":"P"}"#,
                empty("widget1_sn"),
            ),
        ],
    }
}

/// Refusals because of the state of the registry.
fn states(operation: Operation) -> Vec<Example> {
    let Some([e, f]) = named(["E", "F"]) else {
        unreachable!("both are within their limits")
    };
    let refused =
        |name, given, body, refusal: Refusal| call(name, operation, given, body).refused(refusal);
    let missing = |serial_number: &SerialNumber| Refusal::WidgetMissing {
        serial_number: serial_number.clone(),
    };
    let itself = |body| {
        let serial_number = e.clone();
        refused(
            "WG005",
            NOTHING,
            body,
            Refusal::SelfAssociation { serial_number },
        )
    };
    match operation {
        Operation::AddWidget => {
            let serial_number = e.clone();
            let taken = Refusal::SerialNumberTaken { serial_number };
            vec![refused("23505", E_EXISTS, ADD_E, taken)]
        }
        Operation::RemoveWidget => vec![refused("WG001", NOTHING, valid(operation), missing(&e))],
        Operation::AssociateWidgets => vec![
            refused("WG001", E_EXISTS, E_F_P, missing(&f)),
            refused(
                "WG002",
                E_F_EXIST,
                r#"{"widget1_sn":"E","widget2_sn":"F","port":"R"}"#,
                Refusal::NoFreeSlot {
                    serial_number: f.clone(),
                    port: Port::R,
                },
            ),
            refused(
                "WG003",
                E_F_ASSOCIATED,
                E_F_P,
                Refusal::AlreadyAssociated {
                    widget1: e.clone(),
                    widget2: f.clone(),
                    port: Port::P,
                },
            ),
            itself(r#"{"widget1_sn":"E","widget2_sn":"E","port":"P"}"#),
        ],
        Operation::RemoveAssociation => vec![
            refused("WG001", E_EXISTS, E_F_P, missing(&f)),
            refused(
                "WG004",
                E_F_EXIST,
                E_F_P,
                Refusal::NotAssociated {
                    widget1: e.clone(),
                    widget2: f.clone(),
                    port: Port::P,
                },
            ),
            itself(r#"{"widget1_sn":"E","widget2_sn":"E","port":"P"}"#),
        ],
    }
}

pub(super) fn named<const N: usize>(texts: [&'static str; N]) -> Option<[SerialNumber; N]> {
    let made = texts.map(|text| SerialNumber::new("serial_number", text).ok());
    made.into_iter()
        .collect::<Option<Vec<_>>>()?
        .try_into()
        .ok()
}

/// Refusals before the values are checked.
fn malformed(operation: Operation, settings: &Settings) -> Vec<Example> {
    let (bytes_max, timeout) = (settings.body_bytes_max, settings.request_timeout);
    let body = valid(operation);
    let refused =
        |name, malformed: Malformed| call(name, operation, NOTHING, body).refused(malformed);
    let with = |name, headers, malformed: Malformed| Example {
        headers,
        ..refused(name, malformed)
    };
    let given = Given::Json(vec!["widget_sn".into(), "x".into()]);
    vec![
        Example {
            uri: format!("/rpc/{operation}?limit=1"),
            ..refused(
                "PGRST100",
                Malformed::QueryParameter {
                    name: "limit".into(),
                    value: "1".into(),
                },
            )
        },
        Example {
            body: Sent::Text(r#"{"widget_sn":"#),
            ..refused("PGRST102", Malformed::Body("Empty or invalid json".into()))
        },
        Example {
            body: Sent::Text(r#"{"widget_sn":"E","widget_sn":"F"}"#),
            ..refused(
                "PGRST102 twice",
                Malformed::Body("the body names the member \"widget_sn\" twice".into()),
            )
        },
        with(
            "PGRST102 encoding",
            &[("Content-Encoding", "gzip")],
            Malformed::ContentEncoding("gzip".into()),
        ),
        Example {
            body: Sent::TooLarge(body),
            ..refused(
                "PGRST102 length",
                Malformed::BodyTooLarge {
                    bytes_max,
                    announced: None,
                },
            )
        },
        Example {
            body: Sent::Stalled(r#"{"widget_sn":"#),
            ..refused("WG408", Malformed::BodyTimeout { timeout })
        },
        with(
            "PGRST106",
            &[("Content-Profile", "api")],
            Malformed::Schema("api".into()),
        ),
        with(
            "PGRST107",
            &[("Accept", "text/html")],
            Malformed::MediaType("text/html".into()),
        ),
        with(
            "PGRST122",
            &[("Prefer", "handling=strict, dry-run")],
            Malformed::Preferences(vec!["dry-run".into()]),
        ),
        with(
            "PGRST128",
            &[("Prefer", "handling=strict, max-affected=1")],
            Malformed::MaxAffected,
        ),
        Example {
            body: Sent::Text(r#"{"widget_sn":"E","x":1}"#),
            ..refused(
                "PGRST202",
                Malformed::Function(NoFunction {
                    function: operation.to_string(),
                    given,
                }),
            )
        },
    ]
}

pub(super) fn faults() -> [(&'static str, Fault); 3] {
    let limit = "queue_operations_max = 2048".into();
    let retry_after_seconds = 1;
    let busy = Fault::Busy {
        limit,
        retry_after_seconds,
    };
    let reason = "no room in the journal".into();
    let unavailable = Fault::Unavailable { reason };
    let reason = "syncing the journal failed".into();
    let unknown = Fault::FateUnknown { reason };
    [("WG503", busy), ("WG504", unavailable), ("WG505", unknown)]
}

/// Refusals of `Read-After`, for a request that reads.
pub(super) fn after_positions(settings: &Settings, path: &str, uri: &str) -> [Example; 3] {
    let newest = Position {
        store: 0x6f1c_2d3e_4f50_6172,
        epoch: 1,
        sequence: 40,
    };
    let refused = |name, given, headers, error: Error| Example {
        name,
        path: Some(path.into()),
        given,
        method: "GET",
        uri: uri.into(),
        headers,
        body: Sent::Nothing,
        answer: Answered::Refused(error),
    };
    let malformed = Malformed::HeaderValue {
        name: "Read-After",
        value: "yesterday".into(),
        must: "it must be a position that the service gave out",
    };
    let awaited = Error::PositionAwaited {
        timeout: settings.read_timeout,
        newest: Some(newest),
    };
    [
        refused(
            "PGRST100 Read-After",
            NOTHING,
            &[("Read-After", "yesterday")],
            malformed.into(),
        ),
        refused(
            "WG410 Read-After",
            State::Failing,
            &[("Read-After", "0000000000000001-00000001-0000000000000007")],
            Error::PositionUnknown(Some(newest)),
        ),
        refused(
            "WG503 Read-After",
            State::Failing,
            &[("Read-After", "6f1c2d3e4f506172-00000001-0000000000000029")],
            awaited,
        ),
    ]
}

pub(super) const LOOKUP_PATH: &str = "/widgets/{serial_number}";
pub(super) const CHANGES_PATH: &str = "/changes";

fn lookups() -> Vec<Example> {
    let lookup = |name, given, uri: &str, answer| Example {
        name,
        path: Some(LOOKUP_PATH.into()),
        given,
        method: "GET",
        uri: uri.into(),
        headers: &[],
        body: Sent::Nothing,
        answer,
    };
    let found = r#"{"serial_number":"E","name":"A","slots":[{"port":"P","peer":"F"},{"port":"R","peer":null},{"port":"R","peer":null}]}"#;
    let refused = |name, uri, error: Error| lookup(name, NOTHING, uri, Answered::Refused(error));
    let Some([serial_number]) = named(["X"]) else {
        unreachable!("it is within its limits")
    };
    let field = "serial_number";
    let limit = SERIAL_NUMBER_BYTES_MIN;
    let defect = Defect::Empty { limit };
    let details = Some("a serial number is UTF-8, percent-encoded");
    let mut examples = vec![
        lookup("200", E_F_ASSOCIATED, "/widgets/E", Answered::Widget(found)),
        refused(
            "WG001",
            "/widgets/X",
            Refusal::WidgetMissing { serial_number }.into(),
        ),
        refused(
            "WG007",
            "/widgets/",
            Refusal::FieldLimit { field, defect }.into(),
        ),
        refused(
            "PGRST125",
            "/widgets/%FF",
            Malformed::Path { details }.into(),
        ),
        refused("PGRST125 %", "/widgets/%zz", Malformed::PathEncoding.into()),
        Example {
            headers: &[("Accept-Profile", "api")],
            ..refused(
                "PGRST106",
                "/widgets/E",
                Malformed::Schema("api".into()).into(),
            )
        },
        Example {
            headers: &[("Accept", "text/html")],
            ..refused(
                "PGRST107",
                "/widgets/E",
                Malformed::MediaType("text/html".into()).into(),
            )
        },
    ];
    examples.extend(faults().map(|(name, fault)| {
        let answer = Answered::Refused(fault.into());
        lookup(name, State::Failing, "/widgets/E", answer)
    }));
    examples
}

/// Returns invalid requests for changes. The answers to valid ones contain positions, which differ
/// in every store.
fn changes() -> Vec<Example> {
    let refused = |name, given, uri: &str, error: Error| Example {
        name,
        path: Some(CHANGES_PATH.into()),
        given,
        method: "GET",
        uri: uri.into(),
        headers: &[],
        body: Sent::Nothing,
        answer: Answered::Refused(error),
    };
    let limit = |value: &str, must: &str| Malformed::ParameterValue {
        name: "limit".into(),
        value: value.into(),
        must: must.into(),
    };
    let none = limit("0", "it must be an integer from 1 to 1000").into();
    let of_stream = limit("2", ONLY_PAGES).into();
    let oldest = Position {
        store: 0x6f1c_2d3e_4f50_6172,
        epoch: 1,
        sequence: 40,
    };
    let before = "/changes?after=6f1c2d3e4f506172-00000001-0000000000000007";
    vec![
        refused("PGRST100", NOTHING, "/changes?limit=0", none),
        Example {
            headers: &[("Accept", "text/event-stream")],
            ..refused("PGRST100 stream", NOTHING, "/changes?limit=2", of_stream)
        },
        refused("WG410", State::Failing, before, Error::ChangesGone(oldest)),
        refused("WG501", State::Failing, "/changes", Error::NoChanges),
    ]
}

/// Examples of the document's own path, of the probes, and of no path at all.
fn others() -> Vec<Example> {
    let get = |name, path: Option<&str>, uri: &str, error: Error| Example {
        name,
        path: path.map(str::to_owned),
        given: NOTHING,
        method: "GET",
        uri: uri.into(),
        headers: &[],
        body: Sent::Nothing,
        answer: Answered::Refused(error),
    };
    let operation = Operation::AddWidget;
    let names = signature::names(operation).join("=E&") + "=E";
    let mut examples = vec![
        Example {
            headers: &[("Accept", "image/png")],
            ..get(
                "PGRST107",
                Some("/"),
                "/",
                Malformed::MediaType("image/png".into()).into(),
            )
        },
        Example {
            headers: &[("Accept-Profile", "api")],
            ..get(
                "PGRST106",
                Some("/"),
                "/",
                Malformed::Schema("api".into()).into(),
            )
        },
        get(
            "25006",
            None,
            &format!("/rpc/{operation}?{names}"),
            Malformed::ReadOnlyTransaction(operation).into(),
        ),
        Example {
            method: "PUT",
            ..get(
                "PGRST101",
                None,
                &format!("/rpc/{operation}"),
                Malformed::OperationMethod(hyper::Method::PUT).into(),
            )
        },
        Example {
            method: "DELETE",
            ..get(
                "PGRST117",
                None,
                "/widgets/E",
                Malformed::Method {
                    given: hyper::Method::DELETE,
                    allowed: "OPTIONS,GET,HEAD",
                }
                .into(),
            )
        },
        Example {
            headers: &[("Host", "a.example"), ("Host", "b.example")],
            ..get(
                "WG400",
                None,
                "/widgets/E",
                Malformed::Head("it has more than one Host").into(),
            )
        },
        Example {
            given: State::Local,
            headers: &[("Host", "widgets.example")],
            ..get("WG421", None, "/widgets/E", Malformed::Misdirected.into())
        },
        Example {
            headers: &[("Expect", "a-miracle")],
            ..get("WG417", None, "/widgets/E", Malformed::Expectation.into())
        },
        get(
            "PGRST125",
            None,
            "/widgets/E/slots",
            Malformed::Path { details: None }.into(),
        ),
        get(
            "PGRST205",
            None,
            "/associations",
            Malformed::Table("associations".into()).into(),
        ),
        get("WG501", Some("/backup"), "/backup", Error::NoBackup),
    ];
    // A busy store is ready.
    let unready = faults()
        .into_iter()
        .filter(|(_, fault)| !matches!(fault, Fault::Busy { .. }));
    examples.extend(unready.map(|(name, fault)| Example {
        given: State::Failing,
        ..get(name, Some("/ready"), "/ready", fault.into())
    }));
    examples
}

/// Returns a probe that looks for the primary at a standby, and requests for the service's own
/// state with parameters that they do not have.
fn probes() -> [Example; 4] {
    let probe = |name, given, uri: &str, error| Example {
        name,
        path: uri.split('?').next().map(str::to_owned),
        given,
        method: "GET",
        uri: uri.into(),
        headers: &[],
        body: Sent::Nothing,
        answer: Answered::Refused(error),
    };
    let standby = Error::Standby(PRIMARY.into());
    let unknown = |name, value| unknown_parameter(name, value).into();
    let (role, other) = (unknown("role", "leader"), unknown("rol", "primary"));
    let of_backup = Unreadable::Parameter {
        name: "since".into(),
        details: "it is unknown: a backup has no parameters".into(),
    };
    [
        probe("WG507", State::Following, "/ready?role=primary", standby),
        probe("PGRST100", NOTHING, "/ready?role=leader", role),
        probe("PGRST100 name", NOTHING, "/ready?rol=primary", other),
        probe("PGRST100", NOTHING, "/backup?since=1", of_backup.into()),
    ]
}

/// Callers that are not admitted: this applies to every path except the probes.
fn refused() -> Vec<Example> {
    const NOT_SIGNED: &[(&str, &str)] = &[("Authorization", "Bearer e30.e30.e30")];
    const EXPIRED: &[(&str, &str)] = &[(
        "Authorization",
        "Bearer eyJhbGciOiJIUzI1NiJ9.eyJyb2xlIjoid3JpdGVyIiwiZXhwIjowfQ.No8cwaicBfX8GW9ZHJsY30FGFugLAWJ9mj6qWjAzcjI",
    )];
    const NOBODY: &[(&str, &str)] = &[(
        "Authorization",
        "Bearer eyJhbGciOiJIUzI1NiJ9.eyJyb2xlIjoibm9ib2R5In0.9F-bmrcsd8LoGILnAG5ZIq0E4gPnL9j1mUjMjOrL9WM",
    )];
    const READER: &[(&str, &str)] = &[(
        "Authorization",
        "Bearer eyJhbGciOiJIUzI1NiJ9.eyJyb2xlIjoicmVhZGVyIn0.J3YDRumsxUuQVNWihscpnNFyLjchQF6QY7rgg7z3EfE",
    )];
    let operation = Operation::RemoveWidget;
    let permission = |anonymous| Refused::Permission {
        object: Object::Function(operation),
        anonymous,
    };
    let (all, some) = (
        State::Guarded { anonymous: true },
        State::Guarded { anonymous: false },
    );
    let too_many = Error::TooManyRequests {
        requests_per_second: 1,
        retry_after_seconds: 1,
    };
    [
        ("PGRST300", NOTHING, NOT_SIGNED, Refused::NoKeys.into()),
        (
            "PGRST301",
            some.clone(),
            NOT_SIGNED,
            Refused::Token(TokenFault::Unreadable).into(),
        ),
        ("PGRST302", some.clone(), &[], Refused::Anonymous.into()),
        (
            "42501-page",
            NOTHING,
            &[
                ("Origin", "https://elsewhere.example"),
                ("Sec-Fetch-Site", "cross-site"),
            ],
            Refused::ForeignPage.into(),
        ),
        (
            "PGRST303",
            some.clone(),
            EXPIRED,
            Refused::Claim(Claim::Expired).into(),
        ),
        (
            "22023",
            some.clone(),
            NOBODY,
            Refused::RoleUnknown("nobody".into()).into(),
        ),
        ("42501", some, READER, permission(false).into()),
        ("42501-anonymous", all, &[], permission(true).into()),
        ("WG429", State::Asked, &[], too_many),
        (
            "WG506",
            State::Unfetched,
            NOT_SIGNED,
            Refused::KeysUnfetched.into(),
        ),
    ]
    .map(|(name, given, headers, error): (_, _, _, Error)| Example {
        path: None,
        headers,
        ..call(name, operation, given, valid(operation)).refused(error)
    })
    .into()
}
