//! Rows as JSON, as CSV, and as one object.

use super::{Selected, Unreadable};
use crate::making::{Pace, TooLong};
use serde::Serialize;
use std::fmt::Write as _;
use widgets_registry::{
    Slot, Widget,
    query::{Column, Neighbourhood, Rows, SlotRow},
};

/// The formats of rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// An array of objects.
    Json,
    /// Lines of fields, the names first (RFC 4180, but lines end with a line feed as in PostgREST).
    Csv,
    /// The only row.
    Object,
}

impl Format {
    /// The available media types. The first is the default.
    pub(crate) const MEDIA_TYPES: [&str; 4] = [
        "application/json",
        "text/csv",
        "application/vnd.pgrst.object+json",
        "application/vnd.pgrst.object",
    ];

    /// Returns the format of one of [`Self::MEDIA_TYPES`].
    pub(crate) fn of(media_type: &str) -> Self {
        match media_type {
            "text/csv" => Self::Csv,
            "application/vnd.pgrst.object+json" | "application/vnd.pgrst.object" => Self::Object,
            _ => Self::Json,
        }
    }

    pub(crate) fn content_type(self) -> &'static str {
        match self {
            Self::Json => "application/json; charset=utf-8",
            Self::Csv => "text/csv; charset=utf-8",
            Self::Object => "application/vnd.pgrst.object+json; charset=utf-8",
        }
    }
}

/// A value in an answer.
enum Shown<'a> {
    Text(&'a str),
    Number(u8),
    Slots(&'a [Slot]),
    Null,
}

trait Columns: Sync {
    fn shown(&self, column: Column) -> Shown<'_>;
}

impl Columns for Widget {
    fn shown(&self, column: Column) -> Shown<'_> {
        match column {
            Column::SerialNumber => Shown::Text(&self.serial_number),
            Column::Name => Shown::Text(&self.name),
            Column::Slots => Shown::Slots(&self.slots),
            _ => Shown::Null,
        }
    }
}

impl Columns for SlotRow {
    fn shown(&self, column: Column) -> Shown<'_> {
        match column {
            Column::WidgetSn => Shown::Text(&self.widget_sn),
            Column::Ordinal => Shown::Number(self.ordinal.get() + 1),
            Column::Port => Shown::Text(self.port.as_str()),
            Column::PeerSn => self.peer_sn.as_deref().map_or(Shown::Null, Shown::Text),
            _ => Shown::Null,
        }
    }
}

/// Returns the body of an answer with these rows.
pub(crate) async fn rows(
    rows: &Rows,
    selected: &[Selected],
    format: Format,
    pace: Pace,
) -> Result<String, Unreadable> {
    match rows {
        Rows::Widgets(rows) => body(rows, selected, format, pace).await,
        Rows::Slots(rows) => body(rows, selected, format, pace).await,
    }
}

async fn body(
    rows: &[impl Columns],
    selected: &[Selected],
    format: Format,
    mut pace: Pace,
) -> Result<String, Unreadable> {
    let mut body = String::new();
    match format {
        Format::Json => {
            body.push('[');
            for (number, row) in rows.iter().enumerate() {
                if number > 0 {
                    body.push(',');
                }
                object(row, selected, &pace, &mut body)?;
                pace.row(body.len()).await?;
            }
            body.push(']');
        }
        Format::Csv => {
            let names = selected.iter().map(|each| each.name.as_str());
            fields(names.map(Shown::Text), &pace, &mut body)?;
            for row in rows {
                body.push('\n');
                let shown = selected.iter().map(|each| row.shown(each.column));
                fields(shown, &pace, &mut body)?;
                pace.row(body.len()).await?;
            }
        }
        Format::Object => match rows {
            [row] => {
                object(row, selected, &pace, &mut body)?;
                pace.row(body.len()).await?;
            }
            _ => return Err(Unreadable::NotSingular { rows: rows.len() }),
        },
    }
    Ok(body)
}

fn object(
    row: &impl Columns,
    selected: &[Selected],
    pace: &Pace,
    body: &mut String,
) -> Result<(), TooLong> {
    body.push('{');
    for (number, each) in selected.iter().enumerate() {
        if number > 0 {
            body.push(',');
        }
        string(&each.name, body);
        body.push(':');
        match row.shown(each.column) {
            Shown::Text(text) => string(text, body),
            Shown::Number(number) => push(format_args!("{number}"), body),
            Shown::Slots(shown) => slots(shown, body),
            Shown::Null => body.push_str("null"),
        }
        pace.check(body.len())?;
    }
    body.push('}');
    Ok(())
}

fn slots(slots: &[Slot], body: &mut String) {
    body.push('[');
    for (number, slot) in slots.iter().enumerate() {
        let comma = if number > 0 { "," } else { "" };
        push(
            format_args!("{comma}{{\"port\":\"{}\",\"peer\":", slot.port),
            body,
        );
        match &slot.peer {
            Some(peer) => string(peer, body),
            None => body.push_str("null"),
        }
        body.push('}');
    }
    body.push(']');
}

fn string(text: &str, body: &mut String) {
    match serde_json::to_string(text) {
        Ok(text) => body.push_str(&text),
        Err(error) => unreachable!("text is always JSON: {error}"),
    }
}

fn push(arguments: std::fmt::Arguments<'_>, body: &mut String) {
    // Writing to a string cannot fail.
    let _ = body.write_fmt(arguments);
}

fn fields<'a>(
    shown: impl Iterator<Item = Shown<'a>>,
    pace: &Pace,
    body: &mut String,
) -> Result<(), TooLong> {
    for (number, each) in shown.enumerate() {
        if number > 0 {
            body.push(',');
        }
        match each {
            Shown::Text(text) => field(text, body),
            Shown::Number(number) => push(format_args!("{number}"), body),
            Shown::Slots(shown) => {
                let mut json = String::new();
                slots(shown, &mut json);
                field(&json, body);
            }
            // Null is an empty field; the empty text is quoted.
            Shown::Null => {}
        }
        pace.check(body.len())?;
    }
    Ok(())
}

fn field(text: &str, body: &mut String) {
    if text.is_empty() || text.contains([',', '"', '\n', '\r']) {
        body.push('"');
        body.push_str(&text.replace('"', "\"\""));
        body.push('"');
    } else {
        body.push_str(text);
    }
}

#[derive(Serialize)]
struct AssociationBody<'a> {
    widget1_sn: &'a str,
    widget2_sn: &'a str,
    port: &'static str,
}

/// Returns the body of an answer with a neighbourhood.
pub(crate) async fn neighbourhood_body(
    shown: &Neighbourhood,
    mut pace: Pace,
) -> Result<Vec<u8>, TooLong> {
    let mut body = br#"{"widgets":["#.to_vec();
    for (number, widget) in shown.widgets.iter().enumerate() {
        element(
            number,
            &crate::responses::WidgetBody::from(widget),
            &mut body,
        );
        pace.row(body.len()).await?;
    }
    body.extend_from_slice(br#"],"associations":["#);
    for (number, each) in shown.associations.iter().enumerate() {
        let association = AssociationBody {
            widget1_sn: &each.widget1_sn,
            widget2_sn: &each.widget2_sn,
            port: each.port.as_str(),
        };
        element(number, &association, &mut body);
        pace.row(body.len()).await?;
    }
    body.extend_from_slice(br#"],"truncated":"#);
    body.extend_from_slice(shown.truncated.to_string().as_bytes());
    body.push(b'}');
    Ok(body)
}

/// Writes an element of an array.
fn element(number: usize, value: &impl Serialize, body: &mut Vec<u8>) {
    if number > 0 {
        body.push(b',');
    }
    if let Err(error) = serde_json::to_writer(body, value) {
        unreachable!("texts are always JSON, and memory takes them: {error}");
    }
}
