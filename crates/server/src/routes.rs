//! Maps paths to what they mean.

use crate::{metrics::Subject, replication::Tell};
use percent_encoding::percent_decode_str;
use std::{borrow::Cow, str::Utf8Error};
use widgets_registry::{Operation, query::Table};

/// The meaning of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Route<'a> {
    /// `/`: the API's document.
    Root,
    /// `/rpc/{function}` of an existing operation.
    Operation(Operation),
    /// `/rpc/{function}` of a function that does not exist.
    UnknownFunction(Cow<'a, str>),
    /// `/widgets/{serial_number}`. No widget has a serial number that is not UTF-8.
    Widget(Result<Cow<'a, str>, Utf8Error>),
    /// `/widgets` and `/slots`
    List(Table),
    /// `/widgets/{serial_number}/neighbourhood`
    Neighbourhood(Result<Cow<'a, str>, Utf8Error>),
    /// `/swagger-ui/{file}`: a file that the page at `/` loads.
    PageFile(&'a str),
    /// `/console`. Its page is one segment further down, so that it can load its files by relative
    /// links.
    Console,
    /// `/console/{file}`: the console for people. Its page has the empty name.
    ConsoleFile(&'a str),
    /// `/changes`
    Changes,
    /// `/live`
    Live,
    /// `/ready`
    Ready,
    /// `/metrics`
    Metrics,
    /// `/backup`
    Backup,
    /// `/replication`: where standbys fetch the store.
    Replication,
    /// `/replication/promote` and the other paths of [`Tell`], which concern the store's role.
    Role(Tell),
    /// Any other single segment: where PostgREST has its tables.
    Table(Cow<'a, str>),
    /// Anything else.
    Invalid,
    /// `*`: the service itself (RFC 9110, 9.3.7).
    Service,
    /// The path has a `%` that is not followed by two hexadecimal digits.
    Undecodable,
}

impl<'a> Route<'a> {
    /// Reports whether a supervisor of the process asks. Everyone may, always.
    pub(crate) fn is_probe(&self) -> bool {
        matches!(self, Self::Live | Self::Ready)
    }

    /// Reports whether anyone may have it. That is true of files of the binary, which a browser
    /// fetches without a token; the data that they show needs one.
    pub(crate) fn is_public(&self) -> bool {
        matches!(self, Self::Console | Self::ConsoleFile(_))
    }

    /// Reports whether its answer can have many rows.
    pub(crate) fn has_many_rows(&self) -> bool {
        matches!(self, Self::List(_) | Self::Neighbourhood(_) | Self::Changes)
    }

    /// Returns its name in the log: the name it is counted under, or its path.
    pub(crate) fn as_str(&self) -> &'static str {
        if let Some(subject) = self.subject() {
            return subject.as_str();
        }
        match self {
            Self::Console | Self::ConsoleFile(_) => "console",
            Self::Live => "live",
            Self::Ready => "ready",
            Self::Metrics => "metrics",
            Self::Backup => "backup",
            Self::Replication | Self::Role(_) => "replication",
            _ => "document",
        }
    }

    /// Returns what its requests are counted as. Documents and probes are not counted, because they
    /// would only blur the measurements. Nor is `HEAD` of an operation: it asks whether the sender
    /// may call the operation, and its refusal refuses nobody anything.
    pub(crate) fn subject(&self) -> Option<Subject> {
        match self {
            Self::Operation(operation) => Some(Subject::Operation(*operation)),
            Self::Widget(_) => Some(Subject::Lookup),
            Self::List(table) => Some(Subject::List(*table)),
            Self::Neighbourhood(_) => Some(Subject::Neighbourhood),
            Self::Changes => Some(Subject::Changes),
            Self::UnknownFunction(_)
            | Self::Table(_)
            | Self::Invalid
            | Self::Service
            | Self::Undecodable => Some(Subject::None),
            Self::Root
            | Self::PageFile(_)
            | Self::Console
            | Self::ConsoleFile(_)
            | Self::Live
            | Self::Ready
            | Self::Metrics
            | Self::Backup
            | Self::Replication
            | Self::Role(_) => None,
        }
    }

    /// Returns the route of a path that begins with a slash. Each segment is percent-decoded.
    pub(crate) fn of(path: &'a str) -> Self {
        // The most frequent requests, as nearly every client writes them.
        let function = path.strip_prefix("/rpc/");
        if let Some(operation) = function.and_then(Operation::parse) {
            return Self::Operation(operation);
        }
        let Some(path) = path.strip_prefix('/') else {
            return if path == "*" {
                Self::Service
            } else {
                Self::Invalid
            };
        };
        if !is_decodable(path) {
            return Self::Undecodable;
        }
        match path.split_once('/') {
            Some(("rpc", function)) if !function.is_empty() && !function.contains('/') => {
                let function = percent_decode_str(function).decode_utf8_lossy();
                match Operation::parse(&function) {
                    Some(operation) => Self::Operation(operation),
                    None => Self::UnknownFunction(function),
                }
            }
            Some(("widgets", rest)) => match rest.split_once('/') {
                None => Self::Widget(percent_decode_str(rest).decode_utf8()),
                Some((serial_number, "neighbourhood")) => {
                    Self::Neighbourhood(percent_decode_str(serial_number).decode_utf8())
                }
                Some(_) => Self::Invalid,
            },
            Some(("swagger-ui", file)) => Self::PageFile(file),
            Some(("console", file)) => Self::ConsoleFile(file),
            Some(("replication", "promote")) => Self::Role(Tell::Promote),
            Some(("replication", "replaced")) => Self::Role(Tell::Replaced),
            Some(("replication", "hand-over")) => Self::Role(Tell::HandOver),
            Some(("replication", "handed-over")) => Self::Role(Tell::HandedOver),
            Some(("replication", "holder")) => Self::Role(Tell::Holder),
            Some(_) => Self::Invalid,
            None => match path {
                "" => Self::Root,
                "console" => Self::Console,
                "changes" => Self::Changes,
                "live" => Self::Live,
                "ready" => Self::Ready,
                "metrics" => Self::Metrics,
                "backup" => Self::Backup,
                "replication" => Self::Replication,
                other => {
                    let name = percent_decode_str(other).decode_utf8_lossy();
                    let named = |each: &Table| each.as_str() == name;
                    match Table::ALL.into_iter().find(named) {
                        Some(table) => Self::List(table),
                        None => Self::Table(name),
                    }
                }
            },
        }
    }
}

/// Reports whether two hexadecimal digits follow each `%`.
pub(crate) fn is_decodable(text: &str) -> bool {
    let escapes = text.as_bytes().split(|&byte| byte == b'%').skip(1);
    let digit = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_hexdigit);
    escapes
        .into_iter()
        .all(|after| digit(after.first()) && digit(after.get(1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_map_to_their_routes() {
        let unknown = |function: &'static str| Route::UnknownFunction(function.into());
        let widget = |serial_number: &'static str| Route::Widget(Ok(serial_number.into()));
        let cases = [
            ("/", Route::Root),
            ("/rpc/add_widget", Route::Operation(Operation::AddWidget)),
            ("/rpc/add%5Fwidget", Route::Operation(Operation::AddWidget)),
            ("/rpc/add_widget/", Route::Invalid),
            ("/rpc/Add_Widget", unknown("Add_Widget")),
            ("/rpc/%C3%A9", unknown("é")),
            ("/rpc/%FF", unknown("\u{fffd}")),
            ("/rpc/", Route::Invalid),
            ("/rpc", Route::Table("rpc".into())),
            ("/widgets/E", widget("E")),
            ("/widgets/a%2Fb+c%20%C3%A9", widget("a/b+c é")),
            ("/widgets/", widget("")),
            ("/widgets/a/b", Route::Invalid),
            ("/widgets/a/neighbours", Route::Invalid),
            (
                "/widgets/a%2Fb/neighbourhood",
                Route::Neighbourhood(Ok("a/b".into())),
            ),
            ("/widgets", Route::List(Table::Widgets)),
            ("/slots", Route::List(Table::Slots)),
            ("/slots/", Route::Invalid),
            ("/associations", Route::Table("associations".into())),
            ("/swagger-ui/start.js", Route::PageFile("start.js")),
            ("/swagger-ui", Route::Table("swagger-ui".into())),
            ("/changes", Route::Changes),
            ("/changes/", Route::Invalid),
            ("/live", Route::Live),
            ("/ready", Route::Ready),
            ("/metrics", Route::Metrics),
            ("/backup", Route::Backup),
            ("/backup/", Route::Invalid),
            ("/replication", Route::Replication),
            ("/replication/promote", Route::Role(Tell::Promote)),
            ("/replication/replaced", Route::Role(Tell::Replaced)),
            ("/replication/hand-over", Route::Role(Tell::HandOver)),
            ("/replication/handed-over", Route::Role(Tell::HandedOver)),
            ("/replication/holder", Route::Role(Tell::Holder)),
            ("/replication/other", Route::Invalid),
            ("/console", Route::Console),
            ("/console/", Route::ConsoleFile("")),
            ("/console/console.js", Route::ConsoleFile("console.js")),
            ("/metrics/", Route::Invalid),
            ("//", Route::Invalid),
            ("", Route::Invalid),
            ("*", Route::Service),
            ("/widgets/%zz", Route::Undecodable),
            ("/widgets/%4", Route::Undecodable),
            ("/rpc/add_widget%", Route::Undecodable),
            ("/%%20", Route::Undecodable),
            ("/a/b%x0", Route::Undecodable),
        ];
        for (path, route) in cases {
            assert_eq!(Route::of(path), route, "{path}");
        }
        assert!(matches!(Route::of("/widgets/%FF"), Route::Widget(Err(_))));
    }
}
