//! Why a store cannot be opened or a schema not migrated.

use std::{borrow::Cow, error::Error as _, io};
use widgets_registry::{Fault, Reason};

/// Why the database cannot be used. Texts never hold a password.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The URL of the database is not understood.
    #[error("the URL of the database {defect}")]
    Url {
        /// What is wrong with it, without its text, which may hold a password.
        defect: String,
    },
    /// A setting is out of its range.
    #[error("{setting} must be {limit}, {given} was given")]
    Setting {
        /// The setting's name.
        setting: &'static str,
        /// Its range.
        limit: String,
        /// What was given.
        given: u64,
    },
    /// TLS cannot be set up, mostly because of a file of certificates.
    #[error(transparent)]
    Tls(#[from] widgets_tls::Error),
    /// The operating system failed.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// What the operating system said.
        source: io::Error,
    },
    /// No connection could be made.
    #[error("connecting to {target}: {reason}")]
    Connect {
        /// Host, port and database.
        target: String,
        /// What failed.
        reason: String,
    },
    /// The schema is not the one that this program works with.
    #[error("{0}")]
    Schema(String),
    /// The database refused a statement.
    #[error("{what}: {reason}")]
    Statement {
        /// What was tried.
        what: String,
        /// What the database said.
        reason: String,
    },
}

impl OpenError {
    /// What happened, for the requests that meet it.
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

/// Nothing was applied. What the database said is for the operator alone.
pub(crate) fn unavailable(public: &'static str, details: impl Into<String>) -> Fault {
    Fault::Unavailable {
        reason: Reason::new(public, details),
    }
}

/// So many bytes of each text of a database are told: it may say megabytes, each time.
const TOLD_MAX: usize = 1024;

/// The beginning of what a database says, where it says much.
pub(crate) fn cut(text: &str) -> Cow<'_, str> {
    if text.len() <= TOLD_MAX {
        return text.into();
    }
    format!("{}…", &text[..text.floor_char_boundary(TOLD_MAX)]).into()
}

/// What went wrong, to the end of the chain: the outermost text alone ("db error") says nothing.
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
        let more = error.to_string();
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
    fn what_a_database_says_at_length_is_cut() {
        assert_eq!(cut("no such role"), "no such role");
        let told = cut(&"é".repeat(50 << 20)).into_owned();
        assert!(
            told.len() <= TOLD_MAX + 3 && told.ends_with("é…"),
            "{}",
            told.len()
        );
    }
}
