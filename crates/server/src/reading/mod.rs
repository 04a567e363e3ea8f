//! The syntax of lists: PostgREST's query language, and its meaning in [`query`].
//!
//! Only this module knows the syntax. Every parameter is either understood or refused, never
//! ignored.

mod filter;
mod parameters;
mod render;
mod select;
mod text;

pub(crate) use filter::OPERATORS;
pub(crate) use parameters::{backup, list, lookup, neighbourhood};
pub(crate) use render::{Format, neighbourhood_body, rows};
pub(crate) use select::Selected;

use crate::{Code, SCHEMAS, error::port_unknown, making::TooLong};
use widgets_registry::{
    Port,
    query::{Column, Table},
};

/// Why a request to read is refused. The texts are PostgREST's where it has one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Unreadable {
    /// PGRST100: a syntax error in a parameter.
    Syntax {
        /// What the parameter should be: filter, logic tree, order, select parameter.
        kind: &'static str,
        given: String,
        /// The column of the error, from 1.
        column: usize,
        details: String,
    },
    /// PGRST100: there is no such parameter, or the query as a whole is wrong.
    Parameter { name: String, details: String },
    /// 42703: the table has no such column.
    Column { table: Table, name: String },
    /// 22P02: the column's type has no such value.
    Value {
        kind: &'static str,
        given: String,
        details: Option<String>,
    },
    /// 22P02, in the words of an operation.
    Port(String),
    /// PGRST200: the request asks to embed something.
    Embedding { table: Table, name: String },
    /// WG010: that order is not available.
    Order { table: Table, given: String },
    /// PGRST103: the range cannot select any rows.
    Range { details: String, total: Option<u64> },
    /// PGRST116: the number of rows is not one.
    NotSingular { rows: usize },
    /// WG011: the rows exceed the maximum size of an answer.
    TooLong { bytes_max: usize },
    /// WG007: a number is outside its limits.
    Limit {
        name: &'static str,
        least: u64,
        most: u64,
        given: String,
    },
}

impl From<TooLong> for Unreadable {
    fn from(TooLong(bytes_max): TooLong) -> Self {
        Self::TooLong { bytes_max }
    }
}

impl Unreadable {
    pub(crate) fn code(&self) -> Code {
        match self {
            Self::Syntax { .. } | Self::Parameter { .. } => Code::QueryParameter,
            Self::Column { .. } => Code::ColumnUnknown,
            Self::Value { .. } | Self::Port(_) => Code::InvalidText,
            Self::Embedding { .. } => Code::Embedding,
            Self::Order { .. } => Code::Order,
            Self::Range { .. } => Code::Range,
            Self::NotSingular { .. } => Code::NotSingular,
            Self::TooLong { .. } => Code::AnswerTooLong,
            Self::Limit { .. } => Code::FieldLimit,
        }
    }

    /// Returns message, details and hint.
    pub(crate) fn texts(&self) -> (String, Option<String>, Option<String>) {
        let schema = SCHEMAS[0];
        match self {
            Self::Syntax {
                kind,
                given,
                column,
                details,
            } => {
                let message =
                    format!("\"failed to parse {kind} ({given})\" (line 1, column {column})");
                (message, Some(details.clone()), None)
            }
            Self::Parameter { name, details } => {
                let message = format!("\"failed to parse parameter ({name})\" (line 1, column 1)");
                (message, Some(details.clone()), None)
            }
            Self::Column { table, name } => {
                let columns: Vec<&str> = table.columns().iter().map(|each| each.as_str()).collect();
                let details = format!("{} has the columns {}", table.as_str(), columns.join(", "));
                let message = format!("column {}.{name} does not exist", table.as_str());
                (message, Some(details), None)
            }
            Self::Value {
                kind,
                given,
                details,
            } => {
                let message = format!("invalid input syntax for type {kind}: \"{given}\"");
                (message, details.clone(), None)
            }
            Self::Port(given) => port_unknown(given, None),
            Self::Embedding { table, name } => {
                let table = table.as_str();
                let message = format!(
                    "Could not find a relationship between '{table}' and '{name}' in the schema cache"
                );
                let details = format!(
                    "Searched for a foreign key relationship between '{table}' and '{name}' in the \
                     schema '{schema}', but no matches were found."
                );
                let hint = "slots is a column of widgets: select=slots shows them with their peers";
                (message, Some(details), Some(hint.into()))
            }
            Self::Order { table, given } => {
                let columns: Vec<&str> = table.order().iter().map(|each| each.as_str()).collect();
                let columns = columns.join(",");
                let message = format!(
                    "{} can be ordered by {columns} only, ascending or descending: {given} was given",
                    table.as_str()
                );
                (message, None, None)
            }
            Self::Range { details, .. } => {
                let message = "Requested range not satisfiable";
                (message.into(), Some(details.clone()), None)
            }
            Self::NotSingular { rows } => {
                let message = "Cannot coerce the result to a single JSON object";
                let details = format!("The result contains {rows} rows");
                (message.into(), Some(details), None)
            }
            Self::TooLong { bytes_max } => {
                let details = format!(
                    "an answer has at most {bytes_max} bytes, a sixteenth of http.unread_bytes_max"
                );
                let hint = "Ask for fewer at a time (limit=100, widgets_max=100), or for fewer columns \
                            (select=serial_number)";
                let message = "these rows are longer than an answer may be";
                (message.into(), Some(details), Some(hint.into()))
            }
            Self::Limit {
                name,
                least,
                most,
                given,
            } => {
                let message = format!("{name} must be {least} to {most}, {given} was given");
                (message, None, None)
            }
        }
    }
}

/// Returns the column of this name.
fn column(table: Table, name: &str) -> Result<Column, Unreadable> {
    table.column(name).ok_or_else(|| Unreadable::Column {
        table,
        name: name.to_owned(),
    })
}

fn port(text: &str) -> Result<Port, Unreadable> {
    Port::parse(text).map_err(|_| Unreadable::Port(text.to_owned()))
}

#[cfg(test)]
mod tests;
