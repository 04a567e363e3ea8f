//! The reasons why a store cannot be opened or a schema cannot be migrated.

use std::{borrow::Cow, error::Error as _, io};
use widgets_registry::{Fault, Reason};

/// Why the database cannot be used. The texts never contain a password.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The URL of the database is malformed or cannot be used.
    #[error("the URL of the database {defect}")]
    Url {
        /// What is wrong with the URL. It does not quote the URL, which may contain a password.
        defect: String,
    },
    /// A setting is out of its range.
    #[error("{setting} must be {limit}, {given} was given")]
    Setting {
        /// The setting's name.
        setting: &'static str,
        /// The range of valid values.
        limit: String,
        /// The value that was given.
        given: u64,
    },
    /// TLS cannot be set up, usually because of a certificate file.
    #[error(transparent)]
    Tls(#[from] widgets_tls::Error),
    /// The operating system reported an error.
    #[error("{what}: {source}")]
    Io {
        /// What was attempted.
        what: &'static str,
        /// The operating system's error.
        source: io::Error,
    },
    /// No connection could be established.
    #[error("connecting to {target}: {reason}")]
    Connect {
        /// Host, port and database.
        target: String,
        /// What failed.
        reason: String,
    },
    /// This program cannot work with the schema.
    #[error("{0}")]
    Schema(String),
    /// The database refused a statement.
    #[error("{what}: {reason}")]
    Statement {
        /// What was attempted.
        what: String,
        /// The database's message.
        reason: String,
    },
}

impl OpenError {
    /// Returns the reason that a request gets when it meets this error.
    pub(crate) fn reason(&self) -> Reason {
        let public = match self {
            Self::Connect { .. } | Self::Io { .. } => "the database cannot be reached",
            Self::Schema(_) => "the database has another schema than this version works with",
            Self::Url { .. } | Self::Setting { .. } | Self::Tls(_) | Self::Statement { .. } => {
                "the database cannot be used"
            }
        };
        Reason::new(public, self.to_string())
    }
}

/// Returns a fault that says that nothing was applied. Only the operator sees `details`, the
/// database's message.
pub(crate) fn unavailable(public: &'static str, details: impl Into<String>) -> Fault {
    Fault::Unavailable {
        reason: Reason::new(public, details),
    }
}

/// The maximum length in bytes of each text from a database that we log or report, because each may
/// be megabytes long.
const TOLD_MAX: usize = 1024;

/// Truncates a text from a database to [`TOLD_MAX`] bytes.
pub(crate) fn cut(text: &str) -> Cow<'_, str> {
    if text.len() <= TOLD_MAX {
        return text.into();
    }
    format!("{}…", &text[..text.floor_char_boundary(TOLD_MAX)]).into()
}

/// Describes an error with its whole chain of causes, because the outermost text alone ("db error")
/// says nothing.
pub(crate) fn reason(error: &tokio_postgres::Error) -> String {
    if let Some(error) = error.as_db_error() {
        let mut text = format!("{} ({})", cut(error.message()), cut(error.code().code()));
        for more in [error.detail(), error.hint()].into_iter().flatten() {
            text.push_str("; ");
            text.push_str(&cut(more));
        }
        return text;
    }
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let more = widgets_tls::text(error);
        if !text.ends_with(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        source = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_messages_of_the_database_are_truncated() {
        assert_eq!(cut("no such role"), "no such role");
        let told = cut(&"é".repeat(50 << 20)).into_owned();
        assert!(
            told.len() <= TOLD_MAX + 3 && told.ends_with("é…"),
            "{}",
            told.len()
        );
    }
}
