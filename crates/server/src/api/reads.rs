//! Requests that read: their methods, their permissions, and their parameters.

use super::{Answer, Wanted};
use crate::{
    auth::{Access, Object, Permission, Sender},
    backup, changes,
    error::{Error, Malformed},
    negotiation, reading,
    responses::{empty, options},
};
use http_body_util::Full;
use hyper::{Method, Response, StatusCode, body::Bytes, http::request::Parts};
use widgets_registry::SerialNumber;

pub(super) fn read_changes(sender: &Sender, head: &Parts) -> Result<Wanted, Error> {
    negotiation::check_profile(&head.method, &head.headers)?;
    if let Some(answer) = check_reads(head)? {
        return Ok(Wanted::Answer(answer));
    }
    let access = sender.access;
    access.require(Permission::Read, Object::Changes)?;
    let mut asked = changes::Asked::read(head.uri.query(), &head.headers)?;
    asked.ends = sender.ends;
    Ok(Wanted::Changes(asked))
}

/// Checks a request for a backup, which only GET begins.
pub(super) fn read_backup(access: Access, head: &Parts) -> Result<Wanted, Error> {
    if let Some(answer) = check_reads(head)? {
        return Ok(Wanted::Answer(answer));
    }
    access.require(Permission::Admin, Object::Backup)?;
    reading::backup(head.uri.query().unwrap_or_default())?;
    if head.method == Method::HEAD {
        let mut answer = empty(StatusCode::OK);
        backup::headers(answer.headers_mut());
        return Ok(Wanted::Answer(answer));
    }
    Ok(Wanted::Backup)
}

/// Checks a request that shows widgets, and then returns what it wants.
pub(super) fn read(
    access: Access,
    head: &Parts,
    wanted: impl FnOnce() -> Result<Wanted, Error>,
) -> Result<Wanted, Error> {
    negotiation::check_profile(&head.method, &head.headers)?;
    if let Some(answer) = check_reads(head)? {
        return Ok(Wanted::Answer(answer));
    }
    access.require(Permission::Read, Object::Widgets)?;
    wanted()
}

pub(super) fn read_widget(
    serial_number: &str,
    access: Access,
    head: &Parts,
) -> Result<Wanted, Error> {
    read(access, head, || {
        reading::lookup(head.uri.query().unwrap_or_default())?;
        negotiation::media_type(&head.headers, &["application/json"])?;
        let serial_number = SerialNumber::new("serial_number", serial_number)?;
        Ok(Wanted::Widget(serial_number))
    })
}

/// Answers a probe, which is only read and has neither a profile nor a choice of media types.
pub(super) fn probe(head: &Parts, answer: impl FnOnce() -> Answer) -> Answer {
    match check_reads(head)? {
        Some(options) => Ok(options),
        None => answer(),
    }
}

/// Lets GET and HEAD pass, answers OPTIONS, and refuses other methods.
pub(super) fn check_reads(head: &Parts) -> Result<Option<Response<Full<Bytes>>>, Malformed> {
    check_reads_beside(head, "OPTIONS,GET,HEAD")
}

/// Does the same for a path with other methods, which were handled before. `allowed` lists all of
/// them.
pub(super) fn check_reads_beside(
    head: &Parts,
    allowed: &'static str,
) -> Result<Option<Response<Full<Bytes>>>, Malformed> {
    match head.method {
        Method::GET | Method::HEAD => Ok(None),
        Method::OPTIONS => Ok(Some(options(allowed))),
        _ => {
            let given = head.method.clone();
            Err(Malformed::Method { given, allowed })
        }
    }
}

/// Answers which methods exist at all. Nothing else can be asked of the service itself.
pub(super) fn service(head: &Parts) -> Result<Response<Full<Bytes>>, Malformed> {
    if head.method == Method::OPTIONS {
        return Ok(options("OPTIONS,GET,HEAD,POST"));
    }
    Err(Malformed::Path { details: None })
}

/// Returns the first error of a request for a table that does not exist.
pub(super) fn table(name: &str, head: &Parts) -> Malformed {
    if let Err(malformed) = negotiation::check_profile(&head.method, &head.headers) {
        return malformed;
    }
    match head.method {
        Method::TRACE | Method::CONNECT => Malformed::Method {
            given: head.method.clone(),
            allowed: "OPTIONS,GET,HEAD,POST,PUT,PATCH,DELETE",
        },
        _ => Malformed::Table(name.to_owned()),
    }
}
