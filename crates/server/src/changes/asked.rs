//! Parses requests for changes.

use crate::{
    error::{Error, Malformed},
    negotiation,
};
use hyper::{HeaderMap, header::HeaderName};
use std::time::Duration;
use widgets_registry::{ChangeFilter, Operation, Position, SerialNumber};

/// The maximum number of changes on a page, which is also the default.
pub(crate) const LIMIT_MAX: usize = 1000;

/// How long a page waits at most.
pub(crate) const WAIT_MS_MAX: u64 = 60_000;

/// Why a stream has neither a limit nor a time to wait.
pub(crate) const ONLY_PAGES: &str =
    "it is for pages (Accept: application/json), and a stream has no end";

/// Where a browser names the last event that it received.
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

const JSON: &str = "application/json";
const EVENTS: &str = "text/event-stream";
const LINES: &str = "application/x-ndjson";

/// How changes are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// One array.
    Page,
    /// Server-sent events.
    Events,
    /// JSON Lines.
    Lines,
}

/// Where to begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum After {
    Oldest,
    Now,
    Position(Position),
}

/// A request for changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Asked {
    pub(crate) after: After,
    pub(crate) filter: ChangeFilter,
    pub(crate) limit: usize,
    pub(crate) wait: Duration,
    pub(crate) format: Format,
    /// The second, counted from 1970, from which the sender is no longer authorised. `None` if
    /// there is none.
    pub(crate) ends: Option<i64>,
}

impl Asked {
    /// Parses the query and headers.
    pub(crate) fn read(query: Option<&str>, headers: &HeaderMap) -> Result<Self, Error> {
        let format = match negotiation::media_type(headers, &[JSON, EVENTS, LINES])? {
            EVENTS => Format::Events,
            LINES => Format::Lines,
            _ => Format::Page,
        };
        let mut asked = Self {
            after: After::Oldest,
            filter: ChangeFilter::default(),
            limit: LIMIT_MAX,
            wait: Duration::ZERO,
            format,
            ends: None,
        };
        let mut seen = Vec::new();
        for (name, value) in form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
            if seen.contains(&name) {
                return Err(parameter(&name, &value, "it is given more than once"));
            }
            asked.parameter(&name, &value)?;
            seen.push(name);
        }
        // A browser that reconnects uses the same URL as at first.
        if let Some(last) = headers.get(LAST_EVENT_ID) {
            let text = negotiation::text(last);
            if !text.is_empty() {
                let position = text
                    .parse::<Position>()
                    .map_err(|_| Malformed::HeaderValue {
                        name: "Last-Event-ID",
                        value: text,
                        must: "it must be a position that the service gave out",
                    })?;
                asked.after = After::Position(position);
            }
        }
        Ok(asked)
    }

    fn parameter(&mut self, name: &str, value: &str) -> Result<(), Error> {
        match name {
            "limit" | "wait_ms" if self.format != Format::Page => {
                return Err(parameter(name, value, ONLY_PAGES));
            }
            "after" if value == "now" => self.after = After::Now,
            "after" => self.after = After::Position(position(name, value)?),
            "limit" => {
                let most = LIMIT_MAX as u64;
                let limit = number(name, value, 1, most)?;
                self.limit = usize::try_from(limit).unwrap_or(LIMIT_MAX);
            }
            "wait_ms" => {
                self.wait = Duration::from_millis(number(name, value, 0, WAIT_MS_MAX)?);
            }
            "widget_sn" => {
                let serial_number = value
                    .strip_prefix("eq.")
                    .ok_or_else(|| parameter(name, value, "it must be eq.SERIAL_NUMBER"))?;
                self.filter.widget = Some(SerialNumber::new("widget_sn", serial_number)?);
            }
            "operation" => self.filter.operations = Some(operations(name, value)?),
            _ => {
                let known = "the parameters are after, limit, wait_ms, widget_sn and operation";
                return Err(parameter(name, value, known));
            }
        }
        Ok(())
    }
}

fn operations(name: &str, value: &str) -> Result<Vec<Operation>, Error> {
    let list = match (value.strip_prefix("eq."), value.strip_prefix("in.(")) {
        (Some(one), _) => one,
        (None, Some(list)) => list.strip_suffix(')').unwrap_or_default(),
        (None, None) => "",
    };
    let mut operations = Vec::new();
    for word in list.split(',') {
        let word = word.trim_matches('"');
        let operation = Operation::parse(word);
        let Some(operation) = operation else {
            let names = Operation::ALL.map(Operation::as_str).join(",");
            let must = format!("it must be eq.OPERATION or in.(OPERATION,…), of {names}");
            return Err(parameter(name, value, &must));
        };
        operations.push(operation);
    }
    Ok(operations)
}

fn position(name: &str, value: &str) -> Result<Position, Error> {
    let read = value.parse();
    read.map_err(|_| {
        parameter(
            name,
            value,
            "it must be a position that the service gave out, or now",
        )
    })
}

fn number(name: &str, value: &str, least: u64, most: u64) -> Result<u64, Error> {
    let given = value.parse().ok();
    given
        .filter(|given| (least..=most).contains(given))
        .ok_or_else(|| {
            let range = format!("it must be an integer from {least} to {most}");
            parameter(name, value, &range)
        })
}

fn parameter(name: &str, value: &str, must: &str) -> Error {
    Malformed::ParameterValue {
        name: name.to_owned(),
        value: value.to_owned(),
        must: must.to_owned(),
    }
    .into()
}
