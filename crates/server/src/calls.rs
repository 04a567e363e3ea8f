//! Checks of a call of an operation other than those of its arguments, in PostgREST's order.

use crate::{
    arguments, auth, browsers,
    error::{self, Malformed, NoFunction},
    given::{Given, Head},
    negotiation::{self, OPERATION_MEDIA_TYPES, Preferences},
};
use hyper::{HeaderMap, header, http::request::Parts};
use widgets_registry::Operation;

/// Refuses query parameters: arguments belong in the body, and there is nothing to filter.
/// `select=*` is allowed, because it changes nothing and clients send it.
pub(crate) fn check_query(head: &Parts) -> Result<(), Malformed> {
    let Some(query) = head.uri.query() else {
        return Ok(());
    };
    let stray = |(name, value): &(_, _)| name != "select" || value != "*";
    match form_urlencoded::parse(query.as_bytes()).find(stray) {
        None => Ok(()),
        Some((name, value)) => Err(Malformed::QueryParameter {
            name: name.into_owned(),
            value: value.into_owned(),
        }),
    }
}

/// Returns the names of the query's parameters, sorted and without repetitions.
pub(crate) fn names_in_query(head: &Parts) -> Vec<String> {
    let query = head.uri.query().unwrap_or_default().as_bytes();
    let names = form_urlencoded::parse(query).map(|(name, _)| name.into_owned());
    let mut names: Vec<String> = names.filter(|name| name != "select").collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// Checks that the query names the operation's arguments, so that a GET would call it.
pub(crate) fn check_named_in_query(operation: Operation, head: &Parts) -> Result<(), NoFunction> {
    let names = names_in_query(head);
    if arguments::accepts(operation, &names) {
        return Ok(());
    }
    Err(NoFunction {
        function: operation.as_str().to_owned(),
        given: error::Given::Query(names),
    })
}

/// Checks that the body's media type is JSON or is not declared.
///
/// A form is refused: its values are all text, and turning them into slots would be a coercion,
/// which the API does not do.
pub(crate) fn check_content_type(function: &str, headers: &HeaderMap) -> Result<(), Malformed> {
    let Some(value) = headers.get(header::CONTENT_TYPE) else {
        // Without a media type, a browser sends a page's request to another site without a
        // preflight.
        if browsers::is_page(headers) && !auth::has_token(headers) {
            return Err(Malformed::ContentType(None));
        }
        return Ok(());
    };
    if value == "application/json" {
        return Ok(());
    }
    let given = negotiation::text(value);
    let media_type = given.split(';').next().unwrap_or_default().trim();
    let unnamed = match media_type.to_ascii_lowercase().as_str() {
        "application/json" => return Ok(()),
        "text/plain" => "text",
        "text/xml" => "xml",
        "application/octet-stream" => "bytea",
        _ => return Err(Malformed::ContentType(Some(given))),
    };
    Err(Malformed::Function(NoFunction {
        function: function.to_owned(),
        given: error::Given::Unnamed(unnamed),
    }))
}

/// Checks that the body is not encoded. A small body gains nothing from compression, and a
/// compressed one can expand to any length.
pub(crate) fn check_content_encoding(head: &Head<'_>) -> Result<(), Malformed> {
    if !head.has(Given::CONTENT_ENCODING) {
        return Ok(());
    }
    for value in head.headers.get_all(header::CONTENT_ENCODING) {
        let none = |each: &[u8]| {
            let each = each.trim_ascii();
            each.is_empty() || each.eq_ignore_ascii_case(b"identity")
        };
        if !value.as_bytes().split(|&byte| byte == b',').all(none) {
            return Err(Malformed::ContentEncoding(negotiation::text(value)));
        }
    }
    Ok(())
}

/// Negotiates the media type, then the preferences: the checks between a call's arguments and their
/// values.
pub(crate) fn negotiate(head: &Head<'_>) -> Result<Preferences, Malformed> {
    if head.has(Given::ACCEPT) {
        negotiation::media_type(&head.headers, &OPERATION_MEDIA_TYPES)?;
    }
    if !head.has(Given::PREFER) {
        return Ok(Preferences::default());
    }
    let preferences = Preferences::from_headers(&head.headers);
    preferences.check()?;
    Ok(preferences)
}
