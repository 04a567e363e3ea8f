//! Everything that prevents a regular answer, and the error that is answered instead.

use crate::{Code, SCHEMAS, auth::Refused, hint, idempotency, reading::Unreadable, signature};
use http_body_util::Full;
use hyper::{
    Method, Response,
    body::Bytes,
    header::{self, HeaderName, HeaderValue},
};
use serde::Serialize;
use std::{borrow::Cow, sync::Arc, time::Duration};
use widgets_registry::{Fault, FeedError, Operation, Port, Position, Refusal, Rejection};

/// The keys may arrive at any moment; the next request checks again.
const KEYS_RETRY_AFTER: HeaderValue = HeaderValue::from_static("1");

/// A hint for clients whose body is not taken for JSON: `curl -d` declares it to be a form.
const JSON_HINT: &str = "Send the header Content-Type: application/json";
/// An operation takes milliseconds, but `Retry-After` cannot say less than a second.
const KEY_RETRY_AFTER: HeaderValue = HeaderValue::from_static("1");
/// A standby that follows lags by some milliseconds, and one that is taking over does not need much
/// longer. Nobody knows when a standby that does neither will recover.
const STANDBY_RETRY_AFTER: HeaderValue = HeaderValue::from_static("1");

/// A request that makes no sense. The texts are PostgREST's where it has one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Malformed {
    /// The head violates HTTP; the text says how.
    Head(&'static str),
    Expectation,
    /// The request is for a host that is not this machine.
    Misdirected,
    QueryParameter {
        name: String,
        value: String,
    },
    OperationMethod(Method),
    /// The body is malformed; the text says how.
    Body(Cow<'static, str>),
    /// The media type that the request declares, if any.
    ContentType(Option<String>),
    /// The encoding that the request declares.
    ContentEncoding(String),
    BodyTooLarge {
        bytes_max: usize,
        /// The length that the request announces, if it is what exceeds the limit.
        announced: Option<usize>,
    },
    /// The body did not arrive in time.
    BodyTimeout {
        timeout: Duration,
    },
    Schema(String),
    /// The media types that are available, none of which `Accept` allows.
    MediaType(String),
    Method {
        given: Method,
        allowed: &'static str,
    },
    /// The unknown preferences.
    Preferences(Vec<String>),
    Path {
        details: Option<&'static str>,
    },
    PathEncoding,
    MaxAffected,
    Function(NoFunction),
    Table(String),
    ReadOnlyTransaction(Operation),
    WrongType {
        field: &'static str,
        expected: &'static str,
    },
    /// A query parameter that is unknown or malformed.
    ParameterValue {
        name: String,
        value: String,
        must: String,
    },
    /// An argument is a text that names no port type.
    Port {
        field: &'static str,
        given: String,
    },
    /// What is wrong with `Idempotency-Key`.
    IdempotencyKey(Cow<'static, str>),
    /// What a standby's query must be.
    ReplicationQuery(String),
    /// A header that names a position is malformed.
    HeaderValue {
        name: &'static str,
        value: String,
        must: &'static str,
    },
}

/// No operation has this name and these arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NoFunction {
    /// The name in the path.
    pub(crate) function: String,
    pub(crate) given: Given,
}

/// The arguments as the client sent them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Given {
    /// The names of a JSON body's members, sorted and without repetitions.
    Json(Vec<String>),
    /// The names in the query string, sorted and without repetitions.
    Query(Vec<String>),
    /// A body that would be one value of this PostgreSQL type.
    Unnamed(&'static str),
}

/// Anything that prevents a regular answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Error {
    Malformed(Malformed),
    /// The sender is not admitted.
    Refused(Refused),
    /// The sender exceeds its rate limit.
    TooManyRequests {
        requests_per_second: u32,
        retry_after_seconds: u64,
    },
    /// The request for data is malformed, or the data does not exist.
    Unreadable(Unreadable),
    /// Reading took too long.
    ReadTimeout {
        timeout: Duration,
    },
    Rejected(Rejection),
    /// The requested changes are no longer kept; those after this position are.
    ChangesGone(Position),
    /// The position to read after is not in this store's history, which ends at the position given
    /// here.
    PositionUnknown(Option<Position>),
    /// This store has not reached the position to read after in time. Its own position is `newest`.
    PositionAwaited {
        timeout: Duration,
        newest: Option<Position>,
    },
    /// The store keeps no changes.
    NoChanges,
    /// The store does not support backups.
    NoBackup,
    /// This store follows the primary at this address.
    Standby(Arc<str>),
    /// No store takes operations while a primary hands over to a standby. The text says why the
    /// request does not wait for the end of it.
    HandingOver(String),
    /// The roles of the stores are unchanged; the text says why.
    RolesUnchanged(String),
    /// Which store is the primary is unknown; the text says what to check.
    RolesUnknown(String),
    /// A standby's history differs from this store's or ends too early; the text says which.
    HistoryElsewhere(String),
}

impl From<FeedError> for Error {
    fn from(error: FeedError) -> Self {
        match error {
            FeedError::Gone { oldest } => Self::ChangesGone(oldest),
            FeedError::Off => Self::NoChanges,
            FeedError::Fault(fault) => fault.into(),
        }
    }
}

impl From<Unreadable> for Error {
    fn from(unreadable: Unreadable) -> Self {
        Self::Unreadable(unreadable)
    }
}

impl From<Malformed> for Error {
    fn from(malformed: Malformed) -> Self {
        Self::Malformed(malformed)
    }
}

impl From<Refused> for Error {
    fn from(refused: Refused) -> Self {
        Self::Refused(refused)
    }
}

impl From<NoFunction> for Error {
    fn from(no_function: NoFunction) -> Self {
        Self::Malformed(Malformed::Function(no_function))
    }
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        Self::Rejected(refusal.into())
    }
}

impl From<Fault> for Error {
    fn from(fault: Fault) -> Self {
        Self::Rejected(fault.into())
    }
}

impl From<Rejection> for Error {
    fn from(rejection: Rejection) -> Self {
        Self::Rejected(rejection)
    }
}

/// The body of an error: these members in this order, which is alphabetical.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct ErrorBody {
    code: &'static str,
    details: Option<String>,
    hint: Option<String>,
    message: String,
}

impl Error {
    pub(crate) fn code(&self) -> Code {
        match self {
            Self::Malformed(malformed) => malformed.code(),
            Self::Refused(refused) => refused.code(),
            Self::TooManyRequests { .. } => Code::TooManyRequests,
            Self::Unreadable(unreadable) => unreadable.code(),
            Self::ReadTimeout { .. } => Code::ReadTimeout,
            Self::ChangesGone(_) | Self::HistoryElsewhere(_) | Self::PositionUnknown(_) => {
                Code::ChangesGone
            }
            Self::PositionAwaited { .. } | Self::HandingOver(_) => Code::Busy,
            Self::Standby(_) => Code::Standby,
            Self::RolesUnchanged(_) => Code::Unavailable,
            Self::RolesUnknown(_) => Code::FateUnknown,
            Self::NoChanges => Code::NoChanges,
            Self::NoBackup => Code::NoBackup,
            Self::Rejected(Rejection::Refused(refusal) | Rejection::Replayed(refusal)) => {
                refusal.into()
            }
            Self::Rejected(Rejection::Fault(fault)) => fault.into(),
        }
    }

    /// Returns the body of the answer. Administrators see the names of hosts, users and files in
    /// it; nobody else does.
    pub(crate) fn body(&self, administers: bool) -> ErrorBody {
        let (message, details, hint) = match self {
            Self::Malformed(malformed) => {
                let (message, details, hint) = malformed.texts();
                (cut(message), details.map(cut), hint.map(cut))
            }
            Self::Refused(refused) => {
                let (message, details) = refused.texts();
                let hint = refused.hint().map(str::to_owned);
                (cut(message), details.map(cut), hint)
            }
            Self::TooManyRequests {
                requests_per_second,
                ..
            } => {
                let limit = format!("http.rate_limit_per_second = {requests_per_second}");
                (
                    format!("this client sends too many requests: {limit}"),
                    None,
                    None,
                )
            }
            Self::Unreadable(unreadable) => {
                let (message, details, hint) = unreadable.texts();
                (cut(message), details.map(cut), hint.map(cut))
            }
            Self::ReadTimeout { timeout } => {
                let message = "canceling statement due to statement timeout";
                let limit = format!("http.read_timeout_ms = {}", timeout.as_millis());
                let hint = "Ask for a page (serial_number=gt.X&limit=100), or by a serial number, a \
                            whole name, a free port or a peer: an index serves these.";
                (message.into(), Some(limit), Some(hint.into()))
            }
            Self::Rejected(Rejection::Refused(refusal) | Rejection::Replayed(refusal)) => {
                (refusal.to_string(), refusal.details(), None)
            }
            Self::ChangesGone(oldest) => {
                let details = format!("the oldest position is {oldest}");
                let hint = "Read the state again, and continue after that position";
                let message = "the changes after this position are not kept";
                (message.into(), Some(details), Some(hint.into()))
            }
            Self::PositionUnknown(newest) => {
                let message = "the position of Read-After is not in the history of this store";
                let hint = "It is of another store, or of changes that were lost when a standby was promoted or a \
                            copy restored. Read the state again, without Read-After";
                (message.into(), newest_is(*newest), Some(hint.into()))
            }
            Self::PositionAwaited { timeout, newest } => {
                let limit = format!("http.read_timeout_ms = {}", timeout.as_millis());
                let message =
                    format!("this standby does not have the position of Read-After yet: {limit}");
                let hint = "Try again, or ask the primary, which has it";
                (message, newest_is(*newest), Some(hint.into()))
            }
            Self::NoChanges => ("this store keeps no changes".into(), None, None),
            Self::NoBackup => {
                let details = "the widgets are in a PostgreSQL database";
                let hint = "Use its own means: pg_dump, or pg_basebackup with archived WAL";
                let message = "this service gives no backups".into();
                (message, Some(details.into()), Some(hint.into()))
            }
            Self::Standby(primary) => Self::standby_texts(primary),
            Self::HandingOver(limit) => {
                let message = format!("the primary is handing over to a standby: {limit}");
                let hint = "Try again: nothing was applied";
                (message, None, Some(hint.into()))
            }
            // Only administrators can send this request.
            Self::RolesUnchanged(why) => {
                let message = "the roles of the two stores are as they were";
                (message.into(), Some(why.clone()), None)
            }
            Self::RolesUnknown(what) => {
                let message = "which of the two stores is the primary is not known";
                (message.into(), Some(what.clone()), None)
            }
            Self::HistoryElsewhere(why) => {
                let message =
                    "the two stores do not share a history, or one of them lacks a part of it";
                let hint = "If the standby is to follow this store, empty its data directory: the \
                store is then copied again";
                (message.into(), Some(why.clone()), Some(hint.into()))
            }
            Self::Rejected(Rejection::Fault(fault)) => fault_texts(fault, administers),
        };
        ErrorBody {
            code: self.code().as_str(),
            details,
            hint,
            message,
        }
    }

    /// Returns the fault that the caller met, unless the error is the caller's own.
    pub(crate) fn fault(&self) -> Option<&Fault> {
        match self {
            Self::Rejected(Rejection::Fault(fault)) => Some(fault),
            _ => None,
        }
    }

    pub(crate) fn response(&self, administers: bool) -> Response<Full<Bytes>> {
        let code = self.code();
        let body = match serde_json::to_vec(&self.body(administers)) {
            Ok(body) => body,
            Err(error) => unreachable!("four texts are always JSON: {error}"),
        };
        let mut response = Response::new(Full::from(body));
        *response.status_mut() = code.status();
        let headers = response.headers_mut();
        let json = HeaderValue::from_static("application/json; charset=utf-8");
        headers.insert(header::CONTENT_TYPE, json);
        if let Ok(value) = HeaderValue::try_from(format!("PostgREST; error={}", code.as_str())) {
            headers.insert(HeaderName::from_static("proxy-status"), value);
        }
        match self {
            // Only these errors know when a retry makes sense. A read-only store stays read-only
            // until somebody intervenes, and an operation whose fate is unknown should be looked up
            // before it is repeated: a number there would be invented.
            Self::Rejected(Rejection::Fault(Fault::Busy {
                retry_after_seconds,
                ..
            })) => {
                headers.insert(header::RETRY_AFTER, (*retry_after_seconds).into());
            }
            Self::TooManyRequests {
                retry_after_seconds,
                ..
            } => {
                headers.insert(header::RETRY_AFTER, (*retry_after_seconds).into());
            }
            Self::Malformed(malformed) => {
                if let Some(allowed) = malformed.allowed() {
                    headers.insert(header::ALLOW, HeaderValue::from_static(allowed));
                }
                if matches!(malformed, Malformed::ContentEncoding(_)) {
                    headers.insert(
                        header::ACCEPT_ENCODING,
                        HeaderValue::from_static("identity"),
                    );
                }
            }
            Self::PositionAwaited { .. } | Self::HandingOver(_) => {
                headers.insert(header::RETRY_AFTER, STANDBY_RETRY_AFTER);
            }
            Self::Refused(Refused::KeysUnfetched | Refused::KeysAwaited) => {
                headers.insert(header::RETRY_AFTER, KEYS_RETRY_AFTER);
            }
            Self::Refused(refused) => {
                if let Some(challenge) = refused.challenge() {
                    headers.insert(header::WWW_AUTHENTICATE, challenge);
                }
            }
            Self::Rejected(Rejection::Refused(Refusal::KeyInUse)) => {
                headers.insert(header::RETRY_AFTER, KEY_RETRY_AFTER);
            }
            Self::Rejected(Rejection::Replayed(_)) => {
                headers.insert(idempotency::REPLAYED, idempotency::TRUE);
            }
            Self::Unreadable(Unreadable::Range {
                total: Some(total), ..
            }) => {
                if let Ok(range) = HeaderValue::try_from(format!("*/{total}")) {
                    headers.insert(header::CONTENT_RANGE, range);
                }
            }
            Self::Unreadable(_)
            | Self::ReadTimeout { .. }
            | Self::Rejected(_)
            | Self::ChangesGone(_)
            | Self::PositionUnknown(_)
            | Self::Standby(_)
            | Self::RolesUnchanged(_)
            | Self::RolesUnknown(_)
            | Self::HistoryElsewhere(_)
            | Self::NoChanges
            | Self::NoBackup => {}
        }
        response
    }
}

/// Returns message, details and hint for a value with a syntax error.
fn unparsed(
    place: &str,
    name: &str,
    value: &str,
    must: &str,
) -> (String, Option<String>, Option<String>) {
    let message = format!("\"failed to parse {name} ({value})\" (line 1, column 1)");
    (message, Some(format!("{place} \"{name}\": {must}")), None)
}

fn body_too_large(bytes_max: usize, announced: Option<usize>) -> String {
    let given = announced.map_or(String::new(), |bytes| format!(", {bytes} were given"));
    format!("the body must be at most {bytes_max} bytes long{given}")
}

/// Returns message, details and hint for a text that names no port type. The message is
/// PostgreSQL's.
pub(crate) fn port_unknown(
    given: &str,
    argument: Option<&str>,
) -> (String, Option<String>, Option<String>) {
    let given = given.into();
    let message = Refusal::PortUnknown { given }.to_string();
    let place = argument.map_or(String::new(), |name| format!("argument \"{name}\": "));
    let ports = Port::ALL.map(Port::as_str).join(", ");
    let details = format!("{place}the port types are {ports}");
    (message, Some(details), None)
}

fn newest_is(newest: Option<Position>) -> Option<String> {
    newest.map(|newest| format!("the newest position here is {newest}"))
}

/// Returns message, details and hint: what happened, without names that only the operator may see.
fn fault_texts(fault: &Fault, administers: bool) -> (String, Option<String>, Option<String>) {
    let (message, reason) = match fault {
        Fault::Busy { .. } => return (fault.to_string(), None, None),
        Fault::Unavailable { reason } => ("the store accepts no operations", reason),
        Fault::FateUnknown { reason } => ("the operation may or may not have been applied", reason),
    };
    let details = reason.details().filter(|_| administers).map(str::to_owned);
    (format!("{message}: {}", reason.public()), details, None)
}

impl Malformed {
    fn code(&self) -> Code {
        match self {
            Self::Head(_) => Code::Head,
            Self::Expectation => Code::Expectation,
            Self::Misdirected => Code::Misdirected,
            Self::QueryParameter { .. }
            | Self::ParameterValue { .. }
            | Self::HeaderValue { .. }
            | Self::ReplicationQuery(_) => Code::QueryParameter,
            Self::OperationMethod(_) => Code::OperationMethod,
            Self::Body(_) | Self::ContentType(_) => Code::Body,
            Self::ContentEncoding(_) => Code::ContentEncoding,
            Self::BodyTooLarge { .. } => Code::BodyTooLarge,
            Self::BodyTimeout { .. } => Code::BodyTimeout,
            Self::Schema(_) => Code::Schema,
            Self::MediaType(_) => Code::MediaType,
            Self::Method { .. } => Code::Method,
            Self::Preferences(_) => Code::Preferences,
            Self::Path { .. } => Code::Path,
            Self::PathEncoding => Code::PathEncoding,
            Self::MaxAffected => Code::MaxAffected,
            Self::Function(_) => Code::Function,
            Self::Table(_) => Code::Table,
            Self::ReadOnlyTransaction(_) => Code::ReadOnlyTransaction,
            Self::WrongType { .. } | Self::Port { .. } => Code::InvalidText,
            Self::IdempotencyKey(_) => Code::IdempotencyKey,
        }
    }

    /// Returns the methods that the path allows, if the method is the error (RFC 9110, 15.5.6).
    fn allowed(&self) -> Option<&'static str> {
        match self {
            Self::OperationMethod(_) | Self::ReadOnlyTransaction(_) => Some("OPTIONS,POST"),
            Self::Method { allowed, .. } => Some(allowed),
            _ => None,
        }
    }

    /// Returns message, details and hint.
    fn texts(&self) -> (String, Option<String>, Option<String>) {
        let message: Cow<'static, str> = match self {
            Self::QueryParameter { name, value } => {
                let message = format!("\"failed to parse filter ({value})\" (line 1, column 1)");
                let details =
                    format!("query parameter \"{name}\" is unknown: arguments belong in the body");
                return (message, Some(details), None);
            }
            Self::Head(defect) => format!("the request is not valid HTTP: {defect}").into(),
            Self::Expectation => "Expect can only be 100-continue".into(),
            Self::Misdirected => {
                let message = "Host must be a name or an address of this machine, such as \
                localhost: the service admits callers without a token";
                let hint = "Name it in http.cors_origins, as in http://name:port, or demand tokens \
                from everyone: set auth.jwt_secret_file and no auth.anonymous_role";
                return (message.into(), None, Some(hint.into()));
            }
            Self::ContentType(given) => {
                let message = match given {
                    Some(given) => format!("Content-Type not acceptable: {given}"),
                    None => "Content-Type is missing: a web page must send it".into(),
                };
                return (message, None, Some(JSON_HINT.into()));
            }
            Self::ContentEncoding(given) => {
                format!("Content-Encoding not acceptable: {given}").into()
            }
            Self::OperationMethod(method) => {
                format!("Cannot use the {method} method on RPC").into()
            }
            Self::Body(message) => message.clone(),
            Self::BodyTooLarge {
                bytes_max,
                announced,
            } => body_too_large(*bytes_max, *announced).into(),
            Self::BodyTimeout { timeout } => format!(
                "the body took longer to arrive than http.request_timeout_ms = {}",
                timeout.as_millis()
            )
            .into(),
            Self::Schema(name) => {
                let exposed = SCHEMAS.join(", ");
                let hint = format!("Only the following schemas are exposed: {exposed}");
                return (format!("Invalid schema: {name}"), None, Some(hint));
            }
            Self::MediaType(accepted) => {
                format!("None of these media types are available: {accepted}").into()
            }
            Self::Method { given, .. } => format!("Unsupported HTTP method: {given}").into(),
            Self::Preferences(unknown) => {
                let details = format!("Invalid preferences: {}", unknown.join(", "));
                let message = "Invalid preferences given with handling=strict";
                return (message.into(), Some(details), None);
            }
            Self::Path { details } => {
                let message = "Invalid path specified in request URL";
                return (message.into(), details.map(str::to_owned), None);
            }
            Self::PathEncoding => {
                let message = "Invalid path specified in request URL";
                let details = "a % must be followed by two hexadecimal digits";
                return (message.into(), Some(details.into()), None);
            }
            Self::ParameterValue { name, value, must } => {
                return unparsed("query parameter", name, value, must);
            }
            Self::HeaderValue { name, value, must } => {
                return unparsed("header", name, value, must);
            }
            Self::Port { field, given } => return port_unknown(given, Some(field)),
            Self::ReplicationQuery(must) => {
                let message = "\"failed to parse the query of a standby\" (line 1, column 1)";
                return (message.into(), Some(must.clone()), None);
            }
            Self::IdempotencyKey(defect) => format!("Idempotency-Key {defect}").into(),
            Self::MaxAffected => {
                "Function must return SETOF or TABLE when max-affected preference \
                                  is used with handling=strict"
                    .into()
            }
            Self::Function(no_function) => return no_function.texts(),
            Self::Table(name) => {
                let schema = SCHEMAS[0];
                format!("Could not find the table '{schema}.{name}' in the schema cache").into()
            }
            Self::ReadOnlyTransaction(operation) => {
                let statement = match operation {
                    Operation::AddWidget => "INSERT",
                    Operation::RemoveWidget => "DELETE",
                    Operation::AssociateWidgets | Operation::RemoveAssociation => "UPDATE",
                };
                format!("cannot execute {statement} in a read-only transaction").into()
            }
            Self::WrongType { field, expected } => {
                format!("argument \"{field}\" must be {expected}").into()
            }
        };
        (message.into_owned(), None, None)
    }
}

/// The maximum length, as JSON, of a text that quotes its request. Over HTTP/2 a client can repeat
/// a long header with a few bytes; without the limit, the answer could be a thousand times as long
/// as the request.
const ECHO_BYTES_MAX: usize = 1024;

fn cut(mut text: String) -> String {
    let mut bytes = 0;
    let mut fits = |(_, character): &(usize, char)| {
        bytes += match character {
            '"' | '\\' => 2,
            '\0'..' ' => r"\u0000".len(),
            other => other.len_utf8(),
        };
        bytes <= ECHO_BYTES_MAX
    };
    // Cut before the first character that does not fit.
    if let Some((end, _)) = text.char_indices().find(|each| !fits(each)) {
        text.truncate(end);
        text.push('…');
    }
    text
}

impl NoFunction {
    fn texts(&self) -> (String, Option<String>, Option<String>) {
        let Self { function, given } = self;
        let schema = SCHEMAS[0];
        let (call, with) = match given {
            Given::Unnamed(kind) => (
                String::new(),
                format!("with a single unnamed {kind} parameter"),
            ),
            Given::Json(names) | Given::Query(names) => {
                let list = names.join(", ");
                let (call, with) = match names.len() {
                    0 => (" without parameters".into(), "without parameters".into()),
                    1 => (format!("({list})"), format!("with parameter {list}")),
                    _ => (format!("({list})"), format!("with parameters {list}")),
                };
                match given {
                    Given::Json(_) => {
                        let or = " or with a single unnamed json/jsonb parameter";
                        (call, with + or)
                    }
                    _ => (call, with),
                }
            }
        };
        let message =
            format!("Could not find the function {schema}.{function}{call} in the schema cache");
        let details = format!(
            "Searched for the function {schema}.{function} {with}, but no matches were found in \
             the schema cache."
        );
        let hint = self
            .nearest()
            .map(|nearest| format!("Perhaps you meant to call the function {schema}.{nearest}"));
        (message, Some(details), hint)
    }

    /// Returns the call that the client probably meant.
    fn nearest(&self) -> Option<String> {
        let Self { function, given } = self;
        let (Given::Json(names) | Given::Query(names)) = given else {
            return None;
        };
        match Operation::ALL.iter().find(|each| each.as_str() == function) {
            None => {
                let known = Operation::ALL.map(Operation::as_str);
                hint::nearest(function, &known, hint::FUNCTION_SCORE_MIN).map(str::to_owned)
            }
            Some(&operation) => {
                let list = format!("({})", names.join(", "));
                let known = format!("({})", signature::names(operation).join(", "));
                hint::nearest(&list, &[&known], hint::ARGUMENTS_SCORE_MIN)?;
                Some(format!("{function}{known}"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_text_echoed_in_errors_is_truncated() {
        let exact = "x".repeat(ECHO_BYTES_MAX);
        assert_eq!(cut(exact.clone()), exact);
        for (character, fit) in [
            ("x", 1024),
            ("é", 512),
            ("\0", 170),
            ("\"", 512),
            ("\\", 512),
        ] {
            let text = cut(character.repeat(5000));
            assert_eq!(text, character.repeat(fit) + "…", "{character:?}");
        }
        let table = Malformed::Table("\0".repeat(10_000));
        let answer = serde_json::to_string(&Error::from(table).body(false)).expect("JSON");
        assert!(answer.len() < 3 * ECHO_BYTES_MAX, "{}", answer.len());
    }
}
