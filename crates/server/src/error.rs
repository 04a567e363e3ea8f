//! The one place that gives an outcome its HTTP status, headers and body.

use axum::{
    body::Body,
    http::{HeaderValue, Response, StatusCode, header},
    response::IntoResponse,
};
use serde_json::json;
use widgets_registry::{Fault, Refusal, Rejection};

/// A request that no command could be made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Malformed {
    /// PGRST102: the body is no JSON object, or said not to be JSON.
    Body(String),
    /// 413: the body is longer than the limit.
    BodyTooLarge {
        /// The limit in bytes.
        limit: usize,
    },
    /// PGRST202: no operation of this name takes these arguments.
    NoFunction {
        /// The name in the path.
        function: String,
        /// The arguments given, sorted, each once.
        arguments: Vec<String>,
    },
    /// 22P02: a value of the wrong JSON type.
    WrongType {
        /// The argument.
        field: &'static str,
        /// What it must be.
        expected: &'static str,
    },
    /// PGRST101: not a method of an operation.
    Method(String),
    /// PGRST125: no such path.
    Path,
}

/// Whatever stands in the way of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Error {
    Malformed(Malformed),
    Rejected(Rejection),
}

impl From<Malformed> for Error {
    fn from(malformed: Malformed) -> Self {
        Self::Malformed(malformed)
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

/// The answer's parts, before they are bytes.
struct Answer {
    status: StatusCode,
    code: &'static str,
    message: String,
    details: Option<String>,
    retry_after_seconds: Option<u32>,
}

impl Answer {
    fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            code,
            message: message.into(),
            details: None,
            retry_after_seconds: None,
        }
    }
}

fn malformed(malformed: Malformed) -> Answer {
    match malformed {
        Malformed::Body(message) => Answer::new(StatusCode::BAD_REQUEST, "PGRST102", message),
        Malformed::BodyTooLarge { limit } => {
            let message = format!("the body must be at most {limit} bytes long");
            Answer::new(StatusCode::PAYLOAD_TOO_LARGE, "PGRST102", message)
        }
        Malformed::NoFunction {
            function,
            arguments,
        } => no_function(&function, &arguments),
        Malformed::WrongType { field, expected } => {
            let message = format!("argument \"{field}\" must be {expected}");
            Answer::new(StatusCode::BAD_REQUEST, "22P02", message)
        }
        Malformed::Method(method) => {
            let message = format!("Cannot use the {method} method on RPC");
            Answer::new(StatusCode::METHOD_NOT_ALLOWED, "PGRST101", message)
        }
        Malformed::Path => {
            let message = "Invalid path specified in request URL";
            Answer::new(StatusCode::NOT_FOUND, "PGRST125", message)
        }
    }
}

fn no_function(function: &str, arguments: &[String]) -> Answer {
    let list = arguments.join(", ");
    let (call, with) = match arguments.len() {
        0 => (
            format!("{function} without parameters"),
            "without parameters".to_owned(),
        ),
        1 => (
            format!("{function}({list})"),
            format!("with parameter {list}"),
        ),
        _ => (
            format!("{function}({list})"),
            format!("with parameters {list}"),
        ),
    };
    let message = format!("Could not find the function widgets.{call} in the schema cache");
    let or = " or with a single unnamed json/jsonb parameter";
    let details = format!(
        "Searched for the function widgets.{function} {with}{or}, but no matches were found in the \
         schema cache."
    );
    Answer {
        details: Some(details),
        ..Answer::new(StatusCode::NOT_FOUND, "PGRST202", message)
    }
}

fn refused(refusal: &Refusal) -> Answer {
    let status = match refusal {
        Refusal::SerialNumberTaken { .. }
        | Refusal::NoFreeSlot { .. }
        | Refusal::AlreadyAssociated { .. } => StatusCode::CONFLICT,
        Refusal::WidgetMissing { .. } | Refusal::NotAssociated { .. } => StatusCode::NOT_FOUND,
        Refusal::PortUnknown { .. }
        | Refusal::TooManySlots { .. }
        | Refusal::FieldLimit { .. }
        | Refusal::SelfAssociation { .. }
        | Refusal::Null { .. } => StatusCode::BAD_REQUEST,
    };
    let answer = Answer::new(status, refusal.code(), refusal.to_string());
    Answer {
        details: refusal.details(),
        ..answer
    }
}

fn fault(fault: &Fault) -> Answer {
    let retry_after_seconds = match fault {
        Fault::Busy {
            retry_after_seconds,
            ..
        } => Some(*retry_after_seconds),
        Fault::Unavailable { .. } | Fault::FateUnknown { .. } => None,
    };
    let answer = Answer::new(
        StatusCode::SERVICE_UNAVAILABLE,
        fault.code(),
        fault.to_string(),
    );
    Answer {
        retry_after_seconds,
        ..answer
    }
}

impl IntoResponse for Error {
    fn into_response(self) -> Response<Body> {
        let answer = match self {
            Self::Malformed(kind) => malformed(kind),
            Self::Rejected(Rejection::Refused(refusal)) => refused(&refusal),
            Self::Rejected(Rejection::Fault(kind)) => fault(&kind),
        };
        let Answer {
            status,
            code,
            message,
            details,
            retry_after_seconds,
        } = answer;
        // serde_json keeps the members of a map in alphabetical order, as PostgREST does.
        let body = json!({ "code": code, "details": details, "hint": null, "message": message });
        let mut response = Response::new(Body::from(body.to_string()));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        let json = HeaderValue::from_static("application/json; charset=utf-8");
        headers.insert(header::CONTENT_TYPE, json);
        if let Ok(value) = HeaderValue::try_from(format!("PostgREST; error={code}")) {
            headers.insert("proxy-status", value);
        }
        if let Some(seconds) = retry_after_seconds {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        response
    }
}
